//! What happens to importers and to what is theirs at the target: each ends in exactness, or in a hold that says what to
//! do, within a bounded time and with everything else going on.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::time::{Duration, Instant};

use lab::checker::Check;
use lab::load::{LoadOptions, load};
use lab::record::Record;
use longhaul_tests::bridge::{
    Bridge, Exporter, Importer, LinkSettings, PATIENCE, Pair, Stream, Turns, alter_topic, behind, check_copy,
    fill, open_transaction, say, settings_at, topic, topic_with, transactional, wait_until,
};
use proto::ids::lane_of;

static TURNS: Turns<Pair, 2> = Turns::new();

/// The shortest that the importer accepts.
const SHORT_TRANSACTIONS: &str = "[transaction]\ntimeout = \"5 s\"\n";

/// it stood still for longer than its transactions live, and was fenced by the broker meanwhile.
#[test]
fn an_importer_that_stood_still_beyond_its_transactions_goes_on_without_a_repeat() {
    let Some(pair) = TURNS.take("importer stopped") else { return };
    let source = pair.source.bootstrap();
    topic(&source, "still.orders", 4);
    let mut bridge = Bridge::new(&pair, "still", &["still.*"]);
    bridge.importer.more = SHORT_TRANSACTIONS.to_owned();
    let stream = Stream::start(&source, "still.orders", 1000, 1, transactional(100));
    bridge.start();
    assert!(wait_until(PATIENCE, || bridge.importer.journal().events().len() > 12), "nothing flows");
    for _ in 0..2 {
        bridge.importer.pause();
        std::thread::sleep(Duration::from_secs(10));
        bridge.importer.resume();
        std::thread::sleep(Duration::from_secs(3));
    }
    let written = stream.stop();
    let report = bridge.settle(&["still.orders"], PATIENCE);
    assert_eq!(report.records(), written.visible);
}

/// two importers and two exporters of one link at once, none of which should be there twice.
#[test]
fn two_importers_of_one_link_do_not_repeat_and_do_not_take_turns_for_ever() {
    let Some(pair) = TURNS.take("two importers") else { return };
    let source = pair.source.bootstrap();
    topic(&source, "twice.orders", 4);
    let mut bridge = Bridge::new(&pair, "twice", &["twice.*"]);
    bridge.importer.more = SHORT_TRANSACTIONS.to_owned();
    let links = bridge.importer.links.clone();
    let mut other = Importer::new(&bridge.ground, "importer-2", &pair.target.bootstrap(), links);
    other.more = SHORT_TRANSACTIONS.to_owned();
    bridge.exporter.importers.push(other.address());
    let mut rival =
        Exporter::named(&bridge.ground, "rival", "twice", &source, &other.address(), &["twice.*"]);
    let stream = Stream::start(&source, "twice.orders", 500, 1, LoadOptions::default());
    bridge.start();
    other.start();
    assert!(wait_until(PATIENCE, || bridge.importer.journal().events().len() > 12), "nothing flows");
    rival.start();
    std::thread::sleep(Duration::from_secs(12));
    rival.kill();
    // The exporter goes over to the other importer, and the first one wakes up as a zombie.
    bridge.importer.pause();
    std::thread::sleep(Duration::from_secs(8));
    bridge.importer.resume();
    std::thread::sleep(Duration::from_secs(3));
    let written = stream.stop();
    bridge.wait(&["twice.orders"], Duration::from_secs(120));
    let report = check_copy(&pair, &bridge.exporter, Check::of(&["twice.orders"]));
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.records(), written.visible);
    let fenced = bridge.importer.log().matches("fenced").count() + other.log().matches("fenced").count();
    say(format_args!("the two importers' logs speak {fenced} times of fencing"));
}

