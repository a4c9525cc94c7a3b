//! Small networks around the operators of convolutional networks.

use kd_runtime::graph::Tensor;
use kd_runtime::ops::{self, Op, window::Window};

use super::{Case, case, unary};

fn window(kernel: &[usize], strides: &[usize], pads: &[usize], dilations: &[usize]) -> Window {
    let (kernel, strides, pads, dilations) = (kernel.to_vec(), strides.to_vec(), pads.to_vec(), dilations.to_vec());
    Window { kernel, strides, pads, dilations, ..Window::default() }
}

fn conv(about: &'static str, x: &[usize], w: &[usize], group: usize, bias: bool, window: Window) -> Case {
    case("Conv", about, |net| {
        let x = net.stem(x);
        let mut inputs = vec![x, net.parameter(w)];
        if bias {
            inputs.push(net.parameter(&w[..1]));
        }
        net.graph.apply(ops::conv::Conv { window, group }, &inputs, "y")
    })
}

fn convs() -> Vec<Case> {
    let free = || Window::default();
    vec![
        conv("3x3, odd sizes", &[3, 5, 7], &[4, 3, 3, 3], 1, true, window(&[], &[], &[1, 1, 1, 1], &[])),
        conv(
            "stride 2 with a remainder on one axis",
            &[2, 8, 7],
            &[3, 2, 3, 3],
            1,
            true,
            window(&[], &[2, 2], &[1, 1, 1, 1], &[]),
        ),
        conv(
            "stride 3, asymmetric pads, no bias",
            &[2, 8, 7],
            &[3, 2, 3, 2],
            1,
            false,
            window(&[], &[3, 2], &[2, 0, 1, 3], &[]),
        ),
        conv("dilation 2 on one axis", &[2, 7, 6], &[2, 2, 3, 3], 1, true, window(&[], &[], &[2, 1, 2, 1], &[2, 1])),
        conv("stride 2, 49x10", &[1, 49, 10], &[2, 1, 10, 4], 1, false, window(&[], &[2, 2], &[4, 1, 5, 1], &[])),
        conv("stride 2, 9x8", &[2, 9, 8], &[3, 2, 3, 3], 1, true, window(&[], &[2, 2], &[1, 1, 1, 1], &[])),
        conv("groups", &[4, 5, 5], &[6, 2, 3, 3], 2, true, window(&[], &[], &[1, 1, 1, 1], &[])),
        conv("depthwise", &[4, 5, 6], &[4, 1, 3, 3], 4, true, window(&[], &[], &[1, 1, 1, 1], &[])),
        conv("depthwise twice, stride 2", &[3, 6, 5], &[6, 1, 3, 3], 3, true, window(&[], &[2, 2], &[0, 1, 1, 0], &[])),
        conv("depthwise four times, dilation 2", &[2, 7, 5], &[8, 1, 3, 2], 2, false, window(&[], &[], &[], &[2, 2])),
        conv("by points, 3x3, odd sizes", &[8, 5, 7], &[9, 8, 3, 3], 1, true, window(&[], &[], &[1, 1, 1, 1], &[])),
        conv("by points, 2x3, uneven pads", &[9, 4, 6], &[8, 9, 2, 3], 1, false, window(&[], &[], &[0, 3, 1, 0], &[])),
        conv("by points, 1-D, 5 taps", &[8, 9], &[10, 8, 5], 1, true, window(&[], &[], &[2, 2], &[])),
        conv("by points, 1-D, 3 taps, no pads", &[17, 6], &[8, 17, 3], 1, false, free()),
        conv("1x1", &[5, 3, 4], &[3, 5, 1, 1], 1, true, free()),
        conv("1x1, groups", &[4, 3, 4], &[6, 2, 1, 1], 2, true, free()),
        conv("1x1, 1-D", &[3, 7], &[4, 3, 1], 1, true, free()),
        conv("1x1, stride 2", &[5, 5, 4], &[3, 5, 1, 1], 1, false, window(&[], &[2, 2], &[], &[])),
        conv("kernel larger than the image", &[2, 2, 2], &[2, 2, 5, 5], 1, true, window(&[], &[], &[2, 2, 2, 2], &[])),
        conv(
            "dilation 2, groups, uneven pads",
            &[4, 7, 6],
            &[4, 2, 3, 3],
            2,
            true,
            window(&[], &[], &[1, 2, 3, 0], &[2, 1]),
        ),
        conv("1-D, even kernel", &[3, 9], &[4, 3, 4], 1, true, window(&[], &[], &[1, 2], &[])),
        conv("1-D", &[3, 9], &[4, 3, 3], 1, true, window(&[], &[], &[1, 1], &[])),
        conv("1-D, even kernel, stride 2, dilation 2", &[2, 15], &[3, 2, 4], 1, true, window(&[], &[2], &[1, 2], &[2])),
        conv("1-D, depthwise", &[3, 8], &[3, 1, 3], 3, true, window(&[], &[], &[2, 0], &[])),
        case("Conv", "weights made of weights", |net| {
            let x = net.stem(&[2, 5]);
            let (a, b) = (net.parameter(&[3, 3, 2]), net.parameter(&[3, 2, 3]));
            let a = net.graph.apply(ops::transpose::Transpose { perm: vec![0, 2, 1] }, &[a], "a");
            let w = net.graph.apply(ops::arith::Add, &[b, a], "w");
            net.graph.apply(ops::conv::Conv { window: Window::default(), group: 1 }, &[x, w], "y")
        }),
    ]
}

