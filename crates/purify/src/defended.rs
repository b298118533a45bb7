//! A zero-shot classifier with its defences: the victim of an honest evaluation.

use std::sync::Arc;

use burn::tensor::Tensor;
use clipguard_model::victim::{Query, Victim};

use crate::{Limit, Purifier};

/// Anything that turns pictures into embeddings.
pub trait Encoder: Send + Sync {
    /// Embeddings `[batch, dimensions]`, not normalised, of pictures `[batch, 3, height, width]` in
    /// `[0, 1]`; the normalisation with mean and standard deviation is inside. Differentiable.
    fn embed(&self, pixels: Tensor<4>) -> Tensor<2>;
}

impl<E: Encoder + ?Sized> Encoder for Arc<E> {
    fn embed(&self, pixels: Tensor<4>) -> Tensor<2> {
        (**self).embed(pixels)
    }
}

impl<E: Encoder + ?Sized> Encoder for Box<E> {
    fn embed(&self, pixels: Tensor<4>) -> Tensor<2> {
        (**self).embed(pixels)
    }
}

/// Purifiers around an encoder and a zero-shot head.
///
/// Pixels go through the pixel station of every purifier, the encoder, L2 normalisation, and the
/// embedding station of every purifier, in the order they were added; then
/// `logits = scale * z @ head`.
pub struct Defended<E> {
    encoder: E,
    head: Tensor<2>,
    scale: f32,
    purifiers: Vec<Arc<dyn Purifier>>,
}

impl<E: Encoder> Defended<E> {
    /// Without purifiers: the undefended model. `head` is `[dimensions, classes]` with one unit
    /// column a class; `scale` multiplies the cosines (100 for CLIP).
    pub fn new(encoder: E, head: Tensor<2>, scale: f32) -> Self {
        Self { encoder, head, scale, purifiers: Vec::new() }
    }

    /// With one more purifier.
    #[must_use]
    pub fn with(mut self, purifier: impl Purifier + 'static) -> Self {
        self.purifiers.push(Arc::new(purifier));
        self
    }

    /// The purifiers, in order.
    pub fn purifiers(&self) -> &[Arc<dyn Purifier>] {
        &self.purifiers
    }

    /// The tightest limit of the purifiers.
    pub fn limit(&self) -> Option<Limit> {
        self.purifiers.iter().filter_map(|p| p.limit()).min_by_key(|limit| limit.rows)
    }

    /// Purified unit embeddings `[batch, dimensions]` of a query.
    pub fn embedding(&self, query: Query<'_>) -> Tensor<2> {
        let Query { pixels, keys, draw } = query;
        let clean = self.purifiers.iter().fold(pixels, |x, p| p.pixels(x, keys, draw));
        let raw = unit(self.encoder.embed(clean));
        self.purifiers.iter().fold(raw, |z, p| p.embedding(z, keys, draw))
    }
}

impl<E: Encoder> Victim for Defended<E> {
    fn classes(&self) -> usize {
        self.head.dims()[1]
    }

    fn logits(&self, query: Query<'_>) -> Tensor<2> {
        self.embedding(query).matmul(self.head.clone()) * self.scale
    }
}

/// Rows divided by their Euclidean length, at least 1e-12; the gradient is finite at zero.
pub fn unit(rows: Tensor<2>) -> Tensor<2> {
    let length = rows.clone().square().sum_dim(1).clamp_min(1e-24).sqrt();
    rows / length
}
