//! The architectures. One line each.

use super::{
    Arch, cnn, ds_cnn, fcn, inception_time, lite, mlp, mlperf, mobilenet_v1, mobilenet_v2, recurrent, resnet, resnet1d,
    shufflenet_v1, shufflenet_v2, ts_transformer, vgg, wrn,
};

/// Every architecture that a recipe can name.
#[rustfmt::skip]
pub static ARCHS: &[Arch] = &[
    Arch { name: "cnn", about: "plain convolutions, for images and series", options: cnn::OPTIONS, build: cnn::build },
    Arch { name: "fcn", about: "1-D convolutions (Wang et al. 2017)", options: fcn::OPTIONS, build: fcn::build },
    Arch { name: "mlp", about: "linear layers with ReLU", options: mlp::OPTIONS, build: mlp::build },
    Arch { name: "ds_cnn", about: "keyword spotting (Zhang et al. 2017)", options: ds_cnn::OPTIONS, build: ds_cnn::ds_cnn },
    Arch { name: "mobilenet_v1", about: "Howard et al. 2017", options: mobilenet_v1::OPTIONS, build: mobilenet_v1::mobilenet_v1 },
    Arch { name: "mobilenet_v2", about: "Sandler et al. 2018", options: mobilenet_v2::OPTIONS, build: mobilenet_v2::mobilenet_v2 },
    Arch { name: "mobilenet_v2_cifar", about: "the same, for CIFAR", options: mobilenet_v2::CIFAR_OPTIONS, build: mobilenet_v2::mobilenet_v2_cifar },
    Arch { name: "mlperf_resnet8", about: "MLPerf Tiny's image classifier", options: &[], build: mlperf::resnet8 },
    Arch { name: "mlperf_ds_cnn", about: "MLPerf Tiny's keyword spotter", options: &[], build: mlperf::ds_cnn },
    Arch { name: "mlperf_mobilenet_v1", about: "MLPerf Tiny's person detector", options: &[], build: mlperf::mobilenet_v1 },
    Arch { name: "resnet8", about: "He et al. 2016, for CIFAR", options: resnet::OPTIONS, build: resnet::resnet8 },
    Arch { name: "resnet20", about: "He et al. 2016, for CIFAR", options: resnet::OPTIONS, build: resnet::resnet20 },
    Arch { name: "resnet32", about: "He et al. 2016, for CIFAR", options: resnet::OPTIONS, build: resnet::resnet32 },
    Arch { name: "resnet44", about: "He et al. 2016, for CIFAR", options: resnet::OPTIONS, build: resnet::resnet44 },
    Arch { name: "resnet56", about: "He et al. 2016, for CIFAR", options: resnet::OPTIONS, build: resnet::resnet56 },
    Arch { name: "resnet110", about: "He et al. 2016, for CIFAR", options: resnet::OPTIONS, build: resnet::resnet110 },
    Arch { name: "resnet8x4", about: "four times the channels", options: resnet::WIDE_OPTIONS, build: resnet::resnet8x4 },
    Arch { name: "resnet32x4", about: "four times the channels", options: resnet::WIDE_OPTIONS, build: resnet::resnet32x4 },
    Arch { name: "resnet1d", about: "1-D (Wang et al. 2017)", options: resnet1d::OPTIONS, build: resnet1d::build },
    Arch { name: "inception_time", about: "1-D (Ismail Fawaz et al. 2020)", options: inception_time::OPTIONS, build: inception_time::build },
    Arch { name: "lite", about: "1-D (Ismail-Fawaz et al. 2023)", options: lite::OPTIONS, build: lite::build },
    Arch { name: "lstm", about: "long short-term memory", options: recurrent::OPTIONS, build: recurrent::lstm },
    Arch { name: "gru", about: "gated recurrent units", options: recurrent::OPTIONS, build: recurrent::gru },
    Arch { name: "ts_transformer", about: "patches and attention (Vaswani et al. 2017)", options: ts_transformer::OPTIONS, build: ts_transformer::build },
    Arch { name: "shufflenet_v1", about: "Zhang et al. 2018, for CIFAR", options: shufflenet_v1::OPTIONS, build: shufflenet_v1::build },
    Arch { name: "shufflenet_v2", about: "Ma et al. 2018, for CIFAR", options: shufflenet_v2::OPTIONS, build: shufflenet_v2::build },
    Arch { name: "vgg8", about: "for CIFAR", options: vgg::OPTIONS, build: vgg::vgg8 },
    Arch { name: "vgg11", about: "Simonyan, Zisserman 2015, for CIFAR", options: vgg::OPTIONS, build: vgg::vgg11 },
    Arch { name: "vgg13", about: "Simonyan, Zisserman 2015, for CIFAR", options: vgg::OPTIONS, build: vgg::vgg13 },
    Arch { name: "vgg16", about: "Simonyan, Zisserman 2015, for CIFAR", options: vgg::OPTIONS, build: vgg::vgg16 },
    Arch { name: "vgg19", about: "Simonyan, Zisserman 2015, for CIFAR", options: vgg::OPTIONS, build: vgg::vgg19 },
    Arch { name: "wrn", about: "Zagoruyko, Komodakis 2016", options: wrn::OPTIONS, build: wrn::wrn },
    Arch { name: "wrn_16_1", about: "Zagoruyko, Komodakis 2016", options: wrn::KNOWN_OPTIONS, build: wrn::wrn_16_1 },
    Arch { name: "wrn_16_2", about: "Zagoruyko, Komodakis 2016", options: wrn::KNOWN_OPTIONS, build: wrn::wrn_16_2 },
    Arch { name: "wrn_40_1", about: "Zagoruyko, Komodakis 2016", options: wrn::KNOWN_OPTIONS, build: wrn::wrn_40_1 },
    Arch { name: "wrn_40_2", about: "Zagoruyko, Komodakis 2016", options: wrn::KNOWN_OPTIONS, build: wrn::wrn_40_2 },
];
