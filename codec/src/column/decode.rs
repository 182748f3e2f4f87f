//! Columns of a parcel from their bytes. [`encode`](super::encode) is the mirror.

use std::borrow::Cow;
use std::sync::Arc;

use super::binary::Spelled;
use super::choice::{Change, Choice, Kind, Spelling};
use super::decimal::Double;
use super::dictionary::{self, Entries};
use super::digits::Digits;
use super::number::{self, Memory, Others, Predictor, Present, Source, Term};
use super::origin::{NOWHERE, Origins};
use super::pattern::Rows;
use super::recurring::{self, ONE_KEY, Recent};
use super::sink::Sink;
use super::{ColumnFault, MAX_COLUMNS, MAX_VALUES, ROOM, Room, order_by, text};
use crate::Error;
use crate::varint::Reader;

/// A column of a parcel, as its records' shapes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Expected {
    pub(crate) id: u32,
    /// Values, at least one.
    pub(crate) count: u32,
    /// As [`Input::set`](super::Input::set).
    pub(crate) set: u32,
}

/// All columns of a lane epoch, decoding.
#[derive(Debug, Default)]
pub(crate) struct ColumnDecoders {
    columns: Vec<Column>,
    room: Room,
    parcel: u64,
    changes: Vec<(usize, Choice, Change)>,
    scratch: Scratch,
}

#[derive(Debug, Default)]
struct Scratch {
    order: Vec<u32>,
    ids: Vec<u32>,
    numbers: Vec<i64>,
    lengths: Vec<u32>,
    exceptions: Vec<u32>,
}

/// One column: what it remembers, and what later columns of the parcel may refer to.
#[derive(Debug, Default)]
struct Column {
    choice: Choice,
    state: State,
    parcel: u64,
    position: usize,
    set: u32,
    numbers: Vec<i64>,
    ids: Vec<u32>,
}

#[derive(Debug, Default)]
struct State {
    memory: Memory,
    entries: Entries,
    rows: Rows,
    recent: Recent,
}

impl State {
    fn charge(&self) -> usize {
        self.memory.charge + self.entries.charge + self.recent.charge
    }
}

/// The reader, and the column for which it reads.
pub(super) struct Bytes<'r, 'a> {
    pub(super) reader: &'r mut Reader<'a>,
    /// What the parcel has behind the bodies, if a column needs it.
    tail: Option<&'r mut Reader<'a>>,
    pub(super) column: u32,
}

impl<'a> Bytes<'_, 'a> {
    pub(super) fn fault(&self, fault: ColumnFault) -> Error {
        Error::Column { column: self.column, fault }
    }

    #[inline]
    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8], Error> {
        self.reader.take(length)
    }

    /// A new entry of a dictionary: behind its length if framed, else a line.
    #[inline]
    pub(super) fn entry(&mut self, framed: bool) -> Result<&'a [u8], Error> {
        if !framed {
            return self.line();
        }
        let length = self.reader.number_u32()?;
        self.reader.take(length as usize)
    }

    /// The bytes before the next newline.
    #[inline]
    pub(super) fn line(&mut self) -> Result<&'a [u8], Error> {
        let length = text::find(self.reader.rest(), b'\n').ok_or_else(|| self.fault(ColumnFault::Unended))?;
        let line = self.reader.take(length + 1)?;
        Ok(&line[..length])
    }
}

impl ColumnDecoders {
    /// Forgets everything, as the encoder does at the same parcel.
    pub(crate) fn reset(&mut self) {
        *self = Self::default();
    }

    /// Bytes held.
    pub(crate) fn memory(&self) -> usize {
        let of_column = |column: &Column| {
            column.state.memory.memory()
                + column.state.entries.memory()
                + column.state.recent.memory()
                + column.numbers.capacity() * size_of::<i64>()
                + column.ids.capacity() * size_of::<u32>()
        };
        let scratch = &self.scratch;
        self.columns.iter().map(of_column).sum::<usize>()
            + self.columns.capacity() * size_of::<Column>()
            + self.changes.capacity() * size_of::<(usize, Choice, bool)>()
            + (scratch.order.capacity()
                + scratch.ids.capacity()
                + scratch.lengths.capacity()
                + scratch.exceptions.capacity())
                * size_of::<u32>()
            + scratch.numbers.capacity() * size_of::<i64>()
    }

