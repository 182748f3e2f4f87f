//! MirrorMaker 2 of the same Apache Kafka, between the same brokers, in the same run: processor time can be compared only
//! where both had the same processor.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use longhaul_lab::kafka::Process;

use crate::programs::{usage, wait_with};
use crate::report::Mm2;
use crate::say;
use crate::site::{PARTITIONS, Site};

const CLASS: &str = "org.apache.kafka.connect.mirror.MirrorMaker";
/// Those of `connect-mirror-maker.sh`.
const JVM: [&str; 6] = [
    "-Xms256M",
    "-Xmx2G",
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    "-XX:InitiatingHeapOccupancyPercent=35",
    "-XX:+ExplicitGCInvokesConcurrent",
];
/// What one broker needs, and no connectors that move no records.
const COMMON: &str = "\
replication.factor = 1
checkpoints.topic.replication.factor = 1
heartbeats.topic.replication.factor = 1
offset-syncs.topic.replication.factor = 1
offset.storage.replication.factor = 1
status.storage.replication.factor = 1
config.storage.replication.factor = 1
sync.topic.acls.enabled = false
";
/// Large fetches and batches, eight tasks, zstd. `FROM` stands for the source's name.
const TUNED: &str = "\
tasks.max = 8
FROM.consumer.fetch.max.bytes = 16777216
FROM.consumer.max.partition.fetch.bytes = 8388608
FROM.consumer.receive.buffer.bytes = -1
FROM.consumer.max.poll.records = 5000
target.producer.batch.size = 1048576
target.producer.linger.ms = 100
target.producer.compression.type = zstd
target.producer.buffer.memory = 134217728
target.producer.max.request.size = 16777216
";
/// Records that are carried while its compiler warms up, in percent: they do not count.
const WARM_UP: i64 = 40;
const PATIENCE: Duration = Duration::from_secs(300);
const LOOK: Duration = Duration::from_millis(100);

/// Its settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tuning {
    /// As shipped: one task, no compression.
    Default,
    Tuned,
}

impl Tuning {
    /// The source's name: another one has offsets of its own, and a copy of its own.
    fn source(self) -> &'static str {
        match self {
            Self::Default => "shipped",
            Self::Tuned => "tuned",
        }
    }
}

/// Carries a topic with default and with tuned settings. The topic should last for some seconds after the warm-up.
pub(crate) fn measure(site: &Site, topic: &str, records: u64, bytes: u64) -> Result<[Mm2; 2]> {
    let one = |tuning| {
        let cost = carry(site, topic, tuning, i64::try_from(records)?, bytes as f64 / records as f64)?;
        say(&format!(
            "{topic}: MirrorMaker 2, {tuning:?}: {:.1} MB/s, {:.2} CPU s/GB",
            cost.bytes_per_second / 1e6,
            cost.cpu_per_gb
        ));
        Ok(cost)
    };
    one(Tuning::Default).and_then(|default| Ok([default, one(Tuning::Tuned)?]))
}

fn carry(site: &Site, topic: &str, tuning: Tuning, records: i64, bytes_each: f64) -> Result<Mm2> {
    let copy = format!("{}.{topic}", tuning.source());
    let (mut process, log) = start(site, topic, tuning)?;
    let carried = || {
        let all: Vec<i32> = (0..PARTITIONS).collect();
        // It does not exist before the first record.
        site.target_admin.ends(&copy, &all, PATIENCE).map_or(0, |ends| ends.iter().map(|it| it.lso).sum())
    };
    let wait = |enough: i64, process: &mut Process| {
        wait_with(&[&log], "MirrorMaker 2's copy", PATIENCE, || match carried() {
            now if now >= enough => Ok(Some(now)),
            now if !process.is_running() => {
                bail!("it ended with {now} of {records} records; see {}", log.display())
            }
            _ => {
                // Asking costs a little: not more often than can be seen in the result.
                std::thread::sleep(LOOK);
                Ok(None)
            }
        })
    };
    let first = wait(records * WARM_UP / 100, &mut process)?;
    let (started, before) = (Instant::now(), usage(process.id())?);
    let last = wait(records, &mut process)?;
    let (seconds, after) = (started.elapsed().as_secs_f64(), usage(process.id())?);
    process.kill();
    site.delete_copy(&copy)?;
    ensure!(last > first, "MirrorMaker 2 was done before its warm-up was seen: take more --seconds");
    let (carried, spent) = ((last - first) as f64, after.seconds() - before.seconds());
    Ok(Mm2 {
        bytes_per_second: carried * bytes_each / seconds,
        cpu_per_gb: spent / (carried * bytes_each) * 1e9,
        cpu_per_million: spent / carried * 1e6,
        peak_memory_bytes: after.peak_memory_bytes,
    })
}

fn start(site: &Site, topic: &str, tuning: Tuning) -> Result<(Process, PathBuf)> {
    let from = tuning.source();
    let folder = site.folder(&format!("{topic}-mm2-{from}"))?;
    let (file, log) = (folder.join("mm2.properties"), folder.join("mm2.log"));
    let (source, target) = (&site.source.bootstrap, &site.target.bootstrap);
    let tuned = if tuning == Tuning::Tuned { TUNED.replace("FROM", from) } else { String::new() };
    let pattern = topic.replace('.', r"\\.");
    let text = format!(
        "clusters = {from}, target\n{from}.bootstrap.servers = {source}\ntarget.bootstrap.servers = {target}\n\
         {from}->target.enabled = true\n{from}->target.topics = {pattern}\n{COMMON}{tuned}"
    );
    std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    let jvm = JVM.map(str::to_owned);
    let file = file.to_str().context("a path that is no text")?;
    Ok((site.installation.spawn(&jvm, CLASS, &[file], &log)?, log))
}
