//! Zero-shot heads: class names and templates turned into a linear classifier.

use crate::{Clip, ModelError, clip::normalise, tokenizer::Tokenizer};
use burn::tensor::{Tensor, TensorData};

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
        if classes.is_empty() || classes.len() != texts.len() {
            return Err(ModelError::Head(format!(
                "{} classes and {} lists of texts",
                classes.len(),
                texts.len()
            )));
        }
        let flat: Vec<&str> = texts.iter().flatten().map(String::as_str).collect();
        let embeddings = embed_texts(clip, &flat)?;
        let dim = clip.architecture().embed_dim;
        let mut columns = vec![0f32; dim * classes.len()];
        let mut rows = embeddings.chunks_exact(dim);
        for (class, own) in texts.iter().enumerate() {
            if own.is_empty() {
                return Err(ModelError::Head(format!("class `{}` has no text", classes[class])));
            }
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

/// Unit text embeddings, `texts.len() * dim` values row by row.
pub fn embed_texts(clip: &Clip, texts: &[&str]) -> Result<Vec<f32>, ModelError> {
    let context = clip.architecture().text.context;
    let tokenizer = Tokenizer::clip();
    let mut values = Vec::with_capacity(texts.len() * clip.architecture().embed_dim);
    for chunk in texts.chunks(BATCH) {
        let rows: Vec<Vec<u32>> = chunk.iter().map(|t| tokenizer.row(t, context)).collect();
        let embedded = normalise(clip.encode_text(&rows)?);
        let embedded = if embedded.is_autodiff() { embedded.inner() } else { embedded };
        values.extend(embedded.into_data().try_to_vec::<f32>().unwrap_or_default());
    }
    Ok(values)
}
