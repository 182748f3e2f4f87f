use std::{
    collections::BTreeMap,
    sync::PoisonError,
    time::{Duration, Instant},
};

use longhaul_kafka::{
    Admin, Event, GroupPositions, KafkaCode, ProducerOptions, SourceConsumer, SourceError, SourceOptions,
    TransactionalProducer, Watermarks,
    rdkafka::{
        ClientConfig,
        consumer::{BaseConsumer, Consumer},
    },
};

use crate::{
    TIMEOUT, abort_values, all_deliveries, broker::broker, commit_values, new_producer, new_topic,
    open_transaction, put, settings, settle,
};

/// What a poll handed out, in words that can be compared.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen {
    Record(u64, i64),
    End(u64, i64),
    Lost(u64, SourceError),
    Trouble(KafkaCode),
}

struct Source(SourceConsumer);

impl Source {
    fn new(bootstrap: &str, group: &str) -> Self {
        let options =
            SourceOptions { watermark_interval: Duration::from_millis(100), ..SourceOptions::default() };
        let mut settings = settings(bootstrap);
        settings.properties.insert("topic.metadata.propagation.max.ms".into(), "1000".into());
        Self(SourceConsumer::new(&settings, group, options).unwrap())
    }

    fn poll(&mut self, timeout: Duration) -> Vec<Seen> {
        let mut seen = Vec::new();
        let count = self.0.poll(timeout, |event| {
            seen.push(match event {
                Event::Record(record) => Seen::Record(record.token, record.offset),
                Event::EndOfPartition { token, position } => Seen::End(token, position),
                Event::Lost { token, cause } => Seen::Lost(token, cause),
                Event::Trouble { code, .. } => Seen::Trouble(code),
            });
        });
        assert_eq!(count, seen.len());
        seen
    }

    /// Polls until `done` says so of all that was seen.
    fn until(&mut self, mut done: impl FnMut(&[Seen]) -> bool) -> Vec<Seen> {
        let deadline = Instant::now() + TIMEOUT;
        let mut seen = Vec::new();
        while !done(&seen) {
            assert!(
                Instant::now() < deadline,
                "waited in vain; the last seen: {:?}",
                seen.iter().rev().take(5)
            );
            seen.extend(self.poll(Duration::from_millis(50)));
        }
        seen
    }

    fn until_end(&mut self, token: u64) -> Vec<Seen> {
        self.until(|seen| seen.iter().any(|seen| matches!(seen, Seen::End(t, _) if *t == token)))
    }

    fn until_lost(&mut self) -> SourceError {
        let seen = self.until(|seen| seen.iter().any(|seen| matches!(seen, Seen::Lost(..))));
        let lost = seen
            .into_iter()
            .find_map(|seen| if let Seen::Lost(_, cause) = seen { Some(cause) } else { None });
        lost.unwrap()
    }

    /// Polls for a while.
    fn during(&mut self, time: Duration) -> Vec<Seen> {
        let deadline = Instant::now() + time;
        let mut seen = Vec::new();
        while Instant::now() < deadline {
            seen.extend(self.poll(Duration::from_millis(20)));
        }
        seen
    }
}

fn offsets(seen: &[Seen], token: u64) -> Vec<i64> {
    let of_token = |seen: &Seen| match seen {
        Seen::Record(t, offset) if *t == token => Some(*offset),
        _ => None,
    };
    seen.iter().filter_map(of_token).collect()
}

fn numbers(count: usize) -> Vec<String> {
    (0..count).map(|n| n.to_string()).collect()
}

#[test]
fn every_codec_is_read() {
    let Some(broker) = broker() else { return };
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let topic = new_topic(&broker.bootstrap, "codec", 1, &[]);
        let mut settings = settings(&broker.bootstrap);
        settings.properties.insert("compression.codec".into(), codec.into());
        let mut producer = TransactionalProducer::new(&settings, &topic, ProducerOptions::default()).unwrap();
        producer.init_transactions(TIMEOUT).unwrap();
        let handle = producer.topic(&topic).unwrap();
        producer.begin().unwrap();
        for tag in 0..500 {
            put(&mut producer, &handle, &format!("{codec} {tag} {}", "compressible ".repeat(20)), tag);
        }
        producer.commit(TIMEOUT).unwrap();
        let read = crate::values(&crate::read_all(&broker.bootstrap, &topic, 0));
        assert_eq!(read.len(), 500);
        assert!(read[499].starts_with(&format!("{codec} 499 compressible")), "{}", read[499]);
    }
}

