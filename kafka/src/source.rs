//! The source consumer.
use std::time::Duration;

use crate::{Error, KafkaCode, Settings};

/// How a consumer behaves.
#[derive(Debug, Clone)]
pub struct SourceOptions {
    /// Bytes of records fetched ahead, over all partitions. Default 64 MiB.
    pub queued_bytes: usize,
    /// How long a broker may wait for data before it answers a fetch. Default 100 ms.
    pub fetch_wait: Duration,
    /// How often the ends of all assigned partitions are asked for. Default 1 s.
    pub watermark_interval: Duration,
}

/// One record, borrowed from librdkafka.
pub struct Record<'a> {
    /// The token of its partition.
    pub token: u64,
    /// Its offset.
    pub offset: i64,
    /// Its timestamp, in ms since 1970; -1 when it has none.
    pub timestamp: i64,
    /// The epoch of the leader that wrote it, where known.
    pub leader_epoch: Option<i32>,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value.
    pub value: Option<&'a [u8]>,
}

impl Record<'_> {
    /// Its headers in order, duplicates included.
    pub fn headers(&self) -> Headers<'_> {
        unimplemented!()
    }
}

/// The headers of a record: name and value.
pub struct Headers<'a> {
    _private: std::marker::PhantomData<&'a ()>,
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);
    fn next(&mut self) -> Option<Self::Item> {
        None
    }
}
impl ExactSizeIterator for Headers<'_> {}

/// Why a partition gives no more records as it is assigned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// The log was cut below the position, or the position is outside the log: ask for the ends, then classify.
    #[error("the position is gone: {reason}")]
    Reset {
        /// librdkafka's words.
        reason: String,
    },
    /// The principal may not read it.
    #[error("not authorised to read: {code}")]
    Authorization {
        /// The code.
        code: KafkaCode,
    },
    /// The topic or partition does not exist any more.
    #[error("the topic is gone: {code}")]
    TopicGone {
        /// The code.
        code: KafkaCode,
    },
    /// Anything else, e.g. a batch that fails its checksum.
    #[error("{code}: {reason}")]
    Other {
        /// The code.
        code: KafkaCode,
        /// librdkafka's words.
        reason: String,
    },
}

/// What `poll` hands out.
pub enum Event<'a> {
    /// A record.
    Record(Record<'a>),
    /// No record visible to a read_committed reader lies at or after `position` right now.
    EndOfPartition {
        /// The partition.
        token: u64,
        /// The next offset to fetch: past trailing markers and aborted records.
        position: i64,
    },
    /// The partition gives nothing more until it is unassigned and assigned anew (or sought).
    Lost {
        /// The partition.
        token: u64,
        /// Why.
        cause: SourceError,
    },
    /// Something is wrong that may pass by itself: connections, brokers, the group's coordinator.
    Trouble {
        /// The code.
        code: KafkaCode,
        /// librdkafka's words.
        reason: String,
    },
}

/// The ends of a partition as last heard from its leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watermarks {
    /// Last stable offset: where a read_committed reader ends.
    pub lso: i64,
    /// High watermark: where a read_uncommitted reader ends.
    pub hw: i64,
}

/// Reads source partitions.
pub struct SourceConsumer {
    _private: (),
}

#[allow(unused_variables)]
impl SourceConsumer {
    /// Makes the consumer; no broker is asked yet.
    pub fn new(settings: &Settings, group: &str, options: SourceOptions) -> Result<Self, Error> {
        unimplemented!()
    }
    /// Starts a partition at `offset`.
    pub fn assign(
        &mut self,
        topic: &str,
        partition: i32,
        offset: i64,
        leader_epoch: Option<i32>,
        token: u64,
    ) -> Result<(), Error> {
        unimplemented!()
    }
    /// Stops a partition; nothing of it is delivered any more.
    pub fn unassign(&mut self, token: u64) -> Result<(), Error> {
        unimplemented!()
    }
    /// Stops fetching.
    pub fn pause(&mut self, token: u64) -> Result<(), Error> {
        unimplemented!()
    }
    /// Goes on where it was paused.
    pub fn resume(&mut self, token: u64) -> Result<(), Error> {
        unimplemented!()
    }
    /// Moves a partition to another offset.
    pub fn seek(&mut self, token: u64, offset: i64, leader_epoch: Option<i32>) -> Result<(), Error> {
        unimplemented!()
    }
    /// Waits up to `timeout` for the first event, hands out what is there; returns how many.
    pub fn poll(&mut self, timeout: Duration, f: impl FnMut(Event<'_>)) -> usize {
        unimplemented!()
    }
    /// The next offset to be delivered.
    pub fn position(&self, token: u64) -> Option<i64> {
        unimplemented!()
    }
    /// Writes positions into the group, without waiting.
    pub fn commit(&mut self, positions: &[(&str, i32, i64)]) -> Result<(), Error> {
        unimplemented!()
    }
    /// The ends as last heard.
    pub fn watermarks(&self, token: u64) -> Option<Watermarks> {
        unimplemented!()
    }
}
