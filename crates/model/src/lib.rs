//! The CLIP family: towers, checkpoints, tokenizer, preprocessing, zero-shot heads.

pub mod prompts;
pub mod tokenizer;
pub mod victim;

pub use prompts::{ClassList, PromptError, Template, TemplateSet};
pub use tokenizer::{Tokenizer, TokenizerOptions};
pub use victim::{GradientMode, Query, Victim};
