//! Records as the one CSV file that CLIP_benchmark's `build` makes of its JSON files.

use crate::{
    records::record::{Record, RecordError},
    records::record_file::write_atomic,
};
use serde_json::{Map, Value};
use std::{collections::BTreeSet, path::Path};

/// Columns that every row has, in this order; metrics follow in the order of their names. (There
/// the order is that of a set, another one every time.)
const FIRST: [&str; 6] = ["dataset", "model", "pretrained", "task", "language", "model_fullname"];

/// Writes the records of unchanged pictures, a row each; a metric that a record lacks is empty.
pub fn export_clip_benchmark_csv(path: &Path, records: &[Record]) -> Result<(), RecordError> {
    write_atomic(path, text(records).as_bytes())
}

fn text(records: &[Record]) -> String {
    let rows: Vec<Map<String, Value>> =
        records.iter().filter(|record| record.is_clean()).map(row).collect();
    let metrics: BTreeSet<&str> = rows
        .iter()
        .flat_map(|row| row.keys().map(String::as_str))
        .filter(|key| !FIRST.contains(key))
        .collect();
    let columns: Vec<&str> = FIRST.into_iter().chain(metrics).collect();
    let mut text = line(columns.iter().map(|name| field(name)));
    for row in &rows {
        text += &line(columns.iter().map(|name| match row.get(*name) {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(value)) => field(value),
            Some(other) => field(&other.to_string()),
        }));
    }
    text
}

/// Its JSON form, flat: a metric never stands in the place of a key.
fn row(record: &Record) -> Map<String, Value> {
    let named = record.as_clip_benchmark();
    let mut row = named.metrics.0.clone();
    if let Value::Object(keys) = named.clip_benchmark() {
        row.extend(keys.into_iter().filter(|(key, _)| key != "metrics"));
    }
    row.insert("model_fullname".to_owned(), named.model_fullname().into());
    row
}

fn line(fields: impl Iterator<Item = String>) -> String {
    fields.collect::<Vec<_>>().join(",") + "\r\n"
}

/// RFC 4180: quoted where it has to be.
fn field(text: &str) -> String {
    match text.contains([',', '"', '\r', '\n']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_have_all_columns_and_attacks_are_left_out() {
        let plain = Record {
            dataset: "wds/cifar10".into(),
            model: "ViT-B-32".into(),
            pretrained: "laion400m_e32".into(),
            ..Record::default()
        }
        .counted(1, 4);
        let attacked = Record { attack: "pgd".into(), ..plain.clone() };
        let mut probe = Record {
            dataset: "a \"b\", c".into(),
            model: "m".into(),
            task: "linear_probe".into(),
            defence: "clipure-cos".into(),
            ..Record::default()
        };
        probe.metrics.set("lp_acc1", 0.5);
        probe.metrics.set("lp_acc5", None);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("benchmark.csv");
        export_clip_benchmark_csv(&path, &[plain, attacked, probe]).unwrap();
        let found = std::fs::read_to_string(path).unwrap();
        let want = "dataset,model,pretrained,task,language,model_fullname,acc1,lp_acc1,lp_acc5\r\n\
            wds/cifar10,ViT-B-32,laion400m_e32,zeroshot_classification,en,ViT-B-32 laion400m_e32,0.25,,\r\n\
            \"a \"\"b\"\", c\",m+clipure-cos,,linear_probe,en,m+clipure-cos,,0.5,\r\n";
        assert_eq!(found, want);
    }
}
