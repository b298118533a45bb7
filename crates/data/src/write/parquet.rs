//! Parquet files, for people's tools and for ourselves.

use super::{About, Entry, Shard, Unfinished};
use crate::DataError;
use parquet::{
    basic::Compression,
    column::writer::ColumnWriter,
    data_type::ByteArray,
    errors::ParquetError,
    file::{
        metadata::KeyValue,
        properties::{EnabledStatistics, WriterProperties},
        writer::SerializedFileWriter,
    },
    schema::{parser::parse_message_type, types::ColumnPath},
};
use serde_json::{Map, Value, json};
use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Rows in a row group: few, because pictures are large.
const GROUP: usize = 100;

/// A column of [`write_columns`].
pub enum Column {
    /// Text, which may be missing.
    Text(Vec<Option<String>>),
    /// Whole numbers.
    Number(Vec<i64>),
}

/// Writes named columns of one length as a Parquet file of one row group. The same columns are the
/// same bytes.
///
/// # Errors
/// [`DataError::Write`].
pub fn write_columns(path: &Path, columns: &[(&str, Column)]) -> Result<(), DataError> {
    let kinds: String = columns
        .iter()
        .map(|(name, column)| match column {
            Column::Text(_) => format!("OPTIONAL BYTE_ARRAY {name} (UTF8);"),
            Column::Number(_) => format!("REQUIRED INT64 {name};"),
        })
        .collect();
    let file = Unfinished::create(path.to_owned())?;
    let values = columns.iter().map(|(_, column)| match column {
        Column::Text(texts) => {
            let bytes = |text: &Option<String>| text.as_ref().map(|t| t.clone().into_bytes());
            Leaf::optional(texts.iter().map(bytes).collect(), 1)
        }
        Column::Number(numbers) => Leaf::Numbers(numbers.clone(), None),
    });
    let values: Vec<Leaf> = values.collect();
    let work = || {
        let schema = Arc::new(parse_message_type(&format!("message schema {{ {kinds} }}"))?);
        let mut writer = SerializedFileWriter::new(file, schema, Arc::new(properties(None)))?;
        write_group(&mut writer, values)?;
        writer.into_inner()
    };
    work().map_err(|e| DataError::write(path, plain(e)))?.finish()
}

fn plain(error: ParquetError) -> io::Error {
    match error {
        ParquetError::External(inner) => match inner.downcast::<io::Error>() {
            Ok(error) => *error,
            Err(other) => io::Error::other(other),
        },
        other => io::Error::other(other),
    }
}

/// Who wrote a file stands in it; nothing that changes from run to run does.
fn properties(metadata: Option<Vec<KeyValue>>) -> WriterProperties {
    let image = ColumnPath::new(vec!["image".to_owned(), "bytes".to_owned()]);
    WriterProperties::builder()
        .set_created_by("clipguard".to_owned())
        .set_compression(Compression::SNAPPY)
        // Pictures are packed already, and every one is different. Pages of few pictures keep
        // the memory of readers small.
        .set_column_compression(image.clone(), Compression::UNCOMPRESSED)
        .set_column_dictionary_enabled(image.clone(), false)
        .set_column_statistics_enabled(image, EnabledStatistics::None)
        .set_write_batch_size(1)
        .set_key_value_metadata(metadata)
        .build()
}

/// The values of one column, and for those that may be missing the level of each row.
enum Leaf {
    Bytes(Vec<ByteArray>, Option<Vec<i16>>),
    Numbers(Vec<i64>, Option<Vec<i16>>),
}

impl Leaf {
    /// Texts or bytes; a value is at level `there`, a missing one at the level above.
    fn optional(values: Vec<Option<Vec<u8>>>, there: i16) -> Self {
        let levels = values.iter().map(|v| if v.is_some() { there } else { there - 1 }).collect();
        Self::Bytes(values.into_iter().flatten().map(ByteArray::from).collect(), Some(levels))
    }
}

fn write_group(
    writer: &mut SerializedFileWriter<Unfinished>,
    leaves: Vec<Leaf>,
) -> Result<(), ParquetError> {
    let mut group = writer.next_row_group()?;
    for leaf in leaves {
        let column = group.next_column()?;
        let mut column = column.ok_or_else(|| ParquetError::General("too few columns".into()))?;
        match (column.untyped(), &leaf) {
            (ColumnWriter::ByteArrayColumnWriter(column), Leaf::Bytes(values, levels)) => {
                column.write_batch(values, levels.as_deref(), None)?;
            }
            (ColumnWriter::Int64ColumnWriter(column), Leaf::Numbers(values, levels)) => {
                column.write_batch(values, levels.as_deref(), None)?;
            }
            _ => return Err(ParquetError::General("a column of another kind".into())),
        }
        column.close()?;
    }
    group.close().map(|_| ())
}

