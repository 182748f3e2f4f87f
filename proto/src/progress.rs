//! Progress: per source partition, the next source offset whose record is not yet durable at the target.
//!
//! It lies in the link's progress topic, in the partition with the lane's number, and is written in the same
//! transaction as the data it speaks of. The importer is the only writer; the exporter keeps no state of its own.
//! An exporter reads the progress topics that importers keep in its own cluster, to know which topics are written
//! there by links: those must not go round in a circle.

use std::{collections::BTreeMap, sync::Arc};

use crate::ids::{Offset, SourcePartition, TopicId};
use codec::Digest;
use prost::Message;

/// The name of a link's progress topic.
pub fn topic_of(link: &str) -> String {
    format!("{PREFIX}{link}{SUFFIX}")
}

/// The link whose progress topic has this name, if it is one.
pub fn link_of(topic: &str) -> Option<&str> {
    topic.strip_prefix(PREFIX)?.strip_suffix(SUFFIX).filter(|link| !link.is_empty())
}

/// What is known of one source partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The topic's name at the source.
    pub topic: Arc<str>,
    /// The next source offset.
    pub next: Offset,
    /// Leader epoch of the source offset before `next`, when it is known.
    pub leader_epoch: Option<i32>,
    /// Where the records went.
    pub target: Target,
    /// What was committed since the last `delivered` line of the audit log.
    pub unaudited: Tally,
}

/// Where a source partition's records went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The target topic's name.
    pub topic: Arc<str>,
    /// The target topic's id.
    pub id: TopicId,
    /// Offset of the last record written there; `None` when there is none yet.
    pub last: Option<i64>,
    /// Whether that record outlives compaction: it has a key and a value. False too where that is not known.
    pub lasting: bool,
}

/// A range of a source partition with what was in it. Ranges add up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tally {
    /// First source offset covered.
    pub from: Offset,
    /// Offsets of the first and the last record.
    pub records: Option<(i64, i64)>,
    /// How many records.
    pub count: u64,
    /// Offsets in gaps with a name of their own.
    pub named_gaps: u64,
    /// Their plain size.
    pub plain_bytes: u64,
    /// Their share of the wire.
    pub wire_bytes: u64,
    /// Sum of the groups' digests.
    pub digest: Digest,
}

/// Who serves the lane, as the progress partition names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The importer process.
    pub instance: String,
    /// Grows with each take-over.
    pub generation: u64,
}

/// Everything in one lane's progress partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    /// What is known of each source partition.
    pub entries: BTreeMap<SourcePartition, Entry>,
    /// Who serves the lane.
    pub owner: Option<Owner>,
}

impl Table {
    /// Takes one record of the progress partition, in order.
    ///
    /// # Errors
    /// When it is not progress in a format known here.
    pub fn apply(&mut self, key: Option<&[u8]>, value: Option<&[u8]>) -> Result<(), Unreadable> {
        let key = Key::decode(key.ok_or(Unreadable)?).map_err(|_| Unreadable)?;
        if key.format != FORMAT {
            return Err(Unreadable);
        }
        if key.owner {
            let value = OwnerRecord::decode(value.ok_or(Unreadable)?).map_err(|_| Unreadable)?;
            self.owner = Some(Owner { instance: value.instance, generation: value.generation });
            return Ok(());
        }
        let partition = key.partition().ok_or(Unreadable)?;
        match value {
            None => drop(self.entries.remove(&partition)),
            Some(value) => {
                let record = Record::decode(value).map_err(|_| Unreadable)?;
                self.entries.insert(partition, record.entry().ok_or(Unreadable)?);
            }
        }
        Ok(())
    }
}

impl Entry {
    /// The record's value.
    pub fn encode(&self) -> Vec<u8> {
        let tally = &self.unaudited;
        Record {
            topic: self.topic.to_string(),
            next: self.next.0,
            leader_epoch: self.leader_epoch,
            target_topic: self.target.topic.to_string(),
            target_id: self.target.id.0.to_vec(),
            target_last: self.target.last,
            target_lasting: self.target.lasting,
            unaudited_from: tally.from.0,
            unaudited_first: tally.records.map(|(first, _)| first),
            unaudited_last: tally.records.map(|(_, last)| last),
            unaudited_count: tally.count,
            unaudited_named_gaps: tally.named_gaps,
            unaudited_plain: tally.plain_bytes,
            unaudited_wire: tally.wire_bytes,
            unaudited_digest: tally.digest.0.to_vec(),
        }
        .encode_to_vec()
    }
}

