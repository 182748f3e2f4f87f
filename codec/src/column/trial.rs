//! Which kind a column is coded as: candidates are coded and compressed with a cheap level, the smallest one stays.
//!
//! A column is tried when it has enough values to tell, again after four times as many, and soon after its kind stopped
//! fitting or became dearer. Columns with few values in each parcel are tried on the values of several parcels, which are
//! kept as [`Evidence`]. A budget, which grows with the bytes that pass, spreads the work.

use zstd_safe::{CCtx, CParameter};

use super::choice::{Choice, Kind, Spelling};
use super::copy::Original;
use super::decimal::{self, DecimalShape};
use super::encode::{Cache, Column, Earlier, Input, Scratch, State, parse, write};
use super::number::{self, Coding, Others, Predictor, Scale, Source};
use super::packed::Packing;
use super::pattern::Pattern;
use super::time::TimeShape;
use super::{MAX_COLUMNS, MAX_CONSTANT, Room, Span, Values};

/// Values that are enough for a trial on one parcel alone.
const ENOUGH: usize = 256;
/// Fewest values for a trial of anything but a constant.
const FEWEST: usize = 24;
/// Bytes of candidates that may be coded: at first, at most, and per byte of values that passes (as a divisor).
const FIRST_BUDGET: i64 = 1 << 20;
const MOST_BUDGET: i64 = 2 << 20;
const BUDGET_SHARE: i64 = 16;
/// Bytes that a candidate costs besides its own.
const CANDIDATE: i64 = 256;
/// Earlier columns that are looked at: as originals, as keys, as orders.
const MOST_ORIGINALS: usize = 64;
const MOST_KEYS: usize = 4;
const MOST_ORDERS: usize = 3;
/// Predictors that are compressed, of all that are estimated.
const BEST_PREDICTORS: usize = 2;
/// Values from which a range coder is tried.
const FEWEST_RANGED: usize = 128;
/// Fewest values that can show a constant.
const FEWEST_CONSTANT: usize = 3;
/// Rows that a trial looks at.
const MOST_ROWS: usize = 2048;
/// Rows that an estimate looks at.
const ESTIMATED_ROWS: usize = 256;
/// zstd level of trials.
const LEVEL: i32 = 1;

/// What trials need from parcel to parcel.
pub(super) struct Trials {
    context: Option<CCtx<'static>>,
    compressed: Vec<u8>,
    body: Vec<u8>,
    budget: i64,
    evidence: Evidence,
}

