//! Flow of a solution procedure: how features of one stage meet those of the next.

use std::cell::RefCell;

use kd_runtime::{Refusal, Result};

use super::adapters::{CONNECTOR, Connector, connect_all, student, teacher};
use super::joint::{check, map};
use super::maps::{Map, average_pool, average_pool_back};
use super::{Batch, Knowledge, Loss, Method, Pair, Weight};
use crate::exec::{Parameter, Real};
use crate::gpu;
use crate::gpu::ops::maps::fill;
use crate::ops::kernels::gemm::{Matrix, multiply};
use crate::options::{Kind, Options, Spec};

/// The row of `fsp`.
pub static METHOD: Method = Method {
    name: "fsp",
    about: "flow between stages: products of features",
    cite: "Yim et al. 2017",
    knowledge: Knowledge::Feature,
    needs_labels: false,
    needs_whole_batch: false,
    formula: "Of each tap and the next `mean (G_s - G_t)²` over batch and both sets of channels, `G = Σ_places a_c · b_d / places`: \
        the features of one stage times those of the next, the larger map averaged to the smaller one. Summed over the \
        neighbors. The paper has the sum over channels instead (`form = \"paper\"`).\n\n\
        Both networks need the same channels; where they differ the student's go through a 1x1 convolution with bias. It \
        initializes: `stage = \"init\"` with `init_epochs` above 0, then the labels alone or `kd`.",
    source: "Yim, Joo, Bae, Kim 2017 (CVPR) eq. 1, 2",
    weight: Weight { usual: 50.0, source: "RepDistiller", forms: &[("form", "paper", 1.0)] },
    recipe: "init_epochs = 5\nterms = [{ method = \"fsp\", stage = \"init\" }, { method = \"kd\" }]\n",
    options: OPTIONS,
    build,
};

/// Options of the method `fsp`.
pub static OPTIONS: &[Spec] = &[
    student("stages"),
    teacher("stages"),
    Spec {
        name: "form",
        about: "mean over both sets of channels (`mean`) or their sum (`paper`)",
        kind: Kind::Choice { default: "mean", known: &["mean", "paper"] },
    },
    CONNECTOR,
];

/// Two maps of one network, one behind the other.
#[derive(Clone, Copy, Debug)]
pub struct Flow {
    /// The earlier one.
    pub from: Map,
    /// The later one.
    pub to: Map,
}

impl Flow {
    /// Both at the smaller resolution along each axis.
    pub fn met(&self) -> Self {
        let (height, width) = (self.from.height.min(self.to.height), self.from.width.min(self.to.width));
        Self { from: self.from.resized(height, width), to: self.to.resized(height, width) }
    }
}

/// One of the two at the places they have in common.
fn pooled<'a, T: Real>(x: &'a [T], map: Map, to: Map, spare: &'a mut Vec<T>) -> &'a [T] {
    if map == to {
        return x;
    }
    spare.resize(to.elements(), T::ZERO);
    average_pool(x, map, to, spare);
    spare
}

/// `factor · Σ (G_s - G_t)²`, `G` `[from.channels, to.channels]` the mean over places of the products.
///
/// * `student`, `teacher`: of each network the earlier and the later map, `[batch, channels, places]`; channels as the other's.
/// * `d_student`: of the two; the gradient is ADDED, so that a map can take part in two flows.
///
/// Source: Yim et al. 2017 eq. 1, 2.
pub fn flow_distance<T: Real>(
    student: [&[T]; 2],
    teacher: [&[T]; 2],
    flows: [Flow; 2],
    factor: T,
    d_student: [&mut [T]; 2],
) -> T {
    let [ours, theirs] = flows;
    let (at, at_teacher) = (ours.met(), theirs.met());
    let (m, n) = (at.from.channels, at.to.channels);
    let mut spare: [Vec<T>; 4] = Default::default();
    let [spare_a, spare_b, d_part, d_map] = &mut spare;
    let mut g = vec![T::ZERO; m * n];
    let mut total = 0.0;
    let batch = student[0].len() / ours.from.elements().max(1);
    let [d_a, d_b] = d_student;
    for i in 0..batch {
        let of = |flow: &Flow| [flow.from, flow.to].map(|map| i * map.elements()..(i + 1) * map.elements());
        let [a, b] = of(&theirs);
        let k = at_teacher.from.places();
        let a = pooled(&teacher[0][a], theirs.from, at_teacher.from, spare_a);
        let b = pooled(&teacher[1][b], theirs.to, at_teacher.to, spare_b);
        multiply(&mut g, Matrix::rows(a, k), Matrix::rows(b, k).t(), [m, n, k], -T::ONE / T::from_usize(k), false);
        let [a_at, b_at] = of(&ours);
        let k = at.from.places();
        let share = T::ONE / T::from_usize(k);
        let a = pooled(&student[0][a_at.clone()], ours.from, at.from, spare_a);
        let b = pooled(&student[1][b_at.clone()], ours.to, at.to, spare_b);
        multiply(&mut g, Matrix::rows(a, k), Matrix::rows(b, k).t(), [m, n, k], share, true);
        total += g.iter().map(|g| g.to_f64() * g.to_f64()).sum::<f64>();
        let rate = (factor + factor) * share;
        let sides = [
            (Matrix::rows(&g, n), b, m, n, ours.from, at.from, &mut d_a[a_at]),
            (Matrix::rows(&g, n).t(), a, n, m, ours.to, at.to, &mut d_b[b_at]),
        ];
        for (g, other, rows, inner, map, to, d) in sides {
            d_part.resize(rows * k, T::ZERO);
            multiply(d_part, g, Matrix::rows(other, k), [rows, k, inner], rate, false);
            let d_part: &[T] = if map == to {
                d_part
            } else {
                d_map.resize(map.elements(), T::ZERO);
                average_pool_back(d_part, map, to, d_map);
                d_map
            };
            d.iter_mut().zip(d_part).for_each(|(d, &part)| *d += part);
        }
    }
    T::from_f64(total) * factor
}

