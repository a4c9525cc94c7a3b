//! The backends: one line each.

use super::{Backend, Options};
#[cfg(not(all(feature = "ort", feature = "candle")))]
use crate::error::Exit;
use crate::error::{Refusal, Result};
use crate::nearest::nearest;

/// Loads a model for a batch size.
pub type Open = fn(&[u8], usize, &Options) -> Result<Box<dyn Backend>>;

/// A way to run models.
pub struct Row {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it is.
    pub about: &'static str,
    /// Whether this program was built with it.
    pub built: bool,
    /// Loads a model for a batch size.
    pub open: Open,
}

/// All backends.
pub static BACKENDS: &[Row] = &[
    Row { name: "native", about: "kd's own engine", built: true, open: super::native::open },
    #[cfg(feature = "ort")]
    Row { name: "ort", about: "ONNX Runtime, exact mode", built: true, open: super::ort::open },
    #[cfg(not(feature = "ort"))]
    Row { name: "ort", about: "ONNX Runtime, exact mode", built: false, open: |_, _, _| Err(not_built("ort")) },
    #[cfg(feature = "candle")]
    Row { name: "candle", about: "candle-onnx, float models", built: true, open: super::candle::open },
    #[cfg(not(feature = "candle"))]
    Row { name: "candle", about: "candle-onnx, float models", built: false, open: |_, _, _| Err(not_built("candle")) },
];

/// Loads a model with the backend of this name. A model with a batch size of its own keeps it.
pub fn open(name: &str, model: &[u8], batch: usize, options: &Options) -> Result<Box<dyn Backend>> {
    (row(name)?.open)(model, batch, options)
}

/// The backend's row; an unknown name is refused with the nearest known one.
pub fn row(name: &str) -> Result<&'static Row> {
    BACKENDS.iter().find(|row| row.name == name).ok_or_else(|| {
        let names: Vec<&str> = BACKENDS.iter().map(|row| row.name).collect();
        let action = match nearest(name, &names) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "choose one of these".into(),
        };
        Refusal::new("--backend", names.join(", "), format!("`{name}`"), action)
    })
}

#[cfg(not(all(feature = "ort", feature = "candle")))]
fn not_built(name: &str) -> Refusal {
    let action = format!("build kd-bench again with --features {name}");
    Refusal::new("--backend", format!("a program built with the feature `{name}`"), "one without it", action)
        .with_exit(Exit::Lacking)
}
