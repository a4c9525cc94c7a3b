//! The exponential moving average of parameters, which is evaluated instead of them.

use kd_runtime::Result;

use super::Count;
use crate::exec::{Parameter, Real};
use crate::ops::kernels::buffer::Buffer;
use crate::ops::kernels::pointwise::PIECE;
use crate::ops::kernels::rows::wide;
use crate::ops::kernels::threads;

/// `average += (1 - decay) · (p - average)`: `decay · average + (1 - decay) · p`.
///
/// Source: Polyak, Juditsky 1992; the exponential form as in Tarvainen, Valpola 2017 (Mean teacher, arXiv 1703.01780).
pub fn update<T: Real>(average: &mut [T], p: &[T], decay: T) {
    let take = T::ONE - decay;
    threads::chunks(average, PIECE, |i, average| {
        wide(move || {
            average.iter_mut().zip(&p[i * PIECE..]).for_each(|(average, &p)| *average += take * (p - *average))
        });
    });
}

/// The decay of step `t`, from 1: with `warmup` `(1 + t) / (10 + t)` while that is less, so that the first weights are
/// soon forgotten.
pub fn decay_at(decay: f64, warmup: bool, t: usize) -> f64 {
    if warmup { decay.min((1.0 + t as f64) / (10.0 + t as f64)) } else { decay }
}

/// The average of a network's parameters, statistics included.
pub struct Average {
    decay: f64,
    warmup: bool,
    count: Count,
    values: Vec<(String, Buffer<f32>)>,
}

impl Average {
    /// Begins with the parameters as they are.
    pub fn new(parameters: &[Parameter<f32>], decay: f64, warmup: bool) -> Result<Self> {
        let copy = |p: &Parameter<f32>| {
            let mut copy = Buffer::in_memory(p.value.gpu(), p.value.len())?;
            copy.put(&p.value);
            Ok((p.name.clone(), copy))
        };
        let values = parameters.iter().map(copy).collect::<Result<_>>()?;
        Ok(Self { decay, warmup, count: Count::default(), values })
    }

    /// Follows the parameters after a step.
    pub fn follow(&mut self, parameters: &[Parameter<f32>]) {
        self.count.increase();
        let decay = decay_at(self.decay, self.warmup, self.count.get()) as f32;
        for ((_, average), p) in self.values.iter_mut().zip(parameters) {
            match p.value.gpu() {
                Some(_) => average.blend(decay, 1.0 - decay, &p.value),
                None => update(average, &p.value, decay),
            }
        }
    }

    /// Changes places with the parameters.
    pub fn swap(&mut self, parameters: &mut [Parameter<f32>]) {
        self.values.iter_mut().zip(parameters).for_each(|((_, average), p)| std::mem::swap(average, &mut p.value));
    }

    /// What a checkpoint must keep, by name, in a fixed order.
    pub fn state(&self) -> Vec<(String, &[f32])> {
        let count = std::iter::once(self.count.state("all"));
        count.chain(self.values.iter().map(|(name, v)| (name.clone(), &v[..]))).collect()
    }

    /// The same for writing.
    pub fn state_mut(&mut self) -> Vec<(String, &mut [f32])> {
        let count = std::iter::once(self.count.state_mut("all"));
        count.chain(self.values.iter_mut().map(|(name, v)| (name.clone(), &mut v[..]))).collect()
    }
}
