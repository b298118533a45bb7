//! One column of one row group, read a few rows at a time.

use super::guard::{Chunk, plain};
use crate::{blob::Blob, contained::contained};
use parquet::{
    basic::Type,
    column::reader::{ColumnReader, ColumnReaderImpl, get_column_reader},
    data_type::DataType,
    errors::ParquetError,
    file::{metadata::RowGroupMetaData, serialized_reader::SerializedPageReader},
};
use std::sync::Arc;

/// A value of a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Bytes(Vec<u8>),
    Number(i64),
}

/// Reads one column.
pub(super) struct Leaf {
    reader: ColumnReader,
    /// Levels at which there is a value.
    present: i16,
    /// Whether a row holds a list, of which the first value counts.
    lists: bool,
}

impl Leaf {
    pub(super) fn open(
        blob: &Blob,
        group: &RowGroupMetaData,
        column: usize,
    ) -> Result<Self, String> {
        let rows = u64::try_from(group.num_rows()).unwrap_or(0);
        let chunk = guarded(|| Ok(Chunk::new(blob, group.column(column), rows)))??;
        guarded(|| {
            let column = group.column(column);
            let pages = SerializedPageReader::new(Arc::new(chunk), column, rows as usize, None)?;
            let about = column.column_descr_ptr();
            let (present, lists) = (about.max_def_level(), about.max_rep_level() > 0);
            let reader = get_column_reader(about, Box::new(pages));
            Ok(Self { reader, present, lists })
        })
    }

    /// The next `count` rows.
    pub(super) fn read(&mut self, count: usize) -> Result<Vec<Option<Value>>, String> {
        let (present, lists) = (self.present, self.lists);
        let rows = guarded(|| match &mut self.reader {
            ColumnReader::ByteArrayColumnReader(reader) => {
                take(reader, count, present, lists, |v| Value::Bytes(v.data().to_vec()))
            }
            ColumnReader::Int32ColumnReader(reader) => {
                take(reader, count, present, lists, |v| Value::Number((*v).into()))
            }
            ColumnReader::Int64ColumnReader(reader) => {
                take(reader, count, present, lists, |v| Value::Number(*v))
            }
            _ => Err(ParquetError::General("a column of a kind that is not read".to_owned())),
        })?;
        match rows.len() {
            n if n == count => Ok(rows),
            n => Err(format!("its column ends {} rows early", count - n)),
        }
    }

    /// Leaves out `count` rows.
    pub(super) fn skip(&mut self, count: usize) -> Result<(), String> {
        let skipped = guarded(|| match &mut self.reader {
            ColumnReader::ByteArrayColumnReader(reader) => reader.skip_records(count),
            ColumnReader::Int32ColumnReader(reader) => reader.skip_records(count),
            ColumnReader::Int64ColumnReader(reader) => reader.skip_records(count),
            _ => Err(ParquetError::General("a column of a kind that is not read".to_owned())),
        })?;
        match skipped == count {
            true => Ok(()),
            false => Err(format!("its column ends {} rows early", count - skipped)),
        }
    }
}

/// Whether values of this kind are read.
pub(super) fn is_read(kind: Type) -> bool {
    matches!(kind, Type::BYTE_ARRAY | Type::INT32 | Type::INT64)
}

/// The decoder is other people's code fed with hostile bytes: a panic in it costs one row group.
fn guarded<T>(work: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, String> {
    match contained(work) {
        Some(result) => result.map_err(|error| plain(&error)),
        None => Err("the decoder gave up on these bytes (it panicked)".to_owned()),
    }
}

fn take<T: DataType>(
    reader: &mut ColumnReaderImpl<T>,
    count: usize,
    present: i16,
    lists: bool,
    value: impl Fn(&T::T) -> Value,
) -> Result<Vec<Option<Value>>, ParquetError> {
    let (mut defined, mut repeated, mut values) = (Vec::new(), Vec::new(), Vec::new());
    let (rows, _, levels) =
        reader.read_records(count, Some(&mut defined), Some(&mut repeated), &mut values)?;
    let mut values = values.iter();
    let mut found: Vec<Option<Value>> = Vec::with_capacity(rows);
    for level in 0..levels {
        let there = present == 0 || defined.get(level) == Some(&present);
        let next = if there { values.next() } else { None };
        let begins = !lists || repeated.get(level) == Some(&0);
        match found.last_mut() {
            Some(last) if !begins => *last = last.take().or_else(|| next.map(&value)),
            _ => found.push(next.map(&value)),
        }
    }
    Ok(found)
}
