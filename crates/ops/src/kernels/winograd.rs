//! Convolution with filters of 3x3 and stride 1 by Winograd's F(2x2, 3x3) (Lavin and Gray, "Fast Algorithms
//! for Convolutional Neural Networks", 2016, section 4.1).
//!
//! A tile of 2x2 results comes of a patch of 4x4 pixels. Patches `B^T d B` and filters `G g G^T` are multiplied
//! place by place, which for all channels are sixteen products of matrices, and `A^T m A` of their results is
//! the tile: 16 multiplications where windows take 36. All of `B` and `A` are 0, 1 and -1, and of `G` also 1/2:
//! rounding errors grow by a small factor only.
//!
//! The gradient with respect to the input is the same with the filters turned around, that with respect to
//! the weight goes the same way back.

mod transforms;

use super::{
    conv::Shape,
    finish::Finish,
    fresh::{in_rooms, in_tasks},
    matmul::{Mat, product},
    packed::{Panels, WIDE, Word},
    vectorised,
};
use rayon::prelude::*;
use transforms::{filter, filter_gradient, lanes, patch, read, results, spread, write, write_all};

/// Places of a patch.
const PLACES: usize = 16;
/// Values of a task's patches and products: half of a second cache of 512 KB.
const SPACE: usize = 1 << 16;
/// Tiles that a task has at least, to be worth reading the filters for.
const TILES: usize = 32;
/// Patches whose products the gradient of a weight adds up at once.
const SUMMED: usize = 128;
/// Values of all patches that it keeps at once.
const KEPT: usize = 1 << 20;

/// Sixteen channels.
type Lanes = [f32; WIDE];

/// Whether there is this way for a convolution: it must not depend on the number of pictures, because bits
/// depend on the way.
pub(crate) fn is_for(s: &Shape) -> bool {
    let fits = |channels: usize| channels > 0 && channels.is_multiple_of(WIDE);
    s.kernel == 3 && s.stride == 1 && s.pad <= 2 && fits(s.c) && fits(s.out)
}

/// Tiles of 2x2 results of a convolution.
#[derive(Clone, Copy)]
struct Tiles {
    /// Channels of the pictures and of the results.
    channels: [usize; 2],
    /// Height and width of the pictures and of the results.
    sides: [[usize; 2]; 2],
    pad: usize,
}

impl Tiles {
    fn of(s: &Shape) -> Self {
        let sides = [[s.h, s.w], [s.out_h(), s.out_w()]];
        Self { channels: [s.c, s.out], sides, pad: s.pad }
    }

    /// Those of the gradient with respect to the input.
    fn back(self) -> Self {
        let ([c, out], [small, large]) = (self.channels, self.sides);
        Self { channels: [out, c], sides: [large, small], pad: 2 - self.pad }
    }

    /// Values of a picture, and of its result.
    fn sizes(&self) -> [usize; 2] {
        std::array::from_fn(|i| self.sides[i].iter().product::<usize>() * self.channels[i])
    }

    fn across(&self) -> usize {
        self.sides[1][1].div_ceil(2)
    }

    /// Rows of tiles that have lines of results of their own, and so can be cut from others: those of a
    /// picture if its number of lines is odd.
    fn strip(&self) -> usize {
        let lines = self.sides[1][0];
        if lines.is_multiple_of(2) { 1 } else { lines.div_ceil(2) }
    }

    /// Strips of a picture.
    fn strips(&self) -> usize {
        self.sides[1][0].div_ceil(2) / self.strip()
    }

    /// Values of the results of a strip.
    fn strip_size(&self) -> usize {
        self.sizes()[1] / self.strips()
    }

    /// Strips of a task.
    fn task(&self, strips: usize) -> usize {
        let tiles = self.strip() * self.across();
        let most = (SPACE / (PLACES * (self.channels[0] + self.channels[1]))).max(TILES);
        let share = strips.div_ceil(2 * rayon::current_num_threads());
        (most / tiles).min(share).max(1)
    }

    /// Picture, row and column of a tile.
    fn place(&self, tile: usize) -> [usize; 3] {
        let (across, down) = (self.across(), self.sides[1][0].div_ceil(2));
        [tile / across / down, tile / across % down, tile % across]
    }

