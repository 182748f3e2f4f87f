//! One lane's worker: takes over, judges, writes transactions, acknowledges; recycles its producer when in doubt.
//!
//! ```text
//!  Down ── init ──▶ Initialised ── read progress, drop what is in it ──▶ Ready ──▶ begin, produce .. ──▶ Closing
//!   ▲                                                                      ▲                             │ progress
//!   │                                                                      │ clean: acknowledge          ▼ commit
//!   └──────────── anything else than a clean success ──────────────────────┴────────────────────── Committing
//! ```

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use codec::{Batch, Group, UNKNOWN_LEADER_EPOCH};
use proto::{
    PeerMisbehaved, hold,
    ids::{Lane as LaneId, LaneEpoch, Offset, SessionId, Slot, SourcePartition},
    policy::Permit,
    receiver::{self, Admission, OpenPartition, Verdict},
    wire::{Answer, ParcelHeader, ToExporter},
};

use super::Life;
use crate::simulation::{
    Planted, WINDOW,
    context::{Context, Event},
    source::Content,
    target::{Producer, Progress, Range, Write},
};

#[derive(Debug)]
pub(super) struct Worker {
    importer: usize,
    lane: receiver::Lane,
    phase: Phase,
    /// A step is due.
    due: bool,
    inbox: VecDeque<Input>,
    epoch: u32,
    transaction: Option<Transaction>,
    transactions: u64,
    /// Accepted and not known to be committed, in order; the first `produced` are in the open transaction.
    memory: VecDeque<Item>,
    produced: usize,
    /// What is committed, as read at take-over and kept since.
    progress: Progress,
    /// Open in this session: where the lane expects each partition to go on.
    accepted: BTreeMap<SourcePartition, Accepted>,
    /// Last resume epoch given for each slot.
    resume_epochs: BTreeMap<Slot, u32>,
    outbox: Vec<ToExporter>,
    /// Planted: progress was read, and the producer is not initialised yet.
    read_early: bool,
    /// Planted: parcels of any connection count as they come.
    parcels: (SessionId, u64),
}

#[derive(Debug)]
pub(super) enum Input {
    Session(SessionId),
    Open { session: SessionId, open: OpenPartition },
    Close { session: SessionId, slot: Slot },
    Parcel { session: SessionId, header: ParcelHeader, batch: Batch },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Down,
    Initialised,
    Ready,
    Closing,
    Committing(Outcome),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// Success, and one `EndTxn` was sent.
    Clean,
    /// Success, but `EndTxn` was sent more than once: one may still be under way.
    Resent,
    /// An error or a time-out: committed or not.
    Unclear,
}

#[derive(Debug)]
struct Transaction {
    token: u64,
    /// The broker knows of it.
    begun: bool,
}

#[derive(Debug)]
struct Item {
    session: SessionId,
    epoch: LaneEpoch,
    /// Plain bytes that are free once this is committed.
    plain: u64,
    write: Write,
}

#[derive(Debug)]
struct Accepted {
    slot: Slot,
    permit: Permit,
    next: i64,
}

impl Worker {
    pub(super) fn new(importer: usize, lane: LaneId) -> Self {
        Self {
            importer,
            lane: receiver::Lane::new(lane, WINDOW),
            phase: Phase::Down,
            due: false,
            inbox: VecDeque::new(),
            epoch: 0,
            transaction: None,
            transactions: 0,
            memory: VecDeque::new(),
            produced: 0,
            progress: BTreeMap::new(),
            accepted: BTreeMap::new(),
            resume_epochs: BTreeMap::new(),
            outbox: Vec::new(),
            read_early: false,
            parcels: (SessionId(0), 0),
        }
    }

    pub(super) fn push(&mut self, input: Input) {
        self.inbox.push_back(input);
    }

    pub(super) fn session(&self) -> Option<SessionId> {
        self.lane.session()
    }

    /// What is to be said to the exporter.
    pub(super) fn messages(&mut self) -> Vec<ToExporter> {
        self.collect();
        std::mem::take(&mut self.outbox)
    }

    fn collect(&mut self) {
        while let Some(message) = self.lane.poll_transmit() {
            if let Some(Answer::Resume(resume)) = &message.answer {
                self.resume_epochs.insert(Slot(resume.slot), resume.resume_epoch);
            }
            self.outbox.push(message);
        }
    }

