//! Bytes to batch, in one pass over each column. [`serialize`](crate::serialize) is its mirror.
//!
//! The bytes may come from anywhere, with a checksum that fits: nothing is believed, nothing is allocated before it
//! was checked against the bytes that are left and against the plain size that the parcel declares.

use crate::Error;
use crate::batch::{Batch, GapReason, Group, HeaderSpan, Meta, NULL, length};
use crate::checksum;
use crate::decoder::DecodeLimits;
use crate::deflate::Closer;
use crate::format::{CHECKSUM, MIN_GROUP, MIN_HEADER, group, header, kind};
use crate::layout::Layout;
use crate::limits::{GROUP_OVERHEAD, HEADER_OVERHEAD, RECORD_OVERHEAD};
use crate::shape;
use crate::state::{Names, Position, Positions};
use crate::timestamps::TimestampReader;
use crate::varint::Reader;

/// Reads batches and remembers what the serializer on the other side remembers.
#[derive(Debug)]
pub(crate) struct Parser {
    positions: Positions,
    names: Names,
    shapes: shape::Decoder,
    timestamps: TimestampReader,
    closer: Closer,
    /// Names from earlier parcels that this one uses; they follow the serialized batch in its arena.
    appended: Vec<u8>,
    /// Records of each group of this parcel.
    counts: Vec<u32>,
}

impl Parser {
    pub(crate) fn new() -> Self {
        Self {
            positions: Positions::default(),
            names: Names::default(),
            shapes: shape::Decoder::new(),
            timestamps: TimestampReader::default(),
            closer: Closer::default(),
            appended: Vec::new(),
            counts: Vec::new(),
        }
    }

    /// Bytes held.
    pub(crate) fn memory(&self) -> usize {
        self.shapes.memory()
            + self.timestamps.memory()
            + self.closer.memory()
            + self.names.total_bytes()
            + self.appended.capacity()
            + self.counts.capacity() * 4
    }

    /// Most bytes that [`parse`](Self::parse) appends to an arena.
    pub(crate) fn appended_bound(&self) -> usize {
        self.names.total_bytes()
    }

    /// Makes a batch of the serialized one in `batch.arena`, whose bytes its records then point to. Its size is `plain`,
    /// and before its open values were closed, if there are some, `opened`.
    pub(crate) fn parse(
        &mut self,
        batch: &mut Batch,
        plain: u32,
        opened: Option<u32>,
        limits: &DecodeLimits,
    ) -> Result<(), Error> {
        let arena = std::mem::take(&mut batch.arena);
        let mut budget = Budget::new(opened.unwrap_or(plain));
        let parsed = self.sections(&arena, batch, &mut budget, opened.is_some(), limits);
        batch.arena = arena;
        let (expected, layout) = parsed?;
        batch.arena.extend_from_slice(&self.appended);
        if layout == Layout::Shapes {
            // The columns' values are decoded by now: what they come to is within the budget.
            budget.spend(self.shapes.build(batch))?;
        }
        budget.spent()?;
        if opened.is_some() {
            self.closer.close(batch, plain.into())?;
            let actual = batch.groups.iter().map(|group| GROUP_OVERHEAD + group.plain).sum();
            if actual != u64::from(plain) {
                return Err(Error::SizeMismatch { what: "plain batch", declared: plain.into(), actual });
            }
        }
        batch.plain = plain.into();
        let actual = checksum::of_batch(batch);
        if actual == expected { Ok(()) } else { Err(Error::Checksum { expected, actual }) }
    }

    /// Reads all sections; returns the checksum as sent, and whether the rows are still to be built.
    fn sections(
        &mut self,
        arena: &[u8],
        batch: &mut Batch,
        budget: &mut Budget,
        opened: bool,
        limits: &DecodeLimits,
    ) -> Result<(u64, Layout), Error> {
        let (body, sum) =
            arena.split_last_chunk::<CHECKSUM>().ok_or(Error::Truncated { section: "checksum" })?;
        let mut reader = Reader::new(body, "groups");
        let mut layout = Layout::Rows;
        self.names.begin_parcel();
        self.appended.clear();
        let records = self.groups(&mut reader, batch, budget, limits)?;
        if records > 0 {
            self.offsets(&mut reader, batch)?;
            self.timestamps(&mut reader, batch)?;
            self.headers(&mut reader, batch, budget, limits, arena.len() as u32)?;
            layout = self.payload(&mut reader, batch, budget)?;
        }
        if opened {
            expect_kind(&mut reader, "opened values", &[kind::OPENED])?;
            self.closer.read(&mut reader, records)?;
        }
        match reader.remaining() {
            0 => Ok((u64::from_le_bytes(*sum), layout)),
            bytes => Err(Error::Trailing(bytes as u64)),
        }
    }

