//! Accuracy: the test part of the data, streamed through a model.

use serde::{Deserialize, Serialize};

use super::Job;
use crate::backend::Backend;
use crate::contract::Contract;
use crate::data::{Dataset, Sample, Source, Split};
use crate::error::{Refusal, Result};
use crate::graph::{ElementType, Tensor};

/// Samples that go through a model at once, if its batch size is open.
pub const BATCH: usize = 32;

/// Right answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Score {
    /// Samples whose largest output was their class.
    pub right: u64,
    /// Samples.
    pub n: u64,
}

/// Scores a model on the test part of its data: to be called in a child.
pub fn measure(job: &Job) -> Result<Score> {
    let (Some(contract), Some(data)) = (&job.contract, &job.data) else {
        return Err(Refusal::new("accuracy", "a contract and data", "none", "pass --contract and --data"));
    };
    let mut backend = job.load(BATCH)?;
    let mut score = Score { right: 0, n: 0 };
    let data = Source::parse(data)?.read_as(Some(contract)).open()?;
    predict(&mut *backend, contract, &*data, Split::Test, |label, predicted| {
        score.right += u64::from(label == predicted);
        score.n += 1;
    })?;
    Ok(score)
}

/// Streams one part of `data` through a model and tells `each` the label and the predicted class of every sample, in
/// order. The prediction is the first largest output. Refuses outputs that are not numbers.
pub fn predict(
    backend: &mut dyn Backend,
    contract: &Contract,
    data: &dyn Dataset,
    split: Split,
    mut each: impl FnMut(usize, usize),
) -> Result<()> {
    contract.check_data(data.description())?;
    let output = place(backend.output_names(), &contract.output.name, "output")?;
    place(backend.input_names(), &contract.input.name, "input")?;
    let elements = contract.input.elements();
    let fits = match backend.inputs() {
        [ty] => ty.element == ElementType::F32 && ty.shape.iter().skip(1).product::<usize>() == elements,
        _ => false,
    };
    if !fits {
        let expected = format!("one f32 input of {elements} elements a sample");
        let found: Vec<String> = backend.inputs().iter().map(|ty| format!("{} {:?}", ty.element, ty.shape)).collect();
        return Err(Refusal::new("model", expected, found.join(", "), "correct the contract"));
    }
    let shape = backend.inputs().first().map(|ty| ty.shape.clone()).unwrap_or_default();
    let batch = shape.first().copied().unwrap_or(1);
    let mut x = Tensor::zeros(ElementType::F32, &shape);
    let mut samples = data.read(split)?;
    let mut sample = Sample::default();
    let mut labels = Vec::with_capacity(batch);
    let mut more = true;
    while more {
        labels.clear();
        for row in x.get_mut::<f32>().unwrap_or_default().chunks_exact_mut(elements) {
            more = samples.next(&mut sample)?;
            if !more {
                break;
            }
            contract.prepare(&sample.values, row);
            labels.push(sample.label);
        }
        if labels.is_empty() {
            break;
        }
        // The last batch may be short: its tail keeps older samples, whose answers are not read.
        backend.feed(0, x.view())?;
        backend.run()?;
        let y = backend.output(output)?;
        let classes = contract.output.classes.len();
        let values = y.get::<f32>().filter(|values| values.len() == batch * classes).ok_or_else(|| {
            let expected = format!("f32 [{batch}, {classes}]");
            let found = format!("{} {:?}", y.element(), y.shape());
            Refusal::new(format!("output `{}`", contract.output.name), expected, found, "correct the contract")
        })?;
        for (&label, row) in labels.iter().zip(values.chunks_exact(classes)) {
            each(label, largest(row, &contract.output.name)?);
        }
    }
    Ok(())
}

/// The first largest of a row.
fn largest(row: &[f32], output: &str) -> Result<usize> {
    let mut best = 0;
    for (i, value) in row.iter().enumerate() {
        if value.is_nan() {
            return Err(Refusal::new(format!("output `{output}`"), "numbers", "NaN", "repair the model"));
        }
        if *value > row[best] {
            best = i;
        }
    }
    Ok(best)
}

fn place(names: &[String], name: &str, what: &str) -> Result<usize> {
    names.iter().position(|known| known == name).ok_or_else(|| {
        let expected = format!("one of the model's {what}s: {}", names.join(", "));
        Refusal::new(format!("contract {what}.name"), expected, format!("`{name}`"), "correct the contract")
    })
}
