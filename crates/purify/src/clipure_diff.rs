//! CLIPure-Diff: moving an embedding uphill in the likelihood of a diffusion prior (Zhang et al.,
//! ICLR 2025).
//!
//! Each step draws a time near the end of the schedule and a noise, takes the gradient of the
//! prior's error with respect to the embedding, goes `eta` along its normalised negative on the
//! unit sphere and restores the length. At such times the network hardly sees the embedding, so
//! that its prediction is close to a mean embedding `m` and the published step, with `eta` 30, is
//! close to `u <- normalise(m - u)`: what lies across `m`, and carries the class, changes its sign
//! at every step and keeps its direction. To first order it is the cosine rule around `m`.
//!
//! The gradient inside is an expression of tensor functions (see [`Prior::slope`]), so the exact
//! gradient passes through it, second derivatives included.

use burn::tensor::{Bool, Tensor, TensorData};
use clipguard_data::{
    Stream, parameters,
    spelling::{Parameters, Spelling, SpellingError},
};
use clipguard_model::{
    Clip, ModelError, Tokenizer,
    prior::{Draw, Prior, Text},
    victim::GradientMode,
};
use std::{path::Path, sync::Arc};

use crate::{Limit, Mode, Purifier, PurifyError, catalogue::Material};

const NAME: &str = "clipure-diff";

parameters! {
    /// How CLIPure-Diff moves.
    pub struct Settings {
        /// File of the prior (safetensors), made for the model that is defended.
        prior: String = String::new(),
        /// sample (rows are independent) or released (one time for the batch, direction divided
        /// by the norm of the batch, inputs dropped by chance).
        mode: Mode = Mode::Sample,
        /// Number of steps; the published one is 10.
        steps: usize = 10,
        /// Step size on the unit sphere; the published one is 30.
        eta: f64 = 30.0,
        /// Smallest time that is drawn.
        first: usize = 900,
        /// Largest time that is drawn.
        last: usize = 999,
        /// Draws of time and noise whose gradients are averaged in a step, at least 1.
        draws: usize = 1,
        /// Probability with which text and embedding are hidden from the prior, each on its own;
        /// none: 0.1 for released, else 0.
        drop: Option<f32> = None,
        /// Remove the radial part of the direction before it is normalised; the published rule
        /// keeps it.
        tangent: bool = false,
        /// Tell the prior what the text tower says of the blank prompt, if it has places for it.
        encodings: bool = true,
        /// exact, detached or straight-through; none: detached for released, else exact.
        gradient: Option<GradientMode> = None,
        /// Seed of the draws.
        seed: u64 = 0,
        /// Accept batches over 8 in released mode.
        force: bool = false,
    }
}

/// The limit of the released mode.
pub const LIMIT: Limit = Limit {
    rows: 8,
    reason: "the released rule divides by the norm over the whole batch and draws one time for all \
             of it, so that pictures change each other's predictions; use mode=sample, or \
             force=true to see it",
};

/// CLIPure-Diff with its prior and what the prior is told.
#[derive(Clone, Debug)]
pub struct ClipureDiff {
    settings: Settings,
    prior: Arc<Prior>,
    text: Text,
    none: Text,
}

impl ClipureDiff {
    /// With a prior, the embedding of the blank prompt `[dimensions]` and, for priors that know
    /// encodings, what the text tower says of its tokens, `[tokens, dimensions]`.
    ///
    /// # Errors
    /// When a time exceeds the prior's schedule, or the embedding is not of the prior's width.
    pub fn new(
        settings: Settings,
        prior: Arc<Prior>,
        blank: Tensor<1>,
        encodings: Option<Tensor<2>>,
    ) -> Result<Self, PurifyError> {
        check(&prior, &settings.prior, settings.last, &blank)?;
        let text = prior.text(
            blank.cast(prior.dtype()).unsqueeze(),
            encodings.map(|e| e.cast(prior.dtype()).unsqueeze()),
        );
        Ok(Self { settings, text, none: prior.no_text(), prior })
    }

    /// The purifier of a spelling, its prior read from the file.
    ///
    /// # Errors
    /// Unknown settings, values out of range, a missing or unfitting prior.
    pub fn from_spelling(spelling: &Spelling, material: &Material) -> Result<Self, PurifyError> {
        let settings = Self::settings(spelling)?;
        let what = "the embedding of the blank prompt";
        let blank = material.blank.clone();
        let blank = blank.ok_or(PurifyError::Material { purifier: NAME, what })?;
        let prior = fitting(&settings.prior, settings.last, &blank)?;
        let encodings = match (&material.clip, prior.layout().text > 0 && settings.encodings) {
            (Some(clip), true) => {
                let refuse = |e: ModelError| PurifyError::Prior {
                    path: settings.prior.clone(),
                    reason: e.to_string(),
                };
                Some(blank_encodings(clip, &material.blanks).map_err(refuse)?)
            }
            _ => None,
        };
        Self::new(settings, prior, blank, encodings)
    }

