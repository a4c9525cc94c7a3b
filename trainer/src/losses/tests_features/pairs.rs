//! Every method on networks that differ in kind: it works, adapters and all, or refuses in one line before training.

use kd_runtime::graph::{Dim, ElementType, Graph, Shape, Tensor};
use kd_runtime::ops;

use super::super::pair::cut;
use super::super::table::METHODS;
use super::super::{Knowledge, Loss, Method};
use super::{BATCH, SIZE, built, network_for, noise, tapped, wrong_gradients};
use crate::exec::{Executor, Mode, Plan};
use crate::options::{Options, Setting};
use crate::zoo::initialize::initialize;

/// One step of a method alone: every adapter gets a finite gradient, and what is kept of the student is the student.
fn step(loss: &mut dyn Loss, graph: &Graph, student: &Graph, teacher: &Graph) -> Result<(), String> {
    let told = |refusal: kd_runtime::Refusal| refusal.to_string();
    let elements = |graph: &Graph| {
        let dims = &graph.value(graph.inputs[0]).shape.0[1..];
        dims.iter().map(|dim| if let Dim::Known(n) = dim { *n } else { 0 }).product::<usize>()
    };
    let plan = |taps: &[String], backward| Plan { batch: SIZE, taps: taps.to_vec(), backward, threads: 1, gpu: None };
    let mut taught = Executor::<f32>::new(teacher, &plan(loss.teacher_taps(), false)).map_err(told)?;
    let mut taps = vec!["logits".to_string()];
    taps.extend(loss.student_taps().iter().cloned());
    let mut executor = Executor::<f32>::new(graph, &plan(&taps, true)).map_err(told)?;
    executor.freeze(loss.frozen());
    let x = |graph: &Graph| noise(7, SIZE * elements(graph), 1.0).into_iter().map(|x| x as f32).collect::<Vec<_>>();
    taught.forward(&x(teacher), SIZE, Mode::Eval).map_err(told)?;
    executor.forward(&x(graph), SIZE, Mode::Train { seed: 0 }).map_err(told)?;
    let ids = |executor: &Executor<f32>, names: &[String]| -> Vec<_> {
        names.iter().map(|name| executor.tap(name).expect("planned")).collect()
    };
    let (student_ids, teacher_ids) = (ids(&executor, loss.student_taps()), ids(&taught, loss.teacher_taps()));
    let teacher_values: Vec<&[f32]> = teacher_ids.iter().map(|&id| taught.value(id)).collect();
    let student_values: Vec<Vec<f32>> = student_ids.iter().map(|&id| executor.value(id).to_vec()).collect();
    let student_values: Vec<&[f32]> = student_values.iter().map(Vec::as_slice).collect();
    let mut d: Vec<Vec<f32>> = student_values.iter().map(|values| vec![f32::NAN; values.len()]).collect();
    let mut d_slices: Vec<&mut [f32]> = d.iter_mut().map(Vec::as_mut_slice).collect();
    let mut own = loss.own();
    let value = loss.value(&BATCH, &student_values, &teacher_values, &mut d_slices, &mut own).map_err(told)?;
    if !value.is_finite() {
        return Err(format!("a value of {value}"));
    }
    let mut by_tap: Vec<(_, Vec<f32>)> = Vec::new();
    for (id, d) in student_ids.into_iter().zip(d) {
        match by_tap.iter_mut().find(|(known, _)| *known == id) {
            Some((_, sum)) => sum.iter_mut().zip(d).for_each(|(sum, d)| *sum += d),
            None => by_tap.push((id, d)),
        }
    }
    let by_tap: Vec<(_, &[f32])> = by_tap.iter().map(|(id, d)| (*id, &d[..])).collect();
    executor.backward(&by_tap).map_err(told)?;
    for p in executor.parameters().iter().filter(|p| p.name.starts_with("adapter.") && p.role.is_trained()) {
        if !p.gradient.iter().all(|d| d.is_finite()) || p.gradient.iter().all(|&d| d == 0.0) {
            return Err(format!("`{}` gets no finite gradient", p.name));
        }
    }
    if loss.frozen().is_empty() {
        let [kept, alone] = [graph, student].map(|graph| cut(graph, "logits", "logits").map_err(told));
        let (kept, alone) = (kept?.initializers.len(), alone?.initializers.len());
        if kept != alone {
            return Err(format!("{kept} arrays kept of {alone}"));
        }
    }
    Ok(())
}

