//! What went wrong once, between two real clusters, and must not again.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::process::Command;
use std::time::{Duration, Instant};

use lab::checker::Check;
use lab::load::{LoadOptions, load};
use lab::record::Record;
use lab::relay::{Conditions, Relay};
use longhaul_tests::bridge::{
    Bridge, Importer, Journal, PATIENCE, Pair, Stream, Turns, binary, compressed, fill, open_transaction,
    say, settings_at, topic, topic_with, wait_until,
};
use observe::event::Event;

static TURNS: Turns<Pair, 2> = Turns::new();

/// the first importer lives on with a producer and a progress of before, while the second one serves the link.
#[test]
fn an_exporter_that_comes_back_to_its_first_importer_is_served_from_where_the_second_one_left() {
    let Some(pair) = TURNS.take("mended: fail-back") else { return };
    let source = pair.source.bootstrap();
    let name = "failback.orders";
    topic(&source, name, 2);
    let mut bridge = Bridge::new(&pair, "failback", &[name]);
    let links = bridge.importer.links.clone();
    let mut second = Importer::new(&bridge.ground, "importer-2", &pair.target.bootstrap(), links);
    let first = bridge.importer.address();
    second.start();
    bridge.start();
    for (round, importer) in [&first, &second.address(), &first, &second.address(), &first].iter().enumerate()
    {
        if round > 0 {
            assert_eq!(bridge.exporter.stop(PATIENCE), Some(0));
            bridge.exporter.importers = vec![(*importer).clone()];
            bridge.exporter.start();
        }
        fill(&source, name, 300, round as u64);
        bridge.wait(&[name], PATIENCE);
    }
    // The audit logs of the two importers tell the story together; each alone has gaps.
    let report = longhaul_tests::bridge::check_copy(&pair, &bridge.exporter, Check::of(&[name]));
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.records(), 1500);
    for journal in [bridge.importer.journal(), second.journal()] {
        assert_eq!(journal.holds().count(), 0, "{:?}", journal.holds().collect::<Vec<_>>());
    }
}

/// a broker that does not know a new partition yet is no reason to hold it.
#[test]
fn partitions_that_are_added_under_load_are_never_held() {
    let Some(pair) = TURNS.take("mended: partitions added") else { return };
    let source = pair.source.bootstrap();
    let name = "grow.orders";
    topic(&source, name, 2);
    let mut bridge = Bridge::new(&pair, "grow", &[name]);
    let stream = Stream::start(&source, name, 500, 1, LoadOptions::default());
    bridge.start();
    assert!(wait_until(PATIENCE, || bridge.importer.journal().events().len() > 6), "nothing flows");
    let admin = pair.source_admin();
    for total in [3, 5, 8] {
        admin.create_partitions(name, total, PATIENCE).unwrap();
        std::thread::sleep(Duration::from_secs(2));
    }
    stream.stop();
    fill(&source, name, 800, 2);
    bridge.settle(&[name], PATIENCE);
    for journal in [bridge.importer.journal(), bridge.exporter.journal()] {
        assert_eq!(journal.holds().count(), 0, "{:?}", journal.holds().collect::<Vec<_>>());
    }
}

/// what was copied is gone with the topic; an empty one in its place would hide that.
#[test]
fn a_target_topic_that_was_deleted_is_held_and_not_made_again() {
    let Some(pair) = TURNS.take("mended: target deleted") else { return };
    let source = pair.source.bootstrap();
    let name = "deleted.orders";
    topic(&source, name, 1);
    let mut bridge = Bridge::new(&pair, "deleted", &[name]);
    bridge.start();
    fill(&source, name, 300, 1);
    bridge.wait(&[name], PATIENCE);
    let admin = pair.target_admin();
    admin.delete_topic(name, PATIENCE).unwrap();
    let there = || admin.topics(PATIENCE).unwrap().iter().any(|it| it.name == name);
    assert!(wait_until(PATIENCE, || !there()), "the topic does not go");
    fill(&source, name, 300, 2);
    bridge.await_hold((name, 0), &["target_recreated"], &[name, "gone"]);
    // Tried again after 5 and 10 s.
    std::thread::sleep(Duration::from_secs(17));
    assert!(!there(), "the importer made the topic again");
    assert_eq!(bridge.importer.stop(PATIENCE), Some(0));
    bridge.importer.start();
    std::thread::sleep(Duration::from_secs(8));
    assert!(!there(), "the importer made the topic again after a restart");
}

