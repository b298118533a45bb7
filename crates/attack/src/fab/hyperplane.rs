//! The smallest step to a hyperplane inside the box (Croce & Hein 2020a, section 3.1).

use crate::Norm;

/// Entries of the normal that are not moved along in L2 and L1.
const FLAT: f64 = 1e-8;

/// Step of smallest `norm` from `point` to the hyperplane `<normal, .> = b` that stays inside
/// `[0, 1]`, where `excess = <normal, point> - b`; as far as possible where the plane is outside.
pub fn step(norm: Norm, point: &[f32], normal: &[f32], excess: f64) -> Vec<f32> {
    let side = if excess >= 0.0 { 1.0 } else { -1.0 };
    let entry = |(&t, &w): (&f32, &f32)| {
        let (t, w) = (f64::from(t), side * f64::from(w));
        let room = if w < 0.0 { 1.0 - t } else { t };
        let is_flat = w == 0.0 || (norm != Norm::Linf && w.abs() <= FLAT);
        Entry { weight: w.abs(), room: if is_flat { 0.0 } else { room }, sign: -w.signum() }
    };
    let entries: Vec<Entry> = point.iter().zip(normal).map(entry).collect();
    let missing = excess.abs();
    let possible: f64 = entries.iter().map(|e| e.weight * e.room).sum();
    let signed = |size: f64, e: &Entry| (e.sign * size) as f32;
    if possible <= missing {
        return entries.iter().map(|e| signed(e.room, e)).collect();
    }
    if norm == Norm::L1 {
        return steepest_first(&entries, missing);
    }
    let speed = |e: &Entry| if norm == Norm::Linf { 1.0 } else { e.weight };
    let length = length(&entries, speed, missing);
    entries.iter().map(|e| signed((length * speed(e)).min(e.room), e)).collect()
}

/// One entry of a step.
struct Entry {
    /// What moving by 1 removes of the excess.
    weight: f64,
    /// How far it may move.
    room: f64,
    /// The way it moves.
    sign: f64,
}

/// The `l` with `sum weight min(l speed, room) = missing`.
///
/// The sum is concave and piecewise linear in `l`, so Newton steps from below never pass the
/// solution and reach its piece in a few passes, without sorting.
fn length(entries: &[Entry], speed: impl Fn(&Entry) -> f64, missing: f64) -> f64 {
    let mut length = 0.0;
    for _ in 0..100 {
        let (mut sum, mut slope) = (0.0, 0.0);
        for e in entries {
            let moved = length * speed(e);
            if moved < e.room {
                sum += e.weight * moved;
                slope += e.weight * speed(e);
            } else {
                sum += e.weight * e.room;
            }
        }
        let next = length + (missing - sum) / slope;
        if slope == 0.0 || next <= length || missing - sum <= 1e-14 * missing {
            break;
        }
        length = next;
    }
    length
}

/// Fills the entries of largest weight completely, the last one partly.
fn steepest_first(entries: &[Entry], missing: f64) -> Vec<f32> {
    let mut order: Vec<usize> = (0..entries.len()).collect();
    order.sort_by(|&a, &b| entries[b].weight.total_cmp(&entries[a].weight));
    let mut step = vec![0.0; entries.len()];
    let mut left = missing;
    for i in order {
        let Entry { weight, room, sign } = entries[i];
        if weight * room >= left {
            step[i] = (sign * left / weight.max(f64::MIN_POSITIVE)) as f32;
            break;
        }
        step[i] = (sign * room) as f32;
        left -= weight * room;
    }
    step
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_reach_the_plane_inside_the_box_and_norms_rank_them() {
        let (point, normal) = ([0.1, 0.9, 0.5, 0.4], [1.0, -2.0, 0.5, 0.0]);
        for excess in [0.3, -0.3, 0.05] {
            let sizes = [Norm::Linf, Norm::L2, Norm::L1].map(|norm| {
                let step = step(norm, &point, &normal, excess);
                let removed: f32 = step.iter().zip(&normal).map(|(d, w)| d * w).sum();
                assert!((f64::from(removed) + excess).abs() < 1e-6, "{norm} {step:?}");
                let inside = |(d, t): (&f32, &f32)| (-1e-7..=1.0 + 1e-7).contains(&(d + t));
                assert!(step.iter().zip(&point).all(inside), "{norm} {step:?}");
                [
                    step.iter().fold(0.0, |a: f32, d| a.max(d.abs())),
                    step.iter().map(|d| d * d).sum::<f32>(),
                    step.iter().map(|d| d.abs()).sum::<f32>(),
                ]
            });
            for (norm, own) in sizes.iter().enumerate() {
                for other in &sizes {
                    assert!(own[norm] <= other[norm] + 1e-6, "norm {norm}: {sizes:?}");
                }
            }
        }
        let far = step(Norm::L2, &point, &normal, 9.0);
        let near =
            far.iter().zip([-0.1, 0.1, -0.5, 0.0]).all(|(a, b): (&f32, f32)| (a - b).abs() < 1e-6);
        assert!(near, "{far:?}");
        assert_eq!(step(Norm::L1, &point, &[0.0; 4], 1.0), [0.0; 4]);
    }
}
