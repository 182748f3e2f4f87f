//! What a value wears in its record and not in its column: its length. A column holds bare values, so that text is text
//! whatever format it is from.

use super::scan::varint_bytes;
use crate::Error;
use crate::column::Branches;
use crate::varint::{Reader, put};

/// What stands before each value of a column.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Dress {
    #[default]
    Bare,
    /// Its length, as a varint.
    Length,
    /// Its length, as a zigzag varint.
    SignedLength,
    /// A branch and a signed length; a value that is the byte of the other branch, and nothing else, is that branch.
    Optional(Branches),
}

impl Dress {
    /// Bytes that are put before `value`.
    #[inline]
    pub(super) fn extra(self, value: &[u8]) -> usize {
        match self {
            Self::Bare => 0,
            Self::Length => varint_bytes(value.len() as u64),
            Self::SignedLength => varint_bytes(value.len() as u64 * 2),
            Self::Optional(branches) if value == [branches.none] => 0,
            Self::Optional(_) => 1 + varint_bytes(value.len() as u64 * 2),
        }
    }

    /// Appends what comes before `value`.
    #[inline]
    pub(super) fn put_before(self, value: &[u8], out: &mut Vec<u8>) {
        match self {
            Self::Bare => {}
            Self::Length => put(out, value.len() as u64),
            Self::SignedLength => put(out, value.len() as u64 * 2),
            Self::Optional(branches) if value == [branches.none] => {}
            Self::Optional(branches) => {
                out.push(branches.some);
                put(out, value.len() as u64 * 2);
            }
        }
    }

    /// Puts what comes before `value` to `at`, where there is room for it; returns where it ends.
    #[inline]
    pub(super) fn write_before(self, value: &[u8], into: &mut [u8], mut at: usize) -> usize {
        let mut length = match self {
            Self::Bare => return at,
            Self::Optional(branches) if value == [branches.none] => return at,
            Self::Optional(branches) => {
                into[at] = branches.some;
                at += 1;
                value.len() * 2
            }
            Self::SignedLength => value.len() * 2,
            Self::Length => value.len(),
        };
        while length >= 0x80 {
            into[at] = length as u8 | 0x80;
            (length, at) = (length >> 7, at + 1);
        }
        into[at] = length as u8;
        at + 1
    }

    /// Appends the dress of a column, which is not bare.
    pub(super) fn put(self, out: &mut Vec<u8>) {
        match self {
            Self::Bare => out.push(0),
            Self::Length => out.push(1),
            Self::SignedLength => out.push(2),
            Self::Optional(branches) => out.extend([3, branches.some, branches.none]),
        }
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, Error> {
        Ok(match reader.byte()? {
            1 => Self::Length,
            2 => Self::SignedLength,
            3 => Self::Optional(Branches { some: reader.byte()?, none: reader.byte()? }),
            _ => return Err(Error::Shape("a column's values wear what is not known")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONAL: Dress = Dress::Optional(Branches { some: 2, none: 0 });

    #[test]
    fn what_is_put_before_a_value_is_as_long_as_was_said() {
        for dress in [Dress::Bare, Dress::Length, Dress::SignedLength, OPTIONAL] {
            for value in [&b""[..], b"\x00", b"\x02", &[7; 63], &[7; 64], &[7; 127], &[7; 128], &[7; 9000]] {
                let mut out = Vec::new();
                dress.put_before(value, &mut out);
                assert_eq!(out.len(), dress.extra(value), "{dress:?} {}", value.len());
                let mut written = [0; 16];
                let end = dress.write_before(value, &mut written, 3);
                assert_eq!(written[3..end], out, "{dress:?} {}", value.len());
            }
        }
        let mut out = Vec::new();
        OPTIONAL.put_before(b"abc", &mut out);
        OPTIONAL.put_before(b"\x00", &mut out);
        Dress::Length.put_before(b"abc", &mut out);
        assert_eq!(out, [2, 6, 3]);
    }

    #[test]
    fn a_dress_is_read_as_it_was_written_and_others_are_refused() {
        for dress in [Dress::Length, Dress::SignedLength, OPTIONAL] {
            let mut bytes = Vec::new();
            dress.put(&mut bytes);
            assert_eq!(Dress::read(&mut Reader::new(&bytes, "test")).expect("known"), dress);
        }
        assert!(Dress::read(&mut Reader::new(&[0], "test")).is_err());
        assert!(Dress::read(&mut Reader::new(&[4], "test")).is_err());
    }
}
