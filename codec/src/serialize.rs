//! Batch to bytes: columns of metadata, rows of keys and values. [`parse`](crate::parse) is its mirror.

use std::ops::Range;

use crate::Error;
use crate::batch::{Batch, Group, HeaderSpan, Meta, NULL};
use crate::checksum;
use crate::format::{group, header, kind};
use crate::layout::Layout;
use crate::limits::{MAX_GROUPS, MAX_HEADERS, MAX_PLAIN, MAX_RECORDS};
use crate::shape;
use crate::state::{NameNumbers, NameRef, Position, Positions};
use crate::timestamps::TimestampWriter;
use crate::varint::{put, put_signed};

/// Writes batches and remembers what the parser on the other side remembers.
#[derive(Debug)]
pub(crate) struct Serializer {
    positions: Positions,
    names: NameNumbers,
    timestamps: TimestampWriter,
    pub(crate) shapes: shape::Encoder,
}

/// What is written beside the batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Beside<'a> {
    /// Of which the checksum is.
    pub(crate) original: &'a Batch,
    /// How opened values are closed again, if some are open.
    pub(crate) opened: Option<&'a [u8]>,
}

/// Where parts of what was written lie.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) payload: Range<usize>,
    /// Where a zstd block had better begin, ascending.
    pub(crate) blocks: Vec<usize>,
    /// It was to be by shapes, which was too much.
    pub(crate) unfit: bool,
}

/// What [`check`] counted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counts {
    records: u64,
    headers: u64,
}

/// Refuses what a parcel cannot carry or a parser would refuse, before any state changes.
pub(crate) fn check(batch: &Batch) -> Result<Counts, Error> {
    let mut counts = Counts { records: 0, headers: 0 };
    for group in &batch.groups {
        check_offsets(group)?;
        counts.records += group.records.len() as u64;
        counts.headers += group.records.iter().map(|meta| u64::from(meta.headers)).sum::<u64>();
    }
    let bounds = [
        ("plain bytes", batch.plain_size(), MAX_PLAIN),
        ("groups", batch.groups.len() as u64, MAX_GROUPS),
        ("records", counts.records, MAX_RECORDS),
        ("headers", counts.headers, MAX_HEADERS),
    ];
    match bounds.into_iter().find(|(_, actual, limit)| *actual > u64::from(*limit)) {
        Some((what, actual, limit)) => Err(Error::BatchTooLarge { what, actual, limit: limit.into() }),
        None => Ok(counts),
    }
}

fn check_offsets(group: &Group) -> Result<(), Error> {
    let Group { slot, prev_next, next, .. } = *group;
    let wrong = |offset| Err(Error::BatchRange { slot, prev_next, next, offset });
    if next < prev_next {
        return wrong(next);
    }
    let mut lowest = prev_next;
    for meta in &group.records {
        if meta.offset < lowest || meta.offset >= next {
            return wrong(meta.offset);
        }
        // Below `next`, so that this cannot overflow.
        lowest = meta.offset + 1;
    }
    Ok(())
}

impl Serializer {
    pub(crate) fn new() -> Self {
        Self {
            positions: Positions::default(),
            names: NameNumbers::default(),
            timestamps: TimestampWriter::default(),
            shapes: shape::Encoder::new(),
        }
    }

    /// Forgets what the parser forgets with [`Parser::new`](crate::parse::Parser::new).
    pub(crate) fn rest(&mut self) {
        let mut shapes = std::mem::replace(&mut self.shapes, shape::Encoder::new());
        *self = Self::new();
        self.shapes.succeed(&mut shapes);
    }

    /// Bytes held.
    pub(crate) fn memory(&self) -> usize {
        self.shapes.memory() + self.timestamps.memory()
    }

