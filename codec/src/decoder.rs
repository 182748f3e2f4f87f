//! Parcels to batches, with a bound on everything.

use std::fmt;

use zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer, ResetDirective};

use crate::deflate::MAX_OPENED;
use crate::format::{READABLE, ZSTD_MAGIC, flag};
use crate::limits::{
    MAX_CODED, MAX_GROUPS, MAX_HEADERS, MAX_PLAIN, MAX_RECORDS, MAX_WINDOW_LOG, WINDOW_LOGS, serialized_bound,
};
use crate::parse::Parser;
use crate::varint::Reader;
use crate::{Batch, Error};

/// What a [`Decoder`] accepts. The defaults are those of [`limits`](crate::limits), which every encoder keeps to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodeLimits {
    /// Largest plain size of a batch, in bytes; at most the default.
    pub max_plain: u32,
    /// Largest body of a parcel, in bytes.
    pub max_coded: u32,
    /// Most groups in a batch.
    pub max_groups: u32,
    /// Most records in a batch.
    pub max_records: u32,
    /// Most headers in a batch.
    pub max_headers: u32,
    /// Largest zstd window, as a power of two: memory that a sender makes this side hold.
    pub window_log_max: u32,
}

impl Default for DecodeLimits {
    fn default() -> Self {
        Self {
            max_plain: MAX_PLAIN,
            max_coded: MAX_CODED,
            max_groups: MAX_GROUPS,
            max_records: MAX_RECORDS,
            max_headers: MAX_HEADERS,
            window_log_max: MAX_WINDOW_LOG,
        }
    }
}

/// Decodes the parcels of one lane epoch, in order. After an error it decodes nothing more.
pub struct Decoder {
    /// None before the first frame, and while the lane rests.
    context: Option<DCtx<'static>>,
    limits: DecodeLimits,
    parser: Parser,
    poisoned: bool,
}

impl Decoder {
    /// A decoder at the start of a lane epoch.
    ///
    /// # Errors
    /// [`Error::Setting`] for a limit out of range.
    pub fn new(limits: DecodeLimits) -> Result<Self, Error> {
        let window_log = limits.window_log_max;
        if !WINDOW_LOGS.contains(&window_log) {
            let (low, high) = ((*WINDOW_LOGS.start()).into(), (*WINDOW_LOGS.end()).into());
            return Err(Error::Setting {
                name: "largest zstd window log",
                value: window_log.into(),
                low,
                high,
            });
        }
        if limits.max_plain > MAX_PLAIN {
            let (value, high) = (limits.max_plain.into(), MAX_PLAIN.into());
            return Err(Error::Setting { name: "largest plain size", value, low: 0, high });
        }
        Ok(Self { context: None, limits, parser: Parser::new(), poisoned: false })
    }

    /// The batch of a parcel's body. `plain` is the size that the parcel's header declares.
    ///
    /// # Errors
    /// Any disagreement; the decoder is of no more use then.
    pub fn decode(&mut self, coded: &[u8], plain: u32) -> Result<Batch, Error> {
        let mut batch = Batch::new();
        self.decode_into(coded, plain, &mut batch)?;
        Ok(batch)
    }

    /// As [`decode`](Self::decode), into the memory of a batch that is no longer needed: once it has grown, nothing
    /// is allocated. The batch is empty after an error.
    ///
    /// # Errors
    /// Any disagreement; the decoder is of no more use then.
    pub fn decode_into(&mut self, coded: &[u8], plain: u32, batch: &mut Batch) -> Result<(), Error> {
        batch.clear();
        if self.poisoned {
            return Err(Error::Poisoned);
        }
        // Until it is known to be sound.
        self.poisoned = true;
        let decoded = match coded.first() {
            Some(&first) if first & 0x0f == flag::REST => self.rest(coded, plain),
            _ => self
                .expand(coded, plain, &mut batch.arena)
                .and_then(|opened| self.parser.parse(batch, plain, opened, &self.limits)),
        };
        match decoded {
            Ok(()) => self.poisoned = false,
            Err(_) => batch.clear(),
        }
        decoded
    }

    /// Bytes of memory held for this lane: zstd's, the shapes and columns.
    pub fn memory(&self) -> usize {
        self.context.as_ref().map_or(0, DCtx::sizeof) + self.parser.memory()
    }

    /// Forgets everything and gives its memory back, as a parcel of one byte and no records says.
    fn rest(&mut self, coded: &[u8], plain: u32) -> Result<(), Error> {
        version_and_flags(coded[0])?;
        same("parcel of a lane that rests", 1, coded.len())?;
        same("plain batch", plain as usize, 0)?;
        (self.context, self.parser) = (None, Parser::new());
        Ok(())
    }

