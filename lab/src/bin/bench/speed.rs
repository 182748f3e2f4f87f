//! How fast, at what cost, and with what delay.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use longhaul_lab::generator::{metrics, now_ms, wide_changes};
use longhaul_lab::load::{LoadOptions, load};
use longhaul_lab::pace::Paced;
use longhaul_lab::record::Record;
use longhaul_lab::tail::Tail;
use longhaul_lab::topicfile::TopicFile;

use crate::mirrormaker;
use crate::programs::{Levels, Programs, Usage, wait_for};
use crate::report::{Cost, Delay, Speed};
use crate::site::{PARTITIONS, Site};
use crate::{Options, say};

const SEED: u64 = 1;
const PATIENCE: Duration = Duration::from_secs(300);
/// Records a second while the delay is measured, over all partitions.
const LOW_LOAD: u32 = 100;
const MEDIAN: f64 = 0.5;
const MOST: f64 = 0.99;

/// A kind of records.
#[derive(Debug, Clone)]
pub(crate) struct Payload {
    /// Short name, also part of the topic's.
    pub(crate) name: String,
    pub(crate) what: String,
    /// About how many are carried in a second: sizes the topic.
    per_second: u32,
    origin: Origin,
}

#[derive(Debug, Clone)]
enum Origin {
    Samples,
    Changes,
    /// Again and again, as often as it takes.
    File(Arc<[Record]>),
}

impl Payload {
    /// The two that are measured unless files are given.
    pub(crate) fn generated() -> [Self; 2] {
        let of = |name: &str, what: &str, per_second: u32, origin: Origin| Self {
            name: name.to_owned(),
            what: what.to_owned(),
            per_second,
            origin,
        };
        [
            of("100B", "samples of 200 time series as small JSON objects", 200_000, Origin::Samples),
            of(
                "1kB",
                "changes of database rows as Debezium's JSON, before and after",
                60_000,
                Origin::Changes,
            ),
        ]
    }

    /// The records of a file.
    pub(crate) fn of_file(file: &Path) -> Result<Self> {
        let records = TopicFile::open(file, now_ms())?;
        let name = records.topic();
        let records: Vec<Record> = records.collect::<Result<_, _>>()?;
        let bytes: u64 = records.iter().map(Record::payload_bytes).sum();
        ensure!(bytes > 0, "{}: there is nothing in it", file.display());
        Ok(Self {
            name,
            what: format!("{}, {} records again and again", file.display(), records.len()),
            per_second: u32::try_from(FILE_BYTES_PER_SECOND * records.len() as u64 / bytes)
                .unwrap_or(u32::MAX),
            origin: Origin::File(records.into()),
        })
    }

    fn records(&self) -> Box<dyn Iterator<Item = Record> + Send> {
        // Produced now: brokers refuse what is hours ahead, which the generators' own clocks come to be.
        let stamped = |record: Record| Record { timestamp: now_ms(), ..record };
        match &self.origin {
            Origin::Samples => Box::new(metrics(SEED, now_ms()).map(stamped)),
            Origin::Changes => Box::new(wide_changes(SEED, now_ms()).map(stamped)),
            Origin::File(records) => {
                let records = Arc::clone(records);
                Box::new((0..).map(move |row: usize| stamped(records[row % records.len()].clone())))
            }
        }
    }
}

/// Keys and values of a file that are about carried in a second.
const FILE_BYTES_PER_SECOND: u64 = 60_000_000;

/// A full topic carried at full speed, several times.
pub(crate) fn measure(site: &Site, payload: &Payload, options: &Options) -> Result<Speed> {
    let Options { seconds, runs, mm2, .. } = *options;
    let topic = format!("speed.{}", payload.name);
    site.create_topic(&topic)?;
    let count = u64::from(payload.per_second) * u64::from(seconds);
    say(&format!("{}: writing {count} records", payload.name));
    let limit = usize::try_from(count).context("too many records")?;
    let loaded = load(&site.source, &topic, payload.records().take(limit), &LoadOptions::default())?;
    let mut costs = Vec::new();
    for run in 0..runs {
        let cost = full_speed(site, &topic, run, loaded.visible, loaded.visible_bytes)?;
        say(&format!(
            "{}: run {} of {runs}: {:.0} records/s, {:.1} MB/s, {:.2} CPU s/GB",
            payload.name,
            run + 1,
            cost.records_per_second,
            cost.bytes_per_second / 1e6,
            cost.of_both(Cost::cpu_per_gb)
        ));
        site.delete_copy(&topic)?;
        costs.push(cost);
    }
    costs.sort_by(|a, b| a.records_per_second.total_cmp(&b.records_per_second));
    let median = costs.swap_remove(costs.len() / 2);
    let mm2 = mm2.then(|| mirrormaker::measure(site, &topic, loaded.visible, loaded.visible_bytes));
    Ok(Speed {
        mm2: mm2.transpose()?,
        payload: payload.clone(),
        records: loaded.visible,
        bytes_per_record: loaded.visible_bytes as f64 / loaded.visible.max(1) as f64,
        cost: median,
    })
}

