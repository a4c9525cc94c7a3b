//! What a person sees of a run: bars on a terminal, plain lines otherwise; and `metrics.jsonl`.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{IsTerminal, Write, stderr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use kd_runtime::error::Shown;
use serde_json::{Map, json};

use super::fit::Epoch;
use super::tensorboard::Events;

/// Is told how training goes.
pub trait Monitor: Send {
    /// A network begins (or goes on) at `epoch` (from 0) of `epochs`, with so many samples an epoch.
    fn begin(&mut self, name: &str, epoch: usize, epochs: usize, samples: usize);
    /// So many samples were just done; the means so far of the epoch's terms, and the accuracy so far.
    fn step(&mut self, samples: usize, terms: &[(&str, f64)], accuracy: f64);
    /// An epoch is done and saved.
    fn epoch(&mut self, name: &str, epoch: &Epoch);
    /// A remark of one line.
    fn note(&mut self, text: &str);
}

/// One epoch as `metrics.jsonl` holds it.
pub fn metrics_line(name: &str, epoch: &Epoch) -> String {
    let terms: Map<String, serde_json::Value> =
        epoch.terms.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    let gradients: Map<String, serde_json::Value> =
        epoch.gradients.iter().map(|(name, norm)| (name.clone(), json!(norm))).collect();
    let mut line = json!({
        "schema": "kd.metrics/1",
        "network": name,
        "epoch": epoch.epoch,
        "loss": epoch.loss,
        "terms": terms,
        "train_accuracy": epoch.train_accuracy,
        "validation_accuracy": epoch.validation_accuracy,
        "validation_loss": epoch.validation_loss,
        "lr_factor": epoch.lr_factor,
        "data_wait_share": epoch.data_wait_share,
        "lr": epoch.lr,
    });
    if !gradients.is_empty() {
        line["gradient_norms"] = gradients.into();
        let ratios = ratios(&epoch.gradients).into_iter().map(|(name, ratio)| (name.into(), json!(ratio)));
        line["gradient_ratios"] = ratios.collect::<Map<_, _>>().into();
    }
    if !epoch.stale_steps.is_empty() {
        let ages = epoch.stale_steps.iter().map(|(name, steps)| (name.clone(), json!(steps)));
        line["stale_steps"] = ages.collect::<Map<_, _>>().into();
    }
    format!("{line}\n")
}

/// Plain lines come at most so often (but for a network's first and last epoch).
const BETWEEN_LINES: Duration = Duration::from_secs(2);

/// Says and writes nothing: of a rank that another one speaks for.
pub struct Silent;

impl Monitor for Silent {
    fn begin(&mut self, _name: &str, _epoch: usize, _epochs: usize, _samples: usize) {}
    fn step(&mut self, _samples: usize, _terms: &[(&str, f64)], _accuracy: f64) {}
    fn epoch(&mut self, _name: &str, _epoch: &Epoch) {}
    fn note(&mut self, _text: &str) {}
}

/// Shows progress on standard error, appends to `metrics.jsonl` and writes the event files of TensorBoard beside it.
pub struct Terminal {
    metrics: PathBuf,
    /// Of each network that is trained, from its first epoch of this start on.
    events: BTreeMap<String, Events>,
    bar: Option<ProgressBar>,
    epochs: usize,
    epoch: usize,
    samples: usize,
    done: usize,
    began: Instant,
    last_line: Option<Instant>,
    /// What the network's last epoch has to say, if it turns out to be the last one.
    unsaid: Option<String>,
    out: Box<dyn Write + Send>,
}

impl Terminal {
    /// With the path of metrics.jsonl, whose folder need not be there yet.
    pub fn new(metrics: PathBuf) -> Self {
        let began = Instant::now();
        Self {
            metrics,
            events: BTreeMap::new(),
            bar: None,
            epochs: 0,
            epoch: 0,
            samples: 0,
            done: 0,
            began,
            last_line: None,
            unsaid: None,
            out: Box::new(stderr()),
        }
    }

    fn say(&mut self, line: &str) {
        let Self { bar, out, .. } = self;
        let mut write = || {
            // A terminal that went away is no reason to stop training.
            let _ = writeln!(out, "{line}");
        };
        match bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    /// Ends what is shown of a network: after its last epoch, or before the next one begins where patience ended it.
    fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        if let Some(line) = self.unsaid.take() {
            self.say(&line);
        }
    }

    /// Appends to the network's event file, which its first epoch makes.
    fn write_events(&mut self, name: &str, epoch: &Epoch) {
        let folder = self.metrics.with_file_name("tensorboard").join(name.replace(' ', "-"));
        let speed = self.samples_per_second();
        let events = match self.events.remove(name) {
            Some(events) => Ok(events),
            None => Events::create(&folder, epoch.epoch as u64),
        };
        match events.and_then(|mut events| events.write(epoch, speed).map(|()| events)) {
            Ok(events) => drop(self.events.insert(name.to_string(), events)),
            // It shows what metrics.jsonl holds.
            Err(error) => self.say(&format!("{}: {error}", folder.display())),
        }
    }

