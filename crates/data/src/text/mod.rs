//! Captions: random rewordings for training, and the words they are made of.
//!
//! As with pictures ([`crate::augment`]), what is drawn and what is done are two things, and a
//! rewording belongs to (seed, sample, epoch, number of the view). A caption is a stranger's text
//! of any length; a method takes time in proportion to it and never fails.

mod eda;
mod synonyms;

use crate::{
    Stream,
    spelling::{Method, Parameters, Spelling, SpellingError, find},
};

pub use eda::{Eda, Operation};
pub use synonyms::{Synonyms, synonyms};

/// A way to draw a random rewording of a caption.
pub trait Rewording: Send + Sync {
    /// One rewording of `caption`.
    fn reword(&self, caption: &str, stream: &mut Stream) -> String;

    /// Whether a caption has the same rewording in all epochs.
    fn is_fixed(&self) -> bool {
        false
    }

    /// The method with every setting written out.
    fn spelling(&self) -> Spelling;
}

/// The draws of a rewording: number `view` of the sample `key` in `epoch`.
pub fn stream(seed: u64, key: &str, epoch: u64, view: u64) -> Stream {
    let mut bytes = key.as_bytes().to_vec();
    bytes.extend(epoch.to_le_bytes());
    bytes.extend(view.to_le_bytes());
    Stream::keyed(seed, "reword", bytes)
}

/// Makes a rewording from its spelling.
pub type Build = fn(&Spelling) -> Result<Box<dyn Rewording>, SpellingError>;

/// Every rewording, by name.
pub const CATALOGUE: &[Method<Build>] = &[Method {
    name: "eda",
    about: "synonyms, insertions, swaps or deletions of words",
    source: "Wei & Zou, EDA, EMNLP 2019; as in CleanCLIP's and SafeCLIP's code",
    parameters: Eda::list,
    build: |spelling| Ok(Box::new(Eda::from_spelling(spelling)?)),
}];

/// The rewording that `text` spells, such as `eda:alpha=0.2`.
///
/// # Errors
/// A text of another form, an unknown name or setting (with the closest known one), or a value out
/// of range.
pub fn parse(text: &str) -> Result<Box<dyn Rewording>, SpellingError> {
    let spelling: Spelling = text.parse()?;
    (find("rewording", CATALOGUE, spelling.name())?.build)(&spelling)
}
