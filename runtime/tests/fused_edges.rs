//! Where the integer kernels must not be taken, or must do nothing: the result is that of the operators.

use kd_runtime::engine::Engine;
use kd_runtime::graph::{Dim, ElementType, Graph, Shape, Tensor, ValueId};
use kd_runtime::ops::conv::Conv;
use kd_runtime::ops::dropout::Identity;
use kd_runtime::ops::gemm::Gemm;
use kd_runtime::ops::quantize_linear::{DequantizeLinear, QuantizeLinear};
use kd_runtime::ops::reduce::ReduceMean;
use kd_runtime::ops::relu::Relu;
use kd_runtime::ops::resize::Resize;
use kd_runtime::ops::{arith::Add, window::Window};

const DEQUANTIZE: DequantizeLinear = DequantizeLinear { axis: 1, block_size: 0 };
const QUANTIZE: QuantizeLinear = QuantizeLinear { axis: 1, block_size: 0, output: None };
const GEMM: Gemm = Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b: false };

struct Net(Graph);

impl Net {
    fn input(shape: &[usize]) -> (Self, ValueId) {
        let mut graph = Graph::new("edges");
        let x = graph.add_input("x", ElementType::U8, Shape(shape.iter().map(|&n| Dim::Known(n)).collect()));
        (Self(graph), x)
    }

    fn scalar(&mut self, name: &str, value: f32) -> ValueId {
        self.0.add_initializer(name, Tensor::scalar(value))
    }

    /// `q` dequantized with a scale and zero point.
    fn float(&mut self, q: ValueId, name: &str, scale: f32, zero_point: Tensor) -> ValueId {
        let scale = self.scalar(&format!("{name}.scale"), scale);
        let zero_point = self.0.add_initializer(&format!("{name}.zero_point"), zero_point);
        self.0.apply(DEQUANTIZE, &[q, scale, zero_point], name)
    }

    fn run(mut self, y: ValueId, x: &[u8]) -> Vec<f32> {
        self.0.outputs = vec![y];
        self.0.validate().unwrap();
        let mut engine = Engine::new(&self.0, 1).unwrap();
        // Twice: what an inference leaves is not seen by the next.
        for _ in 0..2 {
            engine.input_mut(0).get::<u8>().copy_from_slice(x);
            engine.run().unwrap();
        }
        engine.output(0).get::<f32>().to_vec()
    }
}

/// `x (4 x 2) · w (2 x 4) + c`, with what c is as stored.
fn product(c: Tensor, zero_point: Option<i32>) -> Vec<f32> {
    let (mut net, x) = Net::input(&[4, 2]);
    let a = net.float(x, "a", 0.5, Tensor::scalar(3_u8));
    let w = net.0.add_initializer("wq", Tensor::from_vec(&[2, 4], vec![128_u8, 129, 130, 131, 127, 126, 125, 124]));
    let w = net.float(w, "w", 0.25, Tensor::scalar(128_u8));
    let c = net.0.add_initializer("cq", c);
    let scale = net.scalar("c.scale", 0.125);
    let c = match zero_point {
        None => net.0.apply(DEQUANTIZE, &[c, scale], "c"),
        Some(zero_point) => {
            let zero_point = net.0.add_initializer("c.zero_point", Tensor::scalar(zero_point));
            net.0.apply(DEQUANTIZE, &[c, scale, zero_point], "c")
        }
    };
    let y = net.0.apply(GEMM, &[a, w, c], "y");
    net.run(y, &[3, 4, 5, 6, 7, 8, 9, 10])
}

/// The products alone, row by row.
fn products() -> Vec<f32> {
    let w = [[0.0, 0.25, 0.5, 0.75], [-0.25, -0.5, -0.75, -1.0]];
    let rows = (0..4).map(|i| [0.5 * (2 * i) as f32, 0.5 * (2 * i + 1) as f32]);
    rows.flat_map(|a| (0..4).map(move |n| a[0] * w[0][n] + a[1] * w[1][n])).collect()
}

#[test]
fn what_is_added_to_rows_is_no_bias_of_columns() {
    let c = [8, 16, 24, 32];
    let expected = |of: fn(usize) -> usize| -> Vec<f32> {
        products().iter().enumerate().map(|(i, y)| y + 0.125 * c[of(i)] as f32).collect()
    };
    assert_eq!(product(Tensor::from_vec(&[4, 1], c.to_vec()), None), expected(|i| i / 4));
    for shape in [&[4][..], &[1, 4]] {
        assert_eq!(product(Tensor::from_vec(shape, c.to_vec()), None), expected(|i| i % 4));
    }
}

#[test]
fn the_zero_point_of_a_bias_counts() {
    let c = || Tensor::from_vec(&[4], vec![100, 100, 108, 92]);
    let expected = |zero: i32| -> Vec<f32> {
        let bias = [100, 100, 108, 92].map(|c| 0.125 * (c - zero) as f32);
        products().iter().enumerate().map(|(i, y)| y + bias[i % 4]).collect()
    };
    assert_eq!(product(c(), Some(100)), expected(100));
    assert_eq!(product(c(), Some(0)), expected(0));
}