    /// The settings a spelling such as `clipure-diff:prior=prior.safetensors,draws=8` asks for.
    ///
    /// # Errors
    /// Unknown settings and values out of range.
    pub fn settings(spelling: &Spelling) -> Result<Settings, SpellingError> {
        let settings: Settings = spelling.read()?;
        let drop = settings.drop.unwrap_or(0.0);
        spelling.demand([
            ("prior", !settings.prior.is_empty(), "the path of a prior's file is needed"),
            ("eta", settings.eta >= 0.0, "a step size is not negative"),
            ("first", settings.first <= settings.last, "a time not beyond `last`"),
            ("draws", settings.draws > 0, "at least one"),
            ("drop", (0.0..=1.0).contains(&drop), "a probability"),
        ])?;
        Ok(settings)
    }

    /// How the gradient passes.
    pub fn gradient(&self) -> GradientMode {
        self.settings.gradient.unwrap_or(match self.settings.mode {
            Mode::Sample => GradientMode::Exact,
            Mode::Released => GradientMode::Detached,
        })
    }

    /// Purified embeddings `[batch, dimensions]`; rows of any length keep it.
    ///
    /// Rows that are zero or not a number come back as they are and do not touch the others.
    ///
    /// # Errors
    /// In released mode for more than [`LIMIT`] rows, unless forced.
    ///
    /// # Panics
    /// When there are not as many keys as rows.
    pub fn purify(
        &self,
        embedding: Tensor<2>,
        keys: &[String],
        draw: u64,
    ) -> Result<Tensor<2>, PurifyError> {
        let rows = embedding.dims()[0];
        match self.limit() {
            Some(limit) if rows > limit.rows => {
                return Err(PurifyError::Batch { purifier: NAME, rows, limit });
            }
            _ => {}
        }
        assert_eq!(keys.len(), rows, "one key a row");
        let like = embedding.clone().detach();
        let draws: Vec<Vec<Draw>> =
            (0..self.settings.steps).map(|step| self.draws(&like, keys, draw, step)).collect();
        Ok(match self.gradient() {
            GradientMode::StraightThrough => {
                let end = self.end(like.clone(), &draws);
                embedding + (end - like)
            }
            _ => self.end(embedding, &draws),
        })
    }

    fn end(&self, embedding: Tensor<2>, draws: &[Vec<Draw>]) -> Tensor<2> {
        self.iterates(embedding.clone(), draws).pop().unwrap_or(embedding)
    }

    /// The draws of one step; row by row they depend on the key, the draw and the step alone.
    fn draws(&self, like: &Tensor<2>, keys: &[String], draw: u64, step: usize) -> Vec<Draw> {
        let Settings { seed, first, last, mode, .. } = self.settings;
        let usual = if mode == Mode::Released { 0.1 } else { 0.0 };
        let drop = self.settings.drop.unwrap_or(usual);
        let one = |repeat: usize| {
            let purpose = format!("{NAME}/{draw}/{step}/{repeat}");
            let streams = keys.iter().map(|key| Stream::keyed(seed, &purpose, key));
            let mut own = Draw::new(streams, (first, last), (drop, drop), like);
            if mode == Mode::Released {
                let mut shared = Stream::keyed(seed, &purpose, "time of the batch");
                let time = first + shared.below(last + 1 - first);
                own.times.fill(time);
            }
            own
        };
        (0..self.settings.draws).map(one).collect()
    }

    /// All iterates under given draws (for every step those whose gradients are averaged), the
    /// start first: `draws.len() + 1` tensors `[batch, dimensions]`.
    ///
    /// In detached mode the gradient of the error is a constant for differentiation, while the
    /// length and the unit row stay attached, exactly as in the released code.
    pub fn iterates(&self, embedding: Tensor<2>, draws: &[Vec<Draw>]) -> Vec<Tensor<2>> {
        let still = still(&embedding);
        let [rows, width] = embedding.dims();
        // Rows that stay run along as a constant, so that no NaN reaches the sums over the batch.
        let constant = Tensor::ones([rows, width], (&embedding.device(), embedding.dtype()));
        let mut current = keep(embedding.clone(), constant, &still);
        let mut all = vec![embedding.clone()];
        for step in draws {
            current = self.step(current, step, &still);
            all.push(keep(current.clone(), embedding.clone(), &still));
        }
        all
    }

    fn step(&self, embedding: Tensor<2>, draws: &[Draw], still: &Tensor<2, Bool>) -> Tensor<2> {
        let Settings { eta, mode, tangent, .. } = self.settings;
        let shape = embedding.dims();
        let length = embedding.clone().square().sum_dim(1).sqrt();
        let unit = embedding.clone() / length.clone();
        let slope = self.slope(embedding, draws) * length.clone();
        let mut direction = slope.mask_fill(still.clone().expand(shape), 0.0);
        if tangent {
            let radial = (direction.clone() * unit.clone()).sum_dim(1);
            direction = direction - unit.clone() * radial;
        }
        let square = direction.clone().square().sum_dim(1);
        let square = match mode {
            Mode::Sample => square,
            Mode::Released => square.sum_dim(0),
        };
        let zero = square.clone().greater_elem(0.0).bool_not();
        let moved = unit - direction / square.mask_fill(zero, 1.0).sqrt() * eta;
        let size = moved.clone().square().sum_dim(1).sqrt();
        moved / size * length
    }

