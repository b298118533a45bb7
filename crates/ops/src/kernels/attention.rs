//! Multi-head self-attention on packed `[batch, tokens, 3 * width]` queries, keys and values.
//!
//! Heads are read in place by strides. The backward pass recomputes the probabilities, so no
//! `tokens x tokens` matrix is kept. Under a causal mask the bits of a position do not depend on how
//! many positions follow it, so that texts can be cut behind their end.

use super::{
    dot, exp,
    fresh::in_tasks,
    largest,
    matmul::{Mat, product, rows},
    sum, vectorised,
};

/// Sizes of an attention.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) tokens: usize,
    pub(crate) width: usize,
    pub(crate) heads: usize,
    /// Position `i` sees `j <= i` only.
    pub(crate) causal: bool,
}

impl Shape {
    fn head_width(&self) -> usize {
        self.width / self.heads
    }

    fn scale(&self) -> f32 {
        1.0 / (self.head_width() as f32).sqrt()
    }

    /// Part `which` (0 query, 1 key, 2 value) of head `head` in one packed picture.
    fn part<'a>(&self, packed: &'a [f32], which: usize, head: usize) -> Mat<'a> {
        let start = which * self.width + head * self.head_width();
        Mat::strided(&packed[start..], self.tokens, self.head_width(), 3 * self.width)
    }

    /// Softmax probabilities of one head into `p`, `[tokens, tokens]`.
    fn probabilities(&self, packed: &[f32], head: usize, p: &mut [f32]) {
        let t = self.tokens;
        let (q, k) = (self.part(packed, 0, head), self.part(packed, 1, head));
        let scale = self.scale();
        rows(p, t, q, k.t(), false);
        vectorised(
            #[inline(always)]
            || {
                for (i, row) in p.chunks_exact_mut(t).enumerate() {
                    let seen = if self.causal { i + 1 } else { t };
                    let (row, hidden) = row.split_at_mut(seen);
                    hidden.fill(0.0);
                    let top = largest(row);
                    for v in &mut *row {
                        *v = exp(scale * (*v - top));
                    }
                    let inverse = 1.0 / sum(row);
                    for v in row {
                        *v *= inverse;
                    }
                }
            },
        );
    }
}

pub(crate) fn forward(s: &Shape, packed: &[f32]) -> Vec<f32> {
    let (t, w) = (s.tokens, s.width);
    in_tasks(packed.len() / 3, t * w, |i, y| {
        let packed = &packed[i * 3 * t * w..][..3 * t * w];
        let mut p = vec![0.0; t * t];
        for head in 0..s.heads {
            s.probabilities(packed, head, &mut p);
            let target = &mut y[head * s.head_width()..];
            rows(target, w, Mat::new(&p, t, t), s.part(packed, 2, head), false);
        }
    })
}

pub(crate) fn backward(s: &Shape, packed: &[f32], g: &[f32]) -> Vec<f32> {
    let (t, w, d) = (s.tokens, s.width, s.head_width());
    in_tasks(packed.len(), 3 * t * w, |i, dx| {
        let (packed, g) = (&packed[i * 3 * t * w..][..3 * t * w], &g[i * t * w..][..t * w]);
        let (mut p, mut dp) = (vec![0.0; t * t], vec![0.0; t * t]);
        for head in 0..s.heads {
            s.probabilities(packed, head, &mut p);
            let g = Mat::strided(&g[head * d..], t, d, w);
            product(&mut dp, t, g, s.part(packed, 2, head).t(), 1.0, false);
            product(&mut dx[2 * w + head * d..], 3 * w, Mat::new(&p, t, t).t(), g, 1.0, false);
            vectorised(
                #[inline(always)]
                || {
                    for (p, dp) in p.chunks_exact(t).zip(dp.chunks_exact_mut(t)) {
                        let mean = dot(p, dp);
                        for (dp, p) in dp.iter_mut().zip(p) {
                            *dp = p * (*dp - mean);
                        }
                    }
                },
            );
            let (q, k) = (s.part(packed, 0, head), s.part(packed, 1, head));
            let scores = Mat::new(&dp, t, t);
            product(&mut dx[head * d..], 3 * w, scores, k, s.scale(), false);
            product(&mut dx[w + head * d..], 3 * w, scores.t(), q, s.scale(), false);
        }
    })
}
