//! From a trained network to files that a device runs: fold, calibrate, quantize, verify, write.

pub mod calibrate;
pub mod cli;
pub mod fold;
pub mod folder;
pub mod formats;
pub mod quantize;
pub mod verify;
