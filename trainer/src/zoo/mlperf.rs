//! MLPerf Tiny's classifiers to the parameter. Banbury et al. 2021 (arXiv 2106.07597). Pads are as [`super::layers::Net::conv`]
//! has them: where a 3x3 window has a step of 2, TensorFlow's are shifted by one. The fourth task, anomaly detection by
//! an autoencoder, is no classification and has no row.

use kd_runtime::Result;
use kd_runtime::graph::Graph;

use super::{Site, ds_cnn, mobilenet_v1, resnet};
use crate::options::{Options, Setting};

/// ResNet-8, the image classifier: convolutions with bias, shortcuts without batch norm.
pub fn resnet8(_options: &Options, site: &Site) -> Result<Graph> {
    let options = Options::defaults(resnet::OPTIONS).with("bias", Setting::Flag(true));
    resnet::build("mlperf_resnet8", 1, &options.with("shortcut_norm", Setting::Flag(false)), site)
}

/// DS-CNN, the keyword spotter, with its dropout.
pub fn ds_cnn(_options: &Options, site: &Site) -> Result<Graph> {
    let options = Options::defaults(ds_cnn::OPTIONS).with("bias", Setting::Flag(true));
    ds_cnn::build("mlperf_ds_cnn", &options.with("dropout", Setting::Number(0.4)), site)
}

/// MobileNet at a quarter of its width, the person detector.
pub fn mobilenet_v1(_options: &Options, site: &Site) -> Result<Graph> {
    let options = Options::defaults(mobilenet_v1::OPTIONS).with("bias", Setting::Flag(true));
    mobilenet_v1::build("mlperf_mobilenet_v1", &options, site)
}
