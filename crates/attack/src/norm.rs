//! The three norms: size, steepest direction and projection.
//!
//! Everything acts on each sample `[channels, height, width]` of a batch on its own. Projections
//! are onto the intersection of the ball around the clean picture and the box `[0, 1]`; for L2
//! that is "scale, then clamp", which is feasible but not the nearest point, as in all programs
//! of the field.

use std::fmt;

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::tensors::{column, each_row, host, row};

/// Slack of a budget check: `size <= eps * (1 + RELATIVE) + ABSOLUTE`.
pub const RELATIVE: f64 = 1e-6;
/// See [`RELATIVE`].
pub const ABSOLUTE: f64 = 1e-7;

/// Share of the entries that an L1 step moves, as in sparse l1 descent (Tramer & Boneh 2019).
pub const L1_SHARE: f64 = 0.01;

/// How the size of a perturbation is measured, over all entries of one picture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Norm {
    /// Largest absolute entry.
    #[default]
    Linf,
    /// Euclidean length.
    L2,
    /// Sum of absolute entries.
    L1,
}

impl fmt::Display for Norm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Linf => "linf",
            Self::L2 => "l2",
            Self::L1 => "l1",
        })
    }
}

impl Norm {
    /// Size of each perturbation, `[batch, 1, 1, 1]`.
    pub fn size(self, delta: Tensor<4>) -> Tensor<4> {
        let batch = delta.dims()[0];
        let flat: Tensor<2> = delta.flatten(1, 3);
        let size = match self {
            Self::Linf => flat.abs().max_dim(1),
            Self::L2 => flat.square().sum_dim(1).sqrt(),
            Self::L1 => flat.abs().sum_dim(1),
        };
        size.reshape([batch, 1, 1, 1])
    }

    /// Size of each perturbation, summed in f64: the one to report and to compare with a budget.
    pub fn measure(self, delta: Tensor<4>) -> Vec<f64> {
        let [batch, ..] = delta.dims();
        let numbers = host(delta);
        let width = (numbers.len() / batch.max(1)).max(1);
        numbers.chunks(width).map(|row| self.length(row)).collect()
    }

    /// Size of one perturbation, summed in f64.
    pub fn length(self, delta: &[f32]) -> f64 {
        self.fold(delta.iter().map(|&d| f64::from(d)))
    }

    /// Size of the difference of two pictures, each entry rounded as in [`Norm::measure`].
    pub fn distance(self, from: &[f32], to: &[f32]) -> f64 {
        self.fold(from.iter().zip(to).map(|(a, b)| f64::from(b - a)))
    }

    fn fold(self, entries: impl Iterator<Item = f64>) -> f64 {
        match self {
            Self::Linf => entries.fold(0.0, |a: f64, v| a.max(v.abs())),
            Self::L2 => entries.map(|v| v * v).sum::<f64>().sqrt(),
            Self::L1 => entries.map(f64::abs).sum(),
        }
    }

    /// The norm that measures gradients: by how much a step of size 1 can raise a linear function.
    pub fn dual(self) -> Self {
        match self {
            Self::Linf => Self::L1,
            Self::L2 => Self::L2,
            Self::L1 => Self::Linf,
        }
    }

    /// Whether a size is within the budget, up to rounding.
    pub fn within(size: f64, eps: f32) -> bool {
        size <= f64::from(eps) * (1.0 + RELATIVE) + ABSOLUTE
    }

    /// Direction of steepest ascent, of size 1 (0 where the gradient is 0).
    ///
    /// Linf: `sign(g)` with `sign(0) = 0`. L2: `g / |g|`. L1: equal signed weight on the entries
    /// of largest gradient, a share of [`L1_SHARE`] of all.
    pub fn steepest(self, gradient: Tensor<4>) -> Tensor<4> {
        match self {
            Self::Linf => gradient.sign(),
            Self::L2 => {
                // Scaled by the largest entry first: squares of a gradient of 1e-22 are 0 in f32.
                let scaled = gradient.clone() / nonzero(Self::Linf.size(gradient));
                scaled.clone() / nonzero(Self::L2.size(scaled))
            }
            Self::L1 => each_row(gradient, |_, row| {
                let place = (1.0 - L1_SHARE) * row.len() as f64;
                sparse_signs(row, place as usize);
            }),
        }
    }

