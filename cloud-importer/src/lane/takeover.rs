//! Taking a lane over: the only way to a producer, at the start and after anything that was not a clean commit.
//!
//! `init_transactions` fences the predecessor and finishes what it left open; only after that is progress known.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use kafka::{ProducerOptions, TopicHandle, TransactionError, TransactionalProducer};
use proto::{
    hold::Reason,
    progress::{Owner, Table},
    receiver::OpenPartition,
};

use super::{
    Context, Stopped, Worker,
    aside::{Aside, Before},
    commit::OWN_TAG,
    words::{missing_right, own_topics_unauthorised},
};
use crate::{progress_topic, target::Obstacle};

/// A lane that is ours: its producer, and what its progress partition says.
pub(super) struct Owned {
    pub(super) producer: TransactionalProducer,
    pub(super) progress: TopicHandle,
    pub(super) offset_map: TopicHandle,
    pub(super) table: Table,
    topics: BTreeMap<Arc<str>, TopicHandle>,
    /// The largest batch the producer makes, in bytes.
    pub(super) batch_size: usize,
}

/// What is remembered from one take-over to the next.
#[derive(Debug, Default)]
pub(super) struct State {
    /// The last producer was fenced: someone else may own the lane, or it was paused for too long.
    fenced: bool,
    /// Another importer owns the lane. A new session brings it back here, or that the other has stopped.
    stood_down: Option<Aside>,
    /// How this session stood up before because the other had stopped.
    before: Before,
    /// Take-overs in a row without a commit.
    failures: u32,
}

impl State {
    pub(super) fn new_session(&mut self) {
        self.stood_down = None;
        self.before = Before::default();
        self.fenced = false;
    }

    pub(super) fn committed(&mut self) {
        self.failures = 0;
    }

    pub(super) fn fenced(&mut self) {
        self.fenced = true;
    }
}

impl Owned {
    /// The producer's handle of a target topic.
    pub(super) fn topic(&mut self, name: &Arc<str>) -> Result<TopicHandle, kafka::Error> {
        if let Some(handle) = self.topics.get(name) {
            return Ok(*handle);
        }
        let handle = self.producer.topic(name)?;
        self.topics.insert(name.clone(), handle);
        Ok(handle)
    }
}

impl Worker {
    /// Drops the producer: whatever it left open is finished by the next take-over.
    pub(super) fn recycle(&mut self, why: &str) {
        if self.disown() {
            self.takeover.failures += 1;
            self.context.board.recycled();
            tracing::warn!(link = %self.context.link_name, lane = %self.context.lane, "producer recycled: {why}");
        }
    }

    /// Drops the producer without another word. Says whether there was one.
    pub(super) fn disown(&mut self) -> bool {
        let Some(owned) = self.owned.take() else { return false };
        // What is committed and not yet on record lies in progress, unless that is lost.
        let before = self.last_table.take();
        self.last_table = Some(with_lost(owned.table, before));
        true
    }

    /// Makes the lane ours if it is not, for `opens` that ask for their positions, or none. `Ok(Err(_))` says what is in the
    /// way.
    pub(super) fn acquire(&mut self, opens: &[OpenPartition]) -> Result<Result<(), Obstacle>, Stopped> {
        if self.owned.is_some() {
            return Ok(Ok(()));
        }
        if let Err(obstacle) = self.stand_up(opens) {
            return Ok(Err(obstacle));
        }
        if self.takeover.failures > 1 {
            let doublings = self.takeover.failures.min(6);
            self.pause(BACKOFF * 2_u32.pow(doublings) / 2)?;
        }
        if self.takeover.fenced {
            // The other one needs a moment to put its name into progress; looking at once would make both take turns.
            self.pause(FENCED_PAUSE)?;
            let topic = self.context.link.progress_topic();
            match progress_topic::read(&self.context.admin, &self.context.kafka, &topic, self.context.lane) {
                Ok(Table { owner: Some(owner), .. }) if owner.instance != *self.context.instance => {
                    self.takeover.stood_down = Some(Aside::new(owner.instance.clone()));
                    return Ok(Err(owned_elsewhere(&self.context, &owner.instance)));
                }
                Ok(_) => self.takeover.fenced = false,
                Err(obstacle) => return Ok(Err(obstacle)),
            }
        }
        match take_over(&self.context, self.smallest_limit()) {
            Ok(owned) => {
                self.record_lost(&owned.table);
                self.owned = Some(owned);
                // What a predecessor committed and did not put on record is put on record now.
                self.record_deliveries();
                Ok(Ok(()))
            }
            Err(obstacle) => {
                self.takeover.failures += 1;
                Ok(Err(obstacle))
            }
        }
    }

    /// Ends standing aside, if that is over.
    fn stand_up(&mut self, opens: &[OpenPartition]) -> Result<(), Obstacle> {
        let State { stood_down, before, fenced, .. } = &mut self.takeover;
        let Some(aside) = stood_down else { return Ok(()) };
        let context = &self.context;
        if !aside.is_over(context, opens, before)? {
            return Err(owned_elsewhere(context, &aside.owner));
        }
        tracing::warn!(
            link = %context.link_name, lane = %context.lane,
            "importer {}, which took the lane over, commits nothing any more: it is taken back", aside.owner
        );
        (*stood_down, *fenced) = (None, false);
        Ok(())
    }

    /// The smallest `max.message.bytes` of the lane's target topics: no batch may be larger.
    fn smallest_limit(&self) -> Option<usize> {
        self.targets.values().map(|target| target.max_message_bytes).min()
    }
}