/// What a method does on a pair: `None` where it refuses.
fn tried(method: &Method, options: &Options, student: &Graph, teacher: &Graph) -> Result<Option<()>, String> {
    match built(method, options, (student, teacher)) {
        Ok((mut loss, graph)) => {
            let wrong = wrong_gradients(&mut *loss, &graph, teacher, &[]);
            if let Some(first) = wrong.first() {
                return Err(first.clone());
            }
            step(&mut *loss, &graph, student, teacher).map(Some)
        }
        Err(refusal) => {
            let line = refusal.to_string();
            let complete = line.contains("expected ") && line.contains(", found ") && line.contains("; ");
            if complete && !line.contains('\n') { Ok(None) } else { Err(line) }
        }
    }
}

#[test]
fn every_method_works_or_refuses_on_networks_of_other_kinds() {
    let image = [1, 6, 6];
    let resnet = |arch, widths: &[usize], seed| network_for(&image, arch, ("widths", widths), seed);
    let mlp = |hidden: &[usize], seed| network_for(&image, "mlp", ("hidden", hidden), seed);
    let fcn = |length, widths: &[usize], seed| network_for(&[1, length], "fcn", ("widths", widths), seed);
    let scores = "tinybert_attention";
    // Of each pair the methods that refuse it.
    let pairs = [
        ("widths", resnet("resnet8", &[2, 3, 4], 1), resnet("resnet20", &[5, 6, 7], 2), vec![scores]),
        ("equal widths", resnet("resnet8", &[2, 3, 4], 1), resnet("resnet20", &[2, 3, 4], 2), vec![scores]),
        ("larger maps", resnet("cnn", &[3, 4], 1), resnet("resnet20", &[3, 4, 6], 2), vec![scores]),
        ("smaller maps", resnet("resnet8", &[3, 4, 6], 1), resnet("cnn", &[3, 5], 2), vec![scores]),
        ("series", fcn(12, &[3, 4], 1), fcn(12, &[4, 5, 6], 2), vec![scores]),
        ("a series beside an image", fcn(36, &[3, 4], 1), resnet("cnn", &[4, 5], 2), vec![scores]),
        ("an image beside a series", resnet("cnn", &[4, 5], 1), fcn(36, &[3, 4], 2), vec![scores]),
        (
            "a vector beside maps",
            mlp(&[5, 6], 1),
            resnet("cnn", &[6, 7], 2),
            vec!["at", "nst", "ft", "tat", "soft_dtw", scores, "attention_relation"],
        ),
        (
            "maps beside a vector",
            resnet("cnn", &[4, 5], 1),
            mlp(&[5, 6], 2),
            vec!["at", "ofd", "nst", "ft", "tat", "soft_dtw", scores, "attention_relation"],
        ),
    ];
    let mut failed = Vec::new();
    for (name, student, teacher, refused) in &pairs {
        let of_features = |method: &&&Method| matches!(method.knowledge, Knowledge::Feature | Knowledge::Sequence);
        for method in METHODS.iter().filter(of_features) {
            let expected = if refused.contains(&method.name) { None } else { Some(()) };
            let found = tried(method, &Options::defaults(method.options), student, teacher);
            if found != Ok(expected) {
                failed.push(format!("{name}: {}: expected {expected:?}, found {found:?}", method.name));
            }
        }
    }
    assert!(failed.is_empty(), "{} failed:\n{}", failed.len(), failed.join("\n"));
}

/// Tokens `[5, 3]` to `hidden`, `query`, `key`, `value` `[5, width]` and `scores` `[1, 5, 5]`.
fn tokens(width: usize, seed: u64) -> Graph {
    let mut graph = Graph::new("tokens");
    let dims = [Dim::Batch, Dim::Known(5), Dim::Known(3)];
    let x = graph.add_input("x", ElementType::F32, Shape(dims.to_vec()));
    let layer = |graph: &mut Graph, from, inputs: usize, name: &str| {
        let weight = Tensor::from_vec(&[inputs, width], vec![0.0_f32; inputs * width]);
        let weight = graph.add_initializer(&format!("{name}.weight"), weight);
        graph.apply(ops::gemm::MatMul, &[from, weight], name)
    };
    let hidden = layer(&mut graph, x, 3, "hidden");
    let [query, key, _] = ["query", "key", "value"].map(|name| layer(&mut graph, hidden, width, name));
    let turned = graph.apply(ops::transpose::Transpose { perm: vec![0, 2, 1] }, &[key], "turned");
    let product = graph.apply(ops::gemm::MatMul, &[query, turned], "product");
    let axes = graph.add_initializer("axes", Tensor::from_vec(&[1], vec![1_i64]));
    graph.apply(ops::reshape::Unsqueeze, &[product, axes], "scores");
    let flat = graph.apply(ops::reshape::Flatten { axis: 1 }, &[hidden], "features");
    let weight = graph.add_initializer("weight", Tensor::from_vec(&[4, 5 * width], vec![0.0_f32; 20 * width]));
    let gemm = ops::gemm::Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b: true };
    graph.outputs = vec![graph.apply(gemm, &[flat, weight], "logits")];
    graph.validate().unwrap();
    initialize(&mut graph, seed);
    graph
}

