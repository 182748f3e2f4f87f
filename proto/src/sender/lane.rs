use std::collections::BTreeMap;

use codec::Batch;

use crate::{
    ids::{LaneEpoch, Offset, ResumeEpoch, Slot},
    misbehaved::PeerMisbehaved,
    wire::ParcelHeader,
};

/// Numbers and chains what one lane sends on one connection, within its credit.
#[derive(Debug)]
pub struct Lane {
    epoch: LaneEpoch,
    sequence: u64,
    /// Plain bytes sent since the epoch began.
    sent: u64,
    /// Plain bytes that may have been sent since the epoch began.
    credit: u64,
    slots: BTreeMap<Slot, Position>,
}

#[derive(Debug)]
struct Position {
    resume_epoch: ResumeEpoch,
    /// The next offset to send.
    next: Offset,
    /// The last acknowledgement. None at first: a position given may lie above what is committed yet.
    committed: Option<Offset>,
}

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stamped {
    /// It is to be sent.
    Send,
    /// Nothing of it is current any more.
    Nothing,
}

impl Lane {
    /// A lane at the beginning of `epoch`, with `credit` plain bytes to send.
    ///
    /// Each session has lanes of its own. Slots and resume epochs begin anew with it: what was read for another
    /// session must not be stamped here, as nothing in a batch would tell.
    pub fn new(epoch: LaneEpoch, credit: u64) -> Self {
        Self { epoch, sequence: 0, sent: 0, credit, slots: BTreeMap::new() }
    }

    /// The epoch that the lane's stream carries.
    pub fn epoch(&self) -> LaneEpoch {
        self.epoch
    }

    /// A new epoch: nothing may be sent for any slot before its next [`Lane::resume`].
    pub fn reset(&mut self, epoch: LaneEpoch, credit: u64) {
        assert!(epoch > self.epoch, "lane epochs only grow: {epoch} after {}", self.epoch);
        *self = Self::new(epoch, credit);
    }

    /// A slot is to be sent from `next`; what was read for it before is of no use.
    pub fn resume(&mut self, slot: Slot, resume_epoch: ResumeEpoch, next: Offset) {
        self.slots.insert(slot, Position { resume_epoch, next, committed: None });
    }

    /// A slot is held, refused or closed.
    pub fn remove(&mut self, slot: Slot) {
        self.slots.remove(&slot);
    }

    /// The importer allows more. Credit for another epoch, or less than there is, changes nothing.
    pub fn grant(&mut self, epoch: LaneEpoch, total: u64) {
        if epoch == self.epoch {
            self.credit = self.credit.max(total);
        }
    }

    /// Plain bytes that may be sent now.
    pub fn credit_left(&self) -> u64 {
        self.credit - self.sent
    }

    /// Plain bytes sent in this epoch.
    pub fn sent_bytes(&self) -> u64 {
        self.sent
    }

    /// Chains the groups of `batch`, whose `resume_epoch` says for which position they were read, whose `next` is
    /// the end of what they cover, and drops the ones that are not current. Call it in the order of sending, just
    /// before the batch is encoded.
    ///
    /// # Panics
    /// When a group does not go forward: the caller read backwards without a new position.
    pub fn stamp(&mut self, batch: &mut Batch) -> Stamped {
        batch.retain_groups(|group| {
            self.slots.get(&Slot(group.slot)).is_some_and(|position| {
                position.resume_epoch.0 == group.resume_epoch && group.next > position.next.0
            })
        });
        for group in batch.groups_mut() {
            let position =
                self.slots.get_mut(&Slot(group.slot)).expect("only groups of known slots were kept");
            group.prev_next = position.next.0;
            position.next = Offset(group.next);
        }
        for (index, group) in batch.groups().iter().enumerate() {
            let first = batch.records(index).next().map_or(group.prev_next, |record| record.offset);
            assert!(first >= group.prev_next, "slot {} sends offset {first} twice", group.slot);
        }
        if batch.groups().is_empty() { Stamped::Nothing } else { Stamped::Send }
    }

    /// The header of the parcel that carries the batch stamped last.
    ///
    /// # Panics
    /// When `plain` is above the credit left: the caller must wait for credit first.
    pub fn header(&mut self, coded: u32, plain: u32) -> ParcelHeader {
        assert!(u64::from(plain) <= self.credit_left(), "a parcel of {plain} bytes above the credit");
        let header = ParcelHeader { epoch: self.epoch, sequence: self.sequence, coded, plain };
        self.sequence += 1;
        self.sent += u64::from(plain);
        header
    }

