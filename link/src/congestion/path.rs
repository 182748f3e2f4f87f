//! Round trips of a path as a controller sees them.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Least, smoothed and current round trip. The least is that of the last half minute, so that a path that became longer is
/// not taken for a queue for ever.
#[derive(Debug, Clone, Default)]
pub(super) struct PathView {
    smoothed: Duration,
    /// Least of each [`SPAN`], the newest last.
    least: VecDeque<(Instant, Duration)>,
    /// Least of the acknowledgement that is being read: its newest packet.
    batch: Option<Duration>,
    /// The newest packets of the last acknowledgements.
    recent: VecDeque<Duration>,
}

impl PathView {
    /// A packet was acknowledged `rtt` after it was sent.
    pub(super) fn packet(&mut self, rtt: Duration, smoothed: Duration) {
        self.smoothed = smoothed;
        self.batch = Some(self.batch.map_or(rtt, |least| least.min(rtt)));
    }

    /// All packets of one acknowledgement were told.
    pub(super) fn end_of_acks(&mut self, now: Instant) {
        let Some(sample) = self.batch.take() else { return };
        match self.least.back_mut() {
            Some((since, least)) if now.saturating_duration_since(*since) < SPAN => {
                *least = (*least).min(sample);
            }
            _ => {
                self.least.push_back((now, sample));
                while let Some((since, _)) = self.least.front()
                    && now.saturating_duration_since(*since) > MEMORY
                {
                    self.least.pop_front();
                }
            }
        }
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(sample);
    }

    /// Whether anything was measured.
    pub(super) fn is_measured(&self) -> bool {
        !self.least.is_empty()
    }

    /// Least round trip of the last half minute; zero before the first.
    pub(super) fn least(&self) -> Duration {
        self.least.iter().map(|(_, least)| *least).min().unwrap_or_default()
    }

    /// QUIC's smoothed round trip.
    pub(super) fn smoothed(&self) -> Duration {
        self.smoothed
    }

    /// Least of the last few acknowledgements: jitter and a busy host do not raise it, a queue does.
    pub(super) fn current(&self) -> Duration {
        self.recent.iter().min().copied().unwrap_or_default()
    }

    /// How much longer packets take now than at least.
    pub(super) fn queue(&self) -> Duration {
        self.current().saturating_sub(self.least())
    }
}

const MEMORY: Duration = Duration::from_secs(30);
const SPAN: Duration = Duration::from_secs(5);
const RECENT: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn the_least_is_remembered_for_half_a_minute_and_no_longer() {
        let (start, mut path) = (Instant::now(), PathView::default());
        assert!(!path.is_measured());
        let mut tell = |at: u64, rtt| {
            path.packet(ms(rtt), ms(rtt));
            path.end_of_acks(start + ms(at));
            path.least()
        };
        assert_eq!(tell(0, 50), ms(50));
        for second in 1..25 {
            assert_eq!(tell(second * 1000, 100), ms(50), "{second}");
        }
        assert_eq!(tell(36_000, 100), ms(100));
    }

    #[test]
    fn one_packet_of_many_that_is_quick_shows_that_no_queue_stands() {
        let (start, mut path) = (Instant::now(), PathView::default());
        for (at, rtt) in [100, 130, 140, 101, 150].into_iter().enumerate() {
            path.packet(ms(rtt), ms(120));
            path.end_of_acks(start + ms(at as u64));
        }
        assert_eq!(path.queue(), ms(0));
        for at in 0..RECENT as u64 {
            path.packet(ms(150), ms(150));
            path.end_of_acks(start + ms(10 + at));
        }
        assert_eq!(path.queue(), ms(50));
    }

    #[test]
    fn an_acknowledgement_of_many_packets_counts_by_its_newest() {
        let (start, mut path) = (Instant::now(), PathView::default());
        for rtt in [103, 102, 101, 100] {
            path.packet(ms(rtt), ms(100));
        }
        path.end_of_acks(start);
        assert_eq!((path.least(), path.current()), (ms(100), ms(100)));
    }
}