/// the lane went to another importer, which then goes for good. Nobody connects anew, and nobody has to.
#[test]
fn a_lane_that_went_to_another_importer_comes_back_when_that_one_is_gone() {
    let Some(pair) = TURNS.take("the other importer gone") else { return };
    let source = pair.source.bootstrap();
    topic(&source, "aside.orders", 2);
    let bridge = &mut Bridge::new(&pair, "aside", &["aside.*"]);
    let links = bridge.importer.links.clone();
    let mut other = Importer::new(&bridge.ground, "aside-2", &pair.target.bootstrap(), links);
    let mut rival =
        Exporter::named(&bridge.ground, "rival", "aside", &source, &other.address(), &["aside.*"]);
    let stream = Stream::start(&source, "aside.orders", 500, 1, LoadOptions::default());
    bridge.start();
    assert!(wait_until(PATIENCE, || bridge.importer.journal().events().len() > 12), "nothing flows");
    other.start();
    rival.start();
    for partition in [0, 1] {
        bridge.await_hold(("aside.orders", partition), &["owned_elsewhere"], &["taken over by importer"]);
    }
    // As long as the other one works, it keeps what it has.
    std::thread::sleep(Duration::from_secs(12));
    let back = |importer: &Importer| importer.log().matches("it is taken back").count();
    assert_eq!((back(&bridge.importer), back(&other)), (0, 0), "they take turns");
    other.kill();
    rival.kill();
    let gone = Instant::now();
    let back = wait_until(Duration::from_secs(10), || bridge.importer.journal().held().is_empty());
    assert!(back, "still held: {:?}", bridge.importer.journal().held());
    say(format_args!("taken back after {:.1} s", gone.elapsed().as_secs_f64()));
    let written = stream.stop();
    bridge.wait(&["aside.orders"], PATIENCE);
    let report = check_copy(&pair, &bridge.exporter, Check::of(&["aside.orders"]));
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.records(), written.visible);
}

/// a lane with nothing to write does not notice that it was taken over. What its new owner wrote is no stranger's.
#[test]
fn a_lane_that_went_to_another_importer_unnoticed_accuses_nobody() {
    let Some(pair) = TURNS.take("taken over unnoticed") else { return };
    let source = pair.source.bootstrap();
    let name = "unseen.orders";
    topic(&source, name, 2);
    topic_with(&pair.target.admin_bootstrap(), name, 2, &[("max.message.bytes", "20000")]);
    let bridge = &mut Bridge::new(&pair, "unseen", &[name]);
    let links = bridge.importer.links.clone();
    let mut other = Importer::new(&bridge.ground, "unseen-2", &pair.target.bootstrap(), links);
    let mut rival = Exporter::named(&bridge.ground, "rival", "unseen", &source, &other.address(), &[name]);
    bridge.start();
    fill(&source, name, 100, 1);
    bridge.wait(&[name], PATIENCE);
    let noise = (0..60_000_u32).map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
    let large = Record { value: Some(noise), timestamp: lab::generator::now_ms(), ..Record::default() };
    load(&settings_at(&source), name, std::iter::once(large), &LoadOptions::default()).unwrap();
    bridge.await_hold((name, 0), &["record_too_large"], &["max.message.bytes"]);
    fill(&source, name, 100, 2);
    bridge.wait_but_for(&[name], &[(name, 0)], PATIENCE);
    // The first importer is asked for the partition again after 5, 10 and 20 s. What is in between belongs to the other one.
    std::thread::sleep(Duration::from_secs(16));
    other.start();
    rival.start();
    alter_topic(&pair.target, name, "max.message.bytes=1000000");
    let heard = || {
        let log = bridge.importer.log();
        assert!(!log.contains("someone else wrote"), "{log}");
        log.contains("another importer has taken the lane over")
    };
    assert!(wait_until(Duration::from_secs(45), heard), "it does not notice: {}", bridge.importer.log());
    other.kill();
    rival.kill();
    fill(&source, name, 100, 3);
    bridge.wait(&[name], PATIENCE);
    let report = check_copy(&pair, &bridge.exporter, Check::of(&[name]));
    assert!(report.is_clean(), "{report}");
}

