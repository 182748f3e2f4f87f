//! Whatever a peer sends, each machine takes it or says what is wrong with it: nothing panics.

use std::{collections::BTreeMap, time::Duration};

use codec::{Batch, GapReason, Group};
use longhaul_proto::{
    ids::{Lane as LaneId, LaneEpoch, Offset, SessionId, Slot, SourcePartition, TopicId},
    limits,
    policy::{Grant, LinkPolicy, Mapping, Pattern, Policy},
    receiver::{self, Receiver},
    sender::{self, Sender},
    wire::{self, LanePreface, ParcelHeader, ToExporter, ToImporter},
};
use proptest::{collection::vec, option, prelude::*};

/// Numbers near nothing, near the limits, and anywhere.
fn number() -> impl Strategy<Value = u32> {
    prop_oneof![6 => 0..6_u32, 1 => Just(u32::MAX), 1 => Just(100_000), 1 => any::<u32>()]
}

fn long() -> impl Strategy<Value = u64> {
    prop_oneof![6 => 0..40_u64, 1 => Just(u64::MAX), 1 => Just(1 << 63), 1 => Just(limits::LANE_CREDIT), 1 => any::<u64>()]
}

fn offset() -> impl Strategy<Value = i64> {
    prop_oneof![8 => 0..40_i64, 1 => -3..0_i64, 1 => Just(i64::MAX), 1 => Just(i64::MIN), 1 => any::<i64>()]
}

fn topic() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => Just("orders".to_owned()),
        2 => Just("payments.card".to_owned()),
        1 => Just("__consumer_offsets".to_owned()),
        1 => Just("x".repeat(5000)),
        1 => any::<String>(),
    ]
}

fn hello() -> impl Strategy<Value = wire::Hello> {
    (vec(0..3_u32, 0..3), "[a-z]{0,3}", "[a-z]{0,3}", "[a-z]{0,3}", any::<u64>()).prop_map(
        |(versions, link, source_cluster_id, instance, nonce)| wire::Hello {
            versions,
            link,
            source_cluster_id,
            instance,
            nonce,
        },
    )
}

fn open() -> impl Strategy<Value = wire::Open> {
    let id = prop_oneof![6 => Just(vec![1; 16]), 1 => Just(vec![2; 16]), 1 => vec(any::<u8>(), 0..20)];
    let number = prop_oneof![6 => 0..4_i32, 1 => any::<i32>()];
    (
        number_and_topic(),
        id,
        number,
        prop_oneof![6 => 1..5_i32, 1 => any::<i32>()],
        offset(),
        offset(),
        offset(),
    )
        .prop_map(|((slot, topic), topic_id, partition, partition_count, log_start, end, start)| {
            wire::Open { slot, topic_id, topic, partition, partition_count, log_start, end, start }
        })
}

fn number_and_topic() -> impl Strategy<Value = (u32, String)> {
    (number(), topic())
}

fn request() -> impl Strategy<Value = ToImporter> {
    let end = (number(), offset(), offset()).prop_map(|(slot, stable, high)| wire::SourceEnd {
        slot,
        stable,
        high,
    });
    prop_oneof![
        1 => hello().prop_map(Into::into),
        6 => open().prop_map(Into::into),
        2 => number().prop_map(|slot| wire::Close { slot }.into()),
        2 => (long(), vec(end, 0..4)).prop_map(|(seq, ends)| wire::Heartbeat { seq, ends }.into()),
        1 => any::<String>().prop_map(|reason| wire::Goodbye { reason }.into()),
        1 => Just(ToImporter { request: None }),
    ]
}

fn answer() -> impl Strategy<Value = ToExporter> {
    let resume = (number(), number(), offset(), any::<i32>(), any::<bool>());
    let committed = (number(), offset()).prop_map(|(slot, next)| wire::Committed { slot, next });
    let credit =
        (number(), number(), long()).prop_map(|(lane, epoch, total)| wire::Credit { lane, epoch, total });
    prop_oneof![
        1 => (number(), long(), number(), long()).prop_map(|(version, session, lanes, credit)| {
            wire::Welcome { version, session, lanes, credit, ..wire::Welcome::default() }.into()
        }),
        6 => resume.prop_map(|(slot, resume_epoch, next, leader_epoch, new)| {
            wire::Resume { slot, resume_epoch, next, leader_epoch, new }.into()
        }),
        1 => (number(), any::<String>()).prop_map(|(slot, reason)| {
            wire::Hold { slot, reason, detail: String::new() }.into()
        }),
        1 => number().prop_map(|slot| wire::Refuse { slot, detail: String::new() }.into()),
        4 => (vec(committed, 0..4), vec(credit, 0..4)).prop_map(|(committed, credit)| wire::Ack { committed, credit }.into()),
        2 => (number(), number(), long()).prop_map(|(lane, epoch, credit)| {
            wire::LaneReset { lane, epoch, credit, reason: String::new() }.into()
        }),
        1 => Just(wire::Policy::default().into()),
        2 => long().prop_map(|seq| wire::HeartbeatEcho { seq }.into()),
        1 => Just(wire::Drain::default().into()),
        1 => Just(ToExporter { answer: None }),
    ]
}

