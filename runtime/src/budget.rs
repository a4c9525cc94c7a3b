//! Limits that a model must meet on a device, and verdicts of three values.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;
use toml::{Spanned, Value};

use crate::error::{Refusal, Result};
use crate::files;
use crate::measure::stats;
use crate::nearest::nearest;

/// A verdict on one limit or on all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The limit is met, with one-sided confidence of 95 %.
    Pass,
    /// The limit is missed, with one-sided confidence of 95 %.
    Fail,
    /// The samples cannot tell, or the measurement is not valid.
    Undecided,
}

impl Verdict {
    /// Its word in reports.
    pub fn word(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Undecided => "undecided",
        }
    }

    /// That of several lines: one failing fails all, else one undecided leaves all undecided.
    pub fn all(lines: &[Line]) -> Self {
        let has = |verdict| lines.iter().any(|line| line.verdict == verdict);
        match () {
            () if has(Self::Fail) => Self::Fail,
            () if has(Self::Undecided) => Self::Undecided,
            () => Self::Pass,
        }
    }
}

/// What a limit is on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Figure {
    /// KiB of the model file.
    SizeKib,
    /// The quantile of latency, in ms.
    LatencyQuantileMs(f64),
    /// The mean latency, in ms.
    LatencyMeanMs,
    /// Peak memory above an empty process, in MiB.
    MemoryMib,
    /// Share of right answers on the contract's test data; the only one where more is better.
    AccuracyTop1,
    /// mJ of one inference.
    EnergyMj,
}

/// The keys of limits.
pub static FIGURES: &[(&str, Figure)] = &[
    ("size_kib", Figure::SizeKib),
    ("latency_p50_ms", Figure::LatencyQuantileMs(0.50)),
    ("latency_p90_ms", Figure::LatencyQuantileMs(0.90)),
    ("latency_p95_ms", Figure::LatencyQuantileMs(0.95)),
    ("latency_p99_ms", Figure::LatencyQuantileMs(0.99)),
    ("latency_mean_ms", Figure::LatencyMeanMs),
    ("memory_mib", Figure::MemoryMib),
    ("accuracy_top1", Figure::AccuracyTop1),
    ("energy_mj", Figure::EnergyMj),
];

/// One limit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limit {
    /// Its key, a name of [`FIGURES`].
    pub name: &'static str,
    /// What it is on.
    pub figure: Figure,
    /// The figure must not be above it (accuracy: not below).
    pub limit: f64,
}

/// A budget file.
#[derive(Clone, Debug, PartialEq)]
pub struct Budget {
    /// For people.
    pub name: Option<String>,
    /// In the order of [`FIGURES`].
    pub limits: Vec<Limit>,
    /// Threads that the limits are stated for.
    pub threads: Option<usize>,
    /// Device that the limits are stated for: the first string of `/proc/device-tree/compatible`.
    pub device: Option<String>,
}

/// One line of a verdict.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Line {
    /// The limit's key.
    pub name: String,
    /// The limit.
    pub limit: f64,
    /// The figure; `null` where it could not be measured.
    pub measured: Option<f64>,
    /// The confidence bound that the verdict compares with the limit; `null` where the samples give none.
    pub bound: Option<f64>,
    /// The verdict.
    pub verdict: Verdict,
    /// Why it is undecided, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl Budget {
    /// Reads a budget file.
    pub fn read(path: &Path) -> Result<Self> {
        Self::parse(&files::read_text(path)?).map_err(|e| {
            // `FILE:LINE`; a budget without limits has no line to name.
            let separator = if e.at.is_empty() { "" } else { ":" };
            Refusal { at: format!("{}{separator}{}", path.display(), e.at), ..e }
        })
    }

    /// Parses a budget's text; places are `LINE: KEY`.
    pub fn parse(text: &str) -> Result<Self> {
        let line = |offset: usize| 1 + text.as_bytes().iter().take(offset).filter(|&&byte| byte == b'\n').count();
        let table: BTreeMap<Spanned<String>, Spanned<Value>> = toml::from_str(text).map_err(|e| {
            let at = line(e.span().map_or(0, |span| span.start)).to_string();
            let found = e.message().lines().next().unwrap_or_default().to_string();
            Refusal::new(at, "TOML", found, "correct the file")
        })?;
        let mut budget = Self { name: None, limits: Vec::new(), threads: None, device: None };
        let mut limits = BTreeMap::new();
        for (key, value) in &table {
            let at = format!("{}: {}", line(key.span().start), key.get_ref());
            let value = value.get_ref();
            match key.get_ref().as_str() {
                "name" => budget.name = Some(text_of(value).ok_or_else(|| refuse(&at, "a text", value))?),
                "device" => budget.device = Some(text_of(value).ok_or_else(|| refuse(&at, "a text", value))?),
                "threads" => {
                    let threads = value.as_integer().and_then(|n| usize::try_from(n).ok()).filter(|n| *n >= 1);
                    budget.threads = Some(threads.ok_or_else(|| refuse(&at, "a whole number of at least 1", value))?);
                }
                key => {
                    let row = FIGURES.iter().position(|(name, _)| *name == key);
                    let row = row.ok_or_else(|| unknown_key(&at, key))?;
                    limits.insert(row, limit_of(FIGURES[row], &at, value)?);
                }
            }
        }
        budget.limits = limits.into_values().collect();
        if budget.limits.is_empty() {
            let known: Vec<&str> = FIGURES.iter().map(|(name, _)| *name).collect();
            let expected = format!("at least one limit ({})", known.join(", "));
            return Err(Refusal::new("", expected, "none", "add a limit"));
        }
        Ok(budget)
    }

    /// The limit of this key, if it is set.
    pub fn limit(&self, name: &str) -> Option<f64> {
        self.limits.iter().find(|limit| limit.name == name).map(|limit| limit.limit)
    }
}