impl Default for Trials {
    fn default() -> Self {
        Self {
            context: None,
            compressed: Vec::new(),
            body: Vec::new(),
            budget: FIRST_BUDGET,
            evidence: Evidence::default(),
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
    /// By column id.
    columns: Vec<Gathered>,
}

#[derive(Default)]
struct Gathered {
    spans: Vec<Span>,
    /// As many, if each value had one.
    timestamps: Vec<i64>,
    from: u64,
    parcels: usize,
}

/// Bytes and values of evidence; at more, gathering begins anew.
const MOST_EVIDENCE: usize = 768 * 1024;

impl Evidence {
    fn add(&mut self, arena: &[u8], timestamps: &[Vec<i64>], inputs: &[Input<'_>], enough: usize) {
        let few = |input: &&Input<'_>| input.spans.len() < enough;
        let bytes = bytes_of_few(inputs, enough);
        if self.arena.len() + bytes > MOST_EVIDENCE {
            self.clear();
        }
        if bytes > MOST_EVIDENCE {
            return;
        }
        for Input { id, spans, timestamps: set } in inputs.iter().filter(few) {
            if self.columns.len() <= *id as usize {
                self.columns.resize_with(*id as usize + 1, Gathered::default);
            }
            let gathered = &mut self.columns[*id as usize];
            gathered.from = mark(gathered.from, spans.len());
            gathered.parcels += 1;
            gathered.timestamps.extend(timestamps.get(*set as usize).into_iter().flatten());
            for span in *spans {
                let start = self.arena.len() as u32;
                self.arena.extend_from_slice(span.of(arena));
                // A byte apart, so that empty values are somewhere too.
                gathered.spans.push(Span { start, end: self.arena.len() as u32 });
                self.arena.push(0);
            }
        }
    }

    fn clear(&mut self) {
        self.arena.clear();
        for gathered in &mut self.columns {
            gathered.spans.clear();
            gathered.timestamps.clear();
            gathered.from = 0;
            gathered.parcels = 0;
        }
    }

    fn memory(&self) -> usize {
        let of_column = |gathered: &Gathered| {
            gathered.spans.capacity() * size_of::<Span>() + gathered.timestamps.capacity() * size_of::<i64>()
        };
        self.arena.capacity()
            + self.columns.iter().map(of_column).sum::<usize>()
            + self.columns.capacity() * size_of::<Gathered>()
    }
}

/// The last rows, as many as a trial looks at: of columns with as many values, the same rows.
fn recent<T>(all: &[T]) -> &[T] {
    &all[all.len().saturating_sub(MOST_ROWS)..]
}

/// Bytes of the columns that have fewer than `enough` values in a parcel.
fn bytes_of_few(inputs: &[Input<'_>], enough: usize) -> usize {
    let few = inputs.iter().filter(|input| input.spans.len() < enough);
    few.flat_map(|input| input.spans).map(|span| span.len() + 1).sum()
}

/// Columns with the same mark were gathered from the same parcels, with as many values from each.
fn mark(before: u64, values: usize) -> u64 {
    (before ^ values as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23)
}

/// Columns to hold trials on: of a parcel, or of the evidence.
struct Sample<'a> {
    arena: &'a [u8],
    /// In decode order.
    columns: Vec<Sampled<'a>>,
}

struct Sampled<'a> {
    id: u32,
    spans: &'a [Span],
    timestamps: &'a [i64],
    from: u64,
    /// From how many parcels the values are.
    parcels: usize,
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
        (arena, timestamps): (&[u8], &[Vec<i64>]),
        inputs: &[Input<'_>],
        columns: &mut [Column],
        scratch: &mut Scratch,
    ) {
        let bytes: usize = inputs.iter().flat_map(|input| input.spans).map(|span| span.len()).sum();
        self.budget = (self.budget + bytes as i64 / BUDGET_SHARE + 64).min(MOST_BUDGET);
        // What would soon fill the evidence is enough by itself.
        let enough = if bytes_of_few(inputs, ENOUGH) > MOST_EVIDENCE / 4 { FEWEST } else { ENOUGH };
        let within = |values: u32| {
            move |input: &Input<'_>, columns: &[Column]| {
                let review = &columns[input.id as usize].review;
                review.since.saturating_add(values) >= review.interval
            }
        };
        let (soon, due) = (within(MOST_ROWS as u32), within(0));
        let due = |input: &Input<'_>| due(input, columns);
        if inputs.iter().any(|input| input.spans.len() < enough && soon(input, columns)) {
            self.evidence.add(arena, timestamps, inputs, enough);
        } else {
            self.evidence.clear();
        }
        let parcel: Vec<bool> =
            inputs.iter().map(|input| due(input) && input.spans.len() >= enough).collect();
        let gathered: Vec<bool> =
            inputs.iter().map(|input| due(input) && input.spans.len() < enough).collect();
        if parcel.contains(&true) {
            let of_parcel = inputs.iter().map(|&Input { id, spans, timestamps: set }| {
                let timestamps = timestamps.get(set as usize).map_or(&[][..], Vec::as_slice);
                Sampled {
                    id,
                    spans: recent(spans),
                    timestamps: recent(timestamps),
                    from: 0,
                    parcels: 1,
                    cache: None,
                }
            });
            let sample = Sample { arena, columns: of_parcel.collect() };
            self.sample(sample, &parcel, columns, scratch);
        }
        if gathered.contains(&true) {
            let evidence = std::mem::take(&mut self.evidence);
            // What is not in the evidence stands with no values, so that places stay those of the parcel.
            let of_input = |input: &Input<'_>| {
                let none =
                    Sampled { id: input.id, spans: &[], timestamps: &[], from: 0, parcels: 0, cache: None };
                evidence.columns.get(input.id as usize).map_or(none, |gathered| Sampled {
                    id: input.id,
                    spans: recent(&gathered.spans),
                    timestamps: recent(&gathered.timestamps),
                    from: gathered.from,
                    parcels: gathered.parcels,
                    cache: None,
                })
            };
            let sample = Sample { arena: &evidence.arena, columns: inputs.iter().map(of_input).collect() };
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
            if self.budget <= 0 || spans.len() < FEWEST_CONSTANT {
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
            column.review.tried(spans.len());
            // A dictionary that stays a dictionary keeps its entries.
            let same = was_dictionary && is_dictionary && choice.quoted == column.choice.quoted;
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
        let earlier = Known { sample, index };
        let mut best = Best {
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
        best.consider(Choice { quoted, order: None, kind: Kind::Text });
        if best.cost == usize::MAX {
            best.consider(Choice { quoted, order: None, kind: Kind::Lengths });
        }
        let numbers = best.numbers(quoted, values);
        best.recurring(quoted);
        if best.is_small() {
            return best.choice;
        }
        best.dictionary(quoted);
        if numbers.is_none() {
            if let Some(pattern) = Pattern::of(values) {
                best.consider(Choice { quoted, order: None, kind: Kind::Pattern(pattern.into()) });
            }
            for packing in Packing::candidates(values.get(0)) {
                best.consider(Choice { quoted, order: None, kind: Kind::Packed(packing) });
            }
        }
        if !best.is_small() {
            best.ordered(quoted, numbers);
        }
        best.choice
    }

    /// Compressed size of the body.
    fn compressed(&mut self) -> usize {
        let context = self.context.get_or_insert_with(|| {
            let mut context = CCtx::create();
            // Both are in range; without them a trial only costs more.
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
    let all = first.len() <= MAX_CONSTANT && values.iter().all(|value| value == first);
    all.then(|| Choice::plain(Kind::Constant(first.into())))
}

impl Sample<'_> {
    /// Makes sure that ids and numbers of the columns before `index` are there, as far as they have some.
    fn provide(&mut self, index: usize, columns: &[Column]) {
        let (count, from) = (self.columns[index].spans.len(), self.columns[index].from);
        for sampled in &mut self.columns[..index] {
            if sampled.spans.len() != count || sampled.from != from || sampled.cache.is_some() {
                continue;
            }
            let column = &columns[sampled.id as usize];
            let choice = column.pending.as_ref().unwrap_or(&column.choice);
            let mut cache = Cache::default();
            let mut values = Values { arena: self.arena, spans: sampled.spans, strip: 0 };
            if choice.quoted {
                let Some(stripped) = values.stripped() else { continue };
                values = stripped;
            }
            match &choice.kind {
                Kind::Dictionary { .. } | Kind::Recurring(_) => {
                    let _ = State::default().dictionary.encode(
                        values,
                        &mut Room::default(),
                        &mut cache.ids,
                        &mut Vec::new(),
                    );
                }
                Kind::Numbers(spelling, ..) if choice.order.is_none() => {
                    if !parse(*spelling, values, &mut cache.numbers, &mut Vec::new()) {
                        cache.numbers.clear();
                    }
                }
                _ => {}
            }
            sampled.cache = Some(cache);
        }
    }
}

/// The columns of a sample before the current one.
struct Known<'a> {
    sample: &'a Sample<'a>,
    index: usize,
}

impl<'a> Known<'a> {
    /// Nearest first.
    fn columns(&self) -> impl Iterator<Item = &'a Sampled<'a>> + use<'a> {
        let current = &self.sample.columns[self.index];
        let alike =
            |other: &&Sampled<'_>| other.spans.len() == current.spans.len() && other.from == current.from;
        self.sample.columns[..self.index].iter().rev().filter(alike)
    }

    fn cache(&self, id: u32) -> Option<&'a Cache> {
        self.columns().find(|sampled| sampled.id == id)?.cache.as_ref()
    }

    /// Columns with ids, and some order in them: fewer entries than half the values.
    fn keys(&self) -> impl Iterator<Item = u32> + use<'a> {
        self.columns().filter_map(|sampled| {
            let ids = &sampled.cache.as_ref()?.ids;
            let entries = ids.iter().copied().max()? as usize;
            (ids.len() == sampled.spans.len() && entries > 1 && entries <= ids.len() / 2)
                .then_some(sampled.id)
        })
    }
}

impl Earlier for Known<'_> {
    fn ids(&self, id: u32) -> Option<&[u32]> {
        self.cache(id).map(|cache| cache.ids.as_slice()).filter(|ids| !ids.is_empty())
    }

