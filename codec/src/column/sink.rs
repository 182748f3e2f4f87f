//! Where decoded values land: one arena, and the spans of each column.

use super::digits::Digits;
use super::{ColumnFault, Span};

/// Values of one parcel, column by column. Its limit bounds what hostile input can make of few bytes: a constant, a copy
/// or a dictionary entry costs its full length each time.
#[derive(Debug, Default)]
pub(crate) struct Sink {
    /// Values up to `at`, then room that was used before.
    arena: Vec<u8>,
    at: usize,
    spans: Vec<Span>,
    /// First span of each column.
    starts: Vec<usize>,
    /// By column: whether all its values are one.
    repeated: Vec<bool>,
    limit: usize,
    used: usize,
    moved: Vec<Span>,
}

impl Sink {
    /// Most bytes that all values of the next parcel may have together.
    pub(crate) fn set_limit(&mut self, bytes: usize) {
        self.limit = bytes;
    }

    /// Bytes of all values together, repeated ones each time.
    pub(crate) fn used(&self) -> usize {
        self.used
    }

    /// Where the values lie, and some bytes of no meaning behind them.
    pub(crate) fn arena(&self) -> &[u8] {
        &self.arena
    }

    /// The first value of each column of the list that was decoded, among all.
    pub(crate) fn starts(&self) -> &[usize] {
        &self.starts
    }

    /// Where the value at `index` among all lies.
    #[inline]
    pub(crate) fn nth(&self, index: usize) -> Span {
        self.spans[index]
    }

    /// The bytes of a value.
    #[inline]
    pub(crate) fn value(&self, span: Span) -> &[u8] {
        span.of(&self.arena)
    }

    /// What all values of the column at `index` in the list are, if they are one value.
    pub(crate) fn repeated(&self, index: usize) -> Option<Span> {
        self.repeated[index].then(|| self.spans[self.starts[index]])
    }

    /// Values of the column at `index` in the list that was decoded.
    pub(crate) fn column(&self, index: usize) -> &[Span] {
        let end = self.starts.get(index + 1).copied().unwrap_or(self.spans.len());
        &self.spans[self.starts[index]..end]
    }

    /// Bytes held.
    pub(crate) fn memory(&self) -> usize {
        self.arena.capacity()
            + (self.spans.capacity() + self.moved.capacity()) * size_of::<Span>()
            + self.starts.capacity() * size_of::<usize>()
            + self.repeated.capacity()
    }

    /// Gives memory back that a usual parcel does not need.
    pub(crate) fn trim(&mut self) {
        if self.arena.capacity() + self.spans.capacity() * size_of::<Span>() > KEEP {
            self.arena = Vec::new();
            self.spans = Vec::new();
            self.moved = Vec::new();
        }
    }

    pub(super) fn clear(&mut self) {
        self.trim();
        self.spans.clear();
        self.starts.clear();
        self.repeated.clear();
        (self.at, self.used) = (0, 0);
    }

    pub(super) fn begin_column(&mut self, values: usize) {
        self.starts.push(self.spans.len());
        self.repeated.push(false);
        self.spans.reserve(values);
    }

    #[inline]
    fn spend(&mut self, bytes: usize) -> Result<(), ColumnFault> {
        if bytes > self.limit.saturating_sub(self.used) {
            return Err(ColumnFault::TooLarge);
        }
        self.used += bytes;
        Ok(())
    }

    /// Makes sure that there is room for so many bytes, and [`SLACK`] behind them.
    #[inline]
    fn room(&mut self, bytes: usize) {
        if self.at + bytes + SLACK > self.arena.len() {
            self.grow(bytes);
        }
    }

    #[cold]
    fn grow(&mut self, bytes: usize) {
        let most = self.limit.saturating_sub(self.used) + bytes;
        let more = self.arena.len().clamp(64 * 1024, most.max(64 * 1024));
        self.arena.resize(self.at + bytes.max(more) + SLACK, 0);
    }

