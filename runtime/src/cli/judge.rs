//! Verdicts on what was measured, with what makes a measurement of time invalid.

use crate::budget::{Budget, Figure, Limit, Line, Verdict};
use crate::measure::accuracy::Score;
use crate::measure::device::Device;
use crate::measure::latency::Latency;
use crate::measure::stats;

/// Latency moves by this share during a measurement before it is said.
const DRIFT: f64 = 0.1;

/// Below this share of a processor other programs took it away.
const CPU_SHARE: f64 = 0.9;

/// What all processes measured.
pub struct Measured<'a> {
    /// Bytes of the model's file.
    pub size_bytes: u64,
    /// Latency, process by process.
    pub latency: &'a [Latency],
    /// Peaks above an empty process, in MiB.
    pub net_mib: &'a [f64],
    /// Right answers.
    pub score: Option<Score>,
    /// The device, after the measurements.
    pub device: &'a Device,
}

impl Measured<'_> {
    /// A line a limit.
    pub fn judge(&self, budget: &Budget) -> Vec<Line> {
        budget.limits.iter().map(|limit| self.judge_one(budget, limit)).collect()
    }

    fn judge_one(&self, budget: &Budget, limit: &Limit) -> Line {
        let line = match limit.figure {
            Figure::SizeKib => return limit.judge_exact(self.size_bytes as f64 / 1024.0),
            Figure::AccuracyTop1 => {
                return match self.score {
                    Some(score) => limit.judge_share(score.right, score.n),
                    None => limit.not_measured("no data"),
                };
            }
            Figure::EnergyMj => return limit.not_measured("energy is not measured: no sensor that kd-bench reads"),
            Figure::MemoryMib => limit.judge_repeats(self.net_mib),
            Figure::LatencyMeanMs | Figure::LatencyQuantileMs(_) => self.judge_latency(limit),
        };
        match &budget.device {
            Some(wanted) if self.device.compatible.as_ref() != Some(wanted) => {
                let this = self.device.compatible.as_deref().unwrap_or("a device without a name");
                undecided(line, format!("the limit is for {wanted}, this is {this}"))
            }
            _ => line,
        }
    }

    fn judge_latency(&self, limit: &Limit) -> Line {
        let samples = self.samples();
        let line = limit.judge_samples(&samples);
        if let Some(why) = self.device.invalid() {
            return undecided(line, why);
        }
        // What disturbed the measurement may have moved the figure by this share; a verdict that survives it stands.
        let drift = self.drift().abs();
        let share = self.cpu_share();
        let Some(bound) = line.bound else { return line };
        match line.verdict {
            Verdict::Pass if drift > DRIFT && bound * (1.0 + drift) > limit.limit => undecided(line, self.drifted()),
            Verdict::Fail if drift > DRIFT && bound * (1.0 - drift) <= limit.limit => undecided(line, self.drifted()),
            Verdict::Fail if share < CPU_SHARE && bound * share <= limit.limit => undecided(line, self.loaded()),
            _ => line,
        }
    }

    /// All samples, process by process.
    pub fn samples(&self) -> Vec<f64> {
        self.latency.iter().flat_map(|latency| latency.samples_ms.iter().copied()).collect()
    }

    /// The median drift of the processes.
    fn drift(&self) -> f64 {
        let drifts: Vec<f64> = self.latency.iter().map(|latency| stats::drift(&latency.samples_ms)).collect();
        stats::median(&drifts).unwrap_or(0.0)
    }

    /// The median share of a processor that the processes had.
    fn cpu_share(&self) -> f64 {
        let shares: Vec<f64> = self.latency.iter().filter_map(|latency| latency.cpu_share).collect();
        stats::median(&shares).unwrap_or(1.0)
    }

    fn drifted(&self) -> String {
        format!("latency moved by {:+.0} % while it was measured", self.drift() * 100.0)
    }

    fn loaded(&self) -> String {
        format!("other programs ran: this one had a processor {:.0} % of the time", self.cpu_share() * 100.0)
    }

    /// What a reader should know about the measurement of time.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        notes.extend(self.device.invalid().map(|why| format!("times are not valid: {why}")));
        if self.drift().abs() > DRIFT {
            notes.push(self.drifted());
        }
        if self.cpu_share() < CPU_SHARE {
            notes.push(self.loaded());
        }
        if self.latency.iter().any(|latency| !latency.stable) {
            notes.push("latency was not stable at the end of the warm-up (5 s)".into());
        }
        if let Some(governor) = self.device.governor.as_ref().filter(|governor| *governor != "performance") {
            notes.push(format!("clock governor {governor}: times depend on what ran before"));
        }
        notes
    }
}

fn undecided(line: Line, why: String) -> Line {
    Line { verdict: Verdict::Undecided, note: Some(why), ..line }
}
