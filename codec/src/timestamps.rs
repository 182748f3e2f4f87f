//! The timestamps of all records, as differences.
//!
//! A lane may carry topics whose clocks have little in common: samples of each five minutes beside events of each
//! millisecond. One unit for all would be the finest, so groups go in runs, each with a unit and a range coder of its own
//! ([`TIMESTAMP_RUNS`](kind::TIMESTAMP_RUNS)), where that is worth its bytes.

use std::collections::HashMap;

use crate::Error;
use crate::batch::{Batch, Group};
use crate::column::{SeriesDecoder, SeriesEncoder, common_divisor};
use crate::format::kind;
use crate::limits::MAX_REMEMBERED_SLOTS;
use crate::state::Positions;
use crate::varint::{Reader, put, put_signed};

/// Writes timestamps.
#[derive(Debug, Default)]
pub(crate) struct TimestampWriter {
    /// Differences of one batch, or of one run.
    deltas: Vec<i64>,
    series: SeriesEncoder,
    /// The same for each kind of run; and which kind the groups of a slot are.
    of_runs: Vec<SeriesEncoder>,
    by_slot: HashMap<u32, u8>,
    runs: Vec<Run>,
}

/// Groups that follow each other, those without records left out.
#[derive(Debug, Clone, Copy)]
struct Run {
    groups: u32,
    records: u64,
    /// What divides all differences; 0 when there are none.
    unit: u64,
    slot: u32,
}

impl TimestampWriter {
    pub(crate) fn memory(&self) -> usize {
        self.deltas.capacity() * 8
            + self.series.memory()
            + self.of_runs.iter().map(SeriesEncoder::memory).sum::<usize>()
            + self.by_slot.capacity() * 8
    }

    pub(crate) fn write(&mut self, batch: &Batch, positions: &mut Positions, out: &mut Vec<u8>) {
        self.find_runs(batch, positions);
        if self.runs.len() > 1 {
            self.write_runs(batch, positions, out);
        } else {
            self.write_all(batch, positions, out);
        }
        note(batch, positions);
    }

    /// Many clocks are coarser than a millisecond: what divides all differences is told once.
    fn write_all(&mut self, batch: &Batch, positions: &Positions, out: &mut Vec<u8>) {
        self.deltas.clear();
        let mut unit = 0;
        let mut base = positions.timestamp;
        for group in with_records(batch) {
            differences(group, &mut base, &mut unit, &mut self.deltas);
        }
        let unit = self.divide(unit);
        let start = out.len();
        out.push(kind::TIMESTAMP_RANGED);
        put(out, unit as u64);
        if self.series.encode(&mut self.deltas, out) {
            return;
        }
        out.truncate(start);
        if unit > 1 {
            out.push(kind::TIMESTAMP_UNITS);
            put(out, unit as u64);
        } else {
            out.push(kind::TIMESTAMP_DELTAS);
        }
        self.deltas.iter().for_each(|delta| put_signed(out, *delta));
    }

    fn write_runs(&mut self, batch: &Batch, positions: &Positions, out: &mut Vec<u8>) {
        out.push(kind::TIMESTAMP_RUNS);
        let mut groups = with_records(batch);
        for run in 0..self.runs.len() {
            let Run { groups: count, slot, .. } = self.runs[run];
            self.deltas.clear();
            let mut unit = 0;
            let mut base = positions.first_of(slot);
            let series = self.series_of(slot);
            for group in groups.by_ref().take(count as usize) {
                differences(group, &mut base, &mut unit, &mut self.deltas);
                if group.slot < MAX_REMEMBERED_SLOTS {
                    self.by_slot.entry(group.slot).or_insert(series);
                }
            }
            let unit = self.divide(unit);
            put(out, count.into());
            put(out, unit as u64);
            let tag = out.len();
            out.push(series << 1 | 1);
            if !self.of_runs[usize::from(series)].encode(&mut self.deltas, out) {
                out[tag] = series << 1;
                self.deltas.iter().for_each(|delta| put_signed(out, *delta));
            }
        }
    }

