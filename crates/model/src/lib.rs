//! The CLIP family: towers, checkpoints, tokenizer, preprocessing, zero-shot heads.

pub mod victim;

pub use victim::{GradientMode, Query, Victim};
