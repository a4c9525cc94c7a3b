//! `study_ucr [FOLDER] [--sets A,B] [--arms A,B] [--seeds N] [--steps N] [--jobs N] [--kd-train FILE] [--runs DIR]
//! [--output FILE] [--report FILE]`: one student on every UCR set of a folder, taught in several ways, seed by seed. Each run
//! is a `kd-train run --resume` into a folder of its own below `--runs`, so a study that was stopped goes on. Raw results go to
//! `--output` (JSON); `--report` (Markdown, with a picture beside it) has mean ranks and paired tests.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use kd_benchmarks::material;
use kd_benchmarks::study::asked::{self, Asked};
use kd_benchmarks::study::{diagram, ranks, runs};
use kd_runtime::data::Source;
use kd_runtime::measure::stats;
use kd_runtime::{Exit, Refusal, Result, files};
use serde_json::{Value, json};

/// Published accuracies in percent: FCN and ResNet (mean of 5 runs, Ismail Fawaz et al. 2019, dl-4-tsc's results), one
/// network of InceptionTime (mean of 5) and the ensemble (Ismail Fawaz et al. 2020).
const PUBLISHED: &[(&str, [f64; 4])] = &[
    ("ArrowHead", [84.3, 83.8, 84.7, 84.6]),
    ("CBF", [99.4, 99.6, 99.8, 99.9]),
    ("Coffee", [100.0, 100.0, 100.0, 100.0]),
    ("ECG200", [88.8, 87.4, 91.8, 93.0]),
    ("ECG5000", [94.0, 93.5, 93.9, 94.1]),
    ("FaceFour", [93.0, 95.5, 95.7, 95.5]),
    ("GunPoint", [100.0, 99.1, 100.0, 100.0]),
    ("ItalyPowerDemand", [96.3, 96.2, 96.4, 96.5]),
    ("SyntheticControl", [98.9, 99.7, 99.6, 99.7]),
    ("TwoLeadECG", [99.9, 100.0, 99.7, 99.6]),
];

/// A way of teaching: its name, whether the teacher's run is named, and the rest of the recipe. EPOCHS, MAIN and INIT stand
/// for the epochs of all steps, of three quarters and of a quarter of them: every arm takes as many steps.
const ARMS: &[(&str, bool, &str)] = &[
    ("alone", false, "[train]\nepochs = EPOCHS\n"),
    ("kd", true, "[train]\nepochs = EPOCHS\n[distill]\nterms = [{ method = \"kd\", temperature = 4.0 }]\n"),
    (
        "ab",
        true,
        "[train]\nepochs = MAIN\n[distill]\ninit_epochs = INIT\nterms = [{ method = \"ab\", stage = \"init\", reduction = \
         \"mean\", scale = 1.0 }]\n",
    ),
    (
        "rkd",
        true,
        "[train]\nepochs = EPOCHS\n[distill]\nterms = [{ method = \"rkd_d\", weight = 1.0 }, { method = \"rkd_a\", weight = \
         2.0 }]\n",
    ),
    (
        "codistill",
        false,
        "[train]\nepochs = EPOCHS\n[distill]\nscheme = \"codistill\"\nreplicas = 2\nshards = \"same\"\nexchange_steps = 10\n\
         terms = [{ method = \"codistill\" }]\n",
    ),
    ("byot", false, "[train]\nepochs = EPOCHS\n[distill]\nterms = [{ method = \"byot\" }]\n"),
    (
        "ab, then kd",
        true,
        "[train]\nepochs = MAIN\n[distill]\ninit_epochs = INIT\nterms = [{ method = \"ab\", stage = \"init\", reduction = \
         \"mean\", scale = 1.0 }, { method = \"kd\", temperature = 4.0 }]\n",
    ),
];

/// What all recipes share. No samples are held out: sets have as few as 23.
const COMMON: &str =
    "batch = BATCH\nkeep = \"last\"\noptimizer = { kind = \"adamw\", lr = 2e-3 }\nschedule = { kind = \"cosine\" }\n";
const BATCH: usize = 16;
const TEACHER: &str = "[student]\narch = \"fcn\"\n[train]\nepochs = TAUGHT\n";
const STUDENT: &str = "[student]\narch = \"fcn\"\nwidths = [8, 16, 8]\n";

struct Study {
    asked: Asked,
    steps: usize,
}

/// What one set gave.
struct Outcome {
    set: String,
    teacher: Value,
    /// The results of each arm.
    arms: Vec<Value>,
}

fn main() -> ExitCode {
    asked::end(run())
}