    /// Patches `B^T d B` of tiles `from..to`.
    fn patches(&self, x: &[f32], [from, to]: [usize; 2], patches: &mut Vec<f32>) {
        let (c, [h, w]) = (self.channels[0], self.sides[0]);
        let next = apart(to - from, c);
        patches.resize(PLACES * next, 0.0);
        vectorised(
            #[inline(always)]
            || {
                for tile in from..to {
                    let [picture, row, column] = self.place(tile);
                    let x = &x[picture * self.sizes()[0]..][..self.sizes()[0]];
                    let mut source: [&[f32]; PLACES] = [&[]; PLACES];
                    for (place, source) in source.iter_mut().enumerate() {
                        let line = (2 * row + place / 4).wrapping_sub(self.pad);
                        let left = (2 * column + place % 4).wrapping_sub(self.pad);
                        if line < h && left < w {
                            *source = &x[(line * w + left) * c..][..c];
                        }
                    }
                    for at in (0..c).step_by(WIDE) {
                        let mut d = [read(&[], 0); PLACES];
                        for (d, pixel) in d.iter_mut().zip(&source) {
                            *d = read(pixel, at);
                        }
                        write_all(patches, (tile - from) * c + at, next, &lanes(&d, patch));
                    }
                }
            },
        );
    }

    /// `A g A^T` of the results of tiles `from..to`.
    fn spread(&self, g: &[f32], [from, to]: [usize; 2], patches: &mut Vec<f32>) {
        let (out, [h, w]) = (self.channels[1], self.sides[1]);
        let next = apart(to - from, out);
        patches.resize(PLACES * next, 0.0);
        vectorised(
            #[inline(always)]
            || {
                for tile in from..to {
                    let [picture, row, column] = self.place(tile);
                    let g = &g[picture * self.sizes()[1]..][..self.sizes()[1]];
                    let mut source: [&[f32]; 4] = [&[]; 4];
                    for (place, source) in source.iter_mut().enumerate() {
                        let (line, x) = (2 * row + place / 2, 2 * column + place % 2);
                        if line < h && x < w {
                            *source = &g[(line * w + x) * out..][..out];
                        }
                    }
                    for at in (0..out).step_by(WIDE) {
                        let mut g = [read(&[], 0); 4];
                        for (g, pixel) in g.iter_mut().zip(&source) {
                            *g = read(pixel, at);
                        }
                        write_all(patches, (tile - from) * out + at, next, &lanes(&g, spread));
                    }
                }
            },
        );
    }

    /// `A^T m A` of tiles `from..to` into `y`, which begins with the lines of the first of them, and what follows.
    fn collect(&self, products: &[f32], [from, to]: [usize; 2], finish: Finish<'_>, y: &mut [f32]) {
        let (out, [h, w]) = (self.channels[1], self.sides[1]);
        let (next, [picture, row, _]) = (apart(to - from, out), self.place(from));
        let begin = (picture * h + 2 * row) * w;
        vectorised(
            #[inline(always)]
            || {
                for tile in from..to {
                    let [picture, row, column] = self.place(tile);
                    for at in (0..out).step_by(WIDE) {
                        let mut m = [read(&[], 0); PLACES];
                        for (place, m) in m.iter_mut().enumerate() {
                            *m = read(products, place * next + (tile - from) * out + at);
                        }
                        let results = lanes(&m, results);
                        for (place, values) in results.iter().enumerate() {
                            let (line, x) = (2 * row + place / 2, 2 * column + place % 2);
                            if line < h && x < w {
                                let pixel = (picture * h + line) * w + x - begin;
                                write(y, pixel * out + at, values);
                            }
                        }
                    }
                }
            },
        );
        finish.rows(out, begin, y);
    }

    /// Results of pictures.
    fn convolve<W: Word>(
        &self,
        n: usize,
        x: &[f32],
        filters: &[[W; WIDE]],
        finish: Finish<'_>,
    ) -> Vec<f32> {
        let deep = self.channels[0].div_ceil(W::INPUTS);
        let ([c, out], size) = (self.channels, self.strip_size());
        let strips = n * self.strips();
        let task = self.task(strips);
        let tiles = self.strip() * self.across();
        in_rooms(strips * size, task * size, <[Vec<f32>; 2]>::default, |space, i, room| {
            let y = room.cleared();
            let own = [i * task * tiles, (i * task + y.len() / size) * tiles];
            let count = own[1] - own[0];
            let [patches, products] = space;
            self.patches(x, own, patches);
            products.resize(PLACES * apart(count, out), 0.0);
            for place in 0..PLACES {
                let patches = &patches[place * apart(count, c)..][..count * c];
                let products = &mut products[place * apart(count, out)..][..count * out];
                Panels::new(&filters[place * deep..], PLACES * deep, out, c)
                    .rows(patches, products);
            }
            self.collect(products, own, finish, y);
            y
        })
    }
}

