//! The candidates of one trial, and what each would cost.

use std::borrow::Cow;
use std::ops::Range;

use super::binary::Binary;
use super::choice::{Choice, Kind, Spelling};
use super::copy::Original;
use super::decimal::{self, DecimalShape};
use super::encode::{Cache, Column, Earlier, Scratch, State, write};
use super::exception::most_exceptions;
use super::number::{self, Coding, Others, Pair, Predictor, Present, Scale, Source, Term};
use super::parsed::Apart;
use super::time::TimeShape;
use super::trial::{Known, Trials};
use super::{Room, Span, Values, equal, is_quoted};

/// The best candidate so far.
pub(super) struct Best<'a, 's> {
    pub(super) trials: &'a mut Trials,
    pub(super) earlier: &'a Known<'s>,
    pub(super) values: Values<'s>,
    pub(super) scratch: &'a mut Scratch,
    pub(super) column: &'a mut Column,
    /// How the values are read as numbers, if they are binary.
    pub(super) binary: Option<Binary>,
    /// Entries of dictionaries are behind their length, as values hold newlines or may soon.
    pub(super) framed: bool,
    pub(super) cost: usize,
    pub(super) choice: Choice,
}

impl Best<'_, '_> {
    /// Codes a candidate, from fresh state, and keeps it if it is smaller than all before.
    pub(super) fn consider(&mut self, choice: Choice) -> Option<usize> {
        let cost = self.cost(&choice, self.values, self.earlier, &mut (State::default(), Room::default()))?;
        self.offer(choice, cost);
        Some(cost)
    }

    fn offer(&mut self, choice: Choice, mut cost: usize) {
        if choice == self.column.choice {
            // To change costs something too.
            cost -= cost / 32;
        }
        let few = self.values.len() < FEW && !matches!(choice.kind, Kind::Text | Kind::Lengths);
        if few {
            // Little evidence: it must be clearly better.
            cost += cost / 4 + 8;
        }
        if cost < self.cost {
            (self.cost, self.choice) = (cost, choice);
        }
    }

    /// What the column is now, whatever else is looked at.
    pub(super) fn current(&mut self) {
        let choice = self.column.choice.clone();
        match choice.kind {
            Kind::Numbers(_, Predictor::Keyed(key) | Predictor::KeyedSlope(key), _)
            | Kind::Recurring(Some(key), _) => {
                self.consider_keyed(key, choice);
            }
            // Costs what it really has to add; see there.
            Kind::Dictionary { .. } => {}
            // Is looked at in any case.
            Kind::Text if choice.order.is_none() => {}
            _ => {
                self.consider(choice);
            }
        }
    }

    /// Whether there is so little left that no other kind is worth the work.
    pub(super) fn is_small(&self) -> bool {
        self.cost <= 24 + self.values.len() / 64
    }

