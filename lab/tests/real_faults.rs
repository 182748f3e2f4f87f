//! Proxy, loader and checker with real Apache Kafka: the hazards that the delivery rules are made for do happen here.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::collections::BTreeMap;
use std::time::Duration;

use kafka::{
    Admin, CommitError, Isolation, ProducerOptions, Settings, TransactionalProducer, read_partition,
};
use longhaul_lab::checker::{Check, LiveHistory};
use longhaul_lab::generator;
use longhaul_lab::kafka::{Cluster, ClusterOptions, Mechanism, Security, require_kafka};
use longhaul_lab::load::{LoadOptions, Transactions, create_topic, load};
use longhaul_lab::proxy::{Action, Proxy, Times};
use longhaul_lab::wire::ApiKey;

const SOON: Duration = Duration::from_secs(30);

fn at(bootstrap: &str) -> Settings {
    Settings { bootstrap: bootstrap.to_owned(), properties: BTreeMap::new(), client_id: "test".to_owned() }
}

fn behind_proxy(suite: &str) -> Option<(Proxy, Cluster)> {
    let installation = require_kafka(suite)?;
    let proxy = Proxy::bind(1).unwrap();
    let options = ClusterOptions::default().behind(proxy.addresses());
    let cluster = Cluster::start(&installation, options).unwrap();
    proxy.forward_to(cluster.proxied_addresses());
    create_topic(&at(&cluster.bootstrap()), "orders", 1, &[]).unwrap();
    Some((proxy, cluster))
}

fn producer(bootstrap: &str, count_end_txn: bool) -> TransactionalProducer {
    let options = ProducerOptions { count_end_txn, ..ProducerOptions::default() };
    let mut producer = TransactionalProducer::new(&at(bootstrap), "lane-0", options).unwrap();
    producer.init_transactions(SOON).unwrap();
    producer
}

fn produce(producer: &mut TransactionalProducer, values: &[&str]) {
    let topic = producer.topic("orders").unwrap();
    for (tag, value) in (0..).zip(values) {
        let timestamp = generator::now_ms();
        producer.produce(&topic, 0, timestamp, None, Some(value.as_bytes()), [], tag).unwrap();
    }
    let mut delivered = 0;
    while delivered < values.len() {
        delivered += producer.deliveries(SOON, |delivery| {
            delivery.outcome.unwrap();
        });
    }
}

fn visible(cluster: &Cluster) -> Vec<String> {
    let mut values = Vec::new();
    read_partition(&at(&cluster.bootstrap()), "orders", 0, 0, Isolation::Uncommitted, SOON, |record| {
        values.push(String::from_utf8(record.value.unwrap().to_vec()).unwrap());
    })
    .unwrap();
    values
}

#[test]
fn a_held_end_txn_commits_half_of_the_next_transaction() {
    let Some((proxy, cluster)) = behind_proxy("held EndTxn") else { return };
    let mut producer = producer(&proxy.bootstrap(), false);
    producer.begin().unwrap();
    produce(&mut producer, &["1-0"]);
    let held = proxy.hold_next(ApiKey::EndTxn);
    let committed = std::thread::spawn(move || {
        let outcome = producer.commit(SOON);
        (producer, outcome)
    });
    assert!(held.wait(SOON));
    held.cut_client();
    let (mut producer, outcome) = committed.join().unwrap();
    outcome.unwrap();
    producer.begin().unwrap();
    produce(&mut producer, &["2-0", "2-1"]);
    assert_eq!(visible_now(&cluster), ["1-0"]);
    assert_eq!(
        held.release().unwrap(),
        Some(0),
        "the broker takes the late EndTxn for the new transaction's"
    );
    drop(producer);
    assert_eq!(visible(&cluster), ["1-0", "2-0", "2-1"]);
}

/// To the last stable offset: an open transaction is not waited for.
fn visible_now(cluster: &Cluster) -> Vec<String> {
    let mut values = Vec::new();
    read_partition(&at(&cluster.bootstrap()), "orders", 0, 0, Isolation::Committed, SOON, |record| {
        values.push(String::from_utf8(record.value.unwrap().to_vec()).unwrap());
    })
    .unwrap();
    values
}

#[test]
fn a_commit_whose_answer_was_swallowed_is_not_called_clean() {
    let Some((proxy, cluster)) = behind_proxy("swallowed EndTxn answer") else { return };
    let mut producer = producer(&proxy.bootstrap(), true);
    producer.begin().unwrap();
    produce(&mut producer, &["once"]);
    let rule = proxy.on(ApiKey::EndTxn, Action::SwallowAnswer, Times::Next(1));
    let outcome = producer.commit(SOON);
    assert_eq!(rule.hits(), 1);
    assert!(matches!(outcome, Err(CommitError::Indefinite { .. })), "{outcome:?}");
    assert!(proxy.count(ApiKey::EndTxn) >= 2);
    assert_eq!(visible(&cluster), ["once"]);
}

