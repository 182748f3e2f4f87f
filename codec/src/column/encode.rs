//! Columns of a parcel to their bytes. [`decode`](super::decode) is the mirror.

use std::borrow::Cow;

use super::binary::Binary;
use super::blocks::Blocks;
use super::choice::{Change, Choice, Kind};
use super::dictionary::Dictionary;
use super::exception::{most_exceptions, put_exceptions};
use super::number::{self, Memory, Others, Pair, Predictor, Source, Term};
use super::origin::{Origins, gather_or};
use super::parsed::Apart;
use super::pattern::Rows;
use super::recall::Recall;
use super::recurring::{self, ONE_KEY, Recent};
use super::trial::Trials;
use super::{MAX_COLUMNS, Room, Span, Values, order_by, text};
use crate::varint::put;

/// A column of a parcel to be encoded.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Input<'a> {
    /// Its number, the same for the lane epoch; below [`MAX_COLUMNS`].
    pub(crate) id: u32,
    /// Its values, at least one.
    pub(crate) spans: &'a [Span],
    /// Which set of [`Origins`] has the record of each value.
    pub(crate) set: u32,
    /// How its values are read as numbers, if they are binary.
    pub(crate) binary: Option<Binary>,
}

/// All columns of a lane epoch, encoding.
#[derive(Debug, Default)]
pub(crate) struct ColumnEncoders {
    columns: Vec<Column>,
    room: Room,
    parcel: u64,
    /// How often a column became constant or ceased to be it.
    constants: u64,
    trials: Trials,
    recall: Recall,
    changes: Vec<u8>,
    body: Vec<u8>,
    /// Where in the body each column ends.
    ends: Vec<usize>,
    blocks: Blocks,
    scratch: Scratch,
}

/// One column: how it is coded, what it remembers, and when that is looked at again.
#[derive(Debug, Default)]
pub(super) struct Column {
    pub(super) choice: Choice,
    /// What a trial found, until it is in use.
    pub(super) pending: Option<Choice>,
    pub(super) state: State,
    pub(super) review: Review,
    parcel: u64,
    pub(super) position: usize,
    /// It is looked at whether others go with it.
    pub(super) is_followed: bool,
    cache: Cache,
}

/// What a column remembers from parcel to parcel, as the decoder does.
#[derive(Debug, Default)]
pub(super) struct State {
    memory: Memory,
    pub(super) dictionary: Dictionary,
    rows: Rows,
    recent: Recent,
}

impl State {
    pub(super) fn charge(&self) -> usize {
        self.memory.charge + self.dictionary.entries.charge + self.recent.charge
    }
}

/// What later columns of the parcel may refer to.
#[derive(Debug, Default)]
pub(super) struct Cache {
    pub(super) numbers: Vec<i64>,
    pub(super) ids: Vec<u32>,
}

/// When a column's kind is tried against others again.
#[derive(Debug)]
pub(super) struct Review {
    /// Values since the last trial.
    pub(super) since: u32,
    /// Values after which the next trial is due.
    pub(super) interval: u32,
    /// Least values between trials that a misfit brings about; doubles with each.
    pub(super) patience: u32,
    /// A dictionary was in use and lost: its entries are charged in full from then on.
    pub(super) dictionary_lost: bool,
    /// The kind was found by more values than a trial sees, which must not undo it.
    pub(super) is_keyed: bool,
    /// Bytes per 64 values when the kind was chosen, and lately.
    baseline: u32,
    recent: u32,
}

impl Default for Review {
    fn default() -> Self {
        Self {
            since: 0,
            interval: 0,
            patience: 16,
            dictionary_lost: false,
            is_keyed: false,
            baseline: 0,
            recent: 0,
        }
    }
}

impl Review {
    /// The kind did not fit, or costs more than it did: a trial is due soon.
    fn disappointed(&mut self) {
        self.is_keyed = false;
        if self.patience < self.interval {
            self.interval = self.patience;
            self.patience = self.patience.saturating_mul(4).min(LONGEST);
        }
    }

    /// The kind was found without a trial.
    pub(super) fn keyed(&mut self, values: usize) {
        self.is_keyed = true;
        self.tried(values, 1, true);
    }

    /// What was found without a trial does not hold any more.
    pub(super) fn released(&mut self) {
        if std::mem::take(&mut self.is_keyed) {
            self.interval = 0;
        }
    }