/// From the first record acknowledged until the last, seen from outside.
fn full_speed(site: &Site, topic: &str, run: u32, records: u64, bytes: u64) -> Result<Cost> {
    let mut programs = Programs::new(site, &format!("{topic}-{run}"), &[topic])?;
    programs.start()?;
    let delivered = |programs: &Programs<'_>| {
        // It does not answer before it is up.
        let status = programs.exporter.status().unwrap_or_default();
        (status["records"].as_u64().unwrap_or(0), status["wire_bytes"].as_u64().unwrap_or(0))
    };
    let usage = |programs: &Programs<'_>| -> Result<[Usage; 2]> {
        Ok([programs.exporter.usage()?, programs.importer.usage()?])
    };
    let first = wait_for(&programs, "the first record", PATIENCE, || {
        let (records, wire) = delivered(&programs);
        Ok((records > 0).then_some((records, wire)))
    })?;
    let (started, before) = (Instant::now(), usage(&programs)?);
    let mut levels = Levels::default();
    let last = wait_for(&programs, "the last record", PATIENCE, || {
        let (now, wire) = delivered(&programs);
        levels.look(&programs.exporter)?;
        // Asking costs a little: not more often than can be seen in the result.
        std::thread::sleep(ASK_INTERVAL);
        Ok((now >= records).then_some((now, wire)))
    })?;
    let (elapsed, after) = (started.elapsed().as_secs_f64(), usage(&programs)?);
    programs.stop();
    let carried = (last.0 - first.0) as f64;
    let carried_bytes = carried * bytes as f64 / records as f64;
    let user = |side: usize| after[side].user_seconds - before[side].user_seconds;
    let system = |side: usize| after[side].system_seconds - before[side].system_seconds;
    Ok(Cost {
        records_per_second: carried / elapsed,
        bytes_per_second: carried_bytes / elapsed,
        wire_share: (last.1 - first.1) as f64 / carried_bytes,
        carried_records: carried,
        carried_bytes,
        user_seconds: [user(0), user(1)],
        system_seconds: [system(0), system(1)],
        levels,
        peak_memory_bytes: [after[0].peak_memory_bytes, after[1].peak_memory_bytes],
    })
}

const ASK_INTERVAL: Duration = Duration::from_millis(50);

/// Delay of single records at low load: median and 99th of a hundred.
pub(crate) fn low_load(site: &Site, payload: &Payload, seconds: u32) -> Result<Delay> {
    let topic = format!("delay.{}", payload.name);
    site.create_topic(&topic)?;
    let mut programs = Programs::new(site, &topic, &[&topic])?;
    programs.start()?;
    let tail = Tail::start(&site.target, &[(topic.clone(), PARTITIONS)])?;
    let options = LoadOptions { at_once: 1, ..LoadOptions::default() };
    let records = payload.records().take((LOW_LOAD * (WARM_UP_SECONDS + seconds)) as usize);
    let paced = Paced::new(records, f64::from(LOW_LOAD), Arc::new(AtomicU64::new(0)));
    let loaded = std::thread::scope(|scope| {
        let trickle = scope.spawn(|| load(&site.source, &topic, paced, &options));
        // Lanes are taken over, the topic is made and whoever writes is connected before it counts.
        let warm = u64::from(LOW_LOAD * WARM_UP_SECONDS);
        wait_for(&programs, "the first records", PATIENCE, || Ok((tail.seen(0) >= warm).then_some(())))?;
        tail.measure_from_now();
        trickle.join().map_err(|_| anyhow!("the load panicked"))?.map_err(anyhow::Error::from)
    })?;
    wait_for(&programs, "the last records", PATIENCE, || Ok((tail.seen(0) >= loaded.visible).then_some(())))?;
    programs.stop();
    let delays = tail.stop()?.swap_remove(0);
    let quantile = |share| delays.quantile_ms(share).context("no record was measured");
    Ok(Delay { payload: payload.clone(), p50_ms: quantile(MEDIAN)?, p99_ms: quantile(MOST)? })
}

const WARM_UP_SECONDS: u32 = 2;