#[test]
fn a_million_small_records_load_quickly_and_compare_clean() {
    let Some(installation) = require_kafka("load and check") else { return };
    let cluster = Cluster::start(&installation, ClusterOptions::default()).unwrap();
    let settings = at(&cluster.bootstrap());
    let count = if std::env::var_os("LONGHAUL_LAB_FULL").is_some() { 1_000_000 } else { 100_000 };
    let records = || generator::metrics(1, 1_700_000_000_000).take(count);
    create_topic(&settings, "metrics", 8, &[]).unwrap();
    create_topic(&settings, "metrics-copy", 8, &[]).unwrap();
    let options = LoadOptions { compression: "lz4".to_owned(), ..LoadOptions::default() };
    let plain = load(&settings, "metrics", records(), &options).unwrap();
    let transactions = Some(Transactions { records: 10_000, abort_one_in: Some(4) });
    let options = LoadOptions { compression: "zstd".to_owned(), transactions, ..LoadOptions::default() };
    let copied = load(&settings, "metrics-copy", records(), &options).unwrap();
    assert_eq!(plain.visible, copied.visible);
    assert!(copied.aborted > 0);
    let pair =
        longhaul_lab::checker::Pair { source: "metrics".to_owned(), target: "metrics-copy".to_owned() };
    let check = Check { pairs: vec![pair], others_at_target: vec!["metrics".to_owned()], ..Check::default() };
    let history = LiveHistory::at(&cluster.bootstrap());
    let started = std::time::Instant::now();
    let report = check.run(&history, &history).unwrap();
    println!("load {:?}, in transactions {:?}, check {:?}", plain.elapsed, copied.elapsed, started.elapsed());
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.records(), u64::try_from(count).unwrap());
}

#[test]
fn each_listener_takes_who_it_should_and_refuses_others() {
    let Some(installation) = require_kafka("SASL and TLS listeners") else { return };
    let kinds = [
        Security::Sasl { mechanism: Mechanism::Plain, tls: false },
        Security::Sasl { mechanism: Mechanism::ScramSha256, tls: true },
        Security::Sasl { mechanism: Mechanism::ScramSha512, tls: false },
        Security::Tls { mutual: true },
    ];
    for security in kinds {
        let options = ClusterOptions::default().security(security).user("ann", "secret of ann");
        let cluster = Cluster::start(&installation, options).unwrap();
        let topics = |properties: BTreeMap<String, String>| {
            let settings = Settings { properties, ..at(&cluster.bootstrap()) };
            Admin::new(&settings).unwrap().topics(Duration::from_secs(5))
        };
        let user = matches!(security, Security::Sasl { .. }).then_some("ann");
        let properties = cluster.client_properties(user);
        assert_eq!(topics(properties.clone()).unwrap(), [], "{security:?}");
        let mut wrong = properties;
        if user.is_some() {
            wrong.insert("sasl.password".to_owned(), "wrong".to_owned());
        } else {
            wrong.remove("ssl.certificate.location");
            wrong.remove("ssl.key.location");
        }
        assert!(topics(wrong).is_err(), "{security:?} let a stranger in");
    }
}

#[test]
fn only_what_an_acl_grants_is_allowed() {
    let Some(installation) = require_kafka("ACLs") else { return };
    let security = Security::Sasl { mechanism: Mechanism::Plain, tls: false };
    let options = ClusterOptions::default().security(security).user("ann", "a").user("admin", "b").acls();
    let cluster = Cluster::start(&installation, options).unwrap();
    let settings =
        |user| Settings { properties: cluster.client_properties(Some(user)), ..at(&cluster.bootstrap()) };
    create_topic(&settings("admin"), "orders", 1, &[]).unwrap();
    let load_as_ann = || {
        let records = generator::metrics(1, generator::now_ms()).take(10);
        load(&settings("ann"), "orders", records, &LoadOptions::default())
    };
    assert!(load_as_ann().is_err());
    let bootstrap = cluster.admin_bootstrap();
    let grant = ["--bootstrap-server", &bootstrap, "--add", "--allow-principal", "User:ann", "--producer"];
    let args: Vec<&str> = grant.into_iter().chain(["--topic", "orders"]).collect();
    let output = cluster.run_tool("org.apache.kafka.tools.AclCommand", &args, b"").unwrap();
    assert!(output.status.success(), "{output:?}");
    let deadline = std::time::Instant::now() + SOON;
    let loaded = loop {
        match load_as_ann() {
            Ok(loaded) => break loaded,
            Err(error) => assert!(std::time::Instant::now() < deadline, "{error:?}"),
        }
    };
    assert_eq!(loaded.visible, 10);
}
