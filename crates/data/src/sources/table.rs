//! Tables of pictures and captions: CSV and TSV files whose first line names the columns.
//!
//! Three habits are understood without being told: `filepath`/`title` with tabs (open_clip),
//! `image`/`caption` with commas (CleanCLIP and most others), `path`/`text`. Other names are given
//! behind a `#`: `pairs.csv#image=photo,caption=alt`. Of a table only the places of its rows are
//! kept in memory, eight bytes each.

use super::columns::{CAPTIONS, LABELS, Wanted, column, is_absent, told};
use crate::{DataError, RawSample, Samples, Source, blob::Blob, shown};
use std::{
    fs::File,
    io::{BufRead, BufReader, Read, Seek, SeekFrom},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

/// Longest row in bytes.
const LONGEST: u64 = 1 << 20;

const PICTURES: [&str; 8] =
    ["filepath", "image", "image_path", "img", "path", "file", "filename", "file_name"];
/// A table of pairs.
pub struct Table(Arc<Inner>);

struct Inner {
    name: String,
    /// Pictures are named relative to the table.
    blob: Blob,
    /// The table itself, or a copy of a distant one.
    file: Mutex<File>,
    delimiter: u8,
    columns: usize,
    picture: usize,
    caption: Option<usize>,
    label: Option<usize>,
    classes: Option<Vec<String>>,
    /// Where every row begins, and where the last one ends.
    starts: Vec<u64>,
}

impl Table {
    /// Whether a path is spelled like a table, `#` and columns aside.
    pub(super) fn is_one(spelling: &str) -> bool {
        let path = spelling.split_once('#').map_or(spelling, |(path, _)| path);
        let extension = Path::new(path).extension().map(|e| e.to_string_lossy().to_lowercase());
        extension.is_some_and(|e| e == "csv" || e == "tsv")
    }

    /// Opens `PATH` or `PATH#image=COLUMN,caption=COLUMN,label=COLUMN`.
    pub(super) fn open(spelling: &str) -> Result<Self, DataError> {
        let (place, wanted) = Wanted::split(spelling)?;
        let path = Path::new(place);
        let (blob, file) = match crate::remote::is_url(place) {
            true => fetch(place)?,
            false => {
                let file = File::open(path).map_err(|error| super::missing(path, error))?;
                (Blob::on_disk(path)?, file)
            }
        };
        let (header, starts) = rows(path, &file)?;
        let delimiter = delimiter(&header);
        let names = fields(&header, delimiter)
            .ok_or_else(|| DataError::refused(path, "its first line is no row of a table"))?;
        let find = |asked: &Option<String>, usual: &[&str]| column(path, &names, asked, usual);
        let picture = find(&wanted.image, &PICTURES)?.ok_or_else(|| no_pictures(path, &names))?;
        let caption = find(&wanted.caption, &CAPTIONS)?;
        let label = find(&wanted.label, &LABELS)?;
        if caption.is_none() && label.is_none() {
            let reason = format!("has no column of captions: {}", told(&names, &CAPTIONS));
            return Err(DataError::refused(path, reason));
        }
        let mut inner = Inner {
            name: spelling.to_owned(),
            blob,
            file: Mutex::new(file),
            delimiter,
            columns: names.len(),
            picture,
            caption,
            label,
            classes: None,
            starts,
        };
        if label.is_some() {
            inner.classes = Some(inner.read_classes()?);
        }
        Ok(Self(Arc::new(inner)))
    }
}

/// A distant table: its rows are read in any order, so a copy is made, which disappears with the
/// process.
fn fetch(url: &str) -> Result<(Blob, File), DataError> {
    let io = |error| DataError::io(Path::new(url), error);
    let blob = Blob::open(url)?;
    let mut file = tempfile::tempfile().map_err(io)?;
    std::io::copy(&mut blob.reader(0).map_err(io)?, &mut file).map_err(io)?;
    file.seek(SeekFrom::Start(0)).map_err(io)?;
    Ok((blob, file))
}

/// The first row, and where the others begin. A line break inside of quotes belongs to its row.
fn rows(path: &Path, file: &File) -> Result<(String, Vec<u64>), DataError> {
    let io = |error| DataError::io(path, error);
    let mut reader = BufReader::with_capacity(1 << 20, file);
    let (mut at, mut quoted, mut blank) = (0u64, false, true);
    let (mut starts, mut header_end, mut start) = (Vec::new(), None, 0);
    loop {
        let piece = reader.fill_buf().map_err(io)?;
        if piece.is_empty() {
            break;
        }
        for byte in piece {
            at += 1;
            match byte {
                b'"' => (quoted, blank) = (!quoted, false),
                b'\n' if !quoted => {
                    if !blank {
                        starts.push(start);
                    }
                    header_end.get_or_insert(at);
                    (start, blank) = (at, true);
                }
                b'\r' => {}
                _ => blank = false,
            }
        }
        let count = piece.len();
        reader.consume(count);
    }
    if !blank {
        starts.push(start);
    }
    let end = header_end.unwrap_or(at);
    if starts.is_empty() || end > LONGEST {
        return Err(DataError::refused(path, "is empty or no table: its first line names columns"));
    }
    starts.remove(0);
    starts.push(at);
    let mut header = vec![0; end as usize];
    let mut file = file;
    file.seek(SeekFrom::Start(0)).and_then(|_| file.read_exact(&mut header)).map_err(io)?;
    let header = String::from_utf8(header)
        .map_err(|_| DataError::refused(path, "its first line is not UTF-8"))?;
    Ok((header.trim_start_matches('\u{feff}').to_owned(), starts))
}

/// Tabs win: a caption has commas, a table with tabs has them in its first line.
fn delimiter(header: &str) -> u8 {
    let count = |c: char| header.matches(c).count();
    match () {
        () if count('\t') > 0 => b'\t',
        () if count(',') == 0 && count(';') > 0 => b';',
        () => b',',
    }
}

/// The fields of one row.
fn fields(row: &str, delimiter: u8) -> Option<Vec<String>> {
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .delimiter(delimiter)
        .from_reader(row.as_bytes());
    let record = reader.records().next()?.ok()?;
    Some(record.iter().map(str::to_owned).collect())
}

fn no_pictures(path: &Path, names: &[String]) -> DataError {
    DataError::refused(path, format!("has no column of pictures: {}", told(names, &PICTURES)))
}

impl Inner {
    fn len(&self) -> usize {
        self.starts.len() - 1
    }

    /// The fields of a row, or why it has none.
    fn row(&self, index: usize) -> Result<Vec<String>, String> {
        let (start, end) = (self.starts[index], self.starts[index + 1]);
        if end - start > LONGEST {
            return Err(format!("its row has {} bytes, at most {LONGEST}", end - start));
        }
        let mut bytes = vec![0; (end - start) as usize];
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(start))
            .and_then(|_| file.read_exact(&mut bytes))
            .map_err(|error| format!("its row cannot be read: {error}"))?;
        drop(file);
        let row = String::from_utf8(bytes).map_err(|_| "its row is not UTF-8".to_owned())?;
        let fields = fields(&row, self.delimiter).ok_or("its row is no row of a table")?;
        match fields.len() == self.columns {
            true => Ok(fields),
            false => {
                Err(format!("its row has {} fields, the table {}", fields.len(), self.columns))
            }
        }
    }

    /// The labels of all rows, sorted.
    fn read_classes(&self) -> Result<Vec<String>, DataError> {
        let Some(label) = self.label else { return Ok(Vec::new()) };
        let mut classes = std::collections::BTreeSet::new();
        for index in 0..self.len() {
            // A broken row has no class; its sample says what is wrong with it.
            if let Ok(mut fields) = self.row(index) {
                classes.insert(fields.swap_remove(label));
            }
        }
        Ok(classes.into_iter().collect())
    }

    fn sample(&self, index: usize) -> Result<RawSample, DataError> {
        let number = index + 2;
        let bad = |key: String, reason: String| DataError::Sample { key, reason };
        let fields = self.row(index).map_err(|reason| bad(format!("row {number}"), reason))?;
        let picture = &fields[self.picture];
        // A picture may stand in several rows, with another caption in each.
        let key = format!("{}#{number}", shown(picture));
        let caption = self.caption.map(|at| fields[at].trim().to_owned());
        let absent = |text: &String| is_absent(text);
        if self.label.is_none() && caption.as_ref().is_none_or(absent) {
            return Err(bad(key, "has no caption".to_owned()));
        }
        if picture.is_empty() {
            return Err(bad(key, "names no picture".to_owned()));
        }
        let class = self.label.map(|at| &fields[at]);
        let label = class.and_then(|c| self.classes.as_ref()?.binary_search(c).ok());
        Ok(RawSample {
            index: index as u64,
            key,
            picture: self.blob.picture(picture),
            caption: caption.filter(|text| !absent(text)),
            label,
        })
    }
}

