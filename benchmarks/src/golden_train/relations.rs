//! Distillation losses over pairs and triples of samples, in f64 and in f32.

use kd_trainer::exec::Real;
use kd_trainer::losses::cc::{consecutive, kernels};
use kd_trainer::losses::crd::{Contrast, remember};
use kd_trainer::losses::{embed, pkt, rkd_a, rkd_d, sp};

use super::distill::{Found, found, number, places, rows, word};
use super::{Case, Failure};

/// A loss of one value of each side.
fn of_both<T: Real>(case: &Case, loss: impl Fn([&[T]; 2], [usize; 2], &mut [T]) -> f64) -> Result<Found<T>, Failure> {
    let ((student, ours), (teacher, theirs)) = (rows::<T>(case, "student")?, rows::<T>(case, "teacher")?);
    let mut d = vec![T::ZERO; student.len()];
    let value = loss([&student, &teacher], [ours, theirs], &mut d);
    Ok(found([("loss", &[T::from_f64(value)]), ("grad.student", &d)]))
}

fn reduction(case: &Case) -> String {
    word(case, "reduction").replace("mean_n2", "mean").replace("mean_n3", "mean")
}

pub fn rkd_d<T: Real>(case: &Case) -> Result<Found<T>, Failure> {
    let (mu, clamp) = (word(case, "mu").to_string(), word(case, "zero") == "clamp");
    let form = rkd_d::Form { mu, clamp, reduction: reduction(case), l2norm: false };
    of_both(case, |sides, columns, d| rkd_d::distances(sides, columns, &form, d))
}

pub fn rkd_a<T: Real>(case: &Case) -> Result<Found<T>, Failure> {
    let official_zero = word(case, "zero") == "clamp";
    let form = rkd_a::Form { official_zero, reduction: reduction(case), l2norm: false };
    of_both(case, |sides, columns, d| rkd_a::angles(sides, columns, &form, d))
}

/// Both with weights.
pub fn rkd<T: Real>(case: &Case) -> Result<Found<T>, Failure> {
    let distances = rkd_d::Form { mu: "distinct".into(), clamp: true, reduction: "mean".into(), l2norm: false };
    let angles = rkd_a::Form { official_zero: false, reduction: "mean".into(), l2norm: false };
    let weights = [number(case, "w_d")?, number(case, "w_a")?];
    of_both(case, |sides, columns, d| {
        let mut d_angles = vec![T::ZERO; d.len()];
        let value = weights[0] * rkd_d::distances(sides, columns, &distances, d)
            + weights[1] * rkd_a::angles(sides, columns, &angles, &mut d_angles);
        let [by_distance, by_angle] = weights.map(T::from_f64);
        d.iter_mut().zip(&d_angles).for_each(|(d, &a)| *d = by_distance * *d + by_angle * a);
        value
    })
}

pub fn sp<T: Real>(case: &Case) -> Result<Found<T>, Failure> {
    of_both(case, sp::similarities)
}

pub fn pkt<T: Real>(case: &Case) -> Result<Found<T>, Failure> {
    of_both(case, pkt::probabilistic)
}

pub fn cc<T: Real>(case: &Case) -> Result<Found<T>, Failure> {
    of_both(case, |[student, teacher]: [&[T]; 2], [columns, _], d| consecutive(student, teacher, columns, d).to_f64())
}

pub fn cc_paper<T: Real>(case: &Case) -> Result<Found<T>, Failure> {
    let (gamma, order) = (number(case, "gamma")?, number(case, "order")? as usize);
    of_both(case, |sides, columns, d| kernels(sides, columns, gamma, order, d))
}

/// Both halves with their embeddings; the memories and the normalisers afterwards.
pub fn crd<T: Real>(case: &Case) -> Result<Found<T>, Failure> {
    let (ours, theirs) = (rows::<T>(case, "f_s")?, rows::<T>(case, "f_t")?);
    let array = |name: &str| -> Result<Vec<T>, Failure> { Ok(case.get(name)?.cast()) };
    let [w_s, b_s, w_t, b_t] = [array("w_s")?, array("b_s")?, array("w_t")?, array("b_t")?];
    let (mut memory_s, mut memory_t) = (array("mem_s")?, array("mem_t")?);
    let (own, drawn) = (places(case, "idx")?, places(case, "contrast_idx")?);
    let samples = number(case, "n_data")? as usize;
    let contrast = Contrast { places: &drawn, samples, temperature: number(case, "temp")? };
    let columns = b_s.len();
    let mut z = [number(case, "z_s")?, number(case, "z_t")?];
    let (v_s, v_t) = (embed::forward(&ours.0, &w_s, &b_s), embed::forward(&theirs.0, &w_t, &b_t));
    let (mut d_s, mut d_t) = (vec![T::ZERO; v_s.len()], vec![T::ZERO; v_t.len()]);
    let (first, units_s) = contrast.half(&v_s, &memory_t, columns, &mut z[0], &mut d_s);
    let (second, units_t) = contrast.half(&v_t, &memory_s, columns, &mut z[1], &mut d_t);
    let momentum = number(case, "momentum")?;
    remember(&mut memory_s, &own, &units_s, columns, momentum);
    remember(&mut memory_t, &own, &units_t, columns, momentum);
    let mut all = found([("loss", &[T::from_f64(first + second)][..]), ("out.mem_s", &memory_s)]);
    all.extend(found([("out.mem_t", &memory_t[..]), ("out.z", &z.map(T::from_f64))]));
    for (side, x, w, d) in [("s", &ours, &w_s, &d_s), ("t", &theirs, &w_t, &d_t)] {
        let (mut d_w, mut d_b) = (vec![T::ZERO; w.len()], vec![T::ZERO; columns]);
        embed::backward(&x.0, d, &mut d_w, &mut d_b);
        all.extend([(format!("grad.w_{side}"), d_w), (format!("grad.b_{side}"), d_b)]);
    }
    let inputs = ours.1;
    let by_feature = |i: usize| {
        let (row, column) = (i / inputs, i % inputs);
        (0..columns).fold(T::ZERO, |sum, j| sum + d_s[row * columns + j] * w_s[j * inputs + column])
    };
    all.push(("grad.f_s".into(), (0..ours.0.len()).map(by_feature).collect()));
    Ok(all)
}
