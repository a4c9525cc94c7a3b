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

/// The forecast of a recipe for digits.
fn forecast_of(text: &str, set: &[&str]) -> (Forecast, Prepared) {
    let set: Vec<String> = set.iter().map(|set| set.to_string()).collect();
    let recipe = parse(&format!("[data]\nformat = \"digits\"\n{text}"), "r.toml", &set).expect("a recipe");
    let data = data::prepare(&recipe).expect("digits");
    let site = Site { input: data.description.shape.clone(), classes: data.description.classes.len() };
    (precheck(&recipe, &site, Some(&data), &[], None).expect("a forecast"), data)
}

#[test]
fn what_a_loss_keeps_of_each_sample_is_counted_as_often_as_it_is_held() {
    let bytes = |method: &str, subset: &str| {
        let text = format!(
            "[teacher]\narch = \"mlp\"\n[student]\narch = \"mlp\"\n[distill]\nterms = [{{ method = \"kd\" }}, {{ method = \"{method}\" }}]\n"
        );
        // No validation samples: writing an epoch down takes the most.
        let set = [subset, "data.validation=0.0", "run.threads=1", "train.batch=2"];
        let (forecast, data) = forecast_of(&text, &set);
        (forecast.networks[0].training_bytes as usize, data.train.len())
    };
    for (method, floats) in [("ps_kd", 10), ("crd", 2 * 128 + 1)] {
        let [(few, n), (all, m)] = ["data.subset=0.5", "data.subset=1.0"].map(|subset| bytes(method, subset));
        let more = (m - n) * floats * size_of::<f32>();
        // As it is, as it is selected, and both twice while a checkpoint is written.
        assert_eq!(all - few, 6 * more, "{method}: {n} and {m} samples");
    }
    let [(few, _), (all, _)] = ["data.subset=0.5", "data.subset=1.0"].map(|subset| bytes("mse_logits", subset));
    assert_eq!(all, few, "keeps nothing");
}

#[test]
fn every_replica_has_batches_and_judges_for_itself() {
    let bytes = |replicas: usize, loaders: &str| {
        let text = format!(
            "[student]\narch = \"cnn\"\n[distill]\nscheme = \"codistill\"\nreplicas = {replicas}\nterms = [{{ method = \"codistill\" }}]\n"
        );
        forecast_of(&text, &[loaders, "run.threads=1", "train.batch=16"]).0.networks[0].training_bytes
    };
    let loaded = |replicas| bytes(replicas, "run.loaders=1") - bytes(replicas, "run.loaders=0");
    assert_eq!(loaded(3) * 2, loaded(2) * 3);
    // Unlike replicas are counted one by one: the same of such as are alike.
    let text = "[student]\narch = \"cnn\"\n[distill]\nscheme = \"codistill\"\npeers = [{ arch = \"cnn\" }, { arch = \"cnn\" }]\n\
                terms = [{ method = \"codistill\" }]\n";
    let peers = forecast_of(text, &["run.loaders=1", "run.threads=1", "train.batch=16"]).0.networks[0].training_bytes;
    assert_eq!(bytes(3, "run.loaders=1"), peers);
}

#[test]
fn what_replicas_answer_together_is_part_of_the_peak() {
    let text = "[student]\narch = \"mlp\"\nhidden = [1]\n[distill]\nscheme = \"codistill\"\nreplicas = 2\nterms = [{ method = \"codistill\" }]\n";
    let recipe =
        parse(&format!("[data]\nformat = \"digits\"\n{text}"), "r.toml", &["train.batch=2".into()]).expect("a recipe");
    let mut data = data::prepare(&recipe).expect("digits");
    let site = Site { input: vec![1, 8, 8], classes: 10 };
    let peak = |data: &Prepared| {
        precheck(&recipe, &site, Some(data), &[], None).expect("a forecast").peak_bytes.expect("of data")
    };
    let before = peak(&data);
    let data::Values::U8(values) = &mut data.test.values else { panic!("digits are bytes") };
    let many = 1 << 20;
    values.resize(many * 64, 0);
    data.test.labels.resize(many, 0);
    // 64 bytes a sample, and the answers of two replicas for ten classes.
    assert!(peak(&data) > before + (many * (64 + 2 * 10 * 4 / 2)) as u64, "{before}, {}", peak(&data));
}

#[test]
fn assistants_are_trained_beside_who_teaches_them() {
    let bytes = |teacher: &str| {
        let text = format!(
            "[teacher]\narch = \"{teacher}\"\n[student]\narch = \"mlp\"\n[distill]\nterms = [{{ method = \"kd\" }}]\n\
             assistants = [{{ arch = \"cnn\" }}, {{ arch = \"mlp\" }}]\n"
        );
        let (forecast, _) = forecast_of(&text, &["run.threads=1"]);
        let named = |name: &str| {
            let network = forecast.networks.iter().find(|network| network.name == name);
            network.expect(name).training_bytes
        };
        ["student", "assistant-1", "assistant-2"].map(named)
    };
    let (small, large) = (bytes("mlp"), bytes("resnet8"));
    assert!(large[1] > small[1], "the teacher answers beside the first");
    assert_eq!((large[0], large[2]), (small[0], small[2]), "and beside no other");
}

#[test]
fn targets_that_reach_no_student_are_remarked() {
    let notes = |distill: &str, train: &str| {
        let text = format!(
            "[teacher]\narch = \"mlp\"\n[student]\narch = \"mlp\"\n[distill]\n{distill}terms = [{{ method = \"kd\" }}]\n[train]\n{train}"
        );
        forecast_of(&text, &[]).0.notes
    };
    let (smooth, both) = ("label_smoothing = 0.1\n", "label_smoothing = 0.1\nclass_weights = \"balanced\"\n");
    let why =
        "nothing for the student, since distill.task_weight is 0; the baseline and teachers that are trained have it";
    assert_eq!(notes("task_weight = 0.0\n", smooth), [format!("train.label_smoothing: {why}")]);
    assert_eq!(notes("task_weight = 0.0\n", both), [format!("train.label_smoothing, train.class_weights: {why}")]);
    assert!(notes("task_weight = 0.0\n", "").is_empty() && notes("", both).is_empty());
}

#[test]
fn a_sum_beside_the_mean_of_the_labels_is_remarked_with_the_weight_that_it_has() {
    let notes = |task_weight: f64, options: &str| {
        let text = format!(
            "[teacher]\narch = \"mlp\"\n[student]\narch = \"mlp\"\n[distill]\ntask_weight = {task_weight}\n\
             terms = [{{ method = \"kd\", weight = 0.5{options} }}]\n[train]\nbatch = 32\n"
        );
        forecast_of(&text, &[]).0.notes
    };
    let literal = ", reduction = \"sum\", tau2 = false";
    let said =
        "distill.terms.0: `kd`: a sum over the batch counts as `batchmean` with the weight 16, beside the labels' mean";
    assert_eq!(notes(1.0, literal), [said]);
    assert!(notes(0.0, literal).is_empty() && notes(1.0, "").is_empty());
}
