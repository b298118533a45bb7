//! OpenAI's ModifiedResNet: three-convolution stem, anti-aliased strides, attention pooling.
//! Activations are channels-last inside; see `clipguard_ops`.

use crate::{
    ModelError, Parameters,
    config::{Architecture, Vision},
    layers::Linear,
    parameters::has_shortcut,
};
use burn::tensor::Tensor;
use clipguard_ops::{self as ops, BatchNorm, ColumnStatistics, Weight};
use std::{cell::RefCell, collections::BTreeSet};

/// Batch statistics seen in a training pass, by the name of their BatchNorm, with the number of
/// rows they were taken over.
pub type BatchStatistics = Vec<(String, ColumnStatistics, usize)>;

/// How BatchNorm behaves.
#[derive(Clone, Copy, Debug)]
pub enum Pass<'a> {
    /// Running statistics, constants for the gradient.
    Evaluate,
    /// Statistics of the batch, which are handed out for the running averages.
    Train(&'a RefCell<BatchStatistics>),
    /// As `Train`, but those of these names are frozen: as in `Evaluate`.
    Frozen(&'a RefCell<BatchStatistics>, &'a BTreeSet<String>),
}

impl<'a> Pass<'a> {
    /// The same, with statistics handed out to another place.
    pub fn counted_in(self, place: &'a RefCell<BatchStatistics>) -> Self {
        match self {
            Self::Evaluate => self,
            Self::Train(_) => Self::Train(place),
            Self::Frozen(_, names) => Self::Frozen(place, names),
        }
    }

    /// Where the BatchNorm `name` hands out the statistics of its batch, if it takes any.
    fn seen(self, name: &str) -> Option<&'a RefCell<BatchStatistics>> {
        match self {
            Self::Evaluate => None,
            Self::Train(seen) => Some(seen),
            Self::Frozen(seen, names) => (!names.contains(name)).then_some(seen),
        }
    }
}

/// A convolution without bias and its BatchNorm.
#[derive(Clone, Debug)]
struct ConvNorm {
    weight: Weight<4>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    running: ColumnStatistics,
    name: String,
    relu: bool,
}

impl ConvNorm {
    fn read(
        p: &Parameters,
        conv: &str,
        norm: &str,
        stride: usize,
        relu: bool,
    ) -> Result<Self, ModelError> {
        let part = |name: &str| p.get::<1>(&format!("{norm}.{name}"));
        let plain = |t: Tensor<1>| if t.is_autodiff() { t.inner() } else { t };
        let weight: Tensor<4> = p.get(&format!("{conv}.weight"))?;
        // Pictures keep their size, but for the stride.
        let pad = (weight.dims()[2] - 1) / 2;
        Ok(Self {
            weight: Weight::filters(weight, stride, pad, p.precision()),
            gamma: part("weight")?,
            beta: part("bias")?,
            running: ColumnStatistics {
                mean: plain(part("running_mean")?),
                variance: plain(part("running_var")?),
            },
            name: norm.to_owned(),
            relu,
        })
    }

    /// The convolution and its BatchNorm, a shortcut added to them, and ReLU if this has one.
    fn forward(&self, x: Tensor<4>, pass: Pass<'_>, shortcut: Option<Tensor<4>>) -> Tensor<4> {
        let norm = BatchNorm {
            statistics: &self.running,
            gamma: &self.gamma,
            beta: &self.beta,
            eps: 1e-5,
            of_batch: false,
            relu: self.relu,
        };
        let Some(seen) = pass.seen(&self.name) else {
            return ops::conv2d_norm(x, &self.weight, norm, shortcut);
        };
        let (stride, pad) = self.weight.window();
        let x = ops::conv2d(x, self.weight.tensor(), stride, pad);
        let statistics = ops::column_statistics(&x);
        let rows = x.dims()[..3].iter().product();
        seen.borrow_mut().push((self.name.clone(), statistics.clone(), rows));
        ops::batch_norm(x, BatchNorm { statistics: &statistics, of_batch: true, ..norm }, shortcut)
    }
}

#[derive(Clone, Debug)]
struct Bottleneck {
    conv1: ConvNorm,
    conv2: ConvNorm,
    conv3: ConvNorm,
    downsample: Option<ConvNorm>,
    stride: usize,
}

