//! Operations that look at neighbours: blur and sharpness.

use super::colour::blend;
use crate::Picture;

/// Gaussian blur with an odd `kernel` (its width in pixels) and `sigma` above 0.
///
/// Borders are mirrored without repeating the outermost pixel, as often as a picture that is
/// smaller than the kernel needs (torchvision refuses that one).
pub fn blur(picture: &Picture, kernel: u32, sigma: f64) -> Picture {
    let half = i64::from(kernel / 2);
    let weight = |x: i64| (-0.5 * (x as f64 / sigma).powi(2)).exp();
    let sum: f64 = (-half..=half).map(weight).sum();
    let weights: Vec<f32> = (-half..=half).map(|x| (weight(x) / sum) as f32).collect();
    let (width, height) = (picture.width as usize, picture.height as usize);
    let (columns, rows) = (mirrored(width, half), mirrored(height, half));

    // Rows of a picture with its mirrored border, blurred along the row.
    let mut across = Vec::with_capacity(picture.rgb.len());
    let mut padded: Vec<f32> = Vec::with_capacity(3 * columns.len());
    for row in picture.rgb.chunks_exact(3 * width) {
        padded.clear();
        padded.extend(columns.iter().flat_map(|&x| &row[3 * x..3 * x + 3]).map(|&v| f32::from(v)));
        let mut sums = vec![0.0; 3 * width];
        for (i, &weight) in weights.iter().enumerate() {
            add(&mut sums, &padded[3 * i..], weight);
        }
        across.extend(sums);
    }
    let mut rgb = Vec::with_capacity(picture.rgb.len());
    for y in 0..height {
        let mut sums = vec![0.0; 3 * width];
        for (row, &weight) in rows[y..].iter().zip(&weights) {
            add(&mut sums, &across[3 * width * row..], weight);
        }
        rgb.extend(sums.into_iter().map(|v| v.round_ties_even() as u8));
    }
    Picture { rgb, ..*picture }
}

fn add(sums: &mut [f32], values: &[f32], weight: f32) {
    sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += weight * value);
}

/// Source position of each place from `-half` to `n + half`.
fn mirrored(n: usize, half: i64) -> Vec<usize> {
    // There and back again: 0, 1, ..., n - 1, n - 2, ..., 1.
    let period = 2 * (n as i64 - 1);
    let place = |i: i64| match period {
        0 => 0,
        _ => (i.rem_euclid(period)).min(period - i.rem_euclid(period)) as usize,
    };
    (-half..n as i64 + half).map(place).collect()
}

/// Mixed with a smoothed version of itself (3 x 3, the centre weighs 5 of 13); border pixels stay.
/// A `factor` of 1 is the identity, 2 sharpens; not negative.
pub fn sharpness(picture: &Picture, factor: f64) -> Picture {
    let (width, height) = (picture.width as usize, picture.height as usize);
    let row = 3 * width;
    let mut result = picture.clone();
    for y in 1..height.saturating_sub(1) {
        // Three bytes are a pixel: the neighbours of a byte lie three before and behind it.
        for at in y * row + 3..((y + 1) * row).saturating_sub(3) {
            let three = |at: usize| {
                [at - 3, at, at + 3].iter().map(|&i| u32::from(picture.rgb[i])).sum::<u32>()
            };
            let value = picture.rgb[at];
            let sum = three(at - row) + three(at) + three(at + row) + 4 * u32::from(value);
            // floor(sum / 13 + 1/2)
            let smooth = ((2 * sum + 13) / 26) as u8;
            result.rgb[at] = blend(smooth, value, factor as f32);
        }
    }
    result
}
