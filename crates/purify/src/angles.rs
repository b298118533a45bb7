//! Cosine purification as motion of an angle, in f64.
//!
//! The rule moves an embedding in the plane of itself and the blank-prompt embedding and keeps its
//! length, so each row is one signed angle to the blank direction. Without momentum and with L2
//! steps the angle obeys a recurrence of its own; it serves as the fast path of
//! [`ClipureCos`](crate::ClipureCos) and as the oracle of its loop.

use crate::Mode;

/// Below this sine a row has no direction to move in, and stays.
pub const GUARD: f64 = 1e-12;

/// The angles of all rows (radians, signed) at the start and after each of `steps` steps of size
/// `eta`: `steps + 1` vectors.
///
/// [`Mode::Sample`]: `theta - sgn(theta) atan(eta)`. [`Mode::Released`]:
/// `theta - sgn(theta) atan(eta |sin theta| / S)`, `S` the root of the sum of `sin^2` over the
/// batch.
pub fn angles(mode: Mode, start: &[f64], steps: usize, eta: f64) -> Vec<Vec<f64>> {
    let mut all = vec![start.to_vec()];
    for step in 0..steps {
        let next = turned(mode, &all[step], eta);
        all.push(next);
    }
    all
}

fn turned(mode: Mode, angles: &[f64], eta: f64) -> Vec<f64> {
    let sine = |theta: f64| match theta.sin().abs() {
        s if s > GUARD => s,
        _ => 0.0,
    };
    let total = angles.iter().map(|&theta| sine(theta).powi(2)).sum::<f64>().sqrt();
    let turn = |theta: f64| match (mode, sine(theta)) {
        (_, 0.0) => 0.0,
        (Mode::Sample, _) => eta.atan(),
        (Mode::Released, s) => (eta * s / total).atan(),
    };
    angles.iter().map(|&theta| theta - theta.signum() * turn(theta)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last(mode: Mode, start: &[f64], steps: usize, eta: f64) -> Vec<f64> {
        angles(mode, start, steps, eta).pop().unwrap()
    }

    #[test]
    fn an_even_number_of_large_steps_is_the_identity_and_an_odd_one_reverses() {
        let start = [1.37, 1.2, 0.4];
        for (a, b) in last(Mode::Sample, &start, 10, 30.0).iter().zip(start) {
            assert!((a - b).abs() < 1e-14);
        }
        assert!(last(Mode::Sample, &start, 9, 30.0).iter().all(|&theta| theta < 0.0));
        // cos(theta) < cos(atan 30) = 0.0333: one step is spent before the crossing.
        assert!(last(Mode::Sample, &[1.56], 10, 30.0)[0] < 0.0);
    }

    #[test]
    fn nothing_moves_without_steps_or_at_a_pole() {
        for mode in [Mode::Sample, Mode::Released] {
            assert_eq!(last(mode, &[0.7], 0, 30.0), [0.7]);
            assert_eq!(last(mode, &[0.7], 5, 0.0), [0.7]);
            let poles = [0.0, std::f64::consts::PI];
            assert_eq!(last(mode, &poles, 7, 30.0), poles);
        }
    }

    #[test]
    fn small_steps_follow_the_continuous_limit() {
        let steps = 1000;
        let end = last(Mode::Sample, &[1.2], steps, 0.5 / steps as f64)[0];
        assert!((end - 0.7).abs() < 1e-6, "{end}");
        assert!(
            (last(Mode::Sample, &[1.2], 1, 1e12)[0] - 1.2 + std::f64::consts::FRAC_PI_2).abs()
                < 1e-9
        );
    }

    #[test]
    fn one_row_alone_is_the_same_in_both_modes() {
        let (a, b) =
            (angles(Mode::Sample, &[1.3], 10, 2.0), angles(Mode::Released, &[1.3], 10, 2.0));
        assert!(a.iter().flatten().zip(b.iter().flatten()).all(|(a, b)| (a - b).abs() < 1e-12));
    }
}
