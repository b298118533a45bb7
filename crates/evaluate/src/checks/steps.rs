//! Checks on the way of a descent: one step against many (O1), convergence (O6), a loss that
//! rises (O9), and the ways a gradient may pass (O12).

use super::{
    About, Bench, Measured, Probe,
    bench::values,
    finding::{beside, count, flag, share},
    missing,
};
use crate::{
    records::record::{Check, Verdict},
    statistics::compare::McNemar,
};
use clipguard_attack::{Batch, parse};

/// O1. Row: broken by one step, broken by fifty.
pub(super) const ONE_STEP: Probe = Probe {
    about: About {
        id: "O1",
        name: "many steps beat one",
        explanation: "One long step broke pictures that fifty small ones could not. Small steps \
                      follow the gradient more closely, so the gradient leads astray.",
        remedy: "Look for parts of the defence whose gradient has nothing to do with their \
                 values; attack through a smooth stand-in for them.",
    },
    measure: |bench, batch| {
        let one = bench.descent(bench.eps, &format!("steps=1,start=none,alpha={}", bench.eps))?;
        let many = bench.descent(bench.eps, "steps=50")?;
        let victim = bench.subject();
        Ok(beside(&[bench.broken(&*one, victim, batch), bench.broken(&*many, victim, batch)]))
    },
    judge: |about, _, rows| {
        let one = count(rows, |r| r[0] > r[1]);
        let many = count(rows, |r| r[1] > r[0]);
        let p = McNemar::new(one, many).a_better;
        let only = one as f64 / rows.len() as f64;
        let verdict = match one > many && p < 0.05 {
            true => Verdict::Fail,
            false if only >= 0.02 => Verdict::Suspect,
            false => Verdict::Ok,
        };
        Check { p_value: Some(p), ..about.found(only, 0.02, verdict) }
    },
};

const STEPS: [usize; 5] = [10, 20, 50, 100, 200];

/// O6. Row: broken with 10, 20, 50, 100, 200 steps; with 20 steps and 5 restarts.
pub(super) const CONVERGENCE: Probe = Probe {
    about: About {
        id: "O6",
        name: "more steps no longer help",
        explanation: "Twice as many steps still break more pictures. The number was read off \
                      before the attack had arrived.",
        remedy: "Raise steps and restarts until the number stands still.",
    },
    measure: |bench, batch| {
        let mut columns = Vec::new();
        for steps in STEPS {
            let attack = bench.descent(bench.eps, &format!("steps={steps}"))?;
            columns.push(bench.broken(&*attack, bench.subject(), batch));
        }
        let restarts = bench.descent(bench.eps, "steps=20,restarts=5")?;
        columns.push(bench.broken(&*restarts, bench.subject(), batch));
        Ok(beside(&columns))
    },
    judge: |about, _, rows| {
        let killed: Vec<f64> = (0..STEPS.len()).map(|i| share(rows, |r| r[i] > 0.5)).collect();
        let gain = killed[4] - killed[3];
        let verdict = if gain > 0.01 { Verdict::Suspect } else { Verdict::Ok };
        let mut check = about.found(gain, 0.01, verdict);
        let left: Vec<String> =
            killed.iter().map(|k| format!("{:.1}", 100.0 * (1.0 - k))).collect();
        let restarts = 100.0 * (1.0 - share(rows, |r| r[5] > 0.5));
        check.explanation += &format!(
            " Percent left after 10, 20, 50, 100 and 200 steps: {}; after 20 with five restarts: \
             {restarts:.1}.",
            left.join(", ")
        );
        check
    },
};

/// O9. Row: whether the loss ended no higher than it began.
pub(super) const RISING: Probe = Probe {
    about: About {
        id: "O9",
        name: "the attack raises its loss",
        explanation: "The attack ended with a loss no higher than it began with. It did not \
                      attack these pictures, it only visited them.",
        remedy: "Look for zero gradients (O7) and wrong ones (O8); another loss or a smaller step \
                 may help.",
    },
    measure: |bench, batch| {
        let attack = bench.descent(bench.eps, "steps=20,early-exit=false")?;
        let found = attack.run(bench.subject(), batch, bench.seed);
        let row = |trace: &Vec<f32>| match (trace.first(), trace.last()) {
            (Some(first), Some(last)) if trace.len() > 1 => vec![flag(last <= first)],
            _ => Vec::new(),
        };
        Ok(found.loss.iter().map(row).collect())
    },
    judge: |about, _, rows| {
        let flat = share(rows, |r| r[0] > 0.5);
        let verdict = if flat > 0.05 { Verdict::Suspect } else { Verdict::Ok };
        about.found(flat, 0.05, verdict)
    },
};

/// O12. Row: broken through the exact gradient, broken through any other.
pub(super) const MODES: Probe = Probe {
    about: MODES_ABOUT,
    measure: modes,
    judge: |about, _, rows| gradient_modes_verdict(about, rows),
};

pub(super) const MODES_ABOUT: About = About {
    id: "O12",
    name: "the exact gradient finds what others find",
    explanation: "Pretending that the defence were not there, or constant, broke pictures that \
                  the exact gradient did not. The exact gradient is of little use to the attacker.",
    remedy: "Take the worst case over all gradient modes, and add a smooth stand-in for the \
             defence.",
};

fn modes(bench: &Bench<'_>, batch: &Batch<'_>) -> Measured {
    if bench.modes.len() < 2 {
        return Err("only one gradient mode is there to compare".to_owned());
    }
    let attack = bench.attacks.first().ok_or("the plan has no attack")?;
    let attack = parse(attack).map_err(|e| e.to_string())?;
    let columns: Vec<Vec<bool>> =
        bench.modes.iter().map(|(_, victim)| bench.broken(&*attack, *victim, batch)).collect();
    let others = (0..batch.labels.len()).map(|i| columns[1..].iter().any(|c| c[i])).collect();
    Ok(beside(&[columns[0].clone(), others]))
}

pub(super) fn gradient_modes_verdict(about: &About, rows: &[&[f64]]) -> Check {
    if rows.is_empty() {
        return missing(about, "no pictures");
    }
    let missed = share(rows, |r| r[1] > r[0]);
    let verdict = if missed > 0.02 { Verdict::Suspect } else { Verdict::Ok };
    about.found(missed, 0.02, verdict)
}

/// Lead of a wrong class over the right one in each row, from logits.
pub(super) fn leads(logits: burn::tensor::Tensor<2>, labels: &[usize]) -> Vec<f64> {
    let [_, classes] = logits.dims();
    let numbers = values(logits);
    let lead = |(row, label): (&[f32], &usize)| {
        let others = row.iter().enumerate().filter(|(j, _)| j != label).map(|(_, z)| *z);
        f64::from(others.fold(f32::NEG_INFINITY, f32::max)) - f64::from(row[*label])
    };
    numbers.chunks_exact(classes.max(1)).zip(labels).map(lead).collect()
}
