//! Float beside int8, folded beside original, file beside memory.

use kd_runtime::contract::Contract;
use kd_runtime::data::{Dataset, Sample, Split};
use kd_runtime::engine::Engine;
use kd_runtime::graph::Graph;
use kd_runtime::{Refusal, Result, onnx};
use serde::Serialize;

/// Training samples on which networks that must compute the same are compared.
const SAMPLES: usize = 64;
/// Largest difference that rounding may make between a network and its folded form, relative to the largest output.
const FOLDED: f64 = 1e-4;

/// Networks that must compute the same.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Parity {
    /// Samples compared.
    pub samples: usize,
    /// Largest difference between folded and original outputs, relative to the largest output.
    pub folded_difference: f64,
    /// Whether the files, read back, give the bits of the networks in memory.
    pub files_equal: bool,
    /// Whether both hold.
    pub pass: bool,
}

/// Float and int8 on the test part.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Compared {
    /// Samples.
    pub n: u64,
    /// Right answers in floats.
    pub float_right: u64,
    /// Right answers in integers.
    pub int8_right: u64,
    /// Samples that both answer alike.
    pub agree: u64,
    /// Signal to quantization noise of the output, in dB; null where int8 equals float.
    pub sqnr_db: Option<f64>,
}

impl Compared {
    /// Percentage points of accuracy that int8 loses; negative where it gains.
    pub fn drop_points(&self) -> f64 {
        (self.float_right as f64 - self.int8_right as f64) * 100.0 / self.n.max(1) as f64
    }
}

/// An engine for one sample, fed by a contract.
struct Runner<'a> {
    engine: Engine,
    contract: &'a Contract,
    output: usize,
}

impl<'a> Runner<'a> {
    fn new(graph: &Graph, contract: &'a Contract) -> Result<Self> {
        let output = graph.outputs.iter().position(|&id| graph.value(id).name == contract.output.name);
        let output = output.ok_or_else(|| {
            let found = "no output of this name";
            Refusal::new("contract output.name", format!("`{}`", contract.output.name), found, "correct the contract")
        })?;
        Ok(Self { engine: Engine::new(graph, 1)?, contract, output })
    }

    fn run(&mut self, sample: &Sample, y: &mut Vec<f32>) -> Result<()> {
        self.contract.prepare(&sample.values, self.engine.input_mut(0).get::<f32>());
        self.engine.run()?;
        y.clear();
        y.extend_from_slice(self.engine.output(self.output).get::<f32>());
        match y.iter().find(|x| x.is_nan()) {
            None => Ok(()),
            Some(x) => {
                let at = format!("output `{}`", self.contract.output.name);
                Err(Refusal::new(at, "numbers", x, "repair the model"))
            }
        }
    }
}

/// Compares a folded network with its original, and the networks in memory with their files.
pub fn parity(
    original: &Graph,
    written: &[(&Graph, &[u8])],
    contract: &Contract,
    data: &dyn Dataset,
) -> Result<Parity> {
    let mut first = Runner::new(original, contract)?;
    let mut pairs = Vec::new();
    for (graph, bytes) in written {
        let file = onnx::read(bytes)?.graph;
        pairs.push((Runner::new(graph, contract)?, Runner::new(&file, contract)?));
    }
    let mut stream = data.read(Split::Train)?;
    let (mut sample, mut samples) = (Sample::default(), 0);
    let (mut y, mut memory, mut file) = (Vec::new(), Vec::new(), Vec::new());
    let (mut difference, mut largest, mut files_equal) = (0.0_f64, 0.0_f64, true);
    while samples < SAMPLES && stream.next(&mut sample)? {
        samples += 1;
        first.run(&sample, &mut y)?;
        for (i, pair) in pairs.iter_mut().enumerate() {
            pair.0.run(&sample, &mut memory)?;
            pair.1.run(&sample, &mut file)?;
            files_equal &= memory.iter().map(|x| x.to_bits()).eq(file.iter().map(|x| x.to_bits()));
            // The first one is the folded network.
            for (&a, &b) in y.iter().zip(&memory).filter(|_| i == 0) {
                difference = difference.max(f64::from((a - b).abs()));
                largest = largest.max(f64::from(a.abs()));
            }
        }
    }
    let folded_difference = if largest > 0.0 { difference / largest } else { difference };
    Ok(Parity { samples, folded_difference, files_equal, pass: files_equal && folded_difference <= FOLDED })
}

/// Streams the test part through float and int8.
pub fn compare(float: &Graph, int8: &Graph, contract: &Contract, data: &dyn Dataset) -> Result<Compared> {
    let (mut float, mut int8) = (Runner::new(float, contract)?, Runner::new(int8, contract)?);
    let mut stream = data.read(Split::Test)?;
    let mut sample = Sample::default();
    let (mut a, mut b) = (Vec::new(), Vec::new());
    let mut found = Compared { n: 0, float_right: 0, int8_right: 0, agree: 0, sqnr_db: None };
    let (mut signal, mut noise) = (0.0, 0.0);
    while stream.next(&mut sample)? {
        float.run(&sample, &mut a)?;
        int8.run(&sample, &mut b)?;
        let (of_float, of_int8) = (largest(&a), largest(&b));
        found.n += 1;
        found.float_right += u64::from(of_float == sample.label);
        found.int8_right += u64::from(of_int8 == sample.label);
        found.agree += u64::from(of_float == of_int8);
        for (&a, &b) in a.iter().zip(&b) {
            signal += f64::from(a) * f64::from(a);
            noise += f64::from(a - b) * f64::from(a - b);
        }
    }
    found.sqnr_db = (noise > 0.0).then(|| 10.0 * (signal / noise).log10());
    Ok(found)
}

/// The place of the first largest.
fn largest(y: &[f32]) -> usize {
    let mut best = 0;
    for (i, &value) in y.iter().enumerate() {
        if value > y[best] {
            best = i;
        }
    }
    best
}
