//! `study_ucr [FOLDER] [--sets A,B] [--arms A,B] [--seeds N] [--steps N] [--jobs N] [--kd-train FILE] [--runs DIR]
//! [--output FILE] [--report FILE] [--part DIR]`: one student on every UCR set of a folder, taught in several ways, seed by
//! seed. Each run is a `kd-train run --resume` into a folder of its own below `--runs`, so a study that was stopped goes on. Raw
//! results go to `--output` (JSON); `--report` (Markdown, with a picture beside it) has mean ranks and paired tests. What is not
//! the whole study as it is by default goes to `--part`, if that is named.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use kd_benchmarks::study::asked::{self, Asked, Defaults};
use kd_benchmarks::study::made_of::{self, MadeOf};
use kd_benchmarks::study::ranks::{self, Ranking, Scores};
use kd_benchmarks::study::runs::{self, Done, Job};
use kd_benchmarks::study::{diagram, sets};
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
/// for the epochs of [`Epochs`]: every arm takes as many steps.
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
        "ab_then_kd",
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

const DEFAULTS: Defaults = Defaults {
    what: "a folder of UCR sets",
    variable: "KD_UCR",
    place: "data/ucr",
    runs: "target/study/ucr",
    seeds: 5,
};
const STEPS: usize = 4000;

struct Study {
    asked: Asked,
    steps: usize,
}

/// A set that can be read.
struct Set {
    name: String,
    path: PathBuf,
    n_train: usize,
    sha256: String,
}

/// What one set gave.
struct Outcome {
    set: String,
    teacher: Done,
    arms: Vec<Done>,
}

/// Epochs that so many steps take, in whole ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Epochs {
    /// Of all steps.
    all: usize,
    /// Of three quarters of them, where a stage comes before.
    main: usize,
    /// Of that stage: the rest.
    init: usize,
    /// Of half of them: the teacher's.
    taught: usize,
}

impl Epochs {
    fn new(steps: usize, steps_per_epoch: usize) -> Self {
        let quarters = |n: usize| (steps * n / 4).div_ceil(steps_per_epoch.max(1)).max(1);
        // Two at least, so that both stages have one.
        let all = quarters(4).max(2);
        let main = quarters(3).min(all - 1);
        Self { all, main, init: all - main, taught: quarters(2) }
    }
}

fn main() -> ExitCode {
    asked::end(run())
}

fn run() -> Result<()> {
    let args = asked::args(&["sets", "steps"])?;
    let study = Study { asked: Asked::read(&args, DEFAULTS)?, steps: args.count("steps", STEPS)? };
    let arms = args.chosen("arms", &ARMS.iter().map(|arm| arm.0.to_string()).collect::<Vec<_>>())?;
    let mut found = sets::find(&study.asked.folder)?;
    let chosen = args.chosen("sets", &found.keys().cloned().collect::<Vec<_>>())?;
    let is_whole = study.is_whole() && arms.len() == ARMS.len() && chosen.len() == found.len();
    found.retain(|name, _| chosen.contains(name));
    let (sets, skipped) = readable(found)?;
    let begin = Instant::now();
    let outcomes = study.all(&sets, &arms)?;
    let names: Vec<&str> = arms.iter().map(String::as_str).collect();
    let results = json!({
        "schema": "kd.study_ucr/3", "steps": study.steps, "seconds": begin.elapsed().as_secs_f64(),
        "sets": outcomes.iter().map(|outcome| record(&names, outcome)).collect::<Vec<_>>(), "skipped": skipped,
    });
    asked::keep(&args, is_whole, &results)?;
    let (text, svg) = render(&study, &names, &outcomes, &skipped)?;
    println!("{text}");
    let Some(path) = asked::place(&args, "report", is_whole)? else { return Ok(()) };
    let picture = path.with_extension("svg");
    let name = picture.file_name().map(|name| name.to_string_lossy());
    let name = name.ok_or_else(|| Refusal::new("--report", "a file", path.display(), "name one"))?;
    files::write_atomic(&picture, svg.as_bytes())?;
    files::write_atomic(&path, format!("{text}\n![Mean ranks]({name})\n").as_bytes())
}

