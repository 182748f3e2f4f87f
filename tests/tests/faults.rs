//! Everything that can die dies, in random order under load: processes, the link, the brokers of both clusters.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use lab::checker::group_offsets;
use lab::load::LoadOptions;
use lab::relay::{Conditions, Relay};
use longhaul_tests::bridge::{
    Bridge, PATIENCE, Pair, Stream, Turns, compressed, say, scale, settings_at, topic, transactional,
    wait_until,
};
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

static TURNS: Turns<Pair> = Turns::new();

#[derive(Debug, Clone, Copy)]
enum Fault {
    KillExporter,
    KillImporter,
    KillBoth,
    CutLink(Duration),
    RestartTargetBroker,
    RestartSourceBroker,
}

/// `LONGHAUL_ROUNDS` kills of each side, half as many cuts, one restart of each broker; the order is the seed's.
fn schedule(rng: &mut ChaCha8Rng, rounds: u64) -> Vec<Fault> {
    let mut faults = vec![Fault::RestartTargetBroker, Fault::RestartSourceBroker, Fault::KillBoth];
    let longest = if rounds >= 20 { 10_000 } else { 4_000 };
    for round in 0..rounds {
        faults.extend([Fault::KillExporter, Fault::KillImporter]);
        if round % 2 == 0 {
            faults.push(Fault::CutLink(Duration::from_millis(rng.random_range(1000..=longest))));
        }
    }
    faults.shuffle(rng);
    faults
}

fn inflict(fault: Fault, bridge: &mut Bridge<'_>, relay: &Relay, rng: &mut ChaCha8Rng) {
    let mut wait = |most: u64| std::thread::sleep(Duration::from_millis(rng.random_range(0..=most)));
    match fault {
        Fault::KillExporter => {
            bridge.exporter.kill();
            wait(500);
            bridge.exporter.start();
        }
        Fault::KillImporter => {
            bridge.importer.kill();
            wait(500);
            bridge.importer.start();
        }
        Fault::KillBoth => {
            bridge.importer.kill();
            bridge.exporter.kill();
            wait(500);
            bridge.start();
        }
        Fault::CutLink(duration) => {
            relay.cut(duration);
            std::thread::sleep(duration);
        }
        Fault::RestartTargetBroker => {
            bridge.pair.target.kill(1);
            wait(1000);
            bridge.pair.target.start_node(1).unwrap();
        }
        Fault::RestartSourceBroker => {
            bridge.pair.source.kill(1);
            wait(1000);
            bridge.pair.source.start_node(1).unwrap();
        }
    }
}

const TOPICS: [&str; 3] = ["faults.plain", "faults.half", "faults.packed"];

/// Where the group stands, by partition.
fn positions(bridge: &Bridge<'_>) -> BTreeMap<(String, i32), i64> {
    let source = settings_at(&bridge.pair.source.bootstrap());
    group_offsets(&source, &bridge.exporter.group(), &TOPICS).unwrap_or_default()
}

///
#[test]
fn killed_cut_and_restarted_in_any_order_nothing_is_lost_repeated_or_reordered() {
    let Some(pair) = TURNS.take("faults") else { return };
    let rounds = scale("LONGHAUL_ROUNDS", 6);
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = scale("LONGHAUL_SEED", since_1970.as_secs());
    // Records a second into each topic.
    let rate = scale("LONGHAUL_RATE", 600);
    say(format_args!(
        "replay: LONGHAUL_SEED={seed} LONGHAUL_ROUNDS={rounds} LONGHAUL_RATE={rate} \
         cargo test -p longhaul-tests --test faults -- --nocapture"
    ));
    let rate = u32::try_from(rate).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let source = pair.source.bootstrap();
    TOPICS.iter().for_each(|name| topic(&source, name, 8));

    let mut bridge = Bridge::new(&pair, "faults", &["faults.*"]);
    let importer = bridge.importer.address().parse().unwrap();
    let path = Conditions { delay: Duration::from_millis(5), ..Conditions::default() };
    let relay = Relay::start(importer, path, seed).unwrap();
    bridge.exporter.importers = vec![relay.address().to_string()];
    let streams = [
        Stream::start(&source, TOPICS[0], rate, seed, LoadOptions::default()),
        Stream::start(&source, TOPICS[1], rate, seed + 1, transactional(100)),
        Stream::start(&source, TOPICS[2], rate, seed + 2, compressed("zstd")),
    ];
    bridge.start();
    assert!(wait_until(PATIENCE, || positions(&bridge).len() == 24), "nothing flows before the first fault");
    for (number, fault) in (1..).zip(schedule(&mut rng, rounds)) {
        say(format_args!("fault {number}: {fault:?}"));
        inflict(fault, &mut bridge, &relay, &mut rng);
        std::thread::sleep(Duration::from_millis(rng.random_range(100..2500)));
        assert!(bridge.exporter.is_running() && bridge.importer.is_running(), "a process ended by itself");
    }
    inflict(Fault::KillBoth, &mut bridge, &relay, &mut rng);

    let (before, ended) = (positions(&bridge), Instant::now());
    let moves =
        || positions(&bridge).iter().all(|(at, offset)| before.get(at).is_none_or(|was| offset > was));
    assert!(
        wait_until(PATIENCE, moves),
        "some partition does not come back: {before:?}, {:?}",
        positions(&bridge)
    );
    say(format_args!("every partition moves {:.1} s after the last fault", ended.elapsed().as_secs_f64()));
    let written: u64 = streams.map(|stream| stream.stop().visible).iter().sum();
    let report = bridge.settle(&TOPICS, Duration::from_secs(120));
    // The check compares all that the source has. A transaction of the load whose commit the restart of the source left
    // open counts as written and may not be there: this only guards against a check that looked at too little.
    assert!(report.records() * 20 >= written * 19, "{} records checked of {written}", report.records());
    say(format_args!("{written} records, zeros all over"));
}

