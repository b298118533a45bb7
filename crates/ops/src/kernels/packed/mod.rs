//! `y = x w^T + b` with a weight in the order in which the product reads it, in f32 or in bf16.
//!
//! The weight is brought into that order once, not by every task anew, and nothing else is moved: rows of
//! `x` are read where they lie (in bf16 they are rounded first, to the nearest, ties to even). Products are
//! summed in f32 in the order of the inputs: the bits of a row of `y` depend on that row, on `w` and on `b`
//! alone. They differ in the last places between processors that multiply and add in one step, or pairs of
//! bf16, and those that do not.
#![allow(unsafe_code)]

mod few;
mod source;
mod tile;
mod units;

pub(crate) use few::{MANY, product_of_few};
pub(crate) use source::Source;

use super::{
    finish::Finish,
    fresh::{Room, in_rooms},
};
use few::{in_columns, side_by_side, wide};
use half::bf16;
use rayon::prelude::*;
use std::ops::Range;
use tile::{Lines, Place, strip};
use units::{Exact, Plain, Unit, Widened};

/// Columns of a panel.
pub(crate) const WIDE: usize = 16;
/// Words that are multiplied before the next ones: with them the rows of a task stay in the second cache
/// and the panels of a tile are read from it.
const DEPTH: usize = 256;
/// Rows of a task at most; a multiple of the rows of every tile.
const ROWS: usize = 120;
/// Tasks of so few rows would spend their time on reading the weight.
const FEW: usize = 24;

/// Two neighbours along the sum in bf16, the first in the low half.
pub(crate) type Pair = u32;

/// What a weight is kept in.
pub(crate) trait Word: Copy + Default + Send + Sync + 'static {
    /// Inputs of a word.
    const INPUTS: usize;

    /// The word of so many values, or of fewer at the end of a row.
    fn of(values: &[f32]) -> Self;

    /// Does `work` with the best that this processor has, in tiles that fit its registers.
    fn on_best<T: Work<Self>>(work: T) -> T::Output;
}

/// Something to do with products.
pub(crate) trait Work<W> {
    type Output;

    /// In tiles of `R` rows and `P` panels.
    fn on<U: Unit<Word = W>, const R: usize, const P: usize>(self, unit: U) -> Self::Output;
}

impl Word for f32 {
    const INPUTS: usize = 1;

    fn of(values: &[f32]) -> Self {
        values[0]
    }

    fn on_best<T: Work<Self>>(work: T) -> T::Output {
        #[cfg(target_arch = "x86_64")]
        {
            use pulp::x86::{V3, V4};
            if let Some(lanes) = V4::try_new() {
                return work.on::<_, 8, 3>(Exact(lanes));
            }
            if let Some(lanes) = V3::try_new() {
                return work.on::<_, 6, 1>(Exact(lanes));
            }
        }
        work.on::<_, 4, 1>(Exact(Plain))
    }
}

impl Word for Pair {
    const INPUTS: usize = 2;

    fn of(values: &[f32]) -> Self {
        let bits = |i: usize| values.get(i).map_or(0, |v| bf16::from_f32(*v).to_bits());
        Self::from(bits(0)) | Self::from(bits(1)) << 16
    }

    fn on_best<T: Work<Self>>(work: T) -> T::Output {
        #[cfg(target_arch = "x86_64")]
        {
            use pulp::x86::{V3, V4};
            if let Some(unit) = units::x86::Dot::detected() {
                return work.on::<_, 8, 3>(unit);
            }
            if let Some(lanes) = V4::try_new() {
                return work.on::<_, 8, 3>(Widened(lanes));
            }
            if let Some(lanes) = V3::try_new() {
                return work.on::<_, 6, 1>(Widened(lanes));
            }
        }
        work.on::<_, 4, 1>(Widened(Plain))
    }
}

