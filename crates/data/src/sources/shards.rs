//! WebDataset: samples in one or many tar archives, plain or packed.
//!
//! A shard is read from front to back and never as a whole; at any time at most two samples are
//! in memory. Plain shards are also indexed (on demand, by their headers alone), which gives
//! random access. A damaged shard costs what lies behind the damage, and the next shard follows.

use super::{
    Options,
    members::{Bodies, Group, Groups, is_class_list},
    tar::{Damage, Input, TarReader},
};
use crate::{
    DataError, RawSample, Samples, Source,
    blob::{Blob, Reader},
};
use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::PathBuf,
    sync::{Arc, OnceLock},
};

/// A list of class names is not longer than this.
const LONGEST_CLASS_LIST: u64 = 4 << 20;

/// Beyond this many bytes of shards `len` does not walk over them.
const INDEXED_UNASKED: u64 = 8 << 30;

/// Samples in tar archives.
pub struct Shards(Arc<Inner>);

struct Inner {
    name: String,
    shards: Vec<Shard>,
    classes: Option<Vec<String>>,
    most_bytes: u64,
    index: OnceLock<Option<Vec<Located>>>,
}

struct Shard {
    /// Its path or URL.
    path: PathBuf,
    /// Found when the source is opened, or later where asking takes time.
    blob: OnceLock<Blob>,
    /// Whether its members can be had in any order, at little cost.
    plain: bool,
    /// Positions it occupies, once it has been read to its end or its damage.
    positions: OnceLock<u64>,
}

/// Where a sample lies.
struct Located {
    shard: usize,
    group: Group,
}

impl Shards {
    /// Opens the archives `paths`, in this order. Every one must exist and look like an archive;
    /// what is in them is found out while reading.
    pub fn open(name: &str, paths: Vec<PathBuf>, options: &Options) -> Result<Self, DataError> {
        let mut shards = Vec::with_capacity(paths.len());
        for path in paths {
            let blob = Blob::on_disk(&path)?;
            let plain = Input::open(&blob)?.is_plain();
            shards.push(Shard { path, blob: blob.into(), plain, positions: OnceLock::new() });
        }
        Self::of(name, shards, options)
    }

    /// Opens archives behind URLs. Only the first and the last are looked at, which tells a wrong
    /// range; a shard in between that is not there costs its samples.
    pub(super) fn remote(
        name: &str,
        urls: Vec<String>,
        options: &Options,
    ) -> Result<Self, DataError> {
        let last = urls.len().saturating_sub(1);
        let mut shards = Vec::with_capacity(urls.len());
        for (number, url) in urls.into_iter().enumerate() {
            let blob = OnceLock::new();
            if number == 0 || number == last {
                let found = Blob::open(&url)?;
                Input::open(&found)?;
                let _ = blob.set(found);
            }
            shards.push(Shard { path: url.into(), blob, plain: false, positions: OnceLock::new() });
        }
        Self::of(name, shards, options)
    }

    fn of(name: &str, shards: Vec<Shard>, options: &Options) -> Result<Self, DataError> {
        let Some(first) = shards.first() else {
            return Err(DataError::Spelling {
                spelling: name.into(),
                reason: "stands for no archive".into(),
            });
        };
        let classes = classes(first)?;
        Ok(Self(Arc::new(Inner {
            name: name.into(),
            shards,
            classes,
            most_bytes: options.limits.bytes,
            index: OnceLock::new(),
        })))
    }
}

impl Source for Shards {
    fn name(&self) -> &str {
        &self.0.name
    }

    fn len(&self) -> Option<u64> {
        let bytes = |shard: &Shard| shard.blob.get().map_or(u64::MAX, Blob::len);
        let all = self.0.shards.iter().map(bytes).fold(0, u64::saturating_add);
        let small = all <= INDEXED_UNASKED;
        let counted =
            || self.0.shards.iter().map(|s| s.positions.get().copied()).sum::<Option<u64>>();
        counted().or_else(|| small.then(|| self.0.index().map(|i| i.len() as u64)).flatten())
    }

    fn classes(&self) -> Option<&[String]> {
        self.0.classes.as_deref()
    }

    fn open(&self, start: u64) -> Result<Samples, DataError> {
        Ok(Box::new(Stream { inner: self.0.clone(), start, position: 0, shard: 0, open: None }))
    }

    fn get(&self, index: u64) -> Option<Result<RawSample, DataError>> {
        let located = self.0.index()?.get(usize::try_from(index).ok()?)?;
        let shard = &self.0.shards[located.shard];
        let mut file: Option<Reader> = None;
        let fetch = |part: &super::members::Part| {
            let io = |error| DataError::io(&shard.path, error);
            let file = match &mut file {
                Some(file) => file,
                None => file.insert(shard.blob()?.reader(0).map_err(io)?),
            };
            file.seek(SeekFrom::Start(part.offset)).map_err(io)?;
            let mut body = Vec::new();
            file.by_ref().take(part.size).read_to_end(&mut body).map_err(io)?;
            if (body.len() as u64) < part.size {
                return Err(shard.damaged(Damage {
                    position: part.offset,
                    reason: "the archive has become shorter".into(),
                    only_unmarked: false,
                }));
            }
            Ok(body)
        };
        let group = located.group.clone();
        let key = self.0.key(shard, &group.key);
        Some(group.into_sample(index, key, self.0.classes.as_deref(), fetch))
    }
}

impl Inner {
    /// Keys often repeat from shard to shard, so they carry the shard's name where there are many.
    fn key(&self, shard: &Shard, key: &str) -> String {
        if self.shards.len() == 1 {
            return key.into();
        }
        let file = shard.path.file_name().unwrap_or_default().to_string_lossy();
        let stem = file.split('.').next().unwrap_or_default();
        format!("{stem}/{key}")
    }

