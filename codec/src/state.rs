//! What coder and decoder remember from parcel to parcel, each for itself and in step.
//!
//! All of it lives for one lane epoch and is bounded by [`limits`](crate::limits). A change of level, which begins
//! a new zstd frame, leaves it alone.

use std::collections::HashMap;

use crate::limits::{MAX_HEADER_NAME, MAX_HEADER_NAME_BYTES, MAX_HEADER_NAMES, MAX_REMEMBERED_SLOTS};

/// Where a slot's last group ended: what the next one most likely continues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) resume_epoch: u32,
    pub(crate) next: i64,
    pub(crate) leader_epoch: i32,
}

impl Default for Position {
    fn default() -> Self {
        Self { resume_epoch: 0, next: 0, leader_epoch: -1 }
    }
}

/// Positions and the timestamp from which differences are counted: the first of the last group with records, as
/// groups of one parcel cover the same time.
#[derive(Debug, Default)]
pub(crate) struct Positions {
    by_slot: Vec<Position>,
    /// The same for each slot.
    firsts: Vec<i64>,
    pub(crate) timestamp: i64,
}

impl Positions {
    pub(crate) fn get(&self, slot: u32) -> Position {
        self.by_slot.get(slot as usize).copied().unwrap_or_default()
    }

    /// The first timestamp of the slot's last group with records; 0 if there was none, or it is not remembered.
    pub(crate) fn first_of(&self, slot: u32) -> i64 {
        self.firsts.get(slot as usize).copied().unwrap_or(0)
    }

    pub(crate) fn set_first(&mut self, slot: u32, timestamp: i64) {
        if slot >= MAX_REMEMBERED_SLOTS {
            return;
        }
        let slot = slot as usize;
        if slot >= self.firsts.len() {
            self.firsts.resize(slot + 1, 0);
        }
        self.firsts[slot] = timestamp;
    }

    pub(crate) fn set(&mut self, slot: u32, position: Position) {
        if slot >= MAX_REMEMBERED_SLOTS {
            return;
        }
        let slot = slot as usize;
        if slot >= self.by_slot.len() {
            self.by_slot.resize(slot + 1, Position::default());
        }
        self.by_slot[slot] = position;
    }
}

/// Whether the dictionary takes one more name.
fn has_room(names: usize, bytes: usize, name: usize) -> bool {
    names < MAX_HEADER_NAMES && name <= MAX_HEADER_NAME && bytes + name <= MAX_HEADER_NAME_BYTES
}

/// Header names by their bytes: the coder's side of the dictionary.
#[derive(Debug, Default)]
pub(crate) struct NameNumbers {
    numbers: HashMap<Box<[u8]>, u32>,
    names: Vec<Box<[u8]>>,
    bytes: usize,
    /// The number last seen at each place of a record: producers repeat themselves, which saves the hashing.
    recent: Vec<u32>,
}

/// How the coder refers to a name.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NameRef {
    Known(u32),
    Defined,
    Spelled,
}

impl NameNumbers {
    /// How to refer to `name`, which is the header at `place` of its record.
    pub(crate) fn refer(&mut self, place: usize, name: &[u8]) -> NameRef {
        let recent = self.recent.get(place).copied();
        if let Some(number) = recent.filter(|number| *self.names[*number as usize] == *name) {
            return NameRef::Known(number);
        }
        let (number, answer) = match self.numbers.get(name) {
            Some(&number) => (number, NameRef::Known(number)),
            None if has_room(self.names.len(), self.bytes, name.len()) => {
                (self.define(name), NameRef::Defined)
            }
            None => return NameRef::Spelled,
        };
        match self.recent.get_mut(place) {
            Some(recent) => *recent = number,
            None if place < MAX_RECENT => self.recent.resize(place + 1, number),
            None => {}
        }
        answer
    }

    fn define(&mut self, name: &[u8]) -> u32 {
        let number = self.names.len() as u32;
        self.numbers.insert(name.into(), number);
        self.names.push(name.into());
        self.bytes += name.len();
        number
    }
}

const MAX_RECENT: usize = 32;

