//! What an attack attacks: anything that gives logits for pixels.

use crate::Clip;
use burn::tensor::Tensor;
use std::sync::Arc;

/// A batch of pictures put to a [`Victim`].
#[derive(Clone, Debug)]
pub struct Query<'a> {
    /// `[batch, 3, height, width]` in `[0, 1]`; may be tracked for gradients.
    pub pixels: Tensor<4>,
    /// One key a picture. A random defence keys its stream by it, so that its answer for a
    /// picture does not depend on the company it comes in.
    pub keys: &'a [String],
    /// Which of a random defence's draws is wanted; a deterministic victim ignores it.
    pub draw: u64,
}

/// Anything that gives logits for pixels, and gradients when the pixels are tracked.
///
/// Every step behind the point where the attacker acts belongs to the victim: normalisation with
/// mean and standard deviation, encoder, purification, head. Rows must not depend on each other
/// unless the victim says so in its name.
pub trait Victim: Send + Sync {
    /// Number of classes.
    fn classes(&self) -> usize;

    /// Logits `[batch, classes]`, differentiable with respect to `query.pixels`.
    fn logits(&self, query: Query<'_>) -> Tensor<2>;

    /// The part of it that optimises while it answers, by name, if there is one. Such a victim reacts
    /// to the attack, and what a plain gradient finds against it proves little (AutoAttack's check
    /// of dynamic defences; Croce et al. 2022).
    fn optimises(&self) -> Option<String> {
        None
    }

    /// The same with what an attacker wants high beside its loss.
    fn answer(&self, query: Query<'_>) -> Answer {
        Answer { logits: self.logits(query), bonus: None }
    }
}

/// What a [`Victim`] answers to an attack that follows gradients.
#[derive(Clone, Debug)]
pub struct Answer {
    /// `[batch, classes]`.
    pub logits: Tensor<2>,
    /// A number a row that is added to the attack's loss, `[batch]`: how inconspicuous the picture
    /// is to a detector, for an attacker who knows of it.
    pub bonus: Option<Tensor<1>>,
}

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

impl Encoder for Clip {
    fn embed(&self, pixels: Tensor<4>) -> Tensor<2> {
        self.encode_image(pixels)
    }
}

/// How the gradient of the attacker passes a defence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GradientMode {
    /// The derivative of what the defence computes.
    #[default]
    Exact,
    /// Inner gradients are constants for the outer derivative (what released code often does).
    Detached,
    /// Forward as it is, backward as if the defence were the identity.
    StraightThrough,
}
