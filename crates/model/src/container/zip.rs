//! The directory of a zip archive, read by the strictest rules.
//!
//! Two programs that disagree about what a zip archive contains are an old way to show a scanner
//! one file and a loader another. So everything that is written twice in an archive has to agree,
//! and nothing may overlap. Records are stored, not compressed, as PyTorch writes them.

use super::Refusal;
use std::{
    collections::{BTreeMap, HashSet},
    fs::File,
    io::{Read, Seek, SeekFrom},
};

/// Most members of an archive.
const MAX_MEMBERS: u64 = 400_000;
/// Largest central directory, 256 MB.
const MAX_DIRECTORY: u64 = 256 << 20;

/// A member of an archive.
#[derive(Clone, Debug)]
pub(super) struct Member {
    /// Where its bytes begin.
    pub(super) start: u64,
    /// Its bytes in the archive.
    pub(super) size: u64,
    /// CRC-32 of its content.
    pub(super) crc: u32,
    /// Whether it is stored as it is.
    pub(super) stored: bool,
}

/// Members by name.
pub(super) type Directory = BTreeMap<String, Member>;

fn bad(reason: impl Into<String>) -> Refusal {
    Refusal::new("bad_zip", reason)
}

fn u16_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]))
}

fn u32_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u32_at(bytes, at) | (u32_at(bytes, at + 4) << 32)
}

fn read(file: &mut File, start: u64, count: u64) -> Result<Vec<u8>, Refusal> {
    let broken = |e: std::io::Error| bad(format!("the archive is cut: {e}"));
    file.seek(SeekFrom::Start(start)).map_err(broken)?;
    let mut bytes = vec![0; count as usize];
    file.read_exact(&mut bytes).map_err(broken)?;
    Ok(bytes)
}

/// Reads the central directory and checks it against the local headers.
pub(super) fn directory(file: &mut File, size: u64) -> Result<Directory, Refusal> {
    let End { start, length, members } = end(file, size)?;
    let bytes = read(file, start, length)?;
    let (mut found, mut at) = (Vec::new(), 0);
    for _ in 0..members {
        let (header, next) = central(&bytes, at)?;
        found.push(header);
        at = next;
    }
    if at != bytes.len() {
        return Err(bad("the central directory holds bytes of no member"));
    }
    let mut names = HashSet::new();
    for header in &found {
        if !names.insert(header.name.as_str()) {
            let reason = format!("two members are called `{}`", shown(&header.name));
            return Err(Refusal::new("duplicate_record", reason));
        }
    }
    found.sort_by_key(|header| header.local);
    for pair in found.windows(2) {
        if pair[0].local == pair[1].local {
            return Err(overlap(&pair[0].name, &pair[1].name));
        }
    }
    let mut directory = Directory::new();
    let mut before: Option<(String, u64)> = None;
    for header in found {
        if let Some((name, behind)) = &before
            && *behind > header.local
        {
            return Err(overlap(name, &header.name));
        }
        let member = local(file, &header, start)?;
        before = Some((header.name.clone(), member.start + member.size));
        directory.insert(header.name, member);
    }
    Ok(directory)
}

fn shown(name: &str) -> String {
    clipguard_data::shown(name)
}

fn overlap(a: &str, b: &str) -> Refusal {
    bad(format!("members `{}` and `{}` share bytes", shown(a), shown(b)))
}

/// Where the central directory lies.
struct End {
    start: u64,
    length: u64,
    members: u64,
}

/// Finds the end record: 22 bytes and a comment that reaches exactly to the end of the file.
fn end(file: &mut File, size: u64) -> Result<End, Refusal> {
    let missing = || bad("no end of a central directory: the archive is cut");
    let tail = read(file, size.saturating_sub(22 + 65_535), size.min(22 + 65_535))?;
    let place = (0..tail.len().saturating_sub(21))
        .rev()
        .find(|&i| {
            tail[i..].starts_with(b"PK\x05\x06")
                && u16_at(&tail, i + 20) as usize == tail.len() - i - 22
        })
        .ok_or_else(missing)?;
    let record = &tail[place..];
    if u16_at(record, 4) != 0 || u16_at(record, 6) != 0 {
        return Err(bad("an archive of several volumes"));
    }
    let mut end =
        End { start: u32_at(record, 16), length: u32_at(record, 12), members: u16_at(record, 10) };
    let mut limit = size - (tail.len() - place) as u64;
    if place >= 20 && tail[place - 20..].starts_with(b"PK\x06\x07") {
        let at = u64_at(&tail, place - 20 + 8);
        if at.checked_add(56).is_none_or(|behind| behind > limit) {
            return Err(bad("the zip64 end of the central directory lies outside"));
        }
        let record = read(file, at, 56)?;
        if !record.starts_with(b"PK\x06\x06") {
            return Err(bad("no zip64 end of the central directory where it should be"));
        }
        let wide = End {
            start: u64_at(&record, 48),
            length: u64_at(&record, 40),
            members: u64_at(&record, 32),
        };
        let agrees = |narrow: u64, all: u64, wide: u64| narrow == wide || narrow == all;
        if !agrees(end.start, u64::from(u32::MAX), wide.start)
            || !agrees(end.length, u64::from(u32::MAX), wide.length)
            || !agrees(end.members, u64::from(u16::MAX), wide.members)
        {
            return Err(bad("the two ends of the central directory disagree"));
        }
        (end, limit) = (wide, at);
    }
    let fits = end.start.checked_add(end.length).is_some_and(|behind| behind <= limit);
    if !fits || end.length > MAX_DIRECTORY || end.members > MAX_MEMBERS {
        return Err(bad("the central directory lies outside of the file or is too large"));
    }
    Ok(end)
}

