//! The embedded cluster with the product's own Kafka client: transactions commit, hide, abort and fence.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::collections::BTreeMap;
use std::time::Duration;

use kafka::{
    Admin, CommitError, Isolation, ProducerOptions, Settings, TransactionalProducer, read_partition,
};
use longhaul_lab::embedded::EmbeddedCluster;

const SOON: Duration = Duration::from_secs(20);

fn settings(cluster: &EmbeddedCluster) -> Settings {
    Settings { bootstrap: cluster.bootstrap(), properties: BTreeMap::new(), client_id: "test".to_owned() }
}

fn producer(cluster: &EmbeddedCluster) -> TransactionalProducer {
    let mut producer =
        TransactionalProducer::new(&settings(cluster), "lane-0", ProducerOptions::default()).unwrap();
    producer.init_transactions(SOON).unwrap();
    producer
}

fn produce(producer: &mut TransactionalProducer, values: &[&str]) {
    let topic = producer.topic("orders").unwrap();
    for (tag, value) in (0..).zip(values) {
        producer
            .produce(&topic, 0, 1_700_000_000_000, Some(b"key"), Some(value.as_bytes()), [], tag)
            .unwrap();
    }
    let mut delivered = 0;
    while delivered < values.len() {
        delivered += producer.deliveries(SOON, |delivery| {
            delivery.outcome.unwrap();
        });
    }
}

fn visible(cluster: &EmbeddedCluster) -> Vec<String> {
    let mut values = Vec::new();
    read_partition(&settings(cluster), "orders", 0, 0, Isolation::Committed, SOON, |record| {
        values.push(String::from_utf8(record.value.unwrap().to_vec()).unwrap());
    })
    .unwrap();
    values
}

#[test]
fn a_committed_transaction_is_seen_and_an_open_one_is_not() {
    let cluster = EmbeddedCluster::start("target").unwrap();
    assert!(cluster.create_topic("orders", 1));
    let mut producer = producer(&cluster);
    producer.begin().unwrap();
    produce(&mut producer, &["one", "two"]);
    assert_eq!(visible(&cluster), Vec::<String>::new());
    producer.commit(SOON).unwrap();
    assert_eq!(visible(&cluster), ["one", "two"]);
    producer.begin().unwrap();
    produce(&mut producer, &["three"]);
    assert_eq!(visible(&cluster), ["one", "two"]);
    assert!(cluster.end_offset("orders", 0) > Some(3));
}

#[test]
fn a_successor_fences_the_producer_and_ends_its_transaction() {
    let cluster = EmbeddedCluster::start("target").unwrap();
    cluster.create_topic("orders", 1);
    let mut first = producer(&cluster);
    first.begin().unwrap();
    produce(&mut first, &["never"]);
    let mut second = producer(&cluster);
    assert!(matches!(first.commit(SOON), Err(CommitError::Fenced)));
    second.begin().unwrap();
    produce(&mut second, &["once"]);
    second.commit(SOON).unwrap();
    assert_eq!(visible(&cluster), ["once"]);
}

#[test]
fn an_admin_client_finds_what_it_made() {
    let cluster = EmbeddedCluster::start("target-id").unwrap();
    let admin = Admin::new(&settings(&cluster)).unwrap();
    assert_eq!(admin.cluster_id(SOON).unwrap(), "target-id");
    admin.create_topic("progress", 4, -1, &[("cleanup.policy", "compact")], SOON).unwrap();
    let configs = admin.topic_configs("progress", SOON).unwrap();
    assert_eq!(configs["cleanup.policy"], "compact");
    assert_eq!(configs["min.insync.replicas"], "1");
    admin.create_partitions("progress", 6, SOON).unwrap();
    assert!(admin.create_partitions("progress", 6, SOON).is_err());
    let topic = admin.describe(&["progress"], SOON).unwrap().remove(0).unwrap();
    assert_eq!(topic.partitions.len(), 6);
    assert_eq!(Some(topic.id.0), cluster.topic_id("progress"));
    admin.delete_topic("progress", SOON).unwrap();
    assert_eq!(cluster.topic_id("progress"), None);
    assert!(admin.topic_configs("progress", SOON).is_err());
}

#[test]
fn clients_come_back_after_a_crash() {
    let cluster = EmbeddedCluster::start("target").unwrap();
    cluster.create_topic("orders", 1);
    let mut producer = producer(&cluster);
    producer.begin().unwrap();
    produce(&mut producer, &["one"]);
    cluster.crash();
    std::thread::sleep(Duration::from_millis(300));
    cluster.restart();
    producer.commit(SOON).unwrap();
    assert_eq!(visible(&cluster), ["one"]);
}

#[tokio::test]
async fn it_starts_and_ends_inside_a_runtime() {
    let cluster = EmbeddedCluster::start("target").unwrap();
    cluster.create_topic("orders", 1);
    drop(cluster);
}
