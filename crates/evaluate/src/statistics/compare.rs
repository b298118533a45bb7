//! Two systems on the same samples: McNemar's test, the size of the difference, and Holm's
//! correction for several comparisons.
//!
//! Two marginal intervals that overlap say nothing about a difference: the samples are the same,
//! so only those on which the two disagree count.

use crate::statistics::interval::{binomial_cdf, critical};
use serde::{Deserialize, Serialize};
use statrs::function::{erf::erfc, factorial::ln_binomial};

/// How two systems A and B fared on the same samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paired {
    /// Samples that only A has right (`b` of the literature).
    pub only_a: usize,
    /// Samples that only B has right (`c` of the literature).
    pub only_b: usize,
    /// All samples.
    pub n: usize,
}

impl Paired {
    /// Counts the disagreements of two lists of "right?" over the same samples; `None` when the
    /// lists differ in length, because then they are not about the same samples.
    pub fn of(a: &[bool], b: &[bool]) -> Option<Self> {
        (a.len() == b.len()).then(|| Self {
            only_a: a.iter().zip(b).filter(|(a, b)| **a && !**b).count(),
            only_b: a.iter().zip(b).filter(|(a, b)| !**a && **b).count(),
            n: a.len(),
        })
    }

    /// Accuracy of B minus accuracy of A, in `[-1, 1]`; 0 for no samples.
    pub fn difference(&self) -> f64 {
        if self.n == 0 {
            return 0.0;
        }
        (self.only_b as f64 - self.only_a as f64) / self.n as f64
    }

    /// Interval of [`Paired::difference`] (Agresti and Min 2005: Wald after adding one half to
    /// each of the four cells), clipped to `[-1, 1]`.
    pub fn agresti_min(&self, level: f64) -> (f64, f64) {
        let (b, c, n) = (self.only_a as f64, self.only_b as f64, self.n as f64 + 2.0);
        let centre = (c - b) / n;
        let variance = ((b + c + 1.0) - (c - b).powi(2) / n) / (n * n);
        let half = critical(level) * variance.max(0.0).sqrt();
        ((centre - half).max(-1.0), (centre + half).min(1.0))
    }

    /// McNemar's test that both err equally often.
    pub fn mcnemar(&self) -> McNemar {
        McNemar::new(self.only_a, self.only_b)
    }
}

/// McNemar's test in its usual forms; small p-values speak against equal error rates.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct McNemar {
    /// Exact two-sided p-value; 1 without disagreements.
    pub exact: f64,
    /// The mid-p value: less conservative than the exact one.
    pub mid_p: f64,
    /// Exact one-sided p-value against "A alone is right more often": `P[Bin(b+c, 1/2) >= b]`.
    pub a_better: f64,
    /// Chi-squared statistic with continuity correction and its p-value; `None` without
    /// disagreements.
    pub chi2_corrected: Option<(f64, f64)>,
    /// Chi-squared statistic and its p-value; `None` without disagreements.
    pub chi2: Option<(f64, f64)>,
}

impl McNemar {
    /// The test for `b` samples that only A has right and `c` that only B has right.
    pub fn new(b: usize, c: usize) -> Self {
        let (total, fewer) = (b + c, b.min(c));
        if total == 0 {
            return Self {
                exact: 1.0,
                mid_p: 1.0,
                a_better: 1.0,
                chi2_corrected: None,
                chi2: None,
            };
        }
        let exact = (2.0 * binomial_cdf(fewer, total, 0.5)).min(1.0);
        let at_fewer =
            (ln_binomial(total as u64, fewer as u64) - total as f64 * std::f64::consts::LN_2).exp();
        // The correction takes the whole step at min(b, c) from the two-sided value, also where
        // that value was cut at 1, as the reference program does.
        let mid_p = exact - at_fewer;
        let gap = b.abs_diff(c) as f64;
        let chi2 = |distance: f64| {
            let statistic = distance * distance / total as f64;
            (statistic, erfc((statistic / 2.0).sqrt()))
        };
        Self {
            exact,
            mid_p,
            a_better: binomial_cdf(c, total, 0.5),
            chi2_corrected: Some(chi2(gap - 1.0)),
            chi2: Some(chi2(gap)),
        }
    }
}

/// Holm's step-down correction: p-values adjusted so that the probability of any false alarm
/// among all of them stays below the level; in the order given, at most 1.
pub fn holm(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|&i, &j| p[i].total_cmp(&p[j]));
    let mut adjusted = vec![1.0; p.len()];
    let mut largest = 0.0_f64;
    for (place, &index) in order.iter().enumerate() {
        largest = largest.max((p[index] * (p.len() - place) as f64).min(1.0));
        adjusted[index] = largest;
    }
    adjusted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden;

    #[test]
    fn golden_mcnemar() {
        for case in golden::json()["mcnemar"].as_array().unwrap() {
            let (b, c) = (golden::count(&case["b"]), golden::count(&case["c"]));
            let ours = McNemar::new(b, c);
            let what = format!("b = {b}, c = {c}");
            golden::close(ours.exact, &case["exact_p"], 1e-9, &what);
            golden::close(ours.mid_p, &case["exact_p_mid"], 1e-9, &what);
            let Some((statistic, p)) = ours.chi2_corrected else {
                assert_eq!(b + c, 0);
                continue;
            };
            golden::close(statistic, &case["chi2_cc"], 1e-9, &what);
            golden::close(p, &case["chi2_cc_p"], 1e-9, &what);
            let (statistic, p) = ours.chi2.unwrap();
            golden::close(statistic, &case["chi2"], 1e-9, &what);
            golden::close(p, &case["chi2_p"], 1e-9, &what);
        }
    }

    #[test]
    fn golden_holm() {
        let golden = &golden::json()["holm"];
        for (ours, theirs) in holm(&golden::floats(&golden["p"])).iter().zip(0..) {
            golden::close(*ours, &golden["adjusted"][theirs], 1e-12, "holm");
        }
        assert!(holm(&[]).is_empty());
    }

    #[test]
    fn counting_and_size_of_a_difference() {
        let pair = Paired::of(&[true, true, false, false], &[true, false, true, true]).unwrap();
        assert_eq!(pair, Paired { only_a: 1, only_b: 2, n: 4 });
        assert_eq!(pair.difference(), 0.25);
        assert!(Paired::of(&[true], &[]).is_none());

        let pair = Paired { only_a: 10, only_b: 30, n: 200 };
        let (low, high) = pair.agresti_min(0.95);
        // (20 +- 1.96 sqrt(41 - 400 / 202)) / 202
        assert!((low - 0.038_407).abs() < 1e-4 && (high - 0.159_612).abs() < 1e-4, "{low} {high}");
        assert!(pair.mcnemar().a_better > 0.99);
        assert!(Paired { only_a: 8, only_b: 0, n: 9 }.mcnemar().a_better < 0.005);
    }
}
