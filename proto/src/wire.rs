//! Messages as bytes: the only place where anything of the protocol is decoded.
//!
//! The control stream carries frames: a little-endian `u32` length, then a protobuf message ([`ToImporter`] one way,
//! [`ToExporter`] the other). Unknown fields and unknown kinds of message are skipped, so that neighbouring versions
//! interoperate. A lane stream starts with a [`LanePreface`] and then carries parcels: a [`ParcelHeader`] and its body.

use prost::Message;

use crate::{
    ids::{Lane, LaneEpoch},
    limits,
};

/// Exporter to importer, on the control stream.
#[derive(Clone, PartialEq, Message)]
pub struct ToImporter {
    /// What is said; `None` when it is of a later version's kind.
    #[prost(oneof = "Request", tags = "1, 2, 3, 4, 5")]
    pub request: Option<Request>,
}

/// What an exporter says.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Request {
    /// The first message of a connection.
    #[prost(message, tag = "1")]
    Hello(Hello),
    /// Asks for the position of a source partition.
    #[prost(message, tag = "2")]
    Open(Open),
    /// Nothing more will be sent for this slot.
    #[prost(message, tag = "3")]
    Close(Close),
    /// Proof of life, and how far the source is.
    #[prost(message, tag = "4")]
    Heartbeat(Heartbeat),
    /// The exporter leaves in good order.
    #[prost(message, tag = "5")]
    Goodbye(Goodbye),
}

/// The first message of a connection.
#[derive(Clone, PartialEq, Message)]
pub struct Hello {
    /// Protocol versions the exporter speaks.
    #[prost(uint32, repeated, tag = "1")]
    pub versions: Vec<u32>,
    /// The link's name, the same in both configurations.
    #[prost(string, tag = "2")]
    pub link: String,
    /// The source cluster's id.
    #[prost(string, tag = "3")]
    pub source_cluster_id: String,
    /// Names this exporter process; a new connection of the same instance replaces the old one at once.
    #[prost(string, tag = "4")]
    pub instance: String,
    /// Fresh for each connection: connections of one instance are ordered by it.
    #[prost(uint64, tag = "5")]
    pub nonce: u64,
}

/// Asks for the position of a source partition.
#[derive(Clone, PartialEq, Message)]
pub struct Open {
    /// The exporter's name of the partition: the same one for the whole session.
    #[prost(uint32, tag = "1")]
    pub slot: u32,
    /// The topic's id: 16 bytes.
    #[prost(bytes = "vec", tag = "2")]
    pub topic_id: Vec<u8>,
    /// The topic's name at the source.
    #[prost(string, tag = "3")]
    pub topic: String,
    /// The partition's number.
    #[prost(int32, tag = "4")]
    pub partition: i32,
    /// How many partitions the source topic has.
    #[prost(int32, tag = "5")]
    pub partition_count: i32,
    /// First offset the source still has.
    #[prost(int64, tag = "6")]
    pub log_start: i64,
    /// Last stable offset of the source.
    #[prost(int64, tag = "7")]
    pub end: i64,
    /// Where to begin if the importer knows no position: what the exporter's `start` setting says.
    #[prost(int64, tag = "8")]
    pub start: i64,
}

/// Nothing more will be sent for this slot.
#[derive(Clone, PartialEq, Message)]
pub struct Close {
    /// The slot.
    #[prost(uint32, tag = "1")]
    pub slot: u32,
}

/// Proof of life, and how far the source is.
#[derive(Clone, PartialEq, Message)]
pub struct Heartbeat {
    /// Counts heartbeats of a connection.
    #[prost(uint64, tag = "1")]
    pub seq: u64,
    /// Ends of the source partitions that changed since the last heartbeat.
    #[prost(message, repeated, tag = "3")]
    pub ends: Vec<SourceEnd>,
}

/// How far a source partition is.
#[derive(Clone, PartialEq, Message)]
pub struct SourceEnd {
    /// The slot.
    #[prost(uint32, tag = "1")]
    pub slot: u32,
    /// Last stable offset.
    #[prost(int64, tag = "2")]
    pub stable: i64,
    /// High watermark.
    #[prost(int64, tag = "3")]
    pub high: i64,
}

