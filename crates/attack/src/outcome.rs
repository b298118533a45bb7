//! What an attack hands back.

use std::fmt;

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

/// The result of an attack, one entry a sample in the order of the batch.
#[derive(Clone, Debug)]
pub struct Attacked {
    /// Pictures to be judged, `[batch, channels, height, width]`: inside budget and box, equal to
    /// the clean picture where nothing was found.
    pub pixels: Tensor<4>,
    /// Whether the victim errs on the stored picture (with a target: says the target), from a
    /// fresh forward pass. Samples that were wrong from the start count as erring.
    pub success: Vec<bool>,
    /// Whether the clean picture was classified correctly.
    pub correct: Vec<bool>,
    /// Size of the perturbation, measured as the attack's budget is.
    pub norm: Vec<f32>,
    /// Size of the smallest error seen, inside the budget or not; `None` where there was none, and
    /// for attacks that do not look for small ones.
    pub nearest: Vec<Option<f32>>,
    /// Evaluation at which the first success was seen, counted over restarts from 0 (the first
    /// start point); `None` if there was none.
    pub first_success: Vec<Option<usize>>,
    /// Which attack of an ensemble broke the sample; `None` for attacks of one part.
    pub broken_by: Vec<Option<&'static str>>,
    /// Loss at every evaluated point, over all restarts; empty for samples not attacked.
    pub loss: Vec<Vec<f32>>,
    /// Highest loss inside the budget; `None` for samples not attacked, and for ensembles.
    pub best_loss: Vec<Option<f32>>,
    /// Pictures put through the victim.
    pub forwards: usize,
    /// Pictures differentiated.
    pub backwards: usize,
    /// Share of the differentiated pictures whose gradient was 0 in every entry.
    pub zero_gradients: f32,
    /// What a report has to mention.
    pub flags: Vec<Flag>,
}

impl Attacked {
    /// Share of all samples that are classified correctly and not broken.
    pub fn robust_accuracy(&self) -> f32 {
        let robust = self.correct.iter().zip(&self.success).filter(|(c, s)| **c && !**s).count();
        robust as f32 / self.correct.len().max(1) as f32
    }

    /// Points of a sample that were put to the victim: the queries of an attack that sees nothing
    /// else. A random victim may have been asked several times at each.
    pub fn queries(&self, sample: usize) -> usize {
        self.loss[sample].len()
    }
}

/// Something about a run that its reader should know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Flag {
    /// Gradients of this many pictures held NaN or infinity; those entries were set to 0.
    BrokenGradient(usize),
    /// Logits of this many pictures held NaN; they never count as a success.
    BrokenLogits(usize),
    /// This many pictures were adversarial during the run but not when put to the victim again.
    Unconfirmed(usize),
    /// This many samples have the target class as their true class and were not attacked.
    TargetIsLabel(usize),
    /// Too few classes for the loss asked for; the margin was raised instead.
    MarginInstead {
        /// Classes of the victim.
        classes: usize,
    },
    /// There are not as many wrong classes to steer towards as asked for.
    FewerTargets {
        /// Classes asked for.
        wanted: usize,
        /// Wrong classes of the victim.
        possible: usize,
    },
    /// This many samples had no gradient at all at the first start point of a DLR loss.
    ZeroStart(usize),
    /// The victim answers differently when asked again (AutoAttack's check 1): use version=rand.
    RandomVictim {
        /// Largest distance of normalised logits between two passes.
        difference: f32,
        /// Distance from which this is said, also said if the number of correct samples differs.
        threshold: f32,
    },
    /// The victim gives probabilities in place of logits (check 2): DLR is not made for them.
    ProbabilitiesAsLogits,
    /// This part of the victim optimises while it answers (check 5).
    Dynamic(String),
    /// Square breaks what the gradient attacks did not (check 4): gradients may be masked.
    SquareImproves {
        /// Robust accuracy of the batch before Square.
        before: f32,
        /// Robust accuracy after it.
        after: f32,
        /// Gain from which this is said.
        threshold: f32,
    },
}

impl fmt::Display for Flag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BrokenGradient(n) => write!(f, "{n} gradients were not finite (set to 0)"),
            Self::BrokenLogits(n) => write!(f, "{n} pictures had logits that are not numbers"),
            Self::Unconfirmed(n) => {
                write!(f, "{n} successes did not survive a second forward pass")
            }
            Self::TargetIsLabel(n) => write!(f, "{n} samples already belong to the target class"),
            Self::MarginInstead { classes } => {
                write!(f, "{classes} classes are too few for this loss: the margin was used")
            }
            Self::ZeroStart(n) => write!(f, "{n} samples had no gradient at the start point"),
            Self::RandomVictim { difference, threshold } => write!(
                f,
                "the victim is random: normalised logits of two passes differ by {difference:e} \
                 (threshold {threshold:e}); use version=rand"
            ),
            Self::ProbabilitiesAsLogits => {
                f.write_str("the victim gives probabilities, not logits")
            }
            Self::Dynamic(part) => write!(
                f,
                "the defence optimises while it answers ({part}): attack it through that as well"
            ),
            Self::SquareImproves { before, after, threshold } => write!(
                f,
                "Square lowers robust accuracy from {before} to {after} (threshold {threshold}): \
                 gradients may be masked"
            ),
            Self::FewerTargets { wanted, possible } => {
                write!(f, "steered towards {possible} classes, not {wanted}: there are no more")
            }
        }
    }
}
