//! Which column of a table holds what: the names people give them, and what a user says instead.

use super::nearest;
use crate::{DataError, shown};
use std::path::Path;

pub(super) const CAPTIONS: [&str; 5] = ["title", "caption", "text", "alt_text", "captions"];
pub(super) const LABELS: [&str; 4] = ["label", "class", "target", "cls"];

/// Columns a user named behind a `#`.
#[derive(Default)]
pub(super) struct Wanted {
    pub(super) image: Option<String>,
    pub(super) caption: Option<String>,
    pub(super) label: Option<String>,
}

impl Wanted {
    /// Takes `#image=COLUMN,caption=COLUMN,label=COLUMN` off a spelling.
    pub(super) fn split(spelling: &str) -> Result<(&str, Self), DataError> {
        let mut wanted = Self::default();
        let Some((path, columns)) = spelling.split_once('#') else { return Ok((spelling, wanted)) };
        for part in columns.split(',') {
            let (place, name) = match part.split_once('=') {
                Some(("image", name)) => (&mut wanted.image, name),
                Some(("caption", name)) => (&mut wanted.caption, name),
                Some(("label", name)) => (&mut wanted.label, name),
                _ => {
                    let reason = format!(
                        "\"{}\" is not image=COLUMN, caption=COLUMN or label=COLUMN",
                        shown(part)
                    );
                    return Err(DataError::Spelling { spelling: spelling.into(), reason });
                }
            };
            *place = Some(name.to_owned());
        }
        Ok((path, wanted))
    }
}

/// Where a column is: the one a user asked for, or the first of the usual names.
pub(super) fn column(
    path: &Path,
    names: &[String],
    asked: &Option<String>,
    usual: &[&str],
) -> Result<Option<usize>, DataError> {
    let find = |name: &str| names.iter().position(|n| n.trim().eq_ignore_ascii_case(name));
    let Some(asked) = asked else { return Ok(usual.iter().find_map(|name| find(name))) };
    find(asked).map(Some).ok_or_else(|| {
        let near = nearest(asked, names.iter().map(String::as_str));
        let hint = near.map_or_else(String::new, |n| format!("; did you mean `{}`?", shown(n)));
        let reason = format!("has no column `{}`{hint}", shown(asked));
        DataError::refused(path, reason)
    })
}

/// What columns there are and which would be found, for messages.
pub(super) fn told(names: &[String], usual: &[&str]) -> String {
    const MOST: usize = 20;
    let mut all: Vec<String> = names.iter().take(MOST).map(|n| format!("`{}`", shown(n))).collect();
    if names.len() > MOST {
        all.push(format!("{} more", names.len() - MOST));
    }
    format!(
        "it has {}; {} would be found, others are named as in TABLE#image=COLUMN,caption=COLUMN",
        all.join(", "),
        usual.join(", ")
    )
}

/// Whether a caption says nothing; `nan` is what some writers put for none.
pub(super) fn is_absent(caption: &str) -> bool {
    caption.is_empty() || caption.eq_ignore_ascii_case("nan")
}
