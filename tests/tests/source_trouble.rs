//! A source that takes away what it had: nothing is skipped or mixed without a word, and what is whole goes on.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::time::{Duration, Instant};

use lab::checker::{Anomaly, Check};
use lab::kafka::{ClusterOptions, Installation, Mechanism, Security};
use longhaul_tests::bridge::{
    Bridge, Clusters, PATIENCE, Pair, Turns, allow_all, deny, deny_no_more, fill, say, topic, wait_until,
};

/// The source lets the exporter in as `longhaul`, whose rights an operator can change.
struct Guarded(Pair);

impl Clusters for Guarded {
    fn start(installation: &Installation) -> Self {
        let sasl = Security::Sasl { mechanism: Mechanism::Plain, tls: false };
        let source = ClusterOptions::default().security(sasl).user("longhaul", "secret").acls();
        let pair = Pair::with(installation, source, ClusterOptions::default());
        allow_all(&pair.source, "longhaul");
        Self(pair)
    }
}

static TURNS: Turns<Guarded, 2> = Turns::new();

/// When the source loses what the exporter would read next.
#[derive(Debug, Clone, Copy, PartialEq)]
enum When {
    /// The exporter is down.
    Stopped,
    /// The exporter stands still in the middle of its work and knows the old state.
    Paused,
}

/// A bridge that has carried 600 records of `LINK.orders` (3 partitions) and of `LINK.clicks`.
fn settled<'a>(guarded: &'a Guarded, link: &str) -> (Bridge<'a>, String, String) {
    let (orders, clicks) = (format!("{link}.orders"), format!("{link}.clicks"));
    let admin = guarded.0.source.admin_bootstrap();
    for name in [&orders, &clicks] {
        topic(&admin, name, 3);
        fill(&admin, name, 600, 1);
    }
    let pattern = format!("{link}.*");
    let mut bridge = Bridge::new(&guarded.0, link, &[&pattern]);
    bridge.exporter.properties = guarded.0.source.client_properties(Some("longhaul"));
    bridge.start();
    bridge.wait(&[&orders, &clicks], PATIENCE);
    (bridge, orders, clicks)
}

fn halt(bridge: &mut Bridge<'_>, when: When) {
    match when {
        When::Stopped => assert_eq!(bridge.exporter.stop(PATIENCE), Some(0)),
        When::Paused => bridge.exporter.pause(),
    }
}

fn go_on(bridge: &mut Bridge<'_>, when: When) {
    match when {
        When::Stopped => bridge.exporter.start(),
        When::Paused => bridge.exporter.resume(),
    }
}

/// DeleteRecords (or retention) passes the position. The partition holds; an operator's word names the gap.
fn truncated(when: When, link: &str) {
    let Some(guarded) = TURNS.take("source truncated") else { return };
    let (mut bridge, orders, clicks) = settled(&guarded, link);
    let admin = guarded.0.source_admin();
    let source = guarded.0.source.admin_bootstrap();
    halt(&mut bridge, when);
    let at = admin.ends(&orders, &[1], PATIENCE).unwrap()[0].hw;
    fill(&source, &orders, 900, 2);
    fill(&source, &clicks, 900, 2);
    admin.delete_records(&orders, 1, at + 100, PATIENCE).unwrap();
    go_on(&mut bridge, when);
    bridge.await_hold(
        (&orders, 1),
        &["source_truncated"],
        &[&at.to_string(), &(at + 100).to_string(), "skip"],
    );
    let started = Instant::now();
    bridge.wait_but_for(&[&orders, &clicks], &[(&orders, 1)], PATIENCE);
    say(format_args!("all others went on within {:.1} s", started.elapsed().as_secs_f64()));
    carried_before_it_was_deleted(&bridge, true, &[&orders, &clicks], at);

    // The operator's word.
    assert_eq!(bridge.exporter.stop(PATIENCE), Some(0));
    bridge.exporter.more = format!(
        "[[skip]]\ntopic = {orders:?}\npartition = 1\nfrom = {at}\nto = {}\nreason = \"they are gone\"\n",
        at + 100
    );
    bridge.exporter.start();
    bridge.wait(&[&orders, &clicks], PATIENCE);
    carried_before_it_was_deleted(&bridge, false, &[&orders, &clicks], at);
    bridge.assert_chains();
    let gap = bridge.importer.journal().events().iter().any(|event| match event {
        observe::event::Event::Gap(gap) => {
            (gap.at.topic.as_str(), gap.at.partition, gap.first, gap.next) == (&orders, 1, at, at + 100)
        }
        _ => false,
    });
    assert!(gap, "no gap is named in {:?}", bridge.importer.audit_file());
}

