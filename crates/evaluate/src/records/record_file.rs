//! Records in files: JSON lines of ours, and one file a record as CLIP_benchmark keeps them.

use crate::records::record::{Record, RecordError};
use serde::de::DeserializeOwned;
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

/// Writes a file under a temporary name beside it and renames it, so that under the final name
/// there is always a complete file: the old one or the new one.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), RecordError> {
    clipguard_model::weights::write_atomically(path, bytes).map_err(|error| match error {
        clipguard_model::ModelError::Io { path, source } => RecordError::Io { path, source },
        other => RecordError::io(path)(std::io::Error::other(other.to_string())),
    })
}

/// Writes records as JSON lines, atomically.
pub fn write_records(path: &Path, records: &[Record]) -> Result<(), RecordError> {
    let json = |source| RecordError::Json { path: path.into(), source };
    let mut text = String::new();
    for record in records {
        text += &serde_json::to_string(record).map_err(json)?;
        text.push('\n');
    }
    write_atomic(path, text.as_bytes())
}

/// Reads records from JSON lines. Empty lines are skipped, and so is a last line that a crash cut
/// off (no line end, not a record).
pub fn read_records(path: &Path) -> Result<Vec<Record>, RecordError> {
    read_lines(path)
}

/// Reads any JSON lines with the rules of [`read_records`].
pub(crate) fn read_lines<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>, RecordError> {
    let bytes = std::fs::read(path).map_err(RecordError::io(path))?;
    let cut_off = !bytes.ends_with(b"\n");
    let lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
    let mut values = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        if line.trim_ascii().is_empty() {
            continue;
        }
        match serde_json::from_slice(line) {
            Ok(value) => values.push(value),
            Err(_) if cut_off && index + 1 == lines.len() => {}
            Err(source) => {
                return Err(RecordError::Line { path: path.into(), line: index + 1, source });
            }
        }
    }
    Ok(values)
}