/// A weight `[outputs, inputs]` in panels of 16 outputs.
pub(crate) struct Packed<W> {
    /// Panel by panel, word by word, what belongs to the panel's outputs; zero where there are none.
    words: Vec<[W; WIDE]>,
    outputs: usize,
    inputs: usize,
}

impl<W: Word> Packed<W> {
    /// Packs a weight `[outputs, inputs]`, on all threads.
    pub(crate) fn new(weight: &[f32], inputs: usize) -> Self {
        assert!(inputs > 0 && weight.len().is_multiple_of(inputs), "a weight of whole rows");
        let outputs = weight.len() / inputs;
        let deep = inputs.div_ceil(W::INPUTS);
        let mut words = vec![[W::default(); WIDE]; outputs.div_ceil(WIDE) * deep];
        let panels = words.par_chunks_mut(deep).zip(weight.par_chunks(WIDE * inputs));
        panels.for_each(|(panel, rows)| pack(panel, rows, inputs));
        Self { words, outputs, inputs }
    }

    /// `x w^T + b` of the rows of a source and what follows, on all threads.
    pub(crate) fn product(
        &self,
        x: Source<'_>,
        bias: Option<&[f32]>,
        finish: Finish<'_>,
    ) -> Vec<f32> {
        W::on_best(Product { panels: self.panels(), x, bias, finish })
    }

    /// As something to multiply rows with on one thread.
    pub(crate) fn panels(&self) -> Panels<'_, W> {
        let apart = self.inputs.div_ceil(W::INPUTS);
        Panels { words: &self.words, apart, outputs: self.outputs, inputs: self.inputs }
    }
}

impl Packed<f32> {
    /// Packs columns of a weight `[inputs, outputs]`, on all threads.
    pub(crate) fn turned(weight: &[f32], outputs: usize, columns: Range<usize>) -> Self {
        assert!(outputs > 0 && weight.len().is_multiple_of(outputs), "a weight of whole rows");
        let inputs = weight.len() / outputs;
        let mut words = vec![[0.0; WIDE]; columns.len().div_ceil(WIDE) * inputs];
        words.par_chunks_mut(inputs.max(1)).enumerate().for_each(|(p, panel)| {
            let first = columns.start + p * WIDE;
            let width = WIDE.min(columns.end - first);
            for (to, row) in panel.iter_mut().zip(weight.chunks_exact(outputs)) {
                let row = &row[first..][..width];
                match row.first_chunk() {
                    Some(row) => *to = *row,
                    None => to[..width].copy_from_slice(row),
                }
            }
        });
        Self { words, outputs: columns.len(), inputs }
    }
}

/// Packs at most sixteen rows.
#[inline(always)]
fn pack<W: Word>(panel: &mut [[W; WIDE]], rows: &[f32], inputs: usize) {
    // As many words as make up a line of the cache of every row.
    let block = WIDE / W::INPUTS;
    for (i, to) in panel.chunks_mut(block).enumerate() {
        for (lane, row) in rows.chunks_exact(inputs).enumerate() {
            let row = &row[i * WIDE..];
            for (to, values) in to.iter_mut().zip(row.chunks(W::INPUTS)) {
                to[lane] = W::of(values);
            }
        }
    }
}

/// A packed weight, or one of several that lie together.
#[derive(Clone, Copy)]
pub(crate) struct Panels<'a, W> {
    words: &'a [[W; WIDE]],
    /// Words from one panel to the next.
    apart: usize,
    outputs: usize,
    inputs: usize,
}

impl<'a, W: Word> Panels<'a, W> {
    /// A weight whose panels begin at the first word, `apart` from each other.
    ///
    /// # Panics
    /// When there are fewer words.
    pub(crate) fn new(words: &'a [[W; WIDE]], apart: usize, outputs: usize, inputs: usize) -> Self {
        let deep = inputs.div_ceil(W::INPUTS);
        let end = outputs.div_ceil(WIDE).checked_sub(1).map_or(0, |last| last * apart + deep);
        assert!(inputs > 0 && deep <= apart && end <= words.len(), "panels that do not fit");
        Self { words, apart, outputs, inputs }
    }

