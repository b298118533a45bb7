//! Lists of class names.

use std::collections::HashMap;
use std::path::Path;

use super::{PromptError, check_printable, digest, file};

/// What to do with a class name that occurs twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Duplicates {
    /// Refuse the list: of two equal columns in the head the second can never win.
    #[default]
    Refuse,
    /// Keep both, as the published ImageNet list does (`missile` and `sunglasses`).
    Keep,
}

/// Class names in the order of their labels; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassList {
    name: String,
    names: Vec<String>,
}

impl ClassList {
    /// A list under a name of your choice.
    ///
    /// # Errors
    /// No name at all, an empty one, one with control characters, or (unless
    /// [`Duplicates::Keep`]) one twice up to case and spacing, with its entry from 1.
    pub fn new<N: Into<String>>(
        name: impl Into<String>,
        names: impl IntoIterator<Item = N>,
        duplicates: Duplicates,
    ) -> Result<Self, PromptError> {
        let names = (1..).zip(names).map(|(entry, name)| (entry, name.into()));
        Self::checked(name.into(), "entry", names, duplicates)
    }

    /// Reads a list in one of three forms: one name a line, where blank lines and lines that
    /// begin with `#` are skipped; one line of names separated by commas; or a JSON array of
    /// strings. Space around a name is dropped in the first two.
    ///
    /// # Errors
    /// As [`new`](Self::new), with lines instead of entries in the first form.
    pub fn parse(name: impl Into<String>, text: &str) -> Result<Self, PromptError> {
        Self::parse_with(name, text, Duplicates::Refuse)
    }

    /// [`parse`](Self::parse) with a choice about names that occur twice.
    ///
    /// # Errors
    /// As `parse`.
    pub fn parse_with(
        name: impl Into<String>,
        text: &str,
        duplicates: Duplicates,
    ) -> Result<Self, PromptError> {
        if text.trim_start_matches('\u{feff}').trim_start().starts_with('[') {
            let names: Vec<String> = serde_json::from_str(text.trim_start_matches('\u{feff}'))
                .map_err(|reason| PromptError::Json { reason })?;
            return Self::new(name, names, duplicates);
        }
        let mut lines = file::lines(text).peekable();
        match (lines.next(), lines.peek()) {
            (Some((_, only)), None) if only.contains(',') => {
                Self::new(name, only.split(',').map(str::trim), duplicates)
            }
            (first, _) => {
                let names = first.into_iter().chain(lines);
                let names = names.map(|(line, name)| (line, name.to_owned()));
                Self::checked(name.into(), "line", names, duplicates)
            }
        }
    }

    /// [`parse`](Self::parse)s a file, whose stem (`mine` of `mine.txt`) becomes the name.
    ///
    /// # Errors
    /// As `parse`, with the path; also if the file cannot be read, is not UTF-8, or larger
    /// than 16 MiB.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, PromptError> {
        Self::read_with(path, Duplicates::Refuse)
    }

    /// [`read`](Self::read) with a choice about names that occur twice.
    ///
    /// # Errors
    /// As `read`.
    pub fn read_with(path: impl AsRef<Path>, duplicates: Duplicates) -> Result<Self, PromptError> {
        file::read(path.as_ref(), |name, text| Self::parse_with(name, text, duplicates))
    }

    /// A list of the published data, which is taken as it is: CLEVR's has an empty name.
    pub(super) fn published(name: String, names: Vec<String>) -> Self {
        Self { name, names }
    }

    fn checked(
        name: String,
        unit: &'static str,
        names: impl Iterator<Item = (usize, String)>,
        duplicates: Duplicates,
    ) -> Result<Self, PromptError> {
        let mut list = Vec::new();
        let mut places = HashMap::new();
        for (place, name) in names {
            let key = as_clip_sees(&name);
            let checked = match key.is_empty() {
                true => Err(PromptError::EmptyName),
                false => check_printable(&name),
            };
            checked.map_err(|error| file::at(unit, place, error))?;
            if let Some(first) = places.insert(key, place)
                && duplicates == Duplicates::Refuse
            {
                return Err(PromptError::Duplicate { name, unit, first, second: place });
            }
            list.push(name);
        }
        match list.is_empty() {
            true => Err(PromptError::Empty { what: "class name" }),
            false => Ok(Self { name, names: list }),
        }
    }

    /// The name of the list, for records and messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The class names; a label is an index into this.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The number of classes, at least 1.
    #[expect(clippy::len_without_is_empty, reason = "a list is never empty")]
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// The label of a class, found by its name up to case and spacing; the first if two
    /// share it.
    pub fn label(&self, class_name: &str) -> Option<usize> {
        let key = as_clip_sees(class_name);
        self.names.iter().position(|name| as_clip_sees(name) == key)
    }

    /// SHA-256 in hex over the names, one a line: what `sha256sum` says about such a file.
    /// The list's own name does not count, the order does.
    pub fn digest(&self) -> String {
        digest(self.names.iter().map(String::as_str))
    }
}

/// A name without the differences that CLIP's cleaning removes anyway.
fn as_clip_sees(name: &str) -> String {
    name.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn names(text: &str) -> Vec<String> {
        ClassList::parse("mine", text).unwrap().names
    }

    fn error(text: &str) -> String {
        ClassList::parse("mine", text).unwrap_err().to_string()
    }

    #[test]
    fn three_forms_say_the_same() {
        let want = ["tench", "great white shark"];
        assert_eq!(names("# fish\ntench\r\n\r\n  great white shark\r\n"), want);
        assert_eq!(names("tench, great white shark\n"), want);
        assert_eq!(names("\u{feff} [\"tench\",\n\"great white shark\"]"), want);
    }

    #[test]
    fn commas_are_text_where_there_are_lines() {
        assert_eq!(names("tench, Tinca tinca\nshark"), ["tench, Tinca tinca", "shark"]);
    }

    #[test]
    fn duplicates_are_named_with_their_lines() {
        let message = error("# fish\nTench\nshark\n\ntench\n");
        assert_eq!(message, "class `tench` occurs twice: lines 2 and 5");
        assert_eq!(error("a, b,  A"), "class `A` occurs twice: entries 1 and 3");
        let kept = ClassList::parse_with("mine", "a\na", Duplicates::Keep).unwrap();
        assert_eq!(kept.len(), 2);
    }

    #[test]
    fn empty_lists_and_names_are_refused() {
        for text in ["", "\n \n", "# only this\n", "[]"] {
            assert_eq!(error(text), "there is no class name in it");
        }
        assert_eq!(error("a,,b"), "entry 2: a class name is empty");
        assert_eq!(error("[\"a\", \" \"]"), "entry 2: a class name is empty");
        assert!(error("[\"a\\u0000\"]").starts_with("entry 1: "));
        assert!(error("[1]").contains("JSON"));
        assert!(error("[\"a\"").contains("JSON"));
    }

    #[test]
    fn a_label_is_found_by_name() {
        let list = ClassList::parse("mine", "tench\nGreat White  Shark").unwrap();
        assert_eq!(list.label("great white shark"), Some(1));
        assert_eq!(list.label("carp"), None);
    }
}