/// a hold is put on record once for as long as it lasts, however often it is tried again; and what is held is
/// nothing to wait for.
#[test]
fn a_hold_is_told_once_and_a_stop_does_not_wait_for_it() {
    let Some(pair) = TURNS.take("mended: holds") else { return };
    let (source, target) = (pair.source.bootstrap(), pair.target.bootstrap());
    let name = "heldonce.orders";
    topic(&source, name, 2);
    topic_with(&target, name, 2, &[("max.message.bytes", "20000")]);
    let mut bridge = Bridge::new(&pair, "heldonce", &[name]);
    bridge.start();
    fill_small(&source, name, 1);
    bridge.wait(&[name], PATIENCE);
    let noise = (0..60_000_u32).map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
    let now = lab::generator::now_ms();
    let large = Record { partition: 1, timestamp: now, value: Some(noise), ..Record::default() };
    load(&settings_at(&source), name, vec![large].into_iter(), &compressed("none")).unwrap();
    bridge.await_hold((name, 1), &["record_too_large"], &["max.message.bytes"]);
    // Tried again after 5, 10 and 20 s, with records behind it that could be taken.
    fill_small(&source, name, 2);
    std::thread::sleep(Duration::from_secs(40));
    bridge.wait_but_for(&[name], &[(name, 1)], PATIENCE);
    let told = |journal: Journal| {
        let count = |is: fn(&Event) -> bool| journal.events().iter().filter(|event| is(event)).count();
        (count(|it| matches!(it, Event::Hold(_))), count(|it| matches!(it, Event::Release(_))))
    };
    assert_eq!(told(bridge.importer.journal()), (1, 0), "holds and releases of the importer");
    assert_eq!(told(bridge.exporter.journal()), (1, 0), "holds and releases of the exporter");
    let began = Instant::now();
    assert_eq!(bridge.exporter.stop(PATIENCE), Some(0));
    let took = began.elapsed();
    say(format_args!("stopped after {:.1} s", took.as_secs_f64()));
    assert!(took < Duration::from_secs(8), "it waited for what is held: {took:?}");
}

fn fill_small(bootstrap: &str, name: &str, seed: u8) {
    let now = lab::generator::now_ms();
    let records = (0..200).map(|number| Record {
        partition: number % 2,
        timestamp: now,
        value: Some(vec![seed; 50]),
        ..Record::default()
    });
    load(&settings_at(bootstrap), name, records, &compressed("lz4")).unwrap();
}

/// Readiness tells the truth of a cluster that stands still with its connections open, also while nothing flows.
#[test]
fn a_cluster_that_does_not_answer_is_no_readiness_on_its_side_and_is_again_once_it_does() {
    let Some(pair) = TURNS.take("mended: readiness") else { return };
    let name = "ready.orders";
    topic(&pair.source.bootstrap(), name, 2);
    let mut bridge = Bridge::new(&pair, "ready", &[name]);
    bridge.start();
    fill(&pair.source.bootstrap(), name, 300, 1);
    bridge.wait(&[name], PATIENCE);
    let code = |answer: Option<(u16, String)>| answer.map(|(code, _)| code);
    for (cluster, words) in [(&pair.target, "target cluster"), (&pair.source, "source cluster")] {
        let ready = |bridge: &Bridge| match words {
            "target cluster" => bridge.importer.get("/readyz"),
            _ => bridge.exporter.get("/readyz"),
        };
        assert!(wait_until(PATIENCE, || code(ready(&bridge)) == Some(200)), "{:?}", ready(&bridge));
        cluster.pause(1);
        let told = wait_until(Duration::from_secs(20), || {
            ready(&bridge).is_some_and(|(code, body)| code == 503 && body.contains(words))
        });
        cluster.resume(1);
        assert!(told, "{words}: {:?}", ready(&bridge));
        let again = wait_until(Duration::from_secs(10), || code(ready(&bridge)) == Some(200));
        assert!(again, "{words}: {:?}", ready(&bridge));
    }
}

/// a broker that stood still for so long that its controller gave it up names no brokers when it goes on, and librdkafka
/// forgets the one that it knows. Every client of both programs is back within ten seconds.
#[test]
fn a_broker_that_its_controller_gave_up_for_a_while_is_found_again_by_every_client() {
    let Some(pair) = TURNS.take("mended: given up") else { return };
    let name = "given.orders";
    topic(&pair.source.bootstrap(), name, 8);
    let mut bridge = Bridge::new(&pair, "given", &[name]);
    bridge.start();
    for (seed, cluster) in [(1, &pair.source), (3, &pair.target)] {
        fill(&pair.source.bootstrap(), name, 400, seed);
        bridge.wait(&[name], PATIENCE);
        cluster.pause(1);
        // Longer than `broker.session.timeout.ms` (9 s), and than clients wait for an answer.
        std::thread::sleep(Duration::from_millis(10_500));
        cluster.resume(1);
        let resumed = Instant::now();
        fill(&pair.source.bootstrap(), name, 400, seed + 1);
        bridge.wait(&[name], COME_BACK);
        let ready = || [bridge.exporter.get("/readyz"), bridge.importer.get("/readyz")];
        let is_ready = |it: &Option<(u16, String)>| it.as_ref().is_some_and(|(code, _)| *code == 200);
        let left = COME_BACK.saturating_sub(resumed.elapsed());
        assert!(wait_until(left, || ready().iter().all(is_ready)), "{:?}", ready());
    }
    bridge.assert_exact(&[name]);
}

