//! What can go wrong with a handle or a call.

use std::time::Duration;

use crate::KafkaCode;

/// Why a handle could not be made, or a call did not give an answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// A property that the delivery promise depends on was set by the operator.
    #[error("kafka property `{property}` cannot be set: {reason}")]
    RefusedProperty {
        /// The property, as written.
        property: String,
        /// Why, and what to do instead.
        reason: &'static str,
    },
    /// librdkafka has no property of this name.
    #[error(
        "unknown kafka property `{property}`: see librdkafka's CONFIGURATION.md for the properties it knows"
    )]
    UnknownProperty {
        /// The property, as written.
        property: String,
    },
    /// The property exists, its value is not one that it takes.
    #[error("kafka property `{property}` has a value that it does not take{reason}")]
    InvalidProperty {
        /// The property, as written.
        property: String,
        /// librdkafka's words after a colon; empty where they could show a secret.
        reason: String,
    },
    /// The properties do not fit together, or a file they name cannot be read.
    #[error("kafka client `{client_id}` cannot be created: {reason}")]
    Create {
        /// The client's name.
        client_id: String,
        /// librdkafka's words.
        reason: String,
    },
    /// The cluster, or librdkafka on its behalf, said no.
    #[error("{what}: {code}{detail}")]
    Call {
        /// What was tried, with its coordinates.
        what: String,
        /// The answer.
        code: KafkaCode,
        /// The broker's words after `; `, where it had more to say than the code.
        detail: String,
    },
    /// No answer within the time given.
    #[error("{what}: no answer within {timeout:?}")]
    Timeout {
        /// What was tried, with its coordinates.
        what: String,
        /// The time given.
        timeout: Duration,
    },
    /// A name that holds a NUL byte, or an answer that does not make sense.
    #[error("{what}: {reason}")]
    Unusable {
        /// What was tried, with its coordinates.
        what: String,
        /// What was wrong.
        reason: String,
    },
}

impl Error {
    /// The code behind the error; a time-out counts as [`KafkaCode::TIMED_OUT`].
    pub fn code(&self) -> Option<KafkaCode> {
        match self {
            Self::Call { code, .. } => Some(*code),
            Self::Timeout { .. } => Some(KafkaCode::TIMED_OUT),
            _ => None,
        }
    }

    /// The property that is wrong, as the operator wrote it.
    pub fn property(&self) -> Option<&str> {
        match self {
            Self::RefusedProperty { property, .. }
            | Self::UnknownProperty { property }
            | Self::InvalidProperty { property, .. } => Some(property),
            _ => None,
        }
    }

    /// Where what is wrong stands, from the table that holds `bootstrap` and `properties`.
    pub fn key(&self) -> String {
        self.property().map_or_else(|| "properties".into(), |property| format!("properties.{property}"))
    }

    /// Whether the same call may succeed later without anybody doing anything.
    pub fn is_retriable(&self) -> bool {
        self.code().is_some_and(KafkaCode::is_retriable)
    }
}
