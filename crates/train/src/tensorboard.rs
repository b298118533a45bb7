//! Metrics as an event file of TensorBoard.
//!
//! The file is a sequence of records (TensorFlow's `TFRecord`: length, its checksum, data, its
//! checksum), each an `Event` message with scalars. It is a function of the lines of
//! `metrics.jsonl` and nothing else, so a resumed run has the same file as one that was not
//! stopped; the time of an event is its step in seconds, for the same reason. Choose "STEP" as the
//! horizontal axis, as TensorBoard does by itself.
//!
//! A reader may hold the file open while the run goes on, so what is there already is left in
//! place and the rest is appended.

use clipguard_model::{ModelError, weights::write_atomically};
use serde_json::{Map, Value};
use std::{fs, io::Write, path::Path};

/// Folder of the event file in a run folder; `tensorboard --logdir RUN` finds it.
pub(crate) const FOLDER: &str = "tensorboard";

/// TensorBoard looks for `tfevents` in the name and reads a time from the number behind it.
pub(crate) const FILE: &str = "events.out.tfevents.0000000000.clipguard";

/// Brings the event file of a run folder to the lines of `metrics.jsonl`.
pub(crate) fn write(folder: &Path, lines: &[String]) -> Result<(), ModelError> {
    let folder = folder.join(FOLDER);
    let path = folder.join(FILE);
    let at = |source| ModelError::Io { path: path.clone(), source };
    fs::create_dir_all(&folder).map_err(at)?;
    let bytes = events(lines);
    match fs::read(&path).ok().filter(|old| bytes.starts_with(old)) {
        Some(old) => {
            let mut file = fs::OpenOptions::new().append(true).open(&path).map_err(at)?;
            file.write_all(&bytes[old.len()..]).map_err(at)
        }
        None => write_atomically(&path, &bytes),
    }
}

/// The whole file.
fn events(lines: &[String]) -> Vec<u8> {
    let mut bytes = record(&event(0, &text(3, b"brain.Event:2")));
    for line in lines {
        let Ok(Value::Object(line)) = serde_json::from_str(line) else { continue };
        let mut values = Vec::new();
        scalars("", &line, &mut values);
        let step = line.get("step").and_then(Value::as_u64).unwrap_or(0);
        let summary: Vec<u8> = values
            .iter()
            .flat_map(|(tag, value)| {
                let mut message = text(1, tag.as_bytes());
                message.push(2 << 3 | 5);
                message.extend(value.to_le_bytes());
                text(1, &message)
            })
            .collect();
        bytes.extend(record(&event(step, &text(5, &summary))));
    }
    bytes
}

/// Numbers of a line, nested ones joined by `/`; what was not finite (null) is a gap.
fn scalars(prefix: &str, object: &Map<String, Value>, into: &mut Vec<(String, f32)>) {
    for (key, value) in object.iter().filter(|(key, _)| !prefix.is_empty() || *key != "step") {
        let name = if prefix.is_empty() { key.clone() } else { format!("{prefix}/{key}") };
        match value {
            Value::Object(inner) => scalars(&name, inner, into),
            other => into.extend(other.as_f64().map(|number| (name, number as f32))),
        }
    }
}

/// `Event { double wall_time = 1; int64 step = 2; ... }`, the rest given.
fn event(step: u64, rest: &[u8]) -> Vec<u8> {
    let mut bytes = vec![1 << 3 | 1];
    bytes.extend((step as f64).to_le_bytes());
    bytes.push(2 << 3);
    bytes.extend(varint(step));
    bytes.extend(rest);
    bytes
}

/// A protobuf field of bytes.
fn text(field: u8, value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![field << 3 | 2];
    bytes.extend(varint(value.len() as u64));
    bytes.extend(value);
    bytes
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut bytes = length.to_vec();
    bytes.extend(masked(&length).to_le_bytes());
    bytes.extend(data);
    bytes.extend(masked(data).to_le_bytes());
    bytes
}

/// TensorFlow's masked checksum, so that a checksum of checksums does not degenerate.
fn masked(data: &[u8]) -> u32 {
    crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32C (Castagnoli, RFC 3720 section B.4), bit by bit: the files are small.
fn crc32c(data: &[u8]) -> u32 {
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    !data.iter().fold(!0, |crc: u32, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            if crc & 1 == 1 { crc >> 1 ^ POLYNOMIAL } else { crc >> 1 }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_equal_those_of_rfc_3720() {
        let ascending: Vec<u8> = (0..32).collect();
        let descending: Vec<u8> = (0..32).rev().collect();
        for (data, want) in [
            (&[0u8; 32][..], 0x8a91_36aa_u32),
            (&[0xff; 32], 0x62a8_ab43),
            (&ascending, 0x46dd_794e),
            (&descending, 0x113f_db5c),
            (b"123456789", 0xe306_9283),
            (b"", 0),
        ] {
            assert_eq!(crc32c(data), want, "{data:?}");
        }
    }

    fn lines(range: std::ops::Range<u64>) -> Vec<String> {
        let line = |step: u64| {
            let loss = if step == 2 { "null".to_owned() } else { format!("{}.5", step) };
            format!(r#"{{"step":{step},"loss":{loss},"evaluation":{{"acc1":0.25}}}}"#)
        };
        range.map(line).collect()
    }

    /// The first record of every event file, byte by byte: wall time 0, step 0, the version.
    #[test]
    fn the_first_record_is_the_version() {
        let bytes = events(&[]);
        let data = [&[9, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 26, 13][..], b"brain.Event:2"].concat();
        assert_eq!(bytes[..8], 26u64.to_le_bytes());
        assert_eq!(bytes[8..12], masked(&26u64.to_le_bytes()).to_le_bytes());
        assert_eq!(bytes[12..38], data);
        assert_eq!(bytes[38..], masked(&data).to_le_bytes());
    }

    #[test]
    fn scalars_have_their_tags_and_what_is_not_finite_is_left_out() {
        let bytes = events(&lines(1..3));
        let has = |tag: &str, value: f32| {
            let wanted =
                [&[10, tag.len() as u8][..], tag.as_bytes(), &[21], &value.to_le_bytes()].concat();
            bytes.windows(wanted.len()).filter(|part| *part == wanted).count()
        };
        assert_eq!((has("loss", 1.5), has("loss", 2.5), has("evaluation/acc1", 0.25)), (1, 0, 2));
        assert!(!bytes.windows(4).any(|part| part == b"step"));
    }

    #[test]
    fn a_file_grows_in_place_and_is_replaced_when_it_is_another() {
        let room = tempfile::tempdir().unwrap();
        let path = room.path().join(FOLDER).join(FILE);
        write(room.path(), &lines(0..2)).unwrap();
        let mut open = fs::File::open(&path).unwrap();
        write(room.path(), &lines(0..5)).unwrap();
        let mut seen = Vec::new();
        std::io::Read::read_to_end(&mut open, &mut seen).unwrap();
        assert_eq!(seen, events(&lines(0..5)));
        // Cut off in the middle of a record by a crash.
        fs::write(&path, &seen[..seen.len() - 7]).unwrap();
        write(room.path(), &lines(0..6)).unwrap();
        assert_eq!(fs::read(&path).unwrap(), events(&lines(0..6)));
        // Ahead of the state it is resumed from, or of another run.
        write(room.path(), &lines(0..3)).unwrap();
        assert_eq!(fs::read(&path).unwrap(), events(&lines(0..3)));
        write(room.path(), &lines(7..9)).unwrap();
        assert_eq!(fs::read(&path).unwrap(), events(&lines(7..9)));
    }
}
