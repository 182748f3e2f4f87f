//! Planted faults: each must be named, by its own name and where it is.

use super::*;
use crate::record::{Header, Record};

fn record(partition: i32, number: i64) -> Record {
    Record {
        partition,
        timestamp: 1_700_000_000_000 + number,
        key: Some(format!("key-{}", number % 7).into_bytes()),
        value: Some(format!("value-{number}").into_bytes()),
        headers: vec![Header { name: "h".to_owned(), value: Some(vec![1, 2]) }],
    }
}

/// Two partitions of 100 records; the source has holes like those of transaction markers.
fn histories() -> (MemoryHistory, MemoryHistory) {
    let (mut source, mut target) = (MemoryHistory::default(), MemoryHistory::default());
    for number in 0..200 {
        let partition = i32::try_from(number % 2).unwrap();
        source.push("orders", record(partition, number));
        target.push("orders", record(partition, number));
    }
    for partition in 0..2 {
        for (offset, _) in source.partition("orders", partition) {
            *offset += *offset / 10;
        }
    }
    (source, target)
}

fn check(source: &MemoryHistory, target: &MemoryHistory) -> Report {
    Check::of(&["orders"]).run(source, target).unwrap()
}

/// The one anomaly that is there, how often, and its first example.
fn only(report: &Report) -> (Anomaly, u64, String) {
    let mut kinds: Vec<Anomaly> = report.examples().map(|finding| finding.anomaly).collect();
    kinds.dedup();
    assert_eq!(kinds.len(), 1, "one kind of anomaly is planted:\n{report}");
    (kinds[0], report.count(kinds[0]), report.examples().next().unwrap().to_string())
}

fn plant(fault: impl FnOnce(&mut MemoryHistory)) -> (Anomaly, u64, String) {
    let (source, mut target) = histories();
    fault(&mut target);
    only(&check(&source, &target))
}

#[test]
fn equal_histories_are_clean_and_counted() {
    let (source, target) = histories();
    let report = check(&source, &target);
    assert!(report.is_clean(), "{report}");
    assert_eq!((report.records(), report.topics[0].target_records), (200, 200));
    assert_eq!(report.topics[0].bytes, 200 * (5 + 3) + 10 * 7 + 90 * 8 + 100 * 9);
}

#[test]
fn a_lost_record_is_named() {
    let found = plant(|target| drop(target.partition("orders", 1).remove(30)));
    assert_eq!((found.0, found.1), (Anomaly::Lost, 1));
    assert!(found.2.starts_with("lost: orders [1] @ 33"), "{}", found.2);
}

#[test]
fn a_lost_tail_is_named() {
    let found = plant(|target| target.partition("orders", 0).truncate(90));
    assert_eq!((found.0, found.1), (Anomaly::Lost, 10));
}

#[test]
fn repeated_records_are_named() {
    let found = plant(|target| {
        let partition = target.partition("orders", 0);
        let again: Vec<_> = partition[40..50].to_vec();
        partition.splice(50..50, again);
    });
    assert_eq!((found.0, found.1), (Anomaly::Repeated, 10));
    assert!(found.2.starts_with("repeated: orders [0] @ 44"), "{}", found.2);
}

#[test]
fn a_record_that_is_there_twice_at_the_source_is_not_repeated() {
    let (mut source, mut target) = histories();
    for history in [&mut source, &mut target] {
        for number in [500, 500, 501, 500] {
            history.push("orders", record(0, number));
        }
    }
    assert!(check(&source, &target).is_clean());
    target.push("orders", record(0, 500));
    assert_eq!(only(&check(&source, &target)).0, Anomaly::Repeated);
}

#[test]
fn reordered_records_are_named() {
    let found = plant(|target| target.partition("orders", 1).swap(20, 21));
    assert_eq!((found.0, found.1), (Anomaly::Reordered, 1));
    assert!(found.2.starts_with("reordered: orders [1] @ 22"), "{}", found.2);
}

#[test]
fn every_changed_part_is_named() {
    type Fault = fn(&mut Record);
    let faults: [(&str, Fault); 7] = [
        ("key", |it| it.key = Some(b"other".to_vec())),
        ("value", |it| it.value = Some(b"other".to_vec())),
        ("value", |it| it.value = None),
        ("headers", |it| it.headers.push(Header { name: "x".to_owned(), value: None })),
        ("headers", |it| it.headers[0].value = None),
        ("timestamp", |it| it.timestamp += 1),
        ("key, headers", |it| {
            it.key = None;
            it.headers.clear();
        }),
    ];
    for (part, fault) in faults {
        let found = plant(|target| fault(&mut target.partition("orders", 0)[10].1));
        assert_eq!((found.0, found.1), (Anomaly::Changed, 1), "{part}");
        assert!(found.2.starts_with(&format!("changed: orders [0] @ 11: {part} at")), "{}", found.2);
    }
}

