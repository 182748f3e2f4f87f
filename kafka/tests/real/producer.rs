use std::{
    net::TcpListener,
    sync::PoisonError,
    time::{Duration, Instant},
};

use longhaul_kafka::{
    CommitError, Delivery, KafkaCode, ProduceError, ProducerOptions, TransactionError, TransactionalProducer,
};

use crate::{
    Header, Owned, TIMEOUT, abort_values, all_deliveries, broker::broker, new_producer, new_topic, now_ms,
    open_transaction, put, read_all, settings, values, wait_until,
};

fn header(name: &str, value: Option<&str>) -> Header {
    (name.into(), value.map(Into::into))
}

/// Records that each hold something easily lost.
fn difficult_records() -> Vec<Owned> {
    let some = |text: &str| Some(text.as_bytes().to_vec());
    let plain = Owned { timestamp: 1_700_000_000_000, ..Owned::default() };
    vec![
        Owned { key: None, value: None, ..plain.clone() },
        Owned { key: some(""), value: some(""), ..plain.clone() },
        Owned { key: None, value: some(""), ..plain.clone() },
        Owned { key: some("tombstone"), value: None, ..plain.clone() },
        Owned { value: some("a\0b"), key: Some(vec![0, 255, 128]), ..plain.clone() },
        Owned {
            value: some("headers"),
            headers: vec![
                header("twice", Some("1")),
                header("null", None),
                header("empty", Some("")),
                header("twice", Some("2")),
                header("", Some("no name")),
                header("twice", Some("1")),
                ("bytes".into(), Some(vec![0, 1, 0, 255])),
            ],
            ..plain.clone()
        },
        Owned {
            value: Some((0..900_000_u32).map(|i| (i.wrapping_mul(i) >> 7) as u8).collect()),
            ..plain.clone()
        },
        Owned { value: some("the first millisecond"), timestamp: 1, ..plain.clone() },
        Owned { value: some("ahead"), timestamp: now_ms() + 30 * 60 * 1000, ..plain },
    ]
}

#[test]
fn what_is_produced_comes_back_unchanged_and_where_the_reports_say() {
    let Some(broker) = broker() else { return };
    let topic = new_topic(&broker.bootstrap, "fidelity", 2, &[]);
    let mut producer = new_producer(&broker.bootstrap, &topic);
    let handle = producer.topic(&topic).unwrap();
    let mut expected = difficult_records();
    producer.begin().unwrap();
    for (tag, record) in expected.iter().enumerate() {
        let headers = record.headers.iter().map(|(name, value)| (name.as_slice(), value.as_deref()));
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        producer.produce(&handle, 1, record.timestamp, key, value, headers, tag as u64).unwrap();
    }
    let deliveries = all_deliveries(&mut producer);
    producer.commit(TIMEOUT).unwrap();
    for (offset, record) in expected.iter_mut().enumerate() {
        record.offset = offset as i64;
    }
    assert_eq!(read_all(&broker.bootstrap, &topic, 1), expected);
    assert_eq!(read_all(&broker.bootstrap, &topic, 0), []);
    let reported: Vec<_> = deliveries.iter().map(|d| (d.tag as i64, d.outcome)).collect();
    assert_eq!(reported, (0..expected.len() as i64).map(|n| (n, Ok(n))).collect::<Vec<_>>());
}

#[test]
fn offsets_reported_skip_the_markers_of_former_transactions() {
    let Some(broker) = broker() else { return };
    let topic = new_topic(&broker.bootstrap, "offsets", 1, &[]);
    let mut producer = new_producer(&broker.bootstrap, &topic);
    let handle = producer.topic(&topic).unwrap();
    let mut offsets = Vec::new();
    for round in 0..3 {
        producer.begin().unwrap();
        for tag in 0..2 {
            put(&mut producer, &handle, "x", round * 2 + tag);
        }
        // Reports that the commit drains are handed out after it.
        producer.commit(TIMEOUT).unwrap();
        producer.deliveries(Duration::ZERO, |delivery| offsets.push(delivery.outcome.unwrap()));
    }
    assert_eq!(offsets, [0, 1, 3, 4, 6, 7]);
    assert_eq!(producer.in_flight(), 0);
}

