//! The launcher against real Apache Kafka: what it starts answers, what it hurts is hurt, what it stops is gone.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::time::{Duration, Instant};

use longhaul_lab::kafka::{Cluster, ClusterOptions, require_kafka};

const TOPICS: &str = "org.apache.kafka.tools.TopicCommand";
const PRODUCER: &str = "org.apache.kafka.tools.ConsoleProducer";
const CONSUMER: &str = "org.apache.kafka.tools.consumer.ConsoleConsumer";

fn create_topic(cluster: &Cluster, name: &str, replicas: &str) {
    let bootstrap = cluster.admin_bootstrap();
    let args =
        ["--bootstrap-server", &bootstrap, "--create", "--topic", name, "--replication-factor", replicas];
    let output = cluster.run_tool(TOPICS, &args, b"").unwrap();
    assert!(output.status.success(), "{output:?}");
}

fn produce(cluster: &Cluster, topic: &str, lines: &str) {
    let bootstrap = cluster.admin_bootstrap();
    let args = ["--bootstrap-server", &bootstrap, "--topic", topic];
    let output = cluster.run_tool(PRODUCER, &args, lines.as_bytes()).unwrap();
    assert!(output.status.success(), "{output:?}");
}

fn consume(cluster: &Cluster, topic: &str, count: &str) -> String {
    let bootstrap = cluster.admin_bootstrap();
    let args =
        ["--bootstrap-server", &bootstrap, "--topic", topic, "--from-beginning", "--max-messages", count];
    let output = cluster.run_tool(CONSUMER, &args, b"").unwrap();
    assert!(output.status.success(), "{output:?}");
    output.stdout
}

#[test]
fn records_survive_a_killed_broker_that_comes_back_on_its_port() {
    let Some(installation) = require_kafka("launcher: one node") else { return };
    let cluster = Cluster::start(&installation, ClusterOptions::default()).unwrap();
    create_topic(&cluster, "orders", "1");
    produce(&cluster, "orders", "one\ntwo\n");
    let bootstrap = cluster.bootstrap();
    let first = cluster.process_id(1).unwrap();
    cluster.kill(1);
    assert_eq!(cluster.process_id(1), None);
    cluster.start_node(1).unwrap();
    assert_ne!(cluster.process_id(1), Some(first));
    assert_eq!(cluster.bootstrap(), bootstrap);
    produce(&cluster, "orders", "three\n");
    assert_eq!(consume(&cluster, "orders", "3"), "one\ntwo\nthree\n");
}

#[test]
fn three_nodes_go_on_without_one_and_take_it_back() {
    let Some(installation) = require_kafka("launcher: three nodes") else { return };
    let cluster = Cluster::start(&installation, ClusterOptions::nodes(3)).unwrap();
    create_topic(&cluster, "orders", "3");
    produce(&cluster, "orders", "one\n");
    cluster.kill(1);
    produce(&cluster, "orders", "two\n");
    cluster.start_node(1).unwrap();
    cluster.stop(2);
    assert_eq!(consume(&cluster, "orders", "2"), "one\ntwo\n");
}

#[test]
fn a_paused_node_stands_still_until_it_is_resumed() {
    let Some(installation) = require_kafka("launcher: pause") else { return };
    let cluster = Cluster::start(&installation, ClusterOptions::default()).unwrap();
    create_topic(&cluster, "orders", "1");
    cluster.pause(1);
    let started = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_secs(4));
            cluster.resume(1);
        });
        produce(&cluster, "orders", "late\n");
    });
    assert!(started.elapsed() >= Duration::from_secs(4), "a paused broker took a record");
    assert_eq!(consume(&cluster, "orders", "1"), "late\n");
}

#[test]
fn a_node_that_cannot_start_says_why() {
    let Some(installation) = require_kafka("launcher: bad properties") else { return };
    let options = ClusterOptions::default().property("log.retention.ms", "soon");
    let error = Cluster::start(&installation, options).unwrap_err().to_string();
    assert!(error.contains("log.retention.ms"), "{error}");
}
