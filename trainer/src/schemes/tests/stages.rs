//! Terms of another stage: a step is as if they were not there, and asks nobody for them.

use kd_runtime::graph::{ElementType, Shape, Tensor};
use kd_runtime::ops::{cast::Cast, gather::Gather, gemm::MatMul, reshape::Flatten};

use super::*;

const INIT: At = At { init: true, ..AT };

fn of_stage(stage: Stage, term: Term) -> Term {
    Term { stage, ..term }
}

/// `kd` in the main stage; before it a method that puts adapters behind the student.
fn staged(method: &str, options: &[(&'static str, Setting)]) -> Distill {
    let first = of_stage(Stage::Init, term(method, 2.0, options));
    Distill { init_epochs: 1, diagnose: true, ..distill(0.7, vec![first, term("kd", 2.0, &[temperature(4.0)])]) }
}

fn planned(optimizer: &str, distill: &Distill, teachers: &[Network], threads: usize) -> Learner {
    let kinds = crate::optim::table::OPTIMIZERS.iter().map(|kind| (kind.name, kind.options));
    let train = Train { optimizer: choice(kinds, optimizer), ..train(0.1) };
    Learner::new(&network("cnn", 1), &contract(), &train, Some((distill, teachers)), Compute::host(threads), &nine(), 1)
        .unwrap()
}

#[test]
fn a_term_of_the_first_stage_leaves_a_step_of_the_main_one_as_if_it_were_not_there() {
    let teachers = [teacher("cnn", 2, 1.0)];
    let always = [("connector", Setting::Text("always".into()))];
    let features = ["student", "teacher"].map(|side| (side, Setting::Text("features".into())));
    for (method, options) in [("ab", &always[..]), ("fitnets", &[]), ("fitnets", &features), ("byot", &[])] {
        for optimizer in ["sgd", "dot"] {
            let mut staged = planned(optimizer, &staged(method, options), &teachers, 1);
            let alone = Distill { diagnose: true, ..distill(0.7, vec![term("kd", 2.0, &[temperature(4.0)])]) };
            let mut alone = planned(optimizer, &alone, &teachers, 1);
            let first = staged.executor.parameters().to_vec();
            let (found, expected) = (staged.step(&batch(), 5, AT).unwrap(), alone.step(&batch(), 5, AT).unwrap());
            let [terms, counts, weights] =
                [&found.terms, &found.counts, &found.weights].map(|all| [0, 2].map(|i| all[i]).to_vec());
            assert_eq!(StepValues { terms, counts, weights, ..found }, expected, "{method}");
            let (with, without) = (staged.executor.parameters(), alone.executor.parameters());
            for parameter in without {
                assert_eq!(with.iter().find(|p| p.name == parameter.name), Some(parameter), "{method}");
            }
            let is_adapter = |name: &str| without.iter().all(|p| p.name != name);
            let adapters: Vec<_> = with.iter().zip(&first).filter(|(p, _)| is_adapter(&p.name)).collect();
            assert!(adapters.iter().any(|(p, _)| !p.role.is_trained()), "{method}: a batch norm");
            let moves: Vec<&str> = with.iter().zip(staged.moves()).filter(|(_, m)| *m).map(|(p, _)| &*p.name).collect();
            assert!(!moves.is_empty() && moves.iter().all(|name| !is_adapter(name)), "{method}: {moves:?}");
            for (now, first) in adapters {
                assert_eq!(now.value, first.value, "{method}: {} has not moved", now.name);
                assert!(now.gradient.iter().all(|&g| g == 0.0), "{method}: {}", now.name);
            }
            let task = |learner: &Learner| -> Vec<Vec<f32>> {
                learner.task_gradients.iter().filter(|task| !task.is_empty()).map(|task| task.to_vec()).collect()
            };
            assert_eq!((task(&staged), task(&staged).is_empty()), (task(&alone), optimizer == "sgd"), "{method}");
            staged.check_gradients().unwrap();
            assert!(staged.executor.check_gradients(&[]).is_err(), "{method}: its adapters are not reached");
            assert_eq!(staged.gradient_norms().unwrap(), alone.gradient_norms().unwrap(), "{method}");
        }
    }
}

#[test]
fn a_step_sees_nothing_of_the_stage_before_it() {
    let (teachers, distill) = ([teacher("cnn", 2, 1.0)], staged("ab", &[]));
    let mut went = planned("dot", &distill, &teachers, 1);
    let before = went.executor.parameters().to_vec();
    went.step(&batch(), 1, INIT).unwrap();
    assert_ne!(went.executor.parameters(), before, "running statistics moved");
    // `ab` reads the stages: what makes logits of them does not move in the first stage, nor decays.
    let still: Vec<&str> =
        before.iter().zip(went.moves()).filter(|(p, m)| p.role.is_trained() && !m).map(|(p, _)| &*p.name).collect();
    assert!(still.iter().any(|name| name.starts_with("logits") || name.starts_with("fc")), "{still:?}");
    for at in [AT, INIT, AT] {
        let values = went.executor.parameters().to_vec();
        let [one, two] = [1, 2].map(|threads| {
            let mut fresh = planned("dot", &distill, &teachers, threads);
            fresh.executor.parameters_mut().iter_mut().zip(&values).for_each(|(p, of)| p.value.clone_from(&of.value));
            let found = fresh.step(&batch(), 2, at).unwrap();
            (found, fresh.executor.parameters().to_vec(), fresh.task_gradients)
        });
        let found = went.step(&batch(), 2, at).unwrap();
        went.check_gradients().unwrap();
        assert_eq!((found, went.executor.parameters().to_vec(), went.task_gradients.clone()), one, "{at:?}");
        assert_eq!(one, two, "{at:?}: 1 and 2 threads");
    }
}

/// A teacher that can be planned, but refuses whatever it is asked: it looks its samples up in a list of one.
fn refusing() -> Network {
    let mut graph = Graph::new("refusing");
    let x = graph.add_input("x", ElementType::F32, Shape::batched(&SHAPE));
    let weight = graph.add_initializer("weight", Tensor::from_vec(&[ELEMENTS, CLASSES], vec![0.5; ELEMENTS * CLASSES]));
    let list = graph.add_initializer("list", Tensor::from_vec(&[1], vec![7_i64]));
    let flat = graph.apply(Flatten { axis: 1 }, &[x], "flat");
    let places = graph.apply(Cast { to: ElementType::I64 }, &[flat], "places");
    let found = graph.apply(Gather { axis: 0 }, &[list, places], "found");
    let found = graph.apply(Cast { to: ElementType::F32 }, &[found], "features");
    let logits = graph.apply(MatMul, &[found, weight], "logits");
    graph.outputs.push(logits);
    graph.validate().unwrap();
    Network { graph, ..teacher("mlp", 2, 1.0) }
}

#[test]
fn a_teacher_is_asked_in_no_stage_without_a_term_that_listens() {
    let teachers = [refusing()];
    for (stage, asked, not_asked) in [(Stage::Init, INIT, AT), (Stage::Main, AT, INIT)] {
        let terms = vec![of_stage(stage, term("kd", 1.0, &[])), of_stage(Stage::Both, term("tf_kd", 1.0, &[]))];
        let mut learner = learner(&network("mlp", 1), &distill(1.0, terms), &teachers).unwrap();
        let message = learner.step(&batch(), 0, asked).unwrap_err().to_string();
        assert!(message.contains("indices within an axis of 1"), "{message}");
        learner.step(&batch(), 0, not_asked).unwrap();
        // Nor for a replica that does not listen yet.
        learner.listens = false;
        learner.step(&batch(), 0, asked).unwrap();
    }
    // A weight of 0 takes part: its value is told.
    let mut learner = learner(&network("mlp", 1), &distill(1.0, vec![term("kd", 0.0, &[])]), &teachers).unwrap();
    assert!(learner.step(&batch(), 0, AT).is_err());
}

#[test]
fn after_the_end_of_its_schedule_a_term_is_not_computed_and_its_teacher_not_asked() {
    let teachers = [refusing()];
    let until = Choice { options: schedule("until").options.with("epochs", Setting::Number(2.0)), ..schedule("until") };
    let ended = Term { schedule: Some(until), ..term("kd", 1.0, &[]) };
    let mut learner = learner(&network("mlp", 1), &distill(1.0, vec![ended]), &teachers).unwrap();
    let at = |step| At { step, ..AT };
    // Four steps an epoch: it counts in the first eight.
    assert!(learner.step(&batch(), 0, at(7)).is_err(), "its last step");
    let after = learner.step(&batch(), 0, at(8)).unwrap();
    let mut alone = super::learner(&network("mlp", 1), &distill(1.0, vec![]), &[]).unwrap();
    let expected = alone.step(&batch(), 0, at(8)).unwrap();
    assert_eq!((after.loss, after.terms[1], gradients(&learner)), (expected.loss, 0.0, gradients(&alone)));
}

#[test]
fn what_only_a_term_of_the_first_stage_trained_misses_no_gradient_later() {
    let teachers = [teacher("cnn", 2, 1.0)];
    let terms = vec![of_stage(Stage::Init, term("kd", 1.0, &[])), term("fitnets", 1.0, &[])];
    let mut learner = learner(&network("cnn", 1), &distill(0.0, terms), &teachers).unwrap();
    learner.step(&batch(), 0, AT).unwrap();
    let message = learner.executor.check_gradients(&[]).unwrap_err().to_string();
    assert!(message.contains("no loss term depends on it"), "{message}");
    learner.check_gradients().unwrap();
}
