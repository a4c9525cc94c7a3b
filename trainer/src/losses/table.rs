//! The methods. One line each.

use super::{Method, ce, kd};

/// Every method that a term can name.
pub static METHODS: &[Method] = &[
    Method { name: "ce", about: "cross-entropy with the true classes", options: ce::OPTIONS, build: ce::build },
    Method { name: "kd", about: "soft targets (Hinton et al. 2015)", options: kd::OPTIONS, build: kd::build },
];
