//! A walk over Thrift's compact encoding that allocates nothing.
//!
//! Footers and page headers of Parquet are Thrift structures, and the sizes in them decide what a
//! decoder allocates. This walk reads the whole numbers out of them first, so that they can be
//! compared with the file before anybody believes them.

use std::io::{self, Read};

/// Structures within structures, and lists within lists, at most.
const DEEPEST: usize = 24;

/// Stands in a path for the number of structures in a list.
pub(super) const COUNT: i16 = -1;

/// Walks over one structure and gives every whole number to `see`, with the fields that lead to
/// it. An element of a list has its list's path; `see` is called for it in order. The number of
/// structures in a list comes first, as field [`COUNT`].
///
/// # Errors
/// `UnexpectedEof` where the bytes end, `InvalidData` for what is no Thrift, and whatever `see`
/// says.
pub(super) fn walk<R: Read>(
    reader: &mut R,
    see: &mut dyn FnMut(&[i16], i64) -> io::Result<()>,
) -> io::Result<()> {
    Walk { reader, see, path: Vec::with_capacity(DEEPEST) }.structure()
}

struct Walk<'a, R> {
    reader: &'a mut R,
    see: &'a mut dyn FnMut(&[i16], i64) -> io::Result<()>,
    path: Vec<i16>,
}

fn bad(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.to_owned())
}

impl<R: Read> Walk<'_, R> {
    fn byte(&mut self) -> io::Result<u8> {
        let mut byte = [0];
        self.reader.read_exact(&mut byte)?;
        Ok(byte[0])
    }

    /// An unsigned number of seven bits a byte.
    fn unsigned(&mut self) -> io::Result<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(bad("a number without end"))
    }

    /// A signed number, its sign in the lowest bit.
    fn signed(&mut self) -> io::Result<i64> {
        let value = self.unsigned()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    fn skip(&mut self, count: u64) -> io::Result<()> {
        match io::copy(&mut self.reader.by_ref().take(count), &mut io::sink())? {
            n if n == count => Ok(()),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn structure(&mut self) -> io::Result<()> {
        if self.path.len() >= DEEPEST {
            return Err(bad("structures within structures beyond all measure"));
        }
        let mut field = 0i16;
        loop {
            let head = self.byte()?;
            let kind = head & 0x0f;
            if head == 0 {
                return Ok(());
            }
            field = match head >> 4 {
                0 => i16::try_from(self.signed()?).map_err(|_| bad("a field's number"))?,
                step => field.checked_add(step.into()).ok_or_else(|| bad("a field's number"))?,
            };
            self.path.push(field);
            // A flag as a field is its kind.
            if !matches!(kind, 1 | 2) {
                self.value(kind)?;
            }
            self.path.pop();
        }
    }

    fn value(&mut self, kind: u8) -> io::Result<()> {
        match kind {
            1..=3 => self.skip(1),
            4..=6 => {
                let value = self.signed()?;
                (self.see)(&self.path, value)
            }
            7 => self.skip(8),
            8 => {
                let length = self.unsigned()?;
                self.skip(length)
            }
            9 | 10 => {
                let head = self.byte()?;
                let count = match head >> 4 {
                    15 => self.unsigned()?,
                    few => few.into(),
                };
                if head & 0x0f == 12 {
                    self.path.push(COUNT);
                    (self.see)(&self.path, i64::try_from(count).unwrap_or(i64::MAX))?;
                    self.path.pop();
                }
                (0..count).try_for_each(|_| self.element(head & 0x0f))
            }
            11 => {
                let count = self.unsigned()?;
                if count == 0 {
                    return Ok(());
                }
                let kinds = self.byte()?;
                (0..count).try_for_each(|_| {
                    self.element(kinds >> 4)?;
                    self.element(kinds & 0x0f)
                })
            }
            12 => self.structure(),
            _ => Err(bad("a value of no known kind")),
        }
    }

    /// An element of a list; lists of lists count as structures do.
    fn element(&mut self, kind: u8) -> io::Result<()> {
        if !matches!(kind, 9..=11) {
            return self.value(kind);
        }
        if self.path.len() >= DEEPEST {
            return Err(bad("lists within lists beyond all measure"));
        }
        self.path.push(0);
        self.value(kind)?;
        self.path.pop();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(mut bytes: &[u8]) -> io::Result<Vec<(Vec<i16>, i64)>> {
        let mut found = Vec::new();
        walk(&mut bytes, &mut |path, value| {
            found.push((path.to_vec(), value));
            Ok(())
        })?;
        Ok(found)
    }

    #[test]
    fn numbers_come_with_their_path() {
        // 1: i32 = -3; 2: list of two structures {1: i64 = 300}; 4: text "ab"; 5: true; 6: double.
        let bytes = [
            0x15, 0x05, 0x19, 0x2c, 0x16, 0xd8, 0x04, 0x00, 0x16, 0x02, 0x00, 0x28, 2, b'a', b'b',
            0x11, 0x17, 0, 0, 0, 0, 0, 0, 0, 0, 0x00,
        ];
        let found = numbers(&bytes).unwrap();
        let expected = [(vec![1], -3), (vec![2, COUNT], 2), (vec![2, 1], 300), (vec![2, 1], 1)];
        assert_eq!(found, expected);
        for cut in 0..bytes.len() {
            let error = numbers(&bytes[..cut]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{cut}");
        }
    }

    #[test]
    fn nonsense_ends() {
        assert!(numbers(&[0x1c; 1000]).unwrap_err().to_string().contains("beyond all measure"));
        assert!(numbers(&[0x19; 1000]).is_err());
        // A list that claims more elements than there are bytes.
        assert!(numbers(&[0x19, 0xf5, 0xff, 0xff, 0xff, 0xff, 0x0f, 1, 1]).is_err());
        assert!(
            numbers(&[0x15, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]).is_err()
        );
        assert!(numbers(&[0x1d]).is_err());
    }
}
