//! Purifiers: defences that act at inference.
//!
//! The one decision behind this crate: **a purifier is part of the victim, and so is the way a
//! gradient passes it.** A defence is only worth what it withstands when the attacker
//! differentiates through it, and the history of the field is one of defences whose released code
//! happened to hide the gradient. So a purifier is a differentiable map on tensors, a
//! [`Defended`] model composes purifiers with an encoder and a head into a
//! [`Victim`](clipguard_model::victim::Victim), and whether the gradient is exact, detached or
//! straight-through is a value on the purifier, not a second implementation. Attacks and defences
//! never see each other.
//!
//! Purifiers act at one of three stations: on pixels before the encoder, on how the encoder is
//! asked (once, or about several views), and on embeddings behind it; most leave two of them alone. Each works row by row, so that the answer for a picture does not
//! depend on its company, or says otherwise by [`Purifier::limit`].
//!
//! Not chosen: purifiers that call automatic differentiation inside (the framework has no second
//! derivatives, and such a defence cannot be attacked exactly). Inner gradients are written out:
//! that of the cosine has two terms, that of a prior is
//! [`Prior::slope`](clipguard_model::prior::Prior::slope). The exception are steps along
//! the sign of a gradient (`ttc`, `csr`): their sum is a constant almost everywhere, and so passes
//! exactly when it is treated as one. One rival (`et3`) steps along a normalised gradient; its exact
//! gradient cannot be had, and its page says so.

pub mod angles;
pub mod catalogue;
pub mod clipure_cos;
pub mod clipure_diff;
pub mod csr;
pub mod defended;
pub mod denoise;
pub mod et3;
pub mod score;
pub mod shifts;
pub mod smooth;
pub mod ttc;

use std::fmt;

use burn::tensor::Tensor;
use clipguard_data::spelling::{Spelling, SpellingError};

pub use catalogue::{CATALOGUE, Material, parse};
pub use clipure_cos::{ClipureCos, Mode, StepNorm};
pub use clipure_diff::ClipureDiff;
pub use csr::Csr;
pub use defended::Defended;
pub use denoise::Denoise;
pub use et3::Et3;
pub use score::{SCORES, Score, Watched, parse_score};
pub use shifts::Shifts;
pub use smooth::Smooth;
pub use ttc::Ttc;

/// Unit embeddings `[batch, dimensions]` of pictures `[batch, 3, height, width]`.
pub type Encode<'a> = dyn Fn(Tensor<4>) -> Tensor<2> + 'a;

/// A map that takes the attack out of pictures or embeddings.
pub trait Purifier: Send + Sync {
    /// Purified pictures `[batch, 3, height, width]` in `[0, 1]`, in front of the encoder.
    ///
    /// `keys` has one key a row; the draws of a random purifier depend on it and on `draw` alone.
    fn pixels(&self, pixels: Tensor<4>, keys: &[String], draw: u64) -> Tensor<4> {
        let _ = (keys, draw);
        pixels
    }

    /// Unit embeddings `[batch, dimensions]` of purified pictures; `encoder` gives those of any
    /// pictures that belong to the same rows. Most purifiers ask it once.
    fn encode(
        &self,
        pixels: Tensor<4>,
        keys: &[String],
        draw: u64,
        encoder: &Encode<'_>,
    ) -> Tensor<2> {
        let _ = (keys, draw);
        encoder(pixels)
    }

    /// Purified embeddings `[batch, dimensions]`, behind encoder and L2 normalisation.
    ///
    /// # Panics
    /// When the batch is larger than [`Purifier::limit`] allows.
    fn embedding(&self, embedding: Tensor<2>, keys: &[String], draw: u64) -> Tensor<2> {
        let _ = (keys, draw);
        embedding
    }

    /// Whether it acts on pictures, and so leaves an embedding alone that comes without one.
    fn needs_pictures(&self) -> bool {
        false
    }

    /// Whether it optimises something for each picture while the model answers.
    fn optimises(&self) -> bool {
        false
    }

    /// The largest batch it accepts; `None` when rows do not depend on each other.
    fn limit(&self) -> Option<Limit> {
        None
    }

    /// Name and all settings, as [`parse`] reads them.
    fn spelling(&self) -> Spelling;

    /// Digest of the file it was read from, if any: the path in its spelling does not say what
    /// was in it.
    fn digest(&self) -> Option<&str> {
        None
    }
}

/// Why a purifier takes only small batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Largest number of rows.
    pub rows: usize,
    /// What happens beyond it.
    pub reason: &'static str,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at most {} rows in a batch: {}", self.rows, self.reason)
    }
}

/// Why a purifier cannot be made or cannot act.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PurifyError {
    /// Its name or settings.
    #[error(transparent)]
    Spelling(#[from] SpellingError),
    /// Something of the model that it needs is missing or unusable.
    #[error("{purifier} needs {what}")]
    Material {
        /// The purifier's name.
        purifier: &'static str,
        /// What is missing.
        what: &'static str,
    },
    /// A prior that cannot be used.
    #[error("{path}: {reason}")]
    Prior {
        /// Its file.
        path: String,
        /// What is wrong, and what would be right.
        reason: String,
    },
    /// A batch larger than its limit.
    #[error("{purifier} got {rows} rows and takes {limit}")]
    Batch {
        /// The purifier's name.
        purifier: &'static str,
        /// Rows of the batch.
        rows: usize,
        /// The limit.
        limit: Limit,
    },
}
