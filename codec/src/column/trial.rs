//! Which kind a column is coded as: candidates are coded and compressed with a cheap level, the smallest one stays.
//!
//! A column is tried when it has enough values to tell, again after four or twelve times as many, and soon after its kind
//! stopped fitting or became dearer. Columns with few values in each parcel are tried on the values of several parcels, which are
//! kept as [`Evidence`]. A budget, which grows with the bytes that pass, spreads the work.

use std::borrow::Cow;

use zstd_safe::{CCtx, CParameter};

use super::binary::Binary;
use super::candidate::Best;
use super::choice::{Choice, Kind};
use super::dictionary;
use super::encode::{Cache, Column, Earlier, Input, Scratch, State};
use super::exception::most_exceptions;
use super::number::Source;
use super::origin::{Origins, gather, gather_or, join};
use super::packed::Packing;
use super::parsed::Apart;
use super::pattern::Pattern;
use super::{MAX_COLUMNS, MAX_CONSTANT, Room, Span, Values};

/// What trials need from parcel to parcel.
pub(super) struct Trials {
    context: Option<CCtx<'static>>,
    compressed: Vec<u8>,
    pub(super) body: Vec<u8>,
    budget: i64,
    evidence: Evidence,
    /// Kinds that cost much time must save much.
    pub(super) thrifty: bool,
}

impl Default for Trials {
    fn default() -> Self {
        Self {
            context: None,
            compressed: Vec::new(),
            body: Vec::new(),
            budget: FIRST_BUDGET,
            evidence: Evidence::default(),
            thrifty: false,
        }
    }
}

impl std::fmt::Debug for Trials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trials").field("budget", &self.budget).finish_non_exhaustive()
    }
}

/// Values of columns that have few in each parcel, copied.
#[derive(Default)]
struct Evidence {
    arena: Vec<u8>,
    /// Of the records of all parcels.
    timestamps: Vec<i64>,
    /// Values of all columns.
    values: usize,
    /// By column id.
    columns: Vec<Gathered>,
}

#[derive(Default)]
struct Gathered {
    spans: Vec<Span>,
    /// Of each value its record, counted over all parcels.
    records: Vec<u32>,
    from: u64,
    parcels: usize,
}

