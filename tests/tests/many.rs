//! Many topics at once: they open together, not one after the other.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::time::{Duration, Instant};

use lab::checker::Check;
use longhaul_tests::bridge::{Bridge, PATIENCE, Pair, Turns, fill, say, scale, wait_until};

static TURNS: Turns<Pair> = Turns::new();

/// 300 topics, or `LONGHAUL_TOPICS`.
#[test]
fn hundreds_of_topics_are_open_within_seconds() {
    let Some(pair) = TURNS.take("many topics") else { return };
    let count = usize::try_from(scale("LONGHAUL_TOPICS", 300)).unwrap();
    let names: Vec<String> = (0..count).map(|number| format!("many.t{number:04}")).collect();
    let admin = pair.source_admin();
    for chunk in names.chunks(100) {
        let topics: Vec<(&str, i32)> = chunk.iter().map(|name| (name.as_str(), 1)).collect();
        for (name, outcome) in admin.create_topics(&topics, PATIENCE).unwrap() {
            outcome.unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    }
    let source = pair.source.bootstrap();
    let (first, last) = (names[0].as_str(), names[count - 1].as_str());
    let admin_sees = || admin.topics(PATIENCE).is_ok_and(|topics| topics.len() >= count);
    assert!(wait_until(PATIENCE, admin_sees), "the source does not show its topics");
    fill(&source, first, 100, 1);
    fill(&source, last, 100, 2);
    let mut bridge = Bridge::new(&pair, "many", &["many.*"]);
    bridge.importer.start();
    std::thread::sleep(Duration::from_secs(2));
    let started = Instant::now();
    bridge.exporter.start();
    let flowing =
        || bridge.exporter.metrics().sum("longhaul_exporter_partitions", &["state=\"flowing\""]) as usize;
    assert!(wait_until(Duration::from_secs(120), || flowing() >= count), "{} of {count} flow", flowing());
    say(format_args!("{count} topics are open after {:.1} s", started.elapsed().as_secs_f64()));
    bridge.wait(&[first, last], PATIENCE);
    let others_at_target = names.clone();
    let report = bridge.run_check(Check { others_at_target, ..Check::of(&[first, last]) });
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.records(), 200);
}
