//! What a controller knows and quinn does not tell, published for who looks from outside.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// Numbers of one connection. One writer, its controller, under the connection's own lock; read without a lock.
#[derive(Debug)]
pub(crate) struct Flight {
    base: Instant,
    /// Nanoseconds after `base`, 0 before the first.
    last_ack: AtomicU64,
    acks: AtomicU64,
    in_flight: AtomicU64,
    /// What may be in flight, as of the last acknowledgement; 0 before the first.
    window: AtomicU64,
    /// Bytes ever: handed to the socket, acknowledged, given up as lost.
    sent: AtomicU64,
    delivered: AtomicU64,
    lost: AtomicU64,
    /// Of `sent`, bytes that want no acknowledgement; as of the last acknowledgement.
    unanswered: AtomicU64,
    /// Nanoseconds.
    least_rtt: AtomicU64,
    queue: AtomicU64,
}

/// A reading of [`Flight`].
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct FlightReading {
    /// When the peer last acknowledged something new.
    pub(crate) last_ack: Option<Instant>,
    /// How often it did.
    pub(crate) acks: u64,
    /// Bytes in flight after that, less what was given up as lost since. What was sent since is not in it: quinn does
    /// not tell a controller which packets want an answer.
    pub(crate) in_flight: u64,
    /// Bytes of packets that arrived, each once.
    pub(crate) delivered: u64,
    /// Bytes of packets that want no acknowledgement: acknowledgements themselves.
    pub(crate) acknowledgements: u64,
    /// Least round trip of the last half minute; zero until measured.
    pub(crate) least_rtt: Duration,
    /// How much longer packets take now.
    pub(crate) queue: Duration,
}

impl Flight {
    pub(super) fn new(base: Instant) -> Self {
        Self {
            base,
            last_ack: 0.into(),
            acks: 0.into(),
            in_flight: 0.into(),
            window: 0.into(),
            sent: 0.into(),
            delivered: 0.into(),
            lost: 0.into(),
            unanswered: 0.into(),
            least_rtt: 0.into(),
            queue: 0.into(),
        }
    }

    pub(crate) fn read(&self) -> FlightReading {
        // Acquire pairs with the Release in `acked`: the count is never newer than the rest.
        let acks = self.acks.load(Ordering::Acquire);
        let last_ack = self.last_ack.load(Ordering::Relaxed);
        FlightReading {
            last_ack: (last_ack > 0).then(|| self.base + Duration::from_nanos(last_ack)),
            acks,
            in_flight: self.in_flight.load(Ordering::Relaxed),
            delivered: self.delivered.load(Ordering::Relaxed),
            acknowledgements: self.unanswered.load(Ordering::Relaxed),
            least_rtt: Duration::from_nanos(self.least_rtt.load(Ordering::Relaxed)),
            queue: Duration::from_nanos(self.queue.load(Ordering::Relaxed)),
        }
    }

    pub(super) fn sent(&self, bytes: u64) {
        add(&self.sent, bytes);
    }

    pub(super) fn delivered(&self, bytes: u64) {
        add(&self.delivered, bytes);
    }

    pub(super) fn acked(&self, now: Instant, in_flight: u64) {
        self.last_ack.store(nanos(now.saturating_duration_since(self.base)).max(1), Ordering::Relaxed);
        self.in_flight.store(in_flight, Ordering::Relaxed);
        let load = |number: &AtomicU64| number.load(Ordering::Relaxed);
        let answered = load(&self.delivered) + load(&self.lost) + in_flight;
        let unanswered = load(&self.sent).saturating_sub(answered).max(load(&self.unanswered));
        self.unanswered.store(unanswered, Ordering::Relaxed);
        self.acks.fetch_add(1, Ordering::Release);
    }

    pub(super) fn open(&self, window: u64) {
        self.window.store(window, Ordering::Relaxed);
    }

    /// What may be in flight, as of the last acknowledgement; 0 before the first.
    pub(crate) fn window(&self) -> u64 {
        self.window.load(Ordering::Relaxed)
    }

    pub(super) fn lost(&self, bytes: u64) {
        add(&self.lost, bytes);
        let left = self.in_flight.load(Ordering::Relaxed).saturating_sub(bytes);
        self.in_flight.store(left, Ordering::Relaxed);
    }

    pub(super) fn path(&self, least_rtt: Duration, queue: Duration) {
        self.least_rtt.store(nanos(least_rtt), Ordering::Relaxed);
        self.queue.store(nanos(queue), Ordering::Relaxed);
    }
}

/// There is one writer: a load and a store are cheaper than an atomic addition.
fn add(number: &AtomicU64, bytes: u64) {
    number.store(number.load(Ordering::Relaxed).wrapping_add(bytes), Ordering::Relaxed);
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_neither_delivered_nor_lost_nor_in_flight_was_an_acknowledgement() {
        let now = Instant::now();
        let flight = Flight::new(now);
        flight.sent(10_000);
        flight.delivered(5_000);
        flight.lost(1_000);
        flight.acked(now, 3_000);
        assert_eq!(flight.read().acknowledgements, 1_000);
        // Never less than before, whatever quinn counts differently for a moment.
        flight.acked(now, 4_000);
        assert_eq!(flight.read().acknowledgements, 1_000);
    }
}