    /// The coder of the runs that begin with this slot.
    fn series_of(&mut self, slot: u32) -> u8 {
        let next = (self.of_runs.len() as u8).min(MOST_SERIES - 1);
        let series = self.by_slot.get(&slot).copied().unwrap_or(next);
        if usize::from(series) == self.of_runs.len() {
            self.of_runs.push(SeriesEncoder::default());
        }
        series
    }

    /// Divides all differences by their unit, if that is worth telling it.
    fn divide(&mut self, unit: u64) -> i64 {
        match i64::try_from(unit) {
            Ok(unit) if unit > 1 && self.deltas.len() >= WORTH_A_UNIT => {
                self.deltas.iter_mut().for_each(|delta| *delta /= unit);
                unit
            }
            _ => 1,
        }
    }

    /// Splits the groups where one unit, or one time to count from, would cost more than another run.
    fn find_runs(&mut self, batch: &Batch, positions: &Positions) {
        self.runs.clear();
        let mut base = positions.timestamp;
        for group in with_records(batch) {
            let first = group.records[0].timestamp;
            let gaps = group.records.windows(2).map(|pair| pair[1].timestamp.wrapping_sub(pair[0].timestamp));
            let inner = gaps.fold(0, |unit, gap| common_divisor(unit, gap.unsigned_abs()));
            let ahead = first.wrapping_sub(std::mem::replace(&mut base, first)).unsigned_abs();
            let alone = first.wrapping_sub(positions.first_of(group.slot)).unsigned_abs();
            let own = common_divisor(inner, alone);
            let records = group.records.len() as u64;
            if let Some(run) = self.runs.last_mut() {
                let unit = common_divisor(common_divisor(run.unit, inner), ahead);
                let finer = |coarse: u64| match bits(coarse).saturating_sub(bits(unit)) {
                    // A chance common divisor.
                    0..4 => 0,
                    more => u64::from(more),
                };
                let jump = u64::from((bits(ahead) - bits(unit).min(bits(ahead))).saturating_sub(bits(alone)));
                if finer(run.unit) * run.records + finer(own) * records + jump <= RUN_BITS {
                    (run.groups, run.records, run.unit) = (run.groups + 1, run.records + records, unit);
                    continue;
                }
            }
            self.runs.push(Run { groups: 1, records, unit: own, slot: group.slot });
        }
    }
}

/// Reads timestamps.
#[derive(Debug, Default)]
pub(crate) struct TimestampReader {
    deltas: Vec<i64>,
    series: SeriesDecoder,
    of_runs: Vec<SeriesDecoder>,
}

impl TimestampReader {
    pub(crate) fn memory(&self) -> usize {
        self.deltas.capacity() * 8
            + self.series.memory()
            + self.of_runs.iter().map(SeriesDecoder::memory).sum::<usize>()
    }

    /// Reads the section behind its kind.
    pub(crate) fn read(
        &mut self,
        kind: u8,
        reader: &mut Reader<'_>,
        batch: &mut Batch,
        positions: &mut Positions,
    ) -> Result<(), Error> {
        match kind {
            kind::TIMESTAMP_RUNS => self.read_runs(reader, batch, positions)?,
            _ => self.read_all(kind, reader, batch, positions)?,
        }
        note(batch, positions);
        Ok(())
    }

    fn read_all(
        &mut self,
        kind: u8,
        reader: &mut Reader<'_>,
        batch: &mut Batch,
        positions: &Positions,
    ) -> Result<(), Error> {
        let unit = match kind {
            kind::TIMESTAMP_DELTAS => 1,
            _ => unit(reader)?,
        };
        let records = batch.groups.iter().map(|group| group.records.len()).sum();
        self.deltas.clear();
        match kind {
            kind::TIMESTAMP_RANGED => self.series.decode(records, reader, &mut self.deltas)?,
            _ => read_varints(records, reader, &mut self.deltas)?,
        }
        let mut base = positions.timestamp;
        let mut deltas = self.deltas.as_slice();
        for group in batch.groups.iter_mut().filter(|group| !group.records.is_empty()) {
            deltas = sum_up(group, &mut base, unit, deltas);
        }
        Ok(())
    }