#[test]
fn products_of_nothing_are_what_is_added() {
    let (mut net, x) = Net::input(&[2, 0]);
    let a = net.float(x, "a", 0.5, Tensor::scalar(3_u8));
    let w = net.0.add_initializer("wq", Tensor::from_vec(&[0, 2], Vec::<u8>::new()));
    let w = net.float(w, "w", 0.25, Tensor::scalar(128_u8));
    let c = net.0.add_initializer("cq", Tensor::from_vec(&[2], vec![8, 16]));
    let c = net.float(c, "c", 0.125, Tensor::scalar(0));
    let y = net.0.apply(GEMM, &[a, w, c], "y");
    assert_eq!(net.run(y, &[]), [1.0, 2.0, 1.0, 2.0]);
}

#[test]
fn convolutions_of_nothing_do_not_end_the_program() {
    for (x_shape, w_shape, pads) in [([1, 1, 3, 3], [0, 1, 1, 1], [0; 4]), ([1, 2, 0, 3], [2, 2, 1, 1], [1, 0, 0, 0])] {
        let (mut net, x) = Net::input(&x_shape);
        let a = net.float(x, "a", 0.5, Tensor::scalar(3_u8));
        let n = w_shape.iter().product();
        let w = net.0.add_initializer("wq", Tensor::from_vec(&w_shape, vec![130_u8; n]));
        let w = net.float(w, "w", 0.25, Tensor::scalar(128_u8));
        let conv = Conv { window: Window { pads: pads.to_vec(), ..Window::default() }, group: 1 };
        let y = net.0.apply(conv, &[a, w], "y");
        let (scale, zero) = (net.scalar("y.scale", 0.1), net.0.add_initializer("y.zero", Tensor::scalar(7_u8)));
        let q = net.0.apply(QUANTIZE, &[y, scale, zero], "q");
        let y = net.0.apply(DEQUANTIZE, &[q, scale, zero], "again");
        assert!(net.run(y, &vec![3; x_shape.iter().product()]).iter().all(|y| *y == 0.0));
    }
}

#[test]
fn a_computed_scale_below_zero_is_not_fused() {
    let (mut net, x) = Net::input(&[1, 1, 1, 3]);
    let a = net.float(x, "a", 0.5, Tensor::scalar(4_u8));
    let w = net.0.add_initializer("wq", Tensor::from_vec(&[1, 1, 1, 1], vec![132_u8]));
    let w = net.float(w, "w", 0.25, Tensor::scalar(128_u8));
    let y = net.0.apply(Conv { window: Window::default(), group: 1 }, &[a, w], "y");
    let y = net.0.apply(Relu, &[y], "relu");
    let scale = net.scalar("s", -0.1);
    let scale = net.0.apply(Identity, &[scale], "scale");
    let zero = net.0.add_initializer("zero", Tensor::scalar(128_u8));
    let q = net.0.apply(QUANTIZE, &[y, scale, zero], "q");
    let y = net.0.apply(DEQUANTIZE, &[q, scale, zero], "again");
    let found = net.run(y, &[2, 4, 9]);
    assert!((found[0] - 0.0).abs() < 1e-6 && (found[2] - 2.5).abs() < 1e-6, "{found:?}");
}

#[test]
fn an_input_that_nobody_reads_has_a_size_that_can_be_had() {
    let (mut net, x) = Net::input(&[2]);
    net.0.add_input("unread", ElementType::F32, Shape(vec![Dim::Known(1 << 31), Dim::Known(1 << 31)]));
    let y = net.float(x, "y", 0.5, Tensor::scalar(3_u8));
    net.0.outputs = vec![y];
    for refusal in [net.0.validate().err(), Engine::new(&net.0, 1).err()] {
        let line = refusal.unwrap().to_string();
        assert!(line.starts_with("input `unread`: expected at most 2147483648 elements"), "{line}");
    }
}

#[test]
fn constants_that_grow_beyond_the_model_are_computed_when_it_runs() {
    for (side, is_folded) in [(64.0, true), (4096.0, false)] {
        let (mut net, x) = Net::input(&[1, 1, 1, 1]);
        let one = net.0.add_initializer("one", Tensor::from_vec(&[1, 1, 1, 1], vec![2.0_f32]));
        let scales = net.0.add_initializer("scales", Tensor::from_vec(&[4], vec![1.0, 1.0, side, side]));
        let none = net.0.add_initializer("roi", Tensor::from_vec(&[0], Vec::<f32>::new()));
        let large = net.0.apply(Resize { axes: vec![] }, &[one, none, scales], "large");
        let mean = ReduceMean { keepdims: true, noop_with_empty_axes: false };
        let small = net.0.apply(mean, &[large], "small");
        let x = net.float(x, "float", 0.5, Tensor::scalar(3_u8));
        let y = net.0.apply(Add, &[x, small], "y");
        net.0.outputs = vec![y];
        net.0.validate().unwrap();
        let mut engine = Engine::new(&net.0, 1).unwrap();
        assert_eq!(!engine.steps().any(|step| step.kernel == "op/Resize"), is_folded, "{side}");
        engine.input_mut(0).get::<u8>()[0] = 5;
        engine.run().unwrap();
        assert_eq!(engine.output(0).get::<f32>(), [3.0]);
    }
}
