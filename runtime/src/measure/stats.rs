//! Quantiles, confidence bounds and paired tests, over `statrs`'s distributions. Ranks count from 1.

use statrs::distribution::{Binomial, ContinuousCDF, DiscreteCDF, StudentsT};

/// `P(X <= k)` for `X ~ Binomial(n, p)`.
pub fn binomial_cdf(k: u64, n: u64, p: f64) -> f64 {
    Binomial::new(p.clamp(0.0, 1.0), n).map_or(1.0, |binomial| binomial.cdf(k))
}

/// The rank of the `p`-quantile by nearest rank: `ceil(p n)`, at least 1.
pub fn quantile_rank(n: usize, p: f64) -> usize {
    // The subtraction keeps 0.9 * 10 = 9.000000000000002 from becoming 10.
    ((p * n as f64 - 1e-9).ceil() as usize).clamp(1, n.max(1))
}

/// The `p`-quantile of values in ascending order by nearest rank; `None` of none.
pub fn quantile(sorted: &[f64], p: f64) -> Option<f64> {
    sorted.get(quantile_rank(sorted.len(), p) - 1).copied()
}

/// The median of values in any order: the mean of the middle two if their number is even; `None` of none.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    let lower = *sorted.get((sorted.len() - 1) / 2)?;
    Some((lower + upper) / 2.0)
}

/// Mean and sample standard deviation (n - 1; 0 of one value); `None` of none.
pub fn mean_std(values: &[f64]) -> Option<(f64, f64)> {
    let n = values.len() as f64;
    if values.is_empty() {
        return None;
    }
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|x| (x - mean) * (x - mean)).sum();
    Some((mean, if values.len() > 1 { (squares / (n - 1.0)).sqrt() } else { 0.0 }))
}

/// The rank whose value is, with confidence `1 - alpha`, not below the `p`-quantile: the smallest `r` with
/// `P(Binomial(n, p) <= r - 1) >= 1 - alpha`. `None` where `n` samples cannot tell (`p^n > alpha`).
pub fn upper_rank(n: usize, p: f64, alpha: f64) -> Option<usize> {
    let reaches = |r: usize| binomial_cdf(r as u64 - 1, n as u64, p) >= 1.0 - alpha;
    (n > 0 && reaches(n)).then(|| smallest(1, n, reaches))
}

/// The rank whose value is, with confidence `1 - alpha`, not above the `p`-quantile: the largest `r` with
/// `P(Binomial(n, p) <= r - 1) <= alpha`. `None` where `n` samples cannot tell.
pub fn lower_rank(n: usize, p: f64, alpha: f64) -> Option<usize> {
    let beyond = |r: usize| binomial_cdf(r as u64 - 1, n as u64, p) > alpha;
    if n == 0 || beyond(1) {
        return None;
    }
    Some(if beyond(n) { smallest(1, n, beyond) - 1 } else { n })
}

/// Whether `n` samples can bound the `p`-quantile from above with confidence `1 - alpha`: 299 for p99 at 95 %.
pub fn supports(n: usize, p: f64, alpha: f64) -> bool {
    upper_rank(n, p, alpha).is_some()
}

/// The smallest of `low..=high` that holds; `holds` is monotonic and holds at `high`.
fn smallest(mut low: usize, mut high: usize, holds: impl Fn(usize) -> bool) -> usize {
    while low < high {
        let middle = low + (high - low) / 2;
        if holds(middle) { high = middle } else { low = middle + 1 }
    }
    low
}

/// The lower one-sided Clopper-Pearson bound of a share: `successes` of `n`, confidence `1 - alpha`.
pub fn share_lower(successes: u64, n: u64, alpha: f64) -> f64 {
    if successes == 0 || n == 0 {
        return 0.0;
    }
    // P(X >= successes) grows with p; the bound is where it is alpha.
    root(|p| 1.0 - binomial_cdf(successes - 1, n, p) - alpha)
}

/// The upper one-sided Clopper-Pearson bound of a share.
pub fn share_upper(successes: u64, n: u64, alpha: f64) -> f64 {
    if successes >= n {
        return 1.0;
    }
    root(|p| alpha - binomial_cdf(successes, n, p))
}

