//! Soft targets.

use super::{Answers, Given, Part, Seen};
use crate::gpu::Args;
use crate::losses::rows::Reduction;

/// What is computed.
#[derive(Clone, Copy, Debug)]
pub struct Form {
    /// What both logits are divided by.
    pub temperature: f32,
    /// How the rows' values become one.
    pub reduction: Reduction,
    /// Whether to multiply by temperature².
    pub tau2: bool,
    /// Whether rows are replaced by their z-scores first.
    pub standardize: bool,
}

/// As [`soft_targets`](crate::losses::kd::soft_targets), of z-scores where the form says so.
pub fn soft_targets(seen: &Seen<'_>, answers: Answers<'_>, form: Form, part: Part, given: &mut Given<'_>) {
    let Form { temperature, reduction, tau2, standardize } = form;
    assert!(!(standardize && part.add), "z-scores have their gradient alone");
    let scale = reduction.factor(seen.batch.size, answers.classes) as f32;
    let scale = part.weight * scale * if tau2 { temperature * temperature } else { 1.0 };
    rows("soft_targets", seen, answers, standardize, [1.0 / temperature, scale], part, given);
}

/// The mean of the samples' [`weighted_cross_entropy`](crate::losses::rows::weighted_cross_entropy) with the teacher's softened
/// answers, times `scale`.
pub fn soft_cross_entropy(
    seen: &Seen<'_>,
    answers: Answers<'_>,
    [temperature, scale]: [f32; 2],
    part: Part,
    given: &mut Given<'_>,
) {
    let scale = part.weight * scale / seen.batch.size as f32;
    rows("soft_cross_entropy", seen, answers, false, [1.0 / temperature, scale], part, given);
}

/// The mean of the samples' squared differences of probabilities.
pub fn probability_regression(seen: &Seen<'_>, answers: Answers<'_>, given: &mut Given<'_>) {
    let scale = 1.0 / seen.batch.size as f32;
    rows("soft_cross_entropy", seen, answers, true, [1.0, scale], Part::WHOLE, given);
}

/// Queues a kernel of kd.cu, whose second float is the factor of its value too.
fn rows(
    kernel: &'static str,
    seen: &Seen<'_>,
    answers: Answers<'_>,
    flag: bool,
    floats: [f32; 2],
    part: Part,
    given: &mut Given<'_>,
) {
    let Answers { tap, student, teacher, classes } = answers;
    let (d, rows) = (&mut *given.d_student[tap], seen.batch.size);
    assert!([student.len(), teacher.len(), d.len()] == [rows * classes; 3], "a row for each sample");
    assert!(given.sums.len() >= rows, "a sum for each sample");
    let args = Args::none().read(student).read(teacher).write(d).write(given.sums).number(classes);
    let args = args.flag(flag).flag(part.add).float(floats[0]).float(floats[1]);
    // SAFETY: kd.cu: arrays of these shapes.
    unsafe { seen.gpu.groups(kernel, rows, &args) };
    given.total(seen.gpu, rows, floats[1], part.add);
}

#[cfg(test)]
mod tests {
    use crate::gpu::emulated::Emulated;
    use crate::gpu::losses::{Answers, Given, Part, SUMS, Seen, kd};
    use crate::losses::Batch;
    use crate::losses::kd::{soft_targets, standardize, standardize_backward};
    use crate::losses::rows::Reduction;
    use crate::ops::kernels::buffer::Buffer;

    fn host(student: &[f32], teacher: &[f32]) -> (f32, Vec<f32>) {
        let (mut z_s, mut z_t, mut d) = (student.to_vec(), teacher.to_vec(), vec![0.0; 10]);
        let deviations = standardize(&mut z_s, 10);
        standardize(&mut z_t, 10);
        let value = soft_targets(&z_s, &z_t, 10, 2.0, Reduction::BatchMean, true, &mut d);
        standardize_backward(&z_s, &deviations, 10, &mut d);
        (value, d)
    }

    #[test]
    fn the_kernel_takes_the_same_rows_for_equal() {
        let gpu = Emulated::gpu(false);
        let rows: Vec<f32> = (0..10).map(|k| k as f32).collect();
        let nearly = |off: f32| (0..10).map(|k| if k == 3 { 0.1 + off } else { 0.1 }).collect::<Vec<f32>>();
        for (student, teacher) in
            [(&nearly(0.0), &rows), (&rows, &nearly(0.0)), (&nearly(1e-8), &rows), (&nearly(1e-3), &rows)]
        {
            let (expected, d_expected) = host(student, teacher);
            let [s, t] = [student, teacher].map(|x| Buffer::moved(&gpu, x).unwrap());
            let [mut d, mut sums, mut value] = [10, SUMS, 1].map(|n| Buffer::on(&gpu, n).unwrap());
            let batch = Batch { size: 1, labels: &[0], mixed: &[], places: &[0], progress: 0.0 };
            let (student, teacher) = ([s.raw()], [t.raw()]);
            let seen = Seen { gpu: &gpu, batch: &batch, targets: &[], student: &student, teacher: &teacher };
            let mut d_student = [d.raw_mut()];
            let mut given = Given { d_student: &mut d_student, sums: sums.raw_mut(), value: value.raw_mut() };
            let reduction = Reduction::BatchMean;
            let form = kd::Form { temperature: 2.0, reduction, tau2: true, standardize: true };
            kd::soft_targets(&seen, Answers::of(&seen, 10), form, Part::WHOLE, &mut given);
            let (found, d_found) = (value[0], d.to_vec());
            gpu.wait().unwrap();
            let largest = d_expected.iter().fold(1e-6_f32, |most, d| most.max(d.abs()));
            let is_same = d_found.iter().zip(&d_expected).all(|(a, b)| (a - b).abs() <= 1e-4 * largest);
            assert!((found - expected).abs() < 1e-5 && is_same, "{found} {expected} {d_found:?} {d_expected:?}");
            assert!(d_expected[0] != 0.0 || d_found == d_expected, "{d_found:?}");
        }
    }
}
