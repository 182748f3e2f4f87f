//! The end of a transaction that arrives late: held on its way, its connection cut, released within the next one.
//!
//! A client library that repeats `EndTxn` by itself makes a clean success of such a commit, and the late one then ends
//! the next transaction in its middle. The importer counts how often the request was sent; without that count the
//! same procedure breaks the copy, which the last test shows.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::time::Duration;

use cloud_importer::config::{Config, Planted};
use lab::checker::{Anomaly, Check, Report};
use lab::kafka::{ClusterOptions, Installation};
use lab::load::LoadOptions;
use lab::proxy::{Action, Match, Proxy, Times};
use lab::wire::ApiKey;
use longhaul_tests::bridge::{
    Bridge, Clusters, PATIENCE, Pair, Stream, Turns, say, scale, topic, wait_until,
};

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

static TURNS: Turns<Shielded, 2> = Turns::new();

/// When the held request is let go, counted from the moment its client lost the connection: so many requests of one of
/// these kinds later, and then this many milliseconds.
struct Step {
    name: &'static str,
    kinds: &'static [ApiKey],
    count: u64,
    and_ms: u64,
}

const STEPS: [Step; 7] = [
    Step { name: "at once", kinds: &[], count: 0, and_ms: 0 },
    Step { name: "when the commit was sent again", kinds: &[ApiKey::EndTxn], count: 1, and_ms: 0 },
    Step {
        name: "when a producer was initialised or partitions were added",
        kinds: &[ApiKey::AddPartitionsToTxn, ApiKey::InitProducerId],
        count: 1,
        and_ms: 0,
    },
    Step {
        name: "when the next transaction had partitions",
        kinds: &[ApiKey::AddPartitionsToTxn],
        count: 1,
        and_ms: 5,
    },
    Step { name: "before the next transaction had records", kinds: &[ApiKey::Produce], count: 1, and_ms: 0 },
    // The records are there, and progress is on its way: see PRODUCE_DELAY.
    Step {
        name: "when the next transaction had records and no progress",
        kinds: &[ApiKey::Produce],
        count: 1,
        and_ms: PRODUCE_DELAY_MS * 3 / 2,
    },
    Step { name: "when the next commit was sent", kinds: &[ApiKey::EndTxn], count: 2, and_ms: 0 },
];

/// In the middle of the next transaction.
const MIDDLE: usize = 5;
/// What a write takes longer, so that a transaction has a middle to hit.
const PRODUCE_DELAY_MS: u64 = 60;

/// One round: whether its step was reached before the late request was let go, and whether the broker took that one.
struct Round {
    reached: bool,
    taken: bool,
}

fn late_end(proxy: &Proxy, round: usize) -> Round {
    let held = proxy.hold_next(Match::from(ApiKey::EndTxn));
    assert!(held.wait(PATIENCE), "no transaction ends");
    let step = &STEPS[round % STEPS.len()];
    proxy.reset_counts();
    held.cut_client();
    let reached = || step.kinds.iter().map(|kind| proxy.count(*kind)).max().unwrap_or(0) >= step.count;
    let reached = wait_until(Duration::from_secs(5), reached);
    std::thread::sleep(Duration::from_millis(step.and_ms));
    let code = held.release();
    say(format_args!(
        "round {round}: released {} (reached: {reached}), the broker answered {code:?}",
        step.name
    ));
    Round { reached, taken: matches!(code, Ok(Some(0))) }
}

fn prepare<'a>(shielded: &'a Shielded, link: &str) -> (Bridge<'a>, Stream) {
    let source = shielded.pair.source.bootstrap();
    let name = format!("{link}.orders");
    topic(&source, &name, 2);
    let mut bridge = Bridge::new(&shielded.pair, link, &[&name]);
    bridge.importer.bootstrap = shielded.proxy.bootstrap();
    bridge.importer.links[0].lanes = 1;
    let delay = Duration::from_millis(PRODUCE_DELAY_MS);
    shielded.proxy.on(ApiKey::Produce, Action::Delay(delay), Times::Always);
    let stream = Stream::start(&source, &name, 1500, 7, LoadOptions::default());
    (bridge, stream)
}

