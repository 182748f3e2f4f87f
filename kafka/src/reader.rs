//! Bounded reads of single partitions.
use std::time::Duration;

use crate::{Error, Isolation, Record, Settings};

/// How a bounded read ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// Where it began: `from`, or the log start when that lay after it.
    pub start: i64,
    /// The first offset not read.
    pub next: i64,
}

/// The three ends of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    /// Log start.
    pub low: i64,
    /// Last stable offset.
    pub lso: i64,
    /// High watermark.
    pub hw: i64,
}

/// Reads `partition` from `from` to the end it has now under `to_end_of`, always read_committed.
///
/// With [`Isolation::Uncommitted`] it waits, within `timeout`, for the transactions open now to end.
pub fn read_partition(
    _settings: &Settings,
    _topic: &str,
    _partition: i32,
    _from: i64,
    _to_end_of: Isolation,
    _timeout: Duration,
    _f: impl FnMut(Record<'_>),
) -> Result<End, Error> {
    unimplemented!()
}

/// The ends of some partitions of a topic, in the order asked for.
pub fn ends(
    _settings: &Settings,
    _topic: &str,
    _partitions: &[i32],
    _timeout: Duration,
) -> Result<Vec<Ends>, Error> {
    unimplemented!()
}