    /// Bytes per 64 values, lately, before compression.
    pub(super) fn cost(&self) -> u32 {
        self.recent
    }

    /// Whether a trial is due once so many values more have passed.
    pub(super) fn is_due(&self, values: u32) -> bool {
        !self.is_keyed && self.since.saturating_add(values) >= self.interval
    }

    fn spent(&mut self, bytes: usize, values: usize) {
        let cost = (bytes * 64 / values) as u32;
        if self.baseline == 0 {
            (self.baseline, self.recent) = (cost + 1, cost + 1);
        }
        let weight = values.min(256) as u64;
        self.recent = ((u64::from(self.recent) * (512 - weight) + u64::from(cost) * weight) / 512) as u32;
        if self.recent > self.baseline + self.baseline / 2 + 32 {
            self.baseline = self.recent;
            self.disappointed();
        }
    }

    /// A trial was held: the next one when so many times as many values have passed as since the last one. What is new is
    /// soon looked at again.
    pub(super) fn tried(&mut self, values: usize, times: u32, is_new: bool) {
        let passed = if is_new { values as u32 } else { self.since.max(values as u32) };
        self.interval = passed.saturating_mul(times).clamp(SHORTEST, LONGEST);
        (self.since, self.baseline) = (0, 0);
    }
}

const SHORTEST: u32 = 256;
const LONGEST: u32 = 1 << 22;

/// Buffers that all columns share.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    order: Vec<u32>,
    spans: Vec<Span>,
    ids: Vec<u32>,
    numbers: Vec<i64>,
    exceptions: Vec<u32>,
    apart: Apart,
    /// What the columns of the parcel have behind all bodies.
    pub(super) tail: Vec<u8>,
}

impl ColumnEncoders {
    /// Forgets everything; the decoder must do so at the same parcel.
    pub(crate) fn reset(&mut self) {
        *self = Self {
            trials: std::mem::take(&mut self.trials).cleared(),
            constants: self.constants + 1,
            ..Self::default()
        };
    }

    /// Whether kinds that cost much time must save much, from the next trials on.
    pub(crate) fn set_thrifty(&mut self, thrifty: bool) {
        self.trials.thrifty = thrifty;
    }

    /// What all values of a column were in the last parcels, if they were one.
    pub(crate) fn constant(&self, id: u32) -> Option<&[u8]> {
        match &self.columns.get(id as usize)?.choice.kind {
            Kind::Constant(value) => Some(value),
            _ => None,
        }
    }

    /// Another number than before when [`constant`](Self::constant) has another answer for some column.
    pub(crate) fn constants(&self) -> u64 {
        self.constants
    }

    /// Bytes held.
    pub(crate) fn memory(&self) -> usize {
        let of_column = |column: &Column| {
            column.state.memory.memory()
                + column.state.dictionary.memory()
                + column.state.recent.memory()
                + column.cache.numbers.capacity() * size_of::<i64>()
                + column.cache.ids.capacity() * size_of::<u32>()
        };
        let scratch = &self.scratch;
        self.columns.iter().map(of_column).sum::<usize>()
            + self.columns.capacity() * size_of::<Column>()
            + self.changes.capacity()
            + self.body.capacity()
            + self.trials.memory()
            + self.recall.memory()
            + scratch.tail.capacity()
            + scratch.apart.memory()
            + (scratch.order.capacity() + scratch.ids.capacity() + scratch.exceptions.capacity())
                * size_of::<u32>()
            + scratch.spans.capacity() * size_of::<Span>()
            + scratch.numbers.capacity() * size_of::<i64>()
    }

    #[cfg(test)]
    pub(super) fn room_left(&self) -> usize {
        self.room.left
    }

    /// Codes a column like this from the next parcel on, if it fits.
    #[cfg(test)]
    pub(super) fn force(&mut self, id: u32, choice: Choice) {
        if self.columns.len() <= id as usize {
            self.columns.resize_with(id as usize + 1, Column::default);
        }
        self.columns[id as usize].pending = Some(choice);
    }

    /// How a column is coded, to be read.
    #[cfg(test)]
    pub(super) fn kind_of(&self, id: u32) -> String {
        let choice = &self.columns[id as usize].choice;
        let order = choice.order.map_or(String::new(), |by| format!(" ordered by {by}"));
        format!("{:?}{order}", choice.kind)
    }

