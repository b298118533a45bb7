//! Which columns of a Parquet file make a sample.

use super::leaf::is_read;
use crate::{
    DataError, shown,
    sources::columns::{CAPTIONS, LABELS, Wanted, column, told},
};
use parquet::{
    basic::{ConvertedType, LogicalType, Type},
    file::metadata::ParquetMetaData,
    schema::types::ColumnDescriptor,
};
use serde_json::Value;
use std::path::Path;

const PICTURES: [&str; 14] = [
    "image",
    "jpg",
    "jpeg",
    "png",
    "webp",
    "image_bytes",
    "img",
    "picture",
    "bytes",
    "image_path",
    "filepath",
    "path",
    "filename",
    "file_name",
];
const KEYS: [&str; 2] = ["key", "__key__"];

/// The columns of one file, by their numbers.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Columns {
    /// Bytes of pictures.
    pub(super) bytes: Option<usize>,
    /// Names of picture files.
    pub(super) path: Option<usize>,
    pub(super) caption: Option<usize>,
    pub(super) label: Option<usize>,
    pub(super) key: Option<usize>,
    /// Names of classes that the label's numbers stand for, where the file tells.
    pub(super) classes: Option<Vec<String>>,
}

impl Columns {
    /// Finds the columns a user named, or those of the usual names.
    pub(super) fn find(
        at: &Path,
        meta: &ParquetMetaData,
        wanted: &Wanted,
    ) -> Result<Self, DataError> {
        let about = meta.file_metadata();
        let fields = about.schema_descr().root_schema().get_fields();
        let names: Vec<String> = fields.iter().map(|field| field.name().to_owned()).collect();
        let table = Table { at, meta, names };
        let find = |asked: &Option<String>, usual: &[&str]| column(at, &table.names, asked, usual);
        let picture = find(&wanted.image, &PICTURES)?.ok_or_else(|| {
            let what = told(&table.names, &PICTURES);
            DataError::refused(at, format!("has no column of pictures: {what}"))
        })?;
        let mut columns = table.pictures(picture)?;
        columns.caption = find(&wanted.caption, &CAPTIONS)?
            .map(|top| table.plain(top, "captions", true, |kind| kind == Type::BYTE_ARRAY))
            .transpose()?;
        let label = find(&wanted.label, &LABELS)?;
        columns.label = label.map(|top| table.plain(top, "labels", false, is_read)).transpose()?;
        if columns.caption.is_none() && columns.label.is_none() && wanted.image.is_none() {
            let what = told(&table.names, &CAPTIONS);
            return Err(DataError::refused(at, format!("has no column of captions: {what}")));
        }
        // A key of another kind is a number nobody promised to be unique.
        let texts = |kind| kind == Type::BYTE_ARRAY;
        let key = find(&None, &KEYS)?.filter(|key| *key != picture);
        columns.key = key.and_then(|top| table.plain(top, "keys", false, texts).ok());
        columns.classes = label.and_then(|top| class_names(meta, table.names.get(top)?));
        Ok(columns)
    }
}

struct Table<'a> {
    at: &'a Path,
    meta: &'a ParquetMetaData,
    /// Of the outermost columns.
    names: Vec<String>,
}

impl Table<'_> {
    /// The columns within an outermost one.
    fn within(&self, top: usize) -> Vec<(usize, &ColumnDescriptor)> {
        let schema = self.meta.file_metadata().schema_descr();
        let inside = |number: &usize| schema.get_column_root_idx(*number) == top;
        (0..schema.num_columns()).filter(inside).map(|n| (n, &*schema.columns()[n])).collect()
    }

    fn refuse(&self, top: usize, reason: &str) -> DataError {
        let name = self.names.get(top).map_or("", String::as_str);
        DataError::refused(self.at, format!("its column `{}` {reason}", shown(name)))
    }

    /// Bytes, names of files, or a structure of both.
    fn pictures(&self, top: usize) -> Result<Columns, DataError> {
        let found = self.within(top);
        let usable =
            |c: &ColumnDescriptor| c.physical_type() == Type::BYTE_ARRAY && c.max_rep_level() == 0;
        let mut columns = Columns::default();
        if let [(number, only)] = found[..]
            && only.path().parts().len() == 1
        {
            return match usable(only) {
                true if is_text(only) => Ok(Columns { path: Some(number), ..columns }),
                true => Ok(Columns { bytes: Some(number), ..columns }),
                false => {
                    Err(self.refuse(top, "holds no pictures: expected bytes or names of files"))
                }
            };
        }
        for (number, column) in found {
            match column.path().parts() {
                [_, part] if part == "bytes" && usable(column) => columns.bytes = Some(number),
                [_, part] if part == "path" && usable(column) => columns.path = Some(number),
                _ => {}
            }
        }
        match columns.bytes.or(columns.path) {
            Some(_) => Ok(columns),
            None => Err(self.refuse(top, "holds no pictures: expected `bytes` or `path` in it")),
        }
    }

    /// A column of plain values, or of lists of them.
    fn plain(
        &self,
        top: usize,
        what: &str,
        lists: bool,
        fits: impl Fn(Type) -> bool,
    ) -> Result<usize, DataError> {
        let most = i16::from(lists);
        match self.within(top)[..] {
            [(number, c)] if fits(c.physical_type()) && c.max_rep_level() <= most => Ok(number),
            [(_, c)] => {
                let kind = c.physical_type();
                Err(self.refuse(top, &format!("holds no {what} but {kind} or lists")))
            }
            _ => Err(self.refuse(top, &format!("holds no {what} but structures"))),
        }
    }
}

fn is_text(column: &ColumnDescriptor) -> bool {
    matches!(column.logical_type_ref(), Some(LogicalType::String))
        || column.converted_type() == ConvertedType::UTF8
}

/// The names that Hugging Face's `datasets` writes beside a column of class numbers.
fn class_names(meta: &ParquetMetaData, label: &str) -> Option<Vec<String>> {
    let entries = meta.file_metadata().key_value_metadata()?;
    let text = entries.iter().find(|entry| entry.key == "huggingface")?.value.as_ref()?;
    let value: Value = serde_json::from_str(text).ok()?;
    let names = value.get("info")?.get("features")?.get(label)?.get("names")?.as_array()?;
    names.iter().map(|name| name.as_str().map(str::to_owned)).collect()
}
