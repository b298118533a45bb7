//! CLIPure-Cos: moving an embedding towards that of a blank prompt (Zhang et al., ICLR 2025).
//!
//! Each step normalises the gradient of `-cos(z, t)`, goes `eta` along its negative on the unit
//! sphere and restores the length. The motion changes only the angle to `t`: what lies across it,
//! and carries the class, is kept or exactly reversed, never turned. With the published settings
//! (`eta` 30, 10 steps) every step turns by 88 degrees and the next one turns back, so that row by
//! row the map is the identity; see [`angles`](crate::angles). It is built completely because it is
//! what people ask for, and so that the honest number stands beside the published one.

use burn::tensor::{Bool, DType, Tensor, TensorData};
use clipguard_data::{
    Stream, parameters,
    spelling::{Parameters, Spelling, SpellingError},
};
use clipguard_model::{head, prompts, victim::GradientMode};
use serde::{Deserialize, Serialize};

use crate::{Limit, Purifier, PurifyError, angles::angles, catalogue::Material};

const NAME: &str = "clipure-cos";
/// The direction without meaning.
const RANDOM: &str = "random";

/// What the direction of a step is divided by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Its own norm: rows are independent.
    #[default]
    Sample,
    /// The norm over the whole batch, as in the released code: rows act on each other.
    Released,
}

/// The norm of a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StepNorm {
    /// The direction, divided by its Euclidean norm.
    #[default]
    L2,
    /// The sign of the direction divided by its absolute sum (a branch of the released code that
    /// no released run uses).
    Linf,
}

parameters! {
    /// How CLIPure-Cos moves.
    pub struct Settings {
        /// sample (rows are independent) or released (direction divided by the norm of the batch).
        mode: Mode = Mode::Sample,
        /// Number of steps; the published one is 10, and parity decides the outcome.
        steps: usize = 10,
        /// Step size on the unit sphere; the published one is 30.
        eta: f64 = 30.0,
        /// l2 or linf.
        norm: StepNorm = StepNorm::L2,
        /// Weight of the earlier direction, in [0, 1).
        momentum: f64 = 0.0,
        /// exact, detached or straight-through; none: detached for released, else exact.
        gradient: Option<GradientMode> = None,
        /// Accept batches over 8 in released mode.
        force: bool = false,
        /// Where to: a built-in template set, whose templates are filled with nothing, or `random`,
        /// a direction without meaning to compare with; none: the templates of the classifier.
        blank: Option<String> = None,
    }
}

/// The limit of the released mode.
pub const LIMIT: Limit = Limit {
    rows: 8,
    reason: "the released rule divides by the norm over the whole batch, so that from 16 rows on \
             pictures change each other's predictions and from 64 on nearly all rows come out \
             reversed; use mode=sample, or force=true to see it",
};

/// CLIPure-Cos with its blank direction.
#[derive(Clone, Debug)]
pub struct ClipureCos {
    settings: Settings,
    /// Unit direction `[1, dimensions]`.
    blank: Tensor<2>,
}

impl ClipureCos {
    /// With the embedding of the blank prompt `[dimensions]`, of any length.
    ///
    /// The published one is the mean of the L2-normalised embeddings of 80 templates whose class
    /// name is the empty string.
    ///
    /// # Errors
    /// When the embedding is zero or not finite.
    pub fn new(settings: Settings, blank: Tensor<1>) -> Result<Self, PurifyError> {
        let blank: Tensor<2> = blank.unsqueeze();
        let length = blank.clone().square().sum_dim(1).sqrt();
        let size: f64 = length.clone().into_data().iter::<f64>().sum();
        if !(size.is_finite() && size > 0.0) {
            let what = "a blank-prompt embedding that is finite and not zero";
            return Err(PurifyError::Material { purifier: NAME, what });
        }
        Ok(Self { settings, blank: blank / length })
    }

    /// The purifier of a spelling such as `clipure-cos:steps=9`.
    ///
    /// # Errors
    /// As [`ClipureCos::settings`] and [`ClipureCos::new`]; a template set that does not exist.
    pub fn from_spelling(spelling: &Spelling, material: &Material) -> Result<Self, PurifyError> {
        let settings = Self::settings(spelling)?;
        let missing = |what| PurifyError::Material { purifier: NAME, what };
        let known = material.blank.clone();
        let blank = match settings.blank.as_deref() {
            None => known.ok_or(missing("the embedding of the blank prompt"))?,
            Some(RANDOM) => {
                let like = known.ok_or(missing("the width of the embeddings"))?;
                let mut stream = Stream::counted(0, "clipure-cos/random", 0);
                let values: Vec<f32> = (0..like.dims()[0]).map(|_| stream.normal()).collect();
                Tensor::from_data(TensorData::new(values, like.dims()), &like.device())
            }
            Some(name) => {
                let clip = material.clip.as_ref().ok_or(missing("the model"))?;
                let refuse = |reason: String| spelling.refuse("blank", reason);
                let set = prompts::templates(name).map_err(|e| refuse(e.to_string()))?;
                let texts: Vec<String> = set.blanks().collect();
                head::mean_text(clip, &texts).map_err(|e| refuse(e.to_string()))?
            }
        };
        Self::new(settings, blank)
    }

