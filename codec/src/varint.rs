//! Variable-length numbers, and a reader that never goes past the end.

use crate::Error;

/// Appends `number`, seven bits a byte, low bits first (LEB128).
pub(crate) fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Appends `number` so that small magnitudes of both signs are short (zigzag).
pub(crate) fn put_signed(out: &mut Vec<u8>, number: i64) {
    put(out, ((number << 1) ^ (number >> 63)) as u64);
}

/// Reads numbers and bytes in order; errors name the section that was being read.
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    pub(crate) section: &'static str,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8], section: &'static str) -> Self {
        Self { bytes, at: 0, section }
    }

    pub(crate) fn at(&self) -> usize {
        self.at
    }

    pub(crate) fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// The bytes that are left.
    pub(crate) fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    pub(crate) fn byte(&mut self) -> Result<u8, Error> {
        let byte = *self.bytes.get(self.at).ok_or(Error::Truncated { section: self.section })?;
        self.at += 1;
        Ok(byte)
    }

    pub(crate) fn take(&mut self, length: usize) -> Result<&'a [u8], Error> {
        if length > self.remaining() {
            return Err(Error::Truncated { section: self.section });
        }
        let bytes = &self.bytes[self.at..][..length];
        self.at += length;
        Ok(bytes)
    }

    #[inline]
    pub(crate) fn number(&mut self) -> Result<u64, Error> {
        match self.bytes.get(self.at) {
            Some(&byte) if byte < 0x80 => {
                self.at += 1;
                Ok(u64::from(byte))
            }
            _ => self.long_number(),
        }
    }

    pub(crate) fn signed(&mut self) -> Result<i64, Error> {
        let number = self.number()?;
        Ok((number >> 1) as i64 ^ -((number & 1) as i64))
    }

    pub(crate) fn number_u32(&mut self) -> Result<u32, Error> {
        self.number()?.try_into().map_err(|_| self.out_of_range())
    }

    /// A count of things that take at least `each` bytes, so that the rest of the data bounds it.
    pub(crate) fn count(&mut self, what: &'static str, each: usize, limit: u64) -> Result<u64, Error> {
        let actual = self.number()?;
        let limit = limit.min((self.remaining() / each) as u64);
        if actual > limit { Err(Error::TooMuch { what, actual, limit }) } else { Ok(actual) }
    }

    pub(crate) fn out_of_range(&self) -> Error {
        Error::Number { section: self.section }
    }

    #[cold]
    fn long_number(&mut self) -> Result<u64, Error> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            if shift == 63 && byte > 1 {
                return Err(self.out_of_range());
            }
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(self.out_of_range())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_back() {
        let mut bytes = Vec::new();
        let numbers = [0, 1, 127, 128, 300, u64::from(u32::MAX), 1 << 62, u64::MAX - 1, u64::MAX];
        let signed = [0, -1, 1, -64, 64, i64::MIN, i64::MAX, -1_700_000_000_000];
        numbers.iter().for_each(|number| put(&mut bytes, *number));
        signed.iter().for_each(|number| put_signed(&mut bytes, *number));
        let mut reader = Reader::new(&bytes, "test");
        assert!(numbers.iter().all(|number| reader.number() == Ok(*number)));
        assert!(signed.iter().all(|number| reader.signed() == Ok(*number)));
        assert_eq!(reader.remaining(), 0);
        assert_eq!(reader.number(), Err(Error::Truncated { section: "test" }));
    }

    #[test]
    fn numbers_beyond_64_bits_are_refused() {
        let read = |bytes: &[u8]| Reader::new(bytes, "test").number();
        let too_large = Err(Error::Number { section: "test" });
        assert_eq!(read(&[[0xff; 9].as_slice(), &[0x02]].concat()), too_large);
        assert_eq!(read(&[0x80; 11]), too_large);
        assert_eq!(read(&[[0xff; 9].as_slice(), &[0x01]].concat()), Ok(u64::MAX));
        assert_eq!(read(&[0x80, 0x80]), Err(Error::Truncated { section: "test" }));
    }

    #[test]
    fn counts_are_bounded_by_the_bytes_that_are_left() {
        let mut reader = Reader::new(&[3, 0, 0, 0, 0, 0], "test");
        assert_eq!(
            reader.count("things", 2, 100),
            Err(Error::TooMuch { what: "things", actual: 3, limit: 2 })
        );
    }
}
