//! The names of things, as newtypes: never a bare integer across a function boundary.

use std::{fmt, str::FromStr, sync::Arc};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// An offset in a source partition. As a position: the next offset to read.
    Offset(i64)
}
number! {
    /// A lane of a link, counted from 0; also the partition of the link's progress topic.
    Lane(u16)
}
number! {
    /// Counts the codec contexts of one lane within a session; fences parcels of an older context.
    LaneEpoch(u32)
}
number! {
    /// One authenticated exporter connection as the importer knows it; grows with each connection of a link.
    SessionId(u64)
}
number! {
    /// Counts the positions given for one source partition within a session; fences groups sent before the last `Resume`.
    ResumeEpoch(u32)
}
number! {
    /// The exporter's short name of a source partition within a session.
    Slot(u32)
}

/// Kafka's topic id: tells a re-created topic from the one before it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TopicId(pub [u8; 16]);

impl TopicId {
    /// The id that no topic has: what an old broker answers.
    pub const ZERO: Self = Self([0; 16]);

    /// The id in `bytes`, when there are exactly 16 of them.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

/// URL-safe base64 without padding, 22 characters, as Kafka's own tools print it.
impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = u128::from_be_bytes(self.0);
        for index in 0..22 {
            // 128 bits and 4 bits of padding below them make 22 groups of 6.
            let shift = 122 - 6 * index;
            let group = if shift >= 0 { number >> shift } else { number << -shift };
            f.write_str(char::from(BASE64_URL[(group & 63) as usize]).encode_utf8(&mut [0; 4]))?;
        }
        Ok(())
    }
}

impl fmt::Debug for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for TopicId {
    type Err = InvalidTopicId;

    fn from_str(text: &str) -> Result<Self, InvalidTopicId> {
        if text.len() != 22 {
            return Err(InvalidTopicId(text.into()));
        }
        let mut number: u128 = 0;
        for (index, byte) in text.bytes().enumerate() {
            let group =
                BASE64_URL.iter().position(|b| *b == byte).ok_or_else(|| InvalidTopicId(text.into()))?
                    as u128;
            let shift = 122 - 6 * index as i32;
            number |= if shift >= 0 { group << shift } else { group >> -shift };
        }
        // The last character has four bits to spare; Kafka leaves them 0, and so prints one text for each id.
        let id = Self(number.to_be_bytes());
        if id.to_string() == text { Ok(id) } else { Err(InvalidTopicId(text.into())) }
    }
}

/// A text that is not 22 characters of URL-safe base64.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a topic id: 22 characters of URL-safe base64 expected")]
pub struct InvalidTopicId(String);

/// The unit of order and of progress: one partition of one incarnation of a topic in one cluster.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourcePartition {
    /// The source cluster's id, as the cluster itself states it.
    pub cluster: Arc<str>,
    /// The topic's id, not its name: a re-created topic is another topic.
    pub topic: TopicId,
    /// The partition's number, the same at the target.
    pub partition: i32,
}

impl fmt::Display for SourcePartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.cluster, self.topic, self.partition)
    }
}

/// The lane that carries a topic, out of `lanes`.
///
/// All partitions of a topic share a lane, so that they share one codec context: records of one topic look alike.
/// The hash is FNV-1a (64 bit) over the topic's name; progress lies where it points, so it can never change.
///
/// # Panics
/// When `lanes` is zero.
pub fn lane_of(topic: &str, lanes: u16) -> Lane {
    let hash = topic.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    // FNV's low bits are its weakest: fold the high half in.
    Lane(((hash ^ (hash >> 32)) % u64::from(lanes)) as u16)
}

const BASE64_URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_id_prints_as_kafka_prints_it() {
        // The reserved id of KRaft's metadata topic: 00000000-0000-0000-0000-000000000001.
        let mut bytes = [0; 16];
        bytes[15] = 1;
        assert_eq!(TopicId(bytes).to_string(), "AAAAAAAAAAAAAAAAAAAAAQ");
        assert_eq!(TopicId([0xff; 16]).to_string(), "_____________________w");
        assert_eq!("AAAAAAAAAAAAAAAAAAAAAQ".parse(), Ok(TopicId(bytes)));
        let mixed = TopicId(*b"0123456789abcdef");
        assert_eq!(mixed.to_string().parse(), Ok(mixed));
        assert!("too short".parse::<TopicId>().is_err());
        assert!("!!!!!!!!!!!!!!!!!!!!!!".parse::<TopicId>().is_err());
    }

    #[test]
    fn the_lane_of_a_topic_never_changes() {
        // Progress is stored by lane: these values are part of the format.
        let lanes: Vec<u16> =
            ["orders", "payments", "payments.eu", "clicks"].map(|topic| lane_of(topic, 4).0).to_vec();
        assert_eq!(lanes, [2, 2, 0, 2]);
        assert_eq!(lane_of("anything", 1), Lane(0));
    }
}
