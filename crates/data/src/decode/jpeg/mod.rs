//! JPEG: sequential and progressive, 8 bits, Huffman coded (ITU-T T.81).
//!
//! The reference preprocessing decodes with libjpeg-turbo, and a model sees the difference between
//! decoders: they disagree by several grey levels in the inverse transform and where coarse colour
//! is spread over fine pixels. So the arithmetic here is libjpeg's to the last bit (the accurate
//! integer transform, "fancy" upsampling with its treatment of borders, 16-bit fixed-point
//! colours). And where other decoders make up grey for what is missing, this one refuses.

mod huffman;
mod inverse;
mod planes;
mod scan;

use super::{be16, be32, le16, le32};
use crate::picture::{Decoded, Limits, Note, PictureError, Pixels};
use huffman::Table;
use scan::{Scan, ScanPart};

/// More scans than this are an attack on the decoder's time.
const MOST_SCANS: usize = 200;

/// The order in which the coefficients of a block are stored (figure A.6).
const ZIGZAG: [u8; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20,
    13, 6, 7, 14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59,
    52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
];

/// One colour component.
struct Component {
    id: u8,
    /// Horizontal and vertical sampling factors.
    h: usize,
    v: usize,
    /// Which quantisation table.
    quantiser: usize,
    /// Samples that belong to the picture.
    width: usize,
    height: usize,
    /// Blocks in a row and rows of blocks, up to whole units of all components.
    blocks_wide: usize,
    blocks_high: usize,
    /// The quantisation table as it was when the component's first scan began.
    steps: Option<[u16; 64]>,
    /// Coefficients of all blocks, in a progressive picture.
    coefficients: Vec<[i16; 64]>,
    /// Samples, `8 * blocks_wide` in a row.
    samples: Vec<u8>,
}

struct Frame {
    width: usize,
    height: usize,
    progressive: bool,
    components: Vec<Component>,
    /// Largest sampling factors.
    h: usize,
    v: usize,
}

/// What the markers have said so far.
#[derive(Default)]
struct State {
    frame: Option<Frame>,
    quantisers: [Option<[u16; 64]>; 4],
    dc: [Option<Table>; 4],
    ac: [Option<Table>; 4],
    restart: usize,
    jfif: bool,
    /// The transform of Adobe's marker.
    adobe: Option<u8>,
    orientation: Option<u8>,
    scans: usize,
}

pub(super) fn decode(bytes: &[u8], limits: &Limits) -> Result<Decoded, PictureError> {
    let mut state = State::default();
    let mut at = 2;
    loop {
        // Between segments anything is stepped over, as the reference does.
        let found = bytes[at.min(bytes.len())..].iter().position(|&b| b == 0xff);
        at += found.ok_or_else(|| ended(bytes))?;
        let code = *bytes.get(at + 1).ok_or_else(|| ended(bytes))?;
        match code {
            0xff => at += 1,
            0 | 1 | 0xd0..=0xd7 => at += 2,
            0xd8 => return Err(broken(format!("a second SOI marker at byte {at}"))),
            0xd9 => break,
            _ => {
                let length = usize::from(be16(bytes, at + 2).ok_or_else(|| ended(bytes))?);
                if length < 2 {
                    return Err(broken(format!("a segment of {length} bytes at byte {at}")));
                }
                let body = bytes.get(at + 4..at + 2 + length).ok_or_else(|| ended(bytes))?;
                at += 2 + length;
                if code == 0xda {
                    at += state.scan(body, &bytes[at..])?;
                } else {
                    state.segment(code, body, limits)?;
                }
            }
        }
    }
    let mut decoded = state.finish()?;
    if bytes.len() > at + 2 {
        decoded.notes.push(Note::TrailingData { after: "EOI", bytes: bytes.len() - at - 2 });
    }
    Ok(decoded)
}

fn ended(bytes: &[u8]) -> PictureError {
    PictureError::Truncated(format!("JPEG ends at byte {} before EOI", bytes.len()))
}

fn broken(what: impl std::fmt::Display) -> PictureError {
    PictureError::Broken(format!("JPEG: {what}"))
}

