//! Undoing HTML escapes, in the two ways that CLIP's cleaning does.
//!
//! [`unescape`] follows the HTML standard as Python's `html.unescape` reads it, which is
//! forgiving: semicolons may be missing, and a name may run on into text. [`decode_strict`] is
//! ftfy's: only complete `&name;`, and capitals for names that are usually written small.

use std::borrow::Cow;

use htmlize::ENTITIES;

/// Letters of a forgiving reference that are looked at, without `&` and `;`.
const NAME_LIMIT: usize = 32;
/// Letters of a strict reference, without `&`, `#` and `;`.
const STRICT_LIMIT: usize = 24;

/// Replaces every character reference, complete or not.
pub(super) fn unescape(text: &str) -> Cow<'_, str> {
    replace(text, |rest| {
        let (reference, length) = reference(rest)?;
        Some((resolve(reference), length))
    })
}

/// Replaces complete named references, their all-capital forms, and complete numbers, except
/// where the result would be a semicolon.
pub(super) fn decode_strict(text: &str) -> Cow<'_, str> {
    replace(text, |rest| {
        let body = rest.strip_prefix('#').unwrap_or(rest);
        let letters = body.bytes().take_while(u8::is_ascii_alphanumeric).count();
        if !(1..=STRICT_LIMIT).contains(&letters) || body.as_bytes().get(letters) != Some(&b';') {
            return None;
        }
        let length = rest.len() - body.len() + letters + 1;
        let whole = &rest[..length];
        let decoded = if whole.starts_with('#') {
            let decoded = unescape_whole(whole);
            if decoded.contains(';') { None } else { Some(decoded) }
        } else {
            named(whole).map(str::to_owned).or_else(|| capital(whole))
        };
        Some((decoded?, length))
    })
}

/// Copies `text`, asking at every `&` what the text behind it stands for and how many bytes of
/// it that takes.
fn replace(text: &str, decode: impl Fn(&str) -> Option<(String, usize)>) -> Cow<'_, str> {
    if !text.contains('&') {
        return Cow::Borrowed(text);
    }
    let mut decoded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        decoded.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        match decode(rest) {
            Some((meaning, length)) => {
                decoded.push_str(&meaning);
                rest = &rest[length..];
            }
            None => decoded.push('&'),
        }
    }
    decoded.push_str(rest);
    Cow::Owned(decoded)
}

/// What a forgiving reader takes for a reference at the start of `rest` (behind the `&`), and
/// its length in bytes.
fn reference(rest: &str) -> Option<(&str, usize)> {
    let semicolon = |length: usize| length + usize::from(rest[length..].starts_with(';'));
    if let Some(number) = rest.strip_prefix('#') {
        let (digits, prefix): (fn(&u8) -> bool, _) = match number.bytes().next() {
            Some(b'x' | b'X') => (u8::is_ascii_hexdigit, 2),
            _ => (u8::is_ascii_digit, 1),
        };
        let count = rest.bytes().skip(prefix).take_while(digits).count();
        let length = semicolon(prefix + count);
        return (count > 0).then(|| (&rest[..length], length));
    }
    let name: usize = rest
        .chars()
        .take_while(|letter| !matches!(letter, '\t' | '\n' | '\x0c' | ' ' | '<' | '&' | '#' | ';'))
        .take(NAME_LIMIT)
        .map(char::len_utf8)
        .sum();
    let length = semicolon(name);
    (name > 0).then(|| (&rest[..length], length))
}

/// The meaning of a reference as [`reference`] cuts it.
fn resolve(reference: &str) -> String {
    if let Some(number) = reference.strip_prefix('#') {
        return numbered(number.trim_end_matches(';')).map(String::from).unwrap_or_default();
    }
    if let Some(meaning) = named(reference) {
        return meaning.to_owned();
    }
    // The longest beginning, of two letters or more, that is a name; the rest is text.
    let ends = reference.char_indices().map(|(at, _)| at).skip(2);
    for end in ends.collect::<Vec<_>>().into_iter().rev() {
        if let Some(meaning) = named(&reference[..end]) {
            return format!("{meaning}{}", &reference[end..]);
        }
    }
    format!("&{reference}")
}

/// A complete reference, unescaped the forgiving way.
fn unescape_whole(whole: &str) -> String {
    match reference(whole) {
        Some((found, length)) => resolve(found) + &whole[length..],
        None => format!("&{whole}"),
    }
}

