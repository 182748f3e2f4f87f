//! Numbers as small differences from what is known.

use super::Room;
use super::binary::Binary;
use super::range::{self, Model};
use crate::Error;
use crate::varint::{Reader, put, put_signed};

/// What a number is compared with, so that little is left of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Predictor {
    /// Nothing.
    Zero,
    /// The number before.
    Previous,
    /// The number before, and as much again as that one differed from its own predecessor.
    Slope,
    /// The column's last number for the same entry of an earlier dictionary column.
    Keyed(u32),
    /// As `Keyed`, with the last difference for that entry added.
    KeyedSlope(u32),
    /// The number of the same row in an earlier column (or the record's timestamp), scaled.
    Scaled(Source, Scale),
    /// Sum or difference of the numbers of the same row in two earlier columns.
    Combined(Pair),
}

/// Two columns whose values are numbers in binary, whatever kind they are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pair {
    pub(super) left: Term,
    pub(super) right: Term,
    /// What the right one has is taken away, not added.
    pub(super) minus: bool,
}

/// A column, and how its values are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Term {
    pub(super) id: u32,
    pub(super) binary: Binary,
}

impl Pair {
    #[inline]
    pub(super) fn of(self, left: i64, right: i64) -> i64 {
        if self.minus { left.wrapping_sub(right) } else { left.wrapping_add(right) }
    }
}

impl Term {
    /// The number that a value of the column is; 0 if it is none.
    #[inline]
    pub(super) fn number(self, value: &[u8]) -> i64 {
        self.binary.parse(value).flatten().unwrap_or_default()
    }

    fn put(self, out: &mut Vec<u8>) {
        put(out, self.id.into());
        self.binary.put(out);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Option<Self>, Error> {
        let id = reader.number_u32()?;
        Ok(Binary::read(reader)?.map(|binary| Self { id, binary }))
    }
}

/// How differences become bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Coding {
    /// Seven bits a byte.
    Varints,
    /// Width, then the highest byte of all, the next one, ...
    Planes,
    /// By a [range coder](super::range), in the parcel's tail: greatest common divisor, length, bytes. Few numbers are
    /// varints, as the coder's end would cost more than it saves.
    Ranged,
}

impl Coding {
    /// Whether a column of this many rows has a part in the parcel's tail.
    pub(super) fn has_tail(self, rows: usize) -> bool {
        self == Self::Ranged && rows >= FEWEST_RANGED
    }

    /// What is in use in a column of this many rows.
    pub(super) fn of_rows(self, rows: usize) -> Self {
        if self == Self::Ranged && !self.has_tail(rows) { Self::Varints } else { self }
    }
}

const FEWEST_RANGED: usize = 32;

/// Where other numbers of the same rows come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// The records' timestamps.
    Timestamps,
    /// An earlier column of numbers.
    Column(u32),
}

/// Units of one instant, compared: what the other column's number is multiplied with, or divided by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Scale(pub(super) u8);

impl Scale {
    pub(super) const ALL: [Self; 7] = [Self(0), Self(1), Self(2), Self(3), Self(4), Self(5), Self(6)];

    #[inline]
    fn apply(self, number: i64) -> i64 {
        match self.0 {
            0 => number,
            1 => number.wrapping_mul(1000),
            2 => number.wrapping_mul(1_000_000),
            3 => number.wrapping_mul(1_000_000_000),
            4 => number.div_euclid(1000),
            5 => number.div_euclid(1_000_000),
            // Days, of milliseconds.
            _ => number.div_euclid(86_400_000),
        }
    }
}

/// What a column of numbers remembers from parcel to parcel.
#[derive(Debug, Default)]
pub(super) struct Memory {
    last: i64,
    slope: i64,
    /// Last number and last difference by dictionary entry.
    keyed: Vec<Last>,
    model: Option<Box<Model>>,
    /// Bytes taken from the room.
    pub(super) charge: usize,
}

#[derive(Debug, Clone, Copy, Default)]
struct Last {
    number: i64,
    slope: i64,
    known: bool,
}

impl Memory {
    pub(super) fn memory(&self) -> usize {
        self.keyed.capacity() * size_of::<Last>() + self.model.as_ref().map_or(0, |_| Model::MEMORY)
    }

