//! `study_hinton [FOLDER] [--scale full|small] [--arms A,B] [--seeds N] [--teachers N] [--teacher-epochs N] [--epochs N]
//! [--jobs N] [--kd-train FILE] [--runs DIR] [--output FILE] [--report FILE] [--part DIR]`: the experiments on MNIST of Hinton,
//! Vinyals and Dean 2015 (arXiv 1503.02531, §3). Each run is a `kd-train run --resume` into a folder of its own below `--runs`,
//! so a study that was stopped goes on. Raw results go to `--output` (JSON), tables beside the paper's figures to `--report`
//! (Markdown); of a study that lacks an arm, or is of other settings or data, to `--part`, if that is named.
//! `--scale small` takes a share of the samples and few epochs: it shows that the program works, not what the paper found.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::OnceLock;
use std::time::Instant;

use kd_benchmarks::study::asked::{self, Asked, Defaults};
use kd_benchmarks::study::lift::Outputs;
use kd_benchmarks::study::made_of::{self, MadeOf};
use kd_benchmarks::study::runs::{self, Job};
use kd_runtime::cli::Precision;
use kd_runtime::cli::target::Target;
use kd_runtime::measure::stats;
use kd_runtime::{Refusal, Result, files};
use kd_trainer::data::{self, Prepared, Samples};
use kd_trainer::exec::Compute;
use kd_trainer::recipe;
use kd_trainer::teacher::{self, Pace};
use serde_json::{Value, json};

/// Samples of a batch, in training and in evaluation.
const BATCH: usize = 128;
/// How all learn: with no weight decay, since the paper's students are not regularized. Teachers came further by it than by
/// momentum (`sgd`, 0.1): 118 errors against 155 after 18 epochs of one seed.
const OPTIMIZER: &str = "{ kind = \"adamw\", lr = 1e-3, weight_decay = 0.0 }";
/// Decays the learning rate of all to 0.
const SCHEDULE: &str = "{ kind = \"cosine\" }";
/// Factor of the hard labels beside soft targets of weight 1.
const HARD: f64 = 0.1;
/// Share of the training samples that choose the lift, where there is one. No other arm chooses anything: all samples train.
const VALIDATION: f64 = 0.1;
/// Moved views of each sample that a teacher is asked about, once, where samples are moved: there are as many places.
const VIEWS: usize = 25;
/// The class that is left out.
const LEFT_OUT: usize = 3;
/// How far from the paper's figure a mean may be, as a share of it.
const BAND: f64 = 0.15;

/// A network and how it learns.
struct Arm {
    name: &'static str,
    /// Whether it is trained without being named.
    by_default: bool,
    /// Units of each of the two hidden layers.
    units: usize,
    /// Share of inputs and of hidden units that are dropped.
    dropout: [f64; 2],
    /// Largest norm of a unit's incoming weights.
    limit: Option<f64>,
    /// Whether training samples are moved by up to 2 pixels.
    is_jittered: bool,
    /// Times the epochs of the other students.
    longer: usize,
    /// Weight of the hard labels and temperature of the soft targets, where a teacher is listened to.
    taught: Option<(f64, f64)>,
    /// Classes of which no training sample is used.
    excluded: &'static [usize],
    /// Classes whose biases are lifted afterwards, all by the same.
    lifted: &'static [usize],
    /// The paper's errors of 10,000.
    paper: Option<f64>,
}

/// §3: "dropout and weight-constraints", "jittered by up to two pixels in any direction". Shares and limit are Hinton et
/// al. 2012's (arXiv 1207.0580): a fifth of the inputs, half of the hidden units, a squared length of 15.
const TEACHER: Arm = Arm {
    name: "teacher",
    by_default: true,
    units: 1200,
    dropout: [0.2, 0.5],
    limit: Some(3.873),
    is_jittered: true,
    longer: 1,
    taught: None,
    excluded: &[],
    lifted: &[],
    paper: Some(67.0),
};
/// "A smaller net with two hidden layers of 800 rectified linear hidden units and no regularization."
const ALONE: Arm = Arm {
    name: "alone",
    units: 800,
    dropout: [0.0; 2],
    limit: None,
    is_jittered: false,
    paper: Some(146.0),
    ..TEACHER
};
const DISTILLED: Arm = Arm { name: "distilled", taught: Some((HARD, 20.0)), paper: Some(74.0), ..ALONE };
/// What the paper gives no figure for, or none that stands alone.
const TINY: Arm = Arm { units: 30, taught: Some((0.0, 1.0)), paper: None, ..ALONE };
/// Left out, to find what makes a difference.
const ABLATION: Arm = Arm { by_default: false, paper: None, ..DISTILLED };

