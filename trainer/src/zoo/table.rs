//! The architectures. One line each.

use super::Arch;

/// Every architecture that a recipe can name.
pub static ARCHS: &[Arch] = &[];
