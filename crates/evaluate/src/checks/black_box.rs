//! Checks by attackers without gradients: queries (O2), random points (O5), transfer (O11).

use super::{
    About, Bench, Measured, Probe,
    bench::values,
    finding::{beside, count, flag},
    right,
};
use crate::{
    records::record::{Check, Verdict},
    statistics::compare::McNemar,
    statistics::interval::Interval,
};
use burn::tensor::Tensor;
use clipguard_attack::{Batch, parse};
use clipguard_model::Query;

/// Attacks of the catalogue that use no gradient.
const WITHOUT_GRADIENT: [&str; 3] = ["square", "hop-skip-jump", "hopskipjump"];

/// Queries of the square attack.
const QUERIES: usize = 5000;

/// O2. Row: broken by the plan's attacks that use gradients, broken by queries and not by them.
pub(super) const BLACK_BOX: Probe = Probe {
    about: About {
        id: "O2",
        name: "looking inside helps",
        explanation: "An attack that only asks for answers broke pictures that survived every \
                      attack with access to gradients. Knowing more must not make an attacker \
                      weaker.",
        remedy: "Keep the black-box attack in the plan, and repair the gradient: a stand-in for \
                 rounding, averages over draws, another loss.",
    },
    measure: black_box,
    judge: |about, _, rows| {
        let only = count(rows, |r| r[1] > r[0]);
        let share = only as f64 / rows.len() as f64;
        // The limit of AutoAttack's own warning (Croce and Hein 2020): 0.2 points. One picture alone
        // proves no share.
        let verdict = match share {
            s if s >= 0.03 && only > 1 => Verdict::Fail,
            s if s > 0.002 => Verdict::Suspect,
            _ => Verdict::Ok,
        };
        let range = Interval::wilson(only, rows.len(), 0.95);
        let mut check = about.found(share, 0.002, verdict);
        check.explanation += &format!(
            " Broken by queries alone: {only} of {} (95 percent interval {:.1} to {:.1} percent).",
            rows.len(),
            100.0 * range.low,
            100.0 * range.high
        );
        check
    },
};

fn black_box(bench: &Bench<'_>, batch: &Batch<'_>) -> Measured {
    let queries = QUERIES.to_string();
    let settings =
        [("queries", queries.clone()), ("steps", queries.clone()), ("iterations", queries)];
    let square = bench.named("square", &settings)?;
    let mut inside = vec![false; batch.labels.len()];
    for text in bench.attacks {
        let attack = parse(text).map_err(|e| e.to_string())?;
        if WITHOUT_GRADIENT.contains(&attack.spelling().name()) {
            continue;
        }
        for (_, subject) in &bench.modes {
            let now = bench.broken(&*attack, *subject, batch);
            inside.iter_mut().zip(now).for_each(|(i, n)| *i |= n);
        }
    }
    // What is broken already cannot be broken by queries alone: only the others are asked about.
    let open: Vec<usize> = (0..inside.len()).filter(|&i| !inside[i]).collect();
    let mut queries = vec![false; inside.len()];
    if !open.is_empty() {
        let (pixels, labels, keys) = rows_of(batch, &open);
        let rest = Batch { pixels, labels: &labels, keys: &keys };
        let found = bench.broken(&*square, bench.subject(), &rest);
        open.iter().zip(found).for_each(|(&i, found)| queries[i] = found);
    }
    Ok(beside(&[inside, queries]))
}

/// Pictures, labels and keys of some rows.
fn rows_of(batch: &Batch<'_>, rows: &[usize]) -> (Tensor<4>, Vec<usize>, Vec<String>) {
    let parts = rows.iter().map(|&i| batch.pixels.clone().narrow(0, i, 1)).collect();
    let labels = rows.iter().map(|&i| batch.labels[i]).collect();
    (Tensor::cat(parts, 0), labels, rows.iter().map(|&i| batch.keys[i].clone()).collect())
}

