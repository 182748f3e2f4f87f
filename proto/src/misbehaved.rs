//! Every wrong thing a peer can do, each with a name of its own.

use crate::{ids::Slot, wire::WireError};

/// What a peer did wrong. The connection ends with these words; other links go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerMisbehaved {
    /// Bytes that are not the protocol's.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// A message that may not come before `Hello` and `Welcome`.
    #[error("a message came before the handshake was done")]
    BeforeHandshake,
    /// A second `Hello`.
    #[error("a second hello on one connection")]
    SecondHello,
    /// A second `Welcome`.
    #[error("a second welcome on one connection")]
    SecondWelcome,
    /// No `Hello` in time.
    #[error("no hello came in time")]
    NoHello,
    /// No `Welcome` in time.
    #[error("no welcome came in time")]
    NoWelcome,
    /// No common protocol version.
    #[error("protocol version {version} is not spoken here")]
    UnknownVersion {
        /// The newest one the peer named.
        version: u32,
    },
    /// A number of lanes that cannot be.
    #[error("{lanes} lanes are none, or too many")]
    TooManyLanes {
        /// As the peer said.
        lanes: u32,
    },
    /// A lane that the link does not have.
    #[error("lane {lane} does not exist on this link")]
    UnknownLane {
        /// As the peer said.
        lane: u32,
    },
    /// An echo of a heartbeat that was not sent, or echoed before.
    #[error("heartbeat {seq} was echoed, {sent} were sent")]
    EchoOutOfOrder {
        /// The echoed one.
        seq: u64,
        /// How many were sent.
        sent: u64,
    },
    /// A text longer than allowed, or a number that cannot be.
    #[error("{what} is not acceptable in {message}")]
    InvalidField {
        /// Which message.
        message: &'static str,
        /// Which field.
        what: &'static str,
    },
    /// More source partitions than a link may have.
    #[error("more source partitions than a link may have")]
    TooManySlots,
    /// A parcel above the credit.
    #[error("a parcel of {plain} plain bytes exceeds the credit of {left}")]
    AboveCredit {
        /// What came.
        plain: u32,
        /// What was allowed.
        left: u64,
    },
    /// A parcel out of sequence.
    #[error("parcel {got} came where {expected} was due")]
    OutOfSequence {
        /// The one due.
        expected: u64,
        /// The one that came.
        got: u64,
    },
    /// A parcel of an epoch that was never begun.
    #[error("a parcel of lane epoch {got} came in epoch {expected}")]
    WrongLaneEpoch {
        /// The current one.
        expected: u32,
        /// The one that came.
        got: u32,
    },
    /// A reset to a lane epoch that does not follow.
    #[error("lane {lane} was reset to epoch {got}, it is in epoch {current}")]
    EpochDidNotGrow {
        /// The lane.
        lane: u16,
        /// The epoch it is in.
        current: u32,
        /// The epoch that was named.
        got: u32,
    },
    /// Records for a slot that was never opened.
    #[error("records for slot {0}, which was never opened")]
    UnknownSlot(Slot),
    /// A group that names a later position than was ever given.
    #[error("slot {slot} names resume epoch {got}, the last one given was {given}")]
    FutureResumeEpoch {
        /// The slot.
        slot: Slot,
        /// What came.
        got: u32,
        /// What was given.
        given: u32,
    },
    /// A group whose range is empty backwards, or whose records lie outside of it.
    #[error("slot {slot} covers offsets {prev_next} to {next}, which is no range")]
    NotARange {
        /// The slot.
        slot: Slot,
        /// Where it says it begins.
        prev_next: i64,
        /// Where it says it ends.
        next: i64,
    },
    /// An acknowledgement of what was never sent.
    #[error("slot {slot} was acknowledged up to {next}, sent was up to {sent}")]
    AcknowledgedUnsent {
        /// The slot.
        slot: Slot,
        /// What was acknowledged.
        next: i64,
        /// What was sent.
        sent: i64,
    },
}
