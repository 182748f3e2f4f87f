//! One direction of the path: what becomes of a packet, as a function of what came before it.

use std::time::{Duration, Instant};

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::{Conditions, Counts};

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
    rng: ChaCha8Rng,
    /// When the bottleneck has sent all that waits in front of it.
    busy_until: Option<Instant>,
    counts: Counts,
}

impl Direction {
    pub(super) fn new(seed: u64) -> Self {
        Self { rng: ChaCha8Rng::seed_from_u64(seed), busy_until: None, counts: Counts::default() }
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    pub(super) fn fate(&mut self, conditions: &Conditions, cut: bool, bytes: usize, now: Instant) -> Fate {
        // Drawn for every packet, so that a cut or another loss rate does not shift the sequence.
        let chance: f64 = self.rng.random_range(0.0..1.0);
        if cut {
            self.counts.cut += 1;
            return Fate::Lost;
        }
        if chance < conditions.loss {
            self.counts.lost += 1;
            return Fate::Lost;
        }
        let size = u64::try_from(bytes).expect("usize has 64 bits or less");
        let sent = match conditions.bits_per_second {
            None => now,
            Some(rate) => {
                let start = self.busy_until.map_or(now, |until| until.max(now));
                if start - now > time_for(conditions.queue_bytes, rate) {
                    self.counts.overflowed += 1;
                    return Fate::Lost;
                }
                let sent = start + time_for(size + HEADER_BYTES, rate);
                self.busy_until = Some(sent);
                sent
            }
        };
        self.counts.passed += 1;
        self.counts.passed_bytes += size;
        Fate::LeavesAt(sent + conditions.delay)
    }
}

fn time_for(bytes: u64, bits_per_second: u64) -> Duration {
    let nanos = u128::from(bytes) * 8 * 1_000_000_000 / u128::from(bits_per_second.max(1));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
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
        let expected: Vec<u128> = (1..=11).map(|n| n * 1000 + 5000).collect();
        assert_eq!(leaves, expected);
        assert_eq!(direction.counts().overflowed, 9);
        let later = now + Duration::from_secs(1);
        let fate = direction.fate(&conditions, false, 972, later);
        assert_eq!(fate, Fate::LeavesAt(later + Duration::from_millis(6)));
    }

    #[test]
    fn a_cut_does_not_shift_the_sequence_of_losses() {
        let conditions = Conditions { loss: 0.3, ..Conditions::default() };
        let whole = fates(&mut Direction::new(4), &conditions, 100);
        let mut direction = Direction::new(4);
        let now = Instant::now();
        for _ in 0..50 {
            assert_eq!(direction.fate(&conditions, true, 100, now), Fate::Lost);
        }
        assert_eq!(fates(&mut direction, &conditions, 50), whole[50..]);
    }
}