    fn read_runs(
        &mut self,
        reader: &mut Reader<'_>,
        batch: &mut Batch,
        positions: &Positions,
    ) -> Result<(), Error> {
        let mut groups = batch.groups.iter_mut().filter(|group| !group.records.is_empty()).peekable();
        let mut members = Vec::new();
        while let Some(first) = groups.peek() {
            let mut base = positions.first_of(first.slot);
            let count = reader.number_u32()? as usize;
            members.clear();
            members.extend(groups.by_ref().take(count));
            if count == 0 || members.len() < count {
                return Err(reader.out_of_range());
            }
            let unit = unit(reader)?;
            let tag = reader.byte()?;
            let series = usize::from(tag >> 1);
            if series > self.of_runs.len() || tag >> 1 >= MOST_SERIES {
                return Err(reader.out_of_range());
            }
            if series == self.of_runs.len() {
                self.of_runs.push(SeriesDecoder::default());
            }
            let records = members.iter().map(|group| group.records.len()).sum();
            self.deltas.clear();
            match tag & 1 {
                1 => self.of_runs[series].decode(records, reader, &mut self.deltas)?,
                _ => read_varints(records, reader, &mut self.deltas)?,
            }
            let mut deltas = self.deltas.as_slice();
            for group in &mut members {
                deltas = sum_up(group, &mut base, unit, deltas);
            }
        }
        Ok(())
    }
}

/// Remembers where the timestamps of each group began.
fn note(batch: &Batch, positions: &mut Positions) {
    for group in with_records(batch) {
        positions.timestamp = group.records[0].timestamp;
        positions.set_first(group.slot, positions.timestamp);
    }
}

fn with_records(batch: &Batch) -> impl Iterator<Item = &Group> {
    batch.groups.iter().filter(|group| !group.records.is_empty())
}

/// Appends the differences of a group: of the first record from `base`, of others from the one before.
fn differences(group: &Group, base: &mut i64, unit: &mut u64, deltas: &mut Vec<i64>) {
    let mut previous = *base;
    for meta in &group.records {
        let delta = meta.timestamp.wrapping_sub(previous);
        *unit = common_divisor(*unit, delta.unsigned_abs());
        deltas.push(delta);
        previous = meta.timestamp;
    }
    *base = group.records[0].timestamp;
}

/// The inverse of [`differences`]; returns what is left of `deltas`.
fn sum_up<'d>(group: &mut Group, base: &mut i64, unit: i64, deltas: &'d [i64]) -> &'d [i64] {
    let (own, rest) = deltas.split_at(group.records.len());
    let mut timestamp = *base;
    for (meta, delta) in group.records.iter_mut().zip(own) {
        timestamp = timestamp.wrapping_add(delta.wrapping_mul(unit));
        meta.timestamp = timestamp;
    }
    *base = group.records[0].timestamp;
    rest
}

fn read_varints(count: usize, reader: &mut Reader<'_>, deltas: &mut Vec<i64>) -> Result<(), Error> {
    if count > reader.remaining() {
        return Err(Error::Truncated { section: reader.section });
    }
    deltas.reserve(count);
    for _ in 0..count {
        deltas.push(reader.signed()?);
    }
    Ok(())
}

fn unit(reader: &mut Reader<'_>) -> Result<i64, Error> {
    i64::try_from(reader.number()?).map_err(|_| reader.out_of_range())
}

/// Bits of a number.
fn bits(number: u64) -> u32 {
    64 - number.leading_zeros()
}