fn text_of(value: &Value) -> Option<String> {
    value.as_str().map(str::to_string)
}

fn limit_of((name, figure): (&'static str, Figure), at: &str, value: &Value) -> Result<Limit> {
    let number = value.as_float().or_else(|| value.as_integer().map(|n| n as f64));
    let limit = number.filter(|x| x.is_finite() && *x > 0.0).ok_or_else(|| refuse(at, "a number above 0", value))?;
    if figure == Figure::AccuracyTop1 && limit > 1.0 {
        let action = "give it as a share: 0.9 for 90 %";
        return Err(Refusal::new(at, "a share of 0 to 1", value.to_string(), action));
    }
    Ok(Limit { name, figure, limit })
}

fn refuse(at: &str, expected: &str, value: &Value) -> Refusal {
    let found = value.to_string();
    Refusal::new(at, expected, format!("`{}`", found.lines().next().unwrap_or_default()), "correct the budget")
}

fn unknown_key(at: &str, key: &str) -> Refusal {
    let known: Vec<&str> = ["name", "threads", "device"].into_iter().chain(FIGURES.iter().map(|f| f.0)).collect();
    let action = match nearest(key, &known) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("known are {}", known.join(", ")),
    };
    Refusal::new(at, "a key of a budget", format!("`{key}`"), action)
}

impl Limit {
    /// The verdict on a figure that is known exactly.
    pub fn judge_exact(&self, measured: f64) -> Line {
        self.judge(Some(measured), (Some(measured), Some(measured)))
    }

    /// The verdict on a share: `successes` of `n`, by Clopper and Pearson's bounds.
    pub fn judge_share(&self, successes: u64, n: u64) -> Line {
        let share = successes as f64 / n.max(1) as f64;
        let bounds = (stats::share_lower(successes, n, ALPHA), stats::share_upper(successes, n, ALPHA));
        self.judge(Some(share), (Some(bounds.0), Some(bounds.1)))
    }

    /// The verdict on latency samples in ms, in the order of measuring, looked at for the `looks`-th of at most
    /// [`LOOKS`] times: each look has its share of the 5 %.
    pub fn judge_samples(&self, samples: &[f64]) -> Line {
        let alpha = ALPHA / LOOKS as f64;
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        match self.figure {
            Figure::LatencyQuantileMs(p) => {
                self.judge(stats::quantile(&sorted, p), stats::quantile_bounds(samples, p, self.limit, alpha))
            }
            _ => {
                let bounds = stats::mean_bounds(samples, alpha);
                let mean = stats::mean_std(samples).map(|(mean, _)| mean);
                self.judge(mean, (bounds.map(|b| b.0), bounds.map(|b| b.1)))
            }
        }
    }

    /// The verdict on a figure that was measured a few times in processes of their own: its median is bounded by the
    /// smallest and largest of at least 5 (0.5^5 = 3 %).
    pub fn judge_repeats(&self, repeats: &[f64]) -> Line {
        self.judge(stats::median(repeats), stats::quantile_bounds(repeats, 0.5, f64::INFINITY, ALPHA))
    }

    /// The verdict where nothing could be measured.
    pub fn not_measured(&self, why: &str) -> Line {
        Line { note: Some(why.into()), ..self.judge(None, (None, None)) }
    }

    /// Met if the bound against it meets the limit, missed if the opposite bound misses it, else undecided.
    fn judge(&self, measured: Option<f64>, (lower, upper): (Option<f64>, Option<f64>)) -> Line {
        let (against, with, meets): (_, _, fn(f64, f64) -> bool) = match self.figure {
            Figure::AccuracyTop1 => (lower, upper, |x, limit| x >= limit),
            _ => (upper, lower, |x, limit| x <= limit),
        };
        let (bound, verdict) = match (against, with) {
            (Some(bound), _) if meets(bound, self.limit) => (Some(bound), Verdict::Pass),
            (_, Some(bound)) if !meets(bound, self.limit) => (Some(bound), Verdict::Fail),
            _ => (against, Verdict::Undecided),
        };
        let note = match (verdict, measured) {
            (Verdict::Undecided, Some(_)) if against.is_none() => Some("too few samples for a bound".to_string()),
            (Verdict::Undecided, Some(_)) => Some("the samples cannot tell".to_string()),
            _ => None,
        };
        Line { name: self.name.into(), limit: self.limit, measured, bound, verdict, note }
    }
}

