//! Where samples come from: one file a format, and the spellings users write.

mod braces;
mod cifar;
mod columns;
mod folder;
mod idx;
mod members;
mod parquet;
mod shards;
mod table;
mod tar;

pub use cifar::{Cifar, Split};
pub use folder::Folder;
pub use idx::Idx;
pub use parquet::Parquet;
pub use shards::Shards;
pub use table::Table;

use crate::{DataError, Limits, Source, remote, scenes::Scenes};
use columns::Wanted;
use std::{
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
};

/// How a folder is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Layout {
    /// As classes if all pictures lie in sub-folders, else plainly.
    #[default]
    Auto,
    /// Pictures without labels.
    Plain,
    /// The first sub-folder is the class.
    Classes,
}

/// What may be chosen about a source beyond its spelling.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// What one picture may cost.
    pub limits: Limits,
    /// How folders are read.
    pub layout: Layout,
}

/// What the spellings are, for messages.
const SPELLINGS: &str = "a picture, a folder, a.tar, shards/{00000..00012}.tar, pairs.csv, pairs.parquet, s3://BUCKET/KEY, https://HOST/PATH, cifar10:PATH#train, mnist:PATH#train, scenes:COUNT, embedded";

/// Opens the data source a user spelled.
///
/// | spelling | source |
/// |---|---|
/// | `cat.jpg` | one picture |
/// | `photos/` | the pictures of a folder, with classes if all lie in sub-folders |
/// | `a.tar`, `a.tar.gz`, `shards/{00000..00012}.tar` | WebDataset |
/// | `pairs.csv`, `pairs.tsv`, `pairs.csv#image=COLUMN,caption=COLUMN` | a table of pictures and captions or labels, see [`Table`] |
/// | `pairs.parquet`, `part-{0..3}.parquet`, `pairs.parquet#image=COLUMN,caption=COLUMN` | rows of pictures, captions or labels, see [`Parquet`] |
/// | `s3://BUCKET/KEY`, `http://...`, `https://...` | archives, tables and Parquet files behind URLs, with braces as above; `s3://BUCKET/FOLDER/` takes all archives or Parquet files of a folder |
/// | `scenes`, `scenes:COUNT:part=scene,side=64` | drawn scenes, see [`crate::scenes`] |
/// | `embedded` | the pictures that travel with the program |
/// | `mnist:PATH`, `mnist:PATH#train` | MNIST and its kin in IDX files, test half unless said otherwise |
/// | `cifar10:PATH`, `cifar10:PATH#train` | CIFAR-10, test half unless said otherwise; a folder or an archive |
///
/// # Errors
/// What is missing, unreadable or spelled in no known way, each with what would be right.
pub fn open(spelling: &str, options: &Options) -> Result<Arc<dyn Source>, DataError> {
    let wrong = |reason: String| DataError::Spelling { spelling: spelling.into(), reason };
    if spelling == "embedded" {
        return Ok(Arc::new(Scenes::embedded().map_err(|e| wrong(e.to_string()))?));
    }
    if let Some(path) = spelling.strip_prefix("file://") {
        return open(&decoded(path).ok_or_else(|| wrong("expected file:///PATH".into()))?, options);
    }
    if remote::is_url(spelling) {
        return open_remote(spelling, options);
    }
    if spelling == "scenes" {
        return Ok(Arc::new(Scenes::parse(spelling).map_err(|e| wrong(e.to_string()))?));
    }
    if let Some((scheme, rest)) = scheme(spelling) {
        return match scheme {
            "scenes" => Ok(Arc::new(Scenes::parse(spelling).map_err(|e| wrong(e.to_string()))?)),
            "cifar10" | "mnist" => {
                let (path, split) = match rest.rsplit_once('#') {
                    None => (rest, Split::Test),
                    Some((path, "test")) => (path, Split::Test),
                    Some((path, "train")) => (path, Split::Train),
                    Some((_, other)) => {
                        return Err(wrong(format!(
                            "no half \"{other}\", expected #train or #test"
                        )));
                    }
                };
                match scheme {
                    "mnist" => Ok(Arc::new(Idx::open(spelling, Path::new(path), split)?)),
                    _ => Ok(Arc::new(Cifar::open(spelling, Path::new(path), split)?)),
                }
            }
            "gs" | "az" | "ftp" => {
                Err(wrong("is not read; s3://, http:// and https:// are".into()))
            }
            other => {
                let hint = nearest(other, ["cifar10", "scenes", "mnist"].into_iter())
                    .map_or_else(String::new, |name| format!("; did you mean {name}:?"));
                Err(wrong(format!("unknown kind \"{other}:\", expected {SPELLINGS}{hint}")))
            }
        };
    }
    if spelling.is_empty() {
        return Err(wrong(format!("is empty, expected {SPELLINGS}")));
    }
    let path = Path::new(spelling);
    if Parquet::is_one(spelling) && !path.is_dir() {
        let (pattern, wanted) = Wanted::split(spelling)?;
        let paths = match Path::new(pattern).exists() {
            true => vec![pattern.to_owned()],
            false => braces::expand(pattern).map_err(wrong)?,
        };
        return Ok(Arc::new(Parquet::open(spelling, &paths, &wanted, options)?));
    }
    // A file whose name happens to hold braces is that file.
    if spelling.contains(['{', '}']) && !path.exists() {
        let names = braces::expand(spelling).map_err(wrong)?;
        let paths: Vec<PathBuf> = names.into_iter().map(PathBuf::from).collect();
        if let Some(absent) = paths.iter().find(|path| !path.exists()) {
            return Err(missing(absent, std::io::ErrorKind::NotFound.into()));
        }
        return Ok(Arc::new(Shards::open(spelling, paths, options)?));
    }
    if Table::is_one(spelling) && !path.is_dir() {
        return Ok(Arc::new(Table::open(spelling)?));
    }
    let facts = std::fs::metadata(path).map_err(|error| missing(path, error))?;
    if facts.is_dir() {
        return Ok(Arc::new(Folder::open(spelling, path, options)?));
    }
    let head = head(path)?;
    if head.starts_with(b"PAR1") {
        let (paths, wanted) = ([spelling.to_owned()], Wanted::default());
        return Ok(Arc::new(Parquet::open(spelling, &paths, &wanted, options)?));
    }
    if is_archive(path, &head) {
        return Ok(Arc::new(Shards::open(spelling, vec![path.into()], options)?));
    }
    let extension = path.extension().map(|e| e.to_string_lossy().to_ascii_lowercase());
    let named_picture = extension.is_some_and(|e| is_picture_extension(&e));
    // A broken picture is still one: its sample says what is wrong with it.
    if named_picture || crate::decode::is_picture(&head) {
        return Ok(Arc::new(Folder::of_pictures(spelling, vec![path.into()])?));
    }
    Err(DataError::refused(path, format!("is no data source; expected {SPELLINGS}")))
}

