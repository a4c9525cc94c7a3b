//! Every architecture: sizes known from elsewhere, taps, a training step, its seed, its int8 form.

use std::collections::{BTreeMap, BTreeSet};

use kd_exporter::calibrate::{Calibration, Range};
use kd_exporter::{fold, quantize};
use kd_runtime::engine::Engine;
use kd_runtime::graph::{ElementType, Graph};
use kd_runtime::ops::Op;

use super::table::ARCHS;
use super::{Site, build};
use crate::exec::{Executor, Mode, Plan, Role};
use crate::options::{Options, Setting};
use crate::recipe::Choice;

/// An architecture with some options.
fn choice(name: &str, set: &[(&'static str, Setting)]) -> Choice {
    let arch = ARCHS.iter().find(|arch| arch.name == name).unwrap();
    let options = set.iter().fold(Options::defaults(arch.options), |options, (option, setting)| {
        assert!(arch.options.iter().any(|spec| spec.name == *option), "{name}: {option}");
        options.with(option, setting.clone())
    });
    Choice { name: arch.name, options }
}

/// An architecture as narrow as its tests need.
pub(crate) fn narrow(name: &str) -> Choice {
    let widths = |widths: &[usize]| vec![("widths", Setting::Counts(widths.to_vec()))];
    let width = |width| vec![("width", Setting::Number(width))];
    let options = match name {
        "resnet8x4" | "resnet32x4" => widths(&[12, 16, 20]),
        "fcn" | "resnet1d" => widths(&[6, 8, 8]),
        "lstm" | "gru" => vec![("widths", Setting::Counts(vec![6, 5])), ("bidirectional", Setting::Flag(true))],
        "ts_transformer" => {
            [("width", 8), ("heads", 2), ("patch", 2)].map(|(name, n)| (name, Setting::Count(n))).into()
        }
        "shufflenet_v1" => widths(&[48, 96, 192]),
        "shufflenet_v2" => widths(&[16, 24, 32]),
        "mobilenet_v1" | "mobilenet_v2" | "mobilenet_v2_cifar" => width(0.1),
        vgg if vgg.starts_with("vgg") => widths(&[4, 6, 8, 8, 8]),
        _ => Vec::new(),
    };
    choice(name, &options)
}

/// Architectures for series alone.
pub(crate) const SERIES: [&str; 7] = ["fcn", "gru", "inception_time", "lite", "lstm", "resnet1d", "ts_transformer"];

/// A small site that an architecture takes; the sides of an image differ, and one is odd.
fn site(name: &str) -> Site {
    let input = if SERIES.contains(&name) { vec![2, 11] } else { vec![3, 9, 8] };
    Site { input, classes: 5 }
}

/// Parameters that training changes, and all with the statistics of batch norms, as Keras counts.
fn count_parameters(graph: &Graph) -> [u64; 2] {
    let mut counts = [0; 2];
    for (&id, tensor) in graph.initializers.iter().filter(|(_, tensor)| tensor.element() == ElementType::F32) {
        let (name, is_scalar) = (&graph.value(id).name, tensor.shape().is_empty());
        let is_statistic = [".mean", ".var"].iter().any(|end| name.ends_with(end));
        counts[0] += if is_scalar || is_statistic { 0 } else { tensor.len() as u64 };
        counts[1] += if is_scalar { 0 } else { tensor.len() as u64 };
    }
    counts
}

/// A known count: of what training changes (as torch counts), of all (as Keras counts), or with batch norms folded.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Known {
    Trained(u64),
    All(u64),
    Folded(u64),
}
use Known::{All, Folded, Trained};

#[test]
fn sizes_are_those_of_the_papers_networks() {
    let image = |side, classes| Site { input: vec![3, side, side], classes };
    let (ten, hundred, imagenet) = (image(32, 10), image(32, 100), image(224, 1000));
    let series = Site { input: vec![1, 140], classes: 2 };
    let keywords = Site { input: vec![1, 49, 10], classes: 12 };
    let (number, flag) = (Setting::Number, Setting::Flag);
    // Parameters; multiply-accumulates of one sample.
    #[rustfmt::skip]
    let cases = [
        // torch's count of ResNet-8 with batch norm on the shortcuts and no idle biases.
        ("resnet8", vec![], &ten, Trained(78_042), 12_501_632),
        ("resnet20", vec![], &ten, Trained(272_474), 40_813_184),
        // RepDistiller's networks for CIFAR-100, as torch counts; tables round them: 1.23 M, 7.43 M, 3.97 M, …
        ("resnet56", vec![], &hundred, Trained(861_620), 125_753_600),
        ("resnet110", vec![], &hundred, Trained(1_736_564), 253_155_584),
        ("resnet8x4", vec![], &hundred, Trained(1_233_540), 177_071_104),
        ("resnet32x4", vec![], &hundred, Trained(7_433_860), 1_083_040_768),
        ("vgg8", vec![], &hundred, Trained(3_965_028), 96_192_512),
        ("vgg13", vec![], &hundred, Trained(9_462_180), 284_936_192),
        ("wrn_16_2", vec![], &hundred, Trained(703_284), 101_118_464),
        ("wrn_40_1", vec![], &hundred, Trained(569_780), 83_286_272),
        ("wrn_40_2", vec![], &hundred, Trained(2_255_156), 327_610_880),
        ("mobilenet_v2_cifar", vec![], &hundred, Trained(812_836), 6_523_648),
        ("shufflenet_v1", vec![], &hundred, Trained(949_258), 38_691_456),
        ("shufflenet_v2", vec![], &hundred, Trained(1_355_528), 44_504_448),
        // imgclsmob's and torchvision's counts, the papers' 569 and 300 million.
        ("mobilenet_v1", vec![("width", number(1.0))], &imagenet, Trained(4_231_976), 568_740_352),
        ("mobilenet_v2", vec![], &imagenet, Trained(3_504_872), 300_774_272),
        // The benchmark model of ../shared/data/models, whose batch norms are folded.
        ("mobilenet_v2", vec![("width", number(0.35)), ("head", Setting::Count(640))], &image(96, 10), Folded(323_178), 10_015_408),
        // MLPerf Tiny's, as Keras prints them.
        ("mlperf_resnet8", vec![], &ten, All(78_666), 12_501_632),
        ("mlperf_ds_cnn", vec![], &keywords, All(24_908), 2_656_768),
        ("mlperf_mobilenet_v1", vec![], &image(96, 2), All(221_794), 7_489_664),
        // Ismail-Fawaz et al. 2023, table 1: trained ones without the last layer's 2 * (features + 1).
        ("fcn", vec![], &series, Trained(264_704 - 512 + 2 * 129), 36_843_776),
        ("resnet1d", vec![("bias", flag(true))], &series, Trained(504_000 + 2 * 129), 70_040_576),
        ("inception_time", vec![], &series, Trained(420_192 + 2 * 129), 58_540_416),
        // torch.nn.LSTM(1, 64, 2) and GRU, and a linear layer.
        ("lstm", vec![], &series, Trained(17_152 + 33_280 + 2 * 65), 6_917_248),
        ("gru", vec![], &series, Trained(12_864 + 24_960 + 2 * 65), 5_187_968),
        // Convolution, places, two of torch's TransformerEncoderLayer(64, 4, 128), layer norm, linear layer.
        ("ts_transformer", vec![], &series, Trained(576 + 18 * 64 + 2 * 33_472 + 128 + 2 * 65), 1_277_696),
        // The paper's 9,814 less what its 17 fixed filters make: batch norm, depthwise taps, pointwise weights.
        ("lite", vec![], &series, Trained(9_814 - 17 * (2 + 20 + 32) + 2 * 33), 1_200_704),
    ];
    for (name, options, site, parameters, macs) in cases {
        let arch = ARCHS.iter().find(|arch| arch.name == name).unwrap();
        let graph = (arch.build)(&choice(name, &options).options, site).unwrap();
        let found = match parameters {
            Trained(_) => Trained(count_parameters(&graph)[0]),
            All(_) => All(count_parameters(&graph)[1]),
            Folded(_) => Folded(count_parameters(&fold::fold(&graph).unwrap())[1]),
        };
        assert_eq!((found, graph.stats().unwrap().macs), (parameters, macs), "{name}");
    }
}

/// Of a stage, what is between its taps `NAME.pre` and `NAME`.
#[derive(Clone, Copy, PartialEq)]
enum Between {
    Relu,
    /// A ReLU and another order of the channels.
    ReluAndShuffle,
    Nothing,
    /// The other way around: `NAME.pre` is a batch norm of `NAME`.
    Norm,
}

fn between(name: &str) -> Between {
    match name {
        "shufflenet_v2" => Between::ReluAndShuffle,
        "mobilenet_v2" | "mobilenet_v2_cifar" | "lstm" | "gru" | "ts_transformer" => Between::Nothing,
        wrn if wrn.starts_with("wrn") => Between::Norm,
        _ => Between::Relu,
    }
}

#[test]
fn every_architecture_has_its_taps_and_trains() {
    for arch in ARCHS {
        let name = arch.name;
        let site = site(name);
        let graph = build(&narrow(name), &site, 1).unwrap();
        let stages: Vec<String> =
            (1..).map(|k| format!("stage{k}")).take_while(|stage| graph.find(stage).is_some()).collect();
        assert!(!stages.is_empty() && graph.find("features").is_some(), "{name}");
        let taps = stages.iter().flat_map(|stage| [stage.clone(), format!("{stage}.pre")]).collect();
        let plan = Plan { batch: 4, taps, backward: true, threads: 2, gpu: None };
        let mut executor = Executor::<f32>::new(&graph, &plan).unwrap_or_else(|error| panic!("{name}: {error}"));
        let x: Vec<f32> = (0..4 * site.input.iter().product::<usize>()).map(|i| (i * i % 13) as f32 - 6.0).collect();
        executor.forward(&x, 4, Mode::Train { seed: 1 }).unwrap();
        for stage in &stages {
            let [tap, pre] = [stage.clone(), format!("{stage}.pre")].map(|tap| executor.tap(&tap).unwrap());
            assert_eq!(executor.tap_shape(tap), executor.tap_shape(pre), "{name} {stage}");
            let (mut after, before) = (executor.value(tap).to_vec(), executor.value(pre).to_vec());
            let mut acted: Vec<f32> = before.iter().map(|x| x.max(0.0)).collect();
            match between(name) {
                Between::Relu => assert_eq!(after, acted, "{name} {stage}"),
                Between::ReluAndShuffle => {
                    assert_ne!(after, acted, "{name} {stage}");
                    [&mut after, &mut acted].into_iter().for_each(|values| values.sort_by(f32::total_cmp));
                    assert_eq!(after, acted, "{name} {stage}");
                }
                Between::Nothing => assert_eq!(after, before, "{name} {stage}"),
                Between::Norm => {
                    let mean = before.iter().sum::<f32>() / before.len() as f32;
                    assert!(mean.abs() < 1e-3 && after.iter().all(|x| x.is_finite()), "{name} {stage}: {mean}");
                }
            }
        }
        let logits = executor.tap("logits").unwrap();
        let d: Vec<f32> = (0..4 * 5).map(|i| (i % 3) as f32 - 1.0).collect();
        executor.backward(&[(logits, &d)]).unwrap();
        executor.check_gradients(&[]).unwrap_or_else(|error| panic!("{name}: {error}"));
        for weight in executor.parameters().iter().filter(|parameter| parameter.role == Role::Weight) {
            assert!(weight.gradient.iter().any(|&d| d != 0.0), "{name}: {} has a gradient of zeros", weight.name);
        }
    }
}

#[test]
fn a_seed_decides_every_weight() {
    for arch in ARCHS {
        let of = |seed| build(&narrow(arch.name), &site(arch.name), seed).unwrap();
        let first = of(3);
        assert_eq!(first, of(3), "{}", arch.name);
        assert_ne!(first, of(4), "{}", arch.name);
    }
}

#[test]
fn images_of_any_size_will_do() {
    for arch in ARCHS.iter().filter(|arch| !SERIES.contains(&arch.name)) {
        for input in [vec![1, 5, 17], vec![2, 33, 20], vec![1, 2, 3], vec![3, 1, 1]] {
            let site = Site { input, classes: 2 };
            match build(&narrow(arch.name), &site, 1) {
                Ok(graph) => {
                    let mut engine = Engine::new(&graph, 1).unwrap();
                    engine.input_mut(0).get::<f32>().iter_mut().enumerate().for_each(|(i, x)| *x = i as f32 % 3.0);
                    engine.run().unwrap();
                    let logits = engine.output(0).get::<f32>().to_vec();
                    assert!(logits.len() == 2 && logits.iter().all(|x| x.is_finite()), "{} {site:?}", arch.name);
                }
                Err(error) => {
                    let expected = "sides of at least 2, or head = \"mean\", found [3, 1, 1]";
                    assert!(error.to_string().contains(expected), "{} {site:?}: {error}", arch.name);
                    assert!(arch.name.ends_with("ds_cnn"), "{} {site:?}", arch.name);
                }
            }
        }
    }
}

/// Operators of an architecture that have no integer form.
fn stays_float(name: &str) -> &'static [&'static str] {
    match name {
        "lstm" => &["LSTM"],
        "gru" => &["GRU"],
        "ts_transformer" => &["LayerNormalization", "Softmax"],
        _ => &[],
    }
}

