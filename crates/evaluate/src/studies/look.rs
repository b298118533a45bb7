//! What is looked at of one picture's embedding: where it lies, before and after purification.
//!
//! The pictures of a run stay where they are; what a summary needs of an embedding is a few numbers
//! and a shadow of it, a projection on fixed random directions. Divergences of shadows are lower
//! bounds of divergences of what throws them.

use burn::tensor::Tensor;
use clipguard_data::Stream;

/// Directions of a projection.
pub(crate) const SHADOW: usize = 8;

/// Spaces in which pictures are compared.
pub(crate) const SPACES: [&str; 3] = ["pixels", "image embedding", "image and text"];

/// One picture, before and after purification where there are two numbers.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Look {
    /// Angle to the blank prompt, in radians.
    pub(crate) angle: [f64; 2],
    /// Cosine with the right class.
    pub(crate) right: [f64; 2],
    /// Largest cosine with another class.
    pub(crate) other: [f64; 2],
    /// Angle by which purification turns the embedding.
    pub(crate) turn: f64,
    /// Angle between the embeddings of this picture and the clean one.
    pub(crate) moved: f64,
    /// Share of the squared displacement in the plane of clean embedding and blank prompt.
    pub(crate) plane: f64,
    /// Share of it in the span of the class prompts.
    pub(crate) names: f64,
    /// Minus the mean squared difference of neighbouring pixels: the logarithm, up to scale, of a
    /// Gaussian density with the spectrum of natural pictures.
    pub(crate) smooth: [f64; 2],
    /// Shadows in each of [`SPACES`].
    pub(crate) shadows: [[Vec<f64>; 2]; 3],
}

/// Numbers in front of the shadows.
const HEAD: usize = 12;

impl Look {
    /// As a line of a unit keeps it.
    pub(crate) fn row(&self) -> Vec<f64> {
        let Self { angle, right, other, turn, moved, plane, names, smooth, shadows } = self;
        let pairs = [angle, right, other, smooth];
        let mut row: Vec<f64> = pairs.into_iter().flatten().copied().collect();
        row.extend([turn, moved, plane, names]);
        row.extend(shadows.iter().flatten().flatten());
        row
    }

    /// Back from a line; `None` for a line of something else.
    pub(crate) fn read(row: &[f64]) -> Option<Self> {
        let (head, tail) = row.split_at_checked(HEAD)?;
        let mut shadows: [[Vec<f64>; 2]; 3] = Default::default();
        let chunks = tail.chunks_exact(SHADOW);
        if chunks.len() != 6 || tail.len() != 6 * SHADOW {
            return None;
        }
        shadows.iter_mut().flatten().zip(chunks).for_each(|(to, from)| *to = from.to_vec());
        let pair = |i: usize| [head[i], head[i + 1]];
        Some(Self {
            angle: pair(0),
            right: pair(2),
            other: pair(4),
            smooth: pair(6),
            turn: head[8],
            moved: head[9],
            plane: head[10],
            names: head[11],
            shadows,
        })
    }
}

/// What pictures are compared with.
pub(crate) struct Viewer {
    /// Unit direction of the blank prompt.
    blank: Vec<f64>,
    /// Unit embeddings of the classes.
    classes: Vec<Vec<f64>>,
    /// Orthonormal basis of their span.
    span: Vec<Vec<f64>>,
}

/// A picture's pixels and embedding.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) pixels: &'a [f32],
    pub(crate) embedding: &'a [f32],
}

impl Viewer {
    /// With the blank prompt `[dim]` and the head `[dim, classes]`.
    pub(crate) fn new(blank: &Tensor<1>, head: &Tensor<2>) -> Self {
        let blank: Vec<f64> = blank.clone().into_data().iter::<f64>().collect();
        let [dim, _] = head.dims();
        let rows: Vec<f64> = head.clone().transpose().into_data().iter::<f64>().collect();
        let classes: Vec<Vec<f64>> = rows.chunks_exact(dim.max(1)).map(unit).collect();
        let mut span: Vec<Vec<f64>> = Vec::new();
        for class in &classes {
            let rest = without(class, &span);
            // What is left of a direction that is in the span already is rounding.
            if span.len() < dim && length(&rest) > 1e-6 {
                span.push(unit(&rest));
            }
        }
        Self { blank: unit(&blank), classes, span }
    }

