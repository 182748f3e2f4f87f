//! One transaction: records, progress and offset map together, then the acknowledgement. The only place where
//! a position is committed.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use kafka::{CommitError, Delivery, KafkaCode, ProduceError, TransactionError};
use proto::{
    hold::Reason,
    ids::{Offset, SourcePartition},
    progress::{Entry, Tally, key_of},
};

use super::{
    MAX_SPARE, Stopped, Worker,
    pending::{Accepted, Part, Pending},
    tail::went_back,
    takeover::Owned,
    words::{explain, missing_right, own_topics_unauthorised},
};
use crate::{
    mailbox::{Mailbox, Order},
    offset_map::Runs,
    target::Obstacle,
};

/// What stopped a transaction. In every case the producer is recycled before anything else happens.
enum Failure {
    /// Nothing to decide: replay.
    Recycle(String),
    /// Fenced, or timed out at the broker.
    Fenced(String),
    /// The target refuses records of these partitions for good.
    Refused(Vec<(SourcePartition, Reason, String)>),
    /// The target refuses something for good and does not say of which partition.
    Unattributed(KafkaCode),
    /// Every record was taken, and the link's own topics are not.
    OwnTopics(KafkaCode),
    Stopped,
}

/// A source partition in a transaction.
struct Share {
    part: Part,
    /// Source offset of each record, in order: the tag of a delivery report counts in it.
    sources: Vec<i64>,
    runs: Runs,
    /// Target offsets of the first and the last record.
    first: Option<i64>,
    last: Option<i64>,
    /// Whether the last record has what compaction keeps: a key and a value.
    lasting: bool,
    /// The first refusal, and the source offset of its record.
    refusal: Option<(KafkaCode, i64)>,
    /// A failure that says nothing of the record itself.
    failure: Option<KafkaCode>,
    next: i64,
    leader_epoch: Option<i32>,
    tally: Tally,
    newest: Option<i64>,
}

impl Worker {
    /// Commits everything that is pending, however often it takes.
    pub(super) fn flush(&mut self) -> Result<(), Stopped> {
        let mut isolate = false;
        while !self.pending.is_empty() {
            self.check_order()?;
            if let Some(session) = self.mailbox.take_void() {
                self.void(session);
                continue;
            }
            self.wait_for_audit()?;
            self.record_gaps()?;
            if !self.ready()? {
                continue;
            }
            let began = Instant::now();
            self.last_begin = Some(began);
            let outcome = if isolate { self.commit_one_by_one() } else { self.commit_all() };
            match outcome {
                Ok(()) => {
                    self.context.board.committed_in(self.context.lane, began.elapsed());
                    self.release_credit();
                }
                Err(Failure::Stopped) => return Err(Stopped),
                Err(Failure::Recycle(why)) => self.recycle(&why),
                Err(Failure::Fenced(why)) => {
                    self.takeover.fenced();
                    self.recycle(&why);
                }
                Err(Failure::Refused(refused)) => {
                    for (partition, reason, detail) in refused {
                        self.hold_and_drop(&partition, reason, &detail);
                    }
                    self.recycle("the target refuses records");
                }
                Err(Failure::OwnTopics(code)) => {
                    let (reason, detail) = own_topics_unauthorised(&self.context.link, code);
                    self.hold_everything(reason, &detail);
                    self.recycle("the link's own topics may not be written");
                }
                Err(Failure::Unattributed(code)) => {
                    self.recycle(&format!("the target refuses something: {code}"));
                    isolate = true;
                }
            }
        }
        Ok(())
    }

    /// The lane is ours and every pending group continues its partition's progress.
    fn ready(&mut self) -> Result<bool, Stopped> {
        let fresh = self.owned.is_none();
        match self.acquire(&[])? {
            Ok(()) => {}
            Err(Obstacle::Passing(why)) => {
                self.context.board.trouble(self.context.lane, &why);
                self.pause(Duration::from_millis(100))?;
                return Ok(false);
            }
            Err(Obstacle::Hold(reason, detail)) => {
                self.hold_everything(reason, &detail);
                return Ok(false);
            }
        }
        if fresh {
            self.context.board.trouble(self.context.lane, "");
            self.compare_with_progress();
            if !self.inspect_pending()? {
                return Ok(false);
            }
        }
        if self.pending.parcels().iter().all(|accepted| accepted.parts.is_empty()) {
            self.release_credit();
            return Ok(false);
        }
        Ok(true)
    }

