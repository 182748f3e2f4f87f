//! The dictionary that lives with the lane epoch: entries are numbered from 1 in the order in which they were met.
//!
//! ```text
//! body | ids: one plane of bytes, or (wide) the high bytes, then the low bytes; 0: not known | per 0: value '\n' |
//! ```
//! Values that may hold a newline are behind their length in place of before one: then the dictionary is *framed*.
//! A value that is not known is an entry from then on at both ends, unless it is too long, the dictionary is full, or the
//! [`Room`] of the lane is used up; then it goes like this each time.

use xxhash_rust::xxh3::xxh3_64;

use super::binary::Binary;
use super::sink::Sink;
use super::{ColumnFault, Room, Span, Values, equal};
use crate::varint::put;

/// Most entries whose ids fit one byte.
const NARROW: usize = u8::MAX as usize;
/// Most entries of one dictionary.
const MAX_ENTRIES: usize = u16::MAX as usize;
/// Longest entry.
const MAX_ENTRY: usize = 4096;
/// Values that are looked up together where the table is far.
const TOGETHER: usize = 16;
/// Entries from which on a table is far: its slots alone fill a near cache.
const FAR: usize = 2048;
/// What an entry costs of the room on top of its bytes: spans, hashes and free slots of the coder's table.
const OVERHEAD: usize = 24;

/// Whether new entries of a column are to be behind their length, as values hold newlines or may soon.
pub(super) fn is_framed(binary: Option<Binary>, values: Values<'_>) -> bool {
    binary.is_some() || values.iter().any(|value| memchr::memchr(b'\n', value).is_some())
}

/// Entries by number: what both ends have.
#[derive(Debug, Default)]
pub(super) struct Entries {
    bytes: Vec<u8>,
    spans: Vec<Span>,
    /// Bytes taken from the room.
    pub(super) charge: usize,
}

impl Entries {
    pub(super) fn len(&self) -> usize {
        self.spans.len()
    }

    pub(super) fn memory(&self) -> usize {
        self.bytes.capacity() + self.spans.capacity() * size_of::<Span>()
    }

    #[inline]
    pub(super) fn get(&self, id: u32) -> Option<&[u8]> {
        let span = self.spans.get((id as usize).checked_sub(1)?)?;
        Some(span.of(&self.bytes))
    }

    /// Where an entry lies: in these bytes, from here on, so many.
    #[inline]
    pub(super) fn part(&self, id: u32) -> Option<(&[u8], usize, usize)> {
        let span = *self.spans.get((id as usize).checked_sub(1)?)?;
        Some((&self.bytes, span.start as usize, span.len()))
    }

    /// The new entry's id, or 0 if it is not taken.
    pub(super) fn add(&mut self, value: &[u8], room: &mut Room) -> u32 {
        let cost = value.len() + OVERHEAD;
        if value.len() > MAX_ENTRY || self.spans.len() >= MAX_ENTRIES || !room.take(cost) {
            return 0;
        }
        self.charge += cost;
        let start = self.bytes.len() as u32;
        self.bytes.extend_from_slice(value);
        self.spans.push(Span { start, end: self.bytes.len() as u32 });
        self.spans.len() as u32
    }

    /// Forgets all entries above the first `count`.
    fn truncate(&mut self, count: usize, room: &mut Room) {
        if let Some(first) = self.spans.get(count) {
            let bytes = self.bytes.len() - first.start as usize;
            let cost = bytes + (self.spans.len() - count) * OVERHEAD;
            self.bytes.truncate(first.start as usize);
            self.spans.truncate(count);
            self.charge -= cost;
            room.left += cost;
        }
    }
}

/// Entries by value: the coder's side. Open addressing, at most half full; a slot holds some bits of the hash beside the
/// id, so that bytes are compared only where they are very likely equal, in no more than 32 bits: what a large dictionary
/// costs is its way through the cache.
#[derive(Debug, Default)]
pub(super) struct Dictionary {
    pub(super) entries: Entries,
    slots: Vec<u32>,
    /// By entry: the one that was met after it the last time. Many streams go round, which saves the hashing.
    after: Vec<u32>,
    /// Whether most values of the column had to be looked up the last time, in a table that no near cache holds.
    is_scattered: bool,
}

impl Dictionary {
    pub(super) fn memory(&self) -> usize {
        self.entries.memory()
            + self.slots.capacity() * size_of::<u32>()
            + self.after.capacity() * size_of::<u32>()
    }