/// The sets that the reader takes, and of the others what it found. Refuses if none is left.
fn readable(found: BTreeMap<String, PathBuf>) -> Result<(Vec<Set>, BTreeMap<String, String>)> {
    let (mut sets, mut skipped) = (Vec::new(), BTreeMap::new());
    for (name, path) in found {
        match (Source { format: "ucr".into(), path: path.clone(), reading: None }).open() {
            Ok(data) => {
                let (n_train, sha256) = (data.description().n_train, data.description().sha256.clone());
                sets.push(Set { name, path, n_train, sha256 });
            }
            // A set whose series are of several lengths, say: said aloud, and the others go on.
            Err(refusal) if refusal.exit == Exit::Refused => {
                println!("{name}: SKIPPED: {refusal}");
                skipped.insert(name, format!("expected {}, found {}", refusal.expected, refusal.found));
            }
            Err(refusal) => return Err(refusal),
        }
    }
    match skipped.iter().next() {
        Some((name, why)) if sets.is_empty() => {
            let found = format!("none of {} ({name}: {why})", skipped.len());
            Err(Refusal::new("sets", "at least one that can be read", found, "name others"))
        }
        _ => Ok((sets, skipped)),
    }
}

impl Study {
    /// Whether nothing is other than by default, sets and arms left aside.
    fn is_whole(&self) -> bool {
        self.asked.by_default && self.steps == STEPS
    }

    /// All sets, one after the other. The first run that does not come to its end ends the study: what the reader took is no
    /// reason to leave a set out.
    fn all(&self, sets: &[Set], arms: &[String]) -> Result<Vec<Outcome>> {
        let begin = Instant::now();
        let one = |(i, set): (usize, &Set)| {
            eprintln!("study: {} ({} of {}), {:.0} s", set.name, i + 1, sets.len(), begin.elapsed().as_secs_f64());
            self.set(set, arms)
        };
        sets.iter().enumerate().map(one).collect()
    }

    /// Trains the teacher of a set, then every arm, as many at once as there are jobs.
    fn set(&self, set: &Set, arms: &[String]) -> Result<Outcome> {
        let teacher = self.train(set, "teacher", TEACHER, None, 1, self.asked.jobs)?;
        let arms = runs::in_parallel(self.asked.jobs, arms, |name| {
            let unknown = || Refusal::new(&set.name, "a known arm", format!("`{name}`"), "report this as a bug");
            let (_, is_taught, text) = ARMS.iter().find(|arm| arm.0 == name).ok_or_else(unknown)?;
            let teacher = is_taught.then(|| self.place(set, "teacher"));
            self.train(set, name, &format!("{STUDENT}{text}"), teacher.as_deref(), self.asked.seeds, 1)
        })?;
        Ok(Outcome { set: set.name.clone(), teacher, arms })
    }

    /// Where a run is.
    fn place(&self, set: &Set, arm: &str) -> PathBuf {
        self.asked.runs.join(&set.name).join(arm)
    }

    /// One arm of a set, all seeds.
    fn train(
        &self,
        set: &Set,
        arm: &str,
        text: &str,
        teacher: Option<&Path>,
        seeds: usize,
        threads: usize,
    ) -> Result<Done> {
        let (what, output) = (format!("{}, {arm}", set.name), self.place(set, arm));
        let recipe = self.recipe(set, &what, text, teacher, seeds);
        let (recipe, output) = (&*recipe, &*output);
        let job = Job { what: &what, recipe, output, threads, data_sha256: &set.sha256, teacher };
        runs::finish(&self.asked.program, job)
    }

    /// The recipe of a run named `what`.
    fn recipe(&self, set: &Set, what: &str, text: &str, teacher: Option<&Path>, seeds: usize) -> String {
        let Epochs { all, main, init, taught } = Epochs::new(self.steps, set.n_train.div_ceil(BATCH));
        let text = text
            .replace("EPOCHS", &all.to_string())
            .replace("MAIN", &main.to_string())
            .replace("INIT", &init.to_string())
            .replace("TAUGHT", &taught.to_string())
            .replacen("[train]\n", &format!("[train]\n{COMMON}"), 1)
            .replace("BATCH", &BATCH.to_string());
        let teacher = teacher.map_or_else(String::new, |run| format!("[teacher]\nrun = \"{}\"\n", run.display()));
        let seeds: Vec<String> = (1..=seeds).map(|seed| seed.to_string()).collect();
        let head = format!("[run]\nname = \"{what}\"\nloaders = 0\n[data]\nformat = \"ucr\"\nvalidation = 0.0\n");
        let tail = format!("[compare]\nbaseline = false\nseeds = [{}]\n", seeds.join(", "));
        let tail = if text.contains("[distill]") { tail } else { tail.replace("baseline = false\n", "") };
        format!("{head}path = \"{}\"\n{teacher}{text}{tail}", set.path.display())
    }
}