impl State {
    fn segment(&mut self, code: u8, body: &[u8], limits: &Limits) -> Result<(), PictureError> {
        match code {
            0xc4 => self.huffman_tables(body)?,
            0xc0..=0xc2 => {
                if self.frame.is_some() {
                    return Err(broken("a second SOF marker"));
                }
                self.frame = Some(start_of_frame(body, code == 0xc2, limits)?);
            }
            0xc3 | 0xc5..=0xcf => {
                let kind = match code {
                    0xc3 | 0xc7 | 0xcb | 0xcf => "lossless",
                    0xc9 | 0xca | 0xcc => "arithmetically coded",
                    _ => "hierarchical",
                };
                return Err(broken(format!("{kind} pictures (marker {code:02x}) are not read")));
            }
            0xdb => self.quantisation_tables(body)?,
            0xdd => {
                self.restart = be16(body, 0).ok_or_else(|| broken("DRI is too short"))?.into();
            }
            0xe0 if body.starts_with(b"JFIF\0") => self.jfif = true,
            0xe1 => self.orientation = self.orientation.or(exif_orientation(body)),
            0xee if body.starts_with(b"Adobe") => self.adobe = body.get(11).copied(),
            _ => {}
        }
        Ok(())
    }

    fn quantisation_tables(&mut self, mut body: &[u8]) -> Result<(), PictureError> {
        while let [head, rest @ ..] = body {
            let (wide, id) = (head >> 4, usize::from(head & 15));
            let bytes = if wide == 0 { 64 } else { 128 };
            let (Some(values), true) = (rest.get(..bytes), id < 4 && wide < 2) else {
                return Err(broken("a quantisation table (DQT) is too short or misnumbered"));
            };
            let mut table = [0; 64];
            for (k, &place) in ZIGZAG.iter().enumerate() {
                table[usize::from(place)] = match wide {
                    0 => values[k].into(),
                    _ => u16::from_be_bytes([values[2 * k], values[2 * k + 1]]),
                };
            }
            self.quantisers[id] = Some(table);
            body = &rest[bytes..];
        }
        Ok(())
    }

    fn huffman_tables(&mut self, mut body: &[u8]) -> Result<(), PictureError> {
        while let [head, rest @ ..] = body {
            let id = usize::from(head & 15);
            let tables = if head >> 4 == 0 { &mut self.dc } else { &mut self.ac };
            if id > 3 || head >> 4 > 1 {
                return Err(broken(format!("Huffman table {head:02x}, expected 0 to 3")));
            }
            let (table, length) = Table::read(rest).map_err(broken)?;
            tables[id] = Some(table);
            body = &rest[length..];
        }
        Ok(())
    }

