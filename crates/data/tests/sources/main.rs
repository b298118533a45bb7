//! Every kind of source on small data made here, good and bad.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod archives;
mod cifar;
mod folders;
mod hostile;
mod parquet_files;
mod remote;
mod server;
mod spellings;
mod written;

use clipguard_data::{
    DataError, Layout, Limits, Loader, LoaderOptions, Options, Picture, RawSample, Source, open,
};
use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
};

/// A 1x1 bitmap of one colour.
fn bmp(colour: u8) -> Vec<u8> {
    let mut bytes =
        b"BM\x3a\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0\x01\0\0\0\x01\0\0\0\x01\0\x18\0".to_vec();
    bytes.resize(54, 0);
    bytes.extend([colour, colour, colour, 0]);
    bytes
}

fn tar(members: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, body) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(body.len() as u64);
        header.set_mode(0o644);
        // The builder refuses names that climb; adversaries do not ask it.
        let bytes = name.as_bytes();
        header.as_old_mut().name[..bytes.len()].copy_from_slice(bytes);
        header.set_cksum();
        builder.append(&header, body.as_slice()).unwrap();
    }
    builder.into_inner().unwrap()
}

/// `count` samples with caption and label.
fn pairs(first: usize, count: usize) -> Vec<(String, Vec<u8>)> {
    (first..first + count)
        .flat_map(|i| {
            [
                (format!("{i:04}.bmp"), bmp(i as u8)),
                (format!("{i:04}.txt"), format!("picture {i}\n").into_bytes()),
                (format!("{i:04}.cls"), format!("{}", i % 3).into_bytes()),
            ]
        })
        .collect()
}

fn tar_of(pairs: &[(String, Vec<u8>)]) -> Vec<u8> {
    let members: Vec<_> = pairs.iter().map(|(n, b)| (n.as_str(), b.clone())).collect();
    tar(&members)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

struct Room(tempfile::TempDir);

impl Room {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn put(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    fn open(&self, spelling: &str) -> Result<Arc<dyn Source>, DataError> {
        open(&self.spell(spelling), &Options::default())
    }

    fn spell(&self, spelling: &str) -> String {
        match spelling.split_once(':') {
            Some((scheme, rest)) => format!("{scheme}:{}", self.path(rest).display()),
            None => self.path(spelling).display().to_string(),
        }
    }

    fn refuses(&self, spelling: &str) -> String {
        self.open(spelling).map(|source| source.name().to_owned()).unwrap_err().to_string()
    }
}

type Found = Result<RawSample, DataError>;

fn all(source: &dyn Source, start: u64) -> Vec<Found> {
    source.open(start).unwrap().collect()
}

fn keys(found: &[Found]) -> Vec<&str> {
    found.iter().flatten().map(|sample| sample.key.as_str()).collect()
}

fn errors(found: &[Found]) -> Vec<String> {
    found.iter().filter_map(|f| f.as_ref().err()).map(ToString::to_string).collect()
}

fn colour(sample: &RawSample) -> u8 {
    sample.clone().decode(&Limits::default()).unwrap().picture.rgb[0]
}

/// Starting at any position, and asking at random, gives what reading through gives.
fn positions_agree(source: &dyn Source) {
    let whole = all(source, 0);
    for start in 0..whole.len() as u64 + 2 {
        let part = all(source, start);
        assert_eq!(keys(&part), keys(&whole)[(start as usize).min(whole.len())..]);
        for (offset, sample) in part.iter().flatten().enumerate() {
            assert_eq!(sample.index, start + offset as u64);
        }
    }
    for (index, expected) in whole.iter().flatten().enumerate() {
        if let Some(found) = source.get(index as u64) {
            let found = found.unwrap();
            assert_eq!((&found.key, found.index), (&expected.key, expected.index));
            assert_eq!((&found.caption, found.label), (&expected.caption, expected.label));
            assert_eq!(colour(&found), colour(expected));
        }
    }
    assert!(source.get(whole.len() as u64).is_none());
}
