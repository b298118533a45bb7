//! Pictures as files: single ones, a folder of them, or a folder with one sub-folder a class.

use super::{Layout, Options, is_picture_extension};
use crate::{DataError, RawPicture, RawSample, Samples, Source, error::is_treacherous};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

/// Captions beside pictures are not longer than this.
const LONGEST_CAPTION: u64 = 1 << 20;

/// Pictures that are files. The picture is read when it is decoded, so a folder costs only the
/// list of its names.
pub struct Folder(Arc<Inner>);

struct Inner {
    name: String,
    files: Vec<PictureFile>,
    classes: Option<Vec<String>>,
}

struct PictureFile {
    key: String,
    path: PathBuf,
    /// The caption beside it.
    text: Option<PathBuf>,
    label: Option<usize>,
}

impl Folder {
    /// Single pictures. Keys are the file names, numbered where they repeat.
    pub fn of_pictures(name: &str, paths: Vec<PathBuf>) -> Result<Self, DataError> {
        let mut files: Vec<PictureFile> = Vec::with_capacity(paths.len());
        let mut seen = std::collections::HashMap::new();
        for path in paths {
            let facts = std::fs::metadata(&path).map_err(|error| DataError::io(&path, error))?;
            if !facts.is_file() {
                return Err(DataError::refused(&path, "is not a file, expected a picture"));
            }
            let mut key = key_of(Path::new(path.file_name().unwrap_or_default()));
            let repeats = seen.entry(key.clone()).and_modify(|n| *n += 1).or_insert(0);
            if *repeats > 0 {
                key = format!("{key}#{repeats}");
            }
            let text = Some(path.with_extension("txt")).filter(|text| text.is_file());
            files.push(PictureFile { key, path, text, label: None });
        }
        Ok(Self(Arc::new(Inner { name: name.into(), files, classes: None })))
    }

    /// The pictures under `root`, in the order of their paths. In the class layout the first
    /// folder of a path is the class; [`Layout::Auto`] takes that layout if all pictures lie in
    /// sub-folders.
    pub fn open(name: &str, root: &Path, options: &Options) -> Result<Self, DataError> {
        let mut found = Vec::new();
        let mut others = Others::default();
        walk(root, &mut Vec::new(), &mut found, &mut others)?;
        if found.is_empty() {
            return Err(DataError::refused(root, others.explain()));
        }
        let relative = |path: &Path| path.strip_prefix(root).unwrap_or(path).to_path_buf();
        let class_of = |path: &Path| {
            let relative = relative(path);
            let mut parts = relative.components();
            let first = parts.next()?.as_os_str().to_string_lossy().into_owned();
            parts.next().map(|_| first)
        };
        let nested = found.iter().all(|(path, _)| class_of(path).is_some());
        if options.layout == Layout::Classes && !nested {
            let reason = "has pictures outside of class folders; expected ROOT/CLASS/PICTURE";
            return Err(DataError::refused(root, reason));
        }
        let classes = (nested && options.layout != Layout::Plain).then(|| {
            let mut names: Vec<String> =
                found.iter().filter_map(|(path, _)| class_of(path)).collect();
            names.sort();
            names.dedup();
            names
        });
        let mut files: Vec<PictureFile> = found
            .into_iter()
            .map(|(path, text)| PictureFile {
                key: key_of(&relative(&path)),
                label: classes
                    .as_ref()
                    .and_then(|names| names.binary_search(&class_of(&path)?).ok()),
                path,
                text,
            })
            .collect();
        files.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(Self(Arc::new(Inner { name: name.into(), files, classes })))
    }
}

impl Source for Folder {
    fn name(&self) -> &str {
        &self.0.name
    }

    fn len(&self) -> Option<u64> {
        Some(self.0.files.len() as u64)
    }

    fn classes(&self) -> Option<&[String]> {
        self.0.classes.as_deref()
    }

    fn open(&self, start: u64) -> Result<Samples, DataError> {
        let inner = self.0.clone();
        let end = inner.files.len() as u64;
        Ok(Box::new((start.min(end)..end).map(move |index| inner.sample(index as usize))))
    }

