//! Records that look like the real thing, the same for the same seed.
//!
//! [`changes`] is what Debezium captures of a database ([`wide_changes`]: of a table with more columns),
//! [`access_log`] what web servers log, [`metrics`] small samples of many series, [`torture`](fn@torture) everything
//! that a careless copy gets wrong. All are endless: `take` what is needed. Records with a key go to a partition by
//! their key, others in turns.

mod access;
mod changes;
mod metrics;
mod torture;

pub use access::{AccessLog, access_log};
pub use changes::{Changes, changes, wide_changes};
pub use metrics::{Metrics, metrics};
pub use torture::{Torture, TortureOptions, torture};

use std::time::{SystemTime, UNIX_EPOCH};

/// The present as a record timestamp: milliseconds since 1970.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is after 1970");
    i64::try_from(since.as_millis()).expect("the clock is before the year 292 million")
}

/// A partition that depends on the key alone; to be taken modulo the number of partitions.
fn partition_of(key: &[u8]) -> i32 {
    // FNV-1a: stable over versions, spreads well enough.
    let hash =
        key.iter().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    i32::try_from(hash >> 1).expect("31 bits")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Record;

    fn all(seed: u64) -> Vec<Vec<Record>> {
        let start = 1_700_000_000_000;
        vec![
            changes(seed, start).take(2000).collect(),
            access_log(seed, start).take(2000).collect(),
            metrics(seed, start).take(2000).collect(),
            torture(seed, TortureOptions { now_ms: start, large_one_in: 500 }).take(2000).collect(),
        ]
    }

    #[test]
    fn the_same_seed_gives_the_same_records_and_another_seed_others() {
        assert_eq!(all(7), all(7));
        for (one, other) in all(7).iter().zip(&all(8)) {
            assert_ne!(one, other);
        }
    }

    #[test]
    fn keyed_records_keep_to_their_partition_and_spread() {
        for records in all(7).iter().take(1) {
            let mut partitions = std::collections::HashMap::new();
            for record in records {
                let partition = *partitions.entry(record.key.clone()).or_insert(record.partition);
                assert_eq!(partition, record.partition);
            }
            for partition in 0..8 {
                assert!(records.iter().any(|record| record.partition % 8 == partition));
            }
        }
    }

    #[test]
    fn changes_are_json_with_the_row_before_and_after() {
        let records: Vec<Record> = changes(1, 1_700_000_000_000).take(5000).collect();
        let mut kinds = std::collections::HashMap::new();
        for record in &records {
            serde_json::from_slice::<serde_json::Value>(record.key.as_ref().unwrap()).unwrap();
            let Some(value) = &record.value else {
                *kinds.entry("tombstone".to_owned()).or_insert(0) += 1;
                continue;
            };
            let value: serde_json::Value = serde_json::from_slice(value).unwrap();
            let op = value["op"].as_str().unwrap().to_owned();
            assert_eq!(value["before"].is_null(), op == "c", "{value}");
            assert_eq!(value["after"].is_null(), op == "d", "{value}");
            *kinds.entry(op).or_insert(0) += 1;
        }
        assert!(["c", "u", "d", "tombstone"].iter().all(|kind| kinds[*kind] > 20), "{kinds:?}");
        assert_eq!(kinds["d"], kinds["tombstone"]);
    }

    #[test]
    fn wide_changes_are_about_a_kilobyte() {
        let bytes: u64 = wide_changes(1, 1).take(2000).map(|record| record.payload_bytes()).sum();
        assert!((900..1200).contains(&(bytes / 2000)), "{} bytes", bytes / 2000);
    }

    #[test]
    fn torture_has_everything_that_is_promised() {
        let now_ms = 1_700_000_000_000;
        let options = TortureOptions { now_ms, large_one_in: 200 };
        let records: Vec<Record> = torture(3, options).take(2000).collect();
        let has = |what: &str, check: &dyn Fn(&Record) -> bool| {
            assert!(records.iter().any(check), "no record has {what}");
        };
        has("a null key", &|it| it.key.is_none());
        has("an empty key", &|it| it.key.as_ref().is_some_and(Vec::is_empty));
        has("a null value", &|it| it.value.is_none());
        has("an empty value", &|it| it.value.as_ref().is_some_and(Vec::is_empty));
        has("a header of null", &|it| it.headers.iter().any(|header| header.value.is_none()));
        has("an empty header", &|it| {
            it.headers.iter().any(|it| it.value.as_ref().is_some_and(Vec::is_empty))
        });
        has("a header twice", &|it| it.headers.len() > 1 && it.headers[0].name == it.headers[1].name);
        has("an old timestamp", &|it| it.timestamp < now_ms - 365 * 86_400_000);
        has("a future timestamp", &|it| it.timestamp > now_ms + 60_000);
        has("900 kB", &|it| it.value.as_ref().is_some_and(|value| value.len() >= 900_000));
        assert!(records.iter().all(|it| it.timestamp > 0 && it.timestamp <= now_ms + 50 * 60_000));
        assert!(records.iter().all(|it| it.payload_bytes() < 950_000));
    }
}
