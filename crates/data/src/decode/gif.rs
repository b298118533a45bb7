//! GIF: the first frame, placed on its canvas.

use super::le16;
use crate::picture::{Decoded, Limits, Note, PictureError, Pixels};
use gif::{ColorOutput, DecodeOptions, DecodingError, MemoryLimit};

pub(super) fn decode(bytes: &[u8], limits: &Limits) -> Result<Decoded, PictureError> {
    let short = || PictureError::Truncated("GIF ends within its header".into());
    let width = le16(bytes, 6).ok_or_else(short)?;
    let height = le16(bytes, 8).ok_or_else(short)?;
    let (width, height) = limits.check(width.into(), height.into())?;

    let mut options = DecodeOptions::new();
    options.set_color_output(ColorOutput::Indexed);
    options.check_frame_consistency(true);
    // Profiles and XMP are the only other things the decoder stores.
    options.set_memory_limit(MemoryLimit::Bytes(
        std::num::NonZeroU64::new(limits.pixels.saturating_add(1 << 24))
            .unwrap_or(std::num::NonZeroU64::MIN),
    ));
    let mut decoder = options.read_info(bytes).map_err(from_gif)?;
    let Some(frame) = decoder.next_frame_info().map_err(from_gif)? else {
        return Err(PictureError::Broken("GIF without a frame".into()));
    };
    let (left, top) = (usize::from(frame.left), usize::from(frame.top));
    let (columns, rows) = (usize::from(frame.width), usize::from(frame.height));
    let transparent = frame.transparent;
    let canvas_width = width as usize;
    if columns == 0 || left + columns > canvas_width || top + rows > height as usize {
        return Err(PictureError::Broken(format!(
            "GIF frame of {columns}x{rows} at ({left}, {top}) does not fit its canvas of {width}x{height}"
        )));
    }
    let colours: Vec<[u8; 3]> = decoder
        .palette()
        .map_err(|_| PictureError::Broken("GIF frame without palette".into()))?
        .chunks_exact(3)
        .map(|c| [c[0], c[1], c[2]])
        .collect();
    let mut frame_pixels = vec![0; columns * rows];
    decoder.read_into_buffer(&mut frame_pixels).map_err(from_gif)?;

    let mut indices = frame_pixels;
    if (columns, rows) != (canvas_width, height as usize) {
        let mut canvas = vec![transparent.unwrap_or(0); canvas_width * height as usize];
        for (row, line) in indices.chunks_exact(columns).enumerate() {
            let start = (top + row) * canvas_width + left;
            canvas[start..start + columns].copy_from_slice(line);
        }
        indices = canvas;
    }
    let mut notes = Vec::new();
    // What follows the first frame does not count, so whether it is whole does not either.
    if matches!(decoder.next_frame_info(), Ok(Some(_))) {
        notes.push(Note::Animated);
    }
    Ok(Decoded { width, height, pixels: Pixels::Palette { indices, colours }, notes })
}

fn from_gif(error: DecodingError) -> PictureError {
    match &error {
        DecodingError::UnexpectedEof => {
            PictureError::Truncated("GIF ends before its first frame does".into())
        }
        DecodingError::Io(io) if io.kind() == std::io::ErrorKind::UnexpectedEof => {
            PictureError::Truncated("GIF ends before its first frame does".into())
        }
        _ => PictureError::Broken(format!("GIF frame: {error}")),
    }
}
