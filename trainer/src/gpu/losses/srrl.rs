//! The teacher's classifier on the student's features.

use kd_runtime::Result;

use super::fitnets::total_distance;
use super::nst::Squares;
use super::{Given, Seen, make_room};
use crate::gpu::ops::maps::{blend, copy};
use crate::gpu::ops::product::{Matrix, products};
use crate::losses::fitnets::Distance;
use crate::ops::kernels::buffer::Buffer;

/// What it keeps on a GPU.
#[derive(Default)]
pub struct Regression {
    difference: Buffer<f32>,
    answers: Buffer<f32>,
    squares: Squares,
}

impl Regression {
    /// Both parts of [`regression`](crate::losses::srrl::regression), times these factors.
    pub fn distance(
        &mut self,
        seen: &Seen<'_>,
        weight: &[f32],
        columns: usize,
        [feature, answer]: [f32; 2],
        given: &mut Given<'_>,
    ) -> Result<()> {
        let (gpu, batch, sides) = (seen.gpu, seen.batch.size, [seen.student[0], seen.teacher[0]]);
        let (n, classes) = (batch * columns, weight.len() / columns);
        assert_eq!(sides.map(<[f32]>::len), [n; 2], "a row for each sample");
        total_distance(gpu, 0, false, sides, Distance::Squared, feature / n as f32, given);
        make_room(gpu, &mut self.difference, n)?;
        make_room(gpu, &mut self.answers, batch * classes)?;
        self.squares.begin(gpu, batch * classes)?;
        let difference = &mut self.difference.raw_mut()[..n];
        copy(gpu, difference, sides[0], false);
        blend(gpu, difference, sides[1], [1.0, -1.0]);
        let answers = &mut self.answers.raw_mut()[..batch * classes];
        let (w, factor) = (Matrix::rows(weight, columns), answer / answers.len() as f32);
        products(gpu, answers, [Matrix::rows(difference, columns), w.t()], 1, [batch, classes, columns], 1.0, false);
        self.squares.add(gpu, answers, factor);
        let (d, answers) = (&mut *given.d_student[0], Matrix::rows(answers, classes));
        products(gpu, d, [answers, w], 1, [batch, columns, classes], 2.0 * factor, true);
        self.squares.end(gpu, true, given);
        Ok(())
    }
}
