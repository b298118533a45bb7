//! Zero-shot heads: class names and templates turned into a linear classifier.

use crate::{Clip, ModelError, clip::normalise, tokenizer::Tokenizer};
use burn::tensor::{Tensor, TensorData};
use clipguard_ops as ops;

/// Texts encoded at once.
const BATCH: usize = 256;

/// A linear zero-shot classifier on unit picture embeddings.
#[derive(Clone, Debug)]
pub struct Head {
    /// Class names.
    pub classes: Vec<String>,
    /// Unit columns `[dim, classes]`.
    pub matrix: Tensor<2>,
}

impl Head {
    /// The head of ready texts: for every class the unit embeddings of its texts are averaged and
    /// the average normalised (OpenAI's prompt ensembling; CLIP_benchmark does the same).
    pub fn new(clip: &Clip, classes: &[String], texts: &[Vec<String>]) -> Result<Self, ModelError> {
        let tokens: Vec<Vec<Vec<u32>>> = texts.iter().map(|own| rows(clip, own)).collect();
        Self::from_tokens(clip, classes, &tokens)
    }

    /// As [`Head::new`], of texts that are rows of token ids already.
    pub fn from_tokens(
        clip: &Clip,
        classes: &[String],
        texts: &[Vec<Vec<u32>>],
    ) -> Result<Self, ModelError> {
        if classes.is_empty() || classes.len() != texts.len() {
            return Err(ModelError::Head(format!(
                "{} classes and {} lists of texts",
                classes.len(),
                texts.len()
            )));
        }
        if let Some(class) = texts.iter().position(Vec::is_empty) {
            return Err(ModelError::Head(format!("class `{}` has no text", classes[class])));
        }
        let embeddings = embed_rows(clip, &texts.concat())?;
        let dim = clip.architecture().embed_dim;
        let mut columns = vec![0f32; dim * classes.len()];
        let mut rows = embeddings.chunks_exact(dim);
        for (class, own) in texts.iter().enumerate() {
            let mut mean = vec![0f64; dim];
            for row in rows.by_ref().take(own.len()) {
                mean.iter_mut().zip(row).for_each(|(m, v)| *m += f64::from(*v));
            }
            let norm = mean.iter().map(|m| m * m).sum::<f64>().sqrt().max(1e-12);
            for (i, m) in mean.iter().enumerate() {
                columns[i * classes.len() + class] = (m / norm) as f32;
            }
        }
        let data = TensorData::new(columns, [dim, classes.len()]);
        Ok(Self { classes: classes.to_vec(), matrix: Tensor::from_data(data, clip.device()) })
    }
}

/// `scale * z @ matrix`: logits `[batch, classes]` of unit embeddings `[batch, dim]`. Those of a
/// picture do not depend on the others of its batch.
pub fn logits(z: Tensor<2>, matrix: &Tensor<2>, scale: f32) -> Tensor<2> {
    ops::linear(z, matrix.clone().transpose(), None) * scale
}

/// Unit text embeddings, `texts.len() * dim` values row by row.
pub fn embed_texts(clip: &Clip, texts: &[&str]) -> Result<Vec<f32>, ModelError> {
    embed_rows(clip, &rows(clip, texts))
}

/// Mean of the unit embeddings of `texts`, `[dim]`: the blank prompt of CLIPure.
pub fn mean_text(clip: &Clip, texts: &[String]) -> Result<Tensor<1>, ModelError> {
    let dim = clip.architecture().embed_dim;
    let values = embed_rows(clip, &rows(clip, texts))?;
    let data = TensorData::new(values, [texts.len(), dim]);
    Ok(Tensor::<2>::from_data(data, clip.device()).mean_dim(0).reshape([dim]))
}

fn rows(clip: &Clip, texts: &[impl AsRef<str>]) -> Vec<Vec<u32>> {
    let (tokenizer, context) = (Tokenizer::clip(), clip.architecture().text.context);
    texts.iter().map(|text| tokenizer.row(text.as_ref(), context)).collect()
}

fn embed_rows(clip: &Clip, rows: &[Vec<u32>]) -> Result<Vec<f32>, ModelError> {
    let mut values = Vec::with_capacity(rows.len() * clip.architecture().embed_dim);
    for chunk in rows.chunks(BATCH) {
        let embedded = normalise(clip.encode_text(chunk)?);
        let embedded = if embedded.is_autodiff() { embedded.inner() } else { embedded };
        values.extend(embedded.into_data().try_to_vec::<f32>().unwrap_or_default());
    }
    Ok(values)
}