    fn groups(
        &mut self,
        reader: &mut Reader<'_>,
        batch: &mut Batch,
        budget: &mut Budget,
        limits: &DecodeLimits,
    ) -> Result<u64, Error> {
        expect_kind(reader, "groups", &[kind::GROUP_TABLE])?;
        let groups = reader.count("groups", MIN_GROUP, limits.max_groups.into())?;
        let mut records = 0;
        self.counts.clear();
        for _ in 0..groups {
            let slot = reader.number_u32()?;
            let flags = reader.byte()?;
            let gap = GapReason::from_wire(flags & group::GAP)
                .filter(|_| flags & !(group::GAP | group::POSITION | group::LEADER_EPOCH) == 0)
                .ok_or(Error::GroupFlags { slot, flags })?;
            let count = reader.number_u32()?;
            let missing = reader.number()?;
            let Position { mut resume_epoch, next: mut prev_next, mut leader_epoch } =
                self.positions.get(slot);
            if flags & group::POSITION != 0 {
                resume_epoch = reader.number_u32()?;
                prev_next = prev_next.wrapping_add(reader.signed()?);
            }
            if flags & group::LEADER_EPOCH != 0 {
                leader_epoch = reader.signed()?.try_into().map_err(|_| Error::GroupFlags { slot, flags })?;
            }
            let next = missing
                .checked_add(count.into())
                .and_then(|covered| prev_next.checked_add_unsigned(covered))
                .ok_or(Error::OffsetRange { slot })?;
            budget.spend(GROUP_OVERHEAD + u64::from(count) * RECORD_OVERHEAD)?;
            records += u64::from(count);
            self.positions.set(slot, Position { resume_epoch, next, leader_epoch });
            let group = batch.append_group(slot, resume_epoch, prev_next, next, gap);
            batch.groups_mut()[group].leader_epoch = leader_epoch;
            self.counts.push(count);
        }
        // They may need no bytes of their own; what memory they take, the plain size has paid for.
        let limit = u64::from(limits.max_records);
        if records > limit {
            return Err(Error::TooMuch { what: "records", actual: records, limit });
        }
        Ok(records)
    }

    fn offsets(&mut self, reader: &mut Reader<'_>, batch: &mut Batch) -> Result<(), Error> {
        expect_kind(reader, "offsets", &[kind::OFFSET_RUNS])?;
        for (group, &count) in batch.groups.iter_mut().zip(&self.counts) {
            group.records.reserve_exact(count as usize);
            group.plain = u64::from(count) * RECORD_OVERHEAD;
            let mut left = u64::from(count);
            if group.next.abs_diff(group.prev_next) == left {
                append_run(group, group.prev_next, group.next);
                continue;
            }
            let mut expected = group.prev_next;
            while left > 0 {
                let (skipped, run) = (reader.number()?, reader.number()?);
                let first = expected.checked_add_unsigned(skipped);
                let end = first.and_then(|first| first.checked_add_unsigned(run));
                let (Some(first), Some(end)) = (first, end) else {
                    return Err(Error::OffsetRange { slot: group.slot });
                };
                if run == 0 || run > left || end > group.next {
                    return Err(Error::OffsetRange { slot: group.slot });
                }
                append_run(group, first, end);
                expected = end;
                left -= run;
            }
        }
        Ok(())
    }

    fn timestamps(&mut self, reader: &mut Reader<'_>, batch: &mut Batch) -> Result<(), Error> {
        let known =
            [kind::TIMESTAMP_DELTAS, kind::TIMESTAMP_UNITS, kind::TIMESTAMP_RANGED, kind::TIMESTAMP_RUNS];
        let kind = expect_kind(reader, "timestamps", &known)?;
        self.timestamps.read(kind, reader, batch, &mut self.positions)
    }

    fn headers(
        &mut self,
        reader: &mut Reader<'_>,
        batch: &mut Batch,
        budget: &mut Budget,
        limits: &DecodeLimits,
        arena_end: u32,
    ) -> Result<(), Error> {
        if expect_kind(reader, "headers", &[kind::HEADERS_NONE, kind::HEADERS_NAMED])? == kind::HEADERS_NONE {
            return Ok(());
        }
        let headers = &mut batch.headers;
        for group in &mut batch.groups {
            for meta in &mut group.records {
                let limit = u64::from(limits.max_headers) - headers.len() as u64;
                let count = reader.count("headers", MIN_HEADER, limit)?;
                meta.first_header = headers.len() as u32;
                meta.headers = count as u32;
                for _ in 0..count {
                    let header = self.header(reader, budget, arena_end)?;
                    group.plain += header.plain_size();
                    headers.push(header);
                }
            }
        }
        for header in headers {
            header.value_start = reader.at() as u32;
            reader.take(length(header.value))?;
        }
        Ok(())
    }

