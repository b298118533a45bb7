//! How far a share of `n` samples can be trusted: confidence intervals of a proportion.
//!
//! Wilson's interval is the headline for accuracies, Clopper and Pearson's for statements that
//! are meant as a guarantee. The plain normal interval is missing on purpose: at `k = n` it
//! claims to be certain. No interval covers an attack that was too weak, the choice of the
//! subset, or the choice of the seed; the report says so beside every number.

use clipguard_data::Stream;
use serde::{Deserialize, Serialize};
use statrs::function::{beta::beta_reg, erf};

/// Which construction an [`Interval`] comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IntervalMethod {
    /// Wilson 1927, the inverted score test.
    #[default]
    Wilson,
    /// Wilson with continuity correction (Newcombe 1998, method 4).
    WilsonContinuity,
    /// Clopper and Pearson 1934: never covers less than its level.
    ClopperPearson,
    /// Agresti and Coull 1998: the normal interval around Wilson's centre.
    AgrestiCoull,
    /// Percentiles of resampled clusters, for samples that come in groups.
    ClusterBootstrap,
}

impl IntervalMethod {
    /// Name for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Wilson => "Wilson",
            Self::WilsonContinuity => "Wilson, continuity corrected",
            Self::ClopperPearson => "Clopper-Pearson",
            Self::AgrestiCoull => "Agresti-Coull",
            Self::ClusterBootstrap => "cluster bootstrap",
        }
    }
}

/// A two-sided confidence interval of a proportion, as fractions in `[0, 1]`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Confidence level, such as 0.95.
    pub level: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// How it was computed.
    pub method: IntervalMethod,
}

impl Interval {
    /// Wilson's interval for `k` hits of `n`. Nothing is known for `n = 0`: `[0, 1]`.
    pub fn wilson(k: usize, n: usize, level: f64) -> Self {
        let method = IntervalMethod::Wilson;
        if n == 0 {
            return Self::ignorant(level, method);
        }
        let (z, count, share) = (critical(level), n as f64, k as f64 / n as f64);
        let shrink = 1.0 + z * z / count;
        let centre = (share + z * z / (2.0 * count)) / shrink;
        let spread = share * (1.0 - share) / count + z * z / (4.0 * count * count);
        let half = z / shrink * spread.sqrt();
        Self::clamped(level, centre - half, centre + half, method).exact_at_ends(k, n)
    }

    /// Wilson's interval with continuity correction (Newcombe 1998, equation for method 4).
    pub fn wilson_continuity(k: usize, n: usize, level: f64) -> Self {
        let method = IntervalMethod::WilsonContinuity;
        if n == 0 {
            return Self::ignorant(level, method);
        }
        let (z, count, share) = (critical(level), n as f64, k as f64 / n as f64);
        let denominator = 2.0 * (count + z * z);
        let centre = 2.0 * count * share + z * z;
        let root = |sign: f64| {
            let inner =
                z * z - sign * 2.0 - 1.0 / count + 4.0 * share * (count * (1.0 - share) + sign);
            inner.max(0.0).sqrt()
        };
        let low = (centre - 1.0 - z * root(1.0)) / denominator;
        let high = (centre + 1.0 + z * root(-1.0)) / denominator;
        Self::clamped(level, low, high, method).exact_at_ends(k, n)
    }

    /// Clopper and Pearson's interval: quantiles of the beta distribution.
    pub fn clopper_pearson(k: usize, n: usize, level: f64) -> Self {
        let method = IntervalMethod::ClopperPearson;
        if n == 0 {
            return Self::ignorant(level, method);
        }
        let tail = (1.0 - level) / 2.0;
        let low = clopper_pearson_lower(k, n, tail);
        let high = if k >= n { 1.0 } else { beta_quantile(1.0 - tail, k + 1, n - k) };
        Self { level, low, high, method }
    }

    /// Agresti and Coull's interval, clipped to `[0, 1]`.
    pub fn agresti_coull(k: usize, n: usize, level: f64) -> Self {
        let method = IntervalMethod::AgrestiCoull;
        if n == 0 {
            return Self::ignorant(level, method);
        }
        let z = critical(level);
        let count = n as f64 + z * z;
        let share = (k as f64 + z * z / 2.0) / count;
        let half = z * (share * (1.0 - share) / count).sqrt();
        Self::clamped(level, share - half, share + half, method)
    }