impl Evidence {
    fn add(&mut self, arena: &[u8], origins: &Origins, inputs: &[Input<'_>], enough: usize) {
        let few = |input: &&Input<'_>| input.spans.len() < enough;
        let bytes = bytes_of_few(inputs, enough);
        // Values that lie in one place take no bytes again.
        let values: usize = inputs.iter().filter(few).map(|input| input.spans.len()).sum();
        let is_full = self.arena.len() + bytes > MOST_EVIDENCE || self.values + values > MOST_VALUES;
        if is_full || self.timestamps.len() > MOST_RECORDS {
            self.clear();
        }
        if bytes > MOST_EVIDENCE || values > MOST_VALUES {
            return;
        }
        let before = self.timestamps.len() as u32;
        self.timestamps.extend_from_slice(origins.timestamps());
        for Input { id, spans, set, .. } in inputs.iter().filter(few) {
            let (mut last, mut copied) = (None, Span::default());
            if self.columns.len() <= *id as usize {
                self.columns.resize_with(*id as usize + 1, Gathered::default);
            }
            let gathered = &mut self.columns[*id as usize];
            gathered.from = mark(gathered.from, before, *set);
            gathered.parcels += 1;
            gathered.records.extend(origins.records(*set).iter().map(|record| before + record));
            for span in *spans {
                // A value that is the one before, in the same place, is so here too.
                if last != Some(*span) {
                    last = Some(*span);
                    let start = self.arena.len() as u32;
                    self.arena.extend_from_slice(span.of(arena));
                    // A byte apart, so that empty values are somewhere too.
                    copied = Span { start, end: self.arena.len() as u32 };
                    self.arena.push(0);
                }
                gathered.spans.push(copied);
            }
        }
        self.values += values;
    }

    fn clear(&mut self) {
        self.arena.clear();
        self.timestamps.clear();
        self.values = 0;
        for gathered in &mut self.columns {
            gathered.spans.clear();
            gathered.records.clear();
            gathered.from = 0;
            gathered.parcels = 0;
        }
    }

    fn memory(&self) -> usize {
        let of_column = |gathered: &Gathered| {
            gathered.spans.capacity() * size_of::<Span>() + gathered.records.capacity() * size_of::<u32>()
        };
        self.arena.capacity()
            + self.timestamps.capacity() * size_of::<i64>()
            + self.columns.iter().map(of_column).sum::<usize>()
            + self.columns.capacity() * size_of::<Gathered>()
    }
}

/// The last rows, as many as a trial looks at.
fn recent<T>(all: &[T]) -> &[T] {
    &all[all.len().saturating_sub(MOST_ROWS)..]
}

/// How many rows are of the last records: of two columns that have values of the same records, the same ones.
fn recent_rows(records: &[u32], all_records: usize) -> usize {
    let first = all_records.saturating_sub(MOST_ROWS) as u32;
    let recent = (records.len() - records.partition_point(|record| *record < first)).min(MOST_ROWS);
    // Of a column whose records are further to the front, its own last ones.
    let most = records.len().min(MOST_ROWS);
    if recent < most / 2 { most } else { recent }
}

/// Bytes of the columns that have fewer than `enough` values in a parcel.
fn bytes_of_few(inputs: &[Input<'_>], enough: usize) -> usize {
    inputs.iter().filter(|input| input.spans.len() < enough).map(|input| bytes_of(input.spans)).sum()
}

/// Bytes of values, and one for each.
fn bytes_of(spans: &[Span]) -> usize {
    spans.iter().map(|span| span.end - span.start + 1).sum::<u32>() as usize
}

/// Columns with the same mark were gathered from the same parcels, with values of the same records. That of columns of which
/// nothing was gathered is 0.
fn mark(before: u64, records: u32, set: u32) -> u64 {
    (before ^ u64::from(records) << 32 ^ (u64::from(set) + 1))
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .rotate_left(23)
}

/// Columns to hold trials on: of a parcel, or of the evidence.
pub(super) struct Sample<'a> {
    arena: &'a [u8],
    /// Of each record.
    timestamps: &'a [i64],
    /// In decode order.
    columns: Vec<Sampled<'a>>,
}

pub(super) struct Sampled<'a> {
    pub(super) id: u32,
    pub(super) spans: &'a [Span],
    /// The record of each value.
    records: &'a [u32],
    /// Columns with the same number have the same records.
    from: u64,
    /// From how many parcels the values are.
    pub(super) parcels: usize,
    pub(super) binary: Option<Binary>,
    /// What later columns may refer to, once it was asked for.
    cache: Option<Cache>,
}

impl Trials {
    /// For another lane epoch: the context stays, the evidence does not.
    pub(super) fn cleared(mut self) -> Self {
        self.evidence = Evidence::default();
        self
    }

    pub(super) fn memory(&self) -> usize {
        self.context.as_ref().map_or(0, |context| context.sizeof())
            + self.compressed.capacity()
            + self.body.capacity()
            + self.evidence.memory()
    }

    /// Tries the columns for which it is time, and leaves what was found as pending.
    pub(super) fn run(
        &mut self,
        (arena, origins): (&[u8], &Origins),
        inputs: &[Input<'_>],
        columns: &mut [Column],
        scratch: &mut Scratch,
    ) {
        let bytes: usize = inputs.iter().map(|input| bytes_of(input.spans)).sum();
        self.budget = (self.budget + bytes as i64 / BUDGET_SHARE + 64).min(MOST_BUDGET);
        // What would soon fill the evidence is enough by itself.
        let least = if self.thrifty { ENOUGH_THRIFTY } else { ENOUGH };
        let enough = if bytes_of_few(inputs, least) > MOST_EVIDENCE / 4 { FEWEST } else { least };
        let within = |values: u32| {
            move |input: &Input<'_>, columns: &[Column]| columns[input.id as usize].review.is_due(values)
        };
        let (soon, due) = (within(MOST_ROWS as u32), within(0));
        let due = |input: &Input<'_>| due(input, columns);
        if inputs.iter().any(|input| input.spans.len() < enough && soon(input, columns)) {
            self.evidence.add(arena, origins, inputs, enough);
        } else {
            self.evidence.clear();
        }
        let parcel: Vec<bool> =
            inputs.iter().map(|input| due(input) && input.spans.len() >= enough).collect();
        let gathered: Vec<bool> =
            inputs.iter().map(|input| due(input) && input.spans.len() < enough).collect();
        if parcel.contains(&true) {
            let timestamps = origins.timestamps();
            let of_parcel = inputs.iter().map(|&Input { id, spans, set, binary }| {
                let records = origins.records(set);
                let first = records.len() - recent_rows(records, timestamps.len());
                let (spans, records) = (&spans[first..], &records[first..]);
                Sampled { id, spans, records, from: set.into(), parcels: 1, binary, cache: None }
            });
            let sample = Sample { arena, timestamps, columns: of_parcel.collect() };
            self.sample(sample, &parcel, columns, scratch);
        }
        if gathered.contains(&true) {
            let evidence = std::mem::take(&mut self.evidence);
            // What is not in the evidence stands with no values, so that places stay those of the parcel.
            let of_input = |input: &Input<'_>| {
                let (id, binary) = (input.id, input.binary);
                let none = Sampled { id, spans: &[], records: &[], from: 0, parcels: 0, binary, cache: None };
                evidence.columns.get(input.id as usize).map_or(none, |gathered| Sampled {
                    id: input.id,
                    spans: recent(&gathered.spans),
                    records: recent(&gathered.records),
                    from: gathered.from,
                    parcels: gathered.parcels,
                    binary,
                    cache: None,
                })
            };
            let (arena, timestamps) = (&evidence.arena, &evidence.timestamps);
            let sample = Sample { arena, timestamps, columns: inputs.iter().map(of_input).collect() };
            self.sample(sample, &gathered, columns, scratch);
            self.evidence = evidence;
        }
    }

