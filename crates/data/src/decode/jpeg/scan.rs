//! Scans: from bits to coefficients, block by block (T.81 annexes F and G).

use super::{
    Component, Frame, ZIGZAG, broken,
    huffman::{Bits, Table},
    inverse::inverse,
};
use crate::PictureError;

/// A component of a scan and its tables.
pub(super) struct ScanPart<'a> {
    pub(super) component: usize,
    pub(super) dc: Option<&'a Table>,
    pub(super) ac: Option<&'a Table>,
}

pub(super) struct Scan<'a> {
    pub(super) parts: Vec<ScanPart<'a>>,
    /// First and last coefficient.
    pub(super) band: (usize, usize),
    /// Successive approximation: the bit that was sent last, and the one sent now.
    pub(super) high: u8,
    pub(super) low: u8,
    /// Units between restart markers; 0 for none.
    pub(super) restart: usize,
}

/// What is carried from block to block.
struct Carry {
    /// The last DC value of each part.
    dc: [i32; 4],
    /// Blocks that end where they begin.
    end_of_bands: u32,
}

impl Scan<'_> {
    /// Decodes the scan; returns how many bytes of `data` it took.
    pub(super) fn decode(&self, frame: &mut Frame, data: &[u8]) -> Result<usize, PictureError> {
        self.check(frame)?;
        for part in &self.parts {
            let component = &mut frame.components[part.component];
            let blocks = component.blocks_wide * component.blocks_high;
            // Samples of a progressive picture are made at its end, but their place marks that
            // the component has been seen.
            component.samples.resize(64 * blocks, 0);
            if frame.progressive && component.coefficients.is_empty() {
                component.coefficients = vec![[0; 64]; blocks];
            }
        }
        let (units_wide, units_high) = match self.parts.as_slice() {
            // A component alone is sent without the blocks that only fill up its units.
            [part] => {
                let component = &frame.components[part.component];
                (component.width.div_ceil(8), component.height.div_ceil(8))
            }
            _ => (frame.width.div_ceil(8 * frame.h), frame.height.div_ceil(8 * frame.v)),
        };
        let alone = self.parts.len() == 1;
        let mut bits = Bits::new(data);
        let mut carry = Carry { dc: [0; 4], end_of_bands: 0 };
        for unit in 0..units_wide * units_high {
            if self.restart > 0 && unit > 0 && unit % self.restart == 0 {
                bits.restart(((unit / self.restart - 1) % 8) as u8)?;
                carry = Carry { dc: [0; 4], end_of_bands: 0 };
            }
            let (x, y) = (unit % units_wide, unit / units_wide);
            for (number, part) in self.parts.iter().enumerate() {
                let component = &mut frame.components[part.component];
                let (h, v) = if alone { (1, 1) } else { (component.h, component.v) };
                for inner in 0..h * v {
                    let column = x * h + inner % h;
                    let row = y * v + inner / h;
                    let at = row * component.blocks_wide + column;
                    if frame.progressive {
                        let block = &mut component.coefficients[at];
                        self.progressive(&mut bits, part, block, &mut carry, number)?;
                    } else {
                        sequential(
                            &mut bits,
                            part,
                            component,
                            (column, row),
                            &mut carry.dc[number],
                        )?;
                    }
                }
            }
        }
        Ok(bits.position())
    }

    fn check(&self, frame: &Frame) -> Result<(), PictureError> {
        let (first, last) = self.band;
        if frame.progressive {
            let fits = if first == 0 {
                last == 0
            } else {
                first <= last && last < 64 && self.parts.len() == 1
            };
            if !fits || self.low > 13 || (self.high != 0 && self.high != self.low + 1) {
                return Err(broken(format!(
                    "a progressive scan of coefficients {first} to {last}, bits {} to {}",
                    self.high, self.low
                )));
            }
        }
        let blocks: usize = self
            .parts
            .iter()
            .map(|part| &frame.components[part.component])
            .map(|c| c.h * c.v)
            .sum();
        if self.parts.len() > 1 && blocks > 10 {
            return Err(broken(format!("{blocks} blocks in a unit, sampling factors allow 10")));
        }
        let refined =
            |part: &&ScanPart<'_>| frame.components[part.component].coefficients.is_empty();
        if frame.progressive
            && (first > 0 || self.high > 0)
            && self.parts.iter().any(|p| refined(&p))
        {
            return Err(broken("a progressive scan refines what was never sent"));
        }
        let needs_dc = first == 0 && self.high == 0;
        let needs_ac = !frame.progressive || first > 0;
        for part in &self.parts {
            if (needs_dc && part.dc.is_none()) || (needs_ac && part.ac.is_none()) {
                return Err(broken("a scan uses a Huffman table that was not defined"));
            }
        }
        Ok(())
    }

    fn progressive(
        &self,
        bits: &mut Bits<'_>,
        part: &ScanPart<'_>,
        block: &mut [i16; 64],
        carry: &mut Carry,
        number: usize,
    ) -> Result<(), PictureError> {
        match (self.band.0, self.high, part.dc, part.ac) {
            (0, 0, Some(table), _) => {
                carry.dc[number] = dc(bits, table, carry.dc[number])?;
                block[0] = (carry.dc[number] << self.low) as i16;
            }
            (0, ..) => block[0] |= (bits.take(1)? << self.low) as i16,
            (_, 0, _, Some(table)) => self.first_band(bits, table, block, carry)?,
            (_, _, _, Some(table)) => self.refine_band(bits, table, block, carry)?,
            // `check` has made sure of the tables.
            _ => {}
        }
        Ok(())
    }

    /// The first scan of a band (figure G.3).
    fn first_band(
        &self,
        bits: &mut Bits<'_>,
        table: &Table,
        block: &mut [i16; 64],
        carry: &mut Carry,
    ) -> Result<(), PictureError> {
        if carry.end_of_bands > 0 {
            carry.end_of_bands -= 1;
            return Ok(());
        }
        let mut k = self.band.0;
        while k <= self.band.1 {
            let symbol = bits.symbol(table)?;
            let (run, size) = (usize::from(symbol >> 4), u32::from(symbol & 15));
            if size == 0 && run < 15 {
                carry.end_of_bands = (1 << run) + bits.take(run as u32)? - 1;
                break;
            }
            k += run;
            if size > 0 {
                let value = bits.signed(size)? << self.low;
                *coefficient(block, k)? = value as i16;
            }
            k += 1;
        }
        Ok(())
    }

    /// A later scan of a band, which sends one bit more (section G.1.2.3).
    fn refine_band(
        &self,
        bits: &mut Bits<'_>,
        table: &Table,
        block: &mut [i16; 64],
        carry: &mut Carry,
    ) -> Result<(), PictureError> {
        let bit = 1i16 << self.low;
        let mut k = self.band.0;
        if carry.end_of_bands == 0 {
            while k <= self.band.1 {
                let symbol = bits.symbol(table)?;
                let (mut run, size) = (symbol >> 4, symbol & 15);
                let mut value = 0;
                match size {
                    0 if run < 15 => {
                        carry.end_of_bands = (1 << run) + bits.take(run.into())?;
                        break;
                    }
                    0 => {}
                    1 => value = if bits.take(1)? == 1 { bit } else { -bit },
                    _ => return Err(broken("a refinement by more than one bit")),
                }
                // Zeros are counted; what is not zero gets its next bit on the way.
                while k <= self.band.1 {
                    let place = coefficient(block, k)?;
                    if *place != 0 {
                        refine(bits, place, bit)?;
                    } else if run == 0 {
                        *place = value;
                        break;
                    } else {
                        run -= 1;
                    }
                    k += 1;
                }
                k += 1;
            }
        }
        if carry.end_of_bands > 0 {
            for k in k..=self.band.1 {
                let place = coefficient(block, k)?;
                if *place != 0 {
                    refine(bits, place, bit)?;
                }
            }
            carry.end_of_bands -= 1;
        }
        Ok(())
    }
}