fn gemm(about: &'static str, trans_a: bool, trans_b: bool, c: Option<&'static [usize]>) -> Case {
    case("Gemm", about, |net| {
        let x = if trans_a { net.between(&[4, 5], -1.0, 1.0) } else { net.stem(&[4]) };
        let b = net.parameter(if trans_b { &[6, 4] } else { &[4, 6] });
        let mut inputs = vec![x, b];
        if let Some(shape) = c {
            inputs.push(net.parameter(shape));
        }
        let gemm = ops::gemm::Gemm { alpha: 0.75, beta: 1.5, trans_a, trans_b };
        let y = net.graph.apply(gemm, &inputs, "product");
        if !trans_a {
            return y;
        }
        // [5, 6] without a batch: used as a weight, so that the output has one.
        let x = net.stem(&[5]);
        net.graph.apply(ops::gemm::MatMul, &[x, y], "y")
    })
}

fn products() -> Vec<Case> {
    let matmul = |about, a: &'static [usize], b: &'static [usize], weight: bool| {
        case("MatMul", about, |net| {
            let x = net.stem(a);
            let b = if weight { net.parameter(b) } else { net.stem(b) };
            net.graph.apply(ops::gemm::MatMul, &[x, b], "y")
        })
    };
    vec![
        gemm("no C", false, false, None),
        gemm("B transposed, bias", false, true, Some(&[6])),
        gemm("scalar C", false, false, Some(&[1, 1])),
        gemm("A transposed, C by rows", true, false, Some(&[5, 1])),
        gemm("both transposed, full C", true, true, Some(&[5, 6])),
        matmul("2-D", &[5], &[5, 3], true),
        matmul("3-D by 2-D", &[4, 5], &[5, 3], true),
        matmul("batched", &[2, 4, 5], &[2, 5, 3], false),
        matmul("many small matrices", &[9, 2, 3], &[9, 3, 2], false),
        matmul("weights of several matrices", &[2, 4, 5], &[2, 5, 3], true),
        matmul("broadcast matrices", &[1, 4, 5], &[3, 5, 2], true),
        matmul("large enough to be split", &[150], &[150, 40], true),
        matmul("one column", &[4, 5], &[5, 1], true),
        matmul("one product each", &[4, 1], &[1, 3], true),
        matmul("rows and columns of one", &[2, 1, 5], &[2, 5, 1], false),
        case("Gemm", "one input and one output", |net| {
            let (x, b) = (net.stem(&[1]), net.parameter(&[1, 1]));
            net.graph.apply(ops::gemm::Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b: true }, &[x, b], "y")
        }),
    ]
}

