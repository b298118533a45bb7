//! Average pooling `k x k` with stride `k` on `[n, h, w, c]`.

use super::fresh::in_tasks;

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
    let share = 1.0 / (s.k * s.k) as f32;
    in_tasks(x.len() / size * out, out, |i, y| {
        let x = &x[i * size..][..size];
        super::vectorised(
            #[inline(always)]
            || {
                s.for_windows(|to, from| {
                    let from = &x[from..from + s.c];
                    y[to..to + s.c].iter_mut().zip(from).for_each(|(y, x)| *y += x * share);
                });
            },
        );
    })
}

pub(crate) fn backward(s: &Shape, g: &[f32]) -> Vec<f32> {
    let (size, out) = s.sizes();
    let share = 1.0 / (s.k * s.k) as f32;
    in_tasks(g.len() / out * size, size, |i, dx| {
        let g = &g[i * out..][..out];
        super::vectorised(
            #[inline(always)]
            || {
                s.for_windows(|to, from| {
                    let g = &g[to..to + s.c];
                    dx[from..from + s.c].iter_mut().zip(g).for_each(|(d, g)| *d = g * share);
                });
            },
        );
    })
}
