//! From coefficients to pixels, with libjpeg's arithmetic.

use super::{Component, Frame};

/// What the components mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Space {
    Grey,
    Rgb,
    Ycc,
    Cmyk,
    Ycck,
}

/// Eight values that are worked on side by side.
type Lanes = [i32; 8];

/// The inverse transform of a block, written to `out` with `stride` samples in a row.
///
/// This is the accurate integer method of libjpeg (Loeffler, Ligtenberg and Moschytz 1989, with
/// 11 multiplications and 13 bits of fraction). Sums wrap: coefficients of a real picture never
/// come near, and those of a hostile one may be any number.
pub(super) fn inverse(block: &[i16; 64], steps: &[u16; 64], out: &mut [u8], stride: usize) {
    let mut rows = [[0; 8]; 8];
    for (k, row) in rows.iter_mut().enumerate() {
        for (lane, value) in row.iter_mut().enumerate() {
            *value = i32::from(block[8 * k + lane]).wrapping_mul(steps[8 * k + lane].into());
        }
    }
    if block[1..].iter().all(|&c| c == 0) {
        // One value for the whole block; the full computation gives the same.
        let value = level((rows[0][0].wrapping_shl(2).wrapping_add(1 << 4)) >> 5);
        for line in out.chunks_mut(stride).take(8) {
            line[..8].fill(value);
        }
        return;
    }
    // Columns first, keeping two extra bits; then rows, dropping those and the scale of 8.
    transform_lanes::<11>(&mut rows);
    transpose(&mut rows);
    transform_lanes::<18>(&mut rows);
    transpose(&mut rows);
    for (row, line) in rows.iter().zip(out.chunks_mut(stride)) {
        for (pixel, &value) in line[..8].iter_mut().zip(row) {
            *pixel = level(value);
        }
    }
}

/// A sample out of its difference from mid-grey.
fn level(value: i32) -> u8 {
    value.wrapping_add(128).clamp(0, 255) as u8
}

#[allow(clippy::needless_range_loop, reason = "a transposition is about its indices")]
fn transpose(rows: &mut [Lanes; 8]) {
    for i in 0..8 {
        for j in 0..i {
            (rows[i][j], rows[j][i]) = (rows[j][i], rows[i][j]);
        }
    }
}

