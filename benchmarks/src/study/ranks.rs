//! Several methods over several data sets: mean ranks, Wilcoxon's signed ranks for each pair, Holm's correction (Demšar 2006;
//! Benavoli, Corani, Mangili 2016 for pairs instead of Friedman's post-hoc test).

/// Two sizes of differences in percent that are as near as this are one: more than rounding, less than an answer of any set.
const TIED: f64 = 1e-9;

/// What several methods gave on one data set, in whole answers: of means over seeds, equal ones differ by rounding.
#[derive(Clone, Debug, PartialEq)]
pub struct Scores {
    /// Right answers of each method, over all its seeds.
    pub right: Vec<u64>,
    /// Answers of each: as many of all.
    pub n: u64,
}

impl Scores {
    /// Right answers of a method in percent.
    pub fn percent(&self, method: usize) -> f64 {
        100.0 * self.right[method] as f64 / self.n.max(1) as f64
    }

    /// By how many points of percent method `a` is above `b`; 0 where as many answers are right.
    pub fn points(&self, a: usize, b: usize) -> f64 {
        100.0 * (self.right[a] as f64 - self.right[b] as f64) / self.n.max(1) as f64
    }
}

/// Ranks of counts, the largest 1; equal ones share the mean of their ranks.
pub fn ranks(right: &[u64]) -> Vec<f64> {
    let rank = |&count: &u64| {
        let above = right.iter().filter(|&&other| other > count).count();
        let equal = right.iter().filter(|&&other| other == count).count();
        above as f64 + (equal as f64 + 1.0) / 2.0
    };
    right.iter().map(rank).collect()
}

/// Mean ranks of methods over sets.
pub fn mean_ranks(sets: &[Scores]) -> Vec<f64> {
    let all: Vec<Vec<f64>> = sets.iter().map(|scores| ranks(&scores.right)).collect();
    (0..methods(sets)).map(|m| all.iter().map(|ranks| ranks[m]).sum::<f64>() / all.len().max(1) as f64).collect()
}

fn methods(sets: &[Scores]) -> usize {
    sets.first().map_or(0, |scores| scores.right.len())
}

/// Two-sided p of Wilcoxon's signed rank test, exact: over all signs of the differences that are there. Differences of 0 are
/// left out (Wilcoxon's own way); 1 where none is left. Sizes that only rounding tells apart are equal, or 0.
pub fn wilcoxon(differences: &[f64]) -> f64 {
    let mut there: Vec<f64> = differences.iter().copied().filter(|d| d.abs() > TIED).collect();
    there.sort_by(|a, b| a.abs().total_cmp(&b.abs()));
    let ranks = doubled_ranks(&there);
    let all: usize = ranks.iter().sum();
    let positive: usize = there.iter().zip(&ranks).filter(|(d, _)| **d > 0.0).map(|(_, rank)| rank).sum();
    let off = |sum: usize| (2 * sum).abs_diff(all);
    let as_far = chances(&ranks).into_iter().enumerate().filter(|&(sum, _)| off(sum) >= off(positive));
    as_far.map(|(_, chance)| chance).sum::<f64>().min(1.0)
}

/// Ranks of sizes, which are in ascending order: the smallest 1, equal ones with their mean, all doubled to be whole.
fn doubled_ranks(sorted: &[f64]) -> Vec<usize> {
    let mut ranks = Vec::new();
    for equal in sorted.chunk_by(|a, b| b.abs() - a.abs() <= TIED) {
        let rank = 2 * ranks.len() + equal.len() + 1;
        ranks.extend(std::iter::repeat_n(rank, equal.len()));
    }
    ranks
}

/// The chance of each sum of those ranks that have one sign, where each sign is as likely: sums of n ranks are few beside the
/// 2^n ways to choose signs, so hundreds of ranks take a moment.
fn chances(ranks: &[usize]) -> Vec<f64> {
    let mut chances = vec![1.0];
    for &rank in ranks {
        let mut next = vec![0.0; chances.len() + rank];
        for (sum, chance) in chances.iter().enumerate() {
            next[sum] += chance / 2.0;
            next[sum + rank] += chance / 2.0;
        }
        chances = next;
    }
    chances
}

/// Holm's correction: each p adjusted, so that those below a level hold together at that level.
pub fn holm(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|&a, &b| p[a].total_cmp(&p[b]));
    let mut adjusted = vec![1.0; p.len()];
    let mut least: f64 = 0.0;
    for (i, &at) in order.iter().enumerate() {
        least = least.max((p.len() - i) as f64 * p[at]).min(1.0);
        adjusted[at] = least;
    }
    adjusted
}

/// Adjusted p of each pair of methods, symmetric, 1 on the diagonal.
pub fn pairs(sets: &[Scores]) -> Vec<Vec<f64>> {
    let methods = methods(sets);
    let all: Vec<(usize, usize)> = (0..methods).flat_map(|a| (0..a).map(move |b| (a, b))).collect();
    let one = |&(a, b): &(usize, usize)| wilcoxon(&sets.iter().map(|scores| scores.points(a, b)).collect::<Vec<_>>());
    let adjusted = holm(&all.iter().map(one).collect::<Vec<_>>());
    let mut table = vec![vec![1.0; methods]; methods];
    for (&(a, b), p) in all.iter().zip(adjusted) {
        (table[a][b], table[b][a]) = (p, p);
    }
    table
}