    fn numbers(&self, source: Source) -> Option<&[i64]> {
        let current = &self.sample.columns[self.index];
        match source {
            Source::Timestamps => {
                (current.timestamps.len() == current.spans.len()).then_some(current.timestamps)
            }
            Source::Column(id) => {
                self.cache(id).map(|cache| cache.numbers.as_slice()).filter(|numbers| !numbers.is_empty())
            }
        }
    }

    fn spans(&self, id: u32) -> Option<&[Span]> {
        self.columns().find(|sampled| sampled.id == id).map(|sampled| sampled.spans)
    }
}

/// The ids of a selection of rows: of whatever column is asked for.
struct Firsts<'a>(&'a [u32]);

impl Earlier for Firsts<'_> {
    fn ids(&self, _: u32) -> Option<&[u32]> {
        Some(self.0)
    }

    fn numbers(&self, _: Source) -> Option<&[i64]> {
        None
    }

    fn spans(&self, _: u32) -> Option<&[Span]> {
        None
    }
}

/// The best candidate so far.
struct Best<'a, 's> {
    trials: &'a mut Trials,
    earlier: &'a Known<'s>,
    values: Values<'s>,
    scratch: &'a mut Scratch,
    column: &'a mut Column,
    cost: usize,
    choice: Choice,
}

