//! Batches to parcels, through one zstd stream.

use std::fmt;
use std::sync::Arc;

use zstd_safe::zstd_sys::ZSTD_EndDirective;
use zstd_safe::{CCtx, CParameter, InBuffer, OutBuffer, ParamSwitch, ResetDirective};

use crate::deflate::Opener;
use crate::format::{VERSION, flag};
use crate::layout::Trials;
use crate::limits::{LEVELS, WINDOW_LOGS, serialized_bound};
use crate::serialize::{self, Beside, Serializer, Written};
use crate::shape::Counts;
use crate::skip::Skip;
use crate::{Batch, Error, avro, varint};

/// How an [`Encoder`] compresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncoderSettings {
    /// zstd level, 1 to 12. Default 3.
    pub level: i32,
    /// zstd window as a power of two, 17 to 27. Default 22: 4 MiB at both ends. A decoder must allow as much.
    pub window_log: u32,
}

impl Default for EncoderSettings {
    fn default() -> Self {
        Self { level: 3, window_log: 22 }
    }
}

/// Sizes of one parcel, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// The batch's plain size, which the parcel header declares.
    pub plain: u32,
    /// What was appended: the parcel's body.
    pub coded: u32,
}

/// Codes the batches of one lane epoch, in order. Its memory is zstd's (about 5 MiB at level 3), one serialized
/// batch and the bounded state of [`limits`](crate::limits).
pub struct Encoder {
    /// None while it rests.
    context: Option<CCtx<'static>>,
    window_log: u32,
    serializer: Serializer,
    serialized: Vec<u8>,
    trials: Trials,
    skip: Skip,
    /// None when values stay closed.
    opener: Option<Opener>,
    level: i32,
    /// Level of the frame that is open, if one is.
    frame_level: Option<i32>,
    poisoned: bool,
}

impl Encoder {
    /// An encoder at the start of a lane epoch.
    ///
    /// # Errors
    /// [`Error::Setting`] for a setting out of range.
    pub fn new(settings: EncoderSettings) -> Result<Self, Error> {
        let EncoderSettings { level, window_log } = settings;
        if !LEVELS.contains(&level) {
            return Err(setting("zstd level", level.into(), LEVELS));
        }
        if !WINDOW_LOGS.contains(&window_log) {
            return Err(setting("zstd window log", window_log.into(), WINDOW_LOGS));
        }
        Ok(Self {
            context: None,
            window_log,
            serializer: Serializer::new(),
            serialized: Vec::new(),
            trials: Trials::new(),
            skip: Skip::new(),
            opener: Some(Opener::default()),
            level,
            frame_level: None,
            poisoned: false,
        })
    }

    /// Appends the coded batch to `out`. Parcels must be decoded in the order in which they were encoded.
    ///
    /// # Errors
    /// [`Error::BatchTooLarge`] and [`Error::BatchRange`] leave the stream as it was; any other ends it. `out` is
    /// unchanged after an error.
    pub fn encode(&mut self, batch: &Batch, out: &mut Vec<u8>) -> Result<Sizes, Error> {
        if self.poisoned {
            return Err(Error::Poisoned);
        }
        let counts = serialize::check(batch)?;
        self.serialized.clear();
        warm(&batch.arena);
        let opened = self.opener.as_mut().and_then(|opener| opener.open(batch));
        let beside = Beside { original: batch, opened: opened.map(|opened| opened.section.as_slice()) };
        let inside = opened.map_or(batch, |opened| &opened.batch);
        self.serialized.reserve(inside.plain_size() as usize);
        self.serializer.shapes.set_thrifty(self.level < RICH_LEVEL);
        let (layout, compare) = self.trials.next(inside);
        // Both are bounded by the check above.
        let most = serialized_bound(inside.plain_size() as u32) as usize;
        let before = self.serializer.shapes.counts();
        let Written { payload, blocks, unfit } =
            self.serializer.write(inside, counts, layout, beside, most, &mut self.serialized);
        if unfit {
            self.trials.unfit();
        } else if compare {
            let (definitions, counts) =
                (self.serializer.shapes.defined_bytes(), self.serializer.shapes.counts());
            let most_whole = counts.whole - before.whole
                > counts.followed + counts.parsed - before.followed - before.parsed;
            let shapes = (&self.serialized[payload], definitions, most_whole);
            self.trials.compare(|out| serialize::rows(inside, out), shapes);
        }
        let start = out.len();
        let opened_size = beside.opened.map(|_| inside.plain_size());
        if let Err(error) = self.write_parcel(opened_size, &blocks, out) {
            out.truncate(start);
            self.poisoned = true;
            return Err(error);
        }
        if self.serialized.capacity() > KEEP {
            self.serialized = Vec::new();
        }
        let size = |bytes: u64| u32::try_from(bytes).expect("bounded by the check above");
        Ok(Sizes { plain: size(batch.plain_size()), coded: size((out.len() - start) as u64) })
    }

