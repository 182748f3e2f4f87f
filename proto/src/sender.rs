//! The exporter's side of the protocol.
//!
//! One [`Sender`] lives as long as one connection and speaks on its control stream; one [`Lane`] per lane numbers and
//! chains what the lane sends. They are two machines because they run in two places: lanes encode on threads of their
//! own. Neither does I/O nor knows the time: `handle` takes what happened, `poll_*` gives what is to be done.

pub use lane::{Lane, Stamped};

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use crate::{
    hold,
    ids::{Lane as LaneId, LaneEpoch, Offset, ResumeEpoch, SessionId, Slot, lane_of},
    limits,
    misbehaved::PeerMisbehaved,
    wire::{self, Answer, ToExporter, ToImporter},
};

mod lane;

/// The exporter's control stream on one connection.
#[derive(Debug)]
pub struct Sender {
    state: State,
    started: Duration,
    /// Every slot of this session, open or closed.
    slots: BTreeMap<Slot, Opened>,
    /// Epoch of each lane that was reset; 1 for the others.
    epochs: BTreeMap<LaneId, LaneEpoch>,
    heartbeats: Heartbeats,
    ends: BTreeMap<Slot, wire::SourceEnd>,
    transmit: VecDeque<ToImporter>,
    actions: VecDeque<Action>,
}

/// What happened on the exporter's side.
#[derive(Debug)]
pub enum Event {
    /// The importer said something.
    Message(ToExporter),
    /// A source partition is to be carried; again after a hold, to ask anew. A slot names one source partition for
    /// the whole session: a re-created topic takes fresh slots, as answers to the old one may still be under way.
    Open(wire::Open),
    /// A source partition is no longer to be carried.
    Close(Slot),
    /// The source grew.
    End(wire::SourceEnd),
    /// Time passed.
    Tick,
    /// The exporter is stopping.
    Leave(String),
}

/// What the engine is to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// The session stands: lanes may start, at epoch 1, with this credit each.
    Established {
        /// The session's number.
        session: SessionId,
        /// How many lanes.
        lanes: u16,
        /// Plain bytes each may send.
        credit: u64,
        /// The topic patterns granted, in the importer's words.
        topics: Vec<String>,
        /// Bits a second, when the importer limits them.
        rate: Option<u64>,
    },
    /// What the importer grants changed, and all that was granted still is: topics that were refused may be opened now.
    Granted {
        /// The topic patterns granted, in the importer's words.
        topics: Vec<String>,
        /// Bits a second, when the importer limits them.
        rate: Option<u64>,
    },
    /// Send a source partition from a position.
    Resume {
        /// Its lane.
        lane: LaneId,
        /// Its slot.
        slot: Slot,
        /// Fences what was sent before.
        resume_epoch: ResumeEpoch,
        /// First offset to send.
        next: Offset,
        /// Leader epoch of the last committed record.
        leader_epoch: Option<i32>,
        /// Whether this is the partition's very first position.
        new: bool,
    },
    /// Stop sending a source partition until it is opened again.
    Hold {
        /// Its lane.
        lane: LaneId,
        /// Its slot.
        slot: Slot,
        /// Why, as a word.
        reason: hold::Reason,
        /// Why, and what an operator can do.
        detail: String,
    },
    /// A source partition is not granted.
    Refuse {
        /// Its lane.
        lane: LaneId,
        /// Its slot.
        slot: Slot,
        /// Why, in words.
        detail: String,
    },
    /// Positions are committed at the target.
    Committed {
        /// Its lane.
        lane: LaneId,
        /// Its slot.
        slot: Slot,
        /// The next offset that is not.
        next: Offset,
    },
    /// A lane may send more.
    Credit {
        /// The lane.
        lane: LaneId,
        /// The epoch it is meant for.
        epoch: LaneEpoch,
        /// Plain bytes in all since the epoch began.
        total: u64,
    },
    /// A lane starts anew: new stream, new codec contexts.
    LaneReset {
        /// The lane.
        lane: LaneId,
        /// Its new epoch.
        epoch: LaneEpoch,
        /// Plain bytes it may send.
        credit: u64,
        /// Why, in words.
        reason: String,
    },
    /// The importer leaves; dial again a little later.
    Drain(String),
    /// The importer is silent although the connection lives: dial anew.
    Unanswered {
        /// How long a heartbeat has gone without its echo.
        silent: Duration,
    },
}

