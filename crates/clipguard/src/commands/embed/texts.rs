//! Texts on their way to embeddings.

use crate::{failure::Failure, pictures::values, tensor_file::Spool};
use clipguard_model::{Clip, ModelError, Tokenizer, normalise};

/// Embeds texts a batch at a time. The row of a text does not depend on the others in its batch.
pub(super) struct Texts<'a> {
    clip: &'a Clip,
    tokenizer: Tokenizer,
    batch: usize,
    waiting: Vec<Vec<u32>>,
    /// How many of them spell a special token.
    pub(super) special: u64,
    spool: Spool,
}

impl<'a> Texts<'a> {
    pub(super) fn new(clip: &'a Clip, batch: usize, spool: Spool) -> Self {
        let (tokenizer, waiting) = (Tokenizer::clip(), Vec::new());
        Self { clip, tokenizer, batch, waiting, special: 0, spool }
    }

    pub(super) fn push(&mut self, text: &str) -> Result<(), Failure> {
        let context = self.clip.architecture().text.context;
        self.special += u64::from(self.tokenizer.contains_special(text));
        self.waiting.push(self.tokenizer.row(text, context));
        if self.waiting.len() == self.batch { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), Failure> {
        let rows = std::mem::take(&mut self.waiting);
        if rows.is_empty() {
            return Ok(());
        }
        let embedded = self.clip.encode_text(&rows).map_err(|error| match error {
            ModelError::Tokens(reason) => Failure::Refused(format!(
                "the model's text tower does not take CLIP's tokens: {reason}; `--no-captions` \
                 embeds pictures alone"
            )),
            other => other.into(),
        })?;
        self.spool.push(&values(normalise(embedded))?)
    }

    pub(super) fn finish(mut self) -> Result<Spool, Failure> {
        self.flush()?;
        Ok(self.spool)
    }
}
