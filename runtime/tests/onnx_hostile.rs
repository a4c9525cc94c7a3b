//! Any bytes are read or refused: no panic, no endless work, and never more memory than a multiple of the file's size.

mod onnx_model;
mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use kd_runtime::graph::{Dim, ElementType, Graph, Shape, Tensor};
use kd_runtime::onnx;
use kd_runtime::ops::{Op, arith, conv, gemm, reshape, softmax, window::Window};
use onnx_model::*;
use support::{random, shared};

/// Counts the bytes of the calling thread that live at once.
struct Counting;

thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    let live = LIVE.get() + bytes;
    LIVE.set(live);
    PEAK.set(PEAK.get().max(live));
}

// SAFETY: every call goes on to `System` with the same arguments; counting touches two thread-local cells that are
// constant-initialized and have no destructor, so it neither allocates nor runs after they are gone.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: as the caller's.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: as the caller's.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes that reading may take per byte of the file: what the smallest node (8 bytes of file) costs in graph, names and
/// inferred shapes.
const PER_BYTE: usize = 200;
/// And for a file of no size: the constants that may be computed while inferring (2^18 elements of 8 bytes, at two batch
/// sizes).
const AT_LEAST: usize = 6 << 20;

/// Reads, and checks the memory and the line of a refusal. The line, if it was refused, and the memory that was taken.
fn read(what: &str, bytes: &[u8]) -> (Option<String>, usize) {
    PEAK.set(LIVE.get());
    let before = LIVE.get();
    let result = onnx::read(bytes);
    let taken = usize::try_from(PEAK.get() - before).expect("memory");
    let most = bytes.len() * PER_BYTE + AT_LEAST;
    assert!(taken <= most, "{what}: {taken} bytes for a file of {}, expected at most {most}", bytes.len());
    let line = result.err().map(|refusal| refusal.to_string());
    if let Some(line) = &line {
        assert!(!line.contains(|c: char| c.is_control()), "{what}: {line:?}");
    }
    (line, taken)
}

/// A small network with weights, shape constants and a batch, as our writer writes it.
fn small_network() -> Graph {
    let mut graph = Graph::new("small");
    let x =
        graph.add_input("x", ElementType::F32, Shape(vec![Dim::Batch, Dim::Known(1), Dim::Known(6), Dim::Known(6)]));
    let weight: Vec<f32> = (0..18).map(|i| i as f32 / 18.0 - 0.5).collect();
    let w = graph.add_initializer("w", Tensor::from_vec(&[2, 1, 3, 3], weight));
    let b = graph.add_initializer("b", Tensor::from_vec(&[2], vec![0.1_f32, -0.1]));
    let window = Window { kernel: vec![3, 3], strides: vec![1, 1], pads: vec![1; 4], ..Window::default() };
    let c = graph.apply(conv::Conv { window, group: 1 }, &[x, w, b], "conv");
    let s = graph.apply(arith::Add, &[c, x], "sum");
    let f = graph.apply(reshape::Flatten { axis: 1 }, &[s], "flat");
    let v = graph.add_initializer("v", Tensor::from_vec(&[72, 3], vec![0.01_f32; 216]));
    let m = graph.apply(gemm::MatMul, &[f, v], "logits");
    let y = graph.apply(softmax::Softmax { axis: -1 }, &[m], "probabilities");
    graph.outputs = vec![m, y];
    graph.validate().expect("a network");
    graph
}

/// Small models of ours and of golden/quant, where they are at hand.
fn models() -> Vec<(String, Vec<u8>)> {
    let mut models = vec![("small".to_string(), onnx::write(&small_network()))];
    let relu = [node("Clip", &["x"], &["y"], &[float("min", 0.0)]), input("x", &[-1, 3]), output("y")];
    models.push(("clip 6".into(), model(10, &relu)));
    if let Some(folder) = shared("golden/quant") {
        for name in ["add_chan_u8", "quantize_axis1_opset13", "reshape_transpose_u8", "softmax_u8"] {
            if let Ok(bytes) = std::fs::read(folder.join(format!("{name}.onnx"))) {
                models.push((name.into(), bytes));
            }
        }
    }
    models
}

