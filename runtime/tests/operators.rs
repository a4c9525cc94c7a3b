//! Operators on seeded random attributes, types, shapes and hostile numbers: what shape inference accepts is computed
//! without a panic and without an allocation, and every operator is accepted often enough to mean something.

use kd_runtime::graph::{Data, ElementType, Tensor, tensor};
use kd_runtime::measure::alloc;
use kd_runtime::ops::{Attr, Attrs, Input, Op, TensorType, frame, table};

#[global_allocator]
static ALLOCATOR: alloc::Counting = alloc::Counting;

/// Tries for each operator, and the least number of them that must be computed.
const TRIES: usize = 20_000;
const LEAST_COMPUTED: usize = 100;
/// Larger outputs are inferred but not computed.
const MOST_COMPUTED_ELEMENTS: usize = 1 << 14;

/// Marsaglia's xorshift.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % n
    }

    fn one_of<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.below(values.len())]
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// Mostly small, sometimes hostile.
    fn int(&mut self) -> i64 {
        const HOSTILE: [i64; 8] =
            [i64::MIN, i64::MIN + 1, -(1 << 40), 1 << 31, (1 << 31) + 1, 1 << 62, i64::MAX - 1, i64::MAX];
        if self.chance(4) { self.one_of(&HOSTILE) } else { self.below(9) as i64 - 4 }
    }

    fn ints(&mut self, len: usize) -> Vec<i64> {
        (0..len).map(|_| self.int()).collect()
    }

    fn float(&mut self) -> f32 {
        const STRANGE: [f32; 6] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0, 1e-40, f32::MAX];
        if self.chance(5) { self.one_of(&STRANGE) } else { self.below(64) as f32 / 8.0 - 4.0 }
    }

    fn shape(&mut self) -> Vec<usize> {
        let rank = self.one_of(&[0, 1, 2, 3, 3, 4, 4, 5, 9]);
        (0..rank).map(|_| self.one_of(&[1, 1, 2, 2, 3, 4, 5, 0])).collect()
    }

    fn element(&mut self) -> ElementType {
        use ElementType::{Bool, F32, I8, I32, I64, U8};
        self.one_of(&[F32, F32, F32, F32, U8, I8, I32, I64, Bool])
    }

    fn tensor(&mut self, element: ElementType, shape: &[usize]) -> Tensor {
        let count = shape.iter().product::<usize>();
        let data = match element {
            ElementType::F32 => Data::F32((0..count).map(|_| self.float()).collect()),
            ElementType::U8 => Data::U8((0..count).map(|_| self.below(256) as u8).collect()),
            ElementType::I8 => Data::I8((0..count).map(|_| self.below(256) as i8).collect()),
            ElementType::I32 => Data::I32((0..count).map(|_| self.int() as i32).collect()),
            ElementType::I64 => Data::I64(self.ints(count)),
            ElementType::Bool => Data::Bool((0..count).map(|_| self.chance(20)).collect()),
        };
        Tensor::new(shape.to_vec(), data).expect("as many elements as the shape says")
    }

    /// A later input that has a chance to fit the first one.
    fn companion(&mut self, first: &Tensor) -> Tensor {
        let shape = first.shape();
        let channels = shape.get(1).copied().unwrap_or(1);
        let element = if self.chance(70) { first.element() } else { self.element() };
        match self.below(8) {
            0 => self.tensor(element, shape),
            1 => self.tensor(element, &[]),
            2 => self.tensor(element, &[channels]),
            3 | 4 => {
                let len = self.one_of(&[shape.len(), 2 * shape.len(), 1, 2, 4]);
                self.tensor(ElementType::I64, &[len])
            }
            5 => {
                let mut flipped = shape.to_vec();
                let rank = flipped.len();
                if rank > 1 {
                    flipped.swap(rank - 1, rank - 2);
                }
                self.tensor(element, &flipped)
            }
            6 => {
                // Weights: any number of filters over the same channels, a kernel of 1 to 3.
                let kernel = (2..shape.len()).map(|_| 1 + self.below(3));
                let weights: Vec<usize> = [2, channels].into_iter().chain(kernel.collect::<Vec<_>>()).collect();
                self.tensor(element, &weights)
            }
            _ => {
                let shape = self.shape();
                self.tensor(element, &shape)
            }
        }
    }
}