/// within this time of the last fault everything moves again.
const COME_BACK: Duration = Duration::from_secs(10);

/// `LONGHAUL_RACES` times the path in use falls silent just long enough to be noticed, and fresh
/// connections are raced over both paths. A handshake takes longer than the next attempt waits, so that attempts overlap, and
/// what was given up on may still arrive.
#[test]
fn connections_raced_over_and_over_lose_repeat_and_reorder_nothing() {
    let Some(pair) = TURNS.take("faults: races") else { return };
    let races = scale("LONGHAUL_RACES", 12);
    let source = pair.source.bootstrap();
    topic(&source, "races.orders", 6);
    let mut bridge = Bridge::new(&pair, "races", &["races.*"]);
    let importer = bridge.importer.address().parse().unwrap();
    let path = Conditions { delay: Duration::from_millis(140), loss: 0.01, ..Conditions::default() };
    let relays = [1, 2].map(|seed| Relay::start(importer, path, seed).unwrap());
    bridge.exporter.importers = relays.iter().map(|relay| relay.address().to_string()).collect();
    let stream = Stream::start(&source, "races.orders", 600, 3, LoadOptions::default());
    bridge.start();
    let sessions = || bridge.exporter.status()["sessions"].as_u64().unwrap_or(0);
    assert!(wait_until(PATIENCE, || sessions() > 0), "nothing flows before the first race");
    let mut rng = ChaCha8Rng::seed_from_u64(races);
    // A silence that the slow machine of the moment lets pass for jitter is no race: it has to be longer then.
    let (mut raced, mut longer) = (0, Duration::ZERO);
    while raced < races {
        let before = (sessions(), relays.each_ref().map(|relay| relay.up().passed_bytes));
        std::thread::sleep(Duration::from_millis(rng.random_range(400..1000)));
        let carried = [0, 1].map(|at| relays[at].up().passed_bytes - before.1[at]);
        let in_use = usize::from(carried[1] > carried[0]);
        // Now and then both, and now and then for so long that several attempts are under way when it ends.
        let silence = Duration::from_millis(rng.random_range(1200..2200)) + longer;
        relays[in_use].cut(silence);
        if raced % 4 == 3 {
            relays[1 - in_use].cut(silence);
        }
        if wait_until(silence + COME_BACK, || sessions() > before.0) {
            raced += 1;
            continue;
        }
        longer += Duration::from_millis(500);
        let status = bridge.exporter.status();
        assert!(
            longer < COME_BACK,
            "after {raced} races and a silence of {silence:?} no new session: {status}"
        );
    }
    say(format_args!("{races} races, {} sessions", sessions()));
    let written = stream.stop();
    let report = bridge.settle(&["races.orders"], Duration::from_secs(120));
    assert_eq!(report.records(), written.visible);
}

/// after `kill -9` under load records are to flow again within 3 s, and none is repeated.
#[test]
fn after_a_kill_of_either_side_records_flow_again_at_once() {
    let Some(pair) = TURNS.take("faults: time to come back") else { return };
    let source = pair.source.bootstrap();
    topic(&source, "back.orders", 4);
    let stream = Stream::start(&source, "back.orders", 500, 1, LoadOptions::default());
    let mut bridge = Bridge::new(&pair, "back", &["back.*"]);
    bridge.start();
    let admin = pair.target_admin();
    let there = || -> i64 {
        admin
            .ends("back.orders", &[0, 1, 2, 3], PATIENCE)
            .map_or(0, |ends| ends.iter().map(|it| it.lso).sum())
    };
    assert!(wait_until(PATIENCE, || there() > 100), "nothing flows");
    for kill_importer in [false, true] {
        if kill_importer {
            bridge.importer.kill()
        } else {
            bridge.exporter.kill()
        }
        std::thread::sleep(Duration::from_millis(300));
        let before = there();
        let started = Instant::now();
        if kill_importer {
            bridge.importer.start()
        } else {
            bridge.exporter.start()
        }
        assert!(wait_until(PATIENCE, || there() > before), "nothing flows after the kill");
        let who = if kill_importer { "importer" } else { "exporter" };
        say(format_args!(
            "records flow {:.2} s after the {who}'s new start",
            started.elapsed().as_secs_f64()
        ));
    }
    let written = stream.stop();
    let report = bridge.settle(&["back.orders"], PATIENCE);
    assert_eq!(report.records(), written.visible);
}
