//! Adam (Kingma & Ba 2015) for one variable a sample.

use burn::tensor::Tensor;

use crate::trial::select;

/// Decay of the two moments, and what keeps a division by zero away.
const DECAY: (f32, f32) = (0.9, 0.999);
const TINY: f32 = 1e-8;

/// The moments of some rows that began together.
pub(crate) struct Adam {
    lr: f32,
    steps: i32,
    moments: Option<(Tensor<4>, Tensor<4>)>,
}

impl Adam {
    pub(crate) fn new(lr: f32) -> Self {
        Self { lr, steps: 0, moments: None }
    }

    /// What is to be subtracted, for this gradient.
    pub(crate) fn step(&mut self, gradient: Tensor<4>) -> Tensor<4> {
        let (first, second) = DECAY;
        self.steps += 1;
        let fresh = (gradient.clone() * (1.0 - first), gradient.square() * (1.0 - second));
        let (mean, square) = match self.moments.take() {
            Some((mean, square)) => (mean * first + fresh.0, square * second + fresh.1),
            None => fresh,
        };
        self.moments = Some((mean.clone(), square.clone()));
        let correction = |decay: f32| 1.0 - decay.powi(self.steps);
        let (mean, square) = (mean / correction(first), square / correction(second));
        mean * self.lr / (square.sqrt() + TINY)
    }

    /// Forgets all rows but these (rising).
    pub(crate) fn retain(&mut self, rows: &[usize]) {
        let pick = |(mean, square)| (select(&mean, rows), select(&square, rows));
        self.moments = self.moments.take().map(pick);
    }
}
