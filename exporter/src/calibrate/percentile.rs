//! All but the outermost values, guarded: the range is cut only where the expected squared error falls.

use super::{Observer, Range};

/// Bins of the histogram between the smallest and the largest value.
const BINS: usize = 2048;
/// Share of the values that stays.
const KEPT: f64 = 0.99999;

struct Percentile {
    range: Range,
    bins: Vec<u64>,
    count: u64,
}

/// An observer that has seen nothing. The first pass finds the ends, the second fills the histogram.
pub fn new() -> Box<dyn Observer> {
    Box::new(Percentile { range: Range { min: 0.0, max: 0.0 }, bins: vec![0; BINS], count: 0 })
}

impl Percentile {
    /// A bin's value: its middle.
    fn middle(&self, bin: usize) -> f64 {
        let width = (f64::from(self.range.max) - f64::from(self.range.min)) / BINS as f64;
        f64::from(self.range.min) + (bin as f64 + 0.5) * width
    }

    /// Mean squared error of a range: of rounding inside (step² / 12), of clamping outside.
    fn error(&self, range: Range) -> f64 {
        let (min, max) = (f64::from(range.min), f64::from(range.max));
        let rounding = ((max - min) / 255.0).powi(2) / 12.0;
        let cost = |(bin, &n): (usize, &u64)| {
            let x = self.middle(bin);
            n as f64
                * if x < min {
                    (min - x).powi(2)
                } else if x > max {
                    (x - max).powi(2)
                } else {
                    rounding
                }
        };
        self.bins.iter().enumerate().map(cost).sum::<f64>() / self.count.max(1) as f64
    }

    fn cut(&self) -> Range {
        // Half of what may go at each end.
        let may_go = (self.count as f64 * (1.0 - KEPT) / 2.0).ceil() as u64;
        let end = |mut bins: Box<dyn Iterator<Item = usize>>| {
            let mut gone = 0;
            bins.find(|&bin| {
                gone += self.bins[bin];
                gone > may_go
            })
        };
        let (low, high) = (end(Box::new(0..BINS)), end(Box::new((0..BINS).rev())));
        let min = low.map_or(self.range.min, |bin| self.middle(bin) as f32).min(0.0).max(self.range.min);
        let max = high.map_or(self.range.max, |bin| self.middle(bin) as f32).max(0.0).min(self.range.max);
        Range { min, max }
    }
}

impl Observer for Percentile {
    fn see(&mut self, pass: usize, values: &[f32]) {
        if pass == 0 {
            for &x in values {
                self.range.min = self.range.min.min(x);
                self.range.max = self.range.max.max(x);
            }
            return;
        }
        let (min, width) = (f64::from(self.range.min), f64::from(self.range.max) - f64::from(self.range.min));
        for &x in values {
            let place = if width > 0.0 { (f64::from(x) - min) / width * BINS as f64 } else { 0.0 };
            self.bins[(place.max(0.0) as usize).min(BINS - 1)] += 1;
        }
        self.count += values.len() as u64;
    }

    fn range(&self) -> Range {
        let cut = self.cut();
        if self.error(cut) < self.error(self.range) { cut } else { self.range }
    }
}
