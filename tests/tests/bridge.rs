//! The bridge between two real clusters, undisturbed: what goes in comes out, exactly once and unchanged.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use lab::checker::{Check, Pair as Names};
use lab::generator::{TortureOptions, torture};
use lab::load::load;
use lab::record::Record;
use longhaul_tests::bridge::{
    Bridge, Exporter, LinkSettings, PATIENCE, Pair, Stream, Turns, behind, check_of, compressed, fill, say,
    scale, settings_at, topic, transactional, wait_until,
};
use observe::event::Event;

static TURNS: Turns<Pair, 2> = Turns::new();

const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];

/// R-1, R-2, R-3, R-4, R-5.
#[test]
fn mixed_records_of_all_kinds_arrive_exactly_once_in_order_and_unchanged() {
    let Some(pair) = TURNS.take("bridge: mixed records") else { return };
    let source = pair.source.bootstrap();
    let total = scale("LONGHAUL_RECORDS", 150_000);
    let topics = ["mixed.plain", "mixed.half", "mixed.all"];
    topics.iter().for_each(|name| topic(&source, name, 8));
    let mut bridge = Bridge::new(&pair, "mixed", &["mixed.plain", "mixed.half", "mixed.a*"]);
    let slice = usize::try_from(total / 15).unwrap();
    // Transactions in every slice, in every other one, in none.
    let fill = |index: usize, round: usize| {
        let mut options = compressed(CODECS[round]);
        if index == 2 || (index == 1 && round % 2 == 1) {
            options.transactions = transactional(200).transactions;
        }
        let seed = u64::try_from(index * 100 + round).unwrap();
        let records = torture(seed, TortureOptions { large_one_in: 10_000, ..Default::default() });
        load(&settings_at(&source), topics[index], records.take(slice), &options).unwrap()
    };
    let fill_all = |rounds: std::ops::Range<usize>| {
        std::thread::scope(|scope| {
            let fill = &fill;
            let load = |index: usize| {
                let rounds = rounds.clone();
                scope.spawn(move || rounds.map(|round| fill(index, round).visible).sum::<u64>())
            };
            let running: Vec<_> = (0..3).map(load).collect();
            running.into_iter().map(|it| it.join().unwrap()).sum::<u64>()
        })
    };
    let before = fill_all(0..2);
    bridge.start();
    let started = Instant::now();
    let after = fill_all(2..5);
    bridge.wait(&topics, Duration::from_secs(120) + Duration::from_millis(total));
    let seconds = started.elapsed().as_secs_f64();
    let report = bridge.assert_exact(&topics);
    assert_eq!(report.records(), before + after);
    say(format_args!(
        "mixed: {} records, {:.1} MB in {seconds:.1} s; peak memory exporter {} MiB, importer {} MiB",
        report.records(),
        report.bytes() as f64 / 1e6,
        bridge.exporter.peak_memory_bytes() >> 20,
        bridge.importer.peak_memory_bytes() >> 20,
    ));
}

