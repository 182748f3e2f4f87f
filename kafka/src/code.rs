//! Error codes, as Kafka's protocol and librdkafka number them.

use std::fmt;

use crate::native;

/// One error code: Kafka's own are positive, librdkafka's local ones negative, 0 is no error.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KafkaCode(pub i32);

impl KafkaCode {
    /// No error.
    pub const NONE: Self = Self(0);
    /// The message failed its checksum or could not be parsed.
    pub const BAD_MESSAGE: Self = Self(-199);
    /// The connection failed, or was cut.
    pub const TRANSPORT: Self = Self(-195);
    /// The message was not delivered within `message.timeout.ms`.
    pub const MESSAGE_TIMED_OUT: Self = Self(-192);
    /// The end of the partition was reached: not an error.
    pub const PARTITION_EOF: Self = Self(-191);
    /// The partition does not exist.
    pub const UNKNOWN_PARTITION_LOCAL: Self = Self(-190);
    /// The topic does not exist.
    pub const UNKNOWN_TOPIC_LOCAL: Self = Self(-188);
    /// No broker can be reached.
    pub const ALL_BROKERS_DOWN: Self = Self(-187);
    /// The call, or the request behind it, ran out of time.
    pub const TIMED_OUT: Self = Self(-185);
    /// The local queue is full: deliver some, then try again.
    pub const QUEUE_FULL: Self = Self(-184);
    /// An earlier call of the same kind is still under way.
    pub const PREV_IN_PROGRESS: Self = Self(-177);
    /// The call does not fit the handle's state.
    pub const STATE: Self = Self(-172);
    /// The message was dropped from the local queue on purpose.
    pub const PURGED_QUEUE: Self = Self(-152);
    /// The message was dropped while its fate at the broker was open.
    pub const PURGED_INFLIGHT: Self = Self(-151);
    /// The instance has failed: its fatal error says why.
    pub const FATAL: Self = Self(-150);
    /// Another producer with the same transactional id took over.
    pub const FENCED: Self = Self(-144);
    /// A transaction cannot be committed because records of it failed.
    pub const INCONSISTENT: Self = Self(-149);
    /// The position is gone and `auto.offset.reset=error` forbids to choose another.
    pub const AUTO_OFFSET_RESET: Self = Self(-140);
    /// The log was cut below the position.
    pub const LOG_TRUNCATION: Self = Self(-139);
    /// The record was refused because another record of its batch was.
    pub const INVALID_DIFFERENT_RECORD: Self = Self(-138);
    /// The offset is outside the log.
    pub const OFFSET_OUT_OF_RANGE: Self = Self(1);
    /// The topic or partition does not exist.
    pub const UNKNOWN_TOPIC_OR_PARTITION: Self = Self(3);
    /// The record is larger than the topic takes.
    pub const MESSAGE_TOO_LARGE: Self = Self(10);
    /// The name is not a legal topic name.
    pub const INVALID_TOPIC: Self = Self(17);
    /// The batch is larger than a segment.
    pub const RECORD_LIST_TOO_LARGE: Self = Self(18);
    /// The principal may not do this to this topic.
    pub const TOPIC_AUTHORIZATION_FAILED: Self = Self(29);
    /// The principal may not use this group.
    pub const GROUP_AUTHORIZATION_FAILED: Self = Self(30);
    /// The principal may not do this to the cluster.
    pub const CLUSTER_AUTHORIZATION_FAILED: Self = Self(31);
    /// The topic refuses the record's timestamp.
    pub const INVALID_TIMESTAMP: Self = Self(32);
    /// A topic of this name exists.
    pub const TOPIC_ALREADY_EXISTS: Self = Self(36);
    /// A policy of the cluster forbids it.
    pub const POLICY_VIOLATION: Self = Self(44);
    /// The batch was already written, too long ago for the broker to say where.
    pub const DUPLICATE_SEQUENCE_NUMBER: Self = Self(46);
    /// A producer of a newer epoch exists, or the transaction was ended by its time-out.
    pub const INVALID_PRODUCER_EPOCH: Self = Self(47);
    /// The principal may not use this transactional id.
    pub const TRANSACTIONAL_ID_AUTHORIZATION_FAILED: Self = Self(53);
    /// The record failed the topic's validation.
    pub const INVALID_RECORD: Self = Self(87);
    /// A producer of a newer epoch exists.
    pub const PRODUCER_FENCED: Self = Self(90);
    /// No topic has this id.
    pub const UNKNOWN_TOPIC_ID: Self = Self(100);

