//! What augmentations make of the first samples of a data source: views of a picture side by side
//! on a sheet, rewordings of a caption in a table.

use crate::{
    commands::attack::png,
    failure::Failure,
    output::{WIDTH, print, print_json},
    session::Session,
};
use clipguard_data::{Limits, Picture, Resize, Sample, augment, shown, text};
use clipguard_evaluate::{
    records::record_file::write_atomic,
    report::{Cell, Table},
};
use serde_json::{Value, json};
use std::path::Path;

/// Side of a picture on the sheet, and of the model the views are drawn for.
const SIDE: u32 = 224;
/// Samples on the sheet, a row each.
const ROWS: usize = 6;
/// Views of each, behind the picture itself: those of the first epochs of a training.
const VIEWS: u64 = 7;
/// Rewordings of a caption.
const REWORDINGS: u64 = 3;

/// Writes the sheet of `augmentation` to `out`.
pub(super) fn sheet(
    data: &str,
    augmentation: &str,
    out: &Path,
    session: &Session,
) -> Result<(), Failure> {
    if out.extension().is_none_or(|e| e != "png") {
        let found = out.display();
        return Err(Failure::Usage(format!("--out {found}: a file name that ends in .png")));
    }
    let method = augment::parse(augmentation)?;
    let samples = first(data, session)?;
    let width = SIDE as usize * (1 + VIEWS as usize);
    let mut rgb = vec![0; 3 * width * SIDE as usize * samples.len()];
    let resize = Resize::new(SIDE);
    let mut place = |picture: &Picture, row: usize, column: usize| {
        let line = 3 * SIDE as usize;
        for (y, pixels) in resize.picture(picture).rgb.chunks_exact(line).enumerate() {
            let at = 3 * (row * SIDE as usize + y) * width + column * line;
            rgb[at..at + line].copy_from_slice(pixels);
        }
    };
    for (row, sample) in samples.iter().enumerate() {
        place(&sample.picture, row, 0);
        for epoch in 0..VIEWS {
            let mut stream = augment::stream(session.seed, &sample.key, epoch, 0);
            let view = method.view(&sample.picture, SIDE, &mut stream);
            place(&view, row, 1 + epoch as usize);
        }
    }
    let sheet = Picture { width: width as u32, height: SIDE * samples.len() as u32, rgb };
    let failed = |e: image::ImageError| Failure::Failed(format!("{}: {e}", out.display()));
    write_atomic(out, &png(&sheet).map_err(failed)?)?;
    let spelled = method.spelling().to_string();
    if session.json {
        let keys: Vec<&str> = samples.iter().map(|s| s.key.as_str()).collect();
        let told = json!({ "augmentation": spelled, "keys": keys, "views": VIEWS, "sheet": out });
        return print_json(&told);
    }
    let count = samples.len();
    print(&format!("{spelled}\n  {count} pictures, each with {VIEWS} views: {}\n", out.display()))
}

/// Prints what `rewording` makes of the first captions.
pub(super) fn captions(data: &str, rewording: &str, session: &Session) -> Result<(), Failure> {
    let method = text::parse(rewording)?;
    let mut table = Table::new("", &["sample", "caption and rewordings"]);
    let mut rows: Vec<Value> = Vec::new();
    for Sample { key, caption, .. } in first(data, session)? {
        let Some(caption) = caption else { continue };
        let draw = |epoch| method.reword(&caption, &mut text::stream(session.seed, &key, epoch, 0));
        let reworded: Vec<String> = (0..REWORDINGS).map(draw).collect();
        table.row(vec![Cell::Text(shown(&key)), Cell::Text(caption.clone())]);
        for text in &reworded {
            table.row(vec![Cell::Text(String::new()), Cell::Text(text.clone())]);
        }
        rows.push(json!({ "key": key, "caption": caption, "reworded": reworded }));
    }
    if rows.is_empty() {
        let reason = "the first samples have no captions";
        return Err(Failure::Refused(format!("{}: {reason}", shown(data))));
    }
    let spelled = method.spelling().to_string();
    match session.json {
        true => print_json(&json!({ "rewording": spelled, "captions": rows })),
        false => print(&format!("{spelled}\n\n{}", table.text(WIDTH))),
    }
}

/// The first samples that can be had.
fn first(data: &str, session: &Session) -> Result<Vec<Sample>, Failure> {
    let source = clipguard_data::open(data, &clipguard_data::Options::default())?;
    let mut samples = Vec::new();
    for raw in source.open(0)? {
        match raw.and_then(|raw| raw.decode(&Limits::default())) {
            Ok(sample) => samples.push(sample),
            Err(error) if error.is_fatal() => return Err(error.into()),
            Err(error) => session.say(format!("skipped {error}")),
        }
        if samples.len() == ROWS {
            break;
        }
    }
    match samples.is_empty() {
        true => Err(Failure::Refused(format!("{}: there are no pictures", shown(data)))),
        false => Ok(samples),
    }
}
