//! What is too slow or too full: everything waits in bounded memory, nothing is dropped, and it goes on by itself.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use lab::kafka::{ClusterOptions, Installation};
use lab::load::LoadOptions;
use lab::proxy::{Action, Match, Proxy, Times};
use lab::wire::ApiKey;
use longhaul_tests::bridge::{
    Bridge, Clusters, PATIENCE, Pair, Stream, Turns, fill, say, scale, topic, wait_until,
};
use proto::ids::lane_of;

/// The importer reaches its cluster by the proxy, everybody else directly.
struct Shielded {
    pair: Pair,
    proxy: Proxy,
}

impl Clusters for Shielded {
    fn start(installation: &Installation) -> Self {
        let proxy = Proxy::bind(1).unwrap();
        let target = ClusterOptions::default().behind(proxy.addresses());
        let pair = Pair::with(installation, ClusterOptions::default(), target);
        proxy.forward_to(pair.target.proxied_addresses());
        Self { pair, proxy }
    }
}

static TURNS: Turns<Shielded> = Turns::new();

const MIB: u64 = 1 << 20;

/// `LONGHAUL_BLOCKED_SECONDS` says how long, 12 by default.
#[test]
fn a_blocked_target_costs_bounded_memory_and_nothing_else() {
    let Some(shielded) = TURNS.take("blocked target") else { return };
    let source = shielded.pair.source.bootstrap();
    topic(&source, "blocked.orders", 8);
    let mut bridge = Bridge::new(&shielded.pair, "blocked", &["blocked.*"]);
    bridge.importer.bootstrap = shielded.proxy.bootstrap();
    bridge.start();
    fill(&source, "blocked.orders", 2000, 1);
    bridge.wait(&["blocked.orders"], PATIENCE);

    shielded.proxy.block();
    let blocked = Instant::now();
    let seconds = scale("LONGHAUL_BLOCKED_SECONDS", 12);
    let stream = Stream::start(&source, "blocked.orders", 1_000_000, 2, LoadOptions::default());
    std::thread::sleep(Duration::from_secs(seconds.min(30)));
    let written = stream.stop();
    std::thread::sleep(Duration::from_secs(seconds).saturating_sub(blocked.elapsed()));
    assert!(bridge.exporter.is_running() && bridge.importer.is_running(), "a process ended by itself");
    let peaks = || [bridge.exporter.peak_memory_bytes() / MIB, bridge.importer.peak_memory_bytes() / MIB];
    say(format_args!(
        "blocked for {seconds} s with {} MB waiting: peak MiB {:?}",
        written.visible_bytes / 1_000_000,
        peaks()
    ));
    shielded.proxy.unblock();
    let unblocked = Instant::now();
    let report = bridge.settle(&["blocked.orders"], Duration::from_secs(240));
    assert_eq!(report.records(), written.visible + 2000);
    say(format_args!("checked {:.1} s after; peak MiB {:?}", unblocked.elapsed().as_secs_f64(), peaks()));
    assert!(peaks().iter().all(|peak| *peak < 300), "too much memory: {:?} MiB", peaks());
}

/// what one lane writes to is stuck, for `LONGHAUL_BLOCKED_SECONDS`, with more at its source than its credit lets
/// it send. The other lanes keep their rate, the session stands, and memory is bounded.
#[test]
fn one_lane_whose_target_is_blocked_costs_the_others_nothing() {
    let Some(shielded) = TURNS.take("one blocked lane") else { return };
    let pair = &shielded.pair;
    let source = pair.source.bootstrap();
    let names = one_topic_a_lane("onelane");
    names.iter().for_each(|name| topic(&source, name, 2));
    let (stuck, free) = names.split_first().unwrap();
    let mut bridge = Bridge::new(pair, "onelane", &["onelane.*"]);
    bridge.importer.bootstrap = shielded.proxy.bootstrap();
    let admin = pair.target_admin();
    let there = |name: &str| -> i64 {
        admin.ends(name, &[0, 1], PATIENCE).map_or(0, |ends| ends.iter().map(|it| it.lso).sum())
    };
    let rates = |time: Duration| -> Vec<f64> {
        let (before, began): (Vec<i64>, _) = (free.iter().map(|it| there(it)).collect(), Instant::now());
        std::thread::sleep(time);
        let passed = began.elapsed().as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "some thousands")]
        free.iter().zip(before).map(|(name, was)| (there(name) - was) as f64 / passed).collect()
    };
    let streams: Vec<Stream> = (0..)
        .zip(free)
        .map(|(at, name)| Stream::start(&source, name, 400, at, LoadOptions::default()))
        .collect();
    bridge.start();
    fill(&source, stuck, 400, 9);
    bridge.wait(&[stuck], PATIENCE);
    assert!(wait_until(PATIENCE, || free.iter().all(|it| there(it) > 400)), "nothing flows");
    let seconds = scale("LONGHAUL_BLOCKED_SECONDS", 20);
    let before = rates(Duration::from_secs(8));

    let lane = format!("longhaul.onelane.{}", lane_of(stuck, 4));
    let writes = Match::from(ApiKey::Produce).transactional_id(&lane);
    let rule = shielded.proxy.on(writes, Action::Delay(Duration::from_secs(seconds)), Times::Always);
    let flood = Stream::start(&source, stuck, 1_000_000, 10, LoadOptions::default());
    assert!(wait_until(PATIENCE, || rule.hits() > 0), "the lane writes nothing");
    std::thread::sleep(Duration::from_secs(4));
    let flooded = flood.stop();
    let arrived = there(stuck);
    let meanwhile = rates(Duration::from_secs(seconds));
    say(format_args!(
        "records a second of the others before {before:.0?}, meanwhile {meanwhile:.0?}, with {} MB waiting",
        flooded.visible_bytes / 1_000_000
    ));
    // The end of a transaction that was given up on takes an offset, too.
    assert!(there(stuck) - arrived < 20, "the lane was not blocked");
    assert_eq!(bridge.exporter.status()["sessions"], 1, "the session did not stand");
    rule.remove();
    let written: u64 = streams.into_iter().map(|stream| stream.stop().visible).sum();
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    let report = bridge.settle(&all, Duration::from_secs(240));
    assert_eq!(report.records(), written + flooded.visible + 400);
    let peaks = [bridge.exporter.peak_memory_bytes() / MIB, bridge.importer.peak_memory_bytes() / MIB];
    say(format_args!("peak MiB {peaks:?}"));
    assert!(peaks.iter().all(|peak| *peak < 300), "too much memory: {peaks:?} MiB");
    let kept = before.iter().zip(&meanwhile).all(|(before, meanwhile)| *meanwhile >= 0.9 * before);
    assert!(kept, "the others fell from {before:.0?} to {meanwhile:.0?} records a second");
}

