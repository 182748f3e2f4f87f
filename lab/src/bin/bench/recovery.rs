//! How soon records flow: after a start, after kill -9, in a new topic.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use longhaul_lab::checker::{Check, LiveHistory, Report, Trail, group_offsets};
use longhaul_lab::generator::{metrics, now_ms, wide_changes};
use longhaul_lab::load::{LoadOptions, load};
use longhaul_lab::pace::Paced;
use longhaul_lab::tail::Tail;

use crate::programs::{Programs, wait_for};
use crate::report::Kills;
use crate::say;
use crate::site::{PARTITIONS, Site};

const SEED: u64 = 2;
const PATIENCE: Duration = Duration::from_secs(120);
/// Records a second while processes are killed.
const LOAD: f64 = 2000.0;
/// Between the return of records and the next kill.
const CALM: Duration = Duration::from_secs(3);

/// Seconds from starting both processes until an application at the target has the first record, each run.
pub(crate) fn start(site: &Site, runs: u32) -> Result<Vec<f64>> {
    say("start of both processes until the first record arrives");
    (0..runs)
        .map(|run| {
            let topic = format!("start.{run}");
            site.create_topic(&topic)?;
            write_one(site, &topic)?;
            let mut programs = Programs::new(site, &topic, &[&topic])?;
            let tail = Tail::start(&site.target, &[(topic.clone(), PARTITIONS)])?;
            let started = Instant::now();
            programs.start()?;
            wait_for(&programs, "the first record", PATIENCE, || Ok((tail.seen(0) > 0).then_some(())))?;
            let seconds = started.elapsed().as_secs_f64();
            programs.stop();
            Ok(seconds)
        })
        .collect()
}

/// Seconds from the first record of a new topic until an application at the target has it, each run.
pub(crate) fn new_topic(site: &Site, runs: u32) -> Result<Vec<f64>> {
    say("a new topic until its first record arrives");
    site.create_topic("new.first")?;
    write_one(site, "new.first")?;
    let mut programs = Programs::new(site, "new", &["new.*"])?;
    programs.start()?;
    let tail = Tail::start(&site.target, &[("new.first".to_owned(), PARTITIONS)])?;
    wait_for(&programs, "the first record", PATIENCE, || Ok((tail.seen(0) > 0).then_some(())))?;
    let seconds = (0..runs)
        .map(|run| {
            let topic = format!("new.{run}");
            let tail = Tail::start(&site.target, &[(topic.clone(), PARTITIONS)])?;
            site.create_topic(&topic)?;
            write_one(site, &topic)?;
            let started = Instant::now();
            wait_for(&programs, "the topic", PATIENCE, || Ok((tail.seen(0) > 0).then_some(())))?;
            Ok(started.elapsed().as_secs_f64())
        })
        .collect::<Result<Vec<f64>>>()?;
    programs.stop();
    Ok(seconds)
}

/// Kills each side under load, restarts it at once, and compares everything in the end.
pub(crate) fn kills(site: &Site, runs: u32) -> Result<Kills> {
    const TOPIC: &str = "kill.changes";
    say("kill -9 of either side under load until records flow again");
    site.create_topic(TOPIC)?;
    let mut programs = Programs::new(site, "kill", &[TOPIC])?;
    programs.start()?;
    let tail = Tail::start(&site.target, &[(TOPIC.to_owned(), PARTITIONS)])?;
    let enough = Arc::new(AtomicBool::new(false));
    let stopped = enough.clone();
    let settings = site.source.clone();
    let feeder = std::thread::spawn(move || {
        let records = wide_changes(SEED, now_ms()).take_while(|_| !stopped.load(Ordering::Relaxed));
        let paced = Paced::new(records, LOAD, Arc::new(AtomicU64::new(0)));
        load(&settings, TOPIC, paced, &LoadOptions { at_once: 10, ..LoadOptions::default() })
    });
    let outcome = kill_each(&mut programs, &tail, runs);
    enough.store(true, Ordering::Relaxed);
    let loaded = feeder.join().map_err(|_| anyhow!("the load panicked"))??;
    let (exporter, importer) = outcome?;
    wait_for(&programs, "catching up", PATIENCE, || Ok((tail.seen(0) >= loaded.visible).then_some(())))?;
    programs.stop();
    let report = compare(site, &programs, TOPIC)?;
    Ok(Kills { exporter, importer, report })
}

type Seconds = Vec<f64>;

fn kill_each(programs: &mut Programs<'_>, tail: &Tail, runs: u32) -> Result<(Seconds, Seconds)> {
    wait_for(programs, "the first record", PATIENCE, || Ok((tail.seen(0) > 0).then_some(())))?;
    let (mut exporter, mut importer) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        std::thread::sleep(CALM);
        exporter.push(kill(programs, tail, |programs| {
            programs.exporter.kill();
            programs.exporter.start()
        })?);
        std::thread::sleep(CALM);
        importer.push(kill(programs, tail, |programs| {
            programs.importer.kill();
            programs.importer.start()
        })?);
    }
    Ok((exporter, importer))
}

/// Seconds from the kill until a record arrives that was produced after it.
fn kill(
    programs: &mut Programs<'_>,
    tail: &Tail,
    restart: impl FnOnce(&mut Programs<'_>) -> Result<()>,
) -> Result<f64> {
    let (killed, killed_ms) = (Instant::now(), now_ms());
    restart(programs)?;
    wait_for(programs, "a record after the kill", PATIENCE, || {
        Ok((tail.newest_ms() > killed_ms).then_some(()))
    })?;
    Ok(killed.elapsed().as_secs_f64())
}

fn compare(site: &Site, programs: &Programs<'_>, topic: &str) -> Result<Report> {
    let deployment = &programs.deployment;
    let target = LiveHistory::new(site.target.clone());
    let check = Check {
        committed: group_offsets(&site.source, &deployment.group(), &[topic])?,
        edge: Some(Trail::read(&deployment.edge_audit())?),
        cloud: Some(Trail::read(&deployment.cloud_audit())?),
        others_at_target: longhaul_lab::checker::History::topics(&target)?,
        ..Check::of(&[topic])
    };
    check.run(&LiveHistory::new(site.source.clone()), &target).context("cannot compare the clusters")
}

fn write_one(site: &Site, topic: &str) -> Result<()> {
    load(&site.source, topic, metrics(SEED, now_ms()).take(1), &LoadOptions::default())?;
    Ok(())
}
