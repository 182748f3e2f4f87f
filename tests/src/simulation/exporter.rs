//! The exporter as an engine would run it: reads, batches, checks topic ids, chains, sends, commits its group.

use std::collections::{BTreeMap, VecDeque};

use codec::{Batch, GapReason};
use proto::{
    PeerMisbehaved, hold,
    ids::{Lane as LaneId, LaneEpoch, Offset, SessionId, Slot, SourcePartition, lane_of},
    limits,
    sender::{self, Action, Sender, Stamped},
    wire::{Hello, Open, SourceEnd, ToExporter},
};

use super::{
    LINK, Planted,
    context::{Context, Event},
    network::Connection,
    source::{CLUSTER, Content, Fetched, TOPICS},
};

/// One exporter process.
#[derive(Debug)]
pub(super) struct Exporter {
    id: usize,
    instance: String,
    /// Connections it has or tries; at most one carries the session.
    attempts: BTreeMap<Connection, Sender>,
    session: Option<Session>,
    /// A dial is due: one timer, whatever went wrong.
    dialing: bool,
}

#[derive(Debug)]
struct Session {
    connection: Connection,
    number: SessionId,
    lanes: Vec<Outgoing>,
    slots: BTreeMap<u32, Reading>,
    next_slot: u32,
}

#[derive(Debug)]
struct Outgoing {
    lane: sender::Lane,
    /// Read, and waiting for a topic-id check that began after they were.
    unchecked: VecDeque<Batch>,
    /// Free to be sent when credit allows.
    queue: VecDeque<Batch>,
}

/// A source partition in a session.
#[derive(Debug)]
struct Reading {
    topic: usize,
    number: usize,
    partition: SourcePartition,
    lane: LaneId,
    resume_epoch: u32,
    /// Next offset to read, and the leader epoch of the one before.
    next: i64,
    leader_epoch: Option<i32>,
    /// Sent up to here.
    sent: i64,
    state: State,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    /// Asked for a position, or refused.
    Opened,
    Active,
    /// An operator has to decide.
    Held,
    /// Of a topic that is no more; its successor gets a slot of its own.
    Gone,
    /// Waits for an operator to let it skip what retention deleted.
    Expired,
}

/// What an exporter does by itself.
#[derive(Debug)]
pub(super) enum Step {
    Dial,
    Tick(Connection),
    Read(SessionId),
    /// The topic-id check for the oldest unchecked batch of a lane is done.
    Release(SessionId, LaneId),
    /// An operator lets a re-created topic start.
    Reopen(SessionId, u32),
    /// An operator lets a partition skip what was deleted.
    Skip(SessionId, u32),
}

impl Exporter {
    pub(super) fn start(id: usize, instance: String, ctx: &mut Context) -> Self {
        let mut exporter = Self { id, instance, attempts: BTreeMap::new(), session: None, dialing: false };
        exporter.dial_soon(50, ctx);
        exporter
    }

    /// The name that a restarted process usually keeps.
    pub(super) fn instance(&self) -> &str {
        &self.instance
    }

    /// Dials, also while another connection stands: the supervisor races when it sees a stall.
    fn dial_soon(&mut self, most: u64, ctx: &mut Context) {
        if !self.dialing {
            self.dialing = true;
            let delay = ctx.pause(most);
            ctx.after(delay, Event::Exporter(self.id, Step::Dial));
        }
    }

    fn dial(&mut self, ctx: &mut Context) {
        self.dialing = false;
        let Some(newest) = ctx.importers.last().copied() else { return self.dial_soon(500, ctx) };
        let any = ctx.chance.pick(&ctx.importers.clone()).unwrap_or(newest);
        let importer = if ctx.chance.percent(ctx.knobs.other_importer) { any } else { newest };
        let delay = ctx.chance.between(5, 60);
        let connection = ctx.network.connect(self.id, importer, delay, limits::MAX_LANES);
        ctx.nonce += 1;
        let hello = Hello {
            versions: vec![limits::PROTOCOL_VERSION],
            link: LINK.into(),
            source_cluster_id: CLUSTER.into(),
            instance: self.instance.clone(),
            nonce: ctx.nonce,
        };
        self.attempts.insert(connection, Sender::new(hello, ctx.time()));
        self.act(connection, ctx);
        self.schedule_tick(connection, ctx);
    }