/// The two-sided Clopper-Pearson interval of a share with confidence `1 - alpha`.
pub fn share_interval(successes: u64, n: u64, alpha: f64) -> (f64, f64) {
    (share_lower(successes, n, alpha / 2.0), share_upper(successes, n, alpha / 2.0))
}

/// Where an increasing function of 0..1 crosses zero.
fn root(f: impl Fn(f64) -> f64) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if f(middle) < 0.0 { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}

/// McNemar's exact test: the two-sided p-value that two classifiers err alike, from the samples that only the first
/// (`only_first`) and only the second (`only_second`) got right. 1 where they never differ.
pub fn mcnemar(only_first: u64, only_second: u64) -> f64 {
    let n = only_first + only_second;
    if n == 0 {
        return 1.0;
    }
    (2.0 * binomial_cdf(only_first.min(only_second), n, 0.5)).min(1.0)
}

/// One-sided bounds of a mean, `(lower, upper)`, each with confidence `1 - alpha` (Student's t); `None` below 2 values.
pub fn mean_bounds(values: &[f64], alpha: f64) -> Option<(f64, f64)> {
    let (mean, std) = mean_std(values).filter(|_| values.len() > 1)?;
    let n = values.len() as f64;
    let t = StudentsT::new(0.0, 1.0, n - 1.0).ok()?.inverse_cdf(1.0 - alpha);
    let half = t * std / n.sqrt();
    Some((mean - half, mean + half))
}

/// Lag-1 autocorrelation of whether each value, in the order of measuring, exceeds `limit`; 0 where all or none do.
pub fn exceedance_autocorrelation(values: &[f64], limit: f64) -> f64 {
    let n = values.len() as f64;
    let share = values.iter().filter(|&&x| x > limit).count() as f64 / n;
    let variance = share * (1.0 - share);
    if values.len() < 2 || variance == 0.0 {
        return 0.0;
    }
    let deviation = |x: f64| f64::from(u8::from(x > limit)) - share;
    let sum: f64 = values.windows(2).map(|pair| deviation(pair[0]) * deviation(pair[1])).sum();
    sum / ((n - 1.0) * variance)
}

/// One-sided bounds of the `p`-quantile, `(lower, upper)`, each with confidence `1 - alpha`, by order statistics.
/// `values` are in the order of measuring: where exceedances of `limit` come in bursts (autocorrelation above 0.1) the
/// number of samples is divided by `(1 + rho) / (1 - rho)` first.
pub fn quantile_bounds(values: &[f64], p: f64, limit: f64, alpha: f64) -> (Option<f64>, Option<f64>) {
    let rho = exceedance_autocorrelation(values, limit).min(0.99);
    let inflation = if rho > 0.1 { (1.0 + rho) / (1.0 - rho) } else { 1.0 };
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let n = (sorted.len() as f64 / inflation).floor() as usize;
    // A rank among the n that count as independent, as a rank among all; outwards, so that the bound stays one.
    let widen = |rank: usize, round: fn(f64) -> f64| round(rank as f64 * inflation) as usize;
    let lower = lower_rank(n, p, alpha).map(|r| widen(r, f64::floor).max(1));
    let upper = upper_rank(n, p, alpha).map(|r| widen(r, f64::ceil).min(sorted.len()));
    (lower.and_then(|r| sorted.get(r - 1).copied()), upper.and_then(|r| sorted.get(r - 1).copied()))
}

