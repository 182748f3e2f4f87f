//! What a read_committed reader of a cluster sees.

use std::collections::BTreeMap;

use super::Error;
use crate::record::Record;

/// A record as it is read.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// Its offset.
    pub offset: i64,
    /// Milliseconds since 1970.
    pub timestamp: i64,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value.
    pub value: Option<&'a [u8]>,
    /// Its headers, in order.
    pub headers: &'a [(&'a str, Option<&'a [u8]>)],
}

impl Seen<'_> {
    /// Bytes of key, value and headers.
    pub fn payload_bytes(&self) -> u64 {
        let length = |it: Option<&[u8]>| it.map_or(0, <[u8]>::len);
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + length(*value)).sum();
        u64::try_from(length(self.key) + length(self.value) + headers).expect("usize has 64 bits or less")
    }
}

/// One side of a comparison.
pub trait History {
    /// Names of all topics.
    fn topics(&self) -> Result<Vec<String>, Error>;

    /// Number of partitions of a topic.
    fn partitions(&self, topic: &str) -> Result<i32, Error>;

    /// Every visible record of a partition, in order, up to the last stable offset of now.
    fn read(&self, topic: &str, partition: i32, visit: &mut dyn FnMut(Seen<'_>)) -> Result<(), Error>;
}

/// A history in memory: for tests of what is compared, and of the comparison.
#[derive(Debug, Clone, Default)]
pub struct MemoryHistory {
    topics: BTreeMap<String, Vec<Vec<(i64, Record)>>>,
}

impl MemoryHistory {
    /// Appends a record at the next offset of its partition.
    pub fn push(&mut self, topic: &str, record: Record) {
        let partition = self.partition(topic, record.partition);
        let offset = partition.last().map_or(0, |(offset, _)| offset + 1);
        partition.push((offset, record));
    }

    /// The records of a partition with their offsets, for a test to plant faults in.
    pub fn partition(&mut self, topic: &str, partition: i32) -> &mut Vec<(i64, Record)> {
        let partitions = self.topics.entry(topic.to_owned()).or_default();
        let index = usize::try_from(partition).expect("a partition is not negative");
        if partitions.len() <= index {
            partitions.resize_with(index + 1, Vec::new);
        }
        &mut partitions[index]
    }
}

impl History for MemoryHistory {
    fn topics(&self) -> Result<Vec<String>, Error> {
        Ok(self.topics.keys().cloned().collect())
    }

    fn partitions(&self, topic: &str) -> Result<i32, Error> {
        let count = self.topics.get(topic).map_or(0, Vec::len);
        Ok(i32::try_from(count).expect("partitions were numbered by an i32"))
    }

    fn read(&self, topic: &str, partition: i32, visit: &mut dyn FnMut(Seen<'_>)) -> Result<(), Error> {
        let index = usize::try_from(partition).expect("a partition is not negative");
        for (offset, record) in self.topics.get(topic).and_then(|it| it.get(index)).into_iter().flatten() {
            let headers: Vec<_> =
                record.headers.iter().map(|header| (header.name.as_str(), header.value.as_deref())).collect();
            visit(Seen {
                offset: *offset,
                timestamp: record.timestamp,
                key: record.key.as_deref(),
                value: record.value.as_deref(),
                headers: &headers,
            });
        }
        Ok(())
    }
}
