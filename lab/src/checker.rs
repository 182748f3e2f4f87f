//! Says whether the target holds what the source holds, and names what is wrong when it does not.
//!
//! Both sides are read read_committed, one partition at a time: the source becomes one [`print`](Print) of 40 bytes per
//! record, the target is streamed against them. The engines' audit logs are read too, and the exporter's group offsets.
//! Nothing of the product is used for that but the sum of digests: the checker must be able to contradict it.
//!
//! | anomaly | what was seen |
//! |---|---|
//! | `lost` | a record visible at the source is not at the target and in no named gap |
//! | `repeated` | the target has it more often than the source |
//! | `reordered` | it came after records that follow it at the source |
//! | `changed` | key, value, headers, timestamp or partition differ |
//! | `foreign` | the target has a record that the source never had |
//! | `silent-gap` | an audit log passes over source offsets that hold visible records, without a word |
//! | `over-commit` | the exporter's group offset lies above a record that is not at the target |
//! | `ungranted` | the target has a topic that was not to be carried |
//! | `digest` | the audit logs of both ends disagree about the same range of records |
//!
//! A check of one pair of topics with planted faults is in this module's tests: each anomaly was seen to be named.

mod compare;
mod history;
mod live;
mod print;
mod report;
mod trail;

pub use history::{History, MemoryHistory, Seen};
pub(crate) use live::client_config;
pub use live::{LiveHistory, group_offsets};
pub use print::Print;
pub use report::{Anomaly, Finding, Report, TopicReport};
pub use trail::{Claim, End, Range, Trail};

use std::collections::BTreeMap;
use std::path::PathBuf;

use compare::{Allowance, TopicComparison};

/// A source partition by name.
pub type Place = (String, i32);

/// A topic and where its copy is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// Name at the source.
    pub source: String,
    /// Name at the target.
    pub target: String,
}

impl Pair {
    /// A topic that keeps its name.
    pub fn same(name: &str) -> Self {
        Self { source: name.to_owned(), target: name.to_owned() }
    }
}

/// What to compare, and what else is known.
#[derive(Debug, Clone, Default)]
pub struct Check {
    /// Which topics.
    pub pairs: Vec<Pair>,
    /// Topics that may exist at the target besides those of [`Check::pairs`]; names with `__` in front always may.
    pub others_at_target: Vec<String>,
    /// First source offset that was to be carried, where that is not the first of the log.
    pub source_from: BTreeMap<Place, i64>,
    /// Group offsets of the exporter, read **before** the check (see [`group_offsets`]).
    pub committed: BTreeMap<Place, i64>,
    /// What the exporter's audit log says.
    pub edge: Option<Trail>,
    /// What the importer's audit log says.
    pub cloud: Option<Trail>,
    /// The link is still at work: records after the last one that arrived are pending, not lost.
    pub in_flight: bool,
}

/// Why a check could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read the audit log {}", path.display())]
    AuditFile { path: PathBuf, source: std::io::Error },
    #[error("{}:{line} is no line of an audit log", path.display())]
    AuditLine { path: PathBuf, line: usize, source: serde_json::Error },
    #[error("cannot ask the cluster at {bootstrap}")]
    Client { bootstrap: String, source: ::kafka::rdkafka::error::KafkaError },
    #[error("topic {topic} does not exist at {bootstrap}")]
    NoTopic { bootstrap: String, topic: String },
    #[error("reading {topic} [{partition}] at offset {offset} failed")]
    Read { topic: String, partition: i32, offset: i64, source: ::kafka::rdkafka::error::KafkaError },
    #[error(
        "{topic} [{partition}] gave nothing for {seconds} s after offset {offset}; is a transaction open?"
    )]
    Stuck { topic: String, partition: i32, offset: i64, seconds: u64 },
}

impl Check {
    /// A check of these topics that keep their names.
    pub fn of(topics: &[&str]) -> Self {
        Self { pairs: topics.iter().map(|name| Pair::same(name)).collect(), ..Self::default() }
    }

    /// Reads both sides to their ends and compares them.
    pub fn run(&self, source: &dyn History, target: &dyn History) -> Result<Report, Error> {
        let mut report = Report::default();
        for pair in &self.pairs {
            report.topics.push(self.topic(pair, source, target)?);
        }
        for name in target.topics()? {
            let known =
                self.pairs.iter().any(|pair| pair.target == name) || self.others_at_target.contains(&name);
            if !known && !name.starts_with("__") {
                let detail = "no topic of this name was to be carried".to_owned();
                report.add(Finding::of_topic(Anomaly::Ungranted, &name, detail));
            }
        }
        for (end, trail) in self.trails() {
            report.findings.extend(trail.overlaps(end));
        }
        if let (Some(edge), Some(cloud)) = (&self.edge, &self.cloud) {
            report.findings.extend(edge.digests_against(cloud));
        }
        Ok(report)
    }

    fn trails(&self) -> impl Iterator<Item = (End, &Trail)> {
        let edge = self.edge.iter().map(|trail| (End::Edge, trail));
        edge.chain(self.cloud.iter().map(|trail| (End::Cloud, trail)))
    }

    fn topic(&self, pair: &Pair, source: &dyn History, target: &dyn History) -> Result<TopicReport, Error> {
        let mut comparison = TopicComparison::new(pair);
        let source_partitions = source.partitions(&pair.source)?;
        let target_partitions = target.partitions(&pair.target)?;
        for partition in 0..source_partitions.max(target_partitions) {
            let place = (pair.source.clone(), partition);
            // The target first: what the link brings meanwhile would have no partner among what was read before.
            let mut arrived = Vec::new();
            if partition < target_partitions {
                target.read(&pair.target, partition, &mut |seen| arrived.push(Print::of(&seen)))?;
            }
            let mut visible = Vec::new();
            if partition < source_partitions {
                let from = self.source_from.get(&place).copied().unwrap_or(0);
                source.read(&pair.source, partition, &mut |seen| {
                    if seen.offset >= from {
                        visible.push(Print::of(&seen));
                        comparison.count_source(&seen);
                    }
                })?;
            }
            for (end, trail) in self.trails() {
                comparison.silent_gaps(partition, &visible, end, trail);
            }
            let mut ordered = comparison.partition(partition, visible);
            arrived.into_iter().for_each(|print| ordered.target(print));
            let allowance = Allowance {
                gaps: self.trails().flat_map(|(_, trail)| trail.gaps(&place)).collect(),
                committed: self.committed.get(&place).copied(),
                in_flight: self.in_flight,
            };
            let outcome = ordered.finish();
            comparison.take(outcome, allowance);
        }
        Ok(comparison.finish())
    }
}

#[cfg(test)]
mod tests;
