//! Classification metrics from scores: the ones zero-shot papers print, with ties that do not
//! depend on a sorting algorithm and with a number (or "none") for every odd case.
//!
//! Definitions follow CLIP_benchmark. It was not followed where it gives NaN (fewer than five
//! classes) or leaves ties to the sort.

use serde::{Deserialize, Serialize};

/// Why metrics cannot be computed from what was given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MetricError {
    /// The scores are no `n` rows of `classes` columns.
    #[error("{scores} scores are not {rows} rows of {columns}")]
    Shape {
        /// Numbers given.
        scores: usize,
        /// Rows expected.
        rows: usize,
        /// Columns expected.
        columns: usize,
    },
    /// A label or owner points outside.
    #[error("entry {index} is {value}, but there are only {limit}")]
    OutOfRange {
        /// Position in the list.
        index: usize,
        /// What stands there.
        value: usize,
        /// Smallest number that is too large.
        limit: usize,
    },
    /// Recall at a `k` larger than the number of candidates would always be 1.
    #[error("recall at {k} needs at least {k} candidates, there are {candidates}")]
    TooFew {
        /// The k asked for.
        k: usize,
        /// Candidates there are.
        candidates: usize,
    },
}

/// How often a class was right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClassScore {
    /// Samples of the class.
    pub support: usize,
    /// Samples predicted as the class.
    pub predicted: usize,
    /// Samples of the class predicted as the class.
    pub hits: usize,
}

impl ClassScore {
    /// Share of the class that was found; `None` when the class does not occur.
    pub fn recall(&self) -> Option<f64> {
        ratio(self.hits, self.support)
    }

    /// Share of the predictions that were right; `None` when it was never predicted.
    pub fn precision(&self) -> Option<f64> {
        ratio(self.hits, self.predicted)
    }

    /// Harmonic mean of both, `2 hits / (support + predicted)`; `None` when neither occurs.
    pub fn f1(&self) -> Option<f64> {
        ratio(2 * self.hits, self.support + self.predicted)
    }
}

/// Single-label classification of `n` samples.
#[derive(Clone, Debug, PartialEq)]
pub struct Classification {
    /// Samples.
    pub n: usize,
    /// Samples whose label has the highest score.
    pub correct: usize,
    /// Samples with a score that is not a number; they count as wrong.
    pub invalid: usize,
    /// `correct / n`; `None` without samples.
    pub acc1: Option<f64>,
    /// Share of samples whose label is among the five highest scores; `None` below five classes.
    pub acc5: Option<f64>,
    /// Mean recall over the classes that occur among the labels.
    pub mean_per_class_recall: Option<f64>,
    /// Expected calibration error of the softmax of the scores, 15 bins (Guo et al. 2017).
    pub ece: Option<f64>,
    /// One entry a class.
    pub classes: Vec<ClassScore>,
    /// `confusion[label * classes + prediction]`, without the invalid samples.
    pub confusion: Vec<usize>,
    /// Predicted class of each sample; `None` for an invalid one.
    pub predictions: Vec<Option<usize>>,
    /// Softmax probability of the predicted class; 0 for an invalid sample.
    pub confidences: Vec<f32>,
}

impl Classification {
    /// Metrics of `scores` `[labels.len(), classes]`, row-major. ECE and confidences take the
    /// scores for logits.
    pub fn new(scores: &[f32], classes: usize, labels: &[usize]) -> Result<Self, MetricError> {
        check(scores.len(), labels, classes)?;
        let n = labels.len();
        let mut per_class = vec![ClassScore::default(); classes];
        let mut confusion = vec![0; classes * classes];
        let mut predictions = Vec::with_capacity(n);
        let mut confidences = Vec::with_capacity(n);
        let (mut correct, mut among_five) = (0, 0);
        for (row, &label) in scores.chunks_exact(classes.max(1)).zip(labels) {
            per_class[label].support += 1;
            let prediction = argmax(row);
            predictions.push(prediction);
            confidences.push(prediction.map_or(0.0, |class| confidence(row, class)));
            let Some(class) = prediction else { continue };
            let rank = rank(row, label);
            correct += usize::from(rank == 0);
            among_five += usize::from(rank < 5);
            per_class[class].predicted += 1;
            per_class[class].hits += usize::from(class == label);
            confusion[label * classes + class] += 1;
        }
        let recalls: Vec<f64> = per_class.iter().filter_map(ClassScore::recall).collect();
        let right: Vec<bool> =
            predictions.iter().zip(labels).map(|(p, label)| *p == Some(*label)).collect();
        Ok(Self {
            n,
            correct,
            invalid: predictions.iter().filter(|p| p.is_none()).count(),
            acc1: ratio(correct, n),
            acc5: if classes < 5 { None } else { ratio(among_five, n) },
            mean_per_class_recall: mean(&recalls),
            ece: calibration_error(&confidences, &right, 15),
            classes: per_class,
            confusion,
            predictions,
            confidences,
        })
    }