    /// librdkafka's name of the code, e.g. `MSG_SIZE_TOO_LARGE` or `_TIMED_OUT`.
    pub fn name(self) -> &'static str {
        native::code_name(self.0).unwrap_or("UNKNOWN_CODE")
    }

    /// librdkafka's description of the code.
    pub fn description(self) -> &'static str {
        native::code_description(self.0).unwrap_or("an error code that this client does not know")
    }

    /// Whether the principal lacks a right: an operator must grant it.
    pub fn is_authorization(self) -> bool {
        matches!(
            self,
            Self::TOPIC_AUTHORIZATION_FAILED
                | Self::GROUP_AUTHORIZATION_FAILED
                | Self::CLUSTER_AUTHORIZATION_FAILED
                | Self::TRANSACTIONAL_ID_AUTHORIZATION_FAILED
        )
    }

    /// Whether the same call may succeed later without anybody doing anything.
    pub fn is_retriable(self) -> bool {
        RETRIABLE.contains(&self.0)
    }

    /// Whether the target refuses this very record for good: to send it again would change nothing.
    ///
    /// [`Self::INVALID_DIFFERENT_RECORD`] is not among them: that record is fine, its neighbour is not.
    pub fn is_refusal(self) -> bool {
        matches!(
            self,
            Self::MESSAGE_TOO_LARGE
                | Self::RECORD_LIST_TOO_LARGE
                | Self::INVALID_TIMESTAMP
                | Self::INVALID_RECORD
                | Self::TOPIC_AUTHORIZATION_FAILED
                | Self::POLICY_VIOLATION
                | Self::UNKNOWN_TOPIC_OR_PARTITION
                | Self::UNKNOWN_TOPIC_LOCAL
                | Self::UNKNOWN_PARTITION_LOCAL
                | Self::INVALID_TOPIC
        )
    }

    /// Whether the topic or partition does not exist (any more).
    pub fn is_unknown_topic(self) -> bool {
        matches!(
            self,
            Self::UNKNOWN_TOPIC_OR_PARTITION
                | Self::UNKNOWN_TOPIC_LOCAL
                | Self::UNKNOWN_PARTITION_LOCAL
                | Self::UNKNOWN_TOPIC_ID
        )
    }
}

/// `MSG_SIZE_TOO_LARGE (10: Broker: Message size too large)`
impl fmt::Display for KafkaCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}: {})", self.name(), self.0, self.description())
    }
}

impl fmt::Debug for KafkaCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({})", self.name(), self.0)
    }
}

impl std::error::Error for KafkaCode {}

/// Codes that pass by themselves: connections, elections, coordinators that move, brokers that are slow.
const RETRIABLE: &[i32] = &[
    -195, // _TRANSPORT
    -193, // _RESOLVE
    -192, // _MSG_TIMED_OUT
    -187, // _ALL_BROKERS_DOWN
    -185, // _TIMED_OUT
    -184, // _QUEUE_FULL
    -180, // _WAIT_COORD
    -178, // _IN_PROGRESS
    -177, // _PREV_IN_PROGRESS
    -166, // _TIMED_OUT_QUEUE
    -164, // _WAIT_CACHE
    -153, // _RETRY
    5,    // LEADER_NOT_AVAILABLE
    6,    // NOT_LEADER_FOR_PARTITION
    7,    // REQUEST_TIMED_OUT
    8,    // BROKER_NOT_AVAILABLE
    9,    // REPLICA_NOT_AVAILABLE
    13,   // NETWORK_EXCEPTION
    14,   // COORDINATOR_LOAD_IN_PROGRESS
    15,   // COORDINATOR_NOT_AVAILABLE
    16,   // NOT_COORDINATOR
    19,   // NOT_ENOUGH_REPLICAS
    20,   // NOT_ENOUGH_REPLICAS_AFTER_APPEND
    41,   // NOT_CONTROLLER
    51,   // CONCURRENT_TRANSACTIONS
    56,   // KAFKA_STORAGE_ERROR
    74,   // FENCED_LEADER_EPOCH
    75,   // UNKNOWN_LEADER_EPOCH
    78,   // OFFSET_NOT_AVAILABLE
    88,   // UNSTABLE_OFFSET_COMMIT
    89,   // THROTTLING_QUOTA_EXCEEDED
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_prints_its_name_number_and_text() {
        assert_eq!(
            KafkaCode::MESSAGE_TOO_LARGE.to_string(),
            "MSG_SIZE_TOO_LARGE (10: Broker: Message size too large)"
        );
        assert_eq!(KafkaCode::TIMED_OUT.name(), "_TIMED_OUT");
    }

    #[test]
    fn a_code_newer_than_the_client_still_prints_its_number() {
        assert_eq!(
            KafkaCode(4711).to_string(),
            "UNKNOWN_CODE (4711: an error code that this client does not know)"
        );
        assert!(!KafkaCode(4711).is_retriable());
    }

    #[test]
    fn a_record_beside_a_refused_one_is_not_refused_itself() {
        assert!(KafkaCode::INVALID_TIMESTAMP.is_refusal());
        assert!(!KafkaCode::INVALID_DIFFERENT_RECORD.is_refusal());
        assert!(!KafkaCode::TIMED_OUT.is_refusal() && KafkaCode::TIMED_OUT.is_retriable());
    }
}