fn arithmetic() -> Vec<Case> {
    type Make = fn() -> Op;
    let kinds: [(&'static str, Make); 4] = [
        ("Add", || ops::arith::Add.into()),
        ("Sub", || ops::arith::Sub.into()),
        ("Mul", || ops::arith::Mul.into()),
        ("Div", || ops::arith::Div.into()),
    ];
    let mut cases = Vec::new();
    for (name, op) in kinds {
        let other: [(&'static str, &'static [usize]); 6] = [
            ("row", &[5]),
            ("channel", &[3, 1, 1]),
            ("whole", &[1, 3, 4, 5]),
            ("two axes apart", &[3, 1, 5]),
            ("last of rank 1", &[4, 1]),
            ("columns", &[4, 5]),
        ];
        for (about, shape) in other {
            cases.push(case(name, about, |net| {
                let x = net.stem(&[3, 4, 5]);
                // Away from 0, so that quotients are smooth.
                let b = net.between(shape, 0.5, 2.0);
                net.graph.apply(op(), &[x, b], "y")
            }));
            cases.push(case(name, "the other way round", |net| {
                let x = net.stem(&[3, 4, 5]);
                let x = net.graph.apply(ops::gate::Sigmoid, &[x], "positive");
                let b = net.between(shape, 0.5, 2.0);
                net.graph.apply(op(), &[b, x], "y")
            }));
        }
        cases.push(case(name, "two computed values, one read twice", |net| {
            let (x, z) = (net.stem(&[3, 4]), net.stem(&[3, 4]));
            let z = net.graph.apply(ops::gate::Sigmoid, &[z], "positive");
            let y = net.graph.apply(op(), &[x, z], "quotient");
            net.graph.apply(ops::arith::Mul, &[y, z], "y")
        }));
        cases.push(case(name, "a value with itself", |net| {
            let x = net.stem(&[3, 4]);
            let x = net.graph.apply(ops::gate::Sigmoid, &[x], "positive");
            let y = net.graph.apply(op(), &[x, x], "twice");
            net.graph.apply(ops::arith::Mul, &[y, x], "y")
        }));
    }
    cases
}

fn batch_norm(about: &'static str, sizes: &'static [usize], relu: bool) -> Case {
    case("BatchNormalization", about, |net| {
        let x = net.stem(sizes);
        let c = &sizes[..1];
        let (scale, bias) = (net.between(c, 0.5, 1.5), net.parameter(c));
        let (mean, var) = (net.parameter(c), net.between(c, 0.5, 2.0));
        let op = ops::batch_norm::BatchNormalization { epsilon: 1e-3, momentum: 0.9 };
        let y = net.graph.apply(op, &[x, scale, bias, mean, var], "normal");
        if relu { net.graph.apply(ops::relu::Relu, &[y], "y") } else { y }
    })
}

fn pools() -> Vec<Case> {
    let max = |window| ops::pool::MaxPool { window, storage_order: 0 };
    let average = |window, count_include_pad| ops::pool::AveragePool { window, count_include_pad };
    let ceil = |window: Window| Window { ceil_mode: true, ..window };
    vec![
        unary(max(window(&[2, 2], &[2, 2], &[], &[])), "2x2, odd sizes", &[2, 5, 7]),
        unary(max(window(&[3, 3], &[2, 2], &[1, 1, 1, 1], &[])), "overlapping, padded", &[2, 6, 5]),
        unary(max(ceil(window(&[3, 2], &[2, 2], &[], &[1, 2]))), "dilated, last window reaches out", &[2, 6, 6]),
        unary(max(window(&[3], &[2], &[1, 0], &[])), "1-D", &[2, 9]),
        unary(average(window(&[2, 2], &[2, 2], &[], &[]), false), "2x2, odd sizes", &[2, 5, 7]),
        unary(average(window(&[3, 3], &[2, 1], &[1, 0, 1, 2], &[]), false), "pads do not count", &[2, 6, 5]),
        unary(average(ceil(window(&[3, 3], &[2, 2], &[1, 1, 1, 1], &[])), true), "pads count", &[2, 6, 5]),
        unary(average(window(&[4], &[3], &[1, 1], &[]), false), "1-D", &[2, 9]),
        unary(ops::pool::GlobalAveragePool, "2-D", &[3, 4, 5]),
        unary(ops::pool::GlobalAveragePool, "1-D", &[3, 9]),
    ]
}

fn shapes() -> Vec<Case> {
    let with_ints = |op: Op, about, sizes: &'static [usize], ints: &'static [&'static [i64]]| {
        case(op.name(), about, |net| {
            let mut inputs = vec![net.stem(sizes)];
            for list in ints {
                inputs.push(net.ints(list));
            }
            net.graph.apply(op, &inputs, "y")
        })
    };
    let concat = |about, axis, parts: &'static [&'static [usize]]| {
        case("Concat", about, |net| {
            let inputs: Vec<_> = parts.iter().map(|sizes| net.stem(sizes)).collect();
            net.graph.apply(ops::concat::Concat { axis }, &inputs, "y")
        })
    };
    let slice = || ops::slice::Slice.into();
    let mean = |keepdims| ops::reduce::ReduceMean { keepdims, noop_with_empty_axes: false };
    vec![
        unary(ops::reshape::Flatten { axis: 1 }, "of three axes", &[3, 2, 2]),
        unary(ops::dropout::Identity, "of a stem", &[3, 2]),
        case("Identity", "of the graph's input", |net| {
            let x = net.graph.apply(ops::dropout::Identity, &[net.input], "copy");
            let weight = net.parameter(&[3, 2]);
            net.graph.apply(ops::gemm::MatMul, &[x, weight], "y")
        }),
        with_ints(ops::reshape::Reshape { allowzero: false }.into(), "with a guess", &[3, 4], &[&[0, 2, -1]]),
        with_ints(ops::reshape::Squeeze.into(), "one axis", &[3, 1, 2], &[&[2]]),
        with_ints(ops::reshape::Unsqueeze.into(), "two axes", &[3, 2], &[&[1, -1]]),
        unary(ops::transpose::Transpose { perm: vec![0, 3, 1, 2] }, "channels first", &[3, 4, 2]),
        unary(ops::transpose::Transpose { perm: vec![0, 2, 1] }, "of a matrix", &[4, 3]),
        concat("channels", 1, &[&[2, 3], &[1, 3], &[4, 3]]),
        concat("last axis", -1, &[&[2, 3], &[2, 1]]),
        case("Concat", "a value twice", |net| {
            let x = net.stem(&[2, 3]);
            net.graph.apply(ops::concat::Concat { axis: 2 }, &[x, x], "y")
        }),
        with_ints(slice(), "steps and negative starts", &[5, 7], &[&[-4, 1], &[5, 100], &[1, 2], &[1, 3]]),
        with_ints(slice(), "backward", &[5, 7], &[&[-1], &[-100], &[2], &[-2]]),
        case("Slice", "two parts of one value", |net| {
            let x = net.stem(&[6]);
            let mut part = |from: i64, name: &str| {
                let inputs = [x, net.ints(&[from]), net.ints(&[from + 4]), net.ints(&[1])];
                net.graph.apply(ops::slice::Slice, &inputs, name)
            };
            let (a, b) = (part(0, "a"), part(2, "b"));
            net.graph.apply(ops::arith::Mul, &[a, b], "y")
        }),
        case("Pad", "both ends of two axes", |net| {
            let x = net.stem(&[2, 4, 3]);
            let inputs = [x, net.ints(&[0, 0, 1, 0, 0, 0, 0, 2]), net.scalar(0.5)];
            net.graph.apply(ops::pad::Pad { mode: ops::pad::PadMode::Constant }, &inputs, "y")
        }),
        with_ints(
            ops::pad::Pad { mode: ops::pad::PadMode::Constant }.into(),
            "cutting",
            &[4, 3],
            &[&[0, -1, 1, 0, -2, 0]],
        ),
        with_ints(mean(true).into(), "two axes, kept", &[3, 4, 5], &[&[2, 3]]),
        with_ints(mean(false).into(), "an inner axis, dropped", &[3, 4, 5], &[&[-2]]),
    ]
}

