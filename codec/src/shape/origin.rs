//! From which records a parcel's columns have their values, as the chains say that the records took. Both ends find the
//! same, whatever chains they make of the graph.

use std::collections::HashMap;

use super::chain::{self, ChainId, Chains};
use super::graph::{Graph, ends};
use crate::batch::Batch;
use crate::column::Origins;

/// The sets of one parcel: columns with the same chains, as often in each, share one.
#[derive(Debug, Default)]
pub(super) struct Tracer {
    origins: Origins,
    /// By column; [`Origins::ALL`] for those without a value, too.
    sets: Vec<u32>,
    /// By chain: how often it was gone by keys, or by values; and those that were by either.
    gone: Vec<u32>,
    touched: Vec<ChainId>,
    marks: Vec<Mark>,
    /// What a column has that is on each chain with which a key, or a value, ends.
    ends: [u64; 2],
    halves: usize,
    /// By chain: where its sets are listed.
    lists: Vec<List>,
    listed: Vec<u32>,
}

/// Of a column.
#[derive(Debug, Clone, Copy, Default)]
struct Mark {
    /// Two columns have the same if they are on the same chains, as often: a sum of what is mixed from each.
    chains: u64,
    values: u32,
}

/// The sets that have values of a chain.
#[derive(Debug, Clone, Copy, Default)]
struct List {
    start: u32,
    end: u32,
    /// 1 if a record ends with the chain.
    records: u32,
}

impl Tracer {
    /// Bytes held.
    pub(super) fn memory(&self) -> usize {
        let numbers = [&self.sets, &self.gone, &self.touched, &self.listed];
        self.origins.memory()
            + numbers.iter().map(|numbers| numbers.capacity() * size_of::<u32>()).sum::<usize>()
            + self.marks.capacity() * size_of::<Mark>()
            + self.lists.capacity() * size_of::<List>()
    }

    pub(super) fn origins(&self) -> &Origins {
        &self.origins
    }

    /// The set of a column.
    pub(super) fn set_of(&self, column: usize) -> u32 {
        self.sets[column]
    }

    /// Values by column, of all ways that were counted.
    pub(super) fn values(&self) -> impl Iterator<Item = u32> {
        self.marks.iter().map(|mark| mark.values)
    }

    /// Begins a parcel.
    pub(super) fn begin(&mut self) {
        self.marks.clear();
        self.touched.clear();
        (self.ends, self.halves) = ([0; 2], 0);
    }

    /// Counts the values along the ways of all keys, and then of all values: one way behind the other.
    pub(super) fn count(&mut self, ways: &[ChainId], chains: &Chains, graph: &Graph) {
        // A chain may be on both, of whatever an exporter that is up to no good sends.
        self.gone.clear();
        self.gone.resize(chains.len(), 0);
        let before = self.touched.len();
        for id in ways {
            let gone = &mut self.gone[*id as usize];
            if *gone == 0 {
                self.touched.push(*id);
            }
            *gone += 1;
        }
        self.marks.resize(graph.columns() as usize, Mark::default());
        for id in &self.touched[before..] {
            let (mixed, gone) = (mixed(u64::from(*id) + 1), self.gone[*id as usize]);
            for column in chain::columns(chains.edges_of(*id), graph) {
                let Mark { chains, values } = &mut self.marks[column];
                (*chains, *values) = (chains.wrapping_add(mixed), *values + gone);
            }
            if is_last(*id, chains) {
                let ends = &mut self.ends[self.halves];
                *ends = ends.wrapping_add(mixed);
            }
        }
        self.halves += 1;
    }

    /// Finds the set of each column, along the same ways once more.
    pub(super) fn trace(&mut self, batch: &Batch, halves: [&[ChainId]; 2], chains: &Chains, graph: &Graph) {
        let metas = batch.groups.iter().flat_map(|group| &group.records);
        self.origins.begin(metas.map(|meta| meta.timestamp));
        debug_assert!(halves.iter().all(|ways| {
            let ends = ways.iter().filter(|id| is_last(**id, chains)).count();
            ends == batch.record_count()
        }));
        self.add_sets(chains, graph);
        if !self.listed.is_empty() {
            halves.iter().for_each(|ways| self.enter(ways));
        }
        let first_like: Vec<u32> = (0..self.origins.sets()).map(|set| self.origins.first_like(set)).collect();
        self.sets.iter_mut().for_each(|set| *set = first_like[*set as usize]);
    }

    /// Gives each column with values a set, and each chain the list of sets of which it has values: once for each time
    /// that the first column of the set is on it.
    fn add_sets(&mut self, chains: &Chains, graph: &Graph) {
        let all = self.origins.records(Origins::ALL).len();
        let mut by_mark: HashMap<u64, (u32, usize)> = HashMap::new();
        self.sets.clear();
        for (column, mark) in self.marks.iter().enumerate() {
            let values = mark.values as usize;
            // Each record ends once.
            let is_of_all = values == all && self.ends.contains(&mark.chains);
            let set = match values == 0 || is_of_all {
                true => Origins::ALL,
                false => by_mark.entry(mark.chains).or_insert_with(|| (self.origins.add(values), column)).0,
            };
            self.sets.push(set);
        }
        self.lists.clear();
        self.lists.resize(chains.len(), List::default());
        self.listed.clear();
        for id in &self.touched {
            let start = self.listed.len() as u32;
            for column in chain::columns(chains.edges_of(*id), graph) {
                match by_mark.get(&self.marks[column].chains) {
                    Some((set, first)) if *first == column => self.listed.push(*set),
                    _ => {}
                }
            }
            let (end, records) = (self.listed.len() as u32, u32::from(is_last(*id, chains)));
            self.lists[*id as usize] = List { start, end, records };
        }
    }

    /// Enters the records of the values along the ways of keys or of values.
    fn enter(&mut self, ways: &[ChainId]) {
        let mut record = 0;
        for id in ways {
            let List { start, end, records } = self.lists[*id as usize];
            for set in &self.listed[start as usize..end as usize] {
                self.origins.enter(*set, record);
            }
            record += records;
        }
    }
}

/// Whether a key or value ends with the chain.
fn is_last(id: ChainId, chains: &Chains) -> bool {
    ends(chains.get(id).target)
}

/// A number that is unlike those of other numbers, so that sums of some are unlike other sums.
fn mixed(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}