/// The one-dimensional transform over the first index, for all lanes, rounded to drop `SHIFT` bits.
#[allow(clippy::needless_range_loop, reason = "a lane cuts through all eight arrays")]
fn transform_lanes<const SHIFT: u32>(v: &mut [Lanes; 8]) {
    // Constants of the method times 2^13.
    const C0_298: i32 = 2446;
    const C0_390: i32 = 3196;
    const C0_541: i32 = 4433;
    const C0_765: i32 = 6270;
    const C0_899: i32 = 7373;
    const C1_175: i32 = 9633;
    const C1_501: i32 = 12299;
    const C1_847: i32 = 15137;
    const C1_961: i32 = 16069;
    const C2_053: i32 = 16819;
    const C2_562: i32 = 20995;
    const C3_072: i32 = 25172;
    let add = i32::wrapping_add;
    let sub = i32::wrapping_sub;
    let mul = i32::wrapping_mul;
    for lane in 0..8 {
        let [i0, i1, i2, i3, i4, i5, i6, i7] = [0, 1, 2, 3, 4, 5, 6, 7].map(|k: usize| v[k][lane]);
        // Even part.
        let z1 = mul(add(i2, i6), C0_541);
        let t2 = sub(z1, mul(i6, C1_847));
        let t3 = add(z1, mul(i2, C0_765));
        let t0 = add(i0, i4).wrapping_shl(13);
        let t1 = sub(i0, i4).wrapping_shl(13);
        let (e0, e3, e1, e2) = (add(t0, t3), sub(t0, t3), add(t1, t2), sub(t1, t2));
        // Odd part.
        let z5 = mul(add(add(i7, i3), add(i5, i1)), C1_175);
        let z1 = mul(add(i7, i1), -C0_899);
        let z2 = mul(add(i5, i3), -C2_562);
        let z3 = add(mul(add(i7, i3), -C1_961), z5);
        let z4 = add(mul(add(i5, i1), -C0_390), z5);
        let o0 = add(mul(i7, C0_298), add(z1, z3));
        let o1 = add(mul(i5, C2_053), add(z2, z4));
        let o2 = add(mul(i3, C3_072), add(z2, z3));
        let o3 = add(mul(i1, C1_501), add(z1, z4));
        let down = |x: i32| add(x, 1 << (SHIFT - 1)) >> SHIFT;
        v[0][lane] = down(add(e0, o3));
        v[7][lane] = down(sub(e0, o3));
        v[1][lane] = down(add(e1, o2));
        v[6][lane] = down(sub(e1, o2));
        v[2][lane] = down(add(e2, o1));
        v[5][lane] = down(sub(e2, o1));
        v[3][lane] = down(add(e3, o0));
        v[4][lane] = down(sub(e3, o0));
    }
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
    for (y, row) in out.chunks_exact_mut(frame.width * channels).enumerate() {
        for (line, component) in lines.iter_mut().zip(&frame.components) {
            upsample(frame, component, y, line, &mut sums);
        }
        match (space, lines.as_slice()) {
            (Space::Ycc, [l, b, r]) => {
                for (((pixel, &l), &b), &r) in row.chunks_exact_mut(3).zip(l).zip(b).zip(r) {
                    pixel.copy_from_slice(&rgb(l, b, r));
                }
            }
            (Space::Ycck, [l, b, r, k]) => {
                for (x, pixel) in row.chunks_exact_mut(4).enumerate() {
                    // Stored are the complements of the inks, and those as light and colour.
                    let [red, green, blue] = rgb(l[x], b[x], r[x]);
                    pixel.copy_from_slice(&[red, green, blue, 255 - k[x]]);
                }
            }
            (Space::Cmyk, _) => {
                // Writers store 255 for no ink, and the reference assumes so always.
                for (x, pixel) in row.chunks_exact_mut(channels).enumerate() {
                    pixel.iter_mut().zip(&lines).for_each(|(ink, line)| *ink = 255 - line[x]);
                }
            }
            _ => {
                for (x, pixel) in row.chunks_exact_mut(channels).enumerate() {
                    pixel.iter_mut().zip(&lines).for_each(|(value, line)| *value = line[x]);
                }
            }
        }
    }
    Ok(out)
}

/// BT.601, with 16 bits of fraction.
fn rgb(luma: u8, blue: u8, red: u8) -> [u8; 3] {
    const HALF: i32 = 1 << 15;
    let (l, b, r) = (i32::from(luma), i32::from(blue) - 128, i32::from(red) - 128);
    [
        l + ((91_881 * r + HALF) >> 16),
        l + ((-22_554 * b - 46_802 * r + HALF) >> 16),
        l + ((116_130 * b + HALF) >> 16),
    ]
    .map(|value| value.clamp(0, 255) as u8)
}

/// Row `y` of the picture of one component, in the picture's width.
///
/// Where a component has half the rows or columns, a new sample is three quarters of the nearer
/// and one quarter of the farther old one, rounded alternately; borders count as repeated. Other
/// ratios repeat samples. (libjpeg calls the former fancy upsampling.)
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
fn spread<const SHIFT: u32, const EVEN: i32, const ODD: i32>(
    values: &[i32],
    out: &mut [u8],
    ends: i32,
) {
    let last = values.len() - 1;
    for (i, triple) in values.windows(3).enumerate() {
        let &[left, middle, right] = triple else { continue };
        out[2 * i + 2] = ((3 * middle + left + EVEN) >> SHIFT) as u8;
        out[2 * i + 3] = ((3 * middle + right + ODD) >> SHIFT) as u8;
    }
    let end = |value: i32, bias: i32| {
        if ends == 1 { value as u8 } else { ((ends * value + bias) >> SHIFT) as u8 }
    };
    out[0] = end(values[0], EVEN);
    out[1] = ((3 * values[0] + values[1] + ODD) >> SHIFT) as u8;
    out[2 * last] = ((3 * values[last] + values[last - 1] + EVEN) >> SHIFT) as u8;
    out[2 * last + 1] = end(values[last], ODD);
}
