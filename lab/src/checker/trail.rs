//! What an audit log says about which source offsets were delivered, and which never will be.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::str::FromStr as _;

use codec::Digest;
use serde::Deserialize;

use super::report::{Anomaly, Finding};
use super::{Error, Place};

/// Which end wrote a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The exporter.
    Edge,
    /// The importer.
    Cloud,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Edge => "edge",
            Self::Cloud => "cloud",
        })
    }
}

/// Offsets from `first` to below `next`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Range {
    /// First offset in it.
    pub first: i64,
    /// First offset after it.
    pub next: i64,
}

impl Range {
    /// True for an offset in it.
    pub fn contains(&self, offset: i64) -> bool {
        (self.first..self.next).contains(&offset)
    }
}

/// One audit log, as far as the checker needs it.
#[derive(Debug, Clone, Default)]
pub struct Trail {
    partitions: BTreeMap<Place, PartitionTrail>,
}

/// Of one source partition; of the last topic of that name, when it was made anew.
#[derive(Debug, Clone, Default)]
struct PartitionTrail {
    topic_id: String,
    start: Option<i64>,
    /// Positions that the importer said to go on from.
    resumed: BTreeSet<i64>,
    delivered: Vec<Delivered>,
    gaps: Vec<(Range, String)>,
}

#[derive(Debug, Clone, PartialEq)]
struct Delivered {
    range: Range,
    records: u64,
    digest: Option<Digest>,
}

/// What one line of a log says of a range: so many of its records were delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// The source offsets that the line covers.
    pub range: Range,
    /// The records delivered of them.
    pub records: u64,
}

/// The fields of the lines that matter here; a line of another event has none of them.
#[derive(Debug, Deserialize)]
struct Line {
    event: String,
    topic: Option<String>,
    topic_id: Option<String>,
    partition: Option<i32>,
    start: Option<serde_json::Value>,
    committed: Option<i64>,
    from: Option<i64>,
    first: Option<i64>,
    next: Option<i64>,
    records: Option<u64>,
    reason: Option<String>,
    digest: Option<String>,
}

