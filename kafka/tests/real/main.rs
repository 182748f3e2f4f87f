//! The Kafka client against a real Apache Kafka: one KRaft node, started once for all tests here.
#![allow(clippy::unwrap_used, clippy::print_stderr)] // helpers of tests are tests

mod admin;
mod broker;
mod producer;
mod proxy;
mod reader;
mod source;

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use longhaul_kafka::{
    Admin, Delivery, ProducerOptions, Settings, TopicHandle, TransactionalProducer, read_partition,
};

pub(crate) const TIMEOUT: Duration = Duration::from_secs(30);

/// One header: name and value.
pub(crate) type Header = (Vec<u8>, Option<Vec<u8>>);

/// A record taken out of librdkafka's hands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Owned {
    pub(crate) offset: i64,
    pub(crate) timestamp: i64,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<Header>,
}

impl From<longhaul_kafka::Record<'_>> for Owned {
    fn from(record: longhaul_kafka::Record<'_>) -> Self {
        Self {
            offset: record.offset,
            timestamp: record.timestamp,
            key: record.key.map(Into::into),
            value: record.value.map(Into::into),
            headers: record.headers().map(|(name, value)| (name.to_vec(), value.map(Into::into))).collect(),
        }
    }
}

pub(crate) fn settings(bootstrap: &str) -> Settings {
    Settings { bootstrap: bootstrap.into(), properties: BTreeMap::new(), client_id: "test".into() }
}

/// Creates a topic of a name that no other test has.
pub(crate) fn new_topic(bootstrap: &str, name: &str, partitions: i32, configs: &[(&str, &str)]) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = format!("{name}-{}", COUNT.fetch_add(1, Ordering::Relaxed));
    let admin = Admin::new(&settings(bootstrap)).unwrap();
    admin.create_topic(&name, partitions, 1, configs, TIMEOUT).unwrap();
    name
}

pub(crate) fn new_producer(bootstrap: &str, id: &str) -> TransactionalProducer {
    let mut producer =
        TransactionalProducer::new(&settings(bootstrap), id, ProducerOptions::default()).unwrap();
    producer.init_transactions(TIMEOUT).unwrap();
    producer
}

pub(crate) fn now_ms() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64
}

/// Queues a record with a value only.
pub(crate) fn put(producer: &mut TransactionalProducer, topic: &TopicHandle, value: &str, tag: u64) {
    producer.produce(topic, 0, now_ms(), None, Some(value.as_bytes()), [], tag).unwrap();
}

/// Commits values to partition 0 of `topic`, in one transaction; the producer's id is the topic's name.
pub(crate) fn commit_values<V: AsRef<str>>(bootstrap: &str, topic: &str, values: &[V]) {
    let mut producer = new_producer(bootstrap, topic);
    let handle = producer.topic(topic).unwrap();
    producer.begin().unwrap();
    for (tag, value) in values.iter().enumerate() {
        put(&mut producer, &handle, value.as_ref(), tag as u64);
    }
    producer.commit(TIMEOUT).unwrap();
    settle(bootstrap, topic);
}

/// Waits until no transaction is open: markers are written after a commit has been answered.
pub(crate) fn settle(bootstrap: &str, topic: &str) {
    wait_until(|| {
        let ends = longhaul_kafka::reader::ends(&settings(bootstrap), topic, &[0], TIMEOUT).unwrap()[0];
        ends.lso == ends.hw
    });
}

pub(crate) fn wait_until(mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + TIMEOUT;
    while !done() {
        assert!(Instant::now() < deadline, "waited in vain");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Leaves `count` records of an aborted transaction in partition 0 of `topic`.
pub(crate) fn abort_values(bootstrap: &str, topic: &str, count: usize) {
    let open = open_transaction(bootstrap, topic, count);
    drop(open);
    // The successor ends what the first one left open.
    drop(new_producer(bootstrap, topic));
}

/// A producer whose open transaction holds `count` records in partition 0 of `topic`.
pub(crate) fn open_transaction(bootstrap: &str, topic: &str, count: usize) -> TransactionalProducer {
    let mut producer = new_producer(bootstrap, topic);
    let handle = producer.topic(topic).unwrap();
    producer.begin().unwrap();
    for tag in 0..count {
        put(&mut producer, &handle, "open", tag as u64);
    }
    assert!(all_deliveries(&mut producer).iter().all(|delivery| delivery.outcome.is_ok()));
    producer
}

/// Waits until all records queued are reported on.
pub(crate) fn all_deliveries(producer: &mut TransactionalProducer) -> Vec<Delivery> {
    let deadline = Instant::now() + TIMEOUT;
    let mut deliveries = Vec::new();
    while producer.in_flight() > 0 {
        assert!(Instant::now() < deadline, "{} records without a report", producer.in_flight());
        producer.deliveries(Duration::from_millis(10), |delivery| deliveries.push(delivery));
    }
    deliveries
}

/// All committed records of a partition, once no transaction is open.
pub(crate) fn read_all(bootstrap: &str, topic: &str, partition: i32) -> Vec<Owned> {
    let mut records = Vec::new();
    let end = longhaul_kafka::Isolation::Uncommitted;
    read_partition(&settings(bootstrap), topic, partition, 0, end, TIMEOUT, |record| {
        records.push(record.into());
    })
    .unwrap_or_else(|error| {
        let ends = longhaul_kafka::reader::ends(&settings(bootstrap), topic, &[partition], TIMEOUT);
        panic!("{error}; the ends are {ends:?}")
    });
    records
}

pub(crate) fn values(records: &[Owned]) -> Vec<String> {
    records.iter().map(|r| String::from_utf8(r.value.clone().unwrap()).unwrap()).collect()
}