/// The characters of a name, given with its semicolon if it has one.
fn named(name: &str) -> Option<&'static str> {
    let mut key = [0u8; 64];
    key[0] = b'&';
    key.get_mut(1..=name.len())?.copy_from_slice(name.as_bytes());
    let meaning = ENTITIES.get(&key[..=name.len()])?;
    std::str::from_utf8(meaning).ok()
}

/// `&EACUTE;` is no HTML, but people write it for the capital of `&eacute;`.
fn capital(name: &str) -> Option<String> {
    let small = name.to_ascii_lowercase();
    if small.to_ascii_uppercase() != name || resolve(name) != format!("&{name}") {
        return None;
    }
    named(&small).map(str::to_uppercase)
}

/// The character of a number, written `65`, `x41` or `X41`. `None` for those that are dropped.
fn numbered(number: &str) -> Option<char> {
    let (digits, radix) = match number.strip_prefix(['x', 'X']) {
        Some(digits) => (digits, 16),
        None => (number, 10),
    };
    // Digits only, so the one way to fail is to be far beyond Unicode.
    let code = u32::from_str_radix(digits, radix).unwrap_or(u32::MAX);
    match code {
        0 => Some(char::REPLACEMENT_CHARACTER),
        1..=8 | 11 | 14..=31 | 127 | 0xfdd0..=0xfdef => None,
        _ => match char::from_u32(code) {
            None => Some(char::REPLACEMENT_CHARACTER),
            Some(_) if code & 0xfffe == 0xfffe => None,
            Some(letter) => Some(windows_1252(letter)),
        },
    }
}

/// What a C1 control (U+0080 to U+009F) means on Windows; other characters, and the five
/// codes that Windows leaves undefined, stay as they are.
pub(super) fn windows_1252(letter: char) -> char {
    match u32::from(letter) {
        code @ 0x80..=0x9f => WINDOWS_1252[code as usize - 0x80],
        _ => letter,
    }
}

/// Characters of the bytes 0x80 to 0x9F in Windows-1252.
pub(super) const WINDOWS_1252: [char; 32] = [
    '\u{20ac}', '\u{81}', '\u{201a}', '\u{192}', '\u{201e}', '\u{2026}', '\u{2020}', '\u{2021}',
    '\u{2c6}', '\u{2030}', '\u{160}', '\u{2039}', '\u{152}', '\u{8d}', '\u{17d}', '\u{8f}',
    '\u{90}', '\u{2018}', '\u{2019}', '\u{201c}', '\u{201d}', '\u{2022}', '\u{2013}', '\u{2014}',
    '\u{2dc}', '\u{2122}', '\u{161}', '\u{203a}', '\u{153}', '\u{9d}', '\u{17e}', '\u{178}',
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forgiving_references() {
        for (text, meaning) in [
            ("&notit;", "\u{ac}it;"),
            ("&notin;", "\u{2209}"),
            ("&amp", "&"),
            ("&ampersand", "&ersand"),
            ("&am", "&am"),
            ("&;&#;&#x;&#xg;", "&;&#;&#x;&#xg;"),
            ("&#65&#x41;&#X41", "AAA"),
            ("&#99999999999999999999;", "\u{fffd}"),
            ("&#0;&#13;&#1;&#xfdd0;&#x1ffff;", "\u{fffd}\r"),
            ("&#128;&#129;", "\u{20ac}\u{81}"),
            ("&\u{e9}amp;", "&\u{e9}amp;"),
            ("a&b&amp;c", "a&b&c"),
        ] {
            assert_eq!(unescape(text), meaning, "{text}");
        }
    }

    #[test]
    fn strict_references() {
        for (text, meaning) in [
            ("&amp &amp;", "&amp &"),
            ("&EACUTE;&SZLIG;&AMP;", "\u{c9}SS&"),
            ("&#59;&#x3b;&#60;", "&#59;&#x3b;<"),
            ("&#65a;", "&#65a;"),
            ("&CounterClockwiseContourIntegral;", "&CounterClockwiseContourIntegral;"),
            ("&#x;&;&#;", "&#x;&;&#;"),
        ] {
            assert_eq!(decode_strict(text), meaning, "{text}");
        }
    }

    #[test]
    fn the_table_is_whole() {
        assert_eq!(ENTITIES.len(), 2231);
    }
}