/// The raw results of a set.
fn record(names: &[&str], outcome: &Outcome) -> Value {
    let of = |what: fn(&Done) -> Value| -> BTreeMap<&str, Value> {
        names.iter().copied().zip(outcome.arms.iter().map(what)).collect()
    };
    json!({
        "set": outcome.set, "teacher": outcome.teacher.results, "arms": of(|done| done.results.clone()),
        "made_of": { "teacher": outcome.teacher.made_of.to_json(), "arms": of(|done| done.made_of.to_json()) },
    })
}

/// The seeds of a run.
fn seeds(results: &Value) -> impl Iterator<Item = &Value> {
    results["arms"][0]["seeds"].as_array().into_iter().flatten().map(|seed| &seed["last"])
}

/// Mean and standard deviation of the accuracies of all seeds of a run, in percent.
fn spread(done: &Done) -> (f64, f64) {
    let accuracies: Vec<f64> =
        seeds(&done.results).filter_map(|last| last["accuracy"].as_f64()).map(|share| 100.0 * share).collect();
    stats::mean_std(&accuracies).unwrap_or((f64::NAN, f64::NAN))
}

impl Outcome {
    /// The counts of right answers. Refuses arms that answered to unlike numbers of samples.
    fn scores(&self) -> Result<Scores> {
        let sum = |done: &Done, key: &str| -> u64 { seeds(&done.results).filter_map(|last| last[key].as_u64()).sum() };
        let answers: Vec<u64> = self.arms.iter().map(|done| sum(done, "n")).collect();
        let n = answers.first().copied().unwrap_or(0);
        if n == 0 || answers.iter().any(|other| *other != n) {
            let action = "remove the runs of this set and start the study again";
            return Err(Refusal::new(&self.set, "as many test answers of each arm", format!("{answers:?}"), action));
        }
        Ok(Scores { right: self.arms.iter().map(|done| sum(done, "right")).collect(), n })
    }

    /// What each of its runs was made of.
    fn made_of(&self) -> impl Iterator<Item = &MadeOf> {
        std::iter::once(&self.teacher).chain(&self.arms).map(|done| &done.made_of)
    }
}

/// The report and its picture.
fn render(
    study: &Study,
    names: &[&str],
    outcomes: &[Outcome],
    skipped: &BTreeMap<String, String>,
) -> Result<(String, String)> {
    let scores = outcomes.iter().map(Outcome::scores).collect::<Result<Vec<_>>>()?;
    let ranking = Ranking::of(&scores);
    let mut lines = vec![format!(
        "Test accuracy in percent after about {} steps (whole epochs, as many of each way), mean ± standard deviation over {} \
         seeds. Teacher: FCN as published (half as many steps, one seed); the student has widths 8, 16, 8. No choice was made by \
         test samples. Published: FCN, ResNet, one InceptionTime, its ensemble.\n",
        study.steps, study.asked.seeds
    )];
    lines.push(format!("| set | parameters, teacher to student | teacher | {} | published |", names.join(" | ")));
    lines.push(format!("|---|---|---{}|---|", "|---".repeat(names.len())));
    lines.extend(outcomes.iter().map(of_set));
    lines.push(
        "\n| way | mean rank | mean accuracy | against the student alone, points | sets better, equal, worse | p |"
            .into(),
    );
    lines.push("|---|---|---|---|---|---|".into());
    lines.extend(ranking.order.iter().map(|&way| of_way(way, names, &scores, &ranking)));
    let sets = outcomes.len();
    lines.push(format!(
        "\nA set is equal where as many test samples are answered rightly over all seeds. p: Wilcoxon's signed ranks over the \
         {sets} sets, exact, Holm's correction over all pairs."
    ));
    let several = made_of::several_programs(outcomes.iter().flat_map(Outcome::made_of));
    lines.extend(several.map(|line| format!("\n**{line}**")));
    lines.extend(skipped.iter().map(|(set, why)| format!("\n{set} is skipped: {why}.")));
    let cliques = ranks::cliques(&ranking.order, &ranking.p, 0.05);
    let title = format!("Mean rank over {sets} UCR sets; bars join what does not differ (Wilcoxon, Holm, 5 %)");
    let svg = diagram::draw(&title, names, &ranking.mean, &ranking.order, &cliques);
    Ok((lines.join("\n") + "\n", svg))
}

