//! What makes adversarial pictures carry over to models that were not looked at.

use burn::tensor::{Tensor, TensorData, module::conv2d, ops::ConvOptions};
use clipguard_data::Stream;

/// A picture is shrunk to no less than this share of its side.
const SMALLEST: f32 = 0.9;

/// Standard deviations of the smoothing window from its middle to its edge.
const REACH: f64 = 3.0;

/// Each picture, with this probability, shrunk (bilinear) and padded with black at random, as in
/// Xie et al. 2019. One stream a picture; differentiable.
///
/// Shrinking and padding are two small matrices a picture, one for its rows and one for its
/// columns, so the gradient is exact and a picture does not depend on its neighbours.
///
/// # Panics
/// When there are fewer streams than pictures.
pub fn diverse(pixels: Tensor<4>, probability: f32, streams: &mut [Stream]) -> Tensor<4> {
    let [batch, channels, height, width] = pixels.dims();
    let device = pixels.device();
    let (mut down, mut across) = (Vec::new(), Vec::new());
    for stream in streams.iter_mut().take(batch) {
        let is_changed = stream.chance(probability);
        let scale = if is_changed { stream.within(SMALLEST, 1.0) } else { 1.0 };
        for (side, matrix) in [(height, &mut down), (width, &mut across)] {
            let inner = ((side as f32 * scale) as usize).clamp(1, side);
            let offset = stream.below(side - inner + 1);
            matrix.extend(shrinking(side, inner, offset));
        }
    }
    let matrices = |numbers: Vec<f32>, side: usize| {
        let data = TensorData::new(numbers, [batch, 1, side, side]);
        Tensor::<4>::from_data(data, &device).repeat_dim(1, channels)
    };
    let (down, across) = (matrices(down, height), matrices(across, width));
    down.matmul(pixels).matmul(across.transpose())
}

/// The matrix `[side, side]` that shrinks `side` numbers to `inner` and puts them at `offset`.
fn shrinking(side: usize, inner: usize, offset: usize) -> Vec<f32> {
    let mut matrix = vec![0.0; side * side];
    let ratio = side as f64 / inner as f64;
    for i in 0..inner {
        // Centres of pixels, as in the usual resizing.
        let at = ((i as f64 + 0.5) * ratio - 0.5).clamp(0.0, (side - 1) as f64);
        let (low, part) = (at.floor() as usize, at.fract() as f32);
        let row = &mut matrix[(offset + i) * side..(offset + i + 1) * side];
        row[low] += 1.0 - part;
        row[(low + 1).min(side - 1)] += part;
    }
    matrix
}

/// Gradients smoothed over a Gaussian window of side `side`, each channel by itself (Dong et al.
/// 2019); 1 leaves them as they are.
pub fn smoothed(gradient: Tensor<4>, side: usize) -> Tensor<4> {
    if side <= 1 {
        return gradient;
    }
    let [batch, channels, height, width] = gradient.dims();
    let device = gradient.device();
    let weights: Vec<f64> = (0..side)
        .map(|i| REACH * (2.0 * i as f64 / (side - 1) as f64 - 1.0))
        .map(|at| (-0.5 * at * at).exp())
        .collect();
    let sum: f64 = weights.iter().sum();
    let line: Vec<f32> = weights.into_iter().map(|weight| (weight / sum) as f32).collect();
    let pad = side / 2;
    let planes = gradient.reshape([batch * channels, 1, height, width]);
    let along = |planes: Tensor<4>, shape: [usize; 4], padding: [usize; 2]| {
        let kernel = Tensor::from_data(TensorData::new(line.clone(), shape), &device);
        conv2d(planes, kernel, None, ConvOptions::new([1; 2], padding, [1; 2], 1))
    };
    let rows = along(planes, [1, 1, side, 1], [pad, 0]);
    along(rows, [1, 1, 1, side], [0, pad]).reshape([batch, channels, height, width])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensors::host;
    use burn::tensor::Device;

    fn ramp() -> Tensor<4> {
        let numbers: Vec<f32> = (0..2 * 3 * 12 * 10).map(|i| (i % 17) as f32 / 17.0).collect();
        Tensor::from_data(TensorData::new(numbers, [2, 3, 12, 10]), &Device::flex())
    }

    #[test]
    fn diversity_shrinks_pads_and_leaves_others_alone() {
        let streams = || ["a", "b"].map(|key| Stream::keyed(3, "test", key));
        let same = host(diverse(ramp(), 0.0, &mut streams()));
        assert!(same.iter().zip(host(ramp())).all(|(a, b)| (a - b).abs() < 1e-6));
        let changed = host(diverse(ramp() * 0.0 + 1.0, 1.0, &mut streams()));
        // A white picture stays white inside and gets black edges.
        assert!(changed.iter().all(|v| *v == 0.0 || (*v - 1.0).abs() < 1e-6));
        let white = changed.iter().filter(|v| **v > 0.5).count() as f32 / changed.len() as f32;
        assert!(white < 1.0 && white > 0.9f32.powi(2) - 0.15, "{white}");
        let alone = diverse(ramp().narrow(0, 1, 1), 1.0, &mut streams()[1..]);
        assert_eq!(host(diverse(ramp(), 1.0, &mut streams()))[360..], host(alone));
    }

    #[test]
    fn smoothing_spreads_a_point_over_its_window_and_keeps_channels_apart() {
        let mut numbers = vec![0.0f32; 2 * 9 * 9];
        numbers[4 * 9 + 4] = 1.0;
        let point = Tensor::<4>::from_data(TensorData::new(numbers, [1, 2, 9, 9]), &Device::flex());
        assert_eq!(host(smoothed(point.clone(), 1)), host(point.clone()));
        let spread = host(smoothed(point, 5));
        assert!((spread[..81].iter().sum::<f32>() - 1.0).abs() < 1e-5);
        assert!(spread[81..].iter().all(|v| *v == 0.0), "the other channel");
        assert_eq!(spread[..81].iter().filter(|v| **v > 0.0).count(), 25);
        let best = spread.iter().copied().fold(0.0, f32::max);
        assert_eq!(spread[4 * 9 + 4], best);
        assert!((spread[3 * 9 + 4] - spread[4 * 9 + 5]).abs() < 1e-7);
    }
}
