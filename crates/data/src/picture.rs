//! Pictures: decoding untrusted bytes into 8-bit RGB.
//!
//! The file's content decides what it is, never its name. Sizes are read and checked before
//! anything is allocated, and a file that ends early or contradicts itself is refused: a picture
//! half of which is invented grey would be trained on and evaluated as if it were real.
//!
//! Decoding keeps the file's own mode ([`Pixels`]), because the reference preprocessing of CLIP
//! resizes in that mode and converts to RGB afterwards, while most training code converts first.
//! The two differ for palettes, single bits, alpha and CMYK; [`Order`] chooses.

use crate::{decode, vector::vectorised};
use std::borrow::Cow;

/// An 8-bit RGB picture, rows from the top, pixels from the left, channels R G B.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// `3 * width * height` bytes.
    pub rgb: Vec<u8>,
}

/// Why a picture could not be had.
#[derive(Debug, thiserror::Error)]
pub enum PictureError {
    /// No bytes at all.
    #[error("the file is empty (0 bytes), expected a picture")]
    Empty,
    /// Bytes of something else.
    #[error("not a picture this program reads: found {0}, expected PNG, JPEG, WebP, GIF or BMP")]
    NotAPicture(String),
    /// Larger than [`Limits`] allows; found in the header, before anything was allocated.
    #[error("picture of {width}x{height} pixels is beyond the limit of {limit}")]
    TooLarge {
        /// Width the header claims.
        width: u64,
        /// Height the header claims.
        height: u64,
        /// The limit that was exceeded, in words.
        limit: String,
    },
    /// More bytes than [`Limits::bytes`].
    #[error("picture file of {found} bytes is beyond the limit of {limit} bytes")]
    TooManyBytes {
        /// Size of the file.
        found: u64,
        /// The limit.
        limit: u64,
    },
    /// The file ends before the picture does.
    #[error("truncated: {0}")]
    Truncated(String),
    /// A check sum does not fit its data.
    #[error("wrong check sum: {0}")]
    BadChecksum(String),
    /// The bytes are a picture, but a broken one.
    #[error("{0}")]
    Broken(String),
    /// The file could not be read.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: std::path::PathBuf,
        /// The reason.
        source: std::io::Error,
    },
}

/// What a picture may cost. Checked against the header before memory is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most pixels (width times height). Default 50 million.
    pub pixels: u64,
    /// Longest side. Default 65,500.
    pub side: u32,
    /// Largest encoded file in bytes. Default 256 MiB.
    pub bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { pixels: 50_000_000, side: 65_500, bytes: 256 << 20 }
    }
}

impl Limits {
    /// Checks the size a header claims; zero sides are refused too.
    pub(crate) fn check(&self, width: u64, height: u64) -> Result<(u32, u32), PictureError> {
        if width == 0 || height == 0 {
            let side = if width == 0 { "width" } else { "height" };
            return Err(PictureError::Broken(format!(
                "the header says {side} 0 ({width}x{height}), expected at least 1"
            )));
        }
        let too_large = |limit| Err(PictureError::TooLarge { width, height, limit });
        match (u32::try_from(width), u32::try_from(height)) {
            (Ok(w), Ok(h)) if w <= self.side && h <= self.side => {
                if u64::from(w) * u64::from(h) > self.pixels {
                    return too_large(format!("{} pixels", self.pixels));
                }
                Ok((w, h))
            }
            _ => too_large(format!("{} pixels a side", self.side)),
        }
    }

    /// Checks the number of encoded bytes.
    pub(crate) fn check_bytes(&self, found: u64) -> Result<(), PictureError> {
        if found > self.bytes {
            return Err(PictureError::TooManyBytes { found, limit: self.bytes });
        }
        Ok(())
    }
}

/// Whether the conversion to RGB comes before or after resizing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Order {
    /// RGB first: one rule for all pictures, and what the papers' training code does.
    #[default]
    RgbFirst,
    /// Resize in the file's own mode, then RGB: what OpenAI's and open_clip's preprocessing do,
    /// including the clipping of 16-bit grey at 255 (which makes it nearly white).
    Direct,
}