/// The line of a set.
fn of_set(outcome: &Outcome) -> String {
    let parameters = |done: &Done| done.results["arms"][0]["parameters"].as_u64().unwrap_or(0);
    let cells: Vec<String> = outcome.arms.iter().map(spread).map(|(m, s)| format!("{m:.1} ± {s:.1}")).collect();
    let published = PUBLISHED.iter().find(|row| row.0 == outcome.set);
    let published = published.map_or("none".into(), |row| row.1.map(|x| x.to_string()).join(", "));
    let (large, small) = (parameters(&outcome.teacher), outcome.arms.first().map_or(0, parameters));
    let (set, teacher, cells) = (&outcome.set, spread(&outcome.teacher).0, cells.join(" | "));
    format!("| {set} | {large} to {small} | {teacher:.1} | {cells} | {published} |")
}

/// The line of a way, over all sets.
fn of_way(way: usize, names: &[&str], scores: &[Scores], ranking: &Ranking) -> String {
    let mean = |of: &dyn Fn(&Scores) -> f64| scores.iter().map(of).sum::<f64>() / scores.len().max(1) as f64;
    let alone = names.iter().position(|name| *name == "alone");
    let beside = alone.filter(|&alone| alone != way).map(|alone| {
        let count = |side| scores.iter().filter(|set| set.right[way].cmp(&set.right[alone]) == side).count();
        let (better, equal, worse) = (count(Ordering::Greater), count(Ordering::Equal), count(Ordering::Less));
        let gain = mean(&|set| set.points(way, alone));
        format!("{gain:+.2} | {better}, {equal}, {worse} | {:.3}", ranking.p[way][alone])
    });
    let (beside, over) = (beside.unwrap_or_else(|| "- | - | -".into()), mean(&|set| set.percent(way)));
    format!("| {} | {:.2} | {over:.2} | {beside} |", names[way], ranking.mean[way])
}

#[cfg(test)]
mod tests {
    use kd_benchmarks::scratch::Scratch;
    use kd_trainer::recipe::parse::parse;

    use super::*;

    fn study(runs: PathBuf, program: &str) -> Study {
        let asked = Asked { folder: "ucr".into(), runs, program: program.into(), seeds: 5, jobs: 1, by_default: true };
        Study { asked, steps: STEPS }
    }

    fn set(n_train: usize) -> Set {
        Set { name: "Coffee".into(), path: "ucr/Coffee".into(), n_train, sha256: String::new() }
    }

    /// A run of so many right answers, seed by seed.
    fn done(right: [u64; 5], n: u64) -> Done {
        let last = |right: u64| json!({ "last": { "right": right, "n": n, "accuracy": right as f64 / n as f64 } });
        let results = json!({ "arms": [{ "parameters": 1, "seeds": right.map(last) }] });
        Done { results, made_of: MadeOf::default() }
    }