    /// Where every sample lies; `None` if a shard is packed or cannot be opened.
    fn index(&self) -> Option<&[Located]> {
        let index = self.index.get_or_init(|| {
            if !self.shards.iter().all(|shard| shard.plain) {
                return None;
            }
            let mut located = Vec::new();
            for (number, shard) in self.shards.iter().enumerate() {
                let tar = TarReader::new(Input::open(shard.blob().ok()?).ok()?);
                let before = located.len();
                let mut groups = Groups::new(tar, Bodies::Locate, self.most_bytes);
                // Damage ends the shard here as it does in a stream, so positions agree.
                while let Some(Ok(group)) = groups.next() {
                    located.push(Located { shard: number, group });
                }
                let _ = shard.positions.set((located.len() - before) as u64);
            }
            Some(located)
        });
        index.as_deref()
    }
}

impl Shard {
    fn blob(&self) -> Result<&Blob, DataError> {
        if let Some(blob) = self.blob.get() {
            return Ok(blob);
        }
        let found = Blob::open(&self.path.to_string_lossy())?;
        Ok(self.blob.get_or_init(|| found))
    }

    fn damaged(&self, damage: Damage) -> DataError {
        DataError::Damaged {
            path: self.path.clone(),
            position: damage.position,
            reason: damage.reason,
        }
    }
}

/// Samples from `start` on.
struct Stream {
    inner: Arc<Inner>,
    start: u64,
    /// Position of the next group.
    position: u64,
    shard: usize,
    open: Option<(Groups, u64)>,
}

impl Iterator for Stream {
    type Item = Result<RawSample, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        let inner = self.inner.clone();
        loop {
            let shard = inner.shards.get(self.shard)?;
            let Some((groups, begin)) = &mut self.open else {
                // A shard whose length is known and that lies before the start is not opened.
                if let Some(count) = shard.positions.get()
                    && self.position + count <= self.start
                {
                    self.position += count;
                    self.shard += 1;
                    continue;
                }
                match shard.blob().and_then(Input::open) {
                    Ok(input) => {
                        let bodies = Bodies::ReadFrom(self.start.saturating_sub(self.position));
                        let groups = Groups::new(TarReader::new(input), bodies, inner.most_bytes);
                        self.open = Some((groups, self.position));
                    }
                    Err(error) => {
                        // It may have been there when the source was opened; the others still are.
                        self.shard += 1;
                        let damage = Damage {
                            position: 0,
                            reason: format!("cannot be opened: {error}"),
                            only_unmarked: false,
                        };
                        return Some(Err(shard.damaged(damage)));
                    }
                }
                continue;
            };
            let next = groups.next();
            if !matches!(next, Some(Ok(_))) {
                let _ = shard.positions.set(self.position - *begin);
            }
            match next {
                None => {
                    self.open = None;
                    self.shard += 1;
                }
                Some(Err(damage)) => {
                    if self.position >= self.start {
                        return Some(Err(shard.damaged(damage)));
                    }
                }
                Some(Ok(group)) => {
                    let index = self.position;
                    self.position += 1;
                    if index < self.start {
                        continue;
                    }
                    let key = inner.key(shard, &group.key);
                    let reason = "a member's body was not read";
                    let unread =
                        |_: &_| Err(DataError::Sample { key: key.clone(), reason: reason.into() });
                    let classes = inner.classes.as_deref();
                    return Some(group.into_sample(index, key.clone(), classes, unread));
                }
            }
        }
    }
}

/// The class names: a list among the first members, or a file beside the archive or above it.
fn classes(shard: &Shard) -> Result<Option<Vec<String>>, DataError> {
    let mut tar = TarReader::new(Input::open(shard.blob()?)?);
    // A broken beginning is reported when the samples are read.
    for _ in 0..8 {
        let Ok(Some(entry)) = tar.next() else { break };
        if entry.is_file && is_class_list(&entry.name) {
            if entry.size > LONGEST_CLASS_LIST {
                let reason = format!("its list of classes has {} bytes", entry.size);
                return Err(DataError::refused(&shard.path, reason));
            }
            return Ok(tar.read_body(entry.size).ok().map(|text| lines(&text)));
        }
        // Behind the first sample no list is expected; looking further would read pictures.
        if entry.is_file && entry.size > LONGEST_CLASS_LIST {
            break;
        }
    }
    if shard.blob()?.is_remote() {
        let url = shard.path.to_string_lossy().into_owned();
        return Ok(remote_classes(&url));
    }
    let folders =
        shard.path.parent().into_iter().flat_map(|folder| [Some(folder), folder.parent()]);
    for folder in folders.flatten() {
        for name in ["classes.txt", "classnames.txt"] {
            let path = folder.join(name);
            if !path.is_file() {
                continue;
            }
            let mut text = Vec::new();
            File::open(&path)
                .and_then(|file| file.take(LONGEST_CLASS_LIST).read_to_end(&mut text))
                .map_err(|error| DataError::io(&path, error))?;
            return Ok(Some(lines(&text)));
        }
    }
    Ok(None)
}

/// The class names beside a distant archive, if there is such a list.
fn remote_classes(url: &str) -> Option<Vec<String>> {
    let folder = url.rsplit_once('/').map_or(url, |(folder, _)| folder);
    let blob = Blob::open(&format!("{folder}/classes.txt")).ok()?;
    let length = blob.len().min(LONGEST_CLASS_LIST) as usize;
    Some(lines(&blob.read_at(0, length).ok()?))
}

/// One class a line.
fn lines(text: &[u8]) -> Vec<String> {
    String::from_utf8_lossy(text)
        .lines()
        .map(|line| line.trim().to_owned())
        .filter(|line| !line.is_empty())
        .collect()
}