    /// Appends the columns of one parcel to `out`. The module documentation has the layout. Returns where in `out` a zstd block
    /// had better begin, ascending.
    ///
    /// # Panics
    /// If a column has no values, or an id is not below [`MAX_COLUMNS`].
    pub(crate) fn encode(
        &mut self,
        arena: &[u8],
        origins: &Origins,
        inputs: &[Input<'_>],
        out: &mut Vec<u8>,
    ) -> &[usize] {
        self.parcel += 1;
        for (position, input) in inputs.iter().enumerate() {
            assert!(input.id < MAX_COLUMNS && !input.spans.is_empty(), "column {} of a parcel", input.id);
            if self.columns.len() <= input.id as usize {
                self.columns.resize_with(input.id as usize + 1, Column::default);
            }
            let column = &mut self.columns[input.id as usize];
            column.position = position;
            column.review.since = column.review.since.saturating_add(input.spans.len() as u32);
        }
        self.trials.run((arena, origins), inputs, &mut self.columns, &mut self.scratch);
        self.recall.run(arena, inputs, &mut self.columns, self.room.left);
        self.changes.clear();
        self.body.clear();
        self.scratch.tail.clear();
        self.ends.clear();
        let (mut changed, mut next) = (0, 0);
        for (position, input) in inputs.iter().enumerate() {
            let before = self.changes.len();
            put(&mut self.changes, (position - next) as u64);
            if self.column(position, arena, origins, inputs) {
                changed += 1;
                next = position + 1;
            } else {
                self.changes.truncate(before);
            }
            debug_assert!(self.columns[input.id as usize].parcel == self.parcel);
            self.ends.push(self.body.len());
        }
        put(out, changed);
        out.extend_from_slice(&self.changes);
        let tail = &self.scratch.tail;
        if !tail.is_empty() {
            put(out, self.body.len() as u64);
            put(out, tail.len() as u64);
        }
        self.blocks.begin(out);
        let mut start = 0;
        for &end in &self.ends {
            self.blocks.add(out.len() + start, &self.body[start..end]);
            start = end;
        }
        out.extend_from_slice(&self.body);
        self.blocks.add_ranged(out.len(), tail.len());
        out.extend_from_slice(tail);
        if self.body.capacity() > KEEP {
            self.body = Vec::new();
            self.scratch = Scratch::default();
            self.columns.iter_mut().for_each(|column| column.cache = Cache::default());
        }
        self.blocks.starts()
    }

    /// Appends one column to the body and, if its kind changes, to the changes. Returns whether it does.
    fn column(&mut self, position: usize, arena: &[u8], origins: &Origins, inputs: &[Input<'_>]) -> bool {
        let Input { id, spans, set, .. } = inputs[position];
        debug_assert_eq!(origins.records(set).len(), spans.len());
        let mut column = std::mem::take(&mut self.columns[id as usize]);
        column.parcel = self.parcel;
        let values = Values { arena, spans, strip: 0 };
        let earlier = Live { columns: &self.columns, inputs, parcel: self.parcel, origins, set };
        let start = self.body.len() + self.scratch.tail.len();
        let mut changed = false;
        let mut written = false;
        if let Some(choice) =
            column.pending.take().filter(|choice| !choice.is_but_for_exceptions(&column.choice))
        {
            let kept =
                choice.has_entries() && column.choice.has_entries() && choice.quoted == column.choice.quoted;
            let dictionary =
                if kept { std::mem::take(&mut column.state.dictionary) } else { Dictionary::default() };
            let mut state = State { dictionary, ..State::default() };
            self.room.left += column.state.charge();
            let memory = (&mut state, &mut self.room);
            written = match write(
                &choice,
                values,
                &earlier,
                memory,
                &mut column.cache,
                &mut self.scratch,
                &mut self.body,
            ) {
                Some(width) => {
                    let constant = |choice: &Choice| matches!(choice.kind, Kind::Constant(_));
                    self.constants += u64::from(constant(&choice) || constant(&column.choice));
                    column.choice = widened(choice, width);
                    column.state = state;
                    let change = if kept { Change::Kept } else { Change::Afresh };
                    column.choice.put(change, &mut self.changes);
                    changed = true;
                    true
                }
                None => {
                    self.room.left -= column.state.charge();
                    if kept {
                        column.state.dictionary = state.dictionary;
                    }
                    false
                }
            };
        }
        if !written {
            let mut attempt = |choice: &Choice| {
                let memory = (&mut column.state, &mut self.room);
                let cache = &mut column.cache;
                write(choice, values, &earlier, memory, cache, &mut self.scratch, &mut self.body)
            };
            let mut width = attempt(&column.choice);
            if width.is_none()
                && let Some(choice) = column.choice.with_exceptions()
            {
                width = attempt(&choice);
                if width.is_some() {
                    column.choice = choice;
                    column.choice.put(Change::Kept, &mut self.changes);
                    changed = true;
                }
            }
            match width {
                Some(width) => {
                    if matches!(column.choice.kind, Kind::Dictionary { wide, .. } if wide != width) {
                        column.choice = widened(column.choice, width);
                        column.choice.put(Change::Kept, &mut self.changes);
                        changed = true;
                    }
                }
                None => {
                    column.cache.numbers.clear();
                    column.cache.ids.clear();
                    let kind = if text::put_lines(values, &mut self.body) {
                        Kind::Text
                    } else {
                        text::put_lengths(values, &mut self.body);
                        Kind::Lengths
                    };
                    Choice::plain(kind).put(Change::Once, &mut self.changes);
                    changed = true;
                    column.review.disappointed();
                }
            }
        }
        column.review.spent(self.body.len() + self.scratch.tail.len() - start, spans.len());
        self.columns[id as usize] = column;
        changed
    }
}

/// The choice with the width that a dictionary's ids have now.
fn widened(choice: Choice, wide: bool) -> Choice {
    match choice.kind {
        Kind::Dictionary { framed, .. } => Choice { kind: Kind::Dictionary { wide, framed }, ..choice },
        _ => choice,
    }
}

/// What a column can refer to, by its rows.
pub(super) trait Earlier {
    /// None if a row has none.
    fn ids(&self, id: u32) -> Option<Cow<'_, [u32]>>;
    /// None if a row has none.
    fn numbers(&self, source: Source) -> Option<Cow<'_, [i64]>>;
    /// [`Span::NONE`] for rows that have none.
    fn spans(&self, id: u32) -> Option<Cow<'_, [Span]>>;
}

/// The columns of the parcel that have been encoded.
struct Live<'a> {
    columns: &'a [Column],
    inputs: &'a [Input<'a>],
    parcel: u64,
    origins: &'a Origins,
    /// The set of the current column.
    set: u32,
}

