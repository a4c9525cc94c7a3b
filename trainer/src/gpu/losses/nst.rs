//! Neuron selectivity, and what else compares matrices of products of features.

use kd_runtime::Result;

use super::relations::total;
use super::{Given, groups, make_room};
use crate::gpu::ops::product::{Matrix, products};
use crate::gpu::{Args, Gpu};
use crate::ops::kernels::buffer::Buffer;

/// Elements of all matrices that are computed at once.
const MOST: usize = 1 << 24;

/// How many of `count` matrices of so many elements are computed at once.
pub(super) fn at_once(count: usize, elements: usize) -> usize {
    (MOST / elements.max(1)).clamp(1, count.max(1))
}

/// Sums of squares, in f64.
#[derive(Default)]
pub(super) struct Squares {
    sums: Buffer<f64>,
    /// Those that there are.
    count: usize,
}

impl Squares {
    /// Forgets all; at most so many elements are to come at once.
    pub fn begin(&mut self, gpu: &Gpu, elements: usize) -> Result<()> {
        self.count = 0;
        make_room(gpu, &mut self.sums, groups(elements))
    }

    /// Queues the sum of squares times a factor; the first one says how many groups do it.
    pub fn add(&mut self, gpu: &Gpu, x: &[f32], factor: f32) {
        let add = self.count > 0;
        if !add {
            self.count = groups(x.len());
        }
        assert!(self.count <= self.sums.len(), "a sum for each group");
        let args = Args::none().read(x).write(self.sums.raw_mut()).number(x.len()).flag(add).float(factor);
        // SAFETY: squares: so many elements, a sum for each group.
        unsafe { gpu.groups("squares", self.count, &args) };
    }

    /// Queues the value, or what is added to it.
    pub fn end(&self, gpu: &Gpu, add: bool, given: &mut Given<'_>) {
        total(gpu, &self.sums, self.count, 1, add, given);
    }
}

/// What neuron selectivity keeps on a GPU.
#[derive(Default)]
pub struct Selectivity {
    /// Channels of length 1 of the student and of the teacher, and what they were divided by.
    units: [Buffer<f32>; 2],
    divisors: [Buffer<f32>; 2],
    g: Buffer<f32>,
    squares: Squares,
}

impl Selectivity {
    /// As [`selectivity`](crate::losses::nst::selectivity), of the student's only tap; `add`: whether the value is
    /// added to what is there.
    pub fn distance(
        &mut self,
        gpu: &Gpu,
        add: bool,
        sides: [&[f32]; 2],
        channels: [usize; 2],
        places: usize,
        given: &mut Given<'_>,
    ) -> Result<()> {
        let d = &mut *given.d_student[0];
        let [c_s, c_t] = channels;
        let batch = d.len() / (c_s * places);
        assert_eq!(sides.map(<[f32]>::len), channels.map(|channels| batch * channels * places), "maps of samples");
        assert_eq!(d.len(), sides[0].len(), "a gradient");
        for (i, x) in sides.into_iter().enumerate() {
            let (rows, unit, divisors) = (x.len() / places, &mut self.units[i], &mut self.divisors[i]);
            make_room(gpu, unit, x.len())?;
            make_room(gpu, divisors, rows)?;
            let args = Args::none().read(x).write(unit.raw_mut()).write(divisors.raw_mut()).number(places);
            // SAFETY: unit_rows: a row for each channel of each sample, a number for each row.
            unsafe { gpu.groups("unit_rows", rows, &args) };
        }
        let Self { units: [s, t], divisors: [divisors, _], g, squares } = self;
        let (within, between) = (|c: usize| 1.0 / (batch * c * c) as f64, 1.0 / (batch * c_s * c_t) as f64);
        let most = c_s.max(c_t) * c_s.max(c_t);
        let step = at_once(batch, most);
        make_room(gpu, g, step * most)?;
        squares.begin(gpu, step * most)?;
        for from in (0..batch).step_by(step) {
            let count = step.min(batch - from);
            let [ours, theirs] = channels.map(|channels| from * channels * places..(from + count) * channels * places);
            let (s, t, d) = (&s.raw()[ours.clone()], &t.raw()[theirs], &mut d[ours]);
            let (rows_s, rows_t) = (Matrix::rows(s, places), Matrix::rows(t, places));
            let pairs = [(rows_t, rows_t, c_t, c_t), (rows_s, rows_t, c_s, c_t), (rows_s, rows_s, c_s, c_s)];
            let weights = [within(c_t), -2.0 * between, within(c_s)];
            for (i, ((a, b, m, n), weight)) in pairs.into_iter().zip(weights).enumerate() {
                let g = &mut g.raw_mut()[..count * m * n];
                products(gpu, g, [a, b.t()], count, [m, n, places], 1.0, false);
                squares.add(gpu, g, weight as f32);
                if i > 0 {
                    // Twice the weight of each product, and twice where both factors are the student's.
                    let rate = if i == 1 { 2.0 * weight } else { 4.0 * weight };
                    products(gpu, d, [Matrix::rows(g, n), b], count, [m, places, n], rate as f32, i > 1);
                }
            }
        }
        let rows = batch * c_s;
        let args = Args::none().read(s.raw()).read(divisors.raw()).write(d).number(places);
        // SAFETY: unit_rows_back: a row for each channel of each sample, a number for each row.
        unsafe { gpu.groups("unit_rows_back", rows, &args) };
        squares.end(gpu, add, given);
        Ok(())
    }
}
