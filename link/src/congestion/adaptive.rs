//! `adaptive`: finds what a path carries.
//!
//! Cubic, told of a loss only when it means something: while the path's queue stands, or when more is lost than chance
//! explains. On a path with random loss the window so grows until a queue builds, and gives back what Cubic gives back;
//! beside TCP, which fills the queue, every loss counts and the path is shared as between two TCPs. In slow start a
//! queue that builds is the end of it, before packets are dropped.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use quinn::congestion::{Controller, Cubic, CubicConfig};
use quinn_proto::RttEstimator;

use super::{START_PACKETS, path::PathView};

#[derive(Debug, Clone)]
pub(super) struct Adaptive {
    cubic: Cubic,
    slow_start: bool,
    /// Least round trip ever: a neighbour's standing queue must not be taken for the path.
    least: Duration,
    /// Longest current round trip of this span and of the one before.
    peaks: [Duration; 2],
    peak_since: Option<Instant>,
    /// Bytes acknowledged and lost since the share was last looked at.
    acked: u64,
    lost: u64,
    mtu: u64,
}

impl Adaptive {
    pub(super) fn new(now: Instant, mtu: u16) -> Self {
        let mut config = CubicConfig::default();
        config.initial_window(START_PACKETS * u64::from(mtu));
        Self {
            cubic: Cubic::new(Arc::new(config), now, mtu),
            slow_start: true,
            least: Duration::MAX,
            peaks: [Duration::ZERO; 2],
            peak_since: None,
            acked: 0,
            lost: 0,
            mtu: mtu.into(),
        }
    }

    pub(super) fn set_mtu(&mut self, mtu: u16) {
        self.mtu = mtu.into();
        self.cubic.on_mtu_update(mtu);
    }

    pub(super) fn window(&self) -> u64 {
        self.cubic.window()
    }

    pub(super) fn acked(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        app_limited: bool,
        rtt: &RttEstimator,
    ) {
        self.acked += bytes;
        self.cubic.on_ack(now, sent, bytes, app_limited, rtt);
    }

    pub(super) fn end_of_acks(&mut self, now: Instant, path: &PathView) {
        if !path.is_measured() {
            return;
        }
        self.least = self.least.min(path.least());
        let current = path.current();
        self.peaks[0] = self.peaks[0].max(current);
        let since = *self.peak_since.get_or_insert(now);
        if now.saturating_duration_since(since) > PEAK_SPAN {
            self.peaks = [current, self.peaks[0]];
            self.peak_since = Some(now);
        }
        if self.slow_start && current.saturating_sub(self.least) > START_QUEUE.max(self.least / 4) {
            self.slow_start = false;
            self.cubic.on_congestion_event(now, now, false, 0);
        }
        if self.acked + self.lost > SHARE_PACKETS * self.mtu {
            (self.acked, self.lost) = (self.acked / 2, self.lost / 2);
        }
    }

    pub(super) fn lost(
        &mut self,
        now: Instant,
        sent: Instant,
        persistent: bool,
        bytes: u64,
        path: &PathView,
    ) {
        self.lost += bytes;
        let share = self.lost as f64 / (self.acked + self.lost).max(1) as f64;
        let many = self.lost > MANY_LOST * self.mtu && share > MAX_LOSS_SHARE;
        if persistent || many || self.queue_stands(path) {
            self.slow_start = false;
            (self.acked, self.lost) = (0, 0);
            self.cubic.on_congestion_event(now, sent, persistent, bytes);
        }
    }

    /// Whether packets are held up by a queue: against the least round trip, and against how long they were held up at
    /// most, as the least may have been measured with a neighbour's queue in it.
    fn queue_stands(&self, path: &PathView) -> bool {
        if !path.is_measured() || self.least == Duration::MAX {
            return true;
        }
        let queue = path.current().saturating_sub(self.least);
        let most = self.peaks[0].max(self.peaks[1]).saturating_sub(self.least);
        let high = (self.least * 2 / 5).min(most * 3 / 5);
        queue > high.max((self.least / 10).clamp(MIN_QUEUE, MAX_MIN_QUEUE))
    }
}

const START_QUEUE: Duration = Duration::from_millis(8);
/// A queue below this is jitter: a tenth of the round trip, between these two.
const MIN_QUEUE: Duration = Duration::from_millis(1);
const MAX_MIN_QUEUE: Duration = Duration::from_millis(10);
/// The longest round trip is that of the last ten to twenty seconds.
const PEAK_SPAN: Duration = Duration::from_secs(10);
/// More than chance explains.
const MAX_LOSS_SHARE: f64 = 0.10;
const SHARE_PACKETS: u64 = 1000;
const MANY_LOST: u64 = 50;

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    struct Link {
        adaptive: Adaptive,
        path: PathView,
        now: Instant,
    }

    impl Link {
        fn new() -> Self {
            let now = Instant::now();
            let mut link = Self { adaptive: Adaptive::new(now, 1452), path: PathView::default(), now };
            link.rtts(100, 20);
            link
        }

        fn rtts(&mut self, rtt: u64, count: u64) {
            for _ in 0..count {
                self.now += ms(1);
                self.path.packet(ms(rtt), ms(rtt));
                self.path.end_of_acks(self.now);
                self.adaptive.acked += 2 * 1452;
                self.adaptive.end_of_acks(self.now, &self.path);
            }
        }

        fn lose(&mut self, packets: u64) {
            self.now += ms(200);
            self.adaptive.lost(self.now, self.now, false, packets * 1452, &self.path);
        }
    }

    #[test]
    fn random_loss_without_a_queue_does_not_shrink_the_window() {
        let mut link = Link::new();
        let before = link.adaptive.window();
        for _ in 0..50 {
            link.rtts(100, 30);
            link.lose(1);
        }
        assert_eq!(link.adaptive.window(), before);
    }

    #[test]
    fn a_loss_while_the_queue_stands_counts() {
        let mut link = Link::new();
        link.adaptive.slow_start = false;
        let before = link.adaptive.window();
        link.rtts(160, 40);
        link.lose(1);
        assert_eq!(link.adaptive.window(), (before as f64 * 0.7) as u64);
    }

    #[test]
    fn slow_start_ends_with_the_first_queue_and_only_once() {
        let mut link = Link::new();
        let before = link.adaptive.window();
        link.rtts(140, 40);
        assert_eq!(link.adaptive.window(), (before as f64 * 0.7) as u64);
        link.rtts(180, 40);
        assert_eq!(link.adaptive.window(), (before as f64 * 0.7) as u64);
    }

    #[test]
    fn heavy_loss_counts_without_a_queue() {
        let mut link = Link::new();
        let before = link.adaptive.window();
        for _ in 0..12 {
            link.rtts(100, 20);
            link.lose(10);
        }
        assert!(link.adaptive.window() < before);
    }

    #[test]
    fn who_comes_while_a_neighbour_fills_the_queue_still_notices_when_it_is_full() {
        let now = Instant::now();
        let mut link = Link { adaptive: Adaptive::new(now, 1452), path: PathView::default(), now };
        // The true path takes 100 ms, which is never seen.
        link.rtts(145, 20);
        link.adaptive.slow_start = false;
        link.rtts(200, 40);
        let before = link.adaptive.window();
        link.lose(1);
        assert!(link.adaptive.window() < before);
    }
}
