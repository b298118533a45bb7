//! What an attacker may change, and how much of it was changed.

use burn::tensor::Tensor;
use clipguard_data::spelling::{Spelling, number};

use crate::{
    Norm,
    tensors::{host, row},
};

/// The limit an attack has to keep.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Budget {
    /// Every entry may change, the change as a whole is small.
    Ball {
        /// How its size is measured.
        norm: Norm,
        /// Radius in pixel units.
        eps: f32,
    },
    /// Everything inside one upright square may change, nothing outside: an L0 norm that counts
    /// what the square covers.
    Patch {
        /// Share of the picture that the square may cover.
        share: f32,
    },
}

impl Budget {
    /// The budget in the settings of an attack: `share` is a patch, else `norm` and `eps` are a
    /// ball. Without a radius there is no limit.
    pub fn of(spelling: &Spelling) -> Self {
        let read = |key| spelling.get(key).and_then(number).map(|value| value as f32);
        match read("share") {
            Some(share) => Self::Patch { share },
            None => Self::Ball {
                norm: match spelling.get("norm") {
                    Some("l1") => Norm::L1,
                    Some("l2") => Norm::L2,
                    _ => Norm::Linf,
                },
                eps: read("eps").unwrap_or(f32::INFINITY),
            },
        }
    }

    /// How it is called in records: `linf`, `l2`, `l1` or `patch`.
    pub fn name(self) -> String {
        match self {
            Self::Ball { norm, .. } => norm.to_string(),
            Self::Patch { .. } => "patch".to_owned(),
        }
    }

    /// The largest size; 0 allows no change.
    pub fn limit(self) -> f32 {
        match self {
            Self::Ball { eps, .. } => eps,
            Self::Patch { share } => share,
        }
    }

    /// Size of each change `[batch, channels, height, width]`: its norm, or the share of the picture
    /// that the smallest square around all of it covers.
    pub fn measure(self, delta: Tensor<4>) -> Vec<f64> {
        match self {
            Self::Ball { norm, .. } => norm.measure(delta),
            Self::Patch { .. } => {
                let [batch, _, height, width] = delta.dims();
                let numbers = host(delta);
                let row = (numbers.len() / batch.max(1)).max(1);
                numbers.chunks(row).map(|row| covered(row, height, width)).collect()
            }
        }
    }

    /// Whether a size is allowed, up to rounding.
    pub fn holds(self, size: f64) -> bool {
        Norm::within(size, self.limit())
    }

    /// The last guard before a picture is judged: a ball scales back what is over by rounding, a
    /// patch takes back the whole change.
    pub(crate) fn settle(self, clean: &Tensor<4>, point: Tensor<4>) -> Tensor<4> {
        let Self::Ball { norm, eps } = self else {
            let point = point.clamp(0.0, 1.0);
            let sizes = self.measure(point.clone() - clean.clone());
            let pick = |(i, size): (usize, &f64)| match self.holds(*size) {
                true => row(&point, i),
                false => row(clean, i),
            };
            return Tensor::cat(sizes.iter().enumerate().map(pick).collect(), 0);
        };
        norm.settle(clean, point, eps)
    }
}

/// Share of the picture that the smallest square around all changed entries covers.
fn covered(delta: &[f32], height: usize, width: usize) -> f64 {
    let (mut rows, mut columns) = ((usize::MAX, 0), (usize::MAX, 0));
    for (i, _) in delta.iter().enumerate().filter(|(_, change)| **change != 0.0) {
        let (y, x) = (i / width % height, i % width);
        rows = (rows.0.min(y), rows.1.max(y + 1));
        columns = (columns.0.min(x), columns.1.max(x + 1));
    }
    let side = rows.1.saturating_sub(rows.0).max(columns.1.saturating_sub(columns.0));
    (side * side) as f64 / (height * width).max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, TensorData};

    fn delta(changed: &[usize]) -> Tensor<4> {
        let mut numbers = vec![0.0f32; 2 * 4 * 5];
        changed.iter().for_each(|&i| numbers[i] = -0.5);
        Tensor::from_data(TensorData::new(numbers, [1, 2, 4, 5]), &Device::flex())
    }

    #[test]
    fn a_patch_is_as_large_as_the_square_around_every_change() {
        let patch = Budget::Patch { share: 0.2 };
        let size = |changed: &[usize]| patch.measure(delta(changed))[0];
        assert_eq!(size(&[]), 0.0);
        assert_eq!(size(&[7]), 1.0 / 20.0);
        // The same place in both channels; a row of three; two corners of the picture.
        assert_eq!(size(&[7, 27]), 1.0 / 20.0);
        assert_eq!(size(&[5, 7]), 9.0 / 20.0);
        assert_eq!(size(&[0, 39]), 25.0 / 20.0);
        assert!(patch.holds(size(&[1, 7])) && !patch.holds(size(&[5, 7])));
        let clean = delta(&[]) + 0.5;
        let settle = |changed: &[usize]| host(patch.settle(&clean, delta(changed) + 0.5));
        assert_eq!(settle(&[1, 7]), host(delta(&[1, 7]) + 0.5));
        assert_eq!(settle(&[5, 7]), host(clean.clone()));
    }

    #[test]
    fn spellings_say_their_budget() {
        let of = |text: &str| Budget::of(&text.parse().unwrap());
        assert_eq!(of("a:norm=l2,eps=0.5"), Budget::Ball { norm: Norm::L2, eps: 0.5 });
        assert_eq!(of("a:share=0.02"), Budget::Patch { share: 0.02 });
        assert_eq!(of("a:share=0.02").name(), "patch");
        assert_eq!(of("a").limit(), f32::INFINITY);
    }
}
