//! Resizing, bit for bit as Pillow does it, and the geometry of CLIP's preprocessing.
//!
//! A model sees what its training saw only if the resampler is the same down to the rounding, so
//! this one works in Pillow's fixed point: weights with 22 fractional bits, the horizontal pass
//! first in general, its result rounded to 8 bits, then the vertical pass. Only the window that survives the
//! crop is computed: a picture of 1 x 30,000 pixels would otherwise swell to gigabytes.

mod passes;

use crate::picture::{Decoded, Order, Picture, Pixels, muldiv255};
use passes::Tap;
use std::{borrow::Cow, ops::Range};

/// The kernel of the resampler. Both are widened when a picture shrinks (antialiasing).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Interpolation {
    /// Cubic convolution with a = -0.5.
    #[default]
    Bicubic,
    /// The triangle.
    Bilinear,
}

impl Interpolation {
    /// Half the width of the kernel, in source pixels at equal size.
    fn support(self) -> f64 {
        match self {
            Self::Bicubic => 2.0,
            Self::Bilinear => 1.0,
        }
    }

    fn kernel(self, x: f64) -> f64 {
        let x = x.abs();
        match self {
            Self::Bicubic if x < 1.0 => (1.5 * x - 2.5) * x * x + 1.0,
            Self::Bicubic if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5,
            Self::Bilinear if x < 1.0 => 1.0 - x,
            _ => 0.0,
        }
    }
}

/// How a picture is fitted into a square (open_clip's `resize_mode`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Fit {
    /// The shorter side becomes the size, the centre is cut out.
    #[default]
    Shortest,
    /// The longer side becomes the size, the rest is filled.
    Longest,
    /// Both sides become the size; the aspect ratio is lost.
    Squash,
}

/// From a picture of any size to a square one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resize {
    /// Side of the result in pixels, at least 1.
    pub size: u32,
    /// How a picture that is not square is fitted.
    pub mode: Fit,
    /// The resampling kernel.
    pub interpolation: Interpolation,
    /// What surrounds a picture fitted by its longer side.
    pub fill: [u8; 3],
}

impl Resize {
    /// The preprocessing of OpenAI's models: shorter side to `size`, bicubic, centre crop.
    pub fn new(size: u32) -> Self {
        Self { size, mode: Fit::Shortest, interpolation: Interpolation::Bicubic, fill: [0; 3] }
    }

    /// A square picture of side [`Self::size`]. Both sides of `picture` must be at least 1.
    pub fn picture(&self, picture: &Picture) -> Picture {
        let plan = self.plan(picture.width, picture.height);
        self.pad(resample::<3>(&picture.rgb, &plan, self.interpolation), &plan)
    }

    /// As [`Self::picture`] for a picture in its file's mode. [`Order::RgbFirst`] converts and
    /// then resizes; [`Order::Direct`] resizes in the file's mode: palettes and single bits by
    /// nearest neighbour, alpha premultiplied, inks as they are.
    pub fn decoded(&self, decoded: &Decoded, order: Order) -> Picture {
        let pixels = decoded.pixels.narrowed(order);
        let pixels = match (order, pixels.as_ref()) {
            // Grey resized and replicated is grey replicated and resized.
            (_, Pixels::Rgb(_) | Pixels::Grey(_)) | (Order::Direct, _) => pixels,
            (Order::RgbFirst, other) => Cow::Owned(Pixels::Rgb(other.to_rgb(order))),
        };
        let plan = self.plan(decoded.width, decoded.height);
        let how = self.interpolation;
        let resized = match pixels.as_ref() {
            Pixels::Rgb(rgb) => return self.pad(resample::<3>(rgb, &plan, how), &plan),
            Pixels::Grey(grey) => Pixels::Grey(resample::<1>(grey, &plan, how)),
            Pixels::Bilevel(bits) => Pixels::Bilevel(nearest(bits, &plan)),
            Pixels::Palette { indices, colours } => {
                Pixels::Palette { indices: nearest(indices, &plan), colours: colours.clone() }
            }
            Pixels::GreyAlpha(pairs) => Pixels::GreyAlpha(with_alpha::<2>(pairs, &plan, how)),
            Pixels::Rgba(rgba) => Pixels::Rgba(with_alpha::<4>(rgba, &plan, how)),
            Pixels::Cmyk(inks) => Pixels::Cmyk(resample::<4>(inks, &plan, how)),
            // `narrowed` leaves none.
            Pixels::Grey16(_) => Pixels::Grey(Vec::new()),
        };
        self.pad(resized.to_rgb(order), &plan)
    }

