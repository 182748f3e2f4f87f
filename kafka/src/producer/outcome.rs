//! What becomes of records and transactions.

use crate::KafkaCode;

/// What became of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivery {
    /// The tag given to `produce`.
    pub tag: u64,
    /// The record's offset in the target partition, or why it is not there. `KafkaCode::is_refusal` tells a
    /// record that the target will never take.
    pub outcome: Result<i64, KafkaCode>,
}

/// Why a record was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProduceError {
    /// The local queue is full: take deliveries, then produce the same record again.
    #[error("the producer's queue is full")]
    QueueFull,
    /// This very record cannot be sent; the producer goes on.
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
    /// No answer in time, or a fault that passes.
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
    /// `EndTxn` was sent; its fate, or that of a second copy, is open.
    #[error("the commit's outcome is open: EndTxn was sent {sends} times, result {code}")]
    Indefinite {
        /// How often `EndTxn` was sent since `begin`.
        sends: u64,
        /// What librdkafka reported; [`KafkaCode::NONE`] for success.
        code: KafkaCode,
    },
    /// A newer producer of the same id exists, or the transaction timed out at the broker.
    #[error("the producer is fenced")]
    Fenced,
    /// Nothing was committed: a record failed, or the transaction did.
    #[error("the transaction cannot be committed: {code}")]
    Abortable {
        /// The first cause.
        code: KafkaCode,
    },
    /// Nothing was sent that could commit: anything else.
    #[error("the commit failed: {code}")]
    Failed {
        /// The cause.
        code: KafkaCode,
    },
}
