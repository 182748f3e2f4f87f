//! The comparison of one topic: streams are walked in step; what does not fit is sorted out at the end of the topic.

use std::collections::HashMap;

use super::print::{Identity, Part, Print};
use super::report::{Anomaly, Finding, TopicReport};
use super::trail::{Claim, End, Range, Trail};
use super::{Pair, Seen};

/// Records without a partner that are kept to be paired up; beyond that they are `lost` or `foreign` as they are.
const MAX_LEFT_OVER: usize = 100_000;

/// What excuses a record for not being at the target, and what does not.
#[derive(Debug)]
pub(super) struct Allowance {
    /// Named gaps other than `not_visible`.
    pub(super) gaps: Vec<Range>,
    /// The exporter's group offset.
    pub(super) committed: Option<i64>,
    /// Records after the last that arrived are on their way.
    pub(super) in_flight: bool,
}

/// A topic under comparison.
#[derive(Debug)]
pub(super) struct TopicComparison {
    report: TopicReport,
    missing: Vec<(i32, Print)>,
    unknown: Vec<(i32, Print)>,
    allowances: HashMap<i32, (Allowance, i64)>,
}

/// What the walk over one partition left.
#[derive(Debug)]
pub(super) struct Outcome {
    partition: i32,
    missing: Vec<Print>,
    unknown: Vec<Print>,
    /// Highest source offset that arrived; -1 for none.
    arrived: i64,
    target_records: u64,
    rewritten: u64,
    /// Prints are those of the target.
    misplaced: Vec<(Anomaly, Print, i64)>,
}

impl TopicComparison {
    pub(super) fn new(pair: &Pair) -> Self {
        let report =
            TopicReport { source: pair.source.clone(), target: pair.target.clone(), ..Default::default() };
        Self { report, missing: Vec::new(), unknown: Vec::new(), allowances: HashMap::new() }
    }

    pub(super) fn count_source(&mut self, seen: &Seen<'_>) {
        self.report.records += 1;
        self.report.bytes += seen.payload_bytes();
    }

    /// Names every range that an audit log passed over, or counted too few records in.
    pub(super) fn silent_gaps(&mut self, partition: i32, visible: &[Print], end: End, trail: &Trail) {
        let place = (self.report.source.clone(), partition);
        let gaps = trail.gaps(&place);
        let below = |offset: i64| visible.partition_point(|print| print.offset < offset);
        let seen = |range: Range| visible.get(below(range.first)..below(range.next)).unwrap_or_default();
        let unnamed = |range: Range| {
            let named = |print: &&Print| !gaps.iter().any(|gap| gap.contains(print.offset));
            u64::try_from(seen(range).iter().filter(named).count()).expect("usize has 64 bits or less")
        };
        let passed_over =
            trail.unexplained_holes(end, &place).into_iter().map(|range| Claim { range, records: 0 });
        for Claim { range, records } in trail.claims(&place).into_iter().chain(passed_over) {
            let count = unnamed(range);
            if count > records {
                let Range { first, next } = range;
                let detail = format!(
                    "the {end} audit log has {records} records of {first}..{next} delivered, where {count} are visible"
                );
                self.report.add(Finding::at(Anomaly::SilentGap, &place.0, partition, first, detail));
            }
        }
    }

    pub(super) fn partition(&self, partition: i32, source: Vec<Print>) -> Walk {
        Walk::new(partition, source)
    }

    pub(super) fn take(&mut self, outcome: Outcome, allowance: Allowance) {
        let partition = outcome.partition;
        self.report.target_records += outcome.target_records;
        self.report.rewritten_timestamps += outcome.rewritten;
        for (anomaly, print, source_offset) in outcome.misplaced {
            let what = if anomaly == Anomaly::Repeated { "was there already" } else { "came late" };
            let detail = format!("the record at target offset {} {what}", print.offset);
            self.report.add(Finding::at(anomaly, &self.report.source, partition, source_offset, detail));
        }
        self.allowances.insert(partition, (allowance, outcome.arrived));
        self.missing.extend(outcome.missing.into_iter().map(|print| (partition, print)));
        self.unknown.extend(outcome.unknown.into_iter().map(|print| (partition, print)));
    }

    /// Pairs up what is left: a changed record leaves one on each side.
    pub(super) fn finish(mut self) -> TopicReport {
        if self.missing.len().max(self.unknown.len()) <= MAX_LEFT_OVER {
            self.pair_up();
        }
        for (partition, print) in std::mem::take(&mut self.missing) {
            self.judge_missing(partition, print);
        }
        for (partition, print) in std::mem::take(&mut self.unknown) {
            let detail = format!("no source record is like the one at target offset {}", print.offset);
            self.report.add(Finding::of_target(
                Anomaly::Foreign,
                &self.report.target,
                partition,
                print.offset,
                detail,
            ));
        }
        self.report
    }

    fn pair_up(&mut self) {
        use Part::{Headers, Key, Timestamp, Value};
        self.pair_by(None, &Part::ALL, |_| true);
        let three_of_four = [
            [Key, Value, Headers],
            [Key, Value, Timestamp],
            [Value, Headers, Timestamp],
            [Key, Headers, Timestamp],
        ];
        let tells = |parts: &[Part], print: &Print| parts.iter().any(|part| print.is_telling(*part));
        for parts in &three_of_four {
            self.pair_by(Some(()), parts, |print| tells(parts, print));
        }
        self.pair_by(Some(()), &[Value], |print| print.is_telling(Value));
        self.pair_by(Some(()), &[Key, Timestamp], |print| print.is_telling(Key));
    }

