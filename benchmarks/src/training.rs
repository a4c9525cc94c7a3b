//! Whole training steps, ours and a peer's in turns, on the same shapes.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use kd_runtime::{Exit, Refusal, Result};
use kd_trainer::exec::{Executor, Mode, Parameter, Plan};
use kd_trainer::losses::ce::cross_entropy;
use kd_trainer::losses::rows::Reduction;
use kd_trainer::optim::{Optimizer, sgd};
use kd_trainer::options::{Options, Setting};
use kd_trainer::recipe::Choice;
use kd_trainer::rng::{Purpose, Rng};
use kd_trainer::zoo::{self, Site, table::ARCHS};

/// A network and a batch whose step is timed.
pub struct Case {
    /// Its name, also of the peer's.
    pub name: &'static str,
    arch: &'static str,
    input: &'static [usize],
    batch: usize,
    classes: usize,
    widths: Option<(&'static str, &'static [usize])>,
}

/// What is compared.
pub static CASES: &[Case] = &[
    Case { name: "mlp", arch: "mlp", input: &[784], batch: 128, classes: 10, widths: Some(("hidden", &[1200, 1200])) },
    Case { name: "resnet8", arch: "resnet8", input: &[3, 32, 32], batch: 64, classes: 10, widths: None },
    Case { name: "resnet20", arch: "resnet20", input: &[3, 32, 32], batch: 128, classes: 10, widths: None },
    Case { name: "fcn", arch: "fcn", input: &[1, 140], batch: 64, classes: 2, widths: None },
];

/// Our side: forward, cross-entropy, backward, SGD with momentum.
pub struct Ours {
    executor: Executor<f32>,
    optimizer: Box<dyn Optimizer>,
    x: Vec<f32>,
    labels: Vec<usize>,
    d_logits: Vec<f32>,
    classes: usize,
    seed: u64,
}

impl Ours {
    /// Plans the case.
    pub fn new(case: &Case, threads: usize) -> Result<Self> {
        let arch = ARCHS.iter().find(|arch| arch.name == case.arch);
        let arch = arch.ok_or_else(|| Refusal::new("case", "a known architecture", case.arch, "build it first"))?;
        let mut options = Options::defaults(arch.options);
        if let Some((name, widths)) = case.widths {
            options = options.with(name, Setting::Counts(widths.to_vec()));
        }
        let site = Site { input: case.input.to_vec(), classes: case.classes };
        let graph = zoo::build(&Choice { name: arch.name, options }, &site, 1)?;
        let plan = Plan { batch: case.batch, taps: Vec::new(), backward: true, threads };
        let executor = Executor::new(&graph, &plan)?;
        let sgd_options = Options::defaults(sgd::OPTIONS).with("lr", Setting::Number(0.01));
        let optimizer = sgd::build(&sgd_options, executor.parameters(), true);
        let mut rng = Rng::new(1, Purpose::Augment, 0, 0);
        let elements = case.batch * case.input.iter().product::<usize>();
        Ok(Self {
            executor,
            optimizer,
            x: (0..elements).map(|_| rng.normal() as f32).collect(),
            labels: (0..case.batch).map(|_| rng.below(case.classes as u64) as usize).collect(),
            d_logits: vec![0.0; case.batch * case.classes],
            classes: case.classes,
            seed: 0,
        })
    }

    /// One step; its time in ms.
    pub fn step_ms(&mut self) -> Result<f64> {
        let start = Instant::now();
        self.seed += 1;
        let executor = &mut self.executor;
        executor.forward(&self.x, self.labels.len(), Mode::Train { seed: self.seed })?;
        let logits = executor.tap("logits")?;
        let (values, d) = (executor.value(logits), &mut self.d_logits);
        cross_entropy(values, &self.labels, self.classes, 0.0, Reduction::BatchMean, d);
        executor.backward(&[(logits, d)])?;
        let parameters: &mut [Parameter<f32>] = executor.parameters_mut();
        self.optimizer.step(parameters, 1.0);
        Ok(start.elapsed().as_secs_f64() * 1e3)
    }
}

/// A peer in a child process.
pub struct Peer {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    /// What it says of its version.
    pub version: String,
}

impl Peer {
    /// Starts PyTorch with a case, and waits until it is ready.
    pub fn start(python: &Path, case: &str, threads: usize, form: &str) -> Result<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/torch_training.py");
        let mut command = Command::new(python);
        command.arg(script).args([case, &threads.to_string(), form]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let lacking = |error: &dyn std::fmt::Display| {
            Refusal::new(python.display(), "a Python with torch", error, "install it").with_exit(Exit::Lacking)
        };
        let mut child = command.spawn().map_err(|e| lacking(&e))?;
        let (Some(to), Some(from)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(lacking(&"no pipes"));
        };
        let mut peer = Self { child, to, from: BufReader::new(from), version: String::new() };
        let line = peer.line()?;
        peer.version = line.strip_prefix("ready ").ok_or_else(|| lacking(&"no `ready`"))?.to_string();
        Ok(peer)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        match self.from.read_line(&mut line) {
            Ok(n) if n > 0 => Ok(line.trim().to_string()),
            _ => Err(Refusal::new("peer", "a line", "its end", "read its messages above").with_exit(Exit::Lacking)),
        }
    }

    /// Times of so many steps in ms.
    pub fn steps_ms(&mut self, n: usize) -> Result<Vec<f64>> {
        let sent = writeln!(self.to, "{n}").and_then(|()| self.to.flush());
        sent.map_err(|e| Refusal::new("peer", "a process that listens", e, "read its messages above"))?;
        let line = self.line()?;
        let times: std::result::Result<Vec<f64>, _> = line.split(' ').map(str::parse).collect();
        times.map_err(|e| Refusal::new("peer", "times", e, "read its messages above"))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The middle of samples that are not empty.
pub fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let half = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[half] } else { 0.5 * (sorted[half - 1] + sorted[half]) }
}
