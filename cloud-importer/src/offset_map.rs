//! The offset map: which target offset a source offset has, exactly.
//!
//! One record per source partition and transaction, in the same transaction as the data and in the partition with the
//! lane's number. Key: the source partition, as in the progress topic. Value: runs of consecutive offsets.

use prost::Message;

/// Source offsets `source..source + length` lie at target offsets `target..target + length`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) source: i64,
    pub(crate) target: i64,
    pub(crate) length: u64,
}

/// Collects the runs of one source partition in one transaction.
#[derive(Debug, Default)]
pub(crate) struct Runs {
    runs: Vec<Run>,
    records: usize,
}

impl Runs {
    /// The next record: its offset in the source and in the target.
    pub(crate) fn push(&mut self, source: i64, target: i64) {
        self.records += 1;
        if let Some(run) = self.runs.last_mut() {
            let length = run.length as i64;
            if run.source + length == source && run.target + length == target {
                run.length += 1;
                return;
            }
        }
        self.runs.push(Run { source, target, length: 1 });
    }

    /// How many records.
    pub(crate) fn len(&self) -> usize {
        self.records
    }

    /// The record's value: deltas from where the run before ended, so that a gap costs a byte or two.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut record = Record { format: FORMAT, runs: Vec::with_capacity(self.runs.len() * 3) };
        let (mut source, mut target) = (0, 0);
        for run in &self.runs {
            let length = run.length as i64;
            record.runs.extend([run.source - source, run.target - target, length]);
            (source, target) = (run.source + length, run.target + length);
        }
        record.encode_to_vec()
    }
}

#[derive(Clone, PartialEq, Message)]
struct Record {
    #[prost(uint32, tag = "1")]
    format: u32,
    #[prost(sint64, repeated, tag = "2")]
    runs: Vec<i64>,
}

const FORMAT: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(bytes: &[u8]) -> Vec<Run> {
        let (mut source, mut target) = (0, 0);
        Record::decode(bytes)
            .unwrap()
            .runs
            .chunks_exact(3)
            .map(|run| {
                let found = Run { source: source + run[0], target: target + run[1], length: run[2] as u64 };
                (source, target) = (found.source + run[2], found.target + run[2]);
                found
            })
            .collect()
    }

    #[test]
    fn consecutive_offsets_are_one_run_and_gaps_on_either_side_begin_another() {
        let mut runs = Runs::default();
        for (source, target) in [(100, 7), (101, 8), (102, 9), (110, 10), (111, 12), (112, 13)] {
            runs.push(source, target);
        }
        let expected = [
            Run { source: 100, target: 7, length: 3 },
            Run { source: 110, target: 10, length: 1 },
            Run { source: 111, target: 12, length: 2 },
        ];
        assert_eq!(decode(&runs.encode()), expected);
    }
}
