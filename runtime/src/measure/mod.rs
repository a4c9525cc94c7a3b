//! Figures of a model on this device, each from a fresh child process, and the statistics that judge them.

pub mod accuracy;
pub mod alloc;
pub mod child;
pub mod device;
pub mod inputs;
pub mod latency;
pub mod memory;
pub mod stats;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::backend::{self, Backend, Options};
use crate::contract::Contract;
use crate::error::Result;
use crate::files;

/// A model and how it is run: what every measurement is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Job {
    /// The ONNX file.
    pub model: PathBuf,
    /// Name of the backend.
    pub backend: String,
    /// Threads that compute one inference.
    pub threads: usize,
    /// ONNX Runtime's library, if named.
    pub ort_lib: Option<PathBuf>,
    /// What goes in and comes out, where it is known.
    pub contract: Option<Contract>,
    /// `FORMAT:PATH` of the data, where there is any.
    pub data: Option<String>,
}

impl Job {
    /// Reads the file and loads it for batches of `batch`.
    pub fn load(&self, batch: usize) -> Result<Box<dyn Backend>> {
        let options = Options { threads: self.threads, ort_lib: self.ort_lib.clone() };
        let bytes = files::read(&self.model)?;
        backend::open(&self.backend, &bytes, batch, &options)
    }
}