/// The relations of 36 places are 36 squared; of twice the side 16 times as many.
#[test]
fn maps_have_no_more_positions_than_series() {
    let method = METHODS.iter().find(|method| method.name == "attention_relation").unwrap();
    let networks = [1, 2].map(|seed| network_for(&[1, 12, 8], "cnn", ("widths", &[2, 3]), seed));
    let at = |name: &str, longest: usize| {
        let options = Options::defaults(method.options).with("longest", Setting::Count(longest));
        let text = Setting::Text(name.into());
        let options = options.with("student", text.clone()).with("teacher", text);
        let (mut loss, graph) = built(method, &options, (&networks[0], &networks[1])).unwrap();
        assert_eq!(wrong_gradients(&mut *loss, &graph, &networks[1], &[]), [""; 0], "{name} {longest}");
        let taps = tapped(&graph, loss.student_taps(), SIZE, 10);
        let taught = tapped(&networks[1], loss.teacher_taps(), SIZE, 20);
        let mut d = vec![0.0; taps[0].len()];
        loss.value(&BATCH, &[&taps[0]], &[&taught[0]], &mut [&mut d], &mut []).unwrap()
    };
    // 96 places, whose relations are others where they are averaged.
    let all = at("stage1", 96);
    assert_eq!((at("stage1", 128), at("stage1", 512)), (all, all));
    assert_ne!(at("stage1", 95), all);
    assert_ne!(at("stage1", 16), at("stage1", 95));
}

#[test]
fn stages_are_no_queries_keys_and_values() {
    let method = METHODS.iter().find(|method| method.name == "attention_relation").unwrap();
    let networks = [1, 2].map(|seed| network_for(&[1, 12, 12], "resnet8", ("widths", &[2, 2, 2]), seed));
    let with = |student: &str, teacher: &str| {
        let text = |word: &str| Setting::Text(word.into());
        let options = Options::defaults(method.options).with("relation", text("attention_and_values"));
        let options = options.with("student", text(student)).with("teacher", text(teacher));
        built(method, &options, (&networks[0], &networks[1])).err().map(|e| e.to_string()).unwrap_or_default()
    };
    for (student, teacher) in [("stages", "stages"), ("stages.pre", "stages.pre"), ("stage1, stage1, stage2", "stages")]
    {
        let line = with(student, teacher);
        assert!(line.starts_with("attention_relation: expected names of taps `query, key, value`"), "{line}");
    }
    assert_eq!(with("stage1, stage1, stage2", "stage1, stage1, stage2"), "");
}

/// Options that are set.
type Given = Vec<(&'static str, Setting)>;

#[test]
fn methods_of_tokens_work_on_attention_of_other_widths() {
    let (student, teacher) = (tokens(4, 1), tokens(6, 2));
    let text = |word: &str| Setting::Text(word.into());
    let cases: [(&str, &str, Given); 7] = [
        ("tinybert_attention", "scores", vec![]),
        ("tinybert_hidden", "hidden", vec![("tokens", Setting::Flag(true))]),
        ("cosine", "hidden", vec![("tokens", Setting::Flag(true))]),
        ("soft_dtw", "hidden", vec![("tokens", Setting::Flag(true))]),
        ("tat", "hidden", vec![("tokens", Setting::Flag(true))]),
        ("attention_relation", "value", vec![("tokens", Setting::Flag(true)), ("heads", Setting::Count(2))]),
        (
            "attention_relation",
            "query, key, value",
            vec![("tokens", Setting::Flag(true)), ("relation", text("attention_and_values"))],
        ),
    ];
    for (name, taps, settings) in cases {
        let method = METHODS.iter().find(|method| method.name == name).unwrap();
        let mut options = Options::defaults(method.options).with("student", text(taps)).with("teacher", text(taps));
        for (option, setting) in settings {
            options = options.with(option, setting);
        }
        let (mut loss, graph) = built(method, &options, (&student, &teacher)).expect(name);
        let wrong = wrong_gradients(&mut *loss, &graph, &teacher, &[]);
        assert!(wrong.is_empty(), "{name}: {wrong:?}");
        step(&mut *loss, &graph, &student, &teacher).expect(name);
    }
}
