//! What a check found.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

/// Examples kept of each anomaly; beyond that it is only counted.
const MAX_EXAMPLES: u64 = 20;

/// A way in which a copy can be wrong; see the table in [`super`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "the table in the module's documentation says what each is")]
pub enum Anomaly {
    Lost,
    Repeated,
    Reordered,
    Changed,
    Foreign,
    SilentGap,
    OverCommit,
    Ungranted,
    Digest,
}

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Lost => "lost",
            Self::Repeated => "repeated",
            Self::Reordered => "reordered",
            Self::Changed => "changed",
            Self::Foreign => "foreign",
            Self::SilentGap => "silent-gap",
            Self::OverCommit => "over-commit",
            Self::Ungranted => "ungranted",
            Self::Digest => "digest",
        })
    }
}

/// One anomaly with its coordinates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What is wrong.
    pub anomaly: Anomaly,
    /// The topic: of the target for `foreign` and `ungranted`, else of the source.
    pub topic: String,
    /// The partition, where it concerns one.
    pub partition: Option<i32>,
    /// The offset in that topic, where it concerns one.
    pub offset: Option<i64>,
    /// The rest of it in words.
    pub detail: String,
}

impl Finding {
    pub(super) fn at(anomaly: Anomaly, topic: &str, partition: i32, offset: i64, detail: String) -> Self {
        Self { anomaly, topic: topic.to_owned(), partition: Some(partition), offset: Some(offset), detail }
    }

    pub(super) fn of_target(
        anomaly: Anomaly,
        topic: &str,
        partition: i32,
        offset: i64,
        detail: String,
    ) -> Self {
        Self::at(anomaly, topic, partition, offset, detail)
    }

    pub(super) fn of_topic(anomaly: Anomaly, topic: &str, detail: String) -> Self {
        Self { anomaly, topic: topic.to_owned(), partition: None, offset: None, detail }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.anomaly, self.topic)?;
        if let Some(partition) = self.partition {
            write!(f, " [{partition}]")?;
        }
        if let Some(offset) = self.offset {
            write!(f, " @ {offset}")?;
        }
        write!(f, ": {}", self.detail)
    }
}

/// What was found in one pair of topics.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct TopicReport {
    /// Name at the source.
    pub source: String,
    /// Name at the target.
    pub target: String,
    /// Records that a read_committed reader of the source sees.
    pub records: u64,
    /// Records that a read_committed reader of the target sees.
    pub target_records: u64,
    /// Bytes of their keys, values and headers at the source.
    pub bytes: u64,
    /// Records that are not at the target and lie in a named gap.
    pub in_named_gaps: u64,
    /// Records that may still arrive (only while the link is at work).
    pub pending: u64,
    /// Records whose timestamp 0 librdkafka wrote over.
    pub rewritten_timestamps: u64,
    /// How often each anomaly was seen.
    pub anomalies: BTreeMap<Anomaly, u64>,
    /// The first of each, with coordinates.
    pub examples: Vec<Finding>,
}

impl TopicReport {
    /// How often this anomaly was seen.
    pub fn count(&self, anomaly: Anomaly) -> u64 {
        self.anomalies.get(&anomaly).copied().unwrap_or(0)
    }

    pub(super) fn add(&mut self, finding: Finding) {
        let count = self.anomalies.entry(finding.anomaly).or_default();
        *count += 1;
        if *count <= MAX_EXAMPLES {
            self.examples.push(finding);
        }
    }
}

/// What a check found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// One for each pair of topics, in the order asked for.
    pub topics: Vec<TopicReport>,
    /// What concerns no single pair: topics that should not be, disagreements of the audit logs.
    pub findings: Vec<Finding>,
}

impl Report {
    /// True when nothing at all is wrong.
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty() && self.topics.iter().all(|topic| topic.anomalies.is_empty())
    }

    /// How often this anomaly was seen, over everything.
    pub fn count(&self, anomaly: Anomaly) -> u64 {
        let others = self.findings.iter().filter(|finding| finding.anomaly == anomaly).count();
        let others = u64::try_from(others).expect("usize has 64 bits or less");
        self.topics.iter().map(|topic| topic.count(anomaly)).sum::<u64>() + others
    }

    /// Records that a read_committed reader of the source sees, over all topics.
    pub fn records(&self) -> u64 {
        self.topics.iter().map(|topic| topic.records).sum()
    }

    /// Bytes of their keys, values and headers.
    pub fn bytes(&self) -> u64 {
        self.topics.iter().map(|topic| topic.bytes).sum()
    }

    /// All examples, those of topics first.
    pub fn examples(&self) -> impl Iterator<Item = &Finding> {
        self.topics.iter().flat_map(|topic| &topic.examples).chain(&self.findings)
    }

    pub(super) fn add(&mut self, finding: Finding) {
        self.findings.push(finding);
    }
}

/// A line for each topic, then each example: made for the message of a failed assertion.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for topic in &self.topics {
            let TopicReport { source, target, records, target_records, .. } = topic;
            write!(f, "{source} -> {target}: {records} records, {target_records} at the target")?;
            for (what, count) in [
                ("in named gaps", topic.in_named_gaps),
                ("pending", topic.pending),
                ("with a rewritten timestamp", topic.rewritten_timestamps),
            ] {
                if count > 0 {
                    write!(f, ", {count} {what}")?;
                }
            }
            for (anomaly, count) in &topic.anomalies {
                write!(f, ", {count} {anomaly}")?;
            }
            writeln!(f)?;
        }
        for finding in self.examples() {
            writeln!(f, "  {finding}")?;
        }
        Ok(())
    }
}