    /// Decodes the scan whose header is `body`; returns how many bytes of `data` it took.
    fn scan(&mut self, body: &[u8], data: &[u8]) -> Result<usize, PictureError> {
        self.scans += 1;
        if self.scans > MOST_SCANS {
            return Err(broken(format!("more than {MOST_SCANS} scans")));
        }
        let frame = self.frame.as_mut().ok_or_else(|| broken("SOS before SOF"))?;
        let short = || broken("SOS marker is too short");
        let count = usize::from(*body.first().ok_or_else(short)?);
        if !(1..=4).contains(&count) {
            return Err(broken(format!("a scan of {count} components, expected 1 to 4")));
        }
        let list = body.get(1..1 + 2 * count).ok_or_else(short)?;
        let &[first, last, approximation] =
            body.get(1 + 2 * count..4 + 2 * count).ok_or_else(short)?
        else {
            return Err(short());
        };
        let mut parts: Vec<ScanPart<'_>> = Vec::with_capacity(count);
        for entry in list.chunks_exact(2) {
            let index = frame.components.iter().position(|c| c.id == entry[0]);
            let index = index.ok_or_else(|| broken("a scan of a component SOF does not name"))?;
            if parts.iter().any(|part| part.component == index) {
                return Err(broken("a scan names a component twice"));
            }
            let component = &mut frame.components[index];
            if component.steps.is_none() {
                let id = component.quantiser;
                let table = self.quantisers.get(id).copied().flatten();
                component.steps =
                    Some(table.ok_or_else(|| broken(format!("no quantisation table {id}")))?);
            }
            let table = |tables: &'_ [Option<Table>; 4], id: u8| {
                tables.get(usize::from(id)).map(|_| usize::from(id))
            };
            let (dc, ac) = (table(&self.dc, entry[1] >> 4), table(&self.ac, entry[1] & 15));
            let (Some(dc), Some(ac)) = (dc, ac) else {
                return Err(broken("a scan names a Huffman table beyond 3"));
            };
            parts.push(ScanPart {
                component: index,
                dc: self.dc[dc].as_ref(),
                ac: self.ac[ac].as_ref(),
            });
        }
        let scan = Scan {
            parts,
            band: (first.into(), last.into()),
            high: approximation >> 4,
            low: approximation & 15,
            restart: self.restart,
        };
        scan.decode(frame, data)
    }

    fn finish(self) -> Result<Decoded, PictureError> {
        let mut frame = self.frame.ok_or_else(|| broken("no SOF marker, so no size"))?;
        if let Some(missing) = frame.components.iter().find(|c| c.samples.is_empty()) {
            return Err(broken(format!("no scan (SOS marker) of component {}", missing.id)));
        }
        if frame.progressive {
            frame.components.iter_mut().for_each(planes::transform);
        }
        let ids: Vec<u8> = frame.components.iter().map(|c| c.id).collect();
        // How libjpeg tells the colour space.
        let space = match (ids.as_slice(), self.jfif, self.adobe) {
            ([_], ..) => planes::Space::Grey,
            ([_, _, _], true, _) => planes::Space::Ycc,
            ([_, _, _], false, Some(transform)) => match transform {
                0 => planes::Space::Rgb,
                _ => planes::Space::Ycc,
            },
            ([b'R', b'G', b'B'], false, None) => planes::Space::Rgb,
            ([_, _, _], ..) => planes::Space::Ycc,
            (_, _, None | Some(0)) => planes::Space::Cmyk,
            _ => planes::Space::Ycck,
        };
        let samples = planes::assemble(&frame, space).map_err(broken)?;
        Ok(Decoded {
            width: frame.width as u32,
            height: frame.height as u32,
            pixels: match space {
                planes::Space::Grey => Pixels::Grey(samples),
                planes::Space::Rgb | planes::Space::Ycc => Pixels::Rgb(samples),
                planes::Space::Cmyk | planes::Space::Ycck => Pixels::Cmyk(samples),
            },
            notes: self
                .orientation
                .filter(|&o| o != 1)
                .map(Note::Orientation)
                .into_iter()
                .collect(),
        })
    }
}

fn start_of_frame(body: &[u8], progressive: bool, limits: &Limits) -> Result<Frame, PictureError> {
    let short = || broken("SOF marker is too short");
    let &[precision, ..] = body else { return Err(short()) };
    if precision != 8 {
        return Err(broken(format!("{precision} bits a sample, expected 8")));
    }
    let (height, width) = (be16(body, 1).ok_or_else(short)?, be16(body, 3).ok_or_else(short)?);
    let (width, height) = limits.check(width.into(), height.into())?;
    let (width, height) = (width as usize, height as usize);
    let count = usize::from(*body.get(5).ok_or_else(short)?);
    if !matches!(count, 1 | 3 | 4) {
        return Err(broken(format!("{count} components, expected 1, 3 or 4")));
    }
    let list = body.get(6..6 + 3 * count).ok_or_else(short)?;
    let factors = |entry: &[u8]| (usize::from(entry[1] >> 4), usize::from(entry[1] & 15));
    for (index, entry) in list.chunks_exact(3).enumerate() {
        let (h, v) = factors(entry);
        if !(1..=4).contains(&h) || !(1..=4).contains(&v) {
            return Err(broken(format!(
                "component {index} has sampling factors {h}x{v}, expected 1 to 4"
            )));
        }
    }
    let h_max = list.chunks_exact(3).map(|e| factors(e).0).max().unwrap_or(1);
    let v_max = list.chunks_exact(3).map(|e| factors(e).1).max().unwrap_or(1);
    let (units_wide, units_high) = (width.div_ceil(8 * h_max), height.div_ceil(8 * v_max));
    let component = |entry: &[u8]| {
        let (h, v) = factors(entry);
        Component {
            id: entry[0],
            h,
            v,
            quantiser: entry[2].into(),
            width: (width * h).div_ceil(h_max),
            height: (height * v).div_ceil(v_max),
            blocks_wide: units_wide * h,
            blocks_high: units_high * v,
            steps: None,
            coefficients: Vec::new(),
            samples: Vec::new(),
        }
    };
    let components = list.chunks_exact(3).map(component).collect();
    Ok(Frame { width, height, progressive, components, h: h_max, v: v_max })
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
