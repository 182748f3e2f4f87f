//! Bounded reads: one partition from a position to the end it has now, always read_committed.
//!
//! For progress tables, tail checks and tests. A [`Reader`] keeps its connections over many reads; the functions
//! beside it make one for a single use.

use std::time::{Duration, Instant};

use crate::{
    Admin, Error, Event, Isolation, KafkaCode, Record, Settings, SourceConsumer, SourceError, SourceOptions,
};

/// How a bounded read ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// Where it began: `from`, or the log start when that lies after it.
    pub start: i64,
    /// The first offset not read.
    pub next: i64,
}

/// The three ends of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    /// Log start: the first offset that still exists.
    pub low: i64,
    /// Last stable offset: where a read_committed reader ends.
    pub lso: i64,
    /// High watermark: where a read_uncommitted reader ends. Above `lso` while a transaction is open.
    pub hw: i64,
}

/// Reads partitions, one at a time.
pub struct Reader {
    admin: Admin,
    consumer: SourceConsumer,
    /// Tokens of reads that ended badly stay unique.
    reads: u64,
}

impl Reader {
    /// Makes the reader; no broker is asked yet.
    ///
    /// # Errors
    /// A property that is refused, unknown or wrong, by name.
    pub fn new(settings: &Settings) -> Result<Self, Error> {
        let options = SourceOptions {
            queued_bytes: 8 * 1024 * 1024,
            fetch_wait: Duration::from_millis(10),
            watermark_interval: Duration::from_secs(3600),
        };
        Ok(Self {
            admin: Admin::new(settings)?,
            consumer: SourceConsumer::new(settings, GROUP, options)?,
            reads: 0,
        })
    }

    /// Reads `partition` from `from` (or the log start, if that lies after it) to the end it has now under
    /// `to_end_of`.
    ///
    /// With [`Isolation::Uncommitted`] it waits, within `timeout`, for the transactions open now to end: what it
    /// hands out then is all that was committed before the end.
    ///
    /// # Errors
    /// [`Error::Timeout`] when the end was not reached in time; what the cluster refused.
    pub fn read(
        &mut self,
        topic: &str,
        partition: i32,
        from: i64,
        to_end_of: Isolation,
        timeout: Duration,
        f: impl FnMut(Record<'_>),
    ) -> Result<End, Error> {
        let deadline = Instant::now() + timeout;
        let (low, end) = self.admin.offsets(topic, partition, to_end_of, timeout)?;
        let start = from.max(low);
        if start >= end {
            return Ok(End { start, next: start });
        }
        self.reads += 1;
        self.consumer.assign(topic, partition, start, None, self.reads)?;
        let what = format!("read {topic}/{partition} from {start} to {end}");
        let result = self.read_assigned(&what, end, (deadline, timeout), f);
        let stopped = self.consumer.unassign(self.reads);
        let next = result?;
        stopped?;
        Ok(End { start, next })
    }

    fn read_assigned(
        &mut self,
        what: &str,
        end: i64,
        (deadline, timeout): (Instant, Duration),
        mut f: impl FnMut(Record<'_>),
    ) -> Result<i64, Error> {
        let token = self.reads;
        let mut lost = None;
        // librdkafka's position alone would do, but it costs a lock and a look-up each time.
        let mut position = 0;
        while position < end {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::Timeout { what: format!("{what}, now at {position}"), timeout });
            }
            self.consumer.poll(left.min(POLL), |event| match event {
                Event::Record(record) if record.offset < end => {
                    position = record.offset + 1;
                    f(record);
                }
                Event::Record(_) => position = position.max(end),
                Event::Lost { cause, .. } => lost = Some(cause),
                Event::EndOfPartition { .. } | Event::Trouble { .. } => {}
            });
            if let Some(cause) = lost.take() {
                return Err(lost_error(what, cause));
            }
            position = position.max(self.consumer.position(token).unwrap_or(0)).min(end);
        }
        Ok(position)
    }

    /// The ends of some partitions of a topic, in the order asked for.
    ///
    /// # Errors
    /// [`KafkaCode::UNKNOWN_TOPIC_OR_PARTITION`] among others.
    pub fn ends(&self, topic: &str, partitions: &[i32], timeout: Duration) -> Result<Vec<Ends>, Error> {
        self.admin.ends(topic, partitions, timeout)
    }
}

/// [`Reader::read`] with a reader of its own.
///
/// # Errors
/// As [`Reader::new`] and [`Reader::read`].
pub fn read_partition(
    settings: &Settings,
    topic: &str,
    partition: i32,
    from: i64,
    to_end_of: Isolation,
    timeout: Duration,
    f: impl FnMut(Record<'_>),
) -> Result<End, Error> {
    Reader::new(settings)?.read(topic, partition, from, to_end_of, timeout, f)
}

/// [`Reader::ends`] with a handle of its own.
///
/// # Errors
/// As [`Reader::new`] and [`Reader::ends`].
pub fn ends(
    settings: &Settings,
    topic: &str,
    partitions: &[i32],
    timeout: Duration,
) -> Result<Vec<Ends>, Error> {
    Admin::new(settings)?.ends(topic, partitions, timeout)
}

fn lost_error(what: &str, cause: SourceError) -> Error {
    let (code, detail) = match cause {
        SourceError::Reset { reason } => (KafkaCode::OFFSET_OUT_OF_RANGE, format!("; {reason}")),
        SourceError::Authorization { code } | SourceError::TopicGone { code } => (code, String::new()),
        SourceError::Other { code, reason } => (code, format!("; {reason}")),
    };
    Error::Call { what: what.to_owned(), code, detail }
}

/// A consumer must name a group; nothing is ever committed into this one.
const GROUP: &str = "__longhaul.reader";
const POLL: Duration = Duration::from_millis(100);
