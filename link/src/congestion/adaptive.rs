//! `adaptive`: finds what a path carries.
//!
//! Cubic, told of a loss only when it means something: while the path's queue stands, or when more is lost than chance
//! explains. On a path with random loss the window so grows until a queue builds, and gives back what Cubic gives back;
//! beside TCP, which fills the queue, every loss counts and the path is shared as between two TCPs. In slow start a
//! queue that builds is the end of it, before packets are dropped.

use std::time::{Duration, Instant};

use super::{START_PACKETS, curve::Curve, path::PathView};

#[derive(Debug, Clone)]
pub(super) struct Adaptive {
    curve: Curve,
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
    pub(super) fn new(mtu: u16) -> Self {
        Self {
            curve: Curve::new(START_PACKETS * u64::from(mtu), mtu),
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
        self.curve.set_mtu(mtu);
    }

    pub(super) fn window(&self) -> u64 {
        self.curve.window()
    }

    pub(super) fn acked(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        app_limited: bool,
        path: &PathView,
    ) {
        self.acked = self.acked.saturating_add(bytes);
        self.curve.acked(now, sent, bytes, app_limited, path.smoothed());
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
        if self.curve.in_slow_start() && current.saturating_sub(self.least) > START_QUEUE.max(self.least / 4)
        {
            self.curve.reduce(now, now);
        }
        if self.acked.saturating_add(self.lost) > SHARE_PACKETS * self.mtu {
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
        self.lost = self.lost.saturating_add(bytes);
        let share = self.lost as f64 / self.acked.saturating_add(self.lost).max(1) as f64;
        let many = self.lost > MANY_LOST * self.mtu && share > MAX_LOSS_SHARE;
        if persistent || many || self.queue_stands(path) {
            (self.acked, self.lost) = (0, 0);
            if persistent {
                self.curve.collapse();
            } else {
                self.curve.reduce(now, sent);
            }
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
mod tests;
