//! The kernels' own text, compiled for the host, beside the host: what a GPU is told to do, but for the vendor's libraries.

use std::collections::BTreeSet;

use super::emulated::Emulated;
use super::{source, table};
use crate::exec::{Compute, cases};
use crate::selftest;

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