/// Attributes that operators read: which, and what kind of value.
fn attributes(random: &mut Random, op: &str, rank: usize) -> Attrs {
    let spatial = rank.saturating_sub(2);
    let mut attrs = Attrs::new();
    let ints: &[&str] = match op {
        "Concat" | "Flatten" | "Gather" | "LogSoftmax" | "Softmax" => &["axis"],
        "Split" => &["axis", "num_outputs"],
        "DequantizeLinear" | "QuantizeLinear" => &["axis", "block_size"],
        "Conv" | "ConvTranspose" => &["group"],
        "MaxPool" => &["ceil_mode", "storage_order"],
        "AveragePool" => &["ceil_mode", "count_include_pad"],
        "Gemm" => &["transA", "transB"],
        "GRU" => &["linear_before_reset", "hidden_size"],
        "LSTM" => &["layout", "input_forget"],
        "LayerNormalization" => &["axis", "stash_type"],
        "ReduceMean" => &["keepdims", "noop_with_empty_axes"],
        "Reshape" => &["allowzero"],
        "Shape" => &["start", "end"],
        _ => &[],
    };
    for name in ints {
        if random.chance(if is_recurrent(op) { 10 } else { 50 }) || *name == "axis" {
            let value = random.int();
            attrs = attrs.with_int(name, value);
        }
    }
    match op {
        "Cast" => attrs = attrs.with_int("to", random.one_of(&[1, 2, 3, 6, 7, 9])),
        "Elu" | "HardSigmoid" if random.chance(50) => attrs = attrs.with("alpha", Attr::Float(random.float())),
        "Gelu" => {
            let approximate = random.one_of(&["none", "tanh", "other"]);
            attrs = attrs.with("approximate", Attr::String(approximate.into()));
        }
        "LSTM" | "GRU" => {
            let direction = random.one_of(&["forward", "reverse", "bidirectional", "backward"]);
            attrs = attrs.with("direction", Attr::String(direction.into()));
        }
        "Resize" => {
            let mode = random.one_of(&["nearest", "nearest", "nearest", "linear"]);
            attrs = attrs.with("mode", Attr::String(mode.into()));
        }
        "Pad" => {
            let mode = random.one_of(&["constant", "edge", "reflect", "wrap"]);
            attrs = attrs.with("mode", Attr::String(mode.into()));
        }
        "Transpose" if random.chance(70) => {
            let mut perm: Vec<usize> = (0..rank).collect();
            (0..rank).for_each(|i| perm.swap(i, random.below(rank)));
            attrs = attrs.with_sizes("perm", &perm);
        }
        "Conv" | "ConvTranspose" | "MaxPool" | "AveragePool" => {
            if op == "ConvTranspose" && random.chance(20) {
                let name = random.one_of(&["output_padding", "output_shape"]);
                let value: Vec<i64> = (0..spatial).map(|_| random.int().saturating_abs()).collect();
                attrs = attrs.with(name, Attr::Ints(value));
            }
            if !op.starts_with("Conv") {
                let kernel: Vec<usize> = (0..spatial).map(|_| 1 + random.below(3)).collect();
                attrs = attrs.with_sizes("kernel_shape", &kernel);
            }
            for (name, len) in [("strides", spatial), ("dilations", spatial), ("pads", 2 * spatial)] {
                if random.chance(40) {
                    let value: Vec<i64> = (0..len).map(|_| random.int().saturating_abs()).collect();
                    attrs = attrs.with(name, Attr::Ints(value));
                }
            }
            if random.chance(20) {
                let auto_pad = random.one_of(&["SAME_UPPER", "SAME_LOWER", "VALID"]);
                attrs = attrs.with("auto_pad", Attr::String(auto_pad.into()));
            }
        }
        _ => {}
    }
    attrs
}

/// How many later inputs make sense for an operator.
fn more_inputs(random: &mut Random, op: &str) -> usize {
    match op {
        "BatchNormalization" => 4,
        "Slice" => random.one_of(&[2, 3, 4]),
        "GRU" => random.one_of(&[2, 3, 5]),
        "LSTM" => random.one_of(&[2, 3, 5, 6, 7]),
        "LayerNormalization" => random.one_of(&[1, 2]),
        "Add" | "Sub" | "Mul" | "Div" | "MatMul" | "Pow" | "Gather" | "Reshape" | "Unsqueeze" => 1,
        "Resize" => random.one_of(&[2, 3]),
        "Split" => random.below(2),
        "Conv" | "ConvTranspose" | "Gemm" | "QuantizeLinear" | "DequantizeLinear" | "Concat" => random.one_of(&[1, 2]),
        "Clip" | "Dropout" => random.below(3),
        "Pad" => random.one_of(&[1, 2, 3]),
        "ReduceMean" | "Squeeze" => random.below(2),
        _ => 0,
    }
}

fn is_recurrent(op: &str) -> bool {
    matches!(op, "GRU" | "LSTM")
}

/// W, R, B, sequence_lens, initial_h, initial_c or peepholes for one direction (sometimes two) and a state of 2.
fn recurrent_input(random: &mut Random, op: &str, x: &[usize], i: usize) -> Tensor {
    let gates = if op == "LSTM" { 4 } else { 3 };
    let directions = random.one_of(&[1, 1, 1, 1, 1, 2]);
    let (batch, features) = (x.get(1).copied().unwrap_or(1), x.get(2).copied().unwrap_or(1));
    let shape: &[usize] = match i {
        0 => &[directions, 2 * gates, features],
        1 => &[directions, 2 * gates, 2],
        2 => &[directions, 4 * gates],
        3 => &[batch],
        6 => &[directions, 6],
        _ => &[directions, batch, 2],
    };
    random.tensor(if i == 3 { ElementType::I32 } else { ElementType::F32 }, shape)
}