    /// The model, made when there is room for it.
    fn model(&mut self, room: &mut Room) -> Option<&mut Model> {
        if self.model.is_none() {
            if !room.take(Model::MEMORY) {
                return None;
            }
            self.charge += Model::MEMORY;
            self.model = Some(Box::default());
        }
        self.model.as_deref_mut()
    }

    /// Makes room for all of `ids`; false when there is none.
    fn remember(&mut self, ids: &[u32], room: &mut Room) -> bool {
        let needed = ids.iter().copied().max().map_or(0, |highest| highest as usize + 1);
        if needed > self.keyed.len() {
            let bytes = (needed - self.keyed.len()) * size_of::<Last>();
            if !room.take(bytes) {
                return false;
            }
            self.charge += bytes;
            self.keyed.resize(needed, Last::default());
        }
        true
    }

    /// The loop that both directions share. `step` gets the prediction and gives the number.
    #[inline]
    fn run(
        &mut self,
        predictor: Predictor,
        others: Others<'_>,
        room: &mut Room,
        count: usize,
        mut step: impl FnMut(usize, i64) -> i64,
    ) {
        match predictor {
            Predictor::Zero => (0..count).for_each(|row| {
                step(row, 0);
            }),
            Predictor::Previous => {
                let mut last = self.last;
                (0..count).for_each(|row| last = step(row, last));
                self.last = last;
            }
            Predictor::Slope => {
                for row in 0..count {
                    let number = step(row, self.last.wrapping_add(self.slope));
                    self.slope = number.wrapping_sub(self.last);
                    self.last = number;
                }
            }
            Predictor::Keyed(_) | Predictor::KeyedSlope(_) => {
                let sloped = matches!(predictor, Predictor::KeyedSlope(_));
                let remembered = self.remember(others.ids, room);
                for (row, id) in others.ids.iter().enumerate() {
                    // Entry 0 stands for all values that the dictionary did not take.
                    let known = remembered && *id > 0;
                    let of_id = if known { self.keyed[*id as usize] } else { Last::default() };
                    let base = if of_id.known { of_id.number } else { self.last };
                    let number = step(row, base.wrapping_add(if sloped { of_id.slope } else { 0 }));
                    self.last = number;
                    if known {
                        let slope = if of_id.known { number.wrapping_sub(of_id.number) } else { 0 };
                        self.keyed[*id as usize] = Last { number, slope, known: true };
                    }
                }
            }
            Predictor::Scaled(_, scale) => {
                for (row, other) in others.numbers.iter().enumerate() {
                    step(row, scale.apply(*other));
                }
            }
            Predictor::Combined(_) => others.numbers.iter().enumerate().for_each(|(row, other)| {
                step(row, *other);
            }),
        }
    }
}

/// What a predictor refers to: ids for the keyed ones, numbers for the scaled and combined ones, each of as many rows as
/// the column.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Others<'a> {
    pub(super) ids: &'a [u32],
    pub(super) numbers: &'a [i64],
}

/// The rows that have a number, of a column where there may be none.
#[derive(Debug)]
pub(super) struct Present {
    rows: Vec<u32>,
    all: usize,
}

impl Present {
    /// By the mark of each row: 0 for a number, 1 for none. Nothing if one is another.
    pub(super) fn of(marks: &[u8]) -> Option<Self> {
        let sound = marks.iter().all(|mark| *mark <= 1);
        let rows = marks.iter().zip(0..).filter(|(mark, _)| **mark == 0).map(|(_, row)| row);
        sound.then(|| Self { rows: rows.collect(), all: marks.len() })
    }

    /// All rows but the `missing` ones, which ascend.
    pub(super) fn without(missing: &[u32], all: usize) -> Self {
        let mut missing = missing.iter().peekable();
        let rows = (0..all as u32).filter(|row| missing.next_if_eq(&row).is_none());
        Self { rows: rows.collect(), all }
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// The rows, in their order.
    pub(super) fn list(&self) -> &[u32] {
        &self.rows
    }

    /// All rows, with a number or without.
    pub(super) fn rows(&self) -> usize {
        self.all
    }

    /// What is in those rows.
    pub(super) fn pick<T: Copy>(&self, all: &[T]) -> Vec<T> {
        // What a predictor does not refer to has no rows.
        self.rows.iter().filter_map(|row| all.get(*row as usize).copied()).collect()
    }

    /// The same of what a predictor refers to.
    pub(super) fn with<T>(&self, others: Others<'_>, use_them: impl FnOnce(Others<'_>) -> T) -> T {
        if self.rows.len() == self.all {
            return use_them(others);
        }
        let (ids, numbers) = (self.pick(others.ids), self.pick(others.numbers));
        use_them(Others { ids: &ids, numbers: &numbers })
    }

