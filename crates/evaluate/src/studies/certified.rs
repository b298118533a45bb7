//! Votes under noise: the unit of work behind a certified accuracy, and its record.
//!
//! A certificate is about a classifier that answers what a model most often answers under Gaussian
//! noise. The votes that choose its answer and those that bound its probability come from different
//! streams, because a class that was chosen by votes cannot be tested by the same votes; and every
//! copy of a picture has a stream of its own, so that neither batches nor interruptions change one.

use crate::{
    Certificate, certify, clean::metrics::argmax, plan::Certify, run::unit_file::Line,
    statistics::interval::Interval, studies::certify::average_radius,
};
use burn::tensor::Tensor;
use clipguard_model::{Query, Victim, noise::noisy};
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// Points of a curve over the radius.
const POINTS: usize = 40;

/// A picture whose votes are counted.
pub(crate) struct Voters<'a> {
    pub(crate) victim: &'a dyn Victim,
    /// `[1, 3, height, width]`.
    pub(crate) pixels: &'a Tensor<4>,
    pub(crate) key: &'a str,
    pub(crate) seed: u64,
    /// Copies at once; the votes do not depend on it.
    pub(crate) batch: usize,
}

impl Voters<'_> {
    /// How often each class is answered to `count` noisy copies; an answer with a NaN is for none.
    pub(crate) fn votes(&self, sigma: f64, count: usize, purpose: &str) -> Vec<usize> {
        let classes = self.victim.classes();
        let mut votes = vec![0; classes];
        for start in (0..count).step_by(self.batch.max(1)) {
            let copies = start..(start + self.batch.max(1)).min(count);
            for class in self.answers(sigma, copies, purpose).into_iter().flatten() {
                votes[class] += 1;
            }
        }
        votes
    }

    fn answers(&self, sigma: f64, copies: Range<usize>, purpose: &str) -> Vec<Option<usize>> {
        let key = [self.key.to_owned()];
        let copy = |copy| noisy(self.pixels, sigma, self.seed, &format!("{purpose}/{copy}"), &key);
        let pixels = Tensor::cat(copies.clone().map(copy).collect(), 0);
        // A random defence has to draw anew for every copy.
        let keys: Vec<String> =
            copies.map(|copy| format!("{}/{purpose}/{copy}", self.key)).collect();
        let logits = self.victim.logits(Query { pixels, keys: &keys, draw: 0 });
        let logits = logits.into_data().try_to_vec::<f32>().unwrap_or_default();
        logits.chunks_exact(self.victim.classes().max(1)).map(argmax).collect()
    }

    /// The chosen class, its votes among the second lot, and what they allow to promise.
    pub(crate) fn certified(&self, of: &Certify) -> Option<(usize, usize, Certificate)> {
        let first = self.votes(of.sigma, of.n0, "certify-choice");
        // Ties go to the lower class.
        let chosen = (0..first.len()).rev().max_by_key(|&class| first[class])?;
        let hits = self.votes(of.sigma, of.n, "certify")[chosen];
        Some((chosen, hits, certify(hits, of.n, of.alpha, of.sigma)))
    }

    /// The line of a sample.
    pub(crate) fn line(&self, of: &Certify, label: usize) -> Line {
        let mut line = Line { sample: self.key.to_owned(), ..Line::default() };
        if let Some((chosen, hits, certificate)) = self.certified(of) {
            let answered = certificate.radius.is_some();
            (line.right, line.pred) = (answered && chosen == label, answered.then_some(chosen));
            line.row = vec![chosen as f64, hits as f64];
        }
        line
    }
}

/// Certified accuracy over the radius, as a record keeps it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Certified {
    /// Deviation of the noise in pixel units.
    pub sigma: f64,
    /// Votes that bound the probability.
    pub n: usize,
    /// Probability with which one certificate may be wrong.
    pub alpha: f64,
    /// Samples without an answer.
    pub abstained: usize,
    /// Mean radius over all samples, 0 for wrong ones and those without an answer.
    pub average_radius: f64,
    /// The largest radius so many votes can certify.
    pub largest_radius: f64,
    /// Accuracy at radii from 0 to the largest.
    pub curve: Vec<At>,
}

/// Certified accuracy at one radius, with its Clopper-Pearson interval at 95 percent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct At {
    /// L2 radius in pixel units.
    pub radius: f64,
    /// Samples that are right and certified at least so far.
    pub correct: usize,
    /// Lower end of the interval of their share.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

impl Certified {
    /// From the lines of a unit.
    pub(crate) fn of(of: &Certify, lines: &[Line]) -> Self {
        let samples = outcomes(of, lines);
        let largest = crate::studies::certify::largest_radius(of.n, of.alpha, of.sigma);
        let place = |i: usize| largest * i as f64 / POINTS as f64;
        Self {
            sigma: of.sigma,
            n: of.n,
            alpha: of.alpha,
            abstained: samples.iter().filter(|(_, radius)| radius.is_none()).count(),
            average_radius: average_radius(&samples),
            largest_radius: largest,
            curve: (0..=POINTS).map(|i| At::of(&samples, place(i))).collect(),
        }
    }
}

impl At {
    /// Of samples, each with whether it is right and its radius.
    pub(crate) fn of(samples: &[(bool, Option<f64>)], radius: f64) -> Self {
        let held = samples.iter().filter(|(right, r)| *right && r.is_some_and(|r| r >= radius));
        let correct = held.count();
        let Interval { low, high, .. } = Interval::clopper_pearson(correct, samples.len(), 0.95);
        Self { radius, correct, low, high }
    }
}

