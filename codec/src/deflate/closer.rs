//! The receiver's side: what values held to the values.

use super::MAX_HELD;
use super::member::{MAX_HEADER, TIME, Wrapper};
use super::recipe::{Correction, Manner, Press, wrapper_of};
use super::token::Token;
use crate::Error;
use crate::batch::{Batch, NULL, length};
use crate::varint::Reader;

/// Reads the section, and compresses what it names.
#[derive(Debug, Default)]
pub(crate) struct Closer {
    headers: Vec<(Vec<u8>, Wrapper)>,
    runs: Vec<Run>,
    times: Vec<u32>,
    /// Of all values, and where each value's end.
    corrections: Vec<Correction>,
    ends: Vec<u32>,
    press: Option<Press>,
    /// The value at hand, so that the arena grows by what is known to fit.
    value: Vec<u8>,
}

/// Values one behind the other that are compressed alike.
#[derive(Debug, Clone, Copy)]
struct Run {
    left_out: u64,
    records: u64,
    header: usize,
    manner: Manner,
}

impl Closer {
    pub(crate) fn memory(&self) -> usize {
        self.press.as_ref().map_or(0, Press::memory)
            + self.value.capacity()
            + self.runs.capacity() * size_of::<Run>()
            + (self.times.capacity() + self.ends.capacity()) * 4
            + self.corrections.capacity() * size_of::<Correction>()
    }

    /// Reads the section behind its kind. A parcel has `records` records.
    pub(crate) fn read(&mut self, reader: &mut Reader<'_>, records: u64) -> Result<(), Error> {
        reader.section = "opened values";
        let wrong = Error::Opened("is described in a way that no value is");
        self.headers.clear();
        for _ in 0..reader.count("headers", 3, MAX_HEADERS)? {
            let length = reader.count("bytes of a header", 1, MAX_HEADER as u64)?;
            let header = reader.take(length as usize)?;
            let wrapper = wrapper_of(header).ok_or(Error::Opened("has a header that is none"))?;
            self.headers.push((header.to_vec(), wrapper));
        }
        self.runs.clear();
        let (mut left, mut values, mut timed) = (records, 0, 0);
        for _ in 0..reader.count("runs", 5, records)? {
            let (left_out, records) = (reader.number()?, reader.number()?);
            let header = reader.number()? as usize;
            let manner = Manner { level: reader.byte()?, block: reader.number_u32()? };
            let known = self.headers.get(header).filter(|_| manner.is_sound());
            let (Some((_, wrapper)), Some(rest)) =
                (known, left.checked_sub(left_out).and_then(|left| left.checked_sub(records)))
            else {
                return Err(wrong);
            };
            left = rest;
            values += records;
            timed += if *wrapper == Wrapper::Gzip { records } else { 0 };
            self.runs.push(Run { left_out, records, header, manner });
        }
        self.read_times(reader, timed)?;
        self.read_corrections(reader, values)
    }

    fn read_times(&mut self, reader: &mut Reader<'_>, timed: u64) -> Result<(), Error> {
        self.times.clear();
        if timed > reader.remaining() as u64 {
            return Err(Error::Truncated { section: reader.section });
        }
        let mut time = 0u32;
        for _ in 0..timed {
            time = time.wrapping_add(reader.signed()? as u32);
            self.times.push(time);
        }
        Ok(())
    }

    fn read_corrections(&mut self, reader: &mut Reader<'_>, values: u64) -> Result<(), Error> {
        self.corrections.clear();
        self.ends.clear();
        if values > reader.remaining() as u64 {
            return Err(Error::Truncated { section: reader.section });
        }
        for _ in 0..values {
            for _ in 0..reader.count("corrections", 2, u64::from(u32::MAX))? {
                let (gap, length) = (reader.number_u32()?, reader.number_u32()?);
                let token = match length {
                    0 => Token::LITERAL,
                    _ => {
                        let of = |number: u32| u16::try_from(number).map_err(|_| reader.out_of_range());
                        let length = of(length.saturating_add(2))?;
                        let distance = reader.number_u32()?;
                        let distance = u16::try_from(distance).map_err(|_| reader.out_of_range())?;
                        Token { length, distance }
                    }
                };
                self.corrections.push(Correction { gap, token });
            }
            self.ends.push(self.corrections.len() as u32);
        }
        Ok(())
    }

