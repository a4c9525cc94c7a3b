//! Which buffer each value lies in: lifetimes in, buffers out, so that what is never needed at once shares memory.

/// What needs memory from one time to another, both included.
#[derive(Clone, Copy, Debug)]
pub struct Interval {
    /// First time.
    pub from: usize,
    /// Last time.
    pub to: usize,
    /// Elements.
    pub size: usize,
}

/// The buffer of each interval, and the buffers' sizes. In order of time, the smallest free buffer that is large enough
/// is taken, else the largest free one grows.
pub fn assign(intervals: &[Interval]) -> (Vec<usize>, Vec<usize>) {
    let mut order: Vec<usize> = (0..intervals.len()).collect();
    order.sort_by_key(|&i| (intervals[i].from, std::cmp::Reverse(intervals[i].size), i));
    let mut sizes: Vec<usize> = Vec::new();
    let mut busy_to: Vec<usize> = Vec::new();
    let mut places = vec![0; intervals.len()];
    for i in order {
        let Interval { from, to, size } = intervals[i];
        let free = (0..sizes.len()).filter(|&b| busy_to[b] < from);
        let best = free.min_by_key(|&b| if sizes[b] >= size { (0, sizes[b]) } else { (1, usize::MAX - sizes[b]) });
        let buffer = best.unwrap_or_else(|| {
            sizes.push(0);
            busy_to.push(0);
            sizes.len() - 1
        });
        sizes[buffer] = sizes[buffer].max(size);
        busy_to[buffer] = to;
        places[i] = buffer;
    }
    (places, sizes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_that_meet_never_share_and_others_do() {
        let interval = |from, to, size| Interval { from, to, size };
        let cases = [
            // intervals, total size of the buffers
            (vec![interval(0, 1, 10), interval(1, 2, 10), interval(2, 3, 10)], 20),
            (vec![interval(0, 9, 5), interval(1, 2, 7), interval(3, 4, 6), interval(5, 5, 9)], 14),
            (vec![interval(0, 0, 4), interval(1, 1, 8), interval(1, 1, 3)], 8 + 3),
            (vec![], 0),
        ];
        for (intervals, total) in cases {
            let (places, sizes) = assign(&intervals);
            assert_eq!(sizes.iter().sum::<usize>(), total, "{intervals:?}");
            for (i, a) in intervals.iter().enumerate() {
                assert!(sizes[places[i]] >= a.size);
                for (j, b) in intervals.iter().enumerate().filter(|(j, _)| *j > i) {
                    assert!(a.to < b.from || b.to < a.from || places[i] != places[j], "{i} and {j} of {intervals:?}");
                }
            }
        }
    }
}