#[test]
fn aborted_records_are_skipped_and_the_position_passes_the_markers() {
    let Some(broker) = broker() else { return };
    let topic = new_topic(&broker.bootstrap, "aborted", 1, &[]);
    commit_values(&broker.bootstrap, &topic, &["0", "1"]);
    abort_values(&broker.bootstrap, &topic, 3);
    commit_values(&broker.bootstrap, &topic, &["7"]);
    abort_values(&broker.bootstrap, &topic, 1);
    let mut source = Source::new(&broker.bootstrap, "aborted");
    source.0.assign(&topic, 0, 0, None, 9).unwrap();
    assert_eq!(source.0.position(9), Some(0));
    let seen = source.until_end(9);
    // 0 1, marker, 3 aborted, marker, 7, marker, 1 aborted, marker.
    assert_eq!(offsets(&seen, 9), [0, 1, 7]);
    assert_eq!(seen.last(), Some(&Seen::End(9, 11)));
    assert_eq!(source.0.position(9), Some(11));
    // A partition that holds nothing from the position on ends there at once.
    source.0.seek(9, 8, None).unwrap();
    assert_eq!(source.until_end(9), [Seen::End(9, 11)]);
    assert_eq!(source.0.position(1), None);
}

#[test]
fn an_open_transaction_ends_the_partition_and_shows_in_the_watermarks() {
    let Some(broker) = broker() else { return };
    let topic = new_topic(&broker.bootstrap, "open", 1, &[]);
    commit_values(&broker.bootstrap, &topic, &["0"]);
    let mut open = open_transaction(&broker.bootstrap, &topic, 3);
    let mut source = Source::new(&broker.bootstrap, "open");
    source.0.assign(&topic, 0, 0, None, 1).unwrap();
    let seen = source.until_end(1);
    assert_eq!(seen.last(), Some(&Seen::End(1, 2)));
    // Ends are heard of a paused partition too.
    source.0.pause(1).unwrap();
    let wait_for = |source: &mut Source, expected| {
        let deadline = Instant::now() + TIMEOUT;
        while source.0.watermarks(1) != Some(expected) {
            assert!(Instant::now() < deadline, "{:?}", source.0.watermarks(1));
            assert_eq!(source.poll(Duration::from_millis(20)), []);
        }
    };
    wait_for(&mut source, Watermarks { lso: 2, hw: 5 });
    open.commit(TIMEOUT).unwrap();
    wait_for(&mut source, Watermarks { lso: 6, hw: 6 });
    source.0.resume(1).unwrap();
    let seen = source.until_end(1);
    assert_eq!(offsets(&seen, 1), [2, 3, 4]);
}

/// librdkafka forgets all brokers when an answer names none, as a broker's does that was given up for a while, and would
/// never send anything again.
#[test]
fn clients_come_back_after_an_answer_without_brokers() {
    let Some(broker) = broker() else { return };
    let proxy = broker.proxy.lock().unwrap_or_else(PoisonError::into_inner);
    let topic = new_topic(&broker.bootstrap, "brokerless", 1, &[]);
    let mut settings = settings(&proxy.address);
    // Often, so that the answer comes soon.
    settings.properties.insert("topic.metadata.refresh.interval.ms".into(), "300".into());
    let admin = Admin::new(&settings).unwrap();
    let mut source = Source(SourceConsumer::new(&settings, "brokerless", SourceOptions::default()).unwrap());
    let mut positions = GroupPositions::new(&settings, "brokerless").unwrap();
    source.0.assign(&topic, 0, 0, None, 1).unwrap();
    for round in 0..4 {
        source.until(|seen| seen.iter().any(|seen| matches!(seen, Seen::End(1, _))) || round > 0);
        admin.ends(&topic, &[0], TIMEOUT).unwrap();
        positions.write(&[(&topic, 0, round)], TIMEOUT).unwrap();
        proxy.take_brokers_away(true);
        source.during(Duration::from_millis(700));
        proxy.take_brokers_away(false);
        let ended = Instant::now();
        commit_values(&broker.bootstrap, &topic, &["x"]);
        let mut open = [true; 3];
        while open.contains(&true) {
            assert!(ended.elapsed() < Duration::from_secs(10), "round {round}: {open:?} are silent");
            let seen = source.poll(Duration::from_millis(20));
            open[0] &= offsets(&seen, 1).is_empty();
            open[1] &= admin.ends(&topic, &[0], Duration::from_millis(200)).is_err();
            open[2] &= positions.write(&[(&topic, 0, round)], Duration::from_millis(200)).is_err();
        }
        eprintln!("round {round}: back after {:?}", ended.elapsed());
    }
}

