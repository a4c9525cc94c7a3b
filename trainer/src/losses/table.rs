//! The methods. One line each.

use super::{Method, ce, kd};

/// Every method that a term can name.
pub static METHODS: &[&Method] = &[&ce::METHOD, &kd::METHOD];
