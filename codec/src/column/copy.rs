//! Values that another column has too: as they are, without its quotes, or with the same text around each.
//!
//! ```text
//! parameters | column, 1 if its quotes are left out, length and bytes of what comes before and after |
//! body       | exceptions, their gaps | their lengths | their bytes                                 |
//! ```

use super::decode::Bytes;
use super::exception::put_exceptions;
use super::origin::NOWHERE;
use super::sink::Sink;
use super::{ColumnFault, Span, Values, equal, is_quoted};
use crate::Error;
use crate::varint::{Reader, put};

/// The column that is copied, and how its values are framed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Original {
    pub(super) id: u32,
    /// Its values are all quoted, which is left out.
    bare: bool,
    prefix: Box<[u8]>,
    suffix: Box<[u8]>,
}

/// Longest prefix and suffix.
const MAX_FRAME: usize = 255;
/// Shortest text that is looked for in longer text.
const MIN_FOUND: usize = 3;
/// Longest value in which it is looked for.
const MAX_SEARCHED: usize = 512;

impl Original {
    /// How `value` could be made of `original`, a value of column `id`.
    pub(super) fn of(id: u32, value: &[u8], original: &[u8]) -> Option<Self> {
        if value == original {
            return Some(Self { id, bare: false, prefix: Box::default(), suffix: Box::default() });
        }
        let bare = is_quoted(original);
        let inner = if bare { &original[1..original.len() - 1] } else { original };
        let at = if value == inner || is_quoted(value) && value[1..value.len() - 1] == *inner {
            usize::from(value != inner)
        } else if inner.len() >= MIN_FOUND && value.len() <= MAX_SEARCHED {
            memchr::memmem::find(value, inner)?
        } else {
            return None;
        };
        let (prefix, suffix) = (&value[..at], &value[at + inner.len()..]);
        let fits = prefix.len() <= MAX_FRAME && suffix.len() <= MAX_FRAME;
        fits.then(|| Self { id, bare, prefix: prefix.into(), suffix: suffix.into() })
    }

    /// Whether `value` is made of `original`.
    #[inline]
    pub(super) fn makes(&self, value: &[u8], original: &[u8]) -> bool {
        let inner = match self.bare {
            true if !is_quoted(original) => return false,
            true => &original[1..original.len() - 1],
            false => original,
        };
        let (prefix, suffix) = (self.prefix.len(), self.suffix.len());
        if prefix + suffix == 0 {
            return equal(value, inner);
        }
        value.len() == prefix + inner.len() + suffix
            && equal(&value[prefix..prefix + inner.len()], inner)
            && equal(&value[..prefix], &self.prefix)
            && equal(&value[prefix + inner.len()..], &self.suffix)
    }

    /// Appends what is not as in the original, or has none; false (and nothing) if that is more than a quarter.
    pub(super) fn put_values(
        &self,
        values: Values<'_>,
        originals: &[Span],
        exceptions: &mut Vec<u32>,
        out: &mut Vec<u8>,
    ) -> bool {
        exceptions.clear();
        let most = values.len() / 4;
        for (row, original) in originals.iter().enumerate() {
            if *original == Span::NONE || !self.makes(values.get(row), original.of(values.arena)) {
                if exceptions.len() >= most {
                    return false;
                }
                exceptions.push(row as u32);
            }
        }
        put_exceptions(exceptions, values, out);
        true
    }

    /// Pushes the values of the column that lies at `original` in the sink, but for exceptions: those of the same rows, or
    /// of `rows`.
    pub(super) fn read_values(
        &self,
        (original, originals): (usize, Option<&[u32]>),
        count: usize,
        bytes: &mut Bytes<'_, '_>,
        rows: &mut Vec<u32>,
        sink: &mut Sink,
    ) -> Result<(), Error> {
        let excepted = bytes.excepted(count, rows)?;
        let mut exceptions = rows.iter().zip(excepted).peekable();
        let framed = !self.prefix.is_empty() || !self.suffix.is_empty();
        for row in 0..count {
            if let Some((_, value)) = exceptions.next_if(|(at, _)| **at as usize == row) {
                sink.push(value, false).map_err(|fault| bytes.fault(fault))?;
                continue;
            }
            let place = originals.map_or(row, |rows| rows[row] as usize);
            if place == NOWHERE as usize {
                return Err(bytes.fault(ColumnFault::Reference(self.id)));
            }
            let mut span = sink.span(original, place);
            if self.bare {
                if !is_quoted(sink.value(span)) {
                    return Err(bytes.fault(ColumnFault::Number));
                }
                (span.start, span.end) = (span.start + 1, span.end - 1);
            }
            let pushed = match framed {
                true => sink.push_framed(&self.prefix, span, &self.suffix),
                false => sink.push_again(span),
            };
            pushed.map_err(|fault| bytes.fault(fault))?;
        }
        Ok(())
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        put(out, self.id.into());
        out.push(u8::from(self.bare));
        for text in [&self.prefix, &self.suffix] {
            put(out, text.len() as u64);
            out.extend_from_slice(text);
        }
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Option<Self>, Error> {
        let (id, bare) = (reader.number_u32()?, reader.byte()?);
        let mut frame = [Box::default(), Box::default()];
        for text in &mut frame {
            let length = reader.number_u32()? as usize;
            if length > MAX_FRAME {
                return Ok(None);
            }
            *text = reader.take(length)?.into();
        }
        let [prefix, suffix] = frame;
        Ok((bare <= 1).then_some(Self { id, bare: bare == 1, prefix, suffix }))
    }
}
