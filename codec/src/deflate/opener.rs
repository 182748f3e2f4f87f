//! The coder's side: values to what they hold, where that pays.

use std::collections::HashMap;

use super::inflate::Stream;
use super::matcher::BY_FOUR;
use super::member::{GZIP_HEADER, TIME, Wrapper, is_likely, parts};
use super::recipe::{BLOCKS, Correction, KEPT_TOKENS, Manner, Press, USUAL_BLOCK};
use super::{MAX_HELD, MAX_OPENED, MAX_RATIO};
use crate::batch::{Batch, Meta, NULL, length};
use crate::limits::{MAX_PLAIN, MAX_REMEMBERED_SLOTS};
#[cfg(test)]
use crate::varint::Reader;
use crate::varint::{put, put_signed};

/// Opens values of one lane.
#[derive(Debug, Default)]
pub(crate) struct Opener {
    slots: HashMap<u32, Slot>,
    /// What opening made of the last parcel; its memory is used again.
    opened: Opened,
    tools: Option<Box<Tools>>,
    /// Parcels until the next look whether it pays, and how many between two.
    next_look: u32,
    interval: u32,
    /// It did not pay: parcels to leave alone, and how many the next time.
    pause: u32,
    patience: u32,
}

/// A batch with values opened.
#[derive(Debug, Default)]
pub(crate) struct Opened {
    pub(crate) batch: Batch,
    /// The section that says how to close them.
    pub(crate) section: Vec<u8>,
}

/// What was learnt of a source partition's values.
#[derive(Debug, Clone, Copy)]
struct Slot {
    manner: Manner,
    /// Of looking at values at all.
    looks: Pause,
    /// Of trying all levels.
    searches: Pause,
}

/// Values for which something in vain is not tried again, and for how many the next time.
#[derive(Debug, Clone, Copy)]
struct Pause {
    left: u32,
    next: u32,
}

impl Default for Slot {
    fn default() -> Self {
        let manner = Manner { level: USUAL_LEVEL, block: USUAL_BLOCK };
        Self { manner, looks: Pause::default(), searches: Pause::default() }
    }
}

/// What opened values may still come to in a parcel.
struct Room {
    /// More than they were closed.
    growth: usize,
    held: usize,
}

#[derive(Debug)]
struct Tools {
    press: Press,
    stream: Stream,
    closed: Vec<u8>,
    section: Section,
}

/// The section as it is gathered.
#[derive(Debug, Default)]
struct Section {
    headers: Vec<Vec<u8>>,
    runs: Vec<(u64, u64, usize, Manner)>,
    left_out: u64,
    times: Vec<u8>,
    last_time: u32,
    corrections: Vec<u8>,
}

impl Opener {
    pub(crate) fn memory(&self) -> usize {
        let tools = |tools: &Tools| tools.press.memory() + tools.closed.capacity();
        self.tools.as_deref().map_or(0, tools)
            + self.opened.batch.arena.capacity()
            + self.slots.capacity() * size_of::<Slot>()
    }

    /// The batch with the values opened that are compressed, if that needs fewer bytes.
    pub(crate) fn open(&mut self, batch: &Batch) -> Option<&Opened> {
        if self.pause > 0 {
            // Not counted for parcels without such values.
            self.pause -= u32::from(any_likely(batch));
            return None;
        }
        if !any_likely(batch) || !self.open_all(batch) {
            return None;
        }
        if self.next_look > 0 {
            self.next_look -= 1;
            return Some(&self.opened);
        }
        if self.pays(batch) {
            self.interval = (self.interval * 2).clamp(FIRST_INTERVAL, LAST_INTERVAL);
            self.next_look = self.interval;
            self.patience = 0;
            return Some(&self.opened);
        }
        self.patience = (self.patience * 2).clamp(FIRST_INTERVAL, LAST_INTERVAL);
        (self.pause, self.interval) = (self.patience, 0);
        None
    }

    /// Whether rows of what values hold compress to less than the rows as they are.
    fn pays(&self, batch: &Batch) -> bool {
        let size = |batch: &Batch| {
            let mut rows = Vec::with_capacity(batch.plain_size() as usize);
            crate::serialize::rows(batch, &mut rows);
            let mut compressed = Vec::with_capacity(zstd_safe::compress_bound(rows.len()));
            zstd_safe::compress(&mut compressed, &rows, TRIAL_LEVEL).unwrap_or(rows.len())
        };
        (size(&self.opened.batch) + self.opened.section.len()) * 100 <= size(batch) * WORTH
    }

