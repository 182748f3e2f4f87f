//! Records of one lane in plain form, grouped by source partition.
//!
//! A [`Batch`] owns one arena of bytes. Records and headers are spans into it, so filling, reading and clearing
//! a batch allocates nothing per record once its vectors have grown. A record's key and value lie side by side,
//! which lets the encoder move both with one copy.
//!
//! ```text
//! arena   | key value | key value headers | key value | ...
//! group   { slot 7, [prev_next, next), gap, records: [ {offset, timestamp, span, headers}, ... ] }
//! ```
//!
//! # Panics
//! A batch addresses its arena with 32 bits: pushing past 4 GiB panics. Callers close batches at
//! [`limits::TARGET_PLAIN`](crate::limits::TARGET_PLAIN), and the encoder refuses more than
//! [`limits::MAX_PLAIN`](crate::limits::MAX_PLAIN).

use std::collections::HashMap;

use crate::digest::Digest;
use crate::limits::{GROUP_OVERHEAD, HEADER_OVERHEAD, RECORD_OVERHEAD};

/// Records of one lane, grouped by source partition. See the [module](self).
#[derive(Debug, Default, Clone)]
pub struct Batch {
    pub(crate) groups: Vec<Group>,
    pub(crate) headers: Vec<HeaderSpan>,
    pub(crate) arena: Vec<u8>,
    pub(crate) plain: u64,
    /// Record vectors of cleared groups, kept for their capacity.
    spare: Vec<Vec<Meta>>,
    /// Where the group of a slot is; covers the first `indexed` groups.
    index: HashMap<u32, u32>,
    indexed: usize,
    last_group: usize,
}

/// Records of one source partition within a [`Batch`], and the range of source offsets they speak for.
#[derive(Debug, Clone)]
pub struct Group {
    /// The exporter's name of the source partition within a session.
    pub slot: u32,
    /// Which answer to an `Open` or a broken chain this group continues.
    pub resume_epoch: u32,
    /// `next` of the group before.
    pub prev_next: i64,
    /// First source offset that this group does not cover.
    pub next: i64,
    /// What the offsets in `[prev_next, next)` without a record are.
    pub gap: GapReason,
    /// Epoch of the source partition's leader that wrote the last record; [`UNKNOWN_LEADER_EPOCH`] when not known.
    pub leader_epoch: i32,
    /// Offsets strictly ascending, within `[prev_next, next)`.
    pub(crate) records: Vec<Meta>,
    pub(crate) plain: u64,
}

/// Why source offsets have no record. The numbers are the wire's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum GapReason {
    /// Compacted, a transaction marker or an aborted record: Kafka does not tell which.
    #[default]
    NotVisible = 0,
    /// Deleted by retention before it could be read.
    Expired = 1,
    /// Set aside because it cannot be delivered.
    Quarantined = 2,
    /// Left out by an operator's word.
    Skipped = 3,
}

impl GapReason {
    /// The reason of a number on the wire.
    pub fn from_wire(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::NotVisible),
            1 => Some(Self::Expired),
            2 => Some(Self::Quarantined),
            3 => Some(Self::Skipped),
            _ => None,
        }
    }

    /// The number on the wire.
    pub fn to_wire(self) -> u8 {
        self as u8
    }
}

/// Length of a key, value or header value that is null.
pub(crate) const NULL: u32 = u32::MAX;

/// One record: `start` is where its key begins in the arena; the value follows the key.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Meta {
    pub(crate) offset: i64,
    pub(crate) timestamp: i64,
    pub(crate) start: u32,
    pub(crate) key: u32,
    pub(crate) value: u32,
    pub(crate) first_header: u32,
    pub(crate) headers: u32,
}

impl Meta {
    /// Where key and value lie in the arena.
    pub(crate) fn row(&self) -> std::ops::Range<usize> {
        let start = self.start as usize;
        start..start + length(self.key) + length(self.value)
    }