fn grant() -> Grant {
    let link = LinkPolicy {
        identity: "id".into(),
        cluster: None,
        topics: vec![Pattern::Exact("orders".into()), Pattern::Prefix("payments.".into())],
        mapping: Mapping::default(),
        rate: None,
    };
    let mut policy = Policy::new();
    policy.insert("l", link);
    policy.admit("l", "id", "c").expect("the policy grants it")
}

/// A batch of one group that was read for `slot`, or of a bare range.
fn batch(slot: u32, resume_epoch: u32, offsets: std::ops::Range<i64>) -> Batch {
    let mut batch = Batch::new();
    let index = batch.group_index(slot);
    for offset in offsets.clone() {
        batch.push(index, offset, 0, None, None, []);
    }
    let group = &mut batch.groups_mut()[index];
    (group.resume_epoch, group.next) = (resume_epoch, offsets.end);
    batch
}

/// The exporter as an engine drives it: what the machine allows is done, also while the peer lies.
struct Exporter {
    sender: Sender,
    lanes: Vec<sender::Lane>,
    /// Sent of each slot since its last position.
    sent: BTreeMap<Slot, Offset>,
}

impl Exporter {
    fn established() -> Self {
        let mut sender = Sender::new(wire::Hello::default(), Duration::ZERO);
        let credit = limits::LANE_CREDIT;
        let welcome = wire::Welcome { version: 1, session: 1, lanes: 2, credit, ..wire::Welcome::default() };
        sender.handle(sender::Event::Message(welcome.into()), Duration::ZERO).expect("it is well-formed");
        for slot in 0..4 {
            let topic = ["orders", "payments.card"][slot as usize % 2].into();
            let open = wire::Open { slot, topic, ..wire::Open::default() };
            sender.handle(sender::Event::Open(open), Duration::ZERO).expect("it is well-formed");
        }
        let lanes = (0..2).map(|_| sender::Lane::new(LaneEpoch(1), credit)).collect();
        Self { sender, lanes, sent: BTreeMap::new() }
    }

    fn act(&mut self) -> Result<(), longhaul_proto::PeerMisbehaved> {
        while let Some(action) = self.sender.poll_action() {
            match action {
                sender::Action::Resume { lane, slot, resume_epoch, next, .. } => {
                    let lane = &mut self.lanes[usize::from(lane.0)];
                    lane.resume(slot, resume_epoch, next);
                    let mut batch = batch(slot.0, resume_epoch.0, next.0..next.0.saturating_add(2));
                    self.sent.insert(slot, next);
                    if lane.credit_left() >= 100 && lane.stamp(&mut batch) == sender::Stamped::Send {
                        lane.header(50, 100);
                        self.sent.insert(slot, Offset(next.0.saturating_add(2)));
                    }
                }
                sender::Action::Hold { lane, slot, .. } | sender::Action::Refuse { lane, slot, .. } => {
                    self.lanes[usize::from(lane.0)].remove(slot);
                    self.sent.remove(&slot);
                }
                sender::Action::Committed { lane, slot, next } => {
                    self.lanes[usize::from(lane.0)].committed(slot, next)?;
                    // whatever an importer claims, nothing unsent is taken as committed.
                    if let Some(sent) = self.sent.get(&slot) {
                        assert!(next <= *sent, "slot {slot}: {next} taken as committed, {sent} sent");
                    }
                }
                sender::Action::Credit { lane, epoch, total } => {
                    self.lanes[usize::from(lane.0)].grant(epoch, total);
                }
                sender::Action::LaneReset { lane, epoch, credit, .. } => {
                    self.lanes[usize::from(lane.0)].reset(epoch, credit);
                    self.sent.clear();
                }
                _ => {}
            }
        }
        while let Some(message) = self.sender.poll_transmit() {
            message.encode_frame();
        }
        Ok(())
    }
}

