//! The teachers of a run: opened or trained, and judged before anyone learns from them.

use std::borrow::Cow;

use kd_runtime::error::Exit;
use kd_runtime::{Refusal, Result};

use super::results::{Score, Teacher};
use super::session::Session;
use super::{replicas, saved};
use crate::losses::pair::cut;
use crate::recipe::precheck::assistant_name;
use crate::recipe::{self, TeacherSource, Train};
use crate::teacher::{self, CacheWish, Network, Pace};
use crate::{recipe::Choice, zoo};

/// A teacher and what it was judged by.
pub(super) type Judged = (Network, Teacher);

/// Opens the teachers that exist; `None` stands for those that the recipe trains.
pub(super) fn open(session: &Session<'_>) -> Result<Vec<Option<Network>>> {
    let open = |teacher: &recipe::Teacher| match &teacher.source {
        TeacherSource::Arch { .. } => Ok(None),
        _ => teacher::open(teacher, session.recipe, &session.data).map(Some),
    };
    session.recipe.teachers.iter().map(open).collect()
}

/// Judges those that were opened, once it is known that there is memory for whole batches.
pub(super) fn judge_all(session: &Session<'_>, opened: Vec<Option<Network>>) -> Result<Vec<Option<Judged>>> {
    let judge = |(teacher, network): (&recipe::Teacher, Option<Network>)| {
        let Some(network) = network else { return Ok(None) };
        let judged = judge(session, teacher.must_reach, &network)?;
        Ok(Some((network, judged)))
    };
    session.recipe.teachers.iter().zip(opened).map(judge).collect()
}

/// All teachers in the order of the recipe, those that are missing trained first and kept in the folder.
pub(super) fn all(session: &mut Session<'_>, given: Vec<Option<Judged>>) -> Result<(Vec<Network>, Vec<Teacher>)> {
    let mut all = Vec::new();
    let recipe = session.recipe;
    let mut trained = 0;
    for (i, (teacher, given)) in recipe.teachers.iter().zip(given).enumerate() {
        let name = if recipe.teachers.len() == 1 { "teacher".to_string() } else { format!("teacher-{}", i + 1) };
        let judged = match (&teacher.source, given) {
            (TeacherSource::Arch { arch, train }, _) => {
                // The first has the run's own seed; others of its architecture are other networks.
                let seed = replicas::seed(recipe.run.seed, trained);
                trained += 1;
                train_first(session, teacher, &name, arch, train, seed)?
            }
            (_, Some(judged)) => judged,
            (_, None) => continue,
        };
        let (shown, score) = (&judged.1.name, judged.1.judged);
        let on = &judged.1.judged_on;
        for note in &judged.0.notes {
            session.note(note);
        }
        session.note(&format!("teacher {shown}: {:.2} % of {} {on} samples", 100.0 * score.accuracy, score.n));
        if is_guessing(score, session.site.classes) {
            let about = format!("no better than guessing among {} classes", session.site.classes);
            session.note(&format!("teacher {shown}: {about}; check the order of its classes and what it is fed"));
        }
        all.push(judged);
    }
    Ok(all.into_iter().unzip())
}

/// Whether so many right answers cannot be told from those of one who guesses: within two standard errors.
fn is_guessing(score: Score, classes: usize) -> bool {
    let chance = 1.0 / classes.max(1) as f64;
    score.accuracy <= chance + 2.0 * (chance * (1.0 - chance) / score.n.max(1) as f64).sqrt()
}

fn train_first(
    session: &mut Session<'_>,
    teacher: &recipe::Teacher,
    name: &str,
    arch: &Choice,
    train: &Train,
    seed: u64,
) -> Result<Judged> {
    let first = zoo::build(arch, &session.site, seed)?;
    let fitted = session.fit(name, &first, train, None, seed)?;
    let graph = saved::kept(&fitted, train.keep).clone();
    saved::write_network(&session.folder, name, &graph, &session.data.contract)?;
    let shares: f64 = session.recipe.teachers.iter().map(|teacher| teacher.weight).sum();
    let several = session.recipe.teachers.len() > 1;
    let which = if several { format!("{name}, ") } else { String::new() };
    let network = Network {
        name: format!("{which}arch {}", arch.name),
        sha256: teacher::parameters_sha256(&graph),
        graph,
        contract: session.data.contract.clone(),
        weight: teacher.weight / shares,
        cache: teacher.cache,
        notes: Vec::new(),
    };
    let judged = judge(session, teacher.must_reach, &network)?;
    Ok((network, judged))
}