#[test]
fn a_position_below_the_log_start_is_lost() {
    let Some(broker) = broker() else { return };
    let topic = new_topic(&broker.bootstrap, "expired", 1, &[]);
    commit_values(&broker.bootstrap, &topic, &numbers(10));
    let admin = Admin::new(&settings(&broker.bootstrap)).unwrap();
    admin.delete_records(&topic, 0, 5, TIMEOUT).unwrap();
    let mut source = Source::new(&broker.bootstrap, "expired");
    source.0.assign(&topic, 0, 3, Some(0), 1).unwrap();
    assert!(matches!(source.until_lost(), SourceError::Reset { .. }));
    // It gives nothing, and the position stays, until it is sought.
    assert_eq!(source.during(Duration::from_millis(500)), []);
    assert_eq!(source.0.position(1), Some(3));
    source.0.seek(1, 5, None).unwrap();
    assert_eq!(offsets(&source.until_end(1), 1), [5, 6, 7, 8, 9]);
}

#[test]
fn a_position_above_the_end_is_lost() {
    let Some(broker) = broker() else { return };
    let topic = new_topic(&broker.bootstrap, "above", 1, &[]);
    commit_values(&broker.bootstrap, &topic, &numbers(3));
    let mut source = Source::new(&broker.bootstrap, "above");
    source.0.assign(&topic, 0, 100, None, 1).unwrap();
    assert!(matches!(source.until_lost(), SourceError::Reset { .. }));
}

#[test]
fn a_log_cut_below_the_position_is_noticed_by_the_leader_epoch() {
    let Some(broker) = broker() else { return };
    let topic = new_topic(&broker.bootstrap, "cut", 1, &[]);
    commit_values(&broker.bootstrap, &topic, &numbers(3));
    let mut source = Source::new(&broker.bootstrap, "cut");
    // Epoch 0 ends at 4 (three records and a marker): whoever stands at 5 in it read what is gone.
    source.0.assign(&topic, 0, 5, Some(0), 1).unwrap();
    let SourceError::Reset { reason } = source.until_lost() else { panic!() };
    assert!(reason.contains("log truncation"), "{reason}");
    source.0.seek(1, 3, Some(0)).unwrap();
    assert_eq!(source.until_end(1), [Seen::End(1, 4)]);
}

#[test]
fn a_report_older_than_the_assignment_is_not_believed() {
    let Some(broker) = broker() else { return };
    let topic = new_topic(&broker.bootstrap, "stale", 1, &[]);
    commit_values(&broker.bootstrap, &topic, &numbers(3));
    let mut source = Source::new(&broker.bootstrap, "stale");
    for round in 0..3 {
        let token = 10 + round;
        source.0.assign(&topic, 0, 100, None, 1).unwrap();
        // The report waits in the queue by now.
        std::thread::sleep(Duration::from_millis(400));
        source.0.unassign(1).unwrap();
        source.0.assign(&topic, 0, 0, None, token).unwrap();
        let seen = source.until_end(token);
        assert_eq!(offsets(&seen, token), [0, 1, 2], "{seen:?}");
        assert!(!seen.iter().any(|seen| matches!(seen, Seen::Lost(..))), "{seen:?}");
        source.0.unassign(token).unwrap();
    }
}

#[test]
fn a_deleted_topic_is_gone_and_others_go_on() {
    let Some(broker) = broker() else { return };
    let gone = new_topic(&broker.bootstrap, "gone", 1, &[]);
    let stays = new_topic(&broker.bootstrap, "stays", 1, &[]);
    commit_values(&broker.bootstrap, &gone, &numbers(2));
    commit_values(&broker.bootstrap, &stays, &numbers(2));
    let mut source = Source::new(&broker.bootstrap, "gone");
    source.0.assign(&gone, 0, 0, None, 1).unwrap();
    source.0.assign(&stays, 0, 0, None, 2).unwrap();
    source.until(|seen| seen.iter().filter(|seen| matches!(seen, Seen::End(..))).count() == 2);
    Admin::new(&settings(&broker.bootstrap)).unwrap().delete_topic(&gone, TIMEOUT).unwrap();
    let cause = source.until_lost();
    assert!(matches!(cause, SourceError::TopicGone { .. }), "{cause:?}");
    source.0.unassign(1).unwrap();
    commit_values(&broker.bootstrap, &stays, &numbers(2));
    assert_eq!(offsets(&source.until_end(2), 2), [3, 4]);
}

