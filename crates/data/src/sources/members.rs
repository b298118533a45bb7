//! Members of a tar archive grouped into samples, WebDataset's way: neighbours whose names agree
//! up to the first dot of the file name belong together, the rest of the name says what they are.

use super::tar::{Damage, Entry, TarReader};
use crate::{DataError, RawPicture, RawSample, error::is_treacherous};
use serde::Deserialize;

/// What a member is to its sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Picture,
    Caption,
    Label,
    Json,
    Other,
}

impl Kind {
    fn of(extension: &str) -> Self {
        match extension {
            "txt" | "text" | "caption" => Self::Caption,
            "cls" | "cls2" | "label" => Self::Label,
            "json" => Self::Json,
            _ if super::is_picture_extension(extension) => Self::Picture,
            _ => Self::Other,
        }
    }
}

/// A member of a group: where it lies, and its body once read.
#[derive(Clone, Debug)]
pub(super) struct Part {
    kind: Kind,
    pub(super) offset: u64,
    pub(super) size: u64,
    pub(super) body: Option<Vec<u8>>,
}

/// The members of one sample.
#[derive(Clone, Debug)]
pub(super) struct Group {
    /// The common beginning of the names; safe to show, and a relative path without `..`.
    pub(super) key: String,
    pub(super) parts: Vec<Part>,
    /// Why there is no sample in it although it occupies a position.
    fault: Option<String>,
}

/// What to do with the bodies of members.
#[derive(Clone, Copy, Debug)]
pub(super) enum Bodies {
    /// Read those of groups from this position of the shard on.
    ReadFrom(u64),
    /// Only note where they lie.
    Locate,
}

/// Goes through the groups of one shard.
pub(super) struct Groups {
    tar: TarReader,
    bodies: Bodies,
    most_bytes: u64,
    /// Position of `current` within the shard.
    position: u64,
    current: Option<Group>,
    damage: Option<Damage>,
    over: bool,
}

impl Groups {
    pub(super) fn new(tar: TarReader, bodies: Bodies, most_bytes: u64) -> Self {
        Self { tar, bodies, most_bytes, position: 0, current: None, damage: None, over: false }
    }

    /// The next group, the damage that ends the shard, or `None` at its end. Groups without any
    /// member of a known kind are not samples and are left out.
    pub(super) fn next(&mut self) -> Option<Result<Group, Damage>> {
        while !self.over {
            match self.step() {
                Ok(None) => {}
                Ok(Some(group)) => return Some(Ok(group)),
                Err(damage) => {
                    self.over = true;
                    // Where the archive breaks off, the last group may lack members; where only
                    // the end mark is missing, it is as whole as we can tell.
                    if !damage.only_unmarked {
                        self.current = None;
                    }
                    self.damage = Some(damage);
                }
            }
        }
        self.finish().map(Ok).or_else(|| self.damage.take().map(Err))
    }

    /// Takes in one member; returns a group if that member belongs to the next one.
    fn step(&mut self) -> Result<Option<Group>, Damage> {
        let Some(entry) = self.tar.next()? else {
            self.over = true;
            return Ok(None);
        };
        let Some((stem, extension)) = split(&entry) else {
            return Ok(None);
        };
        let kind = Kind::of(&extension);
        let (key, fault) = match key(stem) {
            Ok(key) => (key, None),
            Err(key) => (key, Some("the member's name leads out of the archive (..)".to_owned())),
        };
        let done = match &self.current {
            Some(current) if current.key == key => None,
            _ => self.finish(),
        };
        let group =
            self.current.get_or_insert_with(|| Group { key, parts: Vec::new(), fault: None });
        group.fault = group.fault.take().or(fault);
        if kind == Kind::Other {
            return Ok(done);
        }
        let mut part = Part { kind, offset: entry.offset, size: entry.size, body: None };
        let repeated = group.parts.iter().any(|other| other.kind == kind);
        if repeated && kind == Kind::Picture {
            // Such as `a.jpg` and `a.seg.png`: the first is the picture.
            return Ok(done);
        }
        if repeated {
            group.fault = Some(format!("two members .{extension}"));
        } else if entry.size > self.most_bytes {
            group.fault = Some(format!(
                "member .{extension} has {} bytes, the limit is {}",
                entry.size, self.most_bytes
            ));
        } else if matches!(self.bodies, Bodies::ReadFrom(start) if self.position >= start)
            && group.fault.is_none()
        {
            match self.tar.read_body(entry.size) {
                Ok(body) => part.body = Some(body),
                Err(damage) => {
                    self.current = None;
                    self.damage = Some(damage);
                    self.over = true;
                    return Ok(done);
                }
            }
        }
        group.parts.push(part);
        Ok(done)
    }

    /// Ends the current group, if it is a sample.
    fn finish(&mut self) -> Option<Group> {
        let group = self.current.take().filter(|group| !group.parts.is_empty())?;
        self.position += 1;
        Some(group)
    }
}

/// The name without leading `./` up to the first dot of the file name, and what follows that dot
/// in lower case. `None` for members that are no files or, by name, none of the data.
fn split(entry: &Entry) -> Option<(&[u8], String)> {
    let name = entry.name.as_slice();
    let start = name.iter().rposition(|&b| b == b'/').map_or(0, |slash| slash + 1);
    let file = &name[start..];
    if !entry.is_file || file.starts_with(b".") || file.starts_with(b"__") || is_class_list(name) {
        return None;
    }
    let dot = file.iter().position(|&b| b == b'.')?;
    let extension = String::from_utf8_lossy(&file[dot + 1..]).to_ascii_lowercase();
    Some((&name[..start + dot], extension))
}

