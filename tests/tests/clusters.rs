//! Clusters that ask who is there: TLS with client certificates, SASL PLAIN and SCRAM, at both ends.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use lab::kafka::{Cluster, ClusterOptions, Mechanism, Security, require_kafka};
use longhaul_tests::bridge::{Bridge, PATIENCE, Pair, fill, say, topic};

fn guarded(mechanism: Mechanism, tls: bool) -> ClusterOptions {
    ClusterOptions::default().security(Security::Sasl { mechanism, tls }).user("longhaul", "s3cret-words")
}

/// A few hundred records from one to the other.
fn carries(name: &str, source: ClusterOptions, target: ClusterOptions) {
    let Some(installation) = require_kafka("secured clusters") else { return };
    let pair = Pair::with(&installation, source, target);
    let orders = format!("{name}.orders");
    topic(&pair.source.admin_bootstrap(), &orders, 3);
    fill(&pair.source.admin_bootstrap(), &orders, 900, 1);
    let mut bridge = Bridge::new(&pair, name, &[&orders]);
    let user = |cluster: &Cluster, has: bool| cluster.client_properties(has.then_some("longhaul"));
    bridge.exporter.properties = user(&pair.source, name != "mutual");
    bridge.importer.properties = user(&pair.target, name != "mutual");
    bridge.start();
    let report = bridge.settle(&[&orders], PATIENCE);
    assert_eq!(report.records(), 900);
    for log in [bridge.exporter.log(), bridge.importer.log()] {
        assert!(!log.contains("s3cret"), "a password is in a log");
    }
    say(format_args!("{name}: carried"));
}

#[test]
fn tls_with_client_certificates_at_both_ends() {
    let mutual = || ClusterOptions::default().security(Security::Tls { mutual: true });
    carries("mutual", mutual(), mutual());
}

#[test]
fn plain_passwords_in_the_clear_at_the_source_and_over_tls_at_the_target() {
    carries("plain", guarded(Mechanism::Plain, false), guarded(Mechanism::Plain, true));
}

#[test]
fn scram_sha_256_over_tls_at_the_source_and_sha_512_at_the_target() {
    carries("scram", guarded(Mechanism::ScramSha256, true), guarded(Mechanism::ScramSha512, false));
}