#[test]
fn a_zombie_fenced_amid_its_transaction_commits_nothing() {
    let Some(broker) = broker() else { return };
    let topic = new_topic(&broker.bootstrap, "zombie-amid", 1, &[]);
    let mut zombie = open_transaction(&broker.bootstrap, &topic, 3);
    let mut successor = new_producer(&broker.bootstrap, &topic);
    assert_eq!(zombie.commit(TIMEOUT), Err(CommitError::Fenced));
    assert_eq!(read_all(&broker.bootstrap, &topic, 0), []);
    let handle = successor.topic(&topic).unwrap();
    successor.begin().unwrap();
    put(&mut successor, &handle, "mine", 0);
    successor.commit(TIMEOUT).unwrap();
    assert_eq!(values(&read_all(&broker.bootstrap, &topic, 0)), ["mine"]);
}

#[test]
fn a_zombie_fenced_between_transactions_commits_nothing() {
    let Some(broker) = broker() else { return };
    let topic = new_topic(&broker.bootstrap, "zombie-between", 1, &[]);
    let mut zombie = new_producer(&broker.bootstrap, &topic);
    let handle = zombie.topic(&topic).unwrap();
    zombie.begin().unwrap();
    put(&mut zombie, &handle, "before", 0);
    zombie.commit(TIMEOUT).unwrap();
    let _successor = new_producer(&broker.bootstrap, &topic);
    zombie.begin().unwrap();
    put(&mut zombie, &handle, "after", 1);
    let error = zombie.commit(TIMEOUT).unwrap_err();
    assert_eq!(error, CommitError::Fenced);
    assert!(matches!(zombie.begin(), Err(TransactionError::Fenced { .. })));
    assert_eq!(values(&read_all(&broker.bootstrap, &topic, 0)), ["before"]);
}

#[test]
fn a_transaction_that_timed_out_at_the_broker_is_fenced_and_a_new_producer_goes_on() {
    let Some(broker) = broker() else { return };
    let topic = new_topic(&broker.bootstrap, "timed-out", 1, &[]);
    let options =
        ProducerOptions { transaction_timeout: Duration::from_secs(2), ..ProducerOptions::default() };
    let mut producer = TransactionalProducer::new(&settings(&broker.bootstrap), &topic, options).unwrap();
    producer.init_transactions(TIMEOUT).unwrap();
    let handle = producer.topic(&topic).unwrap();
    producer.begin().unwrap();
    put(&mut producer, &handle, "late", 0);
    assert!(all_deliveries(&mut producer)[0].outcome.is_ok());
    // The coordinator looks for transactions that are over time every 10 s.
    let ended = || {
        let ends = longhaul_kafka::reader::ends(&settings(&broker.bootstrap), &topic, &[0], TIMEOUT).unwrap();
        ends[0].lso == 2
    };
    wait_until(ended);
    assert_eq!(producer.commit(TIMEOUT), Err(CommitError::Fenced));
    let mut successor = new_producer(&broker.bootstrap, &topic);
    successor.begin().unwrap();
    let handle = successor.topic(&topic).unwrap();
    put(&mut successor, &handle, "again", 0);
    successor.commit(TIMEOUT).unwrap();
    assert_eq!(values(&read_all(&broker.bootstrap, &topic, 0)), ["again"]);
}

#[test]
fn a_record_that_is_too_large_is_refused_by_its_tag() {
    let Some(broker) = broker() else { return };
    let topic = new_topic(&broker.bootstrap, "too-large", 1, &[("max.message.bytes", "10000")]);
    let options = ProducerOptions { batch_size: 10_000, ..ProducerOptions::default() };
    let mut producer = TransactionalProducer::new(&settings(&broker.bootstrap), &topic, options).unwrap();
    producer.init_transactions(TIMEOUT).unwrap();
    let handle = producer.topic(&topic).unwrap();
    producer.begin().unwrap();
    put(&mut producer, &handle, "small", 1);
    put(&mut producer, &handle, &"x".repeat(50_000), 2);
    put(&mut producer, &handle, "small too", 3);
    // What follows the refused record is held back and never reported on.
    let mut deliveries = Vec::new();
    while producer.failed().is_none() {
        producer.deliveries(Duration::from_millis(10), |delivery| deliveries.push(delivery));
    }
    assert_eq!(refused_tags(&deliveries), [(2, KafkaCode::MESSAGE_TOO_LARGE)]);
    assert!(matches!(producer.commit(TIMEOUT), Err(CommitError::Abortable { .. })));
    drop(new_producer(&broker.bootstrap, &topic));
    assert_eq!(read_all(&broker.bootstrap, &topic, 0), []);
}

