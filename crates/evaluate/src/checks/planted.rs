//! O14: a planted adversarial that the attack has to find (Zimmermann, Brendel, Tramer and
//! Carlini, "Increasing Confidence in Adversarial Robustness Evaluations", NeurIPS 2022).
//!
//! Whether an attack is strong enough cannot be told from a number that nobody knows. So the
//! question is put where the answer is known: the head of the defence is replaced, for each
//! picture, by a linear readout that calls one point on the border of the budget by another name
//! than the picture and hundreds of points inside. An adversarial picture now exists for certain.
//! An attack that does not find it would not have found one of the original task either.

use super::{
    About, Bench, Measured, Probe, Subject,
    bench::{corners, values},
    finding::{flag, share},
    separator::{Readout, separate},
};
use crate::{
    records::record::{Check, Verdict},
    statistics::interval::{Interval, binomial_cdf},
};
use burn::tensor::{Tensor, TensorData};
use clipguard_attack::{Batch, Norm, Start, parse};
use clipguard_data::Stream;
use clipguard_model::{Query, Victim};
use std::collections::HashMap;

/// Inner points stay this far inside the ball, as a share of the radius.
const GAP: f32 = 0.05;

/// O14. Row: whether the readout separates; whether the plan's attacks found the planted point;
/// whether random points did.
pub(crate) const PLANTED: Probe = Probe {
    about: About {
        id: "O14",
        name: "the attack finds an adversarial that was planted",
        explanation: "For each picture one adversarial was planted on the border of the budget by \
                      exchanging the head, so that it certainly exists. The plan's attack has to \
                      find it.",
        remedy: "Change the attack until it finds what was planted: another loss, more steps and \
                 restarts, a stand-in for parts without gradient; then evaluate again.",
    },
    measure,
    judge: |about, _, rows| judge(about, rows),
};

fn judge(about: &About, rows: &[&[f64]]) -> Check {
    let separated: Vec<&[f64]> = rows.iter().copied().filter(|r| r[0] > 0.5).collect();
    let n = separated.len();
    let skipped = rows.len() - n;
    if n == 0 {
        let reason =
            format!("none of {skipped} planted points could be separated from its picture");
        return super::missing(about, reason);
    }
    let (found, random) = (share(&separated, |r| r[1] > 0.5), share(&separated, |r| r[2] > 0.5));
    let verdict = match found {
        _ if random > 0.5 => Verdict::NotRun,
        f if f < 0.8 => Verdict::Fail,
        f if f < 0.95 || random >= f => Verdict::Suspect,
        _ => Verdict::Ok,
    };
    let mut check = about.found(found, 0.95, verdict);
    let hits = separated.iter().filter(|r| r[1] > 0.5).count();
    check.p_value = Some(binomial_cdf(hits, n, 0.95));
    let range = Interval::wilson(hits, n, 0.95);
    check.explanation += &format!(
        " Found for {:.1} percent of {n} (95 percent interval {:.1} to {:.1}), by random points for {:.1} percent; {skipped} left out \
         because no readout separates them.",
        100.0 * found,
        100.0 * range.low,
        100.0 * range.high,
        100.0 * random
    );
    if verdict == Verdict::NotRun {
        check.explanation += " Random points find it too often for the test to mean anything.";
    }
    check
}

fn measure(bench: &Bench<'_>, batch: &Batch<'_>) -> Measured {
    if bench.attacks.is_empty() {
        return Err("the plan has no attack".to_owned());
    }
    let planted: Vec<Option<Readout>> =
        (0..batch.labels.len()).map(|i| plant(bench, batch, i)).collect::<Result<_, _>>()?;
    let mut rows: Vec<Vec<f64>> = planted.iter().map(|_| vec![0.0; 3]).collect();
    let open: Vec<usize> = (0..planted.len()).filter(|&i| planted[i].is_some()).collect();
    if open.is_empty() {
        return Ok(rows);
    }
    let keys: Vec<String> = open.iter().map(|&i| batch.keys[i].clone()).collect();
    let labels = vec![0; open.len()];
    let parts = open.iter().map(|&i| batch.pixels.clone().narrow(0, i, 1)).collect();
    let task = Batch { pixels: Tensor::cat(parts, 0), labels: &labels, keys: &keys };
    let readouts: HashMap<&str, &Readout> =
        open.iter().filter_map(|&i| Some((batch.keys[i].as_str(), planted[i].as_ref()?))).collect();
    let mut found = vec![false; open.len()];
    for (_, subject) in &bench.modes {
        let victim = Exchanged { subject: *subject, readouts: &readouts };
        for attack in bench.attacks {
            let attack = parse(attack).map_err(|e| e.to_string())?;
            let now = bench.broken(&*attack, &victim, &task);
            found.iter_mut().zip(now).for_each(|(f, n)| *f |= n);
        }
    }
    for ((place, &i), found) in open.iter().enumerate().zip(found) {
        let random = by_chance(bench, &task, place, readouts[keys[place].as_str()])?;
        rows[i] = vec![1.0, flag(found), flag(random)];
    }
    Ok(rows)
}

/// The features of many pictures that all belong to sample `key`, row by row.
fn features(bench: &Bench<'_>, points: &Tensor<4>, key: &str) -> Result<Vec<f64>, String> {
    let count = points.dims()[0];
    let mut rows = Vec::new();
    for start in (0..count).step_by(bench.effort.batch.max(1)) {
        let part = points.clone().narrow(0, start, bench.effort.batch.max(1).min(count - start));
        let keys = vec![key.to_owned(); part.dims()[0]];
        let found = bench.subject().features(Query { pixels: part, keys: &keys, draw: 0 });
        let found = found.ok_or("the head of this victim cannot be taken off")?;
        rows.extend(values(found).into_iter().map(f64::from));
    }
    Ok(rows)
}

