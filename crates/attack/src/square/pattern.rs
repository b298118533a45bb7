//! The shapes Square tries: which part of the picture, and which perturbation inside it.

use crate::Norm;

/// Share of the pixels inside the window in iteration `iteration` (table 1 of the paper's code);
/// with `rescale` the schedule is stretched from 10000 to `queries` iterations.
pub fn share(start: f32, iteration: usize, queries: usize, rescale: bool) -> f64 {
    const HALVINGS: [usize; 9] = [10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000];
    let iteration = match rescale {
        true => (iteration as f64 / queries as f64 * 10_000.0) as usize,
        false => iteration,
    };
    // The first window is kept for 10 iterations, the second for 40, and so on.
    let halvings = HALVINGS.iter().filter(|&&last| iteration > last).count();
    f64::from(start) / f64::from(1u32 << halvings)
}

/// Side of the window for that share of the pixels; odd and at least 3 but for Linf, where the
/// picture is large enough.
pub fn side(norm: Norm, share: f64, height: usize, width: usize) -> usize {
    let side = (share * (height * width) as f64).sqrt().round_ties_even() as usize;
    let side = match norm {
        Norm::Linf => side.max(1),
        _ => side.max(3) + usize::from(side.max(3).is_multiple_of(2)),
    };
    side.min(height).min(width)
}

/// Two stacked pyramids of opposite sign, `[side, side]` and of size 1 in `norm` (L2 or L1); the
/// positive one lies above, or on the left if transposed.
pub fn pyramids(norm: Norm, side: usize, transposed: bool) -> Vec<f32> {
    let upper = side / 2;
    let mut whole = rectangle(norm, upper, side);
    whole.extend(rectangle(norm, side - upper, side).iter().map(|v| -v));
    let size = norm_of(norm, &whole).max(f64::MIN_POSITIVE);
    let at = |i: usize| if transposed { i % side * side + i / side } else { i };
    (0..side * side).map(|i| (whole[at(i)] / size) as f32).collect()
}

/// A pyramid of steps on `[rows, columns]` around its centre, of size 1.
fn rectangle(norm: Norm, rows: usize, columns: usize) -> Vec<f64> {
    let mut pyramid = vec![0.0; rows * columns];
    let (row, column) = (rows / 2, columns / 2);
    let power = if norm == Norm::L1 { 4 } else { 2 };
    for j in 0..(row + 1).max(column + 1) {
        let height = ((j + 1) as f64).powi(-power);
        for r in row.saturating_sub(j)..(row + j + 1).min(rows) {
            for c in column.saturating_sub(j)..(column + j + 1).min(columns) {
                pyramid[r * columns + c] += height;
            }
        }
    }
    let size = norm_of(norm, &pyramid).max(f64::MIN_POSITIVE);
    pyramid.iter_mut().for_each(|v| *v /= size);
    pyramid
}

fn norm_of(norm: Norm, v: &[f64]) -> f64 {
    match norm {
        Norm::L1 => v.iter().map(|v| v.abs()).sum(),
        _ => v.iter().map(|v| v * v).sum::<f64>().sqrt(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_fit_and_shrink() {
        for norm in [Norm::Linf, Norm::L2, Norm::L1] {
            for (height, width) in [(1, 1), (2, 9), (16, 16), (224, 224)] {
                let sides: Vec<usize> = (0..5000)
                    .step_by(50)
                    .map(|i| side(norm, share(0.8, i, 5000, false), height, width))
                    .collect();
                assert!(sides.iter().all(|&s| s >= 1 && s <= height.min(width)));
                assert!(sides.windows(2).all(|pair| pair[1] <= pair[0]), "{sides:?}");
            }
        }
        assert_eq!(share(0.8, 4999, 5000, false), f64::from(0.8f32) / 128.0);
        assert_eq!(share(0.8, 4999, 5000, true), f64::from(0.8f32) / 512.0);
    }

    #[test]
    fn pyramids_have_size_one() {
        for side in [1, 3, 7] {
            for norm in [Norm::L2, Norm::L1] {
                let shape = pyramids(norm, side, false);
                assert!((norm.length(&shape) - 1.0).abs() < 1e-6);
                let turned = pyramids(norm, side, true);
                assert_eq!(shape[side - 1], turned[(side - 1) * side]);
            }
        }
    }
}