    #[cfg(test)]
    pub(super) fn room_left(&self) -> usize {
        self.room.left
    }

    /// Reads the columns of one parcel into `sink`.
    ///
    /// # Errors
    /// Whatever is not as [`ColumnEncoders`](super::ColumnEncoders) writes it. These decoders are of no use then.
    pub(crate) fn decode(
        &mut self,
        reader: &mut Reader<'_>,
        origins: &Origins,
        columns: &[Expected],
        sink: &mut Sink,
    ) -> Result<(), Error> {
        self.parcel += 1;
        sink.clear();
        self.check(columns, origins)?;
        reader.section = "columns";
        self.read_changes(reader, columns)?;
        let mut tail = self.tail(reader, columns)?;
        let mut changes = std::mem::take(&mut self.changes).into_iter().peekable();
        for (position, expected) in columns.iter().enumerate() {
            let change = changes.next_if(|(at, ..)| *at == position).map(|(_, choice, once)| (choice, once));
            sink.begin_column(expected.count as usize);
            let (reader, tail) =
                tail.as_mut().map_or((&mut *reader, None), |(body, tail)| (body, Some(tail)));
            let bytes = &mut Bytes { reader, tail, column: expected.id };
            self.column(position, *expected, change, origins, bytes, sink)?;
        }
        match tail {
            Some((body, tail)) if body.remaining() + tail.remaining() > 0 => Err(body.out_of_range()),
            _ => Ok(()),
        }
    }

    /// If a column of the parcel has a part in the tail, the readers of body and tail.
    fn tail<'a>(
        &self,
        reader: &mut Reader<'a>,
        columns: &[Expected],
    ) -> Result<Option<(Reader<'a>, Reader<'a>)>, Error> {
        let mut changes = self.changes.iter().peekable();
        let any = columns.iter().enumerate().fold(false, |any, (position, expected)| {
            let change = changes.next_if(|(at, ..)| *at == position).map(|(_, choice, _)| choice);
            let choice = change.unwrap_or(&self.columns[expected.id as usize].choice);
            any | choice.has_tail(expected.count as usize)
        });
        if !any {
            return Ok(None);
        }
        let (body, tail) = (reader.number_u32()?, reader.number_u32()?);
        let section = reader.section;
        let [body, tail] = [reader.take(body as usize)?, reader.take(tail as usize)?];
        Ok(Some((Reader::new(body, section), Reader::new(tail, section))))
    }

    fn check(&mut self, columns: &[Expected], origins: &Origins) -> Result<(), Error> {
        let values = columns.iter().map(|expected| u64::from(expected.count)).sum::<u64>();
        if values > MAX_VALUES as u64 {
            return Err(Error::TooMuch { what: "values", actual: values, limit: MAX_VALUES as u64 });
        }
        for expected in columns {
            let listed = |column: &Column| column.parcel == self.parcel;
            let twice = self.columns.get(expected.id as usize).is_some_and(listed);
            let traced = origins.records(expected.set).len() == expected.count as usize;
            if expected.id >= MAX_COLUMNS || expected.count == 0 || twice || !traced {
                return Err(Error::Column { column: expected.id, fault: ColumnFault::Listed });
            }
            if self.columns.len() <= expected.id as usize {
                self.columns.resize_with(expected.id as usize + 1, Column::default);
            }
        }
        Ok(())
    }

    fn read_changes(&mut self, reader: &mut Reader<'_>, columns: &[Expected]) -> Result<(), Error> {
        self.changes.clear();
        let mut position = 0usize;
        for _ in 0..reader.count("changed columns", 3, columns.len() as u64)? {
            let gap = reader.number_u32()? as usize;
            position += gap;
            let Some(expected) = columns.get(position) else {
                return Err(Error::Column { column: position as u32, fault: ColumnFault::Change });
            };
            let (choice, change) = Choice::read(reader, expected.id)?;
            self.changes.push((position, choice, change));
            position += 1;
        }
        Ok(())
    }

    fn column(
        &mut self,
        position: usize,
        Expected { id, count, set }: Expected,
        change: Option<(Choice, Change)>,
        origins: &Origins,
        bytes: &mut Bytes<'_, '_>,
        sink: &mut Sink,
    ) -> Result<(), Error> {
        let mut column = std::mem::take(&mut self.columns[id as usize]);
        (column.position, column.set) = (position, set);
        column.numbers.clear();
        column.ids.clear();
        let mut fleeting = None;
        match change {
            Some((choice, Change::Once)) => fleeting = Some((choice, State::default())),
            Some((choice, change)) => {
                if change == Change::Afresh || !choice.is_but_for_exceptions(&column.choice) {
                    let entries = match change {
                        Change::Kept => std::mem::take(&mut column.state.entries),
                        _ => Entries::default(),
                    };
                    self.room.left += column.state.charge();
                    column.state = State { entries, ..State::default() };
                }
                column.choice = choice;
            }
            None => {}
        }
        let (choice, state) = match &mut fleeting {
            Some((choice, state)) => (&*choice, state),
            None => (&column.choice, &mut column.state),
        };
        let earlier =
            Earlier { columns: &self.columns, parcel: self.parcel, count: count as usize, origins, set };
        let caches = (&mut column.numbers, &mut column.ids);
        read(choice, state, (&earlier, &mut self.room), caches, (bytes, sink), &mut self.scratch)?;
        if let Some((_, state)) = fleeting {
            self.room.left += state.charge();
        }
        debug_assert!(self.room.left <= ROOM);
        column.parcel = self.parcel;
        self.columns[id as usize] = column;
        Ok(())
    }
}

