//! UTF-8 that somebody read as Windows-1252: `itâ€™s` for `it’s`.
//!
//! ftfy weighs a line against a large table of unlikely letter pairs and tries ten encodings.
//! Here only the case that needs no weighing is repaired: the line shows a typical beginning
//! of such a sequence, all its characters exist in Windows-1252, and its bytes there are valid
//! UTF-8. Text that somebody meant as it stands practically never satisfies the last.

use super::html::WINDOWS_1252;

/// What common sequences begin with: accented letters and signs, Greek and Cyrillic (first
/// letter), then typographic signs, marks and emoji (two or three letters).
const LEADS: [&str; 12] = [
    "\u{c3}",               // letters of Western Europe
    "\u{c2}",               // signs of Latin-1, no-break space
    "\u{ce}",               // Greek
    "\u{d0}",               // Cyrillic
    "\u{e2}\u{20ac}",       // quotes, dashes, bullets
    "\u{e2}\u{201a}\u{ac}", // euro sign
    "\u{e2}\u{201e}\u{a2}", // trade mark
    "\u{e2}\u{153}",        // check marks
    "\u{e2}\u{2dc}",        // weather, faces
    "\u{e2}\u{17e}",        // arrows
    "\u{ef}\u{bf}\u{bd}",   // replacement character
    "\u{f0}\u{178}",        // emoji
];

/// The line as it was meant, or `None` if it is not clearly mojibake. What was misread twice
/// is repaired twice: every repair makes the line shorter, so this ends.
pub(super) fn repair(line: &str) -> Option<String> {
    let mut repaired = repair_once(line)?;
    while let Some(again) = repair_once(&repaired) {
        repaired = again;
    }
    Some(repaired)
}

fn repair_once(line: &str) -> Option<String> {
    if line.is_ascii() || !LEADS.iter().any(|lead| line.contains(lead)) {
        return None;
    }
    let bytes = line.chars().map(windows_1252_byte).collect::<Option<Vec<u8>>>()?;
    String::from_utf8(bytes).ok()
}

/// The byte of a character in Windows-1252, the five undefined bytes included.
fn windows_1252_byte(letter: char) -> Option<u8> {
    match u32::from(letter) {
        code @ (0..=0x7f | 0xa0..=0xff) => u8::try_from(code).ok(),
        _ => (0x80..).zip(WINDOWS_1252).find(|&(_, other)| other == letter).map(|(byte, _)| byte),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unmistakable_lines_are_repaired() {
        assert_eq!(repair("sch\u{c3}\u{b6}n").as_deref(), Some("sch\u{f6}n"));
        assert_eq!(repair("it\u{e2}\u{20ac}\u{2122}s").as_deref(), Some("it\u{2019}s"));
        assert_eq!(repair("\u{f0}\u{178}\u{2dc}\u{20ac}").as_deref(), Some("\u{1f600}"));
        assert_eq!(repair("\u{c3}\u{192}\u{c2}\u{a9}").as_deref(), Some("\u{e9}"));
        assert_eq!(repair("\u{e2}\u{20ac}\u{9d}").as_deref(), Some("\u{201d}"));
    }

    #[test]
    fn meant_lines_stay() {
        for line in [
            "plain",
            "caf\u{e9}",
            "S\u{c3}O PAULO",
            "\u{c2}ge \u{c3}\u{b6} na\u{ef}ve",
            "sch\u{c3}\u{b6}n \u{4f60}",
            "voil\u{c3} le travail",
        ] {
            assert_eq!(repair(line), None, "{line}");
        }
    }
}
