//! What a topic costs on the link whose records come one by one, as a running system writes them.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use anyhow::Result;
use longhaul_lab::generator::now_ms;
use longhaul_lab::load::{LoadOptions, load};
use longhaul_lab::pace::Paced;
use longhaul_lab::record::Record;
use longhaul_lab::topicfile::TopicFile;
use serde_json::{Value, json};

use crate::programs::{Levels, Programs, wait_for};
use crate::report::round;
use crate::say;
use crate::site::Site;

const PATIENCE: Duration = Duration::from_secs(60);
/// Records a second, over all partitions.
const RATE: u32 = 2000;
/// A longer file is cut.
const MOST_SECONDS: u32 = 60;
/// The programs look at their counters once a second.
const SETTLE: Duration = Duration::from_millis(2500);

/// One topic, from its first record to its last: nothing was known of its records before.
pub(crate) struct Outcome {
    name: String,
    records: u64,
    /// Of keys and values.
    bytes: u64,
    /// What each end put on the wire, by cause, IP and UDP headers included.
    sent: [Vec<(String, u64)>; 2],
    levels: Levels,
}

/// Carries the records of a file at a steady rate.
pub(crate) fn measure(site: &Site, file: &Path) -> Result<Outcome> {
    let records = TopicFile::open(file, now_ms())?;
    let name = records.topic();
    let records: Vec<Record> = records.take((RATE * MOST_SECONDS) as usize).collect::<Result<_, _>>()?;
    say(&format!("{name}: {} records, {RATE} a second", records.len()));
    let topic = format!("paced.{name}");
    site.create_topic(&topic)?;
    let mut programs = Programs::new(site, &topic, &[&topic])?;
    programs.start()?;
    let delivered = |programs: &Programs<'_>| {
        // It does not answer before it is up.
        let status = programs.exporter.status().unwrap_or_default();
        let flowing = status["partitions"].as_array().is_some_and(|all| {
            !all.is_empty() && all.iter().all(|partition| partition["state"] == "flowing")
        });
        flowing.then(|| status["records"].as_u64().unwrap_or(0))
    };
    wait_for(&programs, "the opening of all partitions", PATIENCE, || Ok(delivered(&programs)))?;
    std::thread::sleep(SETTLE);
    let before = sent(&programs)?;
    let options = LoadOptions { at_once: 1, ..LoadOptions::default() };
    let mut levels = Levels::default();
    let loaded = std::thread::scope(|scope| {
        let paced = Paced::new(records.into_iter(), f64::from(RATE), Arc::new(AtomicU64::new(0)));
        let feeder = scope.spawn(|| load(&site.source, &topic, paced, &options));
        while !feeder.is_finished() {
            std::thread::sleep(LOOK);
            levels.look(&programs.exporter)?;
        }
        feeder.join().map_err(|_| anyhow::anyhow!("the load panicked"))?.map_err(anyhow::Error::from)
    })?;
    wait_for(&programs, "the last record", PATIENCE, || {
        Ok(delivered(&programs).filter(|records| *records >= loaded.visible))
    })?;
    std::thread::sleep(SETTLE);
    let mut sent = sent(&programs)?;
    programs.stop();
    for (after, before) in sent.iter_mut().zip(before) {
        for (cause, bytes) in after.iter_mut() {
            let earlier = before.iter().find(|(other, _)| other == cause);
            *bytes -= earlier.map_or(0, |(_, bytes)| *bytes);
        }
        after.retain(|(_, bytes)| *bytes > 0);
    }
    Ok(Outcome { name, records: loaded.visible, bytes: loaded.visible_bytes, sent, levels })
}

const LOOK: Duration = Duration::from_millis(100);

fn sent(programs: &Programs<'_>) -> Result<[Vec<(String, u64)>; 2]> {
    Ok([programs.exporter.link_bytes()?, programs.importer.link_bytes()?])
}

impl Outcome {
    fn total(&self, side: usize) -> u64 {
        self.sent[side].iter().map(|(_, bytes)| bytes).sum()
    }

    fn share(&self) -> f64 {
        (self.total(0) + self.total(1)) as f64 / self.bytes.max(1) as f64
    }
}

/// For people.
pub(crate) fn table(text: &mut String, outcomes: &[Outcome]) -> std::fmt::Result {
    for outcome in outcomes {
        let Outcome { name, records, bytes, sent, levels } = outcome;
        writeln!(
            text,
            "{name}, {RATE} records a second: {records} records, {bytes} B of keys and values; {:.4} bytes on the link, both \
             ways, IP headers included, per byte; level {levels}",
            outcome.share()
        )?;
        for (side, (way, causes)) in ["exporter", "importer"].iter().zip(sent).enumerate() {
            let causes: Vec<String> =
                causes.iter().map(|(cause, bytes)| format!("{cause} {bytes}")).collect();
            writeln!(text, "  from the {way} {:>9} B: {}", outcome.total(side), causes.join(", "))?;
        }
        writeln!(text)?;
    }
    Ok(())
}

/// For scripts.
pub(crate) fn json(outcome: &Outcome) -> Value {
    json!({
        "topic": outcome.name,
        "records_per_second": RATE,
        "records": outcome.records,
        "bytes": outcome.bytes,
        "link_bytes_from_exporter": outcome.total(0),
        "link_bytes_from_importer": outcome.total(1),
        "link_bytes_per_byte": round(outcome.share()),
        "levels": outcome.levels.to_string(),
    })
}