    /// The settings a spelling such as `clipure-cos:steps=9` asks for.
    ///
    /// # Errors
    /// Unknown settings and values out of range.
    pub fn settings(spelling: &Spelling) -> Result<Settings, SpellingError> {
        let settings: Settings = spelling.read()?;
        spelling.demand([
            ("eta", settings.eta >= 0.0, "a step size is not negative"),
            ("momentum", (0.0..1.0).contains(&settings.momentum), "a weight below 1"),
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
    /// Rows without a direction to move in (zero, along the blank direction or against it, not a
    /// number) come back as they are and do not touch the others.
    ///
    /// # Errors
    /// In released mode for more than [`LIMIT`] rows, unless forced.
    pub fn purify(&self, embedding: Tensor<2>) -> Result<Tensor<2>, PurifyError> {
        let rows = embedding.dims()[0];
        match self.limit() {
            Some(limit) if rows > limit.rows => {
                Err(PurifyError::Batch { purifier: NAME, rows, limit })
            }
            _ => Ok(self.moved(embedding)),
        }
    }

    fn moved(&self, embedding: Tensor<2>) -> Tensor<2> {
        match self.gradient() {
            GradientMode::Exact if self.has_closed_form() => self.rotated(embedding),
            GradientMode::Exact | GradientMode::Detached => self.descended(embedding),
            GradientMode::StraightThrough => {
                let fixed = embedding.clone().detach();
                let end = match self.has_closed_form() {
                    true => self.rotated(fixed.clone()),
                    false => self.descended(fixed.clone()),
                };
                embedding + (end - fixed)
            }
        }
    }

    /// Whether [`ClipureCos::rotated`] gives what the loop gives.
    pub fn has_closed_form(&self) -> bool {
        let Settings { mode, norm, momentum, .. } = self.settings;
        mode == Mode::Sample && norm == StepNorm::L2 && momentum == 0.0
    }

    /// The closed form: each row turned in its plane by the angle that the steps add up to.
    ///
    /// That angle is piecewise constant, so the derivative is that of a rotation (out of the plane
    /// the factor is `sin(theta_K) / sin(theta_0)`), and for an even number of large steps it is
    /// the identity. Only for L2 steps in sample mode without momentum.
    pub fn rotated(&self, embedding: Tensor<2>) -> Tensor<2> {
        let Plane { length, cosine, across, sine, still, .. } = self.plane(embedding.clone());
        let start: Vec<f64> =
            numbers(&sine).into_iter().zip(numbers(&cosine)).map(|(s, c)| s.atan2(c)).collect();
        let Settings { mode, steps, eta, .. } = self.settings;
        let end = angles(mode, &start, steps, eta).pop().unwrap_or_default();
        let turn: Vec<f64> = end.iter().zip(&start).map(|(end, start)| end - start).collect();
        let constant = |of: fn(f64) -> f64| {
            let data = TensorData::new(turn.iter().map(|&a| of(a)).collect(), [turn.len(), 1]);
            Tensor::<2>::from_data(data, (&embedding.device(), embedding.dtype()))
        };
        // The unit vector at right angles to the row in its plane, towards larger angles.
        let tangent = across * (cosine / sine.clone()) - self.blank_on(&embedding) * sine;
        let turned = embedding.clone() * constant(f64::cos) + tangent * length * constant(f64::sin);
        keep(turned, embedding, still)
    }

    /// The loop, step by step: the last of [`ClipureCos::iterates`].
    pub fn descended(&self, embedding: Tensor<2>) -> Tensor<2> {
        self.iterates(embedding.clone()).pop().unwrap_or(embedding)
    }

    /// All iterates of the loop, the start first: `steps + 1` tensors `[batch, dimensions]`.
    ///
    /// In detached mode the gradient of the cosine is a constant for differentiation, while the
    /// length and the unit row stay attached, exactly as in the released code.
    pub fn iterates(&self, embedding: Tensor<2>) -> Vec<Tensor<2>> {
        let still = self.plane(embedding.clone()).still;
        // Rows that stay run along as the blank direction, so that no NaN reaches the sums that
        // released mode takes over the batch, forward or backward.
        let blank = self.blank_on(&embedding).expand(embedding.dims());
        let (mut current, mut memory) = (keep(embedding.clone(), blank, still.clone()), None);
        let mut all = vec![embedding.clone()];
        for _ in 0..self.settings.steps {
            let (next, direction) = self.step(current, memory);
            all.push(keep(next.clone(), embedding.clone(), still.clone()));
            (current, memory) = (next, Some(direction));
        }
        all
    }

    /// One step: the next embeddings and the direction to remember.
    fn step(&self, embedding: Tensor<2>, memory: Option<Tensor<2>>) -> (Tensor<2>, Tensor<2>) {
        let Settings { eta, momentum, norm, .. } = self.settings;
        let [rows, width] = embedding.dims();
        let Plane { length, unit, cosine, still, .. } = self.plane(embedding.clone());
        let blank = self.blank_on(&embedding);
        let ascent = (blank - unit.clone() * cosine) / length.clone();
        let ascent = match self.gradient() {
            GradientMode::Detached => ascent.detach(),
            _ => ascent,
        };
        let ascent = (ascent * length.clone()).mask_fill(still.expand([rows, width]), 0.0);
        let direction = ascent.clone() / self.size(ascent) * (1.0 - momentum);
        let direction = match memory {
            Some(memory) => memory * momentum + direction,
            None => direction,
        };
        let moved = unit + eta_times(eta, norm, direction.clone());
        let size = positive(moved.clone().square().sum_dim(1)).sqrt();
        (moved / size * length, direction)
    }

    /// What the direction is divided by: `[batch, 1]` or `[1, 1]`; 1 where it would be 0.
    fn size(&self, direction: Tensor<2>) -> Tensor<2> {
        let over = |entries: Tensor<2>| match self.settings.mode {
            Mode::Sample => positive(entries.sum_dim(1)),
            Mode::Released => positive(entries.sum_dim(1).sum_dim(0)),
        };
        match self.settings.norm {
            StepNorm::L2 => over(direction.square()).sqrt(),
            StepNorm::Linf => over(direction.abs()),
        }
    }

    /// The blank direction where the embedding is, in its precision.
    fn blank_on(&self, embedding: &Tensor<2>) -> Tensor<2> {
        self.blank.clone().cast(embedding.dtype())
    }

    /// Each row seen from the blank direction.
    fn plane(&self, embedding: Tensor<2>) -> Plane {
        let guard = if embedding.dtype() == DType::F64 { 1e-12 } else { 1e-6 };
        let blank = self.blank_on(&embedding);
        let square = embedding.clone().square().sum_dim(1);
        let length = positive(square.clone()).sqrt();
        let unit = embedding / length.clone();
        let cosine = (unit.clone() * blank.clone()).sum_dim(1);
        let across = unit.clone() - blank * cosine.clone();
        let sine_square = across.clone().square().sum_dim(1);
        // Comparisons with NaN are false, so rows that are not numbers stay, too.
        let moves = sine_square.clone().greater_elem(guard * guard);
        let still = moves.bool_and(square.greater_elem(0.0)).bool_not();
        let sine = sine_square.mask_fill(still.clone(), 1.0).sqrt();
        Plane { length, unit, cosine, across, sine, still }
    }
}

/// Rows relative to the blank direction `t`.
struct Plane {
    /// `r = |z|`, 1 for a zero row; `[batch, 1]`.
    length: Tensor<2>,
    /// `u = z / r`.
    unit: Tensor<2>,
    /// `c = u . t`; `[batch, 1]`.
    cosine: Tensor<2>,
    /// `u - c t`.
    across: Tensor<2>,
    /// `|u - c t|`, 1 for rows that stay; `[batch, 1]`.
    sine: Tensor<2>,
    /// Rows that have no direction to move in; `[batch, 1]`.
    still: Tensor<2, Bool>,
}

fn eta_times(eta: f64, norm: StepNorm, direction: Tensor<2>) -> Tensor<2> {
    match norm {
        StepNorm::L2 => direction * eta,
        StepNorm::Linf => direction.sign() * eta,
    }
}

/// The entries, 1 where they are not positive.
fn positive(entries: Tensor<2>) -> Tensor<2> {
    let zero = entries.clone().greater_elem(0.0).bool_not();
    entries.mask_fill(zero, 1.0)
}

/// `new`, but `old` in the rows that stay.
fn keep(new: Tensor<2>, old: Tensor<2>, still: Tensor<2, Bool>) -> Tensor<2> {
    let shape = new.dims();
    new.mask_where(still.expand(shape), old)
}

fn numbers(tensor: &Tensor<2>) -> Vec<f64> {
    tensor.to_data().iter::<f64>().collect()
}

impl Purifier for ClipureCos {
    fn embedding(&self, embedding: Tensor<2>, _keys: &[String], _draw: u64) -> Tensor<2> {
        match self.purify(embedding) {
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
        self.settings.spelled("clipure-cos")
    }
}
