//! The candidates of Square: start points and random changes of a window.

use super::{Draws, pattern};
use crate::{Norm, norm::l1_box};

/// Channels, height and width of a picture.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) channels: usize,
    pub(super) height: usize,
    pub(super) width: usize,
}

impl Shape {
    fn size(self) -> usize {
        self.channels * self.height * self.width
    }

    /// Positions of a window in one channel, row by row; the part inside the picture.
    fn window(
        self,
        channel: usize,
        [top, left]: [usize; 2],
        side: usize,
    ) -> impl Iterator<Item = (usize, usize)> {
        let Self { height, width, .. } = self;
        let columns = side.min(width.saturating_sub(left));
        (0..side.min(height.saturating_sub(top))).flat_map(move |r| {
            let first = (channel * height + top + r) * width + left;
            (0..columns).map(move |c| (first + c, r * side + c))
        })
    }
}

/// One draw in `[0, 1)` as a sign.
fn sign(draw: f32) -> f32 {
    let v = 2.0 * draw - 1.0;
    if v == 0.0 { 0.0 } else { v.signum() }
}

/// One draw as a place for a window; the last one is never drawn, as in the program.
fn place(draw: f32, room: usize) -> usize {
    ((room as f32 * draw) as usize).min(room)
}

/// Start points of all rows, from clean pictures.
pub(super) fn start(
    norm: Norm,
    eps: f32,
    shape: Shape,
    clean: &[Vec<f32>],
    draws: &mut dyn Draws,
) -> Vec<Vec<f32>> {
    let rows: Vec<usize> = (0..clean.len()).collect();
    if norm == Norm::Linf {
        let stripes = draws.draw(&rows, 0, shape.channels * shape.width);
        let start = |(clean, stripes): (&Vec<f32>, Vec<f32>)| {
            let stripe =
                |i: usize| i / (shape.height * shape.width) * shape.width + i % shape.width;
            let moved =
                |(i, c): (usize, &f32)| (c + eps * sign(stripes[stripe(i)])).clamp(0.0, 1.0);
            clean.iter().enumerate().map(moved).collect()
        };
        return clean.iter().zip(stripes).map(start).collect();
    }
    let Shape { channels, height, width } = shape;
    let side = (height.min(width) / 5).max(1);
    let offset = |length: usize| length.saturating_sub(5 * side) / 2;
    let mut deltas = vec![vec![0.0; shape.size()]; clean.len()];
    for row in 0..height / side {
        for column in 0..width / side {
            let corner = [offset(height) + row * side, offset(width) + column * side];
            let drawn = draws.draw(&rows, 1, channels);
            for (delta, drawn) in deltas.iter_mut().zip(drawn) {
                let tile = pattern::pyramids(norm, side, drawn[0] > 0.5);
                for channel in 0..channels {
                    let sign = sign(drawn[1 + channel]);
                    for (i, j) in shape.window(channel, corner, side) {
                        delta[i] += tile[j] * sign;
                    }
                }
            }
        }
    }
    let finish = |(clean, delta): (&Vec<f32>, Vec<f32>)| finish(norm, eps, clean, delta);
    clean.iter().zip(deltas).map(finish).collect()
}

/// A Linf candidate: the window moves to one side of the ball, by channel.
pub(super) fn stamp(
    eps: f32,
    shape: Shape,
    side: usize,
    [clean, best]: [&[f32]; 2],
    drawn: &[f32],
) -> Vec<f32> {
    let corner = [place(drawn[0], shape.height - side), place(drawn[1], shape.width - side)];
    let mut next = best.to_vec();
    for channel in 0..shape.channels {
        let shift = 2.0 * eps * sign(drawn[2 + channel]);
        for (i, _) in shape.window(channel, corner, side) {
            let inside = (best[i] + shift).max(clean[i] - eps).min(clean[i] + eps);
            next[i] = inside.clamp(0.0, 1.0);
        }
    }
    next
}

/// An L2 or L1 candidate: the perturbation of a second window moves into the first one, where it
/// becomes a pair of pyramids on top of what was there.
pub(super) fn transfer(
    norm: Norm,
    eps: f32,
    shape: Shape,
    side: usize,
    [clean, best]: [&[f32]; 2],
    drawn: &[f32],
) -> Vec<f32> {
    let Shape { channels, height, width } = shape;
    let at = |i: usize| [place(drawn[i], height - side), place(drawn[i + 1], width - side)];
    let (first, second) = (at(0), at(2));
    let shapes = pattern::pyramids(norm, side, drawn[4] > 0.5);
    let mut delta: Vec<f32> = best.iter().zip(clean).map(|(b, c)| b - c).collect();
    let spare = (f64::from(eps), norm.length(&delta), channels as f64);
    let mut fresh = Vec::with_capacity(channels);
    for channel in 0..channels {
        let cells = |corner| shape.window(channel, corner, side).map(|(i, _)| i);
        let old: Vec<f32> = cells(first).map(|i| delta[i]).collect();
        let inside = |i: usize, [top, left]: [usize; 2]| {
            let (r, c) = (i / width % height, i % width);
            (top..top + side).contains(&r) && (left..left + side).contains(&c)
        };
        let rest = cells(second).filter(|&i| !inside(i, first)).map(|i| delta[i]);
        let both = norm.length(&old.iter().copied().chain(rest).collect::<Vec<f32>>());
        let (sign, scale) = (sign(drawn[5 + channel]), 1e-12 + norm.length(&old));
        let mut new: Vec<f32> = shapes
            .iter()
            .zip(&old)
            .map(|(e, o)| e * sign + (f64::from(*o) / scale) as f32)
            .collect();
        let (eps, whole, count) = spare;
        let size = match norm {
            Norm::L1 => (((eps - whole).max(0.0)) / count + both) * count,
            _ => ((eps * eps - whole * whole).max(0.0) / count + both * both).sqrt(),
        };
        let factor = (size / (1e-12 + norm.length(&new))) as f32;
        new.iter_mut().for_each(|v| *v *= factor);
        fresh.push(new);
    }
    for (channel, new) in fresh.into_iter().enumerate() {
        shape.window(channel, second, side).for_each(|(i, _)| delta[i] = 0.0);
        shape.window(channel, first, side).for_each(|(i, j)| delta[i] = new[j]);
    }
    finish(norm, eps, clean, delta)
}

/// The picture of a perturbation brought to the surface of the ball (L2) or into it (L1).
fn finish(norm: Norm, eps: f32, clean: &[f32], mut delta: Vec<f32>) -> Vec<f32> {
    match norm {
        Norm::L1 => l1_box(clean, &mut delta, eps * (1.0 - 1e-6)),
        _ => {
            let factor = (f64::from(eps) / (norm.length(&delta) + 1e-12)) as f32;
            delta.iter_mut().for_each(|v| *v *= factor);
        }
    }
    clean.iter().zip(delta).map(|(c, d)| (c + d).clamp(0.0, 1.0)).collect()
}