    /// Appends `batch`, which [`check`] has let through, to `out`, which is empty: `most` bytes at most, if need be in
    /// another layout.
    pub(crate) fn write(
        &mut self,
        batch: &Batch,
        counts: Counts,
        layout: Layout,
        beside: Beside<'_>,
        most: usize,
        out: &mut Vec<u8>,
    ) -> Written {
        self.groups(batch, out);
        let mut payload = out.len()..out.len();
        let (mut blocks, mut unfit) = (Vec::new(), false);
        self.shapes.passed(batch.plain_size());
        if counts.records > 0 {
            offsets(batch, out);
            self.timestamps.write(batch, &mut self.positions, out);
            if counts.headers > 0 {
                self.headers(batch, out);
            } else {
                out.push(kind::HEADERS_NONE);
            }
            payload.start = out.len();
            let behind = beside.opened.map_or(0, |section| section.len() + 1) + CHECKSUM;
            (blocks, unfit) = self.payload(batch, layout, most.saturating_sub(behind), out);
        }
        payload.end = out.len();
        if let Some(section) = beside.opened {
            out.push(kind::OPENED);
            out.extend_from_slice(section);
        }
        out.extend_from_slice(&checksum::of_batch(beside.original).to_le_bytes());
        Written { payload, blocks, unfit }
    }

    /// Appends keys and values. Returns where a zstd block had better begin, and whether shapes, which it was to be, came to more
    /// than `most` bytes of `out`. Rows never do.
    fn payload(
        &mut self,
        batch: &Batch,
        layout: Layout,
        most: usize,
        out: &mut Vec<u8>,
    ) -> (Vec<usize>, bool) {
        let start = out.len();
        if layout == Layout::Shapes {
            out.push(kind::PAYLOAD_SHAPES);
            let blocks = self.shapes.write(batch, out).to_vec();
            if out.len() <= most {
                return (blocks, false);
            }
            self.shapes.forget();
            out.truncate(start);
        }
        rows(batch, out);
        (Vec::new(), layout == Layout::Shapes)
    }

    fn groups(&mut self, batch: &Batch, out: &mut Vec<u8>) {
        out.push(kind::GROUP_TABLE);
        put(out, batch.groups.len() as u64);
        for group in &batch.groups {
            let remembered = self.positions.get(group.slot);
            let spelled = (remembered.resume_epoch, remembered.next) != (group.resume_epoch, group.prev_next);
            let led_anew = remembered.leader_epoch != group.leader_epoch;
            put(out, group.slot.into());
            let position = if spelled { group::POSITION } else { 0 };
            let epoch = if led_anew { group::LEADER_EPOCH } else { 0 };
            out.push(group.gap.to_wire() | position | epoch);
            put(out, group.records.len() as u64);
            put(out, missing(group));
            if spelled {
                put(out, group.resume_epoch.into());
                put_signed(out, group.prev_next.wrapping_sub(remembered.next));
            }
            if led_anew {
                put_signed(out, group.leader_epoch.into());
            }
            let Group { resume_epoch, next, leader_epoch, .. } = *group;
            self.positions.set(group.slot, Position { resume_epoch, next, leader_epoch });
        }
    }

    fn headers(&mut self, batch: &Batch, out: &mut Vec<u8>) {
        out.push(kind::HEADERS_NAMED);
        for meta in records(batch) {
            put(out, meta.headers.into());
            for (place, header) in batch.headers[meta.header_range()].iter().enumerate() {
                self.header(batch, place, header, out);
            }
        }
        for header in records(batch).flat_map(|meta| &batch.headers[meta.header_range()]) {
            out.extend_from_slice(&batch.arena[header.value_range()]);
        }
    }

    fn header(&mut self, batch: &Batch, place: usize, span: &HeaderSpan, out: &mut Vec<u8>) {
        let name = &batch.arena[span.name_range()];
        let reference = match self.names.refer(place, name) {
            NameRef::Known(number) => u64::from(number) + header::FIRST,
            NameRef::Defined => header::DEFINED,
            NameRef::Spelled => header::SPELLED,
        };
        put(out, reference);
        if reference < header::FIRST {
            put(out, name.len() as u64);
            out.extend_from_slice(name);
        }
        put_length(out, span.value);
    }
}