    /// The look of a picture of class `label` whose clean version has the embedding `clean`;
    /// `views`: before and after purification. `side`: height and width.
    pub(crate) fn look(
        &self,
        clean: &[f32],
        views: [View<'_>; 2],
        label: usize,
        side: (usize, usize),
    ) -> Look {
        let embeddings = views.map(|view| unit(wide(view.embedding)));
        let cosines = embeddings.clone().map(|z| self.cosines(&z));
        let other = |all: &[f64]| {
            let others = all.iter().enumerate().filter(|(class, _)| *class != label);
            others.map(|(_, cosine)| *cosine).fold(f64::NEG_INFINITY, f64::max).max(-1.0)
        };
        let clean = unit(wide(clean));
        let step: Vec<f64> = embeddings[0].iter().zip(&clean).map(|(a, b)| a - b).collect();
        let size = dot(&step, &step);
        let across = without(&self.blank, std::slice::from_ref(&clean));
        let plane = [clean.clone(), unit(&across)];
        let share = |basis: &[Vec<f64>]| match size > 1e-12 {
            true => basis.iter().map(|e| dot(e, &step).powi(2)).sum::<f64>() / size,
            false => 0.0,
        };
        let shadow = |i: usize| {
            let mut text = cosines[i].clone();
            text.push(dot(&embeddings[i], &self.blank));
            let pixels = wide(views[i].pixels);
            [shadow("pixels", &pixels), shadow("image", &embeddings[i]), shadow("text", &text)]
        };
        let [before, after] = [shadow(0), shadow(1)];
        let mut after = after.into_iter();
        let shadows = before.map(|b| [b, after.next().unwrap_or_default()]);
        Look {
            angle: [0, 1].map(|i| angle(&embeddings[i], &self.blank)),
            right: [0, 1].map(|i| cosines[i].get(label).copied().unwrap_or(0.0)),
            other: [0, 1].map(|i| other(&cosines[i])),
            turn: angle(&embeddings[0], &embeddings[1]),
            moved: angle(&embeddings[0], &clean),
            plane: share(&plane),
            names: share(&self.span),
            smooth: views.map(|view| -roughness(view.pixels, side)),
            shadows,
        }
    }

    fn cosines(&self, z: &[f64]) -> Vec<f64> {
        self.classes.iter().map(|class| dot(class, z)).collect()
    }
}

/// Mean squared difference of neighbouring pixels in planes of `(height, width)`.
fn roughness(pixels: &[f32], (height, width): (usize, usize)) -> f64 {
    let (mut sum, mut count) = (0.0, 0usize);
    let square = |a: f32, b: f32| (f64::from(a) - f64::from(b)).powi(2);
    for plane in pixels.chunks_exact((height * width).max(1)) {
        for (i, value) in plane.iter().enumerate() {
            if i % width + 1 < width {
                (sum, count) = (sum + square(*value, plane[i + 1]), count + 1);
            }
            if i + width < plane.len() {
                (sum, count) = (sum + square(*value, plane[i + width]), count + 1);
            }
        }
    }
    sum / count.max(1) as f64
}

/// Products with fixed random directions, each of about the vector's length over the root of its
/// dimensions.
fn shadow(space: &str, vector: &[f64]) -> Vec<f64> {
    let direction = |place: usize| {
        let mut stream = Stream::counted(0, &format!("shadow/{space}"), place as u64);
        vector.iter().map(|v| v * f64::from(stream.normal())).sum::<f64>()
    };
    (0..SHADOW).map(direction).collect()
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|v| f64::from(*v)).collect()
}

pub(crate) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn length(a: &[f64]) -> f64 {
    dot(a, a).sqrt()
}