/// Whether a member lists the names of classes.
pub(super) fn is_class_list(name: &[u8]) -> bool {
    let file = name.rsplit(|&b| b == b'/').next().unwrap_or_default();
    matches!(file, b"classes.txt" | b"classnames.txt")
}

/// A key out of bytes somebody else chose: what is not printable text is escaped, empty and `.`
/// components are dropped. `Err` with the key if a component is `..`.
pub(super) fn key(stem: &[u8]) -> Result<String, String> {
    let mut text = String::new();
    for piece in stem.utf8_chunks() {
        for c in piece.valid().chars() {
            match c {
                '\\' => text.push_str("\\\\"),
                _ if is_treacherous(c) => text.extend(c.escape_unicode()),
                _ => text.push(c),
            }
        }
        piece.invalid().iter().for_each(|byte| text.push_str(&format!("\\x{byte:02x}")));
    }
    let parts: Vec<&str> = text.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    let climbs = parts.contains(&"..");
    let key = parts.join("/");
    if climbs { Err(key) } else { Ok(key) }
}

/// What of a sample's JSON is used.
#[derive(Deserialize)]
struct Facts {
    caption: Option<String>,
}

impl Group {
    /// The sample. `fetch` gets bodies that have not been read yet.
    pub(super) fn into_sample(
        mut self,
        index: u64,
        key: String,
        classes: Option<&[String]>,
        mut fetch: impl FnMut(&Part) -> Result<Vec<u8>, DataError>,
    ) -> Result<RawSample, DataError> {
        let bad = |reason: String| DataError::Sample { key: key.clone(), reason };
        if let Some(fault) = self.fault.take() {
            return Err(bad(fault));
        }
        let mut body = |kind| -> Result<Option<Vec<u8>>, DataError> {
            let Some(part) = self.parts.iter_mut().find(|part| part.kind == kind) else {
                return Ok(None);
            };
            part.body.take().map_or_else(|| fetch(part), Ok).map(Some)
        };
        let picture = body(Kind::Picture)?
            .ok_or_else(|| bad("no picture among its members (.jpg, .png, .webp, ...)".into()))?;
        let mut caption = match body(Kind::Caption)? {
            Some(text) => Some(
                String::from_utf8(text)
                    .map_err(|_| bad("its caption (.txt) is not UTF-8".into()))?
                    .trim()
                    .to_owned(),
            ),
            None => None,
        };
        if caption.is_none()
            && let Some(json) = body(Kind::Json)?
        {
            let facts: Facts = serde_json::from_slice(&json)
                .map_err(|error| bad(format!("its .json cannot be read: {error}")))?;
            caption = facts.caption;
        }
        let label = match body(Kind::Label)? {
            Some(text) => Some(label(&String::from_utf8_lossy(&text), classes).map_err(bad)?),
            None => folder_label(&self.key, classes).map_err(bad)?,
        };
        Ok(RawSample { index, key, picture: RawPicture::Encoded(picture), caption, label })
    }
}

/// A label as `.cls` spells it: an index, or the name of a class.
fn label(text: &str, classes: Option<&[String]>) -> Result<usize, String> {
    let text = text.trim();
    let index = text.parse().ok().or_else(|| classes?.iter().position(|name| name == text));
    match (index, classes) {
        (None, _) => Err(format!("label \"{}\" is no index", crate::error::shown(text))),
        (Some(index), Some(classes)) if index >= classes.len() => {
            Err(format!("label {index}, but there are only {} classes", classes.len()))
        }
        (Some(index), _) => Ok(index),
    }
}

/// The label out of the folder's name, where classes are known: `066/image_0017` or
/// `dog/image_0017`.
fn folder_label(key: &str, classes: Option<&[String]>) -> Result<Option<usize>, String> {
    let (Some((folder, _)), Some(classes)) = (key.rsplit_once('/'), classes) else {
        return Ok(None);
    };
    let folder = folder.rsplit('/').next().unwrap_or(folder);
    if let Some(index) = classes.iter().position(|name| name == folder) {
        return Ok(Some(index));
    }
    if !folder.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(None);
    }
    label(folder, Some(classes)).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_safe_relative_names() {
        assert_eq!(key(b"a/b").unwrap(), "a/b");
        assert_eq!(key(b"./a//b").unwrap(), "a/b");
        assert_eq!(key(b"/etc/passwd").unwrap(), "etc/passwd");
        assert_eq!(key(b"a/../../x").unwrap_err(), "a/../../x");
        assert_eq!(key(b"a\x1b[2J\xff\\").unwrap(), "a\\u{1b}[2J\\xff\\\\");
    }

    #[test]
    fn labels_come_from_numbers_names_and_folders() {
        let classes = ["cat".to_owned(), "dog".to_owned()];
        let classes = Some(classes.as_slice());
        assert_eq!(label(" 1\n", classes), Ok(1));
        assert_eq!(label("dog", classes), Ok(1));
        assert_eq!(label("7", None), Ok(7));
        assert!(label("2", classes).unwrap_err().contains("only 2"));
        assert!(label("mouse", classes).is_err() && label("-1", None).is_err());
        assert_eq!(folder_label("x/001/a", classes), Ok(Some(1)));
        assert_eq!(folder_label("cat/a", classes), Ok(Some(0)));
        assert_eq!(folder_label("holiday/a", classes), Ok(None));
        assert_eq!(folder_label("001/a", None), Ok(None));
        assert!(folder_label("009/a", classes).is_err());
    }
}
