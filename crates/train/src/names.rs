//! The zero-shot classifier of the data's class names, frozen, as a target of training.

use crate::{Beginning, TrainError};
use burn::tensor::{Int, Tensor, TensorData, activation::log_softmax};
use clipguard_model::{Clip, Head, Template, normalise};

/// Class names as unit columns, by the text tower of the model a run starts from.
pub(crate) struct Names {
    /// Unit columns `[dim, classes]`.
    head: Tensor<2>,
    /// The model's own scale, 100 for OpenAI's.
    scale: f32,
    /// Digest of the model whose text tower made them.
    pub(crate) digest: String,
}

impl Names {
    /// The names of the data's classes in the recipe's template; `objective` is for messages.
    ///
    /// # Errors
    /// Data without labels or with one class only, a template that is none, a model that cannot
    /// be had.
    pub(crate) fn new(beginning: &Beginning<'_>, objective: &str) -> Result<Self, TrainError> {
        let classes = beginning.classes.filter(|classes| classes.len() > 1).ok_or_else(|| {
            let data = &beginning.recipe.data;
            beginning.refuse(format!(
                "`{objective}` needs labels of two classes or more; {data} has none"
            ))
        })?;
        let start = (beginning.start)()?;
        let clip =
            Clip::new(&start.architecture, &start.preprocess, &start.weights, beginning.device)?;
        let template = Template::new(&beginning.recipe.template)
            .map_err(|e| beginning.refuse(format!("template: {e}")))?;
        let texts: Vec<Vec<String>> = classes.iter().map(|c| vec![template.fill(c)]).collect();
        let head = Head::new(&clip, classes, &texts)?.matrix;
        Ok(Self { head, scale: clip.scale(), digest: start.digest })
    }

    /// Logarithms of the probabilities of all classes, `[batch, classes]`.
    pub(crate) fn log_probabilities(&self, embeddings: Tensor<2>) -> Tensor<2> {
        log_softmax(normalise(embeddings).matmul(self.head.clone()) * self.scale, 1)
    }

    /// Cross-entropy of each row, `[batch]`.
    pub(crate) fn losses(&self, embeddings: Tensor<2>, labels: &[usize]) -> Tensor<1> {
        surprise(self.log_probabilities(embeddings), labels)
    }
}

/// The negative entry of each row's label, `[batch]`.
pub(crate) fn surprise(log_probabilities: Tensor<2>, labels: &[usize]) -> Tensor<1> {
    let index: Vec<i64> = labels.iter().map(|&label| label as i64).collect();
    let index = TensorData::new(index, [labels.len(), 1]);
    let index = Tensor::<2, Int>::from_data(index, &log_probabilities.device());
    log_probabilities.gather(1, index).neg().flatten(0, 1)
}
