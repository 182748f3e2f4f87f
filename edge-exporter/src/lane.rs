//! A lane's thread: consumes, batches, waits for release and credit, encodes, hands parcels to its stream.
//!
//! ```text
//! SourceConsumer ──▶ Assembly ──▶ topic check ──▶ stamp, encode ──▶ stream task
//!        ▲              (bounded)     (rule 2)      (after credit)
//!        └── commands of the session: Begin, Resume, Committed, Credit, Remove, End
//! ```
//!
//! One thread does all of it, so that the hot path has no lock and no hop: a record is copied once, from librdkafka's
//! memory into the batch. Whatever is dropped without being sent takes its slot out of the lane until the importer
//! gives a new position; otherwise the next group would be chained over the hole.

mod assembly;
mod command;
mod effort;
mod ledger;
mod sending;

pub(crate) use command::{Command, Expired, LaneEvent, Parcel, Resume};
pub(crate) use ledger::Settled;

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use assembly::{Assembly, Input, Taken};
use crossbeam_channel::{Receiver, RecvTimeoutError, TryRecvError};
use effort::Effort;
use kafka::{Event, KafkaCode, SourceConsumer, SourceError};
use ledger::Ledger;
use observe::Audit;
use proto::ids::{Lane as LaneId, LaneEpoch, Offset, SessionId, Slot};
use sending::Running;
use tokio::sync::mpsc;

use crate::{
    commit::Commit,
    config::{Config, Priority},
    journal::Journal,
    metrics::Meters,
    partition::{Cluster, Topic},
    repeats::Repeats,
    schemas::Schemas,
    status::LinkFacts,
    stop::Stop,
    topic_check::{Asker, Loss},
};

/// What all lanes share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) config: Arc<Config>,
    pub(crate) cluster: Cluster,
    pub(crate) audit: Audit,
    pub(crate) commit: Commit,
    pub(crate) journal: Journal,
    pub(crate) asker: Asker,
    pub(crate) meters: Arc<Meters>,
    pub(crate) facts: Arc<LinkFacts>,
    pub(crate) events: mpsc::Sender<LaneEvent>,
    pub(crate) stop: Stop,
    pub(crate) schemas: Schemas,
    /// Held for as long as the lane's thread runs.
    pub(crate) _alive: Arc<()>,
}

/// See the [module](self).
pub(crate) struct Lane {
    id: LaneId,
    shared: Shared,
    commands: Receiver<Command>,
    consumer: SourceConsumer,
    assembly: Assembly,
    ledger: Ledger,
    effort: Effort,
    /// The session, while there is one.
    running: Option<Running>,
    /// What the session is to be told and was not yet.
    outbox: VecDeque<LaneEvent>,
    draining: bool,
    drained: bool,
    next_looks: Instant,
    next_lines: Instant,
    troubles: Repeats,
}

impl Lane {
    /// A lane that waits for a session. Makes its consumer; no broker is asked yet.
    pub(crate) fn new(id: LaneId, shared: Shared, commands: Receiver<Command>) -> Result<Self, kafka::Error> {
        let config = &shared.config;
        let settings = config.kafka_settings().named(format!("longhaul-{}-lane-{id}", config.link));
        let consumer = SourceConsumer::new(&settings, &config.group(), config.source_options())?;
        let assembly = Assembly::new(config.batch.linger.duration(), config.batch.read_ahead.bytes());
        let effort = Effort::new(&config.codec, Arc::clone(&shared.facts));
        let now = Instant::now();
        Ok(Self {
            id,
            shared,
            commands,
            consumer,
            assembly,
            ledger: Ledger::default(),
            effort,
            running: None,
            outbox: VecDeque::new(),
            draining: false,
            drained: false,
            next_looks: now,
            next_lines: now + LINES_INTERVAL,
            troubles: Repeats::default(),
        })
    }

