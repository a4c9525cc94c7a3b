//! What is foretold, and what is refused, before training.

use kd_exporter::calibrate;

use super::*;
use crate::data;
use crate::recipe::parse::parse;
use crate::rng::{Purpose, Rng};

#[test]
fn the_forecast_of_bytes_is_what_the_exporter_writes_of_other_weights_and_real_ranges() {
    for arch in ["cnn", "mlp", "resnet8", "cnn\"\nhead = \"all"] {
        let text = format!("[data]\nformat = \"digits\"\n[student]\narch = \"{arch}\"\n");
        let recipe = parse(&text, "r.toml", &[]).expect("a recipe");
        let data = data::prepare(&recipe).expect("digits");
        let site = Site { input: data.description.shape.clone(), classes: data.description.classes.len() };
        let forecast = precheck(&recipe, &site, Some(&data), &[], None).expect("a forecast").networks[0].clone();
        let mut graph = zoo::build(&recipe.student, &site, 7).expect("a network");
        let mut rng = Rng::new(1, Purpose::Shuffle, 0, 0);
        for tensor in graph.initializers.values_mut().filter(|tensor| tensor.element() == ElementType::F32) {
            let shape = tensor.shape().to_vec();
            let values: Vec<f32> = (0..tensor.len()).map(|_| 0.1 + rng.below(1000) as f32 / 1000.0).collect();
            *tensor = kd_runtime::graph::Tensor::from_vec(&shape, values);
        }
        let folded = fold::fold(&graph).expect("folded");
        let digits = kd_runtime::data::Source::parse("digits").and_then(|source| source.open()).expect("digits");
        let calibration = calibrate::calibrate(&folded, &data.contract, &*digits, "minmax", 16).expect("ranges");
        let int8 = quantize::quantize(&folded, &calibration).expect("quantized").graph;
        let written = onnx::write(&int8).len() as u64;
        let engine = Engine::new(&int8, 1).expect("planned");
        let memory = (engine.arena_bytes() + engine.weights_bytes()) as u64;
        assert_eq!((written, memory), (forecast.int8_bytes, forecast.int8_memory_bytes), "{arch}");
    }
}
#[test]
fn what_replicas_cannot_learn_from_each_other_is_refused_and_all_of_them_take_memory() {
    let check = |method: &str, more: &str| {
        let text = format!(
            "[data]\nformat = \"digits\"\n[student]\narch = \"cnn\"\n[distill]\nscheme = \"codistill\"\n\
             terms = [{{ method = \"{method}\" }}]\n{more}"
        );
        let recipe = parse(&text, "r.toml", &[]).expect("a recipe");
        precheck(&recipe, &Site { input: vec![1, 8, 8], classes: 10 }, None, &[], None)
    };
    for method in ["srrl", "ofd", "simkd"] {
        let message = check(method, "").expect_err(method).to_string();
        let expected = "distill.terms.0: expected a teacher that is trained: this method copies some of its parameters";
        assert!(message.starts_with(expected), "{method}: {message}");
    }
    for method in ["at", "nst", "review", "ft"] {
        assert!(check(method, "").is_ok(), "{method} reads values that change: {:?}", check(method, ""));
    }
    let two = check("fitnets", "").expect("it has a regressor of its own").networks;
    let unlike = check("codistill", "peers = [{ arch = \"mlp\" }, { arch = \"resnet8\" }]").expect("peers").networks;
    let names: Vec<&str> = unlike.iter().map(|network| network.name.as_str()).collect();
    assert_eq!((two.len(), names), (1, vec!["student", "replica-2", "replica-3"]));
    let beside = unlike[1..].iter().map(|network| network.training_bytes).sum::<u64>();
    assert!(unlike[0].training_bytes > beside, "{unlike:?}");
    let missing = check("kd\", teacher = \"stage3", "peers = [{ arch = \"mlp\" }, { arch = \"mlp\" }]");
    let message = missing.expect_err("a tap that has no mean").to_string();
    let expected = "replica-2: distill.terms.0: option `teacher`: expected `logits`, the only value that several";
    assert!(message.starts_with(expected), "{message}");
}

#[test]
fn an_augmentation_is_refused_by_its_key_once() {
    let text = "[data]\nformat = \"digits\"\naugment = [{ kind = \"window_warp\" }]\n[student]\narch = \"mlp\"\n";
    let recipe = parse(text, "r.toml", &[]).expect("a recipe");
    let refusal =
        precheck(&recipe, &Site { input: vec![1, 8, 8], classes: 10 }, None, &[], None).expect_err("no series");
    assert_eq!(refusal.at, "data.augment `window_warp`");
}

