//! BMP, through the `image` crate.

use super::{from_image, le16, le32};
use crate::picture::{Decoded, Limits, PictureError, Pixels};
use image::{ColorType, ImageDecoder, codecs::bmp::BmpDecoder};
use std::io::Cursor;

pub(super) fn decode(bytes: &[u8], limits: &Limits) -> Result<Decoded, PictureError> {
    let short = || PictureError::Truncated("BMP ends within its header".into());
    let header = le32(bytes, 14).ok_or_else(short)?;
    // The header of OS/2 has 16-bit sides; all later ones 32-bit with a sign (top-down rows).
    let (width, height, depth) = if header == 12 {
        let side = |at| le16(bytes, at).map(u64::from).ok_or_else(short);
        (side(18)?, side(20)?, le16(bytes, 24).ok_or_else(short)?)
    } else {
        let side = |at| le32(bytes, at).map(|v| (v as i32).unsigned_abs().into()).ok_or_else(short);
        (side(18)?, side(22)?, le16(bytes, 28).ok_or_else(short)?)
    };
    let (width, height) = limits.check(width, height)?;

    let mut decoder =
        BmpDecoder::new(Cursor::new(bytes)).map_err(|error| from_image("BMP", error))?;
    if decoder.dimensions() != (width, height) {
        return Err(PictureError::Broken("BMP header contradicts itself about its size".into()));
    }
    let colours = decoder.get_palette().filter(|_| depth == 8).map(<[_]>::to_vec);
    // A palette of greys in order is read as plain grey, everything else through its indices.
    decoder.set_indexed_color(colours.is_some());
    let colour = decoder.color_type();
    let mut samples = vec![
        0;
        width as usize
            * height as usize
            * if colours.is_some() { 1 } else { colour.bytes_per_pixel().into() }
    ];
    decoder.read_image(&mut samples).map_err(|error| from_image("BMP", error))?;
    let pixels = match (colours, colour) {
        (Some(colours), _) => Pixels::Palette { indices: samples, colours },
        (None, ColorType::Rgb8) => Pixels::Rgb(samples),
        (None, ColorType::Rgba8) => Pixels::Rgba(samples),
        (None, ColorType::L8) => Pixels::Grey(samples),
        (None, other) => {
            return Err(PictureError::Broken(format!("BMP decodes to {other:?}, expected 8 bits")));
        }
    };
    Ok(Decoded { width, height, pixels, notes: Vec::new() })
}
