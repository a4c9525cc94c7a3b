//! Every architecture: sizes known from elsewhere, taps, a training step, its seed.

use kd_runtime::graph::Graph;

use super::table::ARCHS;
use super::{Site, build};
use crate::exec::{Executor, Mode, Plan};
use crate::options::{Options, Setting};
use crate::recipe::Choice;

fn choice(name: &str) -> Choice {
    let arch = ARCHS.iter().find(|arch| arch.name == name).unwrap();
    Choice { name: arch.name, options: Options::defaults(arch.options) }
}

/// A small site that an architecture takes.
fn site(name: &str) -> Site {
    let input = if name == "fcn" { vec![2, 11] } else { vec![3, 9, 8] };
    Site { input, classes: 5 }
}

fn trained(graph: &Graph) -> u64 {
    let statistics = |name: &str| name.ends_with(".mean") || name.ends_with(".var");
    let own = graph.initializers.iter().filter(|(id, _)| !statistics(&graph.value(**id).name));
    own.map(|(_, tensor)| tensor.len() as u64).sum()
}

#[test]
fn sizes_are_those_of_the_papers_networks() {
    let image = Site { input: vec![3, 32, 32], classes: 10 };
    let hundred = Site { input: vec![3, 32, 32], classes: 100 };
    // Trained parameters; multiply-accumulates of one image.
    let cases = [
        // torch's count of MLPerf Tiny's ResNet-8 with batch norm on the shortcuts and no idle biases.
        ("resnet8", &image, 78_042, 12_501_632),
        ("resnet20", &image, 272_474, 40_813_184),
        // RepDistiller's resnet56 and resnet110 for CIFAR-100.
        ("resnet56", &hundred, 861_620, 125_753_600),
        ("resnet110", &hundred, 1_736_564, 253_155_584),
        ("fcn", &Site { input: vec![1, 140], classes: 2 }, 264_450, 36_843_776),
    ];
    for (name, site, parameters, macs) in cases {
        let graph = build(&choice(name), site, 1).unwrap();
        assert_eq!((trained(&graph), graph.stats().unwrap().macs), (parameters, macs), "{name}");
    }
}

#[test]
fn every_architecture_has_its_taps_and_trains() {
    for arch in ARCHS {
        let site = site(arch.name);
        let graph = build(&choice(arch.name), &site, 1).unwrap();
        for tap in ["stage1", "stage1.pre", "features", "logits"] {
            assert!(graph.find(tap).is_some(), "{}: {tap}", arch.name);
        }
        let plan = Plan { batch: 4, taps: Vec::new(), backward: true, threads: 2 };
        let mut executor = Executor::<f32>::new(&graph, &plan).unwrap();
        let x: Vec<f32> = (0..4 * site.input.iter().product::<usize>()).map(|i| (i % 7) as f32 - 3.0).collect();
        executor.forward(&x, 4, Mode::Train { seed: 1 }).unwrap();
        let logits = executor.tap("logits").unwrap();
        let d: Vec<f32> = (0..4 * 5).map(|i| (i % 3) as f32 - 1.0).collect();
        executor.backward(&[(logits, &d)]).unwrap();
        executor.check_gradients().unwrap_or_else(|error| panic!("{}: {error}", arch.name));
    }
}

#[test]
fn a_seed_decides_every_weight() {
    for arch in ARCHS {
        let of = |seed| build(&choice(arch.name), &site(arch.name), seed).unwrap();
        assert_eq!(of(3), of(3), "{}", arch.name);
        assert_ne!(of(3), of(4), "{}", arch.name);
    }
}

#[test]
fn refuses_sites_and_sizes_that_cannot_be() {
    let vector = Site { input: vec![7], classes: 3 };
    for name in ["cnn", "fcn", "resnet8"] {
        assert!(build(&choice(name), &vector, 1).is_err(), "{name}");
    }
    let one_class = Site { input: vec![7], classes: 1 };
    assert!(build(&choice("mlp"), &one_class, 1).is_err());
    let mut huge = choice("mlp");
    huge.options = huge.options.with("hidden", Setting::Counts(vec![1 << 20, 1 << 20]));
    let refusal = build(&huge, &vector, 1).unwrap_err().to_string();
    assert!(refusal.contains("at most 1073741824 parameters"), "{refusal}");
}