fn power(about: &'static str, positive: bool, exponent: Tensor) -> Case {
    case("Pow", about, |net| {
        let mut x = net.stem(&[4, 5]);
        if positive {
            x = net.graph.apply(ops::gate::Sigmoid, &[x], "positive");
        }
        let exponent = net.graph.add_initializer("exponent", exponent);
        net.graph.apply(ops::power::Pow, &[x, exponent], "y")
    })
}

fn activations() -> Vec<Case> {
    vec![
        unary(ops::relu::Relu, "of a stem", &[4, 5]),
        unary(ops::relu::LeakyRelu { alpha: 0.1 }, "of a stem", &[4, 5]),
        case("Relu", "over a sum, in place", |net| {
            let (a, b) = (net.stem(&[4, 5]), net.stem(&[4, 5]));
            let a = net.graph.apply(ops::gate::Tanh, &[a], "a");
            let p = net.graph.apply(ops::pool::GlobalAveragePool, &[b], "p");
            let sum = net.graph.apply(ops::arith::Add, &[p, a], "sum");
            let sum = net.graph.apply(ops::relu::Relu, &[sum], "relu");
            net.graph.apply(ops::arith::Add, &[sum, b], "y")
        }),
        case("Clip", "both bounds", |net| {
            let inputs = [net.stem(&[4, 5]), net.scalar(-0.3), net.scalar(0.6)];
            net.graph.apply(ops::relu::Clip, &inputs, "y")
        }),
        unary(ops::gate::Sigmoid, "of a stem", &[4, 5]),
        unary(ops::gate::Tanh, "of a stem", &[4, 5]),
        unary(ops::activation::Elu { alpha: 0.7 }, "of a stem", &[4, 5]),
        unary(ops::activation::Gelu { tanh: false }, "of a stem", &[4, 5]),
        unary(ops::activation::Gelu { tanh: true }, "of a stem", &[4, 5]),
        unary(ops::activation::HardSigmoid { alpha: 0.9, beta: 0.4 }, "both ends", &[4, 5]),
        case("HardSwish", "both ends", |net| {
            let inputs = [net.stem(&[4, 5]), net.scalar(4.0)];
            let x = net.graph.apply(ops::arith::Mul, &inputs, "wide");
            net.graph.apply(ops::activation::HardSwish, &[x], "y")
        }),
        unary(ops::activation::Softplus, "of a stem", &[4, 5]),
        unary(ops::power::Erf, "of a stem", &[4, 5]),
        case("Sqrt", "of a positive value", |net| {
            let x = net.stem(&[4, 5]);
            let x = net.graph.apply(ops::gate::Sigmoid, &[x], "positive");
            net.graph.apply(ops::power::Sqrt, &[x], "y")
        }),
        power("the square", false, Tensor::scalar(2_i64)),
        power("a whole number", false, Tensor::scalar(3.0_f32)),
        power("a fraction of a positive value", true, Tensor::scalar(1.5_f32)),
        power("an inverse", true, Tensor::from_vec(&[1], vec![-1_i32])),
        unary(ops::softmax::Softmax { axis: -1 }, "last axis", &[4, 5]),
        unary(ops::softmax::Softmax { axis: 1 }, "an axis before another", &[3, 4, 2]),
        unary(ops::softmax::Softmax { axis: 1 }, "an inner axis", &[4, 5]),
        unary(ops::softmax::LogSoftmax { axis: -1 }, "last axis", &[4, 5]),
        unary(ops::softmax::LogSoftmax { axis: 1 }, "an inner axis", &[4, 5]),
        case("Dropout", "in place after a convolution", |net| {
            let x = net.stem(&[2, 6]);
            let w = net.parameter(&[3, 2, 1]);
            let x = net.graph.apply(ops::conv::Conv { window: Window::default(), group: 1 }, &[x, w], "conv");
            let ratio = net.scalar(0.4);
            net.graph.apply(ops::dropout::Dropout { seed: None }, &[x, ratio], "y")
        }),
        case("Dropout", "a value that others read too", |net| {
            let x = net.stem(&[6]);
            let ratio = net.scalar(0.4);
            let y = net.graph.apply(ops::dropout::Dropout { seed: None }, &[x, ratio], "dropped");
            net.graph.apply(ops::arith::Mul, &[y, x], "y")
        }),
    ]
}

/// The cases of this file.
pub fn cases() -> Vec<Case> {
    let mut cases = convs();
    cases.extend(products());
    cases.extend(arithmetic());
    cases.extend(pools());
    cases.extend(shapes());
    cases.extend(activations());
    cases.push(batch_norm("2-D", &[3, 4, 3], false));
    cases.push(batch_norm("1-D, odd", &[2, 9], false));
    cases.push(batch_norm("followed by relu, in place", &[3, 5, 2], true));
    cases.push(batch_norm("11 channels", &[11, 4, 3], true));
    cases.push(batch_norm("of vectors", &[4], false));
    cases
}