    fn plan(&self, width: u32, height: u32) -> Plan {
        let size = u64::from(self.size);
        let (w, h) = (u64::from(width), u64::from(height));
        let (to_w, to_h) = match self.mode {
            Fit::Squash => (size, size),
            Fit::Shortest if w <= h => (size, size * h / w.max(1)),
            Fit::Shortest => (size * w / h.max(1), size),
            Fit::Longest => {
                let ratio = (w.max(h)) as f64 / size as f64;
                let side = |side: u64| (side as f64 / ratio).round_ties_even().max(1.0) as u64;
                (side(w), side(h))
            }
        };
        Plan { columns: Axis::new(w, to_w, size), rows: Axis::new(h, to_h, size) }
    }

    /// Puts a result that is smaller than the square into its middle.
    fn pad(&self, rgb: Vec<u8>, plan: &Plan) -> Picture {
        let (width, height) = (plan.columns.window.len(), plan.rows.window.len());
        let side = self.size as usize;
        if (width, height) == (side, side) {
            return Picture { width: self.size, height: self.size, rgb };
        }
        let mut square = Picture::filled(self.size, self.size, self.fill);
        let (left, top) = ((side - width) / 2, (side - height) / 2);
        for (row, line) in rgb.chunks_exact(3 * width).enumerate() {
            let start = 3 * ((top + row) * side + left);
            square.rgb[start..start + line.len()].copy_from_slice(line);
        }
        square
    }
}

/// A rectangle of a picture in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Area {
    /// First column.
    pub left: u32,
    /// First row.
    pub top: u32,
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

impl Area {
    /// All of `picture`.
    pub fn whole(picture: &Picture) -> Self {
        Self { left: 0, top: 0, width: picture.width, height: picture.height }
    }

    /// The part of the area that lies within `picture`, of at least one pixel.
    fn within(self, picture: &Picture) -> Self {
        let left = self.left.min(picture.width.saturating_sub(1));
        let top = self.top.min(picture.height.saturating_sub(1));
        Self {
            left,
            top,
            width: self.width.clamp(1, picture.width - left),
            height: self.height.clamp(1, picture.height - top),
        }
    }
}

/// The pixels of `area`; what of it lies outside the picture is left out.
pub fn crop(picture: &Picture, area: Area) -> Picture {
    let area = area.within(picture);
    let mut rgb = Vec::with_capacity(3 * area.width as usize * area.height as usize);
    for row in area.top..area.top + area.height {
        let start = 3 * (row as usize * picture.width as usize + area.left as usize);
        rgb.extend_from_slice(&picture.rgb[start..start + 3 * area.width as usize]);
    }
    Picture { width: area.width, height: area.height, rgb }
}

/// Resizes `area` of `picture` to `width` x `height` (at least 1 each). Pixels outside the area
/// have no influence, as if it had been cut out first.
pub fn resize(
    picture: &Picture,
    area: Area,
    width: u32,
    height: u32,
    interpolation: Interpolation,
) -> Picture {
    let area = area.within(picture);
    let source = if area == Area::whole(picture) {
        Cow::Borrowed(picture)
    } else {
        Cow::Owned(crop(picture, area))
    };
    let (width, height) = (width.max(1), height.max(1));
    let plan = Plan {
        columns: Axis::new(area.width.into(), width.into(), width.into()),
        rows: Axis::new(area.height.into(), height.into(), height.into()),
    };
    Picture { width, height, rgb: resample::<3>(&source.rgb, &plan, interpolation) }
}

/// One axis: from `from` pixels to `to`, of which only `window` is wanted.
struct Axis {
    from: usize,
    to: u64,
    window: Range<u64>,
}

trait Length {
    fn len(&self) -> usize;
}

impl Length for Range<u64> {
    fn len(&self) -> usize {
        (self.end - self.start) as usize
    }
}

impl Axis {
    /// The middle `size` of `to` pixels, or all of them.
    fn new(from: u64, to: u64, size: u64) -> Self {
        let surplus = to.saturating_sub(size);
        // Half to even, as Python rounds: 1 of 2, but 0 of 1 and 2 of 3.
        let start = surplus / 2 + u64::from(surplus % 4 == 3);
        Self { from: from as usize, to, window: start..start + to.min(size) }
    }

    fn is_identity(&self) -> bool {
        self.from as u64 == self.to
    }

