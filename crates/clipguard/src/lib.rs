//! clipguard makes CLIP-style models trustworthy: from the training data to the running
//! classifier.
//!
//! This crate is the face of the library: each stage is a crate of its own and is re-exported
//! here under the name of what it does.
//!
//! ```no_run
//! use clipguard::{burn::tensor::Device, model::{Checkpoint, Head}};
//!
//! let clip = Checkpoint::open("embedded")?.build(&Device::flex())?;
//! let classes = ["cat".to_owned(), "dog".to_owned()];
//! let texts: Vec<Vec<String>> = classes.iter().map(|c| vec![format!("a photo of a {c}")]).collect();
//! let head = Head::new(&clip, &classes, &texts)?;
//! # Ok::<(), clipguard::model::ModelError>(())
//! ```

pub use burn;
pub use clipguard_attack as attack;
pub use clipguard_data as data;
pub use clipguard_evaluate as evaluate;
pub use clipguard_model as model;
pub use clipguard_purify as purify;
pub use clipguard_train as train;
