//! The bucket in virtual time.

use proptest::prelude::*;

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
fn the_excess_is_32_kb_at_98_megabits_and_below_64_kb_at_490() {
    assert_eq!(excess(RATE), 32_000);
    assert_eq!(excess(61_250_000), 63_700);
}

#[test]
fn at_a_high_rate_wake_ups_are_apart_and_at_a_usual_one_nobody_waits_longer_than_it_must() {
    let linger = |rate| Bucket::new(Some(rate), Instant::now()).linger();
    assert_eq!((linger(250_000), linger(RATE)), (Duration::ZERO, Duration::ZERO));
    let (at_490, at_980) = (linger(61_250_000), linger(122_500_000));
    assert!((400..=530).contains(&at_490.as_micros()), "{at_490:?}");
    assert!((500..=700).contains(&at_980.as_micros()), "{at_980:?}");
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

/// What happens to a bucket.
#[derive(Debug, Clone)]
enum Step {
    Passes(Duration),
    Wants(u64),
    Rate(Option<u64>),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let micros = |most: u64| (0..most).prop_map(Duration::from_micros);
    let rate = prop_oneof![Just(Some(0)), Just(Some(250_000)), Just(Some(RATE)), Just(Some(61_250_000))];
    let step = prop_oneof![
        8 => micros(3_000).prop_map(Step::Passes),
        1 => micros(5_000_000).prop_map(Step::Passes),
        10 => (40..15_000_u64).prop_map(Step::Wants),
        1 => rate.prop_map(Step::Rate),
    ];
    prop::collection::vec(step, 1..120)
}

proptest! {
    /// Whatever happens in whatever order: in every span no more leaves than the rates of its parts allow, and the excess of
    /// the highest, and one transmit that ran into debt.
    #[test]
    fn in_no_span_does_more_leave_than_the_rates_of_its_parts_allow(steps in steps()) {
        let (mut now, mut rate) = (Instant::now(), RATE);
        let mut bucket = Bucket::new(Some(rate), now);
        // Of every step: bytes that were allowed by then in all, and bytes that had left.
        let mut marks = vec![(0.0_f64, 0_u64)];
        let (mut allowed, mut sent, mut highest) = (0.0_f64, 0_u64, rate);
        for step in steps {
            match step {
                Step::Passes(span) => {
                    now += span;
                    allowed += span.as_secs_f64() * rate as f64;
                }
                Step::Wants(bytes) => {
                    if bucket.opens(now).is_none() {
                        bucket.pay(bytes, now);
                        sent += bytes;
                    }
                }
                Step::Rate(new) => {
                    bucket.set_rate(new, now);
                    rate = new.unwrap_or(rate).max(MIN_RATE);
                    highest = highest.max(rate);
                }
            }
            marks.push((allowed, sent));
        }
        for (at, (allowed, sent)) in marks.iter().enumerate() {
            for (before, had_left) in &marks[..at] {
                let above = (sent - had_left) as f64 - (allowed - before);
                prop_assert!(above <= (excess(highest) + 15_000) as f64, "{above} bytes above the rates");
            }
        }
    }
}
