//! The importer's side of the protocol.
//!
//! [`Sessions`] decides which connection of a link counts. One [`Receiver`] lives as long as one connection and speaks
//! on its control stream; one [`Lane`] per lane judges every group that arrives and tells how far things are. They are
//! machines of their own because they run in several places: lanes decode and commit on threads of their own. None
//! does I/O nor knows the time.

pub use lane::{Admission, Lane, Verdict};
pub use sessions::{Entry, Sessions};

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use crate::{
    ids::{Lane as LaneId, Offset, SessionId, Slot, SourcePartition, TopicId, lane_of},
    limits,
    misbehaved::PeerMisbehaved,
    policy::{Grant, Permit},
    wire::{self, Request, ToExporter, ToImporter},
};

mod lane;
mod sessions;

/// The importer's control stream on one connection.
#[derive(Debug)]
pub struct Receiver {
    state: State,
    started: Duration,
    /// Every slot of this session, open or closed.
    slots: BTreeMap<Slot, Opened>,
    transmit: VecDeque<ToExporter>,
    actions: VecDeque<Action>,
}

/// What happened on the importer's side.
#[derive(Debug)]
pub enum Event {
    /// The exporter said something.
    Message(ToImporter),
    /// The engine admitted the exporter, as [`Action::Admit`] asked.
    Admitted {
        /// The session's number, from [`Sessions`].
        session: SessionId,
        /// What the identity may do.
        grant: Grant,
        /// The link's lanes.
        lanes: u16,
        /// Plain bytes each lane may send at first.
        credit: u64,
    },
    /// The policy grants something else, which [keeps](Grant::keeps) all that was granted: what it no longer keeps is for
    /// the session to end with.
    Regranted(Grant),
    /// Time passed.
    Tick,
    /// The importer is stopping.
    Leave(String),
}

/// What the engine is to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Decide whether this exporter may come in: policy, sessions, audit.
    Admit(wire::Hello),
    /// Ask the lane for the position of a source partition.
    Open(OpenPartition),
    /// Nothing more comes for a slot.
    Close {
        /// Its lane.
        lane: LaneId,
        /// The slot.
        slot: Slot,
    },
    /// A source partition is not granted; the exporter is told. For the audit log.
    Refused {
        /// The topic as the exporter named it.
        topic: String,
        /// The partition.
        partition: i32,
        /// Why.
        detail: String,
    },
    /// How far a source partition is.
    End {
        /// Its slot.
        slot: Slot,
        /// Last stable offset.
        stable: Offset,
        /// High watermark.
        high: Offset,
    },
    /// The exporter left in good order.
    Left(String),
}

/// A source partition whose position the exporter asks for, and which it may write.
#[derive(Debug, Clone, PartialEq)]
pub struct OpenPartition {
    /// Its lane.
    pub lane: LaneId,
    /// The exporter's name of it.
    pub slot: Slot,
    /// What it is.
    pub partition: SourcePartition,
    /// The right to write it.
    pub permit: Permit,
    /// How many partitions the source topic has.
    pub partition_count: i32,
    /// First offset the source still has.
    pub log_start: Offset,
    /// The source's last stable offset.
    pub end: Offset,
    /// Where the exporter would begin.
    pub start: Offset,
}

/// What a slot names, for the whole session.
#[derive(Debug)]
struct Opened {
    topic: TopicId,
    partition: i32,
    lane: LaneId,
    open: bool,
}

#[derive(Debug)]
enum State {
    AwaitingHello,
    Deciding { cluster: Arc<str> },
    Open { cluster: Arc<str>, grant: Grant, lanes: u16 },
}

impl Receiver {
    /// A connection that was just accepted.
    pub fn new(now: Duration) -> Self {
        Self {
            state: State::AwaitingHello,
            started: now,
            slots: BTreeMap::new(),
            transmit: VecDeque::new(),
            actions: VecDeque::new(),
        }
    }

