//! The model of a line: what becomes of a packet, as a function of what came before it and of the time. No I/O, no clock.
//! The emulator of the whole path and [`crate::relay`] both ask it.

use std::collections::VecDeque;

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::{
    packets::Packet,
    params::{Bound, Params},
};

/// One direction of the path. All times are nanoseconds since any fixed moment.
#[derive(Debug)]
pub(crate) struct Path {
    pub(crate) params: Params,
    rng: ChaCha8Rng,
    in_burst: bool,
    /// When the last packet admitted so far leaves the line.
    line_free: u64,
    /// When the last packet that was not lost is due.
    last_due: u64,
    /// When the last packet came.
    last_came: u64,
}

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It waits `queued` in front of the line and arrives at `due`.
    Arrives { queued: u64, due: u64 },
    /// It waits, takes its share of the line, and is lost behind it.
    Lost { queued: u64 },
    /// The queue is full.
    Dropped,
    /// The link is cut.
    Down,
}

impl Path {
    pub(crate) fn new(params: Params, seed: u64) -> Self {
        Self {
            params,
            rng: ChaCha8Rng::seed_from_u64(seed),
            in_burst: false,
            line_free: 0,
            last_due: 0,
            last_came: 0,
        }
    }

    /// The link was cut: what was on the line is gone.
    pub(super) fn clear(&mut self) {
        (self.line_free, self.last_due) = (0, 0);
    }

    /// A packet of `bytes` comes at `now`.
    pub(crate) fn fate(&mut self, bytes: u64, now: u64) -> Fate {
        let params = self.params;
        // Drawn for every packet that comes: neither a cut nor a full queue nor another rate shifts the sequence.
        let by_chance = self.chance(params.loss);
        let jitter = self.rng.random_range(-1.0..1.0) * params.jitter_ns as f64;
        if params.down {
            return Fate::Down;
        }
        let start = self.line_free.max(now);
        let queued = start - now;
        if params.rate_mbit > 0.0 && self.is_full(queued, bytes) {
            return Fate::Dropped;
        }
        self.line_free = start + params.serialise_ns(bytes);
        let in_burst = self.lost_in_burst(now);
        self.last_came = now;
        if by_chance || in_burst {
            return Fate::Lost { queued };
        }
        let mut due = self.line_free + (params.delay_ns as f64 + jitter).max(0.0) as u64;
        if !params.reorder {
            due = due.max(self.last_due);
            self.last_due = due;
        }
        Fate::Arrives { queued, due }
    }

    fn is_full(&self, queued: u64, bytes: u64) -> bool {
        match self.params.queue {
            Bound::Nanos(nanos) => queued > nanos,
            Bound::Bytes(bound) => {
                queued as f64 * self.params.rate_mbit / 8000.0 + bytes as f64 > bound as f64
            }
        }
    }

    fn lost_in_burst(&mut self, now: u64) -> bool {
        let Some(bursts) = self.params.bursts else {
            self.in_burst = false;
            return false;
        };
        // The state moves with packets. A burst on a real line passes with time, also when hardly anything is sent.
        let passed = now.saturating_sub(self.last_came) > BURST_PASSES_NS;
        self.in_burst = match self.in_burst && !passed {
            true => !self.chance(bursts.end),
            false => self.chance(bursts.begin),
        };
        self.chance(if self.in_burst { bursts.loss_inside } else { bursts.loss_outside })
    }

    fn chance(&mut self, probability: f64) -> bool {
        self.rng.random_range(0.0..1.0) < probability
    }
}

/// Packets on their way, in order of the time they are due.
#[derive(Debug, Default)]
pub(super) struct OnTheWay {
    packets: VecDeque<(u64, Packet)>,
    spare: Vec<Packet>,
}