/// Within this time of a fault's end everything moves again.
const COME_BACK: Duration = Duration::from_secs(10);

/// what leaves the exporter is paid for, and counted by cause: the handshake, and what was sent just before a
/// connection ended, too.
#[test]
fn what_a_connection_sent_first_and_last_is_counted() {
    let Some(pair) = TURNS.take("mended: bytes by cause") else { return };
    let source = pair.source.bootstrap();
    let name = "counted.orders";
    topic(&source, name, 2);
    let mut bridge = Bridge::new(&pair, "counted", &[name]);
    let importer = bridge.importer.address().parse().unwrap();
    let relay = Relay::start(importer, Conditions::default(), 1).unwrap();
    bridge.exporter.importers = vec![relay.address().to_string()];
    let stream = Stream::start(&source, name, 5000, 1, LoadOptions::default());
    bridge.start();
    let sent =
        |cause: &str| bridge.exporter.metrics().sum("longhaul_exporter_link_sent_bytes_total", &[cause]);
    assert!(wait_until(PATIENCE, || sent("handshake") > 0.0), "no handshake is counted");
    for _ in 0..4 {
        std::thread::sleep(Duration::from_millis(1900));
        // It says goodbye, so that the exporter ends the connection at once and not when it has heard nothing for long.
        assert_eq!(bridge.importer.stop(PATIENCE), Some(0));
        bridge.importer.start();
        let sessions = || bridge.exporter.status()["session"].is_u64();
        assert!(wait_until(PATIENCE, sessions), "no session");
    }
    stream.stop();
    bridge.settle(&[name], PATIENCE);
    std::thread::sleep(Duration::from_secs(2));
    let payload: f64 = ["first", "resent", "ack", "handshake"].iter().map(|cause| sent(cause)).sum();
    let carried = relay.up().passed_bytes;
    say(format_args!("{payload} bytes counted, {carried} carried"));
    // Attempts in vain, while nobody listened, are among the handshakes, with their headers.
    #[expect(clippy::cast_precision_loss, reason = "some megabytes")]
    let missing = carried as f64 - payload;
    assert!(missing.abs() < 15_000.0, "{missing} bytes were sent and not counted");
}

/// a producer of somebody else leaves a transaction open at the source. What is behind it waits, as for every
/// read_committed reader, and status says so; another partition goes on; and it goes on by itself when the broker has ended it.
#[test]
fn a_transaction_left_open_at_the_source_is_waited_for_and_named() {
    let Some(pair) = TURNS.take("mended: open at the source") else { return };
    let source = pair.source.bootstrap();
    let (stuck, free) = ("openat.stuck", "openat.free");
    [stuck, free].iter().for_each(|name| topic(&source, name, 1));
    let mut bridge = Bridge::new(&pair, "openat", &["openat.*"]);
    bridge.start();
    for name in [stuck, free] {
        fill(&source, name, 100, 1);
    }
    bridge.wait(&[stuck, free], PATIENCE);
    let producer = open_transaction(&source, (stuck, 0), Duration::from_secs(40));
    for name in [stuck, free] {
        fill(&source, name, 100, 2);
    }
    bridge.wait(&[free], PATIENCE);
    let status = || {
        let arguments = ["status", "--admin", &bridge.exporter.admin().to_string()].map(str::to_owned);
        let output = Command::new(binary("longhaul")).args(arguments).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let named = "openat.stuck/0 waits for a transaction that is open at the source from offset 100 on";
    let told = || matches!(status(), (Some(0), words) if words.contains(named));
    assert!(wait_until(PATIENCE, told), "{:?}", status());
    drop(producer);
    let admin = pair.source_admin();
    let ended = || admin.ends(stuck, &[0], PATIENCE).is_ok_and(|ends| ends[0].lso == ends[0].hw);
    assert!(wait_until(2 * PATIENCE, ended), "the broker does not end the transaction");
    let report = bridge.settle(&[stuck, free], Duration::from_secs(120));
    assert_eq!(report.records(), 400);
    assert!(!status().1.contains(named), "{:?}", status());
}