    /// `x w^T` of rows without gaps on one thread, over what is in `y`.
    ///
    /// # Panics
    /// When `y` is of another size.
    pub(crate) fn rows(self, x: &[f32], y: &mut [f32]) {
        let rows = x.len() / self.inputs;
        assert_eq!(y.len(), rows * self.outputs, "room for another matrix");
        W::on_best(Rows { panels: self, x, y, new: true });
    }

    /// Words `from..to` of a panel.
    #[inline(always)]
    fn panel(self, panel: usize, [from, to]: [usize; 2]) -> &'a [[W; WIDE]] {
        &self.words[panel * self.apart + from..panel * self.apart + to]
    }

    /// Outputs of panels `first..end`.
    fn width(self, [first, end]: [usize; 2]) -> usize {
        (end * WIDE).min(self.outputs) - first * WIDE
    }

    /// The rows of `x` times some panels, on one thread.
    fn all_rows<'r, U: Unit<Word = W>, const R: usize, const P: usize>(
        self,
        unit: U,
        x: &[f32],
        panels: [usize; 2],
        around: Around<'_>,
        space: &mut Vec<U::Input>,
        mut room: Room<'r>,
    ) -> &'r mut [f32] {
        let (rows, width) = (x.len() / self.inputs, self.width(panels));
        assert_eq!(room.len(), rows * width, "room for another matrix");
        for (i, x) in x.chunks(ROWS * self.inputs).enumerate() {
            let begin = i * ROWS * width;
            let own = room.part(begin, begin + x.len() / self.inputs * width);
            let y = unit.run(
                #[inline(always)]
                || {
                    let y = match around.bias {
                        Some(bias) => own.rows_of(&bias[panels[0] * WIDE..][..width]),
                        None => own.cleared(),
                    };
                    self.add::<U, R, P>(unit, x, panels, space, y, false);
                    y
                },
            );
            // Compiled apart: in one piece with the products the compiler runs out of registers for their sums.
            around.finish.rows(width, around.row + i * ROWS, y);
        }
        // SAFETY: the parts are the whole room, and each has become values.
        unsafe { room.written() }
    }

    /// Adds rows of `x`, at most [`ROWS`], times panels `first..end` to `y`, or puts them there if it is new.
    #[inline(always)]
    fn add<U: Unit<Word = W>, const R: usize, const P: usize>(
        self,
        unit: U,
        x: &[f32],
        [first, end]: [usize; 2],
        space: &mut Vec<U::Input>,
        y: &mut [f32],
        new: bool,
    ) {
        let (deep, width) = (self.inputs.div_ceil(W::INPUTS), self.width([first, end]));
        let x = Lines { values: x, rows: x.len() / self.inputs, apart: self.inputs };
        for begin in (0..deep).step_by(DEPTH) {
            let words = [begin, (begin + DEPTH).min(deep)];
            let x = U::inputs(x, self.inputs, words, space);
            let mut p = first;
            while p < end {
                let panel = |i: usize| self.panel(p + i, words);
                let at = (p - first) * WIDE;
                let place = Place { width, at, new: new && begin == 0 };
                let many = match end - p {
                    // Two and two keep a processor busier than three and one.
                    left if left >= P && !(P == 3 && left == 4) => {
                        let own: [_; P] = std::array::from_fn(panel);
                        strip::<U, R, P>(unit, x, own, y, place);
                        P
                    }
                    left if P > 2 && left >= 2 => {
                        strip::<U, R, 2>(unit, x, [panel(0), panel(1)], y, place);
                        2
                    }
                    _ => {
                        strip::<U, R, 1>(unit, x, [panel(0)], y, place);
                        1
                    }
                };
                p += many;
            }
        }
    }
}

