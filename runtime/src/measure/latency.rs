//! Latency: load, first inference, warm-up until stable, then unbatched inferences one by one, all kept.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{Job, alloc, inputs, stats};
use crate::error::Result;

/// How long a child may measure.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Inferences to time.
    pub samples: usize,
    /// Seconds after which no further inference is timed (at least [`LEAST`] are).
    pub max_s: f64,
}

/// Inferences that are timed however long they take.
pub const LEAST: usize = 3;

/// Warm-up lasts at least this many inferences and seconds, then until two windows of [`WINDOW`] agree.
const WARM_UP_RUNS: usize = 3;
const WARM_UP: Duration = Duration::from_millis(500);
const WARM_UP_CAP: Duration = Duration::from_secs(5);
const WINDOW: usize = 10;
/// Two windows agree when their medians are this close.
const AGREE: f64 = 0.02;

/// What a child measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Reading the file, parsing, planning.
    pub load_ms: f64,
    /// The first inference.
    pub first_ms: f64,
    /// Warm-up inferences after it.
    pub warm_up_n: usize,
    /// Whether the warm-up ended because latency was stable, not because of its cap.
    pub stable: bool,
    /// One figure an inference, in the order of measuring.
    pub samples_ms: Vec<f64>,
    /// Share of the timed span during which this process had a processor; below 1 it waited for one.
    pub cpu_share: Option<f64>,
    /// Allocations of one inference, where they can be counted.
    pub allocations: Option<f64>,
    /// What reading the clock twice takes: part of every sample.
    pub timer_ms: f64,
}

/// Loads a model and times it: to be called in a child.
pub fn measure(job: &Job, plan: &Plan) -> Result<Latency> {
    let start = Instant::now();
    let mut backend = job.load(1)?;
    let load_ms = ms(start.elapsed());
    let rotation = inputs::rotation(job, &*backend)?;
    let mut turn = rotation.iter().cycle();
    let mut infer = || -> Result<(Duration, u64)> {
        for (i, x) in turn.next().into_iter().flatten().enumerate() {
            backend.feed(i, x.view())?;
        }
        let before = alloc::count();
        let start = Instant::now();
        backend.run()?;
        let elapsed = start.elapsed();
        Ok((elapsed, alloc::count() - before))
    };
    let first_ms = ms(infer()?.0);
    let (warm_up_n, stable) = warm_up(&mut infer)?;
    let mut samples_ms = Vec::with_capacity(plan.samples);
    let mut allocations = 0;
    let start = Instant::now();
    let cpu_start = cpu_time();
    while samples_ms.len() < plan.samples && (samples_ms.len() < LEAST || start.elapsed().as_secs_f64() < plan.max_s) {
        let (elapsed, allocated) = infer()?;
        samples_ms.push(ms(elapsed));
        allocations += allocated;
    }
    let wall = start.elapsed().as_secs_f64();
    let cpu = cpu_time().zip(cpu_start).map(|(end, start)| end.saturating_sub(start).as_secs_f64());
    let n = samples_ms.len() as f64;
    let counted = alloc::is_counting() && backend.counts_allocations();
    Ok(Latency {
        load_ms,
        first_ms,
        warm_up_n,
        stable,
        samples_ms,
        cpu_share: cpu.filter(|_| job.threads == 1 && wall > 0.0).map(|cpu| (cpu / wall).min(1.0)),
        allocations: counted.then_some(allocations as f64 / n.max(1.0)),
        timer_ms: timer_ms(),
    })
}

/// The median time between two readings of the clock.
fn timer_ms() -> f64 {
    let pairs: Vec<f64> = (0..1001).map(|_| ms(Instant::now().elapsed())).collect();
    stats::median(&pairs).unwrap_or(0.0)
}

/// Runs until two windows in a row have medians that agree, or the cap; the number of runs, and whether they agreed.
fn warm_up(infer: &mut impl FnMut() -> Result<(Duration, u64)>) -> Result<(usize, bool)> {
    let start = Instant::now();
    let mut window = Vec::with_capacity(WINDOW);
    let mut before: Option<f64> = None;
    let mut n = 0;
    while start.elapsed() < WARM_UP_CAP {
        window.push(ms(infer()?.0));
        n += 1;
        if window.len() < WINDOW {
            continue;
        }
        let median = stats::median(&window).unwrap_or(0.0);
        let agrees = before.is_some_and(|before| (median - before).abs() <= AGREE * before);
        if agrees && n >= WARM_UP_RUNS && start.elapsed() >= WARM_UP {
            return Ok((n, true));
        }
        before = Some(median);
        window.clear();
    }
    Ok((n, false))
}

fn ms(duration: Duration) -> f64 {
    duration.as_nanos() as f64 / 1e6
}

/// Processor time of this process.
#[cfg(unix)]
fn cpu_time() -> Option<Duration> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a timespec of our own, which the call fills.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) } != 0;
    let seconds = u64::try_from(time.tv_sec).ok()?;
    let nanoseconds = u32::try_from(time.tv_nsec).ok()?;
    (!failed).then(|| Duration::new(seconds, nanoseconds))
}

#[cfg(not(unix))]
fn cpu_time() -> Option<Duration> {
    None
}