/// A producer of somebody else leaves a transaction open in one partition of the progress topic: that lane waits.
#[test]
fn a_foreign_open_transaction_in_the_progress_topic_is_waited_for_and_named() {
    let Some(pair) = TURNS.take("foreign transaction") else { return };
    let source = pair.source.bootstrap();
    let (blocked, free) = ("foreign.orders", "foreign.clicks");
    let (lane, other) = (lane_of(blocked, 4), lane_of(free, 4));
    assert_ne!(lane, other, "the topics must be of two lanes for this test");
    let topics = [blocked, free];
    topics.iter().for_each(|name| topic(&source, name, 2));
    let mut bridge = Bridge::new(&pair, "foreign", &["foreign.*"]);
    bridge.start();
    for name in topics {
        fill(&source, name, 400, 1);
    }
    bridge.wait(&topics, PATIENCE);
    assert_eq!(bridge.importer.stop(PATIENCE), Some(0));
    let at = ("__longhaul.foreign.progress", i32::from(lane.0));
    let foreign = open_transaction(&pair.target.bootstrap(), at, Duration::from_secs(30));

    bridge.importer.start();
    for name in topics {
        fill(&source, name, 400, 2);
    }
    for partition in [0, 1] {
        bridge.await_hold((blocked, partition), &["progress_blocked"], &["transaction"]);
    }
    bridge.wait(&[free], PATIENCE);
    drop(foreign);
    // The broker ends the transaction when its time is over, and nobody has to do anything.
    bridge.settle(&topics, Duration::from_secs(120));
}

/// without its progress the importer cannot know what is there already, so it must not guess. Another link of
/// the same importer goes on.
fn progress_deleted(running: bool, link: &str) {
    let Some(pair) = TURNS.take("progress topic deleted") else { return };
    let source = pair.source.bootstrap();
    let (name, neighbour) = (format!("{link}.orders"), format!("{link}next"));
    let theirs = format!("{neighbour}.orders");
    topic(&source, &name, 2);
    topic(&source, &theirs, 2);
    let mut bridge = Bridge::new(&pair, link, &[&name]);
    bridge.importer.links.push(LinkSettings::new(&neighbour, &[&theirs]));
    let importer = bridge.importer.address();
    let mut other = Exporter::new(&bridge.ground, &neighbour, &source, &importer, &[&theirs]);
    bridge.start();
    other.start();
    fill(&source, &name, 400, 1);
    fill(&source, &theirs, 400, 1);
    bridge.wait(&[&name], PATIENCE);
    if !running {
        assert_eq!(bridge.importer.stop(PATIENCE), Some(0));
    }
    pair.target_admin().delete_topic(&format!("__longhaul.{link}.progress"), PATIENCE).unwrap();
    std::thread::sleep(Duration::from_secs(2));
    if !running {
        bridge.importer.start();
    }
    fill(&source, &name, 400, 2);
    fill(&source, &theirs, 400, 2);
    for partition in 0..2 {
        let words = ["the target topic", " name"];
        bridge.await_hold((&name, partition), &["progress_lost", "target_not_empty"], &words);
    }
    let goes_on = || behind(&pair, &other.group(), &[&theirs]).is_empty();
    assert!(wait_until(PATIENCE, goes_on), "the other link does not go on: {}", other.status());
    let report = check_copy(&pair, &other, Check::of(&[&theirs]));
    assert!(report.is_clean() && report.records() == 800, "{report}");
    let check = Check { in_flight: true, ..Check::of(&[&name]) };
    // With the audit logs where it ran: what was not yet on record at the target's end is known to the process. Where it
    // was down, only the topic that is gone knew of it.
    let report = if running { bridge.run_check(check) } else { check_copy(&pair, &bridge.exporter, check) };
    assert!(report.is_clean(), "{report}");
}

#[test]
fn a_progress_topic_deleted_while_the_importer_was_down_holds_and_repeats_nothing() {
    progress_deleted(false, "lostdown");
}

#[test]
fn a_progress_topic_deleted_under_a_running_importer_holds_and_repeats_nothing() {
    progress_deleted(true, "lostlive");
}

