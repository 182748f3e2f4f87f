//! Values that are not what the kind of their column makes of the others.
//!
//! ```text
//! | exceptions, their gaps | their lengths | their bytes |
//! ```

use super::decode::Bytes;
use super::{ColumnFault, Values};
use crate::Error;
use crate::varint::put;

/// Appends the values in `rows`, which ascend, as they are.
pub(super) fn put_exceptions(rows: &[u32], values: Values<'_>, out: &mut Vec<u8>) {
    put(out, rows.len() as u64);
    let mut next = 0;
    for row in rows {
        put(out, u64::from(row - next));
        next = row + 1;
    }
    rows.iter().for_each(|row| put(out, values.get(*row as usize).len() as u64));
    rows.iter().for_each(|row| out.extend_from_slice(values.get(*row as usize)));
}

impl<'a> Bytes<'_, 'a> {
    /// Rows that are exceptions, of at least `each` bytes: their count, and the rows left out before each.
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
