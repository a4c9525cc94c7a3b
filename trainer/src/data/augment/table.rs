//! The augmentations. One line each.

use super::AugmentKind;

/// Every augmentation that a recipe can name.
pub static AUGMENTATIONS: &[AugmentKind] = &[];
