//! What is measured without an attack: accuracy, retrieval, linear probes, several classes a picture,
//! a model on its way through training, and embeddings that were stored elsewhere.

pub(crate) mod captions;
pub mod metrics;
pub mod midway;
pub(crate) mod multi_label;
pub mod probe;
pub mod retrieval;
pub mod stored;
