//! Tools that are not ours at both ends: what Kafka's own VerifiableProducer says it wrote is what Kafka's own
//! VerifiableConsumer reads at the target, whatever happens on the way.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use lab::kafka::{Cluster, Process};
use longhaul_tests::bridge::{Bridge, PATIENCE, Pair, Turns, say, topic, wait_until};
use serde_json::Value;

static TURNS: Turns<Pair> = Turns::new();

/// A tool that prints a line of JSON for all it does.
struct Tool {
    process: Process,
    lines: std::path::PathBuf,
}

impl Tool {
    fn start(cluster: &Cluster, folder: &Path, class: &str, args: &[&str]) -> Self {
        let lines = folder.join(format!("{class}.log"));
        let bootstrap = cluster.bootstrap();
        let args = [&["--bootstrap-server", bootstrap.as_str()], args].concat();
        let class = format!("org.apache.kafka.tools.{class}");
        let process = cluster.installation().spawn(&[], &class, &args, &lines).unwrap();
        Self { process, lines }
    }

    /// What it printed so far of one kind, in order.
    fn said(&self, name: &str) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.lines).unwrap_or_default();
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line["name"] == name).collect()
    }

    /// SIGTERM, and waits until it has printed all.
    fn stop(&mut self) {
        self.process.terminate();
        assert!(wait_until(PATIENCE, || !self.process.is_running()), "{} does not end", self.lines.display());
    }
}

/// Values by partition, in the order of their offsets. A reader whose broker dies before it could commit is given the same
/// offsets again; two offsets with one value would be a repeat.
fn values(lines: &[Value]) -> BTreeMap<i64, Vec<String>> {
    let mut by_offset: BTreeMap<(i64, i64), String> = BTreeMap::new();
    for line in lines {
        let at = |key: &str| line[key].as_i64().unwrap();
        let value = line["value"].as_str().unwrap().to_owned();
        let before = by_offset.insert((at("partition"), at("offset")), value.clone());
        assert!(before.is_none_or(|before| before == value), "one offset, two records: {line}");
    }
    let mut values: BTreeMap<i64, Vec<String>> = BTreeMap::new();
    for ((partition, _), value) in by_offset {
        values.entry(partition).or_default().push(value);
    }
    values
}

/// by the words of others: each value once, in its partition, in the producer's order.
#[test]
fn what_the_verifiable_producer_wrote_is_what_the_verifiable_consumer_reads_whatever_is_killed() {
    let Some(pair) = TURNS.take("foreign tools") else { return };
    let name = "tools.numbers";
    topic(&pair.source.bootstrap(), name, 3);
    let mut bridge = Bridge::new(&pair, "tools", &[name]);
    let folder = bridge.ground.folder("kafka-tools");
    bridge.start();
    let writes = ["--topic", name, "--acks", "-1", "--throughput", "500"];
    let mut producer = Tool::start(&pair.source, &folder, "VerifiableProducer", &writes);
    assert!(
        wait_until(PATIENCE, || producer.said("producer_send_success").len() > 500),
        "nothing is written"
    );
    let made = || pair.target_admin().ends(name, &[0, 1, 2], PATIENCE).is_ok();
    assert!(wait_until(PATIENCE, made), "the target topic is not made");
    let reads = ["--topic", name, "--group-id", "readers", "--reset-policy", "earliest", "--verbose"];
    let committed = bridge.ground.path().join("consumer.properties");
    std::fs::write(&committed, "isolation.level=read_committed\n").unwrap();
    let reads = [&reads[..], &["--command-config", committed.to_str().unwrap()]].concat();
    let mut consumer = Tool::start(&pair.target, &folder, "VerifiableConsumer", &reads);
    let read = |consumer: &Tool| consumer.said("record_data");
    assert!(wait_until(PATIENCE, || read(&consumer).len() > 100), "nothing is read");

    bridge.exporter.kill();
    bridge.exporter.start();
    std::thread::sleep(Duration::from_secs(2));
    bridge.importer.kill();
    bridge.importer.start();
    std::thread::sleep(Duration::from_secs(3));
    pair.target.kill(1);
    pair.target.start_node(1).unwrap();
    std::thread::sleep(Duration::from_secs(2));

    producer.stop();
    let written = values(&producer.said("producer_send_success"));
    bridge.wait(&[name], PATIENCE);
    let all = wait_until(PATIENCE, || values(&read(&consumer)) == written);
    consumer.stop();
    let count = |values: &BTreeMap<i64, Vec<String>>| values.values().map(Vec::len).sum::<usize>();
    let read = values(&read(&consumer));
    say(format_args!("{} written, {} read", count(&written), count(&read)));
    assert!(all, "the consumer's records are not the producer's: {written:?} {read:?}");
    bridge.assert_exact(&[name]);
}