    pub(super) fn step(&mut self, step: Step, ctx: &mut Context) {
        let current = self.session.as_ref().map(|session| session.number);
        match step {
            Step::Dial => self.dial(ctx),
            Step::Tick(connection) => self.tick(connection, ctx),
            Step::Read(session) if current == Some(session) => self.read(ctx),
            Step::Release(session, lane) if current == Some(session) => self.release(lane, ctx),
            Step::Reopen(session, slot) if current == Some(session) => self.reopen(slot, ctx),
            Step::Skip(session, slot) if current == Some(session) => self.skip(slot, ctx),
            Step::Read(_) | Step::Release(..) | Step::Reopen(..) | Step::Skip(..) => {}
        }
    }

    /// A fault: a second connection although nothing is wrong with the first.
    pub(super) fn race(&mut self, ctx: &mut Context) {
        self.dial_soon(20, ctx);
    }

    pub(super) fn hear(&mut self, connection: Connection, message: ToExporter, ctx: &mut Context) {
        self.handle(connection, sender::Event::Message(message), ctx);
    }

    pub(super) fn lose(&mut self, connection: Connection, ctx: &mut Context) {
        self.attempts.remove(&connection);
        if self.session.as_ref().is_some_and(|session| session.connection == connection) {
            self.session = None;
        }
        if self.attempts.is_empty() {
            self.dial_soon(1000, ctx);
        }
    }

    fn handle(&mut self, connection: Connection, event: sender::Event, ctx: &mut Context) {
        let Some(sender) = self.attempts.get_mut(&connection) else { return };
        match sender.handle(event, ctx.time()) {
            Ok(()) => self.act(connection, ctx),
            Err(PeerMisbehaved::NoWelcome) => {
                ctx.cut(connection, 100);
                self.lose(connection, ctx);
            }
            Err(error) => ctx.misbehaved("the exporter", &error),
        }
    }

    fn act(&mut self, connection: Connection, ctx: &mut Context) {
        while let Some(sender) = self.attempts.get_mut(&connection) {
            if let Some(message) = sender.poll_transmit() {
                ctx.send_up(connection, message);
            } else if let Some(action) = sender.poll_action() {
                self.perform(connection, action, ctx);
            } else {
                return;
            }
        }
    }

    fn tick(&mut self, connection: Connection, ctx: &mut Context) {
        if let Some(session) = &self.session
            && session.connection == connection
            && let Some((slot, reading)) = session.slots.first_key_value()
        {
            let end = ctx.source.log(reading.topic, reading.number).end();
            let end = SourceEnd { slot: *slot, stable: end, high: end };
            self.handle(connection, sender::Event::End(end), ctx);
        }
        self.handle(connection, sender::Event::Tick, ctx);
        self.schedule_tick(connection, ctx);
    }

    fn schedule_tick(&self, connection: Connection, ctx: &mut Context) {
        if let Some(sender) = self.attempts.get(&connection) {
            let delay = (sender.poll_timeout().as_millis() as u64).saturating_sub(ctx.now);
            ctx.after(delay.max(1), Event::Exporter(self.id, Step::Tick(connection)));
        }
    }

    fn perform(&mut self, connection: Connection, action: Action, ctx: &mut Context) {
        if let Action::Established { session, lanes, credit, .. } = action {
            return self.established(connection, session, lanes, credit, ctx);
        }
        if let Action::Unanswered { .. } = action {
            return self.dial_soon(20, ctx);
        }
        let Some(session) = self.session.as_mut().filter(|session| session.connection == connection) else {
            return;
        };
        match action {
            Action::Resume { lane, slot, resume_epoch, next, leader_epoch, .. } => {
                session.lane(lane).lane.resume(slot, resume_epoch, next);
                let Some(reading) = session.slots.get_mut(&slot.0) else { return };
                (reading.resume_epoch, reading.leader_epoch) = (resume_epoch.0, leader_epoch);
                (reading.next, reading.sent, reading.state) = (next.0, next.0, State::Active);
            }
            Action::Hold { lane, slot, reason, .. } => {
                session.lane(lane).lane.remove(slot);
                let Some(reading) = session.slots.get_mut(&slot.0) else { return };
                reading.state = State::Held;
                if reason == hold::Reason::SourceDiverged {
                    ctx.source.held.insert(reading.partition.clone());
                }
            }
            Action::Refuse { lane, slot, .. } => session.lane(lane).lane.remove(slot),
            Action::Committed { lane, slot, next } => session.committed(lane, slot, next, ctx),
            Action::Credit { lane, epoch, total } => {
                session.lane(lane).lane.grant(epoch, total);
                session.send(lane, ctx);
            }
            Action::LaneReset { lane, epoch, credit, .. } => {
                session.lane(lane).lane.reset(epoch, credit);
                // What was read for the epoch before goes, so that there is room to read.
                session.send(lane, ctx);
            }
            Action::Drain(_)
            | Action::Established { .. }
            | Action::Granted { .. }
            | Action::Unanswered { .. } => {}
        }
    }

