//! Which shapes belong together. Source partitions of one topic share columns, those of unlike topics do not, although
//! paths may be the same. The decoder knows nothing of this: it sees columns and ways only.

use std::collections::{HashMap, HashSet};

use super::graph::{EdgeId, KEYS, Node, START_NODES, VALUES, WHOLE_VALUES};
use super::scan::Scan;
use super::token::Token;
use crate::limits::{MAX_REMEMBERED_SLOTS, MAX_SHAPE_EDGES};

/// Keys and values have shapes apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Half {
    Key,
    Value,
}

impl Half {
    pub(super) fn start(self) -> Node {
        match self {
            Self::Key => KEYS,
            Self::Value => VALUES,
        }
    }
}

/// All topics that were told apart. The first is for what has no shape.
#[derive(Debug)]
pub(super) struct Topics {
    by_slot: HashMap<u32, Membership>,
    /// By number of a [name](Names).
    by_name: HashMap<u32, u32>,
    topics: Vec<[Shapes; 2]>,
    /// By topic: paths of its values, by which it is known.
    paths: Vec<HashSet<u64>>,
    /// By column: where its values end.
    scans: Vec<Scan>,
}

/// The topic of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Membership {
    pub(super) topic: usize,
    /// By a record that tells. One that is a single word may be of any topic: another may yet come.
    pub(super) settled: bool,
}

/// What the encoder was told of topics, which no reset makes it forget.
#[derive(Debug, Default)]
pub(super) struct Names {
    numbers: HashMap<Box<str>, u32>,
    by_slot: HashMap<u32, u32>,
}

impl Names {
    /// Says whether that is new. What there is no room for is not remembered.
    pub(super) fn add(&mut self, slot: u32, name: &str) -> bool {
        let next = self.numbers.len() as u32;
        if slot >= MAX_REMEMBERED_SLOTS || next >= MAX_REMEMBERED_SLOTS && !self.numbers.contains_key(name) {
            return false;
        }
        let number = *self.numbers.entry(name.into()).or_insert(next);
        self.by_slot.insert(slot, number) != Some(number)
    }

    /// The number of the name of a slot's topic.
    pub(super) fn of(&self, slot: u32) -> Option<u32> {
        self.by_slot.get(&slot).copied()
    }

    pub(super) fn memory(&self) -> usize {
        let of_name = |name: &str| name.len() + size_of::<(Box<str>, u32)>() + 1;
        self.numbers.keys().map(|name| of_name(name)).sum::<usize>() + self.by_slot.capacity() * 12
    }
}

/// Shapes of the keys or of the values of one topic.
#[derive(Debug)]
struct Shapes {
    /// Edges with which they begin.
    starts: Vec<EdgeId>,
    /// Columns by path.
    columns: HashMap<u64, Node>,
    /// What may still be spent on new shapes, in bytes.
    credit: i64,
    /// How often there was no credit left, and how many records until there is some again.
    exhausted: u32,
    pause: u32,
    /// Edges that were defined for it, and how many more records were followed than had to be cut for them.
    edges: usize,
    gain: i64,
}

impl Default for Shapes {
    fn default() -> Self {
        Self {
            starts: Vec::new(),
            columns: HashMap::new(),
            credit: FIRST_CREDIT,
            exhausted: 0,
            pause: 0,
            edges: 0,
            gain: 0,
        }
    }
}

impl Default for Topics {
    fn default() -> Self {
        let mut topics = Self {
            by_slot: HashMap::new(),
            by_name: HashMap::new(),
            topics: Vec::new(),
            paths: Vec::new(),
            scans: Vec::new(),
        };
        topics.reset();
        topics
    }
}

impl Topics {
    pub(super) fn reset(&mut self) {
        self.by_slot.clear();
        self.by_name.clear();
        self.topics.clear();
        self.paths.clear();
        self.add_topic();
        self.scans.clear();
        self.scans.resize((WHOLE_VALUES + 1 - START_NODES) as usize, Scan::Rest);
    }

    pub(super) fn len(&self) -> usize {
        self.topics.len()
    }

    pub(super) fn memory(&self) -> usize {
        let shapes = |shapes: &Shapes| shapes.columns.capacity() * 20 + shapes.starts.capacity() * 4;
        self.by_slot.capacity() * (size_of::<(u32, Membership)>() + 1)
            + self.by_name.capacity() * 12
            + self.scans.capacity() * size_of::<Scan>()
            + self.paths.iter().map(|paths| paths.capacity() * 9).sum::<usize>()
            + self.topics.iter().flatten().map(|half| size_of::<Shapes>() + shapes(half)).sum::<usize>()
    }

    pub(super) fn of_slot(&self, slot: u32) -> Option<Membership> {
        self.by_slot.get(&slot).copied()
    }

    /// Its topic is another one from now on.
    pub(super) fn forget_slot(&mut self, slot: u32) {
        self.by_slot.remove(&slot);
    }

    pub(super) fn of_name(&self, name: u32) -> Option<usize> {
        self.by_name.get(&name).map(|&topic| topic as usize)
    }

