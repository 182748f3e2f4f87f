//! The modelled source cluster: logs with records and invisible offsets, retention, cuts and re-created topics.

use std::collections::{BTreeMap, BTreeSet};

use codec::RecordView;
use proto::ids::{SourcePartition, TopicId};

use super::chance::Chance;

/// Names a record for ever; its content follows from it.
pub(super) type Uid = u64;

/// The one source cluster.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) topics: Vec<Topic>,
    /// Where each record was written, by its uid.
    pub(super) origins: Vec<(SourcePartition, i64)>,
    /// Offsets of the exporters' group.
    pub(super) group: BTreeMap<SourcePartition, i64>,
    /// Partitions that wait for an operator for good, with the reason: nothing more is expected of them.
    pub(super) held: BTreeSet<SourcePartition>,
    ids: u8,
}

#[derive(Debug)]
pub(super) struct Topic {
    pub(super) name: &'static str,
    pub(super) id: TopicId,
    pub(super) logs: Vec<Log>,
}

/// One partition. Offsets below `start` are deleted; their entries stay, for the checker.
#[derive(Debug, Default)]
pub(super) struct Log {
    pub(super) start: i64,
    pub(super) entries: Vec<Entry>,
    /// Leader epochs, and the first offset of each.
    epochs: Vec<(i32, i64)>,
    /// How many leaders there were before this one.
    elections: i32,
    /// Where the log was cut back furthest: from there on, its offsets had other records before.
    pub(super) cut_at: Option<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    Record(Uid),
    /// A marker, an aborted record, or a compacted one.
    Invisible,
}

/// What a reader gets.
#[derive(Debug)]
pub(super) enum Fetched {
    /// Records, the position behind what was looked at, and the leader epoch of the offset before that.
    Records(Vec<(i64, Uid)>, i64, i32),
    /// The position is below the first offset that is left.
    Expired,
    /// The position is beyond the end, or its leader epoch says that the log was cut back below it.
    Diverged,
}

/// Topics of the model; what is granted is a matter of the importer's policy.
pub(super) const TOPICS: [(&str, usize); 4] =
    [("orders", 2), ("invoices", 2), ("payments", 1), ("secrets", 1)];
/// The cluster's id.
pub(super) const CLUSTER: &str = "edge";

impl Source {
    pub(super) fn new() -> Self {
        let mut source = Self {
            topics: Vec::new(),
            origins: Vec::new(),
            group: BTreeMap::new(),
            held: BTreeSet::new(),
            ids: 0,
        };
        for (name, partitions) in TOPICS {
            let id = source.fresh_id();
            let logs = (0..partitions).map(|_| Log::default()).collect();
            source.topics.push(Topic { name, id, logs });
        }
        source
    }

    fn fresh_id(&mut self) -> TopicId {
        self.ids += 1;
        TopicId([self.ids; 16])
    }

    pub(super) fn partition(&self, topic: usize, partition: usize) -> SourcePartition {
        SourcePartition { cluster: CLUSTER.into(), topic: self.topics[topic].id, partition: partition as i32 }
    }

    pub(super) fn log(&self, topic: usize, partition: usize) -> &Log {
        &self.topics[topic].logs[partition]
    }

    /// Something happens to a partition: mostly it grows.
    pub(super) fn live(&mut self, chance: &mut Chance, rough: bool) {
        let topic = chance.below(self.topics.len() as u64) as usize;
        let partition = chance.below(self.topics[topic].logs.len() as u64) as usize;
        if !rough || chance.percent(92) {
            self.grow(topic, partition, chance);
            return;
        }
        let recreated = chance.percent(25).then(|| self.fresh_id());
        let topic = &mut self.topics[topic];
        if let Some(id) = recreated {
            topic.id = id;
            topic.logs.iter_mut().for_each(|log| *log = Log::default());
            return;
        }
        let log = &mut topic.logs[partition];
        match chance.below(5) {
            0 => log.start += chance.below((log.end() - log.start) as u64 + 1) as i64,
            1 => log.elect(chance.between(log.start as u64, log.end() as u64) as i64),
            2 => log.elect(log.end()),
            _ => {
                // Compaction, anywhere.
                for entry in &mut log.entries {
                    if chance.percent(20) {
                        *entry = Entry::Invisible;
                    }
                }
            }
        }
    }

