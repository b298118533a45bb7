//! Results on standard output.

use crate::failure::Failure;
use serde::Serialize;
use std::io::{self, Write};

/// Widest line of a table.
pub(crate) const WIDTH: usize = 100;

/// What is said of texts from strangers that spell a special token.
pub(crate) fn special_note(texts: &str) -> String {
    format!(
        "{texts}: the spelling of a special token, such as <end_of_text>, is read as text; \
         other programs end the text there"
    )
}

/// Prints a text as it is. A reader that has seen enough (`| head`) is no failure; a full disk is.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::Failed(format!("standard output: {error}")))
        }
        _ => Ok(()),
    }
}

/// Prints one JSON document.
pub(crate) fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value);
    let text = text.map_err(|error| Failure::Failed(format!("the result as JSON: {error}")))?;
    print(&format!("{text}\n"))
}