/// What a slot names, for the whole session.
#[derive(Debug)]
struct Opened {
    topic_id: Vec<u8>,
    partition: i32,
    lane: LaneId,
    open: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    AwaitingWelcome,
    Established { lanes: u16 },
}

#[derive(Debug, Default)]
struct Heartbeats {
    sent: u64,
    echoed: u64,
    last_sent: Duration,
    /// When the oldest one without an echo was sent.
    unanswered_since: Option<Duration>,
    reported: bool,
}

impl Sender {
    /// Says `hello` on a fresh connection.
    pub fn new(hello: wire::Hello, now: Duration) -> Self {
        Self { transmit: VecDeque::from([hello.into()]), ..Self::greeted(now) }
    }

    /// Goes on where hello was said already.
    pub fn greeted(now: Duration) -> Self {
        Self {
            state: State::AwaitingWelcome,
            started: now,
            slots: BTreeMap::new(),
            epochs: BTreeMap::new(),
            heartbeats: Heartbeats { last_sent: now, ..Heartbeats::default() },
            ends: BTreeMap::new(),
            transmit: VecDeque::new(),
            actions: VecDeque::new(),
        }
    }

    /// Takes what happened at `now`.
    pub fn handle(&mut self, event: Event, now: Duration) -> Result<(), PeerMisbehaved> {
        match event {
            Event::Message(ToExporter { answer: Some(answer) }) => self.answered(answer)?,
            Event::Message(ToExporter { answer: None }) => {}
            Event::Open(open) => self.open(open),
            Event::Close(slot) => {
                if let Some(opened) = self.slots.get_mut(&slot).filter(|opened| opened.open) {
                    opened.open = false;
                    self.transmit.push_back(wire::Close { slot: slot.0 }.into());
                }
            }
            Event::End(end) => {
                self.ends.insert(Slot(end.slot), end);
            }
            Event::Leave(reason) => self.transmit.push_back(wire::Goodbye { reason }.into()),
            Event::Tick => self.tick(now)?,
        }
        Ok(())
    }

