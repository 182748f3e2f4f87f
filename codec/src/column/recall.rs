//! Which columns hold what they held when the same key was last met, be that thousands of records ago.
//!
//! A trial sees the values of a parcel or a few: of the state of ten thousand devices hardly one comes twice there. So some
//! columns are followed over megabytes, by hashes alone, and of each a sample of *distinct* values with all their
//! occurrences: those whose hash ends in enough zeros. (P. Gibbons, "Distinct Sampling for Highly-Accurate Answers",
//! VLDB 2001.) With each of them the hashes of the columns beside it are kept. Where a value comes again and finds them
//! as they were, it is the key of what is beside it: it becomes a dictionary, and they [recur](super::recurring) with it.

use std::collections::{HashMap, HashSet};

use xxhash_rust::xxh3::xxh3_64;

use super::Values;
use super::choice::{Choice, Kind};
use super::dictionary;
use super::encode::{Column, Input};

/// All columns that are followed.
#[derive(Debug, Default)]
pub(super) struct Recall {
    watches: Vec<Watch>,
    /// Hashes of the columns beside a value.
    beside: Vec<u32>,
}

/// A column that may be a key.
#[derive(Debug)]
struct Watch {
    key: u32,
    /// Columns that may go with it: later ones, with values of the same records.
    others: Vec<u32>,
    /// Of distinct values, one in `1 << rarity` is followed.
    rarity: u32,
    /// By the hash of a value, those of the value in the row before and of the others when it was last met.
    met: HashMap<u64, Box<[u32]>>,
    window: Window,
    /// Windows in a row in which nothing was found.
    futile: u32,
    /// Values that pass before it is followed again.
    rest: u32,
    /// Columns go with it.
    in_use: bool,
    /// By other column: it was not as when the value had been met, for the most part, in the last window.
    doubted: Vec<bool>,
    /// Parcels in a row without it.
    absent: u32,
}

/// What was seen lately.
#[derive(Debug, Default)]
struct Window {
    /// Values that are followed, and those of them that had been met.
    values: u32,
    again: u32,
    /// How often the row before, and each other column, was as when the value had been met.
    same: Vec<u32>,
    /// How often it was something else.
    differs: Vec<u32>,
}

impl Window {
    fn clear(&mut self) {
        (self.values, self.again) = (0, 0);
        self.same.fill(0);
        self.differs.fill(0);
    }
}

