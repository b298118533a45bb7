//! Gradients by name: taken from a backward pass, added up, measured.

use burn::tensor::Tensor;
use rayon::prelude::*;
use std::collections::BTreeMap;

/// Gradients by parameter name.
pub(crate) type Gradients = BTreeMap<String, Vec<f32>>;

/// Elements treated by one task.
pub(crate) const TASK: usize = 1 << 16;

/// Derivatives of `loss` with respect to flat leaves; those that took no part are left out, all of
/// them where everything that did is frozen.
pub(crate) fn backward<'a>(
    loss: &Tensor<1>,
    leaves: impl Iterator<Item = (&'a str, &'a Tensor<1>)>,
) -> Gradients {
    // The framework panics at a root that depends on no leaf; this one adds nothing.
    let anchor = Tensor::zeros([1], &loss.device()).require_grad();
    let mut grads = (loss.clone() + anchor).backward();
    leaves
        .filter_map(|(name, leaf)| {
            let gradient = leaf.grad_remove(&mut grads)?;
            Some((name.to_owned(), gradient.into_data().try_to_vec::<f32>().ok()?))
        })
        .collect()
}

/// Adds `more` to `sum`, name by name.
pub(crate) fn add(sum: &mut Gradients, more: Gradients) {
    for (name, gradient) in more {
        match sum.get_mut(&name) {
            Some(total) => total.iter_mut().zip(gradient).for_each(|(t, g)| *t += g),
            None => {
                sum.insert(name, gradient);
            }
        }
    }
}

/// L2 norm over all gradients, summed in f64 in the order of the names.
pub(crate) fn global_norm(gradients: &Gradients) -> f64 {
    let square = |g: &Vec<f32>| -> f64 {
        let parts: Vec<f64> = g
            .par_chunks(TASK)
            .map(|part| part.iter().map(|v| f64::from(*v) * f64::from(*v)).sum())
            .collect();
        parts.iter().sum()
    };
    gradients.values().map(square).sum::<f64>().sqrt()
}