/// A verdict may be wrong with this probability.
pub const ALPHA: f64 = 0.05;

/// How often a growing sample is looked at before it stays undecided.
pub const LOOKS: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_limits_it_knows() {
        let text = "name = \"Pi\"\nsize_kib = 200\nlatency_p95_ms = 5.0\naccuracy_top1 = 0.9\nthreads = 1\n";
        let budget = Budget::parse(text).expect("a good budget");
        assert_eq!((budget.name.as_deref(), budget.threads), (Some("Pi"), Some(1)));
        let limits: Vec<_> = budget.limits.iter().map(|limit| (limit.name, limit.limit)).collect();
        assert_eq!(limits, [("size_kib", 200.0), ("latency_p95_ms", 5.0), ("accuracy_top1", 0.9)]);
    }

    #[test]
    fn refuses_what_it_does_not_know_in_one_line() {
        #[rustfmt::skip]
        let cases = [
            ("size_kib = 1\nlatncy_p95_ms = 1", "2: latncy_p95_ms: expected a key of a budget, found `latncy_p95_ms`; did you mean `latency_p95_ms`?"),
            ("size_kb = 1",                      "did you mean `size_kib`?"),
            ("zzz = 1",                          "known are name, threads, device, size_kib"),
            ("size_kib = 0",                     "1: size_kib: expected a number above 0, found `0`"),
            ("size_kib = nan",                   "expected a number above 0, found `nan`"),
            ("size_kib = \"1\"",                 "expected a number above 0, found `\"1\"`"),
            ("accuracy_top1 = 90",               "expected a share of 0 to 1, found 90; give it as a share"),
            ("threads = 0\nsize_kib = 1",        "expected a whole number of at least 1, found `0`"),
            ("name = 1\nsize_kib = 1",           "1: name: expected a text, found `1`"),
            ("size_kib = ",                      "1: expected TOML"),
            ("size_kib = 1\nsize_kib = 1",       "2: expected TOML, found duplicate key"),
            ("",                                 "expected at least one limit"),
            ("[budget]\nsize_kib = 1",           "expected a key of a budget, found `budget`"),
        ];
        for (text, expected) in cases {
            let error = Budget::parse(text).expect_err(text).to_string();
            assert!(error.contains(expected) && !error.contains('\n'), "{text:?}: {error}");
        }
    }

    #[test]
    fn verdicts_have_three_values() {
        let latency = |limit| Limit { name: "latency_p95_ms", figure: Figure::LatencyQuantileMs(0.95), limit };
        let samples: Vec<f64> = (0..1000).map(|i| 1.0 + f64::from(i * 7919 % 1000) / 1000.0).collect();
        let memory = Limit { name: "memory_mib", figure: Figure::MemoryMib, limit: 2.0 };
        let accuracy = |limit| Limit { name: "accuracy_top1", figure: Figure::AccuracyTop1, limit };
        let size = Limit { name: "size_kib", figure: Figure::SizeKib, limit: 10.0 };
        use Verdict::{Fail, Pass, Undecided};
        let cases = [
            ("p95 is 1.95, limit far above", latency(2.1).judge_samples(&samples), Pass),
            ("limit far below", latency(1.5).judge_samples(&samples), Fail),
            ("limit at the quantile", latency(1.95).judge_samples(&samples), Undecided),
            ("too few samples", latency(100.0).judge_samples(&samples[..50]), Undecided),
            ("few, but all above", latency(0.5).judge_samples(&samples[..50]), Fail),
            ("five repeats below", memory.judge_repeats(&[1.0, 1.1, 1.2, 1.3, 1.9]), Pass),
            ("four repeats below", memory.judge_repeats(&[1.0, 1.1, 1.2, 1.3]), Undecided),
            ("five repeats above", memory.judge_repeats(&[2.1, 2.1, 2.2, 2.3, 2.9]), Fail),
            ("174 of 200 for 85 %", accuracy(0.85).judge_share(174, 200), Undecided),
            ("990 of 1000 for 90 %", accuracy(0.9).judge_share(990, 1000), Pass),
            ("800 of 1000 for 90 %", accuracy(0.9).judge_share(800, 1000), Fail),
            ("size at the limit", size.judge_exact(10.0), Pass),
            ("size above the limit", size.judge_exact(10.01), Fail),
            ("nothing measured", size.not_measured("no sensor"), Undecided),
        ];
        for (name, line, expected) in cases {
            assert_eq!(line.verdict, expected, "{name}: {line:?}");
        }
    }
}