impl Recall {
    /// Looks at a parcel, and leaves as pending what is to be coded by key from it on. `room` is what both ends may still
    /// remember.
    pub(super) fn run(&mut self, arena: &[u8], inputs: &[Input<'_>], columns: &mut [Column], room: usize) {
        self.begin(inputs, columns);
        for watch in &mut self.watches {
            match input_of(watch.key, inputs, columns) {
                Some(key) => watch.follow(arena, key, inputs, columns, &mut self.beside),
                None => watch.absent += 1,
            }
        }
        for watch in self.watches.iter_mut().filter(|watch| watch.absent > MOST_ABSENT) {
            watch.release(columns);
            columns[watch.key as usize].is_followed = false;
        }
        self.watches.retain(|watch| watch.absent <= MOST_ABSENT);
        let mut decided: Vec<u32> = Vec::new();
        for index in 0..self.watches.len() {
            if !self.watches[index].is_ready() {
                continue;
            }
            let Some(key) = input_of(self.watches[index].key, inputs, columns) else { continue };
            // The first of several keys of the same records is that of the others.
            let comes_first = |other: &Watch| {
                other.may_come_again()
                    && other.key != key.id
                    && input_of(other.key, inputs, columns).is_some_and(|other| {
                        other.set == key.set
                            && columns[other.id as usize].position < columns[key.id as usize].position
                    })
            };
            // What is to go with one from this parcel on does not yet.
            if decided.contains(&key.set) || self.watches.iter().any(comes_first) {
                continue;
            }
            if self.watches[index].judge(arena, key, inputs, columns, room) {
                decided.push(key.set);
            }
        }
    }

    /// Follows the first costly columns of each set from now on.
    fn begin(&mut self, inputs: &[Input<'_>], columns: &mut [Column]) {
        let mut live = self.watches.iter().filter(|watch| watch.rest == 0).count();
        if live >= MOST_WATCHES {
            return;
        }
        let mut of_set: Vec<(u32, usize)> = Vec::new();
        for (position, input) in inputs.iter().enumerate() {
            let column = &mut columns[input.id as usize];
            if !may_be_key(column) {
                continue;
            }
            let index = of_set.iter().position(|(set, _)| *set == input.set).unwrap_or_else(|| {
                of_set.push((input.set, 0));
                of_set.len() - 1
            });
            of_set[index].1 += 1;
            if of_set[index].1 > MOST_KEYS || column.is_followed {
                continue;
            }
            column.is_followed = true;
            let others = inputs[position + 1..].iter().filter(|other| other.set == input.set);
            self.watches.push(Watch::new(input.id, others.map(|other| other.id).take(MOST_OTHERS).collect()));
            live += 1;
            if live >= MOST_WATCHES || of_set.len() > MOST_WATCHES {
                return;
            }
        }
    }

    /// Bytes held.
    pub(super) fn memory(&self) -> usize {
        self.watches.capacity() * size_of::<Watch>()
            + self.watches.iter().map(Watch::memory).sum::<usize>()
            + self.beside.capacity() * size_of::<u32>()
    }
}

impl Watch {
    fn new(key: u32, others: Vec<u32>) -> Self {
        let same = vec![0; others.len() + 1];
        Self {
            key,
            others,
            rarity: FIRST_RARITY,
            met: HashMap::new(),
            doubted: vec![false; same.len()],
            absent: 0,
            window: Window { values: 0, again: 0, differs: same.clone(), same },
            futile: 0,
            rest: 0,
            in_use: false,
        }
    }

    fn memory(&self) -> usize {
        let of_value = size_of::<(u64, Box<[u32]>)>() + 1 + self.others.len() * size_of::<u32>();
        // What is known of each other: its id, how often it was the same and how often not, and whether it is doubted.
        let of_other = 3 * size_of::<u32>() + size_of::<bool>();
        self.met.capacity() * of_value + self.others.len() * of_other
    }

    /// Notes the values of a parcel.
    fn follow(
        &mut self,
        arena: &[u8],
        key: &Input<'_>,
        inputs: &[Input<'_>],
        columns: &[Column],
        beside: &mut Vec<u32>,
    ) {
        self.absent = 0;
        if self.rest > 0 {
            self.rest = self.rest.saturating_sub(key.spans.len() as u32);
            return;
        }
        let others: Vec<_> = self
            .others
            .iter()
            .map(|id| input_of(*id, inputs, columns).filter(|other| other.set == key.set))
            .collect();
        let mut before = 0;
        for (row, span) in key.spans.iter().enumerate() {
            let hash = xxh3_64(span.of(arena));
            let before = std::mem::replace(&mut before, hash);
            if hash.trailing_zeros() < self.rarity {
                continue;
            }
            beside.clear();
            beside.push(short(before));
            beside.extend(others.iter().map(|other| match other {
                Some(other) => short(xxh3_64(other.spans[row].of(arena))),
                None => NOTHING,
            }));
            self.note(hash, beside);
        }
    }

    fn note(&mut self, hash: u64, beside: &[u32]) {
        self.window.values += 1;
        if let Some(last) = self.met.get_mut(&hash) {
            self.window.again += 1;
            let Window { same, differs, .. } = &mut self.window;
            for ((same, differs), (last, now)) in same.iter_mut().zip(differs).zip(last.iter().zip(beside)) {
                let both = u32::from(*last != NOTHING && *now != NOTHING);
                *(if last == now { same } else { differs }) += both;
            }
            last.copy_from_slice(beside);
            return;
        }
        self.met.insert(hash, beside.into());
        while self.met.len() > MOST_MET {
            self.rarity += 1;
            self.met.retain(|hash, _| hash.trailing_zeros() >= self.rarity);
        }
    }

    /// Whether it looks like a key.
    fn may_come_again(&self) -> bool {
        !self.in_use
            && self.rest == 0
            && self.window.again >= FEWEST_AGAIN / 2
            && self.window.again * 12 >= self.window.values
    }

    /// Whether enough was seen to tell that it is a key; or to tell anything.
    fn is_key(&self) -> bool {
        self.window.again >= FEWEST_AGAIN && self.window.again * 8 >= self.window.values
    }

    fn is_ready(&self) -> bool {
        self.is_key() || self.window.values >= WINDOW
    }

    /// Decides, now that enough was seen. Says whether anything is to go with it from this parcel on.
    fn judge(
        &mut self,
        arena: &[u8],
        key: &Input<'_>,
        inputs: &[Input<'_>],
        columns: &mut [Column],
        room: usize,
    ) -> bool {
        let is_key = self.is_key();
        let found = is_key && self.decide(arena, key, inputs, columns, room);
        if found {
            self.futile = 0;
        } else if self.in_use {
            self.doubt(columns, room);
        } else {
            self.futile += 1;
        }
        self.window.clear();
        if !self.in_use && (self.rarity > MOST_RARITY || is_key && self.futile >= MOST_FUTILE) {
            *self = Self { rest: REST, ..Self::new(self.key, std::mem::take(&mut self.others)) };
        }
        found
    }

    /// Lets go what did not go with the key in two windows, and all of it where the key does not come again any more, or is
    /// often one for which there is no room.
    fn doubt(&mut self, columns: &mut [Column], room: usize) {
        let Window { values, again, .. } = self.window;
        let mut goes = false;
        for (index, id) in self.others.iter().enumerate() {
            let column = &mut columns[*id as usize];
            let differs = self.window.differs[index + 1] > self.window.same[index + 1];
            let doubted = std::mem::replace(&mut self.doubted[index + 1], differs);
            if !by(self.key, column) {
                continue;
            }
            if differs && doubted {
                column.review.released();
            } else {
                goes = true;
            }
        }
        let is_full = room < LITTLE_ROOM || self.rarity > MOST_RARITY;
        let is_lost = !goes || again * 16 < values || is_full && again * 8 < values * 7;
        self.futile = if is_lost { self.futile + 1 } else { 0 };
        if self.futile > 1 {
            self.release(columns);
        }
    }

    /// Lets what goes with the key go with it from this parcel on. Says whether that is more than before.
    fn decide(
        &mut self,
        arena: &[u8],
        key: &Input<'_>,
        inputs: &[Input<'_>],
        columns: &mut [Column],
        mut room: usize,
    ) -> bool {
        let entries = self.met.len() << self.rarity;
        // Of fewer, one parcel tells enough. What comes again in the same order costs little as it is.
        let known = entries < FEWEST_ENTRIES.max(key.spans.len());
        let in_order = self.window.same[0] * 2 >= self.window.again;
        if known || in_order || is_settled(&columns[key.id as usize].choice.kind) {
            return false;
        }
        let mut going: Vec<&Input<'_>> = Vec::new();
        let mut is_worth_it = false;
        for (index, id) in self.others.iter().enumerate() {
            let (again, same) = (self.window.again, self.window.same[index + 1]);
            if same * 8 < again * 7 {
                continue;
            }
            let Some(other) = input_of(*id, inputs, columns).filter(|other| other.set == key.set) else {
                continue;
            };
            let column = &columns[*id as usize];
            // A key of others may go with this one: its entries stay, and with them what goes with it.
            let is_free = !column.review.is_keyed || matches!(column.choice.kind, Kind::Dictionary { .. });
            if !is_free || is_settled(&column.choice.kind) {
                continue;
            }
            let has_many = column.review.cost() >= COSTLY && self.distinct(index + 1) * 8 >= self.met.len();
            is_worth_it |= has_many;
            if has_many || same * 32 >= again * 31 {
                going.push(other);
            }
        }
        if !is_worth_it && !self.in_use || going.is_empty() {
            return false;
        }
        let mut fits = |input: &Input<'_>| {
            let bytes: usize = input.spans.iter().map(|span| span.len()).sum();
            let needed = entries * (bytes / input.spans.len() + OVERHEAD);
            let fits = needed <= room;
            room -= if fits { needed } else { 0 };
            fits
        };
        let is_dictionary = matches!(columns[key.id as usize].choice.kind, Kind::Dictionary { .. });
        if !is_dictionary && !fits(key) {
            return false;
        }
        going.retain(|other| fits(other));
        if going.is_empty() {
            return false;
        }
        if is_dictionary {
            let column = &mut columns[key.id as usize];
            column.pending = None;
            if !column.review.is_keyed {
                column.review.keyed(key.spans.len());
            }
        } else {
            go(arena, key, None, columns);
        }
        going.iter().for_each(|other| go(arena, other, Some(self.key), columns));
        self.in_use = true;
        true
    }

    /// How many values another column had beside the values that are followed.
    fn distinct(&self, index: usize) -> usize {
        self.met.values().map(|beside| beside[index]).collect::<HashSet<u32>>().len()
    }

    /// What went with the key is tried as all others are.
    fn release(&mut self, columns: &mut [Column]) {
        self.in_use = false;
        let with_it = self.others.iter().copied().filter(|id| by(self.key, &columns[*id as usize]));
        for id in with_it.chain([self.key]).collect::<Vec<_>>() {
            columns[id as usize].review.released();
        }
    }
}

/// Whether a column goes with this key.
fn by(key: u32, column: &Column) -> bool {
    matches!(column.choice.kind, Kind::Recurring(Some(by), _) if by == key)
}

/// Makes a column go with a key, or a dictionary.
fn go(arena: &[u8], input: &Input<'_>, key: Option<u32>, columns: &mut [Column]) {
    let values = Values { arena, spans: input.spans, strip: 0 };
    let quoted = values.stripped().is_some();
    let framed = dictionary::is_framed(input.binary, values);
    let kind = match key {
        Some(_) => Kind::Recurring(key, framed),
        None => Kind::Dictionary { wide: false, framed },
    };
    let column = &mut columns[input.id as usize];
    column.pending = Some(Choice::of(quoted, kind));
    column.review.keyed(input.spans.len());
}

/// Enough of a hash to tell what was beside from anything else that may be; not [`NOTHING`].
fn short(hash: u64) -> u32 {
    (hash >> 32) as u32 | 1
}

/// The column of this id, if the parcel has it.
fn input_of<'a>(id: u32, inputs: &'a [Input<'a>], columns: &[Column]) -> Option<&'a Input<'a>> {
    let position = columns.get(id as usize)?.position;
    inputs.get(position).filter(|input| input.id == id)
}

/// Whether a column costs so much that it may be worth to follow it.
fn may_be_key(column: &Column) -> bool {
    !is_settled(&column.choice.kind) && column.review.cost() >= COSTLY
}

/// Whether a column goes with others already, and costs nothing where it does.
fn is_settled(kind: &Kind) -> bool {
    matches!(kind, Kind::Constant(_) | Kind::Copy(_) | Kind::Recurring(Some(_), _))
}

/// Beside a value of whose record the other column has none.
const NOTHING: u32 = 0;
/// Bytes per 64 values, before compression, of columns that are worth it.
const COSTLY: u32 = 2 * 64;
/// What an entry takes of the room besides its bytes, at most.
const OVERHEAD: usize = 28;
/// Columns that are followed at once: of all, and of those with the same records the first ones; and others beside each.
const MOST_WATCHES: usize = 16;
const MOST_KEYS: usize = 3;
const MOST_OTHERS: usize = 32;
/// Distinct values of one column that are followed.
const MOST_MET: usize = 512;
/// What is followed at first.
const FIRST_RARITY: u32 = 2;
/// Half as many again are too many for a dictionary.
const MOST_RARITY: u32 = 7;
/// Fewest distinct values of a key.
const FEWEST_ENTRIES: usize = 512;
/// Followed values after which it begins to count anew, and the fewest that must have come again to decide anything.
const WINDOW: u32 = 128;
const FEWEST_AGAIN: u32 = 32;
/// Bytes of room at which hardly any entry is taken.
const LITTLE_ROOM: usize = 32 * 1024;
/// Parcels without a column after which it is not followed any more.
const MOST_ABSENT: u32 = 1024;
/// Windows without a find, where values do come again, after which the column rests for so many values.
const MOST_FUTILE: u32 = 4;
const REST: u32 = 1 << 17;
