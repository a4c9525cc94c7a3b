//! The architectures. One line each.

use super::{Arch, cnn, fcn, mlp, resnet};

/// Every architecture that a recipe can name.
pub static ARCHS: &[Arch] = &[
    Arch { name: "cnn", about: "plain convolutions, for images and series", options: cnn::OPTIONS, build: cnn::build },
    Arch { name: "fcn", about: "1-D convolutions (Wang et al. 2017)", options: fcn::OPTIONS, build: fcn::build },
    Arch { name: "mlp", about: "linear layers with ReLU", options: mlp::OPTIONS, build: mlp::build },
    Arch { name: "resnet8", about: "MLPerf Tiny's classifier", options: resnet::OPTIONS, build: resnet::resnet8 },
    Arch { name: "resnet20", about: "He et al. 2016, for CIFAR", options: resnet::OPTIONS, build: resnet::resnet20 },
    Arch { name: "resnet32", about: "He et al. 2016, for CIFAR", options: resnet::OPTIONS, build: resnet::resnet32 },
    Arch { name: "resnet44", about: "He et al. 2016, for CIFAR", options: resnet::OPTIONS, build: resnet::resnet44 },
    Arch { name: "resnet56", about: "He et al. 2016, for CIFAR", options: resnet::OPTIONS, build: resnet::resnet56 },
    Arch { name: "resnet110", about: "He et al. 2016, for CIFAR", options: resnet::OPTIONS, build: resnet::resnet110 },
];