/// Fewest records for which a unit of the timestamps is told.
const WORTH_A_UNIT: usize = 4;
/// Bits that a run costs, and the learning of its coder.
const RUN_BITS: u64 = 64;
/// Range coders of runs: topics of a lane, as a rule.
const MOST_SERIES: u8 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes and reads batches of (slot, timestamps), and returns what each section was.
    fn pass(batches: &[&[(u32, Vec<i64>)]]) -> Vec<Vec<u8>> {
        let (mut writer, mut reader) = (TimestampWriter::default(), TimestampReader::default());
        let (mut sent, mut received) = (Positions::default(), Positions::default());
        let one = |groups: &&[(u32, Vec<i64>)]| {
            let mut batch = Batch::new();
            for (slot, timestamps) in *groups {
                let group = batch.group_index(*slot);
                timestamps.iter().for_each(|time| batch.push(group, 0, *time, None, None, []));
            }
            let mut out = Vec::new();
            writer.write(&batch, &mut sent, &mut out);
            let mut blank = batch.clone();
            blank.groups.iter_mut().flat_map(|group| &mut group.records).for_each(|meta| meta.timestamp = 0);
            let mut bytes = Reader::new(&out, "timestamps");
            let kind = bytes.byte().expect("a kind");
            reader.read(kind, &mut bytes, &mut blank, &mut received).expect("what was written");
            assert_eq!((bytes.remaining(), blank == batch), (0, true), "{out:?}");
            out
        };
        batches.iter().map(one).collect()
    }

    #[test]
    fn a_coarse_clock_is_counted_in_its_unit_beside_a_fine_one() {
        let coarse = |from: i64| (0..200).map(|i| (from + i / 4) * 300_000).collect::<Vec<i64>>();
        let fine =
            |from: i64| (0..200).map(|i| 1_700_000_000_000 + from * 7919 + i * i).collect::<Vec<i64>>();
        let first = [(0, coarse(10)), (1, coarse(11)), (8, fine(1)), (9, fine(2)), (20, vec![])];
        let second = [(1, coarse(60)), (0, coarse(61)), (9, fine(3)), (8, fine(4))];
        let sections = pass(&[&first, &second, &second]);
        for section in &sections {
            assert_eq!(section[0], kind::TIMESTAMP_RUNS);
        }
        let alone =
            pass(&[&first[..2], &second[..2]])[1].len() + pass(&[&first[2..4], &second[2..]])[1].len();
        assert!(sections[1].len() < alone + 16, "{} bytes mixed, {alone} apart", sections[1].len());
    }

    #[test]
    fn like_clocks_and_few_records_are_one_run() {
        let fine = |from: i64| (0..100).map(|i| from + i * 3).collect::<Vec<i64>>();
        let sections = pass(&[&[(0, fine(7)), (1, fine(9))], &[(0, vec![100_000]), (1, vec![200_500, 7])]]);
        assert!(sections.iter().all(|section| section[0] != kind::TIMESTAMP_RUNS));
    }

    #[test]
    fn any_timestamps_come_back_in_runs_too() {
        let odd = vec![i64::MIN, i64::MAX, 0, -1, 1, i64::MIN];
        let coarse = (0..300).map(|i| i * 1_000_000).collect::<Vec<i64>>();
        let high = MAX_REMEMBERED_SLOTS + 5;
        pass(&[
            &[(0, odd.clone()), (1, coarse.clone()), (high, odd.clone()), (high + 1, coarse.clone())],
            &[(high + 1, coarse.clone()), (1, coarse), (0, odd)],
        ]);
    }

    #[test]
    fn runs_that_are_not_all_groups_are_refused() {
        let mut batch = Batch::new();
        let group = batch.group_index(0);
        batch.push(group, 0, 0, None, None, []);
        for section in [&[2, 1, 0, 0][..], &[0, 1, 0, 0], &[1, 1, 2, 0], &[1, 1, 32, 0], &[1, 1], &[1, 1, 0]]
        {
            let mut reader = Reader::new(section, "timestamps");
            let read = TimestampReader::default().read(
                kind::TIMESTAMP_RUNS,
                &mut reader,
                &mut batch.clone(),
                &mut Positions::default(),
            );
            assert!(read.is_err(), "{section:?}");
        }
    }

    #[test]
    fn what_divides_all_is_found() {
        let divisor = |numbers: &[u64]| numbers.iter().fold(0, |unit, &number| common_divisor(unit, number));
        assert_eq!(divisor(&[0, 0]), 0);
        assert_eq!(divisor(&[0, 20, 50, 0]), 10);
        assert_eq!(divisor(&[20, 50, 3, 10]), 1);
        assert_eq!(divisor(&[1 << 63, 1 << 63]), 1 << 63);
    }
}