#[test]
fn a_partition_added_or_removed_leaves_the_others_undisturbed() {
    let Some(broker) = broker() else { return };
    let topic = new_topic(&broker.bootstrap, "incremental", 3, &[]);
    let mut producer = new_producer(&broker.bootstrap, &topic);
    let handle = producer.topic(&topic).unwrap();
    producer.begin().unwrap();
    for tag in 0..60_000 {
        producer.produce(&handle, (tag % 3) as i32, 1, None, Some(&[7; 100]), [], tag).unwrap();
    }
    assert!(all_deliveries(&mut producer).iter().all(|delivery| delivery.outcome.is_ok()));
    producer.commit(TIMEOUT).unwrap();
    settle(&broker.bootstrap, &topic);
    let mut source = Source::new(&broker.bootstrap, "incremental");
    source.0.assign(&topic, 0, 0, None, 100).unwrap();
    let mut seen = source.until(|seen| offsets(seen, 100).len() > 100);
    let mut expected_elsewhere: BTreeMap<u64, Vec<i64>> = BTreeMap::new();
    for round in 0..10_u64 {
        for partition in [1, 2] {
            let token = round * 10 + partition;
            let start = (round * 100 + partition) as i64;
            source.0.assign(&topic, partition as i32, start, None, token).unwrap();
            seen.extend(source.until(|seen| offsets(seen, token).len() >= 5));
            source.0.unassign(token).unwrap();
            expected_elsewhere.insert(token, (start..start + 5).collect());
        }
    }
    let so_far = offsets(&seen, 100).len();
    seen.extend(source.until(|more| so_far + offsets(more, 100).len() >= 20_000));
    assert_eq!(offsets(&seen, 100), (0..20_000).collect::<Vec<_>>());
    for (token, first) in expected_elsewhere {
        assert_eq!(offsets(&seen, token)[..5], first, "token {token}");
    }
}

#[test]
fn nothing_fetched_before_a_seek_or_unassign_comes_after_it() {
    let Some(broker) = broker() else { return };
    let topic = new_topic(&broker.bootstrap, "barrier", 1, &[]);
    commit_values(&broker.bootstrap, &topic, &numbers(5000));
    let mut source = Source::new(&broker.bootstrap, "barrier");
    source.0.assign(&topic, 0, 0, None, 1).unwrap();
    for round in 0..20 {
        // Thousands are fetched ahead by now; at most a thousand are handed out at once.
        source.until(|seen| offsets(seen, 1 + round).len() > 10);
        source.0.seek(1 + round, 17, None).unwrap();
        let seen = source.until(|seen| !seen.is_empty());
        assert_eq!(seen[0], Seen::Record(1 + round, 17));
        source.0.unassign(1 + round).unwrap();
        assert_eq!(source.poll(Duration::ZERO), []);
        source.0.assign(&topic, 0, 4000, None, 2 + round).unwrap();
        let seen = source.until(|seen| !seen.is_empty());
        assert_eq!(seen[0], Seen::Record(2 + round, 4000));
        source.0.seek(2 + round, 0, None).unwrap();
    }
}