struct Flows {
    student: Vec<String>,
    teacher: Vec<String>,
    maps: Vec<[Map; 2]>,
    paper: bool,
    kept: RefCell<gpu::losses::fsp::Flows>,
}

/// The method `fsp`.
fn build(options: &Options, pair: &mut Pair<'_>) -> Result<Box<dyn Loss>> {
    let taps = pair.taps(options.text("student"), options.text("teacher"))?;
    if taps.len() < 2 {
        let action = "name them with commas between, or choose another method";
        return Err(Refusal::new("fsp", "at least 2 taps of each network, one behind the other", taps.len(), action));
    }
    let taps = connect_all(pair, options, taps, Connector::LINEAR)?;
    let (paper, kept) = (options.text("form") == "paper", RefCell::default());
    let mut loss = Flows { student: vec![], teacher: vec![], maps: vec![], paper, kept };
    for (s, t) in taps {
        loss.maps.push([map(&s, false)?, map(&t, false)?]);
        loss.student.push(s.name);
        loss.teacher.push(t.name);
    }
    Ok(Box::new(loss))
}

impl Flows {
    /// Refuses values of another shape than the taps had when the method was built.
    fn check(&self, student: &[&[f32]], teacher: &[&[f32]], batch: &Batch<'_>) -> Result<()> {
        for (i, [s, t]) in self.maps.iter().enumerate() {
            check(&self.student[i], student[i], batch, *s)?;
            check(&self.teacher[i], teacher[i], batch, *t)?;
        }
        Ok(())
    }

    /// What leads to tap number `i`, of the student and of the teacher, and what its sum is multiplied by.
    fn flow(&self, i: usize, batch: usize) -> ([Flow; 2], f32) {
        let flows = [0, 1].map(|side| Flow { from: self.maps[i - 1][side], to: self.maps[i][side] });
        let cells = if self.paper { 1 } else { flows[0].from.channels * flows[0].to.channels };
        (flows, 1.0 / (batch * cells) as f32)
    }
}

impl gpu::losses::Kernel for Flows {
    fn value(&self, seen: &gpu::losses::Seen<'_>, given: &mut gpu::losses::Given<'_>) -> Result<()> {
        let &gpu::losses::Seen { gpu, batch, student, teacher, .. } = seen;
        self.check(student, teacher, batch)?;
        given.d_student.iter_mut().for_each(|d| fill(gpu, &mut d[..], 0.0));
        for i in 1..self.maps.len() {
            let (flows, factor) = self.flow(i, batch.size);
            let sides = [student, teacher].map(|taps| [taps[i - 1], taps[i]]);
            self.kept.borrow_mut().distance(gpu, i, sides, flows, factor, given)?;
        }
        Ok(())
    }
}

impl Loss for Flows {
    fn student_taps(&self) -> &[String] {
        &self.student
    }

    fn teacher_taps(&self) -> &[String] {
        &self.teacher
    }

    fn on_gpu(&self) -> Option<&dyn gpu::losses::Kernel> {
        Some(self)
    }

    fn value(
        &mut self,
        batch: &Batch<'_>,
        student: &[&[f32]],
        teacher: &[&[f32]],
        d_student: &mut [&mut [f32]],
        _own: &mut [Parameter<f32>],
    ) -> Result<f32> {
        self.check(student, teacher, batch)?;
        d_student.iter_mut().for_each(|d| d.fill(0.0));
        let mut total = 0.0;
        for i in 1..self.maps.len() {
            let (flows, factor) = self.flow(i, batch.size);
            let (before, after) = d_student.split_at_mut(i);
            let gradients = [&mut *before[i - 1], &mut *after[0]];
            total +=
                flow_distance([student[i - 1], student[i]], [teacher[i - 1], teacher[i]], flows, factor, gradients);
        }
        Ok(total)
    }
}