    pub(crate) fn header_range(&self) -> std::ops::Range<usize> {
        let first = self.first_header as usize;
        first..first + self.headers as usize
    }
}

/// One header: two spans into the arena, a null value being of length [`NULL`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeaderSpan {
    pub(crate) name_start: u32,
    pub(crate) name: u32,
    pub(crate) value_start: u32,
    pub(crate) value: u32,
}

impl HeaderSpan {
    pub(crate) fn name_range(&self) -> std::ops::Range<usize> {
        let start = self.name_start as usize;
        start..start + self.name as usize
    }

    pub(crate) fn value_range(&self) -> std::ops::Range<usize> {
        let start = self.value_start as usize;
        start..start + length(self.value)
    }

    pub(crate) fn plain_size(&self) -> u64 {
        HEADER_OVERHEAD + u64::from(self.name) + length(self.value) as u64
    }
}

/// Bytes that a length stands for: none when null.
pub(crate) fn length(length_or_null: u32) -> usize {
    if length_or_null == NULL { 0 } else { length_or_null as usize }
}

/// One record as lent by its [`Batch`].
#[derive(Debug, Clone, Copy)]
pub struct RecordView<'a> {
    /// Source offset.
    pub offset: i64,
    /// Milliseconds since 1970, as Kafka has it: any value is possible.
    pub timestamp: i64,
    /// Null is not the same as empty.
    pub key: Option<&'a [u8]>,
    /// Null is not the same as empty.
    pub value: Option<&'a [u8]>,
    headers: &'a [HeaderSpan],
    arena: &'a [u8],
}

impl<'a> RecordView<'a> {
    /// Name and value of each header, in order, duplicates included.
    pub fn headers(&self) -> impl ExactSizeIterator<Item = (&'a [u8], Option<&'a [u8]>)> + use<'a> {
        let arena = self.arena;
        self.headers.iter().map(move |header| {
            let value = (header.value != NULL).then(|| &arena[header.value_range()]);
            (&arena[header.name_range()], value)
        })
    }

    /// What this record counts for in plain bytes.
    pub fn plain_size(&self) -> u64 {
        let headers: u64 = self.headers.iter().map(HeaderSpan::plain_size).sum();
        RECORD_OVERHEAD + bytes(self.key) + bytes(self.value) + headers
    }
}

impl PartialEq for RecordView<'_> {
    fn eq(&self, other: &Self) -> bool {
        (self.offset, self.timestamp, self.key, self.value)
            == (other.offset, other.timestamp, other.key, other.value)
            && self.headers().eq(other.headers())
    }
}

impl Eq for RecordView<'_> {}

/// What a record counts for in plain bytes, before it is pushed.
pub fn record_plain_size<'h>(
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    headers: impl IntoIterator<Item = (&'h [u8], Option<&'h [u8]>)>,
) -> u64 {
    let header_size =
        |(name, value): (&[u8], Option<&[u8]>)| HEADER_OVERHEAD + name.len() as u64 + bytes(value);
    RECORD_OVERHEAD + bytes(key) + bytes(value) + headers.into_iter().map(header_size).sum::<u64>()
}

impl Batch {
    /// A batch without groups.
    pub fn new() -> Self {
        Self::default()
    }

    /// Empties the batch and keeps its memory for the next one.
    pub fn clear(&mut self) {
        for group in self.groups.drain(..) {
            recycle(&mut self.spare, group.records);
        }
        self.headers.clear();
        self.arena.clear();
        self.plain = 0;
        self.forget_index();
    }

    /// True when there is not even a group without records.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// Index of the group of `slot`: the first such one, or a new one that covers nothing yet.
    pub fn group_index(&mut self, slot: u32) -> usize {
        if self.groups.get(self.last_group).is_some_and(|group| group.slot == slot) {
            return self.last_group;
        }
        for (index, group) in self.groups.iter().enumerate().skip(self.indexed) {
            self.index.entry(group.slot).or_insert(index as u32);
        }
        self.indexed = self.groups.len();
        self.last_group = match self.index.get(&slot) {
            Some(&index) => index as usize,
            None => self.append_group(slot, 0, 0, 0, GapReason::NotVisible),
        };
        self.last_group
    }