    /// Gives nearly all memory back, and has the decoder do so too, by a parcel that says only that: it is of one byte and
    /// an empty batch. What was remembered is forgotten at both ends, so that the parcel after it is as large as the first
    /// one. For lanes that have nothing to send for a while.
    ///
    /// # Errors
    /// [`Error::Poisoned`] after an error that ended the stream.
    pub fn rest(&mut self, out: &mut Vec<u8>) -> Result<Sizes, Error> {
        if self.poisoned {
            return Err(Error::Poisoned);
        }
        out.push(VERSION << 4 | flag::REST);
        self.context = None;
        self.frame_level = None;
        self.serialized = Vec::new();
        self.serializer.rest();
        (self.trials, self.skip) = (Trials::new(), Skip::new());
        Ok(Sizes { plain: 0, coded: 1 })
    }

    /// Whether nothing was encoded since the last [`rest`](Self::rest), or at all.
    pub fn is_resting(&self) -> bool {
        self.context.is_none()
    }

    /// Compresses from the next parcel on with `level`, or the nearest one of 1 to 12.
    ///
    /// zstd takes a level only with a new frame, whose window starts empty: a change costs some ratio for the next
    /// few megabytes. What is remembered of names and positions stays.
    pub fn set_level(&mut self, level: i32) {
        self.level = level.clamp(*LEVELS.start(), *LEVELS.end());
    }

    /// The level of the next parcel.
    pub fn level(&self) -> i32 {
        self.level
    }

    /// Tells of which topic the source partition with this slot is: those of one topic share shapes and columns. Of what was not
    /// told, those do whose first records look alike.
    pub fn set_topic(&mut self, slot: u32, topic: &str) {
        self.serializer.shapes.set_topic(slot, topic);
    }

    /// Cuts keys and values that follow this Avro schema into columns: of the source partition with this slot, or of all;
    /// those behind schema id `id` as a schema registry gives it, or any, with or without an id. Other records are not
    /// touched, and the decoder needs no schema.
    pub fn use_avro(&mut self, slot: Option<u32>, id: Option<u32>, schema: Arc<avro::Schema>) {
        self.serializer.shapes.use_avro(slot, id, schema);
        self.trials.again();
    }

    /// Notes from now on which schema ids stand before records and were not given with [`use_avro`](Self::use_avro).
    pub fn note_schema_ids(&mut self) {
        self.serializer.shapes.note_schema_ids();
    }

    /// The ids that were noted since the last call, at most 64. A record that only looks as if it had one is among them.
    pub fn unknown_schema_ids(&mut self) -> Vec<u32> {
        self.serializer.shapes.unknown_schema_ids()
    }

    /// Whether values that are gzip or zlib are opened, which takes processor time at both ends, and as a rule saves most
    /// of their bytes. They are at first.
    pub fn set_opening(&mut self, opening: bool) {
        match (opening, &self.opener) {
            (true, None) => self.opener = Some(Opener::default()),
            (false, Some(_)) => self.opener = None,
            _ => {}
        }
    }

    /// What became of the keys and values so far: how many followed a known shape.
    pub fn shapes(&self) -> Counts {
        self.serializer.shapes.counts()
    }

    /// Bytes of memory held for this lane: zstd's, the shapes and columns, one serialized batch.
    pub fn memory(&self) -> usize {
        self.context.as_ref().map_or(0, CCtx::sizeof)
            + self.serializer.memory()
            + self.trials.memory()
            + self.serialized.capacity()
            + self.opener.as_ref().map_or(0, Opener::memory)
    }

