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
    segments: usize,
}

impl Bucket {
    /// A bucket that owes nothing and has no credit yet. A rate below [`MIN_RATE`] is held as that.
    pub(crate) fn new(rate: Option<u64>, now: Instant) -> Self {
        let mut bucket = Self { rate: None, paid: now, credit: Duration::ZERO, segments: usize::MAX };
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
                // What was not used at the old rate is no credit at the new one.
                self.paid = later(now, time_of(owed, rate));
            }
            None => {
                (self.credit, self.segments, self.paid) = (Duration::ZERO, usize::MAX, now);
            }
        }
    }

    /// When the next transmit may leave; `None`: now.
    pub(crate) fn opens(&self, now: Instant) -> Option<Instant> {
        (self.rate.is_some() && self.paid > now).then_some(self.paid)
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
/// passes in 2.6 ms, because a timer that fires a millisecond late must not cost rate.
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
const EXCESS: Duration = Duration::from_micros(2600);
/// At a low rate 32 kB would stand in the path's queue for long.
const MAX_CREDIT: Duration = Duration::from_millis(4);
/// No debt lasts longer, whatever was asked for: a mistake must not stop a link for ever.
const MAX_DEBT: Duration = Duration::from_secs(120);
const NANOS: u128 = 1_000_000_000;

const _: () = assert!(MAX_BATCH as u64 * SEGMENT < MIN_EXCESS, "a batch and some credit fit the excess");

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: u64 = 12_250_000; // 98 Mbit/s
    const PACKET: u64 = 1480;

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    /// Sends batches as soon as they may leave, each after what `late` says of the time; gives what left and when.
    fn run(
        bucket: &mut Bucket,
        start: Instant,
        span: Duration,
        mut late: impl FnMut(u64) -> Duration,
    ) -> Vec<(Instant, u64)> {
        let (mut now, mut sent) = (start, Vec::new());
        while now < start + span {
            let bytes = bucket.segments().min(10) as u64 * PACKET;
            assert!(bucket.opens(now).is_none());
            bucket.pay(bytes, now);
            sent.push((now, bytes));
            if let Some(at) = bucket.opens(now) {
                now = at + late(sent.len() as u64);
            }
        }
        sent
    }

    /// The most that left above the rate in any window of `span`.
    fn most_above(sent: &[(Instant, u64)], rate: u64, span: Duration) -> i64 {
        let allowed = bytes_in(span, rate) as i64;
        let (mut first, mut sum, mut most) = (0, 0_i64, i64::MIN);
        for (at, bytes) in sent {
            sum += *bytes as i64;
            while *at - sent[first].0 > span {
                sum -= sent[first].1 as i64;
                first += 1;
            }
            most = most.max(sum - allowed);
        }
        most
    }

    fn total(sent: &[(Instant, u64)]) -> u64 {
        sent.iter().map(|(_, bytes)| bytes).sum()
    }

    #[test]
    fn the_rate_is_exact_over_a_minute_with_timers_a_millisecond_late() {
        let start = Instant::now();
        let mut bucket = Bucket::new(Some(RATE), start);
        let sent = run(&mut bucket, start, ms(60_000), |nth| Duration::from_micros(nth % 11 * 100));
        let (sent, due) = (total(&sent), RATE * 60);
        assert!(sent <= due + excess(RATE) && sent > due - due / 1000, "{sent} of {due}");
    }

    #[test]
    fn in_no_window_does_more_than_the_excess_leave_above_the_rate() {
        for rate in [250_000, 2_450_000, RATE, 61_250_000, 1_250_000_000] {
            let start = Instant::now();
            let mut bucket = Bucket::new(Some(rate), start);
            // Mostly on time, sometimes late by far more than the credit.
            let sent = run(&mut bucket, start, ms(5_000), |nth| match nth % 97 {
                0 => ms(30),
                step => Duration::from_micros(step * 13),
            });
            for span in [ms(1), ms(10), ms(100), ms(1000)] {
                let most = most_above(&sent, rate, span);
                assert!(most <= excess(rate) as i64, "{most} above {rate} in {span:?}");
            }
        }
    }

    #[test]
    fn the_excess_is_32_kb_up_to_98_megabits() {
        assert_eq!(excess(RATE), 32_000);
        assert_eq!(excess(61_250_000), 159_250);
    }

    #[test]
    fn without_a_rate_nothing_waits() {
        let now = Instant::now();
        let mut bucket = Bucket::new(None, now);
        for _ in 0..10 {
            bucket.pay(u64::MAX, now);
            assert_eq!(bucket.opens(now), None);
        }
        assert_eq!((bucket.segments(), bucket.lateness(now + ms(50))), (usize::MAX, Duration::ZERO));
    }

    #[test]
    fn a_rate_of_zero_is_held_as_the_least_rate_and_not_as_no_limit() {
        let now = Instant::now();
        let mut bucket = Bucket::new(Some(0), now);
        bucket.pay(PACKET, now);
        let opens = bucket.opens(now).expect("it is not open");
        assert!(opens > now + ms(1400), "{:?}", opens - now);
        assert_eq!(bucket.segments(), 1);
    }

    #[test]
    fn what_is_owed_is_paid_at_the_new_rate() {
        let now = Instant::now();
        let mut bucket = Bucket::new(Some(1_000_000), now);
        // Nothing was left unused yet, so there is no credit.
        bucket.pay(100_000, now);
        assert_eq!(bucket.opens(now), Some(now + ms(100)));
        bucket.set_rate(Some(10_000_000), now);
        assert_eq!(bucket.opens(now), Some(now + ms(10)));
        bucket.set_rate(Some(500_000), now + ms(5));
        assert_eq!(bucket.opens(now + ms(5)), Some(now + ms(5) + ms(100)));
        bucket.set_rate(None, now + ms(6));
        assert_eq!(bucket.opens(now + ms(6)), None);
    }

    #[test]
    fn changing_the_rate_over_and_over_lets_nothing_through() {
        let start = Instant::now();
        let mut bucket = Bucket::new(Some(RATE), start);
        let (mut now, mut sent) = (start, Vec::new());
        for turn in 0..20_000_u64 {
            bucket.set_rate(Some(RATE - turn % 2 * 1_000_000), now);
            if bucket.opens(now).is_none() {
                bucket.pay(10 * PACKET, now);
                sent.push((now, 10 * PACKET));
            }
            now += Duration::from_micros(100);
        }
        assert!(most_above(&sent, RATE, ms(100)) <= excess(RATE) as i64);
    }

    #[test]
    fn one_huge_batch_is_let_through_and_paid_for() {
        let now = Instant::now();
        let mut bucket = Bucket::new(Some(RATE), now);
        bucket.pay(10_000_000, now);
        let opens = bucket.opens(now).expect("it is in debt");
        assert!(opens > now + ms(800) && opens < now + ms(820), "{:?}", opens - now);
    }

    #[test]
    fn nothing_overflows() {
        let now = Instant::now();
        for rate in [None, Some(0), Some(1), Some(u64::MAX)] {
            let mut bucket = Bucket::new(rate, now);
            for _ in 0..3 {
                bucket.pay(u64::MAX, now);
                bucket.set_rate(Some(1), now);
                bucket.set_rate(Some(u64::MAX), now);
                bucket.set_rate(rate, now);
            }
            assert!(bucket.opens(now + 10 * MAX_DEBT).is_none(), "{rate:?}");
        }
    }

    #[test]
    fn a_clock_that_jumps_ahead_gives_no_more_than_the_credit() {
        let start = Instant::now();
        let mut bucket = Bucket::new(Some(RATE), start);
        bucket.pay(10 * PACKET, start);
        let sent = run(&mut bucket, start + ms(3_600_000), ms(1000), |_| Duration::ZERO);
        assert!(most_above(&sent, RATE, ms(1)) <= excess(RATE) as i64);
    }

    #[test]
    fn a_clock_that_jumps_back_holds_what_was_paid_for() {
        let start = Instant::now() + ms(10_000);
        let mut bucket = Bucket::new(Some(RATE), start);
        bucket.pay(40_000, start);
        let opens = bucket.opens(start).expect("in debt");
        assert_eq!(bucket.opens(start - ms(5_000)), Some(opens));
        bucket.pay(PACKET, start - ms(5_000));
        assert!(bucket.opens(start).expect("in debt") > opens);
        // Changed while the clock is back: the debt is what it was, plus the jump, and ends.
        bucket.set_rate(Some(RATE * 2), start - ms(5_000));
        assert!(bucket.opens(start + ms(5_000)).is_none());
    }

    #[test]
    fn lateness_beyond_the_credit_is_what_is_lost() {
        let start = Instant::now();
        let mut bucket = Bucket::new(Some(RATE), start);
        bucket.pay(30_000, start);
        let opens = bucket.opens(start).expect("in debt");
        assert_eq!(bucket.lateness(opens + Duration::from_micros(500)), Duration::ZERO);
        assert!(bucket.lateness(opens + ms(10)) > ms(8));
    }
}
