//! The learning rate over time, as a factor of the optimizer's `lr`.
//!
//! Every schedule begins with a linear warm-up of `warmup_epochs` from `warmup_start` times its first factor; `from` where it
//! leaves 0.

use super::ScheduleKind;
use crate::options::{Kind, Options, Range, Spec};

/// The schedules. One entry each.
pub static SCHEDULES: &[ScheduleKind] = &[
    ScheduleKind { name: "constant", about: "always 1", options: CONSTANT, factor: constant },
    ScheduleKind { name: "multistep", about: "times `gamma` at each milestone", options: MULTISTEP, factor: multistep },
    ScheduleKind { name: "cosine", about: "half a cosine from 1 to `least`", options: COSINE, factor: cosine },
    ScheduleKind { name: "linear", about: "a straight line", options: LINEAR, factor: linear },
    ScheduleKind { name: "until", about: "1, and 0 from an epoch on", options: UNTIL, factor: until },
    ScheduleKind {
        name: "from",
        about: "0, and 1 from an epoch on, where its warm-up begins",
        options: UNTIL,
        factor: from,
    },
    ScheduleKind {
        name: "exponential",
        about: "times `gamma` after each epoch",
        options: EXPONENTIAL,
        factor: exponential,
    },
    ScheduleKind {
        name: "polynomial",
        about: "a power of the steps that are left",
        options: POLYNOMIAL,
        factor: polynomial,
    },
    ScheduleKind { name: "one_cycle", about: "up from 1/`div`, then far down", options: ONE_CYCLE, factor: one_cycle },
];

const WARMUP_EPOCHS: Spec = Spec {
    name: "warmup_epochs",
    about: "epochs of linear warm-up; a fraction is allowed",
    kind: Kind::Number { default: 0.0, range: Range::NotNegative },
};
const WARMUP_START: Spec = Spec {
    name: "warmup_start",
    about: "share of the learning rate at the first step of the warm-up",
    kind: Kind::Number { default: 0.1, range: Range::Share },
};

/// A schedule's own options, and behind them the two of the warm-up that all have.
macro_rules! warmed {
    ($($own:expr),* $(,)?) => { &[$($own,)* WARMUP_EPOCHS, WARMUP_START] };
}

static CONSTANT: &[Spec] = warmed![];
static MULTISTEP: &[Spec] = warmed![
    Spec {
        name: "milestones",
        about: "epochs, counted from the begin of the run, at which the rate falls",
        kind: Kind::Counts { default: &[100, 150], least_len: 1, least: 1, most: 1_000_000 },
    },
    Spec {
        name: "gamma",
        about: "what the rate is multiplied by at each milestone",
        kind: Kind::Number { default: 0.1, range: Range::Share },
    },
];
static COSINE: &[Spec] =
    warmed![Spec { name: "least", about: "the last factor", kind: Kind::Number { default: 0.0, range: Range::Share } }];
static LINEAR: &[Spec] = warmed![
    Spec {
        name: "from",
        about: "the factor at the begin",
        kind: Kind::Number { default: 1.0, range: Range::NotNegative },
    },
    Spec { name: "to", about: "the factor at the end", kind: Kind::Number { default: 0.0, range: Range::NotNegative } },
];
static UNTIL: &[Spec] = warmed![Spec {
    name: "epochs",
    about: "epochs of the stage after which it changes; a fraction is allowed",
    kind: Kind::Number { default: 10.0, range: Range::NotNegative },
}];
static EXPONENTIAL: &[Spec] = warmed![Spec {
    name: "gamma",
    about: "what the rate is multiplied by after each epoch",
    kind: Kind::Number { default: 0.95, range: Range::Share },
}];
static POLYNOMIAL: &[Spec] = warmed![Spec {
    name: "power",
    about: "of the share of the steps that are left: 1 is a straight line",
    kind: Kind::Number { default: 2.0, range: Range::NotNegative },
}];
static ONE_CYCLE: &[Spec] = warmed![
    Spec {
        name: "rise",
        about: "share of the steps that rise",
        kind: Kind::Number { default: 0.3, range: Range::Share },
    },
    Spec {
        name: "div",
        about: "1 over the factor at the begin",
        kind: Kind::Number { default: 25.0, range: Range::Positive },
    },
    Spec {
        name: "final_div",
        about: "the begin's factor over that at the end",
        kind: Kind::Number { default: 1e4, range: Range::Positive },
    },
    Spec {
        name: "anneal",
        about: "shape of rise and fall",
        kind: Kind::Choice { default: "cosine", known: &["cosine", "linear"] },
    },
    Spec {
        name: "three_phase",
        about: "whether to fall as long as to rise, and then on to the end",
        kind: Kind::Flag { default: false },
    },
];

