//! Results as the table that a run prints.

use std::fmt::Write;

use kd_runtime::error::Shown;
use kd_runtime::report::text::{grouped, number};

use super::results::{Arm, Comparison, Kept, Results, Score, Size, Summary};

/// A row of the table: what, accuracy, parameters, MACs, bytes.
pub type Row = [String; 5];

/// What stands above the columns of [`rows`].
pub const HEAD: [&str; 5] = ["", "test accuracy", "parameters", "MACs", "model.onnx, bytes"];

/// Teachers, the student alone, the student distilled.
pub fn rows(results: &Results) -> Vec<Row> {
    let mut rows: Vec<Row> =
        results.teachers.iter().map(|t| row(format!("teacher, {}", t.name), one(t.test), t.size)).collect();
    for arm in results.arms.iter().rev() {
        rows.push(row(format!("student {}", arm.about), of_arm(arm, results.keep), arm.size));
    }
    rows
}

fn row(what: String, accuracy: String, size: Size) -> Row {
    [what, accuracy, grouped(size.parameters), grouped(size.macs), grouped(size.bytes)]
}

fn one(score: Score) -> String {
    let (low, high) = score.ci;
    format!("{:.2} % ({:.2} to {:.2})", 100.0 * score.accuracy, 100.0 * low, 100.0 * high)
}

fn of_arm(arm: &Arm, keep: Kept) -> String {
    accuracy(&arm.seeds.iter().map(|run| run.kept(keep)).collect::<Vec<_>>())
}

/// The accuracy of the same network of every seed: with its interval, or of several with its deviation.
pub fn accuracy(scores: &[Score]) -> String {
    match scores {
        [score] => one(*score),
        _ => over_seeds(Summary::of(&scores.iter().map(|score| score.accuracy).collect::<Vec<_>>())),
    }
}

fn over_seeds(summary: Summary) -> String {
    let std = summary.std.map(|std| format!(" ± {:.2}", 100.0 * std)).unwrap_or_default();
    format!("{:.2}{std} % ({} seeds)", 100.0 * summary.mean, summary.n)
}

/// What the comparison says, in lines; none without a comparison.
pub fn sentences(comparison: &Comparison) -> Vec<String> {
    let points = 100.0 * comparison.difference.mean;
    let mut first = format!("distilled - alone: {points:+.2} points");
    if let (Some(std), Some((low, high))) = (comparison.difference.std, comparison.ci) {
        let n = comparison.difference.n;
        let _ = write!(first, " ± {:.2} over {n} seeds", 100.0 * std);
        let _ = write!(first, ", 95 % interval of the mean {:+.2} to {:+.2}", 100.0 * low, 100.0 * high);
    }
    let mut lines = vec![first];
    for pair in &comparison.seeds {
        let (distilled, alone) = (pair.only_distilled, pair.only_alone);
        let p = number(pair.mcnemar_p);
        let counts = format!("only distilled right {distilled}, only alone right {alone}");
        lines.push(format!("seed {}: {counts} of {}; McNemar p = {p}", pair.seed, grouped(pair.n)));
    }
    lines
}

/// Which epoch's networks these are, and by which samples it was chosen.
pub fn epochs(results: &Results) -> String {
    let runs = results.arms.iter().flat_map(|arm| arm.seeds.iter().map(move |run| (arm, run)));
    let chosen =
        runs.map(|(arm, run)| format!("{} seed {}: {} of {}", arm.about, run.seed, run.selected_epoch, run.epochs));
    match (results.keep, &*results.selected_on) {
        (Kept::Last, _) => "networks of the last epoch, as the recipe says (keep)".into(),
        (_, "validation") => {
            let chosen: Vec<String> = chosen.collect();
            format!("networks of the epoch that was best on the validation samples ({})", chosen.join(", "))
        }
        (_, "") => "networks of the selected epoch".into(),
        _ => "networks of the last epoch: there are no validation samples to choose one by".into(),
    }
}

/// Replicas and exits of each seed, in lines.
pub fn parts(results: &Results) -> Vec<String> {
    let mut lines = Vec::new();
    let percent = |score: &Score| format!("{:.2} %", 100.0 * score.accuracy);
    for run in results.arms.iter().flat_map(|arm| &arm.seeds) {
        if let Some(replicas) = &run.replicas {
            let differ = replicas.archs.iter().any(|arch| *arch != replicas.archs[0]);
            let arch = |i: usize| replicas.archs.get(i).filter(|_| differ).map(|arch| format!(" ({arch})"));
            let each = replicas.each.iter().enumerate();
            let each: Vec<String> = each.map(|(i, score)| percent(score) + &arch(i).unwrap_or_default()).collect();
            let (churn, together) = (100.0 * replicas.churn, percent(&replicas.ensemble));
            lines.push(format!(
                "seed {}: replicas {} (the student is number {}), together {together}, churn {churn:.2} %",
                run.seed,
                each.join(", "),
                replicas.chosen
            ));
            let alone = results.arms.iter().filter(|arm| arm.about == "alone").flat_map(|arm| &arm.seeds);
            let alone = alone.filter(|alone| alone.seed == run.seed).map(|alone| format!(" ({} alone)", alone.steps));
            lines.push(format!(
                "seed {}: steps of each replica {}{}; training all of them costs {} times the student alone",
                run.seed,
                grouped(run.steps as u64),
                alone.collect::<String>(),
                number(replicas.compute)
            ));
        }
        let Some(exits) = &run.exits else { continue };
        for exit in &exits.each {
            let (accuracy, macs) = (percent(&exit.score), grouped(exit.size.macs));
            let parameters = grouped(exit.size.parameters);
            lines.push(format!("seed {}: {} {accuracy}, {parameters} parameters, {macs} MACs", run.seed, exit.name));
        }
        let together = percent(&exits.together);
        let early = exits.chosen_early().map(|early| {
            let (accuracy, macs) = (percent(&early.score), grouped(early.mean_macs.round() as u64));
            let sure = early.confidence;
            format!("; leaving at the first one that is {sure} sure (chosen on validation) {accuracy}, {macs} MACs on average")
        });
        lines.push(format!("seed {}: all exits together {together}{}", run.seed, early.unwrap_or_default()));
    }
    lines
}

/// The text of results; the interval behind an accuracy is that of 95 %.
pub fn render(results: &Results) -> String {
    let rows = rows(results);
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([HEAD[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..HEAD.len()).map(width).collect();
    let head = HEAD.map(str::to_string);
    let mut text = String::new();
    for row in [&head].into_iter().chain(&rows) {
        let (what, wide) = (Shown(&row[0]).to_string(), widths[0]);
        let _ = write!(text, "{what:wide$}");
        for (cell, wide) in row.iter().zip(&widths).skip(1) {
            let _ = write!(text, "  {cell:>wide$}");
        }
        text.push('\n');
    }
    let lines = std::iter::once(epochs(results)).chain(parts(results));
    for line in lines.chain(results.comparison.iter().flat_map(sentences)) {
        text.push_str(&line);
        text.push('\n');
    }
    text
}
