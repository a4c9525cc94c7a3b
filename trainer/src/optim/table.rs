//! The optimizers. One line each.

use super::{OptimizerKind, adamw, dot, sgd};

/// Every optimizer that a recipe can name.
#[rustfmt::skip]
pub static OPTIMIZERS: &[OptimizerKind] = &[
    OptimizerKind { name: "adamw", about: "Adam, decay apart from it", options: adamw::OPTIONS, splits: false, build: adamw::build },
    OptimizerKind { name: "dot", about: "gradient descent with a momentum for the task and one for the teachers", options: dot::OPTIONS, splits: true, build: dot::build },
    OptimizerKind { name: "sgd", about: "gradient descent with momentum", options: sgd::OPTIONS, splits: false, build: sgd::build },
];
