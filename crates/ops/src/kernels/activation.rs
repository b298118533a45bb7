//! Activations of the transformer blocks, elementwise.

use super::{exp, fresh::in_tasks, vectorised};

/// Which activation a block uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x * sigmoid(1.702 x)`, OpenAI's models.
    QuickGelu,
    /// `x/2 (1 + erf(x / sqrt 2))`, exact.
    Gelu,
    /// `x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))`.
    GeluTanh,
}

/// Elements of one task.
const TASK: usize = 1 << 14;

/// erf to 1.2e-7 absolute: Abramowitz and Stegun 7.1.26's form with the coefficients of
/// Numerical Recipes' `erfcc` (fractional error 1.2e-7 everywhere).
#[inline(always)]
fn erf(x: f32) -> f32 {
    let z = x.abs();
    let t = 1.0 / (1.0 + 0.5 * z);
    let mut p = 0.170_872_77f32;
    p = p * t - 0.822_152_23;
    p = p * t + 1.488_515_9;
    p = p * t - 1.135_204;
    p = p * t + 0.278_868_07;
    p = p * t - 0.186_288_06;
    p = p * t + 0.096_784_18;
    p = p * t + 0.374_091_96;
    p = p * t + 1.000_023_7;
    let r = 1.0 - t * exp(-z * z - 1.265_512_2 + t * p);
    if x < 0.0 { -r } else { r }
}

#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// Value and derivative.
#[inline(always)]
fn evaluate(kind: Activation, x: f32) -> (f32, f32) {
    match kind {
        Activation::QuickGelu => {
            let s = sigmoid(1.702 * x);
            (x * s, s + 1.702 * x * s * (1.0 - s))
        }
        Activation::Gelu => {
            let half = 0.5 * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2));
            (x * half, half + x * 0.398_942_3 * exp(-0.5 * x * x))
        }
        Activation::GeluTanh => {
            let (a, b) = (0.797_884_6, 0.044_715);
            let t = 2.0 * sigmoid(2.0 * a * (x + b * x * x * x)) - 1.0;
            let slope = 0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * a * (1.0 + 3.0 * b * x * x);
            (0.5 * x * (1.0 + t), slope)
        }
    }
}

/// What `kind` makes of `x`.
#[inline(always)]
pub(super) fn value(kind: Activation, x: f32) -> f32 {
    evaluate(kind, x).0
}

/// Writes `f(x)` for every element; `kind` is matched outside the loop so that it vectorises. The loops
/// stand bare: inside an adapter's closure they would be compiled for the baseline processor.
fn map(kind: Activation, x: &[f32], y: &mut [f32], g: Option<&[f32]>) {
    macro_rules! run {
        ($kind:expr) => {
            match g {
                None => {
                    for (y, x) in y.iter_mut().zip(x) {
                        *y = value($kind, *x);
                    }
                }
                Some(g) => {
                    for ((y, x), g) in y.iter_mut().zip(x).zip(g) {
                        *y = g * evaluate($kind, *x).1;
                    }
                }
            }
        };
    }
    vectorised(
        #[inline(always)]
        || match kind {
            Activation::QuickGelu => run!(Activation::QuickGelu),
            Activation::Gelu => run!(Activation::Gelu),
            Activation::GeluTanh => run!(Activation::GeluTanh),
        },
    );
}

pub(crate) fn forward(kind: Activation, x: &[f32]) -> Vec<f32> {
    in_tasks(x.len(), TASK, |i, y| map(kind, &x[i * TASK..][..y.len()], y, None))
}

pub(crate) fn backward(kind: Activation, x: &[f32], g: &[f32]) -> Vec<f32> {
    in_tasks(x.len(), TASK, |i, dx| {
        let own = i * TASK..i * TASK + dx.len();
        map(kind, &x[own.clone()], dx, Some(&g[own]));
    })
}
