//! The methods of handing knowledge over: ONE FILE EACH; [`table`] lists them.

pub mod ce;
pub mod kd;
pub mod rows;
pub mod table;
#[cfg(test)]
mod tests;

use kd_runtime::{Refusal, Result};

use crate::options::{Options, Spec};

/// What a loss sees of one batch.
pub struct Batch<'a> {
    /// Samples.
    pub size: usize,
    /// Classes of the samples.
    pub labels: &'a [usize],
}

/// One term of the total loss.
pub trait Loss {
    /// Names of the student's values that it reads and whose gradient it gives.
    fn student_taps(&self) -> &[String];
    /// Names of the teacher's values that it reads.
    fn teacher_taps(&self) -> &[String];
    /// The value (mean over the batch unless its doc says otherwise), not yet weighted. `d_student[i]`, of the length of
    /// `student[i]`, is overwritten with the gradient of the value.
    fn value(
        &mut self,
        batch: &Batch<'_>,
        student: &[&[f32]],
        teacher: &[&[f32]],
        d_student: &mut [&mut [f32]],
    ) -> Result<f32>;
}

/// A row of the table of methods (`losses/table.rs`: `pub static METHODS: &[Method]`).
pub struct Method {
    /// Its name in a recipe.
    pub name: &'static str,
    /// What it is, and whose, on one line.
    pub about: &'static str,
    /// Its options, without `method` and `weight`, which every term has.
    pub options: &'static [Spec],
    /// Makes the loss from checked options.
    pub build: fn(&Options) -> Box<dyn Loss>,
}

/// Elements of a tap for one sample; an error if there is none.
fn columns(tap: &str, values: &[f32], batch: &Batch<'_>) -> Result<usize> {
    let columns = values.len().checked_div(batch.size).unwrap_or(0);
    if columns == 0 || columns * batch.size != values.len() || batch.labels.len() != batch.size {
        return Err(Refusal::new(
            format!("tap `{tap}`"),
            format!("rows and labels for {} samples", batch.size),
            format!("{} values, {} labels", values.len(), batch.labels.len()),
            "name a tap [N, classes]",
        ));
    }
    Ok(columns)
}
