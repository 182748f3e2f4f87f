//! Batch <-> parcel: records of one lane in plain form, and their coded form on the wire.

pub mod batch;
pub mod digest;
pub mod limits;

pub use batch::{Batch, GapReason, Group, RecordView, record_plain_size};
pub use digest::{Digest, ParseDigestError};
pub use limits::RECORD_OVERHEAD;