    /// Fills `ids` and appends the body. Returns whether ids are wide, or nothing (and changes nothing) when a value that
    /// is not known holds a newline and new ones are not framed.
    pub(super) fn encode(
        &mut self,
        (values, framed): (Values<'_>, bool),
        room: &mut Room,
        ids: &mut Vec<u32>,
        out: &mut Vec<u8>,
    ) -> Option<bool> {
        let known = self.entries.len();
        ids.clear();
        ids.reserve(values.len());
        let mut unknown = Vec::new();
        let (mut last, mut last_id): (&[u8], u32) = (&[], 0);
        let (mut hashes, mut referred) = ([0; TOGETHER], 0);
        for (index, value) in values.iter().enumerate() {
            if self.is_scattered && index.is_multiple_of(TOGETHER) {
                self.fetch(values, index, &mut hashes);
            }
            if last_id == 0 || !equal(value, last) {
                let expected = self.after.get(last_id as usize).copied().unwrap_or(0);
                let as_expected = self.entries.get(expected).is_some_and(|entry| equal(entry, value));
                let (id, new) = if as_expected {
                    (expected, false)
                } else {
                    referred += 1;
                    let hash = if self.is_scattered { hashes[index % TOGETHER] } else { xxh3_64(value) };
                    self.refer_hashed(value, hash, room)
                };
                if !as_expected && let Some(after) = self.after.get_mut(last_id as usize) {
                    *after = id;
                }
                (last, last_id) = (value, id);
                if new {
                    if !put_entry(value, framed, &mut unknown) {
                        self.truncate(known, room);
                        return None;
                    }
                    ids.push(id | NEW);
                    continue;
                }
            }
            ids.push(last_id);
        }
        self.after.resize(self.entries.len() + 1, 0);
        self.is_scattered = self.entries.len() >= FAR && 2 * referred > values.len();
        let wide = self.entries.len() > NARROW;
        let wire = |id: u32| if id & NEW != 0 { 0 } else { id };
        if wide {
            out.extend(ids.iter().map(|id| (wire(*id) >> 8) as u8));
        }
        out.extend(ids.iter().map(|id| wire(*id) as u8));
        out.extend_from_slice(&unknown);
        ids.iter_mut().for_each(|id| *id &= !NEW);
        Some(wide)
    }

    /// The id of a value and whether it was not known; 0 if it is not taken.
    pub(super) fn refer(&mut self, value: &[u8], room: &mut Room) -> (u32, bool) {
        self.refer_hashed(value, xxh3_64(value), room)
    }

    /// Hashes the values from `first` on, and reads what looking them up will read: of several values at a time, as their
    /// ways to memory then overlap, where looking up one after the other waits for each.
    fn fetch(&self, values: Values<'_>, first: usize, hashes: &mut [u64; TOGETHER]) {
        let mut held = [0; TOGETHER];
        let ahead = first..values.len().min(first + TOGETHER);
        let mask = self.slots.len() - 1;
        for (index, hash) in ahead.clone().zip(hashes.iter_mut()) {
            *hash = xxh3_64(values.get(index));
        }
        for (held, hash) in held.iter_mut().zip(&*hashes).take(ahead.len()) {
            *held = self.slots[*hash as usize & mask];
        }
        let spans = held.map(|held| self.entries.spans.get((held & !TAG).wrapping_sub(1) as usize));
        let first_bytes = spans.map(|span| span.and_then(|span| self.entries.bytes.get(span.start as usize)));
        std::hint::black_box(first_bytes.into_iter().flatten().fold(0, |seen: u8, byte| seen ^ byte));
    }

    fn refer_hashed(&mut self, value: &[u8], hash: u64, room: &mut Room) -> (u32, bool) {
        if self.slots.len() < 2 * (self.entries.len() + 1) {
            self.grow();
        }
        let mask = self.slots.len() - 1;
        let mut slot = hash as usize & mask;
        loop {
            let held = self.slots[slot];
            if held == 0 {
                let id = self.entries.add(value, room);
                if id > 0 {
                    self.slots[slot] = tag(hash) | id;
                }
                return (id, true);
            }
            let is_it = |entry: &[u8]| equal(entry, value);
            if held & TAG == tag(hash) && self.entries.get(held & !TAG).is_some_and(is_it) {
                return (held & !TAG, false);
            }
            slot = (slot + 1) & mask;
        }
    }

    fn grow(&mut self) {
        let size = (self.slots.len() * 2).max(64);
        self.slots.clear();
        self.slots.resize(size, 0);
        for id in 1..=self.entries.len() as u32 {
            let hash = xxh3_64(self.entries.get(id).unwrap_or_default());
            let mut slot = hash as usize & (size - 1);
            while self.slots[slot] != 0 {
                slot = (slot + 1) & (size - 1);
            }
            self.slots[slot] = tag(hash) | id;
        }
    }

    /// Takes back entries above the first `count`, and finds the others as before.
    pub(super) fn truncate(&mut self, count: usize, room: &mut Room) {
        if count < self.entries.len() {
            self.entries.truncate(count, room);
            let size = self.slots.len() / 2;
            self.slots.truncate(size);
            self.grow();
        }
    }
}

/// Bits of a hash that choose no slot.
fn tag(hash: u64) -> u32 {
    (hash >> 32) as u32 & TAG
}

/// Appends a new entry; false (and nothing) when it holds a newline and is not to be framed.
pub(super) fn put_entry(value: &[u8], framed: bool, out: &mut Vec<u8>) -> bool {
    if framed {
        put(out, value.len() as u64);
        out.extend_from_slice(value);
        return true;
    }
    let fits = !value.contains(&b'\n');
    if fits {
        out.extend_from_slice(value);
        out.push(b'\n');
    }
    fits
}

/// Reads a body: pushes the values, fills `ids`.
pub(super) fn decode(
    entries: &mut Entries,
    (wide, quoted, framed): (bool, bool, bool),
    count: usize,
    bytes: &mut super::decode::Bytes<'_, '_>,
    room: &mut Room,
    ids: &mut Vec<u32>,
    sink: &mut Sink,
) -> Result<(), crate::Error> {
    ids.clear();
    let high = if wide { bytes.take(count)? } else { &[] };
    let low = bytes.take(count)?;
    ids.reserve(count);
    for (row, low) in low.iter().enumerate() {
        let high = high.get(row).copied().unwrap_or(0);
        let id = u32::from(high) << 8 | u32::from(*low);
        if id > 0 {
            let part = entries.part(id).ok_or_else(|| bytes.fault(ColumnFault::Entry(id)))?;
            sink.push_part(part.0, part.1, part.2, quoted).map_err(|fault| bytes.fault(fault))?;
            ids.push(id);
        } else {
            let value = bytes.entry(framed)?;
            sink.push(value, quoted).map_err(|fault| bytes.fault(fault))?;
            ids.push(entries.add(value, room));
        }
    }
    Ok(())
}

/// Marks the row at which an entry was defined, while ids are gathered.
const NEW: u32 = 1 << 31;
/// The part of a slot that is of the hash; ids fit the rest.
const TAG: u32 = !(MAX_ENTRIES as u32);

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn a_large_dictionary_that_is_met_in_no_order_gives_the_same_ids() {
        let texts: Vec<String> = (0..4 * FAR).map(|number| format!("customer-{}", number * 7919)).collect();
        let (mut dictionary, mut room) = (Dictionary::default(), Room::default());
        let (mut known, mut met) = (HashMap::new(), 0_usize);
        for parcel in 0..6 {
            // A count that no group divides, in an order that does not come again; new values to the end.
            let picks: Vec<&str> = (0..FAR + 37)
                .map(|_| {
                    met = (met * 1_103_515_245 + 12_345 + parcel) % (1 << 31);
                    texts[met / 7 % (2 * FAR + parcel * FAR / 4)].as_str()
                })
                .collect();
            let arena = picks.concat();
            let mut end = 0;
            let spans: Vec<Span> = picks
                .iter()
                .map(|pick| {
                    let start = end;
                    end += pick.len() as u32;
                    Span { start, end }
                })
                .collect();
            let values = Values { arena: arena.as_bytes(), spans: &spans, strip: 0 };
            let (mut ids, mut out) = (Vec::new(), Vec::new());
            assert_eq!(dictionary.encode((values, false), &mut room, &mut ids, &mut out), Some(true));
            for (pick, id) in picks.iter().zip(ids) {
                let next = known.len() as u32 + 1;
                assert_eq!(id, *known.entry(*pick).or_insert(next), "{pick} in parcel {parcel}");
            }
        }
        assert!(dictionary.is_scattered, "the case that is meant was met");
    }
}