    /// Opens what can be; false if that is nothing.
    fn open_all(&mut self, batch: &Batch) -> bool {
        let tools = self.tools.get_or_insert_with(|| {
            let press = Press::new();
            let (stream, closed, section) = (Stream::default(), Vec::new(), Section::default());
            Box::new(Tools { press, stream, closed, section })
        });
        let opened = &mut self.opened.batch;
        opened.clear();
        if opened.arena.capacity() > KEEP {
            *opened = Batch::new();
        }
        opened.arena.extend_from_slice(&batch.arena);
        opened.headers.extend_from_slice(&batch.headers);
        opened.groups.extend_from_slice(&batch.groups);
        opened.plain = batch.plain;
        tools.section.clear();
        // No more than the receiver lets a parcel grow.
        let most = u64::from(MAX_PLAIN).saturating_sub(batch.plain).min(MAX_OPENED.into());
        let (mut any, mut room) = (false, Room { growth: most as usize, held: MAX_HELD });
        for group in &mut opened.groups {
            let mut slot = self.slots.get(&group.slot).copied().unwrap_or_default();
            let mut looked = false;
            for meta in &mut group.records {
                let may = slot.may_look(&batch.arena, meta);
                looked |= may;
                let closed = meta.value;
                let done = may && tools.open(&mut slot, meta, &batch.arena, &mut opened.arena, &mut room);
                if done {
                    for plain in [&mut group.plain, &mut opened.plain] {
                        *plain = *plain - u64::from(closed) + u64::from(meta.value);
                    }
                }
                any |= done;
                tools.section.left_out += u64::from(!done);
            }
            let has_room = looked && self.slots.len() < MAX_REMEMBERED_SLOTS as usize;
            if has_room || self.slots.contains_key(&group.slot) {
                self.slots.insert(group.slot, slot);
            }
        }
        self.opened.section.clear();
        tools.section.write(&mut self.opened.section);
        tools.stream.tokens.clear();
        tools.stream.tokens.shrink_to(KEPT_TOKENS);
        tools.closed.clear();
        tools.closed.shrink_to(KEEP);
        any
    }
}

#[cfg(test)]
impl Opener {
    /// Parcels that are left alone from here on.
    pub(super) fn pauses(&self) -> u32 {
        self.pause
    }
}

/// What a value holds, and how many corrections it takes to make it again.
#[cfg(test)]
pub(super) fn reopened(value: &[u8]) -> Option<(Vec<u8>, usize)> {
    let section = Section::default();
    let mut tools = Tools { press: Press::new(), stream: Stream::default(), closed: Vec::new(), section };
    let (mut slot, mut plain) = (Slot::default(), Vec::new());
    let most = (MAX_OPENED as usize).min(value.len() * MAX_RATIO);
    tools.value(&mut slot, value, most, &mut plain)?;
    let corrections = Reader::new(&tools.section.corrections, "test").number().expect("a count");
    Some((plain, corrections as usize))
}

/// Whether some value begins as one that is compressed.
fn any_likely(batch: &Batch) -> bool {
    batch.groups.iter().flat_map(|group| &group.records).any(|meta| is_likely(value(&batch.arena, meta)))
}

fn value<'a>(arena: &'a [u8], meta: &Meta) -> &'a [u8] {
    let start = meta.start as usize + length(meta.key);
    &arena[start..start + length(meta.value)]
}

impl Slot {
    fn may_look(&mut self, arena: &[u8], meta: &Meta) -> bool {
        if meta.value == NULL || !is_likely(value(arena, meta)) {
            return false;
        }
        self.looks.is_over()
    }
}

impl Default for Pause {
    fn default() -> Self {
        Self { left: 0, next: FIRST_PAUSE }
    }
}

impl Pause {
    /// Counts one more value; whether it may be tried.
    fn is_over(&mut self) -> bool {
        let over = self.left == 0;
        self.left = self.left.saturating_sub(1);
        over
    }

    fn in_vain(&mut self) {
        self.left = self.next;
        self.next = (self.next * 2).min(LAST_PAUSE);
    }

    fn worth_it(&mut self) {
        self.next = FIRST_PAUSE;
    }
}

impl Tools {
    /// Opens one value of the arena `from`: appends its key and what it holds to `arena` and points `meta` there.
    fn open(
        &mut self,
        slot: &mut Slot,
        meta: &mut Meta,
        from: &[u8],
        arena: &mut Vec<u8>,
        room: &mut Room,
    ) -> bool {
        let row = arena.len();
        let key = meta.start as usize..meta.start as usize + length(meta.key);
        let size = meta.value as usize;
        let most = (room.growth + size).min(size * MAX_RATIO).min(room.held);
        let coded = &from[key.end..key.end + size];
        arena.extend_from_slice(&from[key]);
        let begin = arena.len();
        match self.value(slot, coded, most, arena) {
            Some(()) => {
                let held = arena.len() - begin;
                room.growth = (room.growth + size).saturating_sub(held);
                room.held -= held;
                (meta.start, meta.value) = (row as u32, held as u32);
                slot.looks.worth_it();
                true
            }
            None => {
                arena.truncate(row);
                slot.looks.in_vain();
                false
            }
        }
    }