    /// Appends bytes for which room was made.
    #[inline]
    fn append(&mut self, bytes: &[u8]) {
        self.arena[self.at..self.at + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
    }

    /// A value, with quotes around it if `quoted`.
    #[inline]
    pub(super) fn push(&mut self, value: &[u8], quoted: bool) -> Result<(), ColumnFault> {
        self.push_part(value, 0, value.len(), quoted)
    }

    /// So many bytes of `source` from `start` on as a value, with quotes around it if `quoted`. What follows them in
    /// `source` makes it faster.
    #[inline]
    pub(super) fn push_part(
        &mut self,
        source: &[u8],
        start: usize,
        length: usize,
        quoted: bool,
    ) -> Result<(), ColumnFault> {
        let quote = usize::from(quoted);
        self.spend(length + 2 * quote)?;
        self.room(length + 2 * quote);
        let begin = self.at;
        // Written in any case, and written over if there is none.
        self.arena[begin] = b'"';
        let at = begin + quote;
        if length <= SLACK - 2
            && let Some(from) = source.get(start..).and_then(<[u8]>::first_chunk::<{ SLACK - 2 }>)
            && let Some(to) = self.arena.get_mut(at..).and_then(<[u8]>::first_chunk_mut::<{ SLACK - 2 }>)
        {
            *to = *from;
        } else {
            self.arena[at..at + length].copy_from_slice(&source[start..start + length]);
        }
        self.arena[at + length] = b'"';
        self.at = at + length + quote;
        self.spans.push(Span { start: begin as u32, end: self.at as u32 });
        Ok(())
    }

    /// A value that lies in the arena already.
    #[inline]
    pub(super) fn push_again(&mut self, span: Span) -> Result<(), ColumnFault> {
        self.spend(span.len())?;
        self.spans.push(span);
        Ok(())
    }

    /// A number as text.
    #[inline]
    pub(super) fn push_digits(&mut self, digits: &Digits, quoted: bool) -> Result<(), ColumnFault> {
        let (source, start, length) = digits.parts();
        self.push_part(source, start, length, quoted)
    }

    /// A value that lies in the arena already, with text around it.
    pub(super) fn push_framed(
        &mut self,
        prefix: &[u8],
        inner: Span,
        suffix: &[u8],
    ) -> Result<(), ColumnFault> {
        let bytes = prefix.len() + inner.len() + suffix.len();
        self.spend(bytes)?;
        self.room(bytes);
        let start = self.at as u32;
        self.append(prefix);
        self.arena.copy_within(inner.start as usize..inner.end as usize, self.at);
        self.at += inner.len();
        self.append(suffix);
        self.spans.push(Span { start, end: self.at as u32 });
        Ok(())
    }

    /// The same value `count` times, which are all of the column; it is stored once.
    pub(super) fn push_repeated(&mut self, value: &[u8], count: usize) -> Result<(), ColumnFault> {
        self.spend(value.len().checked_mul(count).ok_or(ColumnFault::TooLarge)?)?;
        self.room(value.len());
        let start = self.at as u32;
        self.append(value);
        let span = Span { start, end: self.at as u32 };
        self.spans.extend(std::iter::repeat_n(span, count));
        if let Some(repeated) = self.repeated.last_mut() {
            *repeated = true;
        }
        Ok(())
    }

    /// Moves the values of the current column from the order in which they were decoded to their rows.
    pub(super) fn reorder(&mut self, order: &[u32]) {
        let column = self.spans.len() - order.len();
        let spans = &mut self.spans[column..];
        self.moved.clear();
        self.moved.extend_from_slice(spans);
        for (span, row) in self.moved.iter().zip(order) {
            spans[*row as usize] = *span;
        }
    }

    pub(super) fn span(&self, column: usize, row: usize) -> Span {
        self.spans[self.starts[column] + row]
    }
}

/// Bytes that are copied at once; so many lie behind the last value.
const SLACK: usize = 32;
/// Capacity of the arena that is kept from one parcel to the next; a larger one is given back.
const KEEP: usize = 2 << 20;