/// R-7, and what `[topics]` and `map` say.
#[test]
fn topics_are_chosen_by_name_pattern_and_exclusion_renamed_and_only_the_granted_arrive() {
    let Some(pair) = TURNS.take("bridge: choice of topics") else { return };
    let source = pair.source.bootstrap();
    let names =
        ["chosen.exact", "chosen.glob.eu", "chosen.glob.us", "chosen.glob.eu.internal", "chosen.refused"];
    for (seed, name) in (1..).zip(names) {
        topic(&source, name, 2);
        fill(&source, name, 500, seed);
    }
    topic(&source, "chosen.unasked", 1);
    fill(&source, "chosen.unasked", 10, 9);
    let mut bridge = Bridge::new(&pair, "chosen", &["chosen.exact", "chosen.glob.*", "chosen.refused"]);
    bridge.exporter.exclude = vec!["*.internal".to_owned()];
    bridge.importer.links = vec![
        LinkSettings::new("chosen", &["chosen.exact", "chosen.glob.*"])
            .with(r#"map = { prefix = "chosen.fra.", rename = { "chosen.glob.us" = "chosen.america" } }"#),
    ];
    bridge.start();
    bridge.wait(&["chosen.exact", "chosen.glob.eu", "chosen.glob.us"], PATIENCE);
    let refused = wait_until(PATIENCE, || {
        bridge.importer.journal().refusals().any(|it| it.topic.as_deref() == Some("chosen.refused"))
    });
    assert!(refused, "no word about the topic outside the grant in {:?}", bridge.importer.audit_file());
    let named = |source: &str, target: &str| Names { source: source.to_owned(), target: target.to_owned() };
    let report = bridge.run_check(Check {
        pairs: vec![
            named("chosen.exact", "chosen.fra.chosen.exact"),
            named("chosen.glob.eu", "chosen.fra.chosen.glob.eu"),
            named("chosen.glob.us", "chosen.america"),
        ],
        ..Check::default()
    });
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.records(), 1500);
    bridge.assert_chains();
}

/// R-9 for topics and partitions; the exporter is to find them within 10 s.
#[test]
fn topics_and_partitions_made_while_it_runs_arrive_from_their_first_record() {
    let Some(pair) = TURNS.take("bridge: new topics") else { return };
    let source = pair.source.bootstrap();
    topic(&source, "grow.old", 2);
    fill(&source, "grow.old", 200, 1);
    let mut bridge = Bridge::new(&pair, "grow", &["grow.*"]);
    bridge.start();
    bridge.wait(&["grow.old"], PATIENCE);

    topic(&source, "grow.new", 3);
    fill(&source, "grow.new", 300, 2);
    let made = Instant::now();
    bridge.wait(&["grow.new"], PATIENCE);
    say(format_args!("a new topic was there after {:.1} s", made.elapsed().as_secs_f64()));

    pair.source_admin().create_partitions("grow.old", 5, PATIENCE).unwrap();
    // Metadata of the grown topic reaches a producer when it asks anew.
    assert!(wait_until(PATIENCE, || {
        let topics = pair.source_admin().topics(PATIENCE).unwrap();
        topics.iter().any(|it| it.name == "grow.old" && it.partitions == 5)
    }));
    fill(&source, "grow.old", 500, 3);
    let made = Instant::now();
    bridge.wait(&["grow.old"], PATIENCE);
    say(format_args!("new partitions were there after {:.1} s", made.elapsed().as_secs_f64()));
    let report = bridge.assert_exact(&["grow.old", "grow.new"]);
    assert_eq!(report.records(), 1000);
}

/// `start = "latest"`: nothing from before, everything from then on.
#[test]
fn a_start_at_the_end_carries_exactly_what_comes_after() {
    let Some(pair) = TURNS.take("bridge: start = latest") else { return };
    let source = pair.source.bootstrap();
    topic(&source, "latest.orders", 4);
    fill(&source, "latest.orders", 400, 1);
    let mut bridge = Bridge::new(&pair, "latest", &["latest.orders"]);
    bridge.exporter.start_at = "latest".to_owned();
    bridge.start();
    let starts = || starts(&bridge.importer.journal(), "latest.orders");
    assert!(wait_until(PATIENCE, || starts().len() == 4), "only {:?} began", starts());
    let ends = pair.source_admin().ends("latest.orders", &[0, 1, 2, 3], PATIENCE).unwrap();
    let expected: BTreeMap<_, _> =
        (0..).zip(ends).map(|(partition, it)| (("latest.orders".to_owned(), partition), it.lso)).collect();
    assert_eq!(starts(), expected);
    fill(&source, "latest.orders", 300, 2);
    bridge.wait(&["latest.orders"], PATIENCE);
    let check = Check { source_from: expected, ..Check::of(&["latest.orders"]) };
    let report = bridge.run_check(check);
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.records(), 300);
}

