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
}

/// What was seen lately.
#[derive(Debug, Default)]
struct Window {
    /// Values that are followed, and those of them that had been met.
    values: u32,
    again: u32,
    /// How often the row before, and each other column, was as when the value had been met.
    same: Vec<u32>,
}

impl Window {
    fn clear(&mut self) {
        (self.values, self.again) = (0, 0);
        self.same.fill(0);
    }
}

impl Recall {
    /// Looks at a parcel, and leaves as pending what is to be coded by key from it on. `room` is what both ends may still
    /// remember.
    pub(super) fn run(&mut self, arena: &[u8], inputs: &[Input<'_>], columns: &mut [Column], room: usize) {
        self.begin(inputs, columns);
        for watch in &mut self.watches {
            if let Some(key) = input_of(watch.key, inputs, columns) {
                watch.follow(arena, key, inputs, columns, &mut self.beside);
            }
        }
        for index in 0..self.watches.len() {
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
            if !self.watches.iter().any(comes_first) {
                self.watches[index].judge(arena, key, inputs, columns, room);
            }
        }
    }

    /// Follows the first costly columns of each set from now on.
    fn begin(&mut self, inputs: &[Input<'_>], columns: &[Column]) {
        let mut live = self.watches.iter().filter(|watch| watch.rest == 0).count();
        if live >= MOST_WATCHES {
            return;
        }
        let mut of_set: Vec<(u32, usize)> = Vec::new();
        for (position, input) in inputs.iter().enumerate() {
            let column = &columns[input.id as usize];
            if !may_be_key(column) {
                continue;
            }
            let index = of_set.iter().position(|(set, _)| *set == input.set).unwrap_or_else(|| {
                of_set.push((input.set, 0));
                of_set.len() - 1
            });
            of_set[index].1 += 1;
            if of_set[index].1 > MOST_KEYS || self.watches.iter().any(|watch| watch.key == input.id) {
                continue;
            }
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
            window: Window { values: 0, again: 0, same },
            futile: 0,
            rest: 0,
            in_use: false,
        }
    }

    fn memory(&self) -> usize {
        let of_value = size_of::<(u64, Box<[u32]>)>() + 1 + self.others.len() * size_of::<u32>();
        self.met.capacity() * of_value + self.others.len() * 2 * size_of::<u32>()
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
            for ((same, last), now) in self.window.same.iter_mut().zip(last.iter()).zip(beside) {
                *same += u32::from(last == now && *now != NOTHING);
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
            && self.window.again * 6 >= self.window.values
    }

    /// Decides, once enough was seen.
    fn judge(
        &mut self,
        arena: &[u8],
        key: &Input<'_>,
        inputs: &[Input<'_>],
        columns: &mut [Column],
        room: usize,
    ) {
        let Window { values, again, .. } = self.window;
        let is_key = again >= FEWEST_AGAIN && again * 4 >= values;
        if !is_key && values < WINDOW {
            return;
        }
        let found = is_key && self.decide(arena, key, inputs, columns, room);
        self.futile = if found { 0 } else { self.futile + 1 };
        if self.in_use && again * 8 < values && self.futile > 1 {
            self.release(columns);
        }
        self.window.clear();
        if !self.in_use && (self.rarity > MOST_RARITY || is_key && self.futile >= MOST_FUTILE) {
            *self = Self { rest: REST, ..Self::new(self.key, std::mem::take(&mut self.others)) };
        }
    }

    /// Lets what goes with the key go with it from this parcel on. Says whether anything does.
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
            let is_mine = matches!(column.choice.kind, Kind::Recurring(Some(by), _) if by == self.key);
            let has_many = column.review.cost() >= COSTLY && self.distinct(index + 1) * 8 >= self.met.len();
            is_worth_it |= is_mine || has_many;
            // A key of others may go with this one: its entries stay, and with them what goes with it.
            let is_free = !column.review.is_keyed || matches!(column.choice.kind, Kind::Dictionary { .. });
            if is_free && !is_settled(&column.choice.kind) && (has_many || same * 32 >= again * 31) {
                going.push(other);
            }
        }
        if !is_worth_it {
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
        if is_dictionary {
            columns[key.id as usize].review.keyed(key.spans.len());
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
        for id in std::iter::once(&self.key).chain(&self.others) {
            if let Some(column) = columns.get_mut(*id as usize) {
                column.review.released();
            }
        }
    }
}

/// Makes a column go with a key, or a dictionary.
fn go(arena: &[u8], input: &Input<'_>, key: Option<u32>, columns: &mut [Column]) {
    let values = Values { arena, spans: input.spans, strip: 0 };
    let quoted = values.stripped().is_some();
    let framed = input.binary.is_some() || values.iter().any(|value| memchr::memchr(b'\n', value).is_some());
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
/// Windows without a find, where values do come again, after which the column rests for so many values.
const MOST_FUTILE: u32 = 4;
const REST: u32 = 1 << 17;
