//! Likelihood as a detector of manipulated pictures, also when the attack knows of it.
//!
//! A detector raises an alarm where the score of an embedding is low. It is judged on all clean
//! pictures against those the attack changed the answer to: an attacked picture that is still
//! classified right does no harm. Pictures come in pairs, clean and attacked, so intervals resample
//! pairs and not scores.

use crate::{records::record::Record, statistics::interval::bootstrap};
use serde::{Deserialize, Serialize};

/// Resamplings behind an interval.
pub(crate) const RESAMPLES: usize = 1000;
/// Share of false alarms at which [`Detection::undetected`] is counted.
const ALARMS: f64 = 0.05;

/// A number of clean and of broken scores; `None` where there are too few.
type Statistic<'a> = dyn Fn(&[f64], &[f64]) -> Option<f64> + 'a;

/// A clean picture's score, and that of its attacked version where the attack succeeded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Pair {
    pub(crate) clean: f64,
    pub(crate) broken: Option<f64>,
}

/// A number with its 95 percent interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Estimate {
    /// The number.
    pub value: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// What a detector is worth against one attack.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Detection {
    /// The score.
    pub score: String,
    /// Its weight in what the attack raised; 0: the attack did not know of it.
    pub weight: f64,
    /// Clean pictures.
    pub clean: usize,
    /// Pictures the attack changed the answer to.
    pub broken: usize,
    /// Probability that a clean picture has the higher score of the two; a half is guessing.
    pub auroc: Option<Estimate>,
    /// Share of clean pictures with an alarm when 95 percent of the broken ones have one.
    pub fpr95: Option<Estimate>,
    /// Broken pictures without an alarm at 5 percent false alarms.
    pub undetected: usize,
}

impl Detection {
    /// Of the pairs of all samples; `None` for numbers that need a broken picture where there is
    /// none. `seed` is that of the resampling.
    pub(crate) fn of(score: &str, weight: f64, pairs: &[Pair], seed: u64) -> Self {
        let broken: Vec<f64> = pairs.iter().filter_map(|pair| pair.broken).collect();
        let clean: Vec<f64> = pairs.iter().map(|pair| pair.clean).collect();
        let limit = quantile(clean.clone(), ALARMS);
        let estimate = |of: &Statistic<'_>| {
            let on = |rows: &[usize]| {
                let clean: Vec<f64> = rows.iter().map(|&i| pairs[i].clean).collect();
                let broken: Vec<f64> = rows.iter().filter_map(|&i| pairs[i].broken).collect();
                of(&clean, &broken)
            };
            Estimate::of(pairs.len(), seed, &on)
        };
        Self {
            score: score.to_owned(),
            weight,
            clean: clean.len(),
            broken: broken.len(),
            auroc: estimate(&auroc),
            fpr95: estimate(&|clean, broken| false_alarms(clean, broken, 0.95)),
            undetected: broken.iter().filter(|s| limit.is_some_and(|limit| **s >= limit)).count(),
        }
    }

    /// Writes it into a record of its own task.
    pub(crate) fn tell(&self, record: &mut Record) {
        record.task = "adversarial_detection".to_owned();
        record.metrics.set("auroc", self.auroc.map(|e| e.value));
        record.metrics.set("fpr@tpr95", self.fpr95.map(|e| e.value));
        record.extra.insert("detection".to_owned(), serde_json::json!(self));
    }
}

impl Estimate {
    /// `of` all of `n` samples, with the percentile interval over resampled ones.
    pub(crate) fn of(n: usize, seed: u64, of: &dyn Fn(&[usize]) -> Option<f64>) -> Option<Self> {
        let all: Vec<usize> = (0..n).collect();
        let value = of(&all)?;
        let (low, high) = bootstrap(n, 0.95, RESAMPLES, seed, of);
        // A resample may miss what makes the number; the number itself is always in its interval.
        Some(Self { value, low: low.min(value), high: high.max(value) })
    }
}

/// Probability that a clean score exceeds a broken one, ties by half (Mann and Whitney).
pub(crate) fn auroc(clean: &[f64], broken: &[f64]) -> Option<f64> {
    if clean.is_empty() || broken.is_empty() {
        return None;
    }
    let mut sorted = broken.to_vec();
    sorted.sort_by(f64::total_cmp);
    let wins = |score: &f64| {
        let below = sorted.partition_point(|other| other < score);
        let same = sorted.partition_point(|other| other <= score) - below;
        below as f64 + 0.5 * same as f64
    };
    let sum: f64 = clean.iter().map(wins).sum();
    Some(sum / (clean.len() * broken.len()) as f64)
}

