//! A share of a batch: what a pass needs to know of the samples that other processes have.

use std::sync::Arc;

use crate::group::Group;
use crate::ops::moments::together;

/// This process's share of a batch that a group has.
#[derive(Clone)]
pub struct Share {
    /// Who has the others.
    pub group: Arc<Group>,
    /// The place of its first sample in the whole batch.
    pub first: usize,
    /// Its samples; 0 where there are fewer than processes: it then runs one that counts nowhere.
    pub samples: usize,
}

impl Share {
    /// From how many values a channel has here, and their mean and sum of squares of the differences from it, to those of
    /// the whole batch.
    ///
    /// Once the group has ended, a pass goes on with what it has: its next call of the group says why.
    pub fn moments(&self, count: f64, channels: &mut [[f64; 2]]) -> f64 {
        let count = if self.samples == 0 { 0.0 } else { count };
        let mine: Vec<f64> = [count].into_iter().chain(channels.iter().flatten().copied()).collect();
        let Ok(all) = self.group.gather(&mine) else { return count.max(1.0) };
        let ranks = || all.chunks_exact(mine.len()).filter(|rank| rank[0] > 0.0);
        for (c, channel) in channels.iter_mut().enumerate() {
            *channel = together(ranks().map(|rank| [rank[0], rank[1 + 2 * c], rank[2 + 2 * c]]));
        }
        ranks().map(|rank| rank[0]).sum()
    }

    /// From sums over the values here to sums over the whole batch.
    pub fn sums(&self, sums: &mut [[f64; 2]]) {
        if self.samples == 0 {
            sums.fill([0.0; 2]);
        }
        let Ok(all) = self.group.gather(sums.as_flattened()) else { return };
        sums.fill([0.0; 2]);
        if self.samples == 0 {
            // No gradient is to flow back to what counts nowhere.
            return;
        }
        for rank in all.chunks_exact(2 * sums.len().max(1)) {
            sums.as_flattened_mut().iter_mut().zip(rank).for_each(|(sum, part)| *sum += part);
        }
    }
}