/// The exporter leaves in good order.
#[derive(Clone, PartialEq, Message)]
pub struct Goodbye {
    /// Why, in words.
    #[prost(string, tag = "1")]
    pub reason: String,
}

/// Importer to exporter, on the control stream.
#[derive(Clone, PartialEq, Message)]
pub struct ToExporter {
    /// What is said; `None` when it is of a later version's kind.
    #[prost(oneof = "Answer", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9")]
    pub answer: Option<Answer>,
}

/// What an importer says.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Answer {
    /// The session is open.
    #[prost(message, tag = "1")]
    Welcome(Welcome),
    /// Send this source partition from here.
    #[prost(message, tag = "2")]
    Resume(Resume),
    /// The source partition cannot go on; a reason for the operator.
    #[prost(message, tag = "3")]
    Hold(Hold),
    /// The source partition is not granted.
    #[prost(message, tag = "4")]
    Refuse(Refuse),
    /// What is committed, and how much more may be sent.
    #[prost(message, tag = "5")]
    Ack(Ack),
    /// A lane begins anew with fresh codec contexts.
    #[prost(message, tag = "6")]
    LaneReset(LaneReset),
    /// The grant was reloaded.
    #[prost(message, tag = "7")]
    Policy(Policy),
    /// Answers a heartbeat.
    #[prost(message, tag = "8")]
    HeartbeatEcho(HeartbeatEcho),
    /// The importer is going away: reconnect later.
    #[prost(message, tag = "9")]
    Drain(Drain),
}

/// The session is open.
#[derive(Clone, PartialEq, Message)]
pub struct Welcome {
    /// The protocol version that is spoken from here on.
    #[prost(uint32, tag = "1")]
    pub version: u32,
    /// This session's number.
    #[prost(uint64, tag = "2")]
    pub session: u64,
    /// Lanes of the link.
    #[prost(uint32, tag = "3")]
    pub lanes: u32,
    /// Plain bytes that each lane may send before the first `Ack`.
    #[prost(uint64, tag = "4")]
    pub credit: u64,
    /// Topic patterns that the identity may write.
    #[prost(string, repeated, tag = "5")]
    pub topics: Vec<String>,
    /// Bits a second that the identity may send; 0 when not limited.
    #[prost(uint64, tag = "6")]
    pub rate: u64,
}

/// Send this source partition from here.
#[derive(Clone, PartialEq, Message)]
pub struct Resume {
    /// The slot.
    #[prost(uint32, tag = "1")]
    pub slot: u32,
    /// Fences everything sent for the slot before.
    #[prost(uint32, tag = "2")]
    pub resume_epoch: u32,
    /// The first offset to send.
    #[prost(int64, tag = "3")]
    pub next: i64,
    /// Leader epoch of the last committed record, or -1.
    #[prost(int32, tag = "4")]
    pub leader_epoch: i32,
    /// Whether nothing was known of the partition: `next` is then where the exporter proposed to start, or the
    /// log's start when the topic is known.
    #[prost(bool, tag = "5")]
    pub new: bool,
}

/// The source partition cannot go on; a reason for the operator.
#[derive(Clone, PartialEq, Message)]
pub struct Hold {
    /// The slot.
    #[prost(uint32, tag = "1")]
    pub slot: u32,
    /// A stable word: see [`crate::hold::Reason`].
    #[prost(string, tag = "2")]
    pub reason: String,
    /// What happened and what the operator can do.
    #[prost(string, tag = "3")]
    pub detail: String,
}

/// The source partition is not granted.
#[derive(Clone, PartialEq, Message)]
pub struct Refuse {
    /// The slot.
    #[prost(uint32, tag = "1")]
    pub slot: u32,
    /// Why, in words.
    #[prost(string, tag = "2")]
    pub detail: String,
}