    /// Where the pixels of the window come from.
    fn taps(&self, interpolation: Interpolation) -> Vec<Tap> {
        if self.is_identity() {
            let itself = |i: u64| Tap { low: i as usize, weights: vec![1 << 22] };
            return self.window.clone().map(itself).collect();
        }
        let scale = self.from as f64 / self.to as f64;
        let widening = scale.max(1.0);
        let support = interpolation.support() * widening;
        self.window
            .clone()
            .map(|i| {
                let centre = (i as f64 + 0.5) * scale;
                // Conversion of floats saturates, so a negative start is 0.
                let low = (centre - support + 0.5) as usize;
                let high = ((centre + support + 0.5) as usize).min(self.from);
                let weight = |j: usize| interpolation.kernel((j as f64 - centre + 0.5) / widening);
                let weights: Vec<f64> = (low..high).map(weight).collect();
                let sum: f64 = weights.iter().sum();
                let fixed = |w: &f64| {
                    let scaled = w / sum * f64::from(1 << 22);
                    // Round half away from zero.
                    (if scaled < 0.0 { scaled - 0.5 } else { scaled + 0.5 }) as i32
                };
                Tap { low, weights: weights.iter().map(fixed).collect() }
            })
            .collect()
    }

    /// The source pixel nearest to each pixel of the window. The position is summed up step by
    /// step, as the reference does: that decides which way positions on a border fall.
    fn nearest(&self) -> Vec<usize> {
        let scale = self.from as f64 / self.to as f64;
        let last = self.from.saturating_sub(1);
        let mut position = 0.5 * scale;
        let mut found = Vec::with_capacity(self.window.len());
        for i in 0..self.window.end {
            if i >= self.window.start {
                found.push((position as usize).min(last));
            }
            position += scale;
        }
        found
    }
}

struct Plan {
    columns: Axis,
    rows: Axis,
}

impl Plan {
    /// Whether the vertical pass comes first: when it takes away more than twice as many rows as
    /// the horizontal one takes columns. The result is rounded between the passes, so the order
    /// shows. (The rule of Pillow 13; up to version 12.1 the horizontal pass was always first.)
    fn vertical_first(&self) -> bool {
        let lost = |axis: &Axis| axis.from as i64 - axis.to as i64;
        lost(&self.rows) >= 0 && lost(&self.rows) > 2 * lost(&self.columns)
    }
}

/// The window of the resized picture, `C` interleaved channels.
fn resample<const C: usize>(pixels: &[u8], plan: &Plan, how: Interpolation) -> Vec<u8> {
    let (columns, rows) = (plan.columns.taps(how), plan.rows.taps(how));
    // The part of the source that the window depends on.
    let span = |taps: &[Tap]| {
        let first = taps.first().map_or(0, |tap| tap.low);
        first..taps.last().map_or(first, |tap| tap.low + tap.weights.len())
    };
    let (x, y) = (span(&columns), span(&rows));
    let (source_row, width) = (C * plan.columns.from, C * x.len());
    let part: Vec<&[u8]> = pixels[y.start * source_row..y.end * source_row]
        .chunks_exact(source_row)
        .map(|row| &row[C * x.start..C * x.end])
        .collect();
    let stay = plan.columns.is_identity();
    if stay || plan.vertical_first() {
        let middle = match plan.rows.is_identity() {
            true => part.concat(),
            false => passes::vertical(&part, y.start, &rows),
        };
        if stay {
            return middle;
        }
        let lines: Vec<&[u8]> = middle.chunks_exact(width).collect();
        return passes::horizontal::<C>(&lines, x.start, &columns);
    }
    let middle = passes::horizontal::<C>(&part, x.start, &columns);
    if plan.rows.is_identity() {
        return middle;
    }
    let lines: Vec<&[u8]> = middle.chunks_exact(C * columns.len()).collect();
    passes::vertical(&lines, y.start, &rows)
}

fn nearest(values: &[u8], plan: &Plan) -> Vec<u8> {
    let columns = plan.columns.nearest();
    let rows = plan.rows.nearest();
    let row_of = |row: usize| &values[row * plan.columns.from..(row + 1) * plan.columns.from];
    rows.into_iter().flat_map(|row| columns.iter().map(move |&c| row_of(row)[c])).collect()
}