#[test]
fn a_pause_loses_nothing_and_repeats_nothing() {
    let Some(broker) = broker() else { return };
    let topic = new_topic(&broker.bootstrap, "pause", 2, &[]);
    commit_values(&broker.bootstrap, &topic, &numbers(3000));
    let mut source = Source::new(&broker.bootstrap, "pause");
    source.0.assign(&topic, 0, 0, None, 1).unwrap();
    // Before anything was fetched, amid the records, and at the end.
    source.0.pause(1).unwrap();
    assert_eq!(source.during(Duration::from_millis(300)), []);
    source.0.resume(1).unwrap();
    let mut seen = source.until(|seen| offsets(seen, 1).len() > 10);
    source.0.pause(1).unwrap();
    let position = source.0.position(1);
    assert_eq!(source.during(Duration::from_millis(300)), []);
    assert_eq!(source.0.position(1), position);
    source.0.resume(1).unwrap();
    seen.extend(source.until_end(1));
    assert_eq!(offsets(&seen, 1), (0..3000).collect::<Vec<_>>());
    source.0.pause(1).unwrap();
    commit_values(&broker.bootstrap, &topic, &numbers(5));
    assert_eq!(source.during(Duration::from_millis(300)), []);
    source.0.resume(1).unwrap();
    assert_eq!(offsets(&source.until_end(1), 1), (3001..3006).collect::<Vec<_>>());
    // A seek does not end a pause.
    source.0.pause(1).unwrap();
    source.0.seek(1, 2999, None).unwrap();
    assert_eq!(source.during(Duration::from_millis(300)), []);
    source.0.resume(1).unwrap();
    assert_eq!(offsets(&source.until_end(1), 1)[0], 2999);
}

#[test]
fn positions_committed_are_seen_in_the_group() {
    let Some(broker) = broker() else { return };
    let topic = new_topic(&broker.bootstrap, "group", 2, &[]);
    let mut group = GroupPositions::new(&settings(&broker.bootstrap), "positions").unwrap();
    for offset in 0..50 {
        let positions = [(topic.as_str(), 0, offset), (topic.as_str(), 1, offset * 2)];
        let deadline = Instant::now() + TIMEOUT;
        while let Err(error) = group.write(&positions, TIMEOUT) {
            // A coordinator that is not ready yet says so.
            assert!(error.is_retriable() && Instant::now() < deadline, "{error}");
        }
    }
    let admin = Admin::new(&settings(&broker.bootstrap)).unwrap();
    let committed = admin.committed("positions", TIMEOUT).unwrap();
    assert_eq!(committed, [(topic.clone(), 0, 49), (topic, 1, 98)]);
}

#[test]
fn a_group_with_members_refuses_positions() {
    let Some(broker) = broker() else { return };
    let topic = new_topic(&broker.bootstrap, "members", 1, &[]);
    commit_values(&broker.bootstrap, &topic, &numbers(3));
    let member: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &broker.bootstrap)
        .set("group.id", "members")
        .create()
        .unwrap();
    member.subscribe(&[&topic]).unwrap();
    let deadline = Instant::now() + TIMEOUT;
    while member.assignment().unwrap().count() == 0 {
        assert!(Instant::now() < deadline);
        let _ = member.poll(Duration::from_millis(50));
    }
    let mut group = GroupPositions::new(&settings(&broker.bootstrap), "members").unwrap();
    let error = group.write(&[(&topic, 0, 2)], TIMEOUT).unwrap_err();
    assert!(error.to_string().contains("group `members`"), "{error}");
}

#[test]
fn positions_that_no_broker_takes_time_out_again_and_again() {
    let mut group = GroupPositions::new(&settings("127.0.0.1:1"), "away").unwrap();
    for _ in 0..3 {
        let error = group.write(&[("t", 0, 1)], Duration::from_millis(300)).unwrap_err();
        assert!(error.is_retriable(), "{error}");
    }
}

#[test]
fn a_token_or_partition_is_assigned_once() {
    let mut source = Source::new("127.0.0.1:1", "twice");
    source.0.assign("t", 0, 0, None, 1).unwrap();
    assert!(source.0.assign("t", 1, 0, None, 1).unwrap_err().to_string().contains("token 1"));
    assert!(source.0.assign("t", 0, 0, None, 2).unwrap_err().to_string().contains("t/0"));
    source.0.unassign(1).unwrap();
    assert!(source.0.unassign(1).is_err());
    source.0.assign("t", 0, 0, None, 2).unwrap();
    assert_eq!(source.0.position(2), Some(0));
    assert_eq!(source.0.watermarks(2), None);
}

#[test]
fn an_unreachable_cluster_is_reported_as_trouble() {
    let mut source = Source::new("127.0.0.1:1", "unreachable");
    source.0.assign("t", 0, 0, None, 1).unwrap();
    let seen = source.until(|seen| seen.iter().any(|seen| matches!(seen, Seen::Trouble(_))));
    assert!(!seen.iter().any(|seen| matches!(seen, Seen::Lost(..))), "{seen:?}");
    let started = Instant::now();
    drop(source);
    assert!(started.elapsed() < Duration::from_secs(3));
}