impl Tally {
    /// Nothing yet, from `from` on.
    pub fn starting(from: Offset) -> Self {
        Self {
            from,
            records: None,
            count: 0,
            named_gaps: 0,
            plain_bytes: 0,
            wire_bytes: 0,
            digest: Digest::ZERO,
        }
    }

    /// Adds the range that follows.
    pub fn add(&mut self, next: &Self) {
        self.records = match (self.records, next.records) {
            (Some((first, _)), Some((_, last))) => Some((first, last)),
            (mine, theirs) => mine.or(theirs),
        };
        self.count += next.count;
        self.named_gaps += next.named_gaps;
        self.plain_bytes += next.plain_bytes;
        self.wire_bytes += next.wire_bytes;
        self.digest.add(&next.digest);
    }
}

impl Owner {
    /// The record's value.
    pub fn encode(&self) -> Vec<u8> {
        OwnerRecord { instance: self.instance.clone(), generation: self.generation }.encode_to_vec()
    }

    /// The record's key.
    pub fn key() -> Vec<u8> {
        Key { format: FORMAT, owner: true, ..Key::default() }.encode_to_vec()
    }
}

/// The key of a source partition's record, in the progress and in the offset map topic.
pub fn key_of(partition: &SourcePartition) -> Vec<u8> {
    Key {
        format: FORMAT,
        owner: false,
        cluster: partition.cluster.to_string(),
        topic_id: partition.topic.0.to_vec(),
        partition: partition.partition,
    }
    .encode_to_vec()
}

/// A record of the progress topic that this version did not write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a record that is not progress in a format known here")]
pub struct Unreadable;

#[derive(Clone, PartialEq, Message)]
struct Key {
    #[prost(uint32, tag = "1")]
    format: u32,
    #[prost(bool, tag = "2")]
    owner: bool,
    #[prost(string, tag = "3")]
    cluster: String,
    #[prost(bytes = "vec", tag = "4")]
    topic_id: Vec<u8>,
    #[prost(int32, tag = "5")]
    partition: i32,
}

#[derive(Clone, PartialEq, Message)]
struct OwnerRecord {
    #[prost(string, tag = "1")]
    instance: String,
    #[prost(uint64, tag = "2")]
    generation: u64,
}

#[derive(Clone, PartialEq, Message)]
struct Record {
    #[prost(string, tag = "1")]
    topic: String,
    #[prost(int64, tag = "2")]
    next: i64,
    #[prost(int32, optional, tag = "3")]
    leader_epoch: Option<i32>,
    #[prost(string, tag = "4")]
    target_topic: String,
    #[prost(bytes = "vec", tag = "5")]
    target_id: Vec<u8>,
    #[prost(int64, optional, tag = "6")]
    target_last: Option<i64>,
    #[prost(bool, tag = "15")]
    target_lasting: bool,
    #[prost(int64, tag = "7")]
    unaudited_from: i64,
    #[prost(int64, optional, tag = "8")]
    unaudited_first: Option<i64>,
    #[prost(int64, optional, tag = "9")]
    unaudited_last: Option<i64>,
    #[prost(uint64, tag = "10")]
    unaudited_count: u64,
    #[prost(uint64, tag = "11")]
    unaudited_named_gaps: u64,
    #[prost(uint64, tag = "12")]
    unaudited_plain: u64,
    #[prost(uint64, tag = "13")]
    unaudited_wire: u64,
    #[prost(bytes = "vec", tag = "14")]
    unaudited_digest: Vec<u8>,
}

impl Key {
    fn partition(&self) -> Option<SourcePartition> {
        Some(SourcePartition {
            cluster: self.cluster.as_str().into(),
            topic: TopicId::from_slice(&self.topic_id)?,
            partition: self.partition,
        })
    }
}