impl OnTheWay {
    pub(super) fn push(&mut self, due: u64, packet: &[u8]) {
        let mut copy = self.spare.pop().unwrap_or_default();
        copy.set(packet);
        // From the back: without reordering, and mostly with it, this is the last place.
        let at = self.packets.iter().rposition(|(other, _)| *other <= due).map_or(0, |before| before + 1);
        self.packets.insert(at, (due, copy));
    }

    pub(super) fn next_due(&self) -> Option<u64> {
        self.packets.front().map(|(due, _)| *due)
    }

    /// The next packet that is due at `now`, with the time it was due.
    pub(super) fn pop(&mut self, now: u64) -> Option<(u64, Packet)> {
        self.packets.pop_front_if(|(due, _)| *due <= now)
    }

    /// A packet's memory, for the next one.
    pub(super) fn recycle(&mut self, packet: Packet) {
        if !packet.is_large() {
            self.spare.push(packet);
        }
    }

    /// All that is on its way, which is lost.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Packet> {
        self.packets.drain(..).map(|(_, packet)| packet)
    }
}

/// How long a direction must be silent for a burst to be over.
const BURST_PASSES_NS: u64 = 100_000_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wanlink::params::Bursts;

    const MS: u64 = 1_000_000;

    fn path(set: &[&str]) -> Path {
        let mut params = Params::default();
        set.iter().for_each(|pair| params.set(pair).unwrap());
        Path::new(params, 7)
    }

    fn lost(path: &mut Path, packets: usize, interval: u64) -> Vec<bool> {
        (0..packets as u64).map(|n| matches!(path.fate(1250, n * interval), Fate::Lost { .. })).collect()
    }

    #[test]
    fn an_empty_path_delays_a_packet_by_its_serialisation_and_the_delay() {
        let mut path = path(&["rate=100", "delay=50"]);
        assert_eq!(path.fate(1250, 5 * MS), Fate::Arrives { queued: 0, due: 55 * MS + 100_000 });
    }

    #[test]
    fn packets_that_come_faster_than_the_rate_wait_and_leave_at_the_rate() {
        let mut path = path(&["rate=100", "delay=50"]);
        for n in 0..100 {
            let expected = Fate::Arrives { queued: n * 100_000, due: (n + 1) * 100_000 + 50 * MS };
            assert_eq!(path.fate(1250, 0), expected);
        }
        // And the line is free again afterwards.
        assert_eq!(path.fate(1250, 20 * MS), Fate::Arrives { queued: 0, due: 70 * MS + 100_000 });
    }

    #[test]
    fn a_queue_bounded_in_time_drops_what_would_wait_longer() {
        let mut path = path(&["rate=100", "queue=10ms"]);
        let fates: Vec<Fate> = (0..150).map(|_| path.fate(1250, 0)).collect();
        assert_eq!(fates.iter().filter(|fate| **fate == Fate::Dropped).count(), 150 - 101);
        assert!(fates[..101].iter().all(|fate| *fate != Fate::Dropped));
    }

    #[test]
    fn a_queue_bounded_in_bytes_drops_what_does_not_fit() {
        let mut path = path(&["rate=100", "queue=12500b"]);
        let dropped = (0..30).filter(|_| path.fate(1250, 0) == Fate::Dropped).count();
        assert_eq!(dropped, 20);
    }

    #[test]
    fn without_a_rate_nothing_waits_and_nothing_is_dropped() {
        let mut path = path(&["delay=1", "queue=0b"]);
        for _ in 0..1000 {
            assert_eq!(path.fate(1500, 0), Fate::Arrives { queued: 0, due: MS });
        }
    }

    #[test]
    fn a_lost_packet_has_used_the_line() {
        let mut path = path(&["rate=100", "loss=100"]);
        assert_eq!(path.fate(1250, 0), Fate::Lost { queued: 0 });
        assert_eq!(path.fate(1250, 0), Fate::Lost { queued: 100_000 });
    }

    #[test]
    fn loss_has_the_asked_share_and_the_seed_repeats_it() {
        let draw =
            |seed| lost(&mut Path { rng: ChaCha8Rng::seed_from_u64(seed), ..path(&["loss=1"]) }, 200_000, 0);
        let count = draw(7).iter().filter(|lost| **lost).count();
        assert!((1_800..2_200).contains(&count), "{count}");
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn neither_a_cut_nor_a_full_queue_shifts_the_sequence_of_losses() {
        let whole = lost(&mut path(&["loss=30"]), 100, 0);
        let mut path = path(&["loss=30", "rate=1", "queue=1b", "down=1"]);
        (0..25).for_each(|_| assert_eq!(path.fate(1250, 0), Fate::Down));
        path.params.down = false;
        (0..25).for_each(|_| assert!(matches!(path.fate(1250, 0), Fate::Dropped)));
        path.params.rate_mbit = 0.0;
        assert_eq!(lost(&mut path, 50, 0), whole[50..]);
    }

    #[test]
    fn bursts_have_the_asked_mean_and_length() {
        let mut path = path(&[]);
        path.params.bursts = Some(Bursts::new(0.01, 10.0));
        let lost = lost(&mut path, 1_000_000, 1000);
        let count = lost.iter().filter(|lost| **lost).count() as f64;
        let bursts = lost.windows(2).filter(|pair| !pair[0] && pair[1]).count() as f64;
        assert!((8_000.0..12_000.0).contains(&count), "{count}");
        assert!((9.0..11.0).contains(&(count / bursts)), "{}", count / bursts);
    }

    #[test]
    fn a_burst_passes_while_nothing_is_sent() {
        let mut path = path(&["bursts=0,0.1"]);
        path.in_burst = true;
        assert!(matches!(path.fate(100, 0), Fate::Lost { .. }));
        assert!(matches!(path.fate(100, 99 * MS), Fate::Lost { .. }));
        assert!(matches!(path.fate(100, 200 * MS), Fate::Arrives { .. }));
    }

    #[test]
    fn jitter_spreads_packets_but_keeps_their_order_unless_told_otherwise() {
        for (reorder, ordered) in [("reorder=0", true), ("reorder=1", false)] {
            let mut path = path(&["delay=50", "jitter=5", reorder]);
            let due: Vec<u64> = (0..5000)
                .map(|n| match path.fate(1250, n * 100_000) {
                    Fate::Arrives { due, .. } => due - n * 100_000,
                    other => panic!("{other:?}"),
                })
                .collect();
            let absolute: Vec<u64> =
                due.iter().enumerate().map(|(n, due)| due + n as u64 * 100_000).collect();
            assert_eq!(absolute.is_sorted(), ordered);
            assert!(due.iter().all(|due| (45 * MS..56 * MS).contains(due)));
            let mean = due.iter().sum::<u64>() / 5000;
            // Order makes packets wait for the slowest before them.
            assert!((48 * MS..55 * MS).contains(&mean), "{mean}");
        }
    }

    #[test]
    fn a_link_that_is_cut_takes_nothing() {
        let mut path = path(&["down=1"]);
        assert_eq!(path.fate(1250, 0), Fate::Down);
    }

    #[test]
    fn packets_leave_in_order_of_their_time_and_not_before() {
        let mut way = OnTheWay::default();
        for (due, byte) in [(30, b'c'), (10, b'a'), (20, b'b'), (20, b'B')] {
            way.push(due, &[byte]);
        }
        assert_eq!(way.next_due(), Some(10));
        assert_eq!(way.pop(9), None);
        let order: Vec<u8> =
            std::iter::from_fn(|| way.pop(25)).map(|(_, packet)| packet.bytes()[0]).collect();
        assert_eq!(order, b"abB", "of two due at the same time the earlier first");
        assert_eq!(way.drain().map(|packet| packet.bytes().to_vec()).collect::<Vec<_>>(), [b"c"]);
        assert_eq!(way.next_due(), None);
    }
}