    /// Mean gradient of each row's error with respect to its scaled embedding.
    fn slope(&self, embedding: Tensor<2>, draws: &[Draw]) -> Tensor<2> {
        let detached = self.gradient() == GradientMode::Detached;
        let embedding = if detached { embedding.detach() } else { embedding };
        let clean = embedding * self.prior.scale();
        let one = |draw: &Draw| self.prior.slope(clean.clone(), draw, &self.text, &self.none);
        let sum = draws.iter().map(one).reduce(|sum, slope| sum + slope);
        sum.map_or_else(|| clean.zeros_like(), |sum| sum / draws.len() as f64)
    }
}

/// The prior in the file `path`, for the model of the blank embedding and times up to `last`.
///
/// # Errors
/// A file that cannot be read, or that holds a prior for another model.
pub(crate) fn fitting(
    path: &str,
    last: usize,
    blank: &Tensor<1>,
) -> Result<Arc<Prior>, PurifyError> {
    let prior = Prior::open(Path::new(path), &blank.device()).map_err(|e| PurifyError::Prior {
        reason: without_path(e.to_string(), path),
        path: path.to_owned(),
    })?;
    check(&prior, path, last, blank)?;
    Ok(Arc::new(prior))
}

fn check(prior: &Prior, path: &str, last: usize, blank: &Tensor<1>) -> Result<(), PurifyError> {
    let refuse = |reason: String| Err(PurifyError::Prior { path: path.to_owned(), reason });
    let (own, [width]) = (prior.layout(), blank.dims());
    if own.dim != width {
        return refuse(format!(
            "this prior is for embeddings of width {}, and those of the model have width {width}: \
             a prior of this model is needed (train one with the objective `diffusion-prior`)",
            own.dim
        ));
    }
    if last >= own.steps {
        return refuse(format!(
            "its times end at {}, and times up to {last} are asked for: lower `last`",
            own.steps - 1
        ));
    }
    Ok(())
}

/// What the released code tells the prior of the blank prompt's tokens, `[tokens, dimensions]`: of
/// every text the pooled embedding (not normalised) at all tokens up to its end, and 0 behind it,
/// averaged over the texts. No prior was trained on such rows; this is what is published.
///
/// # Errors
/// Texts that the text tower does not take.
pub fn blank_encodings(clip: &Clip, texts: &[String]) -> Result<Tensor<2>, ModelError> {
    let (context, dim) = (clip.architecture().text.context, clip.architecture().embed_dim);
    let tokenizer = Tokenizer::clip();
    let rows: Vec<Vec<u32>> = texts.iter().map(|text| tokenizer.row(text, context)).collect();
    let embedded: Vec<f64> = clip.encode_text(&rows)?.into_data().iter::<f64>().collect();
    let mut mean = vec![0f64; context * dim];
    for (row, embedding) in rows.iter().zip(embedded.chunks(dim)) {
        // The end of a text has the largest id, and padding is behind it.
        let largest = row.iter().max();
        let end = row.iter().position(|id| Some(id) == largest).unwrap_or(0);
        for place in mean.chunks_mut(dim).take(end + 1) {
            place.iter_mut().zip(embedding).for_each(|(m, v)| *m += v / texts.len() as f64);
        }
    }
    Ok(Tensor::from_data(TensorData::new(mean, [context, dim]), clip.device()))
}

/// Rows that stay: zero or not a number; `[batch, 1]`.
pub(crate) fn still(embedding: &Tensor<2>) -> Tensor<2, Bool> {
    let square = embedding.clone().detach().square().sum_dim(1);
    // Comparisons with NaN are false; an infinite length is no direction either.
    square.clone().greater_elem(0.0).bool_and(square.is_finite()).bool_not()
}

/// `new`, but `old` in the rows that stay.
fn keep(new: Tensor<2>, old: Tensor<2>, still: &Tensor<2, Bool>) -> Tensor<2> {
    let shape = new.dims();
    new.mask_where(still.clone().expand(shape), old)
}

/// The error's own text names the path already.
fn without_path(text: String, path: &str) -> String {
    text.strip_prefix(&format!("{path}: ")).map_or(text.clone(), str::to_owned)
}

impl Purifier for ClipureDiff {
    fn embedding(&self, embedding: Tensor<2>, keys: &[String], draw: u64) -> Tensor<2> {
        match self.purify(embedding, keys, draw) {
            Ok(purified) => purified,
            Err(error) => panic!("{error}"),
        }
    }

    fn limit(&self) -> Option<Limit> {
        (self.settings.mode == Mode::Released && !self.settings.force).then_some(LIMIT)
    }

    fn optimises(&self) -> bool {
        true
    }

    fn spelling(&self) -> Spelling {
        self.settings.spelled(NAME)
    }

    fn digest(&self) -> Option<&str> {
        Some(self.prior.digest())
    }
}
