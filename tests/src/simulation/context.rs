//! What every part of the model shares: time, events to come, chance, both clusters, the link, and what was found.

use std::{collections::BTreeMap, time::Duration};

use codec::Batch;
use proto::{
    PeerMisbehaved,
    ids::SourcePartition,
    wire::{ParcelHeader, ToExporter, ToImporter},
};

use super::{
    Anomaly, Kind, Planted,
    chance::Chance,
    exporter, importer,
    network::{CONTROL_DOWN, CONTROL_UP, Connection, Network, Side, Up},
    source::Source,
    target::Target,
};

#[derive(Debug)]
pub(super) struct Context {
    /// Milliseconds since the schedule began.
    pub(super) now: u64,
    queue: BTreeMap<(u64, u64), Event>,
    serial: u64,
    pub(super) chance: Chance,
    pub(super) source: Source,
    pub(super) target: Target,
    pub(super) network: Network,
    pub(super) knobs: Knobs,
    pub(super) planted: Option<Planted>,
    /// The first thing found wrong while running.
    pub(super) found: Option<Anomaly>,
    /// Importers that can be dialled.
    pub(super) importers: Vec<usize>,
    /// As a clock that only grows would give.
    pub(super) nonce: u64,
}

/// How rough the world is just now, in percent. Each schedule draws its own, so that some faults get room to meet.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Knobs {
    pub(super) unclear_commit: u64,
    pub(super) refused_produce: u64,
    pub(super) broken_parcel: u64,
    pub(super) misplaced_batch: u64,
    pub(super) doubled_batch: u64,
    pub(super) other_importer: u64,
    /// Accepted groups of the session before are carried on (or committed first).
    pub(super) resume_at_accepted: bool,
}

#[derive(Debug)]
pub(super) enum Event {
    /// The source changes.
    Live,
    /// Something breaks.
    Fault,
    ToExporter(Connection, ToExporter),
    ToImporter(Connection, Up),
    /// One end notices that its connection is gone.
    Lost(Connection, Side),
    Exporter(usize, exporter::Step),
    Importer(usize, importer::Step),
    /// Processes come back.
    StartExporter(String),
    StartImporter,
    /// An `EndTxn` that was held somewhere reaches the broker.
    LateEndTxn {
        lane: usize,
        epoch: u32,
    },
}

impl Context {
    pub(super) fn new(seed: u64, lanes: u16, planted: Option<Planted>) -> Self {
        Self {
            now: 0,
            queue: BTreeMap::new(),
            serial: 0,
            chance: Chance::new(seed),
            source: Source::new(),
            target: Target::new(lanes, planted == Some(Planted::ProducersUnfenced)),
            network: Network::default(),
            knobs: Knobs::default(),
            planted,
            found: None,
            importers: Vec::new(),
            nonce: 0,
        }
    }

    pub(super) fn after(&mut self, delay: u64, event: Event) {
        self.at(self.now + delay, event);
    }

    fn at(&mut self, time: u64, event: Event) {
        self.serial += 1;
        self.queue.insert((time, self.serial), event);
    }

    pub(super) fn next_event(&mut self) -> Option<Event> {
        let ((time, _), event) = self.queue.pop_first()?;
        self.now = time;
        Some(event)
    }

    /// The time as the machines take it.
    pub(super) fn time(&self) -> Duration {
        Duration::from_millis(self.now)
    }

    pub(super) fn is_planted(&self, fault: Planted) -> bool {
        self.planted == Some(fault)
    }

    /// Delay for a step of a process: mostly short.
    pub(super) fn pause(&mut self, most: u64) -> u64 {
        let most = if self.chance.percent(10) { most * 5 } else { most };
        self.chance.between(1, most)
    }

    pub(super) fn send_up(&mut self, connection: Connection, message: ToImporter) {
        let frame = message.encode_frame();
        let message = ToImporter::decode_frame(&frame[4..]).expect("what was encoded here decodes");
        self.send(connection, CONTROL_UP, |c| Event::ToImporter(c, Up::Message(message)));
    }

    pub(super) fn send_parcel(
        &mut self,
        connection: Connection,
        lane: u16,
        header: ParcelHeader,
        batch: Batch,
    ) {
        let header = ParcelHeader::decode(&header.encode()).expect("what was encoded here decodes");
        let stream = CONTROL_DOWN + 1 + usize::from(lane);
        self.send(connection, stream, |c| Event::ToImporter(c, Up::Parcel(lane, header, batch)));
    }

    pub(super) fn send_down(&mut self, connection: Connection, message: ToExporter) {
        let frame = message.encode_frame();
        let message = ToExporter::decode_frame(&frame[4..]).expect("what was encoded here decodes");
        self.send(connection, CONTROL_DOWN, |c| Event::ToExporter(c, message));
    }

    fn send(&mut self, connection: Connection, stream: usize, event: impl FnOnce(Connection) -> Event) {
        let jitter = if self.chance.percent(10) { self.chance.below(400) } else { self.chance.below(20) };
        if let Some(arrival) = self.network.arrival(connection, stream, self.now, jitter) {
            self.at(arrival, event(connection));
        }
    }

    /// Breaks a connection; each end notices in its own time, at most after `patience`.
    pub(super) fn cut(&mut self, connection: Connection, patience: u64) {
        let under_way_arrives = self.chance.percent(50);
        self.network.cut(connection, under_way_arrives);
        for side in [Side::Exporter, Side::Importer] {
            let delay = self.pause(patience);
            self.after(delay.min(patience), Event::Lost(connection, side));
        }
    }

    pub(super) fn found(&mut self, kind: Kind, what: String) {
        if self.found.is_none() {
            self.found = Some(Anomaly { kind, what: format!("at {} ms: {what}", self.now) });
        }
    }

    /// Both ends are honest here: neither may ever accuse the other.
    pub(super) fn misbehaved(&mut self, who: &str, error: &PeerMisbehaved) {
        self.found(Kind::Misbehaved, format!("{who} said of its honest peer: {error}"));
    }

    /// An exporter commits its group's offset: never above what is committed at the target.
    pub(super) fn commit_group(&mut self, partition: &SourcePartition, next: i64) {
        let committed = self.target.progress.get(partition).map_or(0, |(next, _)| *next);
        if next > committed {
            self.found(
                Kind::OverCommit,
                format!("{partition}: {next} committed at the source, {committed} at the target"),
            );
        }
        let group = self.source.group.entry(partition.clone()).or_default();
        *group = next.max(*group);
    }
}