impl<'a> Live<'a> {
    /// An earlier column of the parcel, and its set.
    fn column(&self, id: u32) -> Option<(&'a Column, u32)> {
        let column = self.columns.get(id as usize).filter(|column| column.parcel == self.parcel)?;
        Some((column, self.inputs[column.position].set))
    }
}

impl Earlier for Live<'_> {
    fn ids(&self, id: u32) -> Option<Cow<'_, [u32]>> {
        let (column, set) = self.column(id)?;
        self.origins.of_rows(self.set, set, &column.cache.ids)
    }

    fn numbers(&self, source: Source) -> Option<Cow<'_, [i64]>> {
        let (numbers, set) = match source {
            Source::Timestamps => (self.origins.timestamps(), Origins::ALL),
            Source::Column(id) => {
                let (column, set) = self.column(id)?;
                (&column.cache.numbers[..], set)
            }
        };
        self.origins.of_rows(self.set, set, numbers)
    }

    fn spans(&self, id: u32) -> Option<Cow<'_, [Span]>> {
        let (column, set) = self.column(id)?;
        let spans = self.inputs[column.position].spans;
        Some(match self.origins.rows(self.set, set) {
            None => Cow::Borrowed(spans),
            Some(rows) => Cow::Owned(gather_or(&rows, spans, Span::NONE)),
        })
    }
}

