//! Values that are compressed by themselves, with gzip or zlib: they travel as what they hold, and how to compress it again.
//!
//! What they hold goes through shapes and columns as any value does. The receiver compresses it as zlib did, to the very
//! bytes; where zlib's relatives chose another match here and there, that is told. The encoder has done the same before:
//! a value that does not come back goes as it is.
//!
//! ```text
//! section | varint headers, for each: varint length, bytes (of gzip with a time of 0)                           |
//!         | varint runs, for each: varint records left out, varint records, varint header, level, varint tokens |
//!         |     of a full block                                                                                 |
//!         | for each value with a header of gzip: signed difference of its time from the one before             |
//!         | for each value: varint corrections, for each: varint tokens between, varint length - 2 or 0,        |
//!         |     [varint distance]                                                                               |
//! ```
//!
//! - [`Opener`]: the coder's side. It decides by record whether to look, and by parcel whether it pays.
//! - [`Closer`]: the receiver's. It never inflates: all it is given are plain bytes, which are bounded before, and
//!   numbers, which are checked; a search that takes more work than sound data needs is refused.

mod closer;
mod inflate;
mod matcher;
mod member;
mod opener;
mod recipe;
mod token;
mod trees;

pub(crate) use closer::Closer;
pub(crate) use opener::Opener;

/// Most bytes that the values of one parcel may be longer than they were before they were opened.
pub(crate) const MAX_OPENED: u32 = 4 << 20;
/// Most bytes that all opened values of a parcel hold: what compressing them takes is bounded by it.
const MAX_HELD: usize = 8 << 20;
/// Most bytes that a value holds for each of its own: more than any text compresses.
const MAX_RATIO: usize = 200;

#[cfg(test)]
mod tests;
