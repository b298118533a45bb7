//! Linear probes: what a linear classifier finds in the embeddings of labelled pictures.
//!
//! Two recipes. `logistic` is the one to trust: it has one answer. `reference` repeats
//! CLIP_benchmark's, whose answer depends on the order of its batches, for comparison with numbers
//! made there. Both choose their regularisation on a validation source by the same search, and
//! without one take the value that the reference takes.
//!
//! All samples count: a probe on a part of the training pictures is another probe (`shots` says
//! so).

mod logistic;
mod reference;

use crate::{Classification, EvaluateError, Plan, Record, clean::captions};
use burn::tensor::Device;
use clipguard_data::{DataError, Limits, Loader, LoaderOptions, Options, Source, Stream};
use clipguard_model::{Checkpoint, Clip, normalise};
use logistic::Problem;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Steps of L-BFGS (OpenAI's example).
const LIMIT: usize = 1000;
/// The inverse of regularisation without a validation source (OpenAI's example).
const C: f64 = 0.316;
/// Values of the search, and the distance of those that are tried first.
const GRID: usize = 97;
const COARSE: usize = 16;

/// How the linear layer is fitted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// Multinomial logistic regression by L-BFGS in double precision.
    #[default]
    Logistic,
    /// CLIP_benchmark's: AdamW on shuffled batches.
    Reference,
}

/// A linear probe of a plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Probe {
    /// Labelled pictures to fit on.
    pub train: String,
    /// Labelled pictures to measure on.
    pub test: String,
    /// Labelled pictures to choose the regularisation on; empty for none.
    pub validation: String,
    /// How the layer is fitted.
    pub method: Method,
    /// Pictures of each class to fit on, chosen by their keys and the seed; 0 means all.
    pub shots: usize,
    /// Whether embeddings have unit length.
    pub normalise: bool,
}

impl Default for Probe {
    fn default() -> Self {
        Self {
            train: String::new(),
            test: String::new(),
            validation: String::new(),
            method: Method::Logistic,
            shots: 0,
            normalise: true,
        }
    }
}

impl Probe {
    /// Says which value makes no sense and what would be right.
    pub fn check(&self) -> Result<(), String> {
        for (key, value) in [("train", &self.train), ("test", &self.test)] {
            if value.is_empty() {
                return Err(format!("probe: `{key}` is missing, a labelled source"));
            }
        }
        Ok(())
    }
}

/// A linear layer: weights `[classes, dim]` and a bias each.
#[derive(Clone, Debug, PartialEq)]
struct Linear {
    weights: Vec<f32>,
    bias: Vec<f32>,
    dim: usize,
}

impl Linear {
    fn zero(dim: usize, classes: usize) -> Self {
        Self { weights: vec![0.0; dim * classes], bias: vec![0.0; classes], dim }
    }

    fn scores(&self, row: &[f32]) -> Vec<f32> {
        let dot = |own: &[f32]| own.iter().zip(row).map(|(w, x)| w * x).sum::<f32>();
        self.weights.chunks_exact(self.dim).zip(&self.bias).map(|(own, b)| dot(own) + b).collect()
    }

    fn measured(&self, set: &Features, classes: usize) -> Result<Classification, EvaluateError> {
        let scores: Vec<f32> =
            set.rows.chunks_exact(self.dim).flat_map(|row| self.scores(row)).collect();
        Ok(Classification::new(&scores, classes, &set.labels)?)
    }
}

/// Embeddings of labelled pictures.
#[derive(Clone, Debug, Default)]
struct Features {
    rows: Vec<f32>,
    labels: Vec<usize>,
    keys: Vec<String>,
}

