//! Taps of a stranger's file, of shapes that no network of the zoo has: refused in one line.

use kd_runtime::graph::{Dim, ElementType, Graph, Shape, Tensor};
use kd_runtime::ops;

use super::super::table::METHODS;
use super::built;
use crate::options::{Kind, Options, Setting};
use crate::zoo::initialize::initialize;

/// Values `alone` `[N]`, `four` `[N, 1, 1, 4, 4]`, `flat` `[N, 16]` and `turned` `[16, N]`, with the taps of a network.
fn strange(seed: u64) -> Graph {
    let mut graph = Graph::new("strange");
    let x = graph.add_input("x", ElementType::F32, Shape::batched(&[1, 4, 4]));
    let list = |graph: &mut Graph, name: &str, of: &[i64]| {
        graph.add_initializer(name, Tensor::from_vec(&[of.len()], of.to_vec()))
    };
    let axis = list(&mut graph, "axis", &[1]);
    graph.apply(ops::reshape::Unsqueeze, &[x, axis], "four");
    let flat = graph.apply(ops::reshape::Flatten { axis: 1 }, &[x], "flat");
    graph.apply(ops::transpose::Transpose { perm: vec![1, 0] }, &[flat], "turned");
    let layer = |graph: &mut Graph, outputs: usize, name: &str| {
        let weight = Tensor::from_vec(&[16, outputs], vec![0.0_f32; 16 * outputs]);
        let weight = graph.add_initializer(&format!("{name}.weight"), weight);
        graph.apply(ops::gemm::MatMul, &[flat, weight], name)
    };
    let one = layer(&mut graph, 1, "one");
    layer(&mut graph, 3, "features");
    let logits = layer(&mut graph, 4, "logits");
    graph.apply(ops::reshape::Squeeze, &[one, axis], "alone");
    graph.outputs = vec![logits];
    graph.validate().unwrap();
    assert_eq!(graph.value(graph.find("alone").unwrap()).shape.0, [Dim::Batch]);
    initialize(&mut graph, seed);
    graph
}

#[test]
fn no_tap_makes_a_method_panic_and_one_without_axes_is_refused() {
    let (student, teacher) = (strange(1), strange(2));
    for method in METHODS {
        let texts = method.options.iter().filter(|spec| matches!(spec.kind, Kind::Text { .. }));
        let texts: Vec<&str> = texts.map(|spec| spec.name).collect();
        for tap in ["alone", "four", "turned", "x", "one.weight", "four, flat", "alone, four", "stages.scores", ""] {
            // Each option that names taps alone, and all of them.
            for chosen in texts.iter().map(std::slice::from_ref).chain([&texts[..]]) {
                let set = |options: Options, name: &&'static str| options.with(name, Setting::Text(tap.into()));
                let options = chosen.iter().fold(Options::defaults(method.options), set);
                let what = format!("{} with {chosen:?} = \"{tap}\"", method.name);
                let Some(line) = built(method, &options, (&student, &teacher)).err().map(|e| e.to_string()) else {
                    assert!(!tap.starts_with("alone"), "{what} is built");
                    continue;
                };
                let is_whole = line.contains("expected ") && line.contains(", found ") && line.contains("; ");
                assert!(is_whole && !line.contains('\n'), "{what}: {line}");
                // `tinybert_attention` misses its scores on the other side first.
                if tap == "alone" && chosen.len() == texts.len() {
                    assert!(line.contains("of at least one more axis"), "{what}: {line}");
                }
            }
        }
    }
}