/// What is committed, and how much more may be sent.
#[derive(Clone, PartialEq, Message)]
pub struct Ack {
    /// Committed positions.
    #[prost(message, repeated, tag = "1")]
    pub committed: Vec<Committed>,
    /// Credit of lanes.
    #[prost(message, repeated, tag = "2")]
    pub credit: Vec<Credit>,
}

/// A committed position of a slot.
#[derive(Clone, PartialEq, Message)]
pub struct Committed {
    /// The slot.
    #[prost(uint32, tag = "1")]
    pub slot: u32,
    /// The next source offset whose record is not yet durable at the target.
    #[prost(int64, tag = "2")]
    pub next: i64,
}

/// How much a lane may send.
#[derive(Clone, PartialEq, Message)]
pub struct Credit {
    /// The lane.
    #[prost(uint32, tag = "1")]
    pub lane: u32,
    /// The lane epoch it is meant for; another one's is ignored.
    #[prost(uint32, tag = "2")]
    pub epoch: u32,
    /// Plain bytes that may have been sent in all since the lane epoch began: it only grows.
    #[prost(uint64, tag = "3")]
    pub total: u64,
}

/// A lane begins anew with fresh codec contexts.
#[derive(Clone, PartialEq, Message)]
pub struct LaneReset {
    /// The lane.
    #[prost(uint32, tag = "1")]
    pub lane: u32,
    /// The epoch that the next stream must carry.
    #[prost(uint32, tag = "2")]
    pub epoch: u32,
    /// Credit of the new epoch.
    #[prost(uint64, tag = "3")]
    pub credit: u64,
    /// Why, in words.
    #[prost(string, tag = "4")]
    pub reason: String,
}

/// The grant was reloaded.
#[derive(Clone, PartialEq, Message)]
pub struct Policy {
    /// Topic patterns that the identity may write now.
    #[prost(string, repeated, tag = "1")]
    pub topics: Vec<String>,
    /// Bits a second; 0 when not limited.
    #[prost(uint64, tag = "2")]
    pub rate: u64,
}

/// Answers a heartbeat.
#[derive(Clone, PartialEq, Message)]
pub struct HeartbeatEcho {
    /// The heartbeat's number.
    #[prost(uint64, tag = "1")]
    pub seq: u64,
}

/// The importer is going away.
#[derive(Clone, PartialEq, Message)]
pub struct Drain {
    /// Why, in words.
    #[prost(string, tag = "1")]
    pub reason: String,
}

macro_rules! wrap {
    ($outer:ident.$field:ident: $inner:ident { $($kind:ident),* $(,)? }) => {
        $(impl From<$kind> for $outer {
            fn from(message: $kind) -> Self {
                Self { $field: Some($inner::$kind(message)) }
            }
        })*

        impl $outer {
            /// The message as a frame of the control stream, length included.
            ///
            /// # Panics
            /// When it is longer than [`limits::MAX_CONTROL_MESSAGE`]: the sender splits what can be long.
            pub fn encode_frame(&self) -> Vec<u8> {
                let length = self.encoded_len();
                assert!(length <= limits::MAX_CONTROL_MESSAGE, "a control message of {length} bytes");
                let mut frame = Vec::with_capacity(4 + length);
                frame.extend_from_slice(&(length as u32).to_le_bytes());
                self.encode(&mut frame).expect("a Vec takes every byte");
                frame
            }

            /// The message in `bytes`, which are a frame's content without its length.
            pub fn decode_frame(bytes: &[u8]) -> Result<Self, WireError> {
                if bytes.len() > limits::MAX_CONTROL_MESSAGE {
                    return Err(WireError::TooLong { what: "control message", bytes: bytes.len() });
                }
                Ok(<Self as Message>::decode(bytes)?)
            }
        }
    };
}

wrap!(ToImporter.request: Request { Hello, Open, Close, Heartbeat, Goodbye });
wrap!(ToExporter.answer: Answer { Welcome, Resume, Hold, Refuse, Ack, LaneReset, Policy, HeartbeatEcho, Drain });