/// `G g G^T` of all filters, packed: of sixteen filters all places, of a place all inputs. `weight(o, i, k)`
/// is the filter's value `k` of nine for output `o` and input `i`.
fn packed<W: Word>(
    [inputs, outputs]: [usize; 2],
    weight: impl Fn(usize, usize, usize) -> f32 + Sync,
) -> Vec<[W; WIDE]> {
    let deep = inputs.div_ceil(W::INPUTS);
    let mut words = vec![[W::default(); WIDE]; PLACES * deep * (outputs / WIDE)];
    words.par_chunks_exact_mut(PLACES * deep).enumerate().for_each(|(panel, words)| {
        vectorised(
            #[inline(always)]
            || {
                for word in 0..deep {
                    // What belongs to the word's inputs, side by side.
                    let mut values = [[[0.0; 2]; WIDE]; PLACES];
                    for i in 0..W::INPUTS {
                        let mut g = [[0.0; WIDE]; 9];
                        for (k, g) in g.iter_mut().enumerate() {
                            for (lane, g) in g.iter_mut().enumerate() {
                                *g = weight(panel * WIDE + lane, word * W::INPUTS + i, k);
                            }
                        }
                        let places = lanes(&g.each_ref(), filter);
                        for (values, place) in values.iter_mut().zip(&places) {
                            for (values, value) in values.iter_mut().zip(place) {
                                values[i] = *value;
                            }
                        }
                    }
                    for (place, values) in values.iter().enumerate() {
                        for (to, values) in words[place * deep + word].iter_mut().zip(values) {
                            *to = W::of(&values[..W::INPUTS]);
                        }
                    }
                }
            },
        );
    });
    words
}

/// Filters `[out, c, 3, 3]` for [`convolve`].
pub(crate) fn filters<W: Word>(s: &Shape, weight: &[f32]) -> Vec<[W; WIDE]> {
    packed([s.c, s.out], |o, i, k| weight[(o * s.c + i) * 9 + k])
}

/// The convolution with what [`filters`] made of its weight, and what follows.
pub(crate) fn convolve<W: Word>(
    s: &Shape,
    x: &[f32],
    filters: &[[W; WIDE]],
    finish: Finish<'_>,
) -> Vec<f32> {
    Tiles::of(s).convolve(s.n, x, filters, finish)
}

pub(super) fn input_gradient(s: &Shape, g: &[f32], weight: &[f32]) -> Vec<f32> {
    let tiles = Tiles::of(s).back();
    let filters = packed::<f32>(tiles.channels, |o, i, k| weight[(i * s.c + o) * 9 + 8 - k]);
    tiles.convolve(s.n, g, &filters, Finish::default())
}

/// Gradient with respect to the weight, `[out, c, 3, 3]`.
pub(super) fn weight_gradient(s: &Shape, g: &[f32], x: &[f32]) -> Vec<f32> {
    let tiles = Tiles::of(s);
    let ([c, out], all) = (tiles.channels, s.n * tiles.strips() * tiles.strip() * tiles.across());
    // Fixed, because bits depend on how a sum is cut.
    let blocks = (KEPT / (PLACES * SUMMED * (c + out))).max(2);
    let mut sums = vec![0.0; PLACES * c * out];
    for begin in (0..all).step_by(blocks * SUMMED) {
        let end = (begin + blocks * SUMMED).min(all);
        let parts: Vec<(usize, [Vec<f32>; 2])> = (begin..end)
            .into_par_iter()
            .step_by(SUMMED)
            .map(|from| {
                let (own, mut both) =
                    ([from, (from + SUMMED).min(end)], <[Vec<f32>; 2]>::default());
                tiles.patches(x, own, &mut both[0]);
                tiles.spread(g, own, &mut both[1]);
                (own[1] - own[0], both)
            })
            .collect();
        sums.par_chunks_exact_mut(c * out).enumerate().for_each(|(place, sums)| {
            for (count, [patches, spread]) in &parts {
                let from = |channels: usize| place * apart(*count, channels);
                let patches = Mat::new(&patches[from(c)..], *count, c);
                let spread = Mat::new(&spread[from(out)..], *count, out);
                product(sums, out, patches.t(), spread, 1.0, true);
            }
        });
    }
    // Of sixteen outputs a time.
    in_tasks(9 * c * out, 9 * c * WIDE, |i, dw| {
        vectorised(
            #[inline(always)]
            || {
                for input in 0..c {
                    let mut m = [read(&[], 0); PLACES];
                    for (place, m) in m.iter_mut().enumerate() {
                        *m = read(&sums, (place * c + input) * out + i * WIDE);
                    }
                    for (k, values) in lanes(&m, filter_gradient).iter().enumerate() {
                        for (lane, value) in values.iter().enumerate() {
                            dw[(lane * c + input) * 9 + k] = *value;
                        }
                    }
                }
            },
        );
    })
}

/// Values from one place to the next, each with so many tiles and channels: not a power of two, which would put
/// all places of a tile into the same lines of the cache.
fn apart(tiles: usize, channels: usize) -> usize {
    tiles * channels + WIDE
}

#[cfg(test)]
mod tests;