    /// Appends what `coded` holds, and notes how it is made again. Nothing when it cannot be.
    fn value(&mut self, slot: &mut Slot, coded: &[u8], most: usize, plain: &mut Vec<u8>) -> Option<()> {
        let begin = plain.len();
        let parts = parts(coded)?;
        self.stream.read(parts.rest, most, plain)?;
        if self.stream.length + parts.wrapper.trailer_bytes() != parts.rest.len() {
            return None;
        }
        let plain = &plain[begin..];
        self.closed.clear();
        parts.wrapper.put_trailer(plain, &mut self.closed);
        if !parts.rest.ends_with(&self.closed) {
            return None;
        }
        let block = block_of(&self.stream.blocks)?;
        let corrections = self.corrections(slot, plain, parts.rest.len())?;
        slot.manner.block = block.unwrap_or(slot.manner.block);
        self.closed.clear();
        self.press.close(plain, parts.header, slot.manner, &corrections, &mut self.closed)?;
        if self.closed != coded {
            return None;
        }
        self.section.add(parts.wrapper, parts.header, slot.manner, &corrections);
        Some(())
    }

    /// What differs from the level that others of the slot had, or else from the best one.
    fn corrections(&mut self, slot: &mut Slot, plain: &[u8], size: usize) -> Option<Vec<Correction>> {
        let tokens = &self.stream.tokens;
        // A correction takes about four bytes.
        let most = size / 24 + 2;
        let mut best = self.press.differences(plain, tokens, slot.manner.level, most);
        if best.as_ref().is_some_and(Vec::is_empty) {
            return best;
        }
        if !slot.searches.is_over() {
            return best;
        }
        let tried = slot.manner.level;
        for level in SEARCHED.into_iter().filter(|level| *level != tried) {
            let most = best.as_ref().map_or(most, |best| best.len().saturating_sub(1));
            if let Some(better) = self.press.differences(plain, tokens, level, most) {
                slot.manner.level = level;
                let exact = better.is_empty();
                best = Some(better);
                if exact {
                    break;
                }
            }
        }
        if best.as_ref().is_some_and(Vec::is_empty) {
            slot.searches.worth_it();
        } else {
            slot.searches.in_vain();
        }
        best
    }
}

/// How many tokens a full block has, by where blocks end. With one block that is anybody's guess; nothing at all where
/// blocks are of different length.
fn block_of(ends: &[usize]) -> Option<Option<u32>> {
    let [first, .., _] = ends else { return Some(None) };
    let even = ends.iter().take(ends.len() - 1).enumerate().all(|(at, end)| *end == first * (at + 1));
    let last = ends[ends.len() - 1] - ends[ends.len() - 2];
    let block = u32::try_from(*first).ok().filter(|block| BLOCKS.contains(block))?;
    (even && last < *first).then_some(Some(block))
}

impl Section {
    fn clear(&mut self) {
        self.headers.clear();
        self.runs.clear();
        self.times.clear();
        self.corrections.clear();
        (self.left_out, self.last_time) = (0, 0);
    }

    fn add(&mut self, wrapper: Wrapper, header: &[u8], manner: Manner, corrections: &[Correction]) {
        let mut header = header.to_vec();
        if wrapper == Wrapper::Gzip && header.len() >= GZIP_HEADER {
            let bytes = &mut header[TIME];
            let time = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            bytes.fill(0);
            put_signed(&mut self.times, i64::from(time.wrapping_sub(self.last_time) as i32));
            self.last_time = time;
        }
        let known = self.headers.iter().position(|other| *other == header);
        let place = known.unwrap_or_else(|| {
            self.headers.push(header);
            self.headers.len() - 1
        });
        match self.runs.last_mut() {
            Some((_, records, header, of)) if self.left_out == 0 && (*header, *of) == (place, manner) => {
                *records += 1
            }
            _ => self.runs.push((std::mem::take(&mut self.left_out), 1, place, manner)),
        }
        put(&mut self.corrections, corrections.len() as u64);
        for Correction { gap, token } in corrections {
            put(&mut self.corrections, u64::from(*gap));
            put(&mut self.corrections, u64::from(token.length.saturating_sub(2)));
            if token.length > 0 {
                put(&mut self.corrections, u64::from(token.distance));
            }
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        put(out, self.headers.len() as u64);
        for header in &self.headers {
            put(out, header.len() as u64);
            out.extend_from_slice(header);
        }
        put(out, self.runs.len() as u64);
        for (left_out, records, header, manner) in &self.runs {
            put(out, *left_out);
            put(out, *records);
            put(out, *header as u64);
            out.push(manner.level);
            put(out, u64::from(manner.block));
        }
        out.extend_from_slice(&self.times);
        out.extend_from_slice(&self.corrections);
    }
}

/// What most programs use.
const USUAL_LEVEL: u8 = 6;
/// The order in which levels are tried: from the usual ones to the others.
const SEARCHED: [u8; 12] = [6, BY_FOUR + 6, 9, 1, 5, 4, 7, 8, 3, 2, BY_FOUR + 9, BY_FOUR + 1];
const FIRST_PAUSE: u32 = 2;
const LAST_PAUSE: u32 = 4096;
const FIRST_INTERVAL: u32 = 8;
const LAST_INTERVAL: u32 = 256;
const TRIAL_LEVEL: i32 = 3;
/// Percent of the size at which opening pays.
const WORTH: usize = 95;
/// Capacity that is kept from one parcel to the next.
const KEEP: usize = 8 << 20;