/// Appends `values` as `choice` has it, and returns whether ids of a dictionary are wide. `None` if a value does not
/// fit: nothing is appended and nothing changes then.
pub(super) fn write(
    choice: &Choice,
    values: Values<'_>,
    earlier: &dyn Earlier,
    (state, room): (&mut State, &mut Room),
    cache: &mut Cache,
    scratch: &mut Scratch,
    out: &mut Vec<u8>,
) -> Option<bool> {
    cache.numbers.clear();
    cache.ids.clear();
    let mut values = choice.bare(values)?;
    let Scratch { order, spans, ids, numbers, exceptions, apart, tail } = scratch;
    if let Some(by) = choice.order {
        order_by(&earlier.ids(by)?, order);
        spans.clear();
        spans.extend(order.iter().map(|row| values.spans[*row as usize]));
        values.spans = spans;
    }
    let fits = match &choice.kind {
        Kind::Constant(value) => values.are_all(value),
        Kind::Text => text::put_lines(values, out),
        Kind::Lengths => {
            text::put_lengths(values, out);
            true
        }
        Kind::Dictionary { framed, .. } => {
            return state.dictionary.encode((values, *framed), room, &mut cache.ids, out);
        }
        Kind::Recurring(key, framed) => {
            let memory = (&mut state.dictionary, &mut state.recent);
            let keys = match key {
                Some(key) => earlier.ids(*key)?,
                None => {
                    ids.clear();
                    ids.resize(values.len(), ONE_KEY);
                    Cow::Borrowed(&ids[..])
                }
            };
            recurring::encode(memory, (values, *framed), &keys, room, &mut cache.ids, out)
        }
        Kind::Copy(original) => original.put_values(values, &earlier.spans(original.id)?, exceptions, out),
        Kind::Packed(packing) => packing.put_values(values, out),
        Kind::Pattern(pattern) => pattern.put_values(&mut state.rows, values, numbers, out),
        Kind::Numbers(spelling, predictor, coding) => {
            let (mut other_ids, mut other_numbers) = (Cow::default(), Cow::default());
            match *predictor {
                Predictor::Keyed(id) | Predictor::KeyedSlope(id) => {
                    other_ids = earlier.ids(id)?;
                    if choice.order.is_some() {
                        ids.clear();
                        ids.extend(order.iter().map(|row| other_ids[*row as usize]));
                        other_ids = Cow::Borrowed(ids);
                    }
                }
                Predictor::Scaled(source, _) => {
                    other_numbers = earlier.numbers(source)?;
                    if choice.order.is_some() {
                        numbers.clear();
                        numbers.extend(order.iter().map(|row| other_numbers[*row as usize]));
                        other_numbers = Cow::Borrowed(numbers);
                    }
                }
                // Not in another order: nobody chooses that.
                Predictor::Combined(_) if choice.order.is_some() => return None,
                Predictor::Combined(pair) => {
                    combine(pair, values.arena, earlier, numbers)?;
                    other_numbers = Cow::Borrowed(numbers);
                }
                Predictor::Zero | Predictor::Previous | Predictor::Slope => {}
            }
            let others = Others { ids: &other_ids, numbers: &other_numbers };
            let most = most_exceptions(choice.excepted, values.len());
            if !apart.parse(*spelling, values, most, &mut cache.numbers) {
                cache.numbers.clear();
                return None;
            }
            let memory = (&mut state.memory, room);
            let start = out.len();
            if choice.excepted {
                put_exceptions(&apart.exceptions, Values { strip: 0, ..values }, out);
            }
            let how = (*predictor, coding.of_rows(values.len()));
            let fits = match apart.present(*spelling, values.len()) {
                None => {
                    out.extend_from_slice(&apart.counts);
                    number::encode(how, &cache.numbers, others, memory, (out, tail))
                }
                Some(present) => {
                    match spelling.is_optional() {
                        true => out.extend_from_slice(&apart.counts),
                        false => out.extend(present.pick(&apart.counts)),
                    }
                    let numbers = present.pick(&cache.numbers);
                    present.with(others, |others| number::encode(how, &numbers, others, memory, (out, tail)))
                }
            };
            if !fits {
                out.truncate(start);
            }
            if choice.order.is_some() || !fits {
                cache.numbers.clear();
            }
            fits
        }
    };
    fits.then_some(false)
}

/// Fills `numbers` with what a pair of columns comes to.
fn combine(pair: Pair, arena: &[u8], earlier: &dyn Earlier, numbers: &mut Vec<i64>) -> Option<()> {
    let (left, right) = (earlier.spans(pair.left.id)?, earlier.spans(pair.right.id)?);
    if left.iter().chain(right.iter()).any(|span| *span == Span::NONE) {
        return None;
    }
    let number = |term: Term, span: &Span| term.number(span.of(arena));
    numbers.clear();
    let rows = left.iter().zip(right.iter());
    numbers.extend(rows.map(|(left, right)| pair.of(number(pair.left, left), number(pair.right, right))));
    Some(())
}

/// Capacity of the body above which all buffers are given back.
const KEEP: usize = 2 << 20;
