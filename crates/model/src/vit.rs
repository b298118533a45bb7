//! The vision transformer of CLIP (Radford et al. 2021; keys as in open_clip).

use crate::{
    ModelError, Parameters,
    config::{Architecture, Pool, Vision},
    layers::{Blocks, LayerNorm, Linear},
};
use burn::tensor::Tensor;
use clipguard_ops as ops;

/// Pixels to embedding by patches and attention.
#[derive(Clone, Debug)]
pub(crate) struct Vit {
    /// The filters of the patches, as rows.
    conv1: Linear,
    patch: usize,
    class_embedding: Tensor<1>,
    positional_embedding: Tensor<2>,
    ln_pre: Option<LayerNorm>,
    transformer: Blocks,
    ln_post: LayerNorm,
    proj: Tensor<2>,
    pool: Pool,
    final_ln_after_pool: bool,
}

impl Vit {
    pub(crate) fn read(p: &Parameters, arch: &Architecture) -> Result<Self, ModelError> {
        let Vision::Vit { transformer, ln_pre, pool, final_ln_after_pool, .. } = &arch.vision
        else {
            return Err(ModelError::Missing { name: "vision transformer".to_owned() });
        };
        let eps = transformer.eps;
        let conv1: Tensor<4> = p.get("visual.conv1.weight")?;
        let [width, channels, patch, _] = conv1.dims();
        Ok(Self {
            // A convolution whose stride is its kernel is a product on rearranged pixels.
            conv1: Linear::new(p, conv1.reshape([width, channels * patch * patch]), None),
            patch,
            class_embedding: p.get("visual.class_embedding")?,
            positional_embedding: p.get("visual.positional_embedding")?,
            ln_pre: match ln_pre {
                true => Some(LayerNorm::read(p, "visual.ln_pre", eps)?),
                false => None,
            },
            transformer: Blocks::read(p, "visual.transformer", transformer, false)?,
            ln_post: LayerNorm::read(p, "visual.ln_post", eps)?,
            proj: p.get("visual.proj")?,
            pool: *pool,
            final_ln_after_pool: *final_ln_after_pool,
        })
    }

    /// Normalised pixels `[batch, 3, side, side]` to embeddings `[batch, dim]`, not normalised.
    pub(crate) fn forward(&self, pixels: Tensor<4>) -> Tensor<2> {
        let [batch, _, h, w] = pixels.dims();
        let ([width], patch) = (self.class_embedding.dims(), self.patch);
        let (rows, columns) = (h / patch, w / patch);
        let patches = pixels
            .slice([0..batch, 0..3, 0..rows * patch, 0..columns * patch])
            .reshape([batch, 3, rows, patch, columns, patch])
            .permute([0, 2, 4, 1, 3, 5])
            .reshape([batch, rows * columns, 3 * patch * patch]);
        let x = self.conv1.forward(patches);
        let class = self.class_embedding.clone().reshape([1, 1, width]).expand([batch, 1, width]);
        let x = Tensor::cat(vec![class, x], 1) + self.positional_embedding.clone().unsqueeze();
        let x = match &self.ln_pre {
            Some(norm) => norm.forward(x),
            None => x,
        };
        let x = self.transformer.forward(x);
        let x = if self.final_ln_after_pool {
            self.ln_post.forward(self.pool(x))
        } else {
            // LayerNorm acts on each token alone: where one token is pooled, norm only that one.
            match self.pool {
                Pool::Average => self.pool(self.ln_post.forward(x)),
                _ => self.ln_post.forward(self.pool(x)),
            }
        };
        ops::linear(x, self.proj.clone().transpose(), None)
    }

    fn pool(&self, x: Tensor<3>) -> Tensor<2> {
        let [batch, tokens, width] = x.dims();
        match self.pool {
            Pool::Average => x.slice([0..batch, 1..tokens, 0..width]).mean_dim(1).squeeze_dim(1),
            _ => x.slice([0..batch, 0..1, 0..width]).squeeze_dim(1),
        }
    }
}
