//! Pictures for the report: chosen by rule, saved beside the records, read back.

use crate::{
    EvaluateError, Evaluation,
    records::record_file::write_atomic,
    report::{Block, Gallery, Pixels, Prediction, Report, Section, Triple},
    run::schedule::{Task, schedule},
    run::unit_file::UnitFile,
    run::units::Stage,
};
use burn::tensor::{Tensor, TensorData};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Pictures of one sample, for the report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Example {
    /// Sample key.
    pub key: String,
    /// Place in the order of the subset.
    #[serde(default)]
    pub position: usize,
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
    /// Pictures for the report: of the samples the first attack on the first defence broke, the
    /// first by hash of the key.
    pub(crate) fn examples(&self, result: &mut Evaluation) -> Result<(), EvaluateError> {
        let works = schedule(self.plan, &self.head)?;
        let first = works.iter().find_map(|work| {
            let of = work.groups.first()?.attacks.first()?;
            Some((work, of, &of.direct.first()?.1))
        });
        let Some((work, of, task)) = first else { return Ok(()) };
        let open = |task: &Task| {
            let stem = task.stem(self.folder, &self.head, self.plan.seed);
            UnitFile::open(&stem, task.picture(&self.head))
        };
        let (clean, attacked) = (open(&work.clean)?, open(task)?);
        let broken = (0..self.subset.len())
            .filter(|&i| clean.lines[i].right && !attacked.lines[i].right)
            .take(self.plan.pictures);
        let victim = self.classifier.defended(&work.defence.purify, None)?;
        let said = |pixels: Tensor<4>, i: usize| {
            let logits = self.classifier.logits(&victim, &pixels, &self.subset.keys[i..=i], 1);
            let p = self.classifier.probabilities(&logits);
            let mut order: Vec<usize> = (0..p.len()).collect();
            order.sort_by(|a, b| p[*b].total_cmp(&p[*a]));
            order.truncate(3);
            let named = |i: usize| (self.classifier.head.classes[i].clone(), f64::from(p[i]));
            order.into_iter().map(named).collect()
        };
        let [c, h, w] = self.head.shape;
        for i in broken {
            let before = self.subset.part(i..i + 1);
            let adversarial = attacked.pictures(i..i + 1)?;
            let data = TensorData::new(adversarial.clone(), [1, c, h, w]);
            let after = Tensor::from_data(data, &before.device());
            result.examples.push(Example {
                key: self.subset.keys[i].clone(),
                position: self.head.samples[i].position,
                side: h,
                clean: before.clone().into_data().try_to_vec::<f32>().unwrap_or_default(),
                adversarial,
                truth: self.classifier.head.classes[self.subset.labels[i]].clone(),
                before: said(before, i),
                after: said(after, i),
            });
        }
        if !result.examples.is_empty() {
            result.examples_of = format!("{} against {}", work.defence.name, of.attack);
        }
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

/// Saves the examples in the run folder, exactly as they were judged.
pub(crate) fn keep(result: &Evaluation, folder: &Path) -> Result<(), EvaluateError> {
    let kept = Kept { what: result.examples_of.clone(), examples: result.examples.clone() };
    let text = serde_json::to_vec(&kept).unwrap_or_default();
    Ok(write_atomic(&folder.join(FILE), &text)?)
}

/// The examples of shards as those of the whole: the first of all in the order of the subset.
pub(crate) fn merge(folders: &[PathBuf], count: usize, out: &Path) -> Result<(), EvaluateError> {
    let mut all = Kept { what: String::new(), examples: Vec::new() };
    for folder in folders {
        let path = folder.join(FILE);
        let refuse = |reason: String| EvaluateError::File { path: path.clone(), reason };
        let bytes = std::fs::read(&path).map_err(|e| refuse(e.to_string()))?;
        let kept: Kept = serde_json::from_slice(&bytes).map_err(|e| refuse(e.to_string()))?;
        if !kept.examples.is_empty() {
            all.what = kept.what;
        }
        all.examples.extend(kept.examples);
    }
    all.examples.sort_by_key(|example| example.position);
    all.examples.truncate(count);
    let text = serde_json::to_vec(&all).unwrap_or_default();
    Ok(write_atomic(&out.join(FILE), &text)?)
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