/// A decoded picture in the mode of its file. Rows from the top, samples interleaved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pixels {
    /// One bit a pixel, stored as 0 or 255.
    Bilevel(Vec<u8>),
    /// 8-bit grey.
    Grey(Vec<u8>),
    /// 16-bit grey.
    Grey16(Vec<u16>),
    /// Grey and alpha.
    GreyAlpha(Vec<u8>),
    /// Indices into a palette; an index beyond it is black.
    Palette {
        /// One index a pixel.
        indices: Vec<u8>,
        /// Colours.
        colours: Vec<[u8; 3]>,
    },
    /// Red, green, blue.
    Rgb(Vec<u8>),
    /// Red, green, blue, alpha (not premultiplied).
    Rgba(Vec<u8>),
    /// Cyan, magenta, yellow, black; 255 is full ink.
    Cmyk(Vec<u8>),
}

/// Something worth reporting about a picture that was decoded nevertheless.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// Bytes behind the end of the picture (a polyglot file, or a careless writer).
    TrailingData {
        /// What ends the picture, such as `IEND`.
        after: &'static str,
        /// How many bytes follow.
        bytes: usize,
    },
    /// EXIF orientation other than 1. It is ignored, as in the reference.
    Orientation(u8),
    /// 16-bit grey, reduced to its high byte; the reference clips it at 255 instead.
    SixteenBitGrey,
    /// More than one frame; the first counts.
    Animated,
    /// Some palette indices lie beyond the palette and are black.
    IndexBeyondPalette,
}

/// A decoded picture in its own mode, and what was noticed on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// The pixels.
    pub pixels: Pixels,
    /// What is worth reporting.
    pub notes: Vec<Note>,
}

impl Decoded {
    /// The picture in RGB, in its own size. `order` matters for 16-bit grey only: its high byte,
    /// or clipped at 255 as in the reference.
    pub fn to_rgb(&self, order: Order) -> Picture {
        let rgb = match &self.pixels {
            Pixels::Rgb(rgb) => rgb.clone(),
            other => other.to_rgb(order),
        };
        Picture { width: self.width, height: self.height, rgb }
    }

    /// As [`Self::to_rgb`] in the default order, without copying where there is nothing to convert.
    pub fn into_picture(self) -> Picture {
        let rgb = match self.pixels {
            Pixels::Rgb(rgb) => rgb,
            other => other.to_rgb(Order::RgbFirst),
        };
        Picture { width: self.width, height: self.height, rgb }
    }
}

impl Pixels {
    /// 16-bit grey as 8-bit grey, all other modes as they are.
    pub(crate) fn narrowed(&self, order: Order) -> Cow<'_, Pixels> {
        match (self, order) {
            (Self::Grey16(grey), Order::RgbFirst) => {
                Cow::Owned(Self::Grey(grey.iter().map(|v| (v >> 8) as u8).collect()))
            }
            (Self::Grey16(grey), Order::Direct) => {
                Cow::Owned(Self::Grey(grey.iter().map(|&v| v.min(255) as u8).collect()))
            }
            _ => Cow::Borrowed(self),
        }
    }

    /// RGB of every pixel: grey replicated, alpha dropped without compositing, palettes looked up.
    pub(crate) fn to_rgb(&self, order: Order) -> Vec<u8> {
        match self {
            Self::Bilevel(grey) | Self::Grey(grey) => grey.iter().flat_map(|&v| [v; 3]).collect(),
            Self::Grey16(_) => self.narrowed(order).to_rgb(order),
            Self::GreyAlpha(pairs) => pairs.chunks_exact(2).flat_map(|p| [p[0]; 3]).collect(),
            Self::Palette { indices, colours } => {
                let mut table = [[0; 3]; 256];
                let known = colours.len().min(256);
                table[..known].copy_from_slice(&colours[..known]);
                indices.iter().flat_map(|&i| table[usize::from(i)]).collect()
            }
            Self::Rgb(rgb) => rgb.clone(),
            Self::Rgba(rgba) => rgba.chunks_exact(4).flat_map(|p| [p[0], p[1], p[2]]).collect(),
            Self::Cmyk(cmyk) => cmyk
                .chunks_exact(4)
                .flat_map(|p| {
                    let paper = 255 - p[3];
                    [p[0], p[1], p[2]].map(|ink| paper.saturating_sub(muldiv255(ink, paper)))
                })
                .collect(),
        }
    }
}

