//! Multinomial logistic regression by L-BFGS: the probe that has one answer.
//!
//! The objective is convex, so with double precision and a fixed order of sums the outcome depends
//! on the features alone: no seed, no order of samples, no rate to choose.

use super::Linear;
use rayon::prelude::*;
use std::collections::VecDeque;

/// Steps that curvature is remembered for.
const MEMORY: usize = 10;
/// Largest entry of the gradient of the mean loss at which the search is over.
const TOLERANCE: f64 = 1e-6;
/// Rows treated by one task; partial sums are added in their order, whoever computed them.
const ROWS: usize = 256;
/// Partial sums that are held at once.
const WAVE: usize = 32;

/// Rows `[n, dim]` with their classes.
pub(super) struct Problem<'a> {
    pub(super) rows: &'a [f32],
    pub(super) labels: &'a [usize],
    pub(super) dim: usize,
    pub(super) classes: usize,
}

impl Problem<'_> {
    /// Mean cross-entropy plus `|W|^2 / (2 c n)` (the bias is free), and its gradient. `at` holds
    /// the classes one after another, `dim` weights and a bias each.
    fn value(&self, at: &[f64], c: f64) -> (f64, Vec<f64>) {
        let (dim, n) = (self.dim, self.labels.len());
        let (mut loss, mut gradient) = (0.0, vec![0.0; at.len()]);
        let wave = WAVE * ROWS;
        for (rows, labels) in self.rows.chunks(wave * dim).zip(self.labels.chunks(wave)) {
            let parts: Vec<(f64, Vec<f64>)> = rows
                .par_chunks(ROWS * dim)
                .zip(labels.par_chunks(ROWS))
                .map(|(rows, labels)| self.part(at, rows, labels))
                .collect();
            for (part, slope) in parts {
                loss += part;
                gradient.iter_mut().zip(slope).for_each(|(g, s)| *g += s);
            }
        }
        let ridge = 1.0 / c;
        for (own, g) in at.chunks_exact(dim + 1).zip(gradient.chunks_exact_mut(dim + 1)) {
            for (w, g) in own[..dim].iter().zip(g) {
                loss += 0.5 * ridge * w * w;
                *g += ridge * w;
            }
        }
        gradient.iter_mut().for_each(|g| *g /= n as f64);
        (loss / n as f64, gradient)
    }

    fn part(&self, at: &[f64], rows: &[f32], labels: &[usize]) -> (f64, Vec<f64>) {
        let dim = self.dim;
        let (mut loss, mut gradient) = (0.0, vec![0.0; at.len()]);
        for (row, &label) in rows.chunks_exact(dim).zip(labels) {
            let row: Vec<f64> = row.iter().map(|v| f64::from(*v)).collect();
            let mut scores: Vec<f64> = at
                .chunks_exact(dim + 1)
                .map(|own| own[dim] + row.iter().zip(own).map(|(x, w)| x * w).sum::<f64>())
                .collect();
            let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let own = scores[label] - top;
            scores.iter_mut().for_each(|s| *s = (*s - top).exp());
            let sum: f64 = scores.iter().sum();
            loss += sum.ln() - own;
            for ((class, score), g) in
                scores.iter().enumerate().zip(gradient.chunks_exact_mut(dim + 1))
            {
                let pull = score / sum - f64::from(u8::from(class == label));
                g[..dim].iter_mut().zip(&row).for_each(|(g, x)| *g += pull * x);
                g[dim] += pull;
            }
        }
        (loss, gradient)
    }
}

/// Fits the weights: from zero, at most `limit` steps.
pub(super) fn fit(problem: &Problem<'_>, c: f64, limit: usize) -> Linear {
    let (dim, classes) = (problem.dim, problem.classes);
    let mut at = vec![0.0; classes * (dim + 1)];
    let (mut value, mut gradient) = problem.value(&at, c);
    let mut memory: VecDeque<Pair> = VecDeque::new();
    for _ in 0..limit {
        if gradient.iter().all(|g| g.abs() <= TOLERANCE) {
            break;
        }
        let direction = descent(&gradient, &memory);
        let slope = dot(&gradient, &direction);
        let Some((next, next_value, next_gradient)) =
            search(problem, c, (&at, value), &direction, slope)
        else {
            break;
        };
        let moved = next.iter().zip(&at).map(|(a, b)| a - b).collect();
        let turned = next_gradient.iter().zip(&gradient).map(|(a, b)| a - b).collect();
        memory.extend(Pair::new(moved, turned));
        if memory.len() > MEMORY {
            memory.pop_front();
        }
        (at, value, gradient) = (next, next_value, next_gradient);
    }
    let mut linear = Linear::zero(dim, classes);
    for (class, own) in at.chunks_exact(dim + 1).enumerate() {
        linear.weights[class * dim..(class + 1) * dim]
            .iter_mut()
            .zip(own)
            .for_each(|(to, w)| *to = *w as f32);
        linear.bias[class] = own[dim] as f32;
    }
    linear
}

/// A step and the change of the gradient over it.
struct Pair {
    moved: Vec<f64>,
    turned: Vec<f64>,
    curvature: f64,
}

impl Pair {
    /// `None` where the curvature along the step is not positive, up to rounding.
    fn new(moved: Vec<f64>, turned: Vec<f64>) -> Option<Self> {
        let curvature = dot(&moved, &turned);
        (curvature > 1e-18 * dot(&turned, &turned).max(1e-300)).then_some(Self {
            moved,
            turned,
            curvature,
        })
    }
}

