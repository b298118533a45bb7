//! MNIST and its kin in IDX files: big-endian sizes, then bytes (LeCun's own page describes them).

use super::Split;
use crate::{DataError, Picture, RawPicture, RawSample, Samples, Source};
use flate2::read::GzDecoder;
use std::{
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Largest file once unpacked, 1 GB: twenty times MNIST.
const MOST_BYTES: u64 = 1 << 30;

/// Gray pictures with labels 0 to 9.
pub struct Idx(Arc<Inner>);

struct Inner {
    name: String,
    split: Split,
    width: usize,
    height: usize,
    pixels: Vec<u8>,
    labels: Vec<u8>,
    classes: Vec<String>,
}

impl Idx {
    /// Opens the half of a folder that holds `train-images-idx3-ubyte`, `t10k-...` and the like,
    /// gzipped or not.
    pub fn open(name: &str, folder: &Path, split: Split) -> Result<Self, DataError> {
        let half = if split == Split::Train { "train" } else { "t10k" };
        let (path, bytes) = read(folder, &format!("{half}-images"), 3)?;
        let refuse = |reason: String| DataError::refused(&path, reason);
        let [count, height, width] = sizes(&path, &bytes)?;
        let total = count.checked_mul(height).and_then(|n| n.checked_mul(width));
        let pixels = bytes[16..].to_vec();
        if width == 0 || height == 0 || total != Some(pixels.len()) {
            let reason = format!(
                "announces {count} pictures of {width}x{height} and holds {} bytes of them",
                pixels.len()
            );
            return Err(refuse(reason));
        }
        let (path, bytes) = read(folder, &format!("{half}-labels"), 1)?;
        let refuse = |reason: String| DataError::refused(&path, reason);
        let [labelled] = sizes(&path, &bytes)?;
        let labels = bytes[8..].to_vec();
        if labelled != labels.len() || labelled != count {
            let reason = format!(
                "announces {labelled} labels and holds {}, for {count} pictures",
                labels.len()
            );
            return Err(refuse(reason));
        }
        if let Some(at) = labels.iter().position(|label| *label > 9) {
            return Err(refuse(format!("label {at} is {}, not one of 0 to 9", labels[at])));
        }
        let classes = (0..10).map(|digit| digit.to_string()).collect();
        let name = name.to_owned();
        Ok(Self(Arc::new(Inner { name, split, width, height, pixels, labels, classes })))
    }
}

/// The file of a kind in a folder, unpacked: names differ in `-` and `.` and in compression.
fn read(folder: &Path, kind: &str, rank: u8) -> Result<(PathBuf, Vec<u8>), DataError> {
    let names = [
        format!("{kind}-idx{rank}-ubyte"),
        format!("{kind}.idx{rank}-ubyte"),
        format!("{kind}-idx{rank}-ubyte.gz"),
        format!("{kind}.idx{rank}-ubyte.gz"),
    ];
    let path = names.iter().map(|name| folder.join(name)).find(|path| path.is_file());
    let path = path.ok_or_else(|| match folder.is_dir() {
        true => DataError::refused(folder, format!("holds no {}", names[0])),
        false => super::missing(folder, std::io::ErrorKind::NotFound.into()),
    })?;
    let io = |error| DataError::io(&path, error);
    let file = std::fs::File::open(&path).map_err(io)?;
    let mut bytes = Vec::new();
    match path.extension().is_some_and(|e| e == "gz") {
        true => GzDecoder::new(file).take(MOST_BYTES + 1).read_to_end(&mut bytes),
        false => file.take(MOST_BYTES + 1).read_to_end(&mut bytes),
    }
    .map_err(io)?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(DataError::refused(&path, format!("has more than {MOST_BYTES} bytes")));
    }
    Ok((path, bytes))
}

/// The sizes in the header of an array of bytes.
fn sizes<const N: usize>(path: &Path, bytes: &[u8]) -> Result<[usize; N], DataError> {
    let magic = [0, 0, 8, N as u8];
    match bytes.starts_with(&magic) && bytes.len() >= 4 + 4 * N {
        true => {
            let word = |i: usize| bytes[4 + 4 * i..][..4].iter();
            Ok(std::array::from_fn(|i| word(i).fold(0, |n, b| n << 8 | usize::from(*b))))
        }
        false => {
            Err(DataError::refused(path, format!("is no IDX file of {N} dimensions of bytes")))
        }
    }
}

