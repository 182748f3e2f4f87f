use std::time::{Duration, Instant};

use longhaul_kafka::{Admin, Error, Isolation, KafkaCode};

use crate::{TIMEOUT, broker::broker, commit_values, new_producer, new_topic, settings, settle, wait_until};

#[test]
fn a_topic_is_created_described_grown_configured_and_deleted() {
    let Some(broker) = broker() else { return };
    let admin = Admin::new(&settings(&broker.bootstrap)).unwrap();
    admin.create_topic("life", 2, -1, &[("cleanup.policy", "compact")], TIMEOUT).unwrap();
    let again = admin.create_topic("life", 2, -1, &[], TIMEOUT).unwrap_err();
    assert_eq!(again.code(), Some(KafkaCode::TOPIC_ALREADY_EXISTS));
    assert!(again.to_string().contains("create topic `life`"), "{again}");

    wait_until(|| admin.describe(&["life"], TIMEOUT).unwrap()[0].is_ok());
    let described = admin.describe(&["no-such-topic", "life"], TIMEOUT).unwrap();
    assert_eq!(described[0], Err(("no-such-topic".to_owned(), KafkaCode::UNKNOWN_TOPIC_OR_PARTITION)));
    let topic = described[1].as_ref().unwrap();
    assert_eq!((topic.name.as_str(), topic.partitions.len()), ("life", 2));
    assert_eq!(topic.partitions[1].leader, Some(1));
    assert_eq!((&topic.partitions[1].replicas, &topic.partitions[1].isr), (&vec![1], &vec![1]));

    admin.create_partitions("life", 5, TIMEOUT).unwrap();
    assert!(admin.create_partitions("life", 3, TIMEOUT).is_err());
    wait_until(|| admin.describe(&["life"], TIMEOUT).unwrap()[0].as_ref().unwrap().partitions.len() == 5);
    let partitions = |name: &str| {
        let topics = admin.topics(TIMEOUT).unwrap();
        topics.into_iter().find(|topic| topic.name == name).map(|topic| topic.partitions)
    };
    assert_eq!(partitions("life"), Some(5));

    let configs = admin.topic_configs("life", TIMEOUT).unwrap();
    assert_eq!(configs["cleanup.policy"], "compact");
    assert!(configs["max.message.bytes"].parse::<u64>().unwrap() > 1_000_000);
    assert!(admin.topic_configs("no-such-topic", TIMEOUT).is_err());

    admin.delete_topic("life", TIMEOUT).unwrap();
    let gone = admin.delete_topic("life", TIMEOUT).unwrap_err();
    assert_eq!(gone.code(), Some(KafkaCode::UNKNOWN_TOPIC_OR_PARTITION));
    // Asking for a missing topic did not create it.
    assert_eq!(partitions("no-such-topic"), None);
}

#[test]
fn a_recreated_topic_has_another_id() {
    let Some(broker) = broker() else { return };
    let admin = Admin::new(&settings(&broker.bootstrap)).unwrap();
    let id = || {
        // The broker hears of a change a moment after the controller made it.
        let describe = || admin.describe(&["reborn"], TIMEOUT).unwrap()[0].clone();
        wait_until(|| describe().is_ok());
        describe().unwrap().id
    };
    admin.create_topic("reborn", 1, 1, &[], TIMEOUT).unwrap();
    let first = id();
    assert_eq!(first, id());
    admin.delete_topic("reborn", TIMEOUT).unwrap();
    wait_until(|| admin.describe(&["reborn"], TIMEOUT).unwrap()[0].is_err());
    admin.create_topic("reborn", 1, 1, &[], TIMEOUT).unwrap();
    assert_ne!(first, id());
    assert_eq!(first.to_string().len(), 22);
}

#[test]
fn the_cluster_tells_its_id_and_its_brokers() {
    let Some(broker) = broker() else { return };
    let admin = Admin::new(&settings(&broker.bootstrap)).unwrap();
    assert_eq!(admin.cluster_id(TIMEOUT).unwrap(), "AAAAAAAAAAAAAAAAAAAAAA");
    assert_eq!(admin.brokers(TIMEOUT).unwrap(), 1);
}

