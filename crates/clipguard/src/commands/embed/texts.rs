//! Texts on their way to embeddings.

use crate::{failure::Failure, pictures::values, tensor_file::Spool};
use clipguard_model::{
    Clip, ModelError, Tokenizer, normalise,
    tokenizer::{END, START},
};
use std::collections::BTreeMap;

/// Lengths of token rows are rounded up to a multiple of this.
const STEP: usize = 16;

/// Texts on their way to embeddings.
///
/// A text tower computes a batch at the length of its longest row, and the last bits of a row
/// depend on that length. So texts wait for others of their own length (rounded up), and the row
/// of a text does not depend on the others.
pub(super) struct Texts<'a> {
    clip: &'a Clip,
    tokenizer: Tokenizer,
    batch: usize,
    /// By length: place among the texts, and tokens.
    waiting: BTreeMap<usize, Vec<(u64, Vec<u32>)>>,
    count: u64,
    spool: Spool,
}

impl<'a> Texts<'a> {
    pub(super) fn new(clip: &'a Clip, batch: usize, spool: Spool) -> Self {
        let (tokenizer, waiting) = (Tokenizer::clip(), BTreeMap::new());
        Self { clip, tokenizer, batch, waiting, count: 0, spool }
    }

    pub(super) fn push(&mut self, text: &str) -> Result<(), Failure> {
        let context = self.clip.architecture().text.context;
        let row = self.tokenizer.row(text, context);
        let own = row.iter().position(|id| *id == END).map_or(context, |end| end + 1);
        let length = own.next_multiple_of(STEP).min(context);
        let waiting = self.waiting.entry(length).or_default();
        waiting.push((self.count, row));
        self.count += 1;
        if waiting.len() == self.batch { self.flush(length) } else { Ok(()) }
    }

    fn flush(&mut self, length: usize) -> Result<(), Failure> {
        let waiting = self.waiting.remove(&length).unwrap_or_default();
        let (places, mut rows): (Vec<u64>, Vec<Vec<u32>>) = waiting.into_iter().unzip();
        // At least one row that is no text brings the batch to its length.
        let mut filler = vec![0; self.clip.architecture().text.context];
        filler[0] = START;
        filler[length - 1] = END;
        rows.resize(self.batch + 1, filler);
        let embedded = self.clip.encode_text(&rows).map_err(|error| match error {
            ModelError::Tokens(reason) => Failure::Refused(format!(
                "the model's text tower does not take CLIP's tokens: {reason}; `--no-captions` \
                 embeds pictures alone"
            )),
            other => other.into(),
        })?;
        let embedded = values(normalise(embedded), places.len())?;
        let width = embedded.len() / places.len().max(1);
        places
            .iter()
            .zip(embedded.chunks_exact(width.max(1)))
            .try_for_each(|(place, row)| self.spool.put(*place, row))
    }

    pub(super) fn finish(mut self) -> Result<Spool, Failure> {
        let lengths: Vec<usize> = self.waiting.keys().copied().collect();
        lengths.into_iter().try_for_each(|length| self.flush(length))?;
        Ok(self.spool)
    }
}
