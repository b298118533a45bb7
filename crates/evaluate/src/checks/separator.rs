//! Unregularised logistic regression that tells one point from many: Newton's method with
//! conjugate gradients, in f64.
//!
//! The classes are weighted to equal halves, since one point against hundreds would otherwise
//! hardly count. On separable data the likelihood has no maximum; the search ends as soon as every
//! point lies beyond a lead of 1 on its own side, which fixes direction and threshold.

/// A linear readout of features: positive on the planted side.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Readout {
    /// A weight a feature.
    pub(crate) weights: Vec<f64>,
    /// The threshold.
    pub(crate) bias: f64,
}

impl Readout {
    /// The score of one row of features.
    pub(crate) fn score(&self, features: &[f64]) -> f64 {
        self.bias + dot(&self.weights, features)
    }

    /// The readout with all scores multiplied.
    pub(crate) fn scaled(mut self, factor: f64) -> Self {
        self.weights.iter_mut().for_each(|w| *w *= factor);
        self.bias *= factor;
        self
    }
}

const NEWTON_STEPS: usize = 80;
const INNER_STEPS: usize = 200;
/// Keeps the linear systems solvable; far too small to move the solution.
const RIDGE: f64 = 1e-10;

/// A readout that is negative on every row of `many` and positive on `one`; `None` when none was
/// found. Rows are `one.len()` wide.
pub(crate) fn separate(many: &[f64], one: &[f64]) -> Option<Readout> {
    let width = one.len();
    let count = many.len() / width.max(1);
    if width == 0 || count == 0 {
        return None;
    }
    let problem = Problem::new(many, one, count, width);
    let mut solution = vec![0.0; width + 1];
    for _ in 0..NEWTON_STEPS {
        if problem.leads(&solution) >= 1.0 {
            break;
        }
        let (gradient, curvature) = problem.derivatives(&solution);
        let step = problem.solve(&curvature, &gradient);
        let before = problem.loss(&solution);
        let mut length = 1.0;
        // Half the step until the loss falls; Newton's step always points downhill.
        let next = loop {
            let next: Vec<f64> = solution.iter().zip(&step).map(|(s, d)| s - length * d).collect();
            if problem.loss(&next) < before {
                break next;
            }
            length *= 0.5;
            if length < 1e-10 {
                return problem.readout(&solution);
            }
        };
        solution = next;
    }
    problem.readout(&solution)
}

/// Centred and scaled rows, the planted one last, each with a 1 for the threshold.
struct Problem {
    rows: Vec<f64>,
    width: usize,
    centre: Vec<f64>,
    scale: f64,
}

impl Problem {
    fn new(many: &[f64], one: &[f64], count: usize, width: usize) -> Self {
        let mut centre = vec![0.0; width];
        for row in many.chunks_exact(width) {
            centre.iter_mut().zip(row).for_each(|(c, v)| *c += v / count as f64);
        }
        let all = || many.chunks_exact(width).chain(std::iter::once(one));
        let squares: f64 = all().map(|row| squared_distance(row, &centre)).sum();
        let scale = (squares / (count * width) as f64).sqrt().max(1e-300);
        let mut rows = Vec::with_capacity((count + 1) * (width + 1));
        for row in all() {
            rows.extend(row.iter().zip(&centre).map(|(v, c)| (v - c) / scale));
            rows.push(1.0);
        }
        Self { rows, width: width + 1, centre, scale }
    }

    fn rows(&self) -> impl Iterator<Item = (&[f64], f64, f64)> {
        let count = self.rows.len() / self.width;
        let many = 0.5 / (count - 1) as f64;
        self.rows
            .chunks_exact(self.width)
            .enumerate()
            .map(move |(i, row)| if i + 1 == count { (row, 1.0, 0.5) } else { (row, -1.0, many) })
    }

    /// The smallest lead of a row on its own side.
    fn leads(&self, solution: &[f64]) -> f64 {
        self.rows().map(|(row, side, _)| side * dot(row, solution)).fold(f64::INFINITY, f64::min)
    }

    fn loss(&self, solution: &[f64]) -> f64 {
        let softplus = |z: f64| z.max(0.0) + (-z.abs()).exp().ln_1p();
        self.rows().map(|(row, side, weight)| weight * softplus(-side * dot(row, solution))).sum()
    }

    /// Gradient, and the weight of each row in the second derivative.
    fn derivatives(&self, solution: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let (mut gradient, mut curvature) = (vec![0.0; self.width], Vec::new());
        for (row, side, weight) in self.rows() {
            let wrong = 1.0 / (1.0 + (side * dot(row, solution)).exp());
            gradient.iter_mut().zip(row).for_each(|(g, v)| *g -= weight * side * wrong * v);
            curvature.push(weight * wrong * (1.0 - wrong));
        }
        (gradient, curvature)
    }

    /// Conjugate gradients for the Newton step.
    fn solve(&self, curvature: &[f64], gradient: &[f64]) -> Vec<f64> {
        let product = |v: &[f64]| {
            let mut out: Vec<f64> = v.iter().map(|x| RIDGE * x).collect();
            for ((row, ..), weight) in self.rows().zip(curvature) {
                let along = weight * dot(row, v);
                out.iter_mut().zip(row).for_each(|(o, x)| *o += along * x);
            }
            out
        };
        let mut solution = vec![0.0; self.width];
        let mut residual = gradient.to_vec();
        let mut direction = residual.clone();
        let mut size = dot(&residual, &residual);
        let enough = size * 1e-16;
        for _ in 0..INNER_STEPS {
            if size <= enough {
                break;
            }
            let image = product(&direction);
            let step = size / dot(&direction, &image).max(1e-300);
            solution.iter_mut().zip(&direction).for_each(|(s, d)| *s += step * d);
            residual.iter_mut().zip(&image).for_each(|(r, i)| *r -= step * i);
            let next = dot(&residual, &residual);
            direction.iter_mut().zip(&residual).for_each(|(d, r)| *d = r + next / size * *d);
            size = next;
        }
        solution
    }

    /// Back in the units of the features, if it separates.
    fn readout(&self, solution: &[f64]) -> Option<Readout> {
        if self.leads(solution) <= 0.0 {
            return None;
        }
        let last = self.width - 1;
        let weights: Vec<f64> = solution[..last].iter().map(|w| w / self.scale).collect();
        let bias = solution[last] - dot(&weights, &self.centre);
        Some(Readout { weights, bias })
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn squared_distance(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clipguard_data::Stream;

    #[test]
    fn one_point_outside_a_cloud_is_told_apart_and_one_inside_is_not() {
        let mut stream = Stream::keyed(0, "test", "separator");
        let (width, count) = (20, 120);
        let many: Vec<f64> =
            (0..count * width).map(|_| 3.0 + 1e-3 * f64::from(stream.within(-1.0, 1.0))).collect();
        let corner = vec![3.0 + 1.05e-3; width];
        let readout = separate(&many, &corner).unwrap();
        assert!(readout.score(&corner) > 0.0);
        assert!(many.chunks_exact(width).all(|row| readout.score(row) < 0.0));
        let centre = vec![3.0; width];
        assert_eq!(separate(&many, &centre), None);
        assert_eq!(separate(&[], &centre), None);
    }
}
