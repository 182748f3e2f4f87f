//! The bridge as its operators see it: two programs, their configuration files, two Kafka clusters.
//!
//! ```text
//!   Pair.source ──▶ Exporter (process) ══ QUIC ══▶ Importer (process) ──▶ Pair.target
//!        └────────────────────────── checker ───────────────────────────────┘
//! ```
//!
//! A [`Pair`] is two real clusters, shared by the tests of a file, one test at a time. A [`Ground`] is one test's
//! folder: certificates of its own authority, configuration files, audit logs, program logs. On it stand an
//! [`Importer`] and one or more [`Exporter`]s, real processes that can be killed, paused and asked to stop; a
//! [`Bridge`] is the usual pair of them. What a test asserts comes from the clusters and the audit logs, by the
//! [checker](lab::checker). When a test fails, the ends of the programs' logs are printed and the folder is kept.

mod binaries;
mod daemon;
mod exporter;
mod ground;
mod importer;
mod journal;
mod pair;
mod stream;
mod tools;
mod whole;

pub use binaries::binary;
pub use daemon::{Daemon, Samples};
pub use exporter::Exporter;
pub use ground::Ground;
pub use importer::{Importer, LinkSettings};
pub use journal::{Journal, events};
pub use pair::{Clusters, Pair, Turn, Turns, settings_at};
pub use stream::{Stream, compressed, open_transaction, transactional};
pub use tools::{allow_all, alter_topic, deny, deny_no_more};
pub use whole::{Behind, Bridge, behind, check_copy, check_of};

use std::time::{Duration, Instant};

use lab::generator::{TortureOptions, torture};
use lab::load::{Loaded, load};

/// How long a busy machine may take for one step of a test. Not a promise: a limit after which it is stuck.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Asks `ready` until it says yes; false when `patience` is over first.
#[must_use]
pub fn wait_until(patience: Duration, mut ready: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + patience;
    loop {
        if ready() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Says something about the run on stderr, which the test runner shows on failure or with `--nocapture`.
#[expect(clippy::print_stderr, reason = "what a test says of itself")]
pub fn say(what: impl std::fmt::Display) {
    eprintln!("[longhaul] {what}");
}

/// Creates a topic with the broker's default of replicas.
///
/// # Panics
/// When the cluster refuses.
pub fn topic(bootstrap: &str, name: &str, partitions: i32) {
    topic_with(bootstrap, name, partitions, &[]);
}

/// Creates a topic with settings of its own, and waits until the cluster shows it.
///
/// # Panics
/// When the cluster refuses.
pub fn topic_with(bootstrap: &str, name: &str, partitions: i32, configs: &[(&str, &str)]) {
    let settings = settings_at(bootstrap);
    lab::load::create_topic(&settings, name, partitions, configs).expect("a topic can be made");
    let admin = kafka::Admin::new(&settings).expect("an admin client can be made");
    let all: Vec<i32> = (0..partitions).collect();
    assert!(wait_until(PATIENCE, || admin.ends(name, &all, PATIENCE).is_ok()), "{name} does not appear");
}

/// Writes so many torture records, all that a seed gives, without transactions.
///
/// # Panics
/// When the cluster refuses.
pub fn fill(bootstrap: &str, name: &str, count: usize, seed: u64) -> Loaded {
    let records = torture(seed, TortureOptions { large_one_in: 10_000, ..Default::default() });
    load(&settings_at(bootstrap), name, records.take(count), &compressed("lz4"))
        .expect("the cluster takes records")
}

/// A number from the environment, for suites whose full size is too much for every run.
pub fn scale(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.replace('_', "").parse().ok()).unwrap_or(default)
}