#[test]
fn a_changed_partition_is_named() {
    let found = plant(|target| {
        let moved = target.partition("orders", 0).remove(10);
        target.partition("orders", 1).insert(10, moved);
    });
    assert_eq!((found.0, found.1), (Anomaly::Changed, 1));
    assert!(found.2.contains("partition (now 1)"), "{}", found.2);
}

#[test]
fn null_in_place_of_empty_is_a_change() {
    let (mut source, mut target) = histories();
    source.push("orders", Record { value: Some(Vec::new()), ..record(0, 900) });
    target.push("orders", Record { value: None, ..record(0, 900) });
    assert_eq!(only(&check(&source, &target)).0, Anomaly::Changed);
}

#[test]
fn a_foreign_record_is_named() {
    let found = plant(|target| {
        let alien = Record { headers: Vec::new(), ..record(0, 100_006) };
        target.partition("orders", 1).insert(5, (1000, alien));
    });
    assert_eq!((found.0, found.1), (Anomaly::Foreign, 1));
    assert!(found.2.starts_with("foreign: orders [1] @ 1000"), "{}", found.2);
}

#[test]
fn a_topic_that_was_not_to_be_carried_is_named() {
    let (source, mut target) = histories();
    target.push("__longhaul.fra.progress", record(0, 0));
    target.push("known", record(0, 0));
    target.push("secrets", record(0, 0));
    let check = Check { others_at_target: vec!["known".to_owned()], ..Check::of(&["orders"]) };
    let found = only(&check.run(&source, &target).unwrap());
    assert_eq!((found.0, found.1), (Anomaly::Ungranted, 1));
    assert!(found.2.starts_with("ungranted: secrets"), "{}", found.2);
}

#[test]
fn a_group_offset_above_what_arrived_is_named_even_while_the_link_works() {
    let (source, mut target) = histories();
    target.partition("orders", 0).truncate(60);
    let committed = |offset| BTreeMap::from([(("orders".to_owned(), 0), offset)]);
    let check = |offset| {
        let check = Check { committed: committed(offset), in_flight: true, ..Check::of(&["orders"]) };
        check.run(&source, &target).unwrap()
    };
    let arrived = 59 + 5;
    let report = check(arrived + 1);
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.topics[0].pending, 40);
    let found = only(&check(arrived + 3));
    assert_eq!((found.0, found.1), (Anomaly::OverCommit, 1));
    assert!(found.2.contains("orders [0] @ 66"), "{}", found.2);
}

/// One end of a link at work: each look at a partition of either end is followed by a record that crosses the link.
struct AtWork<'a> {
    ends: &'a std::cell::RefCell<(MemoryHistory, MemoryHistory)>,
    is_source: bool,
}

impl AtWork<'_> {
    fn now(&self) -> MemoryHistory {
        let ends = self.ends.borrow();
        if self.is_source { ends.0.clone() } else { ends.1.clone() }
    }
}

impl History for AtWork<'_> {
    fn topics(&self) -> Result<Vec<String>, Error> {
        self.now().topics()
    }

    fn partitions(&self, topic: &str) -> Result<i32, Error> {
        self.now().partitions(topic)
    }

    fn read(&self, topic: &str, partition: i32, visit: &mut dyn FnMut(Seen<'_>)) -> Result<(), Error> {
        self.now().read(topic, partition, visit)?;
        let (source, target) = &mut *self.ends.borrow_mut();
        let number = 1000 + i64::try_from(source.partition(topic, partition).len()).unwrap();
        source.push(topic, record(partition, number));
        target.push(topic, record(partition, number));
        Ok(())
    }
}

#[test]
fn what_arrives_while_the_two_ends_are_read_is_not_foreign() {
    let ends = std::cell::RefCell::new(histories());
    let end = |is_source| AtWork { ends: &ends, is_source };
    let check = Check { in_flight: true, ..Check::of(&["orders"]) };
    let report = check.run(&end(true), &end(false)).unwrap();
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.topics[0].pending, 2, "a record of each partition came after the target was read");
}

#[test]
fn records_before_the_start_are_not_missed() {
    let (source, mut target) = histories();
    target.partition("orders", 0).drain(..50);
    let from = BTreeMap::from([(("orders".to_owned(), 0), 55)]);
    let check = Check { source_from: from, ..Check::of(&["orders"]) };
    let report = check.run(&source, &target).unwrap();
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.records(), 150);
}

#[test]
fn timestamps_of_zero_are_counted_apart() {
    let (mut source, mut target) = histories();
    for number in 900..903 {
        source.push("orders", Record { timestamp: 0, ..record(0, number) });
        target.push("orders", Record { timestamp: 1_800_000_000_000, ..record(0, number) });
    }
    let report = check(&source, &target);
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.topics[0].rewritten_timestamps, 3);
}