/// Header names by their number: the decoder's side of the dictionary.
///
/// A batch refers to names within its own arena, so a name from an earlier parcel is copied to the end of the
/// arena: once per parcel, not once per record.
#[derive(Debug, Default)]
pub(crate) struct Names {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
    parcel: u64,
}

#[derive(Debug)]
struct Entry {
    start: u32,
    length: u32,
    /// The parcel in whose arena the name lies at `placed`.
    parcel: u64,
    placed: u32,
}

impl Names {
    /// Begins another parcel: no name lies in its arena yet.
    pub(crate) fn begin_parcel(&mut self) {
        self.parcel += 1;
    }

    /// Most bytes that [`place`](Self::place) will append during one parcel.
    pub(crate) fn total_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Remembers `name`, which lies at `placed` in the arena of this parcel. False when it does not fit.
    pub(crate) fn define(&mut self, name: &[u8], placed: u32) -> bool {
        if !has_room(self.entries.len(), self.bytes.len(), name.len()) {
            return false;
        }
        let start = self.bytes.len() as u32;
        self.bytes.extend_from_slice(name);
        self.entries.push(Entry { start, length: name.len() as u32, parcel: self.parcel, placed });
        true
    }

    /// Start and length of name `number` in the arena of this parcel, of which `appended` begins at `end`.
    pub(crate) fn place(&mut self, number: u64, end: u32, appended: &mut Vec<u8>) -> Option<(u32, u32)> {
        let entry = self.entries.get_mut(usize::try_from(number).ok()?)?;
        if entry.parcel != self.parcel {
            entry.parcel = self.parcel;
            entry.placed = end + appended.len() as u32;
            appended.extend_from_slice(&self.bytes[entry.start as usize..][..entry.length as usize]);
        }
        Some((entry.placed, entry.length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_of_the_dictionary_fill_up_at_the_same_name() {
        let (mut coder, mut decoder) = (NameNumbers::default(), Names::default());
        decoder.begin_parcel();
        for i in 0..3000usize {
            let name = vec![b'a'; 1 + i % 300].into_iter().chain(i.to_string().bytes()).collect::<Vec<_>>();
            let defined = coder.refer(0, &name) == NameRef::Defined;
            assert_eq!(defined, decoder.define(&name, 0), "name {i}");
        }
        assert!(decoder.entries.len() <= MAX_HEADER_NAMES && decoder.total_bytes() <= MAX_HEADER_NAME_BYTES);
    }

    #[test]
    fn a_name_is_found_by_its_place_and_by_its_bytes() {
        let mut coder = NameNumbers::default();
        assert_eq!(coder.refer(40, b"far"), NameRef::Defined);
        assert_eq!(coder.refer(0, b"a"), NameRef::Defined);
        assert_eq!(coder.refer(1, b"b"), NameRef::Defined);
        for _ in 0..2 {
            assert_eq!(coder.refer(0, b"b"), NameRef::Known(2));
            assert_eq!(coder.refer(0, b"a"), NameRef::Known(1));
            assert_eq!(coder.refer(40, b"far"), NameRef::Known(0));
        }
    }

    #[test]
    fn a_name_is_copied_once_per_parcel() {
        let mut names = Names::default();
        names.begin_parcel();
        assert!(names.define(b"trace", 5));
        let mut appended = Vec::new();
        assert_eq!(names.place(0, 100, &mut appended), Some((5, 5)));
        names.begin_parcel();
        assert_eq!(names.place(0, 100, &mut appended), Some((100, 5)));
        assert_eq!(names.place(0, 100, &mut appended), Some((100, 5)));
        assert_eq!((appended.as_slice(), names.place(1, 0, &mut Vec::new())), (&b"trace"[..], None));
    }

    #[test]
    fn far_slots_are_not_remembered() {
        let mut positions = Positions::default();
        let here = Position { resume_epoch: 3, next: 9, leader_epoch: 2 };
        positions.set(MAX_REMEMBERED_SLOTS - 1, here);
        positions.set(u32::MAX, here);
        assert_eq!(positions.get(MAX_REMEMBERED_SLOTS - 1), here);
        assert_eq!(positions.get(u32::MAX), Position::default());
    }
}