impl Trail {
    /// Reads a log; a last line without an end was being written and is left out.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| Error::AuditFile { path: path.to_owned(), source })?;
        Self::parse(&text).map_err(|(line, source)| Error::AuditLine { path: path.to_owned(), line, source })
    }

    /// Reads the lines of a log.
    fn parse(text: &str) -> Result<Self, (usize, serde_json::Error)> {
        let mut trail = Self::default();
        for (index, line) in text.split_inclusive('\n').enumerate() {
            if let Some(line) = line.strip_suffix('\n') {
                trail.add(serde_json::from_str(line).map_err(|error| (index + 1, error))?);
            }
        }
        Ok(trail)
    }

    fn add(&mut self, line: Line) {
        let (Some(topic), Some(partition), Some(topic_id)) = (line.topic, line.partition, line.topic_id)
        else {
            return;
        };
        let trail = self.partitions.entry((topic, partition)).or_default();
        if trail.topic_id != topic_id {
            *trail = PartitionTrail { topic_id, ..Default::default() };
        }
        match (line.event.as_str(), line.from.or(line.first), line.next) {
            ("new", _, _) => trail.start = line.start.and_then(|start| start.as_i64()),
            ("resume", _, _) => trail.resumed.extend(line.committed),
            ("gap", Some(first), Some(next)) => {
                trail.gaps.push((Range { first, next }, line.reason.unwrap_or_default()));
            }
            ("delivered", Some(first), Some(next)) => {
                let line = Delivered {
                    range: Range { first, next },
                    records: line.records.unwrap_or(0),
                    digest: line.digest.and_then(|digest| Digest::from_str(&digest).ok()),
                };
                // An importer that dies between a line and noting it in progress writes the very same line again.
                if !trail.delivered.contains(&line) {
                    trail.delivered.push(line);
                }
            }
            _ => {}
        }
    }

    /// Ranges that the log passes over without a word: nothing visible may lie in them.
    pub fn holes(&self, place: &Place) -> Vec<Range> {
        let Some(trail) = self.partitions.get(place) else { return Vec::new() };
        // A gap called `not_visible` is a claim that the reader of the source checks like a hole.
        let named = trail.gaps.iter().filter(|(_, reason)| reason != NOT_VISIBLE).map(|(range, _)| *range);
        let delivered = trail.delivered.iter().map(|it| it.range);
        let mut covered: Vec<Range> = delivered.chain(named).collect();
        covered.sort_unstable();
        let end = trail.delivered.iter().map(|it| it.range).chain(trail.gaps.iter().map(|(range, _)| *range));
        let end = end.map(|range| range.next).max();
        let mut at = trail.start.or_else(|| covered.first().map(|range| range.first));
        let mut holes = Vec::new();
        for range in covered.into_iter().chain(end.map(|end| Range { first: end, next: end })) {
            let from = at.unwrap_or(range.first);
            if range.first > from {
                holes.push(Range { first: from, next: range.first });
            }
            at = Some(from.max(range.next));
        }
        holes
    }

    /// [`Trail::holes`] of the log of `end`, but for those that the importer closed: an exporter that dies before it hears
    /// what was committed cannot say so itself, and its successor is told to go on behind it. The importer's log has it.
    pub(super) fn unexplained_holes(&self, end: End, place: &Place) -> Vec<Range> {
        let resumed = |hole: &Range| {
            end == End::Edge && self.partitions.get(place).is_some_and(|it| it.resumed.contains(&hole.next))
        };
        self.holes(place).into_iter().filter(|hole| !resumed(hole)).collect()
    }

    /// What each line says was delivered: no more than that may be visible in its range, but for named gaps.
    pub fn claims(&self, place: &Place) -> Vec<Claim> {
        let delivered = self.partitions.get(place).into_iter().flat_map(|trail| &trail.delivered);
        delivered.map(|it| Claim { range: it.range, records: it.records }).collect()
    }

    /// Ranges that the log names as never to be delivered although they may hold visible records.
    pub fn gaps(&self, place: &Place) -> Vec<Range> {
        let gaps = self.partitions.get(place).into_iter().flat_map(|trail| &trail.gaps);
        gaps.filter(|(_, reason)| reason != NOT_VISIBLE).map(|(range, _)| *range).collect()
    }

    /// One past the highest source offset that the log says was delivered.
    pub fn delivered_to(&self, place: &Place) -> Option<i64> {
        self.partitions.get(place)?.delivered.iter().map(|it| it.range.next).max()
    }

    /// Records that the log says were delivered twice.
    pub(super) fn overlaps(&self, end: End) -> Vec<Finding> {
        let mut findings = Vec::new();
        for ((topic, partition), trail) in &self.partitions {
            let mut ranges: Vec<Range> = trail.delivered.iter().map(|it| it.range).collect();
            ranges.sort_unstable();
            for pair in ranges.windows(2) {
                if pair[1].first < pair[0].next {
                    let next = pair[0].next.min(pair[1].next);
                    let detail =
                        format!("the {end} audit log has {}..{next} delivered more than once", pair[1].first);
                    findings.push(Finding::at(Anomaly::Repeated, topic, *partition, pair[1].first, detail));
                }
            }
        }
        findings
    }

    /// Sums up digests at both ends; between any two boundaries that both have they must agree.
    pub(super) fn digests_against(&self, cloud: &Self) -> Vec<Finding> {
        let mut findings = Vec::new();
        for (place @ (topic, partition), edge_trail) in &self.partitions {
            let Some(cloud_trail) = cloud.partitions.get(place) else { continue };
            if edge_trail.topic_id != cloud_trail.topic_id {
                continue;
            }
            let cloud_runs = cloud_trail.runs();
            for (Range { first, next }, edge) in edge_trail.runs() {
                let found = |at, detail| Finding::at(Anomaly::Digest, topic, *partition, at, detail);
                let Some((_, cloud)) = cloud_runs.iter().find(|(it, _)| it.first <= first && first < it.next)
                else {
                    let detail =
                        format!("the edge audit log has {first}..{next}, where the cloud's has nothing");
                    findings.push(found(first, detail));
                    continue;
                };
                if let Some(Range { first, next }) = disagreement(&edge, cloud) {
                    let detail =
                        format!("what the audit logs say of {first}..{next} differs between edge and cloud");
                    findings.push(found(next, detail));
                }
            }
        }
        findings
    }
}

const NOT_VISIBLE: &str = "not_visible";

/// The sum of all digests of a run of lines up to each boundary; nothing at its beginning.
type Sums = BTreeMap<i64, Digest>;

/// The first range between boundaries of both on which two runs of lines differ.
fn disagreement(edge: &Sums, cloud: &Sums) -> Option<Range> {
    let mut base: Option<(i64, &Digest, &Digest)> = None;
    for (&at, edge_sum) in edge {
        let Some(cloud_sum) = cloud.get(&at) else { continue };
        if let Some((first, edge_base, cloud_base)) = base {
            // edge - edge_base = cloud - cloud_base, without subtracting.
            let (mut one, mut other) = (*edge_sum, *cloud_sum);
            one.add(cloud_base);
            other.add(edge_base);
            if one != other {
                return Some(Range { first, next: at });
            }
        } else {
            base = Some((at, edge_sum, cloud_sum));
        }
    }
    None
}