const ARMS: &[Arm] = &[
    TEACHER,
    ALONE,
    DISTILLED,
    Arm { name: "without 3", taught: Some((0.0, 20.0)), excluded: &[3], lifted: &[3], paper: Some(206.0), ..DISTILLED },
    Arm {
        name: "7 and 8 only",
        taught: Some((0.0, 20.0)),
        excluded: &[0, 1, 2, 3, 4, 5, 6, 9],
        lifted: &[7, 8],
        paper: Some(4730.0),
        ..DISTILLED
    },
    Arm { name: "30 units at 1", ..TINY },
    Arm { name: "30 units at 2.5", taught: Some((0.0, 2.5)), ..TINY },
    Arm { name: "30 units at 4", taught: Some((0.0, 4.0)), ..TINY },
    Arm { name: "30 units at 8", taught: Some((0.0, 8.0)), ..TINY },
    Arm { name: "30 units at 20", taught: Some((0.0, 20.0)), ..TINY },
    Arm { name: "teacher not jittered", is_jittered: false, by_default: false, paper: None, ..TEACHER },
    Arm { name: "teacher without dropout", dropout: [0.0; 2], by_default: false, paper: None, ..TEACHER },
    Arm { name: "teacher with all inputs", dropout: [0.0, 0.5], by_default: false, paper: None, ..TEACHER },
    Arm { name: "teacher without limit", limit: None, by_default: false, paper: None, ..TEACHER },
    Arm { name: "alone jittered", is_jittered: true, taught: None, ..ABLATION },
    Arm { name: "distilled longer", longer: 3, ..ABLATION },
    Arm { name: "distilled jittered", is_jittered: true, ..ABLATION },
    Arm { name: "distilled jittered longer", is_jittered: true, longer: 3, ..ABLATION },
    Arm { name: "distilled soft only", taught: Some((0.0, 20.0)), ..ABLATION },
    Arm { name: "distilled at 4", taught: Some((HARD, 4.0)), ..ABLATION },
    Arm { name: "without 3 with labels", excluded: &[3], lifted: &[3], ..ABLATION },
];

/// The full study, of which nothing else is said.
const FULL: Defaults = Defaults {
    what: "MNIST's four files in a folder",
    variable: "KD_MNIST",
    place: "data/mnist",
    runs: "target/study/hinton",
    seeds: 3,
};
const TEACHER_EPOCHS: usize = 200;
const EPOCHS: usize = 100;

struct Study {
    asked: Asked,
    /// Share of the training samples.
    subset: f64,
    /// Teachers, by seeds from 1 on; the student of seed `s` learns from one of them, in turns.
    teachers: usize,
    teacher_epochs: usize,
    epochs: usize,
}

/// Test samples that were answered wrongly.
#[derive(Clone, Copy)]
struct Errors {
    all: usize,
    /// Of [`LEFT_OUT`].
    left_out: usize,
}

/// What one seed of an arm gave.
#[derive(Clone)]
struct Outcome {
    arm: &'static Arm,
    seed: usize,
    before: Errors,
    /// What was added to the logits of the arm's `lifted`, chosen by validation samples, and the errors with it.
    after: Option<(f32, Errors)>,
    /// Wall seconds of the start that finished the run.
    seconds: Option<f64>,
    made_of: MadeOf,
}

fn main() -> ExitCode {
    asked::end(run())
}

