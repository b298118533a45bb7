//! TeCoA: text-guided adversarial fine-tuning.

use crate::{
    Beginning, Objective, ObjectiveInfo, Step, TrainError,
    adversarial::{attacked, is_tuned, outer},
    batches::Needs,
    recipe::Adversarial,
};
use burn::tensor::{Device, Int, Tensor, TensorData, activation::log_softmax};
use clipguard_model::{Clip, Head, ModelError, Template, normalise};

/// `max over delta of CE(s z(x + delta) T^T, y)`: the cross-entropy of the zero-shot classifier
/// on attacked pictures (Mao et al. 2023). The texts, and so the head `T`, are frozen;
/// only the picture tower is trained. The scale `s` is the model's own, 100 for OpenAI's.
pub struct Tecoa {
    /// Unit columns `[dim, classes]`.
    head: Tensor<2>,
    scale: f32,
    digest: String,
    settings: Adversarial,
}

impl Tecoa {
    /// Its entry in the catalogue.
    pub const INFO: ObjectiveInfo = ObjectiveInfo {
        name: "tecoa",
        summary: "adversarial fine-tuning: attacked pictures of a class stay with its name",
        source: "Mao et al. 2023, Understanding Zero-shot Adversarial Robustness",
        complete: |recipe| {
            recipe.adversarial.get_or_insert_default();
        },
        build: |beginning| Ok(Box::new(Self::new(beginning)?)),
    };

    fn new(beginning: &Beginning<'_>) -> Result<Self, TrainError> {
        let settings = beginning.recipe.adversarial.unwrap_or_default();
        if settings.trades {
            return Err(beginning.refuse(
                "adversarial.trades: `tecoa` compares with class names, not with an embedding; \
                 the option belongs to `fare`",
            ));
        }
        let classes = beginning.classes.filter(|classes| classes.len() > 1).ok_or_else(|| {
            let data = &beginning.recipe.data;
            beginning
                .refuse(format!("`tecoa` needs labels of two classes or more; {data} has none"))
        })?;
        let start = (beginning.start)()?;
        let clip =
            Clip::new(&start.architecture, &start.preprocess, &start.weights, &Device::flex())?;
        let template = Template::new(&beginning.recipe.template)
            .map_err(|e| beginning.refuse(format!("template: {e}")))?;
        let texts: Vec<Vec<String>> = classes.iter().map(|c| vec![template.fill(c)]).collect();
        let head = Head::new(&clip, classes, &texts)?.matrix;
        Ok(Self { head, scale: clip.scale(), digest: start.digest, settings })
    }

    /// Cross-entropy of each row, `[batch]`.
    fn losses(&self, embeddings: Tensor<2>, labels: &[usize]) -> Tensor<1> {
        let logits = normalise(embeddings).matmul(self.head.clone()) * self.scale;
        let index: Vec<i64> = labels.iter().map(|&label| label as i64).collect();
        let index = TensorData::new(index, [labels.len(), 1]);
        let index = Tensor::<2, Int>::from_data(index, &logits.device());
        log_softmax(logits, 1).gather(1, index).neg().flatten(0, 1)
    }
}

impl Objective for Tecoa {
    fn loss(&self, step: &Step<'_>) -> Result<Tensor<1>, ModelError> {
        let now = step.constant_clip()?;
        let clean = step.batch.pixels(&now);
        let labels = &step.batch.labels;
        let inner = |e: Tensor<2>| self.losses(e, labels).sum();
        let attacked = attacked(step, &now, &clean, &self.settings, inner);
        outer(
            step,
            &self.settings,
            [clean, attacked],
            |own| self.losses(own, labels).mean(),
            |e, _| self.losses(e, labels).mean(),
        )
    }

    fn trains(&self, name: &str) -> bool {
        is_tuned(name)
    }

    fn needs(&self) -> Needs {
        Needs::Label
    }

    fn keeps(&self) -> Option<&str> {
        Some(&self.digest)
    }
}