/// A source behind URLs. What it is has to be told by its name.
fn open_remote(spelling: &str, options: &Options) -> Result<Arc<dyn Source>, DataError> {
    let wrong = |reason: String| DataError::Spelling { spelling: spelling.into(), reason };
    if Table::is_one(spelling) {
        return Ok(Arc::new(Table::open(spelling)?));
    }
    let (pattern, wanted) = Wanted::split(spelling)?;
    remote::parts(pattern)?;
    let mut urls = braces::expand(pattern).map_err(wrong)?;
    if let [folder] = &urls[..]
        && folder.ends_with('/')
    {
        let all = remote::list(folder)?;
        let of = |fits: fn(&str) -> bool| all.iter().filter(|url| fits(url)).cloned().collect();
        urls = of(Parquet::is_one);
        if urls.is_empty() {
            urls = of(is_named_archive);
        }
        if urls.is_empty() {
            return Err(wrong(format!("{} files, none of which is .tar or .parquet", all.len())));
        }
    }
    if urls.iter().all(|url| Parquet::is_one(url)) {
        return Ok(Arc::new(Parquet::open(spelling, &urls, &wanted, options)?));
    }
    if urls.iter().all(|url| is_named_archive(url)) {
        return Ok(Arc::new(Shards::remote(spelling, urls, options)?));
    }
    Err(wrong("expected .tar, .tar.gz, .parquet, .csv or .tsv behind an URL".into()))
}

