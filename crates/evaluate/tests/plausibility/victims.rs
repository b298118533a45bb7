//! Victims whose faults are known: a linear model whose robust accuracy can be computed, and the
//! same model with one fault each.

use burn::tensor::{Device, Tensor, TensorData, activation::softmax};
use clipguard_data::Stream;
use clipguard_evaluate::checks::Subject;
use clipguard_model::{Query, Victim};
use std::f32::consts::TAU;

pub(crate) const CLASSES: usize = 10;
pub(crate) const SIDE: usize = 8;
const PIXELS: usize = SIDE * SIDE;
/// Pixels of the pictures are multiples of one over this.
const GRID: f32 = 64.0;

/// What is wrong with a victim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// Pictures are rounded to eight levels.
    Levels,
    /// Logits are a thousand times too large.
    Loud,
    /// Normal noise of 0.1 on the pixels at every draw.
    Noise,
    /// A ripple of 0.004 that changes no answer and turns the gradient everywhere but on the grid
    /// of clean pictures.
    Ripple,
    /// Probabilities instead of logits.
    Softmax,
}

/// `z = (x - 0.5) W` with a fault.
pub(crate) struct Linear {
    pub(crate) weights: Vec<f32>,
    matrix: Tensor<2>,
    fault: Fault,
}

impl Linear {
    pub(crate) fn new(fault: Fault) -> Self {
        let mut stream = Stream::keyed(0, "test", "linear");
        let weights: Vec<f32> = (0..PIXELS * CLASSES).map(|_| stream.normal()).collect();
        let data = TensorData::new(weights.clone(), [PIXELS, CLASSES]);
        Self { weights, matrix: Tensor::from_data(data, &Device::flex()), fault }
    }

    fn weight(&self, pixel: usize, class: usize) -> f32 {
        self.weights[pixel * CLASSES + class]
    }

    /// `count` pictures of known classes: the pattern of their class with rising contrast.
    pub(crate) fn pictures(&self, count: usize) -> (Tensor<4>, Vec<usize>, Vec<String>) {
        let (mut values, mut labels) = (Vec::new(), Vec::new());
        for i in 0..count {
            let class = i % CLASSES;
            let contrast = 0.02 + 0.33 * i as f32 / count as f32;
            for pixel in 0..PIXELS {
                let mean =
                    (0..CLASSES).map(|c| self.weight(pixel, c)).sum::<f32>() / CLASSES as f32;
                let sign = (self.weight(pixel, class) - mean).signum();
                values.push(((0.5 + contrast * sign) * GRID).round() / GRID);
            }
            labels.push(class);
        }
        let data = TensorData::new(values, [count, 1, SIDE, SIDE]);
        let keys = (0..count).map(|i| format!("picture {i}")).collect();
        (Tensor::from_data(data, &Device::flex()), labels, keys)
    }

    /// Whether no change of at most `eps` a pixel can lead to another class: the lead over class
    /// `j` exceeds `eps |w_j - w_y|_1` for every `j` (exact where the box is out of reach).
    pub(crate) fn is_robust(&self, picture: &[f32], label: usize, eps: f32) -> bool {
        (0..CLASSES).filter(|&j| j != label).all(|j| {
            let gap = |pixel| self.weight(pixel, label) - self.weight(pixel, j);
            let lead: f32 = (0..PIXELS).map(|p| gap(p) * (picture[p] - 0.5)).sum();
            lead > eps * (0..PIXELS).map(|p| gap(p).abs()).sum::<f32>()
        })
    }

    fn seen(&self, query: Query<'_>) -> Tensor<2> {
        let Query { pixels, keys, draw } = query;
        let pixels = match self.fault {
            // A rounded picture has no gradient: it is built anew from numbers.
            Fault::Levels => {
                let plain = if pixels.is_autodiff() { pixels.inner() } else { pixels };
                (plain * 7.0).round() / 7.0
            }
            Fault::Noise => {
                let shape = pixels.dims();
                let mut noise = Vec::new();
                for key in keys {
                    let mut stream = Stream::keyed(draw, "test/noise", key);
                    noise.extend((0..PIXELS).map(|_| 0.1 * stream.normal()));
                }
                pixels + Tensor::from_data(TensorData::new(noise, shape), &Device::flex())
            }
            Fault::Ripple => {
                let waves = TAU * GRID * 16.0;
                pixels.clone() + (pixels * waves).sin() * (30.0 / waves)
            }
            _ => pixels,
        };
        pixels.flatten::<2>(1, 3) - 0.5
    }
}

impl Victim for Linear {
    fn classes(&self) -> usize {
        CLASSES
    }

    fn logits(&self, query: Query<'_>) -> Tensor<2> {
        let logits = self.seen(query).matmul(self.matrix.clone());
        match self.fault {
            Fault::Loud => logits * 1000.0,
            Fault::Softmax => softmax(logits, 1),
            _ => logits,
        }
    }
}

impl Subject for Linear {
    fn features(&self, query: Query<'_>) -> Option<Tensor<2>> {
        Some(self.seen(query))
    }
}