/// Four names that fall into the four lanes of a link.
fn one_topic_a_lane(prefix: &str) -> Vec<String> {
    let named = |lane: u16| {
        let names = (0..).map(|number| format!("{prefix}.t{number}"));
        names.into_iter().find(|name| lane_of(name, 4).0 == lane).unwrap()
    };
    (0..4).map(named).collect()
}

/// A file system of its own that can be full; gone when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None`, said loudly, where mounting is not permitted.
    fn mount(path: &Path, kib: u32) -> Option<Self> {
        std::fs::create_dir_all(path).unwrap();
        let options = format!("size={kib}k");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(path).output();
        if mount.is_ok_and(|it| it.status.success()) {
            return Some(Self(path.to_owned()));
        }
        say("LEFT OUT: full disk: mounting a small file system is not permitted here");
        None
    }

    fn fill(&self) {
        let ballast = std::fs::File::create(self.0.join("ballast")).unwrap();
        // It ends at the end of the disk, and only there.
        std::io::copy(&mut std::io::repeat(0), &mut &ballast).expect_err("the disk has no end");
    }

    fn free(&self) {
        std::fs::remove_file(self.0.join("ballast")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let done = Command::new("umount").arg("-l").arg(&self.0).status();
        if !done.is_ok_and(|it| it.success()) {
            say(format_args!("{} is still mounted", self.0.display()));
        }
    }
}

/// nothing governed happens off the record; data waits, and goes on by itself.
fn full_disk(exporters: bool, link: &str) {
    let Some(shielded) = TURNS.take("full audit disk") else { return };
    let source = shielded.pair.source.bootstrap();
    let name = format!("{link}.orders");
    // So many that their lines do not fit into what is left of the log's last page on a full disk.
    let partitions: Vec<i32> = (0..24).collect();
    topic(&source, &name, 24);
    let mut bridge = Bridge::new(&shielded.pair, link, &[&name]);
    let Some(disk) = SmallDisk::mount(&bridge.ground.path().join("disk"), 1024) else { return };
    let file = disk.0.join("audit.jsonl");
    if exporters {
        bridge.exporter.audit = file
    } else {
        bridge.importer.audit = file
    }
    bridge.start();
    fill(&source, &name, 500, 1);
    bridge.wait(&[&name], PATIENCE);
    disk.fill();
    let stream = Stream::start(&source, &name, 500, 2, LoadOptions::default());
    // A healthy bridge takes this much in a second or two.
    std::thread::sleep(Duration::from_secs(15));
    let admin = shielded.pair.target_admin();
    let there = || -> i64 { admin.ends(&name, &partitions, PATIENCE).unwrap().iter().map(|it| it.lso).sum() };
    let before = there();
    std::thread::sleep(Duration::from_secs(5));
    let moved = there() - before;
    disk.free();
    let written = stream.stop();
    let freed = Instant::now();
    let report = bridge.settle(&[&name], Duration::from_secs(120));
    say(format_args!("caught up and checked {:.1} s after there was room", freed.elapsed().as_secs_f64()));
    assert_eq!(report.records(), written.visible + 500);
    assert_eq!(moved, 0, "records went on arriving at the target while the disk was full");
    drop(bridge);
    drop(disk);
}

#[test]
fn a_full_disk_under_the_importers_audit_log_pauses_the_data_until_there_is_room() {
    full_disk(false, "fullcloud");
}

#[test]
fn a_full_disk_under_the_exporters_audit_log_pauses_the_data_until_there_is_room() {
    full_disk(true, "fulledge");
}
