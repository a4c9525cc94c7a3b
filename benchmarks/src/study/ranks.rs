//! Several methods over several data sets: mean ranks, Wilcoxon's signed ranks for each pair, Holm's correction (Demšar 2006;
//! Benavoli, Corani, Mangili 2016 for pairs instead of Friedman's post-hoc test).

/// Ranks of values, the largest 1; equal values share the mean of their ranks.
pub fn ranks(values: &[f64]) -> Vec<f64> {
    let rank = |&value: &f64| {
        let above = values.iter().filter(|&&other| other > value).count();
        let equal = values.iter().filter(|&&other| other == value).count();
        above as f64 + (equal as f64 + 1.0) / 2.0
    };
    values.iter().map(rank).collect()
}

/// Mean ranks of methods: `accuracy[set][method]`.
pub fn mean_ranks(accuracy: &[Vec<f64>]) -> Vec<f64> {
    let methods = accuracy.first().map_or(0, Vec::len);
    let all: Vec<Vec<f64>> = accuracy.iter().map(|values| ranks(values)).collect();
    (0..methods).map(|m| all.iter().map(|ranks| ranks[m]).sum::<f64>() / all.len().max(1) as f64).collect()
}

/// Two-sided p of Wilcoxon's signed rank test, exact: over all signs of the differences that are there. Differences of 0 are
/// left out (Wilcoxon's own way); 1 where none is left. At most 24 differences.
pub fn wilcoxon(differences: &[f64]) -> f64 {
    let there: Vec<f64> = differences.iter().copied().filter(|d| *d != 0.0).collect();
    let n = there.len();
    assert!(n <= 24, "at most 24 differences");
    let sizes: Vec<f64> = there.iter().map(|d| -d.abs()).collect();
    let ranks = ranks(&sizes);
    let half = ranks.iter().sum::<f64>() / 2.0;
    let sum = |signs: &dyn Fn(usize) -> bool| (0..n).filter(|&i| signs(i)).map(|i| ranks[i]).sum::<f64>();
    let seen = (sum(&|i| there[i] > 0.0) - half).abs();
    let as_far = (0_u32..1 << n).filter(|bits| (sum(&|i| bits >> i & 1 == 1) - half).abs() >= seen - 1e-9).count();
    as_far as f64 / f64::from(1_u32 << n)
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

/// Adjusted p of each pair of methods, symmetric, 1 on the diagonal: `accuracy[set][method]`.
pub fn pairs(accuracy: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let methods = accuracy.first().map_or(0, Vec::len);
    let all: Vec<(usize, usize)> = (0..methods).flat_map(|a| (0..a).map(move |b| (a, b))).collect();
    let one =
        |&(a, b): &(usize, usize)| wilcoxon(&accuracy.iter().map(|values| values[a] - values[b]).collect::<Vec<_>>());
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_share_their_ranks() {
        assert_eq!(ranks(&[0.9, 0.7, 0.9, 0.8]), [1.5, 4.0, 1.5, 3.0]);
        assert_eq!(mean_ranks(&[vec![1.0, 2.0], vec![3.0, 3.0]]), [1.75, 1.25]);
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
