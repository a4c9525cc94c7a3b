//! What each position attends to.

use kd_runtime::Result;

use super::joint::Kept;
use super::nst::at_once;
use super::relations::total;
use super::{Given, SUMS, Seen, make_room};
use crate::gpu::ops::maps::fill;
use crate::gpu::ops::product::{Matrix, products};
use crate::gpu::{Args, Gpu};
use crate::losses::joint::Way;
use crate::ops::kernels::buffer::Buffer;

/// What it keeps on a GPU.
#[derive(Default)]
pub struct Relations {
    taps: Vec<Tap>,
    /// Rows of the student and of the teacher.
    rows: [Buffer<f32>; 2],
    sums: Buffer<f64>,
}

/// Both sides of a pair of taps as they are compared, and the gradient by the student's.
#[derive(Default)]
struct Tap {
    kept: Kept,
    d: Buffer<f32>,
    /// Elements of that.
    len: usize,
}

impl Relations {
    /// Reads pair number `i`, and forgets its gradient.
    pub fn load(&mut self, gpu: &Gpu, i: usize, ways: [Way; 2], values: [&[f32]; 2]) -> Result<()> {
        if self.taps.len() <= i {
            self.taps.resize_with(i + 1, Tap::default);
        }
        let Tap { kept, d, len } = &mut self.taps[i];
        kept.load(gpu, ways, values)?;
        *len = kept.loaded(ways, values)[0].len();
        make_room(gpu, d, *len)?;
        fill(gpu, &mut d.raw_mut()[..*len], 0.0);
        Ok(())
    }

    /// As [`relation_divergence`](crate::losses::attention_relation::relation_divergence) of two pairs of taps, or of
    /// one to itself; its value is added to what is there if `add` says so.
    pub fn divergence(
        &mut self,
        seen: &Seen<'_>,
        [a, b]: [usize; 2],
        ways: [[Way; 2]; 2],
        heads: usize,
        add: bool,
        given: &mut Given<'_>,
    ) -> Result<()> {
        let gpu = seen.gpu;
        let length = ways[0][0].to.places();
        let depths = ways[0].map(|way| way.to.channels / heads);
        let (all, cells) = (seen.batch.size * heads, length * length);
        let step = at_once(all, cells);
        for rows in &mut self.rows {
            make_room(gpu, rows, step * cells)?;
        }
        let groups = (step * length).min(SUMS);
        make_room(gpu, &mut self.sums, groups)?;
        // The gradients are written while both sides are read; of a tap to itself the first is all there is.
        let mut d = [a, b].map(|tap| std::mem::take(&mut self.taps[tap].d));
        for from in (0..all).step_by(step) {
            let count = step.min(all - from);
            let [of_s, of_t] = depths.map(|depth| from * depth * length..(from + count) * depth * length);
            let side = |tap: usize, ways: [Way; 2]| {
                let [s, t] = self.taps[tap].kept.loaded(ways, [seen.student[tap], seen.teacher[tap]]);
                [&s[of_s.clone()], &t[of_t.clone()]].map(|x| Matrix::rows(x, length))
            };
            let [[a_s, a_t], [b_s, b_t]] = [side(a, ways[0]), side(b, ways[1])];
            let [rows_s, rows_t] = &mut self.rows;
            let (rows_s, rows_t) = (&mut rows_s.raw_mut()[..count * cells], &mut rows_t.raw_mut()[..count * cells]);
            let scales = depths.map(|depth| 1.0 / (depth as f64).sqrt());
            products(gpu, rows_s, [a_s.t(), b_s], count, [length, length, depths[0]], scales[0] as f32, false);
            products(gpu, rows_t, [a_t.t(), b_t], count, [length, length, depths[1]], scales[1] as f32, false);
            let args = Args::none().write(rows_s).read(rows_t).write(self.sums.raw_mut()).number(length);
            let args = args.number(count * length).flag(from > 0);
            // SAFETY: relation_divergence: so many rows of both, a sum for each group.
            unsafe { gpu.groups("relation_divergence", groups, &args) };
            let rate = (scales[0] / (all * length) as f64) as f32;
            let sizes = [depths[0], length, length];
            let rows = Matrix::rows(rows_s, length);
            products(gpu, &mut d[0].raw_mut()[of_s.clone()], [b_s, rows.t()], count, sizes, rate, true);
            products(gpu, &mut d[usize::from(a != b)].raw_mut()[of_s], [a_s, rows], count, sizes, rate, true);
        }
        let [d_a, d_b] = d;
        self.taps[a].d = d_a;
        if a != b {
            self.taps[b].d = d_b;
        }
        total(gpu, &self.sums, groups, all * length, add, given);
        Ok(())
    }

    /// From the gradient by the student's side of pair number `i` as it is compared to that by its tap.
    pub fn back(&self, gpu: &Gpu, i: usize, way: Way, d: &mut [f32]) {
        let Tap { d: d_compared, len, .. } = &self.taps[i];
        way.back(gpu, &d_compared.raw()[..*len], d, false);
    }
}
