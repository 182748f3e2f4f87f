//! Records that the target refuses: their partition holds and says why, the others go on, and so does it once it can.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::time::{Duration, Instant};

use lab::kafka::{ClusterOptions, Installation, Mechanism, Security};
use lab::load::{LoadOptions, load};
use lab::record::Record;
use longhaul_tests::bridge::{
    Bridge, Clusters, PATIENCE, Pair, Turns, allow_all, alter_topic, compressed, deny, deny_no_more, fill,
    say, settings_at, topic, topic_with,
};

/// The target lets the importer in as `longhaul`, whose rights an operator can change.
struct Guarded(Pair);

impl Clusters for Guarded {
    fn start(installation: &Installation) -> Self {
        let source = ClusterOptions::default().property("message.max.bytes", "4000000");
        let sasl = Security::Sasl { mechanism: Mechanism::Plain, tls: false };
        let target = ClusterOptions::default().security(sasl).user("longhaul", "secret").acls();
        let pair = Pair::with(installation, source, target);
        allow_all(&pair.target, "longhaul");
        Self(pair)
    }
}

static TURNS: Turns<Guarded, 2> = Turns::new();

const NOW: fn() -> i64 = lab::generator::now_ms;

fn bridge<'a>(guarded: &'a Guarded, link: &str, topics: &[&str]) -> Bridge<'a> {
    let mut bridge = Bridge::new(&guarded.0, link, topics);
    bridge.importer.properties = guarded.0.target.client_properties(Some("longhaul"));
    bridge
}

fn write(guarded: &Guarded, name: &str, records: Vec<Record>, options: &LoadOptions) {
    load(&settings_at(&guarded.0.source.bootstrap()), name, records.into_iter(), options).unwrap();
}

/// All partitions but the held one get new records and pass them on at once.
fn others_go_on(guarded: &Guarded, bridge: &Bridge<'_>, name: &str, held: i32, seed: u64) {
    let started = Instant::now();
    fill(&guarded.0.source.bootstrap(), name, 300, seed);
    bridge.wait_but_for(&[name], &[(name, held)], PATIENCE);
    say(format_args!("the others had theirs after {:.1} s", started.elapsed().as_secs_f64()));
}

/// a record above the target topic's `max.message.bytes`.
#[test]
fn a_record_too_large_for_the_target_holds_its_partition_alone_until_the_limit_is_raised() {
    let Some(guarded) = TURNS.take("poison: too large") else { return };
    let source = guarded.0.source.bootstrap();
    topic(&source, "large.orders", 3);
    let limit = [("max.message.bytes", "20000")];
    topic_with(&guarded.0.target.admin_bootstrap(), "large.orders", 3, &limit);
    let mut bridge = bridge(&guarded, "large", &["large.orders"]);
    bridge.start();
    fill(&source, "large.orders", 300, 1);
    bridge.wait(&["large.orders"], PATIENCE);
    let noise = (0..60_000_u32).map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
    let large = Record { partition: 1, timestamp: NOW(), value: Some(noise), ..Record::default() };
    write(&guarded, "large.orders", vec![large], &compressed("none"));
    bridge.await_hold(("large.orders", 1), &["record_too_large"], &["max.message.bytes"]);
    others_go_on(&guarded, &bridge, "large.orders", 1, 2);
    alter_topic(&guarded.0.target, "large.orders", "max.message.bytes=1000000");
    bridge.settle(&["large.orders"], Duration::from_secs(120));
}

/// a timestamp three days ahead, which brokers refuse by default.
#[test]
fn a_refused_timestamp_holds_its_partition_alone_until_the_target_takes_it() {
    let Some(guarded) = TURNS.take("poison: timestamp") else { return };
    let source = guarded.0.source.bootstrap();
    let lenient = [("message.timestamp.after.max.ms", "9223372036854775807")];
    topic_with(&source, "ahead.orders", 3, &lenient);
    let mut bridge = bridge(&guarded, "ahead", &["ahead.orders"]);
    bridge.start();
    fill(&source, "ahead.orders", 300, 1);
    bridge.wait(&["ahead.orders"], PATIENCE);
    let ahead = NOW() + 3 * 86_400_000;
    let record =
        Record { partition: 2, timestamp: ahead, value: Some(b"later".to_vec()), ..Record::default() };
    write(&guarded, "ahead.orders", vec![record], &compressed("none"));
    bridge.await_hold(("ahead.orders", 2), &["timestamp_refused"], &["message.timestamp"]);
    others_go_on(&guarded, &bridge, "ahead.orders", 2, 2);
    alter_topic(&guarded.0.target, "ahead.orders", "message.timestamp.after.max.ms=9223372036854775807");
    bridge.settle(&["ahead.orders"], Duration::from_secs(120));
}

/// one topic may not be written any more; another goes on, and so does it when it may again.
#[test]
fn a_revoked_right_to_write_holds_that_topic_alone_until_it_is_given_back() {
    let Some(guarded) = TURNS.take("poison: revoked right") else { return };
    let source = guarded.0.source.bootstrap();
    let names = ["denied.orders", "denied.clicks"];
    names.iter().for_each(|name| topic(&source, name, 2));
    let mut bridge = bridge(&guarded, "denied", &["denied.*"]);
    // Both in one lane: what one waits for must not hold the other up.
    bridge.importer.links[0].lanes = 1;
    bridge.start();
    for name in names {
        fill(&source, name, 200, 1);
    }
    bridge.wait(&names, PATIENCE);
    deny(&guarded.0.target, "longhaul", "Write", "denied.orders");
    for name in names {
        fill(&source, name, 200, 2);
    }
    for partition in [0, 1] {
        bridge.await_hold(("denied.orders", partition), &["target_unauthorized"], &[]);
    }
    let started = Instant::now();
    fill(&source, "denied.clicks", 200, 3);
    bridge.wait(&["denied.clicks"], PATIENCE);
    say(format_args!("the other topic had its records after {:.1} s", started.elapsed().as_secs_f64()));
    deny_no_more(&guarded.0.target, "longhaul", "Write", "denied.orders");
    bridge.settle(&names, Duration::from_secs(120));
}

/// the link's own progress topic may not be written: the hold says so, and not that a target topic is at fault.
#[test]
fn a_revoked_right_to_write_progress_is_named_in_the_hold() {
    let Some(guarded) = TURNS.take("poison: progress denied") else { return };
    let source = guarded.0.source.bootstrap();
    topic(&source, "unsure.orders", 1);
    let mut bridge = bridge(&guarded, "unsure", &["unsure.orders"]);
    bridge.start();
    fill(&source, "unsure.orders", 200, 1);
    bridge.wait(&["unsure.orders"], PATIENCE);
    deny(&guarded.0.target, "longhaul", "Write", "__longhaul.unsure.progress");
    fill(&source, "unsure.orders", 200, 2);
    let words = ["__longhaul.unsure.progress", "link's own"];
    bridge.await_hold(("unsure.orders", 0), &["target_unauthorized"], &words);
    deny_no_more(&guarded.0.target, "longhaul", "Write", "__longhaul.unsure.progress");
    bridge.settle(&["unsure.orders"], Duration::from_secs(120));
    let holds = bridge.importer.journal().holds().count();
    assert!(holds <= 2, "held {holds} times: a hold that is not over is no news");
}