/// The columns before the current one, by its rows.
struct Earlier<'a> {
    columns: &'a [Column],
    parcel: u64,
    count: usize,
    origins: &'a Origins,
    /// The set of the current column.
    set: u32,
}

impl<'a> Earlier<'a> {
    fn column(&self, id: u32) -> Option<&'a Column> {
        self.columns.get(id as usize).filter(|column| column.parcel == self.parcel)
    }

    /// Where the column lies in the sink and, unless they are the same, its row for each row.
    fn place(&self, id: u32) -> Option<(usize, Option<Vec<u32>>)> {
        let column = self.column(id)?;
        Some((column.position, self.origins.rows(self.set, column.set)))
    }

    /// As [`place`](Self::place), if it has a value for each row.
    fn full_place(&self, id: u32) -> Option<(usize, Option<Vec<u32>>)> {
        self.place(id).filter(|(_, rows)| rows.as_ref().is_none_or(|rows| !rows.contains(&NOWHERE)))
    }

    fn ids(&self, id: u32) -> Option<Cow<'a, [u32]>> {
        let column = self.column(id)?;
        self.origins.of_rows(self.set, column.set, &column.ids)
    }

    fn numbers(&self, source: Source) -> Option<Cow<'a, [i64]>> {
        let (numbers, set) = match source {
            Source::Timestamps => (self.origins.timestamps(), Origins::ALL),
            Source::Column(id) => self.column(id).map(|column| (&column.numbers[..], column.set))?,
        };
        self.origins.of_rows(self.set, set, numbers)
    }
}

