//! Checks that cost nothing beyond the attacks of the plan: they only look at what those left.

use super::{
    About,
    black_box::{TRANSFER_ABOUT, pairs, transfer_verdict},
    steps::{MODES_ABOUT, gradient_modes_verdict},
};
use crate::records::record::{Check, Verdict};

/// O7: the share of differentiated pictures whose gradient was exactly zero.
pub fn zero_gradients(share: f64) -> Check {
    let threshold = 0.05;
    let verdict = if share > threshold { Verdict::Fail } else { Verdict::Ok };
    ZERO_ABOUT.found(share, threshold, verdict)
}

pub(super) const ZERO_ABOUT: About = About {
    id: "O7",
    name: "gradients are not zero",
    explanation: "An attacker who follows gradients that are zero does not move. The pictures \
                  then survive because nobody attacked them.",
    remedy: "Attack through the exact gradient, a straight-through one, or by transfer; where \
             only the cross-entropy has no gradient, raise the margin or the DLR loss instead.",
};

/// O11: pictures made against the undefended model must not do better than the attack on the
/// defence itself. `direct`, `transfer`: per sample, whether that attack broke it.
pub fn transfer(direct: &[bool], transfer: &[bool]) -> Check {
    let pairs = pairs(direct, transfer);
    let rows: Vec<&[f64]> = pairs.iter().map(|pair| &pair[..]).collect();
    Check { n: Some(rows.len()), ..transfer_verdict(&TRANSFER_ABOUT, &rows) }
}

/// O12: the exact gradient must find what other ways through the defence find. `exact`, `others`:
/// per sample, whether it was broken that way.
pub fn gradient_modes(exact: &[bool], others: &[bool]) -> Check {
    let pairs = pairs(exact, others);
    let rows: Vec<&[f64]> = pairs.iter().map(|pair| &pair[..]).collect();
    Check { n: Some(rows.len()), ..gradient_modes_verdict(&MODES_ABOUT, &rows) }
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
        assert_eq!(gradient_modes(&none, &few).verdict, Verdict::Suspect);
        assert_eq!(gradient_modes(&few, &none).verdict, Verdict::Ok);
    }
}
