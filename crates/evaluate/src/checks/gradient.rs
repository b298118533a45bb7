//! Checks of the gradient itself: zero (O7), wrong or noisy (O8), linearity (O16), parts through
//! which none passes (O17).

use super::{
    About, Bench, Case, Measured, Probe,
    bench::{pictures, values},
    cheap::ZERO_ABOUT,
    finding::{flag, median, share},
    missing,
};
use crate::records::record::{Check, Verdict};
use burn::tensor::Tensor;
use clipguard_attack::{Batch, Loss, Norm};
use clipguard_data::Stream;

/// Below this length a gradient is called zero.
const ZERO_LENGTH: f64 = 1e-10;

/// O7. Row: whether the gradient is zero, of the cross-entropy at the picture and at a random
/// start, and of the margin at both.
pub(super) const ZERO: Probe = Probe {
    about: ZERO_ABOUT,
    measure: |bench, batch| {
        let start = bench.random("O7", 0, &batch.pixels, batch.keys, bench.eps);
        let mut columns = Vec::new();
        for loss in [Loss::Ce, Loss::Margin] {
            for point in [&batch.pixels, &start] {
                let (_, gradient) = bench.gradient(point, batch, 0, loss);
                columns.push(Norm::L2.measure(gradient));
            }
        }
        // A length that is no number is not above the limit either.
        let zero = |length: f64| flag(length.is_nan() || length < ZERO_LENGTH);
        let row = |i| columns.iter().map(|lengths| zero(lengths[i])).collect();
        Ok((0..batch.labels.len()).map(row).collect())
    },
    judge: |about, case, rows| {
        let of =
            |a: usize, b: usize| 0.5 * (share(rows, |r| r[a] > 0.5) + share(rows, |r| r[b] > 0.5));
        let (cross_entropy, margin) = (of(0, 1), of(2, 3));
        let blind = case.raises_cross_entropy_only() && cross_entropy > 0.05;
        let verdict = match margin > 0.05 || blind {
            true => Verdict::Fail,
            false if margin > 0.0 => Verdict::Suspect,
            false => Verdict::Ok,
        };
        let value = if blind { cross_entropy.max(margin) } else { margin };
        let mut check = about.found(value, 0.05, verdict);
        check.explanation += &format!(
            " Zero for {:.1} percent with the cross-entropy and {:.1} percent with the margin.",
            100.0 * cross_entropy,
            100.0 * margin
        );
        check
    },
};

/// Half the distances of central differences, in pixel units, the longest first. A long one crosses the
/// kinks of a model that bends sharply, a short one drowns in the rounding of 32 bits; a gradient that
/// is right is met by one of them, and one that is wrong by none.
const STEPS: [f32; 3] = [1e-3, 2.5e-4, 6.25e-5];
/// Error at the longest distance from which on a gradient that is right says nothing: it belongs to a
/// ripple, not to the slope. Sharp models that hide nothing were seen at 0.3.
const FAR: f64 = 0.5;
/// Directions in which it is taken.
const DIRECTIONS: usize = 10;

/// O8. Row: error of the directional derivatives against central differences, relative to the
/// longer of the two lists, at the distance where it is smallest; cosine of the gradients of two
/// draws; whether the draws differ; the error at the longest distance.
pub(super) const DIRECTION: Probe = Probe {
    about: About {
        id: "O8",
        name: "the gradient says how the loss changes",
        explanation: "Small steps change the loss otherwise than the gradient says, or the \
                      gradient of a random defence points elsewhere at every draw.",
        remedy: "Repair the backward pass of the defence; for random defences average over draws \
                 (EOT).",
    },
    measure: direction,
    judge: |about, _, rows| {
        let random = share(rows, |r| r[2] > 0.5) > 0.5;
        if random {
            let cosine = rows.iter().map(|r| r[1]).sum::<f64>() / rows.len() as f64;
            let verdict = if cosine < 0.5 { Verdict::Suspect } else { Verdict::Ok };
            return about.found(cosine, 0.5, verdict);
        }
        let error = median(rows.iter().map(|r| r[0]));
        let far = median(rows.iter().map(|r| r.get(3).copied().unwrap_or(r[0])));
        if error <= 0.1 && far > FAR {
            let mut check = about.found(far, FAR, Verdict::Fail);
            check.explanation += " Right for the smallest of steps alone: the loss ripples.";
            return check;
        }
        let verdict = if error > 0.1 { Verdict::Fail } else { Verdict::Ok };
        about.found(error, 0.1, verdict)
    },
};

