//! Whether a position can be read from, and what it means when not.

use std::{ops::Range, sync::Arc};

use proto::hold::Reason;

use crate::{config::Skip, partition::Partition};

/// The ends of a source partition, as its leader stated them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ends {
    /// First offset the source still has.
    pub(crate) log_start: i64,
    /// Last stable offset.
    pub(crate) stable: i64,
}

/// What to do with a position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Read from there.
    Read,
    /// An operator gave the offsets up to the log's start for lost: send that gap, then read from `log_start`.
    Expired {
        /// The operator's words.
        why: Arc<str>,
        /// Where reading begins.
        log_start: i64,
    },
    /// Hold the partition.
    Hold(Reason, String),
}

/// Decides about the position `next`.
pub(crate) fn decide(partition: &Partition, next: i64, ends: Ends) -> Decision {
    if next < ends.log_start {
        return match partition.skips.covering(next, ends.log_start) {
            Some(why) => Decision::Expired { why, log_start: ends.log_start },
            None => Decision::Hold(Reason::SourceTruncated, truncated(partition, next, ends.log_start)),
        };
    }
    if next > ends.stable {
        return Decision::Hold(Reason::SourceDiverged, diverged(partition, next, ends.stable));
    }
    Decision::Read
}

fn truncated(partition: &Partition, next: i64, log_start: i64) -> String {
    format!(
        "retention or DeleteRecords removed offsets {next} to {} of {partition} before they were carried: {} offsets \
         are lost at the source; the partition waits and all others go on; to accept the loss and go on at {log_start}, \
         add to edge-exporter.toml and restart:\n{}",
        log_start - 1,
        log_start - next,
        skip_lines(partition, next, log_start, "lost to retention")
    )
}

fn diverged(partition: &Partition, next: i64, stable: i64) -> String {
    format!(
        "{partition} ends at offset {stable}, but everything below {next} is at the target already: the source's log was \
         cut back (an unclean leader election, or a restored backup) and other records now take those offsets; the \
         partition waits and all others go on; compare both clusters, then either restore the source or copy \
         the topic again over a link of another name"
    )
}

/// The `[[skip]]` entry that covers a range, ready to be pasted.
pub(crate) fn skip_lines(partition: &Partition, from: i64, to: i64, reason: &str) -> String {
    format!(
        "[[skip]]\ntopic = \"{}\"\ntopic_id = \"{}\"\npartition = {}\nfrom = {from}\nto = {to}\nreason = \"{reason}\"",
        partition.topic.name, partition.topic.id, partition.number
    )
}

/// The ranges of one source partition that an operator gave up, with the operator's words.
#[derive(Debug, Clone, Default)]
pub(crate) struct Skips(Vec<(Range<i64>, Arc<str>)>);

impl Skips {
    /// The ranges among `skips` that are about a partition, in order.
    pub(crate) fn new<'a>(skips: impl IntoIterator<Item = &'a Skip>) -> Self {
        let mut ranges: Vec<_> =
            skips.into_iter().map(|skip| (skip.from..skip.to, Arc::from(skip.reason.as_str()))).collect();
        ranges.sort_by_key(|(range, _)| range.start);
        Self(ranges)
    }

    /// The operator's words for all of `from..to`, if every offset of it is given up.
    pub(crate) fn covering(&self, from: i64, to: i64) -> Option<Arc<str>> {
        let mut reached = from;
        let mut words: Option<Arc<str>> = None;
        for (range, why) in &self.0 {
            if range.contains(&reached) {
                reached = range.end;
                words.get_or_insert_with(|| Arc::clone(why));
            }
        }
        words.filter(|_| reached >= to)
    }

    /// The range that `offset` is in, and the operator's words.
    pub(crate) fn at(&self, offset: i64) -> Option<(&Range<i64>, &Arc<str>)> {
        // Nearly every partition has none, and no other has more than a few.
        self.0.iter().find(|(range, _)| range.contains(&offset)).map(|(range, why)| (range, why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::partition::tests::skipping;

    fn skip(from: i64, to: i64) -> Skip {
        Skip { topic: "orders".into(), topic_id: None, partition: 0, from, to, reason: format!("r{from}") }
    }

    fn with(skips: &[Skip]) -> Partition {
        skipping(1, "orders", Skips::new(skips))
    }

    const ENDS: Ends = Ends { log_start: 100, stable: 200 };

    #[test]
    fn a_position_within_the_log_is_read_from() {
        for next in [100, 150, 200] {
            assert_eq!(decide(&with(&[]), next, ENDS), Decision::Read);
        }
    }

    #[test]
    fn a_position_before_the_log_holds_and_says_what_to_write() {
        let Decision::Hold(reason, detail) = decide(&with(&[]), 40, ENDS) else { panic!() };
        assert_eq!(reason, Reason::SourceTruncated);
        for words in ["offsets 40 to 99", "60 offsets", "[[skip]]", "from = 40", "to = 100", "orders"] {
            assert!(detail.contains(words), "{words:?} in {detail}");
        }
        let pasted: crate::config::Skip =
            settings::parse("x", detail.split_once("[[skip]]\n").unwrap().1).unwrap();
        assert_eq!((pasted.from, pasted.to), (40, 100));
    }

    #[test]
    fn an_operators_word_lifts_it_only_when_it_covers_everything() {
        let expired = |skips: &[Skip]| {
            matches!(decide(&with(skips), 40, ENDS), Decision::Expired { log_start: 100, .. })
        };
        assert!(expired(&[skip(40, 100)]));
        assert!(expired(&[skip(0, 1000)]));
        assert!(expired(&[skip(60, 100), skip(30, 60)]));
        assert!(!expired(&[skip(40, 99)]));
        assert!(!expired(&[skip(41, 100)]));
        assert!(!expired(&[skip(40, 60), skip(61, 100)]), "60 is not given up");
    }

    #[test]
    fn a_position_beyond_the_end_is_divergence_whatever_is_skipped() {
        assert!(matches!(
            decide(&with(&[skip(0, 1000)]), 201, ENDS),
            Decision::Hold(Reason::SourceDiverged, detail) if detail.contains("ends at offset 200")
        ));
    }

    #[test]
    fn a_single_poison_offset_is_found() {
        let skips = Skips::new(&[skip(7, 8)]);
        assert!(skips.at(6).is_none() && skips.at(8).is_none());
        assert_eq!(skips.at(7).map(|(range, why)| (range.clone(), &**why)), Some((7..8, "r7")));
    }
}
