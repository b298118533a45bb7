//! How much of an embedding is left after `t` steps of noise.

/// The cosine schedule (Nichol and Dhariwal 2021, equation 17) with its derived numbers, in f64.
///
/// `alpha_bar_t` is the share of the variance that is left at time `t`; times run from 0 (almost
/// clean) to `steps - 1` (almost pure noise). Names are those of the checkpoints' buffers.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    /// Variance that each step adds.
    pub betas: Vec<f64>,
    /// `alpha_bar`.
    pub alphas_cumprod: Vec<f64>,
    /// `alpha_bar` one step earlier, 1 at the start.
    pub alphas_cumprod_prev: Vec<f64>,
}

impl Schedule {
    /// `alpha_bar_k = h(k) / h(0)` with `h(k) = cos^2(((k / T + s) / (1 + s)) pi / 2)`,
    /// `s = 0.008`; no `beta` exceeds 0.999.
    pub fn cosine(steps: usize) -> Self {
        let h = |k: usize| {
            let share = (k as f64 / steps as f64 + 0.008) / 1.008;
            (share * std::f64::consts::FRAC_PI_2).cos().powi(2)
        };
        // Divided by h(0) as the reference does: the factor cancels, its rounding does not.
        let start = h(0);
        let kept = |k: usize| h(k) / start;
        let betas: Vec<f64> =
            (0..steps).map(|k| (1.0 - kept(k + 1) / kept(k)).clamp(0.0, 0.999)).collect();
        let mut product = 1.0;
        let mut next = |beta: &f64| {
            product *= 1.0 - beta;
            product
        };
        let alphas_cumprod: Vec<f64> = betas.iter().map(&mut next).collect();
        let mut alphas_cumprod_prev = vec![1.0];
        alphas_cumprod_prev.extend(alphas_cumprod.iter().take(steps.saturating_sub(1)));
        Self { betas, alphas_cumprod, alphas_cumprod_prev }
    }

    /// Number of times.
    pub fn steps(&self) -> usize {
        self.betas.len()
    }

    /// Factors of the clean embedding and of the noise at time `t`:
    /// `x_t = sqrt(alpha_bar) x_0 + sqrt(1 - alpha_bar) eps`.
    pub fn mixture(&self, t: usize) -> (f64, f64) {
        let kept = self.alphas_cumprod[t];
        (kept.sqrt(), (1.0 - kept).sqrt())
    }

    /// Of one reverse step (Ho et al. 2020, equation 7): the factors of the predicted clean
    /// embedding and of `x_t` in the mean, and the variance.
    pub fn posterior(&self, t: usize) -> (f64, f64, f64) {
        let (beta, kept, before) =
            (self.betas[t], self.alphas_cumprod[t], self.alphas_cumprod_prev[t]);
        let rest = 1.0 - kept;
        (
            beta * before.sqrt() / rest,
            (1.0 - before) * (1.0 - beta).sqrt() / rest,
            beta * (1.0 - before) / rest,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_only_grows_and_the_last_step_is_capped() {
        let schedule = Schedule::cosine(1000);
        assert_eq!(schedule.steps(), 1000);
        assert!(schedule.alphas_cumprod.windows(2).all(|pair| pair[1] < pair[0]));
        assert_eq!(schedule.betas[999], 0.999);
        for (t, want) in [(0, 0.99998), (100, 0.98569), (500, 0.70163), (900, 0.15368)] {
            assert!((schedule.mixture(t).0 - want).abs() < 1e-5, "{t}");
        }
        let (a, b) = schedule.mixture(321);
        assert!((a * a + b * b - 1.0).abs() < 1e-15);
    }
}