    /// Takes out pairs that agree in `parts`: within a partition, or across partitions when `same_partition` is none.
    fn pair_by(&mut self, same_partition: Option<()>, parts: &[Part], usable: impl Fn(&Print) -> bool) {
        let group = |partition: i32| same_partition.map(|()| partition);
        let mut index: HashMap<(Option<i32>, Identity), Vec<usize>> = HashMap::new();
        for (at, (partition, print)) in self.missing.iter().enumerate().rev() {
            if usable(print) {
                index.entry((group(*partition), print.facets(parts))).or_default().push(at);
            }
        }
        let mut taken = vec![false; self.missing.len()];
        let mut unpaired = Vec::new();
        for (partition, print) in std::mem::take(&mut self.unknown) {
            let found = index.get_mut(&(group(partition), print.facets(parts))).and_then(Vec::pop);
            let Some(at) = found else {
                unpaired.push((partition, print));
                continue;
            };
            taken[at] = true;
            let (was_in, source) = self.missing[at];
            let what = if was_in == partition {
                source.differences(&print)
            } else {
                format!("partition (now {partition})")
            };
            let detail = format!("{what} at target offset {}", print.offset);
            self.report.add(Finding::at(
                Anomaly::Changed,
                &self.report.source,
                was_in,
                source.offset,
                detail,
            ));
        }
        self.unknown = unpaired;
        let mut taken = taken.into_iter();
        self.missing.retain(|_| taken.next() == Some(false));
    }

    fn judge_missing(&mut self, partition: i32, print: Print) {
        let Some((allowance, arrived)) = self.allowances.get(&partition) else { return };
        if allowance.gaps.iter().any(|gap| gap.contains(print.offset)) {
            self.report.in_named_gaps += 1;
            return;
        }
        let pending = allowance.in_flight && print.offset > *arrived;
        let over = allowance.committed.filter(|&committed| committed > print.offset);
        if pending {
            self.report.pending += 1;
        } else {
            let detail = "no record at the target is like it, and no gap names it".to_owned();
            self.report.add(Finding::at(Anomaly::Lost, &self.report.source, partition, print.offset, detail));
        }
        if let Some(committed) = over {
            let detail =
                format!("the exporter's group offset is {committed}, and this record is not at the target");
            self.report.add(Finding::at(
                Anomaly::OverCommit,
                &self.report.source,
                partition,
                print.offset,
                detail,
            ));
        }
    }
}

/// The walk over one partition.
#[derive(Debug)]
pub(super) struct Walk {
    partition: i32,
    source: Vec<Print>,
    matched: Vec<bool>,
    /// Every source record below it was matched or passed by.
    cursor: usize,
    /// Where each identity is at the source, ascending; made when first needed.
    index: Option<HashMap<Identity, Vec<usize>>>,
    outcome: Outcome,
}

impl Walk {
    fn new(partition: i32, source: Vec<Print>) -> Self {
        let outcome = Outcome {
            partition,
            missing: Vec::new(),
            unknown: Vec::new(),
            arrived: -1,
            target_records: 0,
            rewritten: 0,
            misplaced: Vec::new(),
        };
        Self { partition, matched: vec![false; source.len()], source, cursor: 0, index: None, outcome }
    }

    /// The next record of the target.
    pub(super) fn target(&mut self, print: Print) {
        self.outcome.target_records += 1;
        while self.matched.get(self.cursor) == Some(&true) {
            self.cursor += 1;
        }
        if let Some(expected) = self.source.get(self.cursor) {
            if expected.identity() == print.identity() {
                return self.matched_at(self.cursor);
            }
            if expected.is_rewritten_as(&print) {
                self.outcome.rewritten += 1;
                return self.matched_at(self.cursor);
            }
        }
        let places = self.index().get(&print.identity()).cloned().unwrap_or_default();
        let free = |at: &&usize| !self.matched[**at];
        let ahead = places.iter().filter(|at| **at >= self.cursor).find(free).copied();
        let behind = places.iter().find(free).copied();
        match (ahead, behind, places.first()) {
            (Some(at), _, _) => self.matched_at(at),
            (None, Some(at), _) => {
                self.matched[at] = true;
                self.outcome.misplaced.push((Anomaly::Reordered, print, self.source[at].offset));
            }
            (None, None, Some(&at)) => {
                self.outcome.misplaced.push((Anomaly::Repeated, print, self.source[at].offset));
            }
            (None, None, None) => self.outcome.unknown.push(print),
        }
    }

    pub(super) fn finish(mut self) -> Outcome {
        debug_assert_eq!(self.partition, self.outcome.partition);
        let left = self.source.iter().zip(&self.matched).filter(|(_, matched)| !**matched);
        self.outcome.missing = left.map(|(print, _)| *print).collect();
        self.outcome
    }

    fn matched_at(&mut self, at: usize) {
        self.matched[at] = true;
        self.cursor = at + 1;
        self.outcome.arrived = self.outcome.arrived.max(self.source[at].offset);
    }

    fn index(&mut self) -> &HashMap<Identity, Vec<usize>> {
        let source = &self.source;
        self.index.get_or_insert_with(|| {
            let mut index: HashMap<Identity, Vec<usize>> = HashMap::new();
            for (at, print) in source.iter().enumerate() {
                index.entry(print.identity()).or_default().push(at);
            }
            index
        })
    }
}