fn run() -> Result<()> {
    let args = asked::args(&["scale", "teachers", "teacher-epochs", "epochs"])?;
    let scale = args.get("scale").unwrap_or("full");
    // Share of the samples, epochs of the teachers and of the students, and the rest.
    let (subset, taught, epochs, defaults) = match scale {
        "full" => (1.0, TEACHER_EPOCHS, EPOCHS, FULL),
        "small" => (0.2, 12, 8, Defaults { runs: "target/study/hinton-small", seeds: 1, ..FULL }),
        other => return Err(Refusal::new("--scale", "full or small", format!("`{other}`"), "correct it")),
    };
    let asked = Asked::read(&args, defaults)?;
    let study = Study {
        subset,
        teachers: args.count("teachers", asked.seeds)?.min(asked.seeds),
        teacher_epochs: args.count("teacher-epochs", taught)?,
        epochs: args.count("epochs", epochs)?,
        asked,
    };
    let arms: Vec<&'static Arm> = match args.get("arms") {
        None => ARMS.iter().filter(|arm| arm.by_default).collect(),
        Some(_) => {
            let named = args.chosen("arms", &ARMS.iter().map(|arm| arm.name.to_string()).collect::<Vec<_>>())?;
            ARMS.iter().filter(|arm| named.iter().any(|name| name == arm.name)).collect()
        }
    };
    let begin = Instant::now();
    let data = study.data()?;
    let outcomes = study.all(&arms, &data)?;
    let runs: Vec<Value> = outcomes.iter().map(|outcome| record(&study, outcome)).collect();
    let results = json!({
        "schema": "kd.study_hinton/1", "scale": scale, "seconds": begin.elapsed().as_secs_f64(),
        "test_samples": data.test.len(), "of_the_class_left_out": count(&data.test, LEFT_OUT), "runs": runs,
    });
    let is_whole = study.is_whole(&arms);
    asked::keep(&args, is_whole, &results)?;
    let text = report(&study, scale, &arms, &outcomes, &data);
    println!("{text}");
    match asked::place(&args, "report", is_whole)? {
        Some(path) => files::write_atomic(&path, text.as_bytes()),
        None => Ok(()),
    }
}

impl Arm {
    fn is_teacher(&self) -> bool {
        self.units == TEACHER.units
    }
}