/// `count` copies of one picture.
fn copies(picture: &Tensor<4>, count: usize) -> Tensor<4> {
    picture.clone().repeat_dim(0, count)
}

/// Number of points inside the ball: more than the features have dimensions, since any labelling
/// of fewer can be separated.
pub(crate) fn inner_points(bench: &Bench<'_>, dimensions: usize) -> usize {
    match bench.effort.inner {
        0 => (dimensions + dimensions / 4).max(200),
        count => count,
    }
}

/// The readout for one picture, its scores scaled so that the two logits span what the original
/// ones do ("adaptive"); `None` when nothing separates.
fn plant(bench: &Bench<'_>, batch: &Batch<'_>, i: usize) -> Result<Option<Readout>, String> {
    let (picture, key) = (batch.pixels.clone().narrow(0, i, 1), &batch.keys[i]);
    let here = features(bench, &picture, key)?;
    let count = inner_points(bench, here.len());
    let mut streams = streams(bench, "inner", key, count);
    let many = copies(&picture, count);
    let inside = Start::Ball.points(bench.norm, &many, bench.eps * (1.0 - GAP), &mut streams);
    let mut rows = here;
    rows.extend(features(bench, &inside, key)?);
    let border = border(bench, &picture, key);
    let one = features(bench, &border, key)?;
    let Some(readout) = separate(&rows, &one) else { return Ok(None) };
    let scores = rows.chunks_exact(one.len()).map(|row| readout.score(row).abs());
    let widest = scores.fold(readout.score(&one).abs(), f64::max);
    let logits = bench.logits(&picture, std::slice::from_ref(key), 0);
    let (low, high) = logits
        .iter()
        .fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), z| (low.min(*z), high.max(*z)));
    let span = f64::from(high - low).max(1e-6);
    Ok(Some(readout.scaled(span / widest.max(1e-300))))
}

fn streams(bench: &Bench<'_>, purpose: &str, key: &str, count: usize) -> Vec<Stream> {
    (0..count)
        .map(|number| Stream::keyed(bench.seed, &format!("check/O14/{purpose}/{number}"), key))
        .collect()
}

/// A point at distance eps: a corner of the Linf ball, else a random direction that is stretched
/// until it reaches the sphere inside the box.
fn border(bench: &Bench<'_>, picture: &Tensor<4>, key: &str) -> Tensor<4> {
    let mut streams = streams(bench, "border", key, 1);
    if bench.norm == Norm::Linf {
        return corners(picture, bench.eps, &mut streams);
    }
    let mut point = Start::Sphere.points(bench.norm, picture, bench.eps, &mut streams);
    for _ in 0..20 {
        let delta = point.clone() - picture.clone();
        let length = bench.norm.measure(delta.clone())[0].max(1e-12);
        let stretch = (f64::from(bench.eps) / length) as f32;
        point = bench.norm.confine(picture, picture.clone() + delta * stretch, bench.eps);
    }
    point
}

/// Whether one of as many random points as there are inner ones lies on the planted side.
fn by_chance(
    bench: &Bench<'_>,
    task: &Batch<'_>,
    place: usize,
    readout: &Readout,
) -> Result<bool, String> {
    let (picture, key) = (task.pixels.clone().narrow(0, place, 1), &task.keys[place]);
    let count = inner_points(bench, readout.weights.len());
    let half = count / 2;
    let mut streams = streams(bench, "chance", key, count);
    let many = copies(&picture, half);
    let inside = Start::Ball.points(bench.norm, &many, bench.eps, &mut streams[..half]);
    let surface = match bench.norm {
        Norm::Linf => corners(&many, bench.eps, &mut streams[half..]),
        norm => Start::Sphere.points(norm, &many, bench.eps, &mut streams[half..]),
    };
    for points in [inside, surface] {
        let rows = features(bench, &points, key)?;
        if rows.chunks_exact(readout.weights.len()).any(|row| readout.score(row) > 0.0) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The defence with a readout of its own for each sample in place of the head: class 0 is the
/// picture's, class 1 the planted one.
struct Exchanged<'a> {
    subject: &'a dyn Subject,
    readouts: &'a HashMap<&'a str, &'a Readout>,
}

impl Victim for Exchanged<'_> {
    fn classes(&self) -> usize {
        2
    }

    fn logits(&self, query: Query<'_>) -> Tensor<2> {
        let keys = query.keys;
        let device = query.pixels.device();
        let Some(features) = self.subject.features(query) else {
            return Tensor::zeros([keys.len(), 2], &device);
        };
        let [rows, width] = features.dims();
        let (mut weights, mut bias) = (Vec::with_capacity(rows * width), Vec::new());
        for key in keys {
            let readout = self.readouts[key.as_str()];
            weights.extend(readout.weights.iter().map(|w| *w as f32));
            bias.push(readout.bias as f32);
        }
        let weights = Tensor::<2>::from_data(TensorData::new(weights, [rows, width]), &device);
        let bias = Tensor::<2>::from_data(TensorData::new(bias, [rows, 1]), &device);
        let score = (features * weights).sum_dim(1) + bias;
        Tensor::cat(vec![score.clone() * -0.5, score * 0.5], 1)
    }
}
