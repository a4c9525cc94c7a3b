//! Small networks around what changes the size of images.

use kd_runtime::graph::Tensor;
use kd_runtime::ops::{self, conv_transpose::ConvTranspose, window::Window};

use super::{Case, case, unary};

fn window(strides: &[usize], pads: &[usize], dilations: &[usize]) -> Window {
    let (strides, pads, dilations) = (strides.to_vec(), pads.to_vec(), dilations.to_vec());
    Window { strides, pads, dilations, ..Window::default() }
}

fn conv_transpose(about: &'static str, x: &[usize], w: &[usize], bias: bool, op: ConvTranspose) -> Case {
    case("ConvTranspose", about, |net| {
        let mut inputs = vec![net.stem(x), net.parameter(w)];
        if bias {
            inputs.push(net.parameter(&[w[1] * op.group]));
        }
        net.graph.apply(op, &inputs, "y")
    })
}

fn resize(about: &'static str, sizes: &[usize], factors: &[f32]) -> Case {
    case("Resize", about, |net| {
        let x = net.stem(sizes);
        let scales = net.graph.add_initializer("scales", Tensor::from_vec(&[factors.len()], factors.to_vec()));
        net.graph.add_node("y", ops::resize::Resize::default(), &[Some(x), None, Some(scales)], &["y"])[0]
    })
}

/// The cases of the table.
pub fn cases() -> Vec<Case> {
    let none = Vec::new;
    let plain = || ConvTranspose { window: Window::default(), group: 1, output_padding: none(), output_shape: none() };
    let with = |window| ConvTranspose { window, ..plain() };
    vec![
        conv_transpose("3x3, odd sizes", &[3, 4, 5], &[3, 2, 3, 3], true, plain()),
        conv_transpose(
            "stride 2, pads that differ",
            &[2, 4, 3],
            &[2, 3, 3, 2],
            true,
            with(window(&[2, 2], &[1, 0, 0, 1], &[])),
        ),
        conv_transpose(
            "more at the end, no bias",
            &[2, 3, 4],
            &[2, 1, 3, 3],
            false,
            ConvTranspose { output_padding: vec![1, 1], ..with(window(&[2, 3], &[1, 1, 1, 1], &[])) },
        ),
        conv_transpose(
            "groups, dilation",
            &[4, 4, 3],
            &[4, 2, 2, 3],
            true,
            ConvTranspose { group: 2, ..with(window(&[], &[], &[2, 1])) },
        ),
        conv_transpose(
            "depthwise, a kernel that the pads cut",
            &[3, 2, 2],
            &[3, 1, 4, 4],
            true,
            ConvTranspose { group: 3, ..with(window(&[2, 2], &[2, 2, 2, 2], &[])) },
        ),
        conv_transpose("1-D", &[2, 7], &[2, 3, 4], true, with(window(&[3], &[1, 2], &[]))),
        resize("both axes", &[2, 3, 2], &[1.0, 1.0, 2.0, 3.0]),
        resize("1-D", &[2, 3], &[1.0, 1.0, 2.0]),
        unary(ops::pool::GlobalMaxPool, "2-D", &[3, 4, 5]),
        unary(ops::pool::GlobalMaxPool, "1-D", &[2, 7]),
    ]
}
