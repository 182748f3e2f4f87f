//! Certificates and grants that change while both programs run.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::time::Duration;

use lab::checker::Check;
use longhaul_tests::bridge::{Bridge, Journal, PATIENCE, Pair, Turns, behind, fill, topic, wait_until};
use observe::event::Event;

static TURNS: Turns<Pair, 2> = Turns::new();

/// on record first, for the link that it is about, without a restart.
#[test]
fn a_grant_that_changes_takes_effect_at_once_and_a_broken_file_changes_nothing() {
    let Some(pair) = TURNS.take("reload: grants") else { return };
    let source = pair.source.bootstrap();
    let (kept, taken, given) = ("regrant.kept", "regrant.taken", "regrant.given");
    [kept, taken, given].iter().for_each(|name| topic(&source, name, 1));
    let mut bridge = Bridge::new(&pair, "regrant", &["regrant.*"]);
    bridge.importer.links[0].topics = vec![kept.into(), taken.into()];
    bridge.start();
    for name in [kept, taken, given] {
        fill(&source, name, 200, 1);
    }
    bridge.wait(&[kept, taken], PATIENCE);

    let good = bridge.importer.toml();
    let file = bridge.importer.config_file().to_owned();
    std::fs::write(&file, good.replace("topics =", "topcis =")).unwrap();
    let said = || bridge.importer.log().contains("did you mean `topics`");
    assert!(wait_until(PATIENCE, said), "the broken file is not noticed");
    fill(&source, taken, 100, 2);
    bridge.wait(&[taken], PATIENCE);

    let policies = || {
        let journal = bridge.importer.journal();
        let all = journal.events().iter().filter_map(|event| match event {
            Event::Policy(policy) => Some(policy.summary.clone()),
            _ => None,
        });
        all.collect::<Vec<_>>()
    };
    assert_eq!(policies(), Vec::<String>::new());
    bridge.importer.links[0].topics = vec![kept.into(), given.into()];
    bridge.importer.write_config();
    let group = bridge.exporter.group();
    assert!(wait_until(PATIENCE, || behind(&pair, &group, &[given]).is_empty()), "not given");
    let journal = bridge.importer.journal();
    let summary = journal.events().iter().find_map(|event| match event {
        Event::Policy(policy) => Some(policy.summary.clone()),
        _ => None,
    });
    assert!(summary.unwrap().contains("regrant.given"));
    fill(&source, taken, 100, 3);
    fill(&source, kept, 100, 3);
    bridge.wait(&[kept], PATIENCE);
    let refused = || bridge.importer.journal().refusals().any(|it| it.topic.as_deref() == Some(taken));
    assert!(wait_until(PATIENCE, refused), "not refused");
    std::thread::sleep(Duration::from_secs(2));
    let ends = pair.target_admin().ends(taken, &[0], PATIENCE).unwrap();
    let map = pair.source_admin().ends(taken, &[0], PATIENCE).unwrap();
    assert!(!behind(&pair, &group, &[taken]).is_empty(), "still carried: {ends:?} of {map:?}");
    let report =
        bridge.run_check(Check { others_at_target: vec![taken.into()], ..Check::of(&[kept, given]) });
    assert!(report.is_clean(), "{report}");
    bridge.assert_chains();
}

/// What the exporter may send at the moment, in bits a second.
fn ceiling(bridge: &Bridge<'_>) -> f64 {
    bridge.exporter.metrics().sum("longhaul_exporter_link_ceiling_bits_per_second", &[])
}

/// A rate and a topic that are granted while the session stands.
#[test]
fn what_is_granted_in_mid_session_holds_at_once_and_the_session_goes_on() {
    let Some(pair) = TURNS.take("reload: more is granted") else { return };
    let source = pair.source.bootstrap();
    let (kept, given) = ("midway.kept", "midway.given");
    [kept, given].iter().for_each(|name| topic(&source, name, 1));
    let mut bridge = Bridge::new(&pair, "midway", &["midway.*"]);
    bridge.importer.links[0].topics = vec![kept.into()];
    bridge.start();
    for name in [kept, given] {
        fill(&source, name, 200, 1);
    }
    bridge.wait(&[kept], PATIENCE);
    let refused = || bridge.exporter.status()["partitions"].to_string().contains("refused");
    assert!(wait_until(PATIENCE, refused), "{}", bridge.exporter.status());
    let granted = || bridge.exporter.status()["path"]["granted_bits_per_second"].as_u64();
    assert_eq!(granted(), None);

    let without = bridge.importer.links[0].clone();
    bridge.importer.links[0] = without.clone().with("rate = \"7 Mbit/s\"");
    bridge.importer.links[0].topics.push(given.into());
    bridge.importer.write_config();
    assert!(wait_until(PATIENCE, || granted() == Some(7_000_000)), "{}", bridge.exporter.status()["path"]);
    assert!(wait_until(PATIENCE, || ceiling(&bridge) == 7e6), "{}", ceiling(&bridge));
    bridge.wait(&[kept, given], PATIENCE);

    bridge.importer.links[0].more = without.more;
    bridge.importer.write_config();
    assert!(wait_until(PATIENCE, || granted().is_none()), "{}", bridge.exporter.status()["path"]);
    fill(&source, given, 100, 2);
    bridge.wait(&[kept, given], PATIENCE);
    assert_eq!(bridge.exporter.status()["sessions"], 1, "the session went on all the time");
    let told = bridge.exporter.journal().events().iter().any(
        |event| matches!(event, Event::Policy(policy) if policy.summary.contains("at most 7000000 bits a second")),
    );
    assert!(told, "the exporter has it on record");
    let report = bridge.check(&[kept, given]);
    assert!(report.is_clean(), "{report}");
    bridge.assert_chains();
}

