//! What is measured on the way, on pictures and texts that are not trained on.
//!
//! Metrics are another crate's business, one that stands on this one's models too; whoever starts
//! the run hands them in. They see the model and give numbers, so they cannot change what is
//! trained.

use clipguard_model::Checkpoint;
use std::error::Error;

/// Measures a model.
pub trait Examine: Send {
    /// Numbers by name, in the order they are to be written; `None` for one that has no value. They
    /// must follow from the model alone, or a resumed run tells others.
    ///
    /// # Errors
    /// Whatever stopped it; the run stops with it, and its state is kept.
    fn examine(&mut self, model: &Checkpoint) -> Result<Vec<Figure>, Box<dyn Error + Send + Sync>>;
}

/// A number and its name.
pub type Figure = (String, Option<f64>);