    /// The interval of `hits` per cluster when the samples of a cluster hang together, such as
    /// the captions of one picture: percentiles of the share over `rounds` resamplings of whole
    /// clusters.
    ///
    /// `clusters` holds `(hits, samples)` of each; `below(n)` draws uniformly from `0..n`.
    pub fn cluster_bootstrap(
        clusters: &[(usize, usize)],
        level: f64,
        rounds: usize,
        mut below: impl FnMut(usize) -> usize,
    ) -> Self {
        let method = IntervalMethod::ClusterBootstrap;
        let samples: usize = clusters.iter().map(|cluster| cluster.1).sum();
        if samples == 0 || rounds == 0 {
            return Self::ignorant(level, method);
        }
        let mut shares: Vec<f64> = (0..rounds)
            .filter_map(|_| {
                let (hits, count) = (0..clusters.len())
                    .map(|_| clusters[below(clusters.len()).min(clusters.len() - 1)])
                    .fold((0, 0), |sum, drawn| (sum.0 + drawn.0, sum.1 + drawn.1));
                (count > 0).then(|| hits as f64 / count as f64)
            })
            .collect();
        if shares.is_empty() {
            return Self::ignorant(level, method);
        }
        shares.sort_by(f64::total_cmp);
        let at = |share: f64| shares[((shares.len() - 1) as f64 * share).round() as usize];
        let tail = (1.0 - level) / 2.0;
        Self { level, low: at(tail), high: at(1.0 - tail), method }
    }

    /// Half the width, the "plus or minus" of a headline.
    pub fn half_width(&self) -> f64 {
        (self.high - self.low) / 2.0
    }

    fn ignorant(level: f64, method: IntervalMethod) -> Self {
        Self { level, low: 0.0, high: 1.0, method }
    }

    fn clamped(level: f64, low: f64, high: f64, method: IntervalMethod) -> Self {
        Self { level, low: low.clamp(0.0, 1.0), high: high.clamp(0.0, 1.0), method }
    }

    /// Rounding must not turn an end that is 0 or 1 by construction into 1e-17.
    fn exact_at_ends(mut self, k: usize, n: usize) -> Self {
        if k == 0 {
            self.low = 0.0;
        }
        if k >= n {
            self.high = 1.0;
        }
        self
    }
}

/// One-sided lower Clopper-Pearson bound: the smallest share for which `k` or more hits of `n`
/// still have probability `alpha`. 0 for `k = 0`.
pub fn clopper_pearson_lower(k: usize, n: usize, alpha: f64) -> f64 {
    if k == 0 || n == 0 {
        return 0.0;
    }
    beta_quantile(alpha, k.min(n), n - k.min(n) + 1)
}

/// The standard normal quantile; `-inf` at 0, `inf` at 1, NaN outside `[0, 1]`.
pub fn normal_quantile(p: f64) -> f64 {
    if !(0.0..=1.0).contains(&p) {
        return f64::NAN;
    }
    if p == 0.0 || p == 1.0 {
        return if p == 0.0 { f64::NEG_INFINITY } else { f64::INFINITY };
    }
    if p == 0.5 { 0.0 } else { -std::f64::consts::SQRT_2 * erf::erfc_inv(2.0 * p) }
}

/// Ends of the percentile interval of a statistic over resampled samples. `of` gets the places of
/// the samples drawn, of `n`, with repetition; resamples for which it says nothing are left out.
pub(crate) fn bootstrap(
    n: usize,
    level: f64,
    rounds: usize,
    seed: u64,
    of: &dyn Fn(&[usize]) -> Option<f64>,
) -> (f64, f64) {
    let round = |round: usize| {
        let mut stream = Stream::counted(seed, "bootstrap", round as u64);
        let drawn: Vec<usize> = (0..n).map(|_| stream.below(n)).collect();
        of(&drawn).filter(|value| value.is_finite())
    };
    let mut values: Vec<f64> = (0..rounds).filter_map(round).collect();
    values.sort_by(f64::total_cmp);
    let Some(last) = values.len().checked_sub(1) else {
        return (f64::NEG_INFINITY, f64::INFINITY);
    };
    let at = |share: f64| values[(last as f64 * share).round() as usize];
    let tail = (1.0 - level) / 2.0;
    (at(tail), at(1.0 - tail))
}