/// What a hostile exporter does to a lane of the importer.
#[derive(Debug, Clone)]
enum ToLane {
    Parcel(u64, ParcelHeader),
    /// The parcel that is due, with so many plain bytes.
    Due(u32),
    Group(Group, Option<(i64, i64)>),
    /// The group that would follow what this slot sent last, so long.
    Follow(u32, i64),
    Open(u32, i32, i64),
    Close(u32),
    Session,
    Broken,
}

fn to_lane() -> impl Strategy<Value = ToLane> {
    let group = (number(), number(), offset(), offset(), any::<i32>(), option::of((offset(), offset())));
    let header = (number(), long(), any::<u32>(), prop_oneof![3 => 0..500_u32, 1 => any::<u32>()]);
    prop_oneof![
        4 => (0..3_u64, header).prop_map(|(session, (epoch, sequence, coded, plain))| {
            ToLane::Parcel(session, ParcelHeader { epoch: LaneEpoch(epoch), sequence, coded, plain })
        }),
        4 => (0..700_u32).prop_map(ToLane::Due),
        8 => (0..6_u32, 1..9_i64).prop_map(|(slot, length)| ToLane::Follow(slot, length)),
        4 => group.prop_map(|(slot, resume_epoch, prev_next, next, leader_epoch, records)| {
            let mut batch = Batch::new();
            let index = batch.group_index(slot);
            let mut group = batch.groups_mut()[index].clone();
            (group.resume_epoch, group.prev_next, group.next) = (resume_epoch, prev_next, next);
            (group.leader_epoch, group.gap) = (leader_epoch, GapReason::Skipped);
            ToLane::Group(group, records)
        }),
        4 => (number(), 0..4_i32, 0..40_i64).prop_map(|(slot, number, next)| ToLane::Open(slot, number, next)),
        1 => number().prop_map(ToLane::Close),
        1 => Just(ToLane::Session),
        1 => Just(ToLane::Broken),
    ]
}

/// A lane of the importer, and what an exporter can know of it.
struct Hostile {
    lane: receiver::Lane,
    session: SessionId,
    sequence: u64,
    /// Where each slot would go on, and the resume epoch it was given.
    slots: BTreeMap<u32, (i64, u32)>,
    /// Accepted of each partition, under whichever slot.
    accepted: BTreeMap<i32, i64>,
    outstanding: u64,
}

impl Hostile {
    fn new() -> Self {
        let mut lane = receiver::Lane::new(LaneId(0), 1000);
        lane.begin_session(SessionId(1));
        let (slots, accepted) = (BTreeMap::new(), BTreeMap::new());
        Self { lane, session: SessionId(1), sequence: 0, slots, accepted, outstanding: 0 }
    }

    fn act(&mut self, input: ToLane) {
        match input {
            ToLane::Parcel(of, header) => self.parcel(SessionId(of), header),
            ToLane::Due(plain) => {
                let header =
                    ParcelHeader { epoch: self.lane.epoch(), sequence: self.sequence, coded: 1, plain };
                self.parcel(self.session, header);
            }
            ToLane::Group(group, records) => self.group(&group, records),
            ToLane::Follow(slot, length) => {
                let Some((next, resume_epoch)) = self.slots.get(&slot).copied() else { return };
                let mut batch = batch(slot, resume_epoch, next..next + length);
                batch.groups_mut()[0].prev_next = next;
                self.slots.insert(slot, (next + length, resume_epoch));
                self.group(&batch.groups()[0].clone(), Some((next, next + length - 1)));
            }
            ToLane::Open(slot, number, next) => {
                let next = *self.accepted.entry(number).or_insert(next);
                let (cluster, topic) = ("c".into(), TopicId([1; 16]));
                let partition = SourcePartition { cluster, topic, partition: number };
                let permit = grant().permit("orders").expect("it is granted");
                self.lane.open(Slot(slot), partition, permit, Offset(next), None, false);
            }
            ToLane::Close(slot) => self.lane.close(Slot(slot)),
            ToLane::Session => {
                self.session = SessionId(self.session.0 + 1);
                (self.outstanding, self.sequence) = (0, 0);
                self.slots.clear();
                self.lane.begin_session(self.session);
            }
            ToLane::Broken => {
                (self.outstanding, self.sequence) = (0, 0);
                self.lane.broken("bits");
            }
        }
        while let Some(message) = self.lane.poll_transmit() {
            message.encode_frame();
            if let Some(wire::Answer::Resume(resume)) = message.answer {
                self.slots.insert(resume.slot, (resume.next, resume.resume_epoch));
            }
        }
    }