/// The exporter's own `rate` is changed, made worse than what the importer grants, and taken away, while the session stands.
#[test]
fn the_exporters_own_rate_follows_its_file_and_the_lower_of_both_ends_holds() {
    let Some(pair) = TURNS.take("reload: the exporter's rate") else { return };
    let source = pair.source.bootstrap();
    topic(&source, "pace.orders", 1);
    let mut bridge = Bridge::new(&pair, "pace", &["pace.orders"]);
    bridge.importer.links[0] = bridge.importer.links[0].clone().with("rate = \"9 Mbit/s\"");
    bridge.exporter.rate = Some("20 Mbit/s".to_owned());
    bridge.start();
    assert!(wait_until(PATIENCE, || ceiling(&bridge) == 9e6), "{}", ceiling(&bridge));
    let steps = [(Some("4 Mbit/s"), 4e6), (Some("6 Mbit/s"), 6e6), (None, 9e6), (Some("5 Mbit/s"), 5e6)];
    for (seed, (rate, expected)) in (1..).zip(steps) {
        bridge.exporter.rate = rate.map(str::to_owned);
        bridge.exporter.write_config();
        let follows = wait_until(PATIENCE, || ceiling(&bridge) == expected);
        assert!(follows, "{rate:?}: {} {}", ceiling(&bridge), bridge.exporter.log());
        let how = if rate.is_some() { "governed" } else { "adaptive" };
        let congestion = || bridge.exporter.status()["path"]["congestion"].clone();
        assert!(wait_until(PATIENCE, || congestion() == how), "{rate:?}: {}", congestion());
        fill(&source, "pace.orders", 200, seed);
        bridge.wait(&["pace.orders"], PATIENCE);
    }
    bridge.exporter.rate = Some("20 parrots".to_owned());
    bridge.exporter.write_config();
    let said = || bridge.exporter.log().contains("parrots");
    assert!(wait_until(PATIENCE, said), "a bad rate is not noticed");
    assert_eq!(ceiling(&bridge), 5e6, "a file that cannot be used changes nothing");
    assert_eq!(bridge.exporter.status()["sessions"], 1, "the session went on all the time");
    let report = bridge.check(&["pace.orders"]);
    assert!(report.is_clean(), "{report}");
}

/// revoked while connected; and a folder that is no identity changes nothing.
#[test]
fn a_revoked_exporter_is_cut_off_and_a_renewed_one_comes_back_without_a_restart() {
    let Some(pair) = TURNS.take("reload: certificates") else { return };
    let source = pair.source.bootstrap();
    topic(&source, "revoke.orders", 1);
    let mut bridge = Bridge::new(&pair, "revoke", &["revoke.orders"]);
    bridge.start();
    fill(&source, "revoke.orders", 200, 1);
    bridge.wait(&["revoke.orders"], PATIENCE);

    let (edge, cloud) = (bridge.exporter.tls.clone(), bridge.importer.tls.clone());
    let key = std::fs::read(cloud.join(certs::KEY_FILE)).unwrap();
    std::fs::write(cloud.join(certs::KEY_FILE), "not a key").unwrap();
    let said = || bridge.importer.log().contains("cannot be used");
    assert!(wait_until(PATIENCE, said), "the broken key is not noticed");
    fill(&source, "revoke.orders", 100, 2);
    bridge.wait(&["revoke.orders"], PATIENCE);
    std::fs::write(cloud.join(certs::KEY_FILE), key).unwrap();

    // Who asks for a look at files that are what they were gets no line for it.
    let acts = |journal: Journal| {
        journal.events().iter().filter(|event| matches!(event, Event::Operator(_) | Event::Policy(_))).count()
    };
    let before = (acts(bridge.exporter.journal()), acts(bridge.importer.journal()));
    for _ in 0..3 {
        bridge.exporter.hang_up();
        bridge.importer.hang_up();
        std::thread::sleep(Duration::from_millis(400));
    }
    let after = (acts(bridge.exporter.journal()), acts(bridge.importer.journal()));
    assert_eq!(after, before, "nothing was replaced");

    bridge.ground.authority().revoke(&edge.join(certs::CHAIN_FILE)).unwrap();
    std::fs::copy(bridge.ground.authority().crl_path(), cloud.join(certs::CRL_FILE)).unwrap();
    let cut = || {
        let journal = bridge.importer.journal();
        journal
            .events()
            .iter()
            .any(|event| matches!(event, Event::Disconnect(it) if it.reason.contains("no longer trusted")))
    };
    assert!(wait_until(PATIENCE, cut), "the revoked exporter is still connected");
    let refused = || bridge.importer.journal().refusals().any(|it| it.reason.contains("revoked"));
    assert!(wait_until(PATIENCE, refused), "it is let in again");
    fill(&source, "revoke.orders", 100, 3);
    std::thread::sleep(Duration::from_secs(3));
    assert!(!bridge.behind(&["revoke.orders"]).is_empty(), "a revoked exporter delivered");

    // Into the same folder, as an operator would.
    let again = bridge.ground.exporter_identity("spiffe://test.example/exporter/revoke");
    assert_eq!(again, edge);
    bridge.settle(&["revoke.orders"], PATIENCE);
}