#[test]
fn every_network_computes_in_integers() {
    for arch in ARCHS {
        let graph = fold::fold(&build(&narrow(arch.name), &site(arch.name), 1).unwrap()).unwrap();
        let batch_norms = graph.nodes.iter().filter(|node| matches!(node.op, Op::BatchNormalization(_))).count();
        assert_eq!(batch_norms, 0, "{}", arch.name);
        let mut ranges: BTreeMap<_, _> = graph.inputs.iter().map(|&id| (id, Range { min: -1.0, max: 1.0 })).collect();
        for node in &graph.nodes {
            let min = if matches!(node.op, Op::Relu(_) | Op::Clip(_)) { 0.0 } else { -1.0 };
            ranges.extend(node.outputs.iter().map(|&id| (id, Range { min, max: 1.0 })));
        }
        let calibration = Calibration { ranges, samples: 1, method: "minmax" };
        let quantized = quantize::quantize(&graph, &calibration).unwrap_or_else(|e| panic!("{}: {e}", arch.name));
        // "`NAME` (OPERATOR): why"
        let operator = |line: &String| line.split(['(', ')']).nth(1).unwrap_or_default().to_string();
        let floats: BTreeSet<String> = quantized.stays_float.iter().map(operator).collect();
        let known: BTreeSet<String> = stays_float(arch.name).iter().map(|name| name.to_string()).collect();
        assert_eq!(floats, known, "{}: {:?}", arch.name, quantized.stays_float);
        if !known.is_empty() {
            continue;
        }
        assert_eq!(quantized.integer_products, quantized.products, "{}", arch.name);
        // Between the ends, what the engine does by operators moves bytes.
        let engine = Engine::new(&quantized.graph, 1).unwrap();
        let ends = ["op/QuantizeLinear", "op/DequantizeLinear"];
        let moves = ["op/Flatten", "op/MaxPool", "op/Reshape", "op/Slice", "op/Transpose"];
        for step in engine.steps().filter(|step| step.kernel.starts_with("op/")) {
            let known = ends.iter().chain(&moves).any(|kernel| step.kernel == *kernel);
            assert!(known, "{}: {} by {}", arch.name, step.node, step.kernel);
        }
        let count = |kernel: &str| engine.steps().filter(|step| step.kernel == kernel).count();
        assert_eq!(ends.map(count), [1, 0], "{}: floats between integers", arch.name);
    }
}