    /// The nearest perturbation of size at most `eps` (exact in all three norms).
    pub fn project(self, delta: Tensor<4>, eps: f32) -> Tensor<4> {
        match self {
            Self::Linf => delta.clamp(-eps, eps),
            Self::L2 => {
                let size = Self::L2.size(delta.clone()).clamp_min(1e-12);
                delta * (size.recip() * eps).clamp_max(1.0)
            }
            Self::L1 => each_row(delta, |_, row| l1_ball(row, eps, |_, _| f64::INFINITY)),
        }
    }

    /// Brings `point` into the ball of radius `eps` around `clean` and into `[0, 1]`.
    ///
    /// Exact joint projection for Linf and L1; for L2 the ball first, then the box.
    pub fn confine(self, clean: &Tensor<4>, point: Tensor<4>, eps: f32) -> Tensor<4> {
        match self {
            Self::Linf => {
                let (low, high) = (clean.clone() - eps, clean.clone() + eps);
                point.max_pair(low).min_pair(high).clamp(0.0, 1.0)
            }
            Self::L2 => (clean.clone() + self.project(point - clean.clone(), eps)).clamp(0.0, 1.0),
            Self::L1 => {
                let centre = host(clean.clone());
                let delta = each_row(point - clean.clone(), |i, row| {
                    let centre = &centre[i * row.len()..(i + 1) * row.len()];
                    l1_box(centre, row, eps);
                });
                (clean.clone() + delta).clamp(0.0, 1.0)
            }
        }
    }

    /// The last guard before a picture is judged: rows over budget by rounding are scaled back,
    /// all others are left bit for bit.
    pub fn settle(self, clean: &Tensor<4>, point: Tensor<4>, eps: f32) -> Tensor<4> {
        let point = point.clamp(0.0, 1.0);
        let sizes = self.measure(point.clone() - clean.clone());
        if sizes.iter().all(|&size| Self::within(size, eps)) {
            return point;
        }
        let shrink = |size: f64| (f64::from(eps) / size * (1.0 - RELATIVE)).min(1.0) as f32;
        let factor = column(sizes.iter().map(|&s| shrink(s)).collect(), &point.device());
        let scaled = clean.clone() + (point.clone() - clean.clone()) * factor;
        let pick = |(i, &size): (usize, &f64)| match Self::within(size, eps) {
            true => row(&point, i),
            false => row(&scaled, i).clamp(0.0, 1.0),
        };
        Tensor::cat(sizes.iter().enumerate().map(pick).collect(), 0)
    }
}

/// The divisor itself, or 1 where it is 0.
pub(crate) fn nonzero(divisor: Tensor<4>) -> Tensor<4> {
    let zero = divisor.clone().equal_elem(0.0);
    divisor.mask_fill(zero, 1.0)
}

/// Equal signed weights, absolute sum 1, on the largest entries: those not below the size at
/// ascending position `place` (the largest size where there are fewer entries).
pub(crate) fn sparse_signs(row: &mut [f32], place: usize) {
    let mut sizes: Vec<f32> = row.iter().map(|v| v.abs()).collect();
    let last = sizes.len().saturating_sub(1);
    let threshold = *sizes.select_nth_unstable_by(place.min(last), f32::total_cmp).1;
    let keeps = |v: f32| v != 0.0 && v.abs() >= threshold;
    let count = row.iter().filter(|v| keeps(**v)).count().max(1);
    for v in row.iter_mut() {
        *v = if keeps(*v) { v.signum() / count as f32 } else { 0.0 };
    }
}

/// Exact projection of `centre + delta` on the L1 ball of radius `eps` around `centre` and the box
/// `[0, 1]`; `delta` becomes the perturbation of the projected point. `centre` lies in the box.
pub fn l1_box(centre: &[f32], delta: &mut [f32], eps: f32) {
    let cap = |i: usize, up: bool| match up {
        true => 1.0 - f64::from(centre[i]),
        false => f64::from(centre[i]),
    };
    l1_ball(delta, eps, cap);
}

