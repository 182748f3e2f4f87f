//! Records on their way from the consumer to the codec: gathered into batches, closed, waiting to be released.
//!
//! Knows nothing of Kafka or QUIC, and not the time: all of it is given. What must stay true:
//! - a batch has at most one group of a slot, and a group's range is what was read: from where the group before ended
//!   to the next offset that was not read yet;
//! - a range with a named gap (expired, skipped) is a group of its own, without records;
//! - batches leave in the order in which they were closed;
//! - nothing of a slot is kept when its position is given anew.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use codec::{Batch, GapReason, UNKNOWN_LEADER_EPOCH};
use proto::{
    ids::{Offset, ResumeEpoch, Slot},
    limits,
};

use crate::{
    partition::{Partition, Topic},
    topic_check::Moment,
};

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Assembly {
    linger: Duration,
    /// Plain bytes that may be held, open and closed batches together.
    budget: u64,
    readings: Vec<Reading>,
    by_slot: BTreeMap<Slot, usize>,
    /// Counts positions given, so that events of an earlier one are told apart.
    positions: u32,
    open: Open,
    closed: VecDeque<Closed>,
    closed_bytes: u64,
    spare: Vec<Batch>,
}

/// A source partition that is, or was, read by the lane.
#[derive(Debug)]
struct Reading {
    partition: Arc<Partition>,
    /// Of the current position; 0 while it has none.
    token: u64,
    resume_epoch: ResumeEpoch,
    /// The next offset that is in no group yet.
    covered: i64,
    /// Epoch of the leader that wrote the last record of the open batch, where known.
    leader_epoch: i32,
    /// Whether the open batch has a group of it.
    in_open: bool,
    /// The named gap that is being read over.
    gap: Option<Gap>,
}

#[derive(Debug, Clone)]
struct Gap {
    reason: GapReason,
    from: i64,
    why: Arc<str>,
}

#[derive(Debug, Default)]
struct Open {
    batch: Batch,
    since: Option<Instant>,
    topics: Vec<Arc<Topic>>,
}

impl Open {
    /// Plain bytes at which it is full.
    fn target(&self) -> u64 {
        limits::parcel_target(self.topics.len())
    }
}

/// A closed batch.
#[derive(Debug)]
pub(crate) struct Closed {
    pub(crate) batch: Batch,
    /// Everything in it was fetched before.
    pub(crate) read: Moment,
    /// The topics in it.
    pub(crate) topics: Vec<Arc<Topic>>,
    /// Gaps in it that must be on record before it leaves.
    pub(crate) gaps: Vec<NamedGap>,
    plain: u64,
}

/// Offsets that will not be delivered, by an operator's word.
#[derive(Debug, Clone)]
pub(crate) struct NamedGap {
    pub(crate) partition: Arc<Partition>,
    pub(crate) reason: GapReason,
    pub(crate) first: i64,
    pub(crate) next: i64,
    pub(crate) why: Arc<str>,
}

/// One record as the consumer lends it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Input<'a> {
    pub(crate) offset: i64,
    pub(crate) timestamp: i64,
    /// Epoch of the leader that wrote it, where known.
    pub(crate) leader_epoch: Option<i32>,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
}

/// What became of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It is in a batch, or not wanted any more.
    Yes,
    /// No parcel can carry it. The slot gives nothing more until it has a new position.
    TooLarge {
        /// The slot.
        slot: Slot,
        /// Its offset.
        offset: i64,
        /// Its plain size.
        bytes: u64,
    },
}

impl Assembly {
    pub(crate) fn new(linger: Duration, budget: u64) -> Self {
        Self {
            linger,
            budget,
            readings: Vec::new(),
            by_slot: BTreeMap::new(),
            positions: 0,
            open: Open::default(),
            closed: VecDeque::new(),
            closed_bytes: 0,
            spare: Vec::new(),
        }
    }

    /// `partition` is read from `next`; what was gathered of it is dropped. Gives the token that its records carry.
    pub(crate) fn resume(
        &mut self,
        partition: &Arc<Partition>,
        resume_epoch: ResumeEpoch,
        next: Offset,
    ) -> u64 {
        self.remove(partition.slot);
        self.positions += 1;
        let index = *self.by_slot.entry(partition.slot).or_insert(self.readings.len());
        let token = u64::from(self.positions) << 32 | index as u64;
        let reading = Reading {
            partition: Arc::clone(partition),
            token,
            resume_epoch,
            covered: next.0,
            leader_epoch: UNKNOWN_LEADER_EPOCH,
            in_open: false,
            gap: None,
        };
        if index == self.readings.len() {
            self.readings.push(reading)
        } else {
            self.readings[index] = reading
        }
        token
    }