    /// Takes an acknowledgement; says whether it is news for a current slot.
    pub fn committed(&mut self, slot: Slot, next: Offset) -> Result<bool, PeerMisbehaved> {
        let Some(position) = self.slots.get_mut(&slot) else { return Ok(false) };
        // Above what was sent it is a lie that would move the source's committed offset past the target.
        if next > position.next {
            return Err(PeerMisbehaved::AcknowledgedUnsent { slot, next: next.0, sent: position.next.0 });
        }
        let news = position.committed.is_none_or(|before| before < next);
        position.committed = position.committed.max(Some(next));
        Ok(news)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(slot: u32, resume_epoch: u32, offsets: std::ops::Range<i64>) -> Batch {
        let mut batch = Batch::new();
        let group = batch.group_index(slot);
        for offset in offsets.clone() {
            batch.push(group, offset, 0, None, Some(b"v"), std::iter::empty());
        }
        let group = &mut batch.groups_mut()[group];
        group.resume_epoch = resume_epoch;
        group.next = offsets.end;
        batch
    }

    #[test]
    fn groups_are_chained_and_stale_ones_dropped() {
        let mut lane = Lane::new(LaneEpoch(1), 1000);
        lane.resume(Slot(1), ResumeEpoch(1), Offset(10));
        let mut first = batch(1, 1, 12..15);
        assert_eq!(lane.stamp(&mut first), Stamped::Send);
        assert_eq!((first.groups()[0].prev_next, first.groups()[0].next), (10, 15));
        lane.resume(Slot(1), ResumeEpoch(2), Offset(10));
        assert_eq!(lane.stamp(&mut batch(1, 1, 15..20)), Stamped::Nothing, "read before the last resume");
        assert_eq!(lane.stamp(&mut batch(2, 1, 0..5)), Stamped::Nothing, "a slot that is not open");
        let mut again = batch(1, 2, 12..15);
        assert_eq!(lane.stamp(&mut again), Stamped::Send);
        assert_eq!(again.groups()[0].prev_next, 10);
    }

    #[test]
    #[should_panic(expected = "above the credit")]
    fn a_parcel_above_the_credit_is_never_sent() {
        let mut lane = Lane::new(LaneEpoch(1), 100);
        lane.header(5, 60);
        assert_eq!(lane.credit_left(), 40);
        lane.header(5, 41);
    }

    #[test]
    fn credit_only_grows_and_only_for_its_epoch() {
        let mut lane = Lane::new(LaneEpoch(2), 100);
        lane.grant(LaneEpoch(1), 900);
        lane.grant(LaneEpoch(2), 50);
        assert_eq!(lane.credit_left(), 100);
        lane.grant(LaneEpoch(2), 150);
        assert_eq!(lane.credit_left(), 150);
        lane.reset(LaneEpoch(3), 70);
        assert_eq!(lane.credit_left(), 70);
        assert_eq!(lane.stamp(&mut batch(1, 1, 0..1)), Stamped::Nothing, "a reset waits for positions");
    }

    #[test]
    fn what_was_accepted_before_a_new_position_is_news_when_it_is_committed() {
        let mut lane = Lane::new(LaneEpoch(1), 1000);
        lane.resume(Slot(1), ResumeEpoch(1), Offset(0));
        lane.stamp(&mut batch(1, 1, 0..5));
        // The lane broke: the importer goes on from what it accepted, which is not committed yet.
        lane.reset(LaneEpoch(2), 1000);
        lane.resume(Slot(1), ResumeEpoch(2), Offset(5));
        assert_eq!(lane.committed(Slot(1), Offset(5)), Ok(true));
        assert_eq!(lane.committed(Slot(1), Offset(5)), Ok(false));
    }

    #[test]
    fn an_acknowledgement_of_what_was_not_sent_is_misbehaviour() {
        let mut lane = Lane::new(LaneEpoch(1), 1000);
        lane.resume(Slot(1), ResumeEpoch(1), Offset(0));
        lane.stamp(&mut batch(1, 1, 0..5));
        assert_eq!(lane.committed(Slot(1), Offset(5)), Ok(true));
        assert_eq!(lane.committed(Slot(1), Offset(5)), Ok(false));
        assert_eq!(lane.committed(Slot(7), Offset(5)), Ok(false));
        assert!(matches!(
            lane.committed(Slot(1), Offset(6)),
            Err(PeerMisbehaved::AcknowledgedUnsent { next: 6, sent: 5, .. })
        ));
    }
}