#[test]
fn a_record_from_the_future_is_refused_by_its_tag() {
    let Some(broker) = broker() else { return };
    let topic = new_topic(&broker.bootstrap, "future", 1, &[]);
    let mut producer = new_producer(&broker.bootstrap, &topic);
    let handle = producer.topic(&topic).unwrap();
    let three_days = 3 * 24 * 3600 * 1000;
    producer.begin().unwrap();
    for (tag, ahead) in [(1, 0), (2, three_days), (3, 0)] {
        producer.produce(&handle, 0, now_ms() + ahead, None, Some(b"x"), [], tag).unwrap();
    }
    let deliveries = all_deliveries(&mut producer);
    assert_eq!(refused_tags(&deliveries), [(2, KafkaCode::INVALID_TIMESTAMP)]);
    let error = producer.commit(TIMEOUT).unwrap_err();
    assert_eq!(error, CommitError::Abortable { code: KafkaCode::INVALID_TIMESTAMP });
    // Its neighbours go through in the next attempt.
    let mut again = new_producer(&broker.bootstrap, &topic);
    let handle = again.topic(&topic).unwrap();
    again.begin().unwrap();
    put(&mut again, &handle, "1", 1);
    put(&mut again, &handle, "3", 3);
    again.commit(TIMEOUT).unwrap();
    assert_eq!(values(&read_all(&broker.bootstrap, &topic, 0)), ["1", "3"]);
}

fn refused_tags(deliveries: &[Delivery]) -> Vec<(u64, KafkaCode)> {
    let refused = |d: &Delivery| d.outcome.err().filter(|code| code.is_refusal()).map(|code| (d.tag, code));
    deliveries.iter().filter_map(refused).collect()
}

#[test]
fn a_missing_topic_is_reported_and_not_created() {
    let Some(broker) = broker() else { return };
    let mut settings = settings(&broker.bootstrap);
    settings.properties.insert("topic.metadata.propagation.max.ms".into(), "500".into());
    let mut producer =
        TransactionalProducer::new(&settings, "missing-topic", ProducerOptions::default()).unwrap();
    producer.init_transactions(TIMEOUT).unwrap();
    let handle = producer.topic("missing-topic").unwrap();
    producer.begin().unwrap();
    // The first record may still be taken, before the topic is known to be missing.
    let taken = producer.produce(&handle, 0, now_ms(), None, None, [], 7);
    let code = match taken {
        Ok(()) => all_deliveries(&mut producer)[0].outcome.unwrap_err(),
        Err(ProduceError::Refused(code)) => code,
        Err(error) => panic!("{error}"),
    };
    assert!(code.is_unknown_topic() && code.is_refusal(), "{code}");
    let admin = longhaul_kafka::Admin::new(&settings).unwrap();
    assert!(admin.topics(TIMEOUT).unwrap().iter().all(|topic| topic.name != "missing-topic"));
}

#[test]
fn a_clean_commit_sends_end_txn_once_and_an_empty_one_never() {
    let Some(broker) = broker() else { return };
    let topic = new_topic(&broker.bootstrap, "end-txn", 1, &[]);
    let mut producer = new_producer(&broker.bootstrap, &topic);
    let handle = producer.topic(&topic).unwrap();
    for tag in 0..3 {
        producer.begin().unwrap();
        put(&mut producer, &handle, "x", tag);
        producer.commit(TIMEOUT).unwrap();
        assert_eq!(producer.end_txn_sends(), 1);
        producer.begin().unwrap();
        producer.commit(TIMEOUT).unwrap();
        assert_eq!(producer.end_txn_sends(), 0);
    }
}

#[test]
fn a_commit_that_needed_a_second_end_txn_is_no_success() {
    let Some(broker) = broker() else { return };
    for count_end_txn in [true, false] {
        let proxy = broker.proxy.lock().unwrap_or_else(PoisonError::into_inner);
        let topic = new_topic(&broker.bootstrap, "resent", 1, &[]);
        let options = ProducerOptions { count_end_txn, ..ProducerOptions::default() };
        let mut producer = TransactionalProducer::new(&settings(&proxy.address), &topic, options).unwrap();
        producer.init_transactions(TIMEOUT).unwrap();
        let handle = producer.topic(&topic).unwrap();
        producer.begin().unwrap();
        put(&mut producer, &handle, "once", 0);
        proxy.swallow_next_end_txn();
        let result = producer.commit(TIMEOUT);
        assert!(proxy.has_swallowed());
        // The second is answered CONCURRENT_TRANSACTIONS until the first has been carried out, and sent again.
        let sends = producer.end_txn_sends();
        assert!(sends >= 2, "{sends}");
        let open = Err(CommitError::Indefinite { sends, code: KafkaCode::NONE });
        assert_eq!(result, if count_end_txn { open } else { Ok(()) });
        assert_eq!(values(&read_all(&broker.bootstrap, &topic, 0)), ["once"]);
    }
}