    fn parcel(&mut self, of: SessionId, header: ParcelHeader) {
        if self.lane.parcel(of, &header) != Ok(receiver::Admission::Decode) {
            return;
        }
        self.sequence += 1;
        self.outstanding += u64::from(header.plain);
        assert!(self.outstanding <= 1000, "{} bytes above the window", self.outstanding);
        if header.plain.is_multiple_of(2) {
            self.outstanding -= u64::from(header.plain);
            self.lane.free(of, header.epoch, header.plain.into());
        }
    }

    fn group(&mut self, group: &Group, records: Option<(i64, i64)>) {
        if let Ok(receiver::Verdict::Accept(partition, _)) = self.lane.judge(group, records) {
            let before = self.accepted.insert(partition.partition, group.next);
            assert_eq!(before, Some(group.prev_next), "a chain without gap or overlap");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn no_bytes_on_the_wire_bring_a_decoder_down(
        bytes in vec(any::<u8>(), 0..200),
        preface in any::<[u8; LanePreface::LENGTH]>(),
        header in any::<[u8; ParcelHeader::LENGTH]>(),
    ) {
        let _ = ToImporter::decode_frame(&bytes);
        let _ = ToExporter::decode_frame(&bytes);
        let _ = LanePreface::decode(&preface);
        if let Ok(decoded) = ParcelHeader::decode(&header) {
            prop_assert_eq!(decoded.encode(), header);
        }
    }

    #[test]
    fn a_message_comes_back_as_it_was_and_cut_short_it_does_no_harm(
        request in request(), answer in answer(), cut in 0..40_usize,
    ) {
        let frame = request.encode_frame();
        prop_assert_eq!(ToImporter::decode_frame(&frame[4..]).unwrap(), request);
        let _ = ToImporter::decode_frame(&frame[4..frame.len().saturating_sub(cut).max(4)]);
        let frame = answer.encode_frame();
        prop_assert_eq!(ToExporter::decode_frame(&frame[4..]).unwrap(), answer);
        let _ = ToExporter::decode_frame(&frame[4..frame.len().saturating_sub(cut).max(4)]);
    }

    #[test]
    fn no_exporter_brings_a_receiver_down(
        first in option::weighted(0.9, Just(wire::Hello {
            versions: vec![1], link: "l".into(), source_cluster_id: "c".into(), instance: "i".into(), nonce: 1,
        })),
        requests in vec((request(), 0..30_u64), 0..40),
    ) {
        let mut receiver = Receiver::new(Duration::ZERO);
        let first = first.map(|hello| (hello.into(), 0));
        for (request, seconds) in first.into_iter().chain(requests) {
            let now = Duration::from_secs(seconds);
            if receiver.handle(receiver::Event::Message(request), now).is_err()
                || receiver.handle(receiver::Event::Tick, now).is_err()
            {
                return Ok(());
            }
            while let Some(action) = receiver.poll_action() {
                if let receiver::Action::Admit(_) = action {
                    let (session, credit) = (SessionId(1), limits::LANE_CREDIT);
                    let event = receiver::Event::Admitted { session, grant: grant(), lanes: 2, credit };
                    receiver.handle(event, now).unwrap();
                }
                if let receiver::Action::Open(open) = action {
                    // only what is granted ever reaches a lane.
                    let topic: &str = open.permit.topic();
                    prop_assert!(topic == "orders" || topic.starts_with("payments."));
                    prop_assert!(open.log_start <= open.start && open.start <= open.end);
                }
            }
            while let Some(message) = receiver.poll_transmit() {
                message.encode_frame();
            }
        }
    }

    #[test]
    fn no_importer_brings_an_exporter_down(answers in vec((answer(), 0..30_u64), 0..60)) {
        let mut exporter = Exporter::established();
        for (answer, seconds) in answers {
            let now = Duration::from_secs(seconds);
            if exporter.sender.handle(sender::Event::Message(answer), now).is_err()
                || exporter.sender.handle(sender::Event::Tick, now).is_err()
                || exporter.act().is_err()
            {
                return Ok(());
            }
        }
    }

    #[test]
    fn an_importer_cannot_speak_before_its_welcome(answer in answer()) {
        let mut sender = Sender::new(wire::Hello::default(), Duration::ZERO);
        let taken = sender.handle(sender::Event::Message(answer.clone()), Duration::ZERO);
        let harmless = matches!(
            answer.answer,
            None | Some(wire::Answer::Drain(_) | wire::Answer::Welcome(_))
        );
        prop_assert!(taken.is_err() || harmless);
    }

    #[test]
    fn no_exporter_brings_a_lane_down_or_is_accepted_twice(inputs in vec(to_lane(), 0..80)) {
        let mut hostile = Hostile::new();
        for input in inputs {
            hostile.act(input);
        }
    }
}