    /// After a take-over, for every partition that is sent now: what progress has already is not written again, and
    /// where progress is not where this process believed it to be, what is pending is given up and sent again.
    fn compare_with_progress(&mut self) {
        let Some(owned) = &self.owned else { return };
        let table = &owned.table;
        let mut reached: BTreeMap<SourcePartition, Offset> = BTreeMap::new();
        let mut broken = BTreeSet::new();
        let mut done: BTreeMap<SourcePartition, Offset> = BTreeMap::new();
        Pending::retain(&mut self.pending, |part, group| {
            let Some(entry) = table.entries.get(&part.partition) else { return false };
            if group.next <= entry.next.0 {
                // Its transaction was committed after all.
                done.insert(part.partition.clone(), Offset(group.next));
                return false;
            }
            let position = reached.entry(part.partition.clone()).or_insert(entry.next);
            if group.prev_next == position.0 && !broken.contains(&part.partition) {
                *position = Offset(group.next);
                return true;
            }
            // Its partition's position stays behind, which shows below if it is still being sent.
            broken.insert(part.partition.clone());
            false
        });
        let (mut lost, mut moved) = (Vec::new(), Vec::new());
        for (partition, accepted) in self.machine.accepted() {
            match table.entries.get(partition) {
                None => lost.push(partition.clone()),
                Some(entry) if reached.get(partition).copied().unwrap_or(entry.next) != accepted => {
                    moved.push((partition.clone(), entry.next, entry.leader_epoch));
                }
                Some(_) => {}
            }
        }
        for (partition, next) in done {
            let entry = &table.entries[&partition];
            let leader_epoch = entry.leader_epoch.filter(|_| entry.next == next);
            self.machine.committed(&partition, next, leader_epoch);
        }
        self.drop_pending(|doomed| broken.contains(doomed));
        for (partition, next, leader_epoch) in moved {
            tracing::warn!(%partition, %next, "progress is not where it was left: the exporter sends again from there");
            self.drop_pending(|doomed| *doomed == partition);
            self.machine.rewind(&partition, next, leader_epoch);
        }
        for partition in lost {
            let detail = format!(
                "`{}` no longer knows this partition, which was being written a moment ago: the topic was deleted or \
                 emptied; nothing is written until it is known where to go on: restore the topic, or delete the target \
                 topic's records and start the link anew under another name",
                self.context.link.progress_topic()
            );
            let topic = self.context.board.topic_of(&partition);
            self.hold_and_drop_topic(&partition, &topic, Reason::ProgressLost, &detail);
        }
    }

    fn commit_all(&mut self) -> Result<(), Failure> {
        let shares = {
            let Self { owned, pending, mailbox, .. } = self;
            let owned = owned.as_mut().ok_or_else(|| Failure::Recycle("no producer".into()))?;
            let context = &self.context;
            transact(context, owned, pending.parcels(), |_| true, mailbox)?
        };
        self.committed(shares);
        Ok(())
    }

    /// The same, a transaction for each source partition: the one that is refused shows itself.
    fn commit_one_by_one(&mut self) -> Result<(), Failure> {
        for (partition, part) in self.pending.parts() {
            let Self { owned, pending, mailbox, .. } = self;
            let owned = owned.as_mut().ok_or_else(|| Failure::Recycle("no producer".into()))?;
            let context = &self.context;
            match transact(context, owned, pending.parcels(), |other| other.partition == partition, mailbox) {
                Ok(shares) => self.committed(shares),
                Err(Failure::Unattributed(code)) => {
                    let (reason, detail) = explain(code, part.permit.target(), None);
                    return Err(Failure::Refused(vec![(partition, reason, detail)]));
                }
                Err(failure) => return Err(failure),
            }
            self.drop_pending(|done| *done == partition);
        }
        Ok(())
    }

    /// The transaction is committed: now, and only now, is it told.
    fn committed(&mut self, shares: Vec<Share>) {
        self.takeover.committed();
        for share in shares {
            let Share { part, next, leader_epoch, tally, newest, .. } = share;
            self.machine.committed(&part.partition, Offset(next), leader_epoch);
            self.unnoted.remove(&part.partition);
            self.released(&part, Offset(next));
            self.context.board.committed(part.permit.topic(), &part.partition, Offset(next), &tally, newest);
        }
    }

