//! Which record each value of a column is from. By it columns refer to each other, also when one has values of more
//! records than the other.

use std::borrow::Cow;

/// Where the values of a parcel's columns come from. Both ends have the same from the shapes of its records alone.
///
/// Columns that have their values from the same records, as many from each, may share a *set*: for each value the record,
/// in ascending order.
#[derive(Debug)]
pub(crate) struct Origins {
    /// By record.
    timestamps: Vec<i64>,
    /// All sets, one behind the other.
    records: Vec<u32>,
    /// By set: where it begins, and where its next value is entered.
    sets: Vec<(usize, usize)>,
}

impl Default for Origins {
    fn default() -> Self {
        let mut origins = Self { timestamps: Vec::new(), records: Vec::new(), sets: Vec::new() };
        origins.begin(std::iter::empty());
        origins
    }
}

impl Origins {
    /// The set of all records, one value of each.
    pub(crate) const ALL: u32 = 0;

    /// Begins a parcel of records with these timestamps. There is the set of [all](Self::ALL) then.
    pub(crate) fn begin(&mut self, timestamps: impl Iterator<Item = i64>) {
        self.timestamps.clear();
        self.timestamps.extend(timestamps);
        self.records.clear();
        self.records.extend(0..self.timestamps.len() as u32);
        self.sets.clear();
        self.sets.push((0, self.records.len()));
    }

    /// Adds a set of so many values, which are to be [entered](Self::enter).
    pub(crate) fn add(&mut self, values: usize) -> u32 {
        let start = self.records.len();
        self.records.resize(start + values, 0);
        self.sets.push((start, start));
        self.sets.len() as u32 - 1
    }

    /// The next value of a set is of this record.
    #[inline]
    pub(crate) fn enter(&mut self, set: u32, record: u32) {
        let (_, next) = &mut self.sets[set as usize];
        self.records[*next] = record;
        *next += 1;
    }

    /// How many sets there are.
    pub(crate) fn sets(&self) -> u32 {
        self.sets.len() as u32
    }

    /// The first set that is known to have the same records.
    pub(crate) fn first_like(&self, set: u32) -> u32 {
        if set == Self::ALL {
            return set;
        }
        let records = self.records(set);
        let near = set.saturating_sub(MOST_COMPARED).max(1)..set;
        let mut earlier = std::iter::once(Self::ALL).chain(near);
        earlier.find(|other| self.records(*other) == records).unwrap_or(set)
    }

    /// For each value of a set, its record.
    pub(crate) fn records(&self, set: u32) -> &[u32] {
        let (start, end) = self.sets[set as usize];
        &self.records[start..end]
    }

    /// For each row of a column with the set `of` the row of one with the set `to`, as [`join`] has it. None if that is the
    /// same row for all.
    pub(super) fn rows(&self, of: u32, to: u32) -> Option<Vec<u32>> {
        (of != to).then(|| join(self.records(of), self.records(to)))
    }

    /// What `all`, the numbers of a column with the set `to`, has for each row of a column with the set `of`. None if it
    /// has nothing for one of them.
    pub(super) fn of_rows<'a, T: Copy>(&self, of: u32, to: u32, all: &'a [T]) -> Option<Cow<'a, [T]>> {
        if all.len() != self.records(to).len() {
            return None;
        }
        match self.rows(of, to) {
            None => Some(Cow::Borrowed(all)),
            Some(rows) => gather(&rows, all).map(Cow::Owned),
        }
    }

    /// Of each record.
    pub(super) fn timestamps(&self) -> &[i64] {
        &self.timestamps
    }

    /// Bytes held.
    pub(crate) fn memory(&self) -> usize {
        self.timestamps.capacity() * size_of::<i64>()
            + self.records.capacity() * size_of::<u32>()
            + self.sets.capacity() * size_of::<(usize, usize)>()
    }
}

/// For each row of one column the row of another from the same record, the first with the first of it and so on;
/// [`NOWHERE`] if there is none. Both are given by the records of their values.
pub(super) fn join(of: &[u32], to: &[u32]) -> Vec<u32> {
    let mut next = 0;
    // Few rows look for theirs instead of passing all.
    let leap = to.len() / LEAP > of.len();
    let row = |record: &u32| {
        next += match leap {
            true => to[next..].partition_point(|other| other < record),
            false => to[next..].iter().take_while(|other| *other < record).count(),
        };
        let found = to.get(next) == Some(record);
        next += usize::from(found);
        if found { next as u32 - 1 } else { NOWHERE }
    };
    of.iter().map(row).collect()
}

/// What stands in `rows` of `all`. None if a row is nowhere.
pub(super) fn gather<T: Copy>(rows: &[u32], all: &[T]) -> Option<Vec<T>> {
    rows.iter().map(|row| all.get(*row as usize).copied()).collect()
}

/// What stands in `rows` of `all`, and `none` for those that are nowhere.
pub(super) fn gather_or<T: Copy>(rows: &[u32], all: &[T], none: T) -> Vec<T> {
    rows.iter().map(|row| all.get(*row as usize).copied().unwrap_or(none)).collect()
}

/// The row of a record in which the other column has no value.
pub(super) const NOWHERE: u32 = u32::MAX;
/// Sets to which another is compared.
const MOST_COMPARED: u32 = 16;
/// How many times as many values make it worth to look for each by halves.
const LEAP: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_find_those_of_their_record() {
        assert_eq!(join(&[1, 3, 4], &[0, 1, 2, 3, 4]), [1, 3, 4]);
        assert_eq!(join(&[0, 1, 2], &[1]), [NOWHERE, 0, NOWHERE]);
        // The first with the first of a record, and so on.
        assert_eq!(join(&[0, 0, 1, 1, 1], &[0, 1, 1, 2]), [0, NOWHERE, 1, 2, NOWHERE]);
        assert_eq!(join(&[0, 1, 1], &[0, 0, 0, 1, 1]), [0, 3, 4]);
        let many: Vec<u32> = (0..1000).map(|value| value / 2).collect();
        assert_eq!(join(&[7, 7, 7, 499, 500], &many), [14, 15, NOWHERE, 998, NOWHERE]);
        assert_eq!(gather(&[0, 2], &[5, 6, 7]), Some(vec![5, 7]));
        assert_eq!((gather(&[0, NOWHERE], &[5]), gather_or(&[0, NOWHERE], &[5], 9)), (None, vec![5, 9]));
    }
}