#[test]
fn offsets_are_found_by_end_and_by_time() {
    let Some(broker) = broker() else { return };
    let topic = new_topic(&broker.bootstrap, "by-time", 1, &[]);
    let mut producer = new_producer(&broker.bootstrap, &topic);
    let handle = producer.topic(&topic).unwrap();
    producer.begin().unwrap();
    for tag in 0..10 {
        let timestamp = 1_700_000_000_000 + 1000 * tag as i64;
        producer.produce(&handle, 0, timestamp, None, None, [], tag).unwrap();
    }
    producer.commit(TIMEOUT).unwrap();
    settle(&broker.bootstrap, &topic);
    let admin = Admin::new(&settings(&broker.bootstrap)).unwrap();
    assert_eq!(admin.offsets(&topic, 0, Isolation::Committed, TIMEOUT).unwrap(), (0, 11));
    let at = |time| admin.offset_for_time(&topic, 0, time, TIMEOUT).unwrap();
    assert_eq!(at(0), Some(0));
    assert_eq!(at(1_700_000_003_500), Some(4));
    assert_eq!(at(1_700_000_009_000), Some(9));
    assert_eq!(at(1_800_000_000_000), None);
    assert_eq!(admin.delete_records(&topic, 0, 6, TIMEOUT).unwrap(), 6);
    assert_eq!(admin.offsets(&topic, 0, Isolation::Uncommitted, TIMEOUT).unwrap(), (6, 11));
    let error = admin.offsets(&topic, 7, Isolation::Committed, TIMEOUT).unwrap_err();
    assert!(error.to_string().contains(&format!("{topic}/7")), "{error}");
}

#[test]
fn an_unreachable_cluster_costs_the_timeout_and_no_more() {
    let admin = Admin::new(&settings("127.0.0.1:1")).unwrap();
    let timeout = Duration::from_millis(400);
    let started = Instant::now();
    for error in [
        admin.describe(&["t"], timeout).unwrap_err(),
        admin.topics(timeout).unwrap_err(),
        admin.cluster_id(timeout).unwrap_err(),
        admin.offsets("t", 0, Isolation::Committed, timeout).unwrap_err(),
        admin.committed("g", timeout).unwrap_err(),
    ] {
        assert!(error.is_retriable(), "{error}");
        assert!(matches!(error, Error::Timeout { .. } | Error::Call { .. }), "{error}");
    }
    drop(admin);
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
}

#[test]
fn a_group_without_positions_has_none() {
    let Some(broker) = broker() else { return };
    let topic = new_topic(&broker.bootstrap, "no-group", 1, &[]);
    commit_values(&broker.bootstrap, &topic, &["x"]);
    let admin = Admin::new(&settings(&broker.bootstrap)).unwrap();
    assert_eq!(admin.committed("nobody", TIMEOUT).unwrap(), []);
}

/// The broker creates topics that clients ask about: a sign of life asks about none, whatever was asked before.
#[test]
fn a_sign_of_life_brings_no_deleted_topic_back() {
    let Some(broker) = broker() else { return };
    let [admin, other] = [(); 2].map(|()| Admin::new(&settings(&broker.bootstrap)).unwrap());
    let topic = new_topic(&broker.bootstrap, "pinged", 1, &[]);
    settle(&broker.bootstrap, &topic);
    admin.ends(&topic, &[0], TIMEOUT).unwrap();
    other.delete_topic(&topic, TIMEOUT).unwrap();
    let is_there = || other.topics(TIMEOUT).unwrap().iter().any(|found| found.name == topic);
    wait_until(|| !is_there());
    for _ in 0..3 {
        // It learns that there is none, and remembers that for a moment.
        assert!(admin.ends(&topic, &[0], Duration::from_secs(1)).is_err());
        admin.ping(TIMEOUT).unwrap();
    }
    std::thread::sleep(Duration::from_millis(500));
    assert!(!is_there(), "it was created by a question");
}
