//! Loader and checker together on embedded clusters: what was loaded is compared as a user would read it.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::collections::BTreeMap;

use kafka::Settings;
use longhaul_lab::checker::{Anomaly, Check, LiveHistory, Pair, group_offsets};
use longhaul_lab::embedded::EmbeddedCluster;
use longhaul_lab::generator::{self, TortureOptions};
use longhaul_lab::load::{LoadOptions, Loaded, Transactions, load};
use longhaul_lab::record::{Header, Record};

fn settings(cluster: &EmbeddedCluster) -> Settings {
    Settings { bootstrap: cluster.bootstrap(), properties: BTreeMap::new(), client_id: "test".to_owned() }
}

fn history(cluster: &EmbeddedCluster) -> LiveHistory {
    LiveHistory::at(&cluster.bootstrap())
}

fn fill(cluster: &EmbeddedCluster, topic: &str, records: Vec<Record>, options: &LoadOptions) -> Loaded {
    cluster.create_topic(topic, 3);
    load(&settings(cluster), topic, records.into_iter(), options).unwrap()
}

fn torture() -> Vec<Record> {
    let options = TortureOptions { large_one_in: 400, ..TortureOptions::default() };
    generator::torture(11, options).take(1000).collect()
}

#[test]
fn a_copy_made_in_other_batches_and_with_aborted_transactions_is_clean() {
    let (source, target) = (EmbeddedCluster::start("a").unwrap(), EmbeddedCluster::start("b").unwrap());
    let zstd = LoadOptions { compression: "zstd".to_owned(), ..LoadOptions::default() };
    let transactions = Transactions { records: 70, abort_one_in: Some(3) };
    let in_transactions = LoadOptions { transactions: Some(transactions), ..LoadOptions::default() };
    let records = torture();
    let plain = fill(&source, "orders", records.clone(), &zstd);
    let copied = fill(&target, "copy.orders", records, &in_transactions);
    assert_eq!((plain.visible, plain.aborted), (1000, 0));
    assert_eq!((copied.visible, copied.aborted), (1000, 4 * 70 + 20));
    assert_eq!(plain.visible_bytes, copied.visible_bytes);
    let pairs = vec![Pair { source: "orders".to_owned(), target: "copy.orders".to_owned() }];
    let check = Check { pairs, ..Check::default() };
    let report = check.run(&history(&source), &history(&target)).unwrap();
    assert!(report.is_clean(), "{report}");
    assert_eq!((report.records(), report.bytes()), (plain.visible, plain.visible_bytes));
    assert_eq!(report.topics[0].target_records, 1000);
}

#[test]
fn every_fault_planted_in_a_real_copy_is_named() {
    let (source, target) = (EmbeddedCluster::start("a").unwrap(), EmbeddedCluster::start("b").unwrap());
    let records: Vec<Record> =
        generator::changes(5, 1_700_000_000_000).take(900).map(|it| Record { partition: 0, ..it }).collect();
    fill(&source, "orders", records.clone(), &LoadOptions::default());
    let mut copy = records;
    copy.remove(700);
    copy.swap(600, 601);
    copy.insert(501, copy[500].clone());
    copy[400].timestamp += 1;
    copy[300].partition = 2;
    copy[200].headers.push(Header { name: "trace".to_owned(), value: None });
    copy.insert(100, Record { value: Some(b"alien".to_vec()), timestamp: 5, ..Record::default() });
    fill(&target, "orders", copy, &LoadOptions::default());
    target.create_topic("secrets", 1);
    let committed = BTreeMap::from([(("orders".to_owned(), 0), 900)]);
    let check = Check { committed, ..Check::of(&["orders"]) };
    let report = check.run(&history(&source), &history(&target)).unwrap();
    let expected = [
        (Anomaly::Lost, 1),
        (Anomaly::Repeated, 1),
        (Anomaly::Reordered, 1),
        (Anomaly::Changed, 3),
        (Anomaly::Foreign, 1),
        (Anomaly::Ungranted, 1),
        (Anomaly::OverCommit, 1),
    ];
    for (anomaly, count) in expected {
        assert_eq!(report.count(anomaly), count, "{anomaly}\n{report}");
    }
    for text in ["@ 700", "@ 400: timestamp", "@ 300: partition (now 2)", "@ 200: headers", "secrets"] {
        assert!(report.to_string().contains(text), "{text}\n{report}");
    }
}

#[test]
fn the_offsets_of_a_group_are_those_it_committed() {
    let cluster = EmbeddedCluster::start("a").unwrap();
    fill(&cluster, "orders", torture(), &LoadOptions::default());
    let mut positions = kafka::GroupPositions::new(&settings(&cluster), "exporter").unwrap();
    positions.write(&[("orders", 1, 42)], std::time::Duration::from_secs(10)).unwrap();
    let offsets = group_offsets(&settings(&cluster), "exporter", &["orders"]).unwrap();
    assert_eq!(offsets, BTreeMap::from([(("orders".to_owned(), 1), 42)]));
    assert_eq!(cluster.group_offset("exporter", "orders", 1), Some(42));
}

#[test]
fn loading_a_topic_that_is_not_there_says_so() {
    let cluster = EmbeddedCluster::start("a").unwrap();
    let records = generator::metrics(1, 0).take(1);
    let error = load(&settings(&cluster), "nowhere", records, &LoadOptions::default()).unwrap_err();
    assert_eq!(error.to_string(), "topic nowhere does not exist: create it first");
}
