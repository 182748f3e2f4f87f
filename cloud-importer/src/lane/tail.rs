//! Whether the target is as progress says: the last record that was committed is there, and nothing after it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use proto::{
    hold::Reason,
    ids::SourcePartition,
    progress::{Entry, Target},
};

use super::{Stopped, Worker};
use crate::target::{self, At, Obstacle, Tail, TargetTopic, Want};

impl Worker {
    /// After a take-over: the targets of what is pending are still as progress says. Partitions that are not are held.
    /// False when that could not be found out yet.
    pub(super) fn inspect_pending(&mut self) -> Result<bool, Stopped> {
        let mut pending: BTreeMap<SourcePartition, (Arc<str>, Arc<str>)> = BTreeMap::new();
        for part in self.pending.parcels().iter().flat_map(|accepted| &accepted.parts) {
            let names = || (part.permit.target().clone(), part.permit.topic().clone());
            pending.entry(part.partition.clone()).or_insert_with(names);
        }
        let Some(owned) = &self.owned else { return Ok(false) };
        let targets: BTreeSet<&Arc<str>> = pending.values().map(|(target, _)| target).collect();
        let want = |topic: &&Arc<str>| Want { topic: (*topic).clone(), partitions: 0, create: None };
        let prepared = target::prepare(&self.context.admin, &targets.iter().map(want).collect::<Vec<_>>());
        // One topic that is not there would spoil the answer about all others.
        let asked: Vec<(&SourcePartition, At)> = pending
            .iter()
            .filter(|(partition, (topic, _))| {
                let target = prepared.get(topic).and_then(|prepared| prepared.as_ref().ok());
                target.is_some_and(|target| !target.leaderless.contains(&partition.partition))
            })
            .map(|(partition, (topic, _))| {
                let entry = owned.table.entries.get(partition);
                let position = entry.and_then(|entry| entry.target.last).unwrap_or(0);
                (partition, At { topic: topic.clone(), partition: partition.partition, position })
            })
            .collect();
        let wanted: Vec<At> = asked.iter().map(|(_, at)| at.clone()).collect();
        let mut passing = None;
        let tails = match target::tails(&self.context.admin, &self.context.kafka, &wanted) {
            Ok(tails) => tails,
            Err(Obstacle::Passing(why) | Obstacle::Hold(_, why)) => {
                passing = Some(why);
                Vec::new()
            }
        };
        let mut tails: BTreeMap<&SourcePartition, Result<Tail, Obstacle>> =
            asked.iter().map(|(partition, _)| *partition).zip(tails).collect();
        let (shared, progress) = (self.context.link.map.shared, self.context.link.progress_topic());
        let mut holds = Vec::new();
        for (partition, (topic, source)) in &pending {
            let found = match (prepared.get(topic), tails.remove(partition)) {
                (Some(Ok(prepared)), Some(Ok(tail))) => Ok((prepared, tail)),
                (Some(Err(obstacle)), _) => Err(obstacle.clone()),
                (_, Some(Err(obstacle))) => Err(obstacle),
                _ => Err(Obstacle::Passing(format!("`{topic}` was not described, or has no leader"))),
            };
            let verdict = match (found, owned.table.entries.get(partition)) {
                (Ok((prepared, tail)), Some(entry)) => {
                    inspect(entry, topic, prepared, tail, shared, &progress)
                }
                (Ok(_), None) => Ok(()),
                (Err(Obstacle::Hold(reason, detail)), _) => Err((reason, detail)),
                (Err(Obstacle::Passing(why)), _) => {
                    passing.get_or_insert(why);
                    Ok(())
                }
            };
            if let Err((reason, detail)) = verdict {
                holds.push((partition.clone(), source.clone(), reason, detail));
            }
        }
        for (partition, source, reason, detail) in holds {
            self.hold_and_drop_topic(&partition, &source, reason, &detail);
        }
        let Some(why) = passing else { return Ok(true) };
        self.recycle(&format!("the target could not be inspected: {why}"));
        self.pause(Duration::from_millis(200))?;
        Ok(false)
    }
}