    /// The next message for the importer.
    pub fn poll_transmit(&mut self) -> Option<ToImporter> {
        self.transmit.pop_front()
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When a [`Event::Tick`] is due.
    pub fn poll_timeout(&self) -> Duration {
        match self.state {
            State::AwaitingWelcome => self.started + limits::HANDSHAKE_PATIENCE,
            State::Established { .. } => {
                let patience = self.heartbeats.unanswered_since.filter(|_| !self.heartbeats.reported);
                let next = self.heartbeats.last_sent + limits::HEARTBEAT_INTERVAL;
                patience.map_or(next, |since| next.min(since + limits::HEARTBEAT_PATIENCE))
            }
        }
    }

    fn open(&mut self, open: wire::Open) {
        let State::Established { lanes } = self.state else {
            unreachable!("partitions are opened once the session stands");
        };
        let lane = lane_of(&open.topic, lanes);
        let opened = Opened { topic_id: open.topic_id.clone(), partition: open.partition, lane, open: true };
        if let Some(before) = self.slots.insert(Slot(open.slot), opened) {
            let same = before.topic_id == open.topic_id && before.partition == open.partition;
            assert!(same, "slot {} names another partition in this session", open.slot);
        }
        self.transmit.push_back(open.into());
    }

    fn answered(&mut self, answer: Answer) -> Result<(), PeerMisbehaved> {
        match (&self.state, answer) {
            (State::AwaitingWelcome, Answer::Welcome(welcome)) => self.welcomed(welcome),
            (State::Established { .. }, Answer::Welcome(_)) => Err(PeerMisbehaved::SecondWelcome),
            (_, Answer::Drain(drain)) => {
                self.actions.push_back(Action::Drain(drain.reason));
                Ok(())
            }
            (State::AwaitingWelcome, _) => Err(PeerMisbehaved::BeforeHandshake),
            (State::Established { lanes }, answer) => {
                let lanes = *lanes;
                self.instructed(answer, lanes)
            }
        }
    }

    fn welcomed(&mut self, welcome: wire::Welcome) -> Result<(), PeerMisbehaved> {
        if welcome.version != limits::PROTOCOL_VERSION {
            return Err(PeerMisbehaved::UnknownVersion { version: welcome.version });
        }
        let lanes = u16::try_from(welcome.lanes).unwrap_or(u16::MAX);
        if lanes == 0 || lanes > limits::MAX_LANES {
            return Err(PeerMisbehaved::TooManyLanes { lanes: welcome.lanes });
        }
        self.state = State::Established { lanes };
        self.actions.push_back(Action::Established {
            session: SessionId(welcome.session),
            lanes,
            credit: welcome.credit,
            topics: welcome.topics,
            rate: (welcome.rate > 0).then_some(welcome.rate),
        });
        Ok(())
    }

    fn instructed(&mut self, answer: Answer, lanes: u16) -> Result<(), PeerMisbehaved> {
        match answer {
            Answer::Resume(resume) => {
                // To a Kafka client a negative position is a command: "from the end" would skip everything.
                if resume.next < 0 {
                    return Err(PeerMisbehaved::InvalidField { message: "resume", what: "next" });
                }
                // An answer to a slot that was closed in the meantime is of no use any more.
                if let Some((slot, lane)) = self.slot(resume.slot) {
                    self.actions.push_back(Action::Resume {
                        lane,
                        slot,
                        resume_epoch: ResumeEpoch(resume.resume_epoch),
                        next: Offset(resume.next),
                        leader_epoch: (resume.leader_epoch >= 0).then_some(resume.leader_epoch),
                        new: resume.new,
                    });
                }
            }
            Answer::Hold(held) => {
                if let Some((slot, lane)) = self.slot(held.slot) {
                    let reason = hold::Reason::from_word(&held.reason);
                    self.actions.push_back(Action::Hold { lane, slot, reason, detail: held.detail });
                }
            }
            Answer::Refuse(refuse) => {
                if let Some((slot, lane)) = self.slot(refuse.slot) {
                    self.actions.push_back(Action::Refuse { lane, slot, detail: refuse.detail });
                }
            }
            Answer::Ack(ack) => {
                for committed in ack.committed {
                    if let Some((slot, lane)) = self.slot(committed.slot) {
                        self.actions.push_back(Action::Committed {
                            lane,
                            slot,
                            next: Offset(committed.next),
                        });
                    }
                }
                for credit in ack.credit {
                    let lane = known_lane(credit.lane, lanes)?;
                    let epoch = LaneEpoch(credit.epoch);
                    self.actions.push_back(Action::Credit { lane, epoch, total: credit.total });
                }
            }
            Answer::LaneReset(reset) => {
                let lane = known_lane(reset.lane, lanes)?;
                let epoch = LaneEpoch(reset.epoch);
                let before = self.epochs.insert(lane, epoch).unwrap_or(LaneEpoch(1));
                if epoch <= before {
                    let (lane, current, got) = (lane.0, before.0, epoch.0);
                    return Err(PeerMisbehaved::EpochDidNotGrow { lane, current, got });
                }
                self.actions.push_back(Action::LaneReset {
                    lane,
                    epoch,
                    credit: reset.credit,
                    reason: reset.reason,
                });
            }
            Answer::HeartbeatEcho(echo) => self.heartbeats.echo(echo.seq)?,
            Answer::Policy(policy) => {
                let rate = (policy.rate > 0).then_some(policy.rate);
                self.actions.push_back(Action::Granted { topics: policy.topics, rate });
            }
            Answer::Welcome(_) | Answer::Drain(_) => unreachable!("handled before"),
        }
        Ok(())
    }

    fn slot(&self, slot: u32) -> Option<(Slot, LaneId)> {
        self.slots.get(&Slot(slot)).filter(|opened| opened.open).map(|opened| (Slot(slot), opened.lane))
    }

    fn tick(&mut self, now: Duration) -> Result<(), PeerMisbehaved> {
        if self.state == State::AwaitingWelcome {
            if now >= self.started + limits::HANDSHAKE_PATIENCE {
                return Err(PeerMisbehaved::NoWelcome);
            }
            return Ok(());
        }
        if now >= self.heartbeats.last_sent + limits::HEARTBEAT_INTERVAL {
            self.heartbeat(now);
        }
        if let Some(since) = self.heartbeats.unanswered_since
            && now >= since + limits::HEARTBEAT_PATIENCE
            && !self.heartbeats.reported
        {
            self.heartbeats.reported = true;
            self.actions.push_back(Action::Unanswered { silent: now - since });
        }
        Ok(())
    }

    fn heartbeat(&mut self, now: Duration) {
        let seq = self.heartbeats.send(now);
        // A frame has a bound: what does not fit goes with the next heartbeat.
        let mut ends = Vec::with_capacity(self.ends.len().min(MAX_ENDS));
        while ends.len() < MAX_ENDS {
            let Some((_, end)) = self.ends.pop_first() else { break };
            ends.push(end);
        }
        self.transmit.push_back(wire::Heartbeat { seq, ends }.into());
    }
}

impl Heartbeats {
    fn send(&mut self, now: Duration) -> u64 {
        self.sent += 1;
        self.last_sent = now;
        self.unanswered_since.get_or_insert(now);
        self.sent
    }