impl Inner {
    fn sample(&self, index: usize) -> RawSample {
        let size = self.width * self.height;
        let gray = &self.pixels[index * size..][..size];
        let half = if self.split == Split::Train { "train" } else { "test" };
        RawSample {
            index: index as u64,
            key: format!("{half}-{index:05}"),
            picture: RawPicture::Pixels(Picture {
                width: self.width as u32,
                height: self.height as u32,
                rgb: gray.iter().flat_map(|level| [*level; 3]).collect(),
            }),
            caption: None,
            label: Some(usize::from(self.labels[index])),
        }
    }
}

impl Source for Idx {
    fn name(&self) -> &str {
        &self.0.name
    }

    fn len(&self) -> Option<u64> {
        Some(self.0.labels.len() as u64)
    }

    fn classes(&self) -> Option<&[String]> {
        Some(&self.0.classes)
    }

    fn open(&self, start: u64) -> Result<Samples, DataError> {
        let inner = self.0.clone();
        let end = inner.labels.len() as u64;
        Ok(Box::new((start.min(end)..end).map(move |index| Ok(inner.sample(index as usize)))))
    }

    fn get(&self, index: u64) -> Option<Result<RawSample, DataError>> {
        let index = usize::try_from(index).ok()?;
        (index < self.0.labels.len()).then(|| Ok(self.0.sample(index)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::io::Write;

    fn header(rank: u8, sizes: &[u32]) -> Vec<u8> {
        let sizes = sizes.iter().flat_map(|n| n.to_be_bytes());
        [0, 0, 8, rank].into_iter().chain(sizes).collect()
    }

    fn folder(pictures: &[u8], labels: &[u8]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("t10k-images-idx3-ubyte"), pictures).unwrap();
        let file = std::fs::File::create(folder.path().join("t10k-labels-idx1-ubyte.gz")).unwrap();
        let mut packed = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
        packed.write_all(labels).unwrap();
        packed.finish().unwrap();
        folder
    }

    #[test]
    fn pictures_and_labels_are_read() {
        let pictures = [header(3, &[2, 1, 2]), vec![0, 255, 7, 8]].concat();
        let folder = folder(&pictures, &[header(1, &[2]), vec![3, 9]].concat());
        let idx = Idx::open("mnist", folder.path(), Split::Test).unwrap();
        assert_eq!((idx.len(), idx.classes().map(<[_]>::len)), (Some(2), Some(10)));
        let second = idx.get(1).unwrap().unwrap();
        assert_eq!((second.label, second.key.as_str()), (Some(9), "test-00001"));
        let RawPicture::Pixels(picture) = second.picture else { panic!("pixels") };
        assert_eq!((picture.width, picture.height), (2, 1));
        assert_eq!(picture.rgb, [7, 7, 7, 8, 8, 8]);
        let error = Idx::open("mnist", folder.path(), Split::Train).err().unwrap().to_string();
        assert!(error.contains("holds no train-images-idx3-ubyte"), "{error}");
    }

    #[test]
    fn lies_about_sizes_are_refused() {
        let labels = [header(1, &[2]), vec![3, 9]].concat();
        for (pictures, words) in [
            ([header(3, &[2, 1, 2]), vec![0, 255, 7]].concat(), "announces 2 pictures of 2x1"),
            (header(3, &[u32::MAX, u32::MAX, u32::MAX]), "announces"),
            (vec![0, 0, 8], "is no IDX file"),
            (header(2, &[2, 1]), "is no IDX file of 3 dimensions"),
        ] {
            let folder = folder(&pictures, &labels);
            let error = Idx::open("mnist", folder.path(), Split::Test).err().unwrap().to_string();
            assert!(error.contains(words), "{error}");
        }
        let pictures = [header(3, &[2, 1, 1]), vec![0, 255]].concat();
        for labels in [[header(1, &[2]), vec![3]].concat(), [header(1, &[2]), vec![3, 10]].concat()]
        {
            let folder = folder(&pictures, &labels);
            assert!(Idx::open("mnist", folder.path(), Split::Test).is_err());
        }
    }
}
