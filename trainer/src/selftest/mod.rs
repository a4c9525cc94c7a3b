//! A device beside this machine: every operator in f32 against the host in f64, each step twice for the same bits, losses that it
//! computes, and short training runs.

pub(crate) mod learning;
mod losses;

use std::collections::BTreeMap;

use kd_runtime::Result;
use kd_runtime::contract::{Contract, Meaning};
use kd_runtime::data::Description;
use serde::Serialize;

use crate::exec::cases::{Case, noise};
use crate::exec::{Compute, Executor, Mode, Plan, Real};
use crate::gpu::{Convolutions, Gpu, Precision, table};
use crate::ops;
use crate::zoo::Site;

pub use learning::{Learning, learning};
pub use losses::losses;

/// How far a device may be from f64, relative to the largest element of an array: what sums of some thousand products lose; under
/// tf32, with 11 bits of each factor.
pub fn bound(precision: Precision) -> f64 {
    match precision {
        Precision::F32 => 2e-5,
        Precision::Tf32 => 5e-3,
    }
}

/// Batches of the steps that are compared.
const BATCHES: [usize; 2] = [1, 7];

/// What is printed; schema `kd.selftest/2`.
#[derive(Debug, Serialize)]
pub struct Report {
    /// `kd.selftest/2`.
    pub schema: &'static str,
    /// What was tested.
    pub device: String,
    /// Allowed deviation of operators.
    pub bound: f64,
    /// One for each differentiable operator.
    pub operators: Vec<Line>,
    /// One for each loss that has kernels.
    pub losses: Vec<Line>,
    /// Steps of training.
    pub learning: Vec<Learning>,
    /// Who has done the convolutions of all these on a GPU.
    pub convolutions: Option<Convolutions>,
}

/// One operator, or loss.
#[derive(Debug, Default, Serialize)]
pub struct Line {
    /// Its name.
    pub op: &'static str,
    /// Where it is computed: `cpu`, or `gpu`.
    pub on: &'static str,
    /// Networks, or options, that were tried.
    pub cases: usize,
    /// The largest deviation of any value or gradient, relative to the largest of its array.
    pub worst: f64,
    /// What deviates too much, or has other bits the second time.
    pub failed: Vec<String>,
}

impl Report {
    /// Tests a device by these networks.
    pub fn of(compute: Compute<'_>, cases: &[Case]) -> Result<Self> {
        Ok(Self {
            schema: "kd.selftest/2",
            device: compute.gpu.map_or("cpu".into(), |gpu| gpu.name()),
            bound: bound(precision_of(compute)),
            operators: operators(compute, cases)?,
            losses: compute.gpu.map_or(Ok(vec![]), losses)?,
            learning: learning(compute)?,
            convolutions: compute.gpu.map(Gpu::convolutions),
        })
    }

    /// What failed, a line each.
    pub fn failures(&self) -> Vec<String> {
        let lines = self.operators.iter().chain(&self.losses).flat_map(|line| line.failed.iter().cloned());
        lines.chain(self.learning.iter().filter_map(Learning::failure)).collect()
    }
}

/// The contract of networks for images of a site.
fn contract(site: &Site) -> Contract {
    let description = Description {
        shape: site.input.clone(),
        layout: "CHW".into(),
        classes: (0..site.classes).map(|class| class.to_string()).collect(),
        raw_max: Some(1.0),
        n_train: 0,
        n_test: 0,
        sha256: String::new(),
        reading: None,
    };
    Contract::for_data(&description, "x", "logits", Meaning::Logits)
}

/// The largest of some deviations; NaN where one is.
fn worst(all: impl Iterator<Item = f64>) -> f64 {
    all.fold(0.0, |a, b| if b > a || b.is_nan() { b } else { a })
}

fn precision_of(compute: Compute<'_>) -> Precision {
    compute.gpu.map_or(Precision::F32, Gpu::precision)
}

/// Every operator of the table, by networks around it.
pub(crate) fn operators(compute: Compute<'_>, cases: &[Case]) -> Result<Vec<Line>> {
    let mut lines: BTreeMap<&'static str, Line> = BTreeMap::new();
    for &op in ops::table::NAMES {
        let on = if compute.gpu.is_some() && table::NAMES.contains(&op) { "gpu" } else { "cpu" };
        lines.insert(op, Line { op, on, ..Line::default() });
    }
    for case in cases {
        let Some(line) = lines.get_mut(case.op) else { continue };
        line.cases += 1;
        for batch in BATCHES {
            // Batch statistics of one element have no gradient: everything is 0.
            if batch == 1 && case.about == "of vectors" {
                continue;
            }
            for mode in [Mode::Train { seed: 5 }, Mode::Eval] {
                compare(case, batch, mode, compute, line)?;
            }
        }
    }
    Ok(lines.into_values().collect())
}

/// One step of a case on the device, twice, and on the host.
fn compare(case: &Case, batch: usize, mode: Mode, compute: Compute<'_>, line: &mut Line) -> Result<()> {
    let expected = step::<f64>(case, batch, mode, Compute::host(compute.threads))?;
    let (found, again) = (step::<f32>(case, batch, mode, compute)?, step::<f32>(case, batch, mode, compute)?);
    let place = format!("{} ({}), batch {batch}, {mode:?}", case.op, case.about);
    if found != again {
        line.failed.push(format!("{place}: other bits the second time"));
    }
    for ((name, expected), (_, found)) in expected.iter().zip(&found) {
        // What cancels keeps the rounding of its terms.
        let scale = expected.iter().fold(1e-2_f64, |a, b| a.max(b.abs()));
        let off = expected.iter().zip(found).map(|(e, f)| (e - f).abs() / scale).fold(0.0, f64::max);
        let is_whole = found.len() == expected.len() && found.iter().all(|f| f.is_finite());
        line.worst = line.worst.max(off);
        if off > bound(precision_of(compute)) || !is_whole {
            line.failed.push(format!("{place}, {name}: off by {off:.1e} of its largest element"));
        }
    }
    Ok(())
}

/// Output, parameters (running statistics among them) and gradients after one step, by name.
fn step<T: Real>(case: &Case, batch: usize, mode: Mode, compute: Compute<'_>) -> Result<Vec<(String, Vec<f64>)>> {
    let Compute { threads, gpu } = compute;
    let plan = Plan { batch, taps: vec![], backward: true, threads, gpu: gpu.cloned() };
    let mut executor = Executor::<T>::new(&case.graph, &plan)?;
    // Both floats hold these.
    let exact = |place, n| -> Vec<T> { noise(place, n).into_iter().map(|v| T::from_f32(v as f32)).collect() };
    let wide = |all: &[T]| all.iter().map(|v| v.to_f64()).collect::<Vec<_>>();
    let output = case.graph.outputs[0];
    executor.forward(&exact(1, batch * 3), batch, mode)?;
    let y = executor.value(output).to_vec();
    executor.backward(&[(output, &exact(2, y.len()))])?;
    let mut all = vec![("output".to_string(), wide(&y))];
    for parameter in executor.parameters() {
        all.push((parameter.name.clone(), wide(&parameter.value)));
        all.push((format!("gradient of {}", parameter.name), wide(&parameter.gradient)));
    }
    Ok(all)
}