fn direction(bench: &Bench<'_>, batch: &Batch<'_>) -> Measured {
    let count = batch.labels.len();
    let (_, first) = bench.gradient(&batch.pixels, batch, 1, Loss::Margin);
    let (_, second) = bench.gradient(&batch.pixels, batch, 2, Loss::Margin);
    let logits = |draw| bench.logits(&batch.pixels, batch.keys, draw);
    let width = batch.pixels.dims()[1..].iter().product::<usize>().max(1);
    let (first, second, pixels) = (values(first), values(second), values(batch.pixels.clone()));
    let (a, b) = (logits(1), logits(2));
    let classes = a.len() / count.max(1);
    let mut derivatives = vec![[0f64; DIRECTIONS]; count];
    let mut differences = vec![[[0f64; DIRECTIONS]; STEPS.len()]; count];
    for d in 0..DIRECTIONS {
        let mut signs = Vec::with_capacity(pixels.len());
        for (i, key) in batch.keys.iter().enumerate() {
            let mut stream = Stream::keyed(bench.seed, &format!("check/O8/{d}"), key);
            for slope in &first[i * width..(i + 1) * width] {
                let sign = if stream.chance(0.5) { 1.0 } else { -1.0 };
                signs.push(sign);
                derivatives[i][d] += f64::from(sign * slope);
            }
        }
        for (s, step) in STEPS.into_iter().enumerate() {
            let loss = |way: f32| {
                let moved = pixels.iter().zip(&signs).map(|(x, sign)| x + way * step * sign);
                let moved = pictures(moved.collect(), count, &batch.pixels);
                bench.losses(&moved, batch, 1, Loss::Margin)
            };
            for ((row, ahead), back) in differences.iter_mut().zip(loss(1.0)).zip(loss(-1.0)) {
                row[s][d] = (f64::from(ahead) - f64::from(back)) / (2.0 * f64::from(step));
            }
        }
    }
    let row = |i: usize| {
        let part = i * width..(i + 1) * width;
        let wide = |v: &[f32]| v.iter().map(|x| f64::from(*x)).collect::<Vec<f64>>();
        let (a_row, b_row) =
            (&a[i * classes..(i + 1) * classes], &b[i * classes..(i + 1) * classes]);
        let cosine = cosine(&wide(&first[part.clone()]), &wide(&second[part]));
        let errors = differences[i].each_ref().map(|list| error(&derivatives[i], list));
        let least = errors.into_iter().fold(f64::INFINITY, f64::min);
        vec![least, cosine, flag(a_row != b_row), errors[0]]
    };
    Ok((0..count).map(row).collect())
}

fn length(v: &[f64]) -> f64 {
    v.iter().map(|x| x * x).sum::<f64>().sqrt()
}

fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let dot: f64 = a.iter().zip(b).map(|(a, b)| a * b).sum();
    dot / (length(a) * length(b)).max(1e-300)
}

/// Distance of the two lists over the length of the longer one; 0 when both are zero.
fn error(derivatives: &[f64], differences: &[f64]) -> f64 {
    let off: Vec<f64> = derivatives.iter().zip(differences).map(|(a, b)| a - b).collect();
    match length(derivatives).max(length(differences)) {
        0.0 => 0.0,
        longer => length(&off) / longer,
    }
}