    /// Whether each sample is right, in order: what paired comparisons take.
    pub fn right(&self, labels: &[usize]) -> Vec<bool> {
        self.predictions.iter().zip(labels).map(|(p, label)| *p == Some(*label)).collect()
    }
}

/// Place of `label` in its row, 0 for the best: the number of greater scores plus the number of
/// equal ones at a lower index. A row with a NaN puts every label last.
pub fn rank(row: &[f32], label: usize) -> usize {
    if row.iter().any(|score| score.is_nan()) {
        return row.len();
    }
    let own = row[label];
    let before = row[..label].iter().filter(|&&score| score >= own).count();
    before + row[label..].iter().filter(|&&score| score > own).count()
}

/// Class with the highest score, the lower one of a tie; `None` for an empty row or one with a
/// NaN.
pub fn argmax(row: &[f32]) -> Option<usize> {
    if row.iter().any(|score| score.is_nan()) {
        return None;
    }
    (0..row.len()).reduce(|best, class| if row[class] > row[best] { class } else { best })
}

/// Expected calibration error with `bins` bins of equal width: the mean distance between
/// confidence and accuracy of a bin, weighted by its samples. `None` without samples.
pub fn calibration_error(confidences: &[f32], right: &[bool], bins: usize) -> Option<f64> {
    let n = confidences.len().min(right.len());
    if n == 0 || bins == 0 {
        return None;
    }
    let mut sums = vec![0.0_f64; bins];
    for (&confidence, &right) in confidences.iter().zip(right) {
        // Bins are open below and closed above, so that a confidence of 1 has one.
        let bin = (f64::from(confidence) * bins as f64).ceil() as usize;
        sums[bin.clamp(1, bins) - 1] += f64::from(u8::from(right)) - f64::from(confidence);
    }
    Some(sums.iter().map(|sum| sum.abs()).sum::<f64>() / n as f64)
}

/// Average precision of every class of a multi-label task: scores and 0/1 targets `[n, classes]`,
/// row-major. A class without positives has 0, as in CLIP_benchmark.
///
/// Equal scores keep the order of the samples; a NaN is placed last.
pub fn average_precision(
    scores: &[f32],
    targets: &[bool],
    classes: usize,
) -> Result<Vec<f64>, MetricError> {
    let rows = targets.len() / classes.max(1);
    if scores.len() != targets.len() || scores.len() != rows * classes {
        return Err(MetricError::Shape { scores: scores.len(), rows, columns: classes });
    }
    let of_class = |class: usize| {
        let score = |row: usize| {
            let value = scores[row * classes + class];
            if value.is_nan() { f32::NEG_INFINITY } else { value }
        };
        let mut order: Vec<usize> = (0..rows).collect();
        order.sort_by(|&i, &j| score(j).total_cmp(&score(i)));
        let (mut found, mut sum) = (0, 0.0);
        for (place, &row) in order.iter().enumerate() {
            if targets[row * classes + class] {
                found += 1;
                sum += found as f64 / (place + 1) as f64;
            }
        }
        sum / found.max(1) as f64
    };
    Ok((0..classes).map(of_class).collect())
}

/// Mean of [`average_precision`] over all classes, those without positives included.
pub fn mean_average_precision(
    scores: &[f32],
    targets: &[bool],
    classes: usize,
) -> Result<Option<f64>, MetricError> {
    average_precision(scores, targets, classes).map(|each| mean(&each))
}

fn check(scores: usize, labels: &[usize], classes: usize) -> Result<(), MetricError> {
    if labels.len().checked_mul(classes) != Some(scores) {
        return Err(MetricError::Shape { scores, rows: labels.len(), columns: classes });
    }
    match labels.iter().enumerate().find(|(_, label)| **label >= classes) {
        Some((index, &value)) => Err(MetricError::OutOfRange { index, value, limit: classes }),
        None => Ok(()),
    }
}

/// Softmax probability of a class of largest score: its own exponential is 1.
fn confidence(row: &[f32], class: usize) -> f32 {
    let top = f64::from(row[class]);
    if top.is_infinite() {
        return 1.0;
    }
    let sum: f64 = row.iter().map(|&score| (f64::from(score) - top).exp()).sum();
    (1.0 / sum) as f32
}

