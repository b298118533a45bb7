//! Data sources.

use super::Section;
use crate::{failure::Failure, output::special_note};
use clipguard_data::{Limits, Source, shown};
use clipguard_evaluate::report::{Cell, Table};
use clipguard_model::Tokenizer;
use serde_json::json;
use std::path::Path;

/// Samples that are decoded and shown.
const SHOWN: usize = 5;
/// Class names that are shown.
const CLASSES: usize = 8;

/// Kind, count, classes and the first samples.
pub(super) fn section(spelling: &str) -> Result<Section, Failure> {
    let source = clipguard_data::open(spelling, &clipguard_data::Options::default())?;
    let mut section = Section::new(kind(spelling, &*source));
    match source.len() {
        Some(n) => section.fact("samples", n),
        None => section.told("samples", json!(null), "not known without reading everything"),
    }
    if let Some(classes) = source.classes() {
        let mut words: Vec<String> = classes.iter().take(CLASSES).map(|c| shown(c)).collect();
        if classes.len() > CLASSES {
            words.push("...".to_owned());
        }
        let text = format!("{}: {}", classes.len(), words.join(", "));
        section.told("classes", json!(classes), text);
    }
    let mut table = Table::new("", &["first samples", "pixels", "class", "caption"]);
    let (mut rows, mut good) = (Vec::new(), 0);
    for raw in source.open(0)?.take(SHOWN) {
        let raw = match raw {
            Err(error) if error.is_fatal() => return Err(error.into()),
            Err(error) => {
                section.warnings.push(error.to_string());
                continue;
            }
            Ok(raw) => raw,
        };
        let picture = match raw.decode_picture(&Limits::default()) {
            Ok(picture) => picture,
            Err(error) => {
                section.warnings.push(error.to_string());
                continue;
            }
        };
        good += 1;
        let caption = raw.caption.as_deref().unwrap_or_default();
        if Tokenizer::clip().contains_special(caption) {
            section.warnings.push(special_note(&format!("caption of {}", shown(&raw.key))));
        }
        let class = raw.label.and_then(|label| source.classes()?.get(label));
        let words = |text: Option<&String>| text.map_or(Cell::Missing, |t| Cell::Text(t.clone()));
        table.row(vec![
            Cell::Text(shown(&raw.key)),
            Cell::Text(format!("{} x {}", picture.width, picture.height)),
            words(class),
            words(raw.caption.as_ref()),
        ]);
        rows.push(json!({
            "key": raw.key,
            "width": picture.width,
            "height": picture.height,
            "class": class,
            "caption": raw.caption,
        }));
    }
    if good == 0 {
        let reason = section.warnings.first().map_or("there are no pictures", String::as_str);
        return Err(Failure::Refused(format!("{}: {reason}", shown(spelling))));
    }
    section.table = Some(("first", table, json!(rows)));
    Ok(section)
}

fn kind(spelling: &str, source: &dyn Source) -> &'static str {
    let path = Path::new(spelling);
    let scheme = spelling.split_once(':').map_or(spelling, |(scheme, _)| scheme);
    match scheme {
        _ if path.is_dir() && source.classes().is_some() => {
            "folder of pictures, one folder a class"
        }
        _ if path.is_dir() => "folder of pictures",
        "cifar10" if !path.exists() => "CIFAR-10",
        "scenes" if !path.exists() => "drawn scenes",
        "embedded" if !path.exists() => "the embedded pictures",
        "mnist" if !path.exists() => "IDX files",
        _ if named(spelling, &["csv", "tsv"]) => "table of pictures and captions",
        _ if named(spelling, &["parquet", "pq"]) => "Parquet files",
        "s3" | "http" | "https" if spelling.ends_with('/') => "files behind an URL",
        _ if is_picture(path) => "picture",
        _ => "WebDataset archives",
    }
}

/// Whether a spelling ends in one of these extensions, columns aside.
fn named(spelling: &str, extensions: &[&str]) -> bool {
    let path = spelling.split_once('#').map_or(spelling, |(path, _)| path);
    let extension = Path::new(path).extension().map(|e| e.to_string_lossy().to_lowercase());
    extension.is_some_and(|e| extensions.contains(&e.as_str()))
}

fn is_picture(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    let packed = name.ends_with(".tgz") || name.ends_with(".tar") || name.contains(".tar.");
    path.is_file() && !packed
}