/// O5. Row: whether a random point broke a picture that survived the descent.
pub(super) const RANDOM: Probe = Probe {
    about: About {
        id: "O5",
        name: "random points do not beat the attack",
        explanation: "A random change of the picture broke what the attack could not. An attack \
                      that searches worse than chance is no attack.",
        remedy: "Add the random search to the plan and look for why the gradient fails.",
    },
    measure: random,
    judge: |about, _, rows| {
        let killed = count(rows, |r| r[0] > 0.5);
        let verdict = if killed > 0 { Verdict::Fail } else { Verdict::Ok };
        about.found(killed as f64 / rows.len() as f64, 0.0, verdict)
    },
};

fn random(bench: &Bench<'_>, batch: &Batch<'_>) -> Measured {
    let attack = bench.descent(bench.eps, "steps=50")?;
    let broken = bench.broken(&*attack, bench.subject(), batch);
    let mut rows: Vec<Vec<f64>> = broken.iter().map(|_| vec![0.0]).collect();
    let mut left: Vec<usize> = (0..broken.len()).filter(|&i| !broken[i]).collect();
    for number in 0..bench.effort.points {
        if left.is_empty() {
            break;
        }
        let (pixels, labels, keys) = rows_of(batch, &left);
        let points = bench.random("O5", number, &pixels, &keys, bench.eps);
        let right = right(&bench.logits(&points, &keys, 0), &labels);
        left.iter().zip(&right).filter(|(_, right)| !**right).for_each(|(&i, _)| rows[i][0] = 1.0);
        let still = left.iter().zip(&right).filter(|(_, right)| **right);
        left = still.map(|(&i, _)| i).collect();
    }
    Ok(rows)
}

/// O11. Row: broken directly, broken by pictures made against the bare model.
pub(super) const TRANSFER: Probe = Probe {
    about: TRANSFER_ABOUT,
    measure: |bench, batch| {
        let bare = bench.bare.ok_or("there is no undefended model to transfer from")?;
        let direct = bench.broken_by_plan(batch)?;
        let mut transfer = vec![false; direct.len()];
        for attack in bench.attacks {
            let attack = parse(attack).map_err(|e| e.to_string())?;
            let made = attack.run(bare, batch, bench.seed).pixels;
            let query = Query { pixels: made, keys: batch.keys, draw: 0 };
            let right = right(&values(bench.subject().logits(query)), batch.labels);
            transfer.iter_mut().zip(right).for_each(|(t, r)| *t |= !r);
        }
        Ok(beside(&[direct, transfer]))
    },
    judge: |about, _, rows| transfer_verdict(about, rows),
};

pub(super) const TRANSFER_ABOUT: About = About {
    id: "O11",
    name: "transfer does not beat the direct attack",
    explanation: "Pictures made against another model, such as the one without the defence, broke \
                  it more often than the attack that could look inside. That attack was blind.",
    remedy: "Repair the gradient of the defence, and take the worst case over both.",
};

pub(super) fn transfer_verdict(about: &About, rows: &[&[f64]]) -> Check {
    let (only_transfer, only_direct) = (count(rows, |r| r[1] > r[0]), count(rows, |r| r[0] > r[1]));
    let p = McNemar::new(only_transfer, only_direct).exact;
    let more = only_transfer as f64 - only_direct as f64;
    let verdict = match more > 0.0 {
        true if p < 0.05 => Verdict::Fail,
        true if only_transfer * 50 >= rows.len().max(1) => Verdict::Suspect,
        _ => Verdict::Ok,
    };
    let value = more / rows.len().max(1) as f64;
    Check { p_value: Some(p), ..about.found(value, 0.0, verdict) }
}

/// Two lists of flags as rows.
pub(super) fn pairs(first: &[bool], second: &[bool]) -> Vec<[f64; 2]> {
    first.iter().zip(second).map(|(a, b)| [flag(*a), flag(*b)]).collect()
}