/// `table`, and what an earlier one knew of partitions that it has not: their lines are still to be put on record.
fn with_lost(mut table: Table, before: Option<Table>) -> Table {
    for (partition, entry) in before.into_iter().flat_map(|before| before.entries) {
        table.entries.entry(partition).or_insert(entry);
    }
    table
}

fn take_over(context: &Context, limit: Option<usize>) -> Result<Owned, Obstacle> {
    let began = Instant::now();
    progress_topic::verify(&context.admin, &context.link)?;
    let transactional_id = format!("longhaul.{}.{}", context.link_name, context.lane);
    let defaults = ProducerOptions::default();
    let options = ProducerOptions {
        transaction_timeout: context.transaction.timeout.duration(),
        batch_size: limit.map_or(defaults.batch_size, |limit| limit.min(defaults.batch_size)),
        queue_bytes: QUEUE_BYTES,
        count_end_txn: !context.planted.ignore_resent_end_txn,
    };
    let failed = |error: kafka::Error| Obstacle::Passing(format!("cannot make a producer: {error}"));
    let batch_size = options.batch_size;
    let mut producer =
        TransactionalProducer::new(&context.kafka, &transactional_id, options).map_err(failed)?;
    producer.init_transactions(INIT_PATIENCE).map_err(|error| refused(&transactional_id, &error))?;
    let topic = context.link.progress_topic();
    let table = progress_topic::read(&context.admin, &context.kafka, &topic, context.lane)?;
    let progress = producer.topic(&topic).map_err(failed)?;
    let offset_map = producer.topic(&context.link.offset_map_topic()).map_err(failed)?;
    let mut owned = Owned { producer, progress, offset_map, table, topics: BTreeMap::new(), batch_size };
    sign(context, &mut owned)?;
    tracing::info!(
        link = %context.link_name, lane = %context.lane, partitions = owned.table.entries.len(),
        took = ?began.elapsed(), "took the lane over"
    );
    Ok(owned)
}

/// Puts our name into progress, unless it stands there: a predecessor that is fenced learns from it who owns the lane.
fn sign(context: &Context, owned: &mut Owned) -> Result<(), Obstacle> {
    let before = owned.table.owner.as_ref();
    if before.is_some_and(|owner| owner.instance == *context.instance) {
        return Ok(());
    }
    let generation = before.map_or(0, |owner| owner.generation) + 1;
    let owner = Owner { instance: context.instance.to_string(), generation };
    let failed = |error: &dyn std::fmt::Display| {
        Obstacle::Passing(format!("cannot sign the lane's progress: {error}"))
    };
    let producer = &mut owned.producer;
    producer.begin().map_err(|error| failed(&error))?;
    let partition = i32::from(context.lane.0);
    let (key, value) = (Owner::key(), owner.encode());
    let now = super::commit::now_ms();
    producer
        .produce(&owned.progress, partition, now, Some(&key), Some(&value), std::iter::empty(), OWN_TAG)
        .map_err(|error| failed(&error))?;
    producer.commit(INIT_PATIENCE).map_err(|error| match missing_right(&error) {
        Some(code) => {
            let (reason, detail) = own_topics_unauthorised(&context.link, code);
            Obstacle::Hold(reason, detail)
        }
        None => failed(&error),
    })?;
    owned.table.owner = Some(owner);
    Ok(())
}

fn refused(transactional_id: &str, error: &TransactionError) -> Obstacle {
    match error {
        TransactionError::Failed { code, reason } if code.is_authorization() => Obstacle::Hold(
            Reason::TargetUnauthorized,
            format!(
                "the target cluster does not let the importer use transactional id `{transactional_id}` ({code}: {reason}); \
                 grant its principal Write and Describe on transactional ids with the prefix `longhaul.`"
            ),
        ),
        error => {
            Obstacle::Passing(format!("cannot initialise transactions of `{transactional_id}`: {error}"))
        }
    }
}

fn owned_elsewhere(context: &Context, owner: &str) -> Obstacle {
    Obstacle::Hold(
        Reason::OwnedElsewhere,
        format!(
            "lane {} of link `{}` was taken over by importer {owner}: this one stands down until that one commits nothing \
             more, or the exporter connects here again; stop one of the two importers",
            context.lane, context.link_name
        ),
    )
}

/// How long initialising may take: a predecessor's transaction must be finished first.
const INIT_PATIENCE: Duration = Duration::from_secs(15);
/// First pause between take-overs that lead to nothing; doubled up to 64 times.
const BACKOFF: Duration = Duration::from_millis(50);
/// How long a fenced lane waits before it looks who owns it.
const FENCED_PAUSE: Duration = Duration::from_millis(1500);
/// Bytes that may wait in the producer: a transaction and the largest record on top.
const QUEUE_BYTES: usize = 48 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use proto::{
        ids::{Offset, SourcePartition, TopicId},
        progress::{Entry, Tally, Target},
    };

    #[test]
    fn what_could_not_be_put_on_record_is_not_forgotten_with_the_next_recycle() {
        let table = |partition, next| {
            let at = SourcePartition { cluster: "c".into(), topic: TopicId([1; 16]), partition };
            let target = Target { topic: "t".into(), id: TopicId([2; 16]), last: None, lasting: false };
            let entry = Entry {
                topic: "t".into(),
                next: Offset(next),
                leader_epoch: None,
                target,
                unaudited: Tally::starting(Offset(0)),
            };
            Table { entries: BTreeMap::from([(at, entry)]), owner: None }
        };
        let mut lost = table(0, 5);
        lost.entries.extend(table(1, 3).entries);
        let merged = with_lost(table(1, 9), Some(lost));
        let next: Vec<i64> = merged.entries.values().map(|entry| entry.next.0).collect();
        assert_eq!(next, [5, 9], "the newer one counts where both know");
    }
}
