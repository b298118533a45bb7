//! Checks over the radius: without a bound (O3), the curve (O4), confidence (O15).

use super::{
    About, Bench, Case, Measured, Probe,
    finding::{beside, count, flag, median, share},
    steps::leads,
};
use crate::{
    records::record::{Check, Verdict},
    statistics::compare::McNemar,
};
use clipguard_attack::{Batch, Norm};
use clipguard_model::Query;

/// A radius from which every picture of the box can be reached.
fn unbounded(bench: &Bench<'_>, batch: &Batch<'_>) -> f32 {
    let entries = batch.pixels.dims()[1..].iter().product::<usize>() as f32;
    match bench.norm {
        Norm::Linf => 1.0,
        Norm::L2 => entries.sqrt(),
        Norm::L1 => entries,
    }
}

/// O3. Row: whether the picture survived an attack without bound.
pub(super) const UNBOUNDED: Probe = Probe {
    about: About {
        id: "O3",
        name: "an attack without bound always succeeds",
        explanation: "An attacker who may change everything did not get a wrong answer, although \
                      a wrong answer exists. The attack is broken.",
        remedy: "Find out why the attack does not move: zero gradients, a saturated loss, a step \
                 that is too small.",
    },
    measure: |bench, batch| {
        let attack = bench.descent(unbounded(bench, batch), "steps=100")?;
        let broken = bench.broken(&*attack, bench.subject(), batch);
        Ok(broken.into_iter().map(|broken| vec![flag(!broken)]).collect())
    },
    judge: |about, _, rows| {
        let survivors = count(rows, |r| r[0] > 0.5);
        let verdict = if survivors > 0 { Verdict::Fail } else { Verdict::Ok };
        about.found(survivors as f64 / rows.len() as f64, 0.0, verdict)
    },
};

/// Radii of the curve, as multiples of the plan's.
const RADII: [f32; 6] = [0.25, 0.5, 1.0, 2.0, 4.0, 8.0];

/// O4. Row: broken at each of [`RADII`].
pub(super) const CURVE: Probe = Probe {
    about: About {
        id: "O4",
        name: "accuracy falls with the radius",
        explanation: "A larger radius contains the smaller one, so accuracy cannot rise with it, \
                      and it has to go on falling until chance. Where it does not, the attack \
                      stops searching.",
        remedy: "Attack at larger radii with more steps and other losses until the curve falls \
                 to zero.",
    },
    measure: |bench, batch| {
        let mut columns = Vec::new();
        for factor in RADII {
            let attack = bench.descent(bench.eps * factor, "steps=20")?;
            columns.push(bench.broken(&*attack, bench.subject(), batch));
        }
        Ok(beside(&columns))
    },
    judge: curve,
};

fn curve(about: &About, case: &Case, rows: &[&[f64]]) -> Check {
    let mut smallest = 1.0f64;
    for i in 1..RADII.len() {
        let regained = count(rows, |r| r[i - 1] > r[i]);
        let lost = count(rows, |r| r[i] > r[i - 1]);
        if regained > lost {
            smallest = smallest.min(McNemar::new(regained, lost).a_better);
        }
    }
    let alive: Vec<f64> = (0..RADII.len()).map(|i| share(rows, |r| r[i] < 0.5)).collect();
    // A curve may begin flat: nothing breaks at a tiny radius. It must not become or end flat.
    let chance = 1.0 / case.classes.max(1) as f64;
    let flat = (2..RADII.len()).any(|i| {
        let same = (alive[i - 2] - alive[i]).abs() < 1e-9;
        same && alive[i] > chance && (alive[i] < 1.0 || i + 1 == RADII.len())
    });
    let verdict = match smallest < 0.01 {
        true => Verdict::Fail,
        false if flat => Verdict::Suspect,
        false => Verdict::Ok,
    };
    let mut check = about.found(alive[RADII.len() - 1], chance, verdict);
    check.p_value = Some(smallest);
    let left: Vec<String> = alive.iter().map(|a| format!("{:.1}", 100.0 * a)).collect();
    check.explanation +=
        &format!(" Percent left at 1/4, 1/2, 1, 2, 4 and 8 times the radius: {}.", left.join(", "));
    check
}

/// O15. Row: lead of a wrong class after an attack without bound, divided by the lead of the right
/// class before it.
pub(super) const CONFIDENCE: Probe = Probe {
    about: About {
        id: "O15",
        name: "a wrong answer can be made as sure as the right one",
        explanation: "Even without a bound the attack cannot make the model as sure of a wrong \
                      class as it was of the right one. Confidence that saturates points to \
                      gradients that are clipped or vanish.",
        remedy: "Raise the margin instead of the cross-entropy, and check the gradient (O7, O8).",
    },
    measure: confidence,
    judge: |about, _, rows| {
        let middle = median(rows.iter().map(|r| r[0]));
        let verdict = if middle < 0.5 { Verdict::Suspect } else { Verdict::Ok };
        about.found(middle, 0.5, verdict)
    },
};

fn confidence(bench: &Bench<'_>, batch: &Batch<'_>) -> Measured {
    // Without early exit the point with the largest lead is kept.
    let attack = bench.descent(unbounded(bench, batch), "steps=50,early-exit=false")?;
    let found = attack.run(bench.subject(), batch, bench.seed);
    let lead = |pixels| {
        let query = Query { pixels, keys: batch.keys, draw: 0 };
        leads(bench.subject().logits(query), batch.labels)
    };
    let (before, after) = (lead(batch.pixels.clone()), lead(found.pixels));
    let ratio = |(before, after): (f64, f64)| vec![after / (-before).max(1e-12)];
    Ok(before.into_iter().zip(after).map(ratio).collect())
}
