//! The Kafka client: what Longhaul needs of librdkafka, and the few things the `rdkafka` crate lacks.
//!
//! Five doors, each a handle of its own:
//!
//! * [`TransactionalProducer`] writes a lane: it counts how often `EndTxn` was sent, because a commit that
//!   returns success can hide a re-sent one, and never aborts;
//! * [`SourceConsumer`] reads source partitions assigned by hand, each under the caller's token;
//! * [`GroupPositions`] tells Kafka's own tools how far the link is, in a consumer group;
//! * [`Admin`] asks and changes: topics with their ids, offsets, configs, group positions;
//! * [`reader`] reads one partition to its end: progress tables, tail checks, tests.
//!
//! All calls block (each for a bounded time) and belong on threads of their own, never on an async worker.
//! Everything that touches librdkafka's C interface lives in `native` and the five doors; each `unsafe`
//! block says why it holds. No type of librdkafka appears in a public signature.

mod admin;
mod code;
mod error;
mod native;
mod positions;
mod producer;
pub mod reader;
mod settings;
mod source;

pub use admin::{Admin, Described, Isolation, Outcomes, Partition, Topic, TopicInfo};
pub use code::KafkaCode;
pub use error::Error;
pub use positions::GroupPositions;
pub use producer::{
    CommitError, Delivery, ProduceError, ProducerOptions, TopicHandle, TransactionError,
    TransactionalProducer,
};
pub use reader::{End, Ends, read_partition};
pub use settings::Settings;
pub use source::{Event, Headers, Record, SourceConsumer, SourceError, SourceOptions, Watermarks};

/// The crate underneath, for the lab's loaders only.
pub use rdkafka;

/// Handles may be made on one thread and used on another; questions may be asked from several at once.
const _: () = {
    const fn is_send<T: Send>() {}
    const fn is_sync<T: Sync>() {}
    is_send::<TransactionalProducer>();
    is_send::<SourceConsumer>();
    is_send::<GroupPositions>();
    is_send::<reader::Reader>();
    is_send::<Admin>();
    is_sync::<Admin>();
};
