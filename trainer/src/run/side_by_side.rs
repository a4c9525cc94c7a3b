//! Exits and replicas side by side, what leaving early costs, and how soft teachers are: parts of `report.html`.

use std::fmt::Write;

use kd_runtime::report::text::{grouped, number};

use super::plot::{Series, bars, escape, legend, lines};
use super::results::{Arm, Early, Exits, Kept, Replicas, Results, Score, SeedRun, Size};
use super::table;

/// What stands above the columns of networks side by side.
const HEAD: [&str; 5] = ["", "test accuracy", "ECE", "parameters", "MACs"];

/// A network, or several that answer together, in every seed.
struct Part {
    name: String,
    scores: Vec<Score>,
    /// Expected calibration errors, where they are known.
    ece: Vec<f64>,
    size: Option<Size>,
    /// Of a sample, where there is no one size.
    macs: Option<f64>,
}

impl Part {
    fn new(name: impl Into<String>, scores: Vec<Score>) -> Self {
        Self { name: name.into(), scores, ece: Vec::new(), size: None, macs: None }
    }

    fn cells(&self) -> [String; 5] {
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len().max(1) as f64;
        let ece = if self.ece.is_empty() { String::new() } else { format!("{:.2} %", 100.0 * mean(&self.ece)) };
        let of_size = |of: fn(Size) -> u64| self.size.map(|size| grouped(of(size)));
        let macs = self.macs.map(|macs| format!("{} (mean)", grouped(macs.round() as u64)));
        [
            self.name.clone(),
            table::accuracy(&self.scores),
            ece,
            of_size(|size| size.parameters).unwrap_or_default(),
            of_size(|size| size.macs).or(macs).unwrap_or_default(),
        ]
    }

    fn mean(&self) -> f64 {
        self.scores.iter().map(|score| score.accuracy).sum::<f64>() / self.scores.len().max(1) as f64
    }
}

/// Every arm that has exits or replicas.
pub fn parts(html: &mut String, results: &Results) {
    for arm in &results.arms {
        let replicas: Vec<(&SeedRun, &Replicas)> =
            arm.seeds.iter().filter_map(|run| Some((run, run.replicas.as_ref()?))).collect();
        if !replicas.is_empty() {
            html.push_str("<h2>Replicas side by side</h2>\n");
            side_by_side(html, &of_replicas(&replicas));
            for (run, replicas) in replicas {
                let (churn, distance) = (100.0 * replicas.churn, replicas.distance);
                let _ = writeln!(
                    html,
                    "<p>Seed {}: the student is replica {}. Two replicas answer {churn:.2} % of the samples differently; their \
                     probabilities differ by {distance:.4} on average. Training all takes {} times what the student alone \
                     costs at as many steps.</p>",
                    run.seed,
                    replicas.chosen,
                    number(replicas.compute)
                );
            }
        }
        let exits: Vec<(&SeedRun, &Exits)> =
            arm.seeds.iter().filter_map(|run| Some((run, run.exits.as_ref()?))).collect();
        if let Some((first, of_first)) = exits.first() {
            html.push_str("<h2>Exits side by side</h2>\n");
            side_by_side(html, &of_exits(arm, results.keep, &exits));
            leaving(html, arm, first.kept(results.keep), first.seed, of_first);
        }
    }
}

fn of_replicas(runs: &[(&SeedRun, &Replicas)]) -> Vec<Part> {
    let most = runs.iter().map(|(_, replicas)| replicas.each.len()).max().unwrap_or(0);
    let part = |i: usize| {
        let scores = runs.iter().filter_map(|(_, replicas)| replicas.each.get(i).copied()).collect();
        let ece = runs.iter().filter_map(|(_, replicas)| replicas.ece.get(i).copied()).collect();
        let size = runs.iter().find_map(|(_, replicas)| replicas.sizes.get(i).copied());
        let arch = runs.iter().find_map(|(_, replicas)| replicas.archs.get(i)).map_or("", String::as_str);
        Part { ece, size, ..Part::new(format!("replica {}, {arch}", i + 1), scores) }
    };
    let together = runs.iter().map(|(_, replicas)| replicas.ensemble).collect();
    (0..most).map(part).chain([Part::new("all together", together)]).collect()
}

