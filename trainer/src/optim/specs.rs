//! Options that several optimizers have.

use crate::options::{Kind, Range, Spec};

/// Added to the root that an adaptive optimizer divides by.
pub const EPSILON: Spec = Spec {
    name: "epsilon",
    about: "added to the root that divides",
    kind: Kind::Number { default: 1e-8, range: Range::Positive },
};

/// Weight decay as a part of the gradient.
pub const COUPLED_DECAY: Spec = Spec {
    name: "weight_decay",
    about: "times the parameter, added to its gradient",
    kind: Kind::Number { default: 0.0, range: Range::NotNegative },
};

/// The learning rate, which every optimizer has.
pub const fn lr(default: f64) -> Spec {
    let about = "learning rate at a schedule's factor of 1";
    Spec { name: "lr", about, kind: Kind::Number { default, range: Range::Positive } }
}

/// Momentum of a step's direction.
pub const fn momentum(default: f64) -> Spec {
    let about = "share of the last step's direction that is kept";
    Spec { name: "momentum", about, kind: Kind::Number { default, range: Range::BelowOne } }
}