    /// Appends a record to the group at index `group`.
    ///
    /// The caller keeps offsets ascending and within the group's range: the encoder refuses a batch where
    /// they are not. The range itself is stamped through [`groups_mut`](Self::groups_mut).
    ///
    /// # Panics
    /// When there is no such group, or at 4 GiB.
    pub fn push<'h>(
        &mut self,
        group: usize,
        offset: i64,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl IntoIterator<Item = (&'h [u8], Option<&'h [u8]>)>,
    ) {
        let start = self.arena.len() as u32;
        let key = self.append(key);
        let value = self.append(value);
        let first_header = self.headers.len() as u32;
        let mut plain = RECORD_OVERHEAD + length(key) as u64 + length(value) as u64;
        for (name, value) in headers {
            let name_start = self.arena.len() as u32;
            let name = self.append(Some(name));
            let value_start = self.arena.len() as u32;
            let value = self.append(value);
            let header = HeaderSpan { name_start, name, value_start, value };
            plain += header.plain_size();
            self.headers.push(header);
        }
        let headers = self.headers.len() as u32 - first_header;
        assert!(self.arena.len() < NULL as usize, "a batch addresses less than 4 GiB");
        let group = &mut self.groups[group];
        group.records.push(Meta { offset, timestamp, start, key, value, first_header, headers });
        group.plain += plain;
        self.plain += plain;
    }

    /// The groups in order.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// The groups, to stamp their ranges, epochs and gaps.
    pub fn groups_mut(&mut self) -> &mut [Group] {
        self.forget_index();
        &mut self.groups
    }

    /// Puts the groups in the order of their slots. Partitions of one topic side by side, and the same order from parcel
    /// to parcel, take fewer bytes than the order in which records happened to come.
    pub fn order_groups(&mut self) {
        self.groups.sort_by_key(|group| group.slot);
        self.forget_index();
    }

    /// Drops the groups that `keep` does not want, with their records. Their bytes stay until the batch goes.
    pub fn retain_groups(&mut self, mut keep: impl FnMut(&Group) -> bool) {
        let (spare, plain) = (&mut self.spare, &mut self.plain);
        self.groups.retain_mut(|group| {
            let kept = keep(group);
            if !kept {
                *plain -= GROUP_OVERHEAD + group.plain;
                recycle(spare, std::mem::take(&mut group.records));
            }
            kept
        });
        self.forget_index();
    }

    /// The records of the group at index `group`, in offset order.
    ///
    /// # Panics
    /// When there is no such group.
    pub fn records(&self, group: usize) -> impl ExactSizeIterator<Item = RecordView<'_>> {
        self.groups[group].records.iter().map(|meta| self.view(meta))
    }

    /// Records over all groups.
    pub fn record_count(&self) -> usize {
        self.groups.iter().map(|group| group.records.len()).sum()
    }

    /// Records of the group at index `group`.
    pub fn group_record_count(&self, group: usize) -> usize {
        self.groups[group].records.len()
    }

    /// Plain bytes of the records of the group at index `group` (the group's own cost apart).
    pub fn group_plain_bytes(&self, group: usize) -> u64 {
        self.groups[group].plain
    }

    /// Plain bytes of the batch: what credit and memory budgets count.
    pub fn plain_size(&self) -> u64 {
        self.plain
    }

    /// Digest of the group at index `group`: equal where range, gap and every record are equal.
    pub fn group_digest(&self, group: usize) -> Digest {
        Digest::of_group(&self.groups[group], self.records(group))
    }

    /// Appends a group without records.
    pub(crate) fn append_group(
        &mut self,
        slot: u32,
        resume_epoch: u32,
        prev_next: i64,
        next: i64,
        gap: GapReason,
    ) -> usize {
        let records = self.spare.pop().unwrap_or_default();
        let leader_epoch = UNKNOWN_LEADER_EPOCH;
        self.groups.push(Group { slot, resume_epoch, prev_next, next, leader_epoch, gap, records, plain: 0 });
        self.plain += GROUP_OVERHEAD;
        self.groups.len() - 1
    }

    fn view(&self, meta: &Meta) -> RecordView<'_> {
        RecordView {
            offset: meta.offset,
            timestamp: meta.timestamp,
            key: slice(&self.arena, meta.start, meta.key),
            value: slice(&self.arena, meta.start + length(meta.key) as u32, meta.value),
            headers: &self.headers[meta.header_range()],
            arena: &self.arena,
        }
    }

    fn append(&mut self, bytes: Option<&[u8]>) -> u32 {
        let Some(bytes) = bytes else { return NULL };
        assert!(bytes.len() < NULL as usize, "a batch addresses less than 4 GiB");
        self.arena.extend_from_slice(bytes);
        bytes.len() as u32
    }

    fn forget_index(&mut self) {
        self.index.clear();
        self.indexed = 0;
        self.last_group = 0;
    }
}

