//! Layers shared by the towers. Field names equal the checkpoint's keys.

use crate::{ModelError, Parameters, config::Transformer};
use burn::tensor::Tensor;
use clipguard_ops::{self as ops, Activation, Then, Weight};

/// `x w^T + b`, weight `[out, in]`.
#[derive(Clone, Debug)]
pub(crate) struct Linear {
    weight: Weight<2>,
    bias: Option<Tensor<1>>,
}

impl Linear {
    pub(crate) fn new(p: &Parameters, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Self {
        Self { weight: Weight::matrix(weight, p.precision()), bias }
    }

    pub(crate) fn read(p: &Parameters, name: &str) -> Result<Self, ModelError> {
        let (weight, bias) = (p.get(&format!("{name}.weight"))?, p.get(&format!("{name}.bias"))?);
        Ok(Self::new(p, weight, Some(bias)))
    }

    pub(crate) fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        self.then(x, Then::Nothing)
    }

    /// The same, and what follows.
    fn then<const D: usize>(&self, x: Tensor<D>, then: Then<D>) -> Tensor<D> {
        ops::linear_then(x, &self.weight, self.bias.clone(), then)
    }
}

/// LayerNorm over the last dimension.
#[derive(Clone, Debug)]
pub(crate) struct LayerNorm {
    weight: Tensor<1>,
    bias: Tensor<1>,
    eps: f32,
}

impl LayerNorm {
    pub(crate) fn read(p: &Parameters, name: &str, eps: f32) -> Result<Self, ModelError> {
        let (weight, bias) = (p.get(&format!("{name}.weight"))?, p.get(&format!("{name}.bias"))?);
        Ok(Self { weight, bias, eps })
    }

    pub(crate) fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        ops::layer_norm(x, self.weight.clone(), self.bias.clone(), self.eps)
    }
}

/// `x + ls_1(attn(ln_1(x)))`, then `x + ls_2(mlp(ln_2(x)))`.
#[derive(Clone, Debug)]
struct Block {
    ln_1: LayerNorm,
    in_proj: Linear,
    out_proj: Linear,
    ls_1: Option<Tensor<1>>,
    ln_2: LayerNorm,
    c_fc: Linear,
    c_proj: Linear,
    ls_2: Option<Tensor<1>>,
    heads: usize,
    activation: Activation,
    causal: bool,
}

impl Block {
    fn read(p: &Parameters, at: &str, t: &Transformer, causal: bool) -> Result<Self, ModelError> {
        let scale = |name: &str| match t.layer_scale {
            Some(_) => p.get(&format!("{at}.{name}.gamma")).map(Some),
            None => Ok(None),
        };
        Ok(Self {
            ln_1: LayerNorm::read(p, &format!("{at}.ln_1"), t.eps)?,
            in_proj: Linear::new(
                p,
                p.get(&format!("{at}.attn.in_proj_weight"))?,
                Some(p.get(&format!("{at}.attn.in_proj_bias"))?),
            ),
            out_proj: Linear::read(p, &format!("{at}.attn.out_proj"))?,
            ls_1: scale("ls_1")?,
            ln_2: LayerNorm::read(p, &format!("{at}.ln_2"), t.eps)?,
            c_fc: Linear::read(p, &format!("{at}.mlp.c_fc"))?,
            c_proj: Linear::read(p, &format!("{at}.mlp.c_proj"))?,
            ls_2: scale("ls_2")?,
            heads: t.heads,
            activation: t.activation,
            causal,
        })
    }

    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        // `x + gamma (y w^T + b)`
        let added =
            |x: Tensor<3>, layer: &Linear, y: Tensor<3>, gamma: &Option<Tensor<1>>| match gamma {
                Some(gamma) => x + layer.forward(y) * gamma.clone().unsqueeze(),
                None => layer.then(y, Then::Add(x)),
            };
        let packed = self.in_proj.forward(self.ln_1.forward(x.clone()));
        let attended = ops::attention(packed, self.heads, self.causal);
        let x = added(x, &self.out_proj, attended, &self.ls_1);
        let hidden =
            self.c_fc.then(self.ln_2.forward(x.clone()), Then::Activation(self.activation));
        added(x, &self.c_proj, hidden, &self.ls_2)
    }
}

/// A stack of residual attention blocks (`{name}.resblocks.{i}`).
#[derive(Clone, Debug)]
pub(crate) struct Blocks(Vec<Block>);

impl Blocks {
    pub(crate) fn read(
        p: &Parameters,
        name: &str,
        t: &Transformer,
        causal: bool,
    ) -> Result<Self, ModelError> {
        let block = |i| Block::read(p, &format!("{name}.resblocks.{i}"), t, causal);
        Ok(Self((0..t.layers).map(block).collect::<Result<_, _>>()?))
    }

    /// `[batch, tokens, width]` to the same.
    pub(crate) fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        self.0.iter().fold(x, |x, block| block.forward(x))
    }
}
