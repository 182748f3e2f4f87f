//! The bucket: pure arithmetic on instants that it is told.

use std::time::{Duration, Instant};

/// A token bucket, kept as one instant: when everything that was sent is paid for.
///
/// Sending is allowed once that is past, and may run into debt by one transmit: a transmit larger than the bucket cannot
/// block for ever, and whoever waits need not know how large the waiting transmit is. Time that was not used counts up
/// to a credit, which makes up for timers that fire late.
#[derive(Debug, Clone)]
pub(crate) struct Bucket {
    /// Wire bytes a second; `None`: no limit.
    rate: Option<u64>,
    paid: Instant,
    credit: Duration,
    /// How much of the credit is used up on purpose, to be woken less often.
    linger: Duration,
    segments: usize,
}

impl Bucket {
    /// A bucket that owes nothing and has no credit yet. A rate below [`MIN_RATE`] is held as that.
    pub(crate) fn new(rate: Option<u64>, now: Instant) -> Self {
        let mut bucket = Self {
            rate: None,
            paid: now,
            credit: Duration::ZERO,
            linger: Duration::ZERO,
            segments: usize::MAX,
        };
        bucket.set_rate(rate, now);
        bucket
    }

    /// Another rate from now on. Bytes owed stay owed, and are paid for at the new rate.
    pub(crate) fn set_rate(&mut self, rate: Option<u64>, now: Instant) {
        let rate = rate.map(|rate| rate.max(MIN_RATE));
        if rate == self.rate {
            return;
        }
        let owed = self.rate.map_or(0, |before| bytes_in(self.paid.saturating_duration_since(now), before));
        self.rate = rate;
        match rate {
            Some(rate) => {
                let batch = batch(rate);
                self.segments = batch;
                let credit = excess(rate) - batch as u64 * SEGMENT;
                self.credit = time_of(credit, rate).min(MAX_CREDIT);
                let apart = time_of(batch as u64 * SEGMENT, rate);
                self.linger = MIN_APART.saturating_sub(apart).min(self.credit * 2 / 3);
                // What was not used at the old rate is no credit at the new one.
                self.paid = later(now, time_of(owed, rate));
            }
            None => {
                (self.credit, self.linger, self.segments, self.paid) =
                    (Duration::ZERO, Duration::ZERO, usize::MAX, now);
            }
        }
    }

    /// When the next transmit may leave; `None`: now.
    pub(crate) fn opens(&self, now: Instant) -> Option<Instant> {
        (self.rate.is_some() && self.paid > now).then_some(self.paid)
    }

    /// How long who waited had best wait on once it may send. At a high rate what gathers until then leaves together, which
    /// costs both ends a fraction of the processor time.
    pub(crate) fn linger(&self) -> Duration {
        self.linger
    }

    /// `bytes` have left.
    pub(crate) fn pay(&mut self, bytes: u64, now: Instant) {
        let Some(rate) = self.rate else { return };
        let from = now.checked_sub(self.credit).unwrap_or(now).max(self.paid);
        self.paid = later(from, time_of(bytes, rate));
    }

    /// How much sending time is lost for good when a transmit that was waiting leaves only now.
    pub(crate) fn lateness(&self, now: Instant) -> Duration {
        match self.rate {
            Some(_) => now.saturating_duration_since(self.paid).saturating_sub(self.credit),
            None => Duration::ZERO,
        }
    }

    /// Datagrams that one transmit may hold: a large one is a burst, at a low rate even of two.
    pub(crate) fn segments(&self) -> usize {
        self.segments
    }
}

/// Bytes that may leave above rate x span in any span of time, with `rate` in bytes a second: 32 kB, at high rates what
/// passes in a millisecond, because a wake-up that is a little late must not cost rate.
pub(crate) fn excess(rate: u64) -> u64 {
    MIN_EXCESS.max(bytes_in(EXCESS, rate))
}

/// Datagrams in a batch that is short enough at `rate`.
fn batch(rate: u64) -> usize {
    let segments = bytes_in(BATCH, rate) / SEGMENT;
    usize::try_from(segments).unwrap_or(usize::MAX).clamp(1, MAX_BATCH)
}

fn bytes_in(span: Duration, rate: u64) -> u64 {
    let bytes = span.as_nanos().saturating_mul(u128::from(rate)) / NANOS;
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

fn time_of(bytes: u64, rate: u64) -> Duration {
    // A bucket is asked every few milliseconds: rounding up never lets it run fast.
    let nanos = (u128::from(bytes) * NANOS).div_ceil(u128::from(rate));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)).min(MAX_DEBT)
}

fn later(from: Instant, by: Duration) -> Instant {
    from.checked_add(by).unwrap_or(from)
}

/// The least rate that is held, bytes a second: below, one datagram would take seconds.
pub(crate) const MIN_RATE: u64 = 1000;
/// An IP packet of usual size.
const SEGMENT: u64 = 1500;
/// What one batch may last at the rate.
const BATCH: Duration = Duration::from_millis(2);
/// quinn makes no larger ones.
const MAX_BATCH: usize = 10;
const MIN_EXCESS: u64 = 32_000;
const EXCESS: Duration = Duration::from_micros(1040);
/// At a low rate 32 kB would stand in the path's queue for long.
const MAX_CREDIT: Duration = Duration::from_millis(4);
/// Between two wake-ups.
const MIN_APART: Duration = Duration::from_micros(750);
/// No debt lasts longer, whatever was asked for: a mistake must not stop a link for ever.
const MAX_DEBT: Duration = Duration::from_secs(120);
const NANOS: u128 = 1_000_000_000;

const _: () = assert!(MAX_BATCH as u64 * SEGMENT < MIN_EXCESS, "a batch and some credit fit the excess");

#[cfg(test)]
mod tests;
