//! One direction of the path: the line of [`crate::wanlink`], with a wall clock and counters.

use std::time::{Duration, Instant};

use super::{Conditions, Counts};
use crate::wanlink::{
    Bound, Params,
    path::{Fate as Passage, Path},
};

/// IPv4 and UDP headers.
const HEADER_BYTES: u64 = 28;

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    LeavesAt(Instant),
    Lost,
}

#[derive(Debug)]
pub(super) struct Direction {
    path: Path,
    /// When the line's time began.
    base: Option<Instant>,
    counts: Counts,
}

impl Direction {
    pub(super) fn new(seed: u64) -> Self {
        Self { path: Path::new(Params::default(), seed), base: None, counts: Counts::default() }
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    pub(super) fn fate(&mut self, conditions: &Conditions, cut: bool, bytes: usize, now: Instant) -> Fate {
        let base = *self.base.get_or_insert(now);
        let size = u64::try_from(bytes).expect("usize has 64 bits or less");
        self.path.params = Params { down: cut, ..conditions.into() };
        match self.path.fate(size + HEADER_BYTES, nanos(now.saturating_duration_since(base))) {
            Passage::Arrives { due, .. } => {
                self.counts.passed += 1;
                self.counts.passed_bytes += size;
                return Fate::LeavesAt(base + Duration::from_nanos(due));
            }
            Passage::Lost { .. } => self.counts.lost += 1,
            Passage::Dropped => self.counts.overflowed += 1,
            Passage::Down => self.counts.cut += 1,
        }
        Fate::Lost
    }
}

impl From<&Conditions> for Params {
    fn from(conditions: &Conditions) -> Self {
        Self {
            rate_mbit: conditions.bits_per_second.map_or(0.0, |rate| rate.max(1) as f64 / 1e6),
            delay_ns: nanos(conditions.delay),
            loss: conditions.loss,
            queue: Bound::Bytes(conditions.queue_bytes),
            ..Self::default()
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fates(direction: &mut Direction, conditions: &Conditions, count: usize) -> Vec<bool> {
        let now = Instant::now();
        (0..count).map(|_| direction.fate(conditions, false, 100, now) == Fate::Lost).collect()
    }

    #[test]
    fn loss_is_as_frequent_as_asked_and_the_same_for_the_same_seed() {
        let conditions = Conditions { loss: 0.05, ..Conditions::default() };
        let first = fates(&mut Direction::new(9), &conditions, 20_000);
        let lost = first.iter().filter(|lost| **lost).count();
        assert!((900..1100).contains(&lost), "{lost}");
        assert_eq!(first, fates(&mut Direction::new(9), &conditions, 20_000));
        assert_ne!(first, fates(&mut Direction::new(10), &conditions, 20_000));
    }

    #[test]
    fn a_bottleneck_spaces_packets_and_its_queue_overflows() {
        let conditions = Conditions {
            bits_per_second: Some(8_000_000), // a byte each microsecond
            queue_bytes: 10_000,
            delay: Duration::from_millis(5),
            ..Conditions::default()
        };
        let now = Instant::now();
        let mut direction = Direction::new(1);
        let mut leaves = Vec::new();
        for _ in 0..20 {
            if let Fate::LeavesAt(at) = direction.fate(&conditions, false, 972, now) {
                leaves.push((at - now).as_micros());
            }
        }
        let expected: Vec<u128> = (1..=10).map(|n| n * 1000 + 5000).collect();
        assert_eq!(leaves, expected);
        assert_eq!(direction.counts().overflowed, 10);
        let later = now + Duration::from_secs(1);
        let fate = direction.fate(&conditions, false, 972, later);
        assert_eq!(fate, Fate::LeavesAt(later + Duration::from_millis(6)));
    }

    #[test]
    fn a_cut_is_counted_and_passes_nothing() {
        let mut direction = Direction::new(4);
        let now = Instant::now();
        for _ in 0..50 {
            assert_eq!(direction.fate(&Conditions::default(), true, 100, now), Fate::Lost);
        }
        assert_eq!((direction.counts().cut, direction.counts().passed), (50, 0));
    }
}
