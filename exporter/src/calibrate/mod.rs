//! What values a network's floats take: streamed over samples, memory independent of their number. ONE FILE PER METHOD;
//! [`table`] lists them.

pub mod table;

mod minmax;
mod percentile;

use std::collections::BTreeMap;

use kd_runtime::contract::Contract;
use kd_runtime::data::{Dataset, Sample, Samples, Split};
use kd_runtime::engine::Engine;
use kd_runtime::graph::{ElementType, Graph, ValueId};
use kd_runtime::{Refusal, Result};

/// The interval that a value's quantization must hold; contains 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    /// Smallest.
    pub min: f32,
    /// Largest.
    pub max: f32,
}

/// What calibration found.
#[derive(Clone, Debug, PartialEq)]
pub struct Calibration {
    /// For every float value that a node computes, and every float input.
    pub ranges: BTreeMap<ValueId, Range>,
    /// Samples that were run.
    pub samples: usize,
    /// Name of the method.
    pub method: &'static str,
}

/// Looks at all elements of one value, batch by batch, in one or more passes over the same samples.
pub trait Observer {
    /// Elements of one sample, in pass `pass`.
    fn see(&mut self, pass: usize, values: &[f32]);
    /// The range that was found; anything that holds 0.
    fn range(&self) -> Range;
}

/// A row of the table of methods.
pub struct Method {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it is, on one line.
    pub about: &'static str,
    /// Passes over the samples.
    pub passes: usize,
    /// An observer of one value.
    pub new: fn() -> Box<dyn Observer>,
}

/// Runs the training part of `data` (at most `most` samples, spread evenly) through the float network and finds ranges.
/// Refuses values that are no numbers, naming them.
pub fn calibrate(
    graph: &Graph,
    contract: &Contract,
    data: &dyn Dataset,
    method: &str,
    most: usize,
) -> Result<Calibration> {
    contract.check_model(graph)?;
    contract.check_data(data.description())?;
    let method = table::find(method)?;
    let mut watched = Watched::new(graph)?;
    let mut observers: Vec<Box<dyn Observer>> = watched.ids.iter().map(|_| (method.new)()).collect();
    let mut samples = 0;
    for pass in 0..method.passes {
        let mut picked = Picked::new(data, most)?;
        samples = 0;
        while let Some(sample) = picked.next()? {
            contract.prepare(&sample.values, watched.engine.input_mut(0).get::<f32>());
            watched.engine.run()?;
            for (i, observer) in observers.iter_mut().enumerate() {
                let view = watched.engine.output(i);
                let values = view.get::<f32>();
                if let Some(place) = values.iter().position(|x| !x.is_finite()) {
                    let at = format!("value `{}`", graph.value(watched.ids[i]).name);
                    let found = format!("{} at element {place} of a training sample", values[place]);
                    return Err(Refusal::new(at, "finite numbers", found, "repair the model or its contract"));
                }
                observer.see(pass, values);
            }
            samples += 1;
        }
    }
    let ranges = watched.ids.iter().zip(&observers).map(|(&id, observer)| (id, observer.range()));
    Ok(Calibration { ranges: ranges.collect(), samples, method: method.name })
}

/// An engine for one sample whose outputs are all float values of a graph.
struct Watched {
    engine: Engine,
    ids: Vec<ValueId>,
}

impl Watched {
    fn new(graph: &Graph) -> Result<Self> {
        let is_float = |id: &ValueId| graph.value(*id).element == ElementType::F32;
        let mut ids: Vec<ValueId> = graph.inputs.iter().copied().filter(is_float).collect();
        ids.extend(graph.nodes.iter().flat_map(|node| node.outputs.iter().copied()).filter(is_float));
        let mut all = graph.clone();
        all.outputs = ids.clone();
        let batch =
            graph.inputs.first().map_or(1, |&id| if graph.value(id).shape.has_batch() { 1 } else { usize::MAX });
        let fixed = graph.inputs.first().and_then(|&id| graph.value(id).shape.bind(1).first().copied()).unwrap_or(1);
        if batch == usize::MAX && fixed != 1 {
            let found = format!("a fixed batch of {fixed}");
            return Err(Refusal::new("model", "an open batch, or one of 1", found, "export it with an open batch"));
        }
        Ok(Self { engine: Engine::new(&all, 1)?, ids })
    }
}

/// At most so many samples of the training part, spread evenly, in order.
struct Picked {
    samples: Box<dyn Samples>,
    sample: Sample,
    total: usize,
    most: usize,
    seen: usize,
}

impl Picked {
    fn new(data: &dyn Dataset, most: usize) -> Result<Self> {
        let total = data.description().n_train;
        Ok(Self { samples: data.read(Split::Train)?, sample: Sample::default(), total, most: most.max(1), seen: 0 })
    }

    fn next(&mut self) -> Result<Option<&Sample>> {
        while self.samples.next(&mut self.sample)? {
            let i = self.seen;
            self.seen += 1;
            // The k-th of m picks of n samples is sample k * n / m.
            let (n, m) = (self.total, self.most.min(self.total));
            let picks = |i: usize| (i as u128 * m as u128).div_ceil(n as u128);
            if picks(i + 1) > picks(i) {
                return Ok(Some(&self.sample));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn picks_are_spread_evenly_and_never_more_than_asked() {
        let data = kd_runtime::data::Source::parse("digits").unwrap().open().unwrap();
        let total = data.description().n_train;
        for most in [1, 7, 100, total, total + 5] {
            let mut picked = Picked::new(&*data, most).unwrap();
            let mut count = 0;
            while picked.next().unwrap().is_some() {
                count += 1;
            }
            assert_eq!(count, most.min(total));
        }
    }

    #[test]
    fn ranges_hold_zero_and_percentile_cuts_only_outliers_that_cost() {
        for method in table::METHODS {
            let mut observer = (method.new)();
            for pass in 0..method.passes {
                observer.see(pass, &[2.0, 3.0]);
            }
            assert_eq!(observer.range(), Range { min: 0.0, max: 3.0 }, "{}", method.name);
            let nothing = (method.new)();
            assert_eq!(nothing.range(), Range { min: 0.0, max: 0.0 }, "{}", method.name);
        }
        let body: Vec<f32> = (0..200_000).map(|i| (i % 1000) as f32 / 1000.0).collect();
        for (outlier, cut) in [(1.2, true), (30.0, false)] {
            let mut observer = (table::find("percentile").unwrap().new)();
            for pass in 0..2 {
                observer.see(pass, &body);
                observer.see(pass, &[outlier]);
            }
            let max = observer.range().max;
            assert_eq!(max < outlier * 0.9, cut, "{outlier}: {max}");
        }
    }
}
