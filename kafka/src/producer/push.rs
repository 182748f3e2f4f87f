//! When records leave that wait for their batch to fill.
//!
//! librdkafka sends a batch when it is full, or when its first record has waited for `linger.ms`. But once that has
//! passed while the partition's former request is still under way, its thread looks again and again, without a pause,
//! until the answer is there (2.12): more than half of all the processor time of a busy producer went there. So
//! batches linger far longer than a transaction lasts, full ones leave by themselves, and the rest is pushed out here,
//! by a flush too short to matter: when somebody waits for reports, and after each report of a partition that has more.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use crate::native::{self, Client, sys};

/// How long a batch lingers when nobody waits for it.
pub(super) const LINGER: Duration = Duration::from_secs(1);

/// Decides when to push.
#[derive(Debug, Default)]
pub(super) struct Push {
    /// There may be batches that no push has reached.
    wanted: bool,
    /// The next push if nothing comes back; a thread of librdkafka may have slept through the last one.
    again: Option<(Instant, Duration)>,
}

impl Push {
    /// Records were queued, or a request was answered that others waited for.
    pub(super) fn want(&mut self) {
        self.wanted = true;
    }

    /// Sends what waits, if anything may. Says how long to wait for a report before the next push.
    pub(super) fn push(&mut self, client: &Client) -> Duration {
        let (due, pause) = match self.again {
            Some((due, pause)) if !self.wanted => (due, pause),
            _ => (Instant::now(), FIRST_PAUSE),
        };
        let left = due.saturating_duration_since(Instant::now());
        if !left.is_zero() {
            return left.max(SHORTEST_WAIT);
        }
        self.wanted = false;
        // SAFETY: the client is live. With reports as events the call only waits, and drops none.
        unsafe { sys::rd_kafka_flush(client.as_ptr(), native::millis(PUSH)) };
        self.again = Some((Instant::now() + pause, (pause * 2).min(LONGEST_PAUSE)));
        pause
    }
}

/// The partition of a message: its topic object and number.
pub(super) type Place = (*mut sys::rd_kafka_topic_t, i32);

/// Records of each partition without a report. Topics are told apart by the addresses of their objects.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    counts: Vec<u32>,
    index: HashMap<(usize, i32), usize>,
    /// Records come in runs of one partition: the last one found.
    last: Option<((usize, i32), usize)>,
}

impl Backlog {
    pub(super) fn taken(&mut self, place: Place) {
        *self.of(place) += 1;
    }

    pub(super) fn reported(&mut self, place: Place) {
        let count = self.of(place);
        *count = count.saturating_sub(1);
    }

    pub(super) fn has(&mut self, place: Place) -> bool {
        *self.of(place) > 0
    }

    fn of(&mut self, (topic, number): Place) -> &mut u32 {
        let place = (topic as usize, number);
        let at = match self.last {
            Some((last, at)) if last == place => at,
            _ => *self.index.entry(place).or_insert_with(|| {
                self.counts.push(0);
                self.counts.len() - 1
            }),
        };
        self.last = Some((place, at));
        &mut self.counts[at]
    }
}

/// How long librdkafka's threads have to take notice: they are woken, and need a processor.
const PUSH: Duration = Duration::from_millis(1);
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(40);
/// librdkafka counts in milliseconds: less would not wait at all.
const SHORTEST_WAIT: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_has_a_backlog_until_each_of_its_records_is_reported() {
        let topic = |address: usize| address as *mut sys::rd_kafka_topic_t;
        let (a, b, other) = ((topic(8), 0), (topic(8), 1), (topic(16), 0));
        let mut backlog = Backlog::default();
        for place in [a, a, b, a, other] {
            backlog.taken(place);
        }
        for (place, left) in [(a, true), (b, false), (a, true), (a, false), (other, false)] {
            backlog.reported(place);
            assert_eq!(backlog.has(place), left, "{place:?}");
        }
        // What was purged twice does not count below nothing.
        backlog.reported(a);
        assert!(!backlog.has(a));
        backlog.taken(a);
        assert!(backlog.has(a));
    }
}