fn refine(bits: &mut Bits<'_>, place: &mut i16, bit: i16) -> Result<(), PictureError> {
    if bits.take(1)? == 1 && *place & bit == 0 {
        *place = place.wrapping_add(if *place > 0 { bit } else { -bit });
    }
    Ok(())
}

fn coefficient(block: &mut [i16; 64], k: usize) -> Result<&mut i16, PictureError> {
    let place = ZIGZAG.get(k).ok_or_else(|| broken("a run of zeros beyond the end of a block"))?;
    Ok(&mut block[usize::from(*place)])
}

fn dc(bits: &mut Bits<'_>, table: &Table, last: i32) -> Result<i32, PictureError> {
    let size = bits.symbol(table)?;
    if size > 15 {
        return Err(broken(format!("a difference of {size} bits")));
    }
    // Kept to 16 bits, so that no sequence of differences overflows.
    Ok(i32::from((last + bits.signed(size.into())?) as i16))
}

/// A whole block of a sequential picture, transformed at once.
fn sequential(
    bits: &mut Bits<'_>,
    part: &ScanPart<'_>,
    component: &mut Component,
    (column, row): (usize, usize),
    last: &mut i32,
) -> Result<(), PictureError> {
    let (Some(dc_table), Some(ac_table), Some(steps)) = (part.dc, part.ac, &component.steps) else {
        return Err(broken("a scan without tables"));
    };
    let mut block = [0i16; 64];
    *last = dc(bits, dc_table, *last)?;
    block[0] = *last as i16;
    let mut k = 1;
    while k < 64 {
        let symbol = bits.symbol(ac_table)?;
        let (run, size) = (usize::from(symbol >> 4), u32::from(symbol & 15));
        if size == 0 {
            if run < 15 {
                break;
            }
            k += 16;
            continue;
        }
        k += run;
        *coefficient(&mut block, k)? = bits.signed(size)? as i16;
        k += 1;
    }
    let stride = 8 * component.blocks_wide;
    let start = 8 * (row * stride + column);
    inverse(&block, steps, &mut component.samples[start..], stride);
    Ok(())
}