#[test]
fn refuses_sites_and_sizes_that_cannot_be() {
    let images = Site { input: vec![3, 32, 32], classes: 10 };
    let series = Site { input: vec![3, 32], classes: 10 };
    let vector = Site { input: vec![7], classes: 3 };
    let counts = |name, counts: &[usize]| (name, Setting::Counts(counts.to_vec()));
    #[rustfmt::skip]
    let cases = [
        ("cnn", vec![], &vector, "expected images [C, H, W] or series [C, T], found [7]"),
        ("fcn", vec![], &images, "expected series [C, T], found [3, 32, 32]"),
        ("lite", vec![counts("separable", &[2; 9])], &series, "expected at most 8 separable convolutions, found 9"),
        ("resnet8", vec![], &series, "expected images [C, H, W], found [3, 32]"),
        ("shufflenet_v1", vec![counts("widths", &[240, 480])], &images, "expected three widths that grow from above 24"),
        ("shufflenet_v1", vec![counts("widths", &[20, 40, 80])], &images, "expected three widths that grow from above 24"),
        ("shufflenet_v1", vec![counts("widths", &[100, 200, 400])], &images, "expected channels that 3 groups divide, found"),
        ("shufflenet_v2", vec![counts("widths", &[3, 4, 4])], &images, "expected three even widths, found [3, 4, 4]"),
        ("vgg8", vec![counts("widths", &[1; 6])], &images, "expected widths of five stages, found [1, 1, 1, 1, 1, 1]"),
        ("wrn", vec![("depth", Setting::Count(17))], &images, "expected a depth of 6 · n + 4, found 17"),
        ("mlp", vec![counts("hidden", &[1 << 20, 1 << 20])], &vector, "at most 1073741824 parameters"),
        ("mlp", vec![], &Site { input: vec![7], classes: 1 }, "at least 2 classes, found [7] and 1 classes"),
    ];
    for (name, options, site, expected) in cases {
        let error = build(&choice(name, &options), site, 1).unwrap_err().to_string();
        assert!(error.starts_with(&format!("architecture `{name}`: ")), "{error}");
        assert!(error.contains(expected) && !error.contains('\n'), "{name}: expected {expected}, found {error}");
    }
    for arch in ARCHS {
        let kinds = [&images, &series, &vector].map(|site| build(&narrow(arch.name), site, 1).is_ok());
        let expected = match arch.name {
            "mlp" => [true; 3],
            "cnn" => [true, true, false],
            series if SERIES.contains(&series) => [false, true, false],
            _ => [true, false, false],
        };
        assert_eq!(kinds, expected, "{}", arch.name);
    }
}