/// The target has `count` records that the source has no more, and nothing else is wrong.
fn carried_before_it_was_deleted(bridge: &Bridge<'_>, in_flight: bool, topics: &[&str], count: i64) {
    let report = bridge.run_check(Check { in_flight, ..Check::of(topics) });
    let found = report.topics.iter().flat_map(|it| it.anomalies.clone()).collect::<Vec<_>>();
    let expected = vec![(Anomaly::Foreign, u64::try_from(count).unwrap())];
    assert_eq!((found, report.findings.len()), (expected, 0), "{report}");
}

#[test]
fn records_deleted_while_the_exporter_was_down_hold_their_partition_until_an_operator_skips_them() {
    truncated(When::Stopped, "cutdown");
}

#[test]
fn records_deleted_under_a_running_exporter_hold_their_partition_until_an_operator_skips_them() {
    truncated(When::Paused, "cutlive");
}

/// a topic of the same name is another topic, also when it is longer than the old one was.
fn recreated(when: When, link: &str) {
    let Some(guarded) = TURNS.take("source re-created") else { return };
    let (mut bridge, orders, clicks) = settled(&guarded, link);
    let admin = guarded.0.source_admin();
    let source = guarded.0.source.admin_bootstrap();
    halt(&mut bridge, when);
    admin.delete_topic(&orders, PATIENCE).unwrap();
    let gone = || admin.topics(PATIENCE).is_ok_and(|all| all.iter().all(|it| it.name != orders));
    assert!(wait_until(PATIENCE, gone), "the topic does not go");
    topic(&source, &orders, 3);
    // Of another seed: any of them at the target would be foreign to the old topic.
    fill(&source, &orders, 1500, 77);
    fill(&source, &clicks, 900, 2);
    let before = ends(&bridge, &orders);
    go_on(&mut bridge, when);
    for partition in 0..3 {
        bridge.await_hold((&orders, partition), &["source_recreated"], &[&orders]);
    }
    bridge.wait(&[&clicks], PATIENCE);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(ends(&bridge, &orders), before, "records of the new topic were mixed with the old one's");
    let report = bridge.run_check(Check { others_at_target: vec![orders], ..Check::of(&[&clicks]) });
    assert!(report.is_clean(), "{report}");
    bridge.assert_chains();
}

/// Stable ends of a topic's three partitions at the target.
fn ends(bridge: &Bridge<'_>, name: &str) -> Vec<i64> {
    let ends = bridge.pair.target_admin().ends(name, &[0, 1, 2], PATIENCE).unwrap();
    ends.iter().map(|it| it.lso).collect()
}

#[test]
fn a_topic_made_again_while_the_exporter_was_down_is_not_mixed_with_the_old_one() {
    recreated(When::Stopped, "newdown");
}

#[test]
fn a_topic_made_again_under_a_running_exporter_is_not_mixed_with_the_old_one() {
    recreated(When::Paused, "newlive");
}

/// a right that is taken away holds its topic; given back, the topic goes on by itself.
#[test]
fn a_revoked_right_to_read_holds_that_topic_alone_until_it_is_given_back() {
    let Some(guarded) = TURNS.take("source right revoked") else { return };
    let (bridge, orders, clicks) = settled(&guarded, "revoked");
    let source = guarded.0.source.admin_bootstrap();
    deny(&guarded.0.source, "longhaul", "Read", &orders);
    fill(&source, &orders, 300, 2);
    fill(&source, &clicks, 300, 2);
    for partition in 0..3 {
        bridge.await_hold((&orders, partition), &["source_unauthorized"], &[]);
    }
    fill(&source, &clicks, 300, 3);
    bridge.wait(&[&clicks], PATIENCE);
    deny_no_more(&guarded.0.source, "longhaul", "Read", &orders);
    bridge.settle(&[&orders, &clicks], Duration::from_secs(120));
}
