//! Figures of a model on this device, each from a fresh child process, and the statistics that judge them.

pub mod stats;
