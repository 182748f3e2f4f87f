//! The values of one slot over a parcel, as few bytes: the column kinds.
//!
//! - [`ColumnEncoders`], [`ColumnDecoders`]: all columns of a lane epoch, one object at each end. They keep the same
//!   state (each column's kind, dictionary, last numbers), which is bounded by [`ROOM`] and by the columns of a parcel.
//! - [`Input`], [`Expected`]: a column of a parcel as the encoder has it, and what the decoder knows of it beforehand.
//! - [`Origins`]: which record each value is from.
//! - [`SeriesEncoder`], [`SeriesDecoder`]: numbers that are not in a column, as the records' timestamps.
//! - [`Sink`]: where decoded values land.
//!
//! # Layout
//! ```text
//! | varint changed columns | per change: varint gap, kind, flags, [order], parameters | bodies, one after the other |
//! ```
//! A column without a change is of the kind that it was of before (text, at first), so that a parcel which goes on as the
//! last one costs one byte for all headers. A change with [`ONCE`](choice::ONCE) is for this parcel only and leaves the
//! column's state alone: that is how values which do not fit their column's kind travel. One that is
//! [kept](choice::Change) leaves it alone where the kind stays: a dictionary whose ids become wide, numbers with
//! [`EXCEPTED`](choice::EXCEPTED), of which from then on those that are no such numbers (a null, an exponent) stand before
//! the others, with [their rows](exception); where another kind has a dictionary too, it leaves that. Any other change
//! begins with fresh state.
//!
//! # What must stay true
//! - A kind takes a value only when decoding gives the same bytes back (canonical numbers, dates that exist, hexadecimal
//!   in one case); else the column goes as text or as lengths and bytes. Encoding never fails.
//! - Encoding changes state only when it succeeds, and both ends change it alike.
//! - A column refers to earlier columns of the same parcel only: each value to one of its own record. The other column has
//!   such a value in all records that the column has one of, but for copies: there what is missing is an exception.
//! - The decoder checks every count, length, number and reference before use, and what it makes is bounded by the sink.

mod binary;
mod blocks;
mod candidate;
mod choice;
mod copy;
mod decimal;
mod decode;
mod dictionary;
mod digits;
mod encode;
mod exception;
mod fault;
mod number;
mod origin;
mod packed;
mod parsed;
mod pattern;
mod range;
mod recall;
mod recurring;
mod series;
mod sink;
#[cfg(test)]
mod tests;
mod text;
mod time;
mod trial;

pub(crate) use binary::{Binary, Branches, Form};
pub(crate) use decode::{ColumnDecoders, Expected};
pub(crate) use encode::{ColumnEncoders, Input};
pub use fault::ColumnFault;
pub(crate) use number::common_divisor;
pub(crate) use origin::Origins;
pub(crate) use series::{SeriesDecoder, SeriesEncoder};
pub(crate) use sink::Sink;

/// Columns that a lane epoch can have: ids are below this.
pub(crate) const MAX_COLUMNS: u32 = 4096;
/// Most values of one parcel, over all its columns.
pub(crate) const MAX_VALUES: usize = 1 << 19;
/// Bytes of state that all columns of a lane epoch together may hold, as counted alike at both ends: dictionary entries
/// and numbers remembered per dictionary entry. What does not fit is not remembered.
const ROOM: usize = 5 << 20;
/// Longest value that can be a column's constant, which both ends keep.
const MAX_CONSTANT: usize = 1024;

/// A value: a range of an arena.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) start: u32,
    pub(crate) end: u32,
}

impl Span {
    /// Stands for a value that there is not.
    const NONE: Self = Self { start: u32::MAX, end: u32::MAX };

    fn of(self, arena: &[u8]) -> &[u8] {
        &arena[self.start as usize..self.end as usize]
    }

    fn len(self) -> usize {
        (self.end - self.start) as usize
    }
}

/// Values to be encoded, without their quotes if `strip` is 1.
#[derive(Clone, Copy)]
struct Values<'a> {
    arena: &'a [u8],
    spans: &'a [Span],
    strip: u32,
}

impl<'a> Values<'a> {
    fn len(&self) -> usize {
        self.spans.len()
    }

    #[inline]
    fn range(&self, index: usize) -> (usize, usize) {
        let span = self.spans[index];
        ((span.start + self.strip) as usize, (span.end - self.strip) as usize)
    }

    #[inline]
    fn get(&self, index: usize) -> &'a [u8] {
        let (start, end) = self.range(index);
        &self.arena[start..end]
    }

    fn iter(self) -> impl Iterator<Item = &'a [u8]> {
        (0..self.spans.len()).map(move |index| self.get(index))
    }

    /// Whether each value is `value`. Where neighbours lie in one place, they are looked at once.
    fn are_all(self, value: &[u8]) -> bool {
        let mut last = None;
        self.spans.iter().enumerate().all(|(index, span)| {
            let seen = last == Some(*span);
            last = Some(*span);
            seen || equal(self.get(index), value)
        })
    }

    /// The same values without quotes, if all of them have some.
    fn stripped(self) -> Option<Self> {
        let quoted = self.iter().all(is_quoted);
        quoted.then_some(Self { strip: 1, ..self })
    }
}

/// Whether both are the same bytes: short ones, which most values are, by a word or two.
#[inline]
fn equal(one: &[u8], other: &[u8]) -> bool {
    let length = one.len();
    if length != other.len() {
        return false;
    }
    match (one.first_chunk::<8>(), other.first_chunk::<8>()) {
        (Some(head), Some(other_head)) if length <= 16 => {
            head == other_head && one.last_chunk::<8>() == other.last_chunk::<8>()
        }
        (Some(_), Some(_)) if length <= 32 => {
            one.first_chunk::<16>() == other.first_chunk::<16>()
                && one.last_chunk::<16>() == other.last_chunk::<16>()
        }
        (None, _) => match (one.first_chunk::<4>(), other.first_chunk::<4>()) {
            (Some(head), Some(other_head)) => {
                head == other_head && one.last_chunk::<4>() == other.last_chunk::<4>()
            }
            _ => one.iter().zip(other).all(|(one, other)| one == other),
        },
        _ => one == other,
    }
}

fn is_quoted(value: &[u8]) -> bool {
    value.len() >= 2 && value[0] == b'"' && value[value.len() - 1] == b'"'
}

/// Bytes of state that are still free. Both ends count alike, so that both stop remembering at the same value.
#[derive(Debug)]
struct Room {
    left: usize,
}

impl Default for Room {
    fn default() -> Self {
        Self { left: ROOM }
    }
}

impl Room {
    fn take(&mut self, bytes: usize) -> bool {
        let fits = bytes <= self.left;
        if fits {
            self.left -= bytes;
        }
        fits
    }
}

/// Where the values of a column stand once they are ordered by the dictionary ids of another: stable, so that both ends
/// find the same order. `order[k]` is the row of the k-th value.
fn order_by(ids: &[u32], order: &mut Vec<u32>) {
    order.clear();
    order.extend(0..ids.len() as u32);
    let highest = ids.iter().copied().max().unwrap_or(0) as usize;
    if highest >= 4 * ids.len() {
        order.sort_by_key(|row| ids[*row as usize]);
        return;
    }
    let mut starts = vec![0u32; highest + 2];
    ids.iter().for_each(|id| starts[*id as usize + 1] += 1);
    for index in 1..starts.len() {
        starts[index] += starts[index - 1];
    }
    for (row, id) in ids.iter().enumerate() {
        let start = &mut starts[*id as usize];
        order[*start as usize] = row as u32;
        *start += 1;
    }
}