fn run() -> Result<()> {
    let args = asked::args(&["sets", "steps"])?;
    let folder = material("KD_UCR", "data/ucr");
    let asked = Asked::read(&args, "a folder of UCR sets", folder, "target/study/ucr", 5)?;
    let study = Study { asked, steps: args.count("steps", 4000)? };
    let arms = args.chosen("arms", &ARMS.iter().map(|arm| arm.0.to_string()).collect::<Vec<_>>())?;
    let sets = args.chosen("sets", &sets(&study.asked.folder)?)?;
    let begin = Instant::now();
    let (mut outcomes, mut skipped) = (Vec::new(), String::new());
    for (i, set) in sets.iter().enumerate() {
        eprintln!("study: {set} ({} of {}), {:.0} s", i + 1, sets.len(), begin.elapsed().as_secs_f64());
        match study.set(set, &arms) {
            Ok(outcome) => outcomes.push(outcome),
            // A set whose series are of several lengths, say: said aloud, and the others go on.
            Err(refusal) if refusal.exit == Exit::Refused => {
                println!("{set}: SKIPPED: {refusal}");
                skipped += &format!("\n{set} is skipped: expected {}, found {}.\n", refusal.expected, refusal.found);
            }
            Err(refusal) => return Err(refusal),
        }
    }
    let names: Vec<&str> = arms.iter().map(String::as_str).collect();
    let (text, svg) = render(&study, &names, &outcomes);
    let text = text + &skipped;
    println!("{text}");
    let records: Vec<Value> = outcomes
        .iter()
        .map(|outcome| {
            let arms: BTreeMap<&str, &Value> = names.iter().copied().zip(&outcome.arms).collect();
            json!({ "set": outcome.set, "teacher": outcome.teacher, "arms": arms })
        })
        .collect();
    let results = json!({
        "schema": "kd.study_ucr/2", "steps": study.steps, "seconds": begin.elapsed().as_secs_f64(), "sets": records,
    });
    asked::keep(&args, &results)?;
    if let Some(path) = args.get("report") {
        let picture = Path::new(path).with_extension("svg");
        let name = picture.file_name().map(|name| name.to_string_lossy().into_owned());
        let name = name.ok_or_else(|| Refusal::new("--report", "a file", format!("`{path}`"), "name one"))?;
        files::write_atomic(&picture, svg.as_bytes())?;
        files::write_atomic(Path::new(path), format!("{text}\n![Mean ranks]({name})\n").as_bytes())?;
    }
    Ok(())
}

/// The sets of a folder: what stands before `_TRAIN`.
fn sets(folder: &Path) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(folder).map_err(|e| {
        Refusal::new(folder.display(), "a folder of UCR sets", e, "name another").with_exit(Exit::Lacking)
    })?;
    let name = |entry: std::fs::DirEntry| Some(entry.file_name().to_str()?.split_once("_TRAIN")?.0.to_string());
    let mut sets: Vec<String> = entries.flatten().filter_map(name).collect();
    sets.sort();
    sets.dedup();
    Ok(sets)
}

impl Study {
    /// Trains the teacher of a set, then every arm, as many at once as there are jobs.
    fn set(&self, set: &str, arms: &[String]) -> Result<Outcome> {
        let teacher = self.train(set, "teacher", TEACHER, None, 1, self.asked.jobs)?;
        let arms = runs::in_parallel(self.asked.jobs, arms, |name| {
            let unknown = || Refusal::new(set, "a known arm", format!("`{name}`"), "report this as a bug");
            let (_, is_taught, text) = ARMS.iter().find(|arm| arm.0 == name).ok_or_else(unknown)?;
            let teacher = is_taught.then(|| self.asked.runs.join(set).join("teacher"));
            self.train(set, name, &format!("{STUDENT}{text}"), teacher.as_deref(), self.asked.seeds, 1)
        })?;
        Ok(Outcome { set: set.to_string(), teacher, arms })
    }

    /// One recipe of a set, all seeds; gives its `results.json`.
    fn train(
        &self,
        set: &str,
        arm: &str,
        text: &str,
        teacher: Option<&Path>,
        seeds: usize,
        threads: usize,
    ) -> Result<Value> {
        let output = self.asked.runs.join(set).join(arm.replace([',', ' '], "-"));
        let source = Source { format: "ucr".into(), path: self.asked.folder.join(set), reading: None };
        let per_epoch = source.open()?.description().n_train.div_ceil(BATCH).max(1);
        let epochs = |share: usize| (self.steps * share / 4).div_ceil(per_epoch).max(1).to_string();
        let text = text
            .replace("EPOCHS", &epochs(4))
            .replace("MAIN", &epochs(3))
            .replace("INIT", &epochs(1))
            .replace("TAUGHT", &epochs(2))
            .replacen("[train]\n", &format!("[train]\n{COMMON}"), 1)
            .replace("BATCH", &BATCH.to_string());
        let teacher = teacher.map_or_else(String::new, |run| format!("[teacher]\nrun = \"{}\"\n", run.display()));
        let seeds: Vec<String> = (1..=seeds).map(|seed| seed.to_string()).collect();
        let head = format!("[run]\nname = \"{set}, {arm}\"\nloaders = 0\n[data]\nformat = \"ucr\"\nvalidation = 0.0\n");
        let tail = format!("[compare]\nbaseline = false\nseeds = [{}]\n", seeds.join(", "));
        let tail = if text.contains("[distill]") { tail } else { tail.replace("baseline = false\n", "") };
        let text = format!("{head}path = \"{}\"\n{teacher}{text}{tail}", source.path.display());
        runs::finish(&self.asked.program, &format!("{set}, {arm}"), &text, &output, threads)
    }
}

