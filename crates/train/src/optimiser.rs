//! AdamW, its no-decay rule, and the schedule.

use crate::gradients::{Gradients, TASK};
use clipguard_model::Weights;
use rayon::prelude::*;

/// AdamW (Loshchilov and Hutter 2019) as PyTorch computes it: decay first, then the moments,
/// then the step with bias-corrected moments.
#[derive(Clone, Copy, Debug)]
pub struct AdamW {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Weight decay of the parameters that decay.
    pub weight_decay: f64,
}

/// Whether a parameter decays: open_clip's released rule (at least two dimensions and no `bn`,
/// `ln`, `bias` or `logit_scale` in the name).
pub fn decays(name: &str, shape: &[usize]) -> bool {
    shape.len() >= 2 && !["bn", "ln", "bias", "logit_scale"].iter().any(|part| name.contains(part))
}

/// Linear warm-up over `warmup` steps, then a half cosine to zero at `total`; `step` counts
/// from 0 (open_clip's `cosine_lr`).
pub fn learning_rate(peak: f64, step: u64, warmup: u64, total: u64) -> f64 {
    if step < warmup {
        return peak * (step + 1) as f64 / warmup as f64;
    }
    let span = (total.saturating_sub(warmup)).max(1) as f64;
    0.5 * (1.0 + (std::f64::consts::PI * (step - warmup) as f64 / span).cos()) * peak
}

impl AdamW {
    /// Updates `weights` and both moments in place; `step` counts from 1; gradients are multiplied
    /// by `factor` first (clipping). Parameters without a gradient see a gradient of zero, those
    /// without moments are left alone.
    #[allow(clippy::too_many_arguments, reason = "what a step of AdamW takes")]
    pub(crate) fn update(
        &self,
        weights: &mut Weights,
        moments: (&mut Weights, &mut Weights),
        gradients: &Gradients,
        lr: f64,
        step: u64,
        factor: f64,
        decays: &dyn Fn(&str, &[usize]) -> bool,
    ) {
        let bias1 = 1.0 - self.beta1.powf(step as f64);
        let bias2 = (1.0 - self.beta2.powf(step as f64)).sqrt();
        let (b1, b2) = (self.beta1 as f32, self.beta2 as f32);
        let (c1, c2) = ((1.0 - self.beta1) as f32, (1.0 - self.beta2) as f32);
        let (rate, root) = ((lr / bias1) as f32, (1.0 / bias2) as f32);
        let (epsilon, factor) = (self.epsilon as f32, factor as f32);
        for (name, array) in weights.iter_mut() {
            let decay = if decays(name, &array.shape) { lr * self.weight_decay } else { 0.0 };
            let keep = (1.0 - decay) as f32;
            let (Some(m), Some(v)) = (moments.0.get_mut(name), moments.1.get_mut(name)) else {
                continue;
            };
            // A parameter that took no part has a gradient of zero, and still decays and coasts.
            let absent = Vec::new();
            let gradient = gradients.get(name).unwrap_or(&absent);
            let step = |p: &mut f32, m: &mut f32, v: &mut f32, g: f32| {
                *m = b1 * *m + c1 * g;
                *v = b2 * *v + c2 * g * g;
                *p = *p * keep - rate * *m / (v.sqrt() * root + epsilon);
            };
            let tasks = array
                .data
                .par_chunks_mut(TASK)
                .zip(m.data.par_chunks_mut(TASK).zip(v.data.par_chunks_mut(TASK)))
                .enumerate();
            tasks.for_each(|(task, (p, (m, v)))| {
                let start = (task * TASK).min(gradient.len());
                let given = &gradient[start..gradient.len().min(start + p.len())];
                let state = p.iter_mut().zip(m.iter_mut().zip(v.iter_mut()));
                match given.is_empty() {
                    true => state.for_each(|(p, (m, v))| step(p, m, v, 0.0)),
                    false => {
                        state.zip(given).for_each(|((p, (m, v)), g)| step(p, m, v, g * factor));
                    }
                }
            });
        }
    }
}

#[cfg(test)]
mod tests;
