//! The promise under faults, by simulation: see `longhaul_tests::simulation`.
//!
//! `LONGHAUL_SEEDS=n` runs n schedules instead of 2,000, `LONGHAUL_SEED_FROM=n` begins at another one, and
//! `LONGHAUL_SEED=n` replays a single one.

use std::panic::{AssertUnwindSafe, catch_unwind};

use longhaul_tests::simulation::{Kind, Planted, Summary, run};

/// One schedule; whatever goes wrong tells how to see it again.
fn schedule(seed: u64) -> Summary {
    let replay = format!("replay: LONGHAUL_SEED={seed} cargo test -p longhaul-tests --test simulation");
    match catch_unwind(AssertUnwindSafe(|| run(seed, None))) {
        Ok(Ok(summary)) => summary,
        Ok(Err(anomaly)) => panic!("seed {seed}: {anomaly}\n{replay}"),
        Err(_) => panic!("seed {seed}: a machine stopped itself, see above\n{replay}"),
    }
}

fn setting(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name} must be a number, it is `{value}`")))
}

#[test]
fn every_schedule_keeps_the_promise_and_comes_back() {
    if let Some(seed) = setting("LONGHAUL_SEED") {
        println!("seed {seed}: {:?}", schedule(seed));
        return;
    }
    let (from, count) =
        (setting("LONGHAUL_SEED_FROM").unwrap_or(0), setting("LONGHAUL_SEEDS").unwrap_or(2000));
    let mut recoveries = Vec::new();
    let (mut delivered, mut faults, mut events) = (0, 0, 0);
    for seed in from..from + count {
        let summary = schedule(seed);
        delivered += summary.delivered;
        faults += summary.faults;
        events += summary.events;
        recoveries.push(summary.recovery_ms);
    }
    recoveries.sort_unstable();
    let slowest = recoveries.last().copied().unwrap_or(0);
    println!(
        "{count} schedules: {events} events, {faults} faults, {delivered} records, slowest recovery {slowest} ms"
    );
    assert!(delivered > 30 * count, "only {delivered} records in {count} schedules: the model stands still");
    assert!(faults > 5 * count || count < 100, "only {faults} faults in {count} schedules");
}

#[test]
fn a_seed_means_the_same_schedule_every_time() {
    for seed in 0..20 {
        let (first, second) = (schedule(seed), schedule(seed));
        assert_eq!((first.events, first.delivered), (second.events, second.delivered), "seed {seed}");
    }
}

/// A planted fault must be noticed within 1,000 schedules, and the first anomaly be one of `names`.
fn caught(planted: Planted, names: &[Kind]) {
    let found = (0..1000).find_map(|seed| run(seed, Some(planted)).err().map(|anomaly| (seed, anomaly)));
    let Some((seed, anomaly)) = found else { panic!("{planted:?} was not noticed in 1,000 schedules") };
    assert!(names.contains(&anomaly.kind), "{planted:?}, seed {seed}, was called {anomaly}");
}

#[test]
fn progress_written_apart_from_the_data_is_caught() {
    caught(Planted::ProgressApart, &[Kind::Repeated]);
}

#[test]
fn an_acknowledgement_before_the_commit_is_caught() {
    caught(Planted::AckBeforeCommit, &[Kind::OverCommit]);
}

#[test]
fn a_commit_that_was_sent_twice_and_counted_once_is_caught() {
    caught(Planted::ResendsUncounted, &[Kind::Repeated]);
}

#[test]
fn a_chain_that_is_not_checked_is_caught() {
    caught(Planted::ChainUnchecked, &[Kind::SilentGap, Kind::Repeated]);
}

#[test]
fn what_was_read_before_the_last_position_and_sent_after_it_is_caught() {
    caught(Planted::ResumeEpochIgnoredByExporter, &[Kind::SilentGap, Kind::Lost]);
}

#[test]
fn what_was_sent_before_the_last_position_and_accepted_after_it_is_caught() {
    // The chain still keeps the data right: what breaks is that the exporter is told of things it takes as unsent.
    caught(Planted::ResumeEpochIgnoredByImporter, &[Kind::Misbehaved]);
}

#[test]
fn a_replay_without_reading_progress_is_caught() {
    caught(Planted::ReplayUnread, &[Kind::Repeated]);
}

#[test]
fn an_exporter_that_commits_above_the_acknowledgement_is_caught() {
    caught(Planted::CommitAboveAck, &[Kind::OverCommit]);
}

#[test]
fn a_topic_that_was_not_granted_is_caught() {
    caught(Planted::GrantUnchecked, &[Kind::Ungranted]);
}

#[test]
fn parcels_of_a_replaced_connection_are_caught() {
    let kinds = [Kind::Repeated, Kind::Changed, Kind::SilentGap, Kind::Lost, Kind::Stuck, Kind::Misbehaved];
    caught(Planted::SessionsUnfenced, &kinds);
}

#[test]
fn progress_read_before_the_predecessor_is_fenced_is_caught() {
    caught(Planted::ProgressReadBeforeInit, &[Kind::Repeated]);
}

#[test]
fn a_recreated_topic_that_is_not_noticed_is_caught() {
    caught(Planted::TopicIdUnchecked, &[Kind::Repeated, Kind::Reordered, Kind::Changed, Kind::SilentGap]);
}

#[test]
fn a_recycled_importer_that_overlooks_another_ones_progress_is_caught() {
    caught(Planted::ForeignProgressIgnored, &[Kind::Repeated, Kind::Lost, Kind::OverCommit]);
}

#[test]
fn a_target_that_takes_writes_of_fenced_producers_is_caught() {
    caught(Planted::ProducersUnfenced, &[Kind::Repeated, Kind::Lost, Kind::OverCommit]);
}