/// The path of a `file://` URL, which names no host and has other than plain bytes as `%41`.
fn decoded(url: &str) -> Option<String> {
    let path = url.strip_prefix("localhost").unwrap_or(url);
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.strip_prefix('/').map(|_| path.as_bytes())?;
    while let [first, tail @ ..] = rest {
        rest = tail;
        match first {
            b'%' => {
                let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
                bytes.push(u8::from_str_radix(digits, 16).ok()?);
                rest = &tail[2..];
            }
            byte => bytes.push(*byte),
        }
    }
    String::from_utf8(bytes).ok()
}

/// `scheme:rest`, where the scheme is a word and no file of that name exists.
fn scheme(spelling: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = spelling.split_once(':')?;
    let word =
        !scheme.is_empty() && scheme.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    (word && !Path::new(spelling).exists()).then_some((scheme, rest))
}

/// The first bytes of a file.
fn head(path: &Path) -> Result<Vec<u8>, DataError> {
    let mut head = Vec::new();
    let facts = std::fs::metadata(path).map_err(|error| DataError::io(path, error))?;
    if !facts.is_file() {
        return Err(DataError::refused(path, "is neither a file nor a folder"));
    }
    std::fs::File::open(path)
        .and_then(|file| file.take(512).read_to_end(&mut head))
        .map_err(|error| DataError::io(path, error))?;
    Ok(head)
}

/// By content where the content tells, by name where it does not (an empty `a.tar`).
fn is_archive(path: &Path, head: &[u8]) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    is_named_archive(&name)
        || matches!(head, [0x1f, 0x8b, ..])
        || head.get(257..262) == Some(b"ustar")
}

fn is_named_archive(name: &str) -> bool {
    let name = name.rsplit('/').next().unwrap_or(name).to_ascii_lowercase();
    name.ends_with(".tar") || name.ends_with(".tgz") || name.contains(".tar.")
}

/// Whether a file of this extension (lower case, no dot) is taken for a picture.
pub(crate) fn is_picture_extension(extension: &str) -> bool {
    matches!(extension, "jpg" | "jpeg" | "jpe" | "jfif" | "png" | "webp" | "gif" | "bmp")
}

/// The error for a path that cannot be opened, with the most similar name of its folder.
fn missing(path: &Path, error: std::io::Error) -> DataError {
    if error.kind() != std::io::ErrorKind::NotFound {
        return DataError::io(path, error);
    }
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let hint = match std::fs::read_dir(folder) {
        Err(_) => format!(
            ", there is no folder {} either",
            crate::error::shown(&folder.to_string_lossy())
        ),
        Ok(entries) => {
            let names: Vec<String> = entries
                .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
                .take(10_000)
                .collect();
            let wanted = path.file_name().unwrap_or_default().to_string_lossy();
            nearest(&wanted, names.iter().map(String::as_str)).map_or_else(String::new, |name| {
                format!(", did you mean {}?", crate::error::shown(name))
            })
        }
    };
    DataError::Missing { path: path.into(), hint }
}

/// The candidate most similar to `wanted`, if any is similar at all.
fn nearest<'a>(wanted: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .map(|name| (strsim::damerau_levenshtein(wanted, name), name))
        .min()
        .filter(|(distance, name)| *distance <= name.chars().count().max(4) / 3)
        .map(|(_, name)| name)
}
