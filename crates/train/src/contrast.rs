//! Objectives that see the pairs of a batch only through their embeddings, and what follows from
//! it: a batch of any size in the memory of a small one.
//!
//! A contrastive loss compares every picture with every caption, so its gradient is not a mean
//! over parts of the batch: summing the gradients of small batches trains with the few negatives of
//! a small batch. But the towers see one sample at a time, and the loss sees embeddings alone. So
//! the batch is embedded part by part without a graph, the loss of all embeddings gives its
//! gradient at each of them, and a second pass takes that gradient through the towers, again part
//! by part (Gao et al. 2021, Scaling Deep Contrastive Learning Batch Size under Memory Limited
//! Setup). The price is one more forward pass; the memory of activations is that of one part.

use crate::{
    Batch, Objective, Step,
    gradients::{Gradients, add, backward},
};
use burn::tensor::{Tensor, TensorData};
use clipguard_model::{Clip, ModelError, Pass, normalise};
use std::cell::RefCell;

/// A loss on the embeddings of pairs.
pub trait Contrast: Send + Sync {
    /// The loss `[1]` of unit embeddings `[batch, dim]` of pictures and of their captions, row by
    /// row; `clip` has the logit scale and bias.
    fn of_embeddings(
        &self,
        clip: &Clip,
        image: Tensor<2>,
        text: Tensor<2>,
    ) -> Result<Tensor<1>, ModelError>;
}

/// The loss on a whole batch in one graph.
pub fn whole(objective: &dyn Contrast, step: &Step<'_>) -> Result<Tensor<1>, ModelError> {
    let clip = step.clip()?;
    let [image, text] = embeddings(&clip, step.batch, step.pass)?;
    objective.of_embeddings(&clip, image, text)
}

/// The loss of a step and its gradients, with at most `rows` pairs in the towers at a time where
/// the objective allows it and the batch has more; 0 is no limit.
pub(crate) fn gradients(
    objective: &dyn Objective,
    step: &Step<'_>,
    rows: usize,
) -> Result<(f32, Gradients), ModelError> {
    match objective.contrast() {
        Some(contrast) if (1..step.batch.pictures.len()).contains(&rows) => {
            in_parts(contrast, step, rows)
        }
        _ => {
            let loss = objective.loss(step)?;
            let gradients = backward(&loss, step.parameters.leaves());
            Ok((loss.into_scalar::<f32>(), gradients))
        }
    }
}

fn in_parts(
    objective: &dyn Contrast,
    step: &Step<'_>,
    rows: usize,
) -> Result<(f32, Gradients), ModelError> {
    let parts = step.batch.parts(rows);
    let (mut images, mut texts) = (Vec::new(), Vec::new());
    let plain = step.constant_clip()?;
    for part in &parts {
        // BatchNorm normalises as in the second pass, but its statistics are counted once.
        let uncounted = RefCell::default();
        let [image, text] = embeddings(&plain, part, step.pass.counted_in(&uncounted))?;
        images.extend(values(image));
        texts.extend(values(text));
    }
    drop(plain);

    let clip = step.clip()?;
    let shape = [step.batch.pictures.len(), step.architecture.embed_dim];
    let leaf = |rows: Vec<f32>| {
        let n = rows.len();
        Tensor::<1>::from_data(TensorData::new(rows, [n]), clip.device()).require_grad()
    };
    let (image, text) = (leaf(images), leaf(texts));
    let loss = objective.of_embeddings(
        &clip,
        image.clone().reshape(shape),
        text.clone().reshape(shape),
    )?;
    let ends = [(IMAGE, &image), (TEXT, &text)];
    let mut sum = backward(&loss, step.parameters.leaves().chain(ends));
    let pulls = [IMAGE, TEXT].map(|end| sum.remove(end).unwrap_or_default());

    let mut start = 0;
    for part in &parts {
        // A graph is consumed by its backward pass, the parameters' reshapings with it.
        let clip = step.clip()?;
        let n = part.pictures.len() * shape[1];
        let mut surrogate = None;
        for (rows, pull) in embeddings(&clip, part, step.pass)?.into_iter().zip(&pulls) {
            let Some(pull) = pull.get(start..start + n) else { continue };
            let data = TensorData::new(pull.to_vec(), rows.dims());
            let pulled = (rows * Tensor::<2>::from_data(data, clip.device())).sum();
            surrogate = Some(surrogate.map_or(pulled.clone(), |sum: Tensor<1>| sum + pulled));
        }
        if let Some(surrogate) = surrogate {
            add(&mut sum, backward(&surrogate, step.parameters.leaves()));
        }
        start += n;
    }
    Ok((loss.into_scalar::<f32>(), sum))
}

/// Names of the embeddings among the leaves; no parameter is called so.
const IMAGE: &str = "the embeddings of the pictures";
const TEXT: &str = "the embeddings of the captions";

/// Unit embeddings of pictures and captions.
fn embeddings(clip: &Clip, batch: &Batch, pass: Pass<'_>) -> Result<[Tensor<2>; 2], ModelError> {
    let image = normalise(clip.encode_image_in(batch.pixels(clip), pass));
    Ok([image, normalise(clip.encode_text(&batch.tokens)?)])
}

fn values(rows: Tensor<2>) -> Vec<f32> {
    rows.into_data().try_to_vec::<f32>().unwrap_or_default()
}

#[cfg(test)]
mod tests;