    fn sample(
        &mut self,
        mut sample: Sample<'_>,
        due: &[bool],
        columns: &mut [Column],
        scratch: &mut Scratch,
    ) {
        for index in (0..due.len()).filter(|index| due[*index]) {
            let spans = sample.columns[index].spans;
            let id = sample.columns[index].id as usize;
            // A column's first trial is worth a debt.
            let least = if columns[id].review.interval == 0 { MOST_DEBT } else { 0 };
            if self.budget <= least || spans.len() < FEWEST_CONSTANT {
                continue;
            }
            let values = Values { arena: sample.arena, spans, strip: 0 };
            let constant = constant(values);
            if constant.is_none() && spans.len() < FEWEST {
                continue;
            }
            let choice = match constant {
                Some(choice) => choice,
                None => {
                    sample.provide(index, columns);
                    self.choose(&sample, index, &mut columns[id], scratch)
                }
            };
            let column = &mut columns[id];
            let was_dictionary = matches!(column.choice.kind, Kind::Dictionary { .. });
            let is_dictionary = matches!(choice.kind, Kind::Dictionary { .. });
            column.review.dictionary_lost |= was_dictionary && !is_dictionary;
            // A dictionary that stays a dictionary keeps its entries.
            let same = was_dictionary && is_dictionary && choice.is_like(&column.choice);
            let is_new = !same && !choice.is_but_for_exceptions(&column.choice);
            let growth = if self.thrifty { GROWTH_THRIFTY } else { GROWTH };
            column.review.tried(spans.len(), growth, is_new);
            column.pending = (!same).then_some(choice);
        }
    }

    /// The smallest of all candidates for the column at `index`.
    fn choose(
        &mut self,
        sample: &Sample<'_>,
        index: usize,
        column: &mut Column,
        scratch: &mut Scratch,
    ) -> Choice {
        let all = Values { arena: sample.arena, spans: sample.columns[index].spans, strip: 0 };
        let earlier = Known::of(sample, index);
        let binary = sample.columns[index].binary;
        let framed = dictionary::is_framed(binary, all);
        let mut best = Best {
            binary,
            framed,
            trials: self,
            earlier: &earlier,
            values: all,
            scratch,
            column,
            cost: usize::MAX,
            choice: Choice::default(),
        };
        if best.originals() {
            return best.choice;
        }
        let quoted = all.stripped();
        let (values, quoted) = (quoted.unwrap_or(all), quoted.is_some());
        best.current();
        best.consider(Choice::of(quoted, Kind::Text));
        if best.cost == usize::MAX {
            best.consider(Choice::of(quoted, Kind::Lengths));
        }
        let numbers = best.numbers(quoted);
        if !best.is_small() {
            best.recurring(quoted);
        }
        if best.is_small() {
            return best.choice;
        }
        best.dictionary(quoted);
        if numbers.is_none_or(|(reading, _)| reading.excepted) {
            if let Some(pattern) = Pattern::of(values) {
                best.consider(Choice::of(quoted, Kind::Pattern(pattern.into())));
            }
            for packing in Packing::candidates(values.get(0)) {
                best.consider(Choice::of(quoted, Kind::Packed(packing)));
            }
        }
        if !best.is_small() {
            best.ordered(quoted, numbers);
        }
        best.choice
    }

