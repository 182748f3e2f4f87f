//! Batch <-> parcel: records of one lane in plain form, and their coded form on the wire.

pub mod batch;
mod checksum;
mod decoder;
pub mod digest;
mod encoder;
mod error;
mod format;
pub mod limits;
mod parse;
mod serialize;
mod skip;
mod state;
mod varint;

pub use batch::{Batch, GapReason, Group, RecordView, record_plain_size};
pub use decoder::{DecodeLimits, Decoder};
pub use digest::{Digest, ParseDigestError};
pub use encoder::{Encoder, EncoderSettings, Sizes};
pub use error::Error;
pub use format::VERSION;
pub use limits::RECORD_OVERHEAD;
