use std::collections::{BTreeMap, VecDeque};

use codec::{Group, UNKNOWN_LEADER_EPOCH};

use crate::{
    hold,
    ids::{Lane as LaneId, LaneEpoch, Offset, ResumeEpoch, SessionId, Slot, SourcePartition},
    misbehaved::PeerMisbehaved,
    policy::Permit,
    wire::{self, ParcelHeader, ToExporter},
};

/// Judges what arrives on one lane, and tells the exporter how far things are.
///
/// It outlives connections, as the lane's thread and producer do; slots and numbers belong to a session.
#[derive(Debug)]
pub struct Lane {
    lane: LaneId,
    session: Option<SessionId>,
    epoch: LaneEpoch,
    next_sequence: u64,
    /// Plain bytes that a lane epoch may have outstanding.
    window: u64,
    /// Plain bytes of this epoch's parcels that came.
    taken: u64,
    /// Of those, the ones that take no memory any more.
    freed: u64,
    /// Credit as the exporter knows it.
    granted: u64,
    slots: BTreeMap<Slot, Entry>,
    /// The one slot under which each source partition is sent.
    by_partition: BTreeMap<SourcePartition, Slot>,
    committed: BTreeMap<Slot, Offset>,
    transmit: VecDeque<ToExporter>,
}

#[derive(Debug)]
struct Entry {
    partition: SourcePartition,
    permit: Permit,
    resume_epoch: ResumeEpoch,
    /// Accepted up to here: where the next group must begin.
    expected: Offset,
    /// Leader epoch of the offset before `expected`, if it is known. One of an earlier offset would make the exporter
    /// believe that the source was cut back.
    leader_epoch: Option<i32>,
    held: bool,
}

/// Whether a parcel is to be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Decode it.
    Decode,
    /// It belongs to an earlier session or lane epoch: throw it away.
    Stale,
}

/// What is to become of a group.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// It is accepted: it must become durable before anything behind it does. The permit is the right to write it.
    Accept(&'a SourcePartition, &'a Permit),
    /// It was sent before the exporter knew of its last position, or its partition is held: drop it.
    Stale,
    /// It does not follow what was accepted: dropped, and the exporter was told where to go on.
    Rewound,
}

impl Lane {
    /// A lane without a session, that will let `window` plain bytes be outstanding.
    pub fn new(lane: LaneId, window: u64) -> Self {
        Self {
            lane,
            session: None,
            epoch: LaneEpoch(0),
            next_sequence: 0,
            window,
            taken: 0,
            freed: 0,
            granted: window,
            slots: BTreeMap::new(),
            by_partition: BTreeMap::new(),
            committed: BTreeMap::new(),
            transmit: VecDeque::new(),
        }
    }

    /// Which lane it is.
    pub fn lane(&self) -> LaneId {
        self.lane
    }

    /// The session it serves.
    pub fn session(&self) -> Option<SessionId> {
        self.session
    }

    /// The epoch whose parcels it takes.
    pub fn epoch(&self) -> LaneEpoch {
        self.epoch
    }

    /// A new session: every slot and number of the one before is void.
    pub fn begin_session(&mut self, session: SessionId) {
        assert!(self.session.is_none_or(|before| before < session), "sessions only grow");
        *self = Self { session: Some(session), epoch: LaneEpoch(1), ..Self::new(self.lane, self.window) };
    }

    /// The grant of `session` was taken back: nothing of it, or of one before it, is taken any more.
    pub fn void(&mut self, session: SessionId) {
        if self.session.is_some_and(|current| current <= session) {
            *self = Self::new(self.lane, self.window);
        }
    }

    /// A source partition's position is known: it is sent from `next`.
    ///
    /// A partition is sent under one slot at a time, or its records could be accepted once per slot: a slot by
    /// which it was known before takes nothing more. A slot that named another partition before keeps nothing of it.
    pub fn open(
        &mut self,
        slot: Slot,
        partition: SourcePartition,
        permit: Permit,
        next: Offset,
        leader_epoch: Option<i32>,
        new: bool,
    ) -> ResumeEpoch {
        let resume_epoch =
            self.slots.get(&slot).map_or(ResumeEpoch(1), |entry| following(entry.resume_epoch));
        let entry = Entry { partition, permit, resume_epoch, expected: next, leader_epoch, held: false };
        self.transmit.push_back(entry.resume(slot, new).into());
        if let Some(before) = self.by_partition.insert(entry.partition.clone(), slot)
            && before != slot
        {
            self.close(before);
        }
        if let Some(before) = self.slots.insert(slot, entry)
            && before.partition != self.slots[&slot].partition
        {
            self.committed.remove(&slot);
            self.forget(&before.partition, slot);
        }
        resume_epoch
    }