#[test]
fn every_truncation_and_every_flipped_bit_is_read_or_refused() {
    for (name, bytes) in models() {
        let mut refused = 0;
        for len in 0..bytes.len() {
            refused += usize::from(read(&format!("{name} cut to {len} bytes"), &bytes[..len]).0.is_some());
        }
        assert!(refused > 0, "{name}: every truncation was read");
        let mut damaged = bytes.clone();
        for bit in 0..bytes.len() * 8 {
            damaged[bit / 8] ^= 1 << (bit % 8);
            read(&format!("{name} with bit {bit} flipped"), &damaged);
            damaged[bit / 8] = bytes[bit / 8];
        }
    }
}

#[test]
fn a_third_partys_model_survives_seeded_damage() {
    let Some(path) = shared("data/zoo/mnist-8.onnx") else { return };
    let bytes = std::fs::read(path).expect("a file");
    let mut seed = 8;
    for i in 0..2000 {
        let mut damaged = bytes.clone();
        let bit = usize::try_from(random(&mut seed)).expect("64 bits") % (bytes.len() * 8);
        damaged[bit / 8] ^= 1 << (bit % 8);
        read(&format!("mnist-8, flip {i} of bit {bit}"), &damaged);
    }
}

/// Replaces, inserts, removes, repeats and cuts stretches of a file.
fn mutate(bytes: &mut Vec<u8>, seed: &mut u64) {
    let in_place = random(seed).is_multiple_of(2);
    for _ in 0..1 + random(seed) % 4 {
        let at = |seed: &mut u64, len: usize| usize::try_from(random(seed) % (len as u64 + 1)).expect("small");
        let (a, b) = (at(seed, bytes.len()), at(seed, bytes.len()));
        let (a, b) = (a.min(b), (a.max(b)).min(a.min(b) + 16));
        match if in_place { 6 } else { random(seed) % 6 } {
            0 if a < bytes.len() => bytes[a] = random(seed) as u8,
            1 => bytes.insert(a, random(seed) as u8),
            2 => drop(bytes.drain(a..b)),
            3 => bytes.extend_from_within(a..b),
            4 => {
                let piece = bytes[a..b].to_vec();
                let to = at(seed, bytes.len());
                bytes.splice(to..to, piece);
            }
            5 if random(seed).is_multiple_of(8) => bytes.truncate(a),
            _ if a < bytes.len() => bytes[a] = [0, 1, 0x7f, 0x80, 0xff][random(seed) as usize % 5],
            _ => {}
        }
    }
}

/// `KD_MUTATIONS` sets the number of mutations.
#[test]
fn seeded_mutations_are_read_or_refused() {
    let count = std::env::var("KD_MUTATIONS").ok().and_then(|v| v.parse().ok()).unwrap_or(3000);
    let models = models();
    let mut seed = 1;
    let mut read_all = 0;
    for i in 0..count {
        let (name, bytes) = &models[i % models.len()];
        let mut bytes = bytes.clone();
        mutate(&mut bytes, &mut seed);
        read_all += usize::from(read(&format!("{name}, mutation {i}"), &bytes).0.is_none());
    }
    println!("{count} mutations: {read_all} read, {} refused", count - read_all);
    assert!(read_all > 0 && read_all < count);
}

fn chain(nodes: usize, op: &str, attributes: &[Vec<u8>]) -> Vec<Piece> {
    let mut pieces = vec![input("v0", &[-1, 4]), output(&format!("v{nodes}"))];
    pieces.extend((0..nodes).map(|i| node(op, &[&format!("v{i}")], &[&format!("v{}", i + 1)], attributes)));
    pieces
}