impl Features {
    fn problem(&self, dim: usize, classes: usize) -> Problem<'_> {
        Problem { rows: &self.rows, labels: &self.labels, dim, classes }
    }

    /// `shots` samples of each class: those whose draws are smallest, whatever their order.
    fn few(&self, shots: usize, dim: usize, classes: &[String], seed: u64) -> Result<Self, String> {
        let mut own: BTreeMap<usize, Vec<(f32, &str, usize)>> = BTreeMap::new();
        for (place, (label, key)) in self.labels.iter().zip(&self.keys).enumerate() {
            let draw = Stream::keyed(seed, "few-shot", key).uniform();
            own.entry(*label).or_default().push((draw, key, place));
        }
        let mut few = Self::default();
        for (class, name) in classes.iter().enumerate() {
            let mut places = own.remove(&class).unwrap_or_default();
            if places.len() < shots {
                let n = places.len();
                return Err(format!("shots = {shots}: class `{name}` has only {n} pictures"));
            }
            places.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(b.1)));
            for (_, key, place) in places.into_iter().take(shots) {
                few.rows.extend(&self.rows[place * dim..(place + 1) * dim]);
                few.labels.push(class);
                few.keys.push(key.to_owned());
            }
        }
        Ok(few)
    }

    fn and(&self, other: &Self) -> Self {
        let mut both = self.clone();
        both.rows.extend(&other.rows);
        both.labels.extend(&other.labels);
        both.keys.extend(other.keys.iter().cloned());
        both
    }
}

/// Embeds all labelled samples of a source; `classes` are the names its labels are brought to.
fn features(
    clip: &Clip,
    source: &dyn Source,
    classes: &[String],
    probe: &Probe,
    (batch, threads): (usize, usize),
) -> Result<Features, EvaluateError> {
    let translated = translation(source, classes)?;
    let resize = clip.preprocess().resize;
    let options = LoaderOptions { threads, queue: 2 * batch, ..LoaderOptions::default() };
    let mut loader = Loader::new(source, options, move |raw| {
        let key = raw.key.clone();
        let label = raw.label.and_then(|label| translated.get(label).copied());
        let label = label.ok_or_else(|| DataError::Sample {
            key: key.clone(),
            reason: "has no class label".to_owned(),
        })?;
        let sample = raw.decode(&Limits::default())?;
        Ok((resize.picture(&sample.picture).rgb, label, key))
    })?;
    let mut found = Features::default();
    loop {
        let part: Vec<(Vec<u8>, usize, String)> =
            loader.by_ref().take(batch).collect::<Result<_, _>>()?;
        if part.is_empty() {
            break;
        }
        let views: Vec<&[u8]> = part.iter().map(|(picture, ..)| picture.as_slice()).collect();
        let rows = clip.encode_image(clip.preprocess().stack(&views, clip.device()));
        let rows = if probe.normalise { normalise(rows) } else { rows };
        found.rows.extend(rows.into_data().try_to_vec::<f32>().unwrap_or_default());
        for (_, label, key) in part {
            found.labels.push(label);
            found.keys.push(key);
        }
    }
    match found.labels.is_empty() {
        true => Err(EvaluateError::NoLabels(source.name().to_owned())),
        false => Ok(found),
    }
}

/// For every class of a source its place among `classes`: folders number their classes on their
/// own, and a test set may lack some.
fn translation(source: &dyn Source, classes: &[String]) -> Result<Vec<usize>, EvaluateError> {
    let Some(own) = source.classes() else { return Ok((0..classes.len()).collect()) };
    own.iter()
        .map(|name| {
            classes.iter().position(|known| known == name).ok_or_else(|| EvaluateError::File {
                path: source.name().into(),
                reason: format!("class `{name}` is not among those of the probe's `train`"),
            })
        })
        .collect()
}

/// Value `place` of the grid, spread evenly in the logarithm from `10^low` to `10^high`.
fn grid(place: usize, (low, high): (f64, f64)) -> f64 {
    10f64.powf(low + (high - low) * place as f64 / (GRID - 1) as f64)
}