    /// When the next step is due, unless one is already, or nothing is to be done.
    pub(super) fn wake(&mut self, ctx: &mut Context) -> Option<u64> {
        if self.due {
            return None;
        }
        let delay = match self.phase {
            Phase::Down => ctx.pause(100),
            Phase::Initialised | Phase::Closing | Phase::Committing(_) => ctx.pause(15),
            Phase::Ready if self.produced < self.memory.len() || !self.inbox.is_empty() => ctx.pause(10),
            Phase::Ready if self.transaction.is_some() => ctx.pause(100),
            Phase::Ready => return None,
        };
        self.due = true;
        Some(delay)
    }

    pub(super) fn step(&mut self, ctx: &mut Context) -> Life {
        self.due = false;
        match self.phase {
            Phase::Down => {
                if ctx.target.owners[self.index()] > self.importer as u64 {
                    return Life::StandsDown;
                }
                if ctx.is_planted(Planted::ProgressReadBeforeInit) && !self.read_early {
                    self.read_progress(ctx);
                    self.read_early = true;
                    return Life::GoesOn;
                }
                self.read_early = false;
                self.epoch = ctx.target.init(self.index());
                self.phase = Phase::Initialised;
            }
            Phase::Initialised => {
                if !ctx.is_planted(Planted::ProgressReadBeforeInit) {
                    self.read_progress(ctx);
                }
                self.phase = Phase::Ready;
            }
            Phase::Ready => self.work(ctx),
            Phase::Closing => self.commit(ctx),
            Phase::Committing(outcome) => self.ended(outcome, ctx),
        }
        Life::GoesOn
    }

    fn index(&self) -> usize {
        usize::from(self.lane.lane().0)
    }

    /// The one way out of every doubt: a new producer, and progress read again.
    fn recycle(&mut self) {
        self.phase = Phase::Down;
        self.transaction = None;
        self.produced = 0;
    }

    /// Reads what is committed, drops it from memory, and asks again for what no longer fits.
    fn read_progress(&mut self, ctx: &mut Context) {
        if ctx.is_planted(Planted::ReplayUnread) && !self.progress.is_empty() {
            return;
        }
        self.progress = ctx.target.progress.clone();
        let mut positions = Progress::new();
        // What is committed there is not what is in memory here: another importer's, or of before the log was cut.
        let mut strange = BTreeSet::new();
        for item in std::mem::take(&mut self.memory) {
            let Range { partition, from, to, leader_epoch, .. } = &item.write.range;
            let known = positions.get(partition).or_else(|| self.progress.get(partition));
            let position = known.map_or(*from, |(next, _)| *next);
            if *from == position && !strange.contains(partition) {
                positions.insert(partition.clone(), (*to, *leader_epoch));
                self.memory.push_back(item);
            } else {
                if *to >= position && known != Some(&(*to, *leader_epoch)) {
                    strange.insert(partition.clone());
                }
                self.lane.free(item.session, item.epoch, item.plain);
            }
        }
        if ctx.is_planted(Planted::ForeignProgressIgnored) {
            return;
        }
        for (partition, accepted) in &mut self.accepted {
            let position = positions.get(partition).or_else(|| self.progress.get(partition)).copied();
            // Another importer went on from here, or what was accepted is gone.
            if let Some((next, leader_epoch)) =
                position.filter(|(next, _)| *next != accepted.next || strange.contains(partition))
            {
                accepted.next = next;
                self.lane.rewind(partition, Offset(next), leader_epoch);
            }
            if let Some((committed, leader_epoch)) = self.progress.get(partition) {
                self.lane.committed(partition, Offset(*committed), *leader_epoch);
            }
        }
    }

    fn work(&mut self, ctx: &mut Context) {
        if self.produced < self.memory.len() {
            return self.produce(ctx);
        }
        let waits = matches!(self.inbox.front(), Some(Input::Session(_))) && !ctx.knobs.resume_at_accepted;
        let full = self.inbox.is_empty() || self.produced >= 4 || waits || ctx.chance.percent(20);
        if self.transaction.is_some() && full {
            return self.close(ctx);
        }
        match self.inbox.pop_front() {
            None => {}
            Some(Input::Session(session)) => {
                self.lane.begin_session(session);
                self.accepted.clear();
                self.resume_epochs.clear();
                self.outbox.clear();
                self.parcels = (session, 0);
            }
            Some(Input::Open { session, open }) if self.session() == Some(session) => self.open(open),
            Some(Input::Close { session, slot }) if self.session() == Some(session) => {
                self.lane.close(slot);
                self.accepted.retain(|_, accepted| accepted.slot != slot);
            }
            Some(Input::Open { .. } | Input::Close { .. }) => {}
            Some(Input::Parcel { session, header, batch }) => self.parcel(session, header, batch, ctx),
        }
    }

