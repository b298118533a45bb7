//! JPEG: a walk over the markers, then `zune-jpeg` in its strict mode.

use super::{be16, be32, le16, le32};
use crate::picture::{Decoded, Limits, Note, PictureError, Pixels};
use zune_jpeg::{
    JpegDecoder,
    errors::DecodeErrors,
    zune_core::{bytestream::ZCursor, colorspace::ColorSpace, options::DecoderOptions},
};

/// What the markers say.
struct Frame {
    width: u32,
    height: u32,
    components: usize,
    notes: Vec<Note>,
}

pub(super) fn decode(bytes: &[u8], limits: &Limits) -> Result<Decoded, PictureError> {
    let frame = walk(bytes, limits)?;
    let options = DecoderOptions::default()
        .set_strict_mode(true)
        .set_max_width(limits.side as usize)
        .set_max_height(limits.side as usize);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(from_zune)?;
    let stored = decoder.input_colorspace().unwrap_or(ColorSpace::YCbCr);
    let out = match frame.components {
        1 => ColorSpace::Luma,
        // The decoder's own conversion of CMYK is not the reference's: take the inks as they are.
        4 => stored,
        _ => ColorSpace::RGB,
    };
    decoder.set_options(options.jpeg_set_out_colorspace(out));
    let samples = decoder.decode().map_err(from_zune)?;
    let expected = frame.width as usize * frame.height as usize * out.num_components();
    if samples.len() != expected {
        return Err(broken(&format!("decodes to {} bytes, expected {expected}", samples.len())));
    }
    let pixels = match (frame.components, stored) {
        (1, _) => Pixels::Grey(samples),
        (4, ColorSpace::YCCK) => Pixels::Cmyk(inks_from_ycck(samples)),
        // Writers store 255 for no ink (Adobe's convention), and the reference assumes so always.
        (4, _) => Pixels::Cmyk(samples.into_iter().map(|v| 255 - v).collect()),
        _ => Pixels::Rgb(samples),
    };
    Ok(Decoded { width: frame.width, height: frame.height, pixels, notes: frame.notes })
}

fn broken(what: &str) -> PictureError {
    PictureError::Broken(format!("JPEG: {what}"))
}

fn from_zune(error: DecodeErrors) -> PictureError {
    match error {
        DecodeErrors::ExhaustedData | DecodeErrors::IoErrors(_) => {
            PictureError::Truncated("JPEG ends before its picture does".into())
        }
        DecodeErrors::HuffmanDecode(reason) => broken(&format!("Huffman table: {reason}")),
        other => broken(&format!("{other:?}")),
    }
}

/// YCCK to inks, 255 for full ink: the first three are converted like YCbCr to RGB and are then
/// the complements of what is stored (BT.601, fixed point with 16 bits as in libjpeg).
fn inks_from_ycck(mut samples: Vec<u8>) -> Vec<u8> {
    let fixed = |x: f64| (x * 65536.0 + 0.5) as i32;
    let (red, blue) = (fixed(1.402), fixed(1.772));
    let (green_cr, green_cb) = (fixed(0.714_136_286), fixed(0.344_136_286));
    for pixel in samples.chunks_exact_mut(4) {
        let (y, cb, cr) =
            (i32::from(pixel[0]), i32::from(pixel[1]) - 128, i32::from(pixel[2]) - 128);
        let clamp = |v: i32| v.clamp(0, 255) as u8;
        pixel[0] = clamp(y + ((red * cr + 32768) >> 16));
        pixel[1] = clamp(y + ((-green_cb * cb - green_cr * cr + 32768) >> 16));
        pixel[2] = clamp(y + ((blue * cb + 32768) >> 16));
        pixel[3] = 255 - pixel[3];
    }
    samples
}

/// Steps from marker to marker up to EOI.
fn walk(bytes: &[u8], limits: &Limits) -> Result<Frame, PictureError> {
    let end = || PictureError::Truncated(format!("JPEG ends at byte {} before EOI", bytes.len()));
    let mut frame: Option<Frame> = None;
    let mut orientation = None;
    let mut scans = 0;
    let mut at = 2;
    loop {
        // A marker is 0xff, any number of fill bytes 0xff, and a code other than 0 and 0xff. In
        // entropy-coded data 0xff 0 is a data byte and restart markers belong to the data.
        let offset = bytes[at.min(bytes.len())..].iter().position(|&b| b == 0xff);
        at += offset.ok_or_else(end)?;
        let code = *bytes.get(at + 1).ok_or_else(end)?;
        match code {
            0xff => at += 1,
            0 | 1 | 0xd0..=0xd7 => at += 2,
            0xd8 => return Err(broken(&format!("a second SOI marker at byte {at}"))),
            0xd9 => {
                at += 2;
                break;
            }
            _ => {
                let length = usize::from(be16(bytes, at + 2).ok_or_else(end)?);
                let body = bytes.get(at + 4..at + 2 + length.max(2)).ok_or_else(end)?;
                match code {
                    0xc0..=0xc2 | 0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf => {
                        if frame.is_some() {
                            return Err(broken("a second SOF marker"));
                        }
                        frame = Some(start_of_frame(body, limits)?);
                    }
                    0xda => scans += 1,
                    0xe1 => orientation = orientation.or(exif_orientation(body)),
                    _ => {}
                }
                at += 2 + length.max(2);
            }
        }
    }
    let mut frame = frame.ok_or_else(|| broken("no SOF marker, so no size"))?;
    if scans == 0 {
        return Err(broken("no SOS marker, so no pixels"));
    }
    frame.notes.extend(orientation.filter(|&o| o != 1).map(Note::Orientation));
    if bytes.len() > at {
        frame.notes.push(Note::TrailingData { after: "EOI", bytes: bytes.len() - at });
    }
    Ok(frame)
}

fn start_of_frame(body: &[u8], limits: &Limits) -> Result<Frame, PictureError> {
    let short = || broken("SOF marker is too short");
    let height = be16(body, 1).ok_or_else(short)?;
    let width = be16(body, 3).ok_or_else(short)?;
    let (width, height) = limits.check(width.into(), height.into())?;
    let components = usize::from(*body.get(5).ok_or_else(short)?);
    if !matches!(components, 1 | 3 | 4) {
        return Err(broken(&format!("{components} components, expected 1, 3 or 4")));
    }
    let list = body.get(6..6 + 3 * components).ok_or_else(short)?;
    for (index, component) in list.chunks_exact(3).enumerate() {
        let (horizontal, vertical) = (component[1] >> 4, component[1] & 15);
        if !(1..=4).contains(&horizontal) || !(1..=4).contains(&vertical) {
            return Err(broken(&format!(
                "component {index} has sampling factors {horizontal}x{vertical}, expected 1 to 4"
            )));
        }
    }
    Ok(Frame { width, height, components, notes: Vec::new() })
}

/// Orientation (tag 0x0112) of the first EXIF directory. Only that directory's entries are
/// looked at, so pointers that lead in circles are never followed.
fn exif_orientation(body: &[u8]) -> Option<u8> {
    let tiff = body.strip_prefix(b"Exif\0\0")?;
    let little = tiff.starts_with(b"II");
    let u16_at = |at| if little { le16(tiff, at) } else { be16(tiff, at) };
    let u32_at = |at| if little { le32(tiff, at) } else { be32(tiff, at) };
    let directory = u32_at(4)? as usize;
    let entries = usize::from(u16_at(directory)?);
    (0..entries)
        .map(|entry| directory + 2 + 12 * entry)
        .find(|&at| u16_at(at) == Some(0x0112))
        .and_then(|at| u8::try_from(u16_at(at + 8)?).ok())
}