fn of_exits(arm: &Arm, keep: Kept, runs: &[(&SeedRun, &Exits)]) -> Vec<Part> {
    let most = runs.iter().map(|(_, exits)| exits.each.len()).max().unwrap_or(0);
    let ece = |i: usize| runs.iter().filter_map(|(_, exits)| exits.ece.get(i).copied()).collect();
    let mut parts = Vec::new();
    for i in 0..most {
        let each = || runs.iter().filter_map(|(_, exits)| exits.each.get(i));
        let name = each().next().map_or_else(String::new, |exit| exit.name.clone());
        let size = each().next().map(|exit| exit.size);
        parts.push(Part { ece: ece(i), size, ..Part::new(name, each().map(|exit| exit.score).collect()) });
    }
    let own = runs.iter().map(|(run, _)| run.kept(keep)).collect();
    parts.push(Part { ece: ece(most), size: Some(arm.size), ..Part::new("the whole network", own) });
    parts.push(Part::new("all exits together", runs.iter().map(|(_, exits)| exits.together).collect()));
    let early: Vec<_> = runs.iter().filter_map(|(_, exits)| exits.chosen_early()).collect();
    if !early.is_empty() {
        let macs = early.iter().map(|early| early.mean_macs).sum::<f64>() / early.len() as f64;
        let scores = early.iter().map(|early| early.score).collect();
        parts.push(Part { macs: Some(macs), ..Part::new("the first exit that is sure", scores) });
    }
    parts
}

fn side_by_side(html: &mut String, parts: &[Part]) {
    let rows = parts.iter().map(Part::cells);
    rows_of(html, &HEAD, rows);
    let about = "Share of right answers to the test samples";
    let values: Vec<(String, f64)> = parts.iter().map(|part| (part.name.clone(), part.mean())).collect();
    let _ = writeln!(
        html,
        "<div class=\"curves\">\n<figure>\n{}<figcaption class=\"soft\">{about}. ECE is the expected error of \
         calibration.</figcaption>\n</figure>\n</div>",
        bars(about, &values)
    );
}

/// Accuracy over the mean cost of a sample, threshold by threshold.
fn leaving(html: &mut String, arm: &Arm, whole: Score, seed: u64, exits: &Exits) {
    let (Some(low), Some(high)) = (exits.early.first(), exits.early.last()) else { return };
    let (low, high) = (low.confidence, high.confidence);
    let (unit, name) = if arm.size.macs < 10_000_000 { (1e3, "thousand") } else { (1e6, "million") };
    let at = |early: &Early| (early.mean_macs / unit, early.score.accuracy);
    let alone = exits.each.iter().map(|exit| (exit.size.macs as f64 / unit, exit.score.accuracy));
    let alone = alone.chain([(arm.size.macs as f64 / unit, whole.accuracy)]).collect();
    let curve = exits.early.iter().map(at).collect();
    let mut series = vec![
        Series { name: format!("leaving at the first exit that is {low} to {high} sure"), points: curve },
        Series { name: "each exit for all samples".into(), points: alone },
    ];
    if let Some(early) = exits.chosen_early() {
        let name = format!("{} sure, which the validation samples choose", early.confidence);
        series.push(Series { name, points: vec![at(early)] });
    }
    let about = format!("Leaving early, seed {seed}: test accuracy over the multiply-accumulates of a sample");
    let _ = writeln!(
        html,
        "{}<div class=\"curves\">\n<figure>\n{}<figcaption class=\"soft\">{about}</figcaption>\n</figure>\n</div>",
        legend(&series),
        lines(&about, (&format!("{name} MACs, the mean"), 0.0), &series)
    );
}

/// How soft what teachers say of the test samples is.
pub fn softness(html: &mut String, results: &Results) {
    if results.softness.is_empty() {
        return;
    }
    html.push_str("<h2>How soft the teachers are</h2>\n");
    let head = ["", "temperature", "entropy, nats", "of at most", "share"];
    let rows = results.softness.iter().map(|softness| {
        let share = 100.0 * softness.entropy_nats / softness.most_nats.max(f64::MIN_POSITIVE);
        [
            softness.teacher.clone(),
            number(softness.temperature),
            format!("{:.3}", softness.entropy_nats),
            format!("{:.3}", softness.most_nats),
            format!("{share:.0} %"),
        ]
    });
    rows_of(html, &head, rows);
    html.push_str(
        "<p class=\"soft\">Entropy of the probabilities at the recipe's temperatures, the mean over test samples: near 0 they \
         say no more than a label, near the most they say nothing.</p>\n",
    );
}

/// A table.
pub fn rows_of<const N: usize>(html: &mut String, head: &[&str; N], rows: impl Iterator<Item = [String; N]>) {
    html.push_str("<div class=\"wide\"><table>\n<tr>");
    for head in head {
        let _ = write!(html, "<th>{}</th>", escape(head));
    }
    html.push_str("</tr>\n");
    for row in rows {
        html.push_str("<tr>");
        for cell in row {
            let _ = write!(html, "<td>{}</td>", escape(&cell));
        }
        html.push_str("</tr>\n");
    }
    html.push_str("</table></div>\n");
}

#[cfg(test)]
mod tests {
    use super::super::results::{Exit, SCHEMA, Softness};
    use super::*;

    fn run(exits: Option<Exits>, replicas: Option<Replicas>) -> SeedRun {
        let score = Score::new(95, 100);
        SeedRun { seed: 7, epochs: 3, steps: 9, selected_epoch: 2, last: score, selected: score, replicas, exits }
    }

