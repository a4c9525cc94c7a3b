//! Whole training steps, ours and a peer's in turns, on the same shapes.

mod commands;
mod ours;
mod peer;

pub use commands::{answer, checked};
pub use ours::{Device, Ours};
pub use peer::Peer;

/// What is timed, by the name that the peer knows too.
pub struct Case {
    /// Its name.
    pub name: &'static str,
    /// What a step does.
    pub work: Work,
    /// The network that is trained.
    pub student: Network,
    /// Shape of one sample.
    pub input: &'static [usize],
    /// Samples of a step.
    pub batch: usize,
    /// Classes.
    pub classes: usize,
    /// Where it is compared when no case is named.
    pub on: On,
}

/// Devices of a case.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum On {
    /// A processor.
    Cpu,
    /// A GPU.
    Gpu,
    /// Either.
    Both,
}

impl On {
    /// Whether it is that device.
    pub fn includes(self, is_gpu: bool) -> bool {
        self == Self::Both || (self == Self::Gpu) == is_gpu
    }
}

/// An architecture of the zoo, with an option where the default is not meant.
#[derive(Clone, Copy)]
pub struct Network {
    arch: &'static str,
    counts: Option<(&'static str, &'static [usize])>,
}

/// What a step does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Forward, cross-entropy, backward, SGD with momentum.
    Train,
    /// AdamW alone, on gradients that are there.
    AdamW,
    /// As `Train` with 0.1 · cross-entropy + 0.9 · soft targets at temperature 4: an epoch is such steps.
    Distill {
        /// Who teaches.
        teacher: &'static str,
        /// Whether the teacher's logits of all samples lie in memory, or its forward pass is part of the step.
        cached: bool,
    },
}

const fn plain(arch: &'static str) -> Network {
    Network { arch, counts: None }
}

const MLP: Network = Network { counts: Some(("hidden", &[1200, 1200])), ..plain("mlp") };

const fn train(name: &'static str, student: Network, input: &'static [usize], batch: usize, classes: usize) -> Case {
    Case { name, work: Work::Train, student, input, batch, classes, on: On::Cpu }
}

const fn distill(name: &'static str, cached: bool) -> Case {
    Case { work: Work::Distill { teacher: "resnet56", cached }, ..train(name, plain("resnet8"), &[3, 32, 32], 64, 10) }
}

/// Of images of 32x32 in 100 classes, too large to be waited for on a processor.
const fn large(name: &'static str, student: &'static str) -> Case {
    Case { on: On::Gpu, ..train(name, plain(student), &[3, 32, 32], 64, 100) }
}

const fn large_distill(name: &'static str, cached: bool) -> Case {
    Case { work: Work::Distill { teacher: "resnet32x4", cached }, ..large(name, "resnet8x4") }
}

/// What is compared.
pub static CASES: &[Case] = &[
    train("mlp", MLP, &[784], 128, 10),
    train("resnet8", plain("resnet8"), &[3, 32, 32], 64, 10),
    Case { on: On::Both, ..train("resnet20", plain("resnet20"), &[3, 32, 32], 128, 10) },
    train("ds_cnn", plain("ds_cnn"), &[1, 49, 10], 64, 12),
    train("mobilenet_v1", plain("mobilenet_v1"), &[3, 96, 96], 32, 2),
    Case { on: On::Both, ..train("fcn", plain("fcn"), &[1, 140], 64, 2) },
    Case { work: Work::AdamW, ..train("adamw", MLP, &[784], 128, 10) },
    distill("kd_live", false),
    distill("kd_cached", true),
    large("resnet8x4", "resnet8x4"),
    large("mobilenet_v2", "mobilenet_v2_cifar"),
    large_distill("kd32x4_live", false),
    large_distill("kd32x4_cached", true),
];

/// Quantile `share` of samples that are not empty, between neighbours where it falls between them.
pub fn quantile(samples: &[f64], share: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = share * (sorted.len() - 1) as f64;
    let (low, high) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    low + (high - low) * at.fract()
}