    /// An epoch on a line of its own.
    fn line(&self, name: &str, epoch: &Epoch) -> String {
        let terms = shown(epoch.terms.iter().cloned());
        let validation = epoch.validation_accuracy.map(|a| format!("  validation {}", percent(a))).unwrap_or_default();
        let gradients = shown_gradients(&epoch.gradients);
        let left = (self.epochs - epoch.epoch.min(self.epochs)) * self.samples;
        let speed = self.samples_per_second();
        let eta_s = left as f64 / speed.max(1e-9);
        format!(
            "{}: epoch {}/{}  {terms}{gradients}  train {}{validation}  {speed:.0} samples/s  waited {}  ETA {eta_s:.0} s",
            Shown(name),
            epoch.epoch,
            self.epochs,
            percent(epoch.train_accuracy),
            percent(epoch.data_wait_share)
        )
    }

    /// What stays of a network whose bar goes away.
    fn summary(&self, name: &str, epoch: &Epoch) -> String {
        let of = if epoch.epoch < self.epochs { format!(" of {}", self.epochs) } else { String::new() };
        let validation = epoch.validation_accuracy.map(|a| format!(", validation {}", percent(a))).unwrap_or_default();
        let (train, gradients) = (percent(epoch.train_accuracy), shown_gradients(&epoch.gradients));
        format!("{}: {}{of} epochs, train {train}{validation}{gradients}", Shown(name), epoch.epoch)
    }

    fn samples_per_second(&self) -> f64 {
        self.done as f64 / self.began.elapsed().as_secs_f64().max(1e-9)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.end();
    }
}

fn percent(share: f64) -> String {
    format!("{:.2} %", 100.0 * share)
}

fn shown(terms: impl Iterator<Item = (String, f64)>) -> String {
    terms.map(|(name, value)| format!("{name} {value:.4}")).collect::<Vec<_>>().join("  ")
}

/// How large the terms' gradients were beside that of the first, the task's where it has a weight: `  gradients (ce = 1): kd
/// 0.420`.
fn shown_gradients(gradients: &[(String, f64)]) -> String {
    let ratios: Vec<String> = ratios(gradients).iter().map(|(name, ratio)| format!("{name} {ratio:.3}")).collect();
    match gradients.first() {
        Some((first, _)) if !ratios.is_empty() => format!("  gradients ({first} = 1): {}", ratios.join(", ")),
        _ => String::new(),
    }
}

/// Norms of the terms but the first, beside that one's.
fn ratios(gradients: &[(String, f64)]) -> Vec<(&str, f64)> {
    let Some(((_, norm), others)) = gradients.split_first() else { return Vec::new() };
    others.iter().map(|(name, other)| (name.as_str(), other / norm)).collect()
}

/// Terms whose gradient is so much smaller or larger than that of the first that one of both hardly counts: a line each. One
/// of 0 has not begun.
pub fn lopsided(gradients: &[(String, f64)]) -> Vec<String> {
    let Some(((first, norm), others)) = gradients.split_first() else { return Vec::new() };
    let share = |(name, other): &(String, f64)| {
        let share = other / norm;
        let counts = *norm == 0.0 || *other == 0.0 || (0.01..=100.0).contains(&share);
        (!counts).then(|| format!("the gradient of `{name}` is {share:.3e} times that of `{first}`: check its weight"))
    };
    others.iter().filter_map(share).collect()
}