/// Resizes colours weighted by their opacity; the last of `C` channels is alpha.
fn with_alpha<const C: usize>(pixels: &[u8], plan: &Plan, how: Interpolation) -> Vec<u8> {
    if plan.columns.is_identity() && plan.rows.is_identity() {
        // Nothing is resized, so nothing goes through the lossy multiplication.
        return resample::<C>(pixels, plan, how);
    }
    let mut weighted = pixels.to_vec();
    for pixel in weighted.chunks_exact_mut(C) {
        let alpha = pixel[C - 1];
        pixel[..C - 1].iter_mut().for_each(|v| *v = muldiv255(*v, alpha));
    }
    let mut resized = resample::<C>(&weighted, plan, how);
    for pixel in resized.chunks_exact_mut(C) {
        let alpha = u32::from(pixel[C - 1]);
        if alpha != 0 && alpha != 255 {
            let divided = |v: u8| (255 * u32::from(v) / alpha).min(255) as u8;
            pixel[..C - 1].iter_mut().for_each(|v| *v = divided(*v));
        }
    }
    resized
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ramp(width: u32, height: u32) -> Picture {
        let rgb = (0..3 * width * height).map(|i| (i * 37 % 251) as u8).collect();
        Picture { width, height, rgb }
    }

    #[test]
    fn crop_offsets_round_half_to_even() {
        let start = |to| Axis::new(to, to, 32).window.start;
        assert_eq!([32, 33, 34, 35, 36, 37, 39].map(start), [0, 0, 1, 2, 2, 2, 4]);
    }

    #[test]
    fn the_window_is_the_middle_of_the_whole() {
        for interpolation in [Interpolation::Bicubic, Interpolation::Bilinear] {
            let picture = ramp(50, 23);
            let resize_to = Resize { interpolation, ..Resize::new(16) };
            // Shorter side 23 to 16, longer side 16 * 50 / 23 = 34, crop offset 9.
            let whole = resize(&picture, Area::whole(&picture), 34, 16, interpolation);
            let middle = crop(&whole, Area { left: 9, top: 0, width: 16, height: 16 });
            assert_eq!(resize_to.picture(&picture), middle);
        }
    }

    #[test]
    fn an_area_is_resized_as_if_it_were_cut_out_first() {
        let picture = ramp(40, 30);
        let area = Area { left: 5, top: 7, width: 20, height: 11 };
        let cut = crop(&picture, area);
        let expected = resize(&cut, Area::whole(&cut), 9, 17, Interpolation::Bilinear);
        assert_eq!(resize(&picture, area, 9, 17, Interpolation::Bilinear), expected);
        // What lies outside is left out, and never reached for.
        let beyond = Area { left: 39, top: 100, width: u32::MAX, height: 9 };
        assert_eq!(
            crop(&picture, beyond),
            crop(&picture, Area { left: 39, top: 29, width: 1, height: 1 })
        );
    }

    #[test]
    fn the_order_of_the_passes_is_that_of_the_reference() {
        let first = |w, h, to_w, to_h| {
            let plan = Plan { columns: Axis::new(w, to_w, to_w), rows: Axis::new(h, to_h, to_h) };
            plan.vertical_first()
        };
        // Width and height before and after; decided by what the reference did with noise.
        assert!(first(33, 100, 32, 96) && first(8, 32, 49, 29) && first(2, 42, 35, 1));
        assert!(!first(40, 61, 32, 48) && !first(28, 39, 49, 50) && !first(45, 37, 38, 32));
    }

    #[test]
    fn flat_pictures_stay_flat_and_padding_has_the_fill_colour() {
        let flat = Picture::filled(90, 31, [9, 200, 77]);
        assert_eq!(Resize::new(24).picture(&flat), Picture::filled(24, 24, [9, 200, 77]));
        let longest = Resize { mode: Fit::Longest, fill: [1, 2, 3], ..Resize::new(24) };
        let padded = longest.picture(&flat);
        // 31 / (90 / 24) = 8.27: eight rows in the middle.
        for (row, expected) in
            [(7, [1, 2, 3]), (8, [9, 200, 77]), (15, [9, 200, 77]), (16, [1, 2, 3])]
        {
            assert_eq!(padded.pixel(0, row), Some(expected), "row {row}");
        }
    }

    #[test]
    fn extreme_pictures_cost_no_more_than_their_window() {
        let thin = Picture::filled(1, 60_000, [5, 6, 7]);
        assert_eq!(Resize::new(224).picture(&thin), Picture::filled(224, 224, [5, 6, 7]));
        let longest = Resize { mode: Fit::Longest, ..Resize::new(224) };
        assert_eq!(longest.picture(&thin).pixel(111, 100), Some([5, 6, 7]));
    }
}
