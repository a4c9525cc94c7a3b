//! The students of a run: distilled and alone, seed by seed, each from the same first weights in the same order.

use kd_runtime::Result;
use kd_runtime::graph::Graph;

use super::fit::Fitted;
use super::results::{Arm, Comparison, Insight, Kept, Pair, Replicas, Results, SCHEMA, Score, SeedRun, Size, Teacher};
use super::session::Session;
use super::{exits, insight, replicas, saved};
use crate::losses::pair::cut;
use crate::recipe::precheck::replica_name;
use crate::recipe::{Codistill, Keep, Recipe, Scheme, Train};
use crate::schemes::exchange::Place;
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
    /// What the first one costs, where it may differ from the architecture: a method can add to what is kept.
    size: Option<Size>,
    /// How sure the first one is.
    insight: Option<Insight>,
}

/// Trains every arm with every seed, keeps the networks of the first seed in the folder, and compares.
pub(super) fn all(session: &mut Session<'_>, teachers: &[Network], judged: Vec<Teacher>) -> Result<Results> {
    let recipe = session.recipe;
    let seeds = recipe.seeds();
    let compares = recipe.compare.baseline;
    // As many epochs as the student has in both its stages.
    let alone = Train { epochs: recipe.train.epochs + recipe.distill.init_epochs, ..recipe.train.clone() };
    let (mut student, mut baseline) = (Growing::default(), Growing::default());
    for &seed in &seeds {
        match recipe.distill.scheme {
            Scheme::Codistill(scheme) => match session.place {
                None => train_replicas(session, scheme, seed, &mut student)?,
                Some(place) => train_replica(session, scheme, seed, place, &mut student)?,
            },
            Scheme::Offline => {
                let teachers = recipe.distills().then_some(teachers);
                train(session, STUDENT, &recipe.train, teachers, seed, &mut student)?;
            }
        }
        if compares {
            train(session, BASELINE, &alone, None, seed, &mut baseline)?;
        }
    }
    let labels = &session.data.test.labels;
    let pairs = seeds.iter().zip(&student.predicted).zip(&baseline.predicted);
    let pairs: Vec<Pair> = pairs.map(|((&seed, ours), alone)| Pair::new(seed, labels, ours, alone)).collect();
    let first = session.first_student(seeds[0])?;
    let size = student.size.map_or_else(|| saved::size(&first), Ok)?;
    let about = if recipe.distills() { "distilled" } else { "alone" };
    let (of_teachers, softness) = insight::look_at_teachers(session, teachers)?;
    let of_students = [student.insight.take(), baseline.insight.take()].into_iter().flatten();
    let insights = of_students.chain(of_teachers).collect();
    let mut arms = vec![Arm::new(STUDENT, about, size, student.runs)];
    if compares {
        arms.push(Arm::new(BASELINE, "alone", saved::size(&first)?, baseline.runs));
    }
    Ok(Results {
        schema: SCHEMA.into(),
        name: recipe.run.name.clone(),
        keep: recipe.train.keep.into(),
        selected_on: if session.data.validation.is_empty() { "last" } else { "validation" }.into(),
        teachers: judged,
        arms,
        comparison: compares.then(|| Comparison::new(pairs)),
        insights,
        softness,
    })
}

fn train(
    session: &mut Session<'_>,
    name: &str,
    section: &Train,
    teachers: Option<&[Network]>,
    seed: u64,
    arm: &mut Growing,
) -> Result<()> {
    let first = session.first_student(seed)?;
    let fitted = session.fit(name, &first, section, teachers, seed)?;
    keep(session, name, &fitted, seed, None, arm)
}

/// Replicas that teach each other. The student is the one that the validation samples choose (the first without any) among
/// those of the student's architecture; what others have is kept beside it.
fn train_replicas(session: &mut Session<'_>, scheme: Codistill, seed: u64, arm: &mut Growing) -> Result<()> {
    let all = replicas::fit_all(session, scheme, seed)?;
    let chosen = best(&all, session.recipe);
    let graphs: Vec<Graph> = all.iter().map(|fitted| kept(session, fitted)).collect::<Result<_>>()?;
    if arm.runs.is_empty() && !session.recipe.distill.peers.is_empty() {
        for (i, graph) in graphs.iter().enumerate().filter(|(i, _)| *i != chosen) {
            saved::write_network(&session.folder, &replica_name(i), graph, &session.data.contract)?;
        }
    }
    let replicas = side_by_side(session, scheme, &graphs, chosen, &all[chosen])?;
    keep(session, STUDENT, &all[chosen], seed, Some(replicas), arm)
}

/// One replica, which is the student; the others are in other processes, and are reported as they were last heard.
fn train_replica(
    session: &mut Session<'_>,
    scheme: Codistill,
    seed: u64,
    place: &Place,
    arm: &mut Growing,
) -> Result<()> {
    let (fitted, others) = replicas::fit_one(session, scheme, seed, place)?;
    let (me, others) = (place.me - 1, others.into_iter().collect::<Option<Vec<Graph>>>());
    let replicas = others.map(|mut graphs| {
        graphs.insert(me, kept(session, &fitted)?);
        side_by_side(session, scheme, &graphs, me, &fitted)
    });
    keep(session, STUDENT, &fitted, seed, replicas.transpose()?, arm)
}