    /// Compresses the values of `batch` that the section names, which takes `plain` bytes at most in all records.
    ///
    /// # Errors
    /// [`Error::Opened`] for a value that is null, or whose description does not hold.
    pub(crate) fn close(&mut self, batch: &mut Batch, plain: u64) -> Result<(), Error> {
        let mut values = std::mem::take(&mut self.value);
        let closed = self.close_all(batch, plain, &mut values);
        values.clear();
        values.shrink_to(KEEP);
        self.corrections.clear();
        self.corrections.shrink_to(KEEP / size_of::<Correction>());
        self.value = values;
        closed
    }

    fn close_all(&mut self, batch: &mut Batch, plain: u64, value: &mut Vec<u8>) -> Result<(), Error> {
        let wrong = Error::Opened("is described in a way that no value is");
        let Self { headers, runs, times, corrections, ends, press, .. } = self;
        let press = press.get_or_insert_with(Press::new);
        let (mut times, mut ends, mut begin) = (times.iter(), ends.iter(), 0);
        let mut runs = runs.iter().copied();
        let (mut run, mut left) = (runs.next(), MAX_HELD);
        let begin_rows = batch.arena.len();
        let most = begin_rows as u64 + plain;
        batch.arena.reserve_exact(usize::try_from(plain).unwrap_or(0));
        for group in &mut batch.groups {
            for meta in &mut group.records {
                while let Some(Run { left_out: 0, records: 0, .. }) = run {
                    run = runs.next();
                }
                let Some(current) = &mut run else { return Ok(()) };
                if current.left_out > 0 {
                    current.left_out -= 1;
                    continue;
                }
                current.records -= 1;
                let (header, wrapper) = &headers[current.header];
                let end = ends.next().map_or(begin, |end| *end as usize);
                let start = meta.start as usize + length(meta.key);
                if meta.value == NULL {
                    return Err(Error::Opened("is null"));
                }
                left = left
                    .checked_sub(meta.value as usize)
                    .ok_or(Error::Opened("holds more than all may that a parcel opens"))?;
                let held = &batch.arena[start..start + meta.value as usize];
                value.clear();
                let mut stamped = [0; MAX_HEADER];
                let stamped = &mut stamped[..header.len()];
                stamped.copy_from_slice(header);
                if *wrapper == Wrapper::Gzip {
                    let time = times.next().copied().unwrap_or_default();
                    stamped[TIME].copy_from_slice(&time.to_le_bytes());
                }
                let own = &corrections[begin..end];
                begin = end;
                press
                    .close(held, stamped, current.manner, own, value)
                    .ok_or(Error::Opened("does not come out of its description, or with too much work"))?;
                let row = batch.arena.len();
                let key = meta.start as usize..start;
                if (row + key.len() + value.len()) as u64 > most {
                    return Err(Error::Opened("is longer than the plain size allows"));
                }
                batch.arena.extend_from_within(key);
                batch.arena.extend_from_slice(value);
                group.plain = group.plain - u64::from(meta.value) + value.len() as u64;
                (meta.start, meta.value) = (row as u32, value.len() as u32);
            }
        }
        let rest = |run: Run| run.left_out > 0 || run.records > 0;
        if run.is_some_and(rest) || runs.any(rest) { Err(wrong) } else { Ok(()) }
    }
}

/// Headers of one parcel: one for each program that compresses, as a rule.
const MAX_HEADERS: u64 = 256;
/// Capacity that is kept for values.
const KEEP: usize = 1 << 20;