    /// Runs until its commands end or the exporter is killed.
    pub(crate) fn run(mut self) {
        while !self.shared.stop.is_killed() {
            let wait = self.work();
            match self.commands.recv_timeout(wait) {
                Ok(command) => self.obey(command),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            loop {
                match self.commands.try_recv() {
                    Ok(command) => self.obey(command),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return self.leave(),
                }
            }
        }
        if !self.shared.stop.is_killed() {
            self.leave();
        }
    }

    /// One turn. Says how long commands may be waited for before the next.
    fn work(&mut self) -> Duration {
        let now = Instant::now();
        if self.effort.turn(now)
            && let Some(running) = &mut self.running
        {
            running.set_level(self.effort.level());
            self.shared.meters.encoding(self.id, running.encoder(), self.effort.gauges());
        }
        self.send();
        let now = Instant::now();
        self.keep_books(now);
        self.flush_outbox();
        if self.running.is_none() {
            self.serve_consumer();
            return IDLE_WAIT;
        }
        if self.draining {
            self.assembly.close();
            if !self.drained && self.assembly.is_empty() && self.ledger.is_settled() {
                self.drained = true;
                self.outbox.push_back(LaneEvent::Drained(self.id));
            }
            self.serve_consumer();
            return BUSY_WAIT;
        }
        if self.assembly.is_full() || !self.shared.audit.healthy() {
            return BUSY_WAIT;
        }
        self.read(now);
        self.assembly.close_due(Instant::now());
        Duration::ZERO
    }

    /// Takes what the consumer has; waits a little for the first record.
    fn read(&mut self, now: Instant) {
        let patience = if self.assembly.is_waiting() { BUSY_WAIT } else { READ_WAIT };
        let wait =
            self.assembly.due().map_or(patience, |due| due.saturating_duration_since(now).min(patience));
        let mut lost: Vec<(u64, SourceError)> = Vec::new();
        let mut too_large: Vec<(Slot, u64, i64, u64)> = Vec::new();
        let (assembly, troubles) = (&mut self.assembly, &mut self.troubles);
        // The clock is read once for all that comes together: at a hundred bytes a record it would show.
        let mut taken_at = None;
        self.consumer.poll(wait, |event| match event {
            Event::Record(record) => {
                let input = Input {
                    offset: record.offset,
                    timestamp: record.timestamp,
                    leader_epoch: record.leader_epoch,
                    key: record.key,
                    value: record.value,
                };
                let now = *taken_at.get_or_insert_with(Instant::now);
                let taken = assembly.record(record.token, input, record.headers(), now);
                if let Taken::TooLarge { slot, offset, bytes } = taken {
                    too_large.push((slot, record.token, offset, bytes));
                }
            }
            Event::EndOfPartition { token, position } => {
                assembly.end_of_partition(token, position, Instant::now());
            }
            Event::Lost { token, cause } => lost.push((token, cause)),
            Event::Trouble { code, reason } => {
                if let Some(times) = troubles.is_due(&reason, Instant::now()) {
                    tracing::warn!(%code, times, "the source cluster: {reason}; reading goes on as soon as it can");
                }
            }
        });
        for (token, cause) in lost {
            self.lost(token, cause);
        }
        for (slot, token, offset, bytes) in too_large {
            self.unassign(token);
            self.tell(|session| LaneEvent::TooLarge { session, slot, offset, bytes });
        }
    }

    /// Lets the consumer do its background work while nothing is read.
    fn serve_consumer(&mut self) {
        if self.assembly.reading_now().next().is_none() {
            self.consumer.poll(Duration::ZERO, |_| ());
        }
    }

    /// The partition gives nothing more; the session finds out what that means and asks for a new position.
    fn lost(&mut self, token: u64, cause: SourceError) {
        let slot = self.assembly.partition(token).map(|partition| partition.slot);
        self.unassign(token);
        if let Some(slot) = slot {
            // What was read before it is good and leaves; nothing more comes under this token.
            self.assembly.close();
            self.assembly.remove(slot);
            self.tell(|session| LaneEvent::Lost { session, slot, cause });
        }
    }

    fn unassign(&mut self, token: u64) {
        if let Err(error) = self.consumer.unassign(token) {
            tracing::debug!(%error, lane = %self.id, "a partition was not assigned");
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Begin { session, epoch, credit, parcels } => {
                self.end_session();
                match self.begin(session, epoch, credit, parcels) {
                    Ok(running) => self.running = Some(running),
                    Err(error) => {
                        self.outbox.push_back(LaneEvent::Failed { session, what: error.to_string() })
                    }
                }
            }
            Command::End(session) => {
                if self.is_current(session) {
                    self.end_session();
                }
            }
            Command::Drain => self.draining = true,
            Command::Reset { session, epoch, credit, parcels } if self.is_current(session) => {
                self.drop_everything();
                match self.begin(session, epoch, credit, parcels) {
                    Ok(running) => self.running = Some(running),
                    Err(error) => self.tell(|session| LaneEvent::Failed { session, what: error.to_string() }),
                }
            }
            Command::Resume(resume) if self.is_current(resume.session) => self.resume(resume),
            Command::Remove { session, slot } if self.is_current(session) => self.remove(slot),
            Command::Committed { session, slot, next } if self.is_current(session) => {
                self.committed(slot, next)
            }
            Command::Credit { session, epoch, total } if self.is_current(session) => {
                if let Some(running) = &mut self.running {
                    running.machine.grant(epoch, total);
                }
            }
            // Of a session that is over.
            Command::Reset { .. }
            | Command::Resume(_)
            | Command::Remove { .. }
            | Command::Committed { .. }
            | Command::Credit { .. } => {}
        }
    }

    fn begin(
        &self,
        session: SessionId,
        epoch: LaneEpoch,
        credit: u64,
        parcels: mpsc::Sender<Parcel>,
    ) -> Result<Running, codec::Error> {
        let mut running = Running::new(session, epoch, credit, parcels, self.effort.level())?;
        let encoder = running.encoder_mut();
        self.shared.schemas.begin(encoder);
        // Deflate is dear at both ends.
        encoder.set_opening(self.shared.config.codec.priority != Priority::Cpu);
        Ok(running)
    }

    fn is_current(&self, session: SessionId) -> bool {
        self.running.as_ref().is_some_and(|running| running.session == session)
    }

    fn resume(&mut self, resume: Resume) {
        let Resume { partition, resume_epoch, next, leader_epoch, committed, expired, .. } = resume;
        let slot = partition.slot;
        if let Some(old) = self.assembly.remove(slot) {
            self.unassign(old);
        }
        if let Some(running) = &mut self.running {
            running.machine.resume(slot, resume_epoch, next);
            self.shared.schemas.of_topic(&partition.topic.name, slot.0, running.encoder_mut());
        }
        let journal = self.shared.journal.clone();
        self.ledger.adopt(&partition, || journal.left(&partition), Instant::now());
        if committed {
            self.settle(slot, next.0);
            partition.restart(next.0);
            self.shared.commit.note(&partition, next.0);
        }
        self.ledger.rewound(slot, next.0);
        journal.rewound(&partition, next.0);
        if self.draining {
            return;
        }
        let token = self.assembly.resume(&partition, resume_epoch, next);
        let mut from = next.0;
        if let Some(Expired { log_start, why }) = expired {
            self.assembly.expire(token, log_start, &why, Instant::now());
            from = log_start;
        }
        let (topic, number) = (&*partition.topic.name, partition.number);
        // Over a gap the epoch of the record before it says nothing about what follows.
        let leader_epoch = leader_epoch.filter(|_| from == next.0);
        match self.consumer.assign(topic, number, from, leader_epoch, token) {
            Ok(()) => partition.facts().position = Some(from),
            Err(error) => {
                self.assembly.remove(slot);
                self.drop_slot(slot);
                let code = error.code().unwrap_or(KafkaCode::STATE);
                let cause = SourceError::Other { code, reason: error.to_string() };
                self.tell(|session| LaneEvent::Lost { session, slot, cause });
            }
        }
    }

    fn remove(&mut self, slot: Slot) {
        self.ledger.held(slot);
        if let Some(token) = self.assembly.remove(slot) {
            self.unassign(token);
        }
        self.drop_slot(slot);
    }

    /// Nothing of the slot is sent before its next position.
    fn drop_slot(&mut self, slot: Slot) {
        if let Some(running) = &mut self.running {
            running.machine.remove(slot);
        }
    }

    fn committed(&mut self, slot: Slot, next: Offset) {
        let Some(running) = &mut self.running else { return };
        match running.machine.committed(slot, next) {
            Ok(_) => self.settle(slot, next.0),
            Err(error) => self.tell(|session| LaneEvent::Misbehaved { session, error }),
        }
    }

    /// Everything of the slot below `next` that was sent is durable at the target.
    fn settle(&mut self, slot: Slot, next: i64) {
        let Some((partition, settled)) = self.ledger.committed(slot, next) else { return };
        if let Some(next) = settled.next {
            partition.committed(next);
            self.shared.commit.note(&partition, next);
        }
        self.shared.meters.acknowledged(self.id, &partition, &settled);
    }

    /// The connection is over: what was not sent is read again, from where the next session says.
    fn end_session(&mut self) {
        if self.running.is_none() {
            return;
        }
        self.drop_everything();
        self.running = None;
        self.write_lines();
    }

    fn drop_everything(&mut self) {
        for token in self.assembly.clear() {
            self.unassign(token);
        }
    }

    /// What is due now and then: looks at the source's ends, lines of the audit log.
    fn keep_books(&mut self, now: Instant) {
        if now >= self.next_looks {
            self.next_looks = now + LOOK_INTERVAL;
            for (token, partition) in self.assembly.reading_now() {
                if let Some(ends) = self.consumer.watermarks(token) {
                    partition.grown(now, ends.lso, ends.hw);
                }
            }
        }
        if now >= self.next_lines {
            self.write_lines();
        }
    }

    /// Puts on record what was acknowledged. While the log cannot be written it adds up.
    fn write_lines(&mut self) {
        self.next_lines = Instant::now() + LINES_INTERVAL;
        let lines = self.ledger.lines(&self.shared.config.link, self.shared.cluster.id());
        if lines.is_empty() {
            return;
        }
        self.shared.journal.settling(self.id, &lines);
        match self.shared.audit.record_many(lines) {
            Ok(()) => {
                self.ledger.written();
                self.shared.journal.settled(self.id);
            }
            Err(error) => tracing::debug!(%error, lane = %self.id, "deliveries wait to be put on record"),
        }
    }

    fn tell(&mut self, event: impl FnOnce(SessionId) -> LaneEvent) {
        if let Some(running) = &self.running {
            self.outbox.push_back(event(running.session));
        }
    }

    fn flush_outbox(&mut self) {
        while let Some(event) = self.outbox.pop_front() {
            if let Err(mpsc::error::TrySendError::Full(event)) = self.shared.events.try_send(event) {
                self.outbox.push_front(event);
                return;
            }
        }
    }

    /// Ends in good order.
    fn leave(mut self) {
        self.end_session();
        self.write_lines();
    }

    /// The topic is not what was read: nothing of it leaves, and nothing more is read of it.
    fn drop_topic(&mut self, topic: &Arc<Topic>, loss: Loss) {
        let of_topic: Vec<(u64, Slot)> = self
            .assembly
            .reading_now()
            .filter(|(_, partition)| Arc::ptr_eq(&partition.topic, topic))
            .map(|(token, partition)| (token, partition.slot))
            .collect();
        for (token, slot) in of_topic {
            self.unassign(token);
            self.assembly.remove(slot);
        }
        for slot in self.assembly.slots_of(topic) {
            self.drop_slot(slot);
        }
        tracing::debug!(topic = %topic.name, ?loss, lane = %self.id, "what was read of the topic is dropped");
    }
}

/// How long a turn waits for records when nothing else is due.
const READ_WAIT: Duration = Duration::from_millis(10);
/// How long a turn waits while batches wait for release, credit or room.
const BUSY_WAIT: Duration = Duration::from_millis(2);
/// How long a turn waits without a session.
const IDLE_WAIT: Duration = Duration::from_millis(100);
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
const LINES_INTERVAL: Duration = Duration::from_secs(5);