impl Record {
    fn entry(self) -> Option<Entry> {
        Some(Entry {
            topic: self.topic.into(),
            next: Offset(self.next),
            leader_epoch: self.leader_epoch,
            target: Target {
                topic: self.target_topic.into(),
                id: TopicId::from_slice(&self.target_id)?,
                last: self.target_last,
                lasting: self.target_lasting,
            },
            unaudited: Tally {
                from: Offset(self.unaudited_from),
                records: self.unaudited_first.zip(self.unaudited_last),
                count: self.unaudited_count,
                named_gaps: self.unaudited_named_gaps,
                plain_bytes: self.unaudited_plain,
                wire_bytes: self.unaudited_wire,
                digest: Digest(self.unaudited_digest.try_into().ok()?),
            },
        })
    }
}

/// Version of the keys and values.
const FORMAT: u32 = 1;
const PREFIX: &str = "__longhaul.";
const SUFFIX: &str = ".progress";

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(number: i32) -> SourcePartition {
        SourcePartition { cluster: "c".into(), topic: TopicId([7; 16]), partition: number }
    }

    fn entry(next: i64) -> Entry {
        Entry {
            topic: "orders".into(),
            next: Offset(next),
            leader_epoch: Some(0),
            target: Target { topic: "eu.orders".into(), id: TopicId([9; 16]), last: Some(41), lasting: true },
            unaudited: Tally {
                from: Offset(3),
                records: Some((4, next - 1)),
                count: 5,
                named_gaps: 1,
                plain_bytes: 100,
                wire_bytes: 10,
                digest: Digest([3; 32]),
            },
        }
    }

    #[test]
    fn a_table_comes_back_from_its_records() {
        let mut table = Table::default();
        let mut expected = Table::default();
        for number in 0..3 {
            for next in [10, 20] {
                let entry = entry(next);
                table.apply(Some(&key_of(&partition(number))), Some(&entry.encode())).unwrap();
                expected.entries.insert(partition(number), entry);
            }
        }
        table.apply(Some(&key_of(&partition(1))), None).unwrap();
        expected.entries.remove(&partition(1));
        let owner = Owner { instance: "i".into(), generation: 4 };
        table.apply(Some(&Owner::key()), Some(&owner.encode())).unwrap();
        expected.owner = Some(owner);
        assert_eq!(table, expected);
    }

    #[test]
    fn a_progress_topic_names_its_link() {
        assert_eq!(link_of(&topic_of("fra-to-aws")), Some("fra-to-aws"));
        assert_eq!(link_of("__longhaul.fra.offsetmap"), None);
        assert_eq!(link_of("__longhaul..progress"), None);
        assert_eq!(link_of("orders.progress"), None);
    }

    #[test]
    fn a_foreign_record_is_not_taken_for_progress() {
        let mut table = Table::default();
        assert_eq!(table.apply(None, Some(b"x")), Err(Unreadable));
        assert_eq!(table.apply(Some(b"some key"), Some(b"x")), Err(Unreadable));
        assert_eq!(table.apply(Some(&key_of(&partition(0))), Some(b"\xff")), Err(Unreadable));
        assert_eq!(table.apply(Some(&Owner::key()), None), Err(Unreadable));
    }

    #[test]
    fn a_last_record_of_which_nothing_is_noted_is_not_taken_for_a_lasting_one() {
        let mut noted = entry(20).encode();
        assert_eq!(noted.split_off(noted.len() - 2), [15 << 3, 1], "the note is the last field");
        let mut table = Table::default();
        table.apply(Some(&key_of(&partition(0))), Some(&noted)).unwrap();
        let mut expected = entry(20);
        expected.target.lasting = false;
        assert_eq!(table.entries[&partition(0)], expected);
    }

    /// Format 1, as written by the first release. It must stay readable.
    #[test]
    fn progress_of_format_1_is_readable() {
        let key = [8, 1, 26, 1, b'c', 34, 16, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 40, 2];
        assert_eq!(key_of(&partition(2)), key);
        let mut table = Table::default();
        table.apply(Some(&key), Some(&entry(20).encode())).unwrap();
        assert_eq!(table.entries[&partition(2)], entry(20));
    }
}
