//! Processes that have parts of a batch, beside one that has it whole.

use super::*;
use crate::exec::{Compute, Share};
use crate::group::tests::each;

/// Values of a step and all gradients, with the running statistics that it leaves.
type Step = (StepValues, Vec<(String, Vec<f32>)>);

fn all(learner: &Learner) -> Vec<(String, Vec<f32>)> {
    let parameters = learner.executor.parameters().iter();
    parameters
        .map(|p| (p.name.clone(), if p.role.is_trained() { p.gradient.to_vec() } else { p.value.to_vec() }))
        .collect()
}

fn planned(arch: &Graph, train: &Train, distill: &Distill, teachers: &[Network], batch: usize) -> Learner {
    let train = Train { batch, ..train.clone() };
    Learner::new(arch, &contract(), &train, Some((distill, teachers)), Compute::host(1), &nine(), 1).unwrap()
}

/// Two steps of one process.
fn whole(arch: &Graph, train: &Train, distill: &Distill, teachers: &[Network], batch: &RawBatch) -> Vec<Step> {
    let mut learner = planned(arch, train, distill, teachers, batch.labels.len());
    (0..2).map(|seed| (learner.step(batch, seed, AT).unwrap(), all(&learner))).collect()
}

/// The same of so many processes, each of which must come to the same bits.
fn parts(
    of: usize,
    arch: &Graph,
    train: &Train,
    distill: &Distill,
    teachers: &[Network],
    batch: &RawBatch,
) -> Vec<Step> {
    let n = batch.labels.len();
    let found = each(of, |group| {
        let own = group.part(n);
        // One that has no sample runs the first one.
        let places = if own.is_empty() { 0..1 } else { own.clone() };
        let mixed = if batch.mixed.is_empty() { Vec::new() } else { batch.mixed[places.clone()].to_vec() };
        let part = RawBatch {
            values: batch.values[places.start * ELEMENTS..places.end * ELEMENTS].to_vec(),
            labels: batch.labels[places.clone()].to_vec(),
            mixed,
            places: batch.places[places].to_vec(),
        };
        let mut learner = planned(arch, train, distill, teachers, n.div_ceil(of));
        let share = Share { group, first: own.start, samples: own.len() };
        let step = |seed| {
            learner.share = Some(share.clone());
            (learner.step(&part, seed, AT).unwrap(), all(&learner))
        };
        (0..2).map(step).collect::<Vec<_>>()
    });
    assert!(found.iter().all(|rank| *rank == found[0]), "ranks differ");
    found.into_iter().next().unwrap()
}

fn assert_same(found: &[Step], expected: &[Step], about: &str) {
    for ((values, gradients), (whole, all)) in found.iter().zip(expected) {
        let close = |a: f64, b: f64| (a - b).abs() <= 1e-6 * (1.0 + b.abs());
        assert!(close(values.loss, whole.loss), "{about}: {} {}", values.loss, whole.loss);
        assert!(values.terms.iter().zip(&whole.terms).all(|(a, b)| close(*a, *b)), "{about}: {values:?} {whole:?}");
        assert_eq!((values.labelled, values.right), (whole.labelled, whole.right), "{about}");
        let largest = all.iter().flat_map(|(_, g)| g).fold(0.0_f32, |a, b| a.max(b.abs()));
        for ((name, found), (_, expected)) in gradients.iter().zip(all) {
            let off = found.iter().zip(expected).fold(0.0_f32, |off, (a, b)| off.max((a - b).abs()));
            assert!(
                found.len() == expected.len() && off <= 2e-5 * largest,
                "{about}: {name} is off by {off} of {largest}"
            );
        }
    }
}

#[test]
fn parts_of_a_batch_give_losses_and_gradients_of_the_whole() {
    let (student, taught_by) = (network("cnn", 1), vec![teacher("cnn", 2, 1.0)]);
    for method in METHODS.iter().filter(|method| !method.needs_whole_batch) {
        let teachers = if method.needs_teacher() { &taught_by[..] } else { &[] };
        let (distill, train) = (distill(0.7, vec![term(method.name, 0.8, &[])]), train(0.1));
        if method.name == "tinybert_attention" {
            // There are no tokens here; it is a mean over all elements.
            continue;
        }
        let expected = whole(&student, &train, &distill, teachers, &batch());
        for of in [2, 3, 7] {
            let found = parts(of, &student, &train, &distill, teachers, &batch());
            assert_same(&found, &expected, &format!("{} in {of} parts", method.name));
        }
    }
}

#[test]
fn sums_weights_and_missing_labels_are_those_of_the_whole() {
    let student = network("cnn", 1);
    let mut batch = batch();
    batch.labels[1] = crate::data::UNLABELLED;
    let mixed = (0..5).map(|i| (i % CLASSES, 0.6 + 0.05 * i as f32)).collect();
    let sum = ("reduction", Setting::Text("sum".into()));
    let terms = || vec![term("kd", 0.1, &[temperature(2.0), sum.clone()]), term("bce", 0.5, &[])];
    for (optimizer, mixed) in [("sgd", Vec::new()), ("dot", mixed)] {
        batch.mixed = mixed;
        let kinds = crate::optim::table::OPTIMIZERS.iter().map(|kind| (kind.name, kind.options));
        let optimizer = choice(kinds, optimizer);
        let train = Train { class_weights: ClassWeights::Balanced, optimizer, ..train(0.0) };
        let (distill, teachers) = (distill(0.7, terms()), [teacher("mlp", 2, 1.0)]);
        let expected = whole(&student, &train, &distill, &teachers, &batch);
        for of in [2, 6] {
            assert_same(&parts(of, &student, &train, &distill, &teachers, &batch), &expected, &format!("{of} parts"));
        }
    }
}

#[test]
fn dropout_zeroes_what_it_zeroes_in_the_whole() {
    let mut arch = choice(zoo::table::ARCHS.iter().map(|arch| (arch.name, arch.options)), "mlp");
    arch.options = arch.options.with("dropout", Setting::Number(0.5));
    let student = zoo::build(&arch, &Site { input: SHAPE.to_vec(), classes: CLASSES }, 1).unwrap();
    let distill = distill(1.0, vec![]);
    let expected = whole(&student, &train(0.0), &distill, &[], &batch());
    let without = whole(&network("mlp", 1), &train(0.0), &distill, &[], &batch());
    assert!(expected[0].0 != without[0].0 && expected[0].0 != expected[1].0, "it drops, each step other values");
    for of in [2, 3] {
        assert_same(&parts(of, &student, &train(0.0), &distill, &[], &batch()), &expected, &format!("{of} parts"));
    }
}