    /// Compressed size of the body.
    pub(super) fn compressed(&mut self) -> usize {
        let context = self.context.get_or_insert_with(|| {
            let mut context = CCtx::create();
            // These are in range; without them a trial only costs more.
            let _ = context.set_parameter(CParameter::CompressionLevel(LEVEL));
            let _ = context.set_parameter(CParameter::WindowLog(17));
            context
        });
        self.budget -= self.body.len() as i64 + CANDIDATE;
        self.compressed.clear();
        self.compressed.reserve(zstd_safe::compress_bound(self.body.len()));
        context.compress2(&mut self.compressed, &self.body).unwrap_or(self.body.len())
    }
}

/// The constant that all values are.
fn constant(values: Values<'_>) -> Option<Choice> {
    let first = values.get(0);
    let all = first.len() <= MAX_CONSTANT && values.are_all(first);
    all.then(|| Choice::plain(Kind::Constant(first.into())))
}

impl Sample<'_> {
    /// Makes sure that ids and numbers of the columns that the one at `index` may refer to are there, as far as they have
    /// some.
    fn provide(&mut self, index: usize, columns: &[Column]) {
        let related: Vec<usize> = Known::of(self, index).places().collect();
        for place in related {
            let sampled = &mut self.columns[place];
            if sampled.cache.is_some() {
                continue;
            }
            let column = &columns[sampled.id as usize];
            let choice = column.pending.as_ref().unwrap_or(&column.choice);
            let mut cache = Cache::default();
            let values = Values { arena: self.arena, spans: sampled.spans, strip: 0 };
            let Some(values) = choice.bare(values) else { continue };
            match &choice.kind {
                Kind::Dictionary { .. } | Kind::Recurring(..) => {
                    let _ = State::default().dictionary.encode(
                        (values, true),
                        &mut Room::default(),
                        &mut cache.ids,
                        &mut Vec::new(),
                    );
                }
                Kind::Numbers(spelling, ..) if choice.order.is_none() => {
                    let most = most_exceptions(choice.excepted, values.len());
                    let fits = Apart::default().parse(*spelling, values, most, &mut cache.numbers);
                    cache.numbers.truncate(if fits { values.len() } else { 0 });
                }
                _ => {}
            }
            sampled.cache = Some(cache);
        }
    }
}

/// The columns of a sample that the one at `index` may refer to, by its first rows.
#[derive(Clone, Copy)]
pub(super) struct Known<'a> {
    sample: &'a Sample<'a>,
    index: usize,
    rows: usize,
}

impl<'a> Known<'a> {
    fn of(sample: &'a Sample<'a>, index: usize) -> Self {
        Self { sample, index, rows: sample.columns[index].spans.len() }
    }

    /// The same for the first rows only.
    pub(super) fn first(&self, rows: usize) -> Self {
        Self { rows, ..*self }
    }

    fn current(&self) -> &'a Sampled<'a> {
        &self.sample.columns[self.index]
    }

    /// From how many parcels the current column's values are.
    pub(super) fn parcels(&self) -> usize {
        self.current().parcels
    }

