//! The rate of a link: what was configured, what was granted, and what leaves right now.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::paced::bucket::Bucket;

/// The least rate that an end may be configured to or grant, bits a second. At a quarter of it a handshake takes longer than
/// an attempt has, and nobody is ever reached.
pub const LEAST_RATE: u64 = 64_000;

/// The rate of all connections of one [`Dialer`](crate::Dialer), in bits a second on the wire. Cheap to clone; a change
/// applies to connections that live.
///
/// The ceiling is the lower of what is configured here and what the importer grants. A connection's guard may hold the
/// rate below the ceiling for as long as the path shows that it carries less.
#[derive(Debug, Clone)]
pub struct Rate(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Bits a second; 0 is none.
    configured: AtomicU64,
    granted: AtomicU64,
    /// Bits a second; 0 is half of the ceiling.
    floor: AtomicU64,
    /// What the guard leaves of the ceiling, an `f64` in (0, 1].
    scale: AtomicU64,
    bucket: Mutex<Bucket>,
    late_nanos: AtomicU64,
    /// Bytes on the wire.
    sent: AtomicU64,
}

impl Rate {
    pub(crate) fn new(configured: Option<u64>, floor: Option<u64>) -> Self {
        let rate = Self(Arc::new(Shared {
            configured: configured.unwrap_or(0).into(),
            granted: 0.into(),
            floor: floor.unwrap_or(0).into(),
            scale: 1_f64.to_bits().into(),
            bucket: Mutex::new(Bucket::new(None, Instant::now())),
            late_nanos: 0.into(),
            sent: 0.into(),
        }));
        rate.apply();
        rate
    }

    /// Another rate of this end's own; `None` or 0: none.
    pub fn configure(&self, bits_per_second: Option<u64>) {
        self.change(&self.0.configured, bits_per_second);
    }

    /// The rate that the other end allows; `None` or 0: it sets none.
    pub fn grant(&self, bits_per_second: Option<u64>) {
        self.change(&self.0.granted, bits_per_second);
    }

    /// Another guaranteed floor; `None` or 0: half of the ceiling.
    pub fn set_floor(&self, bits_per_second: Option<u64>) {
        self.0.floor.store(bits_per_second.unwrap_or(0), Ordering::Relaxed);
    }

    /// What is configured at this end.
    pub fn configured(&self) -> Option<u64> {
        some(self.0.configured.load(Ordering::Relaxed))
    }

    /// What the other end allows.
    pub fn granted(&self) -> Option<u64> {
        some(self.0.granted.load(Ordering::Relaxed))
    }