    /// Counts of the study of 2026: in FaceFour `kd` and `codistill` have 403 of 440, in SyntheticControl `alone`, `ab` and
    /// `rkd` 1484 of 1500, spread unlike over the seeds.
    #[test]
    fn ways_with_as_many_right_answers_are_equal() {
        let names = ["alone", "kd", "ab", "rkd", "codistill"];
        let face_four = [
            [81, 84, 79, 81, 81],
            [79, 82, 82, 82, 78],
            [80, 82, 80, 82, 82],
            [79, 80, 78, 79, 76],
            [80, 83, 80, 80, 80],
        ];
        let synthetic_control = [
            [295, 298, 299, 295, 297],
            [294, 294, 297, 294, 297],
            [297, 294, 300, 297, 296],
            [297, 297, 297, 296, 297],
            [296, 298, 300, 298, 298],
        ];
        let outcomes =
            [("FaceFour", face_four, 88), ("SyntheticControl", synthetic_control, 300)].map(|(set, arms, n)| Outcome {
                set: set.into(),
                teacher: done([n; 5], n),
                arms: arms.map(|right| done(right, n)).to_vec(),
            });
        let (text, _) = render(&study("runs".into(), "kd-train"), &names, &outcomes, &BTreeMap::new()).unwrap();
        for line in [
            "| alone | 2.25 | 95.60 | - | - | - |",
            "| ab | 2.25 | 95.60 | +0.00 | 0, 2, 0 | 1.000 |",
            "| codistill | 2.25 | 95.46 | -0.14 | 1, 0, 1 | 1.000 |",
            "| rkd | 4.00 | 94.01 | -1.59 | 0, 1, 1 | 1.000 |",
            "| kd | 4.25 | 95.00 | -0.61 | 0, 0, 2 | 1.000 |",
        ] {
            assert!(text.contains(line), "expected {line} in\n{text}");
        }
        assert!(text.contains("after about 4000 steps") && !text.contains("several programs"));
    }

    #[test]
    fn arms_of_unlike_numbers_of_answers_are_refused() {
        let arms = vec![done([1; 5], 8), done([1; 5], 9)];
        let outcome = Outcome { set: "Car".into(), teacher: done([1; 5], 8), arms };
        let refusal = outcome.scores().err().map(|refusal| refusal.to_string()).unwrap_or_default();
        assert!(refusal.contains("found [40, 45]"), "{refusal}");
    }

    #[test]
    fn every_arm_takes_as_many_steps() {
        for (steps, n_train) in [(4000, 500), (4000, 36), (4000, 300), (4000, 4500), (1, 23), (7, 16), (100, 1000)] {
            let (mut study, set) = (study("runs".into(), "kd-train"), set(n_train));
            study.steps = steps;
            for (name, is_taught, text) in ARMS {
                let teacher = is_taught.then(|| study.place(&set, "teacher"));
                let text = study.recipe(&set, name, &format!("{STUDENT}{text}"), teacher.as_deref(), 5);
                let recipe = parse(&text, name, &[]).unwrap();
                let all = Epochs::new(steps, n_train.div_ceil(BATCH)).all;
                let found = recipe.train.epochs + recipe.distill.init_epochs;
                assert_eq!(found, all, "{name}: {steps} steps of {n_train} samples");
                assert_eq!(recipe.seeds(), [1, 2, 3, 4, 5], "{name}");
            }
        }
        assert_eq!(Epochs::new(4000, 32), Epochs { all: 125, main: 94, init: 31, taught: 63 });
    }

    /// `grep` stands for a kd-train that refuses what it is asked: its exit status is the same.
    #[test]
    fn what_the_reader_refuses_is_skipped_and_what_kd_train_refuses_ends_the_study() {
        let scratch = Scratch::new("study-ucr").unwrap();
        let folder = scratch.path();
        for (file, text) in [
            ("Even_TRAIN", "1,0.5,0.25\n2,0.5,0.125\n"),
            ("Even_TEST", "1,0.5,0.25\n"),
            ("Uneven_TRAIN", "1,0.5,0.25\n2,0.5\n"),
            ("Uneven_TEST", "1,0.5,0.25\n"),
        ] {
            std::fs::write(folder.join(file), text).unwrap();
        }
        let (sets, skipped) = readable(sets::find(folder).unwrap()).unwrap();
        assert_eq!(sets.iter().map(|set| (&*set.name, set.n_train)).collect::<Vec<_>>(), [("Even", 2)]);
        assert_eq!(skipped.keys().collect::<Vec<_>>(), ["Uneven"]);
        let refusal = study(folder.join("runs"), "grep").all(&sets, &["alone".into()]).err();
        assert_eq!(refusal.map(|refusal| refusal.at).as_deref(), Some("Even, teacher"));
        let uneven = BTreeMap::from([("Uneven".to_string(), folder.join("Uneven"))]);
        let refusal = readable(uneven).err().map(|refusal| refusal.to_string()).unwrap_or_default();
        assert!(
            refusal.starts_with("sets: expected at least one that can be read, found none of 1 (Uneven: "),
            "{refusal}"
        );
    }
}