    /// Everything pending is done with: its memory is the exporter's to fill again.
    fn release_credit(&mut self) {
        for accepted in self.pending.take() {
            self.machine.free(accepted.session, accepted.epoch, accepted.plain);
            // One that carried a very large record would keep its memory for ever.
            if self.spare.len() < MAX_SPARE && accepted.plain <= 2 * proto::limits::MOST_PARCEL_TARGET {
                self.spare.push(accepted.batch);
            }
        }
    }

    fn hold_everything(&mut self, reason: Reason, detail: &str) {
        for (partition, part) in self.pending.parts() {
            self.hold(&partition, part.permit.topic(), reason, detail);
        }
        self.release_credit();
    }

    fn hold_and_drop(&mut self, partition: &SourcePartition, reason: Reason, detail: &str) {
        if let Some(part) = self.pending.parts().remove(partition) {
            self.hold_and_drop_topic(partition, part.permit.topic(), reason, detail);
        }
    }

    pub(super) fn hold_and_drop_topic(
        &mut self,
        partition: &SourcePartition,
        topic: &str,
        reason: Reason,
        detail: &str,
    ) {
        self.hold(partition, topic, reason, detail);
        self.drop_pending(|doomed| doomed == partition);
    }
}

/// Writes the groups of `parcels` that are `wanted`, and what they mean for progress, in one transaction.
fn transact(
    context: &super::Context,
    owned: &mut Owned,
    parcels: &[Accepted],
    wanted: impl Fn(&Part) -> bool,
    mailbox: &Mailbox,
) -> Result<Vec<Share>, Failure> {
    // Reports of the link's own records, which nobody waited for.
    owned.producer.deliveries(Duration::ZERO, |_| {});
    owned.producer.begin().map_err(transaction_failed)?;
    // The broker would end the transaction; better to be first.
    let deadline = Instant::now() + context.transaction.timeout.duration() * 3 / 4;
    let mut shares: Vec<Share> = Vec::new();
    let mut index_of: BTreeMap<SourcePartition, usize> = BTreeMap::new();
    for accepted in parcels {
        for (group, part) in accepted.parts.iter().enumerate().filter(|(_, part)| wanted(part)) {
            let index = *index_of.entry(part.partition.clone()).or_insert_with(|| {
                let from = Offset(accepted.batch.groups()[group].prev_next);
                shares.push(Share::new(part.clone(), from));
                shares.len() - 1
            });
            produce_group(owned, accepted, group, &mut shares, index, deadline)?;
            shares[index].cover(accepted, group);
        }
    }
    drain(owned, &mut shares, deadline, mailbox)?;
    let refused = refusals(&shares);
    if !refused.is_empty() {
        return Err(Failure::Refused(refused));
    }
    let entries = produce_progress(context, owned, &mut shares, deadline, mailbox)?;
    owned.producer.commit(COMMIT_PATIENCE).map_err(|error| match error {
        // Every record has its report: what is refused now is not theirs.
        CommitError::Abortable { code } | CommitError::Failed { code } if code.is_authorization() => {
            Failure::OwnTopics(code)
        }
        CommitError::Fenced => Failure::Fenced(error.to_string()),
        CommitError::Abortable { code } | CommitError::Failed { code }
            if code.is_refusal() && !code.is_unknown_topic() =>
        {
            Failure::Unattributed(code)
        }
        error => Failure::Recycle(error.to_string()),
    })?;
    owned.table.entries.extend(entries);
    Ok(shares)
}

fn produce_group(
    owned: &mut Owned,
    accepted: &Accepted,
    group: usize,
    shares: &mut [Share],
    index: usize,
    deadline: Instant,
) -> Result<(), Failure> {
    let part = &accepted.parts[group];
    let topic = owned.topic(part.permit.target()).map_err(|error| Failure::Recycle(error.to_string()))?;
    for record in accepted.batch.records(group) {
        let tag = (index as u64) << 32 | shares[index].sources.len() as u64;
        shares[index].sources.push(record.offset);
        shares[index].lasting = record.key.is_some() && record.value.is_some();
        loop {
            match owned.producer.produce(
                &topic,
                part.partition.partition,
                record.timestamp,
                record.key,
                record.value,
                record.headers(),
                tag,
            ) {
                Ok(()) => break,
                Err(ProduceError::QueueFull) if Instant::now() < deadline => {
                    owned.producer.deliveries(Duration::from_millis(10), |delivery| note(shares, &delivery));
                }
                Err(ProduceError::QueueFull) => {
                    return Err(Failure::Recycle("the target takes nothing".into()));
                }
                Err(ProduceError::Refused(code)) => {
                    let (reason, detail) = explain(code, part.permit.target(), Some(record.offset));
                    return Err(Failure::Refused(vec![(part.partition.clone(), reason, detail)]));
                }
                Err(ProduceError::Fatal { code: KafkaCode::FENCED, reason }) => {
                    return Err(Failure::Fenced(reason));
                }
                Err(ProduceError::Fatal { code, .. }) if code.is_refusal() => {
                    return Err(Failure::Unattributed(code));
                }
                Err(error) => return Err(Failure::Recycle(error.to_string())),
            }
        }
    }
    Ok(())
}

