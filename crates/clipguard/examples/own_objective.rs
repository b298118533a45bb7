//! A training objective of one's own: CyCLIP (Goel et al. 2022) on the embedded model.
//!
//! CLIP's loss compares every picture with every caption and nothing else. CyCLIP adds that the
//! similarity of picture j with caption k should be that of picture k with caption j, and that two
//! pictures should be as similar as their captions. It sees a batch through its embeddings alone, so
//! it is a `Contrast`, and batches larger than memory (`micro_batch`) come with it.
//!
//! `cargo run --release --example own_objective`

use clipguard::{
    burn::tensor::{Device, Tensor},
    data::{
        Options, Picture, open, parameters,
        scenes::Scenes,
        spelling::{Spelling, SpellingError},
    },
    model::{Checkpoint, Clip, ModelError, Tokenizer, loss::clip_loss, normalise},
    train::{Contrast, Objective, Outcome, Recipe, Run, Step, Watch, contrast},
};
use std::{error::Error, sync::atomic::AtomicBool};

parameters! {
    /// The two weights of CyCLIP; both are 1/4 in the publication.
    struct Cyclip {
        /// Weight of the difference between picture-caption and caption-picture similarities.
        cross: f32 = 0.25,
        /// Weight of the difference between the similarities of pictures and those of captions.
        within: f32 = 0.25,
    }
}

/// `sum_jk (<x_j, y_k> - <x_k, y_j>)^2 / n` and `sum_jk (<x_j, x_k> - <y_j, y_k>)^2 / n` of unit rows
/// `[n, dim]`, scaled as in the released code; `[1]` each.
fn gaps(x: &Tensor<2>, y: &Tensor<2>) -> [Tensor<1>; 2] {
    let products = |a: &Tensor<2>, b: &Tensor<2>| a.clone().matmul(b.clone().transpose());
    let n = x.dims()[0] as f32;
    let cross = products(x, y);
    let cross = (cross.clone() - cross.transpose()).square().sum() / n;
    [cross, (products(x, x) - products(y, y)).square().sum() / n]
}

impl Contrast for Cyclip {
    fn of_embeddings(
        &self,
        clip: &Clip,
        image: Tensor<2>,
        text: Tensor<2>,
    ) -> Result<Tensor<1>, ModelError> {
        let [cross, within] = gaps(&image, &text);
        let contrastive = clip_loss(image, text, clip.logit_scale().exp());
        Ok(contrastive + cross * self.cross + within * self.within)
    }
}

impl Objective for Cyclip {
    fn loss(&self, step: &Step<'_>) -> Result<Tensor<1>, ModelError> {
        contrast::whole(self, step)
    }

    fn contrast(&self) -> Option<&dyn Contrast> {
        Some(self)
    }
}

/// Prints what the run tells.
struct Printed;

impl Watch for Printed {
    fn step(&mut self, done: u64, total: u64, loss: f32) {
        println!("step {done:>2} of {total}: loss {loss:.3}");
    }

    fn skipped(&mut self, key: &str, reason: &str) {
        println!("left out {key}: {reason}");
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    train().map(|_| ())
}

/// The sum of both gaps before and after a few steps, on pairs that are not trained on.
fn train() -> Result<[f32; 2], Box<dyn Error>> {
    let recipe = Recipe {
        // The recipe says all that has an influence, so the settings are read from its text.
        objective: "cyclip:within=1/2".to_owned(),
        model: "embedded".to_owned(),
        data: "scenes:2000".to_owned(),
        steps: 10,
        batch: 32,
        warmup: 2,
        lr: 1e-4,
        ..Recipe::default()
    };
    let folder = tempfile::tempdir()?;
    let source = open(&recipe.data, &Options::default())?;
    let mut run = Run::start_with(recipe, source, &folder.path().join("run"), &|beginning| {
        let settings: Result<Cyclip, SpellingError> =
            beginning.recipe.objective.parse::<Spelling>().and_then(|spelling| spelling.read());
        Ok(Box::new(settings.map_err(|error| beginning.refuse(error.to_string()))?))
    })?;
    let before = gap(&run.checkpoint())?;
    let outcome = run.train(&mut Printed, &AtomicBool::new(false))?;
    assert_eq!(outcome, Outcome::Finished, "nobody asked it to stop");
    // The finished model is a checkpoint like any other, for this program and others.
    let after = gap(&Checkpoint::open(&folder.path().join("run/checkpoint").to_string_lossy())?)?;
    println!("gaps on held-out pairs: {before:.3} before, {after:.3} after");
    Ok([before, after])
}

/// The sum of both gaps on 64 pairs of pictures and captions.
fn gap(model: &Checkpoint) -> Result<f32, Box<dyn Error>> {
    let clip = model.build(&Device::flex())?;
    let (resize, context) = (clip.preprocess().resize, clip.architecture().text.context);
    let scenes = Scenes::parse("scenes:64:part=retrieval")?;
    let pictures: Vec<Picture> =
        (0..64).filter_map(|i| Some(resize.picture(&scenes.picture(i)?))).collect();
    let tokens: Vec<Vec<u32>> =
        (0..64).filter_map(|i| Some(Tokenizer::clip().row(&scenes.caption(i)?, context))).collect();
    let bytes: Vec<&[u8]> = pictures.iter().map(|picture| picture.rgb.as_slice()).collect();
    let image = normalise(clip.encode_image(clip.preprocess().stack(&bytes, clip.device())));
    let [cross, within] = gaps(&image, &normalise(clip.encode_text(&tokens)?));
    Ok((cross + within).into_scalar::<f32>())
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_few_steps_close_the_gaps() {
        let [before, after] = super::train().expect("the run finishes");
        assert!(after < before, "{before} before, {after} after");
    }
}