fn offsets(batch: &Batch, out: &mut Vec<u8>) {
    out.push(kind::OFFSET_RUNS);
    for group in batch.groups.iter().filter(|group| missing(group) > 0) {
        let mut expected = group.prev_next;
        let mut rest = group.records.as_slice();
        while let Some(first) = rest.first() {
            let consecutive = |pair: &&[Meta]| pair[0].offset + 1 == pair[1].offset;
            let run = 1 + rest.windows(2).take_while(consecutive).count();
            put(out, first.offset.abs_diff(expected));
            put(out, run as u64);
            expected = rest[run - 1].offset + 1;
            rest = &rest[run..];
        }
    }
}

/// Offsets of the group's range that have no record.
fn missing(group: &Group) -> u64 {
    group.next.abs_diff(group.prev_next) - group.records.len() as u64
}

/// Appends the payload section with key and value of each record side by side.
pub(crate) fn rows(batch: &Batch, out: &mut Vec<u8>) {
    out.push(kind::PAYLOAD_ROWS);
    out.push(kind::LENGTHS);
    records(batch).for_each(|meta| put_length(out, meta.key));
    out.push(kind::LENGTHS);
    records(batch).for_each(|meta| put_length(out, meta.value));
    // Rows that lie side by side in the arena are moved together.
    let mut run = 0..0;
    for row in records(batch).map(Meta::row) {
        if row.start == run.end {
            run.end = row.end;
        } else {
            out.extend_from_slice(&batch.arena[run]);
            run = row;
        }
    }
    out.extend_from_slice(&batch.arena[run]);
}

fn put_length(out: &mut Vec<u8>, length_or_null: u32) {
    put(out, if length_or_null == NULL { 0 } else { u64::from(length_or_null) + 1 });
}

fn records(batch: &Batch) -> impl Iterator<Item = &Meta> {
    batch.groups.iter().flat_map(|group| &group.records)
}