pub(crate) fn unit(a: impl AsRef<[f64]>) -> Vec<f64> {
    let a = a.as_ref();
    let length = length(a).max(1e-300);
    a.iter().map(|v| v / length).collect()
}

/// What is left of a vector beside an orthonormal basis; twice, for rounding.
fn without(vector: &[f64], basis: &[Vec<f64>]) -> Vec<f64> {
    let mut rest = vector.to_vec();
    for direction in basis.iter().chain(basis) {
        let along = dot(&rest, direction);
        rest.iter_mut().zip(direction).for_each(|(r, d)| *r -= along * d);
    }
    rest
}

pub(crate) fn angle(a: &[f64], b: &[f64]) -> f64 {
    // Exact near 0 and 180 degrees, where the arc cosine is not.
    let apart: Vec<f64> = a.iter().zip(b).map(|(a, b)| a - b).collect();
    let together: Vec<f64> = a.iter().zip(b).map(|(a, b)| a + b).collect();
    2.0 * length(&apart).atan2(length(&together))
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;
    use std::f64::consts::FRAC_PI_2;

    /// Classes along the first two axes, the blank prompt along the third, of five.
    fn viewer() -> Viewer {
        let head = [[1.0, 0.0], [0.0, 1.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]];
        let device = Device::flex();
        let blank = Tensor::<1>::from_floats([0.0, 0.0, 2.0, 0.0, 0.0], &device);
        Viewer::new(&blank, &Tensor::<2>::from_floats(head, &device))
    }

    #[test]
    fn a_look_says_where_the_embedding_went() {
        let flat = [0.5f32; 12];
        let clean = [1.0f32, 0.0, 0.0, 0.0, 0.0];
        let view = |embedding| View { pixels: &flat, embedding };
        // Towards the other class: all of it in the span of the names, half of it in the plane
        // (along the clean embedding).
        let attacked = [0.0f32, 1.0, 0.0, 0.0, 0.0];
        let views = [view(&attacked), view(&clean)];
        let look = viewer().look(&clean, views, 0, (2, 2));
        assert_eq!((look.right, look.other), ([0.0, 1.0], [1.0, 0.0]));
        assert!((look.turn - FRAC_PI_2).abs() < 1e-12 && (look.moved - FRAC_PI_2).abs() < 1e-12);
        assert!((look.names - 1.0).abs() < 1e-12 && (look.plane - 0.5).abs() < 1e-12);
        assert!(look.angle.iter().all(|angle| (angle - FRAC_PI_2).abs() < 1e-12));
        assert_eq!(look.smooth, [0.0; 2]);
        // Towards the blank prompt: all of it in the plane.
        let blank = [0.8f32, 0.0, 0.6, 0.0, 0.0];
        let look = viewer().look(&clean, [view(&blank); 2], 0, (2, 2));
        assert!((look.plane - 1.0).abs() < 1e-9 && look.turn == 0.0);
        // Outside both.
        let outside = [0.9f32, 0.0, 0.0, 0.436, 0.0];
        let look = viewer().look(&clean, [view(&outside); 2], 0, (2, 2));
        assert!(look.plane < 0.2 && look.names < 0.2);
        assert_eq!(Look::read(&look.row()), Some(look.clone()));
        assert_eq!(Look::read(&look.row()[1..]), None);
    }

    #[test]
    fn roughness_is_that_of_neighbours_and_shadows_are_fixed() {
        // One plane of 2 x 2: differences 1, 1 across and 0, 0 down.
        assert_eq!(roughness(&[0.0, 1.0, 0.0, 1.0], (2, 2)), 0.5);
        assert_eq!(shadow("a", &[1.0, 2.0]), shadow("a", &[1.0, 2.0]));
        assert_ne!(shadow("a", &[1.0, 2.0]), shadow("b", &[1.0, 2.0]));
        let (one, two) = (shadow("a", &[1.0, 0.5]), shadow("a", &[2.0, 1.0]));
        assert!(one.iter().zip(&two).all(|(a, b)| (2.0 * a - b).abs() < 1e-12));
    }
}
