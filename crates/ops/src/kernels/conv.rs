//! Convolution on `[n, h, w, c]` pictures with the weight as PyTorch stores it, `[out, c, kh, kw]`.
//!
//! Channels last makes everything a matrix product on rows: gathering a window copies whole
//! channel vectors, the output needs no transposition, and a 1x1 convolution is `linear`. Filters are
//! brought into the order of a window, `[out, kh*kw*c]`, on the way in, and their gradient back.

use super::{
    finish::Finish,
    fresh::{in_rooms, in_tasks},
    matmul::{Mat, product},
    packed::{Packed, Source},
    task_rows, winograd,
};
use rayon::prelude::*;

/// Shape of a convolution; square kernels, symmetric zero padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) n: usize,
    pub(crate) h: usize,
    pub(crate) w: usize,
    pub(crate) c: usize,
    pub(crate) out: usize,
    pub(crate) kernel: usize,
    pub(crate) stride: usize,
    pub(crate) pad: usize,
}

/// Output rows a task should have at least, so that the product runs near its peak.
const TASK_ROWS: usize = 512;
/// Partial sums of the weight gradient. Fixed, so that bits do not depend on threads.
const PARTS: usize = 4;

impl Shape {
    pub(crate) fn out_h(&self) -> usize {
        (self.h + 2 * self.pad - self.kernel) / self.stride + 1
    }

    pub(crate) fn out_w(&self) -> usize {
        (self.w + 2 * self.pad - self.kernel) / self.stride + 1
    }

    /// Windows of a picture.
    pub(super) fn windows(&self) -> usize {
        self.out_h() * self.out_w()
    }

    /// Values of a window.
    pub(crate) fn window(&self) -> usize {
        self.kernel * self.kernel * self.c
    }

    /// Filters `[out, c, k, k]` in the order of a window, `[out, k*k*c]`.
    pub(crate) fn filters(&self, weight: &[f32]) -> Vec<f32> {
        self.turned(weight, self.c, self.kernel * self.kernel)
    }

    /// The inverse of [`Shape::filters`].
    fn unfiltered(&self, filters: &[f32]) -> Vec<f32> {
        self.turned(filters, self.kernel * self.kernel, self.c)
    }

    /// Every filter, a matrix of `rows` and `columns`, transposed.
    fn turned(&self, filters: &[f32], rows: usize, columns: usize) -> Vec<f32> {
        in_tasks(filters.len(), rows * columns, |i, to| {
            let from = &filters[i * rows * columns..][..rows * columns];
            for (column, to) in to.chunks_exact_mut(rows).enumerate() {
                for (row, to) in to.iter_mut().enumerate() {
                    *to = from[row * columns + column];
                }
            }
        })
    }

    /// Pictures a task of the weight gradient gathers at once: the same for any number of threads, because
    /// bits depend on it.
    fn group(&self) -> usize {
        TASK_ROWS.div_ceil(self.windows()).max(1)
    }

    /// Pictures of any other task.
    pub(super) fn pictures(&self) -> usize {
        let rows = self.windows();
        task_rows(self.n * rows, TASK_ROWS, self.window() * self.out).div_ceil(rows.max(1)).max(1)
    }

    /// Calls `visit(row, column, length, source)` for all parts of the windows of one picture: `column` is
    /// the offset in the window's row, `source` that in the picture, none outside of it. Neighbours in a
    /// line of the window are neighbours in the picture, so that most parts are a line.
    #[inline(always)]
    fn for_windows(&self, mut visit: impl FnMut(usize, usize, usize, Option<usize>)) {
        let (out_h, out_w, c) = (self.out_h(), self.out_w(), self.c);
        for oy in 0..out_h {
            for ox in 0..out_w {
                let (row, left) = (oy * out_w + ox, ox * self.stride);
                // Columns of the window inside the picture.
                let first = self.pad.saturating_sub(left).min(self.kernel);
                let end = (self.w + self.pad).saturating_sub(left).min(self.kernel).max(first);
                for ky in 0..self.kernel {
                    let y = (oy * self.stride + ky).wrapping_sub(self.pad);
                    let at = |kx: usize| (ky * self.kernel + kx) * c;
                    if y >= self.h || first == end {
                        visit(row, at(0), self.kernel * c, None);
                        continue;
                    }
                    let source = (y * self.w + left + first - self.pad) * c;
                    visit(row, at(0), first * c, None);
                    visit(row, at(first), (end - first) * c, Some(source));
                    visit(row, at(end), (self.kernel - end) * c, None);
                }
            }
        }
    }

