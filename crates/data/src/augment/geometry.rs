//! Operations that move pixels: mirror, rotation, shear, translation, and random parts.
//!
//! Maps run backwards, from a pixel of the result to the nearest one of the picture, in the 16.16
//! fixed point of Pillow; what comes from outside is black.

use crate::{Area, Picture, Stream};

/// Left and right exchanged.
pub fn flip(picture: &Picture) -> Picture {
    let row = 3 * picture.width.max(1) as usize;
    let pixels = |row: &[u8]| -> Vec<[u8; 3]> { row.as_chunks().0.iter().rev().copied().collect() };
    let rgb = picture.rgb.chunks_exact(row).flat_map(pixels).flatten().collect();
    Picture { rgb, ..*picture }
}

/// Counter-clockwise by `degrees` about the middle; the size stays.
pub fn rotate(picture: &Picture, degrees: f64) -> Picture {
    let angle = -degrees.rem_euclid(360.0).to_radians();
    let rounded = |v: f64| (v * 1e15).round() / 1e15;
    let (cos, sin) = (rounded(angle.cos()), rounded(angle.sin()));
    let (x, y) = (f64::from(picture.width) / 2.0, f64::from(picture.height) / 2.0);
    let (dx, dy) = (-cos * x - sin * y + x, sin * x - cos * y + y);
    affine(picture, [cos, sin, dx], [-sin, cos, dy])
}

/// Every row moved by `slope` times its height above the upper border.
pub fn shear_x(picture: &Picture, slope: f64) -> Picture {
    affine(picture, [1.0, slope, 0.0], [0.0, 1.0, 0.0])
}

/// Every column moved by `slope` times its distance from the left border.
pub fn shear_y(picture: &Picture, slope: f64) -> Picture {
    affine(picture, [1.0, 0.0, 0.0], [slope, 1.0, 0.0])
}

/// Moved to the right by the whole part of `pixels`.
pub fn translate_x(picture: &Picture, pixels: f64) -> Picture {
    affine(picture, [1.0, 0.0, -pixels.trunc()], [0.0, 1.0, 0.0])
}

/// Moved down by the whole part of `pixels`.
pub fn translate_y(picture: &Picture, pixels: f64) -> Picture {
    affine(picture, [1.0, 0.0, 0.0], [0.0, 1.0, -pixels.trunc()])
}

/// The result at (x, y) is the picture at `(u . [x, y, 1], v . [x, y, 1])`, taken at pixel centres.
fn affine(picture: &Picture, u: [f64; 3], v: [f64; 3]) -> Picture {
    let fixed = |v: f64| (v * 65536.0 + 0.5).floor() as i64;
    // Steps along x and y, and the position of the first pixel's centre.
    let steps = |[x, y, at]: [f64; 3]| [fixed(x), fixed(y), fixed(at + 0.5 * x + 0.5 * y)];
    let (u, v) = (steps(u), steps(v));
    let (width, height) = (i64::from(picture.width), i64::from(picture.height));
    let mut rgb = Vec::with_capacity(picture.rgb.len());
    for y in 0..height {
        for x in 0..width {
            let place = |[a, b, c]: [i64; 3]| (c + a * x + b * y) >> 16;
            let (x, y) = (place(u), place(v));
            if (0..width).contains(&x) && (0..height).contains(&y) {
                let at = 3 * (y * width + x) as usize;
                rgb.extend_from_slice(&picture.rgb[at..at + 3]);
            } else {
                rgb.extend([0; 3]);
            }
        }
    }
    Picture { rgb, ..*picture }
}

/// Times a part of the wanted area and shape is looked for before the middle is taken.
const TRIES: usize = 10;

/// A random part of a `width` x `height` picture: its share of the area is uniform in `scale`,
/// its width over its height log-uniform in `ratio`, its place uniform. When none fits, the
/// largest part in the middle whose shape is in range.
pub fn random_area(
    (width, height): (u32, u32),
    scale: (f64, f64),
    ratio: (f64, f64),
    stream: &mut Stream,
) -> Area {
    let (w, h) = (f64::from(width), f64::from(height));
    let round = |v: f64| v.round_ties_even() as u32;
    for _ in 0..TRIES {
        let mut between = |low: f64, high: f64| low + (high - low) * f64::from(stream.uniform());
        let area = w * h * between(scale.0, scale.1);
        let shape = between(ratio.0.ln(), ratio.1.ln()).exp();
        let (wide, high) = (round((area * shape).sqrt()), round((area / shape).sqrt()));
        if (1..=width).contains(&wide) && (1..=height).contains(&high) {
            let top = stream.below((height - high) as usize + 1) as u32;
            let left = stream.below((width - wide) as usize + 1) as u32;
            return Area { left, top, width: wide, height: high };
        }
    }
    let (wide, high) = match w / h {
        shape if shape < ratio.0 => (width, round(w / ratio.0)),
        shape if shape > ratio.1 => (round(h * ratio.1), height),
        _ => (width, height),
    };
    let (wide, high) = (wide.clamp(1, width), high.clamp(1, height));
    Area { left: (width - wide) / 2, top: (height - high) / 2, width: wide, height: high }
}
