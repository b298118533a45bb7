//! Text to token rows, id for id as CLIP's own program does it.
//!
//! A tokenizer that is wrong in one caption out of a thousand breaks nothing visibly: the
//! model still answers, a few points worse. So the decision behind this module is exactness
//! first, and every deviation a named choice:
//!
//! - **Cleaning** ([`Clean`]) is part of the model. CLIP repairs text, undoes HTML twice,
//!   folds white space and lowers case *before* splitting, and models trained elsewhere clean
//!   differently ([`Clean::HuggingFace`]). The steps live in `clean`, `html` and `mojibake`.
//! - **Splitting** follows the reference's expression through the `regex` crate's Unicode
//!   classes: `char::is_alphabetic` is not `\p{L}`, and the difference reaches real captions
//!   (Thai and Hindi vowel signs).
//! - **Merging** uses a heap, so a megabyte without a space costs a megabyte's time; the
//!   textbook loop is quadratic, and captions come from strangers.
//! - **Special strings** in a caption are ordinary text by default ([`Special::PlainText`]).
//!   The reference programs turn a literal `<end_of_text>` into the end token, which lets a
//!   caption hide everything behind it; that is here a compatibility switch.
//!
//! What is not done: the whole of ftfy's mojibake heuristic. Only the unmistakable cases are
//! repaired (see `mojibake`); the rest keeps its garbled letters, as spelled in the data.
//!
//! Reference: OpenAI CLIP `simple_tokenizer.py` and open_clip `tokenizer.py` (behaviour; the
//! vocabulary is theirs, MIT, see `assets/text/README.md`).

mod bpe;
mod clean;
mod html;
mod mojibake;
mod split;
mod vocabulary;

use bpe::Merger;
use split::Piece;
use vocabulary::Vocabulary;

/// Number of token ids: 512 bytes, 48,894 merges, start and end.
pub const VOCABULARY_SIZE: usize = 49_408;
/// The id every row begins with.
pub const START: u32 = 49_406;
/// The id that closes the text; the text tower reads its feature at this position.
pub const END: u32 = 49_407;
/// The row length of all published CLIP models.
pub const CONTEXT_LENGTH: usize = 77;

/// How a text is prepared before it is split.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Clean {
    /// OpenAI and open_clip: repair (ftfy), HTML unescape twice, fold white space, lower case.
    #[default]
    Full,
    /// Hugging Face's fast tokenizer: NFC, fold white space, lower case letter by letter
    /// (no final sigma). No repair, no HTML.
    HuggingFace,
    /// The text as it is, case included; for text that was cleaned before.
    None,
}

/// What becomes of literal special strings inside a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Special {
    /// They are text like any other: nothing in a caption can end the row early.
    #[default]
    PlainText,
    /// `<start_of_text>` and `<end_of_text>` become the start and the end token (open_clip).
    OpenClip,
    /// `<|startoftext|>` and `<|endoftext|>` become them (OpenAI, Hugging Face).
    OpenAi,
}

/// What a row that is too long loses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Truncation {
    /// The last kept position holds the end token.
    #[default]
    KeepEnd,
    /// The row is just cut, as CleanCLIP and SafeCLIP do. Such a row has no end token, the
    /// text tower then reads position 0, and every long caption gets the same feature:
    /// only for reproducing those programs.
    DropEnd,
}

/// The choices in which CLIP programs differ; the default is the safe exact one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TokenizerOptions {
    /// Preparation of the text.
    pub clean: Clean,
    /// Treatment of literal special strings.
    pub special: Special,
    /// Treatment of rows that are too long.
    pub truncation: Truncation,
}

/// CLIP's byte-pair tokenizer. Cheap to copy: the vocabulary is built once for the process.
#[derive(Clone, Copy, Debug)]
pub struct Tokenizer {
    options: TokenizerOptions,
    vocabulary: &'static Vocabulary,
}

impl Tokenizer {
    /// The tokenizer of all published CLIP models, with the default options.
    ///
    /// The first call in a process unpacks the vocabulary (some ten milliseconds).
    pub fn clip() -> Self {
        Self::with_options(TokenizerOptions::default())
    }

    /// The same vocabulary under other options.
    pub fn with_options(options: TokenizerOptions) -> Self {
        Self { options, vocabulary: Vocabulary::clip() }
    }

    /// The options this tokenizer was made with.
    pub fn options(&self) -> TokenizerOptions {
        self.options
    }

    /// The text as the splitter sees it, after the cleaning of the options.
    pub fn clean(&self, text: &str) -> String {
        clean::clean(text, self.options.clean)
    }

    /// The ids of `text`, without start and end, of any length; all below [`START`] unless
    /// [`Special`] says otherwise. Never fails, and takes near-linear time in the text.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        let mut ids = Vec::with_capacity(text.len() / 3 + 1);
        let mut merger = Merger::new(self.vocabulary);
        for section in split::sections(text, self.options) {
            match section {
                Piece::Start => ids.push(START),
                Piece::End => ids.push(END),
                Piece::Text(section) => {
                    let cleaned = self.clean(section);
                    for piece in split::pieces(&cleaned, self.options) {
                        match piece {
                            Piece::Start => ids.push(START),
                            Piece::End => ids.push(END),
                            Piece::Text(word) => merger.merge(word.as_bytes(), &mut ids),
                        }
                    }
                }
            }
        }
        ids
    }

    /// One row of the text tower's input: start, ids, end, then zeros; `context_length` long.
    ///
    /// A text that does not fit is cut, and unless [`Truncation::DropEnd`] is set the last
    /// position holds the end token. (0 is also the id of `!`; behind the end token the
    /// causal tower never looks at it.)
    pub fn row(&self, text: &str, context_length: usize) -> Vec<u32> {
        let ids = self.encode(text);
        let mut row = Vec::with_capacity(ids.len() + 2);
        row.push(START);
        row.extend(ids);
        row.push(END);
        let too_long = row.len() > context_length;
        row.resize(context_length, 0);
        if too_long
            && self.options.truncation == Truncation::KeepEnd
            && let Some(last) = row.last_mut()
        {
            *last = END;
        }
        row
    }

    /// The text of `ids`, words separated by one space.
    ///
    /// Start tokens are skipped and the first end token closes the text, so a padded row can
    /// be given as it is. Ids outside the vocabulary, and bytes that are not UTF-8, show as
    /// U+FFFD. Inverse of [`encode`](Self::encode) up to cleaning and spacing.
    pub fn decode(&self, ids: &[u32]) -> String {
        let mut bytes = Vec::new();
        for &id in ids.iter().filter(|&&id| id != START) {
            if id == END {
                break;
            }
            self.vocabulary.push_bytes(id, &mut bytes);
        }
        let mut text = String::from_utf8_lossy(&bytes).into_owned();
        text.truncate(text.trim_end_matches(' ').len());
        text
    }

    /// Whether `text` holds a literal special string of any CLIP program, before or after
    /// cleaning (`&lt;end_of_text&gt;` counts): worth reporting in captions from strangers.
    pub fn contains_special(&self, text: &str) -> bool {
        // Of plain ASCII, cleaning only makes a `<` of an entity; of the rest, who knows.
        if text.is_ascii() && !text.contains(['<', '&']) {
            return false;
        }
        split::has_special(text) || split::has_special(&self.clean(text))
    }
}