/// The first bytes of a lane stream: which lane, and which of its codec contexts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LanePreface {
    /// The lane.
    pub lane: Lane,
    /// Version of the codec's format.
    pub codec_version: u16,
    /// The lane epoch.
    pub epoch: LaneEpoch,
}

impl LanePreface {
    /// Bytes of a preface.
    pub const LENGTH: usize = 12;

    /// `LHL1`, lane, codec version, epoch; little endian.
    pub fn encode(&self) -> [u8; Self::LENGTH] {
        let mut bytes = [0; Self::LENGTH];
        bytes[..4].copy_from_slice(LANE_MAGIC);
        bytes[4..6].copy_from_slice(&self.lane.0.to_le_bytes());
        bytes[6..8].copy_from_slice(&self.codec_version.to_le_bytes());
        bytes[8..].copy_from_slice(&self.epoch.0.to_le_bytes());
        bytes
    }

    /// The preface in `bytes`.
    pub fn decode(bytes: &[u8; Self::LENGTH]) -> Result<Self, WireError> {
        let [m0, m1, m2, m3, l0, l1, v0, v1, e0, e1, e2, e3] = *bytes;
        if &[m0, m1, m2, m3] != LANE_MAGIC {
            return Err(WireError::NotALane);
        }
        let lane = u16::from_le_bytes([l0, l1]);
        if lane >= limits::MAX_LANES {
            return Err(WireError::TooLarge {
                what: "lane",
                value: lane.into(),
                limit: (limits::MAX_LANES - 1).into(),
            });
        }
        Ok(Self {
            lane: Lane(lane),
            codec_version: u16::from_le_bytes([v0, v1]),
            epoch: LaneEpoch(u32::from_le_bytes([e0, e1, e2, e3])),
        })
    }
}

/// What stands before a parcel's body. Every size is declared, and checked before anything is allocated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParcelHeader {
    /// The lane epoch it belongs to.
    pub epoch: LaneEpoch,
    /// Counts the parcels of a lane epoch from 0.
    pub sequence: u64,
    /// Bytes of the body that follows.
    pub coded: u32,
    /// Plain bytes of the batch inside: what it takes from the lane's credit.
    pub plain: u32,
}

impl ParcelHeader {
    /// Bytes of a header.
    pub const LENGTH: usize = 24;

    /// Length of what follows the length field, epoch, sequence, coded size, plain size; little endian.
    pub fn encode(&self) -> [u8; Self::LENGTH] {
        let mut bytes = [0; Self::LENGTH];
        bytes[..4].copy_from_slice(&(AFTER_LENGTH + self.coded).to_le_bytes());
        bytes[4..8].copy_from_slice(&self.epoch.0.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.coded.to_le_bytes());
        bytes[20..].copy_from_slice(&self.plain.to_le_bytes());
        bytes
    }

    /// The header in `bytes`, with every bound checked.
    pub fn decode(bytes: &[u8; Self::LENGTH]) -> Result<Self, WireError> {
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let (length, coded, plain) = (word(0), word(16), word(20));
        check("coded size", coded, limits::MAX_PARCEL_CODED)?;
        check("plain size", plain, limits::MAX_PARCEL_PLAIN)?;
        if length != AFTER_LENGTH + coded {
            return Err(WireError::LengthMismatch { length, coded });
        }
        let sequence = u64::from(word(8)) | u64::from(word(12)) << 32;
        Ok(Self { epoch: LaneEpoch(word(4)), sequence, coded, plain })
    }
}

fn check(what: &'static str, value: u32, limit: u32) -> Result<(), WireError> {
    if value > limit {
        return Err(WireError::TooLarge { what, value: value.into(), limit: limit.into() });
    }
    Ok(())
}