/// Writes each record of unchanged pictures into `folder` in CLIP_benchmark's form and returns
/// the paths. Its form has no place for a defence, so that is appended to the model's name;
/// records of attacks have no place there at all and are left out.
pub fn export_clip_benchmark(
    folder: &Path,
    records: &[Record],
) -> Result<Vec<PathBuf>, RecordError> {
    let mut files = Vec::new();
    let mut taken = BTreeSet::new();
    for record in records.iter().filter(|record| record.is_clean()) {
        let record = record.as_clip_benchmark();
        let path = folder.join(record.clip_benchmark_name());
        if !taken.insert(path.clone()) {
            return Err(RecordError::SameName { path });
        }
        files.push((path, record.clip_benchmark()));
    }
    // Names are checked before anything is written: all files or none.
    std::fs::create_dir_all(folder).map_err(RecordError::io(folder))?;
    for (path, value) in &files {
        let json = |source| RecordError::Json { path: path.clone(), source };
        write_atomic(path, serde_json::to_string(value).map_err(json)?.as_bytes())?;
    }
    Ok(files.into_iter().map(|(path, _)| path).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::record::{Check, Reliability, Threat, Verdict};
    use serde_json::{Value, json};

    fn record() -> Record {
        Record {
            dataset: "wds/cifar10".into(),
            model: "ViT-B-32".into(),
            pretrained: "laion400m_e32".into(),
            ..Record::default()
        }
        .counted(61, 200)
    }

    #[test]
    fn lines_come_back_as_they_went() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("records.jsonl");
        let mut attacked = Record { attack: "apgd-ce".into(), ..record() };
        attacked.threat =
            Some(Threat { norm: "linf".into(), eps: Some(4.0 / 255.0), space: "pixels".into() });
        attacked.checks = vec![Check { id: "O3".into(), value: Some(0.5), ..Check::default() }];
        write_records(&path, &[record(), attacked.clone()]).unwrap();
        assert_eq!(read_records(&path).unwrap(), [record(), attacked]);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file left");
    }

    #[test]
    fn nan_is_null() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r.jsonl");
        let mut odd = record();
        odd.metrics.set("acc5", f64::NAN);
        odd.metrics.set("map", f64::INFINITY);
        odd.base = Some(f64::NAN);
        odd.seconds = Some(f64::INFINITY);
        odd.checks = vec![Check { value: Some(f64::NAN), ..Check::default() }];
        write_records(&path, &[odd]).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(!text.contains("NaN") && !text.contains("nf,") && text.contains("\"acc5\":null"));
        let back = &read_records(&path).unwrap()[0];
        assert_eq!((back.base, back.seconds, back.checks[0].value), (None, None, None));
        assert_eq!(back.metrics.get("acc5"), None);
    }

    #[test]
    fn files_of_others_and_of_later_versions() {
        let line = json!({
            "dataset": "x", "model": "m", "pretrained": "p", "task": "linear_probe",
            "metrics": {"lp_acc1": 0.5, "normalized": true}, "language": "en", "novel": [1, 2],
        });
        let record: Record = serde_json::from_value(line).unwrap();
        assert_eq!((record.n, record.attack.as_str()), (0, "none"));
        assert_eq!(record.metrics.get("lp_acc1"), Some(0.5));
        let back = serde_json::to_value(&record).unwrap();
        assert_eq!(back["novel"], json!([1, 2]));
        assert_eq!(back["metrics"]["normalized"], json!(true));
    }

    #[test]
    fn a_cut_off_end_is_dropped_and_a_broken_line_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r.jsonl");
        std::fs::write(&path, "{\"n\":1}\n\n{\"n\":2}\n{\"n\":").unwrap();
        assert_eq!(read_records(&path).unwrap().len(), 2);
        std::fs::write(&path, "{\"n\":1}\n{\"n\":\n").unwrap();
        let message = read_records(&path).unwrap_err().to_string();
        assert!(message.contains("line 2"), "{message}");
        assert!(read_records(&folder.path().join("missing")).is_err());
    }

    #[test]
    fn the_form_of_clip_benchmark() {
        let folder = tempfile::tempdir().unwrap();
        let attacked = Record { attack: "pgd".into(), ..record() };
        let purified = Record { defence: "clipure-cos:steps=10".into(), ..record() };
        let paths = export_clip_benchmark(folder.path(), &[record(), attacked, purified]).unwrap();
        let names: Vec<_> =
            paths.iter().map(|p| p.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(
            names,
            [
                "wds_cifar10_laion400m_e32_ViT-B-32_en_zeroshot_classification.json",
                "wds_cifar10_laion400m_e32_ViT-B-32+clipure-cos_steps=10_en_zeroshot_classification.json",
            ]
        );
        let text = std::fs::read_to_string(&paths[0]).unwrap();
        assert!(text.starts_with("{\"dataset\":\"wds/cifar10\",\"model\":\"ViT-B-32\""), "{text}");
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value.as_object().unwrap().len(), 6);
        assert_eq!(value["metrics"], json!({"acc1": 0.305}));
        let twice = export_clip_benchmark(folder.path(), &[record(), record()]);
        assert!(matches!(twice, Err(RecordError::SameName { .. })));
    }

    #[test]
    fn hostile_names_stay_in_the_folder() {
        let hostile = Record { dataset: "../../etc\u{0}\\x".into(), ..record() };
        let name = hostile.clip_benchmark_name();
        assert!(!name.contains(['/', '\\', '\0']) && !name.starts_with('.'), "{name}");
    }

    #[test]
    fn reliability_of_checks() {
        let check = |verdict| Check { verdict, ..Check::default() };
        use Verdict::{Fail, NotRun, Ok as Fine, Suspect};
        for (verdicts, label) in [
            (vec![], Reliability::Unchecked),
            (vec![NotRun, NotRun], Reliability::Unchecked),
            (vec![Fine, NotRun], Reliability::Plausible),
            (vec![Fine, Suspect], Reliability::Doubtful),
            (vec![Suspect, Suspect], Reliability::NotReliable),
            (vec![Fine, Fail], Reliability::NotReliable),
        ] {
            let checks: Vec<Check> = verdicts.into_iter().map(check).collect();
            assert_eq!(Reliability::of(&checks), label);
        }
        assert_eq!(serde_json::to_value(NotRun).unwrap(), json!("not-run"));
    }
}
