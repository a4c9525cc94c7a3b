//! Inputs to measure with: real samples where there are any, else seeded random values.

use super::Job;
use crate::backend::Backend;
use crate::data::{Sample, Source, Split};
use crate::error::{Refusal, Result};
use crate::graph::{Data, ElementType, Tensor};
use crate::ops::TensorType;

/// Seeded random numbers: splitmix64 (Steele, Lea, Flood 2014), the same on every machine.
pub struct Random(u64);

impl Random {
    /// A stream for a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in `low..high`.
    pub fn uniform(&mut self, low: f32, high: f32) -> f32 {
        // 24 bits: every value is exact in f32.
        let unit = (self.bits() >> 40) as f32 / (1_u32 << 24) as f32;
        low + (high - low) * unit
    }

    /// A tensor: floats in `low..high`, all bytes, other integers and booleans 0 or 1 (which are valid indices).
    pub fn tensor(&mut self, ty: &TensorType, (low, high): (f32, f32)) -> Tensor {
        let mut tensor = Tensor::zeros(ty.element, &ty.shape);
        match tensor.data_mut() {
            Data::F32(v) => v.iter_mut().for_each(|x| *x = self.uniform(low, high)),
            Data::U8(v) => v.iter_mut().for_each(|x| *x = self.bits().to_le_bytes()[0]),
            Data::I8(v) => v.iter_mut().for_each(|x| *x = i8::from_le_bytes([self.bits().to_le_bytes()[0]])),
            Data::I32(v) => v.iter_mut().for_each(|x| *x = i32::from(self.bits() & 1 == 1)),
            Data::I64(v) => v.iter_mut().for_each(|x| *x = i64::from(self.bits() & 1 == 1)),
            Data::Bool(v) => v.iter_mut().for_each(|x| *x = self.bits() & 1 == 1),
        }
        tensor
    }
}

/// How many inputs a latency measurement rotates over.
pub const ROTATION: usize = 8;

/// [`ROTATION`] sets of inputs for a backend: the first samples of the test part, prepared by the contract, or random
/// ones in -1..1.
pub fn rotation(job: &Job, backend: &dyn Backend) -> Result<Vec<Vec<Tensor>>> {
    let (Some(contract), Some(data), [ty]) = (&job.contract, &job.data, backend.inputs()) else {
        let mut random = Random::new(1);
        let set = |random: &mut Random| backend.inputs().iter().map(|ty| random.tensor(ty, (-1.0, 1.0))).collect();
        return Ok((0..ROTATION).map(|_| set(&mut random)).collect());
    };
    if ty.element != ElementType::F32 {
        return Err(Refusal::new("input", "f32, as the contract says", ty.element, "correct the contract"));
    }
    let data = Source::parse(data)?.read_as(Some(contract)).open()?;
    contract.check_data(data.description())?;
    let mut samples = data.read(Split::Test)?;
    let mut sample = Sample::default();
    let mut sets = Vec::with_capacity(ROTATION);
    while sets.len() < ROTATION && samples.next(&mut sample)? {
        let mut tensor = Tensor::zeros(ElementType::F32, &ty.shape);
        let elements = contract.input.elements();
        for x in tensor.get_mut::<f32>().unwrap_or_default().chunks_exact_mut(elements) {
            contract.prepare(&sample.values, x);
        }
        sets.push(vec![tensor]);
    }
    Ok(sets)
}
