//! Small samples of many series, as agents send them: each series wanders, the key is its name.

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::partition_of;
use crate::record::Record;

const HOSTS: usize = 40;
const NAMES: [&str; 5] =
    ["cpu_usage_percent", "memory_used_bytes", "disk_read_bytes", "network_in_packets", "load_1m"];
const INTERVAL_MS: i64 = 10_000;

/// See [`metrics`].
#[derive(Debug)]
pub struct Metrics {
    rng: ChaCha8Rng,
    now_ms: i64,
    turn: usize,
    values: Vec<f64>,
}

/// A sample of each series every ten seconds from `start_ms` on.
pub fn metrics(seed: u64, start_ms: i64) -> Metrics {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let values = (0..HOSTS * NAMES.len()).map(|_| rng.random_range(1.0..1000.0)).collect();
    Metrics { rng, now_ms: start_ms, turn: 0, values }
}

impl Iterator for Metrics {
    type Item = Record;

    fn next(&mut self) -> Option<Record> {
        let series = self.turn % self.values.len();
        if series == 0 && self.turn > 0 {
            self.now_ms += INTERVAL_MS;
        }
        self.turn += 1;
        let (host, name) = (series / NAMES.len(), NAMES[series % NAMES.len()]);
        let step = self.rng.random_range(-5.0..5.0);
        let value = (self.values[series] + step).max(0.0);
        self.values[series] = value;
        let timestamp = self.now_ms + self.rng.random_range(0..200);
        let key = format!("host-{host:03}/{name}");
        let value = format!(
            "{{\"host\":\"host-{host:03}\",\"metric\":\"{name}\",\"ts\":{timestamp},\"value\":{value:.3},\"tags\":{{\"region\":\"eu-1\"}}}}"
        );
        Some(Record {
            partition: partition_of(key.as_bytes()),
            timestamp,
            key: Some(key.into_bytes()),
            value: Some(value.into_bytes()),
            headers: Vec::new(),
        })
    }
}
