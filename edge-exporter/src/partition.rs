//! What the exporter knows of a source partition, shared by everything that works on it.
//!
//! A [`Partition`] is one partition of one incarnation of a topic: a topic that was made again has partitions of its
//! own. It lives under one slot for as long as the process does.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicI32, Ordering},
    },
    time::{Instant, SystemTime},
};

use proto::{
    hold::Reason,
    ids::{Slot, TopicId},
};

use crate::{
    lag::Lag,
    position::{Ends, Skips},
    topic_check::Standing,
};

/// One incarnation of a source topic.
#[derive(Debug)]
pub(crate) struct Topic {
    pub(crate) name: Arc<str>,
    pub(crate) id: TopicId,
    /// Whether the name still stands for this incarnation.
    pub(crate) standing: Standing,
    /// The link that writes the topic in this cluster, if one does and it is not to be carried on.
    writer: Mutex<Option<Arc<str>>>,
}

impl Topic {
    pub(crate) fn new(name: &str, id: TopicId) -> Self {
        Self { name: name.into(), id, standing: Standing::default(), writer: Mutex::default() }
    }

    /// The link that writes the topic in this cluster.
    pub(crate) fn writer(&self) -> Option<Arc<str>> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_writer(&self, link: Option<Arc<str>>) {
        *self.writer.lock().unwrap_or_else(PoisonError::into_inner) = link;
    }
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Partition {
    pub(crate) slot: Slot,
    pub(crate) topic: Arc<Topic>,
    pub(crate) number: i32,
    /// How many partitions the topic has.
    count: AtomicI32,
    /// What an operator gave up.
    pub(crate) skips: Skips,
    /// Whether it appeared while the exporter ran, and so begins at its log's start.
    pub(crate) late: bool,
    facts: Mutex<Facts>,
}

/// What changes about a source partition.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    pub(crate) state: State,
    /// Where it begins when nothing is known of it; asked for once.
    pub(crate) start: Option<i64>,
    /// First offset the source still has, and its last stable offset.
    pub(crate) ends: Option<Ends>,
    /// The next offset to be read.
    pub(crate) position: Option<i64>,
    /// The next offset that is not durable at the target, where known.
    pub(crate) committed: Option<i64>,
    pub(crate) lag: Lag,
    /// Plain bytes that were sent and are not acknowledged.
    pub(crate) outstanding: u64,
}

/// What a source partition does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum State {
    /// It has no position yet in this session.
    #[default]
    Opening,
    /// It is carried.
    Flowing,
    /// It stands still on purpose.
    Held(Reason),
    /// The importer does not grant it.
    Refused,
    /// It is not carried any more.
    Closed,
}

impl State {
    /// The state's word in metrics and status.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Opening => "opening",
            Self::Flowing => "flowing",
            Self::Held(_) => "held",
            Self::Refused => "refused",
            Self::Closed => "closed",
        }
    }
}

impl Partition {
    pub(crate) fn new(
        slot: Slot,
        topic: Arc<Topic>,
        number: i32,
        count: i32,
        skips: Skips,
        late: bool,
    ) -> Self {
        Self { slot, topic, number, count: AtomicI32::new(count), skips, late, facts: Mutex::default() }
    }

    /// What changes about it.
    pub(crate) fn facts(&self) -> MutexGuard<'_, Facts> {
        // Facts are plain values: after a panic elsewhere they are as good as before.
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn state(&self) -> State {
        self.facts().state
    }

    pub(crate) fn set_state(&self, state: State) {
        self.facts().state = state;
    }

    /// The source was looked at.
    pub(crate) fn looked(&self, now: Instant, log_start: i64, stable: i64, high: i64) {
        let mut facts = self.facts();
        facts.ends = Some(Ends { log_start, stable });
        facts.lag.looked(now, log_start, high.max(stable));
    }

    /// The source is at least this far.
    pub(crate) fn grown(&self, now: Instant, stable: i64, high: i64) {
        let mut facts = self.facts();
        facts.lag.at_least(now, high.max(stable));
        if let Some(ends) = &mut facts.ends {
            ends.stable = ends.stable.max(stable);
        }
    }