fn read(
    choice: &Choice,
    state: &mut State,
    (earlier, room): (&Earlier<'_>, &mut Room),
    (numbers, ids): (&mut Vec<i64>, &mut Vec<u32>),
    (bytes, sink): (&mut Bytes<'_, '_>, &mut Sink),
    scratch: &mut Scratch,
) -> Result<(), Error> {
    let count = earlier.count;
    let wrong = |column, id| Error::Column { column, fault: ColumnFault::Reference(id) };
    let mut ordered = choice.order.is_some();
    if let Some(by) = choice.order {
        let ids = earlier.ids(by).ok_or_else(|| wrong(bytes.column, by))?;
        order_by(&ids, &mut scratch.order);
    }
    let quoted = choice.quoted;
    match &choice.kind {
        Kind::Constant(value) => {
            let value: &Arc<[u8]> = value;
            sink.push_repeated(value, count).map_err(|fault| bytes.fault(fault))?;
        }
        Kind::Text => text::read_lines(quoted, count, bytes, sink)?,
        Kind::Lengths => text::read_lengths(quoted, count, bytes, &mut scratch.lengths, sink)?,
        Kind::Dictionary { wide, framed, .. } => {
            dictionary::decode(&mut state.entries, (*wide, quoted, *framed), count, bytes, room, ids, sink)?;
        }
        Kind::Recurring(key, framed) => {
            let keys = match key {
                Some(key) => earlier.ids(*key).ok_or_else(|| wrong(bytes.column, *key))?,
                None => {
                    scratch.order.clear();
                    scratch.order.resize(count, ONE_KEY);
                    Cow::Borrowed(&scratch.order[..])
                }
            };
            let memory = (&mut state.entries, &mut state.recent);
            recurring::decode(memory, (quoted, *framed), &keys, bytes, room, (&mut scratch.ids, ids), sink)?;
        }
        Kind::Copy(copied) => {
            let (original, rows) = earlier.place(copied.id).ok_or_else(|| wrong(bytes.column, copied.id))?;
            copied.read_values((original, rows.as_deref()), count, bytes, &mut scratch.ids, sink)?;
        }
        Kind::Packed(packing) => packing.read_values(quoted, count, bytes, sink)?,
        Kind::Pattern(pattern) => pattern.read_values(&mut state.rows, quoted, count, bytes, sink)?,
        Kind::Numbers(spelling, predictor, coding) => {
            let column = bytes.column;
            let (mut other_ids, mut other_numbers) = (Cow::default(), Cow::default());
            match *predictor {
                Predictor::Keyed(id) | Predictor::KeyedSlope(id) => {
                    other_ids = earlier.ids(id).ok_or_else(|| wrong(column, id))?;
                    if ordered {
                        scratch.ids.clear();
                        scratch.ids.extend(scratch.order.iter().map(|row| other_ids[*row as usize]));
                        other_ids = Cow::Borrowed(&scratch.ids);
                    }
                }
                Predictor::Scaled(source, _) => {
                    let id = if let Source::Column(id) = source { id } else { MAX_COLUMNS };
                    other_numbers = earlier.numbers(source).ok_or_else(|| wrong(column, id))?;
                    if ordered {
                        scratch.numbers.clear();
                        scratch.numbers.extend(scratch.order.iter().map(|row| other_numbers[*row as usize]));
                        other_numbers = Cow::Borrowed(&scratch.numbers);
                    }
                }
                Predictor::Combined(pair) => {
                    if ordered {
                        return Err(bytes.fault(ColumnFault::Parameters));
                    }
                    let of = |id| earlier.full_place(id).ok_or_else(|| wrong(column, id));
                    let (left, right) = (of(pair.left.id)?, of(pair.right.id)?);
                    let number = |term: Term, (place, rows): &(usize, Option<Vec<u32>>), row: usize| {
                        let row = rows.as_ref().map_or(row, |rows| rows[row] as usize);
                        term.number(sink.value(sink.span(*place, row)))
                    };
                    scratch.numbers.clear();
                    scratch.numbers.extend(
                        (0..count).map(|row| {
                            pair.of(number(pair.left, &left, row), number(pair.right, &right, row))
                        }),
                    );
                    other_numbers = Cow::Borrowed(&scratch.numbers);
                }
                Predictor::Zero | Predictor::Previous | Predictor::Slope => {}
            }
            let others = Others { ids: &other_ids, numbers: &other_numbers };
            let exceptions = match choice.excepted {
                true => bytes.excepted(count, &mut scratch.exceptions)?,
                false => Vec::new(),
            };
            let mut present = (!exceptions.is_empty()).then(|| Present::without(&scratch.exceptions, count));
            let counts = match spelling {
                Spelling::Decimal(shape) if shape.is_counted() => bytes.take(count - exceptions.len())?,
                spelling if spelling.is_optional() => {
                    let marks = bytes.take(count)?;
                    let fault = Error::Column { column, fault: ColumnFault::Number };
                    present = Some(Present::of(marks).ok_or(fault)?);
                    marks
                }
                _ => &[],
            };
            let mut none = Reader::new(&[], bytes.reader.section);
            let tail = bytes.tail.as_deref_mut().unwrap_or(&mut none);
            let how = (*predictor, coding.of_rows(count));
            let memory = (&mut state.memory, room);
            let readers = (&mut *bytes.reader, tail);
            match &present {
                None => number::decode(how, count, others, memory, readers, numbers)?,
                Some(present) => present.with(others, |others| {
                    number::decode(how, present.len(), others, memory, readers, numbers)
                })?,
            }
            if let Some(present) = present.as_ref().filter(|_| spelling.is_optional()) {
                present.spread(numbers);
            }
            spell((*spelling, counts), numbers, quoted, sink).map_err(|fault| bytes.fault(fault))?;
            if let Some(present) = present.filter(|_| choice.excepted) {
                for value in exceptions {
                    sink.push(value, false).map_err(|fault| bytes.fault(fault))?;
                }
                present.spread(numbers);
                behind(present.list(), ordered, scratch);
                ordered = true;
            }
            if choice.order.is_some() {
                numbers.clear();
            }
        }
    }
    if ordered {
        sink.reorder(&scratch.order);
    }
    Ok(())
}

/// Has the order say where values stand that were pushed with the exceptions behind those of `rows`.
fn behind(rows: &[u32], is_ordered: bool, Scratch { order, exceptions, .. }: &mut Scratch) {
    let places = rows.iter().chain(exceptions.iter());
    *order = match is_ordered {
        true => places.map(|place| order[*place as usize]).collect(),
        false => places.copied().collect(),
    };
}

/// Writes numbers the way the column does.
fn spell(
    (spelling, counts): (Spelling, &[u8]),
    numbers: &[i64],
    quoted: bool,
    sink: &mut Sink,
) -> Result<(), ColumnFault> {
    let mut digits = Digits::new();
    match spelling {
        Spelling::Integer => {
            for number in numbers {
                digits.set_integer(*number);
                sink.push_digits(&digits, quoted)?;
            }
        }
        Spelling::Decimal(shape) if shape.is_counted() => {
            let mut double = Double::default();
            for (number, counted) in numbers.iter().zip(counts) {
                let (source, start, length) =
                    shape.spell_counted(*number, *counted, &mut digits, &mut double)?;
                sink.push_part(source, start, length, quoted)?;
            }
        }
        Spelling::Decimal(shape) => {
            for number in numbers {
                shape.spell(*number, &mut digits)?;
                sink.push_digits(&digits, quoted)?;
            }
        }
        Spelling::Binary(shape) => {
            let mut spelled = Spelled::default();
            for (row, number) in numbers.iter().enumerate() {
                let is_there = counts.get(row).is_none_or(|none| *none == 0);
                shape.spell(is_there.then_some(*number), &mut spelled)?;
                sink.push(spelled.as_bytes(), quoted)?;
            }
        }
        Spelling::Time(shape) => {
            let mut speller = shape.speller();
            for number in numbers {
                let (source, length) = speller.spell(*number)?;
                sink.push_part(source, 0, length, quoted)?;
            }
        }
    }
    Ok(())
}