    fn results(runs: Vec<SeedRun>) -> Results {
        let size = Size { parameters: 1000, macs: 50_000, bytes: 4000 };
        Results {
            schema: SCHEMA.into(),
            name: "a".into(),
            keep: Kept::Selected,
            selected_on: "validation".into(),
            teachers: Vec::new(),
            arms: vec![Arm::new("student", "distilled", size, runs)],
            comparison: None,
            insights: Vec::new(),
            softness: Vec::new(),
        }
    }

    fn exits(chosen: Option<f32>) -> Exits {
        let exit = |name: &str, macs, right| Exit {
            name: name.into(),
            size: Size { parameters: 100, macs, bytes: 400 },
            score: Score::new(right, 100),
        };
        let early = |confidence, right, mean_macs| Early {
            confidence,
            score: Score::new(right, 100),
            mean_macs,
            left: vec![50, 25, 25],
        };
        Exits {
            each: vec![exit("exit-1", 10_000, 80), exit("exit-2", 20_000, 90)],
            ece: vec![0.031, 0.022, 0.013],
            together: Score::new(96, 100),
            early: vec![early(0.5, 85, 15_000.0), early(0.9, 94, 22_222.0)],
            chosen,
        }
    }

    #[test]
    fn exits_are_rows_bars_and_a_curve_with_the_chosen_threshold() {
        let mut html = String::new();
        parts(&mut html, &results(vec![run(Some(exits(Some(0.9))), None)]));
        for row in [
            "<td>exit-1</td><td>80.00 % (",
            "<td>3.10 %</td><td>100</td><td>10,000</td>",
            "<td>the whole network</td><td>95.00 % (",
            "<td>1.30 %</td><td>1,000</td><td>50,000</td>",
            "<td>all exits together</td><td>96.00 % (",
            "<td>22,222 (mean)</td>",
            "0.9 sure, which the validation samples choose",
        ] {
            assert!(html.contains(row), "{row} is missing in\n{html}");
        }
        assert_eq!(html.matches("<figure>").count(), 2);
        let mut html = String::new();
        parts(&mut html, &results(vec![run(Some(exits(None)), None)]));
        assert!(!html.contains("which the validation samples choose") && !html.contains("(mean)"), "{html}");
        let mut html = String::new();
        parts(&mut html, &results(vec![run(Some(exits(None)), None), run(Some(exits(None)), None)]));
        assert!(html.contains("<td>exit-1</td><td>80.00 ± 0.00 % (2 seeds)</td>"), "{html}");
    }

    #[test]
    fn replicas_are_rows_and_bars() {
        let replicas = Replicas {
            each: vec![Score::new(90, 100), Score::new(92, 100)],
            archs: vec!["cnn".into(), "resnet8".into()],
            chosen: 2,
            compute: 3.5,
            ensemble: Score::new(93, 100),
            churn: 0.0411,
            distance: 0.0123,
            ece: vec![0.05, 0.06],
            sizes: vec![Size { parameters: 2000, macs: 70_000, bytes: 8000 }; 2],
        };
        let mut html = String::new();
        parts(&mut html, &results(vec![run(None, Some(replicas))]));
        for part in [
            "<td>replica 2, resnet8</td><td>92.00 % (",
            "3.5 times what the student alone costs",
            "<td>6.00 %</td><td>2,000</td><td>70,000</td>",
            "<td>all together</td><td>93.00 % (",
            "the student is replica 2",
            "4.11 %",
        ] {
            assert!(html.contains(part), "{part} is missing in\n{html}");
        }
        assert_eq!(html.matches("<figure>").count(), 1);
    }

    #[test]
    fn softness_is_a_table_and_a_run_without_parts_says_nothing() {
        let mut plain = results(vec![run(None, None)]);
        let mut html = String::new();
        parts(&mut html, &plain);
        softness(&mut html, &plain);
        assert_eq!(html, "");
        plain.softness =
            vec![Softness { teacher: "<b>".into(), temperature: 4.0, entropy_nats: 1.0, most_nats: 10_f64.ln() }];
        softness(&mut html, &plain);
        let row = "<td>&lt;b&gt;</td><td>4</td><td>1.000</td><td>2.303</td><td>43 %</td>";
        assert!(html.contains(row), "{html}");
    }

    #[test]
    fn the_split_that_chose_the_epoch_is_named() {
        let chosen = results(vec![run(None, None)]);
        assert!(table::epochs(&chosen).contains("best on the validation samples (distilled seed 7: 2 of 3)"));
        let last = Results { selected_on: "last".into(), ..chosen.clone() };
        assert!(table::epochs(&last).contains("no validation samples"));
        assert!(table::epochs(&Results { keep: Kept::Last, ..chosen }).contains("as the recipe says"));
    }
}
