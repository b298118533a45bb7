//! A zero-shot classifier ready to be defended: model, head, and what purifiers need of it.

use crate::EvaluateError;
use burn::tensor::{Device, Tensor, TensorData, activation::softmax};
use clipguard_data::{scenes, spelling::Spelling};
use clipguard_model::{
    Checkpoint, Clip, GradientMode, Head, Query, TemplateSet, Victim, checkpoint::hex, head,
    prompts,
};
use clipguard_purify::{Defended, Material, Purifier, Score, parse, parse_score};
use sha2::{Digest, Sha256};
use std::{path::Path, sync::Arc};

/// A model with a zero-shot head.
pub struct Classifier {
    /// The model.
    pub clip: Arc<Clip>,
    /// Class names and unit columns.
    pub head: Head,
    /// Name of the model, for records.
    pub name: String,
    /// SHA-256 of the weights.
    pub digest: String,
    /// SHA-256 of all prompts.
    pub head_digest: String,
    material: Material,
}

/// Templates by the name of a built-in set or from a file.
pub fn template_set(name: &str) -> Result<TemplateSet, EvaluateError> {
    if Path::new(name).is_file() {
        return Ok(TemplateSet::read(Path::new(name))?);
    }
    Ok(prompts::templates(name)?.clone())
}

/// The texts of a class. The `scenes` set knows articles and plurals, as the corpus does.
fn texts(templates: &TemplateSet, class: &str) -> Vec<String> {
    if templates.name() == "scenes" {
        return scenes::prompts(class);
    }
    templates.prompts(class).collect()
}

impl Classifier {
    /// Builds the classifier of `classes` with a set of templates.
    pub fn new(
        checkpoint: &Checkpoint,
        classes: &[String],
        templates: &TemplateSet,
        device: &Device,
    ) -> Result<Self, EvaluateError> {
        let clip = checkpoint.build(device)?;
        let texts: Vec<Vec<String>> = classes.iter().map(|c| texts(templates, c)).collect();
        let head = Head::new(&clip, classes, &texts)?;
        let blanks: Vec<String> = templates.blanks().collect();
        let mut hash = Sha256::new();
        texts.iter().flatten().chain(&blanks).for_each(|text| {
            hash.update(text);
            hash.update("\n");
        });
        let clip = Arc::new(clip);
        let blank = Some(head::mean_text(&clip, &blanks)?);
        Ok(Self {
            material: Material {
                blank,
                blanks,
                clip: Some(clip.clone()),
                head: Some(head.matrix.clone()),
            },
            clip,
            head,
            name: checkpoint.name.clone(),
            digest: checkpoint.digest.clone(),
            head_digest: hex(&hash.finalize()),
        })
    }

    /// The victim with these purifiers in front, in order; `gradient` overrides how the
    /// attacker's gradient passes each of them.
    pub fn defended(
        &self,
        purifiers: &[String],
        gradient: Option<GradientMode>,
    ) -> Result<Defended<Arc<Clip>>, EvaluateError> {
        let scale = self.clip.scale();
        let mut victim = Defended::new(self.clip.clone(), self.head.matrix.clone(), scale);
        for text in purifiers {
            victim = victim.with(self.purifier(text, gradient)?);
        }
        Ok(victim)
    }

    /// The score that `text` spells.
    pub(crate) fn score(&self, text: &str) -> Result<Arc<dyn Score>, EvaluateError> {
        Ok(parse_score(text, &self.material)?.into())
    }

    /// Embedding of the blank prompt `[dim]`, of any length.
    pub(crate) fn blank(&self) -> Option<&Tensor<1>> {
        self.material.blank.as_ref()
    }

    /// Digest of the file a purifier is read from, if there is one.
    pub(crate) fn purifier_file(&self, text: &str) -> Result<Option<String>, EvaluateError> {
        Ok(parse(text, &self.material)?.digest().map(str::to_owned))
    }

    fn purifier(
        &self,
        text: &str,
        gradient: Option<GradientMode>,
    ) -> Result<Box<dyn Purifier>, EvaluateError> {
        let plain = parse(text, &self.material)?;
        let (Some(mode), Some(_)) = (gradient, plain.spelling().get("gradient")) else {
            return Ok(plain);
        };
        let full = plain.spelling();
        let kept = full.settings().iter().filter(|(key, _)| key != "gradient").cloned();
        let mode = ("gradient".to_owned(), mode_name(mode).to_owned());
        let full = Spelling::new(full.name(), kept.chain([mode]))?;
        Ok(parse(&full.to_string(), &self.material)?)
    }

    /// Logits of a victim for prepared pixels, `batch` pictures at a time, row by row.
    pub fn logits(
        &self,
        victim: &dyn Victim,
        pixels: &Tensor<4>,
        keys: &[String],
        batch: usize,
    ) -> Vec<f32> {
        let [n, c, h, w] = pixels.dims();
        let mut values = Vec::with_capacity(n * victim.classes());
        for start in (0..n).step_by(batch.max(1)) {
            let end = (start + batch.max(1)).min(n);
            let part = pixels.clone().slice([start..end, 0..c, 0..h, 0..w]);
            let logits = victim.logits(Query { pixels: part, keys: &keys[start..end], draw: 0 });
            values.extend(logits.into_data().try_to_vec::<f32>().unwrap_or_default());
        }
        values
    }

    /// Softmax of rows of logits.
    pub fn probabilities(&self, logits: &[f32]) -> Vec<f32> {
        let c = self.head.classes.len();
        let data = TensorData::new(logits.to_vec(), [logits.len() / c, c]);
        let rows = Tensor::<2>::from_data(data, self.clip.device());
        softmax(rows, 1).into_data().try_to_vec::<f32>().unwrap_or_default()
    }
}

/// A gradient mode as it is spelled.
pub fn mode_name(mode: GradientMode) -> &'static str {
    match mode {
        GradientMode::Exact => "exact",
        GradientMode::Detached => "detached",
        GradientMode::StraightThrough => "straight-through",
    }
}
