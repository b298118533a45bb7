//! One decoder a format, and the choice between them by content.
//!
//! PNG is decoded here, byte by byte, because nothing else refuses what has to be refused: rows
//! missing or left over behind the picture, wrong check sums, a stream that inflates without end.
//! The other formats go to established decoders, behind a walk over the file's structure which
//! checks the size before they allocate and notices a file that ends early.

mod bmp;
mod gif;
mod jpeg;
mod png;
mod webp;

use crate::{
    contained::contained,
    picture::{Decoded, Limits, Note, PictureError, Pixels},
};

type Decoder = fn(&[u8], &Limits) -> Result<Decoded, PictureError>;

/// Decodes `bytes` by what they are.
pub(crate) fn decode(bytes: &[u8], limits: &Limits) -> Result<Decoded, PictureError> {
    limits.check_bytes(bytes.len() as u64)?;
    let decoder: Decoder = match bytes {
        [] => return Err(PictureError::Empty),
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => png::decode,
        [0xff, 0xd8, 0xff, ..] => jpeg::decode,
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => gif::decode,
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => webp::decode,
        [b'B', b'M', ..] => bmp::decode,
        _ => return Err(PictureError::NotAPicture(what_is(bytes))),
    };
    let gave_up =
        || PictureError::Broken("the decoder gave up on these bytes (it panicked)".into());
    let mut decoded = contained(|| decoder(bytes, limits)).ok_or_else(gave_up)??;
    if matches!(decoded.pixels, Pixels::Grey16(_)) {
        decoded.notes.push(Note::SixteenBitGrey);
    }
    if let Pixels::Palette { indices, colours } = &decoded.pixels
        && indices.iter().any(|&i| usize::from(i) >= colours.len())
    {
        decoded.notes.push(Note::IndexBeyondPalette);
    }
    Ok(decoded)
}

/// Whether these first bytes are those of a picture that [`decode`] reads.
pub(crate) fn is_picture(head: &[u8]) -> bool {
    matches!(
        head,
        [0x89, b'P', b'N', b'G', ..]
            | [0xff, 0xd8, 0xff, ..]
            | [b'G', b'I', b'F', b'8', ..]
            | [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..]
            | [b'B', b'M', ..]
    )
}

/// Names the content of a file that is none of our formats.
fn what_is(bytes: &[u8]) -> String {
    let head = &bytes[..bytes.len().min(256)];
    let text = String::from_utf8_lossy(head).to_ascii_lowercase();
    let name = match bytes {
        [b'I', b'I', b'*', 0, ..] | [b'M', b'M', 0, b'*', ..] => "TIFF",
        [_, _, _, _, b'f', b't', b'y', b'p', b'a', b'v', b'i', ..] => "AVIF",
        [_, _, _, _, b'f', b't', b'y', b'p', b'h', b'e', b'i', ..] => "HEIF",
        [0xff, 0x0a, ..] | [0, 0, 0, 0x0c, b'J', b'X', b'L', ..] => "JPEG XL",
        [0, 0, 1, 0, ..] => "an icon (ICO)",
        [b'P', b'K', 3, 4, ..] => "a zip archive",
        [0x1f, 0x8b, ..] => "gzip",
        [b'%', b'P', b'D', b'F', ..] => "PDF",
        _ if text.contains("<svg") => "svg",
        _ if text.contains("<html") || text.contains("<!doctype html") => "an HTML page",
        _ if head.iter().all(|b| b.is_ascii_graphic() || b.is_ascii_whitespace()) => "text",
        _ => return format!("bytes {:02x?}", &bytes[..bytes.len().min(8)]),
    };
    name.into()
}

/// Big-endian numbers out of a slice; `None` where it ends.
fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn le16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn le32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// An error of the `image` crate in our words.
fn from_image(format: &str, error: image::ImageError) -> PictureError {
    match &error {
        image::ImageError::IoError(io) if io.kind() == std::io::ErrorKind::UnexpectedEof => {
            PictureError::Truncated(format!("{format} ends before its picture does"))
        }
        _ => PictureError::Broken(format!("{format}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_things_are_named() {
        let message = |bytes: &[u8]| decode(bytes, &Limits::default()).unwrap_err().to_string();
        assert!(message(b"").contains("empty"));
        assert!(message(b"II*\0....").contains("TIFF"));
        assert!(message(b"<?xml?><svg xmlns=''>").contains("svg"));
        assert!(message(b"hello").contains("text"));
        assert!(message(&[0, 1, 2, 3]).contains("[00, 01, 02, 03]"));
    }

    #[test]
    fn no_prefix_and_no_flipped_byte_makes_a_decoder_panic() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/clip/pictures");
        let limits = Limits { pixels: 100_000, ..Limits::default() };
        for entry in std::fs::read_dir(folder).unwrap() {
            let bytes = std::fs::read(entry.unwrap().path()).unwrap();
            for cut in (0..bytes.len()).step_by(37) {
                let found = decode(&bytes[..cut], &limits);
                assert!(found.is_err() || cut + 16 > bytes.len(), "{cut} of {}", bytes.len());
                let mut flipped = bytes.clone();
                flipped[cut] ^= 0x55;
                let _ = decode(&flipped, &limits);
            }
        }
    }
}
