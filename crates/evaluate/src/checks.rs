//! Plausibility checks that cost nothing beyond the evaluation itself.
//!
//! They look for the symptoms of obfuscated gradients (Athalye, Carlini and Wagner 2018): a
//! gradient that is zero, and an attack that knows the defence but does worse than pictures made
//! without knowing it.

use crate::{
    compare::McNemar,
    record::{Check, Verdict},
};

/// O7: the share of differentiated pictures whose gradient was exactly zero.
pub fn zero_gradients(share: f64) -> Check {
    let threshold = 0.05;
    Check {
        id: "O7".to_owned(),
        name: "gradients are not zero".to_owned(),
        value: Some(share),
        threshold: Some(threshold),
        verdict: if share > threshold { Verdict::Fail } else { Verdict::Ok },
        explanation: "An attacker who follows gradients that are zero does not move. The pictures \
                      then survive because nobody attacked them."
            .to_owned(),
        remedy: "Attack through the exact gradient, a straight-through one, or by transfer."
            .to_owned(),
    }
}

/// O11: pictures made against the undefended model must not do better than the attack on the
/// defence itself. `direct`, `transfer`: per sample, whether that attack broke it.
pub fn transfer(direct: &[bool], transfer: &[bool]) -> Check {
    let count = |a: &[bool], b: &[bool]| a.iter().zip(b).filter(|(a, b)| **a && !**b).count();
    let (only_transfer, only_direct) = (count(transfer, direct), count(direct, transfer));
    let p = McNemar::new(only_transfer, only_direct).exact;
    let more = only_transfer as f64 - only_direct as f64;
    let verdict = match more > 0.0 {
        true if p < 0.05 => Verdict::Fail,
        true if only_transfer * 50 >= direct.len().max(1) => Verdict::Suspect,
        _ => Verdict::Ok,
    };
    Check {
        id: "O11".to_owned(),
        name: "transfer does not beat the direct attack".to_owned(),
        value: Some(more / direct.len().max(1) as f64),
        threshold: Some(0.0),
        verdict,
        explanation:
            "Pictures made against the model without the defence broke it more often than \
                      the attack that could look inside. That attack was blind."
                .to_owned(),
        remedy: "Repair the gradient of the defence, and take the worst case over both.".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_fire_exactly_where_they_should() {
        assert_eq!(zero_gradients(0.0).verdict, Verdict::Ok);
        assert_eq!(zero_gradients(0.9).verdict, Verdict::Fail);
        let (all, none) = ([true; 64], [false; 64]);
        assert_eq!(transfer(&all, &none).verdict, Verdict::Ok);
        assert_eq!(transfer(&all, &all).verdict, Verdict::Ok);
        assert_eq!(transfer(&none, &all).verdict, Verdict::Fail);
        let mut few = none;
        few[..3].fill(true);
        assert_eq!(transfer(&none, &few).verdict, Verdict::Suspect);
    }
}
