//! NumPy's file format, version 1.0: one array of rows.

use super::Bits;
use crate::{
    failure::Failure,
    tensor_file::{Spool, folder_of},
};
use std::{
    io::{self, BufWriter, Read, Write},
    path::Path,
};

/// Numbers that are converted at once.
const AT_ONCE: usize = 1 << 14;

/// The header of an array `[rows, columns]`; the numbers behind it begin at a multiple of 64.
fn header(rows: u64, columns: usize, bits: Bits) -> Vec<u8> {
    let kind = match bits {
        Bits::F16 => "<f2",
        Bits::F32 => "<f4",
    };
    let mut text =
        format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': ({rows}, {columns}), }}");
    // Magic number, version and length take ten bytes, the line end one.
    let whole = (10 + text.len() + 1).next_multiple_of(64);
    text.extend(std::iter::repeat_n(' ', whole - 11 - text.len()));
    text.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((text.len() as u16).to_le_bytes());
    bytes.extend(text.as_bytes());
    bytes
}

/// Writes the rows of a spool as one array, which appears complete or not at all.
pub(super) fn write(out: &Path, spool: Spool, columns: usize, bits: Bits) -> Result<(), Failure> {
    let (rows, precision) = (spool.rows(), bits.precision());
    let write = || -> io::Result<()> {
        let mut builder = tempfile::Builder::new();
        builder.prefix(".part-");
        // Temporary files are private by default; this one becomes a file like any other.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let mut file = BufWriter::new(builder.tempfile_in(folder_of(out))?);
        file.write_all(&header(rows, columns, bits))?;
        let mut numbers = spool.rewind()?;
        let (mut left, mut bytes) = (rows as usize * columns, vec![0; 4 * AT_ONCE]);
        while left > 0 {
            let count = left.min(AT_ONCE);
            numbers.read_exact(&mut bytes[..4 * count])?;
            let (values, _) = bytes[..4 * count].as_chunks();
            let values: Vec<f32> = values.iter().map(|b| f32::from_le_bytes(*b)).collect();
            file.write_all(&precision.encode(&values))?;
            left -= count;
        }
        let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.as_file().sync_all()?;
        file.persist(out).map_err(|error| error.error)?;
        Ok(())
    };
    write().map_err(|error| Failure::writing(out, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_those_of_numpy() {
        let bytes = header(1000, 512, Bits::F16);
        assert_eq!(bytes.len() % 64, 0);
        assert_eq!(&bytes[..10], b"\x93NUMPY\x01\x00\x76\x00");
        let text = std::str::from_utf8(&bytes[10..]).unwrap();
        let expected = "{'descr': '<f2', 'fortran_order': False, 'shape': (1000, 512), }";
        assert_eq!(text.trim_end(), expected);
        assert!(text.ends_with('\n'));
    }
}