    /// `partition` is no longer known by `slot`.
    fn forget(&mut self, partition: &SourcePartition, slot: Slot) {
        if self.by_partition.get(partition) == Some(&slot) {
            self.by_partition.remove(partition);
        }
    }

    /// A slot can not go on. Everything that still comes for it is dropped until it is opened again.
    pub fn hold(&mut self, slot: Slot, reason: hold::Reason, detail: &str) {
        if let Some(entry) = self.slots.get_mut(&slot) {
            entry.held = true;
        }
        self.committed.remove(&slot);
        self.transmit.push_back(
            wire::Hold { slot: slot.0, reason: reason.word().into(), detail: detail.into() }.into(),
        );
    }

    /// Nothing more comes for a slot.
    pub fn close(&mut self, slot: Slot) {
        self.committed.remove(&slot);
        if let Some(entry) = self.slots.get_mut(&slot) {
            entry.held = true;
        }
    }

    /// The slot by which the exporter knows `partition`, if it is open and not held.
    pub fn slot_of(&self, partition: &SourcePartition) -> Option<Slot> {
        self.by_partition.get(partition).copied().filter(|slot| !self.slots[slot].held)
    }

    /// The source partitions that are sent now, with what was accepted of each: where its next group must begin.
    pub fn accepted(&self) -> impl Iterator<Item = (&SourcePartition, Offset)> {
        let running = self.slots.values().filter(|entry| !entry.held);
        running.map(|entry| (&entry.partition, entry.expected))
    }

    /// What was accepted of `partition` from `next` on is lost here: the exporter is to send it again.
    pub fn rewind(&mut self, partition: &SourcePartition, next: Offset, leader_epoch: Option<i32>) {
        let Some(slot) = self.slot_of(partition) else { return };
        let entry = self.slots.get_mut(&slot).expect("the slot was just found");
        entry.resume_epoch = following(entry.resume_epoch);
        (entry.expected, entry.leader_epoch) = (next, leader_epoch);
        let resume = entry.resume(slot, false);
        self.committed.remove(&slot);
        self.transmit.push_back(resume.into());
    }

    /// A parcel came on the stream of `epoch`.
    pub fn parcel(&mut self, session: SessionId, header: &ParcelHeader) -> Result<Admission, PeerMisbehaved> {
        if self.session != Some(session) || header.epoch < self.epoch {
            return Ok(Admission::Stale);
        }
        if header.epoch > self.epoch {
            return Err(PeerMisbehaved::WrongLaneEpoch { expected: self.epoch.0, got: header.epoch.0 });
        }
        if header.sequence != self.next_sequence {
            return Err(PeerMisbehaved::OutOfSequence { expected: self.next_sequence, got: header.sequence });
        }
        let left = self.granted - self.taken;
        if u64::from(header.plain) > left {
            return Err(PeerMisbehaved::AboveCredit { plain: header.plain, left });
        }
        self.next_sequence += 1;
        self.taken += u64::from(header.plain);
        Ok(Admission::Decode)
    }

    /// A parcel did not decode: the lane starts a new epoch, every open slot from what was accepted last.
    pub fn broken(&mut self, reason: &str) {
        self.epoch = LaneEpoch(self.epoch.0 + 1);
        (self.next_sequence, self.taken, self.freed, self.granted) = (0, 0, 0, self.window);
        let reset = wire::LaneReset {
            lane: self.lane.0.into(),
            epoch: self.epoch.0,
            credit: self.window,
            reason: reason.into(),
        };
        self.transmit.push_back(reset.into());
        for (slot, entry) in self.slots.iter_mut().filter(|(_, entry)| !entry.held) {
            entry.resume_epoch = following(entry.resume_epoch);
            self.transmit.push_back(entry.resume(*slot, false).into());
        }
    }