/// The two-loop recursion (Nocedal and Wright 2006, algorithm 7.4).
fn descent(gradient: &[f64], memory: &VecDeque<Pair>) -> Vec<f64> {
    let mut q: Vec<f64> = gradient.iter().map(|g| -g).collect();
    let mut alphas = Vec::with_capacity(memory.len());
    for pair in memory.iter().rev() {
        let alpha = dot(&pair.moved, &q) / pair.curvature;
        q.iter_mut().zip(&pair.turned).for_each(|(q, y)| *q -= alpha * y);
        alphas.push(alpha);
    }
    if let Some(last) = memory.back() {
        let scale = last.curvature / dot(&last.turned, &last.turned);
        q.iter_mut().for_each(|q| *q *= scale);
    }
    for (pair, alpha) in memory.iter().zip(alphas.iter().rev()) {
        let beta = dot(&pair.turned, &q) / pair.curvature;
        q.iter_mut().zip(&pair.moved).for_each(|(q, s)| *q += (alpha - beta) * s);
    }
    q
}

/// A point with a sufficient decrease and a flatter slope (weak Wolfe conditions, by bisection:
/// Lewis and Overton 2013, algorithm 2.6); `None` where rounding leaves none.
fn search(
    problem: &Problem<'_>,
    c: f64,
    (at, value): (&[f64], f64),
    direction: &[f64],
    slope: f64,
) -> Option<(Vec<f64>, f64, Vec<f64>)> {
    let (mut low, mut high, mut length) = (0.0, f64::INFINITY, 1.0);
    let mut best = None;
    for _ in 0..40 {
        let next: Vec<f64> = at.iter().zip(direction).map(|(a, d)| a + length * d).collect();
        let (found, gradient) = problem.value(&next, c);
        if found.is_nan() || found > value + 1e-4 * length * slope {
            high = length;
        } else {
            let steep = dot(&gradient, direction) < 0.9 * slope;
            best = Some((next, found, gradient));
            if !steep {
                break;
            }
            low = length;
        }
        length = if high.is_finite() { 0.5 * (low + high) } else { 2.0 * low };
    }
    best
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clipguard_data::Stream;

    /// Three clouds in the plane, which overlap.
    fn clouds(n: usize) -> (Vec<f32>, Vec<usize>) {
        let mut stream = Stream::keyed(1, "clouds", "all");
        let labels: Vec<usize> = (0..n).map(|i| i % 3).collect();
        let centre = [(0.0, 0.0), (2.0, 0.0), (0.0, 2.0)];
        let rows = labels
            .iter()
            .flat_map(|label| {
                let (x, y) = centre[*label];
                [x + stream.normal(), y + stream.normal()]
            })
            .collect();
        (rows, labels)
    }

    fn problem<'a>(rows: &'a [f32], labels: &'a [usize]) -> Problem<'a> {
        Problem { rows, labels, dim: 2, classes: 3 }
    }

    fn flat(linear: &Linear) -> Vec<f64> {
        (0..3)
            .flat_map(|class| {
                [linear.weights[2 * class], linear.weights[2 * class + 1], linear.bias[class]]
            })
            .map(f64::from)
            .collect()
    }

    #[test]
    fn the_gradient_is_that_of_the_value() {
        let (rows, labels) = clouds(700);
        let problem = problem(&rows, &labels);
        let at: Vec<f64> = (0..9).map(|i| f64::from(i) * 0.13 - 0.5).collect();
        let (_, gradient) = problem.value(&at, 0.3);
        for i in 0..9 {
            let moved = |h: f64| {
                let mut at = at.clone();
                at[i] += h;
                problem.value(&at, 0.3).0
            };
            let slope = (moved(1e-5) - moved(-1e-5)) / 2e-5;
            assert!((slope - gradient[i]).abs() < 1e-8, "{i}: {slope} {}", gradient[i]);
        }
    }

    #[test]
    fn the_fit_is_the_minimum_and_plain_descent_ends_there_too() {
        let (rows, labels) = clouds(600);
        let problem = problem(&rows, &labels);
        let c = 0.05;
        let found = flat(&fit(&problem, c, 1000));
        let (value, gradient) = problem.value(&found, c);
        assert!(gradient.iter().all(|g| g.abs() < 2e-6), "{gradient:?}");
        let mut at = vec![0.0; 9];
        for _ in 0..4000 {
            let (_, gradient) = problem.value(&at, c);
            at.iter_mut().zip(gradient).for_each(|(a, g)| *a -= 0.4 * g);
        }
        assert!((problem.value(&at, c).0 - value).abs() < 1e-9);
        // Adding a number to all biases changes nothing; the weights are unique.
        for i in [0, 1, 3, 4, 6, 7] {
            assert!((at[i] - found[i]).abs() < 1e-3, "{at:?} {found:?}");
        }
        assert!(found.iter().any(|w| w.abs() > 0.5));
    }

    #[test]
    fn the_fit_does_not_depend_on_threads() {
        let (rows, labels) = clouds(2000);
        let fits: Vec<Linear> = [1, 3]
            .map(|threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| fit(&problem(&rows, &labels), 1.0, 100))
            })
            .into();
        assert_eq!(fits[0], fits[1]);
    }
}
