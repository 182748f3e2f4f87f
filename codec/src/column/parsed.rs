//! Values of a column as numbers in one spelling.

use super::choice::Spelling;
use super::number::Present;
use super::{Values, digits, is_quoted};

/// What does not go with the numbers.
#[derive(Debug, Default)]
pub(super) struct Apart {
    /// What is counted apart of each value, if something is.
    pub(super) counts: Vec<u8>,
    /// Rows whose value is not spelled so, in their order. They have the number 0.
    pub(super) exceptions: Vec<u32>,
}

impl Apart {
    /// Reads a number of each value; false if more than `most` are not spelled so.
    pub(super) fn parse(
        &mut self,
        spelling: Spelling,
        values: Values<'_>,
        most: usize,
        numbers: &mut Vec<i64>,
    ) -> bool {
        let Self { counts, exceptions } = self;
        numbers.clear();
        counts.clear();
        exceptions.clear();
        let arena = values.arena;
        let rows = &mut Rows { values, most, numbers, exceptions };
        match spelling {
            Spelling::Integer => rows.all(|start, end| digits::parse(arena, start, end)),
            Spelling::Decimal(shape) if shape.is_counted() => rows.all(|start, end| {
                let parsed = shape.parse_counted(arena, start, end);
                counts.push(parsed.map_or(0, |(_, counted)| counted));
                parsed.map(|(number, _)| number)
            }),
            Spelling::Decimal(shape) => rows.all(|start, end| shape.parse(arena, start, end)),
            Spelling::Binary(shape) => rows.all(|start, end| {
                let parsed = shape.parse(&arena[start..end]);
                if shape.is_optional() {
                    counts.push(u8::from(parsed == Some(None)));
                }
                parsed.map(Option::unwrap_or_default)
            }),
            Spelling::Time(shape) => {
                let mut parser = shape.parser();
                rows.all(|start, end| parser.parse(&arena[start..end]))
            }
        }
    }

    /// Of the first `rows` rows those that have a number, if there may be others.
    pub(super) fn present(&self, spelling: Spelling, rows: usize) -> Option<Present> {
        if spelling.is_optional() {
            return Present::of(&self.counts[..rows]);
        }
        let within = self.exceptions.partition_point(|row| (*row as usize) < rows);
        (within > 0).then(|| Present::without(&self.exceptions[..within], rows))
    }

    pub(super) fn memory(&self) -> usize {
        self.counts.capacity() + self.exceptions.capacity() * size_of::<u32>()
    }
}

/// The values to be read, and where they go.
struct Rows<'a> {
    values: Values<'a>,
    most: usize,
    numbers: &'a mut Vec<i64>,
    exceptions: &'a mut Vec<u32>,
}

impl Rows<'_> {
    #[inline]
    fn all(&mut self, mut number: impl FnMut(usize, usize) -> Option<i64>) -> bool {
        let Values { arena, spans, strip } = self.values;
        // Where exceptions are allowed, some may have no quotes to be left out.
        let bare = |row: usize| strip > 0 && self.most > 0 && !is_quoted(spans[row].of(arena));
        self.numbers.reserve(spans.len());
        for row in 0..spans.len() {
            // An empty value is no number in any spelling, and is counted as the others are.
            let (start, end) = if bare(row) { (0, 0) } else { self.values.range(row) };
            let found = number(start, end);
            if found.is_none() {
                if self.exceptions.len() >= self.most {
                    return false;
                }
                self.exceptions.push(row as u32);
            }
            self.numbers.push(found.unwrap_or_default());
        }
        true
    }
}