    /// Copies of earlier columns. True if one is exact: nothing is smaller.
    pub(super) fn originals(&mut self) -> bool {
        let (values, earlier) = (self.values, self.earlier);
        let rows = values.len();
        let probes = [0, rows / 3, rows / 2, rows - 1];
        for sampled in earlier.columns().take(MOST_ORIGINALS) {
            let original_of = |row: usize| earlier.value_of(sampled, row);
            // One of two rows might be an exception.
            let found = [0, rows / 2].into_iter().find_map(|row| {
                let original = Original::of(sampled.id, values.get(row), original_of(row)?)?;
                let makes = |row: &&usize| {
                    original_of(**row).is_some_and(|of_row| original.makes(values.get(**row), of_row))
                };
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
    fn consider_keyed(&mut self, key: u32, choice: Choice) -> Option<usize> {
        let ids = self.earlier.ids(key)?;
        let (entries, once) = met_once(&ids);
        let (mut spans, mut first_ids) = (Vec::with_capacity(entries), Vec::with_capacity(entries));
        let mut met = vec![false; ids.iter().copied().max().unwrap_or(0) as usize + 1];
        for (span, id) in self.values.spans.iter().zip(ids.iter()) {
            if !std::mem::replace(&mut met[*id as usize], true) {
                spans.push(*span);
                first_ids.push(*id);
            }
        }
        let rows = ids.len() - spans.len();
        if rows < ids.len() / 4 {
            return None;
        }
        let firsts = Values { spans: &spans, ..self.values };
        let mut memory = (State::default(), Room::default());
        let new = self.cost(&choice, firsts, &Firsts(&first_ids), &mut memory)?;
        let rest = self.cost(&choice, self.values, self.earlier, &mut memory)?;
        let cost = rest * ids.len() / rows + new * once / entries.max(1);
        self.offer(choice, cost);
        Some(cost)
    }

    /// Compressed size of `values` with what is remembered in `memory`.
    fn cost(
        &mut self,
        choice: &Choice,
        values: Values<'_>,
        earlier: &dyn Earlier,
        memory: &mut (State, Room),
    ) -> Option<usize> {
        if !choice.has_tail(values.len()) {
            return self.cost_once(choice, values, earlier, memory);
        }
        // A model that has learnt costs less than a new one, though not as little as one that has seen the very values.
        if values.len() < HALVED {
            let cold = self.cost_once(choice, values, earlier, memory)?;
            return Some((cold + self.cost_once(choice, values, earlier, memory)?) / 2);
        }
        // What many values cost in their second half tells that too, in half the time.
        let (half, all) = (values.len() / 2, values.len());
        let mut of_rows = |rows: Range<usize>| {
            let values = Values { spans: &values.spans[rows.clone()], ..values };
            self.cost_once(choice, values, &Part { all: earlier, rows }, memory)
        };
        Some((of_rows(0..half)? + 3 * of_rows(half..all)?) / 2)
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
        let mut compressed = self.trials.compressed() + self.scratch.tail.len();
        if self.trials.thrifty && choice.has_tail(values.len()) {
            // Processor time at both ends, in bytes.
            compressed += values.len() * RANGED_PRICE / 8;
        }
        let parcels = self.earlier.parcels();
        if parcels <= 1 || self.values.len() / parcels >= MANY {
            return Some(compressed);
        }
        // In small parcels zstd has little to work on, and what a kind costs per parcel counts.
        let plain = self.trials.body.len() + self.scratch.tail.len();
        let counted = matches!(choice.kind, Kind::Copy(..) | Kind::Recurring(..));
        Some((compressed * 3 + plain) / 4 + if counted { parcels } else { 0 })
    }

    /// Values that go with a key.
    pub(super) fn recurring(&mut self, quoted: bool) {
        let framed = self.framed;
        if self.recurs(None) {
            self.consider(Choice::of(quoted, Kind::Recurring(None, framed)));
        }
        for key in self.earlier.keys().take(MOST_KEYS) {
            let kind = Kind::Recurring(Some(key), framed);
            if self.recurs(Some(key)) {
                self.consider_keyed(key, Choice::of(quoted, kind));
            }
        }
    }

    /// Whether enough values are those last met with the same entry of the key, or those of the row before, for that to be
    /// worth a trial.
    fn recurs(&self, key: Option<u32>) -> bool {
        let (mut met, mut same) = (0, 0);
        let mut meet = |before: usize, row: usize| {
            met += 1;
            same += usize::from(equal(self.values.get(before), self.values.get(row)));
        };
        match key {
            None => (1..self.values.len()).for_each(|row| meet(row - 1, row)),
            Some(key) => {
                let Some(ids) = self.earlier.ids(key) else { return false };
                let highest = ids.iter().max().map_or(0, |most| *most as usize);
                let mut last: Vec<Option<usize>> = vec![None; highest + 1];
                for (row, id) in ids.iter().enumerate() {
                    if let Some(before) = last[*id as usize].replace(row) {
                        meet(before, row);
                    }
                }
            }
        }
        same * if self.trials.thrifty { FEWEST_SAME_THRIFTY } else { FEWEST_SAME } >= met
    }

    /// Numbers in the spellings that fit, with the most promising predictors; returns the best of them.
    pub(super) fn numbers(&mut self, quoted: bool) -> Option<(Reading, Predictor)> {
        let all = self.values;
        // Where some have no quotes, those are exceptions.
        let most_are = || all.iter().filter(|value| is_quoted(value)).count() > all.len() / 2;
        let strips = quoted || self.binary.is_none() && most_are();
        let values = Values { strip: strips.into(), ..all };
        let spellings = match self.binary {
            Some(binary) => binary.candidates(values.iter()).into_iter().map(Spelling::Binary).collect(),
            None => spellings(values),
        };
        if quoted == strips {
            let strictly = self.best_reading(values, false, spellings.iter().copied());
            if strictly.is_some() || self.binary.is_some() {
                return strictly;
            }
        }
        let first = with_fewest_exceptions(&spellings, values)?;
        self.best_reading(values, true, std::iter::once(first).chain(spellings))
    }

    /// Numbers in the first spelling that fits, or a later one that looks at the same digits in another way.
    fn best_reading(
        &mut self,
        values: Values<'_>,
        excepted: bool,
        spellings: impl Iterator<Item = Spelling>,
    ) -> Option<(Reading, Predictor)> {
        let most = most_exceptions(excepted, values.len());
        let (mut numbers, mut apart) = (Vec::new(), Apart::default());
        let mut fitting: Vec<(Reading, Vec<(usize, Predictor)>)> = Vec::new();
        for spelling in spellings {
            let late = fitting.first().is_some_and(|(first, _)| !spelling.is_rival_of(first.spelling));
            if late || !apart.parse(spelling, values, most, &mut numbers) {
                continue;
            }
            let reading = Reading { quoted: values.strip > 0, excepted, spelling };
            fitting.push((reading, self.predictors_of(spelling, &numbers, &apart)));
        }
        if self.trials.thrifty {
            let bits =
                |(_, predictors): &(_, Vec<(usize, Predictor)>)| predictors.first().map(|first| first.0);
            fitting = fitting.into_iter().min_by_key(bits).into_iter().collect();
        }
        let mut best: Option<(usize, Reading, Predictor)> = None;
        for (reading, predictors) in fitting {
            let Some((cost, predictor)) = self.read(reading, predictors) else { continue };
            if best.is_none_or(|(least, ..)| cost < least) {
                best = Some((cost, reading, predictor));
            }
        }
        best.map(|(_, reading, predictor)| (reading, predictor))
    }

    /// Numbers in one spelling, with the most promising predictors; returns the least cost of all, and the first of them.
    fn read(&mut self, reading: Reading, predictors: Vec<(usize, Predictor)>) -> Option<(usize, Predictor)> {
        let best = predictors.first().map(|(_, predictor)| *predictor)?;
        let most = if self.trials.thrifty { 1 } else { BEST_PREDICTORS };
        let rows = self.values.len();
        let mut least = usize::MAX;
        for (rank, (bits, predictor)) in predictors.into_iter().enumerate() {
            // A range coder learns what numbers there are, also where their differences have fewer bits.
            let is_learnt = !self.trials.thrifty && rows >= FEWEST_RANGED && predictor == Predictor::Zero;
            if rank >= most && !is_learnt {
                continue;
            }
            if self.is_small() {
                break;
            }
            // A range coder for many values only: it takes some to learn, and what is learnt is not known to the trial.
            let wide = match rows >= FEWEST_RANGED {
                true => Some(Coding::Ranged),
                false => (rank == 0 && bits > 9 * rows.min(ESTIMATED_ROWS)).then_some(Coding::Planes),
            };
            for coding in [Some(Coding::Varints), wide].into_iter().flatten() {
                let choice = reading.choice(predictor, coding);
                let cost = match predictor {
                    Predictor::Keyed(key) | Predictor::KeyedSlope(key) => self.consider_keyed(key, choice),
                    _ => self.consider(choice),
                };
                least = least.min(cost.unwrap_or(usize::MAX));
            }
        }
        Some((least, best))
    }

    /// Predictors for numbers in one spelling, with the bits that some differences have; the best first.
    fn predictors_of(&self, spelling: Spelling, numbers: &[i64], apart: &Apart) -> Vec<(usize, Predictor)> {
        let rows = numbers.len().min(ESTIMATED_ROWS);
        let present = apart.present(spelling, rows).unwrap_or_else(|| Present::without(&[], rows));
        let head = &present.pick(numbers)[..];
        self.predictors(&present, head)
    }

    /// Predictors for `head`, the numbers of some rows, with the bits that the differences have; the best first.
    fn predictors(&self, present: &Present, head: &[i64]) -> Vec<(usize, Predictor)> {
        let rows = present.rows();
        let mut predictors: Vec<(usize, Predictor)> = Vec::new();
        let mut add = |predictor: Predictor, others: Others<'_>| {
            predictors
                .push((present.with(others, |others| number::estimate(predictor, head, others)), predictor));
        };
        for predictor in [Predictor::Zero, Predictor::Previous, Predictor::Slope] {
            add(predictor, Others::default());
        }
        let earlier = self.earlier.first(rows);
        for id in self.earlier.keys().take(MOST_KEYS) {
            let Some(ids) = earlier.ids(id) else { continue };
            for predictor in [Predictor::Keyed(id), Predictor::KeyedSlope(id)] {
                add(predictor, Others { ids: &ids, ..Others::default() });
            }
        }
        let sources = self.earlier.columns().take(MOST_ORIGINALS).map(|sampled| Source::Column(sampled.id));
        for source in std::iter::once(Source::Timestamps).chain(sources) {
            let Some(numbers) = earlier.numbers(source) else { continue };
            for scale in Scale::ALL {
                add(Predictor::Scaled(source, scale), Others { numbers: &numbers, ..Others::default() });
            }
        }
        if let Some((bits, pair)) = self.pair(present, head) {
            predictors.push((bits, Predictor::Combined(pair)));
        }
        predictors.sort_by_key(|(bits, _)| *bits);
        predictors
    }

    /// The sum or difference of two earlier columns that is nearest to `head`, the numbers of some rows, and the bits
    /// that the differences have.
    fn pair(&self, present: &Present, head: &[i64]) -> Option<(usize, Pair)> {
        self.binary?;
        let earlier = self.earlier.first(present.rows());
        let columns: Vec<(Term, Vec<i64>)> = self
            .earlier
            .columns()
            .filter_map(|sampled| {
                let binary = sampled.binary.filter(|binary| !binary.is_wide())?;
                let term = Term { id: sampled.id, binary };
                let spans = earlier.spans(sampled.id)?;
                let rows = present.pick(&spans);
                if rows.contains(&Span::NONE) {
                    return None;
                }
                Some((term, rows.iter().map(|span| term.number(span.of(self.values.arena))).collect()))
            })
            .take(MOST_PAIRED)
            .collect();
        let bits = |pair: Pair, left: &[i64], right: &[i64], rows: usize| -> usize {
            let of_row = |row: usize| number::zigzag(head[row].wrapping_sub(pair.of(left[row], right[row])));
            (0..rows).map(|row| 64 - of_row(row).leading_zeros() as usize).sum()
        };
        let mut best: Option<(usize, Pair, &[i64], &[i64])> = None;
        for (at, (left_term, left)) in columns.iter().enumerate() {
            for (other, (right_term, right)) in columns.iter().enumerate().filter(|(other, _)| *other != at) {
                for minus in [false, true] {
                    if !minus && other < at {
                        continue;
                    }
                    let pair = Pair { left: *left_term, right: *right_term, minus };
                    let bits = bits(pair, left, right, head.len().min(PROBED_ROWS));
                    if best.is_none_or(|(least, ..)| bits < least) {
                        best = Some((bits, pair, left, right));
                    }
                }
            }
        }
        let (_, pair, left, right) = best?;
        Some((bits(pair, left, right, head.len()), pair))
    }

    /// A dictionary. At the first look its entries are charged by how many the next values will add (Good-Turing: as many
    /// as were met once), since ids are paid each time and entries once; later, by what the one in use really had to add.
    pub(super) fn dictionary(&mut self, quoted: bool) {
        let values = if quoted { Values { strip: 1, ..self.values } } else { self.values };
        let (mut ids, mut room, framed) = (Vec::new(), Room::default(), self.framed);
        let choice = Choice::of(quoted, Kind::Dictionary { wide: false, framed });
        let in_use =
            matches!(self.column.choice.kind, Kind::Dictionary { .. }) && self.column.choice.is_like(&choice);
        let body = &mut self.trials.body;
        body.clear();
        if in_use {
            let dictionary = &mut self.column.state.dictionary;
            let known = dictionary.entries.len();
            if dictionary.encode((values, framed), &mut room, &mut ids, body).is_some() {
                dictionary.truncate(known, &mut room);
                let cost = self.trials.compressed();
                self.offer(choice, cost - cost / 32);
            }
            return;
        }
        let Some(wide) = State::default().dictionary.encode((values, framed), &mut room, &mut ids, body)
        else {
            return;
        };
        let whole = self.trials.compressed();
        if self.column.review.dictionary_lost {
            return self.offer(choice, whole);
        }
        let (entries, once) = met_once(&ids);
        self.trials.body.truncate(values.len() * if wide { 2 } else { 1 });
        let alone = self.trials.compressed();
        let mut of_entries = whole.saturating_sub(alone) * once / entries.max(1);
        if !self.trials.thrifty {
            // Until it is tried again, the fewer are new the more are known: about half as often as now at last.
            of_entries = of_entries * (entries + once) / (2 * entries.max(1));
        }
        let cost = alone + of_entries;
        self.offer(choice, cost);
    }

    /// The best kind so far, or text, in the order of earlier columns.
    pub(super) fn ordered(&mut self, quoted: bool, numbers: Option<(Reading, Predictor)>) {
        let text = Choice::of(quoted, Kind::Text);
        let mut choices = match &self.choice.kind {
            Kind::Copy(..) | Kind::Constant(_) => return,
            Kind::Numbers(..) => vec![Choice { order: None, ..self.choice.clone() }],
            Kind::Pattern(_) => vec![Choice { order: None, ..self.choice.clone() }, text.clone()],
            _ => vec![text.clone()],
        };
        if let Some((reading, best)) = numbers.filter(|_| self.values.len() >= FEWEST_RANGED) {
            choices
                .extend([best, Predictor::Zero].map(|predictor| reading.choice(predictor, Coding::Ranged)));
            choices.dedup();
        }
        let mut keys: Vec<u32> = self.earlier.keys().take(MOST_ORDERS).collect();
        if self.trials.thrifty && keys.len() > 1 {
            // What is in order as text is as numbers, which take longer to try.
            let mut cost_by = |key: &u32| self.consider(Choice { order: Some(*key), ..text.clone() });
            let best = keys.iter().copied().min_by_key(|key| cost_by(key).unwrap_or(usize::MAX));
            keys.retain(|key| Some(*key) == best);
            choices.retain(|choice| *choice != text);
        }
        for (choice, key) in choices.iter().flat_map(|choice| keys.iter().map(move |key| (choice, *key))) {
            self.consider(Choice { order: Some(key), ..choice.clone() });
        }
    }
}

/// How the values of a column are read as numbers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading {
    quoted: bool,
    pub(super) excepted: bool,
    spelling: Spelling,
}

impl Reading {
    fn choice(self, predictor: Predictor, coding: Coding) -> Choice {
        let kind = Kind::Numbers(self.spelling, predictor, coding);
        Choice { excepted: self.excepted, ..Choice::of(self.quoted, kind) }
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
    let is_sound = |row: &usize| values.strip == 0 || is_quoted(values.spans[*row].of(values.arena));
    let sound = || (0..values.len()).filter(is_sound).map(|row| values.get(row));
    let mut spellings = vec![Spelling::Integer];
    spellings.extend(sound().take(PROBED_ROWS).find_map(TimeShape::of).map(Spelling::Time));
    let decimals = sound().filter_map(decimal::count_decimals).max();
    if let Some(decimals) = decimals.filter(|decimals| *decimals > 0) {
        spellings.extend(DecimalShape::candidates(decimals).map(Spelling::Decimal));
    }
    spellings
}

/// The spelling with the fewest exceptions, if there is one with few enough.
fn with_fewest_exceptions(spellings: &[Spelling], values: Values<'_>) -> Option<Spelling> {
    let (mut best, mut numbers, mut apart) = (None, Vec::new(), Apart::default());
    let mut most = most_exceptions(true, values.len());
    for spelling in spellings {
        if apart.parse(*spelling, values, most, &mut numbers) {
            best = Some(*spelling);
            // The next one must have fewer.
            most = apart.exceptions.len().checked_sub(1)?;
        }
    }
    best
}

/// Some of the rows.
struct Part<'a> {
    all: &'a dyn Earlier,
    rows: Range<usize>,
}

impl Part<'_> {
    fn of<'a, T: Clone>(&self, all: Cow<'a, [T]>) -> Cow<'a, [T]> {
        match all {
            Cow::Borrowed(all) => Cow::Borrowed(&all[self.rows.clone()]),
            Cow::Owned(all) => Cow::Owned(all[self.rows.clone()].to_vec()),
        }
    }
}