/// The number of lanes is fixed when a link first runs.
#[test]
fn another_number_of_lanes_in_the_configuration_holds_and_says_the_right_one() {
    let Some(pair) = TURNS.take("lanes changed") else { return };
    let source = pair.source.bootstrap();
    topic(&source, "lanes.orders", 4);
    let mut bridge = Bridge::new(&pair, "lanes", &["lanes.*"]);
    bridge.start();
    fill(&source, "lanes.orders", 400, 1);
    bridge.wait(&["lanes.orders"], PATIENCE);
    assert_eq!(bridge.importer.stop(PATIENCE), Some(0));
    bridge.importer.links[0].lanes = 2;
    bridge.importer.start();
    fill(&source, "lanes.orders", 400, 2);
    bridge.await_hold(("lanes.orders", 0), &["lanes_changed"], &["4", "lanes"]);
    assert_eq!(bridge.importer.stop(PATIENCE), Some(0));
    bridge.importer.links[0].lanes = 4;
    bridge.importer.start();
    bridge.settle(&["lanes.orders"], PATIENCE);
}

/// A number of lanes that progress refuses makes no offset map of that number: going back would be refused in turn.
#[test]
fn lanes_that_progress_refuses_leave_nothing_behind() {
    let Some(pair) = TURNS.take("lanes refused") else { return };
    let source = pair.source.bootstrap();
    topic(&source, "three.orders", 2);
    let admin = pair.target_admin();
    let compact = [("cleanup.policy", "compact")];
    admin.create_topic("__longhaul.three.progress", 3, 1, &compact, PATIENCE).unwrap();
    let mut bridge = Bridge::new(&pair, "three", &["three.*"]);
    bridge.start();
    fill(&source, "three.orders", 100, 1);
    bridge.await_hold(("three.orders", 0), &["lanes_changed"], &["set lanes = 3"]);
    let existing = admin.topics(PATIENCE).unwrap();
    assert!(existing.iter().all(|it| it.name != "__longhaul.three.offsetmap"), "{existing:?}");
    assert_eq!(bridge.importer.stop(PATIENCE), Some(0));
    bridge.importer.links[0].lanes = 3;
    bridge.importer.start();
    bridge.settle(&["three.orders"], PATIENCE);
}

/// an empty target topic of the old name is not what progress speaks of.
fn target_recreated(running: bool, link: &str) {
    let Some(pair) = TURNS.take("target topic re-created") else { return };
    let (source, target) = (pair.source.bootstrap(), pair.target.bootstrap());
    let (orders, clicks) = (format!("{link}.orders"), format!("{link}.clicks"));
    topic(&source, &orders, 2);
    topic(&source, &clicks, 2);
    let mut bridge = Bridge::new(&pair, link, &[&orders, &clicks]);
    bridge.start();
    fill(&source, &orders, 400, 1);
    fill(&source, &clicks, 400, 1);
    bridge.wait(&[&orders, &clicks], PATIENCE);
    if !running {
        assert_eq!(bridge.importer.stop(PATIENCE), Some(0));
    }
    let admin = pair.target_admin();
    admin.delete_topic(&orders, PATIENCE).unwrap();
    let gone = || admin.topics(PATIENCE).is_ok_and(|all| all.iter().all(|it| it.name != orders));
    assert!(wait_until(PATIENCE, gone), "the topic does not go");
    topic(&target, &orders, 2);
    if !running {
        bridge.importer.start();
    }
    fill(&source, &orders, 400, 2);
    fill(&source, &clicks, 400, 2);
    for partition in 0..2 {
        let words = [&*orders, "copy ", " again"];
        bridge.await_hold((&orders, partition), &["target_recreated", "target_truncated"], &words);
    }
    bridge.wait(&[&clicks], PATIENCE);
    let report = bridge.run_check(Check { others_at_target: vec![orders], ..Check::of(&[&clicks]) });
    assert!(report.is_clean(), "{report}");
    bridge.assert_chains();
}

#[test]
fn a_target_topic_made_again_while_the_importer_was_down_holds_alone() {
    target_recreated(false, "againdown");
}

#[test]
fn a_target_topic_made_again_under_a_running_importer_holds_alone() {
    target_recreated(true, "againlive");
}