/// Trains the assistants one after the other, each taught by the one before it (the first by the teachers, or by the labels
/// where there are none), and gives what teaches the student: the last of them. All are judged beside the teachers.
pub(super) fn assist(
    session: &mut Session<'_>,
    mut teachers: Vec<Network>,
    mut judged: Vec<Teacher>,
) -> Result<(Vec<Network>, Vec<Teacher>)> {
    let recipe = session.recipe;
    // First weights of its own, behind those of the teachers: generations of one architecture begin in different places.
    let seeds_before = recipe.teachers.len().max(1);
    for (i, arch) in recipe.distill.assistants.iter().enumerate() {
        let (name, seed) = (assistant_name(i), recipe.run.seed);
        let first = zoo::build(arch, &session.site, replicas::seed(seed, seeds_before + i))?;
        let taught_by = (!teachers.is_empty()).then_some(&teachers[..]);
        let fitted = session.fit(&name, &first, &recipe.train, taught_by, seed)?;
        let output = &session.data.contract.output.name;
        let graph = cut(saved::kept(&fitted, recipe.train.keep), output, output)?;
        saved::write_network(&session.folder, &name, &graph, &session.data.contract)?;
        let network = Network {
            name: format!("{name}, arch {}", arch.name),
            sha256: teacher::parameters_sha256(&graph),
            graph,
            contract: session.data.contract.clone(),
            weight: 1.0,
            cache: recipe.teachers.first().map_or(CacheWish::OFF, |teacher| teacher.cache),
            notes: Vec::new(),
        };
        judged.push(judge(session, None, &network)?);
        teachers = vec![network];
    }
    Ok((teachers, judged))
}

/// Evaluates a teacher before step 0. Refuses one that answers other classes, that is the student itself, or that is
/// below what it must reach.
fn judge(session: &Session<'_>, must_reach: Option<f64>, network: &Network) -> Result<Teacher> {
    let at = format!("teacher `{}`", network.name);
    let (ours, theirs) = (session.site.classes, network.contract.output.classes.len());
    if ours != theirs {
        let expected = format!("{ours} classes, as the data has");
        return Err(Refusal::new(at, expected, theirs, "choose a teacher of the same classes"));
    }
    for seed in session.recipe.seeds() {
        if teacher::same_network(&session.first_student(seed)?, &network.graph) {
            let found = format!("the student itself, as seed {seed} begins with it");
            return Err(Refusal::new(at, "a teacher that differs from the student", found, "choose another teacher"));
        }
    }
    let (judged_on, samples) = match session.data.validation.is_empty() {
        true => ("train", session.data.train.labelled()),
        false => ("validation", Cow::Borrowed(&session.data.validation)),
    };
    let score = |samples| -> Result<Score> {
        let pace = Pace { batch: session.recipe.train.batch, compute: session.compute() };
        let answers = teacher::evaluate(&network.graph, &network.contract, samples, pace)?;
        Ok(Score::new(answers.right, samples.len()))
    };
    let judged = score(&samples)?;
    if let Some(must_reach) = must_reach.filter(|&share| judged.accuracy < share) {
        let expected = format!("at least {must_reach} of the {judged_on} samples right (must_reach)");
        let found = format!("{:.4} ({} of {})", judged.accuracy, judged.right, judged.n);
        let action = "train it better, choose another, or lower must_reach";
        return Err(Refusal::new(at, expected, found, action).with_exit(Exit::VerdictFailed));
    }
    Ok(Teacher {
        name: network.name.clone(),
        sha256: network.sha256.clone(),
        weight: network.weight,
        size: saved::size(&network.graph)?,
        judged_on: judged_on.into(),
        judged,
        must_reach,
        test: score(&session.data.test)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_teacher_that_guesses_is_told_from_one_that_knows() {
        let guesses = |right, n, classes| is_guessing(Score::new(right, n), classes);
        assert!(guesses(0, 1000, 10) && guesses(100, 1000, 10) && guesses(115, 1000, 10));
        assert!(!guesses(130, 1000, 10) && !guesses(900, 1000, 10));
        // Two classes: half is chance; few samples say less.
        assert!(guesses(52, 100, 2) && !guesses(70, 100, 2) && guesses(7, 10, 2) && !guesses(10, 10, 2));
    }
}