    fn echo(&mut self, seq: u64) -> Result<(), PeerMisbehaved> {
        if seq > self.sent || seq <= self.echoed {
            return Err(PeerMisbehaved::EchoOutOfOrder { seq, sent: self.sent });
        }
        self.echoed = seq;
        self.unanswered_since = (self.echoed < self.sent).then_some(self.last_sent);
        Ok(())
    }
}

fn known_lane(lane: u32, lanes: u16) -> Result<LaneId, PeerMisbehaved> {
    u16::try_from(lane)
        .ok()
        .filter(|lane| *lane < lanes)
        .map(LaneId)
        .ok_or(PeerMisbehaved::UnknownLane { lane })
}

/// Source ends in one heartbeat: 32 bytes each stay far below [`limits::MAX_CONTROL_MESSAGE`].
const MAX_ENDS: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn established() -> Sender {
        let mut sender = Sender::new(wire::Hello::default(), Duration::ZERO);
        assert!(matches!(
            sender.poll_transmit(),
            Some(ToImporter { request: Some(wire::Request::Hello(_)) })
        ));
        let welcome =
            wire::Welcome { version: 1, session: 7, lanes: 4, credit: 100, topics: Vec::new(), rate: 0 };
        sender.handle(Event::Message(welcome.into()), Duration::ZERO).unwrap();
        assert!(matches!(
            sender.poll_action(),
            Some(Action::Established { session: SessionId(7), lanes: 4, .. })
        ));
        sender
    }

    fn handle(sender: &mut Sender, message: impl Into<ToExporter>) -> Result<(), PeerMisbehaved> {
        sender.handle(Event::Message(message.into()), Duration::ZERO)
    }

    #[test]
    fn nothing_is_taken_from_an_importer_before_its_welcome() {
        let mut sender = Sender::new(wire::Hello::default(), Duration::ZERO);
        assert_eq!(handle(&mut sender, wire::Ack::default()), Err(PeerMisbehaved::BeforeHandshake));
        let welcome = wire::Welcome { version: 1, lanes: 65, ..wire::Welcome::default() };
        assert_eq!(handle(&mut sender, welcome), Err(PeerMisbehaved::TooManyLanes { lanes: 65 }));
        let welcome = wire::Welcome { version: 2, lanes: 1, ..wire::Welcome::default() };
        assert_eq!(handle(&mut sender, welcome), Err(PeerMisbehaved::UnknownVersion { version: 2 }));
        assert_eq!(sender.handle(Event::Tick, limits::HANDSHAKE_PATIENCE), Err(PeerMisbehaved::NoWelcome));
    }

    #[test]
    fn a_policy_of_mid_session_is_passed_on() {
        let mut sender = established();
        for (rate, limit) in [(4_000_000, Some(4_000_000)), (0, None)] {
            handle(&mut sender, wire::Policy { topics: vec!["a".into()], rate }).unwrap();
            let granted = Action::Granted { topics: vec!["a".into()], rate: limit };
            assert_eq!(sender.poll_action(), Some(granted));
        }
    }