/// One try: whether it was computed.
fn attempt(random: &mut Random, name: &str) -> bool {
    let (element, shape) = (random.element(), random.shape());
    let first = random.tensor(element, &shape);
    let attrs = attributes(random, name, shape.len());
    let Some(Ok(op)) = Op::read(name, attrs) else { return false };
    let mut inputs = vec![Some(first)];
    for i in 0..more_inputs(random, name) {
        // sequence_lens are refused.
        let absent = (i > 0 && random.chance(20)) || (i == 3 && is_recurrent(name) && random.chance(95));
        let companion = random.companion(inputs[0].as_ref().expect("the first"));
        // Same-typed lists for everything after the starts of a slice; statistics of a normalization.
        let companion = match (name, &inputs[1..]) {
            ("Slice", [Some(starts), ..]) => random.tensor(starts.element(), starts.shape()),
            ("GRU" | "LSTM", earlier) if random.chance(90) => recurrent_input(random, name, &shape, earlier.len()),
            ("Resize", [_]) => {
                let scales = shape.iter().map(|_| random.one_of(&[1.0, 1.0, 2.0, 3.0, 0.5, f32::NAN]));
                Tensor::from_vec(&[shape.len()], scales.collect::<Vec<f32>>())
            }
            ("Resize", [_, None]) => {
                let sizes = shape.iter().map(|&n| n as i64 * random.one_of(&[1, 2]));
                Tensor::from_vec(&[shape.len()], sizes.collect::<Vec<i64>>())
            }
            ("Split", _) => Tensor::from_vec(&[2], vec![random.int(), random.int()]),
            ("ConvTranspose", []) if shape.len() > 2 => {
                let kernel = shape[2..].iter().map(|_| 1 + random.below(3));
                let weights: Vec<usize> = [shape[1], 2].into_iter().chain(kernel.collect::<Vec<_>>()).collect();
                random.tensor(ElementType::F32, &weights)
            }
            ("LayerNormalization", _) => {
                let from = random.below(shape.len() + 1);
                random.tensor(element, &shape[from..])
            }
            ("BatchNormalization", _) => random.tensor(element, &[shape.get(1).copied().unwrap_or(1)]),
            ("QuantizeLinear" | "DequantizeLinear", []) => random.tensor(ElementType::F32, companion.shape()),
            ("QuantizeLinear" | "DequantizeLinear", [Some(scale), ..]) => {
                let zero_point = if name == "QuantizeLinear" { ElementType::I8 } else { element };
                random.tensor(zero_point, scale.shape())
            }
            _ => companion,
        };
        inputs.push((!absent).then_some(companion));
    }
    let described: Vec<Option<Input<'_>>> = (inputs.iter())
        .map(|t| t.as_ref().map(|t| Input { element: t.element(), shape: t.shape(), value: Some(t) }))
        .collect();
    let Ok(types) = op.infer(&described) else { return false };
    compute(&op, &inputs, &types)
}

fn compute(op: &Op, inputs: &[Option<Tensor>], types: &[TensorType]) -> bool {
    let shapes: Vec<Option<&[usize]>> = inputs.iter().map(|t| t.as_ref().map(Tensor::shape)).collect();
    let outputs: Vec<&[usize]> = types.iter().map(|ty| &ty.shape[..]).collect();
    op.def().macs(&shapes, &outputs);
    if outputs.iter().any(|shape| tensor::count(shape).is_none_or(|n| n > MOST_COMPUTED_ELEMENTS)) {
        return false;
    }
    let inputs: Vec<Option<&Tensor>> = inputs.iter().map(Option::as_ref).collect();
    let mut outputs: Vec<Tensor> = types.iter().map(|ty| Tensor::zeros(ty.element, &ty.shape)).collect();
    let scratch = op.def().scratch(&shapes);
    outputs.extend((scratch > 0).then(|| Tensor::zeros(ElementType::F32, &[scratch])));
    let done = frame::with_tensors(&inputs, &mut outputs, |frame| {
        let before = alloc::count();
        let done = op.def().eval(frame);
        assert!(done.is_err() || alloc::count() == before, "{op:?} allocates");
        done
    });
    if let Some(value) = op.def().value_from_shapes(&shapes) {
        assert_eq!(value, outputs[0]);
    }
    if op.def().is_alias() {
        assert_eq!(format!("{:?}", outputs[0].data()), format!("{:?}", inputs[0].expect("the first").data()));
    }
    done.is_ok()
}

#[test]
fn what_is_inferred_is_computed_without_panic_or_allocation() {
    assert!(alloc::is_counting());
    for name in table::NAMES {
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let computed = (0..TRIES).filter(|_| attempt(&mut random, name)).count();
        println!("{name}: {computed} of {TRIES} computed");
        assert!(computed >= LEAST_COMPUTED, "{name}: only {computed} of {TRIES} were computed");
    }
}
