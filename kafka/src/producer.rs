//! The transactional producer.
use std::time::Duration;

use crate::{Error, KafkaCode, Settings};

/// How a producer behaves.
#[derive(Debug, Clone)]
pub struct ProducerOptions {
    /// The broker ends a transaction that is open longer than this. Default 60 s.
    pub transaction_timeout: Duration,
    /// Largest batch in bytes: at most the smallest `max.message.bytes` of the target topics. Default 1 000 000.
    pub batch_size: usize,
    /// How long a batch waits for more records. Default 5 ms.
    pub linger: Duration,
    /// Bytes of records that may wait or be in flight before [`ProduceError::QueueFull`]. Default 64 MiB.
    pub queue_bytes: usize,
    /// Whether a commit that sent `EndTxn` more than once is an error. Only a planted fault says no. Default true.
    pub count_end_txn: bool,
}

/// A topic of one [`TransactionalProducer`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopicHandle {
    instance: u64,
    index: u32,
}

/// What became of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivery {
    /// The tag given to `produce`.
    pub tag: u64,
    /// The record's offset in the target partition, or why it is not there.
    pub outcome: Result<i64, KafkaCode>,
}

/// Why a record was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProduceError {
    /// The local queue is full: take deliveries, then produce the same record again.
    #[error("the producer's queue is full")]
    QueueFull,
    /// This very record cannot be sent.
    #[error("the record is refused: {0}")]
    Refused(KafkaCode),
    /// The producer is of no use any more: recycle it.
    #[error("the producer failed: {code}: {reason}")]
    Fatal {
        /// The error.
        code: KafkaCode,
        /// librdkafka's words.
        reason: String,
    },
}

/// Why a transaction could not be prepared or begun. The producer must be recycled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransactionError {
    /// No answer in time, or a passing fault.
    #[error("passing fault: {code}: {reason}")]
    Passing {
        /// The error.
        code: KafkaCode,
        /// librdkafka's words.
        reason: String,
    },
    /// A newer producer of the same id exists, or the transaction timed out at the broker.
    #[error("fenced: {reason}")]
    Fenced {
        /// librdkafka's words.
        reason: String,
    },
    /// Anything else: rights, state, configuration.
    #[error("{code}: {reason}")]
    Failed {
        /// The error.
        code: KafkaCode,
        /// librdkafka's words.
        reason: String,
    },
}

/// Why a commit is not known to be clean. Whatever it says: recycle the producer and re-read progress.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// `EndTxn` was sent, its fate (or that of a second copy) is open.
    #[error("the commit's outcome is open: EndTxn was sent {sends} times, {code}")]
    Indefinite {
        /// How often `EndTxn` was sent since `begin`.
        sends: u64,
        /// What librdkafka reported; [`KafkaCode::NONE`] for success.
        code: KafkaCode,
    },
    /// A newer producer of the same id exists, or the transaction timed out at the broker.
    #[error("the producer is fenced")]
    Fenced,
    /// Nothing was committed: records failed.
    #[error("the transaction cannot be committed: {code}")]
    Abortable {
        /// The first cause.
        code: KafkaCode,
    },
    /// Nothing was committed: anything else.
    #[error("the commit failed: {code}")]
    Failed {
        /// The cause.
        code: KafkaCode,
    },
}

/// The producer of one lane.
pub struct TransactionalProducer {
    _private: (),
}

#[allow(unused_variables)]
impl TransactionalProducer {
    /// Makes the producer; no broker is asked yet.
    pub fn new(settings: &Settings, transactional_id: &str, options: ProducerOptions) -> Result<Self, Error> {
        unimplemented!()
    }
    /// Fences and finishes the predecessor.
    pub fn init_transactions(&mut self, timeout: Duration) -> Result<(), TransactionError> {
        unimplemented!()
    }
    /// Interns a topic.
    pub fn topic(&mut self, name: &str) -> Result<TopicHandle, Error> {
        unimplemented!()
    }
    /// Begins a transaction.
    pub fn begin(&mut self) -> Result<(), TransactionError> {
        unimplemented!()
    }
    /// Queues a record.
    #[allow(clippy::too_many_arguments)]
    pub fn produce<'h>(
        &mut self,
        topic: &TopicHandle,
        partition: i32,
        timestamp_ms: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl IntoIterator<Item = (&'h [u8], Option<&'h [u8]>)>,
        tag: u64,
    ) -> Result<(), ProduceError> {
        unimplemented!()
    }
    /// Hands out delivery reports.
    pub fn deliveries(&mut self, timeout: Duration, f: impl FnMut(Delivery)) -> usize {
        unimplemented!()
    }
    /// Records without a report yet.
    pub fn in_flight(&self) -> usize {
        unimplemented!()
    }
    /// Commits.
    pub fn commit(&mut self, timeout: Duration) -> Result<(), CommitError> {
        unimplemented!()
    }
}
