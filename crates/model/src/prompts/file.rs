//! Small text files that a person wrote.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::PromptError;

/// No list of prompts is as long as this; a picture given by mistake is.
const LIMIT: u64 = 16 << 20;

/// The lines that say something, with their numbers from 1: no blank ones, no comments (`#`
/// first), no space at the ends, no byte order mark.
pub(super) fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let text = text.trim_start_matches('\u{feff}');
    let lines = (1..).zip(text.lines()).map(|(number, line)| (number, line.trim()));
    lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

/// Says where the error is.
pub(super) fn at(unit: &'static str, place: usize, error: PromptError) -> PromptError {
    PromptError::At { unit, place, error: Box::new(error) }
}

/// Reads a file and parses it under its stem as name; errors get the path.
pub(super) fn read<T>(
    path: &Path,
    parse: impl Fn(&str, &str) -> Result<T, PromptError>,
) -> Result<T, PromptError> {
    let failed = |reason| PromptError::Read { path: path.to_owned(), reason };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(LIMIT + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > LIMIT {
        return Err(PromptError::TooLarge { path: path.to_owned(), limit: LIMIT });
    }
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    utf8(&bytes)
        .and_then(|text| parse(&name, text))
        .map_err(|error| PromptError::InFile { path: path.to_owned(), error: Box::new(error) })
}

fn utf8(bytes: &[u8]) -> Result<&str, PromptError> {
    std::str::from_utf8(bytes).map_err(|error| {
        let before = &bytes[..error.valid_up_to()];
        PromptError::NotUtf8 { line: 1 + before.iter().filter(|&&byte| byte == b'\n').count() }
    })
}