    /// Every partition grows once more, where it can.
    pub(super) fn grow_everywhere(&mut self, chance: &mut Chance) {
        for (topic, (_, partitions)) in TOPICS.iter().enumerate() {
            (0..*partitions).for_each(|partition| self.grow(topic, partition, chance));
        }
    }

    fn grow(&mut self, topic: usize, partition: usize, chance: &mut Chance) {
        let id = self.partition(topic, partition);
        let log = &mut self.topics[topic].logs[partition];
        for _ in 0..chance.between(1, 4) {
            if chance.percent(20) {
                log.entries.push(Entry::Invisible);
                continue;
            }
            log.entries.push(Entry::Record(self.origins.len() as Uid));
            self.origins.push((id.clone(), log.end() - 1));
        }
    }

    /// Reads as librdkafka does: by name, adopting a re-created topic without a word.
    pub(super) fn fetch(
        &self,
        (topic, partition): (usize, usize),
        (from, leader_epoch): (i64, Option<i32>),
        most: usize,
    ) -> Fetched {
        let log = self.log(topic, partition);
        if from > leader_epoch.map_or_else(|| log.end(), |epoch| log.end_of(epoch)) {
            return Fetched::Diverged;
        }
        if from < log.start {
            return Fetched::Expired;
        }
        let seen = &log.entries[from as usize..log.entries.len().min(from as usize + most)];
        let offsets = from..;
        let records = offsets
            .zip(seen)
            .filter_map(|(offset, entry)| match entry {
                Entry::Record(uid) => Some((offset, *uid)),
                Entry::Invisible => None,
            })
            .collect();
        let next = from + seen.len() as i64;
        Fetched::Records(records, next, log.epoch_at(next - 1))
    }
}

impl Log {
    /// A new leader, whose log ends at `keep`.
    fn elect(&mut self, keep: i64) {
        if keep < self.end() {
            self.cut_at = Some(self.cut_at.map_or(keep, |before| before.min(keep)));
        }
        self.entries.truncate(keep as usize);
        self.elections += 1;
        self.epochs.retain(|(_, first)| *first < keep);
        self.epochs.push((self.elections, keep));
    }

    /// Where the records of `epoch` and of those before it end.
    fn end_of(&self, epoch: i32) -> i64 {
        let later = self.epochs.iter().find(|(other, _)| *other > epoch);
        later.map_or_else(|| self.end(), |(_, first)| *first)
    }

    fn epoch_at(&self, offset: i64) -> i32 {
        self.epochs.iter().rev().find(|(_, first)| *first <= offset).map_or(0, |(epoch, _)| *epoch)
    }

    pub(super) fn end(&self) -> i64 {
        self.entries.len() as i64
    }
}

/// A record's whole content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) timestamp: i64,
    pub(super) key: Option<Vec<u8>>,
    pub(super) value: Option<Vec<u8>>,
    pub(super) headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl Content {
    /// The content of a record: with null and empty keys and values, and headers whose name comes twice.
    pub(super) fn of(uid: Uid) -> Self {
        let bytes = uid.to_be_bytes().to_vec();
        let kind = |by: u64| match uid % by {
            0 => None,
            1 => Some(Vec::new()),
            _ => Some(bytes.clone()),
        };
        let (key, value) = (kind(5), kind(7));
        let headers = vec![(b"id".to_vec(), Some(bytes)), (b"id".to_vec(), None)];
        Self { timestamp: uid as i64 * 3 - 50, key, value, headers }
    }

    /// The content as it came.
    pub(super) fn read(record: &RecordView<'_>) -> Self {
        let owned = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
        let headers = record.headers().map(|(name, value)| (name.to_vec(), owned(value))).collect();
        let (key, value) = (owned(record.key), owned(record.value));
        Self { timestamp: record.timestamp, key, value, headers }
    }

    /// Which record this is, by its header.
    pub(super) fn uid(&self) -> Option<Uid> {
        let bytes = self.headers.first()?.1.as_deref()?;
        bytes.try_into().ok().map(Uid::from_be_bytes)
    }
}
