//! One step: loss and gradients, the optimiser, and what is kept beside the weights.

use super::Run;
use crate::{
    AdamW, Batch, Figure, Step, TrainError, contrast, gradients::global_norm,
    optimiser::learning_rate,
};
use clipguard_model::{BatchStatistics, Parameters, Pass};
use serde_json::{Value, json};
use std::cell::RefCell;

/// The logit scale stays in `[0, ln 100]`.
const MAX_LOGIT_SCALE: f32 = 4.605_170_2;

impl Run {
    /// One step; `told` are those whose metrics are written.
    pub(super) fn one_step(&mut self, batch: &Batch, told: bool) -> Result<Done, TrainError> {
        let lr =
            learning_rate(self.recipe.lr, self.state.step, self.recipe.warmup, self.recipe.steps);
        let device = self.device.clone().autodiff();
        let parameters = Parameters::with(&self.state.weights, &device, |name| self.trains(name));
        let seen = RefCell::new(BatchStatistics::new());
        let step = Step {
            parameters: &parameters,
            weights: &self.state.weights,
            architecture: &self.architecture,
            preprocess: &self.preprocess,
            device: &self.device,
            pass: Pass::Frozen(&seen, &self.frozen_norms),
            batch,
            step: self.state.step,
            seed: self.recipe.seed,
        };
        let rows = self.recipe.micro_batch;
        let (loss, gradients) = contrast::gradients(self.objective.as_ref(), &step, rows)?;
        let figures = if told { self.objective.figures(&step)? } else { Vec::new() };
        drop(parameters);
        let norm = global_norm(&gradients);
        let limit = self.recipe.clip_norm;
        let factor = if limit > 0.0 && norm > limit { limit / (norm + 1e-6) } else { 1.0 };
        let optimiser = AdamW {
            beta1: self.recipe.beta1,
            beta2: self.recipe.beta2,
            epsilon: self.recipe.epsilon,
            weight_decay: self.recipe.weight_decay,
        };
        let state = &mut self.state;
        state.step += 1;
        let moments = (&mut state.first, &mut state.second);
        let decays = |name: &str, shape: &[usize]| self.objective.decays(name, shape);
        optimiser.update(&mut state.weights, moments, &gradients, lr, state.step, factor, &decays);
        state.keep_average(self.recipe.ema);
        self.keep_statistics(seen.into_inner());
        self.clamp_scale();
        let scalar = |name: &str| self.state.weights.get(name)?.data.first().copied();
        let (scale, bias) = (scalar("logit_scale"), scalar("logit_bias"));
        Ok(Done { loss, lr, scale, bias, norm, figures })
    }

    /// What is measured after this step, where the recipe measures; `saved` is the last saved step.
    pub(super) fn examined(&mut self, saved: u64) -> Result<Option<Vec<Figure>>, TrainError> {
        let (step, every) = (self.state.step, self.recipe.evaluate_every);
        if every == 0 || !(step.is_multiple_of(every) || step == self.recipe.steps) {
            return Ok(None);
        }
        let model = self.checkpoint();
        let Some(examiner) = &mut self.examiner else {
            return Err(TrainError::Recipe {
                path: self.folder.join("plan.toml"),
                reason: format!("evaluate_every = {every}: nobody was given who evaluates"),
            });
        };
        examiner.examine(&model).map(Some).map_err(|source| TrainError::Examination {
            step,
            saved,
            source,
        })
    }

    /// BatchNorm's running averages: `r = 0.9 r + 0.1 s`, with the unbiased variance.
    fn keep_statistics(&mut self, seen: BatchStatistics) {
        for (name, statistics, rows) in seen {
            let unbiased = rows as f32 / (rows.max(2) - 1) as f32;
            let mut mix = |buffer: &str, values: Vec<f32>, factor: f32| {
                if let Some(array) = self.state.weights.get_mut(&format!("{name}.{buffer}")) {
                    for (r, s) in array.data.iter_mut().zip(values) {
                        *r = 0.9 * *r + 0.1 * s * factor;
                    }
                }
            };
            let values =
                |t: burn::tensor::Tensor<1>| t.into_data().try_to_vec::<f32>().unwrap_or_default();
            mix("running_mean", values(statistics.mean), 1.0);
            mix("running_var", values(statistics.variance), unbiased);
            let count = format!("{name}.num_batches_tracked");
            if let Some(array) = self.state.weights.get_mut(&count) {
                array.data.iter_mut().for_each(|n| *n += 1.0);
            }
        }
    }

    /// Keeps the logit scale in its range, where it is trained.
    fn clamp_scale(&mut self) {
        if self.trains("logit_scale")
            && let Some(array) = self.state.weights.get_mut("logit_scale")
        {
            array.data.iter_mut().for_each(|scale| *scale = scale.clamp(0.0, MAX_LOGIT_SCALE));
        }
    }
}

/// What a step tells.
pub(super) struct Done {
    pub(super) loss: f32,
    lr: f64,
    /// Of a CLIP model.
    pub(super) scale: Option<f32>,
    /// Of a sigmoid model.
    bias: Option<f32>,
    pub(super) norm: f64,
    /// What the objective tells of it.
    figures: Vec<Figure>,
}

impl Done {
    /// A line of `metrics.jsonl`.
    pub(super) fn line(&self, step: u64, skipped: u64, figures: Option<&[Figure]>) -> Value {
        let mut line = json!({ "step": step, "loss": self.loss, "lr": self.lr });
        if let Some(scale) = self.scale {
            line["logit_scale"] = scale.into();
        }
        if let Some(bias) = self.bias {
            line["logit_bias"] = bias.into();
        }
        line["gradient_norm"] = self.norm.into();
        line["skipped"] = skipped.into();
        for (name, value) in &self.figures {
            line["batch"][name] = (*value).into();
        }
        for (name, value) in figures.unwrap_or_default() {
            line["evaluation"][name] = (*value).into();
        }
        line
    }
}
