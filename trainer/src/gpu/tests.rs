//! The kernels' own text, compiled for the host, beside the host: what a GPU is told to do, but for the vendor's libraries.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use super::emulated::Emulated;
use super::{source, table};
use crate::exec::{Compute, cases};
use crate::selftest::{self, learning};

/// Every kernel of every source is launched by the cases of an operator, or by training; what they give does not depend on
/// the order in which the threads of a group take their turns.
#[test]
fn every_kernel_gives_what_the_host_gives_in_f64() {
    let mut reports = [false, true].map(|backwards| {
        let gpu = Emulated::gpu(backwards);
        let report = selftest::Report::of(Compute { threads: 1, gpu: Some(&gpu) }, &cases::all()).unwrap();
        assert_eq!(report.failures(), Vec::<String>::new());
        let losses: Vec<_> = report.losses.iter().map(|line| line.op).collect();
        // A method that is new may have none.
        let known = [
            "ab",
            "at",
            "attention_relation",
            "bce",
            "byot",
            "cc",
            "ce",
            "codistill",
            "cosine",
            "cs_kd",
            "dist",
            "dkd",
            "fitnets",
            "fsp",
            "kd",
            "mlkd",
            "mse_logits",
            "nkd",
            "nst",
            "ofa",
            "ofd",
            "pkt",
            "review",
            "rkd_a",
            "rkd_d",
            "simkd",
            "soft_dtw",
            "sp",
            "srrl",
            "tat",
            "tf_kd",
            "tinybert_attention",
            "tinybert_hidden",
            "wsld",
            "right answers",
        ];
        let lost: Vec<_> = known.iter().filter(|name| !losses.contains(name)).collect();
        assert!(lost.is_empty(), "without kernels: {lost:?}");
        report
    });
    let worst = |report: &mut selftest::Report| {
        let lines = report.operators.iter().chain(&report.losses).map(|line| line.worst);
        lines.chain(report.learning.iter().flat_map(|learning| learning.worst)).collect::<Vec<_>>()
    };
    let [one, other] = &mut reports;
    assert_eq!(worst(one), worst(other), "a race: results depend on the order of threads");
    let launched = Emulated::launched();
    let all: Vec<&str> = source::SOURCES.iter().flat_map(source::Source::kernels).collect();
    let idle: Vec<_> = all.iter().filter(|kernel| !launched.contains(**kernel)).collect();
    assert!(idle.is_empty(), "no case launches {idle:?}");
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len(), "two kernels of one name");
}

/// Whatever the host looked at would be a copy in each step, and a wait.
#[test]
fn steps_of_training_copy_nothing_to_the_host_until_they_are_settled() {
    let (gpu, downloaded) = Emulated::counted(false);
    let train = "optimizer = { kind = \"sgd\", lr = 0.01 }\nclip_norm = 1.0\nema = 0.9";
    let terms = "terms = [{ method = \"kd\" }, { method = \"rkd_a\" }, { method = \"ab\", stage2 = \"joint\" }, \
                 { method = \"byot\" }, { method = \"at\" }, { method = \"fsp\" }, { method = \"nst\" }, { method = \"sp\" }]";
    let recipe = learning::recipe("copies", train, terms).unwrap();
    let (mut learner, mut stepper) = learning::plan(&recipe, Compute { threads: 1, gpu: Some(&gpu) }).unwrap();
    downloaded.store(0, Ordering::Relaxed);
    for step in 0..5 {
        assert!(learning::step(&mut learner, &mut stepper, step, 1).unwrap().is_empty());
    }
    assert_eq!(downloaded.swap(0, Ordering::Relaxed), 0);
    let values = learner.settle().unwrap();
    assert_eq!(downloaded.swap(0, Ordering::Relaxed), values.len() * (learner.term_names.len() + 1) * size_of::<f32>());
    assert!(
        values.len() == 5
            && values.iter().all(|step| step.loss.is_finite() && step.terms.iter().all(|term| *term > 0.0))
    );
    assert!(learner.settle().unwrap().is_empty());
    learner.executor.parameters_mut()[0].value[0] = f32::NAN;
    learning::step(&mut learner, &mut stepper, 6, 1).unwrap();
    let message = learner.settle().unwrap_err().to_string();
    assert!(message.contains("term `ce` at step 7: expected a finite loss"), "{message}");
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
    if let Err(refusal) = super::Gpu::open(0, super::Precision::F32) {
        assert_eq!(refusal.exit, kd_runtime::Exit::Lacking);
        assert!(refusal.to_string().starts_with("run.device: expected "), "{refusal}");
    }
}