/// Steps of the warm-up, and its factor at a step within it, if it is.
fn warmup(options: &Options, step: usize, steps_per_epoch: usize) -> (f64, Option<f64>) {
    let steps = (options.number("warmup_epochs") * steps_per_epoch as f64).round();
    let start = options.number("warmup_start");
    let within = (step as f64) < steps;
    (steps, within.then(|| start + (1.0 - start) * step as f64 / steps))
}

fn constant(options: &Options, step: usize, _steps: usize, steps_per_epoch: usize) -> f64 {
    warmup(options, step, steps_per_epoch).1.unwrap_or(1.0)
}

fn multistep(options: &Options, step: usize, _steps: usize, steps_per_epoch: usize) -> f64 {
    let passed = options.counts("milestones").iter().filter(|&&m| step >= m.saturating_mul(steps_per_epoch)).count();
    let factor = options.number("gamma").powi(passed as i32);
    warmup(options, step, steps_per_epoch).1.unwrap_or(1.0) * factor
}

/// From `a` at 0 to `b` at 1 along half a cosine.
fn along_cosine(a: f64, b: f64, share: f64) -> f64 {
    b + (a - b) / 2.0 * (1.0 + (std::f64::consts::PI * share).cos())
}

fn cosine(options: &Options, step: usize, steps: usize, steps_per_epoch: usize) -> f64 {
    let (warm, factor) = warmup(options, step, steps_per_epoch);
    let share = (step as f64 - warm) / (steps as f64 - warm).max(1.0);
    factor.unwrap_or_else(|| along_cosine(1.0, options.number("least"), share.clamp(0.0, 1.0)))
}

fn linear(options: &Options, step: usize, steps: usize, steps_per_epoch: usize) -> f64 {
    let (warm, factor) = warmup(options, step, steps_per_epoch);
    let (from, to) = (options.number("from"), options.number("to"));
    let share = ((step as f64 - warm) / (steps as f64 - warm).max(1.0)).clamp(0.0, 1.0);
    factor.map_or(from + (to - from) * share, |factor| factor * from)
}

fn exponential(options: &Options, step: usize, _steps: usize, steps_per_epoch: usize) -> f64 {
    let (warm, factor) = warmup(options, step, steps_per_epoch);
    let epochs = step.saturating_sub(warm as usize) / steps_per_epoch.max(1);
    factor.unwrap_or_else(|| options.number("gamma").powi(epochs.min(1 << 20) as i32))
}

fn polynomial(options: &Options, step: usize, steps: usize, steps_per_epoch: usize) -> f64 {
    let (warm, factor) = warmup(options, step, steps_per_epoch);
    let left = 1.0 - (step as f64 - warm) / (steps as f64 - warm).max(1.0);
    factor.unwrap_or_else(|| left.clamp(0.0, 1.0).powf(options.number("power")))
}

/// The step at which `until` and `from` change.
fn change(options: &Options, steps_per_epoch: usize) -> usize {
    (options.number("epochs") * steps_per_epoch as f64).round() as usize
}

/// Whether a schedule is 0 from this step on, whatever comes.
pub fn is_over(name: &str, options: &Options, step: usize, steps_per_epoch: usize) -> bool {
    name == "until" && step >= change(options, steps_per_epoch)
}

fn until(options: &Options, step: usize, _steps: usize, steps_per_epoch: usize) -> f64 {
    if step < change(options, steps_per_epoch) { warmup(options, step, steps_per_epoch).1.unwrap_or(1.0) } else { 0.0 }
}

fn from(options: &Options, step: usize, _steps: usize, steps_per_epoch: usize) -> f64 {
    let since = step.checked_sub(change(options, steps_per_epoch));
    since.map_or(0.0, |since| warmup(options, since, steps_per_epoch).1.unwrap_or(1.0))
}

/// Smith, Topin 2018 (arXiv 1708.07120), as torch's OneCycleLR; the momentum stays as it is.
fn one_cycle(options: &Options, step: usize, steps: usize, steps_per_epoch: usize) -> f64 {
    let (warm, factor) = warmup(options, step, steps_per_epoch);
    let first = 1.0 / options.number("div");
    let last = first / options.number("final_div");
    if let Some(factor) = factor {
        return factor * first;
    }
    let (step, total) = (step as f64 - warm, (steps as f64 - warm).max(1.0));
    let rise = options.number("rise") * total;
    let phases: &[(f64, f64, f64)] = if options.flag("three_phase") {
        &[(rise - 1.0, first, 1.0), (2.0 * rise - 2.0, 1.0, first), (total - 1.0, first, last)]
    } else {
        &[(rise - 1.0, first, 1.0), (total - 1.0, 1.0, last)]
    };
    let mut begin = 0.0;
    for (i, &(end, from, to)) in phases.iter().enumerate() {
        if step <= end || i + 1 == phases.len() {
            let share = ((step - begin) / (end - begin).max(f64::MIN_POSITIVE)).clamp(0.0, 1.0);
            let linear = options.text("anneal") == "linear";
            return if linear { from + (to - from) * share } else { along_cosine(from, to, share) };
        }
        begin = end;
    }
    last
}