#[test]
fn a_chain_of_200_000_nodes_is_read() {
    let bytes = model(21, &chain(200_000, "Relu", &[]));
    let (refused, taken) = read("a chain", &bytes);
    println!("a chain of 200000 nodes: {taken} bytes for a file of {}", bytes.len());
    assert_eq!(refused, None);
    let graph = onnx::read(&bytes).expect("a model").graph;
    assert_eq!(onnx::read(&onnx::write(&graph)).expect("again").graph.nodes.len(), 200_000);
}

#[test]
fn a_chain_in_reverse_and_one_that_bites_its_tail_end() {
    let mut pieces = chain(50_000, "Relu", &[]);
    pieces[2..].reverse();
    assert_eq!(read("a chain in reverse", &model(21, &pieces)).0, None);
    let mut pieces = chain(50_000, "Relu", &[]);
    pieces[0] = node("Relu", &["v50000"], &["v0"], &[]);
    assert!(read("a ring", &model(21, &pieces)).0.is_some());
}

#[test]
fn small_files_that_ask_for_much_are_given_little() {
    let many = |n: usize, piece: &dyn Fn(usize) -> Piece| -> Vec<Piece> { (0..n).map(piece).collect() };
    let wide = ints_initializer("c", &[1; 4096]);
    let mut constants = vec![wide, output("c")];
    constants.extend(many(5000, &|i| {
        let from = if i == 0 { "c".to_string() } else { format!("k{}", i - 1) };
        node("Identity", &[&from], &[&format!("k{i}")], &[])
    }));
    let mut deep = vec![input("x", &[1; 8]), output("x")];
    deep.extend(many(5000, &|i| node("Relu", &["x"], &[&format!("r{i}")], &[])));
    let mut old = vec![input("x", &[1, 2, 3]), output("x")];
    old.extend(many(5000, &|i| node("Softmax", &["x"], &[&format!("s{i}")], &[])));
    let mut doubling = vec![input("v0", &[1, 4]), output("v60")];
    doubling.extend(many(60, &|i| {
        node("Concat", &[&format!("v{i}"), &format!("v{i}")], &[&format!("v{}", i + 1)], &[int("axis", 1)])
    }));
    let named = |piece: &dyn Fn(usize) -> Piece| {
        let mut pieces = vec![input("x", &[1]), output("x")];
        pieces.extend(many(20_000, piece));
        pieces
    };
    let cases = [
        ("empty nodes", many(20_000, &|_| (1, Vec::new()))),
        ("empty initializers", many(20_000, &|_| (5, Vec::new()))),
        ("empty inputs", many(20_000, &|_| (11, Vec::new()))),
        ("tiny initializers", named(&|i| initializer(tensor(&i.to_string(), 2, &[], raw(&[0]))))),
        ("tiny inputs", named(&|i| value(11, &i.to_string(), 9, &[]))),
        ("tiny outputs", many(20_000, &|i| output(&i.to_string()))),
        ("tiny constants", named(&|i| node("Constant", &[], &[&i.to_string()], &[int("value_int", 1)]))),
        (
            "a node of many inputs",
            vec![node("Concat", &vec!["x"; 100_000], &["y"], &[int("axis", 0)]), input("x", &[1]), output("y")],
        ),
        ("a node of many outputs", vec![node("Relu", &["x"], &vec!["y"; 100_000], &[])]),
        ("a node of many attributes", vec![node("Relu", &["x"], &["y"], &vec![Vec::new(); 100_000])]),
        ("a list of many", vec![node("Relu", &["x"], &["y"], &[nested("v", 7, 8, &[1; 100_000])])]),
        ("many strings", vec![node("Relu", &["x"], &["y"], &[nested("v", 8, 99, &[]), [74, 0].repeat(50_000)])]),
        ("constants of constants", constants),
        ("many nodes of many dimensions", deep),
        ("many rewritten nodes", old),
        ("an output that grows", doubling),
    ];
    for (name, pieces) in cases {
        for opset in [11, 21] {
            let bytes = model(opset, &pieces);
            let (refused, taken) = read(name, &bytes);
            let per_byte = taken as f64 / bytes.len() as f64;
            let how = refused.map_or("read".to_string(), |line| line.chars().take(150).collect());
            println!("{name}, opset {opset}: {per_byte:.1} bytes per byte of {}: {how}", bytes.len());
        }
    }
}