impl Best<'_, '_> {
    /// Codes a candidate, from fresh state, and keeps it if it is smaller than all before.
    fn consider(&mut self, choice: Choice) -> Option<usize> {
        let cost = self.cost(&choice, self.values, self.earlier, &mut (State::default(), Room::default()))?;
        self.offer(choice, cost);
        Some(cost)
    }

    fn offer(&mut self, choice: Choice, mut cost: usize) {
        if choice == self.column.choice {
            // To change costs something too.
            cost -= cost / 32;
        }
        let few = self.values.len() < ENOUGH / 4 && !matches!(choice.kind, Kind::Text | Kind::Lengths);
        if few {
            // Little evidence: it must be clearly better.
            cost += cost / 4 + 8;
        }
        if cost < self.cost {
            (self.cost, self.choice) = (cost, choice);
        }
    }

    /// What the column is now, whatever else is looked at.
    fn current(&mut self) {
        let choice = self.column.choice.clone();
        match choice.kind {
            Kind::Numbers(_, Predictor::Keyed(key) | Predictor::KeyedSlope(key), _) | Kind::Recurring(Some(key)) => {
                self.consider_keyed(key, choice);
            }
            // Costs what it really has to add; see there.
            Kind::Dictionary { .. } => {}
            _ => {
                self.consider(choice);
            }
        }
    }

    /// Whether there is so little left that no other kind is worth the work.
    fn is_small(&self) -> bool {
        self.cost <= 24 + self.values.len() / 64
    }

    /// Copies of earlier columns. True if one is exact: nothing is smaller.
    fn originals(&mut self) -> bool {
        let (values, earlier) = (self.values, self.earlier);
        let rows = values.len();
        let probes = [0, rows / 3, rows / 2, rows - 1];
        for sampled in earlier.columns().take(MOST_ORIGINALS) {
            let original_of = |row: usize| sampled.spans[row].of(values.arena);
            // One of two rows might be an exception.
            let found = [0, rows / 2].into_iter().find_map(|row| {
                let original = Original::of(sampled.id, values.get(row), original_of(row))?;
                let makes = |row: &&usize| original.makes(values.get(**row), original_of(**row));
                (probes.iter().filter(makes).count() >= 3).then_some(original)
            });
            let Some(original) = found else { continue };
            let choice = Choice::plain(Kind::Copy(original.into()));
            self.consider(choice.clone());
            if self.choice == choice && self.trials.body.as_slice() == [0] {
                return true;
            }
        }
        false
    }

    /// As [`consider`](Self::consider), for what remembers by key. In the long run most keys have been met before: the
    /// first values of all keys are remembered beforehand, and charged by how many new keys are to be expected (by
    /// Good-Turing); the others stand for what changes.
    fn consider_keyed(&mut self, key: u32, choice: Choice) {
        let Some(ids) = self.earlier.ids(key) else { return };
        let (entries, once) = met_once(ids);
        let (mut spans, mut first_ids) = (Vec::with_capacity(entries), Vec::with_capacity(entries));
        let mut met = vec![false; ids.iter().copied().max().unwrap_or(0) as usize + 1];
        for (span, id) in self.values.spans.iter().zip(ids) {
            if !std::mem::replace(&mut met[*id as usize], true) {
                spans.push(*span);
                first_ids.push(*id);
            }
        }
        let rows = ids.len() - spans.len();
        if rows < ids.len() / 4 {
            return;
        }
        let firsts = Values { spans: &spans, ..self.values };
        let mut memory = (State::default(), Room::default());
        let Some(new) = self.cost(&choice, firsts, &Firsts(&first_ids), &mut memory) else { return };
        let Some(rest) = self.cost(&choice, self.values, self.earlier, &mut memory) else { return };
        self.offer(choice, rest * ids.len() / rows + new * once / entries.max(1));
    }

