//! The checker checked: victims whose faults are known, and which checks see them.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod victims;

use clipguard_attack::{Batch, CATALOGUE, Norm, parse};
use clipguard_evaluate::{
    Check, Reliability, Verdict,
    checks::{self, Bench, Case, Effort, Row, examine},
};
use victims::{Fault, Linear};

const COUNT: usize = 64;
const EPS: f32 = 0.1;

/// The findings on a victim, with the plan that a hurried user writes.
fn findings(fault: Fault) -> Vec<Check> {
    let victim = Linear::new(fault);
    let (pixels, labels, keys) = victim.pictures(COUNT);
    let attacks = ["pgd:eps=0.1,steps=40".to_owned()];
    let bench = Bench {
        modes: vec![("exact", &victim)],
        bare: None,
        norm: Norm::Linf,
        eps: EPS,
        attacks: &attacks,
        seed: 0,
        random: false,
        effort: Effort::default(),
    };
    let batch = Batch { pixels, labels: &labels, keys: &keys };
    examine(&bench, &batch, COUNT, &mut |_| true).unwrap()
}

/// Ids of the checks that fire: `fail` or `suspect`.
fn fired(checks: &[Check]) -> Vec<&str> {
    let fires = |check: &&Check| matches!(check.verdict, Verdict::Fail | Verdict::Suspect);
    checks.iter().filter(fires).map(|check| check.id.as_str()).collect()
}

/// What the findings say, for a test that fails.
fn told(checks: &[Check]) -> String {
    let line = |check: &Check| {
        let Check { id, verdict, value, explanation, .. } = check;
        format!("  {id} {verdict:?} {value:?} {explanation}\n")
    };
    checks.iter().map(line).collect()
}

/// A fault, the checks that are there to see it, and those that may see its consequences.
///
/// Rounding leaves no gradient: nothing moves (O3, O7, O9), chance does better (O5), the answer
/// changes where the gradient says it does not (O17), and the planted point is missed (O14). Loud
/// logits saturate the cross-entropy (O7) until they are divided (O13); a readout as loud as the
/// head saturates too (O14). Noise shows in the answers (O10). The ripple makes the gradient
/// right on clean pictures alone: one long step beats many (O1), and everything that follows
/// gradients fails.
const TABLE: &[(Fault, &str, &str)] = &[
    (Fault::None, "", ""),
    (Fault::Levels, "O3 O5 O7 O9 O14 O17", "O1 O4 O6 O8 O13 O15"),
    (Fault::Loud, "O3 O7 O9 O13 O14", "O1 O4 O5 O6 O15"),
    (Fault::Noise, "O10", "O1 O5 O6 O13 O14"),
    (Fault::Ripple, "O1 O5 O8 O9 O14", "O3 O4 O6 O13 O15"),
    (Fault::Softmax, "P1", ""),
];

#[test]
fn every_fault_is_seen_by_the_checks_for_it_and_a_sound_victim_passes_all() {
    let mut wrong = String::new();
    for (fault, must, may) in TABLE {
        let checks = findings(*fault);
        // O2 needs an attack by queries, which a build may lack; rounding must not escape it.
        let queries = CATALOGUE.iter().any(|method| method.name == "square");
        let black_box = checks.iter().find(|check| check.id == "O2").unwrap();
        assert_eq!(black_box.verdict == Verdict::NotRun, !queries);
        let (must, may): (Vec<&str>, Vec<&str>) =
            (must.split_whitespace().collect(), may.split_whitespace().collect());
        let fired: Vec<&str> = fired(&checks).into_iter().filter(|id| *id != "O2").collect();
        let missed = must.iter().filter(|id| !fired.contains(id)).count();
        let extra = fired.iter().filter(|id| !must.contains(id) && !may.contains(id)).count();
        if missed + extra > 0 {
            wrong += &format!("{fault:?}: fired {fired:?}, must {must:?}\n{}", told(&checks));
        }
        let (sound, reliability) = (must.len() < 2, Reliability::of(&checks));
        if !sound && reliability != Reliability::NotReliable {
            wrong += &format!("{fault:?} is called {}\n", reliability.words());
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn the_attack_reaches_the_robust_accuracy_that_can_be_computed() {
    let victim = Linear::new(Fault::None);
    let (pixels, labels, keys) = victim.pictures(COUNT);
    let numbers = pixels.clone().into_data().try_to_vec::<f32>().unwrap();
    let known: Vec<bool> = numbers
        .chunks_exact(numbers.len() / COUNT)
        .zip(&labels)
        .map(|(picture, label)| victim.is_robust(picture, *label, EPS))
        .collect();
    let robust = known.iter().filter(|robust| **robust).count();
    assert!((COUNT / 5..4 * COUNT / 5).contains(&robust), "{robust}");
    let batch = Batch { pixels, labels: &labels, keys: &keys };
    let mut left = vec![true; COUNT];
    for loss in ["ce", "margin"] {
        let attack = parse(&format!("pgd:eps=0.1,steps=40,restarts=3,loss={loss}")).unwrap();
        let broken = attack.run(&victim, &batch, 0).success;
        left.iter_mut().zip(broken).for_each(|(left, broken)| *left &= !broken);
    }
    // What is robust stays so, whatever is tried; and what is not is found.
    assert!(known.iter().zip(&left).all(|(known, left)| *left || !known));
    assert_eq!(left, known);
}

#[test]
fn a_check_that_cannot_be_run_says_why_and_is_no_pass() {
    let checks = findings(Fault::None);
    for (id, reason) in [("O11", "no undefended model"), ("O12", "only one gradient mode")] {
        let check = checks.iter().find(|check| check.id == id).unwrap();
        assert_eq!((check.verdict, check.value), (Verdict::NotRun, None));
        assert!(check.explanation.contains(reason), "{}", check.explanation);
    }
    let nothing = checks::CATALOGUE[0].judge(&Case::default(), &[Row::default()]);
    assert_eq!(nothing.verdict, Verdict::NotRun);
}
