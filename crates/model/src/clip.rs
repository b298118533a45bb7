//! A CLIP model: two towers, a scale, and how pictures and texts are prepared for them.

use crate::{
    Architecture, ModelError, Parameters, Preprocess, Weights,
    config::Vision,
    resnet::{Pass, ResNet},
    text::TextTower,
    vit::Vit,
};
use burn::tensor::{Device, Tensor};

#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "there is one of it in a model")]
enum Picture {
    Vit(Vit),
    ResNet(ResNet),
}

/// A CLIP model on a device, built from parameters and never changed.
#[derive(Clone, Debug)]
pub struct Clip {
    architecture: Architecture,
    preprocess: Preprocess,
    device: Device,
    picture: Picture,
    text: TextTower,
    logit_scale: Tensor<1>,
    logit_bias: Option<Tensor<1>>,
}

impl Clip {
    /// Builds the model from weights that already conform to the architecture
    /// ([`crate::parameters::conform`]).
    pub fn new(
        architecture: &Architecture,
        preprocess: &Preprocess,
        weights: &Weights,
        device: &Device,
    ) -> Result<Self, ModelError> {
        let parameters = Parameters::constant(weights, device);
        Self::from_parameters(architecture, preprocess, &parameters, device)
    }

    /// Builds the model from tensors; leaves among them receive gradients.
    pub fn from_parameters(
        architecture: &Architecture,
        preprocess: &Preprocess,
        p: &Parameters,
        device: &Device,
    ) -> Result<Self, ModelError> {
        let picture = match architecture.vision {
            Vision::Vit { .. } => Picture::Vit(Vit::read(p, architecture)?),
            Vision::ResNet { .. } => Picture::ResNet(ResNet::read(p, architecture)?),
        };
        Ok(Self {
            picture,
            text: TextTower::read(p, architecture)?,
            logit_scale: p.get("logit_scale")?,
            logit_bias: match architecture.init_logit_bias {
                Some(_) => Some(p.get("logit_bias")?),
                None => None,
            },
            architecture: architecture.clone(),
            preprocess: preprocess.clone(),
            device: device.clone(),
        })
    }

    /// Its architecture.
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// How pictures are brought to its input.
    pub fn preprocess(&self) -> &Preprocess {
        &self.preprocess
    }

    /// Where it computes.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Picture embeddings `[batch, dim]` (not normalised) of pixels `[batch, 3, side, side]` in
    /// `[0, 1]`, in evaluation mode. Differentiable with respect to tracked pixels.
    pub fn encode_image(&self, pixels: Tensor<4>) -> Tensor<2> {
        self.encode_image_in(pixels, Pass::Evaluate)
    }

    /// As [`Clip::encode_image`], in the given pass.
    pub fn encode_image_in(&self, pixels: Tensor<4>, pass: Pass<'_>) -> Tensor<2> {
        let x = self.preprocess.normalise(pixels);
        match &self.picture {
            Picture::Vit(tower) => tower.forward(x),
            Picture::ResNet(tower) => tower.forward(x, pass),
        }
    }

    /// Text embeddings `[batch, dim]` (not normalised) of rows of token ids, all of one length.
    pub fn encode_text(&self, rows: &[Vec<u32>]) -> Result<Tensor<2>, ModelError> {
        self.text.forward(rows, &self.device)
    }

    /// The logarithm of the logit scale, `[1]`.
    pub fn logit_scale(&self) -> Tensor<1> {
        self.logit_scale.clone()
    }

    /// The logit bias `[1]`, when the model has one.
    pub fn logit_bias(&self) -> Option<Tensor<1>> {
        self.logit_bias.clone()
    }

    /// `exp(logit_scale)`.
    pub fn scale(&self) -> f32 {
        self.logit_scale.clone().exp().into_scalar::<f32>()
    }
}

/// Rows divided by their L2 norm (at least 1e-12, as PyTorch's `normalize`).
pub fn normalise(x: Tensor<2>) -> Tensor<2> {
    // The square root has no finite slope at zero, so the clamp acts on the squares.
    let squares = x.clone().powi_scalar(2).sum_dim(1);
    x / squares.clamp_min(1e-24).sqrt()
}
