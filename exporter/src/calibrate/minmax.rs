//! Smallest and largest value.

use super::{Observer, Range};

struct MinMax(Range);

/// An observer that has seen nothing.
pub fn new() -> Box<dyn Observer> {
    Box::new(MinMax(Range { min: 0.0, max: 0.0 }))
}

impl Observer for MinMax {
    fn see(&mut self, _pass: usize, values: &[f32]) {
        for &x in values {
            self.0.min = self.0.min.min(x);
            self.0.max = self.0.max.max(x);
        }
    }

    fn range(&self) -> Range {
        self.0
    }
}
