//! Products of few rows: cut into columns, which are brought together afterwards.

use super::{
    super::{WORTH, finish::Finish, fresh::in_tasks, task_rows},
    Packed, Rows, WIDE, Word,
};
use rayon::prelude::*;
use std::ops::Range;

/// Rows from which a product is cut into rows, which read the whole weight each; fewer are cut into columns,
/// so that every task reads, or packs, a part of the weight for itself. The bits are the same.
pub(crate) const MANY: usize = 512;
/// Values of a weight from which it is read from the memory, not from a cache.
const LARGE: usize = 1 << 18;
/// Rows whose product takes as long as packing the weight.
const PACKING: usize = 16;

/// Whether to cut a product with a packed weight into columns.
pub(super) fn in_columns(rows: usize, [inputs, outputs]: [usize; 2]) -> bool {
    rows < MANY && inputs * outputs > LARGE
}

/// Columns of a task.
pub(super) fn wide(rows: usize, inputs: usize) -> usize {
    let work = inputs * (rows + PACKING);
    WORTH.div_ceil(work.max(1)).max(3 * WIDE).next_multiple_of(WIDE)
}

/// `x w^T + b` of a few rows with `inputs` and a weight with `outputs`: packing the weight is most of the work,
/// so every task packs the part that it multiplies with.
pub(crate) fn product_of_few(
    x: &[f32],
    [inputs, outputs]: [usize; 2],
    pack: impl Fn(Range<usize>) -> Packed<f32> + Sync,
    bias: Option<&[f32]>,
) -> Vec<f32> {
    let rows = x.len() / inputs;
    let wide = wide(rows, inputs);
    let columns: Vec<Vec<f32>> = (0..outputs)
        .into_par_iter()
        .step_by(wide)
        .map(|from| {
            let own = from..(from + wide).min(outputs);
            let packed = pack(own.clone());
            let mut y = vec![0.0; rows * own.len()];
            if let Some(bias) = bias {
                y.chunks_exact_mut(own.len()).for_each(|y| y.copy_from_slice(&bias[own.clone()]));
            }
            f32::on_best(Rows { panels: packed.panels(), x, y: &mut y, new: false });
            y
        })
        .collect();
    side_by_side(&columns, rows, outputs, Finish::default())
}

/// One matrix of parts of its columns, and what follows.
pub(super) fn side_by_side(
    parts: &[Vec<f32>],
    rows: usize,
    columns: usize,
    finish: Finish<'_>,
) -> Vec<f32> {
    let many = task_rows(rows, rows, columns);
    in_tasks(rows * columns, many * columns, |i, y| {
        for (r, y) in y.chunks_exact_mut(columns).enumerate() {
            let (row, mut at) = (i * many + r, 0);
            for part in parts {
                let width = part.len() / rows;
                y[at..at + width].copy_from_slice(&part[row * width..][..width]);
                at += width;
            }
        }
        finish.rows(columns, i * many, y);
    })
}