/// Each entry becomes `sign(d) clip(|d| - a, 0, cap)` with the smallest `a >= 0` for which the sum
/// of sizes is at most `eps`.
///
/// That sum falls with `a` and is linear between breakpoints, so Newton steps inside a shrinking
/// bracket reach the exact `a` in a few passes, without sorting.
fn l1_ball(delta: &mut [f32], eps: f32, cap: impl Fn(usize, bool) -> f64) {
    let sizes: Vec<(f64, f64)> = delta
        .iter()
        .enumerate()
        .map(|(i, &d)| (f64::from(d).abs(), cap(i, d > 0.0).max(0.0)))
        .collect();
    let eps = f64::from(eps);
    // The sum at `a`, and how many entries still shrink there.
    let total = |a: f64| {
        sizes.iter().fold((0.0, 0.0), |(sum, slope), &(size, cap)| {
            let left = size - a;
            let shrinks = if left > 0.0 && left < cap { 1.0 } else { 0.0 };
            (sum + left.clamp(0.0, cap), slope + shrinks)
        })
    };
    let mut high = 0.0;
    let (mut sum, mut slope) = total(0.0);
    if sum > eps {
        let (mut low, mut at) = (0.0, 0.0);
        high = sizes.iter().fold(0.0, |a: f64, &(size, _)| a.max(size));
        for _ in 0..60 {
            let newton = at + (sum - eps) / slope;
            let inside = newton > low && newton < high;
            at = if inside { newton } else { 0.5 * (low + high) };
            (sum, slope) = total(at);
            match sum > eps {
                true => low = at,
                false => high = at,
            }
            if (sum - eps).abs() <= 1e-12 * eps {
                high = at;
                break;
            }
        }
    }
    for (d, &(size, cap)) in delta.iter_mut().zip(&sizes) {
        *d = (f64::from(d.signum()) * (size - high).clamp(0.0, cap)) as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, TensorData};

    const ALL: [Norm; 3] = [Norm::Linf, Norm::L2, Norm::L1];

    fn batch(rows: &[&[f32]]) -> Tensor<4> {
        let data = TensorData::new(rows.concat(), [rows.len(), 1, 1, rows[0].len()]);
        Tensor::from_data(data, &Device::flex())
    }

    #[test]
    fn directions_have_size_one_and_zero_stays_zero() {
        let gradient = batch(&[&[3.0, -4.0, 0.0], &[0.0, 0.0, 0.0], &[1e-30, -1e-30, 0.0]]);
        for norm in ALL {
            let direction = norm.steepest(gradient.clone());
            let sizes = norm.measure(direction.clone());
            assert!((sizes[0] - 1.0).abs() < 1e-6, "{norm} {sizes:?}");
            assert_eq!(sizes[1], 0.0);
            assert!((sizes[2] - 1.0).abs() < 1e-6, "{norm} {sizes:?}");
            assert_eq!(host(direction)[2], 0.0, "sign(0) is 0 in {norm}");
        }
        assert_eq!(
            host(Norm::L1.steepest(gradient)),
            [0.0, -1.0, 0.0, 0.0, 0.0, 0.0, 0.5, -0.5, 0.0]
        );
    }

    #[test]
    fn confined_points_are_feasible_and_feasible_points_stay() {
        let clean = batch(&[&[0.0, 0.5, 1.0, 0.2]]);
        let wild = batch(&[&[-3.0, 2.0, 0.0, 0.2]]);
        for norm in ALL {
            let point = norm.confine(&clean, wild.clone(), 0.7);
            assert!(Norm::within(norm.measure(point.clone() - clean.clone())[0], 0.7));
            assert!(host(point.clone()).iter().all(|v| (0.0..=1.0).contains(v)));
            let again = norm.confine(&clean, point.clone(), 0.7);
            let moved = host(again - point);
            assert!(moved.iter().all(|v| v.abs() < 1e-6), "{norm} {moved:?}");
        }
    }

    #[test]
    fn settling_touches_only_rows_over_budget() {
        let clean = batch(&[&[0.5, 0.5], &[0.5, 0.5]]);
        let point = batch(&[&[0.9, 0.5], &[0.600_000_1, 0.5]]);
        let settled = host(Norm::L2.settle(&clean, point, 0.2));
        assert!((settled[0] - 0.7).abs() < 1e-5 && settled[0] <= 0.7 + 1e-6);
        assert_eq!(settled[2], 0.600_000_1);
    }
}
