//! The optimizers. One line each.

use super::{OptimizerKind, adamw, dot, rmsprop, sgd};

/// Every optimizer that a recipe can name.
#[rustfmt::skip]
pub static OPTIMIZERS: &[OptimizerKind] = &[
    OptimizerKind { name: "adam", about: "Adam, decay added to the gradient", options: adamw::COUPLED_OPTIONS, splits: false, build: adamw::build_coupled },
    OptimizerKind { name: "adamw", about: "Adam, decay apart from it", options: adamw::OPTIONS, splits: false, build: adamw::build },
    OptimizerKind { name: "dot", about: "gradient descent with a momentum for the task and one for the teachers", options: dot::OPTIONS, splits: true, build: dot::build },
    OptimizerKind { name: "rmsprop", about: "gradients over the root of their running square", options: rmsprop::OPTIONS, splits: false, build: rmsprop::build },
    OptimizerKind { name: "sgd", about: "gradient descent with momentum", options: sgd::OPTIONS, splits: false, build: sgd::build },
];
