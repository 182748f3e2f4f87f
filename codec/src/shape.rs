//! Records by their shape: what all records of a kind have in common is told once, what differs goes into columns.
//!
//! A record that follows a known [way](graph) is recognised by comparing the text between its values, without parsing.
//! Only a record of a new shape is [cut](token) by somebody who knows JSON or delimited text; its shape then becomes
//! part of the graph at both ends. Putting a record together is concatenation, so that whatever was cut, however
//! oddly, comes back as it was. A record without a shape is one value.
//!
//! ```text
//! flags: 1 RESET, 2 DEFINITIONS, 4 CHOICES, 8 DRESSES
//! DEFINITIONS: varint edges, for each: varint records since the last definition (keys count, then values),
//!     varint from (0: where the last one led, else node + 1), varint to (0: the end, else node),
//!     varint length, text
//! CHOICES: varint branches, for each: varint nodes left out, varint choices, for each 0 as guessed, else edge + 1
//! DRESSES: varint columns, for each: varint column, 1 length, 2 signed length, 3 byte of a branch and signed length
//!     or else byte of the other branch
//! then the columns that have values, those of keys first, in the order of their numbers
//! ```
//!
//! Nodes are numbered from 0: start of keys, start of values, whole keys, whole values, then as they are defined. The
//! column of node *n* is *n* - 2.

mod build;
mod chain;
mod decoder;
mod dress;
mod encoder;
mod follow;
mod graph;
mod origin;
mod parcel;
mod scan;
mod token;
mod topic;

pub(crate) use decoder::Decoder;
pub(crate) use encoder::Encoder;

/// Flags of the section.
mod flag {
    /// All shapes and columns are forgotten first.
    pub(super) const RESET: u8 = 1;
    pub(super) const DEFINITIONS: u8 = 2;
    pub(super) const CHOICES: u8 = 4;
    /// Values of some columns have something before them that is not in the column.
    pub(super) const DRESSES: u8 = 8;
    pub(super) const KNOWN: u8 = RESET | DEFINITIONS | CHOICES | DRESSES;
}

/// What became of the keys and values that an encoder has seen since it began. Null and empty ones are not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// They followed a known shape, without being parsed.
    pub followed: u64,
    /// They had a new shape, and were parsed.
    pub parsed: u64,
    /// They went whole: without a shape, or left out of the work as it does not pay.
    pub whole: u64,
    /// Columns that are known now.
    pub columns: u32,
    /// Edges between columns that are known now: the size of all shapes together.
    pub edges: u32,
}