/// An image of one channel is a series of its rows: the same weights say the same of the same numbers.
#[test]
fn a_transformer_reads_an_image_row_by_row() {
    let graph = |input| build(&narrow("ts_transformer"), &Site { input, classes: 3 }, 1).unwrap();
    let (image, mut series) = (graph(vec![1, 6, 4]), graph(vec![4, 6]));
    for (&id, tensor) in &image.initializers {
        if let Some(same) = series.find(&image.value(id).name) {
            series.initializers.insert(same, tensor.clone());
        }
    }
    let logits = |graph: &Graph, at: fn(usize) -> usize| {
        let mut engine = Engine::new(graph, 1).unwrap();
        engine.input_mut(0).get::<f32>().iter_mut().enumerate().for_each(|(i, x)| *x = at(i) as f32 % 7.0);
        engine.run().unwrap();
        engine.output(0).get::<f32>().to_vec()
    };
    // Six rows of four pixels; the series has the four channels one after the other.
    assert_eq!(logits(&image, |i| i), logits(&series, |i| i % 6 * 4 + i / 6));
    assert_ne!(logits(&image, |i| i), logits(&series, |i| i));
}

#[test]
fn sizes_that_no_machine_has_are_refused_before_there_is_anything_of_them() {
    let series = Site { input: vec![1, 1_000_000], classes: 2 };
    let (width, patch) = (("width", Setting::Count(1 << 14)), ("patch", Setting::Count(1)));
    let message = build(&choice("ts_transformer", &[width, patch]), &series, 1).unwrap_err().to_string();
    assert!(message.contains("at most 1073741824 parameters, found more, at `places` [1000000, 16384]"), "{message}");
    for name in ["mobilenet_v1", "mobilenet_v2", "mobilenet_v2_cifar"] {
        for width in [64.5, 2_f64.powi(59), f64::MAX] {
            let wide = choice(name, &[("width", Setting::Number(width))]);
            let message = build(&wide, &site(name), 1).unwrap_err().to_string();
            assert!(message.contains("expected a width of at most 64, found "), "{name}: {message}");
        }
    }
}
