//! Checks of what comes out: random (O10), scaled (O13), probabilities instead of logits (P1).

use super::{
    About, Bench, Measured, Probe,
    finding::{beside, count, share},
    right,
};
use crate::records::record::Verdict;
use clipguard_attack::Batch;

/// Draws that are compared.
const DRAWS: u64 = 5;
/// Distance of normalised logits above which two draws differ (AutoAttack's own limit).
const DIFFERENT: f64 = 1e-4;

/// O10. Row: largest distance of the normalised logits of two draws, and whether each draw is
/// right.
pub(super) const RANDOMNESS: Probe = Probe {
    about: About {
        id: "O10",
        name: "the same picture gets the same answer",
        explanation: "The defence answers at random. An attack that looks at one draw attacks \
                      that draw, and a picture that survived may only have been lucky.",
        remedy: "Average the gradient over draws (`eot=20`), and ask for the answer to every \
                 attacked picture several times.",
    },
    measure: |bench, batch| {
        let draws: Vec<Vec<f32>> =
            (0..DRAWS).map(|draw| bench.logits(&batch.pixels, batch.keys, draw)).collect();
        let right: Vec<Vec<bool>> =
            draws.iter().map(|logits| right(logits, batch.labels)).collect();
        let classes = draws[0].len() / batch.labels.len().max(1);
        let row = |i: usize| {
            let of = |draw: &Vec<f32>| unit(&draw[i * classes..(i + 1) * classes]);
            let units: Vec<Vec<f64>> = draws.iter().map(of).collect();
            let mut far = 0f64;
            for (a, first) in units.iter().enumerate() {
                units[a + 1..].iter().for_each(|second| far = far.max(distance(first, second)));
            }
            let mut row = vec![far];
            row.extend(right.iter().map(|draw| f64::from(u8::from(draw[i]))));
            row
        };
        Ok((0..batch.labels.len()).map(row).collect())
    },
    judge: |about, case, rows| {
        let far = rows.iter().map(|r| r[0]).fold(0.0, f64::max);
        let correct = |draw: usize| count(rows, |r| r[1 + draw] > 0.5);
        let changes = (1..DRAWS as usize).any(|draw| correct(draw) != correct(0));
        let averaged = case.any("eot", |text| text.parse::<usize>().is_ok_and(|n| n > 1));
        let verdict = match far > DIFFERENT || changes {
            true if !averaged => Verdict::Suspect,
            _ => Verdict::Ok,
        };
        about.found(far, DIFFERENT, verdict)
    },
};

fn unit(row: &[f32]) -> Vec<f64> {
    let length = row.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt() + 1e-10;
    row.iter().map(|v| f64::from(*v) / length).collect()
}

fn distance(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt()
}

/// What the logits are divided by.
const SCALES: [&str; 4] = ["model", "10", "100", "auto"];

/// O13. Row: broken with the cross-entropy of logits divided by each of [`SCALES`].
pub(super) const SCALE: Probe = Probe {
    about: About {
        id: "O13",
        name: "the scale of the logits does not protect",
        explanation: "With the same logits divided by a constant the same attack breaks more \
                      pictures. Large logits saturate the cross-entropy, and its gradient is lost \
                      in rounding.",
        remedy: "Attack with `scale=auto`, or raise the margin or the DLR loss, which do not \
                 depend on the scale.",
    },
    measure: |bench, batch| {
        let mut columns = Vec::new();
        for scale in SCALES {
            let attack = bench.descent(bench.eps, &format!("loss=ce,scale={scale},steps=50"))?;
            columns.push(bench.broken(&*attack, bench.subject(), batch));
        }
        Ok(beside(&columns))
    },
    judge: |about, case, rows| {
        let killed = |i: usize| share(rows, |r| r[i] > 0.5);
        let most = (1..SCALES.len()).map(killed).fold(0.0, f64::max);
        let gain = most - killed(0);
        // Whoever does not raise an unscaled cross-entropy is not touched by its saturation.
        let concerned = case.raises_cross_entropy_only();
        let verdict = if gain > 0.02 && concerned { Verdict::Suspect } else { Verdict::Ok };
        about.found(gain, 0.02, verdict)
    },
};

/// P1. Row: whether the output is a list of probabilities.
pub(super) const PROBABILITIES: Probe = Probe {
    about: About {
        id: "P1",
        name: "the output is logits, not probabilities",
        explanation: "The victim hands out probabilities. A softmax taken twice flattens the \
                      loss, and DLR losses are not made for it.",
        remedy: "Hand out what stands in front of the softmax.",
    },
    measure: probabilities,
    judge: |about, _, rows| {
        let all = share(rows, |r| r[0] > 0.5);
        let verdict = if all >= 1.0 { Verdict::Suspect } else { Verdict::Ok };
        about.found(all, 1.0, verdict)
    },
};

fn probabilities(bench: &Bench<'_>, batch: &Batch<'_>) -> Measured {
    let logits = bench.logits(&batch.pixels, batch.keys, 0);
    let classes = logits.len() / batch.labels.len().max(1);
    // AutoAttack's own limits.
    let looks = |row: &[f32]| {
        let sum: f32 = row.iter().sum();
        row.iter().all(|v| (-1e-5..1.0 + 1e-5).contains(v)) && (sum - 1.0).abs() < 1e-5
    };
    Ok(logits
        .chunks_exact(classes.max(1))
        .map(|row| vec![f64::from(u8::from(looks(row)))])
        .collect())
}