    fn open(&mut self, open: OpenPartition) {
        let OpenPartition { slot, partition, permit, end, start, .. } = open;
        let in_memory = self.memory.iter().rfind(|item| item.write.range.partition == partition);
        let committed = self.progress.get(&partition).copied();
        let position = in_memory.map(|item| item.write.range.end()).or(committed);
        if position.is_some_and(|(next, _)| next > end.0) {
            self.accepted.remove(&partition);
            return self.lane.hold(slot, hold::Reason::SourceDiverged, "the source ends before the position");
        }
        let (next, leader_epoch) = position.unwrap_or((start.0, None));
        let new = position.is_none();
        self.lane.open(slot, partition.clone(), permit.clone(), Offset(next), leader_epoch, new);
        if let Some((committed, leader_epoch)) = committed {
            self.lane.committed(&partition, Offset(committed), leader_epoch);
        }
        self.accepted.insert(partition, Accepted { slot, permit, next });
    }

    fn parcel(&mut self, session: SessionId, mut header: ParcelHeader, mut batch: Batch, ctx: &mut Context) {
        let unfenced = ctx.is_planted(Planted::SessionsUnfenced);
        if unfenced {
            header.sequence = self.parcels.1;
        }
        match self.lane.parcel(session, &header) {
            Ok(Admission::Decode) => self.parcels.1 += 1,
            Ok(Admission::Stale) => return,
            Err(_) if unfenced => return,
            Err(error) => return ctx.misbehaved("a lane of the importer", &error),
        }
        if ctx.chance.percent(ctx.knobs.broken_parcel) {
            self.parcels.1 = 0;
            return self.lane.broken("a planted bit");
        }
        let before = self.memory.len();
        for index in 0..batch.groups().len() {
            match self.judge(&mut batch, index, ctx) {
                Ok(None) => {}
                Ok(Some(write)) => {
                    self.memory.push_back(Item { session, epoch: header.epoch, plain: 0, write });
                }
                Err(_) if unfenced => {}
                Err(error) => return ctx.misbehaved("a lane of the importer", &error),
            }
        }
        // The parcel's bytes are free when its last group is committed.
        if self.memory.len() > before
            && let Some(last) = self.memory.back_mut()
        {
            last.plain = header.plain.into();
        } else {
            self.lane.free(session, header.epoch, header.plain.into());
        }
    }

    /// What a group has the right to write, if it has.
    fn judge(
        &mut self,
        batch: &mut Batch,
        index: usize,
        ctx: &Context,
    ) -> Result<Option<Write>, PeerMisbehaved> {
        self.collect();
        let mut records = Vec::new();
        for record in batch.records(index) {
            records.push((record.offset, Content::read(&record)));
        }
        let bounds = records.first().zip(records.last()).map(|(first, last)| (first.0, last.0));
        let records = records.into_iter().map(|(_, content)| content).collect();
        let group = &mut batch.groups_mut()[index];
        if let Some((partition, topic)) = self.plant(group, bounds, ctx) {
            return Ok(Some(Write { topic, range: range(partition, group), records }));
        }
        let Verdict::Accept(partition, permit) = self.lane.judge(group, bounds)? else { return Ok(None) };
        let (partition, topic) = (partition.clone(), permit.target().clone());
        if let Some(accepted) = self.accepted.get_mut(&partition) {
            accepted.next = group.next;
        }
        Ok(Some(Write { topic, range: range(partition, group), records }))
    }

    /// Switches a check off: dresses a group so that the lane finds nothing wrong with it, or lets it pass by.
    fn plant(
        &self,
        group: &mut Group,
        bounds: Option<(i64, i64)>,
        ctx: &Context,
    ) -> Option<(SourcePartition, Arc<str>)> {
        let slot = Slot(group.slot);
        let given = self.resume_epochs.get(&slot).copied()?;
        if ctx.is_planted(Planted::ResumeEpochIgnoredByImporter) {
            group.resume_epoch = given;
        }
        if !ctx.is_planted(Planted::ChainUnchecked) || group.resume_epoch != given {
            return None;
        }
        let (partition, accepted) = self.accepted.iter().find(|(_, accepted)| accepted.slot == slot)?;
        if group.next <= accepted.next {
            return Some((partition.clone(), accepted.permit.target().clone()));
        }
        if bounds.is_none_or(|(first, _)| first >= accepted.next) {
            group.prev_next = accepted.next;
        }
        None
    }

