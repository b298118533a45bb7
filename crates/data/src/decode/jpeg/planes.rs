//! From coefficients to pixels, with libjpeg's arithmetic.

use super::{Component, Frame, inverse::inverse};
use crate::vector::vectorised;

/// What the components mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Space {
    Grey,
    Rgb,
    Ycc,
    Cmyk,
    Ycck,
}

/// Makes the samples of a progressive component, and gives its coefficients back.
pub(super) fn transform(component: &mut Component) {
    let Some(steps) = component.steps else { return };
    let stride = 8 * component.blocks_wide;
    let blocks = std::mem::take(&mut component.coefficients);
    for (number, block) in blocks.iter().enumerate() {
        let (row, column) = (number / component.blocks_wide, number % component.blocks_wide);
        inverse(block, &steps, &mut component.samples[8 * (row * stride + column)..], stride);
    }
}

/// The interleaved pixels of the picture.
pub(super) fn assemble(frame: &Frame, space: Space) -> Result<Vec<u8>, String> {
    for component in &frame.components {
        if !frame.h.is_multiple_of(component.h) || !frame.v.is_multiple_of(component.v) {
            return Err(format!(
                "sampling factors {}x{} do not divide {}x{}",
                component.h, component.v, frame.h, frame.v
            ));
        }
    }
    let channels = frame.components.len();
    let mut out = vec![0; frame.width * frame.height * channels];
    // Room for a row whose last unit sticks out.
    let room = frame.width + 16;
    let mut lines: Vec<Vec<u8>> = vec![vec![0; room]; channels];
    let mut sums = vec![0; room];
    vectorised(
        #[inline(always)]
        || {
            for (y, row) in out.chunks_exact_mut(frame.width * channels).enumerate() {
                for (line, component) in lines.iter_mut().zip(&frame.components) {
                    upsample(frame, component, y, line, &mut sums);
                }
                interleave(space, &lines, row);
            }
        },
    );
    Ok(out)
}

/// A row of pixels out of those of its components.
#[inline(always)]
fn interleave(space: Space, lines: &[Vec<u8>], row: &mut [u8]) {
    match (space, lines) {
        (Space::Ycc, [l, b, r]) => {
            let (pixels, _) = row.as_chunks_mut();
            for (((pixel, &l), &b), &r) in pixels.iter_mut().zip(l).zip(b).zip(r) {
                *pixel = rgb(l, b, r);
            }
        }
        (Space::Ycck, [l, b, r, k]) => {
            let (pixels, _) = row.as_chunks_mut();
            for ((((pixel, &l), &b), &r), &k) in pixels.iter_mut().zip(l).zip(b).zip(r).zip(k) {
                // Stored are the complements of the inks, and those as light and colour.
                let [red, green, blue] = rgb(l, b, r);
                *pixel = [red, green, blue, 255 - k];
            }
        }
        (Space::Cmyk, _) => {
            // Writers store 255 for no ink, and the reference assumes so always.
            for (x, pixel) in row.chunks_exact_mut(lines.len()).enumerate() {
                pixel.iter_mut().zip(lines).for_each(|(ink, line)| *ink = 255 - line[x]);
            }
        }
        _ => {
            for (x, pixel) in row.chunks_exact_mut(lines.len()).enumerate() {
                pixel.iter_mut().zip(lines).for_each(|(value, line)| *value = line[x]);
            }
        }
    }
}

/// BT.601, with 16 bits of fraction.
#[inline(always)]
fn rgb(luma: u8, blue: u8, red: u8) -> [u8; 3] {
    const HALF: i32 = 1 << 15;
    let (l, b, r) = (i32::from(luma), i32::from(blue) - 128, i32::from(red) - 128);
    let red = l + ((91_881 * r + HALF) >> 16);
    let green = l + ((-22_554 * b - 46_802 * r + HALF) >> 16);
    let blue = l + ((116_130 * b + HALF) >> 16);
    [red.clamp(0, 255) as u8, green.clamp(0, 255) as u8, blue.clamp(0, 255) as u8]
}

/// Row `y` of the picture of one component, in the picture's width.
///
/// Where a component has half the rows or columns, a new sample is three quarters of the nearer
/// and one quarter of the farther old one, rounded alternately; borders count as repeated. Other
/// ratios repeat samples. (libjpeg calls the former fancy upsampling.)
#[inline(always)]
fn upsample(frame: &Frame, component: &Component, y: usize, out: &mut [u8], sums: &mut [i32]) {
    let stride = 8 * component.blocks_wide;
    let line = |row: usize| &component.samples[row * stride..][..component.width];
    let (across, down) = (frame.h / component.h, frame.v / component.v);
    let near = y / down;
    // The second nearest row: above for even rows, below for odd ones.
    let far = if y.is_multiple_of(down) { near.saturating_sub(1) } else { near + 1 }
        .min(component.height - 1);
    match (across, down) {
        (1, 1) => out[..component.width].copy_from_slice(line(near)),
        (1, 2) => {
            let bias = 1 + (y % 2) as i32;
            for ((pixel, &n), &f) in out.iter_mut().zip(line(near)).zip(line(far)) {
                *pixel = ((3 * i32::from(n) + i32::from(f) + bias) >> 2) as u8;
            }
        }
        (2, 1) if component.width > 2 => {
            let near = line(near).iter().map(|&v| i32::from(v));
            sums.iter_mut().zip(near).for_each(|(sum, value)| *sum = value);
            spread::<2, 1, 2>(&sums[..component.width], out, 1);
        }
        (2, 2) if component.width > 2 => {
            for ((sum, &n), &f) in sums.iter_mut().zip(line(near)).zip(line(far)) {
                *sum = 3 * i32::from(n) + i32::from(f);
            }
            spread::<4, 8, 7>(&sums[..component.width], out, 4);
        }
        _ => {
            for (pixels, &value) in out.chunks_mut(across).zip(line(near)) {
                pixels.fill(value);
            }
        }
    }
}

/// Twice as many columns. `SHIFT` drops the scale; `EVEN` and `ODD` round; `ends` is the scale of
/// the two outermost values, which have one neighbour only.
#[inline(always)]
fn spread<const SHIFT: u32, const EVEN: i32, const ODD: i32>(
    values: &[i32],
    out: &mut [u8],
    ends: i32,
) {
    let last = values.len() - 1;
    let middles = values[1..last].iter().zip(&values[..last]).zip(&values[2..]);
    let (pairs, _) = out[2..].as_chunks_mut::<2>();
    for (pair, ((middle, left), right)) in pairs.iter_mut().zip(middles) {
        let nearer = 3 * middle;
        *pair = [((nearer + left + EVEN) >> SHIFT) as u8, ((nearer + right + ODD) >> SHIFT) as u8];
    }
    let end = |value: i32, bias: i32| {
        if ends == 1 { value as u8 } else { ((ends * value + bias) >> SHIFT) as u8 }
    };
    out[0] = end(values[0], EVEN);
    out[1] = ((3 * values[0] + values[1] + ODD) >> SHIFT) as u8;
    out[2 * last] = ((3 * values[last] + values[last - 1] + EVEN) >> SHIFT) as u8;
    out[2 * last + 1] = end(values[last], ODD);
}