/// Accuracies of all seeds of a run, in percent.
fn accuracies(results: &Value) -> Vec<f64> {
    let seeds = results["arms"][0]["seeds"].as_array().into_iter().flatten();
    seeds.filter_map(|seed| seed["last"]["accuracy"].as_f64()).map(|share| 100.0 * share).collect()
}

/// Adds a line.
fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    text.push_str(&line.to_string());
    text.push('\n');
}

/// The report and its picture.
fn render(study: &Study, names: &[&str], outcomes: &[Outcome]) -> (String, String) {
    let mut text = String::new();
    let mean = |results: &Value| stats::mean_std(&accuracies(results)).unwrap_or((f64::NAN, f64::NAN));
    let parameters = |results: &Value| results["arms"][0]["parameters"].as_u64().unwrap_or(0);
    line(
        &mut text,
        format_args!(
            "Test accuracy in percent after {} steps, mean ± standard deviation over {} seeds. Teacher: FCN as published \
         (half as many steps, one seed); the student has widths 8, 16, 8. No choice was made by test samples. Published: FCN, \
         ResNet, one InceptionTime, its ensemble.\n",
            study.steps, study.asked.seeds
        ),
    );
    line(
        &mut text,
        format_args!("| set | parameters, teacher to student | teacher | {} | published |", names.join(" | ")),
    );
    line(&mut text, format_args!("|---|---|---{}|---|", "|---".repeat(names.len())));
    for outcome in outcomes {
        let teacher = mean(&outcome.teacher).0;
        let cells: Vec<String> = outcome.arms.iter().map(mean).map(|(m, s)| format!("{m:.1} ± {s:.1}")).collect();
        let published = PUBLISHED.iter().find(|row| row.0 == outcome.set);
        let published = published.map_or("none".into(), |row| row.1.map(|x| x.to_string()).join(", "));
        let (large, small) = (parameters(&outcome.teacher), outcome.arms.first().map_or(0, parameters));
        let (set, cells) = (&outcome.set, cells.join(" | "));
        line(&mut text, format_args!("| {set} | {large} to {small} | {teacher:.1} | {cells} | {published} |"));
    }
    let accuracy: Vec<Vec<f64>> =
        outcomes.iter().map(|outcome| outcome.arms.iter().map(|results| mean(results).0).collect()).collect();
    let mean_ranks = ranks::mean_ranks(&accuracy);
    let p = ranks::pairs(&accuracy);
    let mut order: Vec<usize> = (0..names.len()).collect();
    order.sort_by(|&a, &b| mean_ranks[a].total_cmp(&mean_ranks[b]));
    line(
        &mut text,
        format_args!(
            "\n| way | mean rank | mean accuracy | against the student alone, points | sets better, equal, worse | p |"
        ),
    );
    line(&mut text, format_args!("|---|---|---|---|---|---|"));
    let alone = names.iter().position(|name| *name == "alone");
    for &m in &order {
        let all: Vec<f64> = accuracy.iter().map(|values| values[m]).collect();
        let (over, _) = stats::mean_std(&all).unwrap_or((f64::NAN, 0.0));
        let beside = alone.filter(|&alone| alone != m).map(|alone| {
            let off: Vec<f64> = accuracy.iter().map(|values| values[m] - values[alone]).collect();
            let count = |f: fn(f64) -> bool| off.iter().filter(|d| f(**d)).count();
            let (better, equal, worse) = (count(|d| d > 0.0), count(|d| d == 0.0), count(|d| d < 0.0));
            let gain = off.iter().sum::<f64>() / off.len().max(1) as f64;
            format!("{gain:+.2} | {better}, {equal}, {worse} | {:.3}", p[m][alone])
        });
        let beside = beside.unwrap_or_else(|| "- | - | -".into());
        line(&mut text, format_args!("| {} | {:.2} | {over:.2} | {beside} |", names[m], mean_ranks[m]));
    }
    line(
        &mut text,
        format_args!(
            "\np: Wilcoxon's signed ranks over the {} sets, exact, Holm's correction over all pairs.",
            outcomes.len()
        ),
    );
    let cliques = ranks::cliques(&order, &p, 0.05);
    let title =
        format!("Mean rank over {} UCR sets; bars join what does not differ (Wilcoxon, Holm, 5 %)", outcomes.len());
    let svg = diagram::draw(&title, names, &mean_ranks, &order, &cliques);
    (text, svg)
}
