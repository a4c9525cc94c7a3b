//! Layers of sizes that fill wide registers and large tiles, and leave remainders.

use kd_runtime::ops::{self, window::Window};

use super::{Case, Net, case};

/// Convolutions of sizes that fill the tiles of wide registers, and leave remainders.
pub fn cases() -> Vec<Case> {
    let conv = |about, x: &'static [usize], w: &'static [usize], group, strides: &[usize], dilations: &[usize]| {
        let pads = w[2..].iter().chain(&w[2..]).map(|kernel| kernel / 2).collect();
        let (strides, dilations) = (strides.to_vec(), dilations.to_vec());
        let window = Window { pads, strides, dilations, ..Window::default() };
        case("Conv", about, |net: &mut Net| {
            let inputs = [net.stem(x), net.parameter(w), net.parameter(&w[..1])];
            net.graph.apply(ops::conv::Conv { window, group }, &inputs, "y")
        })
    };
    let linear = |about, from: usize, to: usize| {
        case("Gemm", about, |net| {
            let inputs = [net.stem(&[from]), net.parameter(&[to, from]), net.parameter(&[to])];
            let gemm = ops::gemm::Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b: true };
            net.graph.apply(gemm, &inputs, "y")
        })
    };
    vec![
        conv("3x3, 33 to 47 channels", &[33, 9, 7], &[47, 33, 3, 3], 1, &[], &[]),
        conv("3x3, 64 channels", &[64, 8, 8], &[64, 64, 3, 3], 1, &[], &[]),
        conv("3x3, stride 2, 9x8", &[32, 9, 8], &[40, 32, 3, 3], 1, &[2, 2], &[]),
        conv("3x3, dilation 2", &[24, 9, 9], &[17, 24, 3, 3], 1, &[], &[2, 2]),
        conv("10x4, stride 2, 49x10, the stem of DS-CNN", &[1, 49, 10], &[64, 1, 10, 4], 1, &[2, 2], &[]),
        conv("3x3, the stem of images", &[3, 16, 15], &[16, 3, 3, 3], 1, &[], &[]),
        conv("5x5, groups", &[32, 7, 7], &[24, 8, 5, 5], 4, &[], &[]),
        conv("1x1, 70 to 130 channels", &[70, 5, 5], &[130, 70, 1, 1], 1, &[], &[]),
        conv("1x1, stride 2", &[48, 7, 8], &[33, 48, 1, 1], 1, &[2, 2], &[]),
        conv("depthwise, 67 channels", &[67, 9, 8], &[67, 1, 3, 3], 67, &[], &[]),
        conv("depthwise, stride 2", &[64, 9, 8], &[64, 1, 3, 3], 64, &[2, 2], &[]),
        conv("1-D, 8 taps", &[1, 35], &[64, 1, 8], 1, &[], &[]),
        conv("1-D, 5 taps, 64 to 96 channels", &[64, 35], &[96, 64, 5], 1, &[], &[]),
        conv("1-D, 3 taps, 96 to 64 channels", &[96, 35], &[64, 96, 3], 1, &[], &[]),
        linear("150 to 203", 150, 203),
        linear("64 to 10", 64, 10),
    ]
}