    /// Moves as many numbers as there are to their rows; the others are 0.
    pub(super) fn spread(&self, numbers: &mut Vec<i64>) {
        numbers.resize(self.all, 0);
        for (place, row) in self.rows.iter().enumerate().rev() {
            let number = std::mem::take(&mut numbers[place]);
            numbers[*row as usize] = number;
        }
    }
}

/// Appends `numbers` as differences to the body, or to the tail. False (and nothing changes) without room for a model.
pub(super) fn encode(
    (predictor, coding): (Predictor, Coding),
    numbers: &[i64],
    others: Others<'_>,
    (memory, room): (&mut Memory, &mut Room),
    (body, tail): (&mut Vec<u8>, &mut Vec<u8>),
) -> bool {
    if coding == Coding::Varints {
        body.reserve(numbers.len() * 2);
        memory.run(predictor, others, room, numbers.len(), |row, expected| {
            put_signed(body, numbers[row].wrapping_sub(expected));
            numbers[row]
        });
        return true;
    }
    if coding == Coding::Ranged && memory.model(room).is_none() {
        return false;
    }
    let mut differences = Vec::with_capacity(numbers.len());
    memory.run(predictor, others, room, numbers.len(), |row, expected| {
        differences.push(numbers[row].wrapping_sub(expected));
        numbers[row]
    });
    if coding == Coding::Planes {
        put_planes(&differences, body);
    } else if let Some(model) = memory.model(room) {
        put_ranged(model, &mut differences, tail);
    }
    true
}

fn put_planes(differences: &[i64], out: &mut Vec<u8>) {
    let all = differences.iter().fold(0, |all, difference| all | zigzag(*difference));
    let width = (64 - all.leading_zeros()).div_ceil(8);
    out.push(width as u8);
    for plane in (0..width).rev() {
        out.extend(differences.iter().map(|difference| (zigzag(*difference) >> (8 * plane)) as u8));
    }
}

pub(super) fn put_ranged(model: &mut Model, differences: &mut [i64], out: &mut Vec<u8>) {
    let magnitudes = differences.iter().map(|difference| difference.unsigned_abs());
    let divisor = magnitudes.fold(0, common_divisor);
    // One that is beyond the signed numbers divides nothing but itself.
    let divisor = i64::try_from(divisor).unwrap_or(1).max(1);
    if divisor > 1 {
        differences.iter_mut().for_each(|difference| *difference /= divisor);
    }
    put(out, divisor as u64);
    let mut coded = Vec::with_capacity(differences.len() * 2);
    range::encode(model, differences, &mut coded);
    put(out, coded.len() as u64);
    out.extend_from_slice(&coded);
}

/// Reads what [`put_ranged`] wrote, into `differences`, which is empty.
pub(super) fn read_ranged(
    model: &mut Model,
    count: usize,
    reader: &mut Reader<'_>,
    differences: &mut Vec<i64>,
) -> Result<(), Error> {
    let divisor = i64::try_from(reader.number()?).map_err(|_| reader.out_of_range())?;
    let length = reader.number_u32()?;
    let bytes = reader.take(length as usize)?;
    differences.reserve(count);
    range::decode(model, count, bytes, differences).map_err(|_| reader.out_of_range())?;
    differences.iter_mut().for_each(|difference| *difference = difference.wrapping_mul(divisor));
    Ok(())
}

/// The largest number that divides both; 0 is divided by all.
#[inline]
pub(crate) fn common_divisor(mut left: u64, mut right: u64) -> u64 {
    // The usual cases: already known not to be divisible, or divisible by what is known.
    if left == 1 || right == 0 {
        return left;
    }
    while right != 0 {
        (left, right) = (right, left % right);
    }
    left
}

