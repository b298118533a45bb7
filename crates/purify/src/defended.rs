//! A zero-shot classifier with its defences: the victim of an honest evaluation.

use std::sync::Arc;

use burn::tensor::Tensor;
use clipguard_model::{Encoder, Query, Victim, head, normalise};

use crate::{Limit, Purifier};

/// Purifiers around an encoder and a zero-shot head.
///
/// Pixels go through the pixel station of every purifier, the encoder with L2 normalisation (as
/// often as a purifier asks it), and the embedding station of every purifier, in the order they were
/// added; then `logits = scale * z @ head`.
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
        let (keys, draw) = (query.keys, query.draw);
        self.purified(self.raw(query), keys, draw)
    }

    /// Unit embeddings `[batch, dimensions]` of a query in front of the embedding stations.
    pub fn raw(&self, query: Query<'_>) -> Tensor<2> {
        let Query { pixels, keys, draw } = query;
        self.encoded(&self.purifiers, self.pixels(pixels, keys, draw), keys, draw)
    }

    /// What the pixel stations make of pictures.
    pub fn pixels(&self, pixels: Tensor<4>, keys: &[String], draw: u64) -> Tensor<4> {
        self.purifiers.iter().fold(pixels, |x, p| p.pixels(x, keys, draw))
    }

    /// What the embedding stations make of unit embeddings.
    pub fn purified(&self, raw: Tensor<2>, keys: &[String], draw: u64) -> Tensor<2> {
        self.purifiers.iter().fold(raw, |z, p| p.embedding(z, keys, draw))
    }

    /// Logits `[batch, classes]` of purified embeddings.
    pub fn classify(&self, embedding: Tensor<2>) -> Tensor<2> {
        head::logits(embedding, &self.head, self.scale)
    }

    /// The encoder as the last of `purifiers` asks it, each of its questions as the one before
    /// asks it, and so on.
    fn encoded(
        &self,
        purifiers: &[Arc<dyn Purifier>],
        pixels: Tensor<4>,
        keys: &[String],
        draw: u64,
    ) -> Tensor<2> {
        match purifiers.split_last() {
            None => normalise(self.encoder.embed(pixels)),
            Some((last, others)) => {
                last.encode(pixels, keys, draw, &|x| self.encoded(others, x, keys, draw))
            }
        }
    }
}

impl<E: Encoder> Victim for Defended<E> {
    fn classes(&self) -> usize {
        self.head.dims()[1]
    }

    fn logits(&self, query: Query<'_>) -> Tensor<2> {
        self.classify(self.embedding(query))
    }

    fn optimises(&self) -> Option<String> {
        let dynamic = self.purifiers.iter().find(|purifier| purifier.optimises());
        dynamic.map(|purifier| purifier.spelling().name().to_owned())
    }
}