/// The critical value of a two-sided interval: 1.96 for a level of 0.95.
pub(crate) fn critical(level: f64) -> f64 {
    -normal_quantile((1.0 - level) / 2.0)
}

/// `P[Bin(n, share) <= k]`, through the regularised incomplete beta function.
pub(crate) fn binomial_cdf(k: usize, n: usize, share: f64) -> f64 {
    if k >= n { 1.0 } else { beta_reg((n - k) as f64, k as f64 + 1.0, 1.0 - share) }
}

/// The quantile of a beta distribution with whole parameters `a, b >= 1`.
///
/// Bisection on the distribution function: some sixty evaluations, and no way to fail, where
/// Newton steps need care at the ends.
fn beta_quantile(p: f64, a: usize, b: usize) -> f64 {
    let (mut low, mut high) = (0.0_f64, 1.0_f64);
    for _ in 0..200 {
        let middle = 0.5 * (low + high);
        if middle <= low || middle >= high {
            break;
        }
        if beta_reg(a as f64, b as f64, middle) < p {
            low = middle;
        } else {
            high = middle;
        }
    }
    0.5 * (low + high)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden;

    #[test]
    fn golden_intervals() {
        let golden = golden::json();
        for case in golden["intervals"].as_array().unwrap() {
            let (k, n) = (golden::count(&case["k"]), golden::count(&case["n"]));
            for (alpha, level) in [("0.05", 0.95), ("0.01", 0.99)] {
                for (name, ours) in [
                    ("wilson", Interval::wilson(k, n, level)),
                    ("wilson_cc", Interval::wilson_continuity(k, n, level)),
                    ("clopper_pearson", Interval::clopper_pearson(k, n, level)),
                    ("agresti_coull", Interval::agresti_coull(k, n, level)),
                ] {
                    let ends = &case[alpha][name];
                    golden::close(ours.low, &ends[0], 1e-9, &format!("{name} {k}/{n} low"));
                    golden::close(ours.high, &ends[1], 1e-9, &format!("{name} {k}/{n} high"));
                }
            }
        }
    }

    #[test]
    fn golden_quantiles() {
        for (p, value) in golden::json()["norm_ppf"].as_object().unwrap() {
            golden::close(normal_quantile(p.parse().unwrap()), value, 1e-9, p);
        }
        assert!(normal_quantile(1.5).is_nan() && normal_quantile(f64::NAN).is_nan());
        assert_eq!(normal_quantile(0.0), f64::NEG_INFINITY);
    }

    #[test]
    fn nothing_is_known_of_no_samples() {
        let made = [
            Interval::wilson,
            Interval::wilson_continuity,
            Interval::clopper_pearson,
            Interval::agresti_coull,
        ];
        for interval in made.map(|make| make(0, 0, 0.95)) {
            assert_eq!((interval.low, interval.high), (0.0, 1.0));
        }
        assert_eq!(clopper_pearson_lower(0, 0, 0.05), 0.0);
    }

    #[test]
    fn clusters_widen_the_interval() {
        // 40 clusters of 5 that are all right or all wrong carry the information of 40 samples.
        let clusters: Vec<(usize, usize)> = (0..40).map(|i| (5 * (i % 2), 5)).collect();
        let mut state = 1_u64;
        let draw = |n: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            ((state >> 33) as usize) % n
        };
        let boot = Interval::cluster_bootstrap(&clusters, 0.95, 2000, draw);
        let alone = Interval::wilson(100, 200, 0.95);
        let (width, naive) = (boot.half_width(), alone.half_width());
        assert!(width > 1.8 * naive && width < 2.8 * naive, "{width} against {naive}");
    }

    #[test]
    fn names_in_json() {
        let text = serde_json::to_string(&Interval::clopper_pearson(0, 1, 0.95)).unwrap();
        assert!(text.contains("\"method\":\"clopper-pearson\""), "{text}");
    }
}
