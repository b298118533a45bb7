//! Evasion attacks: norms, the trial around them, the descent skeleton, one file an attack.
//!
//! The one decision behind this crate: **an attack is judged by the picture it stores, never by
//! what it saw on the way.** Whatever a method does, it does inside a trial, which decides which
//! samples are attacked (those still classified correctly), keeps the best point found beside the
//! iterate, brings it inside the budget and the box, puts it to the victim once more and only then
//! says "success". Around gradients a descent is the skeleton: a norm, a loss, a start and a step
//! rule are small pure functions; an attack names four of them and adds nothing else. So a new
//! attack cannot forget to clamp, count a misclassified sample as a success, return the last
//! iterate where the best was meant, or let a NaN through: those mistakes, which make up most of
//! the trap list of the field, are not in reach of its file.
//!
//! The second rule is that **a sample's result depends on that sample alone.** Random starts come
//! from a stream keyed by the sample's key, reductions stay inside one sample, and a sample leaves
//! the batch when it is done. Batch size, order, shards and resumption cannot change a result,
//! unless the victim itself couples its rows.
//!
//! Not chosen: a tensor of per-sample flags carried through masked updates (the usual way on
//! accelerators): rows that are done are dropped instead, because a forward pass costs far more
//! than a gather. Not chosen either: attacks that know about defences. How a gradient passes a
//! purifier is a value on the victim ([`GradientMode`](clipguard_model::victim::GradientMode)).

mod adam;
pub mod apgd;
pub mod autoattack;
mod budget;
pub mod catalogue;
pub mod cw;
pub mod deepfool;
pub mod descent;
pub mod fab;
pub mod fgsm;
pub mod hopskipjump;
mod ledger;
pub mod loss;
mod nearest;
pub mod norm;
pub mod outcome;
pub mod patch;
pub mod pgd;
pub mod square;
pub mod start;
mod tensors;
pub mod transfer;
mod trial;

use burn::tensor::Tensor;
use clipguard_data::spelling::Spelling;
use clipguard_model::victim::Victim;

pub use apgd::Apgd;
pub use autoattack::AutoAttack;
pub use budget::Budget;
pub use catalogue::{CATALOGUE, parse};
pub use cw::Cw;
pub use deepfool::DeepFool;
pub use fab::Fab;
pub use fgsm::Fgsm;
pub use hopskipjump::HopSkipJump;
pub use loss::{Loss, Scale, Target};
pub use norm::Norm;
pub use outcome::{Attacked, Flag};
pub use patch::Patch;
pub use pgd::Pgd;
pub use square::Square;
pub use start::Start;
pub use trial::{Keep, Terms};

/// The samples to attack.
#[derive(Clone, Debug)]
pub struct Batch<'a> {
    /// Clean pictures `[batch, channels, height, width]` in `[0, 1]`, without gradient tracking.
    pub pixels: Tensor<4>,
    /// True class of each picture.
    pub labels: &'a [usize],
    /// Key of each picture; the random draws of a sample depend on the seed and this alone.
    pub keys: &'a [String],
}

/// Something that changes pictures within a budget so that the victim errs.
pub trait Attack: Send + Sync {
    /// Attacks every sample of the batch that the victim classifies correctly.
    ///
    /// The result has one row a sample, in the order of the batch, whether attacked or not.
    ///
    /// # Panics
    /// When the lengths of `labels` and `keys` are not the number of pictures, or a label is not
    /// below [`Victim::classes`].
    fn run(&self, victim: &dyn Victim, batch: &Batch<'_>, seed: u64) -> Attacked;

    /// Name and all settings, as [`parse`] reads them; belongs into every record.
    fn spelling(&self) -> Spelling;
}