    /// Takes what happened at `now`.
    pub fn handle(&mut self, event: Event, now: Duration) -> Result<(), PeerMisbehaved> {
        match event {
            Event::Message(ToImporter { request: Some(request) }) => self.requested(request)?,
            Event::Message(ToImporter { request: None }) => {}
            Event::Admitted { session, grant, lanes, credit } => self.admitted(session, grant, lanes, credit),
            Event::Regranted(new) => self.regranted(new),
            Event::Leave(reason) => self.transmit.push_back(wire::Drain { reason }.into()),
            Event::Tick => {
                let waiting = !matches!(self.state, State::Open { .. });
                if waiting && now >= self.started + limits::HANDSHAKE_PATIENCE {
                    return Err(PeerMisbehaved::NoHello);
                }
            }
        }
        Ok(())
    }

    /// The next message for the exporter.
    pub fn poll_transmit(&mut self) -> Option<ToExporter> {
        self.transmit.pop_front()
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When a [`Event::Tick`] is due; `None` when nothing waits for time.
    pub fn poll_timeout(&self) -> Option<Duration> {
        (!matches!(self.state, State::Open { .. })).then_some(self.started + limits::HANDSHAKE_PATIENCE)
    }

    fn admitted(&mut self, session: SessionId, grant: Grant, lanes: u16, credit: u64) {
        assert!((1..=limits::MAX_LANES).contains(&lanes), "{lanes} lanes");
        assert!(credit >= u64::from(limits::MAX_PARCEL_PLAIN), "credit must fit one maximal record");
        let State::Deciding { cluster } = &self.state else {
            unreachable!("a connection is admitted once, after its hello");
        };
        self.transmit.push_back(
            wire::Welcome {
                version: limits::PROTOCOL_VERSION,
                session: session.0,
                lanes: lanes.into(),
                credit,
                topics: grant.topics().iter().map(ToString::to_string).collect(),
                rate: grant.rate().unwrap_or(0),
            }
            .into(),
        );
        self.state = State::Open { cluster: cluster.clone(), grant, lanes };
    }

    fn regranted(&mut self, new: Grant) {
        let State::Open { grant, .. } = &mut self.state else {
            unreachable!("only who was admitted has a grant");
        };
        assert!(new.keeps(grant), "what was granted is taken back by ending the session");
        let topics = new.topics().iter().map(ToString::to_string).collect();
        self.transmit.push_back(wire::Policy { topics, rate: new.rate().unwrap_or(0) }.into());
        *grant = new;
    }

    fn requested(&mut self, request: Request) -> Result<(), PeerMisbehaved> {
        match (&self.state, request) {
            (State::AwaitingHello, Request::Hello(hello)) => self.greeted(hello),
            (_, Request::Hello(_)) => Err(PeerMisbehaved::SecondHello),
            (_, Request::Goodbye(goodbye)) => {
                check_text("goodbye", "reason", &goodbye.reason)?;
                self.actions.push_back(Action::Left(goodbye.reason));
                Ok(())
            }
            (State::Open { .. }, Request::Open(open)) => self.opened(open),
            (State::Open { .. }, Request::Close(close)) => {
                let slot = Slot(close.slot);
                if let Some(opened) = self.slots.get_mut(&slot).filter(|opened| opened.open) {
                    opened.open = false;
                    self.actions.push_back(Action::Close { lane: opened.lane, slot });
                }
                Ok(())
            }
            (State::Open { .. }, Request::Heartbeat(heartbeat)) => {
                self.transmit.push_back(wire::HeartbeatEcho { seq: heartbeat.seq }.into());
                for end in heartbeat.ends {
                    if self.slots.get(&Slot(end.slot)).is_some_and(|opened| opened.open) {
                        let (stable, high) = (Offset(end.stable), Offset(end.high));
                        self.actions.push_back(Action::End { slot: Slot(end.slot), stable, high });
                    }
                }
                Ok(())
            }
            _ => Err(PeerMisbehaved::BeforeHandshake),
        }
    }

    fn greeted(&mut self, hello: wire::Hello) -> Result<(), PeerMisbehaved> {
        if !hello.versions.contains(&limits::PROTOCOL_VERSION) {
            let version = hello.versions.iter().copied().max().unwrap_or(0);
            return Err(PeerMisbehaved::UnknownVersion { version });
        }
        for (what, text) in [
            ("link", &hello.link),
            ("source_cluster_id", &hello.source_cluster_id),
            ("instance", &hello.instance),
        ] {
            check_text("hello", what, text)?;
            if text.is_empty() {
                return Err(PeerMisbehaved::InvalidField { message: "hello", what });
            }
        }
        self.state = State::Deciding { cluster: hello.source_cluster_id.as_str().into() };
        self.actions.push_back(Action::Admit(hello));
        Ok(())
    }

    fn opened(&mut self, open: wire::Open) -> Result<(), PeerMisbehaved> {
        let State::Open { cluster, grant, lanes } = &self.state else {
            unreachable!("checked by the caller");
        };
        let invalid = |what| PeerMisbehaved::InvalidField { message: "open", what };
        let topic = TopicId::from_slice(&open.topic_id).ok_or_else(|| invalid("topic_id"))?;
        check_text("open", "topic", &open.topic)?;
        if open.partition_count > limits::MAX_TOPIC_PARTITIONS {
            return Err(invalid("partition_count"));
        }
        if !(0..open.partition_count).contains(&open.partition) {
            return Err(invalid("partition"));
        }
        if open.log_start < 0 || open.end < open.log_start {
            return Err(invalid("end"));
        }
        if !(open.log_start..=open.end).contains(&open.start) {
            return Err(invalid("start"));
        }
        let permit = match grant.permit(&open.topic) {
            Ok(permit) => permit,
            Err(refusal) => {
                let detail = refusal.to_string();
                self.transmit.push_back(wire::Refuse { slot: open.slot, detail: detail.clone() }.into());
                self.actions.push_back(Action::Refused {
                    topic: open.topic,
                    partition: open.partition,
                    detail,
                });
                return Ok(());
            }
        };
        let lane = lane_of(&open.topic, *lanes);
        let slot = Slot(open.slot);
        if self.slots.len() >= limits::MAX_SLOTS && !self.slots.contains_key(&slot) {
            return Err(PeerMisbehaved::TooManySlots);
        }
        let opened = Opened { topic, partition: open.partition, lane, open: true };
        if let Some(before) = self.slots.insert(slot, opened)
            && (before.topic, before.partition, before.lane) != (topic, open.partition, lane)
        {
            return Err(invalid("slot"));
        }
        self.actions.push_back(Action::Open(OpenPartition {
            lane,
            slot,
            partition: SourcePartition { cluster: cluster.clone(), topic, partition: open.partition },
            permit,
            partition_count: open.partition_count,
            log_start: Offset(open.log_start),
            end: Offset(open.end),
            start: Offset(open.start),
        }));
        Ok(())
    }
}

fn check_text(message: &'static str, what: &'static str, text: &str) -> Result<(), PeerMisbehaved> {
    if text.len() > limits::MAX_TEXT {
        return Err(PeerMisbehaved::InvalidField { message, what });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{LinkPolicy, Mapping, Policy};

    fn hello() -> wire::Hello {
        wire::Hello {
            versions: vec![1],
            link: "l".into(),
            source_cluster_id: "c".into(),
            instance: "i".into(),
            nonce: 1,
        }
    }

    fn open() -> wire::Open {
        wire::Open {
            slot: 3,
            topic_id: vec![1; 16],
            topic: "orders".into(),
            partition: 2,
            partition_count: 8,
            log_start: 10,
            end: 20,
            start: 10,
        }
    }

    fn say(receiver: &mut Receiver, message: impl Into<ToImporter>) -> Result<(), PeerMisbehaved> {
        receiver.handle(Event::Message(message.into()), Duration::ZERO)
    }

    fn grant(topics: &[&str], rate: Option<u64>) -> Grant {
        let mut policy = Policy::new();
        let topics = topics.iter().map(|topic| topic.parse().unwrap()).collect();
        let entry =
            LinkPolicy { identity: "id".into(), cluster: None, topics, mapping: Mapping::default(), rate };
        policy.insert("l", entry);
        policy.admit("l", "id", "c").unwrap()
    }

    fn admitted() -> Receiver {
        let mut receiver = Receiver::new(Duration::ZERO);
        say(&mut receiver, hello()).unwrap();
        assert!(matches!(receiver.poll_action(), Some(Action::Admit(_))));
        let event = Event::Admitted {
            session: SessionId(5),
            grant: grant(&["orders"], None),
            lanes: 4,
            credit: limits::LANE_CREDIT,
        };
        receiver.handle(event, Duration::ZERO).unwrap();
        assert!(receiver.poll_transmit().is_some());
        receiver
    }

    #[test]
    fn nothing_is_taken_from_an_exporter_before_it_is_admitted() {
        let mut receiver = Receiver::new(Duration::ZERO);
        assert_eq!(say(&mut receiver, open()), Err(PeerMisbehaved::BeforeHandshake));
        assert_eq!(receiver.handle(Event::Tick, limits::HANDSHAKE_PATIENCE), Err(PeerMisbehaved::NoHello));
        say(&mut receiver, hello()).unwrap();
        assert_eq!(say(&mut receiver, open()), Err(PeerMisbehaved::BeforeHandshake));
        assert_eq!(say(&mut receiver, hello()), Err(PeerMisbehaved::SecondHello));
    }

    #[test]
    fn a_hello_without_a_common_version_or_name_is_refused() {
        let mut later = hello();
        later.versions = vec![2, 3];
        assert_eq!(
            say(&mut Receiver::new(Duration::ZERO), later),
            Err(PeerMisbehaved::UnknownVersion { version: 3 })
        );
        let mut nameless = hello();
        nameless.instance.clear();
        assert!(matches!(
            say(&mut Receiver::new(Duration::ZERO), nameless),
            Err(PeerMisbehaved::InvalidField { message: "hello", what: "instance" })
        ));
    }

    #[test]
    fn a_granted_partition_is_opened_and_another_refused() {
        let mut receiver = admitted();
        say(&mut receiver, open()).unwrap();
        assert!(matches!(receiver.poll_action(), Some(Action::Open(open)) if open.slot == Slot(3)));
        let mut other = open();
        other.topic = "secrets".into();
        say(&mut receiver, other).unwrap();
        assert!(matches!(
            receiver.poll_transmit(),
            Some(ToExporter { answer: Some(wire::Answer::Refuse(wire::Refuse { slot: 3, .. })) })
        ));
        assert!(matches!(receiver.poll_action(), Some(Action::Refused { .. })));
    }

    #[test]
    fn a_grant_that_grew_is_told_and_decides_about_what_is_opened_from_then_on() {
        let mut receiver = admitted();
        let secrets = wire::Open { topic: "secrets".into(), ..open() };
        say(&mut receiver, secrets.clone()).unwrap();
        assert!(matches!(receiver.poll_action(), Some(Action::Refused { .. })));
        assert!(receiver.poll_transmit().is_some());
        let more = grant(&["orders", "secrets"], Some(5_000_000));
        receiver.handle(Event::Regranted(more), Duration::ZERO).unwrap();
        let told = wire::Policy { topics: vec!["orders".into(), "secrets".into()], rate: 5_000_000 };
        assert_eq!(receiver.poll_transmit(), Some(told.into()));
        say(&mut receiver, secrets).unwrap();
        assert!(matches!(receiver.poll_action(), Some(Action::Open(open)) if open.slot == Slot(3)));
    }

    #[test]
    #[should_panic(expected = "taken back by ending the session")]
    fn a_grant_that_shrank_is_not_for_a_session_that_goes_on() {
        let less = grant(&["other"], None);
        let _ = admitted().handle(Event::Regranted(less), Duration::ZERO);
    }

    #[test]
    fn a_slot_that_names_another_partition_is_misbehaviour() {
        let mut receiver = admitted();
        say(&mut receiver, open()).unwrap();
        say(&mut receiver, wire::Close { slot: 3 }).unwrap();
        say(&mut receiver, open()).unwrap();
        let recreated = wire::Open { topic_id: vec![2; 16], ..open() };
        assert!(matches!(
            say(&mut receiver, recreated),
            Err(PeerMisbehaved::InvalidField { message: "open", what: "slot" })
        ));
    }

    #[test]
    fn an_open_that_cannot_be_is_misbehaviour() {
        let spoil: [fn(&mut wire::Open); 6] = [
            |open| open.partition_count = i32::MAX,
            |open| open.topic_id.truncate(15),
            |open| open.partition = 8,
            |open| open.partition = -1,
            |open| open.end = 9,
            |open| open.start = 21,
        ];
        for spoil in spoil {
            let mut bad = open();
            spoil(&mut bad);
            assert!(matches!(
                say(&mut admitted(), bad),
                Err(PeerMisbehaved::InvalidField { message: "open", .. })
            ));
        }
    }
}