/// O16. Row: largest departure from the tangent plane within the ball, size of the loss, and the
/// same two for the undefended model (or nothing).
pub(super) const LINEARITY: Probe = Probe {
    about: About {
        id: "O16",
        name: "the loss is not rougher than that of the model alone",
        explanation: "Within the radius the loss departs far more from its tangent plane than \
                      that of the model without the defence. Gradient steps lose their way on \
                      rough ground.",
        remedy: "Use more and smaller steps, restarts, and an attack without gradients.",
    },
    measure: |bench, batch| {
        let own = roughness(bench, batch);
        let bare = bench.bare.map(|bare| {
            let alone = Bench { modes: vec![("exact", bare)], bare: None, ..*bench };
            roughness(&alone, batch)
        });
        let row = |i: usize| {
            let mut row = vec![own[i].0, own[i].1];
            row.extend(bare.iter().flat_map(|bare| [bare[i].0, bare[i].1]));
            row
        };
        Ok((0..batch.labels.len()).map(row).collect())
    },
    judge: |about, _, rows| {
        let gamma = |at: usize| {
            let rough = median(rows.iter().map(|r| r[at]));
            rough / median(rows.iter().map(|r| r[at + 1].abs())).max(1e-12)
        };
        if rows.iter().any(|r| r.len() < 4) {
            let mut check = about.found(gamma(0), f64::INFINITY, Verdict::Ok);
            check.threshold = None;
            check.explanation =
                "For information: departure from the tangent plane over the size of the loss. \
                 Without an undefended model there is nothing to compare it with."
                    .to_owned();
            return check;
        }
        let times = gamma(0) / gamma(2).max(1e-12);
        let verdict = if times > 10.0 { Verdict::Suspect } else { Verdict::Ok };
        about.found(times, 10.0, verdict)
    },
};

fn roughness(bench: &Bench<'_>, batch: &Batch<'_>) -> Vec<(f64, f64)> {
    let (loss, gradient) = bench.gradient(&batch.pixels, batch, 0, Loss::Margin);
    let mut rows: Vec<(f64, f64)> = loss.iter().map(|l| (0.0, f64::from(*l))).collect();
    for number in 0..DIRECTIONS {
        let point = bench.random("O16", number, &batch.pixels, batch.keys, bench.eps);
        let there = bench.losses(&point, batch, 0, Loss::Margin);
        let along: Tensor<4> = (point - batch.pixels.clone()) * gradient.clone();
        let along = values(along);
        let width = (along.len() / rows.len().max(1)).max(1);
        for (i, slopes) in along.chunks_exact(width).enumerate() {
            let slope: f64 = slopes.iter().map(|v| f64::from(*v)).sum();
            rows[i].0 = rows[i].0.max((f64::from(there[i]) - rows[i].1 - slope).abs());
        }
    }
    rows
}

/// O17. Row: whether the answer changes within the ball although the gradient is zero; number of
/// declared parts.
pub(super) const DECLARED: Probe = Probe {
    about: About {
        id: "O17",
        name: "a gradient passes every part",
        explanation: "A part of the defence lets no useful gradient through: rounding, a choice of \
                      the largest, or an optimisation inside.",
        remedy: "Attack with a differentiable stand-in for that part (BPDA, Athalye et al. 2018), \
                 through a straight-through gradient, or with a surrogate.",
    },
    measure: declared,
    judge: |about, case, rows| dead(about, case, rows),
};

fn declared(bench: &Bench<'_>, batch: &Batch<'_>) -> Measured {
    let parts = bench.subject().declares();
    let (_, gradient) = bench.gradient(&batch.pixels, batch, 0, Loss::Margin);
    let zero: Vec<bool> =
        Norm::L2.measure(gradient).into_iter().map(|length| length < ZERO_LENGTH).collect();
    let here = bench.losses(&batch.pixels, batch, 0, Loss::Margin);
    let mut changes = vec![false; zero.len()];
    for number in 0..DIRECTIONS {
        let point = bench.random("O17", number, &batch.pixels, batch.keys, bench.eps);
        let there = bench.losses(&point, batch, 0, Loss::Margin);
        let moved = here.iter().zip(there).map(|(a, b)| *a != b);
        changes.iter_mut().zip(moved).for_each(|(c, m)| *c |= m);
    }
    let row = |i: usize| vec![flag(zero[i] && changes[i]), parts.len() as f64];
    Ok((0..zero.len()).map(row).collect())
}

fn dead(about: &About, _: &Case, rows: &[&[f64]]) -> Check {
    let found = share(rows, |r| r[0] > 0.5);
    let declared = rows.first().map_or(0.0, |r| r[1]);
    if rows.is_empty() {
        return missing(about, "no pictures");
    }
    let verdict = match found > 0.05 {
        true => Verdict::Fail,
        false if declared > 0.0 => Verdict::Suspect,
        false => Verdict::Ok,
    };
    let mut check = about.found(found, 0.05, verdict);
    if declared > 0.0 {
        check.explanation += &format!(" The defence itself declares {declared:.0} such parts.");
    }
    check
}
