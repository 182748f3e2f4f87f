//! What can go wrong on a connection and its streams.

use proto::wire::WireError;
use quinn::{ReadError, WriteError};

use crate::close::words;

/// An error of a connection or of one of its streams.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The connection is over.
    #[error("the connection ended: {why}")]
    Closed {
        /// Why, in words.
        why: String,
    },
    /// The sender gave this stream up; what was not read is gone.
    #[error("the peer reset the stream (code {code})")]
    Reset {
        /// The code it gave.
        code: u64,
    },
    /// The receiver does not want this stream any more.
    #[error("the peer stopped the stream (code {code})")]
    Stopped {
        /// The code it gave.
        code: u64,
    },
    /// The stream was finished or reset on this side before.
    #[error("the stream was already finished here")]
    Finished,
    /// The stream ended in the middle of something.
    #[error("the stream ended in the middle of {what}")]
    Truncated {
        /// Of what.
        what: &'static str,
    },
    /// The peer sent what the protocol does not allow, or declared a size above its bound.
    #[error("malformed {what}: {source}")]
    Malformed {
        /// What was being read.
        what: &'static str,
        /// What is wrong with it.
        source: WireError,
    },
    /// The caller gave something that must not be sent.
    #[error("not sent: {why}")]
    Unsendable {
        /// What is wrong with it.
        why: String,
    },
    /// The peer opened a lane stream and then said nothing.
    #[error("the peer opened a stream and sent no preface within {seconds} s")]
    NoPreface {
        /// How long it had.
        seconds: u64,
    },
    /// An identity cannot be used on this side.
    #[error(transparent)]
    Identity(#[from] certs::Error),
    /// The operating system refused a socket.
    #[error("cannot open UDP socket {address}: {source}")]
    Socket {
        /// The address asked for.
        address: std::net::SocketAddr,
        /// What it said.
        source: std::io::Error,
    },
    /// The settings contradict themselves.
    #[error("link settings: {why}")]
    Settings {
        /// How.
        why: String,
    },
}

impl Error {
    /// Whether the whole connection is over, and not only one stream.
    pub fn ends_connection(&self) -> bool {
        matches!(self, Self::Closed { .. })
    }
}

impl From<quinn::ConnectionError> for Error {
    fn from(error: quinn::ConnectionError) -> Self {
        Self::Closed { why: words(&error) }
    }
}

impl From<WriteError> for Error {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Stopped(code) => Self::Stopped { code: code.into_inner() },
            WriteError::ConnectionLost(error) => error.into(),
            WriteError::ClosedStream => Self::Finished,
            WriteError::ZeroRttRejected => unreachable!("0-RTT is never used"),
        }
    }
}

impl From<ReadError> for Error {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Reset(code) => Self::Reset { code: code.into_inner() },
            ReadError::ConnectionLost(error) => error.into(),
            ReadError::ClosedStream => Self::Finished,
            ReadError::IllegalOrderedRead | ReadError::ZeroRttRejected => {
                unreachable!("streams are read in order and 0-RTT is never used")
            }
        }
    }
}
