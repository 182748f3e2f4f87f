//! Room for MTU probes.
//!
//! quinn probes for a larger MTU only at a moment when it has nothing else it may send. Where a bucket holds the rate
//! that moment never comes, and a link would run with datagrams of 1,200 bytes and 3.5 % more headers for ever. So as
//! long as the largest datagram is not in use the window closes for an instant, once a round trip at first.
//! It closes only while much is in flight: with little there is a moment for probes anyway, and only acknowledgements, which
//! then come thick, open it again.

use std::time::{Duration, Instant};

#[derive(Debug, Clone)]
pub(super) struct Breath {
    mtu: u16,
    most: u16,
    since: Option<Instant>,
    /// When the window closed last.
    last: Option<Instant>,
    held: bool,
}

impl Breath {
    pub(super) fn new(mtu: u16, most: u16) -> Self {
        Self { mtu, most, since: None, last: None, held: false }
    }

    pub(super) fn mtu(&self) -> u16 {
        self.mtu
    }

    pub(super) fn set_mtu(&mut self, mtu: u16) {
        self.mtu = mtu;
    }

    /// An acknowledgement was read; `full`: much of what may be in flight still is.
    pub(super) fn end_of_acks(&mut self, now: Instant, round_trip: Duration, full: bool) {
        let since = *self.since.get_or_insert(now);
        let Some(last) = self.last else {
            self.last = Some(now);
            return;
        };
        let passed = now.saturating_duration_since(last);
        if self.held {
            self.held = full && passed < HOLD;
        } else if full && self.mtu < self.most {
            let searching = now.saturating_duration_since(since) < SEARCH;
            if passed > if searching { round_trip.max(MIN_ROUND) } else { LATER } {
                (self.held, self.last) = (true, Some(now));
            }
        }
    }

    /// What may be in flight of `window`. A few packets always may, or nobody would ever be heard again.
    pub(super) fn of(&self, window: u64) -> u64 {
        if self.held { window.min(FEW * u64::from(self.mtu)) } else { window }
    }
}

/// Longer than a transmit waits for the bucket.
const HOLD: Duration = Duration::from_millis(4);
const MIN_ROUND: Duration = Duration::from_millis(20);
/// A search takes some ten probes; one that is lost is repeated.
const SEARCH: Duration = Duration::from_secs(5);
/// quinn looks again from time to time.
const LATER: Duration = Duration::from_secs(5);
const FEW: u64 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    /// For how many of so many milliseconds the window is closed.
    fn closed(breath: &mut Breath, from: Instant, milliseconds: u64) -> u64 {
        (0..milliseconds)
            .filter(|at| {
                breath.end_of_acks(from + ms(*at), ms(100), true);
                breath.of(1_000_000) < 1_000_000
            })
            .count() as u64
    }

    #[test]
    fn the_window_closes_once_a_round_trip_until_the_largest_datagram_is_in_use() {
        let (start, mut breath) = (Instant::now(), Breath::new(1200, 1452));
        let short = closed(&mut breath, start, 1000);
        assert!((32..=45).contains(&short), "{short}");
        breath.set_mtu(1452);
        closed(&mut breath, start + ms(1000), 10);
        assert_eq!(closed(&mut breath, start + ms(1010), 5000), 0);
    }

    #[test]
    fn on_a_path_that_has_no_larger_ones_it_soon_closes_rarely() {
        let (start, mut breath) = (Instant::now(), Breath::new(1200, 1452));
        closed(&mut breath, start, 6000);
        assert!(closed(&mut breath, start + ms(6000), 20_000) <= 20);
    }

    /// Two acknowledgements close together once a round trip, as when a connection begins: the second would close the window
    /// until the first of the next round trip.
    #[test]
    fn with_little_in_flight_it_stays_open() {
        let (start, mut breath) = (Instant::now(), Breath::new(1200, 1452));
        for round in 0..20 {
            for micros in [0, 100] {
                let now = start + ms(round * 101) + Duration::from_micros(micros);
                breath.end_of_acks(now, ms(100), false);
                assert_eq!(breath.of(1_000_000), 1_000_000, "round {round}");
            }
        }
        breath.end_of_acks(start + ms(4000), ms(100), true);
        assert_eq!(breath.of(1_000_000), 4800);
        breath.end_of_acks(start + ms(4001), ms(100), false);
        assert_eq!(breath.of(1_000_000), 1_000_000, "nothing is there that would open it later");
    }

    #[test]
    fn a_closed_window_still_lets_a_few_packets_out() {
        let (start, mut breath) = (Instant::now(), Breath::new(1200, 1452));
        breath.end_of_acks(start, ms(100), true);
        breath.end_of_acks(start + ms(101), ms(100), true);
        assert_eq!(breath.of(1_000_000), 4800);
    }
}
