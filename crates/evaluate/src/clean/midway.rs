//! A small measurement of a model that is still being trained: zero-shot accuracy and retrieval on
//! the same samples every time.
//!
//! The numbers are for a curve, not for a claim: they have no intervals and no attacks. A claim
//! is a [`Plan`]'s business.

use crate::{
    Classification, Classifier, EvaluateError, Plan, Subset, classifier::template_set,
    clean::captions, run::runner::class_names,
};
use burn::tensor::Device;
use clipguard_data::Options;
use clipguard_model::{Checkpoint, Preprocess, TemplateSet};

/// Pictures in the model at once; the numbers do not depend on it.
const BATCH: usize = 50;

/// What is measured, and on what.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Labelled pictures for zero-shot accuracy; empty for none.
    pub data: String,
    /// Picture-caption pairs for retrieval; empty for none.
    pub retrieval: String,
    /// Samples of each; 0 means all.
    pub samples: usize,
    /// Class names: empty for the source's own, else a built-in list or a file.
    pub classes: String,
    /// A built-in template set or a file.
    pub templates: String,
}

/// Measures one model after the other.
pub struct Midway {
    plan: Plan,
    labelled: Option<Labelled>,
    device: Device,
    threads: usize,
}

struct Labelled {
    subset: Subset,
    classes: Vec<String>,
    templates: TemplateSet,
}

impl Midway {
    /// Reads and prepares the labelled pictures; `preprocess` is that of the models to come.
    ///
    /// # Errors
    /// Data that cannot be read, that has no labels or captions, or more classes than names.
    pub fn new(
        settings: &Settings,
        preprocess: &Preprocess,
        device: &Device,
        threads: usize,
    ) -> Result<Self, EvaluateError> {
        let filled = |text: &String| (!text.is_empty()).then(|| text.clone());
        let plan = Plan {
            samples: settings.samples,
            batch: BATCH,
            classes: settings.classes.clone(),
            retrieval: filled(&settings.retrieval).into_iter().collect(),
            ..Plan::default()
        };
        let labelled = match filled(&settings.data) {
            None => None,
            Some(spelling) => {
                let source = clipguard_data::open(&spelling, &Options::default())?;
                let classes = class_names(&plan, source.as_ref())?;
                let templates = template_set(&settings.templates)?;
                let n = settings.samples;
                let subset = Subset::of(source.as_ref(), n, preprocess, device, threads)?;
                crate::run::runner::check_labels(&subset, &classes, &spelling)?;
                Some(Labelled { subset, classes, templates })
            }
        };
        for spelling in &plan.retrieval {
            clipguard_data::open(spelling, &Options::default())?;
        }
        Ok(Self { plan, labelled, device: device.clone(), threads })
    }

    /// Metrics of a model by CLIP_benchmark's names.
    ///
    /// # Errors
    /// A model that is none of CLIP's, or retrieval data that cannot be read.
    pub fn measure(
        &self,
        checkpoint: &Checkpoint,
    ) -> Result<Vec<(String, Option<f64>)>, EvaluateError> {
        let mut figures = Vec::new();
        if let Some(Labelled { subset, classes, templates }) = &self.labelled {
            let classifier = Classifier::new(checkpoint, classes, templates, &self.device)?;
            let victim = classifier.defended(&[], None)?;
            let logits = classifier.logits(&victim, &subset.pixels, &subset.keys, BATCH);
            let found = Classification::new(&logits, classes.len(), &subset.labels)?;
            for (name, value) in [
                ("acc1", found.acc1),
                ("acc5", found.acc5),
                ("mean_per_class_recall", found.mean_per_class_recall),
            ] {
                figures.push((name.to_owned(), value));
            }
        }
        for spelling in &self.plan.retrieval {
            let record =
                captions::retrieval(checkpoint, spelling, &self.plan, &self.device, self.threads)?;
            let names = record.metrics.0.keys();
            figures.extend(names.map(|name| (name.clone(), record.metrics.get(name))));
        }
        Ok(figures)
    }
}
