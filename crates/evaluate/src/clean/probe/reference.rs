//! CLIP_benchmark's linear probe: a linear layer trained by AdamW on shuffled batches.
//!
//! Ten epochs, batches of 64, a rate of 0.1 that falls along a half cosine from the first step on.
//! What it draws (the start, the order of every epoch) comes from the plan's seed; the program it
//! follows draws from the process's generator, so its digits can only be met on average.

use super::{Linear, logistic::Problem};
use clipguard_data::Stream;

const EPOCHS: usize = 10;
const BATCH: usize = 64;
const RATE: f64 = 0.1;
const BETAS: (f64, f64) = (0.9, 0.999);
const EPSILON: f64 = 1e-8;

/// Trains the layer with a weight decay (bias included, as there).
pub(super) fn fit(problem: &Problem<'_>, decay: f64, seed: u64) -> Linear {
    let (dim, n) = (problem.dim, problem.labels.len());
    let mut linear = Linear::zero(dim, problem.classes);
    let bound = 1.0 / (dim as f32).sqrt();
    let mut stream = Stream::keyed(seed, "linear-probe", "start");
    let numbers = linear.weights.iter_mut().chain(&mut linear.bias);
    numbers.for_each(|v| *v = stream.within(-bound, bound));
    let mut adam = Adam::new(linear.weights.len() + linear.bias.len());
    let total = EPOCHS * n.div_ceil(BATCH);
    let mut step = 0;
    for epoch in 0..EPOCHS as u64 {
        let order = Stream::counted(seed, "linear-probe-order", epoch).permutation(n);
        for batch in order.chunks(BATCH) {
            let rate =
                0.5 * (1.0 + (std::f64::consts::PI * step as f64 / total as f64).cos()) * RATE;
            step += 1;
            let gradient = gradient(problem, &linear, batch);
            adam.update(&mut linear, &gradient, rate, decay, step);
        }
    }
    linear
}

/// Gradient of the mean cross-entropy of a batch: weights, then biases.
fn gradient(problem: &Problem<'_>, linear: &Linear, batch: &[usize]) -> Vec<f32> {
    let (dim, classes) = (problem.dim, problem.classes);
    let mut gradient = vec![0f32; classes * (dim + 1)];
    let (weights, biases) = gradient.split_at_mut(classes * dim);
    for &index in batch {
        let row = &problem.rows[index * dim..(index + 1) * dim];
        let mut scores = linear.scores(row);
        let top = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        scores.iter_mut().for_each(|s| *s = (*s - top).exp());
        let sum: f32 = scores.iter().sum();
        for (class, score) in scores.iter().enumerate() {
            let own = f32::from(u8::from(class == problem.labels[index]));
            let pull = (score / sum - own) / batch.len() as f32;
            let to = &mut weights[class * dim..(class + 1) * dim];
            to.iter_mut().zip(row).for_each(|(g, x)| *g += pull * x);
            biases[class] += pull;
        }
    }
    gradient
}

/// AdamW as PyTorch computes it.
struct Adam {
    first: Vec<f32>,
    second: Vec<f32>,
}

impl Adam {
    fn new(n: usize) -> Self {
        Self { first: vec![0.0; n], second: vec![0.0; n] }
    }

    fn update(
        &mut self,
        linear: &mut Linear,
        gradient: &[f32],
        rate: f64,
        decay: f64,
        step: usize,
    ) {
        let (b1, b2) = (BETAS.0 as f32, BETAS.1 as f32);
        let keep = (1.0 - rate * decay) as f32;
        let rate = (rate / (1.0 - BETAS.0.powf(step as f64))) as f32;
        let root = (1.0 / (1.0 - BETAS.1.powf(step as f64)).sqrt()) as f32;
        let values = linear.weights.iter_mut().chain(&mut linear.bias);
        let moments = self.first.iter_mut().zip(&mut self.second);
        for ((p, (m, v)), g) in values.zip(moments).zip(gradient) {
            *m = b1 * *m + (1.0 - b1) * g;
            *v = b2 * *v + (1.0 - b2) * g * g;
            *p = *p * keep - rate * *m / (v.sqrt() * root + EPSILON as f32);
        }
    }
}
