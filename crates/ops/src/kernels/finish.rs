//! What follows a product, done while its results are in the cache: on their own BatchNorm, an added shortcut
//! or an activation would each walk through all of the memory once more.
//!
//! Every value is computed by the same steps as by the operations on their own, so the bits are the same.

use super::{
    activation::{Activation, value},
    vectorised,
};

/// Steps that follow a product, in the order of the fields.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Finish<'a> {
    /// Slope and offset of every column.
    pub(crate) line: Option<[&'a [f32]; 2]>,
    /// A number to add to every value.
    pub(crate) add: Option<&'a [f32]>,
    pub(crate) relu: bool,
    pub(crate) activation: Option<Activation>,
}

impl Finish<'_> {
    fn is_nothing(&self) -> bool {
        self.line.is_none() && self.add.is_none() && !self.relu && self.activation.is_none()
    }

    /// Finishes rows, the first of which is number `row` of the whole result. Whole rows one after the other:
    /// parts of rows would each read their part of what is added from elsewhere.
    pub(crate) fn rows(&self, columns: usize, row: usize, values: &mut [f32]) {
        if self.is_nothing() || columns == 0 {
            return;
        }
        vectorised(
            #[inline(always)]
            || {
                for (i, values) in values.chunks_exact_mut(columns).enumerate() {
                    self.row(row + i, values);
                }
            },
        );
    }

    #[inline(always)]
    fn row(&self, row: usize, values: &mut [f32]) {
        let columns = values.len();
        if let Some([slope, offset]) = self.line {
            let (slope, offset) = (&slope[..columns], &offset[..columns]);
            for (v, (slope, offset)) in values.iter_mut().zip(slope.iter().zip(offset)) {
                *v = *v * slope + offset;
            }
        }
        if let Some(add) = self.add {
            let add = &add[row * columns..][..columns];
            for (v, add) in values.iter_mut().zip(add) {
                *v += add;
            }
        }
        if self.relu {
            for v in values.iter_mut() {
                *v = v.max(0.0);
            }
        }
        // Matched outside the loops, so that they vectorise.
        macro_rules! all {
            ($kind:expr) => {
                for v in values.iter_mut() {
                    *v = value($kind, *v);
                }
            };
        }
        match self.activation {
            None => {}
            Some(Activation::QuickGelu) => all!(Activation::QuickGelu),
            Some(Activation::Gelu) => all!(Activation::Gelu),
            Some(Activation::GeluTanh) => all!(Activation::GeluTanh),
        }
    }
}