fn trail(lines: &[(&str, i64, i64)]) -> Trail {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.jsonl");
    let line = |(kind, first, next): &(&str, i64, i64)| {
        let at = "\"topic\":\"orders\",\"topic_id\":\"A\",\"partition\":0";
        match *kind {
            "delivered" => format!(
                "{{\"event\":\"delivered\",{at},\"from\":{first},\"next\":{next},\"records\":{}}}\n",
                (*first..*next).filter(|offset| offset % 11 != 10).count()
            ),
            reason => {
                format!(
                    "{{\"event\":\"gap\",{at},\"first\":{first},\"next\":{next},\"reason\":\"{reason}\"}}\n"
                )
            }
        }
    };
    std::fs::write(&path, lines.iter().map(line).collect::<String>()).unwrap();
    Trail::read(&path).unwrap()
}

#[test]
fn a_named_gap_excuses_what_is_missing_and_nothing_else() {
    let (source, mut target) = histories();
    target.partition("orders", 0).drain(20..30);
    let cloud = trail(&[("delivered", 0, 22), ("expired", 22, 33), ("delivered", 33, 110)]);
    let check = Check { cloud: Some(cloud), ..Check::of(&["orders"]) };
    let report = check.run(&source, &target).unwrap();
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.topics[0].in_named_gaps, 10);
    target.partition("orders", 0).remove(20);
    assert_eq!(only(&check.run(&source, &target).unwrap()).0, Anomaly::Lost);
}

#[test]
fn a_silent_gap_is_named_and_calling_it_invisible_does_not_help() {
    let (source, target) = histories();
    let lines: [&[(&str, i64, i64)]; 2] = [
        &[("delivered", 0, 22), ("delivered", 33, 110)],
        &[("delivered", 0, 22), ("not_visible", 22, 33), ("delivered", 33, 110)],
    ];
    for lines in lines {
        let check = Check { edge: Some(trail(lines)), ..Check::of(&["orders"]) };
        let found = only(&check.run(&source, &target).unwrap());
        assert_eq!((found.0, found.1), (Anomaly::SilentGap, 1));
        assert!(found.2.contains("0 records of 22..33 delivered, where 10 are visible"), "{}", found.2);
    }
    let harmless = trail(&[("delivered", 0, 10), ("delivered", 11, 110)]);
    let check = Check { edge: Some(harmless), ..Check::of(&["orders"]) };
    assert!(check.run(&source, &target).unwrap().is_clean());
}

#[test]
fn the_logs_that_the_engines_write_are_understood() {
    use observe::event::{Delivered, Event, Gap, New, Place as At};
    let at = || At {
        link: "fra".to_owned(),
        cluster: "c".to_owned(),
        topic: "orders".to_owned(),
        topic_id: "A".to_owned(),
        partition: 0,
    };
    let delivered = |from, next| -> Event {
        let digest = codec::Digest::ZERO.to_string();
        let (first, last, records, not_visible) = (Some(from), Some(next - 1), 17, 0);
        let (plain_bytes, wire_bytes) = (1, 1);
        Delivered { at: at(), from, next, first, last, records, not_visible, plain_bytes, wire_bytes, digest }
            .into()
    };
    let events: [Event; 4] = [
        New { at: at(), start: 0 }.into(),
        delivered(0, 22),
        Gap { at: at(), first: 22, next: 33, reason: "expired".to_owned() }.into(),
        delivered(44, 110),
    ];
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("edge.jsonl");
    let audit = observe::Audit::open(&path, observe::audit::Options::default()).unwrap();
    audit.record_many(events).unwrap();
    drop(audit);
    let trail = Trail::read(&path).unwrap();
    let place = ("orders".to_owned(), 0);
    let ranges = |ranges: Vec<Range>| ranges.iter().map(|it| (it.first, it.next)).collect::<Vec<_>>();
    assert_eq!(ranges(trail.gaps(&place)), [(22, 33)]);
    assert_eq!(ranges(trail.holes(&place)), [(33, 44)]);
    assert_eq!(trail.claims(&place)[0], Claim { range: Range { first: 0, next: 22 }, records: 17 });
    assert_eq!(trail.delivered_to(&place), Some(110));
}

#[test]
fn a_line_that_counts_fewer_records_than_are_visible_is_a_silent_gap() {
    let (source, target) = histories();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.jsonl");
    let write = |records: u64| {
        let at = "\"topic\":\"orders\",\"topic_id\":\"A\",\"partition\":0";
        let line =
            format!("{{\"event\":\"delivered\",{at},\"from\":0,\"next\":110,\"records\":{records}}}\n");
        std::fs::write(&path, line).unwrap();
        Check { cloud: Some(Trail::read(&path).unwrap()), ..Check::of(&["orders"]) }
    };
    assert!(write(100).run(&source, &target).unwrap().is_clean());
    let found = only(&write(99).run(&source, &target).unwrap());
    assert_eq!((found.0, found.1), (Anomaly::SilentGap, 1));
    assert!(found.2.contains("99 records of 0..110 delivered, where 100 are visible"), "{}", found.2);
}