/// Batches are equal when their groups and records are, wherever the bytes lie.
impl PartialEq for Batch {
    fn eq(&self, other: &Self) -> bool {
        let range = |group: &Group| {
            (group.slot, group.resume_epoch, group.prev_next, group.next, group.leader_epoch, group.gap)
        };
        self.groups.len() == other.groups.len()
            && (0..self.groups.len()).all(|index| {
                range(&self.groups[index]) == range(&other.groups[index])
                    && self.records(index).eq(other.records(index))
            })
    }
}

impl Eq for Batch {}

fn bytes(field: Option<&[u8]>) -> u64 {
    field.map_or(0, <[u8]>::len) as u64
}

fn slice(arena: &[u8], start: u32, length_or_null: u32) -> Option<&[u8]> {
    (length_or_null != NULL).then(|| &arena[start as usize..][..length_or_null as usize])
}

fn recycle(spare: &mut Vec<Vec<Meta>>, mut records: Vec<Meta>) {
    if records.capacity() > 0 && spare.len() < MAX_SPARE {
        records.clear();
        spare.push(records);
    }
}

/// Record vectors kept by a cleared batch.
const MAX_SPARE: usize = 1024;

/// The leader epoch of a record whose source does not say it.
pub const UNKNOWN_LEADER_EPOCH: i32 = -1;

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Batch {
        let mut batch = Batch::new();
        let a = batch.group_index(7);
        let b = batch.group_index(9);
        batch.push(a, 10, 1000, Some(b"k"), None, [(&b"h"[..], None), (&b"h"[..], Some(&b"v"[..]))]);
        batch.push(b, 0, -5, None, Some(b""), []);
        batch.push(a, 12, 1001, Some(b""), Some(b"value"), []);
        batch
    }

    #[test]
    fn null_stays_apart_from_empty_and_headers_keep_their_order() {
        let batch = sample();
        let records: Vec<_> = batch.records(0).collect();
        assert_eq!((records[0].key, records[0].value), (Some(&b"k"[..]), None));
        assert_eq!((records[1].key, records[1].value), (Some(&b""[..]), Some(&b"value"[..])));
        let headers: Vec<_> = records[0].headers().collect();
        assert_eq!(headers, [(&b"h"[..], None), (&b"h"[..], Some(&b"v"[..]))]);
        assert_eq!(batch.records(1).next().map(|r| (r.key, r.value)), Some((None, Some(&b""[..]))));
    }

    #[test]
    fn a_slot_has_one_group_however_often_it_is_asked_for() {
        let mut batch = Batch::new();
        let first: Vec<usize> = (0..200).map(|slot| batch.group_index(slot * 3)).collect();
        let again: Vec<usize> = (0..200).map(|slot| batch.group_index(slot * 3)).collect();
        assert_eq!(first, again);
        batch.retain_groups(|group| group.slot % 2 == 0);
        let index = batch.group_index(6);
        assert_eq!((batch.groups().len(), batch.groups()[index].slot), (100, 6));
    }

    #[test]
    fn ordered_groups_keep_their_records_and_are_found_again() {
        let mut batch = Batch::new();
        for (slot, offset) in [(9, 0), (2, 5), (30, 1), (2, 6)] {
            let group = batch.group_index(slot);
            batch.push(group, offset, 0, None, Some(&[slot as u8]), []);
        }
        batch.order_groups();
        let offsets = |group: usize| batch.records(group).map(|record| record.offset).collect::<Vec<_>>();
        let ordered: Vec<_> = (0..3).map(|group| (batch.groups()[group].slot, offsets(group))).collect();
        assert_eq!(ordered, [(2, vec![5, 6]), (9, vec![0]), (30, vec![1])]);
        assert_eq!([30, 2, 9].map(|slot| batch.group_index(slot)), [2, 0, 1]);
        assert_eq!(batch.group_index(4), 3, "a new one");
    }

    #[test]
    fn plain_size_follows_every_change() {
        let mut batch = sample();
        let sum = |batch: &Batch| -> u64 {
            let groups = 0..batch.groups().len();
            groups.map(|g| GROUP_OVERHEAD + batch.records(g).map(|r| r.plain_size()).sum::<u64>()).sum()
        };
        assert_eq!(batch.plain_size(), 2 * 32 + 3 * 32 + 1 + 5 + (8 + 1) + (8 + 1 + 1));
        assert_eq!(batch.plain_size(), sum(&batch));
        assert_eq!(batch.group_plain_bytes(1), RECORD_OVERHEAD);
        batch.retain_groups(|group| group.slot == 7);
        assert_eq!(batch.plain_size(), sum(&batch));
        batch.clear();
        assert_eq!((batch.plain_size(), batch.is_empty(), batch.record_count()), (0, true, 0));
    }

    #[test]
    fn a_cleared_batch_fills_again_without_growing() {
        let mut batch = sample();
        let capacity = batch.arena.capacity();
        batch.clear();
        let group = batch.group_index(7);
        assert!(batch.groups[group].records.capacity() > 0);
        batch.push(group, 1, 1, Some(b"k"), Some(b"v"), []);
        assert_eq!(batch.arena.capacity(), capacity);
    }

    #[test]
    fn equality_is_of_content_not_of_layout() {
        let mut left = sample();
        let mut right = Batch::new();
        let dropped = right.group_index(1);
        right.push(dropped, 0, 0, Some(b"noise"), None, []);
        let (a, b) = (right.group_index(7), right.group_index(9));
        right.push(a, 10, 1000, Some(b"k"), None, [(&b"h"[..], None), (&b"h"[..], Some(&b"v"[..]))]);
        right.push(a, 12, 1001, Some(b""), Some(b"value"), []);
        right.push(b, 0, -5, None, Some(b""), []);
        right.retain_groups(|group| group.slot != 1);
        assert_eq!(left, right);
        assert_eq!(left.group_digest(0), right.group_digest(0));
        left.groups_mut()[0].next = 13;
        assert_ne!(left, right);
    }

    #[test]
    fn the_size_before_the_push_is_the_size_after() {
        let headers = [(&b"name"[..], Some(&b"value"[..])), (&b""[..], None)];
        let mut batch = Batch::new();
        let group = batch.group_index(0);
        batch.push(group, 0, 0, Some(b"key"), None, headers);
        assert_eq!(batch.group_plain_bytes(group), record_plain_size(Some(b"key"), None, headers));
    }
}