    fn get(&self, index: u64) -> Option<Result<RawSample, DataError>> {
        let index = usize::try_from(index).ok()?;
        (index < self.0.files.len()).then(|| self.0.sample(index))
    }
}

impl Inner {
    fn sample(&self, index: usize) -> Result<RawSample, DataError> {
        let file = &self.files[index];
        let bad = |reason| DataError::Sample { key: file.key.clone(), reason };
        let caption = match &file.text {
            Some(path) => {
                let bytes = std::fs::metadata(path).map_or(0, |facts| facts.len());
                if bytes > LONGEST_CAPTION {
                    return Err(bad(format!("its caption has {bytes} bytes")));
                }
                let text = std::fs::read_to_string(path)
                    .map_err(|error| bad(format!("its caption (.txt) cannot be read: {error}")))?;
                Some(text.trim().to_owned())
            }
            None => None,
        };
        Ok(RawSample {
            index: index as u64,
            key: file.key.clone(),
            picture: RawPicture::File(file.path.clone()),
            caption,
            label: file.label,
        })
    }
}

/// A relative path with `/` between its parts and nothing that disturbs a terminal.
fn key_of(path: &Path) -> String {
    let parts = path.components().map(|part| part.as_os_str().to_string_lossy().into_owned());
    let joined = parts.collect::<Vec<_>>().join("/");
    let mut key = String::with_capacity(joined.len());
    for c in joined.chars() {
        if is_treacherous(c) { key.extend(c.escape_unicode()) } else { key.push(c) }
    }
    key
}

/// What else was found, to say what was probably meant.
#[derive(Default)]
struct Others {
    archives: usize,
    tables: usize,
    other: usize,
}

impl Others {
    fn explain(&self) -> String {
        match self {
            Self { tables, archives: 0, .. } if *tables > 0 => format!(
                "holds no pictures but {tables} Parquet files; spell them out, for example FOLDER/part-{{0..3}}.parquet"
            ),
            Self { archives: 0, other: 0, .. } => "is an empty folder, expected pictures".into(),
            Self { archives: 0, other, .. } => {
                format!("holds no pictures (.jpg, .png, .webp, .gif, .bmp) but {other} other files")
            }
            Self { archives, .. } => format!(
                "holds no pictures but {archives} archives; spell them out, for example FOLDER/{{00000..00012}}.tar"
            ),
        }
    }
}

type Found = Vec<(PathBuf, Option<PathBuf>)>;

/// Collects pictures with the captions beside them. Links are followed, but never into a folder
/// we are in already.
fn walk(
    folder: &Path,
    above: &mut Vec<PathBuf>,
    found: &mut Found,
    others: &mut Others,
) -> Result<(), DataError> {
    let io = |error| DataError::io(folder, error);
    let here = folder.canonicalize().map_err(io)?;
    if above.contains(&here) {
        return Ok(());
    }
    above.push(here);
    let mut entries: Vec<PathBuf> = std::fs::read_dir(folder)
        .map_err(io)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()
        .map_err(io)?;
    entries.sort();
    for path in &entries {
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes()[0] == b'.');
        // A link that leads nowhere is no picture.
        let Ok(facts) = std::fs::metadata(path) else { continue };
        if hidden {
            continue;
        }
        if facts.is_dir() {
            walk(path, above, found, others)?;
            continue;
        }
        match path.extension().map(|e| e.to_string_lossy().to_ascii_lowercase()) {
            Some(extension) if is_picture_extension(&extension) => {
                let text = path.with_extension("txt");
                let text = entries.binary_search(&text).is_ok().then_some(text);
                found.push((path.clone(), text));
            }
            Some(extension) if matches!(extension.as_str(), "tar" | "tgz") => others.archives += 1,
            Some(extension) if matches!(extension.as_str(), "parquet" | "pq") => others.tables += 1,
            Some(_) if path.to_string_lossy().contains(".tar.") => others.archives += 1,
            _ => others.other += 1,
        }
    }
    above.pop();
    Ok(())
}