    /// Windows of `pictures` as rows of a matrix `[pictures * out_h * out_w, kh*kw*c]`.
    pub(super) fn gather(&self, pictures: &[f32], columns: &mut Vec<f32>) {
        let (size, window) = (self.h * self.w * self.c, self.window());
        let rows = self.windows();
        columns.resize(pictures.len() / size * rows * window, 0.0);
        let targets = columns.chunks_exact_mut(rows * window);
        for (picture, target) in pictures.chunks_exact(size).zip(targets) {
            self.for_windows(|row, column, length, source| {
                let target = &mut target[row * window + column..][..length];
                match source {
                    Some(from) => target.copy_from_slice(&picture[from..from + length]),
                    None => target.fill(0.0),
                }
            });
        }
    }

    /// The adjoint of [`Shape::gather`]: adds every window entry to its source pixel.
    fn scatter(&self, columns: &[f32], pictures: &mut [f32]) {
        let (size, window) = (self.h * self.w * self.c, self.window());
        let rows = self.windows();
        let sources = columns.chunks_exact(rows * window);
        for (picture, columns) in pictures.chunks_exact_mut(size).zip(sources) {
            super::vectorised(
                #[inline(always)]
                || {
                    self.for_windows(|row, column, length, target| {
                        if let Some(to) = target {
                            let from = &columns[row * window + column..][..length];
                            let to = &mut picture[to..to + length];
                            for (to, from) in to.iter_mut().zip(from) {
                                *to += from;
                            }
                        }
                    });
                },
            );
        }
    }
}

pub(crate) fn forward(s: &Shape, x: &[f32], weight: &[f32]) -> Vec<f32> {
    if winograd::is_for(s) {
        return winograd::convolve::<f32>(s, x, &winograd::filters(s, weight), Finish::default());
    }
    let filters = Packed::<f32>::new(&s.filters(weight), s.window());
    filters.product(Source::Windows(s, x), None, Finish::default())
}

pub(crate) fn input_gradient(s: &Shape, g: &[f32], weight: &[f32]) -> Vec<f32> {
    if winograd::is_for(s) {
        return winograd::input_gradient(s, g, weight);
    }
    let (size, rows) = (s.h * s.w * s.c, s.windows());
    let filters = Packed::turned(&s.filters(weight), s.window(), 0..s.window());
    let pictures = s.pictures();
    in_rooms(s.n * size, pictures * size, Vec::new, |columns, i, room| {
        let dx = room.cleared();
        let m = dx.len() / size * rows;
        let g = &g[i * pictures * rows * s.out..][..m * s.out];
        columns.resize(m * s.window(), 0.0);
        filters.panels().rows(g, columns);
        s.scatter(columns, dx);
        dx
    })
}

pub(crate) fn weight_gradient(s: &Shape, g: &[f32], x: &[f32]) -> Vec<f32> {
    if winograd::is_for(s) {
        return winograd::weight_gradient(s, g, x);
    }
    let (size, rows) = (s.h * s.w * s.c, s.windows());
    let groups = s.n.div_ceil(s.group());
    let part = groups.div_ceil(PARTS) * s.group();
    let parts: Vec<Vec<f32>> = x
        .par_chunks(part * size)
        .zip(g.par_chunks(part * rows * s.out))
        .map(|(x, g)| {
            let mut dw = vec![0.0; s.window() * s.out];
            let mut columns = Vec::new();
            let xs = x.chunks(s.group() * size);
            for (x, g) in xs.zip(g.chunks(s.group() * rows * s.out)) {
                s.gather(x, &mut columns);
                let m = g.len() / s.out;
                let columns = Mat::new(&columns, m, s.window());
                product(&mut dw, s.window(), Mat::new(g, m, s.out).t(), columns, 1.0, true);
            }
            dw
        })
        .collect();
    let mut parts = parts.into_iter();
    let mut dw = parts.next().unwrap_or_else(|| vec![0.0; s.window() * s.out]);
    for part in parts {
        dw.iter_mut().zip(part).for_each(|(d, p)| *d += p);
    }
    s.unfiltered(&dw)
}