impl Bottleneck {
    fn forward(&self, x: Tensor<4>, pass: Pass<'_>) -> Tensor<4> {
        let y = self.conv2.forward(self.conv1.forward(x.clone(), pass, None), pass, None);
        let shortcut = match &self.downsample {
            Some(conv) => conv.forward(ops::avg_pool2d(x, self.stride), pass, None),
            None => x,
        };
        self.conv3.forward(ops::avg_pool2d(y, self.stride), pass, Some(shortcut))
    }
}

#[derive(Clone, Debug)]
struct AttentionPool {
    positional_embedding: Tensor<2>,
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    c_proj: Linear,
    heads: usize,
}

impl AttentionPool {
    /// Only the mean token asks, so queries are computed for it alone.
    fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let [batch, h, w, c] = x.dims();
        let x = x.reshape([batch, h * w, c]);
        let x = Tensor::cat(vec![x.clone().mean_dim(1), x], 1);
        let x = x + self.positional_embedding.clone().unsqueeze();
        let (tokens, head) = (h * w + 1, c / self.heads);
        let first = x.clone().slice([0..batch, 0..1, 0..c]);
        let q = self.q_proj.forward(first) * (head as f32).powf(-0.5);
        let (k, v) = (self.k_proj.forward(x.clone()), self.v_proj.forward(x));
        let split = [batch, tokens, self.heads, head];
        let scores = (k * q).reshape(split).sum_dim(3);
        let pooled = (softmax(scores) * v.reshape(split)).sum_dim(1);
        self.c_proj.forward(pooled.reshape([batch, c]))
    }
}

/// Softmax over the tokens, step by step: the framework's own rounds in another way where a gradient is asked
/// for, and the same picture must have the same embedding in both cases.
fn softmax(scores: Tensor<4>) -> Tensor<4> {
    let powers = (scores.clone() - scores.detach().max_dim(1)).exp();
    powers.clone() / powers.sum_dim(1)
}

/// Pixels to embedding by convolutions.
#[derive(Clone, Debug)]
pub(crate) struct ResNet {
    stem: [ConvNorm; 3],
    stages: Vec<Bottleneck>,
    attnpool: AttentionPool,
}

impl ResNet {
    pub(crate) fn read(p: &Parameters, arch: &Architecture) -> Result<Self, ModelError> {
        let Vision::ResNet { layers, width, heads, .. } = &arch.vision else {
            return Err(ModelError::Missing { name: "ModifiedResNet".to_owned() });
        };
        let conv = |c: String, n: String, relu| ConvNorm::read(p, &c, &n, 1, relu);
        let mut stages = Vec::new();
        let mut inputs = *width;
        for (stage, blocks) in layers.iter().enumerate() {
            let planes = width << stage;
            for block in 0..*blocks {
                let at = |part: &str| format!("visual.layer{}.{block}.{part}", stage + 1);
                stages.push(Bottleneck {
                    conv1: conv(at("conv1"), at("bn1"), true)?,
                    conv2: conv(at("conv2"), at("bn2"), true)?,
                    conv3: conv(at("conv3"), at("bn3"), true)?,
                    downsample: match has_shortcut(stage, block, inputs, planes) {
                        true => Some(conv(at("downsample.0"), at("downsample.1"), false)?),
                        false => None,
                    },
                    stride: if block == 0 && stage > 0 { 2 } else { 1 },
                });
                inputs = 4 * planes;
            }
        }
        let pool = |part: &str| Linear::read(p, &format!("visual.attnpool.{part}"));
        Ok(Self {
            stem: [
                ConvNorm::read(p, "visual.conv1", "visual.bn1", 2, true)?,
                ConvNorm::read(p, "visual.conv2", "visual.bn2", 1, true)?,
                ConvNorm::read(p, "visual.conv3", "visual.bn3", 1, true)?,
            ],
            stages,
            attnpool: AttentionPool {
                positional_embedding: p.get("visual.attnpool.positional_embedding")?,
                q_proj: pool("q_proj")?,
                k_proj: pool("k_proj")?,
                v_proj: pool("v_proj")?,
                c_proj: pool("c_proj")?,
                heads: *heads,
            },
        })
    }

    /// Normalised pixels `[batch, 3, side, side]` to embeddings `[batch, dim]`, not normalised.
    pub(crate) fn forward(&self, pixels: Tensor<4>, pass: Pass<'_>) -> Tensor<2> {
        let x = pixels.permute([0, 2, 3, 1]);
        let x = self.stem.iter().fold(x, |x, conv| conv.forward(x, pass, None));
        let x = ops::avg_pool2d(x, 2);
        let x = self.stages.iter().fold(x, |x, block| block.forward(x, pass));
        self.attnpool.forward(x)
    }
}
