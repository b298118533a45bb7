//! The bytes of a Parquet file as its decoder may see them: every size that the decoder would
//! allocate by is compared with the file first.
//!
//! What is refused here: a footer larger than its file or whose schema nests without end, pages
//! that claim more than they can hold, and packings whose decoder has no bound (brotli and the
//! former LZ4; gzip is counted before it is unpacked).

use super::thrift::{COUNT, walk};
use crate::blob::{Blob, Reader};
use parquet::{
    basic::Compression,
    errors::{ParquetError, Result},
    file::{
        metadata::{ColumnChunkMetaData, ParquetMetaData, ParquetMetaDataReader},
        reader::{ChunkReader, Length},
    },
};
use std::{
    io::{self, BufReader, Cursor, Read},
    sync::{Arc, Mutex, PoisonError},
};

/// The decoder's shared bytes.
type Bytes = <object_store::PutPayload as IntoIterator>::Item;

/// Largest footer.
const MAX_FOOTER: u64 = 64 << 20;
/// Columns that have columns within them; the decoder goes down by recursion.
const MAX_GROUPS: usize = 500;
/// Entries of any list in the footer.
const MAX_ENTRIES: i64 = 1_000_000;
/// Largest page, unpacked.
const MAX_PAGE: i64 = 1 << 30;
/// Pages up to this size may be packed as tightly as they like, larger ones a thousandfold.
const SMALL_PAGE: i64 = 64 << 20;
/// Largest header of a page (it may hold the smallest and the largest value).
const MAX_HEADER: u64 = 16 << 20;

fn invalid(reason: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

/// Reads the footer.
pub(super) fn footer(blob: &Blob) -> std::result::Result<ParquetMetaData, String> {
    let length = blob.len();
    if length < 12 {
        return Err(format!("has {length} bytes, which is no Parquet file"));
    }
    let read = |start, count| blob.read_at(start, count).map_err(|e| e.to_string());
    let tail = read(length - 8, 8)?;
    match tail.get(4..) {
        Some(b"PAR1") => {}
        Some(b"PARE") => return Err("is encrypted, which is not read".to_owned()),
        _ => return Err("does not end as a Parquet file does: it is truncated or none".to_owned()),
    }
    let size = tail.first_chunk().map_or(0, |bytes| u64::from(u32::from_le_bytes(*bytes)));
    if size > MAX_FOOTER || size + 12 > length {
        return Err(format!("claims a footer of {size} bytes in a file of {length}"));
    }
    let bytes = read(length - 8 - size, size as usize)?;
    check_footer(&bytes).map_err(|error| format!("its footer is broken: {error}"))?;
    let meta = ParquetMetaDataReader::decode_metadata(&bytes);
    meta.map_err(|error| format!("its footer is broken: {}", plain(&error)))
}

/// The decoder builds the schema by recursion, and reserves room for the children that a column
/// claims and for the entries of every list.
fn check_footer(mut bytes: &[u8]) -> io::Result<()> {
    let (mut groups, mut children, length) = (0, 0i64, bytes.len() as i64);
    // Field 2 is the list of columns, its field 5 the number of columns within one.
    walk(&mut bytes, &mut |path, value| match path {
        [2, 5] => {
            groups += usize::from(value != 0);
            children = children.saturating_add(value);
            let fine = value >= 0 && children <= length && groups <= MAX_GROUPS;
            let reason = "columns within columns beyond all measure";
            if fine { Ok(()) } else { Err(invalid(reason.to_owned())) }
        }
        [.., COUNT] if value > MAX_ENTRIES => Err(invalid(format!("a list of {value} entries"))),
        _ => Ok(()),
    })
}

/// A message without the names of error types.
pub(super) fn plain(error: &ParquetError) -> String {
    let text = error.to_string();
    let known = ["Parquet error: ", "External: ", "EOF: ", "NYI: "];
    let text = known.iter().fold(text.as_str(), |t, prefix| t.strip_prefix(prefix).unwrap_or(t));
    crate::shown(text.split('\n').next().unwrap_or_default())
}

/// One column of one row group.
pub(super) struct Chunk(Arc<Inner>);

struct Inner {
    blob: Blob,
    packing: Compression,
    /// Where the column ends.
    end: u64,
    claims: Mutex<Claims>,
}

/// What the headers of pages say.
struct Claims {
    /// Values that pages may still have.
    values: u64,
    /// Where the last page begins, and what it unpacks to.
    page: (u64, u64),
    /// The same of the dictionary, which the decoder may come back to.
    dictionary: (u64, u64),
}

impl Chunk {
    /// Checks what the footer says about a column.
    pub(super) fn new(
        blob: &Blob,
        column: &ColumnChunkMetaData,
        rows: u64,
    ) -> std::result::Result<Self, String> {
        let name = crate::shown(&column.column_path().string());
        let packing = column.compression();
        if matches!(packing, Compression::BROTLI(_) | Compression::LZ4 | Compression::LZO) {
            let word = packing.to_string().to_ascii_lowercase();
            let word = word.split('(').next().unwrap_or_default();
            return Err(format!(
                "column `{name}` is packed with {word}, which cannot be unpacked within limits; \
                 expected snappy, zstd, gzip, lz4_raw or none"
            ));
        }
        let start = column.dictionary_page_offset().unwrap_or(column.data_page_offset());
        let end = u64::try_from(start)
            .ok()
            .zip(u64::try_from(column.compressed_size()).ok())
            .and_then(|(start, size)| start.checked_add(size))
            .filter(|end| *end <= blob.len())
            .ok_or_else(|| format!("column `{name}` lies outside of the file"))?;
        let values = u64::try_from(column.num_values()).unwrap_or(u64::MAX);
        let flat = column.column_descr().max_rep_level() == 0;
        // Levels of lists are kept in memory for as long as a list is.
        let most = if flat { rows } else { rows.saturating_mul(64).saturating_add(1 << 20) };
        if values > most {
            return Err(format!("column `{name}` claims {values} values in {rows} rows"));
        }
        let claims = Mutex::new(Claims { values, page: (0, 0), dictionary: (0, 0) });
        Ok(Self(Arc::new(Inner { blob: blob.clone(), packing, end, claims })))
    }
}

impl Inner {
    /// Reads the header of a page for what it claims, and returns its bytes.
    fn check(&self, start: u64, reader: &mut impl Read) -> io::Result<Vec<u8>> {
        let (mut packed, mut whole, mut values, mut entries) = (-1, -1, 0, None);
        let mut kept = Kept { reader, bytes: Vec::new() };
        walk(&mut kept, &mut |path, value| {
            match path {
                [2] => whole = value,
                [3] => packed = value,
                [5, 1] | [8, 1] => values = value,
                [7, 1] => entries = Some(value),
                _ => {}
            }
            Ok(())
        })
        .map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => invalid("the header of a page breaks off".to_owned()),
            _ => error,
        })?;
        if !(0..=MAX_PAGE).contains(&whole) {
            return Err(invalid(format!("a page of {whole} bytes, at most {MAX_PAGE} are read")));
        }
        if packed < 0 || whole > SMALL_PAGE && whole / 1024 > packed {
            return Err(invalid(format!("a page of {whole} bytes in {packed}")));
        }
        // Every entry of a dictionary takes four bytes at least.
        if let Some(entries) = entries
            && !(0..=whole / 4).contains(&entries)
        {
            return Err(invalid(format!("a dictionary of {entries} entries in {whole} bytes")));
        }
        let mut claims = self.claims.lock().unwrap_or_else(PoisonError::into_inner);
        let left = u64::try_from(values).ok().and_then(|n| claims.values.checked_sub(n));
        claims.values = left.ok_or_else(|| {
            invalid(format!("a page of {values} values where {} are left", claims.values))
        })?;
        let place = (start + kept.bytes.len() as u64, whole as u64);
        match entries {
            Some(_) => claims.dictionary = place,
            None => claims.page = place,
        }
        Ok(kept.bytes)
    }

    /// What the page that begins at `start` unpacks to.
    fn claimed(&self, start: u64) -> Option<u64> {
        let claims = self.claims.lock().unwrap_or_else(PoisonError::into_inner);
        let places = [claims.page, claims.dictionary];
        places.into_iter().find(|(place, _)| *place == start).map(|(_, claim)| claim)
    }
}