    #[test]
    fn an_unknown_lane_and_a_second_welcome_are_misbehaviour() {
        let mut sender = established();
        let reset = wire::LaneReset { lane: 4, epoch: 2, credit: 1, reason: String::new() };
        assert_eq!(handle(&mut sender, reset), Err(PeerMisbehaved::UnknownLane { lane: 4 }));
        let welcome = wire::Welcome { version: 1, lanes: 1, ..wire::Welcome::default() };
        assert_eq!(handle(&mut sender, welcome), Err(PeerMisbehaved::SecondWelcome));
        assert!(matches!(
            handle(&mut sender, wire::HeartbeatEcho { seq: 1 }),
            Err(PeerMisbehaved::EchoOutOfOrder { .. })
        ));
    }

    #[test]
    fn a_lane_epoch_that_does_not_grow_and_a_negative_position_are_misbehaviour() {
        let reset = |epoch| wire::LaneReset { lane: 3, epoch, credit: 1, reason: String::new() };
        assert!(matches!(
            handle(&mut established(), reset(1)),
            Err(PeerMisbehaved::EpochDidNotGrow { lane: 3, current: 1, got: 1 })
        ));
        let mut sender = established();
        handle(&mut sender, reset(3)).unwrap();
        assert!(matches!(
            handle(&mut sender, reset(3)),
            Err(PeerMisbehaved::EpochDidNotGrow { lane: 3, current: 3, got: 3 })
        ));
        let mut sender = established();
        let open = wire::Open { slot: 9, topic: "orders".into(), ..wire::Open::default() };
        sender.handle(Event::Open(open), Duration::ZERO).unwrap();
        let resume = wire::Resume { slot: 9, resume_epoch: 1, next: -2, leader_epoch: -1, new: true };
        assert_eq!(
            handle(&mut sender, resume),
            Err(PeerMisbehaved::InvalidField { message: "resume", what: "next" })
        );
    }

    #[test]
    fn answers_reach_the_lane_of_their_topic_and_closed_slots_are_forgotten() {
        let mut sender = established();
        let open = wire::Open { slot: 9, topic: "orders".into(), ..wire::Open::default() };
        sender.handle(Event::Open(open), Duration::ZERO).unwrap();
        assert!(sender.poll_transmit().is_some());
        let resume = wire::Resume { slot: 9, resume_epoch: 1, next: 5, leader_epoch: -1, new: true };
        handle(&mut sender, resume.clone()).unwrap();
        let lane = lane_of("orders", 4);
        assert!(matches!(
            sender.poll_action(),
            Some(Action::Resume { lane: l, next: Offset(5), leader_epoch: None, .. }) if l == lane
        ));
        sender.handle(Event::Close(Slot(9)), Duration::ZERO).unwrap();
        handle(&mut sender, resume).unwrap();
        assert_eq!(sender.poll_action(), None);
    }

    #[test]
    #[should_panic(expected = "names another partition")]
    fn a_slot_is_never_given_to_another_partition() {
        let mut sender = established();
        for id in [1, 2] {
            // An answer about the first topic that is still under way would pass for one about the second.
            let open = wire::Open {
                slot: 9,
                topic_id: vec![id; 16],
                topic: "orders".into(),
                ..wire::Open::default()
            };
            sender.handle(Event::Open(open), Duration::ZERO).unwrap();
            sender.handle(Event::Close(Slot(9)), Duration::ZERO).unwrap();
        }
    }

    #[test]
    fn a_heartbeat_that_is_not_answered_is_reported_once() {
        let mut sender = established();
        let mut now = Duration::ZERO;
        let mut reports = 0;
        for _ in 0..8 {
            now = sender.poll_timeout().max(now);
            sender.handle(Event::Tick, now).unwrap();
            while let Some(action) = sender.poll_action() {
                assert!(
                    matches!(action, Action::Unanswered { silent } if silent >= limits::HEARTBEAT_PATIENCE)
                );
                reports += 1;
            }
        }
        assert_eq!(reports, 1);
    }

    #[test]
    fn an_answered_heartbeat_is_not_reported() {
        let mut sender = established();
        let mut now = Duration::ZERO;
        for seq in 1..20 {
            now = sender.poll_timeout();
            sender.handle(Event::Tick, now).unwrap();
            handle(&mut sender, wire::HeartbeatEcho { seq }).unwrap();
        }
        assert_eq!(now, limits::HEARTBEAT_INTERVAL * 19);
        assert_eq!(sender.poll_action(), None);
    }
}
