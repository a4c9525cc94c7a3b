//! The augmentations. One line each.

use super::{
    AugmentKind, color_jitter, crop, cutout, flip, jitter, mixup, rand_augment, scaling, translate, window_slice,
    window_warp,
};

/// Every augmentation that a recipe can name.
#[rustfmt::skip]
pub static AUGMENTATIONS: &[AugmentKind] = &[
    AugmentKind { name: "color_jitter", about: "images: brightness, contrast and saturation change", options: color_jitter::OPTIONS, build: color_jitter::build },
    AugmentKind { name: "crop", about: "images: padded, then cut to their size at a random place", options: crop::OPTIONS, build: crop::build },
    AugmentKind { name: "cutout", about: "images: squares are blanked", options: cutout::OPTIONS, build: cutout::build },
    AugmentKind { name: "flip", about: "images: left and right change places", options: flip::OPTIONS, build: flip::build },
    AugmentKind { name: "jitter", about: "normal noise on every value", options: jitter::OPTIONS, build: jitter::build },
    AugmentKind { name: "mixup", about: "samples and labels are mixed in pairs", options: mixup::OPTIONS, build: mixup::build },
    AugmentKind { name: "rand_augment", about: "images: a few changes out of fourteen, of one strength", options: rand_augment::OPTIONS, build: rand_augment::build },
    AugmentKind { name: "scaling", about: "series: each channel times a normal factor", options: scaling::OPTIONS, build: scaling::build },
    AugmentKind { name: "translate", about: "images: moved by whole pixels, 0 where nothing was", options: translate::OPTIONS, build: translate::build },
    AugmentKind { name: "window_slice", about: "series: a part stands for the whole", options: window_slice::OPTIONS, build: window_slice::build },
    AugmentKind { name: "window_warp", about: "series: a window runs slower or faster", options: window_warp::OPTIONS, build: window_warp::build },
];