/// An entry of the central directory.
struct Central {
    name: String,
    flags: u64,
    method: u64,
    crc: u32,
    size: u64,
    local: u64,
}

fn central(bytes: &[u8], at: usize) -> Result<(Central, usize), Refusal> {
    let cut = || bad("the central directory is cut");
    let header = bytes.get(at..at + 46).ok_or_else(cut)?;
    if !header.starts_with(b"PK\x01\x02") {
        return Err(bad("the central directory holds something that is no entry"));
    }
    let [name, extra, comment] = [28, 30, 32].map(|i| u16_at(header, i) as usize);
    let behind = at + 46 + name + extra + comment;
    let variable = bytes.get(at + 46..behind).ok_or_else(cut)?;
    let text = std::str::from_utf8(&variable[..name])
        .map_err(|_| Refusal::new("bad_name", "a member's name is not UTF-8"))?;
    check_name(text)?;
    let mut sizes = [u32_at(header, 24), u32_at(header, 20), u32_at(header, 42)];
    widen(&mut sizes, &variable[name..name + extra])
        .ok_or_else(|| bad(format!("`{}` lacks the zip64 field it announces", shown(text))))?;
    let [whole, size, local] = sizes;
    let (flags, method) = (u16_at(header, 8), u16_at(header, 10));
    if flags & 1 != 0 {
        return Err(bad(format!("`{}` is encrypted", shown(text))));
    }
    if method == 0 && whole != size {
        return Err(bad(format!("`{}` is stored with two different sizes", shown(text))));
    }
    let crc = u32_at(header, 16) as u32;
    Ok((Central { name: text.to_owned(), flags, method, crc, size, local }, behind))
}

/// Replaces saturated numbers (size, stored size, place) by those of the zip64 field.
fn widen(sizes: &mut [u64; 3], mut extra: &[u8]) -> Option<()> {
    let wanted = sizes.iter().filter(|s| **s == u64::from(u32::MAX)).count();
    if wanted == 0 {
        return Some(());
    }
    while extra.len() >= 4 {
        let (id, length) = (u16_at(extra, 0), u16_at(extra, 2) as usize);
        let field = extra.get(4..4 + length)?;
        if id == 1 {
            let mut values = field.as_chunks::<8>().0.iter().map(|b| u64::from_le_bytes(*b));
            for size in sizes.iter_mut().filter(|s| **s == u64::from(u32::MAX)) {
                *size = values.next()?;
            }
            return Some(());
        }
        extra = &extra[4 + length..];
    }
    None
}

/// Names stay below the archive's own folder.
fn check_name(name: &str) -> Result<(), Refusal> {
    let climbs = name.split('/').any(|part| part == ".." || part == ".");
    let drive = name.as_bytes().get(1) == Some(&b':');
    if name.is_empty() || name.starts_with('/') || climbs || drive || name.contains(['\\', '\0']) {
        let reason = format!("a member called `{}`", shown(name));
        return Err(Refusal::new("bad_name", reason));
    }
    Ok(())
}

/// The local header has to say the same; it alone tells where the data begins.
fn local(file: &mut File, header: &Central, directory: u64) -> Result<Member, Refusal> {
    let name = shown(&header.name);
    let outside = || bad(format!("`{name}` lies outside of the archive"));
    if header.local.checked_add(30).is_none_or(|behind| behind > directory) {
        return Err(outside());
    }
    let bytes = read(file, header.local, 30)?;
    if !bytes.starts_with(b"PK\x03\x04") {
        return Err(bad(format!("no member begins where `{name}` should")));
    }
    let (length, extra) = (u16_at(&bytes, 26), u16_at(&bytes, 28));
    let start = header.local + 30 + length + extra;
    if start.checked_add(header.size).is_none_or(|behind| behind > directory) {
        return Err(outside());
    }
    if read(file, header.local + 30, length)? != header.name.as_bytes() {
        return Err(bad(format!("`{name}` has another name in its own header")));
    }
    if u16_at(&bytes, 8) != header.method || (u16_at(&bytes, 6) ^ header.flags) & 1 != 0 {
        return Err(bad(format!("`{name}` is described differently in its own header")));
    }
    Ok(Member { start, size: header.size, crc: header.crc, stored: header.method == 0 })
}

/// The content of a small stored member, its checksum compared.
pub(super) fn content(file: &mut File, name: &str, member: &Member) -> Result<Vec<u8>, Refusal> {
    let bytes = read(file, member.start, member.size)?;
    match crc32fast::hash(&bytes) == member.crc {
        true => Ok(bytes),
        false => {
            let reason = format!("record `{}` is damaged: its CRC-32 does not fit", shown(name));
            Err(Refusal::new("bad_checksum", reason))
        }
    }
}
