//! Values as they are: one a line, or lengths and bytes.

use super::decode::Bytes;
use super::sink::Sink;
use super::{ColumnFault, Values};
use crate::Error;
use crate::varint::put;

/// Appends each value and a newline; false (and nothing) if a value holds one itself.
pub(super) fn put_lines(values: Values<'_>, out: &mut Vec<u8>) -> bool {
    let start = out.len();
    for value in values.iter() {
        out.extend_from_slice(value);
        out.push(b'\n');
    }
    // One count over all is faster than a test per value.
    let fits = out[start..].iter().filter(|byte| **byte == b'\n').count() == values.len();
    if !fits {
        out.truncate(start);
    }
    fits
}

/// Appends the length of each value, then the bytes of all.
pub(super) fn put_lengths(values: Values<'_>, out: &mut Vec<u8>) {
    values.iter().for_each(|value| put(out, value.len() as u64));
    values.iter().for_each(|value| out.extend_from_slice(value));
}

pub(super) fn read_lines(
    quoted: bool,
    count: usize,
    bytes: &mut Bytes<'_, '_>,
    sink: &mut Sink,
) -> Result<(), Error> {
    let (all, mut at) = (bytes.reader.rest(), 0);
    for _ in 0..count {
        let length = find(&all[at..], b'\n').ok_or_else(|| bytes.fault(ColumnFault::Unended))?;
        sink.push_part(all, at, length, quoted).map_err(|fault| bytes.fault(fault))?;
        at += length + 1;
    }
    bytes.take(at).map(|_| ())
}

pub(super) fn read_lengths(
    quoted: bool,
    count: usize,
    bytes: &mut Bytes<'_, '_>,
    lengths: &mut Vec<u32>,
    sink: &mut Sink,
) -> Result<(), Error> {
    if count > bytes.reader.remaining() {
        return Err(Error::Truncated { section: bytes.reader.section });
    }
    lengths.clear();
    for _ in 0..count {
        lengths.push(bytes.reader.number_u32()?);
    }
    let (all, mut at) = (bytes.reader.rest(), 0);
    for &length in lengths.iter() {
        let length = length as usize;
        if length > all.len() - at {
            return Err(Error::Truncated { section: bytes.reader.section });
        }
        sink.push_part(all, at, length, quoted).map_err(|fault| bytes.fault(fault))?;
        at += length;
    }
    bytes.take(at).map(|_| ())
}

/// Where `byte` first is, eight bytes at a time: values are short, and the gap between two is what counts.
#[inline]
pub(super) fn find(bytes: &[u8], byte: u8) -> Option<usize> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let pattern = ONES * u64::from(byte);
    let mut at = 0;
    while let Some(word) = bytes[at..].first_chunk::<8>() {
        let other = u64::from_le_bytes(*word) ^ pattern;
        // The lowest marked byte is exact; borrows only reach higher ones.
        let marks = other.wrapping_sub(ONES) & !other & (ONES << 7);
        if marks != 0 {
            return Some(at + marks.trailing_zeros() as usize / 8);
        }
        at += 8;
    }
    bytes[at..].iter().position(|other| *other == byte).map(|rest| at + rest)
}
