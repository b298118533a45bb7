//! Training a diffusion prior for the embeddings of a CLIP model.

use crate::{
    Batch, Beginning, Figure, Objective, ObjectiveInfo, Step, TrainError,
    recipe::{PriorRecipe, Recipe},
};
use burn::tensor::Tensor;
use clipguard_data::Stream;
use clipguard_model::{
    Checkpoint, Clip, ModelError, Precision, Prior, Weights, normalise,
    prior::{Draw, Layout, is_constant},
    weights::write_safetensors,
};
use std::path::Path;

/// Name of the finished prior's file in the folder `checkpoint` of a run.
pub const PRIOR: &str = "prior.safetensors";

/// Borders of the bands of times whose loss is told, in tenths of all times.
const BANDS: [usize; 6] = [0, 1, 3, 6, 9, 10];

/// Squared error of the embedding that a prior restores from a noised one and its caption
/// (Ramesh et al. 2022, section 2.2): times uniform, noise normal, caption and noised
/// embedding hidden by chance, row by row from the sample's own stream. The CLIP model is frozen.
///
/// The prior is told the caption's embedding and not its tokens (`text` is 0 in its layout).
pub struct DiffusionPrior {
    clip: Clip,
    digest: String,
    layout: Layout,
    hidden: (f32, f32),
    seed: u64,
}

impl DiffusionPrior {
    /// Its entry in the catalogue.
    pub const INFO: ObjectiveInfo = ObjectiveInfo {
        name: "diffusion-prior",
        summary: "a prior that restores noised picture embeddings of a frozen model",
        source: "Ramesh et al. 2022, Hierarchical Text-Conditional Image Generation",
        complete: |recipe| {
            recipe.prior.get_or_insert_default();
        },
        build: |beginning| Ok(Box::new(Self::new(beginning)?)),
    };

    fn new(beginning: &Beginning<'_>) -> Result<Self, TrainError> {
        let Recipe { prior, seed, .. } = beginning.recipe;
        let prior = prior.unwrap_or_default();
        let start = (beginning.start)()?;
        let clip =
            Clip::new(&start.architecture, &start.preprocess, &start.weights, beginning.device)?;
        let PriorRecipe { depth, heads, head_width, widening, times, .. } = prior;
        let dim = start.architecture.embed_dim;
        let layout = Layout {
            dim,
            depth,
            heads,
            head_width,
            inner: widening * dim,
            text: 0,
            steps: times,
            normformer: true,
        };
        let hidden = (prior.hide_text, prior.hide_image);
        Ok(Self { clip, digest: start.digest, layout, hidden, seed: *seed })
    }

    /// Scaled unit embeddings of the pictures, and unit embeddings of the captions.
    fn embeddings(&self, batch: &Batch) -> Result<(Tensor<2>, Tensor<2>), ModelError> {
        let image = normalise(self.clip.encode_image(batch.pixels(&self.clip)));
        let text = normalise(self.clip.encode_text(&batch.tokens)?);
        Ok((image * (self.layout.dim as f64).sqrt(), text))
    }
}

impl Objective for DiffusionPrior {
    fn loss(&self, step: &Step<'_>) -> Result<Tensor<1>, ModelError> {
        let (image, text) = self.embeddings(step.batch)?;
        let purpose = format!("diffusion-prior/{}", step.step);
        let streams = step.batch.keys.iter().map(|key| Stream::keyed(step.seed, &purpose, key));
        let draw = Draw::new(streams, (0, self.layout.steps - 1), self.hidden, &image);
        let prior = Prior::new(self.layout, step.parameters)?;
        let (text, none) = (prior.text(text, None), prior.no_text());
        Ok(prior.errors(image, &draw, &text, &none).mean())
    }

    /// The loss with nothing hidden in five bands of times, and the variance of the embeddings. The
    /// loss has to rise with the time; in the last band, where hardly anything is seen of the
    /// embedding, it comes near the variance, and more than that is broken.
    fn figures(&self, step: &Step<'_>) -> Result<Vec<Figure>, ModelError> {
        let (image, text) = self.embeddings(step.batch)?;
        let prior = Prior::new(self.layout, step.parameters)?;
        let (text, none) = (prior.text(text, None), prior.no_text());
        let number = |x: Tensor<1>| Some(f64::from(x.into_scalar::<f32>()));
        let mut figures = Vec::new();
        for band in BANDS.windows(2) {
            let at = |share: usize| self.layout.steps * share / 10;
            let (first, last) = (at(band[0]), (at(band[1]).max(at(band[0]) + 1)) - 1);
            let purpose = format!("diffusion-prior/{}/{first}", step.step);
            let streams = step.batch.keys.iter().map(|key| Stream::keyed(step.seed, &purpose, key));
            let draw = Draw::new(streams, (first, last), (0.0, 0.0), &image);
            let loss = prior.errors(image.clone(), &draw, &text, &none).mean();
            figures.push((format!("loss at times {first} to {last}"), number(loss)));
        }
        let mean = image.clone().mean_dim(0);
        figures.push((
            "variance of the embeddings".to_owned(),
            number((image - mean).square().mean()),
        ));
        Ok(figures)
    }

    fn weights(&self, _clip: Weights) -> Weights {
        self.layout.initial_weights(self.seed)
    }

    fn trains(&self, name: &str) -> bool {
        !is_constant(name)
    }

    fn decays(&self, _name: &str, shape: &[usize]) -> bool {
        // The public recipe's rule, embeddings and biases of attention included.
        shape.len() >= 2
    }

    fn keeps(&self) -> Option<&str> {
        Some(&self.digest)
    }

    fn save(
        &self,
        model: &Checkpoint,
        folder: &Path,
        precision: Precision,
    ) -> Result<(), ModelError> {
        let at = |source| ModelError::Io { path: folder.to_owned(), source };
        std::fs::create_dir_all(folder).map_err(at)?;
        let about = Some(("format", "pt"));
        write_safetensors(&folder.join(PRIOR), &model.weights, precision, about)
    }
}