/// Reads what [`encode`] wrote into `numbers`, which it fills with `count` of them.
pub(super) fn decode(
    (predictor, coding): (Predictor, Coding),
    count: usize,
    others: Others<'_>,
    (memory, room): (&mut Memory, &mut Room),
    (reader, tail): (&mut Reader<'_>, &mut Reader<'_>),
    numbers: &mut Vec<i64>,
) -> Result<(), Error> {
    numbers.clear();
    if coding == Coding::Ranged {
        let model = memory.model(room).ok_or_else(|| tail.out_of_range())?;
        read_ranged(model, count, tail, numbers)?;
    } else if coding == Coding::Planes {
        let width = usize::from(reader.byte()?);
        if width > 8 {
            return Err(reader.out_of_range());
        }
        let bytes = reader.take(width * count)?;
        numbers.resize(count, 0);
        for plane in bytes.chunks_exact(count.max(1)) {
            for (number, byte) in numbers.iter_mut().zip(plane) {
                *number = *number << 8 | i64::from(*byte);
            }
        }
        numbers.iter_mut().for_each(|number| *number = unzigzag(*number as u64));
    } else {
        if count > reader.remaining() {
            return Err(Error::Truncated { section: reader.section });
        }
        numbers.reserve(count);
        for _ in 0..count {
            numbers.push(reader.signed()?);
        }
    }
    memory.run(predictor, others, room, count, |row, expected| {
        numbers[row] = numbers[row].wrapping_add(expected);
        numbers[row]
    });
    Ok(())
}

/// Bits that the differences of `numbers` have, from fresh state: a cheap guess at what a predictor is worth.
pub(super) fn estimate(predictor: Predictor, numbers: &[i64], others: Others<'_>) -> usize {
    let (mut memory, mut room, mut bits) = (Memory::default(), Room::default(), 0);
    // Twice, as what is remembered by key will have been met before.
    for _ in 0..2 {
        memory.run(predictor, others, &mut room, numbers.len(), |row, expected| {
            let difference = zigzag(numbers[row].wrapping_sub(expected));
            bits += 64 - difference.leading_zeros() as usize;
            numbers[row]
        });
    }
    bits / 2
}

pub(super) fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)) as u64
}

pub(super) fn unzigzag(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}

/// Numbers of a combined predictor: of a sum, of a difference.
const COMBINED: u8 = 16;
const SUBTRACTED: u8 = COMBINED + 1;

/// Appends a predictor: its number and coding, then what it refers to.
pub(super) fn put_predictor(out: &mut Vec<u8>, predictor: Predictor, coding: Coding) {
    let tag = match predictor {
        Predictor::Zero => 0,
        Predictor::Previous => 1,
        Predictor::Slope => 2,
        Predictor::Keyed(_) => 3,
        Predictor::KeyedSlope(_) => 4,
        Predictor::Scaled(_, scale) => 5 + scale.0,
        Predictor::Combined(Pair { minus, .. }) => COMBINED + u8::from(minus),
    };
    out.push(tag | (coding as u8) << 6);
    match predictor {
        Predictor::Zero | Predictor::Previous | Predictor::Slope => {}
        Predictor::Keyed(id) | Predictor::KeyedSlope(id) => put(out, id.into()),
        Predictor::Scaled(Source::Timestamps, _) => put(out, 0),
        Predictor::Scaled(Source::Column(id), _) => put(out, u64::from(id) + 1),
        Predictor::Combined(Pair { left, right, .. }) => {
            left.put(out);
            right.put(out);
        }
    }
}

pub(super) fn read_predictor(reader: &mut Reader<'_>) -> Result<Option<(Predictor, Coding)>, Error> {
    let byte = reader.byte()?;
    let coding = match byte >> 6 {
        0 => Coding::Varints,
        1 => Coding::Planes,
        2 => Coding::Ranged,
        _ => return Ok(None),
    };
    let predictor = match byte & 0x3f {
        0 => Predictor::Zero,
        1 => Predictor::Previous,
        2 => Predictor::Slope,
        3 => Predictor::Keyed(reader.number_u32()?),
        4 => Predictor::KeyedSlope(reader.number_u32()?),
        tag @ (COMBINED | SUBTRACTED) => {
            let (Some(left), Some(right)) = (Term::read(reader)?, Term::read(reader)?) else {
                return Ok(None);
            };
            Predictor::Combined(Pair { left, right, minus: tag == SUBTRACTED })
        }
        tag @ 5..=11 => {
            let source = match reader.number_u32()? {
                0 => Source::Timestamps,
                id => Source::Column(id - 1),
            };
            Predictor::Scaled(source, Scale(tag - 5))
        }
        _ => return Ok(None),
    };
    Ok(Some((predictor, coding)))
}
