//! Where tensors lie: stretches of bytes, and how an array is spread over one.

use super::Refusal;
use half::{bf16, f16};
use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
};

/// Types of elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dtype {
    /// 64-bit float.
    F64,
    /// 32-bit float.
    F32,
    /// IEEE half precision.
    F16,
    /// bfloat16.
    BF16,
    /// 64-bit integer.
    I64,
    /// 32-bit integer.
    I32,
    /// 16-bit integer.
    I16,
    /// 8-bit integer.
    I8,
    /// Unsigned byte.
    U8,
    /// Boolean, one byte.
    Bool,
}

impl Dtype {
    /// Bytes of an element.
    pub fn size(self) -> u64 {
        match self {
            Self::F64 | Self::I64 => 8,
            Self::F32 | Self::I32 => 4,
            Self::F16 | Self::BF16 | Self::I16 => 2,
            Self::I8 | Self::U8 | Self::Bool => 1,
        }
    }

    /// safetensors' name of it.
    pub fn name(self) -> &'static str {
        match self {
            Self::F64 => "F64",
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::BF16 => "BF16",
            Self::I64 => "I64",
            Self::I32 => "I32",
            Self::I16 => "I16",
            Self::I8 => "I8",
            Self::U8 => "U8",
            Self::Bool => "BOOL",
        }
    }

    /// Whether it can be a weight.
    pub fn is_float(self) -> bool {
        matches!(self, Self::F64 | Self::F32 | Self::F16 | Self::BF16)
    }

    /// Widens (F64: narrows) little-endian elements to f32.
    fn append(self, bytes: &[u8], to: &mut Vec<f32>) {
        macro_rules! each {
            ($size:literal, $convert:expr) => {
                to.extend(bytes.as_chunks::<$size>().0.iter().map(|b| $convert(*b)))
            };
        }
        match self {
            Self::F64 => each!(8, |b| f64::from_le_bytes(b) as f32),
            Self::F32 => each!(4, f32::from_le_bytes),
            Self::F16 => each!(2, |b| f16::from_le_bytes(b).to_f32()),
            Self::BF16 => each!(2, |b| bf16::from_le_bytes(b).to_f32()),
            Self::I64 => each!(8, |b| i64::from_le_bytes(b) as f32),
            Self::I32 => each!(4, |b| i32::from_le_bytes(b) as f32),
            Self::I16 => each!(2, |b| f32::from(i16::from_le_bytes(b))),
            Self::I8 => each!(1, |b: [u8; 1]| f32::from(b[0] as i8)),
            Self::U8 | Self::Bool => each!(1, |b: [u8; 1]| f32::from(b[0])),
        }
    }
}

/// What a file says about a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Type of the elements in the file.
    pub dtype: Dtype,
    /// Dimensions; empty for a scalar.
    pub shape: Vec<usize>,
}

/// A stretch of elements in a file.
#[derive(Clone, Debug)]
pub(super) struct Storage {
    /// How messages call it.
    pub(super) name: String,
    pub(super) dtype: Dtype,
    /// Where its bytes begin in the file.
    pub(super) start: u64,
    /// Its elements.
    pub(super) elements: u64,
    /// Bytes of its record and their CRC-32, where the file has them: a record may be longer.
    pub(super) checksum: Option<(u64, u32)>,
}

/// Bytes converted at once.
const PIECE: usize = 1 << 16;

impl Storage {
    /// Its elements as f32.
    pub(super) fn read(&self, file: &mut File) -> Result<Vec<f32>, Refusal> {
        let mut values = Vec::with_capacity(self.elements as usize);
        self.pieces(file, &mut |bytes| self.dtype.append(bytes, &mut values))?;
        values.truncate(self.elements as usize);
        Ok(values)
    }

    /// Reads the record for its checksum alone: a damaged file is damaged, whoever needs it.
    pub(super) fn check(&self, file: &mut File) -> Result<(), Refusal> {
        if self.checksum.is_some() { self.pieces(file, &mut |_| {}) } else { Ok(()) }
    }

    fn pieces(&self, file: &mut File, take: &mut dyn FnMut(&[u8])) -> Result<(), Refusal> {
        let broken = |e: std::io::Error| Refusal::new("truncated", format!("`{}`: {e}", self.name));
        file.seek(SeekFrom::Start(self.start)).map_err(broken)?;
        let needed = self.elements * self.dtype.size();
        let total = self.checksum.map_or(needed, |(bytes, _)| bytes);
        let mut sum = crc32fast::Hasher::new();
        let mut buffer = vec![0; PIECE.min(total as usize)];
        let mut done = 0;
        while done < total {
            let piece = &mut buffer[..PIECE.min((total - done) as usize)];
            file.read_exact(piece).map_err(broken)?;
            if self.checksum.is_some() {
                sum.update(piece);
            }
            if done < needed {
                take(&piece[..piece.len().min((needed - done) as usize)]);
            }
            done += piece.len() as u64;
        }
        match self.checksum {
            Some((_, expected)) if sum.clone().finalize() != expected => Err(Refusal::new(
                "bad_checksum",
                format!(
                    "record `{}` is damaged: its CRC-32 is {:08x}, the archive says {expected:08x}",
                    self.name,
                    sum.finalize()
                ),
            )),
            _ => Ok(()),
        }
    }
}

/// How an array lies in a storage: element `(i, j, ..)` at `offset + i * stride_i + ..`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) storage: usize,
    pub(super) offset: usize,
    pub(super) shape: Vec<usize>,
    pub(super) strides: Vec<usize>,
}

impl Layout {
    /// Row-major from the beginning of a storage.
    pub(super) fn plain(storage: usize, shape: &[usize]) -> Self {
        let mut strides = vec![1; shape.len()];
        for i in (1..shape.len()).rev() {
            strides[i - 1] = strides[i] * shape[i].max(1);
        }
        Self { storage, offset: 0, shape: shape.to_vec(), strides }
    }

    /// Whether it is just the whole storage.
    pub(super) fn is_whole(&self, elements: usize) -> bool {
        let plain = Self::plain(self.storage, &self.shape);
        self.shape.iter().product::<usize>() == elements && *self == plain
    }

    /// Its elements in row-major order. Bounds were checked when the index was read.
    pub(super) fn gather(&self, values: &[f32]) -> Vec<f32> {
        let count: usize = self.shape.iter().product();
        let mut out = Vec::with_capacity(count);
        let mut place = vec![0; self.shape.len()];
        let mut at = self.offset;
        for _ in 0..count {
            out.push(values[at]);
            for axis in (0..place.len()).rev() {
                place[axis] += 1;
                at += self.strides[axis];
                if place[axis] < self.shape[axis] {
                    break;
                }
                at -= place[axis] * self.strides[axis];
                place[axis] = 0;
            }
        }
        out
    }

    /// Whether two elements may share a place: the strides, from small to large, do not step over
    /// each other.
    pub(super) fn overlaps(&self) -> bool {
        let mut axes: Vec<(usize, usize)> = self
            .strides
            .iter()
            .zip(&self.shape)
            .filter(|(_, n)| **n > 1)
            .map(|(s, n)| (*s, *n))
            .collect();
        axes.sort_unstable();
        let mut reach = 0;
        for (stride, n) in axes {
            if stride <= reach {
                return true;
            }
            reach += stride * (n - 1);
        }
        false
    }
}