    /// Everything below `next` was read.
    pub(crate) fn read(&self, next: i64) {
        self.facts().position = Some(next);
        self.grown(Instant::now(), next, next);
    }

    /// Everything below `next` is durable at the target.
    pub(crate) fn committed(&self, next: i64) {
        let mut facts = self.facts();
        facts.committed = Some(facts.committed.map_or(next, |before| before.max(next)));
        facts.lag.committed(next);
    }

    /// The importer states, at the beginning of a session, what is durable.
    pub(crate) fn restart(&self, next: i64) {
        let mut facts = self.facts();
        facts.committed = Some(next);
        facts.lag.restart(next);
    }

    /// The partition as events of the audit log name it.
    pub(crate) fn place(&self, link: &str, cluster: &str) -> observe::event::Place {
        observe::event::Place {
            link: link.into(),
            cluster: cluster.into(),
            topic: self.topic.name.to_string(),
            topic_id: self.topic.id.to_string(),
            partition: self.number,
        }
    }

    /// Its lag: records, and seconds.
    pub(crate) fn lag(&self) -> (u64, f64) {
        let facts = self.facts();
        (facts.lag.records(), facts.lag.seconds(Instant::now(), SystemTime::now()))
    }

    pub(crate) fn count(&self) -> i32 {
        self.count.load(Ordering::Relaxed)
    }

    pub(crate) fn set_count(&self, count: i32) {
        self.count.store(count, Ordering::Relaxed);
    }
}

/// `orders/3`
impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic.name, self.number)
    }
}

/// The source cluster: its id, as soon as it was told, and whether it answers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cluster(Arc<(OnceLock<Arc<str>>, AtomicBool)>);

impl Cluster {
    /// The cluster told its id. It stays what was told first.
    pub(crate) fn tell(&self, id: Arc<str>) {
        // Told once, at the start.
        let _ = self.0.0.set(id);
    }

    /// The id, once it was told.
    pub(crate) fn known(&self) -> Option<&str> {
        self.0.0.get().map(|id| &**id)
    }

    /// What became of the last question.
    pub(crate) fn answered(&self, answered: bool) {
        self.0.1.store(answered, Ordering::Relaxed);
    }

    /// Whether the last question was answered.
    pub(crate) fn answers(&self) -> bool {
        self.0.1.load(Ordering::Relaxed)
    }

    /// The id; empty before it was told, when there are no source partitions yet.
    pub(crate) fn id(&self) -> &str {
        self.known().unwrap_or_default()
    }
}

/// Every source partition of the process, by slot. Slots are never used twice.
#[derive(Debug, Default)]
pub(crate) struct Table {
    slots: Mutex<BTreeMap<Slot, Arc<Partition>>>,
}

impl Table {
    pub(crate) fn get(&self, slot: Slot) -> Option<Arc<Partition>> {
        self.lock().get(&slot).cloned()
    }

    pub(crate) fn insert(&self, partition: Arc<Partition>) {
        self.lock().insert(partition.slot, partition);
    }

    /// All of them, closed ones included.
    pub(crate) fn all(&self) -> Vec<Arc<Partition>> {
        self.lock().values().cloned().collect()
    }

    /// Those that are to be carried.
    pub(crate) fn active(&self) -> Vec<Arc<Partition>> {
        self.all().into_iter().filter(|partition| partition.state() != State::Closed).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Slot, Arc<Partition>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn partition(slot: u32, topic: &str) -> Partition {
        skipping(slot, topic, Skips::default())
    }

    pub(crate) fn skipping(slot: u32, topic: &str, skips: Skips) -> Partition {
        let topic = Arc::new(Topic::new(topic, TopicId([7; 16])));
        Partition::new(Slot(slot), topic, 0, 1, skips, false)
    }

    #[test]
    fn a_closed_partition_is_not_carried_and_its_slot_stays_taken() {
        let table = Table::default();
        table.insert(Arc::new(partition(1, "a")));
        table.insert(Arc::new(partition(2, "b")));
        table.get(Slot(1)).unwrap().set_state(State::Closed);
        assert_eq!(table.active().len(), 1);
        assert_eq!(table.all().len(), 2);
    }
}
