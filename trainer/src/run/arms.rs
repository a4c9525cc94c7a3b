//! The students of a run: distilled and alone, seed by seed, each from the same first weights in the same order.

use kd_runtime::Result;

use super::fit::Fitted;
use super::results::{Arm, Comparison, Kept, Pair, Results, SCHEMA, Score, SeedRun, Teacher};
use super::saved;
use super::session::Session;
use crate::teacher::Network;

/// The arm that learns from teachers (or from the labels where there are none).
const STUDENT: &str = "student";
/// The same student without teachers.
const BASELINE: &str = "baseline";

/// One arm as it grows, seed by seed.
#[derive(Default)]
struct Growing {
    runs: Vec<SeedRun>,
    /// Predictions of the kept networks on the test samples.
    predicted: Vec<Vec<usize>>,
}

/// Trains every arm with every seed, keeps the networks of the first seed in the folder, and compares.
pub(super) fn all(session: &mut Session<'_>, teachers: &[Network], judged: Vec<Teacher>) -> Result<Results> {
    let recipe = session.recipe;
    let seeds = recipe.seeds();
    let compares = recipe.compare.baseline && !teachers.is_empty();
    let (mut student, mut baseline) = (Growing::default(), Growing::default());
    for &seed in &seeds {
        train(session, STUDENT, teachers, seed, &mut student)?;
        if compares {
            train(session, BASELINE, &[], seed, &mut baseline)?;
        }
    }
    let labels = &session.data.test.labels;
    let pairs = seeds.iter().zip(&student.predicted).zip(&baseline.predicted);
    let pairs: Vec<Pair> = pairs.map(|((&seed, ours), alone)| Pair::new(seed, labels, ours, alone)).collect();
    let size = saved::size(&session.first_student(seeds[0])?)?;
    let about = if teachers.is_empty() { "alone" } else { "distilled" };
    let mut arms = vec![Arm::new(STUDENT, about, size, student.runs)];
    if compares {
        arms.push(Arm::new(BASELINE, "alone", size, baseline.runs));
    }
    Ok(Results {
        schema: SCHEMA.into(),
        name: recipe.run.name.clone(),
        keep: recipe.train.keep.into(),
        teachers: judged,
        arms,
        comparison: compares.then(|| Comparison::new(pairs)),
    })
}

fn train(session: &mut Session<'_>, name: &str, teachers: &[Network], seed: u64, arm: &mut Growing) -> Result<()> {
    let recipe = session.recipe;
    let first = session.first_student(seed)?;
    let fitted = session.fit(name, &first, &recipe.train, teachers, seed)?;
    let (run, predicted) = report(session, &fitted, seed)?;
    if arm.runs.is_empty() {
        let graph = saved::kept(fitted, recipe.train.keep);
        saved::write_network(&session.folder, name, &graph, &session.data.contract)?;
    }
    arm.runs.push(run);
    arm.predicted.push(predicted);
    Ok(())
}

/// Last and selected epoch on the test samples, and the predictions of the one that is kept.
fn report(session: &Session<'_>, fitted: &Fitted, seed: u64) -> Result<(SeedRun, Vec<usize>)> {
    let samples = &session.data.test;
    let (last, selected) = (session.answers(&fitted.last, samples)?, session.answers(&fitted.selected, samples)?);
    let run = SeedRun {
        seed,
        epochs: fitted.history.len(),
        selected_epoch: fitted.selected_epoch,
        last: Score::new(last.right, samples.len()),
        selected: Score::new(selected.right, samples.len()),
    };
    let kept = match Kept::from(session.recipe.train.keep) {
        Kept::Selected => selected,
        Kept::Last => last,
    };
    Ok((run, kept.predicted))
}
