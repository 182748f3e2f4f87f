//! Every bound of the codec, and how they relate.
//!
//! *Plain* size is what credit, memory and audit count: a fixed cost per record, group and header plus the
//! bytes themselves, whatever the encoding does. *Serialized* size is the batch as bytes before zstd, *coded*
//! size is the parcel body on the wire. Both ends use the same numbers, so that nothing which an encoder
//! lets through is refused by a decoder with default limits.

/// Plain cost of a record on top of its key, value and headers, in bytes.
pub const RECORD_OVERHEAD: u64 = 32;
/// Plain cost of a header on top of its name and value, in bytes.
pub const HEADER_OVERHEAD: u64 = 8;
/// Plain cost of a group on top of its records, in bytes.
pub const GROUP_OVERHEAD: u64 = 32;

/// Plain bytes at which a batch is worth closing: large enough for zstd, small enough for latency.
pub const TARGET_PLAIN: u32 = 256 * 1024;
/// Largest plain size of one record. Kafka's default `max.message.bytes` is 1 MiB; few topics go above 10 MiB.
pub const MAX_RECORD_PLAIN: u32 = 16 * 1024 * 1024;
/// Largest plain size of one batch: one maximal record, and room for the groups that travel with it.
pub const MAX_PLAIN: u32 = MAX_RECORD_PLAIN + 1024 * 1024;
/// Most groups in one batch.
pub const MAX_GROUPS: u32 = 1 << 15;
/// Most records in one batch, over all groups.
pub const MAX_RECORDS: u32 = 1 << 18;
/// Most headers in one batch, over all records.
pub const MAX_HEADERS: u32 = 1 << 20;

/// Names that the header dictionary of one lane epoch remembers; later ones are spelled out each time.
pub const MAX_HEADER_NAMES: usize = 1024;
/// Longest header name that the dictionary remembers, in bytes.
pub const MAX_HEADER_NAME: usize = 256;
/// Bytes of all names that the dictionary remembers.
pub const MAX_HEADER_NAME_BYTES: usize = 64 * 1024;
/// Slots below this have their position remembered from parcel to parcel; others spell it out each time.
pub const MAX_REMEMBERED_SLOTS: u32 = 1 << 14;

/// Columns of one lane epoch, over all topics and shapes.
pub const MAX_SHAPE_COLUMNS: usize = 4096;
/// Edges between columns: the size of all shapes together.
pub const MAX_SHAPE_EDGES: usize = 1 << 14;
/// Edges from one column: optional fields, kinds of records.
pub const MAX_SHAPE_NODE_EDGES: usize = 2048;
/// Longest text between two values, in bytes.
pub const MAX_SHAPE_LITERAL: usize = 8 * 1024;
/// Bytes of all text between values.
pub const MAX_SHAPE_LITERAL_BYTES: usize = 512 * 1024;
/// Topics whose shapes an encoder tells apart in one lane.
pub const MAX_SHAPE_TOPICS: usize = 256;
/// Most values in all columns of one parcel; further records go whole.
pub const MAX_COLUMN_VALUES: u32 = 1 << 19;

/// Largest zstd window that is accepted by default, as a power of two: 4 MiB of memory per decoder.
pub const MAX_WINDOW_LOG: u32 = 22;
/// Smallest and largest zstd level of an encoder.
pub const LEVELS: std::ops::RangeInclusive<i32> = 1..=12;
/// Smallest and largest window that an encoder can be set to, as powers of two.
pub const WINDOW_LOGS: std::ops::RangeInclusive<u32> = 17..=27;

/// Largest coded size of one parcel body.
pub const MAX_CODED: u32 = 28 * 1024 * 1024;

/// Largest serialized size that a batch of `plain` bytes can have.
///
/// Half as much again covers the worst varints of a group (36 bytes, counted as 32), of a record (35, counted as 32)
/// and of a header whose name is spelled out (11, counted as 8); the constant covers the rest of the layout, and what a
/// few records of new shapes have to tell of them: a table of 1,000 columns with one digit in each, say. Where shapes
/// would need more, the encoder lays records out side by side.
pub const fn serialized_bound(plain: u32) -> u64 {
    plain as u64 + plain as u64 / 2 + MAX_SHAPES_TOLD as u64 + 256
}

/// Bytes by which the shapes and columns that a batch begins may exceed what their values leave of the serialized size:
/// so many edges and columns at once are all that a lane epoch can have, with 10 bytes for each.
pub const MAX_SHAPES_TOLD: u32 = 10 * (MAX_SHAPE_EDGES + MAX_SHAPE_COLUMNS) as u32;

/// Largest coded size that a batch of `plain` bytes can have: stored blocks cost 3 bytes in 128 KiB.
pub const fn coded_bound(plain: u32) -> u64 {
    let serialized = serialized_bound(plain);
    serialized + serialized / 1024 + 256
}

const _: () = {
    assert!(TARGET_PLAIN < MAX_RECORD_PLAIN);
    assert!(MAX_RECORD_PLAIN as u64 + GROUP_OVERHEAD <= MAX_PLAIN as u64, "a maximal record travels alone");
    assert!(coded_bound(MAX_PLAIN) <= MAX_CODED as u64, "whatever can be encoded can be sent");
    assert!(MAX_GROUPS as u64 * GROUP_OVERHEAD <= MAX_PLAIN as u64);
    assert!(MAX_RECORDS as u64 * RECORD_OVERHEAD <= MAX_PLAIN as u64);
    assert!(MAX_HEADERS as u64 * HEADER_OVERHEAD <= MAX_PLAIN as u64);
    // Spans into a batch are 32 bits wide. Its arena holds the serialized batch, names from earlier ones, and its rows.
    assert!(
        serialized_bound(MAX_PLAIN) + MAX_HEADER_NAME_BYTES as u64 + (MAX_PLAIN as u64) < u32::MAX as u64
    );
    assert!(MAX_COLUMN_VALUES as u64 >= 2 * MAX_RECORDS as u64, "every key and value can go whole");
    assert!(MAX_HEADER_NAMES <= u16::MAX as usize && MAX_HEADER_NAME <= MAX_HEADER_NAME_BYTES);
    assert!(*WINDOW_LOGS.start() <= MAX_WINDOW_LOG && MAX_WINDOW_LOG <= *WINDOW_LOGS.end());
};