    /// Judges a group: the only place where a duplicate is dropped and a missing parcel is noticed.
    /// `first` and `last` are the offsets of its records.
    pub fn judge(
        &mut self,
        group: &Group,
        records: Option<(i64, i64)>,
    ) -> Result<Verdict<'_>, PeerMisbehaved> {
        let slot = Slot(group.slot);
        let Some(entry) = self.slots.get_mut(&slot) else { return Err(PeerMisbehaved::UnknownSlot(slot)) };
        if group.resume_epoch > entry.resume_epoch.0 {
            let given = entry.resume_epoch.0;
            return Err(PeerMisbehaved::FutureResumeEpoch { slot, got: group.resume_epoch, given });
        }
        let inside = records.is_none_or(|(first, last)| first >= group.prev_next && last < group.next);
        if group.prev_next < 0 || group.next <= group.prev_next || !inside {
            return Err(PeerMisbehaved::NotARange { slot, prev_next: group.prev_next, next: group.next });
        }
        if entry.held || group.resume_epoch < entry.resume_epoch.0 {
            return Ok(Verdict::Stale);
        }
        if group.prev_next != entry.expected.0 {
            entry.resume_epoch = following(entry.resume_epoch);
            self.transmit.push_back(entry.resume(slot, false).into());
            return Ok(Verdict::Rewound);
        }
        entry.expected = Offset(group.next);
        // Markers behind the last record may be of a later leader.
        let up_to_next = records.is_some_and(|(_, last)| last + 1 == group.next);
        let known = up_to_next && group.leader_epoch != UNKNOWN_LEADER_EPOCH;
        entry.leader_epoch = known.then_some(group.leader_epoch);
        Ok(Verdict::Accept(&entry.partition, &entry.permit))
    }

    /// Plain bytes of parcels of `session` and `epoch` that take no memory any more. Each session counts its credit
    /// anew: what an earlier one sent gives this one nothing.
    pub fn free(&mut self, session: SessionId, epoch: LaneEpoch, plain: u64) {
        if self.session == Some(session) && epoch == self.epoch {
            self.freed += plain;
            assert!(self.freed <= self.taken, "freed {} of {}", self.freed, self.taken);
        }
    }

    /// The transaction with everything of `partition` below `next` is committed. Only call it then.
    /// `leader_epoch` is that of the offset before `next`, as in [`Lane::open`] and [`Lane::rewind`].
    pub fn committed(&mut self, partition: &SourcePartition, next: Offset, leader_epoch: Option<i32>) {
        let Some(slot) = self.slot_of(partition) else { return };
        let entry = self.slots.get_mut(&slot).expect("the slot was just found");
        assert!(next <= entry.expected, "{partition}: {next} committed, {} accepted", entry.expected);
        if next == entry.expected {
            entry.leader_epoch = leader_epoch;
        }
        self.committed.insert(slot, next);
    }

    /// The next message for the exporter: answers first, then what is committed and the credit that came free.
    pub fn poll_transmit(&mut self) -> Option<ToExporter> {
        if let Some(message) = self.transmit.pop_front() {
            return Some(message);
        }
        let granted = self.freed + self.window;
        // Small steps of credit are not worth a message of their own.
        let worth_it = granted - self.granted >= self.window / 4;
        if self.session.is_none() || (self.committed.is_empty() && !worth_it) {
            return None;
        }
        self.granted = granted;
        let mut committed = Vec::new();
        while committed.len() < MAX_ACKS
            && let Some((slot, next)) = self.committed.pop_first()
        {
            committed.push(wire::Committed { slot: slot.0, next: next.0 });
        }
        let credit = vec![wire::Credit { lane: self.lane.0.into(), epoch: self.epoch.0, total: granted }];
        Some(wire::Ack { committed, credit }.into())
    }
}

impl Entry {
    fn resume(&self, slot: Slot, new: bool) -> wire::Resume {
        wire::Resume {
            slot: slot.0,
            resume_epoch: self.resume_epoch.0,
            next: self.expected.0,
            leader_epoch: self.leader_epoch.unwrap_or(-1),
            new,
        }
    }
}

fn following(epoch: ResumeEpoch) -> ResumeEpoch {
    ResumeEpoch(epoch.0 + 1)
}