    /// The newest session counts, in whichever order the welcomes of raced connections come.
    fn established(
        &mut self,
        connection: Connection,
        number: SessionId,
        lanes: u16,
        credit: u64,
        ctx: &mut Context,
    ) {
        let before = self.session.as_ref().map(|session| (session.connection, session.number));
        if let Some((older, _)) = before {
            // Of another importer the number says nothing: the newest connection counts.
            let loser = if connection > older { older } else { connection };
            self.attempts.remove(&loser);
            ctx.cut(loser, 500);
            if loser == connection {
                return;
            }
        }
        let outgoing = || Outgoing {
            lane: sender::Lane::new(LaneEpoch(1), credit),
            unchecked: VecDeque::new(),
            queue: VecDeque::new(),
        };
        let lanes_out = (0..lanes).map(|_| outgoing()).collect();
        let mut session =
            Session { connection, number, lanes: lanes_out, slots: BTreeMap::new(), next_slot: 8 };
        // Slots are numbered anew in each session, in no order that the next one could rely on.
        let mut free: Vec<u32> = (0..8).collect();
        for (topic, (name, partitions)) in TOPICS.iter().enumerate() {
            for number in 0..*partitions {
                let slot = free.swap_remove(ctx.chance.below(free.len() as u64) as usize);
                let partition = ctx.source.partition(topic, number);
                let (lane, state) = (lane_of(name, lanes), State::Opened);
                let (next, sent, leader_epoch, resume_epoch) = (0, 0, None, 0);
                let reading =
                    Reading { topic, number, partition, lane, resume_epoch, next, leader_epoch, sent, state };
                session.slots.insert(slot, reading);
            }
        }
        let slots: Vec<u32> = session.slots.keys().copied().collect();
        self.session = Some(session);
        for slot in slots {
            self.open(slot, ctx);
        }
        ctx.after(1, Event::Exporter(self.id, Step::Read(number)));
    }

    fn open(&mut self, slot: u32, ctx: &mut Context) {
        let Some(session) = &mut self.session else { return };
        let Some(reading) = session.slots.get(&slot) else { return };
        let topic = &ctx.source.topics[reading.topic];
        let log = &topic.logs[reading.number];
        let open = Open {
            slot,
            topic_id: reading.partition.topic.0.to_vec(),
            topic: topic.name.into(),
            partition: reading.number as i32,
            partition_count: topic.logs.len() as i32,
            log_start: log.start,
            end: log.end(),
            start: log.start,
        };
        let connection = session.connection;
        self.handle(connection, sender::Event::Open(open), ctx);
    }

    /// The partition is not what it was: nothing more of it is sent.
    fn close(&mut self, slot: u32, state: State, ctx: &mut Context) {
        let Some(session) = &mut self.session else { return };
        let Some(reading) = session.slots.get_mut(&slot) else { return };
        reading.state = state;
        let (lane, connection) = (reading.lane, session.connection);
        session.lane(lane).lane.remove(Slot(slot));
        self.handle(connection, sender::Event::Close(Slot(slot)), ctx);
    }

    fn read(&mut self, ctx: &mut Context) {
        let Some(session) = &mut self.session else { return };
        let number = session.number;
        let ready: Vec<u32> = session
            .slots
            .iter()
            .filter(|(_, reading)| {
                let lane = &session.lanes[usize::from(reading.lane.0)];
                reading.state == State::Active && lane.unchecked.len() + lane.queue.len() < 3
            })
            .map(|(slot, _)| *slot)
            .collect();
        if let Some(slot) = ctx.chance.pick(&ready) {
            let lane = session.slots[&slot].lane;
            let mut batch = Batch::new();
            self.read_into(&mut batch, slot, ctx);
            // A batch often has groups of several partitions.
            let others = ready.iter().filter(|other| **other != slot);
            let others: Vec<u32> = others.copied().collect();
            if let Some(other) = ctx.chance.pick(&others)
                && self.session.as_ref().is_some_and(|session| session.slots[&other].lane == lane)
            {
                self.read_into(&mut batch, other, ctx);
            }
            self.check(lane, batch, ctx);
        }
        if ctx.chance.percent(2)
            && let Some(slot) = self.outlived(ctx)
        {
            self.recreated(slot, ctx);
        }
        let delay = ctx.chance.between(5, 60);
        ctx.after(delay, Event::Exporter(self.id, Step::Read(number)));
    }