/// A file of samples that is being written.
pub(super) struct Table {
    writer: SerializedFileWriter<Unfinished>,
    captions: bool,
    labels: bool,
    waiting: Vec<Entry>,
    path: PathBuf,
}

impl Table {
    pub(super) fn create(path: PathBuf, about: &About<'_>) -> Result<Self, DataError> {
        let file = Unfinished::create(path.clone())?;
        let mut kinds = "REQUIRED BYTE_ARRAY key (UTF8); OPTIONAL group image { OPTIONAL \
                         BYTE_ARRAY bytes; OPTIONAL BYTE_ARRAY path (UTF8); }"
            .to_owned();
        let mut features = Map::new();
        let text = json!({ "dtype": "string", "_type": "Value" });
        features.insert("key".into(), text.clone());
        features.insert("image".into(), json!({ "_type": "Image" }));
        if about.captions {
            kinds += " OPTIONAL BYTE_ARRAY caption (UTF8);";
            features.insert("caption".into(), text);
        }
        if about.labels {
            kinds += " OPTIONAL INT64 label;";
            features.insert(
                "label".into(),
                match about.classes {
                    Some(names) => json!({ "names": names, "_type": "ClassLabel" }),
                    None => json!({ "dtype": "int64", "_type": "Value" }),
                },
            );
        }
        let info = json!({ "info": { "features": Value::Object(features) } }).to_string();
        let metadata = vec![KeyValue::new("huggingface".to_owned(), info)];
        let properties = Arc::new(properties(Some(metadata)));
        let writer = parse_message_type(&format!("message schema {{ {kinds} }}"))
            .and_then(|schema| SerializedFileWriter::new(file, Arc::new(schema), properties))
            .map_err(|e| DataError::write(&path, plain(e)))?;
        let (captions, labels) = (about.captions, about.labels);
        Ok(Self { writer, captions, labels, waiting: Vec::new(), path })
    }

    fn flush(&mut self) -> Result<(), DataError> {
        let entries = std::mem::take(&mut self.waiting);
        if entries.is_empty() {
            return Ok(());
        }
        let (mut keys, mut pictures, mut paths) = (Vec::new(), Vec::new(), Vec::new());
        let (mut captions, mut labels, mut levels) = (Vec::new(), Vec::new(), Vec::new());
        for entry in entries {
            paths.push(Some(format!("{:09}.{}", entry.position, entry.extension).into_bytes()));
            keys.push(ByteArray::from(entry.key.into_bytes()));
            pictures.push(Some(entry.picture));
            captions.push(entry.caption.map(String::into_bytes));
            levels.push(i16::from(entry.label.is_some()));
            labels.extend(entry.label.map(|label| label as i64));
        }
        let mut leaves =
            vec![Leaf::Bytes(keys, None), Leaf::optional(pictures, 2), Leaf::optional(paths, 2)];
        if self.captions {
            leaves.push(Leaf::optional(captions, 1));
        }
        if self.labels {
            leaves.push(Leaf::Numbers(labels, Some(levels)));
        }
        write_group(&mut self.writer, leaves).map_err(|e| DataError::write(&self.path, plain(e)))
    }
}

impl Shard for Table {
    fn push(&mut self, entry: Entry) -> Result<(), DataError> {
        let extra = match () {
            () if entry.caption.is_some() && !self.captions => Some("a caption"),
            () if entry.label.is_some() && !self.labels => Some("a label"),
            () => None,
        };
        if let Some(extra) = extra {
            let reason = format!(
                "has {extra} where the first sample has none, so there is no column for it; \
                 WebDataset takes such a mixture"
            );
            return Err(DataError::Sample { key: entry.key, reason });
        }
        self.waiting.push(entry);
        if self.waiting.len() == GROUP { self.flush() } else { Ok(()) }
    }

    fn finish(mut self: Box<Self>) -> Result<(), DataError> {
        self.flush()?;
        let path = self.path;
        self.writer.into_inner().map_err(|e| DataError::write(&path, plain(e)))?.finish()
    }
}
