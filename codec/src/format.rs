//! Numbers of the format: version, flags, kinds. The crate documentation shows where they stand.

/// Version of the format that an encoder writes, in the high half of a parcel's first byte.
pub const VERSION: u8 = 2;
/// Versions that a decoder reads. Version 1 has no payload by shapes and no columns.
pub const READABLE: std::ops::RangeInclusive<u8> = 1..=VERSION;

/// Flags of a parcel, in the low half of its first byte.
pub(crate) mod flag {
    /// The serialized batch follows as it is; the zstd stream does not know of this parcel.
    pub(crate) const RAW: u8 = 1;
    /// A new zstd frame begins; the one before is abandoned.
    pub(crate) const FRAME: u8 = 2;
    /// Nothing follows; all that both ends remember is forgotten. From version 2 on.
    pub(crate) const REST: u8 = 4;
    /// Some values lie opened: what the batch comes to like that follows the serialized size. From version 2 on.
    pub(crate) const OPENED: u8 = 8;

    /// Whether a parcel of `version` can have these.
    pub(crate) fn known(version: u8, flags: u8) -> bool {
        match flags & !OPENED {
            0 | RAW | FRAME => version >= 2 || flags & OPENED == 0,
            REST => version >= 2 && flags == REST,
            _ => false,
        }
    }
}

/// Kinds of sections and columns. One registry for all, so that a number never means two things.
pub(crate) mod kind {
    /// Groups: a table of ranges, chained to what was sent before.
    pub(crate) const GROUP_TABLE: u8 = 0x01;
    /// Offsets: runs of consecutive ones.
    pub(crate) const OFFSET_RUNS: u8 = 0x08;
    /// Timestamps: difference from the record before.
    pub(crate) const TIMESTAMP_DELTAS: u8 = 0x10;
    /// Timestamps: difference from the record before, in units of what divides them all.
    pub(crate) const TIMESTAMP_UNITS: u8 = 0x11;
    /// Timestamps: in units, by range coder.
    pub(crate) const TIMESTAMP_RANGED: u8 = 0x12;
    /// Timestamps: in runs of groups, each in units of its own.
    pub(crate) const TIMESTAMP_RUNS: u8 = 0x13;
    /// Headers: no record has any.
    pub(crate) const HEADERS_NONE: u8 = 0x18;
    /// Headers: names by dictionary, values one after the other.
    pub(crate) const HEADERS_NAMED: u8 = 0x19;
    /// Payload: key and value of each record side by side.
    pub(crate) const PAYLOAD_ROWS: u8 = 0x20;
    /// Payload: by shapes, in columns.
    pub(crate) const PAYLOAD_SHAPES: u8 = 0x21;
    /// Opened values: how they are compressed again.
    pub(crate) const OPENED: u8 = 0x30;
    /// Lengths: one number each.
    pub(crate) const LENGTHS: u8 = 0x28;
}

/// A group's second byte: the gap's reason in the low half, and whether its position is spelled out.
pub(crate) mod group {
    pub(crate) const GAP: u8 = 0x0f;
    /// Resume epoch and `prev_next` follow; without it they are what the slot's last group left.
    pub(crate) const POSITION: u8 = 0x10;
    /// The leader epoch follows; without it, it is what the slot's last group left.
    pub(crate) const LEADER_EPOCH: u8 = 0x20;
}

/// How a header names itself, where it is not the dictionary's number plus [`FIRST`](header::FIRST).
pub(crate) mod header {
    /// The name follows and is forgotten.
    pub(crate) const SPELLED: u64 = 0;
    /// The name follows and is the dictionary's next.
    pub(crate) const DEFINED: u64 = 1;
    /// Reference to the dictionary's first name.
    pub(crate) const FIRST: u64 = 2;
}

/// Bytes of the checksum that ends a serialized batch.
pub(crate) const CHECKSUM: usize = 8;
/// Fewest serialized bytes of a group.
pub(crate) const MIN_GROUP: usize = 4;
/// Fewest serialized bytes of a header: name and value length.
pub(crate) const MIN_HEADER: usize = 2;

/// zstd's magic number as it lies in the stream (RFC 8878, 3.1.1).
pub(crate) const ZSTD_MAGIC: [u8; 4] = 0xFD2F_B528_u32.to_le_bytes();