    /// Checks the declared sizes and fills `arena` with the serialized batch. Returns the size with values opened, if some
    /// are open.
    fn expand(&mut self, coded: &[u8], plain: u32, arena: &mut Vec<u8>) -> Result<Option<u32>, Error> {
        within("coded bytes", coded.len() as u64, self.limits.max_coded.into())?;
        within("plain bytes", plain.into(), self.limits.max_plain.into())?;
        let mut reader = Reader::new(coded, "preface");
        let flags = version_and_flags(reader.byte()?)?;
        let serialized = reader.number()?;
        let mut opened = None;
        if flags & flag::OPENED != 0 {
            let size = reader.number()?;
            let limit = plain.saturating_add(MAX_OPENED).min(MAX_PLAIN);
            within("bytes with values opened", size, limit.into())?;
            opened = Some(size as u32);
        }
        within("serialized bytes", serialized, serialized_bound(opened.unwrap_or(plain)))?;
        let serialized = serialized as usize;
        let body = &coded[reader.at()..];
        if flags & flag::RAW != 0 {
            same("serialized batch", serialized, body.len())?;
        } else if flags & flag::FRAME != 0 {
            self.begin_frame(body)?;
        } else if self.context.is_none() {
            return Err(Error::NoFrame);
        }
        // One byte more than declared shows whether zstd had more to give.
        arena.reserve_exact(serialized + self.parser.appended_bound() + 1);
        if flags & flag::RAW != 0 {
            arena.extend_from_slice(body);
            return Ok(opened);
        }
        self.decompress(body, serialized, arena).map(|()| opened)
    }

    /// Looks at the frame header itself, before zstd allocates what it asks for (RFC 8878, 3.1.1.1). The magic number
    /// is checked here as a build may have zstd's legacy decoders switched on.
    fn begin_frame(&mut self, body: &[u8]) -> Result<(), Error> {
        let Some((header, _)) = body.split_first_chunk::<6>() else {
            return Err(Error::Truncated { section: "zstd frame header" });
        };
        let [magic @ .., descriptor, window] = *header;
        if magic != ZSTD_MAGIC {
            return Err(Error::Magic);
        }
        if descriptor != 0 {
            return Err(Error::FrameHeader(descriptor));
        }
        let base = 1u64 << (10 + (window >> 3));
        let window = base + base / 8 * u64::from(window & 7);
        let limit = 1u64 << self.limits.window_log_max;
        if window > limit {
            return Err(Error::Window { window, limit });
        }
        if let Some(context) = &mut self.context {
            context.reset(ResetDirective::SessionOnly).map_err(Error::zstd)?;
            return Ok(());
        }
        let mut context = DCtx::try_create().ok_or(Error::Zstd("no memory for a context"))?;
        let window_log = self.limits.window_log_max;
        context.set_parameter(DParameter::WindowLogMax(window_log)).map_err(Error::zstd)?;
        self.context = Some(context);
        Ok(())
    }

    /// Decompresses all of `body` into `arena`, which has room for more than the `serialized` bytes expected.
    fn decompress(&mut self, body: &[u8], serialized: usize, arena: &mut Vec<u8>) -> Result<(), Error> {
        let context = self.context.as_mut().ok_or(Error::NoFrame)?;
        let mut output = OutBuffer::around(arena);
        let mut input = InBuffer::around(body);
        let mut next_input = BLOCK_HEADER;
        while input.pos() < body.len() && output.pos() <= serialized {
            next_input = context.decompress_stream(&mut output, &mut input).map_err(Error::zstd)?;
            if next_input == 0 {
                return Err(Error::FrameEnded);
            }
        }
        // Room was left in the output, so zstd holds nothing back of what it has decoded.
        same("serialized batch", serialized, output.pos())?;
        // Nor has it been given the beginning of another block.
        if next_input == BLOCK_HEADER { Ok(()) } else { Err(Error::Leftover) }
    }
}

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decoder")
            .field("limits", &self.limits)
            .field("poisoned", &self.poisoned)
            .finish_non_exhaustive()
    }
}

/// The flags of a parcel that begins with this byte.
fn version_and_flags(first: u8) -> Result<u8, Error> {
    let (version, flags) = (first >> 4, first & 0x0f);
    if !READABLE.contains(&version) {
        return Err(Error::Version(version));
    }
    if flag::known(version, flags) { Ok(flags) } else { Err(Error::Flags(flags)) }
}

fn within(what: &'static str, actual: u64, limit: u64) -> Result<(), Error> {
    if actual <= limit { Ok(()) } else { Err(Error::TooMuch { what, actual, limit }) }
}

fn same(what: &'static str, declared: usize, actual: usize) -> Result<(), Error> {
    let mismatch = || Error::SizeMismatch { what, declared: declared as u64, actual: actual as u64 };
    if declared == actual { Ok(()) } else { Err(mismatch()) }
}

/// Bytes that zstd asks for next when it stands between two blocks.
const BLOCK_HEADER: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::VERSION;

    #[test]
    fn nothing_is_allocated_for_what_is_refused() {
        let huge = [0x90, 0x80, 0x80, 0x80, 0x08];
        let refused = |first: u8, rest: &[u8], plain: u32| {
            let mut arena = Vec::new();
            let mut decoder = Decoder::new(DecodeLimits::default()).expect("default limits");
            let coded = [&[first], rest].concat();
            assert!(decoder.expand(&coded, plain, &mut arena).is_err());
            assert_eq!(arena.capacity(), 0, "{coded:?}");
        };
        for flags in [0, flag::RAW, flag::FRAME] {
            let first = VERSION << 4 | flags;
            refused(first, &huge, MAX_PLAIN);
            refused(first, &huge, 1 << 31);
            // Ten bytes declared, none there: neither raw, nor of a frame.
            refused(first, &[10], 1000);
        }
    }
}