    fn write_parcel(
        &mut self,
        opened: Option<u64>,
        blocks: &[usize],
        out: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let size = self.serialized.len();
        let context = match &mut self.context {
            Some(context) => context,
            none => none.insert(context(self.window_log)?),
        };
        if self.skip.next(&self.serialized) {
            out.reserve_exact(size + PREFACE);
            preface(out, flag::RAW, size, opened);
            out.extend_from_slice(&self.serialized);
            return Ok(());
        }
        let mut flags = 0;
        if self.frame_level != Some(self.level) {
            context.reset(ResetDirective::SessionOnly).map_err(Error::zstd)?;
            context.set_parameter(CParameter::CompressionLevel(self.level)).map_err(Error::zstd)?;
            context.set_parameter(CParameter::HashLog(hash_log(self.level))).map_err(Error::zstd)?;
            context.set_parameter(CParameter::UseBlockSplitter(splitter(self.level))).map_err(Error::zstd)?;
            self.frame_level = Some(self.level);
            flags = flag::FRAME;
        }
        let start = out.len();
        preface(out, flags, size, opened);
        let mut start_of_block = 0;
        for &end in blocks.iter().chain([&size]) {
            compress(context, &self.serialized[start_of_block..end], out)?;
            start_of_block = end;
        }
        self.skip.compressed(size, out.len() - start);
        Ok(())
    }
}

impl fmt::Debug for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encoder")
            .field("level", &self.level)
            .field("poisoned", &self.poisoned)
            .finish_non_exhaustive()
    }
}

fn context(window_log: u32) -> Result<CCtx<'static>, Error> {
    let mut context = CCtx::try_create().ok_or(Error::Zstd("no memory for a context"))?;
    context.set_parameter(CParameter::WindowLog(window_log)).map_err(Error::zstd)?;
    Ok(context)
}

/// Whether zstd looks for the places where one block had better end: it finds what belongs together in columns, and takes
/// time.
fn splitter(level: i32) -> ParamSwitch {
    if level < RICH_LEVEL { ParamSwitch::Auto } else { ParamSwitch::Enable }
}

/// Size of zstd's table of places, as a power of two; 0 for that of its level. Those of the highest levels would be 16 and
/// 32 MiB.
fn hash_log(level: i32) -> u32 {
    if level > 9 { MOST_HASH_LOG } else { 0 }
}

/// Appends all of `serialized`, flushed, so that it decodes without what follows.
fn compress(context: &mut CCtx<'static>, serialized: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
    out.reserve(serialized.len() / 8 + 1024);
    let mut input = InBuffer::around(serialized);
    loop {
        let position = out.len();
        let mut output = OutBuffer::around_pos(out, position);
        let left = context
            .compress_stream2(&mut output, &mut input, ZSTD_EndDirective::ZSTD_e_flush)
            .map_err(Error::zstd)?;
        if left == 0 {
            return Ok(());
        }
        out.reserve(left.max(4096));
    }
}

/// Brings `bytes` into the cache, in their order: records are read group by group, which jumps about in them.
fn warm(bytes: &[u8]) {
    if bytes.len() <= KEEP {
        std::hint::black_box(bytes.iter().step_by(CACHE_LINE).fold(0, |sum, byte| sum ^ byte));
    }
}

/// Appends the first bytes of a parcel: version and flags, serialized size, opened size if values are open.
fn preface(out: &mut Vec<u8>, flags: u8, serialized: usize, opened: Option<u64>) {
    let open = if opened.is_some() { flag::OPENED } else { 0 };
    out.push(VERSION << 4 | flags | open);
    varint::put(out, serialized as u64);
    if let Some(opened) = opened {
        varint::put(out, opened);
    }
}

fn setting<T: Into<i64> + Copy>(name: &'static str, value: i64, range: std::ops::RangeInclusive<T>) -> Error {
    Error::Setting { name, value, low: (*range.start()).into(), high: (*range.end()).into() }
}

/// From this level on the fewest bytes count in columns too, whatever their time; below, time does.
const RICH_LEVEL: i32 = 6;
/// What level 9 has, with 8 MiB.
const MOST_HASH_LOG: u32 = 21;
const CACHE_LINE: usize = 64;
/// Most bytes of a preface.
const PREFACE: usize = 21;
/// Capacity that is kept from one batch to the next; a larger one is given back.
const KEEP: usize = 2 * 1024 * 1024;
