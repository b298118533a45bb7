//! Templates and class names: the words of a zero-shot classifier.
//!
//! A zero-shot accuracy is a statement about a model *and* about its prompts; other templates
//! move it by points. The decision here: the sets that published numbers use are built in
//! under the names of CLIP_benchmark, so that nobody has to type eighty templates, and every
//! set and list, built in or read from a file, has a [digest](TemplateSet::digest) that goes
//! into the record of an evaluation.
//!
//! Filling is literal: the class name replaces `{}` (or `{c}`), whatever braces it holds
//! itself, and nothing around it is touched, so the blank prompt of CLIPure is
//! `a photo of a .` with its odd space. A format language (as in Python's `str.format`) was
//! not chosen: it gives braces in class names a meaning.
//!
//! Files are checked before a model runs for an hour on them: templates without a place for
//! the name, class names that occur twice (two equal columns in the head, of which the second
//! can never win) and empty lists are refused with their line.
//!
//! ```
//! # use clipguard_model::prompts::{self, ClassList, TemplateSet};
//! # fn main() -> Result<(), prompts::PromptError> {
//! let set = prompts::templates("imagenet1k")?;
//! assert_eq!(set.prompts("tench").next().as_deref(), Some("a bad photo of a tench."));
//!
//! let own = TemplateSet::parse("mine", "# two views\nan x-ray of a {}\na scan of a {}\n")?;
//! let classes = ClassList::parse("mine", "hand, foot")?;
//! assert_eq!(own.len() * classes.len(), 4);
//! # Ok(())
//! # }
//! ```

mod built_in;
mod classes;
mod file;
mod template;

use std::path::PathBuf;

use sha2::{Digest, Sha256};

pub use built_in::{class_list_names, class_names, template_set_names, templates};
pub use classes::{ClassList, Duplicates};
pub use template::{Template, TemplateSet};

/// What is wrong with a template, a class list, or the file they come from. Each message is
/// complete in itself, the path and line in front.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PromptError {
    /// A template has no place for the class name.
    #[error("template `{template}` has no place for the class name; write it as {{}}")]
    NoPlaceholder {
        /// The template as written.
        template: String,
    },
    /// A template has a place with a name that is not ours.
    #[error(
        "template `{template}` has the unknown placeholder `{found}`; the class name is {{}} or {{c}}"
    )]
    UnknownPlaceholder {
        /// The template as written.
        template: String,
        /// The part in braces.
        found: String,
    },
    /// A template or a name holds a line break or another control character.
    #[error("`{}` holds a control character", text.escape_debug())]
    ControlCharacter {
        /// The text as written.
        text: String,
    },
    /// A class name without any letter.
    #[error("a class name is empty")]
    EmptyName,
    /// A file or list without a single entry.
    #[error("there is no {what} in it")]
    Empty {
        /// `template` or `class name`.
        what: &'static str,
    },
    /// The same class twice, up to case and spacing, which CLIP does not see.
    #[error("class `{name}` occurs twice: {} {first} and {second}", plural(unit))]
    Duplicate {
        /// The name at its second place.
        name: String,
        /// What the places count: `line` or `entry`.
        unit: &'static str,
        /// First place, from 1.
        first: usize,
        /// Second place, from 1.
        second: usize,
    },
    /// There is no built-in set or list of this name.
    #[error("there is no {what} `{name}`{}; built in are {known}", suggest(suggestion.as_deref()))]
    Unknown {
        /// `template set` or `class list`.
        what: &'static str,
        /// The name asked for.
        name: String,
        /// The nearest built-in name, if any is near.
        suggestion: Option<&'static str>,
        /// All built-in names.
        known: String,
    },
    /// A file cannot be read.
    #[error("cannot read {}: {reason}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        reason: std::io::Error,
    },
    /// A file is far too large for what it should hold.
    #[error("{} has more than {limit} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit in bytes.
        limit: u64,
    },
    /// A file is not UTF-8.
    #[error("line {line} is not UTF-8")]
    NotUtf8 {
        /// The line, from 1.
        line: usize,
    },
    /// A list that begins with `[` is not a JSON array of strings.
    #[error("not a JSON array of strings: {reason}")]
    Json {
        /// The parser's reason, with line and column.
        reason: serde_json::Error,
    },
    /// Something wrong at one place of a file or list.
    #[error("{unit} {place}: {error}")]
    At {
        /// `line` or `entry`.
        unit: &'static str,
        /// The place, from 1.
        place: usize,
        /// What is wrong there.
        error: Box<PromptError>,
    },
    /// Something wrong in a file.
    #[error("{}: {error}", path.display())]
    InFile {
        /// The file.
        path: PathBuf,
        /// What is wrong in it.
        error: Box<PromptError>,
    },
}

fn plural(unit: &str) -> &str {
    if unit == "entry" { "entries" } else { "lines" }
}

fn suggest(suggestion: Option<&str>) -> String {
    suggestion.map(|name| format!(", did you mean `{name}`?")).unwrap_or_default()
}

/// Refuses what a one-entry-a-line file could not hold.
fn check_printable(text: &str) -> Result<(), PromptError> {
    match text.contains(char::is_control) {
        true => Err(PromptError::ControlCharacter { text: text.to_owned() }),
        false => Ok(()),
    }
}

/// SHA-256, in hex, of the entries written one a line, each line ended by `\n`.
fn digest<'a>(entries: impl Iterator<Item = &'a str>) -> String {
    let mut hash = Sha256::new();
    for entry in entries {
        hash.update(entry.as_bytes());
        hash.update(b"\n");
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
