//! The augmentations. One line each.

use super::{AugmentKind, flip, jitter, scaling, translate};

/// Every augmentation that a recipe can name.
#[rustfmt::skip]
pub static AUGMENTATIONS: &[AugmentKind] = &[
    AugmentKind { name: "flip", about: "images: left and right change places", options: flip::OPTIONS, build: flip::build },
    AugmentKind { name: "jitter", about: "normal noise on every value", options: jitter::OPTIONS, build: jitter::build },
    AugmentKind { name: "scaling", about: "series: each channel times a normal factor", options: scaling::OPTIONS, build: scaling::build },
    AugmentKind { name: "translate", about: "images: moved by whole pixels, 0 where nothing was", options: translate::OPTIONS, build: translate::build },
];