impl Monitor for Terminal {
    fn begin(&mut self, name: &str, epoch: usize, epochs: usize, samples: usize) {
        self.end();
        (self.epoch, self.epochs, self.samples, self.done) = (epoch, epochs, samples, 0);
        (self.began, self.last_line) = (Instant::now(), None);
        self.events.remove(name);
        if stderr().is_terminal() {
            let bar = ProgressBar::with_draw_target(Some((epochs * samples) as u64), ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template("{prefix} {wide_bar} {percent}% {msg} ETA {eta}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.set_prefix(Shown(name).to_string());
            bar.set_position((epoch * samples) as u64);
            bar.reset_eta();
            self.bar = Some(bar);
        }
        if epoch > 0 {
            self.say(&format!("{}: goes on after epoch {epoch} of {epochs}", Shown(name)));
        }
    }

    fn step(&mut self, samples: usize, terms: &[(&str, f64)], accuracy: f64) {
        self.done += samples;
        let Some(bar) = &self.bar else { return };
        bar.inc(samples as u64);
        let terms = shown(terms.iter().map(|(name, value)| (name.to_string(), *value)));
        let speed = self.samples_per_second();
        bar.set_message(format!("{}/{} {terms}  {}  {speed:.0}/s", self.epoch + 1, self.epochs, percent(accuracy)));
    }

    fn epoch(&mut self, name: &str, epoch: &Epoch) {
        self.epoch = epoch.epoch;
        let file = OpenOptions::new().create(true).append(true).open(&self.metrics);
        let written = file.and_then(|mut file| file.write_all(metrics_line(name, epoch).as_bytes()));
        if let Err(error) = written {
            // The lines are also in the checkpoint, from which the file is made again at the end.
            self.say(&format!("{}: {error}", self.metrics.display()));
        }
        self.write_events(name, epoch);
        let last = epoch.epoch == self.epochs;
        let due = self.last_line.is_none_or(|at| at.elapsed() >= BETWEEN_LINES);
        let line = if self.bar.is_some() { self.summary(name, epoch) } else { self.line(name, epoch) };
        self.unsaid = Some(line);
        if last {
            self.end();
        } else if self.bar.is_none() && due {
            self.last_line = Some(Instant::now());
            self.end();
        }
    }

    fn note(&mut self, text: &str) {
        self.say(&format!("kd-train: {}", Shown(text)));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

    use super::*;

    /// Keeps what is said, or is a terminal that went away.
    #[derive(Clone, Default)]
    struct Screen {
        said: Arc<Mutex<String>>,
        is_gone: bool,
    }

    impl Screen {
        fn said(&self) -> MutexGuard<'_, String> {
            self.said.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }

    impl Write for Screen {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            if self.is_gone {
                return Err(std::io::Error::other("gone"));
            }
            self.said().push_str(&String::from_utf8_lossy(bytes));
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn epoch(epoch: usize) -> Epoch {
        Epoch {
            epoch,
            loss: 1.0,
            terms: vec![("ce".into(), 1.0)],
            train_accuracy: 0.5,
            validation_accuracy: Some(0.25),
            validation_loss: None,
            lr_factor: 1.0,
            data_wait_share: 0.0,
            lr: 1e-3,
            gradients: vec![],
            stale_steps: vec![],
        }
    }

    /// A network of so many of three epochs, with a bar or without, and then another one.
    fn shown_of(done: usize, with_bar: bool, screen: &Screen) {
        let folder = std::env::temp_dir().join(format!(
            "kd-monitor-{done}-{with_bar}-{}-{}",
            screen.is_gone,
            std::process::id()
        ));
        std::fs::create_dir_all(&folder).unwrap();
        let mut terminal = Terminal::new(folder.join("metrics.jsonl"));
        terminal.out = Box::new(screen.clone());
        for (name, epochs) in [("first", done), ("second", 1)] {
            terminal.begin(name, 0, 3, 10);
            terminal.bar = with_bar.then(ProgressBar::hidden);
            (1..=epochs).for_each(|i| terminal.epoch(name, &epoch(i)));
            terminal.note("a remark");
        }
        drop(terminal);
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn what_patience_ends_is_told_as_what_ends_by_itself() {
        for (done, first) in [(3, "first: 3 epochs"), (2, "first: 2 of 3 epochs")] {
            let screen = Screen::default();
            shown_of(done, true, &screen);
            let said = screen.said().clone();
            let mut lines: Vec<&str> = said.lines().collect();
            lines.retain(|line| *line != "kd-train: a remark");
            let tail = ", train 50.00 %, validation 25.00 %";
            assert_eq!(lines, [format!("{first}{tail}"), format!("second: 1 of 3 epochs{tail}")], "{said}");
        }
        // Without a bar: the first epoch, and the last one however soon it comes.
        let screen = Screen::default();
        shown_of(2, false, &screen);
        let said = screen.said().clone();
        for part in ["first: epoch 1/3", "first: epoch 2/3", "second: epoch 1/3"] {
            assert_eq!(said.matches(part).count(), 1, "{part}: {said}");
        }
    }

    #[test]
    fn a_terminal_that_went_away_ends_nothing() {
        for with_bar in [true, false] {
            shown_of(2, with_bar, &Screen { is_gone: true, ..Screen::default() });
        }
    }

    #[test]
    fn gradients_are_told_beside_that_of_the_first() {
        let norms =
            |list: &[(&str, f64)]| list.iter().map(|(name, norm)| (name.to_string(), *norm)).collect::<Vec<_>>();
        assert_eq!(
            shown_gradients(&norms(&[("ce", 2.0), ("kd", 1.0), ("at", 500.0)])),
            "  gradients (ce = 1): kd 0.500, at 250.000"
        );
        assert_eq!(shown_gradients(&norms(&[("kd", 2.0), ("at", 501.444)])), "  gradients (kd = 1): at 250.722");
        assert_eq!(shown_gradients(&norms(&[("ce", 2.0)])), "");
        let lines = lopsided(&norms(&[("ce", 2.0), ("kd", 1.0), ("at", 500.0), ("nst", 0.0), ("sp", 1e-3)]));
        assert_eq!(
            lines,
            [
                "the gradient of `at` is 2.500e2 times that of `ce`: check its weight",
                "the gradient of `sp` is 5.000e-4 times that of `ce`: check its weight",
            ]
        );
        assert!(lopsided(&[]).is_empty() && lopsided(&norms(&[("ce", 0.0), ("kd", 1.0)])).is_empty());
    }
}