impl Earlier for Part<'_> {
    fn ids(&self, id: u32) -> Option<Cow<'_, [u32]>> {
        self.all.ids(id).map(|all| self.of(all))
    }

    fn numbers(&self, source: Source) -> Option<Cow<'_, [i64]>> {
        self.all.numbers(source).map(|all| self.of(all))
    }

    fn spans(&self, id: u32) -> Option<Cow<'_, [Span]>> {
        self.all.spans(id).map(|all| self.of(all))
    }
}

/// The ids of a selection of rows: of whatever column is asked for.
struct Firsts<'a>(&'a [u32]);

impl Earlier for Firsts<'_> {
    fn ids(&self, _: u32) -> Option<Cow<'_, [u32]>> {
        Some(Cow::Borrowed(self.0))
    }

    fn numbers(&self, _: Source) -> Option<Cow<'_, [i64]>> {
        None
    }

    fn spans(&self, _: u32) -> Option<Cow<'_, [Span]>> {
        None
    }
}

/// Earlier columns that are looked at: as originals, as keys, as orders.
const MOST_ORIGINALS: usize = 64;
const MOST_KEYS: usize = 4;
const MOST_ORDERS: usize = 3;
/// One in so many values must be what it was before to be looked at as one that recurs.
const FEWEST_SAME: usize = 8;
const FEWEST_SAME_THRIFTY: usize = 3;
/// Earlier columns of which sums and differences are looked at, and rows of the first look.
const MOST_PAIRED: usize = 48;
const PROBED_ROWS: usize = 32;
/// Predictors that are compressed, of all that are estimated, unless time counts.
const BEST_PREDICTORS: usize = 2;
/// Values from which a range coder is tried.
const FEWEST_RANGED: usize = 128;
/// Bits that a value must be smaller by for a range coder to be worth its time, where time counts.
const RANGED_PRICE: usize = 2;
/// Values that are enough to learn from one half of them.
const HALVED: usize = 1024;
/// Rows that an estimate looks at.
const ESTIMATED_ROWS: usize = 256;
/// Values of each parcel from which on what a kind costs per parcel hardly counts.
const MANY: usize = 256;
/// Values below which a kind must be clearly better than text.
const FEW: usize = 64;