#[test]
fn a_full_queue_takes_the_record_again_after_deliveries() {
    let Some(broker) = broker() else { return };
    let topic = new_topic(&broker.bootstrap, "full", 1, &[]);
    let options = ProducerOptions { queue_bytes: 1024 * 1024, ..ProducerOptions::default() };
    let mut producer = TransactionalProducer::new(&settings(&broker.bootstrap), &topic, options).unwrap();
    producer.init_transactions(TIMEOUT).unwrap();
    let handle = producer.topic(&topic).unwrap();
    let value = vec![7; 100_000];
    let (mut full, mut delivered) = (0, 0);
    producer.begin().unwrap();
    for tag in 0..50 {
        while let Err(error) = producer.produce(&handle, 0, 1, None, Some(&value), [], tag) {
            assert_eq!(error, ProduceError::QueueFull);
            full += 1;
            producer.deliveries(Duration::from_millis(100), |_| delivered += 1);
        }
    }
    producer.commit(TIMEOUT).unwrap();
    delivered += producer.deliveries(Duration::ZERO, |_| {});
    assert!(full > 0);
    assert_eq!(delivered, 50);
    assert_eq!(read_all(&broker.bootstrap, &topic, 0).len(), 50);
}

#[test]
fn a_transaction_dropped_open_stays_open_until_the_successor_ends_it() {
    let Some(broker) = broker() else { return };
    let topic = new_topic(&broker.bootstrap, "dropped", 1, &[]);
    let open = open_transaction(&broker.bootstrap, &topic, 4);
    drop(open);
    let ends =
        || longhaul_kafka::reader::ends(&settings(&broker.bootstrap), &topic, &[0], TIMEOUT).unwrap()[0];
    assert_eq!((ends().lso, ends().hw), (0, 4));
    drop(new_producer(&broker.bootstrap, &topic));
    // The marker of the abort.
    assert_eq!((ends().lso, ends().hw), (5, 5));
    assert_eq!(read_all(&broker.bootstrap, &topic, 0), []);
    abort_values(&broker.bootstrap, &topic, 1);
    assert_eq!(read_all(&broker.bootstrap, &topic, 0), []);
}

#[test]
fn dropping_never_waits_for_a_broker_that_says_nothing() {
    // Takes connections and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let options = ProducerOptions::default();
    let mut producer = TransactionalProducer::new(&settings(&address), "silent", options).unwrap();
    let started = Instant::now();
    let error = producer.init_transactions(Duration::from_millis(300)).unwrap_err();
    assert!(matches!(error, TransactionError::Passing { .. }), "{error}");
    drop(producer);
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[test]
#[should_panic(expected = "belongs to another producer")]
fn a_topic_handle_of_another_producer_is_noticed() {
    let options = ProducerOptions::default();
    let settings = settings("127.0.0.1:1");
    let mut one = TransactionalProducer::new(&settings, "one", options.clone()).unwrap();
    let mut other = TransactionalProducer::new(&settings, "other", options).unwrap();
    let handle = one.topic("t").unwrap();
    let _ = other.produce(&handle, 0, 1, None, None, [], 0);
}

#[test]
fn batches_that_are_not_full_do_not_wait_for_it() {
    const TRANSACTIONS: usize = 20;
    let Some(broker) = broker() else { return };
    let topic = new_topic(&broker.bootstrap, "push", 3, &[]);
    let mut producer = new_producer(&broker.bootstrap, &topic);
    let handle = producer.topic(&topic).unwrap();
    let started = Instant::now();
    for _ in 0..TRANSACTIONS {
        producer.begin().unwrap();
        // In the first partition some requests go one after the other, and the last batch is not full.
        for tag in 0..25 {
            producer.produce(&handle, 0, now_ms(), None, Some(&[7; 100_000]), [], tag).unwrap();
        }
        for partition in [1, 2] {
            producer.produce(&handle, partition, now_ms(), None, Some(b"small"), [], 99).unwrap();
        }
        assert_eq!(all_deliveries(&mut producer).len(), 27);
        producer.commit(TIMEOUT).unwrap();
    }
    // A batch would wait for a second, of all that a transaction takes.
    assert!(started.elapsed() < Duration::from_secs(1) * TRANSACTIONS as u32 / 2, "{:?}", started.elapsed());
}
