//! `kd-train eval`: right answers of a float model on the test part of a data set, streamed.

use std::io::Write;

use kd_runtime::cli::{Precision, target::Target};
use kd_runtime::contract::{self, Contract};
use kd_runtime::data::{self, Dataset, Source, Split};
use kd_runtime::error::Shown;
use kd_runtime::files::refuse_write;
use kd_runtime::graph::Graph;
use kd_runtime::report::json;
use kd_runtime::report::text::{grouped, number};
use kd_runtime::{Refusal, Result};
use serde::Serialize;

use super::args::{Eval, Format};
use crate::data::{Samples, Values};
use crate::exec::Compute;
use crate::run::results::Score;
use crate::teacher::{self, Pace};

/// Bytes of samples that are in memory at once, unless one batch has more.
const CHUNK_BYTES: usize = 64 << 20;

/// Samples that go through the network at once.
const BATCH: usize = 64;

/// Batches that are in memory at once, at most.
const MOST_BATCHES: usize = 64;

/// What is printed; schema `kd.eval/1`.
#[derive(Serialize)]
struct Evaluation {
    schema: &'static str,
    model: String,
    sha256: String,
    data: String,
    data_sha256: String,
    #[serde(flatten)]
    score: Score,
    /// Mean cross-entropy with the true classes.
    loss_nats: f64,
}

pub(super) fn run(args: &Eval, out: &mut dyn Write) -> Result<()> {
    let precision = args.model.is_dir().then_some(Precision::Float);
    let target = Target::open(&args.model, precision, args.contract.as_deref())?;
    let source = Source::parse(&args.data)?.read_as(target.contract.as_ref());
    let data = source.open()?;
    let graph = target.graph.as_ref().map_err(Clone::clone)?;
    if let Some(node) = graph.nodes.iter().find(|node| node.op.def().is_quantization()) {
        let found = format!("node `{}` ({})", node.name, node.op.name());
        return Err(Refusal::new(target.path.display(), "a float model", found, "measure it with kd-bench --data"));
    }
    let Some(contract) = &target.contract else {
        return Err(contract::missing(&target.path, graph, "accuracy", out));
    };
    contract.check_model(graph).map_err(|e| e.within(target.path.display()))?;
    contract.check_data(data.description()).map_err(|e| e.within(&args.data))?;
    let (score, loss_nats) = evaluate(graph, contract, &*data)?;
    let evaluation = Evaluation {
        schema: "kd.eval/1",
        model: target.path.display().to_string(),
        sha256: target.sha256,
        data: source.to_string(),
        data_sha256: data.description().sha256.clone(),
        score,
        loss_nats,
    };
    let text = match args.format {
        Format::Json => json::pretty(&evaluation),
        Format::Text => render(&evaluation),
    };
    out.write_all(text.as_bytes()).map_err(|e| refuse_write("standard output".as_ref(), &e))
}

/// Samples that are in memory at once, of so many elements: whole batches.
fn chunk(elements: usize) -> usize {
    let batch_bytes = BATCH.saturating_mul(elements).saturating_mul(size_of::<f32>());
    BATCH * (CHUNK_BYTES / batch_bytes.max(1)).clamp(1, MOST_BATCHES)
}

fn evaluate(graph: &Graph, contract: &Contract, data: &dyn Dataset) -> Result<(Score, f64)> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut stream = data.read(Split::Test)?;
    let mut sample = data::Sample::default();
    let (mut right, mut n, mut loss) = (0, 0, 0.0);
    let elements = contract.input.elements();
    let chunk = chunk(elements);
    loop {
        let mut values = Vec::new();
        let mut labels = Vec::new();
        while labels.len() < chunk && stream.next(&mut sample)? {
            values.extend_from_slice(&sample.values);
            labels.push(sample.label);
        }
        if labels.is_empty() {
            break;
        }
        let samples = Samples { values: Values::F32(values), labels, elements };
        let pace = Pace { batch: BATCH, compute: Compute::host(threads) };
        let answers = teacher::evaluate(graph, contract, &samples, pace)?;
        right += answers.right;
        n += samples.len();
        loss += answers.loss * samples.len() as f64;
    }
    Ok((Score::new(right, n), loss / n.max(1) as f64))
}

fn render(evaluation: &Evaluation) -> String {
    let Evaluation { model, sha256, data, score, loss_nats, .. } = evaluation;
    let (accuracy, (low, high)) = (100.0 * score.accuracy, score.ci);
    let (n, low, high) = (grouped(score.n), 100.0 * low, 100.0 * high);
    format!(
        "model     {}\nsha256    {sha256}\ndata      {}, test part\n\
         accuracy  {accuracy:.2} % (n = {n}, 95 % interval {low:.2} to {high:.2})\nloss      {} nats\n",
        Shown(model),
        Shown(data),
        number(*loss_nats),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_samples_are_in_memory_a_few_batches_at_a_time() {
        let bytes = |elements: usize| chunk(elements) * elements * size_of::<f32>();
        for elements in [1, 64, 784, 3 * 32 * 32, 3 * 224 * 224] {
            assert!(bytes(elements) <= CHUNK_BYTES && chunk(elements).is_multiple_of(BATCH), "{elements}");
        }
        assert_eq!([0, 64, 3 * 224 * 224, 3 * 512 * 512].map(chunk), [4096, 4096, 64, 64]);
        assert_eq!(chunk(usize::MAX), BATCH);
    }
}