/// Share of clean scores at or below the threshold that catches `caught` of the broken ones.
pub(crate) fn false_alarms(clean: &[f64], broken: &[f64], caught: f64) -> Option<f64> {
    if clean.is_empty() {
        return None;
    }
    let mut sorted = broken.to_vec();
    sorted.sort_by(f64::total_cmp);
    let needed = (caught * sorted.len() as f64).ceil().max(1.0) as usize;
    let threshold = sorted.get(needed - 1)?;
    let alarms = clean.iter().filter(|score| *score <= threshold).count();
    Some(alarms as f64 / clean.len() as f64)
}

/// The smallest score that at most a share of all lies below.
fn quantile(mut scores: Vec<f64>, share: f64) -> Option<f64> {
    scores.sort_by(f64::total_cmp);
    scores.get((share * scores.len() as f64).floor() as usize).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clipguard_data::Stream;

    #[test]
    fn areas_and_false_alarms_by_hand() {
        assert_eq!(auroc(&[1.0, 2.0], &[0.0]), Some(1.0));
        assert_eq!(auroc(&[1.0, 2.0], &[1.5]), Some(0.5));
        assert_eq!(auroc(&[1.0, 1.0], &[1.0]), Some(0.5));
        assert_eq!(auroc(&[0.0], &[1.0, 2.0]), Some(0.0));
        assert_eq!(auroc(&[0.0], &[]), None);
        let broken: Vec<f64> = (0..20).map(f64::from).collect();
        // 19 of 20 are caught at 18; of the clean ones two lie there or below.
        assert_eq!(false_alarms(&[0.5, 18.0, 18.5, 40.0], &broken, 0.95), Some(0.5));
        assert_eq!(quantile(broken.clone(), 0.05), Some(1.0));
        assert_eq!(quantile(Vec::new(), 0.05), None);
    }

    /// Normal scores a distance of one deviation apart: the area is Phi(1 / sqrt 2) = 0.7602, and
    /// 95 percent are caught at 1.645 above their mean, where Phi(0.645) = 0.7405 of the clean are.
    #[test]
    fn estimates_of_normal_scores_cover_what_is_known() {
        let mut stream = Stream::counted(8, "scores", 0);
        let mut covered = [0; 2];
        for seed in 0..20 {
            let pair = |_| Pair {
                clean: f64::from(stream.normal()) + 1.0,
                broken: Some(f64::from(stream.normal())),
            };
            let pairs: Vec<Pair> = (0..150).map(pair).collect();
            let told = Detection::of("s", 0.0, &pairs, seed);
            let within = |e: Option<Estimate>, truth: f64| {
                let e = e.unwrap();
                assert!(e.low <= e.value && e.value <= e.high);
                usize::from(e.low <= truth && truth <= e.high)
            };
            covered[0] += within(told.auroc, 0.7602);
            covered[1] += within(told.fpr95, 0.7405);
            // At 5 percent false alarms the limit is 1 - 1.645, and Phi(0.645) lies above it.
            assert!((0.6..0.9).contains(&(told.undetected as f64 / 150.0)));
        }
        assert!(covered.iter().all(|c| *c >= 15), "{covered:?} of 20");
    }

    #[test]
    fn only_pictures_that_were_broken_count_and_resampling_repeats() {
        let pair = |clean, broken| Pair { clean, broken };
        let pairs = [pair(1.0, None), pair(2.0, Some(0.0)), pair(3.0, None)];
        let told = Detection::of("blank-cosine", 1.0, &pairs, 1);
        assert_eq!((told.clean, told.broken, told.auroc.unwrap().value), (3, 1, 1.0));
        assert_eq!(told, Detection::of("blank-cosine", 1.0, &pairs, 1));
        let none = Detection::of("blank-cosine", 1.0, &[pair(1.0, None)], 1);
        assert_eq!((none.auroc, none.undetected), (None, 0));
        let mut record = Record::default();
        none.tell(&mut record);
        assert!(record.metrics.0["auroc"].is_null() && record.share().is_none());
    }
}
