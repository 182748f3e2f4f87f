//! Reads the modelled target as a read_committed reader would, and names what is wrong.

use std::collections::{BTreeMap, BTreeSet};

use codec::GapReason;
use proto::ids::SourcePartition;

use super::{
    Anomaly, GRANTED, Kind,
    source::{Content, Entry, Log, Source, Uid},
    target::{Range, Target},
};

/// The first thing wrong with what is visible at the target, if anything is.
pub(super) fn check(source: &Source, target: &Target) -> Option<Anomaly> {
    records(source, target).and_then(|delivered| delivered_or_named(source, target, &delivered)).err()
}

fn anomaly(kind: Kind, what: String) -> Anomaly {
    Anomaly { kind, what }
}

/// each record once, in order, unchanged, where it may be.
fn records(source: &Source, target: &Target) -> Result<BTreeSet<Uid>, Anomaly> {
    let mut covered = BTreeMap::<&SourcePartition, Vec<&Range>>::new();
    for range in &target.ranges {
        covered.entry(&range.partition).or_default().push(range);
    }
    let mut delivered = BTreeSet::new();
    for ((topic, number), log) in &target.logs {
        let place = format!("{topic}-{number}");
        if !GRANTED.contains(&&**topic) && !log.is_empty() {
            return Err(anomaly(Kind::Ungranted, format!("{place} has records")));
        }
        let mut last = BTreeMap::<&SourcePartition, i64>::new();
        for content in log {
            let Some(uid) = content.uid() else {
                return Err(anomaly(Kind::Changed, format!("{place}: a record of nobody's")));
            };
            let (partition, offset) = &source.origins[uid as usize];
            let what = format!("{place}: record {uid}, {partition} offset {offset}");
            if !delivered.insert(uid) {
                return Err(anomaly(Kind::Repeated, what));
            }
            if last.insert(partition, *offset).is_some_and(|before| before > *offset) {
                return Err(anomaly(Kind::Reordered, what));
            }
            if *content != Content::of(uid) {
                return Err(anomaly(Kind::Changed, what));
            }
            let own = covered
                .get(partition)
                .is_some_and(|ranges| ranges.iter().any(|range| range.from <= *offset && *offset < range.to));
            if !own || partition.partition != *number {
                return Err(anomaly(Kind::Changed, format!("{what}: delivered as another partition's")));
            }
        }
    }
    Ok(delivered)
}

/// below progress, every record is at the target or in a gap that says truly why it is not.
fn delivered_or_named(source: &Source, target: &Target, delivered: &BTreeSet<Uid>) -> Result<(), Anomaly> {
    for (topic, logs) in source.topics.iter().enumerate() {
        for (number, log) in logs.logs.iter().enumerate() {
            let partition = source.partition(topic, number);
            let Some((progress, _)) = target.progress.get(&partition) else { continue };
            // A partition that holds says so; what stands where it was cut is the operator's to decide.
            let held = if source.held.contains(&partition) { log.cut_at } else { None };
            let ranges: Vec<&Range> =
                target.ranges.iter().filter(|range| range.partition == partition).collect();
            for (offset, entry) in (0..*progress).zip(&log.entries) {
                if let Entry::Record(uid) = entry
                    && !delivered.contains(uid)
                    && held.is_none_or(|cut_at| offset < cut_at)
                {
                    missing(&ranges, log, offset).map_err(|kind| {
                        anomaly(kind, format!("{partition} offset {offset}, record {uid}"))
                    })?;
                }
            }
        }
    }
    Ok(())
}

/// Why a visible record below progress is not at the target.
fn missing(ranges: &[&Range], log: &Log, offset: i64) -> Result<(), Kind> {
    let mut covering = ranges.iter().filter(|range| range.from <= offset && offset < range.to).peekable();
    if covering.peek().is_none() {
        // Deleted before the partition was carried for the first time.
        let first = ranges.iter().map(|range| range.from).min();
        let before_all = first.is_none_or(|first| offset < first) && offset < log.start;
        return if before_all { Ok(()) } else { Err(Kind::Lost) };
    }
    let expired = covering.any(|range| range.gap == GapReason::Expired) && offset < log.start;
    if expired { Ok(()) } else { Err(Kind::SilentGap) }
}

