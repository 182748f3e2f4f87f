use std::time::Duration;

use longhaul_kafka::{
    Admin, End, Error, Isolation,
    reader::{Ends, Reader},
};

use crate::{TIMEOUT, abort_values, broker::broker, commit_values, new_topic, open_transaction, settings};

#[test]
fn a_read_ends_where_the_partition_ended_when_it_began() {
    let Some(broker) = broker() else { return };
    let topic = new_topic(&broker.bootstrap, "bounded", 1, &[]);
    let mut reader = Reader::new(&settings(&broker.bootstrap)).unwrap();
    let mut read = |from, isolation, timeout| {
        let mut offsets = Vec::new();
        let end = reader.read(&topic, 0, from, isolation, timeout, |record| offsets.push(record.offset));
        end.map(|end| (end, offsets))
    };
    assert_eq!(read(0, Isolation::Committed, TIMEOUT).unwrap(), (End { start: 0, next: 0 }, vec![]));
    // Offsets: 0..3 committed, 3 its marker, 4..6 aborted, 6 its marker, 7 committed, 8 its marker.
    commit_values(&broker.bootstrap, &topic, &["0", "1", "2"]);
    abort_values(&broker.bootstrap, &topic, 2);
    commit_values(&broker.bootstrap, &topic, &["7"]);
    let all = (End { start: 0, next: 9 }, vec![0, 1, 2, 7]);
    assert_eq!(read(0, Isolation::Committed, TIMEOUT).unwrap(), all);
    assert_eq!(read(0, Isolation::Uncommitted, TIMEOUT).unwrap(), all);
    assert_eq!(read(2, Isolation::Committed, TIMEOUT).unwrap(), (End { start: 2, next: 9 }, vec![2, 7]));
    assert_eq!(read(9, Isolation::Committed, TIMEOUT).unwrap(), (End { start: 9, next: 9 }, vec![]));

    let open = open_transaction(&broker.bootstrap, &topic, 2);
    assert_eq!(read(0, Isolation::Committed, TIMEOUT).unwrap(), all);
    let blocked = read(0, Isolation::Uncommitted, Duration::from_millis(700)).unwrap_err();
    assert!(matches!(blocked, Error::Timeout { .. }), "{blocked}");
    drop(open);
    let ended = std::thread::spawn({
        let (bootstrap, topic) = (broker.bootstrap.clone(), topic.clone());
        move || drop(crate::new_producer(&bootstrap, &topic))
    });
    let (end, offsets) = read(0, Isolation::Uncommitted, TIMEOUT).unwrap();
    ended.join().unwrap();
    assert!(end.next >= 11, "{end:?}");
    assert_eq!(offsets, [0, 1, 2, 7]);
}

#[test]
fn a_read_begins_at_the_log_start_when_the_position_is_older() {
    let Some(broker) = broker() else { return };
    let topic = new_topic(&broker.bootstrap, "log-start", 1, &[]);
    commit_values(&broker.bootstrap, &topic, &["0", "1", "2", "3"]);
    let admin = Admin::new(&settings(&broker.bootstrap)).unwrap();
    admin.delete_records(&topic, 0, 2, TIMEOUT).unwrap();
    let mut offsets = Vec::new();
    let mut reader = Reader::new(&settings(&broker.bootstrap)).unwrap();
    let end = reader.read(&topic, 0, 0, Isolation::Committed, TIMEOUT, |r| offsets.push(r.offset)).unwrap();
    assert_eq!((end, offsets), (End { start: 2, next: 5 }, vec![2, 3]));
    assert_eq!(reader.ends(&topic, &[0], TIMEOUT).unwrap(), [Ends { low: 2, lso: 5, hw: 5 }]);
}