/// Groups of methods, by places in the order of their mean ranks, of which no pair differs at `level`; none inside another,
/// none of one.
pub fn cliques(order: &[usize], p: &[Vec<f64>], level: f64) -> Vec<(usize, usize)> {
    let alike = |from: usize, to: usize| (from..=to).all(|a| (from..a).all(|b| p[order[a]][order[b]] >= level));
    let mut groups: Vec<(usize, usize)> = Vec::new();
    for from in 0..order.len() {
        let to = (from..order.len()).take_while(|&to| alike(from, to)).last().unwrap_or(from);
        if to > from && groups.last().is_none_or(|&(_, last)| to > last) {
            groups.push((from, to));
        }
    }
    groups
}

/// Methods in the order of their mean ranks.
#[derive(Clone, Debug, PartialEq)]
pub struct Ranking {
    /// Mean rank of each method.
    pub mean: Vec<f64>,
    /// Adjusted p of each pair.
    pub p: Vec<Vec<f64>>,
    /// Methods, the best first.
    pub order: Vec<usize>,
}

impl Ranking {
    /// Of methods over sets; empty without sets.
    pub fn of(sets: &[Scores]) -> Self {
        let mean = mean_ranks(sets);
        let mut order: Vec<usize> = (0..mean.len()).collect();
        order.sort_by(|&a, &b| mean[a].total_cmp(&mean[b]));
        Self { p: pairs(sets), mean, order }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scores(right: &[u64], n: u64) -> Scores {
        Scores { right: right.to_vec(), n }
    }

    #[test]
    fn equal_counts_share_their_ranks() {
        assert_eq!(ranks(&[9, 7, 9, 8]), [1.5, 4.0, 1.5, 3.0]);
        assert_eq!(mean_ranks(&[scores(&[1, 2], 4), scores(&[3, 3], 4)]), [1.75, 1.25]);
    }

    #[test]
    fn one_answer_of_750_is_as_much_as_two_of_1500_whatever_is_rounded() {
        let [small, large] = [scores(&[701, 700], 750), scores(&[1400, 1402], 1500)].map(|set| set.points(0, 1));
        assert_eq!(wilcoxon(&[small, large]), 1.0);
        // Ranks 1.5, 1.5 and 3, of which 4.5 on one side: six of the eight choices of signs are as far from the middle.
        assert_eq!(wilcoxon(&[0.1 + 0.2, -0.3, 1.0]), 0.75);
        // Means of the same 1484 answers, put together in another order.
        assert_eq!(wilcoxon(&[98.93333333333334 - 98.93333333333332, 2.0]), 1.0);
    }

    #[test]
    fn any_number_of_sets_is_tested_exactly() {
        // All of 128 on one side, one of them on the other, and half on each.
        let mut all: Vec<f64> = (1..=128).map(f64::from).collect();
        assert_eq!(wilcoxon(&all), 2.0 * 0.5_f64.powi(128));
        all[0] = -1.0;
        assert_eq!(wilcoxon(&all), 4.0 * 0.5_f64.powi(128));
        let both: Vec<f64> = (0..300).map(|i| if i % 2 == 0 { 1.0 } else { -1.0 }).collect();
        assert!((wilcoxon(&both) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn sums_of_ranks_are_as_likely_as_counting_all_signs_says() {
        let differences: [f64; 12] = [3.0, -1.0, 2.0, 2.0, -5.0, 1.0, 4.0, 4.0, 4.0, 7.0, -2.0, 6.0];
        let mut sorted = differences;
        sorted.sort_by(|a, b| a.abs().total_cmp(&b.abs()));
        let ranks = doubled_ranks(&sorted);
        assert_eq!(ranks, [3, 3, 8, 8, 8, 12, 16, 16, 16, 20, 22, 24]);
        let sum = |bits: u32| (0..12).filter(|i| bits >> i & 1 == 1).map(|i| ranks[i]).sum::<usize>();
        let off = |sum: usize| (2 * sum).abs_diff(ranks.iter().sum());
        let seen = off((0..12).filter(|&i| sorted[i] > 0.0).map(|i| ranks[i]).sum());
        let as_far = (0..1 << 12).filter(|&bits| off(sum(bits)) >= seen).count();
        assert_eq!(wilcoxon(&differences), as_far as f64 / 4096.0);
    }

    #[test]
    fn wilcoxon_is_that_of_scipy() {
        // scipy.stats.wilcoxon(d, method="exact").pvalue
        assert!((wilcoxon(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]) - 0.03125).abs() < 1e-12);
        assert!(
            (wilcoxon(&[6.0, 8.0, 14.0, 16.0, 23.0, 24.0, 28.0, 29.0, 41.0, -48.0, 49.0, 56.0, 60.0, -67.0, 75.0])
                - 0.041259765625)
                .abs()
                < 1e-12
        );
        assert_eq!(wilcoxon(&[0.0, 0.0]), 1.0);
        assert_eq!(wilcoxon(&[1.0, -1.0]), 1.0);
    }

    #[test]
    fn holm_is_that_of_statsmodels() {
        // statsmodels multipletests([0.01, 0.04, 0.03, 0.005], method="holm")[1]
        let found = holm(&[0.01, 0.04, 0.03, 0.005]);
        for (found, expected) in found.iter().zip([0.03, 0.06, 0.06, 0.02]) {
            assert!((found - expected).abs() < 1e-12, "{found} {expected}");
        }
    }

    #[test]
    fn groups_hold_no_pair_that_differs() {
        let mut p = vec![vec![1.0; 4]; 4];
        (p[0][2], p[2][0], p[0][3], p[3][0]) = (0.01, 0.01, 0.01, 0.01);
        assert_eq!(cliques(&[0, 1, 2, 3], &p, 0.05), [(0, 1), (1, 3)]);
    }
}
