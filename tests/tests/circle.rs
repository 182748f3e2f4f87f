//! Two links in opposite directions that carry topics of the same names: no record comes back.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::time::{Duration, Instant};

use longhaul_tests::bridge::{
    Bridge, Exporter, Importer, LinkSettings, PATIENCE, Pair, Turns, fill, say, topic, wait_until,
};

static TURNS: Turns<Pair> = Turns::new();

/// R-2, on the way round: what a link writes is not carried on by another, also when the topic is made while both run.
#[test]
fn topics_that_are_mirrored_both_ways_under_one_name_do_not_go_in_a_circle() {
    let Some(pair) = TURNS.take("circle") else { return };
    let (here, there) = (pair.source.bootstrap(), pair.target.bootstrap());
    let (ours, theirs) = ("circle.ours", "circle.theirs");
    topic(&here, ours, 2);
    topic(&there, theirs, 2);
    let mut forth = Bridge::new(&pair, "circle", &["circle.*"]);
    // Without the check for records of others, which would stop most circles at the other end.
    forth.importer.links[0].more = "map = { shared = true }\n".to_owned();
    let link = LinkSettings::new("circleback", &["circle.*"]).with("map = { shared = true }");
    let mut importer = Importer::new(&forth.ground, "importer-back", &here, vec![link]);
    let mut exporter = Exporter::new(&forth.ground, "circleback", &there, &importer.address(), &["circle.*"]);
    let written = fill(&here, ours, 300, 1).visible;
    fill(&there, theirs, 300, 2);
    forth.start();
    importer.start();
    exporter.start();

    forth.wait(&[ours], PATIENCE);
    let held = |exporter: &Exporter, topic: &str| {
        let began = Instant::now();
        let held = wait_until(PATIENCE, || {
            exporter.journal().hold_of(topic, 0).is_some_and(|hold| hold.reason == "would_loop")
        });
        say(format_args!("{topic} is held after {:.1} s", began.elapsed().as_secs_f64()));
        held
    };
    assert!(held(&exporter, ours), "what came is carried back: {:?}", exporter.journal().held());
    assert!(held(&forth.exporter, theirs), "the other way: {:?}", forth.exporter.journal().held());
    let hold = exporter.journal().hold_of(ours, 1).cloned().unwrap();
    for word in ["circle.ours", "link circle", "__longhaul.circle.progress", "relay"] {
        assert!(hold.detail.contains(word), "{word:?} is not in {:?}", hold.detail);
    }

    let late = "circle.late";
    topic(&here, late, 1);
    fill(&here, late, 200, 3);
    forth.wait(&[late], PATIENCE);
    assert!(held(&exporter, late), "what came late is carried back: {:?}", exporter.journal().held());
    // A circle would have grown by now.
    std::thread::sleep(Duration::from_secs(5));
    let ends = pair.source_admin().ends(ours, &[0, 1], PATIENCE).unwrap();
    let records: i64 = ends.iter().map(|ends| ends.hw).sum();
    assert_eq!(records, written as i64, "records came back");
}