    /// A partition whose topic was re-created, by a look at the metadata now and then: nothing may be read that would
    /// tell, as when it is held, or when the new log ends just where the old one was left.
    fn outlived(&self, ctx: &Context) -> Option<u32> {
        let mut slots = self.session.as_ref()?.slots.iter();
        let outlived = slots.find(|(_, reading)| {
            reading.state != State::Gone
                && ctx.source.partition(reading.topic, reading.number) != reading.partition
        });
        outlived.map(|(slot, _)| *slot)
    }

    fn read_into(&mut self, batch: &mut Batch, slot: u32, ctx: &mut Context) {
        let Some(session) = &mut self.session else { return };
        let Some(reading) = session.slots.get_mut(&slot) else { return };
        let most = ctx.chance.between(1, 6) as usize;
        let position = (reading.next, reading.leader_epoch);
        match ctx.source.fetch((reading.topic, reading.number), position, most) {
            Fetched::Records(records, next, leader_epoch) if next > reading.next => {
                let group = batch.group_index(slot);
                for (offset, uid) in records {
                    let content = Content::of(uid);
                    let headers = content.headers.iter().map(|(name, value)| (&name[..], value.as_deref()));
                    let (key, value) = (content.key.as_deref(), content.value.as_deref());
                    batch.push(group, offset, content.timestamp, key, value, headers);
                }
                let group = &mut batch.groups_mut()[group];
                (group.resume_epoch, group.next, group.leader_epoch) =
                    (reading.resume_epoch, next, leader_epoch);
                (reading.next, reading.leader_epoch) = (next, Some(leader_epoch));
            }
            Fetched::Records(..) => {}
            Fetched::Expired => {
                reading.state = State::Expired;
                let delay = ctx.pause(1000);
                ctx.after(delay, Event::Exporter(self.id, Step::Skip(session.number, slot)));
            }
            Fetched::Diverged => self.diverged(slot, ctx),
        }
    }

    fn diverged(&mut self, slot: u32, ctx: &mut Context) {
        let Some(reading) = self.session.as_ref().and_then(|session| session.slots.get(&slot)) else {
            return;
        };
        if ctx.source.partition(reading.topic, reading.number) == reading.partition {
            // Cut back below what was read: an operator has to say what the truth is.
            ctx.source.held.insert(reading.partition.clone());
            self.close(slot, State::Held, ctx);
        } else {
            self.recreated(slot, ctx);
        }
    }

    fn check(&mut self, lane: LaneId, batch: Batch, ctx: &mut Context) {
        let Some(session) = self.session.as_mut().filter(|_| !batch.is_empty()) else { return };
        session.lane(lane).unchecked.push_back(batch);
        let delay = ctx.pause(20);
        ctx.after(delay, Event::Exporter(self.id, Step::Release(session.number, lane)));
    }

    /// Only what was fetched before a check that found the topic unchanged is known to be of that topic.
    fn release(&mut self, lane: LaneId, ctx: &mut Context) {
        let Some(session) = &mut self.session else { return };
        let Some(mut batch) = session.lane(lane).unchecked.pop_front() else { return };
        let mut changed = Vec::new();
        if !ctx.is_planted(Planted::TopicIdUnchecked) {
            batch.retain_groups(|group| {
                let Some(reading) = session.slots.get(&group.slot) else { return false };
                let same = ctx.source.partition(reading.topic, reading.number) == reading.partition;
                if !same {
                    changed.push(group.slot);
                }
                same
            });
        }
        if !batch.is_empty() {
            session.lane(lane).queue.push_back(batch);
        }
        session.send(lane, ctx);
        for slot in changed {
            self.recreated(slot, ctx);
        }
    }

    fn recreated(&mut self, slot: u32, ctx: &mut Context) {
        let Some(session) = &self.session else { return };
        if session.slots.get(&slot).is_none_or(|reading| reading.state == State::Gone) {
            return;
        }
        let delay = ctx.pause(100);
        ctx.after(delay, Event::Exporter(self.id, Step::Reopen(session.number, slot)));
        self.close(slot, State::Gone, ctx);
    }

