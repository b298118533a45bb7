//! Colours: brightness, contrast, saturation, hue, grey (Pillow's `ImageEnhance` and `convert`).
//!
//! Three of them mix the picture with a degenerate version of itself. A factor of 1 is the
//! identity, 0 the degenerate picture, above 1 leads away from it.

use crate::{Picture, Stream};

/// `d + f (v - d)` in f32, cut to the range and then to a whole level, as `Image.blend` does.
pub(super) fn blend(degenerate: u8, value: u8, factor: f32) -> u8 {
    let d = f32::from(degenerate);
    // The conversion of floats saturates at both ends and truncates.
    (d + factor * (f32::from(value) - d)) as u8
}

/// `table[v]` for every level of every channel.
pub(super) fn mapped(picture: &Picture, table: &[u8; 256]) -> Picture {
    let rgb = picture.rgb.iter().map(|&v| table[usize::from(v)]).collect();
    Picture { rgb, ..*picture }
}

/// Every pixel by itself.
fn each(picture: &Picture, pixel: impl Fn([u8; 3]) -> [u8; 3]) -> Picture {
    let rgb = picture.rgb.as_chunks().0.iter().flat_map(|&p| pixel(p)).collect();
    Picture { rgb, ..*picture }
}

/// ITU-R 601 luma in 16 fractional bits.
fn luma([r, g, b]: [u8; 3]) -> u8 {
    ((19595 * u32::from(r) + 38470 * u32::from(g) + 7471 * u32::from(b) + 0x8000) >> 16) as u8
}

/// Mixed with black; `factor` is not negative.
pub fn brightness(picture: &Picture, factor: f64) -> Picture {
    mapped(picture, &std::array::from_fn(|v| blend(0, v as u8, factor as f32)))
}

/// Mixed with the mean of its grey levels; `factor` is not negative.
pub fn contrast(picture: &Picture, factor: f64) -> Picture {
    let pixels = picture.rgb.as_chunks().0;
    let sum: u64 = pixels.iter().map(|&p| u64::from(luma(p))).sum();
    let mean = (sum as f64 / pixels.len().max(1) as f64 + 0.5) as u8;
    mapped(picture, &std::array::from_fn(|v| blend(mean, v as u8, factor as f32)))
}

/// Mixed with its grey version; `factor` is not negative.
pub fn saturation(picture: &Picture, factor: f64) -> Picture {
    each(picture, |p| p.map(|v| blend(luma(p), v, factor as f32)))
}

/// Three equal channels.
pub fn grey(picture: &Picture) -> Picture {
    each(picture, |p| [luma(p); 3])
}

/// The hue turned by `shift` of the full circle, in `[-0.5, 0.5]`, through 8-bit HSV.
///
/// The way there and back rounds, so even a shift of 0 changes a picture a little.
pub fn hue(picture: &Picture, shift: f64) -> Picture {
    let turn = (shift * 255.0) as i32;
    each(picture, |p| {
        let [h, s, v] = to_hsv(p);
        from_hsv([(i32::from(h) + turn).rem_euclid(256) as u8, s, v])
    })
}

/// Pillow's conversion: differences and quotients are f32, the rest f64.
fn to_hsv(pixel: [u8; 3]) -> [u8; 3] {
    let [r, g, b] = pixel;
    let (high, low) = (r.max(g).max(b), r.min(g).min(b));
    if high == low {
        return [0, 0, high];
    }
    let range = f32::from(high - low);
    let [rc, gc, bc] = pixel.map(|v| f32::from(high - v) / range);
    let wide = |v: f32| f64::from(v);
    let sixths = if r == high {
        bc - gc
    } else if g == high {
        (2.0 + wide(rc) - wide(bc)) as f32
    } else {
        (4.0 + wide(gc) - wide(rc)) as f32
    };
    let turn = ((wide(sixths) / 6.0 + 1.0) % 1.0) as f32;
    let level = |share: f32| (wide(share) * 255.0) as u8;
    [level(turn), level(range / f32::from(high)), high]
}

fn from_hsv([h, s, v]: [u8; 3]) -> [u8; 3] {
    if s == 0 {
        return [v; 3];
    }
    let sixths = f64::from(h) * 6.0 / 255.0;
    let s = f64::from((f64::from(s) / 255.0) as f32);
    let part = f64::from((sixths - sixths.floor()) as f32);
    let level = |share: f64| (f64::from(v) * share + 0.5) as u8;
    let (p, q, t) = (level(1.0 - s), level(1.0 - s * part), level(1.0 - s * (1.0 - part)));
    match sixths as u32 % 6 {
        0 => [v, t, p],
        1 => [q, v, p],
        2 => [p, v, t],
        3 => [p, q, v],
        4 => [t, p, v],
        _ => [v, p, q],
    }
}

/// The largest changes of a colour jitter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ColourJitter {
    /// The factor is uniform in `[1 - b, 1 + b]`, not below 0; so for the next two.
    pub brightness: f64,
    /// See [`Self::brightness`].
    pub contrast: f64,
    /// See [`Self::brightness`].
    pub saturation: f64,
    /// The shift is uniform in `[-h, h]`, in parts of the circle, up to 0.5.
    pub hue: f64,
}

impl ColourJitter {
    /// Draws an order, three factors and a shift, and applies them.
    pub fn apply(&self, picture: &Picture, stream: &mut Stream) -> Picture {
        let order = stream.permutation(4);
        let mut between = |low: f64, high: f64| low + (high - low) * f64::from(stream.uniform());
        let mut factor = |by: f64| between((1.0 - by).max(0.0), 1.0 + by);
        let factors = [self.brightness, self.contrast, self.saturation].map(&mut factor);
        let shift = between(-self.hue, self.hue);
        order.into_iter().fold(picture.clone(), |picture, step| match step {
            0 => brightness(&picture, factors[0]),
            1 => contrast(&picture, factors[1]),
            2 => saturation(&picture, factors[2]),
            _ => hue(&picture, shift),
        })
    }
}