    /// Places of earlier columns with values of the same records, nearest first; then of those with values of some of
    /// them.
    fn places(&self) -> impl Iterator<Item = usize> + use<'a> {
        let (current, columns) = (self.current(), &self.sample.columns);
        let mut met: Vec<(u64, bool)> = Vec::new();
        let mut is_related = move |other: &Sampled<'_>| match met.iter().find(|(from, _)| *from == other.from)
        {
            Some((_, related)) => *related,
            None => {
                let related = other.from != current.from && shares(current.records, other.records);
                met.push((other.from, related));
                related
            }
        };
        let before = (0..self.index).rev();
        let alike = before.clone().filter(|place| columns[*place].from == current.from);
        alike.chain(before.filter(move |place| is_related(&columns[*place])))
    }

    /// The columns in that order.
    pub(super) fn columns(&self) -> impl Iterator<Item = &'a Sampled<'a>> + use<'a> {
        let columns = &self.sample.columns;
        self.places().map(|place| &columns[place])
    }

    fn column(&self, id: u32) -> Option<&'a Sampled<'a>> {
        self.sample.columns[..self.index].iter().find(|sampled| sampled.id == id)
    }

    /// Its row for each row; none if they are the same.
    fn rows_of(&self, other: &Sampled<'_>) -> Option<Vec<u32>> {
        let current = self.current();
        (other.from != current.from).then(|| join(&current.records[..self.rows], other.records))
    }

    /// The value that `other` has for a row.
    pub(super) fn value_of(&self, other: &Sampled<'a>, row: usize) -> Option<&'a [u8]> {
        let current = self.current();
        let place = if other.from == current.from {
            row
        } else {
            let record = current.records[row];
            let before = current.records[..row].iter().rev().take_while(|other| **other == record).count();
            let first = other.records.partition_point(|other| *other < record);
            other.records.get(first + before).filter(|found| **found == record)?;
            first + before
        };
        Some(other.spans[place].of(self.sample.arena))
    }

    fn of_rows<T: Copy>(&self, other: &Sampled<'_>, all: &'a [T]) -> Option<Cow<'a, [T]>> {
        if all.len() != other.spans.len() {
            return None;
        }
        match self.rows_of(other) {
            None => Some(Cow::Borrowed(&all[..self.rows])),
            Some(rows) => gather(&rows, all).map(Cow::Owned),
        }
    }

    /// Columns with ids, and some order in them: fewer entries than half the values.
    pub(super) fn keys(&self) -> impl Iterator<Item = u32> + use<'a> {
        self.columns().filter_map(|sampled| {
            let ids = &sampled.cache.as_ref()?.ids;
            let entries = ids.iter().copied().max()? as usize;
            (ids.len() == sampled.spans.len() && entries > 1 && entries <= ids.len() / 2)
                .then_some(sampled.id)
        })
    }
}

impl Earlier for Known<'_> {
    fn ids(&self, id: u32) -> Option<Cow<'_, [u32]>> {
        let column = self.column(id)?;
        self.of_rows(column, &column.cache.as_ref()?.ids)
    }

    fn numbers(&self, source: Source) -> Option<Cow<'_, [i64]>> {
        match source {
            Source::Timestamps => {
                gather(&self.current().records[..self.rows], self.sample.timestamps).map(Cow::Owned)
            }
            Source::Column(id) => {
                let column = self.column(id)?;
                self.of_rows(column, &column.cache.as_ref()?.numbers)
            }
        }
    }

    fn spans(&self, id: u32) -> Option<Cow<'_, [Span]>> {
        let column = self.column(id)?;
        Some(match self.rows_of(column) {
            None => Cow::Borrowed(&column.spans[..self.rows]),
            Some(rows) => Cow::Owned(gather_or(&rows, column.spans, Span::NONE)),
        })
    }
}

/// Whether some rows have one of the same record in the other column, as a few tell.
fn shares(records: &[u32], others: &[u32]) -> bool {
    let probes = (0..=RELATED_PROBES).map(|probe| (records.len() - 1) * probe / RELATED_PROBES);
    probes.into_iter().any(|row| others.binary_search(&records[row]).is_ok())
}

/// Values that are enough for a trial on one parcel alone; and where time counts.
const ENOUGH: usize = 1024;
const ENOUGH_THRIFTY: usize = 128;
/// How many times as many values pass before the next trial.
const GROWTH: u32 = 4;
const GROWTH_THRIFTY: u32 = 12;
/// Fewest values for a trial of anything but a constant.
const FEWEST: usize = 24;
/// Bytes of candidates that may be coded: at first, at most, and per byte of values that passes (as a divisor).
const FIRST_BUDGET: i64 = 4 << 20;
const MOST_BUDGET: i64 = 4 << 20;
const BUDGET_SHARE: i64 = 16;
/// What columns that were never tried may use beyond it: topics that begin in a lane that others have used up.
const MOST_DEBT: i64 = -(2 << 20);
/// Bytes that a candidate costs besides its own.
const CANDIDATE: i64 = 256;
/// Fewest values that can show a constant.
const FEWEST_CONSTANT: usize = 3;
/// Rows that a trial looks at.
const MOST_ROWS: usize = 8192;
/// Rows, less one, by which columns with values of the same records are found.
const RELATED_PROBES: usize = 15;
/// zstd level of trials. Those below 1 are hardly faster, and know nothing of uneven bytes.
const LEVEL: i32 = 1;

/// Bytes and values of evidence, values alone, and records that it is from; at more, gathering begins anew.
const MOST_EVIDENCE: usize = 1536 * 1024;
const MOST_VALUES: usize = 1 << 17;
const MOST_RECORDS: usize = 1 << 17;

const _: () = assert!(MOST_EVIDENCE < u32::MAX as usize && MAX_COLUMNS < u32::MAX);
