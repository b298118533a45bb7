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

/// Which checks fire, as `O3 O7?` (a question mark for a suspicion).
fn fired(checks: &[Check]) -> String {
    let sign = |check: &Check| match check.verdict {
        Verdict::Fail => Some(check.id.clone()),
        Verdict::Suspect => Some(format!("{}?", check.id)),
        _ => None,
    };
    checks.iter().filter_map(sign).collect::<Vec<_>>().join(" ")
}

/// The verdict of one check.
fn verdict(checks: &[Check], id: &str) -> Verdict {
    checks.iter().find(|check| check.id == id).unwrap().verdict
}

/// The table of the self-tests. Who adds an attack or changes a check sees here what that does.
#[test]
fn every_fault_is_seen_by_the_checks_for_it_and_a_sound_victim_passes_all() {
    let mut wrong = String::new();
    for (fault, expected) in TABLE {
        let checks = findings(*fault);
        // O2 needs an attack by queries, which a build may lack.
        let queries = CATALOGUE.iter().any(|method| method.name == "square");
        assert_eq!(verdict(&checks, "O2") == Verdict::NotRun, !queries);
        let others: Vec<Check> = checks.iter().filter(|c| c.id != "O2").cloned().collect();
        if fired(&others) != *expected {
            wrong += &format!("\n{fault:?}: fired `{}`, expected `{expected}`\n", fired(&others));
            for check in &checks {
                wrong += &format!(
                    "  {:4} {:?} {:?} {:?} {}\n",
                    check.id, check.verdict, check.value, check.p_value, check.explanation
                );
            }
        }
        let reliable = Reliability::of(&others) != Reliability::NotReliable;
        assert_eq!(reliable, matches!(fault, Fault::None | Fault::Softmax | Fault::Noise));
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// Rounding leaves no gradient: nothing moves (O3, O7, O9, O15), chance does better (O5), the
/// loss changes where the gradient says it does not (O8, O17), and the planted point is missed.
/// Loud logits saturate the cross-entropy, until they are divided (O13). Noise shows in the
/// answers (O10). The ripple makes the gradient right on clean pictures alone, so one long step
/// beats many (O1).
const TABLE: &[(Fault, &str)] = &[
    (Fault::None, ""),
    (Fault::Levels, "O3 O4? O5 O7 O8 O9? O14 O15? O17"),
    (Fault::Loud, "O3 O7 O9? O13? O14 O15?"),
    (Fault::Noise, "O10?"),
    (Fault::Ripple, "O1 O3 O5 O8 O9? O14"),
    (Fault::Softmax, "P1?"),
];

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
    let attack = parse("pgd:eps=0.1,steps=40,restarts=2").unwrap();
    let batch = Batch { pixels, labels: &labels, keys: &keys };
    let found: Vec<bool> =
        attack.run(&victim, &batch, 0).success.into_iter().map(|broken| !broken).collect();
    assert_eq!(found, known);
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