#[test]
fn deep_nesting_is_no_recursion() {
    let mut inner: Vec<u8> = Vec::new();
    for _ in 0..20_000 {
        // A graph in an attribute of a node of a graph: fields 6, 5 and 1.
        for tag in [0x32, 0x2a, 0x0a] {
            let mut outer = vec![tag];
            let mut len = inner.len();
            while len >= 0x80 {
                outer.push((len & 0x7f) as u8 | 0x80);
                len >>= 7;
            }
            outer.push(len as u8);
            outer.extend_from_slice(&inner);
            inner = outer;
        }
        if inner.len() > 1 << 20 {
            break;
        }
    }
    read("deep nesting", &model(21, &[(1, inner)]));
}

#[test]
fn operators_survive_what_the_reader_refuses() {
    // Values at the ends of their types in every attribute that sizes come from.
    let extremes = [i64::MIN, i64::MIN + 1, -1, 0, 1, (1 << 31) - 1, 1 << 31, 1 << 62, i64::MAX];
    let lists: [(&str, &[&str]); 6] = [
        ("Conv", &["strides", "pads", "dilations", "kernel_shape"]),
        ("MaxPool", &["kernel_shape", "pads", "strides", "dilations"]),
        ("AveragePool", &["kernel_shape", "pads", "strides"]),
        ("Transpose", &["perm"]),
        ("Pad", &["pads"]),
        ("Slice", &["starts", "ends", "axes"]),
    ];
    for (op, names) in lists {
        for &value in &extremes {
            for len in 0..5 {
                let attributes: Vec<Vec<u8>> = names.iter().map(|name| ints(name, &vec![value; len])).collect();
                for keep in 1..=attributes.len() {
                    let others = [
                        node(op, if op == "Conv" { &["x", "w"] } else { &["x"] }, &["y"], &attributes[..keep]),
                        input("x", &[1, 1, 4, 4]),
                        floats_initializer("w", &[1, 1, 2, 2], &[1.0; 4]),
                        output("y"),
                    ];
                    read(&format!("{op} with {value} {len} times in {keep} attributes"), &model(9, &others));
                }
            }
        }
    }
    for op in ["Concat", "Flatten", "Gather", "Softmax", "LogSoftmax", "Shape", "Squeeze", "Unsqueeze", "ReduceMean"] {
        for &value in &extremes {
            let attribute = match op {
                "Squeeze" | "Unsqueeze" | "ReduceMean" => ints("axes", &[value]),
                "Shape" => int("start", value),
                _ => int("axis", value),
            };
            let inputs: &[&str] = if op == "Gather" { &["x", "i"] } else { &["x"] };
            let others = [
                node(op, inputs, &["y"], &[attribute]),
                input("x", &[1, 2, 1]),
                ints_initializer("i", &[0]),
                output("y"),
            ];
            read(&format!("{op} {value}"), &model(12, &others));
        }
    }
    for op in ["Reshape", "Squeeze", "Unsqueeze", "ReduceMean", "Pad", "Slice"] {
        for &a in &extremes {
            for &b in &extremes {
                let inputs: &[&str] = if op == "Slice" { &["x", "i", "j", "k", "j"] } else { &["x", "i"] };
                let others = [
                    node(op, inputs, &["y"], &[]),
                    input("x", &[-1, 3]),
                    ints_initializer("i", &[a, b]),
                    ints_initializer("j", &[b, a]),
                    ints_initializer("k", &[0, 1]),
                    output("y"),
                ];
                read(&format!("{op} of {a} and {b}"), &model(21, &others));
            }
        }
    }
    assert!(matches!(small_network().nodes[0].op, Op::Conv(_)));
}
