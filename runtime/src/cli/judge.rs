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

/// Above this share of a latency the cost of reading the clock is said.
const CLOCK_SHARE: f64 = 0.01;

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
        let timer_ms = self.latency.iter().map(|latency| latency.timer_ms).fold(0.0, f64::max);
        let median_ms = stats::median(&self.samples()).unwrap_or(0.0);
        if timer_ms > CLOCK_SHARE * median_ms {
            notes.push(format!("reading the clock takes {:.0} ns of each latency", timer_ms * 1e6));
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

#[cfg(test)]
mod tests {
    use super::*;

    fn latency(samples_ms: Vec<f64>, cpu_share: f64) -> Latency {
        Latency {
            load_ms: 1.0,
            first_ms: 1.0,
            warm_up_n: 20,
            stable: true,
            samples_ms,
            cpu_share: Some(cpu_share),
            allocations: Some(0.0),
            timer_ms: 0.00003,
        }
    }

    fn device() -> Device {
        Device { compatible: Some("raspberrypi,4-model-b".into()), emulated: false, ..Device::read() }
    }

    #[test]
    fn what_disturbs_a_measurement_leaves_only_verdicts_that_survive_it() {
        let steady = || vec![latency((0..1000).map(|i| 1.0 + f64::from(i % 10) / 100.0).collect(), 1.0)];
        let rising = || vec![latency((0..1000).map(|i| 1.0 + f64::from(i) / 2000.0).collect(), 1.0)];
        let crowded = || vec![latency((0..1000).map(|i| 1.0 + f64::from(i % 10) / 100.0).collect(), 0.5)];
        let emulated = Device { emulated: true, ..device() };
        let mut throttled = device();
        throttled.before.throttled = Some(0);
        throttled.after.throttled = Some(0x5_0005);
        let mut throttled_long_ago = device();
        throttled_long_ago.before.throttled = Some(0x5_0000);
        throttled_long_ago.after.throttled = Some(0x5_0000);
        use Verdict::{Fail, Pass, Undecided};
        #[rustfmt::skip]
        let cases = [
            // name                              latency    device              text of the budget            verdict
            ("steady, met",                      steady(),  device(),           "latency_p95_ms = 1.2",       Pass),
            ("steady, missed",                   steady(),  device(),           "latency_p95_ms = 1.05",      Fail),
            ("mean, met",                        steady(),  device(),           "latency_mean_ms = 1.1",      Pass),
            ("mean, missed",                     steady(),  device(),           "latency_mean_ms = 1.0",      Fail),
            ("rising, would be missed soon",     rising(),  device(),           "latency_p95_ms = 1.6",       Undecided),
            ("rising, far below",                rising(),  device(),           "latency_p95_ms = 3.0",       Pass),
            ("rising, far above",                rising(),  device(),           "latency_p50_ms = 0.5",       Fail),
            ("other load, met all the same",     crowded(), device(),           "latency_p95_ms = 1.2",       Pass),
            ("other load, perhaps missed",       crowded(), device(),           "latency_p95_ms = 1.05",      Undecided),
            ("other load, missed all the same",  crowded(), device(),           "latency_p95_ms = 0.4",       Fail),
            ("emulated",                         steady(),  emulated,           "latency_p95_ms = 99",        Undecided),
            ("throttled",                        steady(),  throttled,          "latency_p95_ms = 99",        Undecided),
            ("throttled before",                 steady(),  throttled_long_ago, "latency_p95_ms = 99",        Pass),
            ("the device that is meant",         steady(),  device(),           "latency_p95_ms = 99\ndevice = 'raspberrypi,4-model-b'", Pass),
            ("another device",                   steady(),  device(),           "latency_p95_ms = 99\ndevice = 'raspberrypi,5-model-b'", Undecided),
            ("size on another device",           steady(),  device(),           "size_kib = 1\ndevice = 'raspberrypi,5-model-b'", Pass),
            ("no data",                          steady(),  device(),           "accuracy_top1 = 0.5",        Undecided),
        ];
        for (name, latency, device, text, expected) in cases {
            let budget = Budget::parse(text).expect(text);
            let net_mib = [1.0; 5];
            let measured =
                Measured { size_bytes: 1000, latency: &latency, net_mib: &net_mib, score: None, device: &device };
            let lines = measured.judge(&budget);
            assert_eq!(lines[0].verdict, expected, "{name}: {:?}", lines[0]);
        }
    }
}
