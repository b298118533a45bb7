//! WebP (lossy, lossless, the first frame of an animation), through the `image` crate.

use super::{from_image, le16, le32};
use crate::picture::{Decoded, Limits, Note, PictureError, Pixels};
use image::{ColorType, ImageDecoder, codecs::webp::WebPDecoder};
use std::io::Cursor;

pub(super) fn decode(bytes: &[u8], limits: &Limits) -> Result<Decoded, PictureError> {
    let mut notes = Vec::new();
    let claimed = le32(bytes, 4).map_or(0, |size| size as usize + 8);
    if bytes.len() < claimed {
        return Err(PictureError::Truncated(format!(
            "WebP has {} bytes, its header says {claimed}",
            bytes.len()
        )));
    }
    // RIFF chunks are padded to even length, so one byte more is no data.
    if bytes.len() > claimed + 1 {
        notes.push(Note::TrailingData { after: "RIFF", bytes: bytes.len() - claimed });
    }
    let (width, height) = size(bytes)?;
    let (width, height) = limits.check(width, height)?;
    let decoder =
        WebPDecoder::new(Cursor::new(bytes)).map_err(|error| from_image("WebP", error))?;
    if decoder.dimensions() != (width, height) {
        return Err(PictureError::Broken("WebP contradicts itself about its size".into()));
    }
    if decoder.has_animation() {
        notes.push(Note::Animated);
    }
    let colour = decoder.color_type();
    let mut samples =
        vec![0; width as usize * height as usize * usize::from(colour.bytes_per_pixel())];
    decoder.read_image(&mut samples).map_err(|error| from_image("WebP", error))?;
    let pixels = match colour {
        ColorType::Rgb8 => Pixels::Rgb(samples),
        ColorType::Rgba8 => Pixels::Rgba(samples),
        other => {
            return Err(PictureError::Broken(format!(
                "WebP decodes to {other:?}, expected 8 bits"
            )));
        }
    };
    Ok(Decoded { width, height, pixels, notes })
}

/// Width and height out of the first chunk. (RFC 9649, sections 2.5, 2.6, 2.7 and 3.4.)
fn size(bytes: &[u8]) -> Result<(u64, u64), PictureError> {
    let short = || PictureError::Truncated("WebP ends within its first chunk".into());
    let chunk = bytes.get(12..16).ok_or_else(short)?;
    let sides = match chunk {
        b"VP8 " => {
            let side = |at| le16(bytes, at).map(|v| u64::from(v & 0x3fff)).ok_or_else(short);
            (side(26)?, side(28)?)
        }
        b"VP8L" => {
            let bits = le32(bytes, 21).ok_or_else(short)?;
            (u64::from(bits & 0x3fff) + 1, u64::from(bits >> 14 & 0x3fff) + 1)
        }
        b"VP8X" => {
            let side = |at| {
                let low = le16(bytes, at)?;
                Some(u64::from(low) + (u64::from(*bytes.get(at + 2)?) << 16) + 1)
            };
            (side(24).ok_or_else(short)?, side(27).ok_or_else(short)?)
        }
        other => {
            let name = other.escape_ascii();
            return Err(PictureError::Broken(format!("WebP begins with an unknown chunk {name}")));
        }
    };
    Ok(sides)
}