impl Source for Table {
    fn name(&self) -> &str {
        &self.0.name
    }

    fn len(&self) -> Option<u64> {
        Some(self.0.len() as u64)
    }

    fn classes(&self) -> Option<&[String]> {
        self.0.classes.as_deref()
    }

    fn open(&self, start: u64) -> Result<Samples, DataError> {
        let inner = self.0.clone();
        let end = inner.len() as u64;
        Ok(Box::new((start.min(end)..end).map(move |index| inner.sample(index as usize))))
    }

    fn get(&self, index: u64) -> Option<Result<RawSample, DataError>> {
        let index = usize::try_from(index).ok()?;
        (index < self.0.len()).then(|| self.0.sample(index))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::RawPicture;

    fn table(name: &str, text: &str) -> (tempfile::TempDir, Result<Table, DataError>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        let table = Table::open(path.to_str().unwrap());
        (folder, table)
    }

    fn all(table: &Table) -> Vec<Result<RawSample, DataError>> {
        table.open(0).unwrap().collect()
    }

    #[test]
    fn the_three_habits_are_understood() {
        for (name, text) in [
            ("a.csv", "filepath\ttitle\nx/1.png\ta cat, asleep\n"),
            ("a.csv", "image,caption\r\nx/1.png,\"a cat, asleep\"\r\n"),
            ("a.tsv", "id\tText\tPath\n7\ta cat, asleep\tx/1.png"),
            ("a.csv", "\u{feff}\"path\",\"text\"\n\"x/1.png\",\"a cat, asleep\"\n\n"),
        ] {
            let (folder, table) = table(name, text);
            let samples = all(&table.unwrap());
            assert_eq!(samples.len(), 1, "{text}");
            let sample = samples[0].as_ref().unwrap();
            assert_eq!(sample.caption.as_deref(), Some("a cat, asleep"));
            assert_eq!(sample.key, "x/1.png#2");
            let RawPicture::File(path) = &sample.picture else { panic!("a file") };
            assert_eq!(*path, folder.path().join("x/1.png"));
        }
    }

    #[test]
    fn rows_may_hold_line_breaks_and_bad_rows_are_named() {
        let text = "image,caption\n1.png,\"two\nlines\"\n2.png,\n3.png,one,more\n4.png,NaN\n\
                    5.png,fine\n";
        let (_folder, table) = table("a.csv", text);
        let samples = all(&table.unwrap());
        assert_eq!(samples.len(), 5);
        assert_eq!(samples[0].as_ref().unwrap().caption.as_deref(), Some("two\nlines"));
        let errors: Vec<String> =
            samples[1..4].iter().map(|s| s.as_ref().unwrap_err().to_string()).collect();
        assert_eq!(errors[0], "2.png#3: has no caption");
        assert_eq!(errors[1], "row 4: its row has 3 fields, the table 2");
        assert_eq!(errors[2], "4.png#5: has no caption");
        assert_eq!(samples[4].as_ref().unwrap().key, "5.png#6");
    }

    #[test]
    fn labels_make_classes() {
        let (_folder, table) = table("a.csv", "path,label\n1.png,dog\n2.png,cat\n3.png,dog\n");
        let table = table.unwrap();
        assert_eq!(table.classes().unwrap(), ["cat", "dog"]);
        let labels: Vec<_> = all(&table).into_iter().map(|s| s.unwrap().label).collect();
        assert_eq!(labels, [Some(1), Some(0), Some(1)]);
    }

    #[test]
    fn wrong_columns_are_told_with_what_is_there() {
        let say = |text: &str| match table("a.csv", text).1 {
            Ok(_) => panic!("{text} is read"),
            Err(error) => error.to_string(),
        };
        assert!(
            say("photo,caption\n1.png,a\n").contains("has no column of pictures: it has `photo`")
        );
        assert!(say("image,words\n1.png,a\n").contains("no column of captions"));
        assert!(say("").contains("is empty"));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.csv");
        std::fs::write(&path, "photo,words\n1.png,a\n").unwrap();
        let open = |columns: &str| Table::open(&format!("{}#{columns}", path.display()));
        assert_eq!(all(&open("image=photo,caption=words").unwrap()).len(), 1);
        let error = open("image=photos,caption=words").err().unwrap().to_string();
        assert!(error.contains("did you mean `photo`?"), "{error}");
        let error = open("picture=photo").err().unwrap().to_string();
        assert!(error.contains("is not image=COLUMN"), "{error}");
    }
}
