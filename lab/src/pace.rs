//! Records at a steady rate, as a running system writes them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::generator::now_ms;
use crate::record::Record;

/// Below this it is not worth a sleep.
const SHORTEST_SLEEP: Duration = Duration::from_millis(1);

/// Hands out records at a steady rate, each stamped with the time it is handed out: what is late catches up.
#[derive(Debug)]
pub struct Paced<I> {
    records: I,
    per_second: f64,
    started: Option<Instant>,
    handed_out: Arc<AtomicU64>,
}

impl<I: Iterator<Item = Record>> Paced<I> {
    /// `handed_out` counts.
    pub fn new(records: I, per_second: f64, handed_out: Arc<AtomicU64>) -> Self {
        Self { records, per_second, started: None, handed_out }
    }
}

impl<I: Iterator<Item = Record>> Iterator for Paced<I> {
    type Item = Record;

    fn next(&mut self) -> Option<Record> {
        let mut record = self.records.next()?;
        let started = *self.started.get_or_insert_with(Instant::now);
        let number = self.handed_out.load(Ordering::Relaxed);
        // Exact up to 2^53 records.
        let due = Duration::from_secs_f64(number as f64 / self.per_second.max(f64::MIN_POSITIVE));
        let early = due.saturating_sub(started.elapsed());
        if early >= SHORTEST_SLEEP {
            std::thread::sleep(early);
        }
        record.timestamp = now_ms();
        self.handed_out.store(number + 1, Ordering::Relaxed);
        Some(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_at_the_rate_and_with_the_time_they_came() {
        let (started, before) = (Instant::now(), now_ms());
        let counter = Arc::new(AtomicU64::new(0));
        let paced = Paced::new(crate::generator::metrics(1, 1), 1000.0, counter.clone());
        let records: Vec<Record> = paced.take(101).collect();
        assert!(started.elapsed() >= Duration::from_millis(98), "{:?}", started.elapsed());
        assert_eq!(counter.load(Ordering::Relaxed), 101);
        assert!(records[0].timestamp >= before && records[100].timestamp >= records[0].timestamp + 90);
    }
}
