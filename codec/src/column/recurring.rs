//! Values that go with a key: each is what it was when the same entry of an earlier dictionary column was last met, or
//! (without such a column) what it was in the row before.
//!
//! ```text
//! body | exceptions, their gaps | high bytes of their ids | low bytes | per id 0: value '\n', or length and value |
//! ```
//! The column has a [dictionary](super::dictionary) of its own, in which exceptions are looked up.

use super::choice::KEY_UNKNOWN;
use super::decode::Bytes;
use super::dictionary::{Dictionary, Entries, put_entry};
use super::exception::put_rows;
use super::sink::Sink;
use super::{ColumnFault, Room, Values, equal};
use crate::Error;

/// The key of all rows when there is no key column: a value is that of the row before.
pub(super) const ONE_KEY: u32 = 1;

/// The column's own entry that was last met with each entry of the key column.
#[derive(Debug, Default)]
pub(super) struct Recent {
    entries: Vec<u32>,
    /// Bytes taken from the room.
    pub(super) charge: usize,
}

impl Recent {
    pub(super) fn memory(&self) -> usize {
        self.entries.capacity() * size_of::<u32>()
    }

    /// Makes sure that all of `keys` can be remembered.
    fn remember(&mut self, keys: &[u32], room: &mut Room) -> bool {
        let needed = keys.iter().copied().max().map_or(0, |highest| highest as usize + 1);
        let bytes = needed.saturating_sub(self.entries.len()) * size_of::<u32>();
        if !room.take(bytes) {
            return false;
        }
        self.charge += bytes;
        self.entries.resize(needed.max(self.entries.len()), 0);
        true
    }

    /// Takes back what was made for keys from this one on.
    fn forget(&mut self, from: usize, room: &mut Room) {
        let bytes = (self.entries.len() - from) * size_of::<u32>();
        self.entries.truncate(from);
        self.charge -= bytes;
        room.left += bytes;
    }

    #[inline]
    fn of(&self, key: u32) -> u32 {
        if key == KEY_UNKNOWN { 0 } else { self.entries[key as usize] }
    }

    #[inline]
    fn set(&mut self, key: u32, entry: u32) {
        if key != KEY_UNKNOWN {
            self.entries[key as usize] = entry;
        }
    }
}

/// Appends the body and fills `ids`; false (and nothing changes) if a new value holds a newline and is not framed, or there is no room.
pub(super) fn encode(
    (dictionary, recent): (&mut Dictionary, &mut Recent),
    (values, framed): (Values<'_>, bool),
    keys: &[u32],
    room: &mut Room,
    ids: &mut Vec<u32>,
    out: &mut Vec<u8>,
) -> bool {
    let remembered = recent.entries.len();
    if !recent.remember(keys, room) {
        return false;
    }
    let known = dictionary.entries.len();
    let (mut rows, mut exceptions, mut unknown, mut before) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (row, (value, key)) in (0..).zip(values.iter().zip(keys)) {
        let expected = recent.of(*key);
        if dictionary.entries.get(expected).is_some_and(|entry| equal(entry, value)) {
            ids.push(expected);
            continue;
        }
        let (id, new) = dictionary.refer(value, room);
        if new && !put_entry(value, framed, &mut unknown) {
            dictionary.truncate(known, room);
            before.into_iter().rev().for_each(|(key, entry)| recent.set(key, entry));
            recent.forget(remembered, room);
            ids.clear();
            return false;
        }
        before.push((*key, expected));
        recent.set(*key, id);
        rows.push(row);
        exceptions.push(if new { 0 } else { id });
        ids.push(id);
    }
    put_rows(&rows, out);
    out.extend(exceptions.iter().map(|id| (id >> 8) as u8));
    out.extend(exceptions.iter().map(|id| *id as u8));
    out.extend_from_slice(&unknown);
    true
}

/// Reads what [`encode`] wrote.
pub(super) fn decode(
    (entries, recent): (&mut Entries, &mut Recent),
    (quoted, framed): (bool, bool),
    keys: &[u32],
    bytes: &mut Bytes<'_, '_>,
    room: &mut Room,
    (rows, ids): (&mut Vec<u32>, &mut Vec<u32>),
    sink: &mut Sink,
) -> Result<(), Error> {
    if !recent.remember(keys, room) {
        return Err(bytes.fault(ColumnFault::Entry(0)));
    }
    bytes.exceptions(keys.len(), 3, rows)?;
    let (high, low) = (bytes.take(rows.len())?, bytes.take(rows.len())?);
    let mut exceptions = rows.iter().zip(high.iter().zip(low)).peekable();
    ids.clear();
    ids.reserve(keys.len());
    for (row, key) in keys.iter().enumerate() {
        let exception = exceptions.next_if(|(at, _)| **at as usize == row);
        let id = match exception {
            None => recent.of(*key),
            Some((_, (0, 0))) => {
                let value = bytes.entry(framed)?;
                sink.push(value, quoted).map_err(|fault| bytes.fault(fault))?;
                let id = entries.add(value, room);
                recent.set(*key, id);
                ids.push(id);
                continue;
            }
            Some((_, (high, low))) => u32::from(*high) << 8 | u32::from(*low),
        };
        let part = entries.part(id).ok_or_else(|| bytes.fault(ColumnFault::Entry(id)))?;
        sink.push_part(part.0, part.1, part.2, quoted).map_err(|fault| bytes.fault(fault))?;
        recent.set(*key, id);
        ids.push(id);
    }
    Ok(())
}