/// Whether the target partition is as progress says: the same topic, the last record there, nothing after it.
pub(super) fn inspect(
    entry: &Entry,
    topic: &Arc<str>,
    prepared: &TargetTopic,
    tail: Tail,
    shared: bool,
    progress_topic: &str,
) -> Result<(), (Reason, String)> {
    let Target { topic: recorded, id, last, lasting } = &entry.target;
    if recorded != topic {
        let detail = format!(
            "this partition was copied to target topic `{recorded}` up to source offset {}, and the mapping now says `{topic}`: \
             go back to the old name, or start a new link to copy it again",
            entry.next
        );
        return Err((Reason::MappingChanged, detail));
    }
    if *id != prepared.id {
        let detail = format!(
            "target topic `{topic}` was deleted and made again (its id was {id}, it is {}): what was copied up to source \
             offset {} is gone; restore the topic, or start a new link to copy it again",
            prepared.id, entry.next
        );
        return Err((Reason::TargetRecreated, detail));
    }
    let Some(last) = *last else {
        // Nothing was written yet.
        return match tail.first {
            Some(offset) if !shared => Err(foreign(topic, offset)),
            _ => Ok(()),
        };
    };
    if tail.high <= last {
        let detail = format!(
            "target topic `{topic}` ends at offset {}, but a record was committed at offset {last}: the target lost \
             records that it had acknowledged (unclean leader election, or a restored backup); `{progress_topic}` names \
             what was there; recover the topic, or start a new link to copy it again",
            tail.high
        );
        return Err((Reason::TargetTruncated, detail));
    }
    if last < tail.low {
        // Retention took it; whatever is left must have come after it.
        return match tail.first {
            Some(offset) if !shared => Err(foreign(topic, offset)),
            _ => Ok(()),
        };
    }
    match (tail.first, tail.second) {
        (Some(first), second) if first == last => match second {
            Some(offset) if !shared => Err(foreign(topic, offset)),
            _ => Ok(()),
        },
        // In a shared compacted topic others' records may have replaced it.
        _ if shared => Ok(()),
        // Compaction keeps the last record of a key for ever, but for one without a value, which goes after
        // delete.retention.ms, and one without a key, of before the topic was compacted. The log still ends beyond it and
        // nobody wrote after it, so nothing else is missing.
        (None, _) if prepared.compacted && !lasting => Ok(()),
        (Some(first), _) if prepared.compacted && first > last => Err(foreign(topic, first)),
        _ => {
            let detail = format!(
                "the record that was committed at offset {last} of target topic `{topic}` cannot be read there: it was \
                 deleted, compacted away, or its transaction was undone; compare source and target before going on; if \
                 others may change the topic, write shared = true in the link's map"
            );
            Err((Reason::TargetTruncated, detail))
        }
    }
}

/// A target topic that was exchanged while it was written to: what was committed there is gone.
pub(super) fn went_back(topic: &str, last: i64, first: i64) -> (Reason, String) {
    let detail = format!(
        "target topic `{topic}` was deleted and made again, or cut back, while it was written to: the last record lay at \
         offset {last}, the next one would lie at {first}; nothing more is written to it; restore it from a backup, or \
         copy the topic again from its start under another link name or target name"
    );
    (Reason::TargetRecreated, detail)
}

