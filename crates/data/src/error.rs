//! What can go wrong between a spelling and a sample.

use crate::PictureError;
use std::path::{Path, PathBuf};

/// What went wrong while reading data: what, where, and what would be right.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// A picture that cannot be decoded.
    #[error("{key}: {source}")]
    Picture {
        /// Key of the sample.
        key: String,
        /// The reason.
        source: PictureError,
    },
    /// A sample that cannot be used although its picture may be fine.
    #[error("{key}: {reason}")]
    Sample {
        /// Key of the sample.
        key: String,
        /// The reason.
        reason: String,
    },
    /// A file that breaks off or contradicts itself; what came before it was delivered.
    #[error("{}: {reason} (at byte {position})", shown_path(.path))]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Position in the file, unpacked where the file is compressed.
        position: u64,
        /// The reason.
        reason: String,
    },
    /// A file or folder that is not there.
    #[error("{}: no such file or folder{hint}", shown_path(.path))]
    Missing {
        /// What was looked for.
        path: PathBuf,
        /// What may have been meant; empty or beginning with a comma.
        hint: String,
    },
    /// A file or folder that is there and cannot be read.
    #[error("{}: {source}", shown_path(.path))]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// A file or folder that cannot be written.
    #[error("{}: {source}", shown_path(.path))]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// A file or folder that is not what its place requires.
    #[error("{}: {reason}", shown_path(.path))]
    Refused {
        /// The file or folder.
        path: PathBuf,
        /// What it is and what would be right.
        reason: String,
    },
    /// A data source that is spelled in no way this program knows.
    #[error("data source \"{}\": {reason}", shown(.spelling))]
    Spelling {
        /// As the user wrote it.
        spelling: String,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// Code that works on samples panicked; a defect of this program, not of the data.
    #[error("{key}: a worker thread panicked: {message}")]
    Panic {
        /// Key of the sample it worked on, or what it did.
        key: String,
        /// The panic's message.
        message: String,
    },
}

impl DataError {
    /// Whether nothing can follow (the source itself is broken), as opposed to one bad sample or
    /// one damaged shard.
    pub fn is_fatal(&self) -> bool {
        match self {
            Self::Picture { .. } | Self::Sample { .. } | Self::Damaged { .. } => false,
            Self::Missing { .. }
            | Self::Io { .. }
            | Self::Write { .. }
            | Self::Refused { .. }
            | Self::Spelling { .. }
            | Self::Panic { .. } => true,
        }
    }

    /// Key of the sample or name of the file that is to blame.
    pub fn subject(&self) -> String {
        match self {
            Self::Picture { key, .. } | Self::Sample { key, .. } | Self::Panic { key, .. } => {
                key.clone()
            }
            Self::Damaged { path, .. }
            | Self::Missing { path, .. }
            | Self::Io { path, .. }
            | Self::Write { path, .. }
            | Self::Refused { path, .. } => shown_path(path),
            Self::Spelling { spelling, .. } => shown(spelling),
        }
    }

    pub(crate) fn io(path: &Path, source: std::io::Error) -> Self {
        match source.kind() {
            std::io::ErrorKind::NotFound => {
                Self::Missing { path: path.into(), hint: String::new() }
            }
            _ => Self::Io { path: path.into(), source },
        }
    }

    pub(crate) fn write(path: &Path, source: std::io::Error) -> Self {
        Self::Write { path: path.into(), source }
    }

    pub(crate) fn refused(path: &Path, reason: impl Into<String>) -> Self {
        Self::Refused { path: path.into(), reason: reason.into() }
    }
}

/// A name as messages show it: control characters escaped, at most 80 characters.
pub fn shown(name: &str) -> String {
    let mut out = String::new();
    for (count, c) in name.chars().enumerate() {
        if count == 80 {
            out.push('…');
            break;
        }
        if is_treacherous(c) { out.extend(c.escape_unicode()) } else { out.push(c) }
    }
    out
}

fn shown_path(path: &Path) -> String {
    // The end of a long path tells more than its beginning.
    let text = path.to_string_lossy();
    let count = text.chars().count();
    if count <= 80 {
        shown(&text)
    } else {
        format!("…{}", shown(&text[tail(&text, count - 79)..]))
    }
}

fn tail(text: &str, skipped: usize) -> usize {
    text.char_indices().nth(skipped).map_or(0, |(at, _)| at)
}

/// Characters that change how a terminal shows what stands around them.
pub(crate) fn is_treacherous(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_write_to_the_terminal() {
        assert_eq!(shown("a\u{1b}[31m\n"), "a\\u{1b}[31m\\u{a}");
        assert_eq!(shown("a\u{202e}gpj.exe"), "a\\u{202e}gpj.exe");
        assert_eq!(shown(&"x".repeat(100)).chars().count(), 81);
        let long = format!("{}/last.tar", "folder/".repeat(40));
        assert!(shown_path(Path::new(&long)).ends_with("/last.tar"));
    }
}
