//! What losses have of their own, and what replicas are before anything is learned.

use super::super::replicas;
use super::boundaries::{distill, teacher, term};
use super::*;
use crate::teacher::{Pace, evaluate};

/// The memory of `crd`, the predictions of `ps_kd`, the variances of `vid`: each is read in later steps.
#[test]
fn memories_and_arrays_of_losses_resume_bit_for_bit_on_any_threads() {
    let setup = |threads: usize| {
        let mut setup = Setup { threads, ..Setup::new("adamw") };
        let features = ["student", "teacher"].map(|side| (side, Setting::Text("features".into())));
        let terms = vec![term("crd", &features), term("vid", &features), term("ps_kd", &[])];
        let taught_by = teacher("mlp", &[], &setup);
        setup.distill = Some((distill(Scheme::Offline, 0.0, terms), vec![taught_by]));
        setup
    };
    let whole = setup(1).whole();
    let value = |name: &str, epoch: usize| {
        whole.history[epoch].terms.iter().find(|(term, _)| term == name).map_or(f64::NAN, |(_, value)| *value)
    };
    assert!(["crd", "vid", "ps_kd"].iter().all(|name| value(name, 0) != value(name, 4)), "{:?}", whole.history);
    for threads in [1, 2] {
        let scratch = Scratch::new(&format!("memories-{threads}"));
        for steps in [3, 9, 1, 6] {
            assert_eq!(setup(threads).fit(&scratch.0, steps).0.err().unwrap().exit, Exit::Terminated);
        }
        same(&setup(threads).fit(&scratch.0, 0).0.unwrap(), &whole, &format!("{threads} threads"));
    }
}

/// Replicas that begin alike would say the same, and have nothing to teach each other.
#[test]
fn replicas_answer_differently_before_the_first_step() {
    let data = prepared();
    let predicted = |seed: u64| {
        let arch = ARCHS.iter().find(|arch| arch.name == "cnn").unwrap();
        let site = Site { input: vec![1, 8, 8], classes: 3 };
        let first = zoo::build(&named(arch.name, arch.options), &site, seed).unwrap();
        let pace = Pace { batch: 16, compute: Compute::host(1) };
        evaluate(&first, &data.contract, &data.train, pace).unwrap().predicted
    };
    let [one, other] = [0, 1].map(|replica| predicted(replicas::seed(3, replica)));
    let churn = one.iter().zip(&other).filter(|(a, b)| a != b).count();
    assert!(churn > 0, "{one:?}");
    assert_eq!(one, predicted(replicas::seed(3, 0)), "of one seed they are alike");
}
