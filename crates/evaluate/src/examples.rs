//! Pictures for the report: chosen by rule, saved beside the records, read back.

use crate::{
    Defence, EvaluateError, Evaluation,
    record_file::write_atomic,
    report::{Block, Gallery, Pixels, Prediction, Report, Section, Triple},
    runner::Stage,
};
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Pictures of one sample, for the report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Example {
    /// Sample key.
    pub key: String,
    /// Side in pixels.
    pub side: usize,
    /// Clean pixels, planes of `[0, 1]`.
    pub clean: Vec<f32>,
    /// Attacked pixels.
    pub adversarial: Vec<f32>,
    /// True class.
    pub truth: String,
    /// The three likeliest classes of the clean picture, with confidences.
    pub before: Vec<(String, f64)>,
    /// The same for the attacked one.
    pub after: Vec<(String, f64)>,
}

impl Stage<'_> {
    /// Pictures for the report: of the samples the attack broke, the first by hash of the key.
    pub(crate) fn examples(
        &self,
        defence: &Defence,
        attack: &str,
        result: &mut Evaluation,
    ) -> Result<(), EvaluateError> {
        let gradient = (!defence.purify.is_empty()).then(|| defence.gradients[0]);
        let (outcome, attacked) = self.unit(&defence.purify, gradient, attack, None)?;
        let victim = self.victim(&defence.purify, None)?;
        let clean = self.classify(&victim, &self.subset.pixels)?.right(&self.subset.labels);
        let broken = (0..self.subset.len()).filter(|i| clean[*i] && !outcome.right[*i]);
        let chosen: Vec<usize> = broken.take(self.plan.pictures).collect();
        let [_, c, h, w] = attacked.dims();
        let plane = |pixels: &Tensor<4>, i: usize| {
            let one = pixels.clone().slice([i..i + 1, 0..c, 0..h, 0..w]);
            one.into_data().try_to_vec::<f32>().unwrap_or_default()
        };
        let said = |pixels: &Tensor<4>, i: usize| {
            let one = pixels.clone().slice([i..i + 1, 0..c, 0..h, 0..w]);
            let keys = &self.subset.keys[i..=i];
            let logits = self.classifier.logits(&victim, &one, keys, 1);
            let p = self.classifier.probabilities(&logits);
            let mut order: Vec<usize> = (0..p.len()).collect();
            order.sort_by(|a, b| p[*b].total_cmp(&p[*a]));
            order.truncate(3);
            let named = |i: usize| (self.classifier.head.classes[i].clone(), f64::from(p[i]));
            order.into_iter().map(named).collect()
        };
        for i in chosen {
            result.examples.push(Example {
                key: self.subset.keys[i].clone(),
                side: h,
                clean: plane(&self.subset.pixels, i),
                adversarial: plane(&attacked, i),
                truth: self.classifier.head.classes[self.subset.labels[i]].clone(),
                before: said(&self.subset.pixels, i),
                after: said(&attacked, i),
            });
        }
        result.examples_of = format!("{} against {attack}", defence.name);
        Ok(())
    }
}

/// What is kept of the examples of a run.
#[derive(Serialize, Deserialize)]
struct Kept {
    what: String,
    examples: Vec<Example>,
}

const FILE: &str = "examples.json";

impl Evaluation {
    /// Saves the examples in the run folder, exactly as they were judged.
    pub fn save_examples(&self, folder: &Path) -> Result<(), EvaluateError> {
        let kept = Kept { what: self.examples_of.clone(), examples: self.examples.clone() };
        let text = serde_json::to_vec(&kept).unwrap_or_default();
        Ok(write_atomic(&folder.join(FILE), &text)?)
    }
}

/// The report of a run folder, with its pictures where it has some.
pub fn report_of_run(folder: &Path) -> Result<Report, EvaluateError> {
    let mut report = Report::from_run(folder)?;
    let kept = std::fs::read(folder.join(FILE)).ok();
    let kept: Option<Kept> = kept.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    if let Some(kept) = kept.filter(|kept| !kept.examples.is_empty()) {
        let section = Section::new("What the attack changed", vec![Block::Gallery(gallery(&kept))]);
        let place = report.sections.len().min(1);
        report.sections.insert(place, section);
    }
    Ok(report)
}

fn gallery(kept: &Kept) -> Gallery {
    let pixels = |e: &Example, planes: &[f32]| Pixels {
        width: e.side,
        height: e.side,
        planes: planes.to_vec(),
    };
    let predictions = |said: &[(String, f64)]| {
        let one = |(label, confidence): &(String, f64)| Prediction {
            label: label.clone(),
            confidence: *confidence,
        };
        said.iter().map(one).collect()
    };
    let largest = kept.examples.iter().flat_map(|e| e.clean.iter().zip(&e.adversarial));
    let largest = largest.map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
    Gallery {
        title: kept.what.clone(),
        note: "Of the pictures the attack broke, the first by the hash of their names.".to_owned(),
        amplify: (0.5 / largest.max(1e-3)).round(),
        triples: kept
            .examples
            .iter()
            .map(|e| Triple {
                key: e.key.clone(),
                truth: e.truth.clone(),
                clean: pixels(e, &e.clean),
                adversarial: pixels(e, &e.adversarial),
                before: predictions(&e.before),
                after: predictions(&e.after),
            })
            .collect(),
    }
}
