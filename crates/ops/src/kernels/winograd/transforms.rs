//! The small matrices of F(2x2, 3x3), for sixteen channels at a time.

use super::{Lanes, PLACES, WIDE};

/// Sixteen of `values` from `at`, zero if there are none. A reference: a value would go through one place on the
/// stack, and every read would wait for the one before.
#[inline(always)]
pub(super) fn read(values: &[f32], at: usize) -> &Lanes {
    const NONE: &Lanes = &[0.0; WIDE];
    values.get(at..).and_then(|values| values.first_chunk()).unwrap_or(NONE)
}

#[inline(always)]
pub(super) fn write(values: &mut [f32], at: usize, lanes: &Lanes) {
    if let Some(to) = values[at..].first_chunk_mut() {
        *to = *lanes;
    }
}

/// Places so far `apart`, the first at `at`.
#[inline(always)]
pub(super) fn write_all(values: &mut [f32], at: usize, apart: usize, places: &[Lanes; PLACES]) {
    for (place, lanes) in places.iter().enumerate() {
        write(values, place * apart + at, lanes);
    }
}

/// `transform` of every channel; over channels the compiler vectorises.
#[inline(always)]
pub(super) fn lanes<const N: usize, const K: usize>(
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

/// `B^T d B`, of a patch.
#[inline(always)]
pub(super) fn patch(d: &[f32; PLACES]) -> [f32; PLACES] {
    both_sides(d, |[a, b, c, d]| [a - c, b + c, c - b, b - d])
}

/// `G g G^T`, of a filter.
#[inline(always)]
pub(super) fn filter(g: &[f32; 9]) -> [f32; PLACES] {
    both_sides(g, |[a, b, c]| [a, 0.5 * (a + c + b), 0.5 * (a + c - b), c])
}

/// `A^T m A`, of products.
#[inline(always)]
pub(super) fn results(m: &[f32; PLACES]) -> [f32; 4] {
    both_sides(m, |[a, b, c, d]| [a + b + c, b - c - d])
}

/// `A g A^T`, of the gradient of results.
#[inline(always)]
pub(super) fn spread(g: &[f32; 4]) -> [f32; PLACES] {
    both_sides(g, |[a, b]| [a, a + b, a - b, -b])
}

/// `G^T m G`, of the products for the gradient of a filter.
#[inline(always)]
pub(super) fn filter_gradient(m: &[f32; PLACES]) -> [f32; 9] {
    both_sides(m, |[a, b, c, d]| [a + 0.5 * (b + c), 0.5 * (b - c), 0.5 * (b + c) + d])
}
