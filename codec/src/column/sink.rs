//! Where decoded values land: one arena, and the spans of each column.

use super::{ColumnFault, Span};

/// Values of one parcel, column by column. Its limit bounds what hostile input can make of few bytes: a constant, a copy
/// or a dictionary entry costs its full length each time.
#[derive(Debug, Default)]
pub(crate) struct Sink {
    arena: Vec<u8>,
    spans: Vec<Span>,
    /// First span of each column.
    starts: Vec<usize>,
    limit: usize,
    used: usize,
    moved: Vec<Span>,
}

impl Sink {
    /// Most bytes that all values of the next parcel may have together.
    pub(crate) fn set_limit(&mut self, bytes: usize) {
        self.limit = bytes;
    }

    #[cfg(test)]
    pub(super) fn arena(&self) -> &[u8] {
        &self.arena
    }

    /// The bytes of a value.
    #[inline]
    pub(crate) fn value(&self, span: Span) -> &[u8] {
        span.of(&self.arena)
    }

    /// Bytes that all values have together.
    pub(crate) fn used(&self) -> usize {
        self.used
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
    }

    pub(super) fn clear(&mut self) {
        if self.arena.capacity() > KEEP {
            self.arena = Vec::new();
            self.spans = Vec::new();
            self.moved = Vec::new();
        }
        self.arena.clear();
        self.spans.clear();
        self.starts.clear();
        self.used = 0;
    }

    pub(super) fn begin_column(&mut self, values: usize) {
        self.starts.push(self.spans.len());
        self.spans.reserve(values);
    }

    fn spend(&mut self, bytes: usize) -> Result<(), ColumnFault> {
        if bytes > self.limit.saturating_sub(self.used) {
            return Err(ColumnFault::TooLarge);
        }
        self.used += bytes;
        Ok(())
    }

    /// A value, with quotes around it if `quoted`.
    #[inline]
    pub(super) fn push(&mut self, value: &[u8], quoted: bool) -> Result<(), ColumnFault> {
        self.spend(value.len() + 2 * usize::from(quoted))?;
        let start = self.arena.len() as u32;
        if quoted {
            self.arena.push(b'"');
            self.arena.extend_from_slice(value);
            self.arena.push(b'"');
        } else {
            self.arena.extend_from_slice(value);
        }
        self.spans.push(Span { start, end: self.arena.len() as u32 });
        Ok(())
    }

    /// A value that lies in the arena already.
    #[inline]
    pub(super) fn push_again(&mut self, span: Span) -> Result<(), ColumnFault> {
        self.spend(span.len())?;
        self.spans.push(span);
        Ok(())
    }

    /// A value that lies in the arena already, with text around it.
    pub(super) fn push_framed(
        &mut self,
        prefix: &[u8],
        inner: Span,
        suffix: &[u8],
    ) -> Result<(), ColumnFault> {
        self.spend(prefix.len() + inner.len() + suffix.len())?;
        let start = self.arena.len() as u32;
        self.arena.extend_from_slice(prefix);
        self.arena.extend_from_within(inner.start as usize..inner.end as usize);
        self.arena.extend_from_slice(suffix);
        self.spans.push(Span { start, end: self.arena.len() as u32 });
        Ok(())
    }

    /// The same value `count` times; it is stored once.
    pub(super) fn push_repeated(&mut self, value: &[u8], count: usize) -> Result<(), ColumnFault> {
        self.spend(value.len().checked_mul(count).ok_or(ColumnFault::TooLarge)?)?;
        let start = self.arena.len() as u32;
        self.arena.extend_from_slice(value);
        let span = Span { start, end: self.arena.len() as u32 };
        self.spans.extend(std::iter::repeat_n(span, count));
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

/// Capacity of the arena that is kept from one parcel to the next; a larger one is given back.
const KEEP: usize = 2 << 20;