/// Positions in one `Ack`: 16 bytes each stay far below the bound of a control message.
const MAX_ACKS: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ids::TopicId,
        policy::{LinkPolicy, Mapping, Policy},
        wire::Answer,
    };

    fn partition() -> SourcePartition {
        SourcePartition { cluster: "c".into(), topic: TopicId([1; 16]), partition: 0 }
    }

    fn permit() -> Permit {
        let mut policy = Policy::new();
        let link = LinkPolicy {
            identity: "i".into(),
            cluster: None,
            topics: vec!["orders".parse().unwrap()],
            mapping: Mapping::default(),
            rate: None,
        };
        policy.insert("l", link);
        policy.admit("l", "i", "c").unwrap().permit("orders").unwrap()
    }

    fn lane() -> Lane {
        let mut lane = Lane::new(LaneId(0), 1000);
        lane.begin_session(SessionId(1));
        lane.open(Slot(1), partition(), permit(), Offset(100), None, false);
        assert_eq!(resumed(&mut lane), Some((1, 100)));
        lane
    }

    fn resumed(lane: &mut Lane) -> Option<(u32, i64)> {
        match lane.poll_transmit()?.answer? {
            Answer::Resume(resume) => Some((resume.resume_epoch, resume.next)),
            other => panic!("{other:?}"),
        }
    }

    fn group(resume_epoch: u32, prev_next: i64, next: i64) -> Group {
        let mut batch = codec::Batch::new();
        let index = batch.group_index(1);
        let group = &mut batch.groups_mut()[index];
        (group.resume_epoch, group.prev_next, group.next) = (resume_epoch, prev_next, next);
        group.clone()
    }

    fn header(epoch: u32, sequence: u64, plain: u32) -> ParcelHeader {
        ParcelHeader { epoch: LaneEpoch(epoch), sequence, coded: 1, plain }
    }

    #[test]
    fn a_group_that_follows_is_accepted_once() {
        let mut lane = lane();
        assert!(matches!(lane.judge(&group(1, 100, 110), Some((100, 109))), Ok(Verdict::Accept(..))));
        // the same group again does not follow.
        assert_eq!(lane.judge(&group(1, 100, 110), Some((100, 109))), Ok(Verdict::Rewound));
    }

    #[test]
    fn nothing_is_taken_of_a_session_whose_grant_was_taken_back() {
        let mut lane = lane();
        lane.void(SessionId(1));
        assert_eq!(lane.parcel(SessionId(1), &header(1, 0, 10)), Ok(Admission::Stale));
        assert_eq!(lane.slot_of(&partition()), None);
        lane.begin_session(SessionId(2));
        lane.void(SessionId(1));
        assert_eq!(
            lane.parcel(SessionId(2), &header(1, 0, 10)),
            Ok(Admission::Decode),
            "a later one is not touched"
        );
    }

    #[test]
    fn a_missing_parcel_brings_one_resume_and_what_was_in_flight_is_dropped() {
        let mut lane = lane();
        assert_eq!(lane.judge(&group(1, 200, 210), None), Ok(Verdict::Rewound));
        assert_eq!(lane.judge(&group(1, 210, 220), None), Ok(Verdict::Stale));
        assert_eq!(lane.judge(&group(1, 220, 230), None), Ok(Verdict::Stale));
        assert_eq!(resumed(&mut lane), Some((2, 100)));
        assert_eq!(lane.poll_transmit(), None, "one resume, not three");
        assert!(matches!(lane.judge(&group(2, 100, 105), None), Ok(Verdict::Accept(..))));
    }

    #[test]
    fn lies_about_ranges_slots_and_epochs_are_misbehaviour() {
        let mut lane = lane();
        for (prev_next, next, records) in [
            (100, 100, None),
            (100, 90, None),
            (-5, 100, None),
            (100, 110, Some((99, 105))),
            (100, 110, Some((100, 110))),
        ] {
            let judged = lane.judge(&group(1, prev_next, next), records);
            assert!(
                matches!(judged, Err(PeerMisbehaved::NotARange { .. })),
                "{prev_next}..{next} {records:?}"
            );
        }
        assert!(matches!(
            lane.judge(&group(2, 100, 110), None),
            Err(PeerMisbehaved::FutureResumeEpoch { .. })
        ));
        let mut unknown = group(1, 100, 110);
        unknown.slot = 2;
        assert_eq!(lane.judge(&unknown, None), Err(PeerMisbehaved::UnknownSlot(Slot(2))));
    }

    #[test]
    fn parcels_are_taken_in_sequence_within_credit_and_epoch() {
        let mut lane = lane();
        let session = SessionId(1);
        assert_eq!(lane.parcel(session, &header(1, 0, 600)), Ok(Admission::Decode));
        assert!(matches!(lane.parcel(session, &header(1, 0, 1)), Err(PeerMisbehaved::OutOfSequence { .. })));
        assert!(matches!(
            lane.parcel(session, &header(1, 1, 401)),
            Err(PeerMisbehaved::AboveCredit { plain: 401, left: 400 })
        ));
        assert!(matches!(lane.parcel(session, &header(2, 1, 1)), Err(PeerMisbehaved::WrongLaneEpoch { .. })));
        assert_eq!(lane.parcel(SessionId(0), &header(1, 1, 1)), Ok(Admission::Stale), "a stale session");
        lane.free(SessionId(1), LaneEpoch(1), 600);
        assert!(matches!(
            lane.poll_transmit().unwrap().answer,
            Some(Answer::Ack(wire::Ack { credit, .. })) if credit[0].total == 1600
        ));
        assert_eq!(lane.parcel(session, &header(1, 1, 1000)), Ok(Admission::Decode));
    }

    #[test]
    fn a_broken_lane_starts_anew_from_what_was_accepted() {
        let mut lane = lane();
        lane.parcel(SessionId(1), &header(1, 0, 10)).unwrap();
        assert!(matches!(lane.judge(&group(1, 100, 110), None), Ok(Verdict::Accept(..))));
        lane.broken("checksum");
        assert!(matches!(
            lane.poll_transmit().unwrap().answer,
            Some(Answer::LaneReset(wire::LaneReset { epoch: 2, credit: 1000, .. }))
        ));
        assert_eq!(resumed(&mut lane), Some((2, 110)));
        assert_eq!(lane.parcel(SessionId(1), &header(1, 1, 10)), Ok(Admission::Stale));
        lane.free(SessionId(1), LaneEpoch(1), 10);
        assert_eq!(lane.parcel(SessionId(1), &header(2, 0, 1000)), Ok(Admission::Decode));
    }

    #[test]
    fn a_position_above_what_is_committed_carries_its_own_leader_epoch() {
        let mut lane = lane();
        let mut first = group(1, 100, 110);
        first.leader_epoch = 4;
        let mut second = group(1, 110, 120);
        second.leader_epoch = 5;
        assert!(matches!(lane.judge(&first, Some((100, 109))), Ok(Verdict::Accept(..))));
        assert!(matches!(lane.judge(&second, Some((110, 119))), Ok(Verdict::Accept(..))));
        lane.committed(&partition(), Offset(110), Some(4));
        // 120 with epoch 4 would look as if the source had been cut back to where epoch 5 began.
        lane.broken("checksum");
        let resumes: Vec<_> = std::iter::from_fn(|| lane.poll_transmit()).filter_map(|m| m.answer).collect();
        assert!(matches!(resumes[1], Answer::Resume(wire::Resume { next: 120, leader_epoch: 5, .. })));
        assert!(matches!(lane.judge(&group(2, 120, 130), None), Ok(Verdict::Accept(..))), "a gap");
        assert_eq!(lane.judge(&group(2, 120, 130), None), Ok(Verdict::Rewound));
        assert!(matches!(
            std::iter::from_fn(|| lane.poll_transmit()).filter_map(|m| m.answer).last(),
            Some(Answer::Resume(wire::Resume { next: 130, leader_epoch: -1, .. }))
        ));
    }

    #[test]
    fn a_held_partition_drops_what_comes_and_the_others_go_on() {
        let mut lane = lane();
        let other = SourcePartition { partition: 1, ..partition() };
        lane.open(Slot(2), other, permit(), Offset(0), None, true);
        assert_eq!(resumed(&mut lane), Some((1, 0)));
        lane.hold(Slot(1), hold::Reason::RecordTooLarge, "too large");
        assert_eq!(lane.judge(&group(1, 100, 110), None), Ok(Verdict::Stale));
        let mut second = group(1, 0, 5);
        second.slot = 2;
        assert!(matches!(lane.judge(&second, None), Ok(Verdict::Accept(..))));
        assert!(matches!(lane.poll_transmit().unwrap().answer, Some(Answer::Hold(_))));
        lane.open(Slot(1), partition(), permit(), Offset(100), None, false);
        assert_eq!(resumed(&mut lane), Some((2, 100)));
        assert_eq!(
            lane.judge(&group(1, 100, 110), None),
            Ok(Verdict::Stale),
            "sent before the hold was lifted"
        );
    }

    #[test]
    fn a_partition_is_accepted_under_one_slot_only() {
        let mut lane = lane();
        assert!(matches!(lane.judge(&group(1, 100, 110), None), Ok(Verdict::Accept(..))));
        lane.committed(&partition(), Offset(110), None);
        lane.open(Slot(2), partition(), permit(), Offset(110), None, false);
        assert_eq!(lane.judge(&group(1, 110, 120), None), Ok(Verdict::Stale), "the slot before");
        let mut second = group(1, 110, 120);
        second.slot = 2;
        assert!(matches!(lane.judge(&second, None), Ok(Verdict::Accept(..))));
        assert_eq!(lane.slot_of(&partition()), Some(Slot(2)));
    }

    #[test]
    fn a_slot_acknowledges_nothing_of_the_partition_it_named_before() {
        let mut lane = lane();
        assert!(matches!(lane.judge(&group(1, 100, 110), None), Ok(Verdict::Accept(..))));
        lane.committed(&partition(), Offset(110), None);
        let other = SourcePartition { partition: 1, ..partition() };
        lane.open(Slot(1), other, permit(), Offset(0), None, true);
        assert_eq!(resumed(&mut lane), Some((2, 0)));
        assert_eq!(lane.poll_transmit(), None, "110 would be above anything sent for the slot");
        assert_eq!(lane.slot_of(&partition()), None);
    }

    #[test]
    fn what_an_earlier_session_sent_gives_this_one_no_credit() {
        let mut lane = lane();
        assert_eq!(lane.parcel(SessionId(1), &header(1, 0, 600)), Ok(Admission::Decode));
        lane.begin_session(SessionId(2));
        // The parcel is committed, and freed, only now; both sessions are in their epoch 1.
        lane.free(SessionId(1), LaneEpoch(1), 600);
        assert_eq!(lane.poll_transmit(), None);
        assert_eq!(lane.parcel(SessionId(2), &header(1, 0, 1000)), Ok(Admission::Decode));
        assert!(matches!(
            lane.parcel(SessionId(2), &header(1, 1, 1)),
            Err(PeerMisbehaved::AboveCredit { left: 0, .. })
        ));
    }

    #[test]
    fn a_rewound_partition_is_sent_again_from_where_it_was_rewound_to() {
        let mut lane = lane();
        assert!(matches!(lane.judge(&group(1, 100, 110), None), Ok(Verdict::Accept(..))));
        lane.rewind(&partition(), Offset(105), Some(1));
        assert_eq!(resumed(&mut lane), Some((2, 105)));
        assert_eq!(lane.accepted().collect::<Vec<_>>(), [(&partition(), Offset(105))]);
        assert_eq!(lane.judge(&group(1, 110, 120), None), Ok(Verdict::Stale));
        assert!(matches!(lane.judge(&group(2, 105, 120), None), Ok(Verdict::Accept(..))));
    }

    #[test]
    fn only_what_is_committed_is_acknowledged() {
        let mut lane = lane();
        assert!(matches!(lane.judge(&group(1, 100, 110), None), Ok(Verdict::Accept(..))));
        assert_eq!(lane.poll_transmit(), None, "accepted is not committed (R-5)");
        lane.committed(&partition(), Offset(110), Some(3));
        let Some(Answer::Ack(ack)) = lane.poll_transmit().unwrap().answer else { panic!() };
        assert_eq!(ack.committed, [wire::Committed { slot: 1, next: 110 }]);
        assert_eq!(lane.poll_transmit(), None);
    }

    #[test]
    #[should_panic(expected = "committed")]
    fn a_commit_above_what_was_accepted_stops_the_lane() {
        lane().committed(&partition(), Offset(101), None);
    }
}
