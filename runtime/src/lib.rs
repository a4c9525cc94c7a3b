//! The device side of `kd`: networks as graphs, ONNX in and out, a small exact inference engine, and what `kd-bench`
//! needs to measure a model and judge it against a budget.
//!
//! Without the feature `std` the library is `core` + `alloc`: [`graph`], [`ops`], [`onnx`] and [`engine`].
#![cfg_attr(not(feature = "std"), no_std)]

extern crate alloc;

pub mod engine;
pub mod error;
pub mod graph;
pub mod math;
pub mod nearest;
pub mod onnx;
pub mod ops;

#[cfg(feature = "std")]
pub mod backend;
#[cfg(feature = "std")]
pub mod budget;
#[cfg(feature = "std")]
pub mod cli;
#[cfg(feature = "std")]
pub mod contract;
#[cfg(feature = "std")]
pub mod data;
#[cfg(feature = "std")]
pub mod files;
#[cfg(feature = "std")]
pub mod measure;
#[cfg(feature = "std")]
pub mod report;

pub use error::{Exit, Refusal, Result};