#[test]
fn too_large_a_batch_is_refused_with_the_one_that_fits() {
    let bytes = |batch| Ok((1 << 20) + 1000 * (batch - 1));
    let check = |batch, free| check_memory(&bytes, batch, free);
    assert_eq!(check(1 << 20, None), bytes(1 << 20));
    let free = 3 << 20;
    let refusal = check(5000, Some(free)).expect_err("too much");
    let expected = "memory: expected training that fits the 3 MiB that are free, found 5 MiB with a batch of 5000; lower \
                    the batch to 2098, or use a machine with more memory";
    assert_eq!((refusal.to_string().as_str(), refusal.exit), (expected, Exit::Lacking));
    assert!(check(2098, Some(free)).is_ok() && check(2099, Some(free)).is_err());
    let none = check(1, Some(1000)).expect_err("too much").to_string();
    assert!(none.ends_with("use a machine with more memory: not even a batch of 1 fits"), "{none}");
}

#[test]
fn a_batch_holds_no_more_than_there_are_samples_and_is_planned_as_it_will_be() {
    let needs = |batch: usize| {
        let text = format!("[data]\nformat = \"digits\"\n[student]\narch = \"cnn\"\n[train]\nbatch = {batch}\n");
        let recipe = parse(&text, "r.toml", &[]).expect("a recipe");
        let data = data::prepare(&recipe).expect("digits");
        let site = Site { input: data.description.shape.clone(), classes: data.description.classes.len() };
        let forecast = precheck(&recipe, &site, Some(&data), &[], None).expect("a forecast");
        let graph = zoo::build(&recipe.student, &site, 1).expect("a network");
        let plan = Plan { batch: batch.min(data.train.len()), taps: Vec::new(), backward: true, threads: 1, gpu: None };
        let executor = Executor::<f32>::new(&graph, &plan).expect("an executor");
        assert_eq!(Executor::<f32>::planned_bytes(&graph, &plan, false), Ok(executor.buffer_bytes()), "{batch}");
        let bytes = forecast.networks[0].training_bytes;
        assert!(forecast.peak_bytes.is_some_and(|peak| peak > bytes + data.bytes()[0] as u64), "{batch}");
        (bytes, data.train.len())
    };
    let (all, n) = needs(1_000_000);
    assert_eq!(needs(n).0, all);
    // The partial sums of weight gradients do not grow for ever.
    let [one, two, large] = [1, 2, 512].map(|batch| needs(batch).0);
    assert!(large < one + 511 * (two - one), "{one}, {two}, {large}");
}

#[test]
fn batches_too_small_for_relations_are_remarked() {
    let text = "[data]\nformat = \"digits\"\n[teacher]\narch = \"mlp\"\n[student]\narch = \"mlp\"\n[distill]\n\
                terms = [{ method = \"kd\" }, { method = \"rkd_a\" }]\n";
    let recipe = parse(text, "r.toml", &[]).expect("a recipe");
    let data = data::prepare(&recipe).expect("digits");
    let site = Site { input: data.description.shape.clone(), classes: data.description.classes.len() };
    let n = data.train.len();
    let notes = |batch: usize, more: &str| {
        let set = [format!("train.batch={batch}"), "run.threads=1".into(), more.into()];
        let recipe = parse(text, "r.toml", &set).expect("a recipe");
        precheck(&recipe, &site, Some(&data), &[], None).expect("a forecast").notes
    };
    let begin = "distill.terms.1: `rkd_a` needs 3 samples in a batch, and has";
    assert_eq!(notes(2, "run.seed=1"), [format!("{begin} batches of 2")]);
    assert_eq!(notes(n - 2, "distill.task_weight=0.0"), [format!("{begin} 2 in the last batch of an epoch")]);
    // One left over is left out.
    assert_eq!(
        (notes(n - 1, "run.seed=1"), notes(n - 3, "run.seed=1"), notes(n, "run.seed=1")),
        (vec![], vec![], vec![])
    );
}

#[test]
fn what_training_needs_grows_with_what_is_switched_on() {
    let bytes = |more: &str| {
        let text = format!(
            "[data]\nformat = \"digits\"\n[teacher]\narch = \"cnn\"\n[student]\narch = \"cnn\"\n[distill]\n\
             terms = [{{ method = \"kd\" }}]\n{more}"
        );
        let recipe = parse(&text, "r.toml", &[]).expect("a recipe");
        let networks = precheck(&recipe, &Site { input: vec![1, 8, 8], classes: 10 }, None, &[], None)
            .expect("a forecast")
            .networks;
        [networks[0].training_bytes, networks[1].training_bytes]
    };
    let [student, teacher] = bytes("");
    let larger = [
        "[train]\noptimizer = { kind = \"dot\" }",
        "[train]\nema = 0.9",
        "[train]\naccumulate = 2",
        "[train]\nbatch = 128",
        "diagnose = true",
    ];
    for more in larger {
        let [found, alone] = bytes(more);
        assert!(found > student, "{more}: {found}, {student}");
        assert_eq!(alone == teacher, more == "diagnose = true", "{more}");
    }
    assert!(student > teacher, "the teacher answers beside it");
}