/// Bytes that are not what the protocol says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The stream does not begin as a lane stream does.
    #[error("the stream does not begin with a lane's preface")]
    NotALane,
    /// A number above its bound.
    #[error("{what} {value} is above the limit of {limit}")]
    TooLarge {
        /// Which number.
        what: &'static str,
        /// Its value.
        value: u64,
        /// The bound, from [`limits`].
        limit: u64,
    },
    /// Two declarations of a size disagree.
    #[error("a parcel declares {length} bytes in all and a body of {coded}")]
    LengthMismatch {
        /// What the length field says.
        length: u32,
        /// What the coded size says.
        coded: u32,
    },
    /// More bytes than allowed.
    #[error("a {what} of {bytes} bytes is too long")]
    TooLong {
        /// Which thing.
        what: &'static str,
        /// Its length.
        bytes: usize,
    },
    /// Not a protobuf message.
    #[error("a control message that does not decode")]
    Protobuf(#[from] prost::DecodeError),
}

const LANE_MAGIC: &[u8; 4] = b"LHL1";
/// Bytes of a parcel header behind its length field.
const AFTER_LENGTH: u32 = ParcelHeader::LENGTH as u32 - 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preface_and_a_header_come_back_as_they_were() {
        let preface = LanePreface { lane: Lane(3), codec_version: 1, epoch: LaneEpoch(0x0102_0304) };
        assert_eq!(LanePreface::decode(&preface.encode()), Ok(preface));
        let header = ParcelHeader {
            epoch: LaneEpoch(7),
            sequence: u64::MAX - 1,
            coded: 1000,
            plain: limits::MAX_PARCEL_PLAIN,
        };
        assert_eq!(ParcelHeader::decode(&header.encode()), Ok(header));
    }

    #[test]
    fn a_declared_size_of_two_gibibytes_is_refused() {
        let mut bytes = ParcelHeader { epoch: LaneEpoch(1), sequence: 0, coded: 10, plain: 10 }.encode();
        bytes[20..24].copy_from_slice(&(1_u32 << 31).to_le_bytes());
        assert!(matches!(ParcelHeader::decode(&bytes), Err(WireError::TooLarge { what: "plain size", .. })));
        bytes[16..20].copy_from_slice(&(1_u32 << 31).to_le_bytes());
        assert!(matches!(ParcelHeader::decode(&bytes), Err(WireError::TooLarge { what: "coded size", .. })));
    }

    #[test]
    fn sizes_that_disagree_are_refused() {
        let mut bytes = ParcelHeader { epoch: LaneEpoch(1), sequence: 0, coded: 10, plain: 10 }.encode();
        bytes[0] += 1;
        assert_eq!(ParcelHeader::decode(&bytes), Err(WireError::LengthMismatch { length: 31, coded: 10 }));
    }

    #[test]
    fn another_stream_is_not_taken_for_a_lane() {
        assert_eq!(LanePreface::decode(b"GET / HTTP/1"), Err(WireError::NotALane));
        let mut bytes = LanePreface { lane: Lane(0), codec_version: 1, epoch: LaneEpoch(0) }.encode();
        bytes[5] = 0xff;
        assert!(matches!(LanePreface::decode(&bytes), Err(WireError::TooLarge { what: "lane", .. })));
    }

    #[test]
    fn a_message_of_a_later_version_is_skipped_and_unknown_fields_too() {
        // Field 15, length-delimited, two bytes: no kind of message that this version knows.
        let later = [0x7a, 2, 1, 2];
        assert_eq!(ToImporter::decode_frame(&later), Ok(ToImporter { request: None }));
        let frame = ToImporter::from(Close { slot: 5 }).encode_frame();
        let mut bytes = frame[4..].to_vec();
        assert_eq!(u32::from_le_bytes([frame[0], frame[1], frame[2], frame[3]]) as usize, bytes.len());
        bytes.extend_from_slice(&later);
        assert_eq!(ToImporter::decode_frame(&bytes), Ok(Close { slot: 5 }.into()));
    }

    #[test]
    fn garbage_is_an_error_and_no_panic() {
        assert!(matches!(ToImporter::decode_frame(&[0xff; 40]), Err(WireError::Protobuf(_))));
        assert!(matches!(
            ToExporter::decode_frame(&vec![0; limits::MAX_CONTROL_MESSAGE + 1]),
            Err(WireError::TooLong { .. })
        ));
    }
}