///
#[test]
fn an_end_of_transaction_that_arrives_late_neither_repeats_nor_loses() {
    let Some(shielded) = TURNS.take("late EndTxn") else { return };
    let (mut bridge, stream) = prepare(&shielded, "late");
    bridge.start();
    for round in 0..usize::try_from(scale("LONGHAUL_ROUNDS", 7)).unwrap() {
        let step = STEPS[round % STEPS.len()].name;
        assert!(late_end(&shielded.proxy, round).reached, "round {round} never came to its step: {step}");
    }
    shielded.proxy.clear_rules();
    let written = stream.stop();
    let report = bridge.settle(&["late.orders"], PATIENCE);
    assert_eq!(report.records(), written.visible);
}

/// the same when it never arrives, is answered and the answer is lost, or loses its connection.
#[test]
fn an_end_of_transaction_that_is_lost_or_whose_answer_is_lost_neither_repeats_nor_loses() {
    let Some(shielded) = TURNS.take("lost EndTxn") else { return };
    let (mut bridge, stream) = prepare(&shielded, "lost");
    bridge.start();
    for action in
        [Action::CutBefore, Action::CutAfter, Action::SwallowAnswer, Action::Delay(Duration::from_secs(2))]
    {
        let rule = shielded.proxy.on(ApiKey::EndTxn, action, Times::Next(1));
        assert!(wait_until(PATIENCE, || rule.hits() == 1), "no transaction ends to meet {action:?}");
        std::thread::sleep(Duration::from_millis(500));
        rule.remove();
    }
    shielded.proxy.clear_rules();
    let written = stream.stop();
    let report = bridge.settle(&["lost.orders"], PATIENCE);
    assert_eq!(report.records(), written.visible);
}

/// The planted fault: the same procedure without the count of sends, until the broker has taken a late request. Gives
/// what the checker finds, and what is held.
fn without_the_count(link: &str, shared: bool) -> Option<(Report, Vec<String>)> {
    let shielded = TURNS.take("late EndTxn, planted fault")?;
    let (mut bridge, stream) = prepare(&shielded, link);
    if shared {
        bridge.importer.links[0].more = "map = { shared = true }".to_owned();
    }
    bridge.importer.write_config();
    let mut config = Config::load(bridge.importer.config_file()).unwrap();
    config.planted = Planted { ignore_resent_end_txn: true };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let importer = runtime.block_on(cloud_importer::engine::start(config)).unwrap();
    bridge.exporter.start();
    let mut taken = 0;
    for _ in 0..6 {
        taken += u32::from(late_end(&shielded.proxy, MIDDLE).taken);
        std::thread::sleep(Duration::from_secs(2));
        if taken >= 4 || !bridge.importer.journal().held().is_empty() {
            break;
        }
    }
    assert!(taken > 0, "the broker never took a late request, so nothing was tried");
    shielded.proxy.clear_rules();
    stream.stop();
    std::thread::sleep(Duration::from_secs(3));
    let orders = format!("{link}.orders");
    let report = bridge.run_check(Check { in_flight: true, ..Check::of(&[&orders]) });
    let held = bridge.importer.journal().held().into_iter().map(|(_, _, reason)| reason).collect();
    runtime.block_on(importer.kill());
    say(format_args!("without the count: held for {held:?}\n{report}"));
    Some((report, held))
}

/// With the check of the target's end switched off as well, records are there twice, and the checker says so.
#[test]
fn without_the_count_of_sends_the_same_procedure_repeats_records() {
    let Some((report, _)) = without_the_count("planted", true) else { return };
    assert!(report.count(Anomaly::Repeated) > 0, "the checker found nothing wrong:\n{report}");
}

/// The second line of defence: a target that holds more than progress says is not written to.
#[test]
fn without_the_count_of_sends_the_check_of_the_targets_end_holds() {
    let Some((report, held)) = without_the_count("second", false) else { return };
    assert!(held.iter().any(|reason| reason == "foreign_writer"), "nothing is held: {held:?}\n{report}");
    assert_eq!(report.count(Anomaly::Repeated), 0, "{report}");
}
