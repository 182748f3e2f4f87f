//! What can be wrong with a batch, and every wrong thing a parcel can be.

use crate::column::ColumnFault;

/// Why a batch was not encoded or a parcel not decoded.
///
/// After an error the stream is over, as coder and decoder no longer share their state: both ends start a new
/// lane epoch. The exceptions are [`BatchTooLarge`](Self::BatchTooLarge), [`BatchRange`](Self::BatchRange) and
/// [`Setting`](Self::Setting), which are found before anything changes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An earlier error ended this stream.
    #[error("this codec stream ended with an earlier error: start a new lane epoch")]
    Poisoned,
    /// A setting is out of range.
    #[error("{name} is {value}, outside {low} to {high}")]
    Setting {
        /// The setting.
        name: &'static str,
        /// What it was set to.
        value: i64,
        /// Smallest allowed value.
        low: i64,
        /// Largest allowed value.
        high: i64,
    },
    /// zstd refused its work; corrupt input is the usual cause when decoding.
    #[error("zstd: {0}")]
    Zstd(&'static str),

    /// To be encoded: more than one parcel may carry.
    #[error("batch has {actual} {what}, more than the {limit} that one parcel carries: split it")]
    BatchTooLarge {
        /// What there is too much of.
        what: &'static str,
        /// How much there is.
        actual: u64,
        /// How much there may be.
        limit: u64,
    },
    /// To be encoded: offsets do not ascend, or lie outside the group's range.
    #[error(
        "group of slot {slot} covers offsets {prev_next} to {next} (excluded): {offset} is outside, or not above the one before"
    )]
    BatchRange {
        /// Slot of the group.
        slot: u32,
        /// Start of its range.
        prev_next: i64,
        /// End of its range.
        next: i64,
        /// The offset that does not fit; `next` when the range itself is reversed.
        offset: i64,
    },

    /// A size or a count is above its limit.
    #[error("parcel declares {actual} {what}, limit {limit}")]
    TooMuch {
        /// What there is too much of.
        what: &'static str,
        /// The size or count as declared.
        actual: u64,
        /// The limit: configured, or what the remaining bytes can hold.
        limit: u64,
    },
    /// A format of another version.
    #[error("parcel has format version {0}, this side reads versions {oldest} to {newest}: upgrade the older side", oldest = crate::format::READABLE.start(), newest = crate::format::VERSION)]
    Version(u8),
    /// Flags that this version does not know.
    #[error("parcel has unknown flags {0:#x}")]
    Flags(u8),
    /// A kind of section or column that this version does not know.
    #[error("{section} section is of unknown kind {kind:#04x}: the sender is newer than this side")]
    UnknownKind {
        /// Where the kind was found.
        section: &'static str,
        /// Its number; the crate documentation has the registry.
        kind: u8,
    },
    /// The frame does not begin with zstd's standard magic number.
    #[error(
        "compressed data does not begin with zstd's magic number: legacy and skippable frames are refused"
    )]
    Magic,
    /// The zstd frame asks for something that a parcel never needs: a dictionary, a checksum, a content size.
    #[error("zstd frame header descriptor is {0:#04x}, only a plain streaming frame is accepted")]
    FrameHeader(u8),
    /// The zstd frame asks for more memory than is allowed.
    #[error("zstd frame asks for a window of {window} bytes, limit {limit}")]
    Window {
        /// Bytes asked for.
        window: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// Compressed data without a frame that it could belong to.
    #[error("compressed parcel before any frame began")]
    NoFrame,
    /// The zstd frame ended, which a sender never lets happen.
    #[error("zstd frame ended within a parcel")]
    FrameEnded,
    /// The data is not of the declared size.
    #[error("{what} is {actual} bytes, declared {declared}")]
    SizeMismatch {
        /// Which size.
        what: &'static str,
        /// As declared.
        declared: u64,
        /// As found, or as far as was read.
        actual: u64,
    },
    /// The parcel ends in the middle of a compressed block, or its bytes go on after the last one.
    #[error("parcel does not end where a compressed block ends")]
    Leftover,
    /// The bytes end too early.
    #[error("{section} section is cut short")]
    Truncated {
        /// Which section.
        section: &'static str,
    },
    /// Bytes after the last section.
    #[error("{0} bytes after the last section")]
    Trailing(u64),
    /// A variable-length number of more than 64 bits, or too large for what it counts.
    #[error("{section} section holds a number that is out of range")]
    Number {
        /// Which section.
        section: &'static str,
    },
    /// No such reason for a gap.
    #[error("group of slot {slot} has unknown flags or gap reason {flags:#04x}")]
    GroupFlags {
        /// Slot of the group.
        slot: u32,
        /// The byte.
        flags: u8,
    },
    /// A group's range or its offsets do not fit together.
    #[error("offsets of the group of slot {slot} do not fit its range")]
    OffsetRange {
        /// Slot of the group.
        slot: u32,
    },
    /// A header name that was never defined.
    #[error("header name {0} was never defined")]
    HeaderName(u64),
    /// A header name cannot be added to the dictionary: it is too long or the dictionary is full.
    #[error("header name of {0} bytes does not fit the dictionary")]
    HeaderNameDefinition(u64),
    /// What the payload section says of shapes does not hold together.
    #[error("payload by shapes: {0}")]
    Shape(&'static str),
    /// A value that travels opened cannot be closed again.
    #[error("a value that travels opened {0}")]
    Opened(&'static str),
    /// A column of the payload section is not one that an encoder writes.
    #[error("column {column}: {fault}")]
    Column {
        /// Number of the column.
        column: u32,
        /// What is wrong with it.
        fault: ColumnFault,
    },
    /// The records are not those that were encoded.
    #[error("checksum is {actual:#018x}, expected {expected:#018x}")]
    Checksum {
        /// As sent.
        expected: u64,
        /// As computed over what was decoded.
        actual: u64,
    },
}

impl Error {
    pub(crate) fn zstd(code: zstd_safe::ErrorCode) -> Self {
        Self::Zstd(zstd_safe::get_error_name(code))
    }
}
