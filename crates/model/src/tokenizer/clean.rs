//! Preparing a text for splitting: repair, HTML, white space, case.
//!
//! The repair is that of the Python program ftfy 6, step by step as our own statement of it:
//! its behaviour counts, because CLIP was trained on its output. Each line is repaired until
//! nothing changes any more.

use std::borrow::Cow;

use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};

use super::{Clean, html, mojibake};

/// How often a line is gone through at most. Real text needs two or three rounds; nested
/// entities (`&amp;amp;amp;`...) could ask for one a letter, which is quadratic.
const ROUNDS: usize = 32;

/// `text` as the splitter should see it.
pub(super) fn clean(text: &str, how: Clean) -> String {
    match how {
        Clean::Full => {
            let text = repair(text);
            let text = html::unescape(&text);
            let text = html::unescape(&text);
            fold_space(&text).to_lowercase()
        }
        Clean::HuggingFace => {
            // No strip: a space at either end is no piece of its own anyway.
            let composed: String = text.nfc().collect();
            fold_space(&composed).chars().flat_map(char::to_lowercase).collect()
        }
        Clean::None => text.to_owned(),
    }
}

/// Every run of white space becomes one space, none at the ends.
fn fold_space(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    for word in text.split_whitespace() {
        if !folded.is_empty() {
            folded.push(' ');
        }
        folded.push_str(word);
    }
    folded
}

/// Repairs line by line. Entities are decoded up to the first line with a `<`: from there on
/// the text is taken for HTML, which is not ftfy's to undo.
fn repair(text: &str) -> String {
    let mut repaired = String::with_capacity(text.len());
    let mut entities = true;
    for line in text.split_inclusive('\n') {
        entities &= !line.contains('<');
        repaired.push_str(&repair_line(line, entities));
    }
    repaired
}

fn repair_line(line: &str, entities: bool) -> Cow<'_, str> {
    let mut line = Cow::Borrowed(line);
    for _ in 0..ROUNDS {
        if is_plain(&line) {
            break;
        }
        let round = repair_once(&line, entities);
        if round == *line {
            break;
        }
        line = Cow::Owned(round);
    }
    line
}

/// Nothing in a line of printable ASCII without `&` can need repair.
fn is_plain(line: &str) -> bool {
    line.bytes().all(|byte| matches!(byte, b'\t' | b'\n' | b'\x0c' | b' '..=b'~') && byte != b'&')
}

fn repair_once(line: &str, entities: bool) -> String {
    let line = if entities { html::decode_strict(line) } else { Cow::Borrowed(line) };
    let line = mojibake::repair(&line).map_or(line, Cow::Owned);
    let mut text = String::with_capacity(line.len());
    let mut letters = line.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '\r' => {
                letters.next_if_eq(&'\n');
                text.push('\n');
            }
            _ => push_plain(letter, &mut text),
        }
    }
    if text.contains('\u{1b}') {
        text = without_escapes(&text);
    }
    text.retain(|letter| !is_invisible_control(letter));
    match is_nfc_quick(text.chars()) {
        IsNormalized::Yes => text,
        _ => text.nfc().collect(),
    }
}

/// One letter after the replacements that look at one letter only: C1 controls, ligatures,
/// widths, quotes, line ends, in this order.
fn push_plain(letter: char, text: &mut String) {
    let letter = if is_c1(letter) { html::windows_1252(letter) } else { letter };
    match letter {
        '\u{132}' => text.push_str("IJ"),
        '\u{133}' => text.push_str("ij"),
        // U+02BC n, whose apostrophe is a quote to straighten.
        '\u{149}' => text.push_str("'n"),
        '\u{1c4}' => text.push_str("D\u{17d}"),
        '\u{1c5}' => text.push_str("D\u{17e}"),
        '\u{1c6}' => text.push_str("d\u{17e}"),
        '\u{1c7}' => text.push_str("LJ"),
        '\u{1c8}' => text.push_str("Lj"),
        '\u{1c9}' => text.push_str("lj"),
        '\u{1ca}' => text.push_str("NJ"),
        '\u{1cb}' => text.push_str("Nj"),
        '\u{1cc}' => text.push_str("nj"),
        '\u{1f1}' => text.push_str("DZ"),
        '\u{1f2}' => text.push_str("Dz"),
        '\u{1f3}' => text.push_str("dz"),
        '\u{fb00}' => text.push_str("ff"),
        '\u{fb01}' => text.push_str("fi"),
        '\u{fb02}' => text.push_str("fl"),
        '\u{fb03}' => text.push_str("ffi"),
        '\u{fb04}' => text.push_str("ffl"),
        '\u{fb05}' => text.push_str("\u{17f}t"),
        '\u{fb06}' => text.push_str("st"),
        '\u{3000}' => text.push(' '),
        '\u{ff01}'..='\u{ffef}' => text.extend(std::iter::once(letter).nfkc()),
        '\u{2bc}' | '\u{2018}'..='\u{201b}' => text.push('\''),
        '\u{201c}'..='\u{201f}' => text.push('"'),
        '\u{2028}' | '\u{2029}' => text.push('\n'),
        _ => text.push(letter),
    }
}

fn is_c1(letter: char) -> bool {
    matches!(letter, '\u{80}'..='\u{9f}')
}

/// Characters that show nothing and that no repaired text keeps.
fn is_invisible_control(letter: char) -> bool {
    matches!(
        letter,
        '\0'..='\u{8}'
            | '\u{b}'
            | '\u{e}'..='\u{1f}'
            | '\u{7f}'
            | '\u{206a}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffc}'
    )
}

/// Removes terminal colours and the like: `ESC [`, digits and semicolons, one letter.
fn without_escapes(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("\u{1b}[") {
        let behind = rest[at + 2..].trim_start_matches(|c: char| c.is_ascii_digit() || c == ';');
        if behind.starts_with(|c: char| c.is_ascii_alphabetic()) {
            kept.push_str(&rest[..at]);
            rest = &behind[1..];
        } else {
            kept.push_str(&rest[..at + 2]);
            rest = &rest[at + 2..];
        }
    }
    kept + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_with_markup_stops_entities_but_not_html() {
        // ftfy alone would give the capital; HTML has no such name.
        assert_eq!(clean("&EACUTE;", Clean::Full), "\u{e9}");
        assert_eq!(clean("<\n&EACUTE;", Clean::Full), "< &eacute;");
        assert_eq!(clean("&EACUTE;\n<", Clean::Full), "\u{e9} <");
    }

    #[test]
    fn escapes_need_their_letter() {
        assert_eq!(without_escapes("a\u{1b}[1;31mb\u{1b}[c\u{1b}[1"), "ab\u{1b}[1");
    }

    #[test]
    fn nested_entities_end() {
        let nested = format!("&{}lt;", "amp;".repeat(100_000));
        let begin = std::time::Instant::now();
        assert!(clean(&nested, Clean::Full).starts_with("&amp;"));
        assert!(begin.elapsed().as_secs() < 5);
    }

    #[test]
    fn hugging_face_has_no_final_sigma() {
        assert_eq!(clean(" \u{391}\u{3a3} ", Clean::HuggingFace), "\u{3b1}\u{3c3}");
        assert_eq!(clean(" \u{391}\u{3a3} ", Clean::Full), "\u{3b1}\u{3c2}");
    }

    #[test]
    fn none_changes_nothing() {
        assert_eq!(clean(" A\t&amp;", Clean::None), " A\t&amp;");
    }
}
