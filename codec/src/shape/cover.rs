//! Which records a column has its values from, as far as both ends can tell without being told: all records of some of
//! the groups, one value each. Then the column's values can be compared with those records' timestamps, even in a lane
//! where other groups are of another topic.

use crate::batch::Batch;

/// The record sets of one parcel's columns. Both ends build them from the counts of values alone.
#[derive(Debug, Default)]
pub(super) struct Covers {
    /// By column: its values so far, and the chain of groups that it covers.
    columns: Vec<Column>,
    /// Each chain is an earlier one and a group more; number 0 is the empty one.
    chains: Vec<Chain>,
    /// Chains that the group at hand made of others.
    longer: Vec<(u32, u32)>,
    active: bool,
    /// Timestamps of each set of records: first of all records, then of those that some column covers.
    sets: Vec<Vec<i64>>,
    used: usize,
}

#[derive(Debug, Default, Clone, Copy)]
struct Column {
    values: u32,
    chain: u32,
}

#[derive(Debug, Clone, Copy)]
struct Chain {
    before: u32,
    group: u32,
    records: u32,
    /// Which set it became, if one.
    set: u32,
}

/// The chain of a column that has more or fewer values than a group has records.
const BROKEN: u32 = u32::MAX;
/// The set of a column that covers no set of records.
const NO_SET: u32 = u32::MAX;
/// Most sets of a parcel: topics of a lane, as a rule.
const MAX_SETS: usize = 32;
/// Groups times columns above which it is not worth the time: then only the set of all records is known.
const MAX_WORK: usize = 1 << 16;

impl Covers {
    pub(super) fn memory(&self) -> usize {
        self.columns.capacity() * size_of::<Column>()
            + self.chains.capacity() * size_of::<Chain>()
            + self.sets.iter().map(|set| set.capacity() * 8).sum::<usize>()
    }

    /// Begins a parcel of `groups` groups, before which `columns` columns are known.
    pub(super) fn begin(&mut self, groups: usize, columns: u32) {
        self.columns.clear();
        self.chains.clear();
        self.chains.push(Chain { before: 0, group: 0, records: 0, set: NO_SET });
        self.active = groups * columns as usize <= MAX_WORK;
        self.used = 0;
    }

    /// A group of `records` records is through; `values` has the values of each column up to here.
    pub(super) fn end_group(&mut self, group: usize, records: usize, values: impl Iterator<Item = u32>) {
        if !self.active || records == 0 {
            return;
        }
        self.longer.clear();
        for (index, values) in values.enumerate() {
            if index == self.columns.len() {
                self.columns.push(Column::default());
            }
            let column = &mut self.columns[index];
            let new = values - column.values;
            column.values = values;
            if new == 0 || column.chain == BROKEN {
                continue;
            }
            if new as usize != records {
                column.chain = BROKEN;
                continue;
            }
            let before = column.chain;
            column.chain = match self.longer.iter().find(|(from, _)| *from == before) {
                Some((_, to)) => *to,
                None => {
                    let to = self.chains.len() as u32;
                    let records = self.chains[before as usize].records + records as u32;
                    self.chains.push(Chain { before, group: group as u32, records, set: NO_SET });
                    self.longer.push((before, to));
                    to
                }
            };
        }
    }

    /// All groups are through: gathers the timestamps of all records.
    pub(super) fn end(&mut self, batch: &Batch) {
        let set = self.next_set();
        set.extend(batch.groups.iter().flat_map(|group| &group.records).map(|meta| meta.timestamp));
    }

    /// The set whose records `column` has one value of each; no set's number if there is none.
    pub(super) fn set_of(&mut self, column: u32, values: usize, batch: &Batch) -> u32 {
        // All records at once is the usual case.
        if values == self.sets[0].len() {
            return 0;
        }
        let chain = self.columns.get(column as usize).map_or(BROKEN, |column| column.chain);
        let Some(&Chain { records, set, .. }) = self.chains.get(chain as usize) else { return NO_SET };
        if records == 0 || set != NO_SET || self.used >= MAX_SETS {
            return set;
        }
        let set = self.used as u32;
        self.chains[chain as usize].set = set;
        let mut timestamps = std::mem::take(self.next_set());
        let mut at = chain;
        while at != 0 {
            let Chain { before, group, .. } = self.chains[at as usize];
            timestamps.extend(batch.groups[group as usize].records.iter().rev().map(|meta| meta.timestamp));
            at = before;
        }
        timestamps.reverse();
        self.sets[set as usize] = timestamps;
        set
    }

    /// Timestamps of all sets.
    pub(super) fn sets(&self) -> &[Vec<i64>] {
        &self.sets[..self.used]
    }

    fn next_set(&mut self) -> &mut Vec<i64> {
        if self.used == self.sets.len() {
            self.sets.push(Vec::new());
        }
        self.used += 1;
        let set = &mut self.sets[self.used - 1];
        set.clear();
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_of_one_topic_have_the_timestamps_of_its_groups() {
        let mut batch = Batch::new();
        for (slot, time) in [(0, 10), (1, 20), (2, 30)] {
            let group = batch.group_index(slot);
            (0..2).for_each(|i| batch.push(group, i, time + i, None, None, []));
        }
        let mut covers = Covers::default();
        for _ in 0..2 {
            covers.begin(3, 4);
            // One column in all records, one in those of groups 0 and 2, one in half of group 1, one unused.
            covers.end_group(0, 2, [2, 2, 0, 0].into_iter());
            covers.end_group(1, 2, [4, 2, 1, 0].into_iter());
            covers.end_group(2, 2, [6, 4, 1, 0].into_iter());
            covers.end(&batch);
            assert_eq!(covers.set_of(0, 6, &batch), 0);
            assert_eq!((covers.set_of(1, 4, &batch), covers.set_of(1, 4, &batch)), (1, 1));
            assert_eq!((covers.set_of(2, 1, &batch), covers.set_of(3, 0, &batch)), (NO_SET, NO_SET));
            assert_eq!(covers.sets(), [vec![10, 11, 20, 21, 30, 31], vec![10, 11, 30, 31]]);
        }
    }
}