/// How far the median of the last fifth is from that of the first: 0.1 is 10 % slower at the end. 0 below 25 values.
pub fn drift(values: &[f64]) -> f64 {
    let fifth = values.len() / 5;
    if fifth < 5 {
        return 0.0;
    }
    match (median(&values[..fifth]), median(&values[values.len() - fifth..])) {
        (Some(first), Some(last)) if first > 0.0 => last / first - 1.0,
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_needed_are_those_of_the_exact_binomial() {
        // Smallest n at which k samples beyond the limit still pass: exact binomial, computed elsewhere.
        #[rustfmt::skip]
        let cases = [
            (0.50, 0.05, [(0, 5), (1, 8), (2, 11), (5, 18), (20, 53)]),
            (0.90, 0.05, [(0, 29), (1, 46), (2, 61), (5, 103), (20, 286)]),
            (0.95, 0.05, [(0, 59), (1, 93), (2, 124), (5, 208), (20, 577)]),
            (0.99, 0.05, [(0, 299), (1, 473), (2, 628), (5, 1049), (20, 2902)]),
            (0.99, 0.01, [(0, 459), (1, 662), (2, 838), (5, 1307), (20, 3304)]),
        ];
        for (p, alpha, rows) in cases {
            for (beyond, n) in rows {
                let passes = |n: usize| upper_rank(n, p, alpha).is_some_and(|rank| rank <= n - beyond);
                assert!(passes(n) && !passes(n - 1), "p{p} alpha {alpha}: {beyond} beyond, {n}");
            }
        }
        assert!(supports(299, 0.99, 0.05) && !supports(298, 0.99, 0.05));
    }

    #[test]
    fn shares_are_bounded_as_clopper_and_pearson_do() {
        // R 4: binom.test(x, n)$conf.int; one-sided: conf.level 0.9.
        #[rustfmt::skip]
        let cases = [
            (0, 10, 0.05, 0.0, 0.308_497_1),
            (10, 10, 0.05, 0.691_502_9, 1.0),
            (8, 10, 0.05, 0.443_904_5, 0.974_789_3),
            (1, 2, 0.05, 0.012_579_12, 0.987_420_88),
        ];
        for (successes, n, alpha, lower, upper) in cases {
            let found = share_interval(successes, n, alpha);
            assert!((found.0 - lower).abs() < 1e-6 && (found.1 - upper).abs() < 1e-6, "{successes}/{n}: {found:?}");
        }
    }

    #[test]
    fn quantiles_are_by_nearest_rank() {
        let sorted: Vec<f64> = (1..=10).map(f64::from).collect();
        assert_eq!(quantile(&sorted, 0.9), Some(9.0));
        assert_eq!(quantile(&sorted, 0.91), Some(10.0));
        assert_eq!(quantile(&sorted, 0.5), Some(5.0));
        assert_eq!(quantile(&[7.0], 0.01), Some(7.0));
        assert_eq!(quantile(&[], 0.5), None);
        assert_eq!(median(&[3.0, 1.0, 2.0, 10.0]), Some(2.5));
    }

    #[test]
    fn discordant_pairs_are_tested_exactly() {
        // 2 * sum of C(10, 0..=2) / 2^10 = 2 * 56 / 1024.
        assert!((mcnemar(2, 8) - 0.109_375).abs() < 1e-12);
        assert_eq!((mcnemar(0, 0), mcnemar(3, 3)), (1.0, 1.0));
    }

    #[test]
    fn a_mean_is_bounded_by_students_t() {
        // t(0.95, 4) = 2.131847; the standard deviation of 1..5 is sqrt(2.5).
        let (lower, upper) = mean_bounds(&[1.0, 2.0, 3.0, 4.0, 5.0], 0.05).unwrap_or_default();
        let half = 2.131_847 * (2.5_f64 / 5.0).sqrt();
        assert!((lower - (3.0 - half)).abs() < 1e-5 && (upper - (3.0 + half)).abs() < 1e-5, "{lower} {upper}");
    }

    #[test]
    fn bursts_widen_the_bounds() {
        let spread: Vec<f64> = (0..1000).map(|i| if i % 20 == 0 { 9.0 } else { 1.0 }).collect();
        let burst: Vec<f64> = (0..1000).map(|i| if i < 50 { 9.0 } else { 1.0 }).collect();
        assert_eq!(quantile_bounds(&spread, 0.9, 5.0, 0.05).1, Some(1.0));
        assert!(exceedance_autocorrelation(&burst, 5.0) > 0.9);
        // 1,000 samples in bursts count as a handful: no bound at all.
        assert_eq!(quantile_bounds(&burst, 0.9, 5.0, 0.05).1, None);
        assert!((drift(&(0..100).map(|i| if i < 50 { 1.0 } else { 1.2 }).collect::<Vec<_>>()) - 0.2).abs() < 1e-12);
    }
}