    /// A slot names one partition for the whole session: the topic's new incarnation gets a fresh one.
    fn reopen(&mut self, slot: u32, ctx: &mut Context) {
        let Some(session) = &mut self.session else { return };
        let Some(mut reading) = session.slots.remove(&slot) else { return };
        reading.partition = ctx.source.partition(reading.topic, reading.number);
        reading.state = State::Opened;
        let fresh = session.next_slot;
        session.next_slot += 1;
        session.slots.insert(fresh, reading);
        self.open(fresh, ctx);
    }

    fn skip(&mut self, slot: u32, ctx: &mut Context) {
        let Some(session) = &mut self.session else { return };
        let Some(reading) = session.slots.get_mut(&slot) else { return };
        if reading.state != State::Expired {
            return;
        }
        reading.state = State::Active;
        let start = ctx.source.log(reading.topic, reading.number).start;
        if start <= reading.next {
            // Another topic by now: reading on finds out.
            return;
        }
        let mut batch = Batch::new();
        let index = batch.group_index(slot);
        let group = &mut batch.groups_mut()[index];
        (group.resume_epoch, group.next, group.gap) = (reading.resume_epoch, start, GapReason::Expired);
        (reading.next, reading.leader_epoch) = (start, None);
        let lane = reading.lane;
        self.check(lane, batch, ctx);
    }
}

impl Session {
    fn lane(&mut self, lane: LaneId) -> &mut Outgoing {
        &mut self.lanes[usize::from(lane.0)]
    }

    fn committed(&mut self, lane: LaneId, slot: Slot, next: Offset, ctx: &mut Context) {
        match self.lane(lane).lane.committed(slot, next) {
            Err(error) => ctx.misbehaved("the exporter", &error),
            Ok(false) => {}
            Ok(true) => {
                let Some(reading) = self.slots.get(&slot.0) else { return };
                let next = if ctx.is_planted(Planted::CommitAboveAck) { reading.sent } else { next.0 };
                ctx.commit_group(&reading.partition, next);
            }
        }
    }

    /// Sends what credit allows.
    fn send(&mut self, lane: LaneId, ctx: &mut Context) {
        let connection = self.connection;
        while let Some(batch) = self.lane(lane).queue.front() {
            if u64::from(weight(batch)) > self.lane(lane).lane.credit_left() {
                return;
            }
            let Some(mut batch) = self.lane(lane).queue.pop_front() else { return };
            if ctx.is_planted(Planted::ResumeEpochIgnoredByExporter) {
                self.make_current(&mut batch);
            }
            if self.lane(lane).lane.stamp(&mut batch) == Stamped::Nothing {
                continue;
            }
            for group in batch.groups() {
                if let Some(reading) = self.slots.get_mut(&group.slot) {
                    reading.sent = group.next;
                }
            }
            if ctx.chance.percent(ctx.knobs.misplaced_batch) {
                continue;
            }
            let times = if ctx.chance.percent(ctx.knobs.doubled_batch) { 2 } else { 1 };
            for _ in 0..times {
                let (lane_out, plain) = (&mut self.lane(lane).lane, weight(&batch));
                if u64::from(plain) <= lane_out.credit_left() {
                    let header = lane_out.header(plain / 2, plain);
                    ctx.send_parcel(connection, lane.0, header, batch.clone());
                }
            }
        }
    }

    /// Planted: what was read before the last position passes as read after it.
    fn make_current(&self, batch: &mut Batch) {
        let firsts: Vec<Option<i64>> = (0..batch.groups().len())
            .map(|index| batch.records(index).next().map(|record| record.offset))
            .collect();
        for (group, first) in batch.groups_mut().iter_mut().zip(firsts) {
            let Some(reading) = self.slots.get(&group.slot) else { continue };
            // What overlaps cannot be sent at all: the lane would stop the process.
            let fits = first.is_none_or(|first| first >= reading.sent);
            group.resume_epoch = if fits { reading.resume_epoch } else { u32::MAX };
        }
    }
}

/// Plain bytes as declared: the model's records count as if they were large, so that credit matters.
fn weight(batch: &Batch) -> u32 {
    (batch.plain_size() * 8192).min(u64::from(limits::MAX_PARCEL_PLAIN)) as u32
}