    pub(super) fn assign(&mut self, slot: u32, name: Option<u32>, member: Membership) {
        if self.by_slot.len() < MAX_REMEMBERED_SLOTS as usize {
            self.by_slot.insert(slot, member);
        }
        // Records without a shape tell nothing of those of other partitions.
        if let Some(name) = name.filter(|_| member.settled && member.topic != 0) {
            self.by_name.insert(name, member.topic as u32);
        }
    }

    /// The topic whose values are most like one of `tokens`, or a new one if there is room for it.
    pub(super) fn nearest(&mut self, tokens: &[Token], most: usize) -> usize {
        let Some(first) = tokens.first() else { return 0 };
        let likeness = |paths: &HashSet<u64>| {
            let shared = tokens.iter().filter(|token| paths.contains(&token.path)).count();
            // Fields and words have no names by which they could be known, but their number.
            let least = match first.scan {
                Scan::Json => 0,
                Scan::Field(_) => paths.len(),
                _ => paths.len() * 2 / 3,
            };
            shared * 100 / tokens.len().max(least)
        };
        let best = self.paths.iter().enumerate().skip(1).map(|(index, paths)| (likeness(paths), index)).max();
        match best {
            Some((likeness, index)) if likeness >= ALIKE || self.topics.len() >= most => index,
            _ => {
                let topic = self.add_topic();
                self.paths[topic].extend(tokens.iter().map(|token| token.path));
                topic
            }
        }
    }

    fn add_topic(&mut self) -> usize {
        self.topics.push(Default::default());
        self.paths.push(HashSet::new());
        self.topics.len() - 1
    }

    /// Edges with which records of a topic begin.
    #[inline]
    pub(super) fn starts(&self, topic: usize, half: Half) -> &[EdgeId] {
        &self.topics[topic][half as usize].starts
    }

    pub(super) fn add_start(&mut self, topic: usize, half: Half, edge: EdgeId) {
        self.topics[topic][half as usize].starts.push(edge);
    }

    /// How values of `column` end.
    #[inline]
    pub(super) fn scan(&self, column: usize) -> Scan {
        self.scans[column]
    }

    /// The column of a path.
    pub(super) fn column(&self, topic: usize, half: Half, path: u64) -> Option<Node> {
        self.topics[topic][half as usize].columns.get(&path).copied()
    }

    /// Gives a path the column that comes next.
    pub(super) fn add_column(&mut self, topic: usize, half: Half, token: &Token, node: Node) {
        debug_assert_eq!((node - START_NODES) as usize, self.scans.len());
        self.topics[topic][half as usize].columns.insert(token.path, node);
        if half == Half::Value {
            self.paths[topic].insert(token.path);
        }
        // Keys that are one value stay one, so that each record has it: other columns go by it.
        self.scans.push(match (half, token.scan) {
            (Half::Key, Scan::Lone) => Scan::Rest,
            (_, scan) => scan,
        });
    }

    /// A record of `size` bytes had a known shape, which earns credit for new ones.
    #[inline]
    pub(super) fn followed(&mut self, topic: usize, half: Half, size: usize) {
        let shapes = &mut self.topics[topic][half as usize];
        shapes.credit = (shapes.credit + size as i64 / EARNED).min(MOST_CREDIT);
        shapes.gain += 1;
    }

    /// An edge was defined for a topic.
    pub(super) fn defined(&mut self, topic: usize, half: Half) {
        self.topics[topic][half as usize].edges += 1;
    }

    /// Whether a record of unknown shape should be cut. Many of them in a row are no shapes but noise: then there is a
    /// pause, which grows. Nor may those of one topic, if hardly any is followed, take the room of all others.
    pub(super) fn may_learn(&mut self, topic: usize, half: Half) -> bool {
        let share = MAX_SHAPE_EDGES / self.topics.len().saturating_sub(1).max(1);
        let shapes = &mut self.topics[topic][half as usize];
        if shapes.gain < 0 && shapes.edges >= share {
            return false;
        }
        if shapes.pause == 0 {
            return true;
        }
        shapes.pause -= 1;
        false
    }

    /// A record was cut, and has a shape now.
    pub(super) fn parsed(&mut self, topic: usize, half: Half) {
        self.topics[topic][half as usize].gain -= 1;
    }

    /// There is a new way to cut records: those that had no shape may have one now.
    pub(super) fn learn_again(&mut self) {
        for shapes in self.topics.iter_mut().flatten() {
            (shapes.pause, shapes.exhausted, shapes.gain) = (0, 0, 0);
            shapes.credit = shapes.credit.max(FIRST_CREDIT);
        }
    }

    /// Pays `cost` bytes for a record that was cut.
    pub(super) fn pay(&mut self, topic: usize, half: Half, cost: usize) {
        let shapes = &mut self.topics[topic][half as usize];
        shapes.credit -= cost as i64;
        if shapes.credit < 0 {
            shapes.credit = FIRST_CREDIT / 8;
            shapes.pause = FIRST_PAUSE << shapes.exhausted.min(8);
            shapes.exhausted += 1;
        }
    }
}

/// Share of a record's paths, in percent, that a topic must know for the record to be its.
const ALIKE: usize = 70;
const FIRST_CREDIT: i64 = 256 * 1024;
const MOST_CREDIT: i64 = 1024 * 1024;
/// One byte of new shapes for so many bytes of known ones.
const EARNED: i64 = 8;
const FIRST_PAUSE: u32 = 64;