    /// Writes the next accepted group into the open transaction, or into a new one.
    fn produce(&mut self, ctx: &mut Context) {
        let write = self.memory[self.produced].write.clone();
        if self.transaction.is_none() {
            self.transactions += 1;
            self.transaction = Some(Transaction { token: self.transactions, begun: false });
        }
        let refused = ctx.chance.percent(ctx.knobs.refused_produce);
        let (partition, (to, leader_epoch)) = (write.range.partition.clone(), write.range.end());
        let (lane, producer) = (self.index(), self.producer());
        if refused || ctx.target.produce(lane, producer, write).is_err() {
            return self.recycle();
        }
        if let Some(transaction) = &mut self.transaction {
            transaction.begun = true;
        }
        self.produced += 1;
        if ctx.is_planted(Planted::AckBeforeCommit) {
            self.lane.committed(&partition, Offset(to), leader_epoch);
        }
    }

    /// Everything is delivered: progress goes into the same transaction.
    fn close(&mut self, ctx: &mut Context) {
        let (lane, producer) = (self.index(), self.producer());
        self.phase = Phase::Closing;
        if ctx.is_planted(Planted::ProgressApart) {
            return;
        }
        let progress = self.reached();
        if ctx.target.produce_progress(lane, producer, self.importer as u64, progress).is_err() {
            self.recycle();
        }
    }

    /// Where the open transaction takes each partition.
    fn reached(&self) -> Progress {
        let written = self.memory.iter().take(self.produced).map(|item| &item.write.range);
        written.map(|range| (range.partition.clone(), range.end())).collect()
    }

    fn producer(&self) -> Producer {
        let transaction = self.transaction.as_ref();
        Producer {
            epoch: self.epoch,
            token: transaction.map_or(0, |transaction| transaction.token),
            begun: transaction.is_some_and(|transaction| transaction.begun),
        }
    }

    /// `commit_transaction`, with what can become of its `EndTxn` on the way.
    fn commit(&mut self, ctx: &mut Context) {
        let (lane, epoch) = (self.index(), self.epoch);
        let held = ctx.chance.between(5, 3000);
        let late = Event::LateEndTxn { lane, epoch };
        let rough = ctx.chance.percent(ctx.knobs.unclear_commit);
        let (applied, hung, outcome) = match if rough { ctx.chance.between(1, 6) } else { 0 } {
            0 => (true, false, Outcome::Clean),
            // The answer was lost, or the request held; the second one got through.
            1 => (true, false, Outcome::Resent),
            2 | 3 => (true, true, Outcome::Resent),
            // No answer in time.
            4 => (false, true, Outcome::Unclear),
            5 => (true, false, Outcome::Unclear),
            _ => (false, false, Outcome::Unclear),
        };
        if hung {
            ctx.after(held, late);
        }
        let refused = applied && ctx.target.commit(lane, epoch).is_err();
        self.phase = Phase::Committing(if refused { Outcome::Unclear } else { outcome });
    }

    fn ended(&mut self, outcome: Outcome, ctx: &mut Context) {
        let uncounted = outcome == Outcome::Resent && ctx.is_planted(Planted::ResendsUncounted);
        if outcome != Outcome::Clean && !uncounted {
            return self.recycle();
        }
        let reached = self.reached();
        if ctx.is_planted(Planted::ProgressApart) {
            ctx.target.write_progress(self.index(), self.importer as u64, reached.clone());
        }
        for (partition, (next, leader_epoch)) in &reached {
            self.lane.committed(partition, Offset(*next), *leader_epoch);
        }
        self.progress.extend(reached);
        for item in self.memory.drain(..self.produced) {
            self.lane.free(item.session, item.epoch, item.plain);
        }
        self.produced = 0;
        self.transaction = None;
        self.phase = Phase::Ready;
    }
}

fn range(partition: SourcePartition, group: &Group) -> Range {
    let leader_epoch = (group.leader_epoch != UNKNOWN_LEADER_EPOCH).then_some(group.leader_epoch);
    Range { partition, from: group.prev_next, to: group.next, gap: group.gap, leader_epoch }
}
