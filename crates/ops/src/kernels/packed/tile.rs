//! The inner loop: a few rows times a few panels, their sums in registers.

use super::{WIDE, units::Unit};
use std::sync::atomic::{Ordering, compiler_fence};

/// Rows that lie so far `apart`.
#[derive(Clone, Copy)]
pub(crate) struct Lines<'a, T> {
    pub(super) values: &'a [T],
    pub(super) rows: usize,
    pub(super) apart: usize,
}

/// Where products go: to rows of `width` columns, from column `at` on; and whether they are the first to come
/// there.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) width: usize,
    pub(super) at: usize,
    pub(super) new: bool,
}

/// All tiles of rows times `P` panels.
#[inline(always)]
pub(super) fn strip<U: Unit, const R: usize, const P: usize>(
    unit: U,
    x: Lines<'_, U::Input>,
    panels: [&[[U::Word; WIDE]]; P],
    y: &mut [f32],
    place: Place,
) {
    let deep = panels[0].len();
    for (t, y) in y.chunks_mut(R * place.width).enumerate() {
        let mut own: [&[U::Input]; R] = [&[]; R];
        for (r, own) in own.iter_mut().enumerate() {
            // Behind the last row the last one stands again.
            *own = &x.values[(t * R + r).min(x.rows - 1) * x.apart..][..deep];
        }
        let rows = (x.rows - t * R).min(R);
        if rows == R && place.width >= place.at + P * WIDE {
            tile::<U, R, P>(unit, own, panels, y, place);
            continue;
        }
        // There is not all of it: it is made elsewhere.
        let columns = (place.width - place.at).min(P * WIDE);
        let mut all = [[[0.0f32; WIDE]; P]; R];
        let lines = |r: usize| r * place.width + place.at..r * place.width + place.at + columns;
        for (r, all) in all.iter_mut().enumerate().take(rows) {
            all.as_flattened_mut()[..columns].copy_from_slice(&y[lines(r)]);
        }
        let elsewhere = Place { width: P * WIDE, at: 0, ..place };
        let whole = all.as_flattened_mut().as_flattened_mut();
        tile::<U, R, P>(unit, own, panels, whole, elsewhere);
        for (r, all) in all.iter().enumerate().take(rows) {
            y[lines(r)].copy_from_slice(&all.as_flattened()[..columns]);
        }
    }
}

/// `R` rows times `P` panels.
#[inline(always)]
fn tile<U: Unit, const R: usize, const P: usize>(
    unit: U,
    mut x: [&[U::Input]; R],
    mut panels: [&[[U::Word; WIDE]]; P],
    y: &mut [f32],
    Place { width, at, new }: Place,
) {
    // Lengths that are known to be equal leave the loop without checks.
    let deep = panels[0].len();
    x.iter_mut().for_each(|x| *x = &x[..deep]);
    panels.iter_mut().for_each(|panel| *panel = &panel[..deep]);
    let mut sums = [[unit.sum(&[0.0; WIDE]); P]; R];
    if !new {
        for (r, sums) in sums.iter_mut().enumerate() {
            let (y, _) = y[r * width + at..][..P * WIDE].as_chunks();
            for (sum, y) in sums.iter_mut().zip(y) {
                *sum = unit.sum(y);
            }
        }
    }
    for step in 0..U::STEPS {
        for i in 0..deep {
            let mut own = [unit.weight(&panels[0][i], step); P];
            for p in 1..P {
                own[p] = unit.weight(&panels[p][i], step);
            }
            for r in 0..R {
                // The compiler would read inputs of all rows ahead, and run out of registers for the sums.
                compiler_fence(Ordering::SeqCst);
                for p in 0..P {
                    sums[r][p] = unit.multiply_add(sums[r][p], x[r][i], own[p], step);
                }
            }
        }
    }
    for (r, sums) in sums.into_iter().enumerate() {
        let (y, _) = y[r * width + at..][..P * WIDE].as_chunks_mut();
        for (y, sum) in y.iter_mut().zip(sums) {
            *y = unit.values(sum);
        }
    }
}
