//! Values that are not what the kind of their column makes of the others.
//!
//! ```text
//! | exceptions, their gaps | their lengths | their bytes |
//! ```

use super::decode::Bytes;
use super::{ColumnFault, Values};
use crate::Error;
use crate::varint::put;

/// Exceptions among so many values that a column of numbers has at most, if it may have some.
pub(super) fn most_exceptions(excepted: bool, values: usize) -> usize {
    if excepted { values.div_ceil(4) } else { 0 }
}

/// Appends how many rows there are, and for each, which ascend, how many are left out before it.
pub(super) fn put_rows(rows: &[u32], out: &mut Vec<u8>) {
    put(out, rows.len() as u64);
    let mut next = 0;
    for row in rows {
        put(out, u64::from(row - next));
        next = row + 1;
    }
}

/// Appends the values in `rows` as they are.
pub(super) fn put_exceptions(rows: &[u32], values: Values<'_>, out: &mut Vec<u8>) {
    put_rows(rows, out);
    rows.iter().for_each(|row| put(out, values.get(*row as usize).len() as u64));
    rows.iter().for_each(|row| out.extend_from_slice(values.get(*row as usize)));
}

impl<'a> Bytes<'_, 'a> {
    /// What [`put_rows`] wrote, of exceptions that have at least `each` bytes.
    pub(super) fn exceptions(&mut self, count: usize, each: usize, rows: &mut Vec<u32>) -> Result<(), Error> {
        rows.clear();
        let mut next = 0u32;
        for _ in 0..self.reader.count("exceptions", each, count as u64)? {
            let row = next.checked_add(self.reader.number_u32()?).filter(|row| (*row as usize) < count);
            let row = row.ok_or_else(|| self.fault(ColumnFault::Exception))?;
            rows.push(row);
            next = row + 1;
        }
        Ok(())
    }

    /// What [`put_exceptions`] wrote: the rows, and a value for each.
    pub(super) fn excepted(&mut self, count: usize, rows: &mut Vec<u32>) -> Result<Vec<&'a [u8]>, Error> {
        self.exceptions(count, 2, rows)?;
        let lengths: Vec<u32> =
            rows.iter().map(|_| self.reader.number_u32()).collect::<Result<_, Error>>()?;
        lengths.into_iter().map(|length| self.take(length as usize)).collect()
    }
}