/// Waits until every record has its delivery report, with its offset at the target.
fn drain(
    owned: &mut Owned,
    shares: &mut [Share],
    deadline: Instant,
    mailbox: &Mailbox,
) -> Result<(), Failure> {
    let began = Instant::now();
    while owned.producer.in_flight() > 0 {
        owned.producer.deliveries(Duration::from_millis(20), |delivery| note(shares, &delivery));
        if owned.producer.failed().is_some() {
            // The client holds the other reports back from now on.
            break;
        }
        match mailbox.current_order() {
            Order::Run => {}
            Order::Drain if began.elapsed() < super::DRAIN_PATIENCE => {}
            Order::Drain | Order::Kill => return Err(Failure::Stopped),
        }
        if Instant::now() > deadline {
            return Err(Failure::Recycle("the target did not take the records in time".into()));
        }
    }
    owned.producer.deliveries(Duration::ZERO, |delivery| note(shares, &delivery));
    Ok(())
}

/// A delivery report.
fn note(shares: &mut [Share], delivery: &Delivery) {
    let Some(share) = shares.get_mut((delivery.tag >> 32) as usize) else { return };
    match delivery.outcome {
        Ok(offset) => {
            let source = share.sources[(delivery.tag & u64::from(u32::MAX)) as usize];
            share.runs.push(source, offset);
            share.first.get_or_insert(offset);
            share.last = Some(offset);
        }
        // A topic that is not there is looked at after the take-over, once for all its partitions.
        Err(code) if code.is_refusal() && !code.is_unknown_topic() => {
            let at = (delivery.tag & u64::from(u32::MAX)) as usize;
            share.refusal.get_or_insert((code, share.sources[at]));
        }
        Err(code) => {
            share.failure.get_or_insert(code);
        }
    }
}

fn refusals(shares: &[Share]) -> Vec<(SourcePartition, Reason, String)> {
    let refused = shares.iter().filter_map(|share| {
        let (code, offset) = share.refusal?;
        let (reason, detail) = explain(code, share.part.permit.target(), Some(offset));
        Some((share.part.partition.clone(), reason, detail))
    });
    refused.collect()
}

/// Progress and offset map of every partition in the transaction.
fn produce_progress(
    context: &super::Context,
    owned: &mut Owned,
    shares: &mut [Share],
    deadline: Instant,
    mailbox: &Mailbox,
) -> Result<Vec<(SourcePartition, Entry)>, Failure> {
    let mut entries = Vec::with_capacity(shares.len());
    let lane = i32::from(context.lane.0);
    for share in shares.iter() {
        let partition = &share.part.partition;
        if share.runs.len() != share.sources.len() {
            let code = share.failure.unwrap_or(KafkaCode::NONE);
            return Err(why_undelivered(owned, code));
        }
        let Some(before) = owned.table.entries.get(partition) else {
            return Err(Failure::Recycle(format!("{partition} has no progress to continue")));
        };
        if share.tally.from != before.next {
            return Err(Failure::Recycle(format!("{partition} does not continue its progress")));
        }
        if let (Some(last), Some(first)) = (before.target.last, share.first)
            && first <= last
        {
            let (reason, detail) = went_back(share.part.permit.target(), last, first);
            return Err(Failure::Refused(vec![(partition.clone(), reason, detail)]));
        }
        let mut entry = before.clone();
        entry.next = Offset(share.next);
        entry.leader_epoch = share.leader_epoch;
        if share.last.is_some() {
            (entry.target.last, entry.target.lasting) = (share.last, share.lasting);
        }
        entry.unaudited.add(&share.tally);
        let key = key_of(partition);
        put(owned, true, lane, &key, &entry.encode())?;
        if !share.sources.is_empty() {
            put(owned, false, lane, &key, &share.runs.encode())?;
        }
        entries.push((partition.clone(), entry));
    }
    drain(owned, &mut [], deadline, mailbox)?;
    Ok(entries)
}

