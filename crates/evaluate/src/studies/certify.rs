//! Certified accuracy by randomised smoothing (Cohen, Rosenfeld and Kolter 2019): the statistics
//! that turn counts of noisy votes into a radius.
//!
//! `n` is fixed before the votes are drawn. Adding votes until a radius comes out would break the
//! level that the certificate promises.

use crate::statistics::interval::{binomial_cdf, clopper_pearson_lower, normal_quantile};
use serde::{Deserialize, Serialize};

/// What the votes for one sample allow to promise.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Certificate {
    /// Lower bound of the probability of the chosen class under noise, at level `1 - alpha`.
    pub p_lower: f64,
    /// L2 radius in pixel units `[0, 1]`; `None` when the smoothed classifier abstains.
    pub radius: Option<f64>,
}

/// Algorithm CERTIFY of the paper: `hits` of `n` fresh votes for the class that other votes chose
/// beforehand; `sigma` is the noise's standard deviation.
pub fn certify(hits: usize, n: usize, alpha: f64, sigma: f64) -> Certificate {
    let p_lower = clopper_pearson_lower(hits, n, alpha);
    let radius = (p_lower >= 0.5).then(|| sigma * normal_quantile(p_lower));
    Certificate { p_lower, radius }
}

/// Algorithm PREDICT of the paper: the class with most votes, or `None` (abstain) when the two
/// leading ones differ by less than chance would explain at level `alpha`. Ties go to the lower
/// class, and then abstain anyway.
pub fn predict(votes: &[usize], alpha: f64) -> Option<usize> {
    let first = (0..votes.len()).max_by_key(|&class| (votes[class], usize::MAX - class))?;
    let second = (0..votes.len()).filter(|&class| class != first).map(|class| votes[class]).max();
    (two_sided(votes[first], second.unwrap_or(0)) <= alpha).then_some(first)
}

/// p-value of the two-sided exact test that two classes with `a` and `b` votes are equally likely.
pub fn two_sided(a: usize, b: usize) -> f64 {
    (2.0 * binomial_cdf(a.min(b), a + b, 0.5)).min(1.0)
}

/// The largest radius that `n` votes can certify, all of them for one class.
pub fn largest_radius(n: usize, alpha: f64, sigma: f64) -> f64 {
    certify(n, n, alpha, sigma).radius.unwrap_or(0.0)
}

/// Share of all `samples` that are right and certified at least to `radius`; abstentions count as
/// wrong. Each sample is `(right, certified radius)`.
pub fn certified_accuracy(samples: &[(bool, Option<f64>)], radius: f64) -> f64 {
    if samples.is_empty() {
        return 0.0;
    }
    let held = samples.iter().filter(|(right, r)| *right && r.is_some_and(|r| r >= radius));
    held.count() as f64 / samples.len() as f64
}

/// Mean certified radius over all samples, 0 for wrong ones and abstentions.
pub fn average_radius(samples: &[(bool, Option<f64>)]) -> f64 {
    if samples.is_empty() {
        return 0.0;
    }
    let sum: f64 = samples.iter().filter(|(right, _)| *right).filter_map(|(_, r)| *r).sum();
    sum / samples.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden;

    #[test]
    fn golden_certificates() {
        for case in golden::json()["certify"].as_array().unwrap() {
            let (hits, n) = (golden::count(&case["nA"]), golden::count(&case["n"]));
            let (alpha, sigma) = (case["alpha"].as_f64().unwrap(), case["sigma"].as_f64().unwrap());
            let ours = certify(hits, n, alpha, sigma);
            let what = format!("{hits} of {n}");
            golden::close(ours.p_lower, &case["pA_lower"], 1e-9, &what);
            assert_eq!(ours.radius.is_none(), case["abstain"].as_bool().unwrap(), "{what}");
            golden::close(ours.radius.unwrap_or(0.0), &case["radius"], 1e-8, &what);
        }
    }

    #[test]
    fn golden_predictions() {
        for case in golden::json()["predict"].as_array().unwrap() {
            let (a, b) = (golden::count(&case["c1"]), golden::count(&case["c2"]));
            golden::close(two_sided(a, b), &case["p_value"], 1e-9, &format!("{a} to {b}"));
        }
        assert_eq!(predict(&[3, 90, 7], 0.001), Some(1));
        assert_eq!(predict(&[50, 50], 0.001), None);
        assert_eq!(predict(&[], 0.001), None);
    }

    /// The bound holds with the probability it promises: for a known share of hits it lies above
    /// the share in at most `alpha` of all experiments.
    #[test]
    fn the_bound_covers_as_often_as_it_promises() {
        let (alpha, n, experiments) = (0.05, 100, 4000);
        for share in [0.5f32, 0.7, 0.9, 0.99] {
            let mut stream = clipguard_data::Stream::keyed(5, "coverage", share.to_le_bytes());
            let mut beyond = 0;
            for _ in 0..experiments {
                let hits = (0..n).filter(|_| stream.chance(share)).count();
                beyond += usize::from(certify(hits, n, alpha, 1.0).p_lower > f64::from(share));
            }
            // Four standard deviations of chance above the promise.
            let most = alpha + 4.0 * (alpha * (1.0 - alpha) / experiments as f64).sqrt();
            let found = beyond as f64 / experiments as f64;
            assert!(found <= most, "{share}: {found} above {most}");
        }
        // It is a bound and no guess: just above a half there is an answer, just below there is none.
        assert!(certify(60, 100, alpha, 1.0).radius.is_some());
        assert!(certify(55, 100, alpha, 1.0).radius.is_none());
    }

    #[test]
    fn accuracy_over_radius() {
        let samples = [(true, Some(0.5)), (true, None), (false, Some(2.0)), (true, Some(0.25))];
        assert_eq!(certified_accuracy(&samples, 0.0), 0.5);
        assert_eq!(certified_accuracy(&samples, 0.3), 0.25);
        assert_eq!(average_radius(&samples), 0.1875);
        // Known: 3.81 sigma for 1e5 votes, 2.46 for 1e3.
        assert!((largest_radius(100_000, 0.001, 1.0) - 3.81).abs() < 0.01);
        assert!((largest_radius(1000, 0.001, 1.0) - 2.46).abs() < 0.01);
    }
}