    /// Compressed size of `values` with what is remembered in `memory`.
    fn cost(
        &mut self,
        choice: &Choice,
        values: Values<'_>,
        earlier: &dyn Earlier,
        memory: &mut (State, Room),
    ) -> Option<usize> {
        let cold = self.cost_once(choice, values, earlier, memory)?;
        if !choice.has_tail(values.len()) {
            return Some(cold);
        }
        // A model that has learnt costs less than a new one, though not as little as one that has seen the very values.
        Some((cold + self.cost_once(choice, values, earlier, memory)?) / 2)
    }

    fn cost_once(
        &mut self,
        choice: &Choice,
        values: Values<'_>,
        earlier: &dyn Earlier,
        memory: &mut (State, Room),
    ) -> Option<usize> {
        self.trials.body.clear();
        self.scratch.tail.clear();
        let (memory, cache) = ((&mut memory.0, &mut memory.1), &mut Cache::default());
        write(choice, values, earlier, memory, cache, self.scratch, &mut self.trials.body)?;
        let compressed = self.trials.compressed() + self.scratch.tail.len();
        let parcels = self.earlier.sample.columns[self.earlier.index].parcels;
        if parcels <= 1 {
            return Some(compressed);
        }
        // In small parcels zstd has little to work on, and what a kind costs per parcel counts.
        let plain = self.trials.body.len() + self.scratch.tail.len();
        let counted = matches!(choice.kind, Kind::Copy(..) | Kind::Recurring(_));
        Some((compressed * 3 + plain) / 4 + if counted { parcels } else { 0 })
    }

    /// Values that go with a key.
    fn recurring(&mut self, quoted: bool) {
        self.consider(Choice { quoted, order: None, kind: Kind::Recurring(None) });
        for key in self.earlier.keys().take(MOST_KEYS) {
            self.consider_keyed(key, Choice { quoted, order: None, kind: Kind::Recurring(Some(key)) });
        }
    }

