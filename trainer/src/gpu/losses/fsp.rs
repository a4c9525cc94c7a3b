//! Flow of a solution procedure.

use kd_runtime::Result;

use super::nst::{Squares, at_once};
use super::{Given, make_room};
use crate::gpu::Gpu;
use crate::gpu::ops::product::{Matrix, products};
use crate::losses::fsp::Flow;
use crate::losses::joint::Way;
use crate::ops::kernels::buffer::Buffer;

/// What it keeps on a GPU.
#[derive(Default)]
pub struct Flows {
    /// Both maps of the student, then of the teacher, at the places that the two have in common; whatever is there of
    /// one that is there already.
    pooled: [[Buffer<f32>; 2]; 2],
    g: Buffer<f32>,
    d_part: Buffer<f32>,
    squares: Squares,
}

impl Flows {
    /// As [`flow_distance`](crate::losses::fsp::flow_distance) of the student's taps `later - 1` and `later`, to whose
    /// gradients its own are added, as its value is to those of the flows before. `sides`: both maps of the student,
    /// then of the teacher.
    pub fn distance(
        &mut self,
        gpu: &Gpu,
        later: usize,
        sides: [[&[f32]; 2]; 2],
        flows: [Flow; 2],
        factor: f32,
        given: &mut Given<'_>,
    ) -> Result<()> {
        let batch = sides[0][0].len() / flows[0].from.elements();
        let met = flows.map(|flow| flow.met());
        let ways = [0, 1].map(|i| [(flows[i].from, met[i].from), (flows[i].to, met[i].to)]);
        let ways = ways.map(|both| both.map(|(map, to)| Way::averaged(map, to)));
        for ((kept, way), x) in self.pooled.iter_mut().flatten().zip(ways.as_flattened()).zip(sides.as_flattened()) {
            assert_eq!(x.len(), batch * way.map.elements(), "maps of samples");
            if !way.is_plain() {
                let len = batch * way.to.elements();
                make_room(gpu, kept, len)?;
                way.load(gpu, x, &mut kept.raw_mut()[..len]);
            }
        }
        let (pooled, g, d_part, squares) = (&self.pooled, &mut self.g, &mut self.d_part, &mut self.squares);
        let (m, n) = (met[0].from.channels, met[0].to.channels);
        assert_eq!([met[1].from.channels, met[1].to.channels], [m, n], "as many channels on both sides");
        let places = met.map(|flow| flow.from.places());
        let step = at_once(batch, m * n);
        make_room(gpu, g, step * m * n)?;
        make_room(gpu, d_part, step * m.max(n) * places[0])?;
        squares.begin(gpu, step * m * n)?;
        for from in (0..batch).step_by(step) {
            let count = step.min(batch - from);
            let of = |side: usize, map: usize| {
                let way = ways[side][map];
                let x = if way.is_plain() { sides[side][map] } else { pooled[side][map].raw() };
                Matrix::rows(&x[from * way.to.elements()..][..count * way.to.elements()], places[side])
            };
            let g = &mut g.raw_mut()[..count * m * n];
            let shares = places.map(|places| 1.0 / places as f32);
            products(gpu, g, [of(1, 0), of(1, 1).t()], count, [m, n, places[1]], -shares[1], false);
            products(gpu, g, [of(0, 0), of(0, 1).t()], count, [m, n, places[0]], shares[0], true);
            squares.add(gpu, g, factor);
            let (g, rate) = (Matrix::rows(g, n), 2.0 * factor * shares[0]);
            let parts = [(g, of(0, 1), m, n, later - 1), (g.t(), of(0, 0), n, m, later)];
            for ((g, other, rows, inner, tap), way) in parts.into_iter().zip(ways[0]) {
                let d = &mut given.d_student[tap][from * way.map.elements()..][..count * way.map.elements()];
                let sizes = [rows, places[0], inner];
                if way.is_plain() {
                    products(gpu, d, [g, other], count, sizes, rate, true);
                } else {
                    let part = &mut d_part.raw_mut()[..count * rows * places[0]];
                    products(gpu, part, [g, other], count, sizes, rate, false);
                    way.back(gpu, part, d, true);
                }
            }
        }
        squares.end(gpu, later > 1, given);
        Ok(())
    }
}
