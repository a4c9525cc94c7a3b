//! Relations of a batch's samples by distance, by angle and by product.

use kd_runtime::Result;

use super::{Given, Seen, groups, make_room};
use crate::gpu::{Args, Gpu};
use crate::losses::{rkd_a, rkd_d};
use crate::ops::kernels::buffer::Buffer;

/// What these losses keep on a GPU: a side each of the student and of the teacher, and slopes.
#[derive(Default)]
pub struct Relations {
    sides: [Side; 2],
    /// By pairs, by pairs again, by elements of the student's rows.
    slopes: [Buffer<f64>; 3],
    sums: Buffer<f64>,
}

#[derive(Default)]
struct Side {
    rows: Buffer<f64>,
    /// What they were divided by, without what was added; none of rows as they are.
    lengths: Buffer<f64>,
    /// Squared distances of all pairs, or their products.
    squares: Buffer<f64>,
    inverse: Buffer<f64>,
    /// The mean distance, and of how many.
    mean: Buffer<f64>,
}

/// What products of samples are made to before those of both networks are compared.
#[derive(Clone, Copy, Debug)]
pub enum Similarity {
    /// Rows of length 1, as [`similarities`](crate::losses::sp::similarities).
    Rows,
    /// Probabilities, as [`probabilistic`](crate::losses::pkt::probabilistic).
    Neighbors,
    /// Gaussian kernels, given gamma and the last power, as [`kernels`](crate::losses::cc::kernels).
    Kernels(f32, usize),
}

impl Side {
    /// Reads rows `[n, columns]`; divided by their lengths plus `epsilon` if there is one.
    fn read(&mut self, gpu: &Gpu, x: &[f32], n: usize, columns: usize, epsilon: Option<f32>) -> Result<()> {
        assert_eq!(x.len(), n * columns, "a row for each sample");
        make_room(gpu, &mut self.rows, x.len())?;
        make_room(gpu, &mut self.lengths, if epsilon.is_some() { n } else { 0 })?;
        make_room(gpu, &mut self.squares, n * n)?;
        let (rows, lengths) = (self.rows.raw_mut(), self.lengths.raw_mut());
        let args = Args::none().read(x).write(rows).write(lengths).number(n).number(columns);
        // SAFETY: relation_rows: n rows, a length each if they are wanted.
        unsafe { gpu.groups("relation_rows", n, &args.float(epsilon.unwrap_or(0.0))) };
        Ok(())
    }

    /// The same, and how far they are from each other.
    fn load(&mut self, gpu: &Gpu, x: &[f32], n: usize, columns: usize, l2norm: bool) -> Result<()> {
        self.read(gpu, x, n, columns, l2norm.then_some(0.0))?;
        make_room(gpu, &mut self.inverse, n * n)?;
        make_room(gpu, &mut self.mean, 2)?;
        let (rows, squares, inverse) = (self.rows.raw(), self.squares.raw_mut(), self.inverse.raw_mut());
        let args = Args::none().read(rows).write(squares).write(inverse).number(n).number(columns);
        // SAFETY: relation_squares: n rows, a number for each pair.
        unsafe { gpu.each("relation_squares", n * n, &args) };
        Ok(())
    }

    /// The mean distance.
    fn average(&mut self, gpu: &Gpu, n: usize, form: &rkd_d::Form) {
        let counted = match &*form.mu {
            "nonzero" => 1,
            "all" => 2,
            _ => 0,
        };
        let args = Args::none().read(self.squares.raw()).write(self.mean.raw_mut()).number(n);
        // SAFETY: relation_mean: a number for each pair, two numbers.
        unsafe { gpu.groups("relation_mean", 1, &args.flag(form.clamp).number(counted)) };
    }
}

impl Relations {
    fn load(&mut self, seen: &Seen<'_>, columns: [usize; 2], l2norm: bool) -> Result<()> {
        let (gpu, n) = (seen.gpu, seen.batch.size);
        for ((side, x), columns) in self.sides.iter_mut().zip([seen.student[0], seen.teacher[0]]).zip(columns) {
            side.load(gpu, x, n, columns, l2norm)?;
        }
        let [by_side, by_square, by_row] = &mut self.slopes;
        make_room(gpu, by_side, n * n)?;
        make_room(gpu, by_square, n * n)?;
        make_room(gpu, by_row, n * columns[0])?;
        make_room(gpu, &mut self.sums, 2 * groups(n * n))
    }

    /// As [`distances`](rkd_d::distances).
    pub fn distances(
        &mut self,
        seen: &Seen<'_>,
        columns: [usize; 2],
        form: &rkd_d::Form,
        given: &mut Given<'_>,
    ) -> Result<()> {
        let (gpu, n) = (seen.gpu, seen.batch.size);
        self.load(seen, columns, form.l2norm)?;
        self.sides.iter_mut().for_each(|side| side.average(gpu, n, form));
        let Self { sides: [s, t], slopes: [_, slopes, _], sums } = self;
        let pairs = match &*form.reduction {
            "sum" => 1,
            "mean_distinct" => (n * n.saturating_sub(1)).max(1),
            _ => n * n,
        };
        let count = groups(n * n);
        let args = Args::none().read(s.squares.raw()).read(s.mean.raw()).read(t.squares.raw()).read(t.mean.raw());
        let args = args.write(slopes.raw_mut()).write(sums.raw_mut()).number(n).flag(form.clamp).number(pairs);
        // SAFETY: relation_distances: a number for each pair, two sums for each group.
        unsafe { gpu.groups("relation_distances", count, &args) };
        let args = Args::none().read(s.squares.raw()).read(s.mean.raw()).write(slopes.raw_mut()).read(sums.raw());
        let args = args.number(n).flag(form.clamp).number(pairs).number(count);
        // SAFETY: relation_weights: a number for each pair, two sums for each of those groups.
        unsafe { gpu.each("relation_weights", n * n, &args) };
        self.total(gpu, count, pairs, given);
        self.give(gpu, "relation_pull", n, columns[0], 0.0, given);
        Ok(())
    }