    fn header(
        &mut self,
        reader: &mut Reader<'_>,
        budget: &mut Budget,
        arena_end: u32,
    ) -> Result<HeaderSpan, Error> {
        budget.spend(HEADER_OVERHEAD)?;
        let reference = reader.number()?;
        let (name_start, name) = if reference >= header::FIRST {
            let number = reference - header::FIRST;
            let placed = self.names.place(number, arena_end, &mut self.appended);
            let (start, name) = placed.ok_or(Error::HeaderName(number))?;
            budget.spend(name.into())?;
            (start, name)
        } else {
            let name = reader.number()?;
            budget.spend(name)?;
            let start = reader.at() as u32;
            let bytes = reader.take(name as usize)?;
            if reference == header::DEFINED && !self.names.define(bytes, start) {
                return Err(Error::HeaderNameDefinition(name));
            }
            (start, name as u32)
        };
        let value = read_length(reader, budget)?;
        Ok(HeaderSpan { name_start, name, value_start: 0, value })
    }

    fn payload(
        &mut self,
        reader: &mut Reader<'_>,
        batch: &mut Batch,
        budget: &mut Budget,
    ) -> Result<Layout, Error> {
        if expect_kind(reader, "payload", &[kind::PAYLOAD_ROWS, kind::PAYLOAD_SHAPES])? == kind::PAYLOAD_ROWS
        {
            return rows(reader, batch, budget).map(|()| Layout::Rows);
        }
        self.shapes.read(reader, batch, budget.left).map(|()| Layout::Shapes)
    }
}

fn rows(reader: &mut Reader<'_>, batch: &mut Batch, budget: &mut Budget) -> Result<(), Error> {
    expect_kind(reader, "key lengths", &[kind::LENGTHS])?;
    for group in &mut batch.groups {
        for meta in &mut group.records {
            meta.key = read_length(reader, budget)?;
            group.plain += length(meta.key) as u64;
        }
    }
    expect_kind(reader, "value lengths", &[kind::LENGTHS])?;
    for group in &mut batch.groups {
        for meta in &mut group.records {
            meta.value = read_length(reader, budget)?;
            group.plain += length(meta.value) as u64;
        }
    }
    reader.section = "rows";
    for meta in batch.groups.iter_mut().flat_map(|group| &mut group.records) {
        meta.start = reader.at() as u32;
        reader.take(length(meta.key) + length(meta.value))?;
    }
    Ok(())
}

/// Appends records for the offsets from `first` to before `end`; everything else about them follows.
fn append_run(group: &mut Group, first: i64, end: i64) {
    let blank =
        |offset| Meta { offset, timestamp: 0, start: 0, key: NULL, value: NULL, first_header: 0, headers: 0 };
    group.records.extend((first..end).map(blank));
}

/// Begins a section: its kind must be one of `known`.
fn expect_kind(reader: &mut Reader<'_>, section: &'static str, known: &[u8]) -> Result<u8, Error> {
    reader.section = section;
    let kind = reader.byte()?;
    if known.contains(&kind) { Ok(kind) } else { Err(Error::UnknownKind { section, kind }) }
}

/// A length or null, paid from the budget: what is left of it is less than [`NULL`].
#[inline]
fn read_length(reader: &mut Reader<'_>, budget: &mut Budget) -> Result<u32, Error> {
    match reader.number()? {
        0 => Ok(NULL),
        number => budget.spend(number - 1).map(|()| (number - 1) as u32),
    }
}

/// The plain size as declared, and what the parcel has used of it.
struct Budget {
    declared: u64,
    left: u64,
}

impl Budget {
    fn new(declared: u32) -> Self {
        // Limits keep this far below NULL, the largest length.
        Self { declared: declared.into(), left: declared.into() }
    }

    #[inline]
    fn spend(&mut self, plain: u64) -> Result<(), Error> {
        match self.left.checked_sub(plain) {
            Some(left) => self.left = left,
            None => return Err(self.mismatch((self.declared - self.left).saturating_add(plain))),
        }
        Ok(())
    }

    fn spent(&self) -> Result<(), Error> {
        if self.left == 0 { Ok(()) } else { Err(self.mismatch(self.declared - self.left)) }
    }

    fn mismatch(&self, actual: u64) -> Error {
        Error::SizeMismatch { what: "plain batch", declared: self.declared, actual }
    }
}