/// The network that is kept, without what its output does not need.
fn kept(session: &Session<'_>, fitted: &Fitted) -> Result<Graph> {
    let output = &session.data.contract.output.name;
    cut(saved::kept(fitted, session.recipe.train.keep), output, output)
}

/// Notes a seed of an arm; the first one's network goes into the folder, with its exits.
fn keep(
    session: &Session<'_>,
    name: &str,
    fitted: &Fitted,
    seed: u64,
    replicas: Option<Replicas>,
    arm: &mut Growing,
) -> Result<()> {
    let (mut run, predicted) = report(session, fitted, seed)?;
    let is_first = arm.runs.is_empty();
    if is_first {
        let graph = kept(session, fitted)?;
        arm.size = Some(saved::size(&graph)?);
        saved::write_network(&session.folder, name, &graph, &session.data.contract)?;
        arm.insight = Some(insight::look(session, name, &graph)?);
    }
    let whole = saved::kept(fitted, session.recipe.train.keep);
    run.exits = exits::report(session, name, whole, &fitted.exits, is_first)?;
    run.replicas = replicas;
    arm.runs.push(run);
    arm.predicted.push(predicted);
    Ok(())
}

/// Replicas on the test samples, and what training them costs; `fitted` is the chosen one.
fn side_by_side(
    session: &Session<'_>,
    scheme: Codistill,
    graphs: &[Graph],
    chosen: usize,
    fitted: &Fitted,
) -> Result<Replicas> {
    let n = session.data.test.len();
    let each = graphs.iter().map(|graph| Ok(Score::new(session.answers(graph, &session.data.test)?.right, n)));
    let each = each.collect::<Result<_>>()?;
    let together = replicas::together(session, graphs, &session.data.test)?;
    let archs = (0..graphs.len()).map(|i| session.recipe.replica(i).name.to_string()).collect();
    let macs: Vec<u64> = graphs.iter().map(|graph| Ok(graph.stats()?.macs)).collect::<Result<_>>()?;
    let (steps, of_epoch) = (fitted.steps(), fitted.steps_per_epoch);
    let listening = steps.saturating_sub(scheme.burn_in_steps.unwrap_or(of_epoch)) as f64 / steps.max(1) as f64;
    Ok(Replicas {
        each,
        archs,
        chosen: chosen + 1,
        compute: replicas::compute(&macs, chosen, listening),
        ensemble: Score::new(together.right, n),
        churn: together.churn,
        distance: together.distance,
        ece: graphs.iter().map(|graph| Ok(insight::look(session, STUDENT, graph)?.ece)).collect::<Result<_>>()?,
        sizes: graphs.iter().map(saved::size).collect::<Result<_>>()?,
    })
}

/// Which of the replicas of the student's architecture the validation samples like best; ties go to the lower loss, then to
/// the first.
fn best(all: &[Fitted], recipe: &Recipe) -> usize {
    let judged = |fitted: &Fitted| {
        let epoch = match recipe.train.keep {
            Keep::Selected => fitted.history.get(fitted.selected_epoch.wrapping_sub(1)),
            Keep::Last => fitted.history.last(),
        };
        let accuracy = epoch.and_then(|epoch| epoch.validation_accuracy).unwrap_or(0.0);
        (accuracy, -epoch.and_then(|epoch| epoch.validation_loss).unwrap_or(f64::INFINITY))
    };
    let better = |a: (f64, f64), b: (f64, f64)| a.0 > b.0 || (a.0 == b.0 && a.1 > b.1);
    (1..all.len())
        .filter(|&i| *recipe.replica(i) == recipe.student)
        .fold(0, |best, i| if better(judged(&all[i]), judged(&all[best])) { i } else { best })
}

/// Last and selected epoch on the test samples, and the predictions of the one that is kept.
fn report(session: &Session<'_>, fitted: &Fitted, seed: u64) -> Result<(SeedRun, Vec<usize>)> {
    let (samples, output) = (&session.data.test, &session.data.contract.output.name);
    let answers = |whole: &Graph| session.answers(&cut(whole, output, output)?, samples);
    let (last, selected) = (answers(&fitted.last)?, answers(&fitted.selected)?);
    let run = SeedRun {
        seed,
        epochs: fitted.history.len(),
        steps: fitted.steps(),
        selected_epoch: fitted.selected_epoch,
        last: Score::new(last.right, samples.len()),
        selected: Score::new(selected.right, samples.len()),
        replicas: None,
        exits: None,
    };
    let kept = match Kept::from(session.recipe.train.keep) {
        Kept::Selected => selected,
        Kept::Last => last,
    };
    Ok((run, kept.predicted))
}