    /// As [`angles`](rkd_a::angles), but without the gradient that the authors' code has for coincident samples.
    pub fn angles(
        &mut self,
        seen: &Seen<'_>,
        columns: [usize; 2],
        form: &rkd_a::Form,
        given: &mut Given<'_>,
    ) -> Result<()> {
        let (gpu, n) = (seen.gpu, seen.batch.size);
        self.load(seen, columns, form.l2norm)?;
        let Self { sides: [s, t], slopes: [by_side, slopes, _], sums } = self;
        let triples = match &*form.reduction {
            "sum" => 1,
            "mean_distinct" => n * n.saturating_sub(1) * n.saturating_sub(2),
            _ => n * n * n,
        };
        let (triples, count) = (triples.max(1), groups(n * n));
        let sides = Args::none().read(s.squares.raw()).read(s.inverse.raw());
        let sides = sides.read(t.squares.raw()).read(t.inverse.raw());
        let args = sides.write(by_side.raw_mut()).write(sums.raw_mut()).number(n).flag(form.reduction != "mean");
        // SAFETY: relation_sides: a number for each pair, a sum for each group.
        unsafe { gpu.groups("relation_sides", count, &args) };
        let args = sides.read(by_side.raw()).write(slopes.raw_mut()).number(n).number(triples);
        // SAFETY: relation_opposite: a number for each pair.
        unsafe { gpu.each("relation_opposite", n * n, &args) };
        self.total(gpu, count, triples, given);
        self.give(gpu, "relation_pull", n, columns[0], 0.0, given);
        Ok(())
    }

    /// Compares the products of all pairs of samples.
    pub fn products(
        &mut self,
        seen: &Seen<'_>,
        columns: [usize; 2],
        similarity: Similarity,
        given: &mut Given<'_>,
    ) -> Result<()> {
        let (gpu, n) = (seen.gpu, seen.batch.size);
        let (kernel, epsilon, gamma, order) = match similarity {
            Similarity::Rows => ("relation_similar", None, 0.0, 0),
            Similarity::Neighbors => ("relation_neighbors", Some(1e-7), 0.0, 0),
            Similarity::Kernels(gamma, order) => ("relation_kernels", Some(0.0), gamma, order),
        };
        for ((side, x), columns) in self.sides.iter_mut().zip([seen.student[0], seen.teacher[0]]).zip(columns) {
            side.read(gpu, x, n, columns, epsilon)?;
            let args = Args::none().read(side.rows.raw()).write(side.squares.raw_mut()).number(n).number(columns);
            // SAFETY: relation_products: n rows, a number for each pair.
            unsafe { gpu.each("relation_products", n * n, &args) };
        }
        let Self { sides: [s, t], slopes: [_, slopes, by_row], sums } = self;
        make_room(gpu, slopes, n * n)?;
        make_room(gpu, by_row, n * columns[0])?;
        make_room(gpu, sums, n)?;
        let args = Args::none().read(s.squares.raw()).read(t.squares.raw());
        let args = args.write(slopes.raw_mut()).write(sums.raw_mut()).number(n).number(order).float(gamma);
        // SAFETY: SAMPLE of relations.cu: a number for each pair, a sum for each sample.
        unsafe { gpu.groups(kernel, n, &args) };
        self.total(gpu, n, n * n, given);
        self.give(gpu, "relation_mix", n, columns[0], epsilon.unwrap_or(0.0), given);
        Ok(())
    }

    /// The value, of so many sums.
    fn total(&self, gpu: &Gpu, count: usize, over: usize, given: &mut Given<'_>) {
        total(gpu, &self.sums, count, over, false, given);
    }

    /// From slopes by squared distances or by products to those by the student's rows, which were divided by their
    /// lengths plus `epsilon`.
    fn give(&mut self, gpu: &Gpu, kernel: &'static str, n: usize, columns: usize, epsilon: f32, given: &mut Given<'_>) {
        let Self { sides: [s, _], slopes: [_, slopes, by_row], .. } = self;
        assert_eq!(given.d_student[0].len(), n * columns, "a row for each sample");
        let args = Args::none().read(s.rows.raw()).read(slopes.raw()).write(by_row.raw_mut()).number(n).number(columns);
        // SAFETY: relation_pull and relation_mix: a number for each pair, rows of n samples.
        unsafe { gpu.each(kernel, n * columns, &args) };
        let args = Args::none().read(s.rows.raw()).read(s.lengths.raw()).read(by_row.raw()).write(given.d_student[0]);
        // SAFETY: relation_give: rows of n samples, a length each if they were divided by it.
        unsafe { gpu.groups("relation_give", n, &args.number(n).number(columns).float(epsilon)) };
    }
}

/// Queues the sum of the first of some sums over a number: the loss, or what is added to it.
pub(super) fn total(gpu: &Gpu, sums: &Buffer<f64>, count: usize, over: usize, add: bool, given: &mut Given<'_>) {
    assert!(count <= sums.len() && given.value.len() == 1, "sums that there are");
    let args = Args::none().read(sums.raw()).write(given.value).number(count).number(over).flag(add);
    // SAFETY: relation_total: so many sums, one number.
    unsafe { gpu.groups("relation_total", 1, &args) };
}
