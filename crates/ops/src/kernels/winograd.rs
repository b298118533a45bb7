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

use super::{
    conv::Shape,
    finish::Finish,
    fresh::{in_rooms, in_tasks},
    matmul::{Mat, product},
    packed::{Panels, WIDE, Word},
    vectorised,
};
use rayon::prelude::*;

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
fn filters<W: Word>(
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
pub(crate) fn forward_filters<W: Word>(s: &Shape, weight: &[f32]) -> Vec<[W; WIDE]> {
    filters([s.c, s.out], |o, i, k| weight[(o * s.c + i) * 9 + k])
}

/// The convolution with what [`forward_filters`] made of its weight, and what follows.
pub(crate) fn convolve<W: Word>(
    s: &Shape,
    x: &[f32],
    filters: &[[W; WIDE]],
    finish: Finish<'_>,
) -> Vec<f32> {
    Tiles::of(s).convolve(s.n, x, filters, finish)
}

pub(super) fn forward(s: &Shape, x: &[f32], weight: &[f32], finish: Finish<'_>) -> Vec<f32> {
    convolve::<f32>(s, x, &forward_filters(s, weight), finish)
}

pub(super) fn input_gradient(s: &Shape, g: &[f32], weight: &[f32]) -> Vec<f32> {
    let tiles = Tiles::of(s).back();
    let filters = filters::<f32>(tiles.channels, |o, i, k| weight[(i * s.c + o) * 9 + 8 - k]);
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

/// Sixteen of `values` from `at`, zero if there are none. A reference: a value would go through one place on the
/// stack, and every read would wait for the one before.
#[inline(always)]
fn read(values: &[f32], at: usize) -> &Lanes {
    const NONE: &Lanes = &[0.0; WIDE];
    values.get(at..).and_then(|values| values.first_chunk()).unwrap_or(NONE)
}

#[inline(always)]
fn write(values: &mut [f32], at: usize, lanes: &Lanes) {
    if let Some(to) = values[at..].first_chunk_mut() {
        *to = *lanes;
    }
}

/// Places so far `apart`, the first at `at`.
#[inline(always)]
fn write_all(values: &mut [f32], at: usize, apart: usize, places: &[Lanes; PLACES]) {
    for (place, lanes) in places.iter().enumerate() {
        write(values, place * apart + at, lanes);
    }
}

/// `transform` of every channel; over channels the compiler vectorises.
#[inline(always)]
fn lanes<const N: usize, const K: usize>(
    from: &[&Lanes; N],
    transform: impl Fn(&[f32; N]) -> [f32; K],
) -> [Lanes; K] {
    let mut to = [[0.0; WIDE]; K];
    for lane in 0..WIDE {
        let mut values = [0.0; N];
        for i in 0..N {
            values[i] = from[i][lane];
        }
        let values = transform(&values);
        for i in 0..K {
            to[i][lane] = values[i];
        }
    }
    to
}

/// `M d M^T` of a matrix with `N` columns, by `turn`, which multiplies a column by `M`.
#[inline(always)]
fn both_sides<const N: usize, const NN: usize, const K: usize, const KK: usize>(
    d: &[f32; NN],
    turn: impl Fn([f32; N]) -> [f32; K],
) -> [f32; KK] {
    let mut columns = [[0.0; K]; N];
    for (column, turned) in columns.iter_mut().enumerate() {
        let mut values = [0.0; N];
        for row in 0..N {
            values[row] = d[row * N + column];
        }
        *turned = turn(values);
    }
    let mut all = [0.0; KK];
    for row in 0..K {
        let mut values = [0.0; N];
        for column in 0..N {
            values[column] = columns[column][row];
        }
        let values = turn(values);
        for column in 0..K {
            all[row * K + column] = values[column];
        }
    }
    all
}

/// `B^T d B`.
#[inline(always)]
fn patch(d: &[f32; PLACES]) -> [f32; PLACES] {
    both_sides(d, |[a, b, c, d]| [a - c, b + c, c - b, b - d])
}

/// `G g G^T`.
#[inline(always)]
fn filter(g: &[f32; 9]) -> [f32; PLACES] {
    both_sides(g, |[a, b, c]| [a, 0.5 * (a + c + b), 0.5 * (a + c - b), c])
}

/// `A^T m A`.
#[inline(always)]
fn results(m: &[f32; PLACES]) -> [f32; 4] {
    both_sides(m, |[a, b, c, d]| [a + b + c, b - c - d])
}

/// `A g A^T`.
#[inline(always)]
fn spread(g: &[f32; 4]) -> [f32; PLACES] {
    both_sides(g, |[a, b]| [a, a + b, a - b, -b])
}

/// `G^T m G`.
#[inline(always)]
fn filter_gradient(m: &[f32; PLACES]) -> [f32; 9] {
    both_sides(m, |[a, b, c, d]| [a + 0.5 * (b + c), 0.5 * (b - c), 0.5 * (b + c) + d])
}

#[cfg(test)]
mod tests {
    use super::{super::tests::numbers, *};

    /// For every result, input and weight of a product of the convolution their places.
    fn products(s: &Shape, mut visit: impl FnMut(usize, usize, usize)) {
        for picture in 0..s.n {
            for (y, x) in (0..s.out_h()).flat_map(|y| (0..s.out_w()).map(move |x| (y, x))) {
                for (ky, kx) in (0..3).flat_map(|ky| (0..3).map(move |kx| (ky, kx))) {
                    let from = ((y + ky).wrapping_sub(s.pad), (x + kx).wrapping_sub(s.pad));
                    if from.0 >= s.h || from.1 >= s.w {
                        continue;
                    }
                    let pixel = (picture * s.h + from.0) * s.w + from.1;
                    let result = (picture * s.out_h() + y) * s.out_w() + x;
                    for (o, i) in (0..s.out).flat_map(|o| (0..s.c).map(move |i| (o, i))) {
                        let weight = (o * s.c + i) * 9 + ky * 3 + kx;
                        visit(result * s.out + o, pixel * s.c + i, weight);
                    }
                }
            }
        }
    }

    #[track_caller]
    fn close(got: &[f32], want: &[f64], what: &str) {
        assert_eq!(got.len(), want.len(), "{what}");
        let top = want.iter().fold(0f64, |m, v| m.max(v.abs()));
        let off = got.iter().zip(want).map(|(g, w)| (f64::from(*g) - w).abs()).fold(0f64, f64::max);
        assert!(off <= 2e-6 * top, "{what}: off by {off:e} of {top:e}");
    }

    #[test]
    fn results_and_gradients_are_those_of_the_definition() {
        for (n, [h, w], c, out, pad) in [
            (1, [4, 4], 16, 16, 1),
            (3, [7, 5], 16, 32, 1),
            (2, [8, 9], 48, 16, 0),
            (2, [3, 3], 32, 16, 0),
            (1, [1, 1], 16, 16, 1),
            (1, [2, 30], 16, 64, 2),
            (5, [16, 16], 32, 16, 1),
        ] {
            let s = Shape { n, h, w, c, out, kernel: 3, stride: 1, pad };
            assert!(is_for(&s));
            let results = n * s.windows() * out;
            let (x, weight) = (numbers(n * h * w * c, 1), numbers(9 * c * out, 2));
            let g = numbers(results, 3);
            let mut want = [vec![0f64; results], vec![0f64; x.len()], vec![0f64; weight.len()]];
            products(&s, |y, at, k| {
                want[0][y] += f64::from(x[at]) * f64::from(weight[k]);
                want[1][at] += f64::from(g[y]) * f64::from(weight[k]);
                want[2][k] += f64::from(g[y]) * f64::from(x[at]);
            });
            close(
                &forward(&s, &x, &weight, Finish::default()),
                &want[0],
                &format!("results of {s:?}"),
            );
            close(&input_gradient(&s, &g, &weight), &want[1], &format!("pixels of {s:?}"));
            close(&weight_gradient(&s, &g, &x), &want[2], &format!("weights of {s:?}"));
        }
    }

    #[test]
    fn a_picture_depends_neither_on_others_nor_on_threads() {
        let shape =
            |n: usize| Shape { n, h: 9, w: 10, c: 32, out: 48, kernel: 3, stride: 1, pad: 1 };
        let (x, weight) = (numbers(7 * 90 * 32, 4), numbers(9 * 32 * 48, 5));
        let on = |threads: usize, n: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| forward(&shape(n), &x[..n * 90 * 32], &weight, Finish::default()))
        };
        let all = on(1, 7);
        for (threads, n) in [(1, 1), (2, 7), (3, 4)] {
            assert!(on(threads, n) == all[..n * 90 * 48], "{threads} threads, {n} pictures");
        }
        let g = numbers(7 * 90 * 48, 6);
        let weights = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| weight_gradient(&shape(7), &g, &x))
        };
        assert!(weights(1) == weights(2));
    }
}
