//! Values of steps that a GPU has still to tell: they are copied to the host many steps at once, so that no step waits.

use kd_runtime::{Refusal, Result};

use super::learner::StepValues;
use crate::exec::Executor;
use crate::gpu::Gpu;
use crate::gpu::losses::{SUMS, TARGET, targets};
use crate::losses::Batch;
use crate::ops::kernels::buffer::Buffer;

/// Steps at most whose values are not known yet.
const MOST_STEPS: usize = 16;

/// What a learner on a GPU keeps there for its losses.
pub(super) struct Owed {
    /// For each step its terms, then the samples that were right.
    kept: Buffer<f32>,
    /// Numbers of a step.
    width: usize,
    steps: Vec<Step>,
    /// [`targets`] of a batch.
    pub targets: Buffer<f32>,
    /// Room for sums of a loss.
    pub sums: Buffer<f32>,
}

/// A step, with what is known of it.
struct Step {
    number: usize,
    values: StepValues,
    /// The factors of the terms that are on their way.
    owed: Vec<Option<f64>>,
}

impl Owed {
    /// For so many terms and samples. Refused where the GPU has not enough memory.
    pub fn new(gpu: &Gpu, terms: usize, batch: usize) -> Result<Self> {
        let width = terms + 1;
        Ok(Self {
            kept: Buffer::on(gpu, MOST_STEPS * width)?,
            width,
            steps: Vec::new(),
            targets: Buffer::on(gpu, TARGET * batch)?,
            sums: Buffer::on(gpu, SUMS.max(batch))?,
        })
    }

    /// Takes in what the samples of a step should be.
    pub fn begin(&mut self, batch: &Batch<'_>) {
        self.targets.put(&targets(batch));
    }

    /// The place of a term's value of the step that is on its way, and the room for its sums; the targets.
    pub fn places(&mut self, term: usize, batch: usize) -> (&mut [f32], &mut [f32], &[f32]) {
        let at = self.steps.len() * self.width + term;
        (&mut self.kept.raw_mut()[at..=at], self.sums.raw_mut(), &self.targets.raw()[..TARGET * batch])
    }

    /// The place of the count of right samples; the targets.
    pub fn right(&mut self, batch: usize) -> (&mut [f32], &[f32]) {
        let (value, _, targets) = self.places(self.width - 1, batch);
        (value, targets)
    }

    /// Ends step `number` (from 1), of which these factors' terms are on their way. Says whether there is no room for another one.
    pub fn end(&mut self, number: usize, values: StepValues, owed: Vec<Option<f64>>) -> bool {
        self.steps.push(Step { number, values, owed });
        self.steps.len() == MOST_STEPS
    }

    /// Waits for all steps; gives their values, from the first. Refuses a loss that is not finite, naming its term.
    pub fn settle(&mut self, executor: &Executor<f32>, names: &[String]) -> Result<Vec<StepValues>> {
        if self.steps.is_empty() {
            return Ok(Vec::new());
        }
        let told = self.kept.first(self.steps.len() * self.width);
        executor.wait()?;
        let steps = self.steps.drain(..).zip(told.chunks_exact(self.width));
        let whole = steps.map(|(Step { number, mut values, owed }, told)| {
            for (i, factor) in owed.into_iter().enumerate() {
                let Some(factor) = factor else { continue };
                values.terms[i] = finite(f64::from(told[i]), &names[i], number)?;
                values.loss += factor * values.terms[i];
            }
            values.right = told[self.width - 1] as usize;
            Ok(values)
        });
        whole.collect()
    }
}

/// A term's value at step `number`; refused if it is not finite.
pub(super) fn finite(value: f64, term: &str, number: usize) -> Result<f64> {
    if value.is_finite() {
        return Ok(value);
    }
    let place = format!("term `{term}` at step {number}");
    Err(Refusal::new(place, "a finite loss", value, "lower the learning rate or check the data"))
}