    /// The slot is not read any more; what the open batch has of it is dropped. Gives the token that it had.
    pub(crate) fn remove(&mut self, slot: Slot) -> Option<u64> {
        let reading = &mut self.readings[*self.by_slot.get(&slot)?];
        reading.leader_epoch = UNKNOWN_LEADER_EPOCH;
        if std::mem::take(&mut reading.in_open) {
            self.open.batch.retain_groups(|group| group.slot != slot.0);
            if self.open.batch.is_empty() {
                self.open.since = None;
                self.open.topics.clear();
            }
        }
        reading.gap = None;
        Some(std::mem::take(&mut reading.token)).filter(|token| *token != 0)
    }

    /// Everything is dropped, and nothing is read any more. Gives the tokens that were in use.
    pub(crate) fn clear(&mut self) -> Vec<u64> {
        while let Some(closed) = self.pop() {
            self.recycle(closed.batch);
        }
        let slots: Vec<Slot> = self.by_slot.keys().copied().collect();
        slots.into_iter().filter_map(|slot| self.remove(slot)).collect()
    }

    /// The partition that a token stands for now.
    pub(crate) fn partition(&self, token: u64) -> Option<&Arc<Partition>> {
        self.reading(token).map(|index| &self.readings[index].partition)
    }

    /// The partition of a slot that was read at any time.
    pub(crate) fn partition_of(&self, slot: Slot) -> Option<&Arc<Partition>> {
        self.by_slot.get(&slot).map(|index| &self.readings[*index].partition)
    }

    /// Partitions being read, with their tokens.
    pub(crate) fn reading_now(&self) -> impl Iterator<Item = (u64, &Arc<Partition>)> {
        self.readings
            .iter()
            .filter(|reading| reading.token != 0)
            .map(|reading| (reading.token, &reading.partition))
    }

    /// The slots of a topic that were read at any time.
    pub(crate) fn slots_of(&self, topic: &Arc<Topic>) -> Vec<Slot> {
        let of_topic = self.readings.iter().filter(|reading| Arc::ptr_eq(&reading.partition.topic, topic));
        of_topic.map(|reading| reading.partition.slot).collect()
    }

    /// Whether nothing more may be read for now.
    pub(crate) fn is_full(&self) -> bool {
        self.open.batch.plain_size() + self.closed_bytes >= self.budget
    }

