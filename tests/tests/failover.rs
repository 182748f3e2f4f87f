//! Three brokers at both ends: leaders move and die under load, also those of the link's own topics and of transactions;
//! and a source that elects a leader which lacks what was acknowledged.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use kafka::Admin;
use lab::checker::{Anomaly, Check, group_offsets};
use lab::kafka::{Cluster, ClusterOptions, Installation};
use lab::load::LoadOptions;
use longhaul_tests::bridge::{
    Bridge, Clusters, PATIENCE, Pair, Stream, Turns, fill, say, scale, settings_at, topic, transactional,
    wait_until,
};

/// Three nodes each.
struct Trios(Pair);

impl Clusters for Trios {
    fn start(installation: &Installation) -> Self {
        Self(Pair::with(installation, ClusterOptions::nodes(3), ClusterOptions::nodes(3)))
    }
}

static TURNS: Turns<Trios> = Turns::new();

/// Who dies.
#[derive(Debug, Clone, Copy)]
enum Fault {
    /// SIGKILL to the leader of a partition of this topic at the target.
    KillTarget(&'static str, i32),
    /// The same at the source.
    KillSource(&'static str, i32),
    /// SIGTERM to each node of the target, one after the other.
    RollTarget,
    /// The same at the source.
    RollSource,
}

const TOPICS: [&str; 2] = ["lead.plain", "lead.half"];
const TRANSACTIONS: &str = "__transaction_state";
const PROGRESS: &str = "__longhaul.lead.progress";

/// Of each round; the first needs no more than a minute.
fn schedule(rounds: u64) -> Vec<Fault> {
    let mut faults = vec![
        Fault::KillTarget(PROGRESS, 0),
        Fault::KillSource("lead.plain", 0),
        Fault::KillTarget(TRANSACTIONS, 0),
    ];
    for round in 1..rounds {
        let number = i32::try_from(round).unwrap() % 4;
        faults.extend([
            Fault::RollTarget,
            Fault::KillTarget("lead.plain", number),
            Fault::KillTarget(TRANSACTIONS, number),
            Fault::RollSource,
            Fault::KillSource("__consumer_offsets", number),
            Fault::KillTarget(PROGRESS, number),
            Fault::KillSource("lead.half", number),
            Fault::KillTarget("__longhaul.lead.offsetmap", number),
        ]);
    }
    faults
}

fn leader(admin: &Admin, topic: &str, partition: i32) -> i32 {
    let mut leader = None;
    let known = wait_until(PATIENCE, || {
        let Ok(mut described) = admin.describe(&[topic], PATIENCE) else { return false };
        let Ok(topic) = described.remove(0) else { return false };
        leader = topic.partitions[usize::try_from(partition).unwrap()].leader;
        leader.is_some()
    });
    assert!(known, "{topic} [{partition}] has no leader");
    leader.unwrap()
}

fn roll(cluster: &Cluster) {
    for node in 1..=3 {
        cluster.stop(node);
        cluster.start_node(node).unwrap();
    }
}

/// Where the group stands, by partition.
fn positions(bridge: &Bridge<'_>) -> BTreeMap<(String, i32), i64> {
    let source = settings_at(&bridge.pair.source.bootstrap());
    group_offsets(&source, &bridge.exporter.group(), &TOPICS).unwrap_or_default()
}

/// Waits until every partition is further than it is now; how long that takes.
fn every_partition_moves(bridge: &Bridge<'_>) -> Duration {
    let began = Instant::now();
    let mut before = BTreeMap::new();
    assert!(wait_until(PATIENCE, || {
        before = positions(bridge);
        before.len() == 8
    }));
    let moves = || {
        let now = positions(bridge);
        before.iter().all(|(at, was)| now.get(at).is_some_and(|now| now > was))
    };
    assert!(wait_until(PATIENCE, moves), "some partition stands: {before:?}, {:?}", positions(bridge));
    began.elapsed()
}

/// `LONGHAUL_ROUNDS` above 1 for the long way.
#[test]
fn leaders_and_coordinators_that_die_or_move_under_load_lose_and_repeat_nothing() {
    let Some(trios) = TURNS.take("leaders that die") else { return };
    let pair = &trios.0;
    let source = pair.source.bootstrap();
    TOPICS.iter().for_each(|name| topic(&source, name, 4));
    let mut bridge = Bridge::new(pair, "lead", &["lead.*"]);
    let streams = [
        Stream::start(&source, TOPICS[0], 500, 1, LoadOptions::default()),
        Stream::start(&source, TOPICS[1], 500, 2, transactional(100)),
    ];
    bridge.start();
    assert!(wait_until(PATIENCE, || positions(&bridge).len() == 8), "nothing flows before the first fault");
    for fault in schedule(scale("LONGHAUL_ROUNDS", 1)) {
        let (cluster, admin, at) = match fault {
            Fault::RollTarget => (&pair.target, None, None),
            Fault::RollSource => (&pair.source, None, None),
            Fault::KillTarget(topic, number) => {
                (&pair.target, Some(pair.target_admin()), Some((topic, number)))
            }
            Fault::KillSource(topic, number) => {
                (&pair.source, Some(pair.source_admin()), Some((topic, number)))
            }
        };
        if let (Some(admin), Some((topic, number))) = (admin, at) {
            let node = leader(&admin, topic, number);
            cluster.kill(node);
            let without = every_partition_moves(&bridge);
            cluster.start_node(node).unwrap();
            let with = every_partition_moves(&bridge);
            say(format_args!(
                "{fault:?}: every partition moves {:.1} s after the kill, and {:.1} s after the new start",
                without.as_secs_f64(),
                with.as_secs_f64()
            ));
        } else {
            roll(cluster);
            let took = every_partition_moves(&bridge).as_secs_f64();
            say(format_args!("{fault:?}: every partition moves {took:.1} s afterwards"));
        }
        assert!(bridge.exporter.is_running() && bridge.importer.is_running(), "a process ended by itself");
    }
    let written: u64 = streams.map(|stream| stream.stop().visible).iter().sum();
    let report = bridge.settle(&TOPICS, Duration::from_secs(120));
    assert!(report.records() * 20 >= written * 19, "{} records checked of {written}", report.records());
    for journal in [bridge.importer.journal(), bridge.exporter.journal()] {
        assert_eq!(journal.holds().count(), 0, "{:?}", journal.holds().collect::<Vec<_>>());
    }
}

/// What the exporter does while the source loses records.
#[derive(Debug, Clone, Copy, PartialEq)]
enum When {
    Stopped,
    Paused,
}

/// the source elects a leader that lacks records which are at the target, and goes on with others at their offsets.
/// That partition holds; one that lost only what was not carried yet goes on with what there is.
fn unclean(when: When, link: &str) {
    let Some(trios) = TURNS.take("unclean election") else { return };
    let pair = &trios.0;
    let source = pair.source.bootstrap();
    let (carried, waiting) = (format!("{link}.carried"), format!("{link}.waiting"));
    let (carried, waiting) = (carried.as_str(), waiting.as_str());
    for name in [carried, waiting] {
        create_on_two(&pair.source, name);
        fill(&source, name, 300, 1);
    }
    let pattern = format!("{link}.*");
    let mut bridge = Bridge::new(pair, link, &[&pattern]);
    bridge.start();
    bridge.wait(&[carried, waiting], PATIENCE);

    pair.source.kill(2);
    let admin = pair.source_admin();
    let in_sync = || admin.ends(carried, &[0], PATIENCE).is_ok();
    assert!(wait_until(PATIENCE, in_sync), "the partition is not led by the node that is left");
    fill(&source, carried, 200, 2);
    bridge.wait(&[carried], PATIENCE);
    match when {
        When::Stopped => assert_eq!(bridge.exporter.stop(PATIENCE), Some(0)),
        When::Paused => bridge.exporter.pause(),
    }
    fill(&source, waiting, 200, 3);
    pair.source.kill(1);
    pair.source.start_node(2).unwrap();
    let elected = wait_until(PATIENCE, || leader(&admin, carried, 0) == 2 && leader(&admin, waiting, 0) == 2);
    assert!(elected, "no unclean election");
    for name in [carried, waiting] {
        // More than was lost, of another seed.
        fill(&source, name, 500, 4);
    }
    pair.source.start_node(1).unwrap();
    match when {
        When::Stopped => bridge.exporter.start(),
        When::Paused => bridge.exporter.resume(),
    }
    bridge.await_hold((carried, 0), &["source_diverged"], &[carried]);
    bridge.wait_but_for(&[carried, waiting], &[(carried, 0)], PATIENCE);
    let others = vec![carried.to_owned()];
    let report = bridge.run_check(Check { others_at_target: others, ..Check::of(&[waiting]) });
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.records(), 800);
    // Of the other, all that was acknowledged before is there, and nothing of what has those offsets now.
    let report =
        bridge.run_check(Check { others_at_target: vec![waiting.to_owned()], ..Check::of(&[carried]) });
    let foreign = report.topics.iter().flat_map(|it| it.anomalies.clone()).collect::<BTreeMap<_, _>>();
    assert_eq!(foreign.get(&Anomaly::Foreign), Some(&200), "{report}");
    bridge.assert_chains();
}

/// A topic of one partition on the first two nodes that prefers to go on over keeping its records.
fn create_on_two(cluster: &Cluster, name: &str) {
    let bootstrap = cluster.admin_bootstrap();
    let what = ["--bootstrap-server", &bootstrap, "--create", "--topic", name, "--replica-assignment", "1:2"];
    let how = ["--config", "unclean.leader.election.enable=true", "--config", "min.insync.replicas=1"];
    let output = cluster
        .run_tool("org.apache.kafka.tools.TopicCommand", &[&what[..], &how[..]].concat(), b"")
        .unwrap();
    assert!(output.status.success(), "{}{}", output.stdout, output.stderr);
}

#[test]
fn a_source_that_lost_acknowledged_records_under_a_running_exporter_holds_and_mixes_nothing() {
    unclean(When::Paused, "unclive");
}

#[test]
fn a_source_that_lost_acknowledged_records_while_the_exporter_was_down_holds_and_mixes_nothing() {
    unclean(When::Stopped, "uncdown");
}