/// `start = "2026-01-01T00:00:00Z"`: from the first record of that time on, whatever comes after it.
#[test]
fn a_start_at_a_time_carries_exactly_what_is_not_older() {
    let Some(pair) = TURNS.take("bridge: start at a time") else { return };
    let source = pair.source.bootstrap();
    topic(&source, "since.orders", 3);
    let noon = 1_767_225_600_000_i64;
    let record = |number: i64| Record {
        partition: i32::try_from(number % 3).unwrap(),
        timestamp: noon + (number - 300) * 1000,
        value: Some(format!("order {number}").into_bytes()),
        ..Record::default()
    };
    load(&settings_at(&source), "since.orders", (0..900).map(record), &compressed("none")).unwrap();
    let mut bridge = Bridge::new(&pair, "since", &["since.orders"]);
    bridge.exporter.start_at = "2026-01-01T00:00:00Z".to_owned();
    bridge.start();
    bridge.wait(&["since.orders"], PATIENCE);
    let source_from = (0..3).map(|partition| (("since.orders".to_owned(), partition), 100)).collect();
    let report = bridge.run_check(Check { source_from, ..Check::of(&["since.orders"]) });
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.records(), 600);
}

/// Started processes deliver at once: 2 s is the figure, the assertion is generous.
#[test]
fn the_first_record_arrives_soon_after_the_processes_start() {
    let Some(pair) = TURNS.take("bridge: first record") else { return };
    let source = pair.source.bootstrap();
    topic(&source, "first.orders", 1);
    fill(&source, "first.orders", 1, 1);
    // Built before the clock runs.
    longhaul_tests::bridge::binary("cloud-importer");
    let mut bridge = Bridge::new(&pair, "first", &["first.orders"]);
    let admin = pair.target_admin();
    let started = Instant::now();
    bridge.start();
    let arrived = wait_until(PATIENCE, || {
        admin.ends("first.orders", &[0], PATIENCE).is_ok_and(|ends| ends.iter().any(|it| it.lso > 0))
    });
    say(format_args!("the first record was there {:.2} s after the start", started.elapsed().as_secs_f64()));
    assert!(arrived, "nothing arrived");
    assert!(started.elapsed() < Duration::from_secs(20), "the first record took {:?}", started.elapsed());
    bridge.settle(&["first.orders"], PATIENCE);
}

/// SIGTERM under load: each drains, says so in its audit log and exits 0; the next run goes on without a repeat.
#[test]
fn asked_to_stop_both_drain_exit_0_and_go_on_where_they_were() {
    let Some(pair) = TURNS.take("bridge: stop") else { return };
    let source = pair.source.bootstrap();
    topic(&source, "stop.orders", 4);
    let stream = Stream::start(&source, "stop.orders", 1000, 1, transactional(100));
    let mut bridge = Bridge::new(&pair, "stop", &["stop.orders"]);
    bridge.start();
    let flowing = |bridge: &Bridge<'_>| {
        let events = bridge.importer.journal().events().len();
        assert!(
            wait_until(PATIENCE, || bridge.importer.journal().events().len() > events + 8),
            "nothing flows"
        );
    };
    let stopped = |what: &str, code: Option<i32>, since: Instant, last: Option<&Event>| {
        say(format_args!("the {what} stopped in {:.2} s", since.elapsed().as_secs_f64()));
        assert_eq!(code, Some(0), "the {what}'s exit code");
        assert!(matches!(last, Some(Event::Stop(_))), "the last word of the {what}'s audit log is {last:?}");
    };
    flowing(&bridge);
    let since = Instant::now();
    let code = bridge.exporter.stop(PATIENCE);
    stopped("exporter", code, since, bridge.exporter.journal().events().last());
    bridge.exporter.start();
    flowing(&bridge);
    let since = Instant::now();
    let code = bridge.importer.stop(PATIENCE);
    stopped("importer", code, since, bridge.importer.journal().events().last());
    bridge.importer.start();
    flowing(&bridge);
    let written = stream.stop();
    let report = bridge.settle(&["stop.orders"], PATIENCE);
    assert_eq!(report.records(), written.visible);
}