/// `round(a * b / 255)`, exactly.
pub(crate) fn muldiv255(a: u8, b: u8) -> u8 {
    let t = u32::from(a) * u32::from(b) + 128;
    (((t >> 8) + t) >> 8) as u8
}

impl Picture {
    /// Decodes PNG, JPEG, WebP, GIF (first frame) or BMP, whatever the content says it is.
    ///
    /// The result is in the file's own mode; [`Decoded::into_picture`] makes RGB of it, and
    /// [`crate::Resize::decoded`] resizes it in either order. EXIF orientation is ignored.
    ///
    /// # Errors
    /// Whatever is not a whole, consistent picture within `limits` is refused.
    pub fn decode(bytes: &[u8], limits: &Limits) -> Result<Decoded, PictureError> {
        decode::decode(bytes, limits)
    }

    /// A picture of one colour. Both sides must be at least 1.
    pub fn filled(width: u32, height: u32, colour: [u8; 3]) -> Self {
        let rgb = colour.repeat(width as usize * height as usize);
        Self { width, height, rgb }
    }

    /// The colour at (`x`, `y`), or `None` outside.
    pub fn pixel(&self, x: u32, y: u32) -> Option<[u8; 3]> {
        if x >= self.width || y >= self.height {
            return None;
        }
        let at = 3 * (y as usize * self.width as usize + x as usize);
        self.rgb.get(at..at + 3)?.try_into().ok()
    }

    /// The pixels in `[0, 1]` as planes `[3, height, width]`: what attacks and models take.
    pub fn to_unit_planes(&self) -> Vec<f32> {
        let (pixels, _) = self.rgb.as_chunks::<3>();
        let mut planes = vec![0.0; 3 * pixels.len()];
        let (red, rest) = planes.split_at_mut(pixels.len());
        let (green, blue) = rest.split_at_mut(pixels.len());
        vectorised(
            #[inline(always)]
            || {
                let planes = red.iter_mut().zip(green.iter_mut().zip(blue.iter_mut()));
                for ([r, g, b], (red, (green, blue))) in pixels.iter().zip(planes) {
                    *red = f32::from(*r) / 255.0;
                    *green = f32::from(*g) / 255.0;
                    *blue = f32::from(*b) / 255.0;
                }
            },
        );
        planes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_name_what_is_wrong() {
        let limits = Limits::default();
        assert_eq!(limits.check(7, 5).unwrap(), (7, 5));
        let message = |w, h| limits.check(w, h).unwrap_err().to_string();
        assert!(message(0, 5).contains("width"));
        assert!(message(5, 0).contains("height"));
        assert!(message(65_501, 1).contains("65500 pixels a side"));
        assert!(message(u64::MAX, u64::MAX).contains("18446744073709551615"));
        assert!(message(8192, 8192).contains("50000000 pixels"));
    }

    #[test]
    fn sixteen_bit_grey_keeps_its_high_byte_unless_the_reference_is_asked_for() {
        let pixels = Pixels::Grey16(vec![0, 255, 256, 0x8001, 65535]);
        let red = |order| pixels.to_rgb(order).into_iter().step_by(3).collect::<Vec<_>>();
        assert_eq!(red(Order::RgbFirst), [0, 0, 1, 0x80, 255]);
        assert_eq!(red(Order::Direct), [0, 255, 255, 255, 255]);
    }

    #[test]
    fn muldiv255_is_rounded_division() {
        for a in 0..=255u8 {
            for b in 0..=255u8 {
                let exact = (f64::from(a) * f64::from(b) / 255.0).round() as u8;
                assert_eq!(muldiv255(a, b), exact);
            }
        }
    }

    #[test]
    fn unit_planes_are_channel_major() {
        let picture = Picture { width: 2, height: 1, rgb: vec![0, 51, 102, 255, 204, 153] };
        assert_eq!(picture.to_unit_planes(), [0.0, 1.0, 0.2, 0.8, 0.4, 0.6]);
        assert_eq!(picture.pixel(1, 0), Some([255, 204, 153]));
        assert_eq!(picture.pixel(2, 0), None);
    }
}
