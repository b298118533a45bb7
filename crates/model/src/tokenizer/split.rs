//! Cutting a text into the pieces that are merged one by one.
//!
//! In order of preference at each position: a special string (if the options say so), an
//! English contraction, letters, one number character, a run of anything else but white space.
//! Letters and numbers are those of the Unicode version that the `regex` crate knows (16); what
//! later versions add counts as "anything else" until that crate follows.

use std::sync::LazyLock;

use regex::Regex;

use super::{Clean, Special, TokenizerOptions};

/// A piece of text, or a token that stands for itself.
pub(super) enum Piece<'a> {
    Start,
    End,
    Text(&'a str),
}

// The reference's expression ignores case. That has two consequences beyond `'S`: the long s
// (U+017F) counts as an s in a contraction, and U+0345, a mark whose capital is a letter, is in
// none of the classes and thus lost.
const REFERENCE: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|\p{L}+|\p{N}|[^\s\p{L}\p{N}\x{345}]+";
const HUGGING_FACE: &str = r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+";
const OPEN_CLIP: &str = r"(?i:<start_of_text>|<end_of_text>)";
const OPEN_AI: &str = r"(?i:<\|startoftext\|>|<\|endoftext\|>)";
const OPEN_AI_RAW: &str = r"<\|startoftext\|>|<\|endoftext\|>";
const OPEN_CLIP_RAW: &str = r"<start_of_text>|<end_of_text>";

type Lazy = LazyLock<Regex>;

static PLAIN: Lazy = Lazy::new(|| compile(REFERENCE));
static WITH_OPEN_CLIP: Lazy = Lazy::new(|| compile(&format!("{OPEN_CLIP}|{REFERENCE}")));
static WITH_OPEN_AI: Lazy = Lazy::new(|| compile(&format!("{OPEN_AI}|{REFERENCE}")));
static PLAIN_HUGGING_FACE: Lazy = Lazy::new(|| compile(HUGGING_FACE));
static RAW_OPEN_CLIP: Lazy = Lazy::new(|| compile(OPEN_CLIP_RAW));
static RAW_OPEN_AI: Lazy = Lazy::new(|| compile(OPEN_AI_RAW));
static ANY_SPECIAL: Lazy = Lazy::new(|| compile(&format!("{OPEN_CLIP}|{OPEN_AI}")));

fn compile(expression: &str) -> Regex {
    #[expect(clippy::expect_used, reason = "constant expressions, all compiled by the tests")]
    Regex::new(expression).expect("constant expression")
}

/// The parts of a raw text that are cleaned separately: Hugging Face looks for special strings
/// before it cleans, the others afterwards.
pub(super) fn sections(text: &str, options: TokenizerOptions) -> Vec<Piece<'_>> {
    let special = match (options.clean, options.special) {
        (Clean::HuggingFace, Special::OpenAi) => &RAW_OPEN_AI,
        (Clean::HuggingFace, Special::OpenClip) => &RAW_OPEN_CLIP,
        _ => return vec![Piece::Text(text)],
    };
    let mut sections = Vec::new();
    let mut done = 0;
    for found in special.find_iter(text) {
        sections.push(Piece::Text(&text[done..found.start()]));
        sections.push(piece(found.as_str(), true));
        done = found.end();
    }
    sections.push(Piece::Text(&text[done..]));
    sections
}

/// The pieces of a cleaned text, in order; white space lies between them.
pub(super) fn pieces(text: &str, options: TokenizerOptions) -> impl Iterator<Item = Piece<'_>> {
    let (expression, special) = match (options.clean, options.special) {
        (Clean::HuggingFace, _) => (&PLAIN_HUGGING_FACE, false),
        (_, Special::PlainText) => (&PLAIN, false),
        (_, Special::OpenClip) => (&WITH_OPEN_CLIP, true),
        (_, Special::OpenAi) => (&WITH_OPEN_AI, true),
    };
    expression.find_iter(text).map(move |found| piece(found.as_str(), special))
}

/// Whether any program's special string occurs in `text`, in any case.
pub(super) fn has_special(text: &str) -> bool {
    text.contains('<') && ANY_SPECIAL.is_match(text)
}

fn piece(text: &str, special: bool) -> Piece<'_> {
    let is = |strings: [&str; 2]| strings.iter().any(|string| text.eq_ignore_ascii_case(string));
    match special && text.starts_with('<') {
        // A `<` that only begins other text stays text, and so does a special string
        // spelled with the long s, which the reference's expression finds but its table
        // of ids does not know.
        true if is(["<start_of_text>", "<|startoftext|>"]) => Piece::Start,
        true if is(["<end_of_text>", "<|endoftext|>"]) => Piece::End,
        _ => Piece::Text(text),
    }
}
