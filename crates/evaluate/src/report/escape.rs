//! Text on its way into HTML, SVG or a terminal. File names, captions and class names come from
//! strangers: nothing of them may become markup, a control sequence or a reversed line.

/// Escapes text for element content and for quoted attributes alike.
pub(crate) fn html(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(c),
            c if is_hostile(c) => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// One line of plain text: no control characters, no line breaks.
pub(crate) fn plain(text: &str) -> String {
    let safe = |c: char| match c {
        '\n' | '\t' | '\r' => ' ',
        c if is_hostile(c) => '\u{fffd}',
        c => c,
    };
    text.chars().map(safe).collect()
}

/// Control characters, and the marks that turn the reading direction of what follows.
fn is_hostile(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_becomes_markup() {
        let hostile = "<img src=x onerror='alert(\"1\")'>&\u{1b}[31m\u{202e}gpj.exe";
        let safe = html(hostile);
        assert!(!safe.contains(['<', '>', '"', '\'', '\u{1b}', '\u{202e}']), "{safe}");
        assert!(safe.starts_with("&lt;img src=x onerror=&#39;"));
        assert_eq!(plain("a\nb\u{1b}[2J"), "a b\u{fffd}[2J");
    }
}