    /// Takes a record that was fetched before `now`. Records come in offset order within a token.
    pub(crate) fn record<'h>(
        &mut self,
        token: u64,
        input: Input<'_>,
        headers: impl ExactSizeIterator<Item = (&'h [u8], Option<&'h [u8]>)> + Clone,
        now: Instant,
    ) -> Taken {
        let Some(index) = self.reading(token) else { return Taken::Yes };
        let reading = &self.readings[index];
        if input.offset < reading.covered {
            return Taken::Yes;
        }
        if let Some((range, why)) = reading.partition.skips.at(input.offset) {
            let (from, why) = (range.start, Arc::clone(why));
            self.skip(index, from, &why, now);
            self.readings[index].covered = input.offset + 1;
            return Taken::Yes;
        }
        if reading.gap.is_some() {
            self.end_gap(index);
        }
        let bytes = codec::record_plain_size(input.key, input.value, headers.clone());
        if bytes > u64::from(codec::limits::MAX_RECORD_PLAIN)
            || headers.len() > codec::limits::MAX_HEADERS as usize
        {
            return self.too_large(index, input.offset, bytes, now);
        }
        if self.open.batch.plain_size() + bytes > self.open.target() {
            self.close();
        }
        let slot = self.group(index, now);
        let group = self.open.batch.group_index(slot.0);
        self.open.batch.push(group, input.offset, input.timestamp, input.key, input.value, headers);
        let reading = &mut self.readings[index];
        reading.covered = input.offset + 1;
        reading.leader_epoch = input.leader_epoch.unwrap_or(UNKNOWN_LEADER_EPOCH);
        if self.open.batch.plain_size() >= self.open.target() {
            self.close();
        }
        Taken::Yes
    }

    /// No record lies between what was read and `position`.
    pub(crate) fn end_of_partition(&mut self, token: u64, position: i64, now: Instant) {
        let Some(index) = self.reading(token) else { return };
        if position <= self.readings[index].covered {
            return;
        }
        if self.readings[index].gap.is_some() {
            self.end_gap(index);
        }
        self.group(index, now);
        self.readings[index].covered = position;
    }

    /// The source lost the offsets from the position to `log_start`, and an operator accepts that.
    pub(crate) fn expire(&mut self, token: u64, log_start: i64, why: &Arc<str>, now: Instant) {
        let Some(index) = self.reading(token) else { return };
        self.begin_gap(index, GapReason::Expired, why, now);
        self.readings[index].covered = log_start;
        self.end_gap(index);
    }

    /// Closes the open batch when its records have waited long enough.
    pub(crate) fn close_due(&mut self, now: Instant) {
        if self.due().is_some_and(|due| due <= now) {
            self.close();
        }
    }

    /// When the open batch is to be closed.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.open.since.map(|since| since + self.linger)
    }

    /// Closes the open batch, if there is anything in it.
    pub(crate) fn close(&mut self) {
        if self.open.batch.is_empty() {
            return;
        }
        let mut open = Open { batch: self.spare.pop().unwrap_or_default(), ..Open::default() };
        std::mem::swap(&mut open, &mut self.open);
        open.batch.order_groups();
        let mut gaps = Vec::new();
        for group in open.batch.groups_mut() {
            let index = self.by_slot[&Slot(group.slot)];
            let reading = &mut self.readings[index];
            group.resume_epoch = reading.resume_epoch.0;
            group.next = reading.covered;
            group.leader_epoch = std::mem::replace(&mut reading.leader_epoch, UNKNOWN_LEADER_EPOCH);
            reading.in_open = false;
            reading.partition.read(reading.covered);
            if let Some(gap) = &mut reading.gap {
                group.gap = gap.reason;
                gaps.push(NamedGap {
                    partition: Arc::clone(&reading.partition),
                    reason: gap.reason,
                    first: gap.from,
                    next: reading.covered,
                    why: Arc::clone(&gap.why),
                });
                gap.from = reading.covered;
            }
        }
        let plain = open.batch.plain_size();
        self.closed_bytes += plain;
        self.closed.push_back(Closed {
            batch: open.batch,
            read: Moment::now(),
            topics: open.topics,
            gaps,
            plain,
        });
    }

    /// The batch that leaves next.
    pub(crate) fn front(&mut self) -> Option<&mut Closed> {
        self.closed.front_mut()
    }

    /// Takes the batch that leaves next.
    pub(crate) fn pop(&mut self) -> Option<Closed> {
        let closed = self.closed.pop_front()?;
        self.closed_bytes -= closed.plain;
        Some(closed)
    }

    /// Whether nothing is gathered.
    pub(crate) fn is_empty(&self) -> bool {
        self.closed.is_empty() && self.open.batch.is_empty()
    }

    /// Whether closed batches wait to leave.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.closed.is_empty()
    }

    /// Gives a batch's memory back for the next one.
    pub(crate) fn recycle(&mut self, mut batch: Batch) {
        // One that carried a very large record would keep its memory for ever.
        if self.spare.len() < MAX_SPARE && batch.plain_size() <= 2 * limits::MOST_PARCEL_TARGET {
            batch.clear();
            self.spare.push(batch);
        }
    }

    fn reading(&self, token: u64) -> Option<usize> {
        let index = (token & u64::from(u32::MAX)) as usize;
        self.readings.get(index).filter(|reading| reading.token == token && token != 0).map(|_| index)
    }

    /// Makes sure that the open batch has a group of the reading.
    fn group(&mut self, index: usize, now: Instant) -> Slot {
        let reading = &mut self.readings[index];
        let slot = reading.partition.slot;
        if !std::mem::replace(&mut reading.in_open, true) {
            self.open.batch.group_index(slot.0);
            self.open.since.get_or_insert(now);
            let topic = &reading.partition.topic;
            if !self.open.topics.iter().any(|known| Arc::ptr_eq(known, topic)) {
                self.open.topics.push(Arc::clone(topic));
            }
        }
        slot
    }

    /// The next record lies in a range that begins at `from` and is given up.
    fn skip(&mut self, index: usize, from: i64, why: &Arc<str>, now: Instant) {
        let reading = &mut self.readings[index];
        match &reading.gap {
            Some(gap) if Arc::ptr_eq(&gap.why, why) => {}
            Some(_) => {
                self.end_gap(index);
                self.begin_gap(index, GapReason::Skipped, why, now);
            }
            None => {
                if reading.covered < from {
                    // Nothing visible lies there: a group of its own, as the gap's begins after it.
                    self.group(index, now);
                    self.readings[index].covered = from;
                }
                self.begin_gap(index, GapReason::Skipped, why, now);
            }
        }
        self.group(index, now);
    }

    fn begin_gap(&mut self, index: usize, reason: GapReason, why: &Arc<str>, now: Instant) {
        if self.readings[index].in_open {
            self.close();
        }
        let reading = &mut self.readings[index];
        reading.gap = Some(Gap { reason, from: reading.covered, why: Arc::clone(why) });
        self.group(index, now);
    }

    /// What is read next is no part of the gap any more.
    fn end_gap(&mut self, index: usize) {
        if self.readings[index].in_open {
            self.close();
        }
        self.readings[index].gap = None;
    }

    fn too_large(&mut self, index: usize, offset: i64, bytes: u64, now: Instant) -> Taken {
        if self.readings[index].covered < offset {
            self.group(index, now);
        }
        let reading = &mut self.readings[index];
        reading.covered = offset;
        reading.token = 0;
        Taken::TooLarge { slot: reading.partition.slot, offset, bytes }
    }
}

const MAX_SPARE: usize = 16;

#[cfg(test)]
mod tests;