/// What comes before and after a product of some rows. What comes after it is for all columns.
#[derive(Clone, Copy)]
struct Around<'a> {
    bias: Option<&'a [f32]>,
    /// The first row, of those of the whole product.
    row: usize,
    finish: Finish<'a>,
}

/// [`Packed::product`].
struct Product<'a, W> {
    panels: Panels<'a, W>,
    x: Source<'a>,
    bias: Option<&'a [f32]>,
    finish: Finish<'a>,
}

impl<W: Word> Work<W> for Product<'_, W> {
    type Output = Vec<f32>;

    fn on<U: Unit<Word = W>, const R: usize, const P: usize>(self, unit: U) -> Vec<f32> {
        const { assert!(ROWS.is_multiple_of(R)) };
        let Self { panels, x, bias, finish } = self;
        let (inputs, outputs) = (panels.inputs, panels.outputs);
        assert!(bias.is_none_or(|b| b.len() == outputs), "a bias for every output");
        let (rows, count) = (x.rows(inputs), outputs.div_ceil(WIDE));
        let many = x.task(rows, inputs * outputs).next_multiple_of(x.unit(R));
        // In bf16 every task would round all rows anew.
        let narrow = W::INPUTS == 1 && x.are_read() && in_columns(rows, [inputs, outputs]);
        if (many >= FEW && !narrow) || rows == 0 {
            let task = many * outputs;
            return in_rooms(rows * outputs, task, Space::<U>::default, |space, i, room| {
                let from = i * many;
                let own = [from, from + room.len() / outputs];
                let x = x.read(own, inputs, &mut space.gathered);
                let around = Around { bias, row: from, finish };
                panels.all_rows::<U, R, P>(unit, x, [0, count], around, &mut space.inputs, room)
            });
        }
        // Few rows are cut into columns, which are brought together afterwards.
        let parts = match narrow {
            true => count.div_ceil(wide(rows, inputs) / WIDE),
            false => (2 * rayon::current_num_threads()).min(count),
        };
        let own = |i: usize| [i * count / parts, (i + 1) * count / parts];
        let columns: Vec<Vec<f32>> = (0..parts)
            .into_par_iter()
            .map(|i| {
                let size = rows * panels.width(own(i));
                in_rooms(size, size, Space::<U>::default, |space, _, room| {
                    let x = x.read([0, rows], inputs, &mut space.gathered);
                    let around = Around { bias, row: 0, finish: Finish::default() };
                    panels.all_rows::<U, R, P>(unit, x, own(i), around, &mut space.inputs, room)
                })
            })
            .collect();
        side_by_side(&columns, rows, outputs, finish)
    }
}

/// [`Panels::rows`], or what they add to `y`.
struct Rows<'a, 'y, W> {
    panels: Panels<'a, W>,
    x: &'a [f32],
    y: &'y mut [f32],
    new: bool,
}

impl<W: Word> Work<W> for Rows<'_, '_, W> {
    type Output = ();

    fn on<U: Unit<Word = W>, const R: usize, const P: usize>(self, unit: U) {
        let Self { panels, x, y, new } = self;
        let all = [0, panels.outputs.div_ceil(WIDE)];
        let mut space = Vec::new();
        let blocks = x.chunks(ROWS * panels.inputs).zip(y.chunks_mut(ROWS * panels.outputs));
        for (x, y) in blocks {
            unit.run(
                #[inline(always)]
                || panels.add::<U, R, P>(unit, x, all, &mut space, y, new),
            );
        }
    }
}

/// Memory that the tasks of a thread share.
struct Space<U: Unit> {
    gathered: Vec<f32>,
    inputs: Vec<U::Input>,
}

impl<U: Unit> Default for Space<U> {
    fn default() -> Self {
        Self { gathered: Vec::new(), inputs: Vec::new() }
    }
}

#[cfg(test)]
mod tests;
