//! Records with everything in them that a careless copy gets wrong.

use rand::{Rng as _, RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use crate::record::{Header, Record};

/// Brokers refuse timestamps further ahead than an hour (`message.timestamp.after.max.ms`).
const MAX_AHEAD_MS: i64 = 50 * 60_000;
/// Below the broker's and librdkafka's default of about a megabyte, overhead included.
const LARGE_BYTES: usize = 900_000;

/// What [`torture`] needs to know.
#[derive(Debug, Clone, Copy)]
pub struct TortureOptions {
    /// The present, in milliseconds since 1970: timestamps are strewn around it.
    pub now_ms: i64,
    /// One record in so many has a value of 900 kB.
    pub large_one_in: u64,
}

impl Default for TortureOptions {
    fn default() -> Self {
        Self { now_ms: super::now_ms(), large_one_in: 1000 }
    }
}

/// See [`torture`].
#[derive(Debug)]
pub struct Torture {
    rng: ChaCha8Rng,
    options: TortureOptions,
    count: u64,
}

/// Null and empty keys and values, duplicate, null and empty headers, bytes that are no text, timestamps old, equal and
/// up to 50 minutes ahead, and now and then a value of 900 kB.
pub fn torture(seed: u64, options: TortureOptions) -> Torture {
    Torture { rng: ChaCha8Rng::seed_from_u64(seed), options, count: 0 }
}

impl Iterator for Torture {
    type Item = Record;

    fn next(&mut self) -> Option<Record> {
        self.count += 1;
        let value = if self.count.is_multiple_of(self.options.large_one_in) {
            Some(self.bytes(LARGE_BYTES))
        } else {
            self.maybe_bytes(400)
        };
        Some(Record {
            partition: self.rng.random_range(0..i32::MAX),
            timestamp: self.timestamp(),
            key: self.maybe_bytes(20),
            value,
            headers: self.headers(),
        })
    }
}

impl Torture {
    fn timestamp(&mut self) -> i64 {
        let now = self.options.now_ms;
        match self.rng.random_range(0..10_u32) {
            // Some day since 1970, never 0: librdkafka writes "now" in its place.
            0 => self.rng.random_range(1..now),
            1 => 1,
            2 => now + self.rng.random_range(1..=MAX_AHEAD_MS),
            3 => now,
            _ => now - self.rng.random_range(0..60_000_i64),
        }
    }

    /// Null, empty, or up to `max` bytes that are text or not.
    fn maybe_bytes(&mut self, max: usize) -> Option<Vec<u8>> {
        match self.rng.random_range(0..10_u32) {
            0 => None,
            1 => Some(Vec::new()),
            2 => {
                let length = self.rng.random_range(1..=max);
                Some(self.bytes(length))
            }
            _ => {
                let number = self.rng.random_range(0..1_000_000_u32);
                Some(format!("{{\"n\":{number},\"text\":\"ünï — {number:x}\"}}").into_bytes())
            }
        }
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.rng.fill_bytes(&mut bytes);
        bytes
    }

    fn headers(&mut self) -> Vec<Header> {
        let names = ["trace", "trace", "", "x-long-name-of-a-header", "b"];
        let mut headers: Vec<Header> = Vec::new();
        for _ in 0..self.rng.random_range(0..5_u32) {
            let again = headers.last().filter(|_| self.rng.random_range(0..3_u32) == 0);
            let name = again.map_or_else(
                || names[self.rng.random_range(0..names.len())].to_owned(),
                |it| it.name.clone(),
            );
            let value = self.maybe_bytes(30);
            headers.push(Header { name, value });
        }
        headers
    }
}