/// The place of the best of the grid: every 16th first, then around the best with spans that are
/// halved. A later one has to be strictly better. `accuracy` is asked once a place.
fn peak(
    mut accuracy: impl FnMut(usize) -> Result<f64, EvaluateError>,
) -> Result<usize, EvaluateError> {
    let mut known: BTreeMap<usize, f64> = BTreeMap::new();
    let mut best_of = |places: &[usize]| -> Result<usize, EvaluateError> {
        let mut best = (places[0], f64::NEG_INFINITY);
        for &place in places {
            let found = match known.get(&place) {
                Some(found) => *found,
                None => *known.entry(place).or_insert(accuracy(place)?),
            };
            if found > best.1 {
                best = (place, found);
            }
        }
        Ok(best.0)
    };
    let coarse: Vec<usize> = (0..GRID).step_by(COARSE).collect();
    let mut best = best_of(&coarse)?;
    for span in [8, 4, 2, 1] {
        let around = [best.saturating_sub(span), best, (best + span).min(GRID - 1)];
        best = best_of(&around)?;
    }
    Ok(best)
}

impl Method {
    /// Fits the layer with a strength of regularisation: the inverse `c`, or a weight decay.
    fn fit(self, problem: &Problem<'_>, strength: f64, seed: u64) -> Linear {
        match self {
            Self::Logistic => logistic::fit(problem, strength, LIMIT),
            Self::Reference => reference::fit(problem, strength, seed),
        }
    }

    /// What it is called in a record. CLIP_benchmark's name is for what CLIP_benchmark computes.
    fn task(self) -> &'static str {
        match self {
            Self::Logistic => "linear_probe_logistic",
            Self::Reference => "linear_probe",
        }
    }

    /// Exponents of the grid's ends.
    fn range(self) -> (f64, f64) {
        match self {
            Self::Logistic => (-6.0, 6.0),
            Self::Reference => (-6.0, 2.0),
        }
    }

    /// Name of the strength in a record, and its value without a validation source.
    fn strength(self) -> (&'static str, f64) {
        match self {
            Self::Logistic => ("c", C),
            Self::Reference => ("weight_decay", 0.0),
        }
    }
}

/// Fits and measures a probe, with CLIP_benchmark's keys.
pub(crate) fn measure(
    probe: &Probe,
    checkpoint: &Checkpoint,
    plan: &Plan,
    device: &Device,
    threads: usize,
) -> Result<Record, EvaluateError> {
    let clip = checkpoint.build(device)?;
    let dim = clip.architecture().embed_dim;
    let source = clipguard_data::open(&probe.train, &Options::default())?;
    let no_names = || EvaluateError::NoLabels(source.name().to_owned());
    let classes = source.classes().ok_or_else(no_names)?.to_vec();
    let embed = |spelling: &str| {
        let source = clipguard_data::open(spelling, &Options::default())?;
        features(&clip, source.as_ref(), &classes, probe, (plan.batch, threads))
    };
    let mut train = embed(&probe.train)?;
    if probe.shots > 0 {
        train = train
            .few(probe.shots, dim, &classes, plan.seed)
            .map_err(|reason| EvaluateError::File { path: source.name().into(), reason })?;
    }
    let (method, n) = (probe.method, classes.len());
    let (name, mut strength) = method.strength();
    if !probe.validation.is_empty() {
        let validation = embed(&probe.validation)?;
        let best = peak(|place| {
            let strength = grid(place, method.range());
            let linear = method.fit(&train.problem(dim, n), strength, plan.seed);
            Ok(linear.measured(&validation, n)?.acc1.unwrap_or(0.0))
        })?;
        strength = grid(best, method.range());
        if probe.shots == 0 {
            train = train.and(&validation);
        }
    }
    let linear = method.fit(&train.problem(dim, n), strength, plan.seed);
    let found = linear.measured(&embed(&probe.test)?, n)?;
    let mut record = captions::record(plan, checkpoint, &probe.test, method.task());
    record = record.counted(found.correct, found.n);
    record.metrics.0.clear();
    for (name, value) in [
        ("lp_acc1", found.acc1),
        ("lp_acc5", found.acc5),
        ("lp_mean_per_class_recall", found.mean_per_class_recall),
        (name, Some(strength)),
        ("fewshot_k", Some(if probe.shots > 0 { probe.shots as f64 } else { -1.0 })),
    ] {
        record.metrics.set(name, value);
    }
    record.metrics.0.insert("normalized".to_owned(), probe.normalise.into());
    record.extra.insert("probe".to_owned(), serde_json::json!(probe));
    Ok(record)
}

#[cfg(test)]
mod tests;