fn ratio(part: usize, whole: usize) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden;

    #[test]
    fn golden_classification() {
        for (key, name, classes) in
            [("classification_vit", "cls", 10), ("classification_missing_classes", "cls2", 7)]
        {
            let scores = golden::floats32(&format!("{name}_logits"));
            let labels = golden::indices(&format!("{name}_target"));
            let ours = Classification::new(&scores, classes, &labels).unwrap();
            let theirs = &golden::json()[key];
            golden::close(ours.acc1.unwrap(), &theirs["acc1"], 1e-7, key);
            golden::close(ours.acc5.unwrap(), &theirs["acc5"], 1e-7, key);
            let recall = ours.mean_per_class_recall.unwrap();
            golden::close(recall, &theirs["mean_per_class_recall"], 1e-7, key);
            assert_eq!(ours.confusion.iter().sum::<usize>(), labels.len());
            assert_eq!(ours.right(&labels).iter().filter(|r| **r).count(), ours.correct);
        }
    }

    #[test]
    fn golden_multilabel() {
        let scores = golden::floats32("multilabel_scores");
        let targets: Vec<bool> =
            golden::floats32("multilabel_targets").iter().map(|&t| t > 0.5).collect();
        let each = average_precision(&scores, &targets, 6).unwrap();
        for (ours, theirs) in each.iter().zip(golden::floats32("multilabel_ap")) {
            assert!((ours - f64::from(theirs)).abs() < 1e-7);
        }
        let map = mean_average_precision(&scores, &targets, 6).unwrap().unwrap();
        golden::close(map, &golden::json()["multilabel_map"], 1e-7, "mAP");
        assert!(average_precision(&scores, &targets, 7).is_err());
    }

    #[test]
    fn ties_go_to_the_lower_index() {
        let row = [1.0, 3.0, 3.0, 3.0, 0.0];
        assert_eq!(argmax(&row), Some(1));
        assert_eq!([0, 1, 2, 3, 4].map(|label| rank(&row, label)), [3, 0, 1, 2, 4]);
        let constant = [0.5_f32; 12];
        let tied = Classification::new(&constant, 6, &[0, 5]).unwrap();
        assert_eq!((tied.acc1, tied.acc5), (Some(0.5), Some(0.5)));
    }

    #[test]
    fn few_classes_empty_classes_and_no_samples() {
        let few = Classification::new(&[0.1, 0.9, 0.8, 0.2], 2, &[1, 1]).unwrap();
        assert_eq!((few.acc1, few.acc5), (Some(0.5), None));
        assert_eq!(few.classes[0].recall(), None);
        assert_eq!(few.classes[0].precision(), Some(0.0));
        assert_eq!(few.classes[1].f1(), Some(2.0 / 3.0));
        assert_eq!(few.mean_per_class_recall, Some(0.5));
        let none = Classification::new(&[], 3, &[]).unwrap();
        assert_eq!((none.acc1, none.ece, none.mean_per_class_recall), (None, None, None));
        assert_eq!(
            Classification::new(&[0.0; 4], 2, &[0, 2]),
            Err(MetricError::OutOfRange { index: 1, value: 2, limit: 2 })
        );
        assert!(Classification::new(&[0.0; 5], 2, &[0, 1]).is_err());
        assert!(Classification::new(&[], 0, &[]).unwrap().classes.is_empty());
    }

    #[test]
    fn a_row_that_is_not_numbers_is_wrong_and_counted() {
        let scores = [f32::NAN, 0.0, 1.0, 0.0];
        let ours = Classification::new(&scores, 2, &[0, 0]).unwrap();
        assert_eq!((ours.invalid, ours.correct, ours.n), (1, 1, 2));
        assert_eq!(ours.predictions, [None, Some(0)]);
        assert!(ours.ece.unwrap().is_finite());
        let infinite = Classification::new(&[f32::INFINITY, 0.0], 2, &[0]).unwrap();
        assert_eq!(infinite.confidences, [1.0]);
    }

    #[test]
    fn calibration() {
        let perfect = calibration_error(&[1.0, 1.0, 0.5, 0.5], &[true, true, true, false], 15);
        assert!(perfect.unwrap() < 1e-12);
        let boastful = calibration_error(&[0.9; 10], &[false; 10], 15).unwrap();
        assert!((boastful - 0.9).abs() < 1e-6);
    }
}