impl Study {
    /// Whether every arm that is trained without being named is there, and nothing is other than by default: more arms are
    /// kept, too.
    fn is_whole(&self, arms: &[&'static Arm]) -> bool {
        let usual = (1.0, FULL.seeds, TEACHER_EPOCHS, EPOCHS);
        let is_usual = (self.subset, self.teachers, self.teacher_epochs, self.epochs) == usual;
        let has = |arm: &Arm| arms.iter().any(|other| other.name == arm.name);
        self.asked.by_default && is_usual && ARMS.iter().all(|arm| !arm.by_default || has(arm))
    }

    /// Validation samples of all classes, also of those that an arm leaves out, and the test samples. What is held out of one
    /// class does not depend on the others, so no arm with a lift has trained on a validation sample.
    fn data(&self) -> Result<Prepared> {
        let every = Arm { excluded: &[], lifted: &[LEFT_OUT], ..ALONE };
        data::prepare(&recipe::parse::parse(&self.recipe(&every, 1, None), "study", &[])?)
    }

    /// Teachers, then students, as many at once as there are jobs: two nets on a core each take less time than one after the
    /// other on both. A student that comes before its teacher is done waits for it.
    fn all(&self, arms: &[&'static Arm], data: &Prepared) -> Result<Vec<Outcome>> {
        let is_needed =
            |arm: &Arm| arms.iter().any(|a| a.name == arm.name || (arm.name == TEACHER.name && a.taught.is_some()));
        let teachers = ARMS.iter().filter(|arm| arm.is_teacher() && is_needed(arm)).map(|arm| (arm, self.teachers));
        let students = arms.iter().filter(|arm| !arm.is_teacher()).map(|&arm| (arm, self.asked.seeds));
        let seeds = |(arm, seeds)| (1..=seeds).map(move |seed| (arm, seed));
        let tasks: Vec<(&'static Arm, usize)> = teachers.chain(students).flat_map(seeds).collect();
        let several = tasks.iter().filter(|(arm, _)| arm.is_teacher()).count();
        let threads = (self.asked.jobs / several.max(1)).max(1);
        let taught: Vec<OnceLock<Result<Outcome>>> = (0..self.teachers).map(|_| OnceLock::new()).collect();
        let teacher = |seed: usize| taught[seed - 1].get_or_init(|| self.train(&TEACHER, seed, threads, data)).clone();
        let mut outcomes = runs::in_parallel(self.asked.jobs, &tasks, |&(arm, seed)| {
            if arm.name == TEACHER.name {
                return teacher(seed);
            }
            if arm.taught.is_some() {
                teacher(self.teacher_of(seed))?;
            }
            self.train(arm, seed, if arm.is_teacher() { threads } else { 1 }, data)
        })?;
        outcomes.retain(|outcome| arms.iter().any(|arm| arm.name == outcome.arm.name));
        Ok(outcomes)
    }

    /// Where a run is.
    fn place(&self, arm: &Arm, seed: usize) -> PathBuf {
        self.asked.runs.join(arm.name.replace(' ', "-")).join(format!("seed-{seed}"))
    }

    /// The teacher of a student, by its seed.
    fn teacher_of(&self, seed: usize) -> usize {
        (seed - 1) % self.teachers + 1
    }

    fn epochs_of(&self, arm: &Arm) -> usize {
        if arm.is_teacher() { self.teacher_epochs } else { arm.longer * self.epochs }
    }

    /// The recipe of one seed. All have the same split, that of `run.seed`.
    fn recipe(&self, arm: &Arm, seed: usize, teacher: Option<&Path>) -> String {
        let Arm { name, units, dropout: [inputs, hidden], .. } = arm;
        let quoted: Vec<String> = arm.excluded.iter().map(|class| format!("\"{class}\"")).collect();
        let validation = if arm.lifted.is_empty() { 0.0 } else { VALIDATION };
        let augment = if arm.is_jittered { "augment = [{ kind = \"translate\", pixels = 2 }]\n" } else { "" };
        let limit = arm.limit.map_or_else(String::new, |limit| format!("max_norm = {limit:?}\n"));
        let (folder, subset, epochs) = (self.asked.folder.display(), self.subset, self.epochs_of(arm));
        let data = format!(
            "[run]\nname = \"{name}, seed {seed}\"\nseed = 1\nloaders = 0\n[data]\nformat = \"idx\"\npath = \"{folder}\"\nnormalize = \
             \"unit\"\nsubset = {subset:?}\nexclude_classes = [{}]\nvalidation = {validation:?}\n{augment}",
            quoted.join(", ")
        );
        let train = format!(
            "[student]\narch = \"mlp\"\nhidden = [{units}, {units}]\ninput_dropout = {inputs:?}\ndropout = {hidden:?}\n[train]\nepochs = {epochs}\nbatch = \
             {BATCH}\nkeep = \"last\"\n{limit}optimizer = {OPTIMIZER}\nschedule = {SCHEDULE}\n[compare]\nseeds = [{seed}]\n"
        );
        let views = if arm.is_jittered { format!("cache_views = {VIEWS}\n") } else { String::new() };
        let taught = match (arm.taught, teacher) {
            (Some((hard, temperature)), Some(teacher)) => format!(
                "baseline = false\n[teacher]\nrun = \"{}\"\n{views}[distill]\ntask_weight = {hard:?}\nterms = [{{ method = \"kd\", temperature \
                 = {temperature:?} }}]\n",
                teacher.display()
            ),
            _ => String::new(),
        };
        format!("{data}{train}{taught}")
    }

    /// Trains one seed of an arm, or goes on with it, and counts its errors.
    fn train(&self, arm: &'static Arm, seed: usize, threads: usize, data: &Prepared) -> Result<Outcome> {
        let (place, what) = (self.place(arm, seed), format!("{}, seed {seed}", arm.name));
        let teacher = arm.taught.map(|_| self.place(&TEACHER, self.teacher_of(seed)));
        let recipe = self.recipe(arm, seed, teacher.as_deref());
        let (data_sha256, teacher) = (&*data.description.sha256, teacher.as_deref());
        let job = Job { what: &what, recipe: &recipe, output: &place, threads, data_sha256, teacher };
        let made_of = runs::finish(&self.asked.program, job)?.made_of;
        let test = outputs(&place, &data.test, threads)?;
        let errors = |lift: f32| Errors {
            all: test.errors(arm.lifted, lift, None),
            left_out: test.errors(arm.lifted, lift, Some(LEFT_OUT)),
        };
        let after = match arm.lifted {
            [] => None,
            lifted => {
                let lift = outputs(&place, &data.validation, threads)?.best_lift(lifted);
                Some((lift, errors(lift)))
            }
        };
        let outcome = Outcome { arm, seed, before: errors(0.0), after, seconds: runs::seconds(&place), made_of };
        eprintln!("study: {what}: {} errors, {:.0} s", outcome.before.all, outcome.seconds.unwrap_or(f64::NAN));
        Ok(outcome)
    }
}

/// The logits of a run's student.
fn outputs(run: &Path, samples: &Samples, threads: usize) -> Result<Outputs> {
    let target = Target::open(run, Some(Precision::Float), None)?;
    let lacking = || Refusal::new(run.display(), "a contract", "none", "train it again");
    let (graph, contract) = (target.graph?, target.contract.ok_or_else(lacking)?);
    let mut outputs = Outputs { classes: contract.output.classes.len(), ..Outputs::default() };
    let taps = std::slice::from_ref(&contract.output.name);
    teacher::ask(
        &graph,
        &contract,
        samples,
        taps,
        Pace { batch: BATCH, compute: Compute::host(threads) },
        |values, labels| {
            outputs.logits.extend_from_slice(values[0]);
            outputs.labels.extend_from_slice(labels);
            Ok(())
        },
    )?;
    Ok(outputs)
}

/// Samples of a class.
fn count(samples: &Samples, class: usize) -> usize {
    samples.labels.iter().filter(|label| **label == class).count()
}

/// What is kept of one seed.
fn record(study: &Study, outcome: &Outcome) -> Value {
    let Outcome { arm, seed, before, after, seconds, made_of } = outcome;
    json!({
        "arm": arm.name, "seed": seed, "teacher_seed": arm.taught.map(|_| study.teacher_of(*seed)),
        "epochs": study.epochs_of(arm), "errors": before.all, "errors_left_out": before.left_out,
        "lift": after.map(|after| after.0), "lifted_errors": after.map(|after| after.1.all),
        "lifted_errors_left_out": after.map(|after| after.1.left_out), "seconds": seconds,
        "made_of": made_of.to_json(),
    })
}

/// Mean over the outcomes that have the figure; not a number of none.
fn mean(outcomes: &[&Outcome], of: impl Fn(&Outcome) -> Option<f64>) -> f64 {
    let values: Vec<f64> = outcomes.iter().filter_map(|outcome| of(outcome)).collect();
    stats::mean_std(&values).map_or(f64::NAN, |(mean, _)| mean)
}

/// The same in words: of several with their deviation.
fn spread(outcomes: &[&Outcome], of: impl Fn(&Outcome) -> Option<f64>) -> String {
    let values: Vec<f64> = outcomes.iter().filter_map(|outcome| of(outcome)).collect();
    match stats::mean_std(&values) {
        None => "-".into(),
        Some((mean, _)) if values.len() == 1 => format!("{mean:.1}"),
        Some((mean, std)) => format!("{mean:.1} ± {std:.1}"),
    }
}

fn errors(outcome: &Outcome) -> Option<f64> {
    Some(outcome.before.all as f64)
}

/// The report: networks beside the paper's, the experiments with classes left out, and the small network by temperature.
fn report(study: &Study, scale: &str, arms: &[&'static Arm], outcomes: &[Outcome], data: &Prepared) -> String {
    let (n, threes) = (data.test.len(), count(&data.test, LEFT_OUT));
    let mut lines = vec![format!(
        "The experiments on MNIST of Hinton, Vinyals, Dean 2015 (arXiv 1503.02531, §3), scale {scale}: {:.0} % of the training \
         samples, {} epochs of the teacher, {} of students, {} seeds. Errors are of {n} test samples after the last epoch, mean ± \
         standard deviation over the seeds. Nothing was chosen by test samples.",
        100.0 * study.subset,
        study.teacher_epochs,
        study.epochs,
        study.asked.seeds
    )];
    if scale != "full" {
        lines.push("**This scale shows that the program works. Its figures say nothing about the paper's.**".into());
    }
    let chosen: Vec<(&Arm, Vec<&Outcome>)> = arms
        .iter()
        .map(|&arm| (arm, outcomes.iter().filter(|outcome| outcome.arm.name == arm.name).collect()))
        .collect();
    lines.push("\n| network | seeds | errors | each | paper | ± 15 % | |\n|---|---|---|---|---|---|---|".into());
    lines.extend(chosen.iter().filter(|row| row.0.lifted.is_empty() && row.0.units != TINY.units).map(headline));
    lines.push(format!(
        "\nClasses left out of the students' training samples. Before, then after adding one number to their logits, which {} \
         validation samples chose. Of the test samples {threes} are threes.\n\n| network | errors | threes right | added | errors | \
         threes right | paper, before and after |\n|---|---|---|---|---|---|---|",
        data.validation.len()
    ));
    lines.extend(chosen.iter().filter(|row| !row.0.lifted.is_empty()).map(|row| left_out(row, n, threes)));
    lines.push(
        "\nTwo layers of 30 units, soft targets alone, by temperature. Paper: 2.5 to 4 best.\n\n| network | errors | each \
         |\n|---|---|---|"
            .into(),
    );
    let tiny = chosen.iter().filter(|row| row.0.units == TINY.units);
    lines.extend(tiny.map(|(arm, of)| format!("| {} | {} | {} |", arm.name, spread(of, errors), each(of))));
    let several = made_of::several_programs(outcomes.iter().map(|outcome| &outcome.made_of));
    lines.extend(several.map(|line| format!("\n**{line}**")));
    lines.join("\n") + "\n"
}

/// Errors of each seed.
fn each(outcomes: &[&Outcome]) -> String {
    outcomes.iter().map(|outcome| outcome.before.all.to_string()).collect::<Vec<_>>().join(", ")
}

/// A network beside the paper's.
fn headline((arm, outcomes): &(&Arm, Vec<&Outcome>)) -> String {
    let beside = arm.paper.map_or("- | - | -".into(), |paper| {
        let (low, high) = ((1.0 - BAND) * paper, (1.0 + BAND) * paper);
        let verdict = if (low..=high).contains(&mean(outcomes, errors)) { "inside" } else { "outside" };
        format!("{paper} | {low:.1} to {high:.1} | {verdict}")
    });
    let (n, errors, each) = (outcomes.len(), spread(outcomes, errors), each(outcomes));
    format!("| {} | {n} | {errors} | {each} | {beside} |", arm.name)
}

/// A network that never saw some classes, of `n` test samples and so many of the class [`LEFT_OUT`].
fn left_out((arm, outcomes): &(&Arm, Vec<&Outcome>), n: usize, of_class: usize) -> String {
    let right = |wrong: usize| 100.0 * (1.0 - wrong as f64 / of_class.max(1) as f64);
    let lifted = |outcome: &Outcome| outcome.after.map(|after| after.1.all as f64);
    let before = |outcome: &Outcome| Some(right(outcome.before.left_out));
    let after = |outcome: &Outcome| outcome.after.map(|after| right(after.1.left_out));
    let paper = match arm.paper {
        None => "-".into(),
        Some(_) if arm.excluded == [LEFT_OUT] => {
            let verdict = |share: f64, least: f64| if share >= least { "met" } else { "missed" };
            let (first, then) = (verdict(mean(outcomes, before), 85.0), verdict(mean(outcomes, after), 95.0));
            format!("206, 86.8 % right; 109, 98.6 % (at least 85 %: {first}; at least 95 %: {then})")
        }
        Some(paper) => format!("{:.1} %; 13.2 %", paper / 100.0),
    };
    let share = |errors: f64| 100.0 * errors / n.max(1) as f64;
    format!(
        "| {} | {} ({:.1} %) | {} % | {} | {} ({:.1} %) | {} % | {paper} |",
        arm.name,
        spread(outcomes, errors),
        share(mean(outcomes, errors)),
        spread(outcomes, before),
        spread(outcomes, |outcome| outcome.after.map(|after| f64::from(after.0))),
        spread(outcomes, lifted),
        share(mean(outcomes, lifted)),
        spread(outcomes, after),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn study() -> Study {
        Study {
            asked: Asked {
                folder: "mnist".into(),
                runs: "runs".into(),
                program: "kd-train".into(),
                seeds: 3,
                jobs: 1,
                by_default: true,
            },
            subset: 0.5,
            teachers: 2,
            teacher_epochs: 7,
            epochs: 5,
        }
    }

    #[test]
    fn every_arm_is_a_recipe_of_its_own_with_the_same_split() {
        let study = study();
        let mut all = Vec::new();
        for arm in ARMS {
            let teacher = arm.taught.map(|_| study.place(&TEACHER, study.teacher_of(3)));
            let read = recipe::parse::parse(&study.recipe(arm, 3, teacher.as_deref()), arm.name, &[]).unwrap();
            assert_eq!((read.run.seed, read.seeds()), (1, vec![3]), "{}", arm.name);
            assert_eq!(read.distills(), arm.taught.is_some(), "{}", arm.name);
            assert_eq!(read.train.epochs, if arm.is_teacher() { 7 } else { 5 * arm.longer }, "{}", arm.name);
            assert_eq!(
                read.data.validation > 0.0,
                !arm.lifted.is_empty(),
                "{}: who chooses holds samples out",
                arm.name
            );
            all.push((read.data, read.teachers, read.student, read.train, read.distill));
        }
        for (i, one) in all.iter().enumerate() {
            assert!(!all[..i].contains(one), "{}: the same as another", ARMS[i].name);
        }
        assert_eq!(study.teacher_of(3), 1, "students take two teachers in turns");
    }

    #[test]
    fn a_study_is_whole_if_every_default_arm_is_there_with_the_default_settings() {
        let mut study = Study { subset: 1.0, teachers: 3, teacher_epochs: 200, epochs: 100, ..study() };
        let all: Vec<&Arm> = ARMS.iter().collect();
        let by_default: Vec<&Arm> = ARMS.iter().filter(|arm| arm.by_default).collect();
        assert!(study.is_whole(&all) && study.is_whole(&by_default));
        assert!(!study.is_whole(&by_default[1..]), "an arm is missing");
        let ablations: Vec<&Arm> = ARMS.iter().filter(|arm| !arm.by_default).collect();
        assert!(!study.is_whole(&ablations));
        study.asked.by_default = false;
        assert!(!study.is_whole(&all), "data from elsewhere, or other seeds");
        study.asked.by_default = true;
        study.epochs = 99;
        assert!(!study.is_whole(&all));
    }

    #[test]
    fn a_mean_is_inside_up_to_15_percent_of_the_paper_s() {
        let line = |errors: [usize; 2]| {
            let outcomes = errors.map(|all| Outcome {
                arm: &ARMS[0],
                seed: 1,
                before: Errors { all, left_out: 0 },
                after: None,
                seconds: None,
                made_of: MadeOf::default(),
            });
            headline(&(&ARMS[0], outcomes.iter().collect()))
        };
        assert_eq!(line([76, 78]), "| teacher | 2 | 77.0 ± 1.4 | 76, 78 | 67 | 56.9 to 77.0 | inside |");
        assert!(line([77, 78]).ends_with("outside |"));
        assert!(line([56, 57]).ends_with("outside |"));
    }

    #[test]
    fn a_class_left_out_is_judged_before_and_after() {
        let arm = ARMS.iter().find(|arm| arm.excluded == [LEFT_OUT]).unwrap();
        let after = Some((3.5, Errors { all: 100, left_out: 10 }));
        let (before, made_of) = (Errors { all: 300, left_out: 160 }, MadeOf::default());
        let outcome = Outcome { arm, seed: 1, before, after, seconds: None, made_of };
        let line = left_out(&(arm, vec![&outcome]), 10_000, 1_000);
        assert!(line.contains("| 300.0 (3.0 %) | 84.0 % | 3.5 | 100.0 (1.0 %) | 99.0 % |"), "{line}");
        assert!(line.contains("(at least 85 %: missed; at least 95 %: met)"), "{line}");
    }
}
