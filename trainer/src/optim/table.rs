//! The optimizers. One line each.

use super::{OptimizerKind, adamw, sgd};

/// Every optimizer that a recipe can name.
pub static OPTIMIZERS: &[OptimizerKind] = &[
    OptimizerKind { name: "adamw", about: "Adam, decay apart from it", options: adamw::OPTIONS, build: adamw::build },
    OptimizerKind { name: "sgd", about: "gradient descent with momentum", options: sgd::OPTIONS, build: sgd::build },
];
