//! What goes into a model and comes out of it: names, shapes, scaling, classes. `contract.json`, schema `kd.contract/1`.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::graph::Graph;

/// The value of `schema` in the file.
pub const SCHEMA: &str = "kd.contract/1";

/// A model's contract with its data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contract {
    /// [`SCHEMA`].
    pub schema: String,
    /// What the model is for.
    pub task: Task,
    /// What goes in.
    pub input: InputContract,
    /// What comes out.
    pub output: OutputContract,
}

/// What a model is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// One class a sample.
    Classification,
}

/// What goes in: `x = (raw * scale - mean) / std`, mean and std one number or one a channel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputContract {
    /// The graph's input.
    pub name: String,
    /// Its element type, `f32`.
    pub element: String,
    /// Shape of one sample, without the batch: `[C, H, W]`, `[C, T]` or `[F]`.
    pub shape: Vec<usize>,
    /// Letters for the shape: `CHW`, `HWC`, `CT`, `F`.
    pub layout: String,
    /// Factor of the raw values.
    pub scale: f32,
    /// Subtracted after scaling; one number, or one a channel.
    pub mean: Vec<f32>,
    /// Divided by at last; one number, or one a channel.
    pub std: Vec<f32>,
}

/// What comes out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutputContract {
    /// The graph's output.
    pub name: String,
    /// What the numbers mean.
    pub meaning: Meaning,
    /// Names of the classes, in order.
    pub classes: Vec<String>,
}

/// What the numbers of an output mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Meaning {
    /// Before softmax.
    Logits,
    /// Rows sum to 1.
    Probabilities,
    /// A vector to be compared with others.
    Embedding,
}

impl Contract {
    /// Reads and checks a contract file.
    pub fn read(_path: &Path) -> Result<Self> {
        todo!()
    }

    /// The file's text.
    pub fn to_json(&self) -> String {
        todo!()
    }

    /// Refuses a model that does not have this input and output.
    pub fn check_model(&self, _graph: &Graph) -> Result<()> {
        todo!()
    }

    /// Raw values of one sample to what the model is fed. Both have the product of [`InputContract::shape`] elements.
    pub fn prepare(&self, _raw: &[f32], _x: &mut [f32]) {
        todo!()
    }

    /// A contract filled with what a model tells, for the user to complete.
    pub fn template(_graph: &Graph) -> Self {
        todo!()
    }
}
