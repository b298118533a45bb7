//! From rows to samples.

use super::{
    Inner, Part,
    leaf::{Leaf, Value},
};
use crate::{
    DataError, RawPicture, RawSample, shown,
    sources::{columns::is_absent, members},
};
use std::{collections::VecDeque, sync::Arc};

/// Rows that are read at once.
const AT_ONCE: u64 = 16;

/// The values of one row.
#[derive(Default)]
pub(super) struct Row {
    bytes: Option<Value>,
    path: Option<Value>,
    caption: Option<Value>,
    label: Option<Value>,
    key: Option<Value>,
}

/// The columns of one row group.
struct Group {
    leaves: [Option<Leaf>; 5],
}

impl Group {
    /// Opens a row group of a part, behind its first rows.
    fn open(part: &Part, group: usize, skipped: u64) -> Result<Self, String> {
        let columns = &part.columns;
        let numbers = [columns.bytes, columns.path, columns.caption, columns.label, columns.key];
        let mut leaves = [const { None }; 5];
        for (leaf, number) in leaves.iter_mut().zip(numbers) {
            let Some(number) = number else { continue };
            let mut opened = Leaf::open(&part.blob, part.meta.row_group(group), number)?;
            opened.skip(skipped as usize)?;
            *leaf = Some(opened);
        }
        Ok(Self { leaves })
    }

    fn read(&mut self, count: usize) -> Result<Vec<Row>, String> {
        let mut rows: Vec<Row> = (0..count).map(|_| Row::default()).collect();
        for (place, leaf) in self.leaves.iter_mut().enumerate() {
            let Some(leaf) = leaf else { continue };
            for (row, value) in rows.iter_mut().zip(leaf.read(count)?) {
                let slot = match place {
                    0 => &mut row.bytes,
                    1 => &mut row.path,
                    2 => &mut row.caption,
                    3 => &mut row.label,
                    _ => &mut row.key,
                };
                *slot = value;
            }
        }
        Ok(rows)
    }
}

/// What is wrong with a row group: the file goes on behind it.
fn damaged(part: &Part, group: usize, reason: String) -> DataError {
    let place = part.meta.row_group(group).columns().first().map_or(0, |c| c.data_page_offset());
    let position = u64::try_from(place).unwrap_or(0);
    let reason = format!("row group {group}: {reason}");
    DataError::Damaged { path: part.blob.path().into(), position, reason }
}

impl Row {
    /// One row, read without its neighbours.
    pub(super) fn alone(part: &Part, group: usize, row: u64) -> Result<Self, DataError> {
        let skipped = row - part.starts[group];
        Group::open(part, group, skipped)
            .and_then(|mut group| group.read(1))
            .map(|rows| rows.into_iter().next().unwrap_or_default())
            .map_err(|reason| damaged(part, group, reason))
    }

    fn key(&self, part: &Part, row: u64) -> Result<String, DataError> {
        let own = match (&self.key, &self.path) {
            (Some(Value::Bytes(key)), _) if !key.is_empty() => {
                let key = members::key(key).map_err(|key| DataError::Sample {
                    key,
                    reason: "its key leads out of the table (..)".to_owned(),
                })?;
                return Ok(part.stem.as_ref().map_or(key.clone(), |stem| format!("{stem}/{key}")));
            }
            // A picture may stand in several rows.
            (_, Some(Value::Bytes(path))) if self.bytes.is_none() => {
                format!("{}#{row}", shown(&String::from_utf8_lossy(path)))
            }
            _ => format!("{row:06}"),
        };
        Ok(part.stem.as_ref().map_or(own.clone(), |stem| format!("{stem}/{own}")))
    }

    /// The sample of a row at a position of the source.
    pub(super) fn into_sample(
        self,
        inner: &Inner,
        part: &Part,
        index: u64,
    ) -> Result<RawSample, DataError> {
        let key = self.key(part, index - part.first)?;
        let bad = |reason: &str| DataError::Sample { key: key.clone(), reason: reason.to_owned() };
        let picture = match (self.bytes, self.path) {
            (Some(Value::Bytes(bytes)), _) if bytes.len() as u64 > inner.most_bytes => {
                let (found, limit) = (bytes.len(), inner.most_bytes);
                return Err(bad(&format!("its picture has {found} bytes, the limit is {limit}")));
            }
            (Some(Value::Bytes(bytes)), _) => RawPicture::Encoded(bytes),
            (_, Some(Value::Bytes(path))) if !path.is_empty() => {
                let path = String::from_utf8(path)
                    .map_err(|_| bad("the name of its picture is not UTF-8"))?;
                part.blob.picture(&path)
            }
            _ => return Err(bad("has no picture")),
        };
        let caption = match self.caption {
            Some(Value::Bytes(text)) => {
                let text = String::from_utf8(text).map_err(|_| bad("its caption is not UTF-8"))?;
                Some(text.trim().to_owned()).filter(|text| !is_absent(text))
            }
            _ => None,
        };
        if caption.is_none() && part.columns.caption.is_some() && part.columns.label.is_none() {
            return Err(bad("has no caption"));
        }
        let label = self.label.map(|value| inner.label(part, &value)).transpose();
        let label = label.map_err(|reason| bad(&reason))?;
        Ok(RawSample { index, key, picture, caption, label })
    }
}

/// Samples from a position on.
pub(super) struct Rows {
    inner: Arc<Inner>,
    position: u64,
    /// The row group that is open, and where it ends.
    open: Option<(Group, u64)>,
    ready: VecDeque<Row>,
}

impl Rows {
    pub(super) fn new(inner: Arc<Inner>, start: u64) -> Self {
        Self { inner, position: start, open: None, ready: VecDeque::new() }
    }

    /// Reads the next rows of the row group at the current position.
    fn refill(&mut self, part: &Part, group: usize) -> Result<(), String> {
        let row = self.position - part.first;
        let end = part.first + part.starts[group + 1];
        if self.open.as_ref().is_none_or(|(_, open)| *open != end) {
            self.open = Some((Group::open(part, group, row - part.starts[group])?, end));
        }
        if let Some((open, _)) = &mut self.open {
            let count = (end - self.position).min(AT_ONCE) as usize;
            self.ready = open.read(count)?.into();
        }
        Ok(())
    }
}

impl Iterator for Rows {
    type Item = Result<RawSample, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        let inner = self.inner.clone();
        let (number, group) = inner.place(self.position)?;
        let part = &inner.parts[number];
        if self.ready.is_empty()
            && let Err(reason) = self.refill(part, group)
        {
            // Its rows keep their positions; the next row group follows.
            self.position = part.first + part.starts[group + 1];
            self.open = None;
            return Some(Err(damaged(part, group, reason)));
        }
        let index = self.position;
        self.position += 1;
        let row = self.ready.pop_front()?;
        Some(row.into_sample(&inner, part, index))
    }
}
