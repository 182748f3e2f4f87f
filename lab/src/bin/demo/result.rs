//! What a journey came to.

use std::path::PathBuf;
use std::time::Duration;

use longhaul_lab::checker::{Anomaly, Report, TopicReport};
use longhaul_lab::tail::Delays;

use crate::Kind;

/// What a journey came to: measured, read back and compared.
pub(crate) struct Outcome {
    pub(crate) kafka: Kind,
    /// One for each topic, in the order of the checker's report.
    pub(crate) topics: Vec<Carried>,
    pub(crate) report: Report,
    /// From the first record produced until the last was at the target.
    pub(crate) took: Duration,
    /// Every UDP packet that passed the link, both ways, with 28 bytes of IP and UDP header each.
    pub(crate) wire_bytes: u64,
    /// Whether the link was cut and the importer killed.
    pub(crate) faults: bool,
    /// Partitions that were held in the end, and why.
    pub(crate) held: Vec<String>,
    pub(crate) audit: [PathBuf; 2],
    /// Lines in both audit logs, whose chains were found whole.
    pub(crate) audit_lines: u64,
    pub(crate) folder: PathBuf,
}

/// How a topic was carried.
pub(crate) struct Carried {
    /// Records acknowledged by the source.
    pub(crate) produced: u64,
    /// Its share of [`Outcome::wire_bytes`].
    pub(crate) wire_bytes: u64,
    pub(crate) delays: Delays,
}

impl Outcome {
    /// Whether every record arrived exactly once, unchanged and in order, and nothing else did.
    pub(crate) fn is_exact(&self) -> bool {
        let complete = |(topic, carried): (&TopicReport, &Carried)| {
            topic.records == carried.produced && topic.target_records == topic.records
        };
        self.report.is_clean()
            && self.report.topics.len() == self.topics.len()
            && self.report.topics.iter().zip(&self.topics).all(complete)
    }

    /// How many records were found so, over all topics.
    pub(crate) fn count(&self, anomaly: Anomaly) -> u64 {
        match anomaly {
            Anomaly::Lost => self.report.topics.iter().map(lost).sum(),
            other => self.report.count(other),
        }
    }

    /// Topics with how they were carried.
    pub(crate) fn per_topic(&self) -> impl Iterator<Item = (&TopicReport, &Carried)> {
        self.report.topics.iter().zip(&self.topics)
    }
}

/// Records that did not arrive: here nothing may lie in a gap, named or not.
pub(crate) fn lost(topic: &TopicReport) -> u64 {
    topic.count(Anomaly::Lost) + topic.in_named_gaps
}
