//! Noise for embeddings, and the prior's error on them.

use super::{Prediction, Prior, Text};
use burn::tensor::{Tensor, TensorData};
use clipguard_data::Stream;

/// One draw of time, noise and dropped inputs for every row of a batch.
#[derive(Clone, Debug)]
pub struct Draw {
    /// Time of each row.
    pub times: Vec<usize>,
    /// Standard normal, `[batch, dim]`.
    pub noise: Tensor<2>,
    /// Rows that are not told the text.
    pub no_text: Vec<bool>,
    /// Rows that are not shown the noised embedding.
    pub no_image: Vec<bool>,
}

impl Draw {
    /// A draw for rows of `like`, row by row from a stream of its own: a time uniform in
    /// `first..=last`, the noise, and text and embedding hidden with their probabilities,
    /// independently.
    pub fn new(
        streams: impl IntoIterator<Item = Stream>,
        (first, last): (usize, usize),
        (hide_text, hide_image): (f32, f32),
        like: &Tensor<2>,
    ) -> Self {
        let [rows, dim] = like.dims();
        let (mut times, mut noise) = (Vec::with_capacity(rows), Vec::with_capacity(rows * dim));
        let (mut no_text, mut no_image) = (Vec::with_capacity(rows), Vec::with_capacity(rows));
        for mut stream in streams {
            times.push(first + stream.below(last + 1 - first));
            no_text.push(stream.chance(hide_text));
            no_image.push(stream.chance(hide_image));
            noise.extend((0..dim).map(|_| f64::from(stream.normal())));
        }
        let noise = TensorData::new(noise, [rows, dim]);
        let noise = Tensor::from_data(noise, (&like.device().inner(), like.dtype()));
        Self { times, noise, no_text, no_image }
    }
}

impl Prior {
    /// `x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps` of scaled embeddings
    /// `[batch, dim]` (Ho et al. 2020, equation 4).
    pub fn noised(&self, clean: Tensor<2>, draw: &Draw) -> Tensor<2> {
        let (kept, added) = self.mixtures(draw);
        clean * kept + draw.noise.clone() * added
    }

    /// What the prior makes of scaled embeddings `[batch, dim]` behind a draw of noise; `none` is
    /// the row's beginning without text, for rows that are not told it.
    pub fn restore(
        &self,
        clean: Tensor<2>,
        draw: &Draw,
        text: &Text,
        none: &Text,
    ) -> Prediction<'_> {
        let noised = self.noised(clean, draw);
        match draw.no_text.contains(&true) {
            true => {
                let text = text.replaced(&draw.no_text, none);
                self.predict(noised, &draw.times, &text, &draw.no_image)
            }
            false => self.predict(noised, &draw.times, text, &draw.no_image),
        }
    }

    /// Mean squared error of each row, `[batch, 1]`: the negative log-likelihood up to weight and
    /// constant.
    pub fn errors(&self, clean: Tensor<2>, draw: &Draw, text: &Text, none: &Text) -> Tensor<2> {
        let restored = self.restore(clean.clone(), draw, text, none).clean;
        (restored - clean).square().mean_dim(1)
    }

    /// Gradient of each row's error with respect to its clean embedding, through the noised
    /// embedding and through the target; itself differentiable.
    pub fn slope(&self, clean: Tensor<2>, draw: &Draw, text: &Text, none: &Text) -> Tensor<2> {
        let restored = self.restore(clean.clone(), draw, text, none);
        let direct = (restored.clean.clone() - clean) * (2.0 / self.layout().dim as f64);
        let (kept, _) = self.mixtures(draw);
        restored.pull(direct.clone()) * kept - direct
    }

    /// Factors of embedding and noise, each `[batch, 1]`.
    fn mixtures(&self, draw: &Draw) -> (Tensor<2>, Tensor<2>) {
        let (kept, added): (Vec<f64>, Vec<f64>) =
            draw.times.iter().map(|&t| self.schedule().mixture(t)).unzip();
        let column = |values: Vec<f64>| {
            let data = TensorData::new(values, [draw.times.len(), 1]);
            Tensor::from_data(data, (&draw.noise.device(), draw.noise.dtype()))
        };
        (column(kept), column(added))
    }
}