    /// The lower of the two: what may be on the wire at most.
    pub fn ceiling(&self) -> Option<u64> {
        match (self.configured(), self.granted()) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        }
    }

    /// Below this the guard does not go on account of a standing queue: somebody else's traffic may be the cause.
    pub fn floor(&self) -> Option<u64> {
        let ceiling = self.ceiling()?;
        Some(some(self.0.floor.load(Ordering::Relaxed)).unwrap_or(ceiling / 2).min(ceiling))
    }

    /// The floor that was configured, at most the ceiling; none when nobody asked for one.
    pub(crate) fn promised(&self) -> Option<u64> {
        Some(some(self.0.floor.load(Ordering::Relaxed))?.min(self.ceiling()?))
    }

    /// What may be on the wire right now: the ceiling, or what the guard leaves of it.
    pub fn now(&self) -> Option<u64> {
        self.ceiling().map(|ceiling| (ceiling as f64 * self.scale()) as u64)
    }

    /// Sending time that was lost because this host woke the sender later than it can make up for.
    pub fn late(&self) -> Duration {
        Duration::from_nanos(self.0.late_nanos.load(Ordering::Relaxed))
    }

    /// Bytes that left so far, IP and UDP headers included: of all connections, and of attempts that became none.
    pub fn sent_bytes(&self) -> u64 {
        self.0.sent.load(Ordering::Relaxed)
    }

    /// So many bytes left.
    pub(crate) fn left(&self, wire_bytes: u64) {
        self.0.sent.fetch_add(wire_bytes, Ordering::Relaxed);
    }

    /// What the guard leaves of the ceiling: (0, 1].
    pub(crate) fn scale(&self) -> f64 {
        f64::from_bits(self.0.scale.load(Ordering::Relaxed))
    }

    /// The guard's word: bucket and window go down, and up again, together.
    pub(crate) fn set_scale(&self, scale: f64) {
        self.0.scale.store(scale.clamp(MIN_SCALE, 1.0).to_bits(), Ordering::Relaxed);
        self.apply();
    }

    pub(crate) fn bucket(&self) -> MutexGuard<'_, Bucket> {
        self.0.bucket.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A transmit that waited leaves now.
    pub(crate) fn left_late(&self) {
        let late = self.bucket().lateness(Instant::now());
        let nanos = u64::try_from(late.as_nanos()).unwrap_or(u64::MAX);
        self.0.late_nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    fn change(&self, which: &AtomicU64, bits_per_second: Option<u64>) {
        let before = self.ceiling();
        which.store(bits_per_second.unwrap_or(0), Ordering::Relaxed);
        if before != self.ceiling() {
            // What the guard found is a rate: it stays what it was in bits a second.
            let scale = match (before, self.ceiling()) {
                (Some(before), Some(ceiling)) if self.scale() < 1.0 => {
                    self.scale() * before as f64 / ceiling as f64
                }
                _ => 1.0,
            };
            self.set_scale(scale);
        }
    }

    fn apply(&self) {
        let bytes_per_second = self.now().map(|bits| bits / 8);
        self.bucket().set_rate(bytes_per_second, Instant::now());
    }
}

fn some(rate: u64) -> Option<u64> {
    (rate > 0).then_some(rate)
}

/// The guard leaves at least this much: less would not even tell whether the path is better again.
const MIN_SCALE: f64 = 0.02;

#[cfg(test)]
mod tests {
    use super::*;

    const M: u64 = 1_000_000;

    #[test]
    fn the_lower_of_both_ends_rates_holds() {
        let rate = Rate::new(Some(100 * M), None);
        assert_eq!((rate.ceiling(), rate.floor(), rate.now()), (Some(100 * M), Some(50 * M), Some(100 * M)));
        rate.grant(Some(40 * M));
        assert_eq!(rate.ceiling(), Some(40 * M));
        rate.configure(Some(30 * M));
        assert_eq!(rate.ceiling(), Some(30 * M));
        rate.configure(None);
        assert_eq!(rate.ceiling(), Some(40 * M));
        rate.grant(Some(0));
        assert_eq!((rate.ceiling(), rate.floor(), rate.now()), (None, None, None));
    }

    #[test]
    fn a_floor_is_never_above_the_ceiling() {
        let rate = Rate::new(Some(100 * M), Some(60 * M));
        assert_eq!(rate.floor(), Some(60 * M));
        rate.grant(Some(20 * M));
        assert_eq!(rate.floor(), Some(20 * M));
    }

    #[test]
    fn what_the_guard_found_is_kept_in_bits_when_the_ceiling_changes() {
        let rate = Rate::new(Some(200 * M), None);
        rate.set_scale(0.5);
        assert_eq!(rate.now(), Some(100 * M));
        rate.configure(Some(400 * M));
        assert_eq!(rate.now(), Some(100 * M));
        rate.configure(Some(50 * M));
        assert_eq!(rate.now(), Some(50 * M));
    }

    #[test]
    fn a_change_reaches_the_bucket_at_once() {
        let rate = Rate::new(None, None);
        assert_eq!(rate.bucket().segments(), usize::MAX);
        rate.grant(Some(M));
        assert_eq!(rate.bucket().segments(), 1);
        rate.set_scale(0.0);
        assert_eq!(rate.now(), Some(M / 50));
        rate.configure(Some(1));
        let now = Instant::now();
        rate.bucket().pay(1_000_000, now);
        assert!(rate.bucket().opens(now + Duration::from_secs(60)).is_some());
    }
}