    /// Numbers in the first spelling that fits, with the most promising predictors; returns the best of them.
    fn numbers(&mut self, quoted: bool, values: Values<'_>) -> Option<(Spelling, Predictor)> {
        let (mut numbers, mut counts) = (Vec::new(), Vec::new());
        let spelling = spellings(values)
            .into_iter()
            .find(|spelling| parse(*spelling, values, &mut numbers, &mut counts))?;
        let head = &numbers[..numbers.len().min(ESTIMATED_ROWS)];
        let mut predictors: Vec<(usize, Predictor)> = Vec::new();
        let mut add = |predictor: Predictor, others: Others<'_>| {
            predictors.push((number::estimate(predictor, head, others), predictor));
        };
        for predictor in [Predictor::Zero, Predictor::Previous, Predictor::Slope] {
            add(predictor, Others::default());
        }
        for id in self.earlier.keys().take(MOST_KEYS) {
            let ids = self.earlier.ids(id).map_or(&[][..], |ids| &ids[..head.len()]);
            for predictor in [Predictor::Keyed(id), Predictor::KeyedSlope(id)] {
                add(predictor, Others { ids, ..Others::default() });
            }
        }
        let sources = self.earlier.columns().take(MOST_ORIGINALS).map(|sampled| Source::Column(sampled.id));
        for source in std::iter::once(Source::Timestamps).chain(sources) {
            let Some(others) = self.earlier.numbers(source) else { continue };
            for scale in Scale::ALL {
                add(
                    Predictor::Scaled(source, scale),
                    Others { numbers: &others[..head.len()], ..Others::default() },
                );
            }
        }
        predictors.sort_by_key(|(bits, _)| *bits);
        let best = predictors.first().map(|(_, predictor)| *predictor)?;
        for (rank, (bits, predictor)) in predictors.into_iter().take(BEST_PREDICTORS).enumerate() {
            if self.is_small() {
                break;
            }
            // A range coder for many values only: it takes some to learn, and what is learnt is not known to the trial.
            let wide = match values.len() >= FEWEST_RANGED {
                true => Some(Coding::Ranged),
                false => (rank == 0 && bits > 9 * head.len()).then_some(Coding::Planes),
            };
            for coding in [Some(Coding::Varints), wide].into_iter().flatten() {
                let choice = Choice { quoted, order: None, kind: Kind::Numbers(spelling, predictor, coding) };
                match predictor {
                    Predictor::Keyed(key) | Predictor::KeyedSlope(key) => self.consider_keyed(key, choice),
                    _ => {
                        self.consider(choice);
                    }
                }
            }
        }
        Some((spelling, best))
    }

    /// A dictionary. At the first look its entries are charged by how many the next values will add (Good-Turing: as many
    /// as were met once), since ids are paid each time and entries once; later, by what the one in use really had to add.
    fn dictionary(&mut self, quoted: bool) {
        let values = if quoted { Values { strip: 1, ..self.values } } else { self.values };
        let (mut ids, mut room) = (Vec::new(), Room::default());
        let choice = Choice { quoted, order: None, kind: Kind::Dictionary { wide: false, kept: false } };
        let in_use =
            matches!(self.column.choice.kind, Kind::Dictionary { .. }) && self.column.choice.quoted == quoted;
        let body = &mut self.trials.body;
        body.clear();
        if in_use {
            let dictionary = &mut self.column.state.dictionary;
            let known = dictionary.entries.len();
            if dictionary.encode(values, &mut room, &mut ids, body).is_some() {
                dictionary.truncate(known, &mut room);
                let cost = self.trials.compressed();
                self.offer(choice, cost - cost / 32);
            }
            return;
        }
        let Some(wide) = State::default().dictionary.encode(values, &mut room, &mut ids, body) else {
            return;
        };
        let whole = self.trials.compressed();
        if self.column.review.dictionary_lost {
            return self.offer(choice, whole);
        }
        let (entries, once) = met_once(&ids);
        self.trials.body.truncate(values.len() * if wide { 2 } else { 1 });
        let alone = self.trials.compressed();
        let cost = alone + whole.saturating_sub(alone) * once / entries.max(1);
        self.offer(choice, cost);
    }

    /// The best kind so far, or text, in the order of earlier columns.
    fn ordered(&mut self, quoted: bool, numbers: Option<(Spelling, Predictor)>) {
        let mut kinds = Vec::new();
        match &self.choice.kind {
            Kind::Copy(..) | Kind::Constant(_) => return,
            numbers @ Kind::Numbers(..) => kinds.push(numbers.clone()),
            pattern @ Kind::Pattern(_) => kinds.extend([pattern.clone(), Kind::Text]),
            _ => kinds.push(Kind::Text),
        }
        if let Some((spelling, predictor)) = numbers.filter(|_| self.values.len() >= FEWEST_RANGED) {
            let ranged = |predictor| Kind::Numbers(spelling, predictor, Coding::Ranged);
            kinds.extend([ranged(predictor), ranged(Predictor::Zero)]);
            kinds.dedup();
        }
        let keys: Vec<u32> = self.earlier.keys().take(MOST_ORDERS).collect();
        for (kind, key) in kinds.iter().flat_map(|kind| keys.iter().map(move |key| (kind, *key))) {
            self.consider(Choice { quoted, order: Some(key), kind: kind.clone() });
        }
    }
}

/// How many entries there are, and how many of them were met once.
fn met_once(ids: &[u32]) -> (usize, usize) {
    let mut met = vec![0u32; ids.iter().copied().max().unwrap_or(0) as usize + 1];
    ids.iter().for_each(|id| met[*id as usize] += 1);
    let entries = met[1..].iter().filter(|times| **times > 0).count();
    (entries, met[1..].iter().filter(|times| **times == 1).count())
}

/// The spellings that the first values suggest.
fn spellings(values: Values<'_>) -> Vec<Spelling> {
    let first = values.get(0);
    let mut spellings = vec![Spelling::Integer];
    spellings.extend(TimeShape::of(first).map(Spelling::Time));
    let decimals =
        values.iter().map(decimal::count_decimals).try_fold(0, |most, decimals| Some(decimals?.max(most)));
    if let Some(decimals) = decimals.filter(|decimals| *decimals > 0) {
        spellings.extend(DecimalShape::candidates(decimals).map(Spelling::Decimal));
    }
    spellings
}

const _: () = assert!(MOST_EVIDENCE < u32::MAX as usize && MAX_COLUMNS < u32::MAX);
