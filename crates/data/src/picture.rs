//! Pictures: decoding untrusted bytes into 8-bit RGB.

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
    /// The bytes are not a picture this program reads, or a broken one.
    #[error("{0}")]
    Broken(String),
}
