//! The kernels' own text, compiled for the host, beside the host: what a GPU is told to do, but for the vendor's libraries.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use super::emulated::Emulated;
use super::{source, table};
use crate::exec::{Compute, Executor, Mode, Plan, cases};
use crate::optim::groups;
use crate::optim::table::OPTIMIZERS;
use crate::options::Options;
use crate::recipe::Choice;
use crate::selftest;
use crate::zoo::table::ARCHS;
use crate::zoo::{self, Site};

/// Every kernel of every source is launched by the cases of an operator, or by training; what they give does not depend on
/// the order in which the threads of a group take their turns.
#[test]
fn every_kernel_gives_what_the_host_gives_in_f64() {
    let mut reports = [false, true].map(|backwards| {
        let gpu = Emulated::gpu(backwards);
        let report = selftest::Report::of(Compute { threads: 1, gpu: Some(&gpu) }, &cases::all()).unwrap();
        assert_eq!(report.failures(), Vec::<String>::new());
        report
    });
    let worst = |report: &mut selftest::Report| report.operators.iter().map(|line| line.worst).collect::<Vec<_>>();
    let [one, other] = &mut reports;
    assert_eq!(worst(one), worst(other), "a race: results depend on the order of threads");
    let launched = Emulated::launched();
    let all: Vec<&str> = source::SOURCES.iter().flat_map(source::Source::kernels).collect();
    let idle: Vec<_> = all.iter().filter(|kernel| !launched.contains(**kernel)).collect();
    assert!(idle.is_empty(), "no case launches {idle:?}");
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len(), "two kernels of one name");
}

/// Whatever else the host looked at would be a copy in each step, and a wait.
#[test]
fn a_step_of_training_copies_its_logits_to_the_host_and_nothing_else() {
    let (gpu, downloaded) = Emulated::counted(false);
    let site = Site { input: vec![3, 8, 8], classes: 4 };
    let arch = ARCHS.iter().find(|arch| arch.name == "resnet8").unwrap();
    let graph = zoo::build(&Choice { name: arch.name, options: Options::defaults(arch.options) }, &site, 1).unwrap();
    let plan = Plan { batch: 6, taps: vec![], backward: true, threads: 1, gpu: Some(gpu) };
    let mut executor = Executor::<f32>::new(&graph, &plan).unwrap();
    let rules = groups::rules(executor.parameters(), &[], false);
    let kind = OPTIMIZERS.iter().find(|kind| kind.name == "sgd").unwrap();
    let mut optimizer = (kind.build)(&Options::defaults(kind.options), executor.parameters(), &rules).unwrap();
    let (x, logits) = (vec![0.5; 6 * 3 * 64], graph.outputs[0]);
    for batch in [6, 6, 5] {
        executor.forward(&x[..batch * 3 * 64], batch, Mode::Train { seed: 1 }).unwrap();
        let y = executor.value(logits).to_vec();
        executor.backward(&[(logits, &y)]).unwrap();
        executor.update(|parameters| optimizer.step(parameters, &[], 0.1));
        assert_eq!(downloaded.swap(0, Ordering::Relaxed), batch * 4 * size_of::<f32>());
    }
    assert!(executor.parameters().iter().all(|p| p.value.iter().all(|x| x.is_finite())));
    assert!(downloaded.load(Ordering::Relaxed) > 0);
}

/// What images with their channels last are handed to must not be left to the host, which reads their pads.
#[test]
fn operators_of_images_run_on_the_gpu() {
    let images = [
        "Add",
        "AveragePool",
        "BatchNormalization",
        "Clip",
        "Conv",
        "GlobalAveragePool",
        "LeakyRelu",
        "MaxPool",
        "Mul",
        "Relu",
    ];
    let lacking: Vec<_> = images.iter().filter(|op| !table::NAMES.contains(op)).collect();
    assert!(lacking.is_empty(), "{lacking:?}");
}

#[test]
fn this_machine_or_build_without_a_gpu_says_so() {
    if let Err(refusal) = super::Gpu::open(0) {
        assert_eq!(refusal.exit, kd_runtime::Exit::Lacking);
        assert!(refusal.to_string().starts_with("run.device: expected "), "{refusal}");
    }
}
