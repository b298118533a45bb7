//! Where a descent begins.

use burn::tensor::Tensor;
use clipguard_data::Stream;
use serde::{Deserialize, Serialize};

use crate::{Norm, tensors::each_row};

/// The random point a descent begins at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Start {
    /// The clean picture.
    None,
    /// Uniform in the ball of radius eps.
    #[default]
    Ball,
    /// L2: a uniform direction times a uniform radius, denser towards the centre than
    /// [`Start::Ball`] (torchattacks). The other norms: as `Ball`.
    Radial,
    /// On the sphere: noise divided by its own size (APGD, Croce & Hein 2020). L1: normal noise,
    /// projected.
    Sphere,
}

impl Start {
    /// Start points for `clean`, confined to ball and box; `streams` has one stream a row.
    ///
    /// # Panics
    /// When there are fewer streams than rows.
    pub fn points(
        self,
        norm: Norm,
        clean: &Tensor<4>,
        eps: f32,
        streams: &mut [Stream],
    ) -> Tensor<4> {
        if self == Self::None {
            return clean.clone();
        }
        let noise = each_row(clean.clone(), |i, row| {
            let offset = self.offset(norm, row.len(), &mut streams[i]);
            let scale = if norm == Norm::L1 && self == Self::Sphere { 1.0 } else { eps };
            row.iter_mut().zip(offset).for_each(|(v, o)| *v = o * scale);
        });
        norm.confine(clean, clean.clone() + noise, eps)
    }

    /// A perturbation of `n` entries of size at most 1 (L1 sphere: unbounded normal noise).
    fn offset(self, norm: Norm, n: usize, stream: &mut Stream) -> Vec<f32> {
        let cube = |stream: &mut Stream| (0..n).map(|_| stream.within(-1.0, 1.0)).collect();
        let gauss = |stream: &mut Stream, n| (0..n).map(|_| stream.normal()).collect::<Vec<_>>();
        match (norm, self) {
            (_, Self::None) => vec![0.0; n],
            (Norm::Linf, Self::Ball | Self::Radial) => cube(stream),
            (Norm::Linf, Self::Sphere) => scaled(cube(stream), |v| v.abs(), f64::max, |v| v),
            (Norm::L2, Self::Ball) => ball_l2(gauss(stream, n + 2)),
            (Norm::L2, Self::Sphere) => sphere_l2(gauss(stream, n)),
            (Norm::L2, Self::Radial) => {
                let direction = sphere_l2(gauss(stream, n));
                let radius = stream.uniform();
                direction.into_iter().map(|v| v * radius).collect()
            }
            (Norm::L1, Self::Ball | Self::Radial) => {
                let spread = (0..n).map(|_| stream.uniform()).collect();
                let signs: Vec<f32> = cube(stream);
                ball_l1(spread, &signs)
            }
            (Norm::L1, Self::Sphere) => gauss(stream, n),
        }
    }
}

/// Noise of size 1: uniform in each entry for Linf, normal for the other norms.
pub(crate) fn direction(norm: Norm, n: usize, stream: &mut Stream) -> Vec<f32> {
    match norm {
        Norm::L1 => {
            let noise = (0..n).map(|_| stream.normal()).collect();
            scaled(noise, f64::abs, |a, b| a + b, |v| v)
        }
        norm => Start::Sphere.offset(norm, n, stream),
    }
}

/// Divides by a size that is folded from the entries in f64.
fn scaled(
    mut v: Vec<f32>,
    entry: impl Fn(f64) -> f64,
    fold: impl Fn(f64, f64) -> f64,
    finish: impl Fn(f64) -> f64,
) -> Vec<f32> {
    let size = finish(v.iter().map(|&x| entry(f64::from(x))).fold(0.0, fold)) + 1e-12;
    v.iter_mut().for_each(|x| *x = (f64::from(*x) / size) as f32);
    v
}

/// A uniform direction from independent normal draws.
pub fn sphere_l2(normals: Vec<f32>) -> Vec<f32> {
    scaled(normals, |v| v * v, |a, b| a + b, f64::sqrt)
}

/// A uniform point of the unit L2 ball from two more normal draws than it has entries
/// (Voelker, Gosmann & Stewart 2017).
pub fn ball_l2(normals: Vec<f32>) -> Vec<f32> {
    let mut point = sphere_l2(normals);
    point.truncate(point.len().saturating_sub(2));
    point
}

/// A uniform point of the unit L1 ball: spacings of sorted uniform draws, with the signs of
/// `signs`.
pub fn ball_l1(mut uniforms: Vec<f32>, signs: &[f32]) -> Vec<f32> {
    uniforms.sort_by(f32::total_cmp);
    let before = std::iter::once(0.0).chain(uniforms.iter().copied());
    let spacings = uniforms.iter().zip(before).map(|(a, b)| a - b);
    spacings.zip(signs).map(|(size, sign)| if *sign < 0.0 { -size } else { size }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensors::host;
    use burn::tensor::Device;

    #[test]
    fn starts_are_feasible_random_and_keyed_by_sample() {
        let clean = Tensor::<4>::full([2, 3, 4, 4], 0.5, &Device::flex());
        let streams = |seed| ["a", "b"].map(|key| Stream::keyed(seed, "test", key));
        for norm in [Norm::Linf, Norm::L2, Norm::L1] {
            for start in [Start::Ball, Start::Radial, Start::Sphere] {
                let points = start.points(norm, &clean, 0.3, &mut streams(1));
                let sizes = norm.measure(points.clone() - clean.clone());
                assert!(sizes.iter().all(|&s| s > 0.0 && Norm::within(s, 0.3)), "{norm} {sizes:?}");
                if start == Start::Sphere {
                    assert!(sizes.iter().all(|&s| s > 0.3 - 1e-5), "{norm} {sizes:?}");
                }
                let alone = clean.clone().narrow(0, 1, 1);
                let second = start.points(norm, &alone, 0.3, &mut streams(1)[1..]);
                assert_eq!(host(points)[48..], host(second));
            }
        }
    }
}