/// Keeps what passes through.
struct Kept<'a, R> {
    reader: &'a mut R,
    bytes: Vec<u8>,
}

impl<R: Read> Read for Kept<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.bytes.extend_from_slice(&buffer[..count]);
        Ok(count)
    }
}

/// The header of a page. It is read and checked when the decoder asks for its first byte, for the
/// decoder also takes readers at places where it reads nothing.
pub(super) struct Header {
    chunk: Arc<Inner>,
    start: u64,
    checked: Option<Cursor<Vec<u8>>>,
}

impl Read for Header {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let header = match &mut self.checked {
            Some(header) => header,
            None => {
                let reader = self.chunk.blob.reader(self.start)?;
                let left = self.chunk.end.saturating_sub(self.start).min(MAX_HEADER);
                let mut reader = BufReader::<Reader>::with_capacity(4096, reader).take(left);
                let bytes = self.chunk.check(self.start, &mut reader)?;
                self.checked.insert(Cursor::new(bytes))
            }
        };
        header.read(buffer)
    }
}

impl Length for Chunk {
    fn len(&self) -> u64 {
        self.0.blob.len()
    }
}

impl ChunkReader for Chunk {
    type T = Header;

    fn get_read(&self, start: u64) -> Result<Header> {
        Ok(Header { chunk: self.0.clone(), start, checked: None })
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        let general = |reason: &str| ParquetError::General(reason.to_owned());
        if start.checked_add(length as u64).is_none_or(|end| end > self.0.end) {
            return Err(general("a page that leaves its column"));
        }
        let claimed = self.0.claimed(start).ok_or_else(|| general("a page without a header"))?;
        let bytes = self.0.blob.read_at(start, length)?;
        if matches!(self.0.packing, Compression::GZIP(_)) {
            let mut whole = flate2::read::MultiGzDecoder::new(bytes.as_slice()).take(claimed + 1);
            // What is no gzip is told by the decoder.
            if io::copy(&mut whole, &mut io::sink()).is_ok_and(|count| count > claimed) {
                let reason = format!("a page that unpacks to more than its {claimed} bytes");
                return Err(ParquetError::General(reason));
            }
        }
        Ok(bytes.into())
    }
}
