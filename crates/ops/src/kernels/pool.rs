//! Average pooling `k x k` with stride `k` on `[n, h, w, c]`.

use rayon::prelude::*;

/// `[n, h, w, c]` and the window side.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) h: usize,
    pub(crate) w: usize,
    pub(crate) c: usize,
    pub(crate) k: usize,
}

impl Shape {
    #[inline(always)]
    fn for_windows(&self, mut visit: impl FnMut(usize, usize)) {
        let (out_h, out_w) = (self.h / self.k, self.w / self.k);
        for oy in 0..out_h {
            for ox in 0..out_w {
                for ky in 0..self.k {
                    for kx in 0..self.k {
                        let from = (oy * self.k + ky) * self.w + ox * self.k + kx;
                        visit((oy * out_w + ox) * self.c, from * self.c);
                    }
                }
            }
        }
    }

    fn sizes(&self) -> (usize, usize) {
        (self.h * self.w * self.c, (self.h / self.k) * (self.w / self.k) * self.c)
    }
}

pub(crate) fn forward(s: &Shape, x: &[f32]) -> Vec<f32> {
    let (size, out) = s.sizes();
    let mut y = vec![0.0; x.len() / size * out];
    let share = 1.0 / (s.k * s.k) as f32;
    y.par_chunks_mut(out).zip(x.par_chunks(size)).for_each(|(y, x)| {
        super::vectorised(
            #[inline(always)]
            || {
                s.for_windows(|to, from| {
                    let from = &x[from..from + s.c];
                    y[to..to + s.c].iter_mut().zip(from).for_each(|(y, x)| *y += x * share);
                });
            },
        );
    });
    y
}

pub(crate) fn backward(s: &Shape, g: &[f32]) -> Vec<f32> {
    let (size, out) = s.sizes();
    let mut dx = vec![0.0; g.len() / out * size];
    let share = 1.0 / (s.k * s.k) as f32;
    dx.par_chunks_mut(size).zip(g.par_chunks(out)).for_each(|(dx, g)| {
        super::vectorised(
            #[inline(always)]
            || {
                s.for_windows(|to, from| {
                    let g = &g[to..to + s.c];
                    dx[from..from + s.c].iter_mut().zip(g).for_each(|(d, g)| *d = g * share);
                });
            },
        );
    });
    dx
}
