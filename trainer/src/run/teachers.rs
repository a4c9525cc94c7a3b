//! The teachers of a run: opened or trained, and judged before anyone learns from them.

use std::borrow::Cow;

use kd_runtime::error::Exit;
use kd_runtime::graph::Graph;
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
    check_none_is_student(session, &opened.iter().flatten().collect::<Vec<_>>())?;
    let judge = |(teacher, network): (&recipe::Teacher, Option<Network>)| {
        let Some(network) = network else { return Ok(None) };
        let judged = judge(session, teacher.must_reach, &network)?;
        if teacher.must_reach.is_none() && surely_guesses(judged.judged, session.site.classes) {
            return Err(no_better_than_guessing(&judged, session.site.classes));
        }
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
            session.note(&format!("teacher {shown}: {about}: check the order of its classes and what it is fed"));
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

/// Whether they are those of one who guesses, and not only few of one who knows: the interval that the share lies in ends
/// before half the way from chance to knowing all.
fn surely_guesses(score: Score, classes: usize) -> bool {
    is_guessing(score, classes) && score.ci.1 < 0.5 + 0.5 / classes.max(1) as f64
}

/// Of a teacher from elsewhere, whose classes may have another order, or whose inputs another scale, than its contract says.
fn no_better_than_guessing(teacher: &Teacher, classes: usize) -> Refusal {
    let expected = format!("a teacher that knows more than who guesses among {classes} classes");
    let Score { right, n, .. } = teacher.judged;
    let found = format!("{right} of {n} {} samples right", teacher.judged_on);
    let action = "check the order of its classes and what it is fed; must_reach = 0 takes it as it is";
    Refusal::new(format!("teacher `{}`", teacher.name), expected, found, action).with_exit(Exit::VerdictFailed)
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
    check_none_is_student(session, &[&network])?;
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
        check_none_is_student(session, &[&network])?;
        judged.push(judge(session, None, &network)?);
        teachers = vec![network];
    }
    Ok((teachers, judged))
}

/// Refuses teachers of which one is the student itself.
fn check_none_is_student(session: &Session<'_>, networks: &[&Network]) -> Result<()> {
    let found = same_as_student(&session.recipe.seeds(), &|seed| session.first_student(seed), networks)?;
    let Some((seed, network)) = found else { return Ok(()) };
    let at = format!("teacher `{}`", network.name);
    let found = format!("the student itself, as seed {seed} begins with it");
    Err(Refusal::new(at, "a teacher that differs from the student", found, "choose another teacher"))
}

/// The first of these networks that is the student, and the seed that begins with it. A student is built once a seed, and
/// one alone where no network has its operators.
fn same_as_student<'n>(
    seeds: &[u64],
    build: &dyn Fn(u64) -> Result<Graph>,
    networks: &[&'n Network],
) -> Result<Option<(u64, &'n Network)>> {
    let mut alike = networks.to_vec();
    for &seed in seeds {
        if alike.is_empty() {
            break;
        }
        let student = build(seed)?;
        alike.retain(|network| teacher::same_operators(&student, &network.graph));
        if let Some(same) = alike.iter().find(|network| teacher::same_network(&student, &network.graph)) {
            return Ok(Some((seed, same)));
        }
    }
    Ok(None)
}

/// Evaluates a teacher before step 0. Refuses one that answers other classes, or that is below what it must reach.
fn judge(session: &Session<'_>, must_reach: Option<f64>, network: &Network) -> Result<Teacher> {
    let at = format!("teacher `{}`", network.name);
    let (ours, theirs) = (session.site.classes, network.contract.output.classes.len());
    if ours != theirs {
        let expected = format!("{ours} classes, as the data has");
        return Err(Refusal::new(at, expected, theirs, "choose a teacher of the same classes"));
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
    use std::cell::RefCell;

    use kd_runtime::contract::{Contract, Meaning};
    use kd_runtime::data::Description;

    use super::*;
    use crate::options::Options;

    fn graph(arch: &str, seed: u64) -> Result<Graph> {
        let row = zoo::table::ARCHS.iter().find(|row| row.name == arch).expect("an architecture");
        let arch = Choice { name: row.name, options: Options::defaults(row.options) };
        zoo::build(&arch, &zoo::Site { input: vec![1, 8, 8], classes: 3 }, seed)
    }

    fn network(arch: &str, seed: u64) -> Network {
        let description = Description {
            shape: vec![1, 8, 8],
            layout: "CHW".into(),
            classes: (0..3).map(|class| class.to_string()).collect(),
            raw_max: None,
            n_train: 0,
            n_test: 0,
            sha256: String::new(),
            reading: None,
        };
        Network {
            name: format!("{arch} {seed}"),
            graph: graph(arch, seed).expect("a network"),
            contract: Contract::for_data(&description, "x", "logits", Meaning::Logits),
            sha256: String::new(),
            weight: 1.0,
            cache: CacheWish::OFF,
            notes: Vec::new(),
        }
    }

    #[test]
    fn the_student_is_built_once_a_seed_however_many_teachers_there_are() {
        let others = [network("cnn", 1), network("mlp", 7), network("mlp", 8)];
        let built = RefCell::new(Vec::new());
        let build = |seed| {
            built.borrow_mut().push(seed);
            graph("mlp", seed)
        };
        let look = |seeds: &[u64], networks: &[&Network]| {
            built.borrow_mut().clear();
            let found =
                same_as_student(seeds, &build, networks).expect("built").map(|(seed, one)| (seed, one.name.clone()));
            (found, built.borrow().clone())
        };
        let all: Vec<&Network> = others.iter().collect();
        assert_eq!(look(&[1, 2, 3], &all), (None, vec![1, 2, 3]));
        assert_eq!(look(&[1, 8, 3], &all), (Some((8, "mlp 8".into())), vec![1, 8]));
        assert_eq!(look(&[1, 2, 3], &all[..1]), (None, vec![1]), "of other operators");
        assert_eq!(look(&[1, 2, 3], &[]), (None, vec![]));
    }

    #[test]
    fn a_teacher_that_guesses_is_told_from_one_that_knows() {
        let guesses = |right, n, classes| is_guessing(Score::new(right, n), classes);
        assert!(guesses(0, 1000, 10) && guesses(100, 1000, 10) && guesses(115, 1000, 10));
        assert!(!guesses(130, 1000, 10) && !guesses(900, 1000, 10));
        // Two classes: half is chance; few samples say less.
        assert!(guesses(52, 100, 2) && !guesses(70, 100, 2) && guesses(7, 10, 2) && !guesses(10, 10, 2));
        // Few samples are no proof.
        let surely = |right, n, classes| surely_guesses(Score::new(right, n), classes);
        assert!(surely(100, 1000, 10) && surely(0, 359, 10) && surely(52, 100, 2) && !surely(130, 1000, 10));
        assert!(
            [(1, 1), (2, 2), (1, 2), (4, 4), (4, 5), (3, 6), (7, 10)].iter().all(|&(right, n)| !surely(right, n, 2))
        );
    }
}
