//! What a file is, by its content.

use super::Refusal;
use std::{
    fmt,
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::Path,
};

/// The formats of weight files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// safetensors.
    Safetensors,
    /// PyTorch's zip archive, since 1.6.
    TorchZip,
    /// A TorchScript archive, as OpenAI published its models.
    TorchScript,
    /// PyTorch's former format: pickles, then raw storages.
    Legacy,
    /// PyTorch's first format, a tar file.
    LegacyTar,
    /// An index of shards.
    Sharded,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Safetensors => "safetensors",
            Self::TorchZip => "a torch zip archive",
            Self::TorchScript => "a TorchScript zip archive",
            Self::Legacy => "a torch file of the former format (pickle)",
            Self::LegacyTar => "a torch file of the first format (tar)",
            Self::Sharded => "shards with an index",
        })
    }
}

/// Recognises a file by its first bytes.
pub(super) fn format(file: &mut File, size: u64, path: &Path) -> Result<Format, Refusal> {
    let broken = |e: std::io::Error| Refusal::new("truncated", e.to_string());
    let mut head = Vec::new();
    file.take(512).read_to_end(&mut head).map_err(broken)?;
    file.seek(SeekFrom::Start(0)).map_err(broken)?;
    let refuse = |reason: &str| Err(Refusal::new("not_a_checkpoint", reason));
    let named = path.extension().is_some_and(|e| e == "safetensors");
    let text: String = head.iter().take(60).map(|b| char::from(*b)).collect();
    let text = text.trim_start().to_lowercase();
    match () {
        () if size == 0 => Err(Refusal::new("empty", "the file is empty")),
        () if head.starts_with(b"PK\x03\x04") => Ok(Format::TorchZip),
        // A header of 128 bytes begins with the same byte as a pickle.
        () if head.get(8) == Some(&b'{') && header_fits(&head, size) => Ok(Format::Safetensors),
        () if head[0] == 0x80 => Ok(Format::Legacy),
        () if head.get(257..262) == Some(b"ustar") => Ok(Format::LegacyTar),
        () if head.get(8) == Some(&b'{') => Ok(Format::Safetensors),
        () if text.starts_with("version https") => refuse(
            "a Git LFS pointer (`version https://git-lfs...`) instead of the file; fetch it with \
             `git lfs pull`",
        ),
        () if text.starts_with('<') => {
            refuse("an html page instead of the file: the download failed")
        }
        () if head.starts_with(b"\x1f\x8b") => refuse("gzip; unpack it first"),
        () if named => Ok(Format::Safetensors),
        () => refuse(
            "neither safetensors nor a torch file (zip, pickle or tar): the first bytes fit none",
        ),
    }
}

/// Whether the first eight bytes are the length of a safetensors header that has room.
fn header_fits(head: &[u8], size: u64) -> bool {
    head.first_chunk().is_some_and(|length| u64::from_le_bytes(*length) <= size - 8)
}

/// A warning when the name promises something else.
pub(super) fn disagreement(path: &Path, format: Format) -> Option<String> {
    let extension = path.extension()?.to_str()?;
    let fits = match format {
        Format::Safetensors => extension == "safetensors",
        Format::Sharded => true,
        _ => ["pt", "pth", "bin", "ckpt", "tar", "pkl", "th", "model"].contains(&extension),
    };
    let name = path.file_name()?.to_string_lossy();
    (!fits).then(|| format!("`{}` is {format} in spite of its name", clipguard_data::shown(&name)))
}