/// R-5, sampled while records flow: the group offset is never above what is at the target.
#[test]
fn group_offsets_at_the_source_are_never_above_what_is_at_the_target() {
    let Some(pair) = TURNS.take("bridge: group offsets") else { return };
    let source = pair.source.bootstrap();
    topic(&source, "early.orders", 2);
    let stream = Stream::start(&source, "early.orders", 2000, 1, transactional(50));
    let mut bridge = Bridge::new(&pair, "early", &["early.orders"]);
    bridge.start();
    let moved = || bridge.behind(&["early.orders"]).iter().any(|it| it.committed.is_some());
    assert!(wait_until(PATIENCE, moved), "the group never got an offset");
    for _ in 0..3 {
        let report = bridge.run_check(Check { in_flight: true, ..Check::of(&["early.orders"]) });
        assert!(report.is_clean(), "{report}");
    }
    stream.stop();
    bridge.settle(&["early.orders"], PATIENCE);
}

/// Two regional clusters into one: here one source cluster plays both regions, with two identities and two links.
#[test]
fn a_noisy_link_does_not_starve_a_quiet_one() {
    let Some(pair) = TURNS.take("bridge: two links") else { return };
    let source = pair.source.bootstrap();
    topic(&source, "noisy.clicks", 8);
    topic(&source, "quiet.orders", 1);
    fill(&source, "noisy.clicks", 60_000, 1);
    let mut noisy = Bridge::new(&pair, "noisy", &["noisy.*"]);
    noisy.importer.links.push(LinkSettings { lanes: 1, ..LinkSettings::new("quiet", &["quiet.*"]) });
    let address = noisy.importer.address();
    let mut quiet = Exporter::new(&noisy.ground, "quiet", &source, &address, &["quiet.*"]);
    noisy.importer.start();
    quiet.start();
    fill(&source, "quiet.orders", 1, 2);
    let target = pair.target_admin();
    let there = || target.ends("quiet.orders", &[0], PATIENCE).map_or(0, |ends| ends[0].lso);
    assert!(wait_until(PATIENCE, || there() > 0), "the quiet link does not work at all");
    noisy.exporter.start();
    let mut delays = Vec::new();
    while delays.len() < 5 || !behind(&pair, &noisy.exporter.group(), &["noisy.clicks"]).is_empty() {
        let before = there();
        let sent = Instant::now();
        fill(&source, "quiet.orders", 1, 3 + u64::try_from(delays.len()).unwrap());
        assert!(wait_until(PATIENCE, || there() > before), "the quiet link starves");
        delays.push(sent.elapsed());
        assert!(delays.len() < 500, "the noisy link does not come to an end");
    }
    delays.sort();
    let (median, worst) = (delays[delays.len() / 2], delays[delays.len() - 1]);
    say(format_args!(
        "{} records of the quiet link beside the noisy one: p50 {median:?}, worst {worst:?}",
        delays.len()
    ));
    noisy.assert_exact(&["noisy.clicks"]);
    assert!(wait_until(PATIENCE, || behind(&pair, &quiet.group(), &["quiet.orders"]).is_empty()));
    let report = check_of(&pair, &quiet, &noisy.importer, Check::of(&["quiet.orders"]));
    assert!(report.is_clean(), "{report}");
}

/// Where the partitions of a topic began, as the audit log says.
fn starts(journal: &longhaul_tests::bridge::Journal, topic: &str) -> BTreeMap<(String, i32), i64> {
    let news =
        journal.events().iter().filter_map(|it| if let Event::New(new) = it { Some(new) } else { None });
    let mine = news.filter(|new| new.at.topic == topic);
    mine.map(|new| ((new.at.topic.clone(), new.at.partition), new.start)).collect()
}