fn foreign(topic: &str, offset: i64) -> (Reason, String) {
    let detail = format!(
        "someone else wrote to target topic `{topic}`: its record at offset {offset} is none of this link's; take away their \
         right to write, or, if they may, write shared = true in the link's map, which switches this check off"
    );
    (Reason::ForeignWriter, detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::{
        ids::{Offset, TopicId},
        progress::Tally,
    };

    fn check(last: Option<i64>, tail: Tail, shared: bool) -> Result<(), Reason> {
        check_of(last, tail, shared, None)
    }

    /// `compacted`: it is, and whether the last record is a lasting one.
    fn check_of(last: Option<i64>, tail: Tail, shared: bool, compacted: Option<bool>) -> Result<(), Reason> {
        let topic: Arc<str> = "orders".into();
        let entry = Entry {
            topic: topic.clone(),
            next: Offset(10),
            leader_epoch: None,
            target: Target {
                topic: topic.clone(),
                id: TopicId([1; 16]),
                last,
                lasting: compacted.unwrap_or(true),
            },
            unaudited: Tally::starting(Offset(0)),
        };
        let prepared = TargetTopic {
            id: TopicId([1; 16]),
            max_message_bytes: 1000,
            compacted: compacted.is_some(),
            grown: false,
            leaderless: BTreeSet::new(),
        };
        inspect(&entry, &topic, &prepared, tail, shared, "p").map_err(|(reason, _)| reason)
    }

    fn tail(low: i64, high: i64, first: Option<i64>, second: Option<i64>) -> Tail {
        Tail { low, high, first, second }
    }

    #[test]
    fn the_last_record_must_be_there_and_nothing_after_it() {
        assert_eq!(check(Some(41), tail(0, 43, Some(41), None), false), Ok(()));
        assert_eq!(check(Some(41), tail(0, 50, Some(41), Some(44)), false), Err(Reason::ForeignWriter));
        assert_eq!(check(Some(41), tail(0, 43, None, None), false), Err(Reason::TargetTruncated), "undone");
        assert_eq!(
            check(Some(41), tail(0, 50, Some(44), None), false),
            Err(Reason::TargetTruncated),
            "undone, and more"
        );
        assert_eq!(check(Some(41), tail(0, 41, None, None), false), Err(Reason::TargetTruncated), "cut");
        assert_eq!(check(Some(41), tail(43, 43, None, None), false), Ok(()), "retention");
        assert_eq!(check(Some(41), tail(43, 50, Some(44), None), false), Err(Reason::ForeignWriter));
        assert_eq!(check(None, tail(0, 0, None, None), false), Ok(()));
        assert_eq!(check(None, tail(0, 2, Some(0), None), false), Err(Reason::ForeignWriter));
    }

    #[test]
    fn a_last_record_that_compaction_removed_is_no_loss() {
        let compacted = |tail| check_of(Some(41), tail, false, Some(false));
        assert_eq!(compacted(tail(0, 43, None, None)), Ok(()), "a record without a value, after its time");
        assert_eq!(compacted(tail(0, 43, Some(41), None)), Ok(()));
        assert_eq!(compacted(tail(0, 41, None, None)), Err(Reason::TargetTruncated), "the log was cut");
        assert_eq!(
            compacted(tail(0, 50, Some(44), None)),
            Err(Reason::ForeignWriter),
            "replaced by another's"
        );
        assert_eq!(compacted(tail(0, 50, Some(41), Some(44))), Err(Reason::ForeignWriter));
    }

    #[test]
    fn a_last_record_that_compaction_keeps_must_be_there_in_a_compacted_topic_too() {
        let compacted = |tail, shared| check_of(Some(41), tail, shared, Some(true));
        assert_eq!(compacted(tail(0, 43, Some(41), None), false), Ok(()));
        assert_eq!(compacted(tail(0, 43, None, None), false), Err(Reason::TargetTruncated), "undone");
        assert_eq!(compacted(tail(0, 43, None, None), true), Ok(()), "others may have replaced it");
    }

    #[test]
    fn a_shared_target_may_hold_what_others_wrote() {
        assert_eq!(check(Some(41), tail(0, 50, Some(41), Some(44)), true), Ok(()));
        assert_eq!(check(None, tail(0, 2, Some(0), None), true), Ok(()));
        assert_eq!(check(Some(41), tail(0, 30, None, None), true), Err(Reason::TargetTruncated));
    }
}