/// Whether each sample is right, and its radius.
pub(crate) fn outcomes(of: &Certify, lines: &[Line]) -> Vec<(bool, Option<f64>)> {
    let outcome = |line: &Line| {
        let hits = line.row.get(1).map_or(0, |hits| *hits as usize);
        (line.right, certify(hits, of.n, of.alpha, of.sigma).radius)
    };
    lines.iter().map(outcome).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, TensorData};

    /// Class 1 where the mean of a picture exceeds a half: a half space whose distance is known.
    struct HalfSpace;

    const ENTRIES: usize = 3 * 4 * 4;

    impl Victim for HalfSpace {
        fn classes(&self) -> usize {
            2
        }

        fn logits(&self, query: Query<'_>) -> Tensor<2> {
            let over = query.pixels.flatten::<2>(1, 3).mean_dim(1) - 0.5;
            Tensor::cat(vec![-over.clone(), over], 1)
        }
    }

    /// A grey picture, L2 distance `distance` inside class 1.
    fn picture(distance: f64) -> Tensor<4> {
        // The normal of the border has all entries equal; its length is the root of their number.
        let grey = 0.5 + distance / (ENTRIES as f64).sqrt();
        let data = TensorData::new(vec![grey as f32; ENTRIES], [1, 3, 4, 4]);
        Tensor::from_data(data, &Device::flex())
    }

    fn voters<'a>(pixels: &'a Tensor<4>, key: &'a str, batch: usize) -> Voters<'a> {
        Voters { victim: &HalfSpace, pixels, key, seed: 3, batch }
    }

    #[test]
    fn a_half_space_is_certified_up_to_its_distance_and_hardly_ever_beyond() {
        let of = Certify { sigma: 0.25, n0: 20, n: 2000, alpha: 0.01, ..Certify::default() };
        let (mut beyond, count, distance) = (0, 60, 0.2);
        let pixels = picture(distance);
        for sample in 0..count {
            let key = format!("{sample}");
            let (chosen, _, certificate) = voters(&pixels, &key, 500).certified(&of).unwrap();
            assert_eq!(chosen, 1);
            let radius = certificate.radius.unwrap();
            // The exact radius is the distance, whatever sigma is; 2000 votes come near it. Below
            // these limits lie shares more than five, above four deviations from the true one.
            assert!((0.7 * distance..1.1 * distance).contains(&radius), "{radius}");
            beyond += usize::from(radius > distance);
        }
        // 0.6 of 60 are expected at most; 5 or more have a probability below 0.001.
        assert!(beyond < 5, "{beyond} of {count} promise too much");
    }

    #[test]
    fn on_the_border_there_is_no_answer_and_far_from_it_the_largest_radius() {
        let of = Certify { sigma: 0.25, n0: 20, n: 200, alpha: 0.001, ..Certify::default() };
        let border = picture(0.0);
        let line = voters(&border, "border", 64).line(&of, 1);
        assert_eq!((line.right, line.pred), (false, None));
        let far = picture(3.0);
        let line = voters(&far, "far", 64).line(&of, 1);
        assert_eq!((line.right, line.pred, line.row[1]), (true, Some(1), 200.0));
        let wrong = voters(&far, "far", 64).line(&of, 0);
        assert_eq!((wrong.right, wrong.pred), (false, Some(1)));
        let lines = [line, wrong];
        let told = Certified::of(&of, &lines);
        assert_eq!(told.curve[0].correct, 1);
        assert_eq!(told.curve.last().unwrap().correct, 1, "200 of 200 reach the largest radius");
        assert!((told.average_radius - told.largest_radius / 2.0).abs() < 1e-12);
        assert_eq!(At::of(&outcomes(&of, &lines), 10.0).correct, 0);
    }

    #[test]
    fn votes_depend_on_the_picture_alone_and_both_lots_are_apart() {
        let pixels = picture(0.05);
        let votes = |batch, key, purpose| voters(&pixels, key, batch).votes(0.25, 300, purpose);
        let all = votes(300, "a", "certify");
        assert_eq!(all, votes(7, "a", "certify"));
        assert_eq!(all.iter().sum::<usize>(), 300);
        assert_ne!(all, votes(7, "b", "certify"));
        assert_ne!(all, votes(7, "a", "certify-choice"));
        // The share is that of the normal distribution: Phi(0.05 / 0.25) = 0.579.
        assert!((all[1] as f64 / 300.0 - 0.579).abs() < 0.09, "{all:?}");
    }

    #[test]
    fn answers_that_are_no_numbers_are_votes_for_nobody() {
        struct Nothing;
        impl Victim for Nothing {
            fn classes(&self) -> usize {
                2
            }
            fn logits(&self, query: Query<'_>) -> Tensor<2> {
                Tensor::full([query.keys.len(), 2], f32::NAN, &query.pixels.device())
            }
        }
        let pixels = picture(0.0);
        let of = Certify { n0: 4, n: 4, ..Certify::default() };
        let voters = Voters { victim: &Nothing, ..voters(&pixels, "a", 2) };
        let line = voters.line(&of, 0);
        assert_eq!((line.right, line.pred, line.row), (false, None, vec![0.0, 0.0]));
    }
}