/// What is still to come: `None` when everything is delivered, acknowledged and committed at the source.
pub(super) fn outstanding(source: &Source, target: &Target) -> Option<String> {
    for (topic, logs) in source.topics.iter().enumerate() {
        if !GRANTED.contains(&logs.name) {
            continue;
        }
        for (number, log) in logs.logs.iter().enumerate() {
            let partition = source.partition(topic, number);
            if source.held.contains(&partition) {
                continue;
            }
            let progress = target.progress.get(&partition).map(|(next, _)| *next);
            let group = source.group.get(&partition).copied();
            let end = log.end();
            let delivered = progress.unwrap_or(log.start) == end;
            if !delivered || progress != group {
                let name = logs.name;
                return Some(format!("{name}-{number}: end {end}, progress {progress:?}, group {group:?}"));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulation::{
        chance::Chance,
        target::{Producer, Write},
    };

    /// A source that grew for a while, and a target to which all of it was delivered, batch by batch.
    fn delivered() -> (Source, Target) {
        let (mut source, mut target) = (Source::new(), Target::new(1, false));
        let mut chance = Chance::new(7);
        (0..200).for_each(|_| source.live(&mut chance, false));
        for (topic, name) in GRANTED.iter().enumerate() {
            for number in 0..source.topics[topic].logs.len() {
                let partition = source.partition(topic, number);
                let log = source.log(topic, number);
                for from in (0..log.end()).step_by(5) {
                    let to = log.end().min(from + 5);
                    let records =
                        log.entries[from as usize..to as usize].iter().filter_map(|entry| match entry {
                            Entry::Record(uid) => Some(Content::of(*uid)),
                            Entry::Invisible => None,
                        });
                    let (gap, leader_epoch) = (GapReason::NotVisible, None);
                    let range = Range { partition: partition.clone(), from, to, gap, leader_epoch };
                    let write = Write { topic: (*name).into(), range, records: records.collect() };
                    let producer = Producer { epoch: 0, token: 1, begun: (topic, number, from) != (0, 0, 0) };
                    target.produce(0, producer, write).unwrap();
                }
                target.progress.insert(partition, (log.end(), None));
            }
        }
        target.commit(0, 0).unwrap();
        (source, target)
    }

    /// What the checker says after `spoil`, which gets the records of `orders-0`.
    fn found(spoil: impl FnOnce(&mut Vec<Content>)) -> Option<Kind> {
        let (source, mut target) = delivered();
        spoil(target.logs.get_mut(&("orders".into(), 0)).unwrap());
        check(&source, &target).map(|anomaly| anomaly.kind)
    }

    #[test]
    fn a_faithful_copy_is_faultless() {
        assert_eq!(found(|_| ()), None);
    }

    #[test]
    fn each_anomaly_has_its_name() {
        assert_eq!(found(|log| log.push(log[3].clone())), Some(Kind::Repeated));
        assert_eq!(found(|log| log.swap(3, 4)), Some(Kind::Reordered));
        assert_eq!(found(|log| log[3].timestamp += 1), Some(Kind::Changed));
        assert_eq!(found(|log| log[3].headers.swap(0, 1)), Some(Kind::Changed));
        assert_eq!(found(|log| drop(log.remove(3))), Some(Kind::SilentGap));
    }

    #[test]
    fn null_and_empty_are_not_the_same() {
        let null = |content: &&mut Content| content.value.is_none();
        assert_eq!(
            found(|log| log.iter_mut().find(null).unwrap().value = Some(Vec::new())),
            Some(Kind::Changed)
        );
    }

    #[test]
    fn progress_above_what_any_group_covered_is_a_loss() {
        let (source, mut target) = delivered();
        let partition = source.partition(0, 0);
        target.ranges.retain(|range| range.partition != partition || range.from < 20);
        let log = target.logs.get_mut(&("orders".into(), 0)).unwrap();
        log.retain(|content| source.origins[content.uid().unwrap() as usize].1 < 20);
        assert_eq!(check(&source, &target).map(|anomaly| anomaly.kind), Some(Kind::Lost));
    }

    #[test]
    fn a_gap_that_names_a_false_reason_is_silent() {
        let (mut source, mut target) = delivered();
        let partition = source.partition(0, 0);
        for range in target.ranges.iter_mut().filter(|range| range.partition == partition) {
            range.gap = GapReason::Expired;
        }
        target.logs.get_mut(&("orders".into(), 0)).unwrap().remove(3);
        let kind = |source: &Source| check(source, &target).map(|anomaly| anomaly.kind);
        assert_eq!(kind(&source), Some(Kind::SilentGap), "the source still has it");
        source.topics[0].logs[0].start = 15;
        assert_eq!(kind(&source), None);
    }

    #[test]
    fn records_in_another_place_are_named() {
        let (source, mut target) = delivered();
        let moved = target.logs.get_mut(&("orders".into(), 0)).unwrap().pop().unwrap();
        target.logs.get_mut(&("orders".into(), 1)).unwrap().push(moved.clone());
        assert_eq!(check(&source, &target).map(|anomaly| anomaly.kind), Some(Kind::Changed));
        let (source, mut target) = delivered();
        target.logs.insert(("secrets".into(), 0), vec![moved]);
        assert_eq!(check(&source, &target).map(|anomaly| anomaly.kind), Some(Kind::Ungranted));
    }
}
