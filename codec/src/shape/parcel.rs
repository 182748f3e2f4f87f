//! What the coder gathers for one parcel, and how it lies on the wire.

use super::dress::Dress;
use super::flag;
use super::graph::{END, EdgeId, Graph, Node, START_NODES, Way};
use crate::column::Span;
use crate::varint::put;

/// Values, choices and definitions of one parcel.
#[derive(Debug, Default)]
pub(super) struct Parcel {
    /// By column; those in use are listed, of keys first.
    spans: Vec<Vec<Span>>,
    used: Vec<u32>,
    /// Values of all columns.
    pub(super) values: usize,
    /// By node; those in use are listed.
    choices: Vec<Choices>,
    branches: Vec<Node>,
    definitions: Vec<u8>,
    defined: u64,
    /// Keys and values begun so far, and when the last definition was made.
    ordinal: u64,
    last_ordinal: u64,
    last_target: Node,
    dresses: Vec<u8>,
    dressed: u64,
}

/// Choices at one node: 0 as guessed, else its position and one more. Those behind the last such are not told.
#[derive(Debug, Default, Clone)]
struct Choices {
    told: Vec<u16>,
    taken: usize,
}

impl Parcel {
    pub(super) fn memory(&self) -> usize {
        let spans: usize = self.spans.iter().map(|spans| spans.capacity() * size_of::<Span>()).sum();
        let choices: usize = self.choices.iter().map(|choices| choices.told.capacity() * 2).sum();
        let lists = self.spans.capacity() * size_of::<Vec<Span>>()
            + self.choices.capacity() * size_of::<Choices>()
            + (self.used.capacity() + self.branches.capacity()) * 4;
        spans + choices + lists + self.definitions.capacity() + self.dresses.capacity()
    }

    /// Bytes of the definitions.
    pub(super) fn defined_bytes(&self) -> usize {
        self.definitions.len() + self.dresses.len()
    }

    pub(super) fn begin(&mut self, graph: &Graph) {
        for column in self.used.drain(..) {
            let spans = &mut self.spans[column as usize];
            if spans.capacity() > KEEP {
                *spans = Vec::new();
            }
            spans.clear();
        }
        for node in self.branches.drain(..) {
            let choices = &mut self.choices[node as usize];
            choices.told.clear();
            choices.taken = 0;
        }
        let columns = graph.columns() as usize;
        self.spans.resize_with(columns, Vec::new);
        self.choices.resize_with(columns + START_NODES as usize, Choices::default);
        self.definitions.clear();
        (self.values, self.defined, self.ordinal, self.last_ordinal) = (0, 0, 0, 0);
        self.last_target = END;
        self.dresses.clear();
        self.dressed = 0;
    }

    /// Another key or value begins.
    #[inline]
    pub(super) fn next_record(&mut self) {
        self.ordinal += 1;
    }

    /// All keys, or all values, are in their columns.
    pub(super) fn end_half(&mut self) {
        let known = self.used.len();
        let used = self.spans.iter().enumerate().filter(|(_, spans)| !spans.is_empty());
        let new = used.map(|(column, _)| column as u32).filter(|column| !self.used[..known].contains(column));
        let new: Vec<u32> = new.collect();
        self.used.extend(new);
    }

    /// Adds a value to the column of `node`.
    #[inline]
    pub(super) fn push(&mut self, node: Node, start: usize, end: usize) {
        let column = (node - START_NODES) as usize;
        self.spans[column].push(Span { start: start as u32, end: end as u32 });
    }

    /// Takes back the last value of the column of `node`.
    #[inline]
    pub(super) fn pop(&mut self, node: Node) {
        self.spans[(node - START_NODES) as usize].pop();
    }

    /// Adds the same value to the column of `node` so many times.
    #[inline]
    pub(super) fn repeat(&mut self, node: Node, span: Span, times: usize) {
        self.spans[(node - START_NODES) as usize].extend(std::iter::repeat_n(span, times));
    }

    /// Takes back the values of a way that was not gone to its end.
    pub(super) fn take_back(&mut self, graph: &Graph, way: &[EdgeId]) {
        for target in way.iter().map(|&id| graph.edge(id).target).filter(|&target| target != END) {
            self.spans[(target - START_NODES) as usize].pop();
        }
    }

    /// Notes which edge of `node`, which has several, is taken.
    #[inline]
    pub(super) fn choose(&mut self, graph: &mut Graph, node: Node, way: &mut Way, position: usize) {
        let guess = graph.guess(node, *way);
        let choices = &mut self.choices[node as usize];
        if choices.taken == 0 {
            self.branches.push(node);
        }
        if guess != position {
            choices.told.resize(choices.taken, 0);
            choices.told.push(position as u16 + 1);
        }
        choices.taken += 1;
        graph.take(node, way, position);
    }

    /// Tells of a new edge, which the graph has taken, before the record that it belongs to.
    pub(super) fn define(&mut self, from: Node, literal: &[u8], target: Node) {
        let out = &mut self.definitions;
        put(out, self.ordinal - self.last_ordinal);
        put(out, if from == self.last_target { 0 } else { u64::from(from) + 1 });
        put(out, if target == END { 0 } else { u64::from(target) });
        put(out, literal.len() as u64);
        out.extend_from_slice(literal);
        self.defined += 1;
        (self.last_ordinal, self.last_target) = (self.ordinal, target);
        if target != END && self.choices.len() <= target as usize {
            self.choices.push(Choices::default());
            self.spans.push(Vec::new());
        }
    }

    /// Tells what the values of a new column wear.
    pub(super) fn dress(&mut self, node: Node, dress: Dress) {
        if dress != Dress::Bare {
            put(&mut self.dresses, u64::from(node - START_NODES));
            dress.put(&mut self.dresses);
            self.dressed += 1;
        }
    }

    /// Writes all but the columns' values.
    pub(super) fn write(&mut self, mut flags: u8, out: &mut Vec<u8>) {
        self.branches.sort_unstable();
        let told = |node: &&Node| !self.choices[**node as usize].told.is_empty();
        let branches = self.branches.iter().filter(told).count() as u64;
        flags |= if self.defined > 0 { flag::DEFINITIONS } else { 0 };
        flags |= if branches > 0 { flag::CHOICES } else { 0 };
        flags |= if self.dressed > 0 { flag::DRESSES } else { 0 };
        out.push(flags);
        if self.defined > 0 {
            put(out, self.defined);
            out.extend_from_slice(&self.definitions);
        }
        if self.dressed > 0 {
            put(out, self.dressed);
            out.extend_from_slice(&self.dresses);
        }
        if branches == 0 {
            return;
        }
        put(out, branches);
        let mut next = 0;
        for &node in self.branches.iter().filter(told) {
            let choices = &self.choices[node as usize].told;
            put(out, u64::from(node - next));
            put(out, choices.len() as u64);
            choices.iter().for_each(|&choice| put(out, choice.into()));
            next = node + 1;
        }
    }

    /// The columns that have values, those of keys first, and where their values lie.
    pub(super) fn used(&self) -> impl Iterator<Item = (u32, &[Span])> {
        self.used.iter().map(|&id| (id, self.spans(id)))
    }

    pub(super) fn spans(&self, column: u32) -> &[Span] {
        &self.spans[column as usize]
    }
}

/// Values of a column whose memory is kept from one parcel to the next.
const KEEP: usize = 16 * 1024;