impl PartitionTrail {
    /// Lines that follow each other without a hole: what they cover, and their sums.
    fn runs(&self) -> Vec<(Range, Sums)> {
        let mut delivered: Vec<&Delivered> = self.delivered.iter().collect();
        delivered.sort_by_key(|it| it.range);
        let mut runs: Vec<(Range, Sums)> = Vec::new();
        let mut sum = Digest::ZERO;
        for it in delivered {
            // A line without a digest ends what can be summed up.
            let Some(digest) = &it.digest else { continue };
            if runs.last().is_none_or(|(run, _)| run.next != it.range.first) {
                sum = Digest::ZERO;
                runs.push((it.range, BTreeMap::from([(it.range.first, sum)])));
            }
            sum.add(digest);
            if let Some((run, sums)) = runs.last_mut() {
                run.next = it.range.next;
                sums.insert(it.range.next, sum);
            }
        }
        runs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> Place {
        ("orders".to_owned(), 0)
    }

    fn delivered(from: i64, next: i64, digest: u8) -> String {
        let mut bytes = [0; 32];
        bytes[0] = digest;
        format!(
            "{{\"seq\":1,\"event\":\"delivered\",\"topic\":\"orders\",\"topic_id\":\"A\",\"partition\":0,\
             \"from\":{from},\"next\":{next},\"records\":3,\"digest\":\"{}\"}}\n",
            Digest(bytes)
        )
    }

    fn gap(first: i64, next: i64, reason: &str) -> String {
        format!(
            "{{\"event\":\"gap\",\"topic\":\"orders\",\"topic_id\":\"A\",\"partition\":0,\
             \"first\":{first},\"next\":{next},\"reason\":\"{reason}\"}}\n"
        )
    }

    #[test]
    fn holes_are_what_no_line_covers() {
        let new = "{\"event\":\"new\",\"topic\":\"orders\",\"topic_id\":\"A\",\"partition\":0,\"start\":2}\n";
        let text = [
            new.to_owned(),
            delivered(5, 12, 1),
            gap(12, 20, "expired"),
            gap(20, 22, "not_visible"),
            delivered(22, 30, 1),
        ];
        let trail = Trail::parse(&text.concat()).unwrap();
        let expected = [(2, 5), (20, 22)].map(|(first, next)| Range { first, next });
        assert_eq!(trail.holes(&place()), expected);
        assert_eq!(trail.gaps(&place()), [Range { first: 12, next: 20 }]);
        assert_eq!(trail.delivered_to(&place()), Some(30));
        let range = Range { first: 5, next: 12 };
        assert_eq!(trail.claims(&place())[0], Claim { range, records: 3 });
    }

    #[test]
    fn a_range_delivered_twice_is_named() {
        let trail = Trail::parse(&(delivered(0, 10, 1) + &delivered(8, 13, 1))).unwrap();
        let overlaps = trail.overlaps(End::Cloud);
        assert_eq!(overlaps.len(), 1);
        assert!(overlaps[0].to_string().contains("repeated: orders [0] @ 8"), "{}", overlaps[0]);
        let trail = Trail::parse(&(delivered(0, 10, 1) + &delivered(10, 13, 1))).unwrap();
        assert!(trail.overlaps(End::Cloud).is_empty());
    }

    #[test]
    fn digests_agree_when_only_the_cuts_differ() {
        let edge = Trail::parse(&(delivered(0, 5, 10) + &delivered(5, 10, 5))).unwrap();
        let cloud = Trail::parse(&(delivered(0, 3, 7) + &delivered(3, 10, 8))).unwrap();
        assert!(edge.digests_against(&cloud).is_empty());
        let other = Trail::parse(&(delivered(0, 3, 7) + &delivered(3, 10, 9))).unwrap();
        let findings = edge.digests_against(&other);
        assert!(findings[0].to_string().contains("0..10 differs"), "{findings:?}");
    }

    #[test]
    fn an_exporter_that_died_before_it_heard_of_a_commit_leaves_a_hole_that_the_importer_closes() {
        let resume = "{\"event\":\"resume\",\"topic\":\"orders\",\"topic_id\":\"A\",\"partition\":0,\"committed\":10}\n";
        let edge = delivered(0, 5, 7) + resume + &delivered(10, 15, 2) + &delivered(17, 20, 1);
        let edge = Trail::parse(&edge).unwrap();
        let silent = vec![Range { first: 15, next: 17 }];
        assert_eq!(edge.unexplained_holes(End::Edge, &place()), silent);
        assert_eq!(edge.unexplained_holes(End::Cloud, &place()).len(), 2);
        let cloud = |third| {
            delivered(0, 5, 7) + &delivered(5, 10, 9) + &delivered(10, 15, third) + &delivered(15, 30, 9)
        };
        assert!(edge.digests_against(&Trail::parse(&cloud(2)).unwrap()).is_empty());
        let findings = edge.digests_against(&Trail::parse(&cloud(3)).unwrap());
        assert!(findings[0].to_string().contains("10..15 differs"), "{findings:?}");
    }

    #[test]
    fn a_line_that_was_being_written_is_left_out_and_a_broken_one_is_not() {
        let torn = delivered(0, 10, 1) + "{\"event\":\"deliv";
        assert_eq!(Trail::parse(&torn).unwrap().delivered_to(&place()), Some(10));
        assert_eq!(Trail::parse("{}\n").unwrap_err().0, 1);
    }

    #[test]
    fn a_topic_made_anew_begins_a_new_trail() {
        let text = delivered(0, 10, 1) + &delivered(0, 4, 1).replace("\"A\"", "\"B\"");
        let trail = Trail::parse(&text).unwrap();
        assert_eq!(trail.delivered_to(&place()), Some(4));
        assert!(trail.overlaps(End::Edge).is_empty());
    }
}
