//! What an attack will cost, before it starts.
//!
//! An attack is run once on a tiny victim that nothing can break, which counts its forward and
//! backward passes on a sample that survives: the most it can take. Multiplied by the measured
//! time of one pass of the real victim that is an upper bound; broken samples leave early.

use burn::tensor::{Device, Tensor};
use clipguard_attack::{Attack, Batch};
use clipguard_model::{Query, Victim};

/// Passes over one sample that survives.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Passes {
    /// Forward passes, those with a backward pass included.
    pub(crate) forwards: f64,
    /// Backward passes.
    pub(crate) backwards: f64,
}

impl Passes {
    /// The most passes `attack` takes over one sample of a victim with `classes` classes.
    pub(crate) fn of(attack: &dyn Attack, classes: usize) -> Self {
        let classes = classes.max(2);
        let pixels = Tensor::full([1, 3, 8, 8], 0.5, &Device::flex());
        let keys = ["the most".to_owned()];
        let batch = Batch { pixels, labels: &[0], keys: &keys };
        let found = attack.run(&Unbroken { classes }, &batch, 0);
        Self { forwards: found.forwards as f64, backwards: found.backwards as f64 }
    }

    /// Seconds over `samples` samples, from the seconds of one forward and one backward pass.
    pub(crate) fn seconds(&self, samples: usize, forward: f64, backward: f64) -> f64 {
        samples as f64 * (self.forwards * forward + self.backwards * backward)
    }
}

/// Class 0 leads by far; the others rise a little with the pixels, so that gradients exist.
struct Unbroken {
    classes: usize,
}

impl Victim for Unbroken {
    fn classes(&self) -> usize {
        self.classes
    }

    fn logits(&self, query: Query<'_>) -> Tensor<2> {
        let mean = query.pixels.flatten::<2>(1, 3).mean_dim(1);
        let parts = (0..self.classes).map(|class| match class {
            0 => mean.clone() * -0.01 + 5.0,
            class => mean.clone() * (0.01 * class as f32),
        });
        Tensor::cat(parts.collect(), 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clipguard_attack::{CATALOGUE, parse};

    #[test]
    fn passes_are_those_of_a_sample_that_survives() {
        let of = |text: &str| Passes::of(&*parse(text).unwrap(), 10);
        // The clean picture, 21 points, and the judge; no gradient at the last point.
        assert_eq!(of("pgd:steps=20"), Passes { forwards: 23.0, backwards: 20.0 });
        assert_eq!(of("pgd:steps=20,restarts=2").backwards, 40.0);
        for method in CATALOGUE {
            assert!(of(method.name).forwards > 0.0, "{}", method.name);
        }
    }
}
