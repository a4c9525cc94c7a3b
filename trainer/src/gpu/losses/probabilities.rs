//! Probabilities that are compared over samples and over classes.

use kd_runtime::Result;

use super::kd::{Form, soft_targets};
use super::relations::total;
use super::{Answers, Given, Part, Seen, groups, make_room};
use crate::gpu::Args;
use crate::losses::rows::Reduction;
use crate::ops::kernels::buffer::Buffer;

/// What these losses keep on a GPU.
#[derive(Default)]
pub struct Probabilities {
    /// Of the student and of the teacher.
    sides: [Buffer<f64>; 2],
    /// The gradient by the student's.
    slopes: Buffer<f64>,
    /// Differences of the products of all samples, or of all classes.
    grams: Buffer<f64>,
    sums: Buffer<f64>,
}

impl Probabilities {
    /// As [`correlations`](crate::losses::dist::correlations), both parts weighted and together.
    pub fn correlations(
        &mut self,
        seen: &Seen<'_>,
        classes: usize,
        temperature: f64,
        factors: [f64; 2],
        given: &mut Given<'_>,
    ) -> Result<()> {
        let (gpu, samples) = (seen.gpu, seen.batch.size);
        let answers = Answers::of(seen, classes);
        self.load(seen, answers, temperature)?;
        make_room(gpu, &mut self.sums, samples + classes)?;
        let Self { sides: [s, t], slopes, sums, .. } = self;
        for (of_classes, factor) in [false, true].into_iter().zip(factors) {
            let (from, count) = if of_classes { (samples, classes) } else { (0, samples) };
            let lacking = &mut sums.raw_mut()[from..from + count];
            let args = Args::none().read(s.raw()).read(t.raw()).write(slopes.raw_mut()).write(lacking);
            let args = args.number(samples).number(classes).flag(of_classes).float((factor / count as f64) as f32);
            // SAFETY: correlation: matrices [samples, classes], a sum for each group.
            unsafe { gpu.groups("correlation", count, &args) };
        }
        total(gpu, &self.sums, samples + classes, 1, false, given);
        self.give(seen, answers, temperature, false, given);
        Ok(())
    }

    /// The sum of all three parts of [`alignment`](crate::losses::mlkd::alignment) at these temperatures.
    pub fn alignment(
        &mut self,
        seen: &Seen<'_>,
        classes: usize,
        temperatures: &[f64],
        given: &mut Given<'_>,
    ) -> Result<()> {
        let (gpu, samples) = (seen.gpu, seen.batch.size);
        let answers = Answers::of(seen, classes);
        let most = samples.max(classes);
        make_room(gpu, &mut self.grams, most * most)?;
        make_room(gpu, &mut self.sums, 2 * groups(most * most))?;
        for (i, &temperature) in temperatures.iter().enumerate() {
            let reduction = Reduction::BatchMean;
            let form = Form { temperature: temperature as f32, reduction, tau2: true, standardize: false };
            soft_targets(seen, answers, form, Part { weight: 1.0, add: i > 0 }, given);
            self.load(seen, answers, temperature)?;
            let Self { sides: [s, t], slopes, grams, sums } = self;
            let mut from = 0;
            for of_classes in [false, true] {
                let n = if of_classes { classes } else { samples };
                let count = groups(n * n);
                let squares = &mut sums.raw_mut()[from..from + count];
                let args = Args::none().read(s.raw()).read(t.raw()).write(grams.raw_mut()).write(squares);
                let args = args.number(samples).number(classes).flag(of_classes).float(1.0 / n as f32);
                // SAFETY: gram_differences: matrices [samples, classes], a number for each pair, a sum for each group.
                unsafe { gpu.groups("gram_differences", count, &args) };
                let args = Args::none().read(s.raw()).read(grams.raw()).write(slopes.raw_mut());
                let args = args.number(samples).number(classes).flag(of_classes).float(4.0 / n as f32);
                // SAFETY: gram_slopes: matrices [samples, classes], a number for each pair.
                unsafe { gpu.each("gram_slopes", samples * classes, &args) };
                from += count;
            }
            total(gpu, &self.sums, from, 1, true, given);
            self.give(seen, answers, temperature, true, given);
        }
        Ok(())
    }

    /// Computes both sides' probabilities, and sees that there is room for the gradient by them.
    fn load(&mut self, seen: &Seen<'_>, answers: Answers<'_>, temperature: f64) -> Result<()> {
        let Answers { student, teacher, classes, .. } = answers;
        let (gpu, samples) = (seen.gpu, seen.batch.size);
        let n = samples * classes;
        assert!([student.len(), teacher.len()] == [n; 2], "a row for each sample");
        for (side, logits) in self.sides.iter_mut().zip([student, teacher]) {
            make_room(gpu, side, n)?;
            let args = Args::none().read(logits).write(side.raw_mut()).number(classes).float(temperature as f32);
            // SAFETY: probabilities: a row for each sample.
            unsafe { gpu.groups("probabilities", samples, &args) };
        }
        make_room(gpu, &mut self.slopes, n)
    }

    /// From the gradient by the student's probabilities to that by its logits, which is added or takes the place of
    /// what is there.
    fn give(&self, seen: &Seen<'_>, answers: Answers<'_>, temperature: f64, add: bool, given: &mut Given<'_>) {
        let (d, samples) = (&mut *given.d_student[answers.tap], seen.batch.size);
        assert_eq!(d.len(), samples * answers.classes, "a row for each sample");
        let args = Args::none().read(self.sides[0].raw()).read(self.slopes.raw()).write(d).number(answers.classes);
        let args = args.flag(add).float(temperature as f32);
        // SAFETY: through_probabilities: a row for each sample.
        unsafe { seen.gpu.groups("through_probabilities", samples, &args) };
    }
}