/// What made the client give up a transaction whose records it then purged, for example a right that is missing. It says
/// so only when asked to commit, which it never does while a record is undelivered.
fn why_undelivered(owned: &mut Owned, delivery: KafkaCode) -> Failure {
    // Without a failure on its books the client would commit, and the records would be there without progress.
    if delivery == KafkaCode::NONE {
        return Failure::Recycle("not every record was reported on".into());
    }
    match owned.producer.commit(COMMIT_PATIENCE) {
        Err(CommitError::Fenced) => Failure::Fenced(CommitError::Fenced.to_string()),
        Err(CommitError::Abortable { code } | CommitError::Failed { code })
            if code.is_refusal() && !code.is_unknown_topic() =>
        {
            Failure::Unattributed(code)
        }
        Err(error) => Failure::Recycle(format!("not every record was delivered: {delivery}; {error}")),
        Ok(()) => Failure::Recycle(format!("committed although not every record was delivered: {delivery}")),
    }
}

/// One record of the link's own topics. Its delivery shows in the commit: a transaction with a lost record fails.
fn put(owned: &mut Owned, is_progress: bool, lane: i32, key: &[u8], value: &[u8]) -> Result<(), Failure> {
    let topic = if is_progress { owned.progress } else { owned.offset_map };
    loop {
        match owned.producer.produce(
            &topic,
            lane,
            now_ms(),
            Some(key),
            Some(value),
            std::iter::empty(),
            OWN_TAG,
        ) {
            Ok(()) => return Ok(()),
            Err(ProduceError::QueueFull) => {
                owned.producer.deliveries(Duration::from_millis(10), |_| {});
            }
            Err(error) => return Err(Failure::Recycle(error.to_string())),
        }
    }
}

/// Commits progress without records: first positions, or what the audit log has.
pub(super) fn commit_entries(
    context: &super::Context,
    owned: &mut Owned,
    entries: Vec<(SourcePartition, Entry)>,
) -> Result<(), Obstacle> {
    let failed = |error: &dyn std::fmt::Display| Obstacle::Passing(error.to_string());
    owned.producer.begin().map_err(|error| failed(&error))?;
    let lane = i32::from(context.lane.0);
    for (partition, entry) in &entries {
        put(owned, true, lane, &key_of(partition), &entry.encode())
            .map_err(|_| Obstacle::Passing("progress was not taken".into()))?;
    }
    owned.producer.commit(ENTRIES_PATIENCE).map_err(|error| match missing_right(&error) {
        Some(code) => {
            let (reason, detail) = own_topics_unauthorised(&context.link, code);
            Obstacle::Hold(reason, detail)
        }
        None => failed(&error),
    })?;
    owned.table.entries.extend(entries);
    Ok(())
}

fn transaction_failed(error: TransactionError) -> Failure {
    match error {
        TransactionError::Fenced { reason } => Failure::Fenced(reason),
        error => Failure::Recycle(error.to_string()),
    }
}

impl Share {
    /// A source partition whose first group begins at `from`.
    fn new(part: Part, from: Offset) -> Self {
        Self {
            part,
            sources: Vec::new(),
            runs: Runs::default(),
            first: None,
            last: None,
            lasting: false,
            refusal: None,
            failure: None,
            next: 0,
            leader_epoch: None,
            tally: Tally::starting(from),
            newest: None,
        }
    }

    /// The group at `index` of `accepted` is part of the transaction.
    fn cover(&mut self, accepted: &Accepted, index: usize) {
        let group = &accepted.batch.groups()[index];
        let tally = accepted.tally(index);
        self.next = group.next;
        // Markers behind the last record may be of a later leader.
        let up_to_next = tally.records.is_some_and(|(_, last)| last + 1 == group.next);
        let known = up_to_next && group.leader_epoch != codec::UNKNOWN_LEADER_EPOCH;
        self.leader_epoch = known.then_some(group.leader_epoch);
        self.tally.add(&tally);
        self.newest = accepted.batch.records(index).last().map(|record| record.timestamp).or(self.newest);
    }
}

/// The wall clock as Kafka's timestamps count it.
pub(crate) fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

/// Tag of records of our own: no share has it.
pub(super) const OWN_TAG: u64 = u64::MAX;
/// How long a commit may take. Longer than a coordinator takes to move, short enough for an operator who waits.
const COMMIT_PATIENCE: Duration = Duration::from_secs(10);
/// How long a commit without records may take.
const ENTRIES_PATIENCE: Duration = Duration::from_secs(15);