/// Bytes of the checksum at the end.
const CHECKSUM: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::GapReason;

    fn written(serializer: &mut Serializer, batch: &Batch) -> Vec<u8> {
        let mut out = Vec::new();
        let counts = check(batch).expect("a sound batch");
        let beside = Beside { original: batch, opened: None };
        serializer.write(batch, counts, Layout::Rows, beside, usize::MAX, &mut out);
        out
    }

    #[test]
    fn the_bytes_are_as_documented() {
        let mut batch = Batch::new();
        let group = batch.group_index(7);
        batch.push(group, 100, 1000, Some(b"k1"), Some(b"one"), [(&b"h"[..], Some(&b"x"[..]))]);
        batch.push(group, 102, 1003, Some(b"k2"), None, []);
        let stamped = &mut batch.groups_mut()[group];
        (stamped.resume_epoch, stamped.prev_next, stamped.next) = (1, 100, 103);
        let mut serializer = Serializer::new();
        let bytes = written(&mut serializer, &batch);
        #[rustfmt::skip]
        let expected = [
            0x01, 1, 7, 0x10, 2, 1, 1, 0xc8, 0x01,  // one group: slot 7, spelled, 2 records, 1 missing, epoch 1, +100
            0x08, 0, 1, 1, 1,                       // offsets: at once a run of 1; one left out, a run of 1
            0x10, 0xd0, 0x0f, 6,                    // timestamps: +1000, +3
            0x19, 1, 1, 1, b'h', 2, 0, b'x',        // headers: one, defined, `h`, value of 1 byte; none; values
            0x20, 0x28, 3, 3, 0x28, 4, 0,           // payload rows: key lengths 2, 2; value lengths 3, null
            b'k', b'1', b'o', b'n', b'e', b'k', b'2',
        ];
        let (body, sum) = bytes.split_at(bytes.len() - 8);
        assert_eq!(body, expected);
        assert_eq!(sum, checksum::of_batch(&batch).to_le_bytes());

        // The next group of the slot chains: no position, and no offsets as none is missing.
        batch.clear();
        let group = batch.group_index(7);
        batch.push(group, 103, 1004, None, None, [(&b"h"[..], None)]);
        let stamped = &mut batch.groups_mut()[group];
        (stamped.resume_epoch, stamped.prev_next, stamped.next) = (1, 103, 104);
        stamped.gap = GapReason::Skipped;
        let bytes = written(&mut serializer, &batch);
        let expected = [1, 1, 7, 0x03, 1, 0, 0x08, 0x10, 8, 0x19, 1, 2, 0, 0x20, 0x28, 0, 0x28, 0];
        assert_eq!(&bytes[..bytes.len() - 8], expected);

        // A new leader is said once.
        for expected in [&[0x01, 1, 7, 0x20, 0, 1, 8][..], &[0x01, 1, 7, 0, 0, 1][..]] {
            let next = batch.groups()[0].next;
            batch.clear();
            let group = batch.group_index(7);
            let stamped = &mut batch.groups_mut()[group];
            (stamped.resume_epoch, stamped.prev_next, stamped.next, stamped.leader_epoch) =
                (1, next, next + 1, 4);
            let bytes = written(&mut serializer, &batch);
            assert_eq!(&bytes[..bytes.len() - 8], expected);
        }
    }

    #[test]
    fn timestamps_of_a_coarse_clock_are_counted_in_its_unit() {
        let mut batch = Batch::new();
        let group = batch.group_index(0);
        for (offset, time) in [(0, 5000), (1, 6500), (2, 6000), (3, 6000)] {
            batch.push(group, offset, time, None, None, []);
        }
        batch.groups_mut()[group].next = 4;
        let bytes = written(&mut Serializer::new(), &batch);
        let sections = &bytes[..bytes.len() - 8];
        assert!(
            sections
                .ends_with(&[0x11, 0xf4, 0x03, 20, 6, 1, 0, 0x18, 0x20, 0x28, 0, 0, 0, 0, 0x28, 0, 0, 0, 0])
        );
    }

    #[test]
    fn what_shapes_would_make_too_large_goes_as_rows_and_shapes_begin_anew_at_both_ends() {
        let batch = |first: i64| {
            let mut batch = Batch::new();
            let group = batch.group_index(0);
            for offset in first..first + 20 {
                let value = format!("{{\"id\":{offset},\"name\":\"n{}\"}}", offset % 3);
                batch.push(group, offset, offset, Some(b"k"), Some(value.as_bytes()), []);
            }
            let group = &mut batch.groups_mut()[group];
            (group.prev_next, group.next) = (first, first + 20);
            batch
        };
        let (mut serializer, mut parser) = (Serializer::new(), crate::parse::Parser::new());
        for (parcel, most) in
            [usize::MAX, usize::MAX, 0, usize::MAX, 0, 0, usize::MAX, usize::MAX].into_iter().enumerate()
        {
            let batch = batch(parcel as i64 * 20);
            let beside = Beside { original: &batch, opened: None };
            let mut received = Batch::new();
            let counts = check(&batch).expect("a sound batch");
            let written = serializer.write(&batch, counts, Layout::Shapes, beside, most, &mut received.arena);
            assert_eq!(written.unfit, most == 0);
            let kind = received.arena[written.payload.start];
            assert_eq!(kind, if most == 0 { kind::PAYLOAD_ROWS } else { kind::PAYLOAD_SHAPES });
            let limits = crate::DecodeLimits::default();
            parser.parse(&mut received, batch.plain_size() as u32, None, &limits).expect("sound");
            assert_eq!(received, batch, "parcel {parcel}");
        }
    }

    #[test]
    fn a_batch_without_records_is_a_group_table_and_a_checksum() {
        let bytes = written(&mut Serializer::new(), &Batch::new());
        assert_eq!(&bytes[..bytes.len() - 8], [0x01, 0]);
    }
}
