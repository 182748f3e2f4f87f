//! The controller on a path made of arithmetic: a bottleneck with a queue that drops its tail, random loss, jitter.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

const M: u64 = 1_000_000;
/// On the wire, and as QUIC counts it.
const PACKET: u64 = 1480;
const PAYLOAD: u64 = 1452;

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// One packet's fate, told at `at`.
struct Fate {
    at: Instant,
    sent: Instant,
    lost: bool,
}

struct Path {
    governed: Governed,
    view: PathView,
    rate: Rate,
    now: Instant,
    /// What the bottleneck carries, bits a second, its queue in bytes and at most, and the round trip without it.
    carries: u64,
    queue: f64,
    most: f64,
    trip: Duration,
    /// Every so-manieth packet is lost; 0: none.
    lose_every: u64,
    /// What somebody else keeps in the queue.
    foreign: Duration,
    /// Up to so much is added to each round trip.
    jitter: Duration,
    fates: VecDeque<Fate>,
    smoothed: Duration,
    in_flight: u64,
    tokens: f64,
    sent: u64,
    dropped: u64,
    delivered: u64,
}

impl Path {
    fn new(rate: u64, carries: u64) -> Self {
        Self::with(Rate::new(Some(rate), None), carries)
    }

    fn with(rate: Rate, carries: u64) -> Self {
        let mut path = Self {
            governed: Governed::new(rate.clone(), 1452),
            view: PathView::default(),
            rate,
            now: Instant::now(),
            carries,
            queue: 0.0,
            most: carries as f64 / 8.0 * 0.1,
            trip: ms(100),
            lose_every: 0,
            foreign: Duration::ZERO,
            jitter: Duration::ZERO,
            fates: VecDeque::new(),
            smoothed: ms(100),
            in_flight: 0,
            tokens: 0.0,
            sent: 0,
            dropped: 0,
            delivered: 0,
        };
        // The handshake measures the path.
        path.view.packet(path.trip, path.trip);
        path.view.end_of_acks(path.now);
        path
    }

    /// Sends whatever may leave for so long, or what `offered` bits a second leave of it; gives what arrived, in bits a
    /// second.
    fn run_offering(&mut self, milliseconds: u64, offered: u64) -> u64 {
        let before = self.delivered;
        for _ in 0..milliseconds {
            self.now += ms(1);
            self.queue = (self.queue - self.carries as f64 / 8000.0).max(0.0);
            let app_limited = offered < self.rate.now().unwrap();
            let leaves = self.rate.now().unwrap().min(offered) as f64 / 8000.0;
            self.tokens = (self.tokens + leaves).min(32_000.0);
            while self.tokens >= PACKET as f64 && self.in_flight + PACKET < self.governed.window(&self.view) {
                self.send();
            }
            self.hear(app_limited);
        }
        (self.delivered - before) * 8 * 1000 / milliseconds
    }

    fn run(&mut self, milliseconds: u64) -> u64 {
        self.run_offering(milliseconds, u64::MAX)
    }

    fn send(&mut self) {
        self.tokens -= PACKET as f64;
        self.in_flight += PACKET;
        self.sent += 1;
        let full = self.queue + PACKET as f64 > self.most;
        let lost = full || (self.lose_every > 0 && self.sent.is_multiple_of(self.lose_every));
        let delay = Duration::from_secs_f64(self.queue / (self.carries as f64 / 8.0));
        self.dropped += u64::from(full);
        if !full {
            self.queue += PACKET as f64;
        }
        let jitter = self.jitter.mul_f64((self.sent % 17) as f64 / 16.0);
        let at = self.now + self.trip + delay + self.foreign + jitter;
        let at = self.fates.back().map_or(at, |last| last.at.max(at));
        self.fates.push_back(Fate { at, sent: self.now, lost });
    }

    fn hear(&mut self, app_limited: bool) {
        while let Some(fate) = self.fates.pop_front_if(|fate| fate.at <= self.now) {
            self.in_flight -= PACKET;
            if fate.lost {
                self.governed.lost(PAYLOAD, false);
                continue;
            }
            let rtt = self.now - fate.sent;
            self.smoothed = (7 * self.smoothed + rtt) / 8;
            self.delivered += PACKET;
            self.view.packet(rtt, self.smoothed);
            self.governed.acked(PAYLOAD, app_limited);
            self.view.end_of_acks(self.now);
            self.governed.end_of_acks(self.now, &self.view);
        }
    }

    /// The mean of the queue over some time.
    fn mean_queue(&mut self, milliseconds: u64) -> Duration {
        let mut sum = 0.0;
        for _ in 0..milliseconds {
            self.run(1);
            sum += self.queue / (self.carries as f64 / 8.0);
        }
        Duration::from_secs_f64(sum / milliseconds as f64)
    }
}

#[test]
fn a_path_that_carries_the_rate_gets_all_of_it_whatever_is_lost_by_chance() {
    for lose_every in [0, 1000, 100, 33] {
        let mut path = Path::new(98 * M, 100 * M);
        path.lose_every = lose_every;
        path.run(3000);
        let share = if lose_every == 0 { 1.0 } else { 1.0 - 1.0 / lose_every as f64 };
        let arrived = path.run(30_000) as f64;
        assert!(arrived > 0.99 * share * 98e6, "{arrived} at one in {lose_every}");
        assert!(path.mean_queue(1000) < ms(2));
        assert_eq!(path.rate.now(), Some(98 * M), "at one in {lose_every}");
    }
}

#[test]
fn jitter_costs_nothing() {
    let mut path = Path::new(98 * M, 100 * M);
    path.jitter = ms(10);
    path.run(3000);
    assert!(path.run(20_000) > 97 * M);
}

#[test]
fn before_the_path_is_measured_and_after_an_outage_little_leaves() {
    let mut path = Path::new(98 * M, 100 * M);
    assert_eq!(path.governed.window(&PathView::default()), 64 * 1452);
    path.run(5000);
    let before = path.governed.window(&path.view);
    path.governed.lost(2_000_000, true);
    assert_eq!(path.governed.window(&path.view), 64 * 1452);
    // What was lost in the outage is not held against the path.
    path.fates.clear();
    path.in_flight = 0;
    path.now += ms(10_000);
    path.run(5000);
    assert_eq!(path.rate.now(), Some(98 * M));
    assert!(path.governed.window(&path.view) >= before * 9 / 10);
}

#[test]
fn a_rate_twice_too_high_drops_under_one_percent_and_ends_with_a_short_queue() {
    let mut path = Path::new(200 * M, 100 * M);
    path.run(15_000);
    assert!(path.dropped * 100 < path.sent, "{} of {} packets dropped", path.dropped, path.sent);
    let arrived = path.run(30_000);
    assert!(arrived > 92 * M, "{arrived}");
    let queue = path.mean_queue(10_000);
    assert!(queue < ms(50), "{queue:?}");
    assert!(path.dropped * 100 < path.sent, "{} of {} packets dropped", path.dropped, path.sent);
}

#[test]
fn a_rate_a_little_too_high_does_not_fill_the_queue_for_ever() {
    let mut path = Path::new(105 * M, 100 * M);
    path.run(20_000);
    assert!(path.run(20_000) > 92 * M);
    assert!(path.mean_queue(20_000) < ms(50));
    assert!(path.dropped * 200 < path.sent, "{} of {} packets dropped", path.dropped, path.sent);
}

#[test]
fn a_policer_that_drops_without_a_queue_is_noticed_too() {
    let mut path = Path::new(200 * M, 100 * M);
    path.most = 30_000.0;
    path.run(15_000);
    assert!(path.dropped * 30 < path.sent, "{} of {} packets dropped", path.dropped, path.sent);
    assert!(path.run(10_000) > 88 * M);
}

#[test]
fn much_loss_by_chance_does_not_take_the_rate_away() {
    for lose_every in [12, 8, 5] {
        let mut path = Path::new(98 * M, 100 * M);
        path.run(5000);
        path.lose_every = lose_every;
        path.run(5000);
        let (arrived, kept) = (path.run(60_000), 98 * M * (lose_every - 1) / lose_every);
        assert!(arrived > kept * 95 / 100, "{arrived} of {kept} with one in {lose_every} lost");
        path.lose_every = 0;
        path.run(5000);
        assert_eq!(path.rate.now(), Some(98 * M));
    }
}

#[test]
fn a_path_that_becomes_narrow_is_still_noticed_where_much_is_lost_by_chance() {
    let mut path = Path::new(98 * M, 100 * M);
    path.lose_every = 8;
    path.run(15_000);
    path.carries = 40 * M;
    path.most = 30_000.0;
    path.run(15_000);
    assert!(path.rate.now().unwrap() < 48 * M, "{:?}", path.rate.now());
    assert!(path.run(5000) > 30 * M);
}

#[test]
fn at_a_low_rate_the_way_back_does_not_take_minutes() {
    let mut path = Path::new(20 * M, 3 * M);
    path.most = 20_000.0;
    path.run(20_000);
    assert!(path.rate.now().unwrap() < 4 * M, "{:?}", path.rate.now());
    path.carries = 25 * M;
    path.most = 25e6 / 8.0 * 0.1;
    path.run(45_000);
    assert_eq!(path.rate.now(), Some(20 * M));
}

#[test]
fn a_path_that_becomes_narrow_and_wide_again_is_followed() {
    let mut path = Path::new(98 * M, 100 * M);
    path.run(5000);
    path.carries = 40 * M;
    path.most = 40e6 / 8.0 * 0.1;
    path.run(10_000);
    let arrived = path.run(5000);
    assert!(arrived > 34 * M, "{arrived}");
    path.carries = 100 * M;
    path.most = 100e6 / 8.0 * 0.1;
    path.run(60_000);
    assert_eq!(path.rate.now(), Some(98 * M));
}

#[test]
fn the_floor_holds_against_a_neighbour_who_fills_the_queue() {
    let rate = Rate::new(Some(60 * M), Some(60 * M));
    let mut path = Path::with(rate, 100 * M);
    path.run(2000);
    path.foreign = ms(95);
    path.run(5000);
    let arrived = path.run(20_000);
    assert!(arrived > 59 * M, "{arrived}");
}

#[test]
fn a_floor_that_was_asked_for_holds_from_the_start_beside_a_neighbour() {
    let mut path = Path::with(Rate::new(Some(60 * M), Some(60 * M)), 100 * M);
    path.run(100);
    path.foreign = ms(95);
    assert!(path.run(10_000) > 54 * M);
}

#[test]
fn above_the_floor_a_standing_queue_makes_it_yield() {
    let mut path = Path::new(98 * M, 100 * M);
    path.run(3000);
    path.foreign = ms(95);
    path.run(25_000);
    let now = path.rate.now().unwrap();
    assert!((48 * M..70 * M).contains(&now), "{now}");
    path.foreign = Duration::ZERO;
    path.run(60_000);
    assert_eq!(path.rate.now(), Some(98 * M));
}

#[test]
fn little_traffic_and_idle_times_decide_nothing() {
    let mut path = Path::new(98 * M, 100 * M);
    path.run(3000);
    path.lose_every = 4;
    path.run_offering(3000, M);
    assert_eq!(path.rate.now(), Some(98 * M));
    path.lose_every = 0;
    path.run_offering(60_000, 3 * M);
    path.foreign = ms(200);
    path.run_offering(20_000, 3 * M);
    assert_eq!(path.rate.now(), Some(98 * M), "a slow neighbour does not make an idle link slow");
}

#[test]
fn a_rate_that_changes_while_running_is_followed_at_once() {
    let mut path = Path::new(98 * M, 100 * M);
    path.run(3000);
    path.rate.grant(Some(20 * M));
    path.run(300);
    let arrived = path.run(5000);
    assert!((19 * M..=20 * M + M / 10).contains(&arrived), "{arrived}");
    path.rate.grant(None);
    path.run(300);
    assert!(path.run(5000) > 97 * M);
}

#[test]
fn a_longer_route_is_not_taken_for_a_queue_for_ever() {
    let mut path = Path::new(98 * M, 100 * M);
    path.run(5000);
    path.trip = ms(220);
    path.run(120_000);
    assert_eq!(path.rate.now(), Some(98 * M));
    assert!(path.run(5000) > 97 * M);
}

#[test]
fn a_receiver_that_is_often_busy_is_not_taken_for_a_queue() {
    let mut path = Path::new(98 * M, 100 * M);
    path.run(2000);
    for _ in 0..20 {
        path.foreign = ms(150);
        path.run(700);
        path.foreign = Duration::ZERO;
        path.run(300);
    }
    assert_eq!(path.rate.now(), Some(98 * M));
}

#[test]
fn a_clock_that_jumps_decides_nothing() {
    let mut path = Path::new(98 * M, 100 * M);
    path.run(3000);
    for jump in [ms(3_600_000), ms(2), ms(90_000)] {
        // Everything that was under way is late by the jump, and the clock then runs on.
        path.now += jump;
        path.run(5000);
        assert_eq!(path.rate.now(), Some(98 * M), "ahead by {jump:?}");
    }
    let before = path.now;
    path.governed.end_of_acks(before - ms(5000), &path.view);
    path.run(5000);
    assert_eq!(path.rate.now(), Some(98 * M), "back");
}

#[test]
fn a_rate_of_next_to_nothing_and_one_beyond_all_bounds_give_windows_that_can_be_used() {
    let mut path = Path::new(98 * M, 100 * M);
    path.run(1000);
    for rate in [1, 8_000, u64::MAX] {
        path.rate.configure(Some(rate));
        path.governed.end_of_acks(path.now, &path.view);
        assert!(path.governed.window(&path.view) >= 8 * 1452, "at {rate}");
    }
    path.rate.configure(Some(0));
    path.governed.end_of_acks(path.now, &path.view);
    assert_eq!(path.governed.window(&path.view), UNKNOWN_WINDOW, "no rate is configured any more");
}

#[test]
fn one_huge_acknowledgement_and_numbers_that_overflow_decide_nothing() {
    let mut path = Path::new(98 * M, 100 * M);
    path.run(3000);
    path.governed.acked(1 << 40, false);
    path.governed.end_of_acks(path.now, &path.view);
    path.run(5000);
    assert_eq!(path.rate.now(), Some(98 * M));
    for _ in 0..3 {
        path.governed.acked(u64::MAX / 2, false);
        path.governed.lost(u64::MAX / 2, false);
        path.governed.end_of_acks(path.now, &path.view);
    }
    assert!(path.governed.window(&path.view) >= 8 * 1452);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever acknowledgements, losses, times and rates come in whatever order: what leaves is never above the ceiling, and
    /// never nothing.
    #[test]
    fn what_may_leave_is_never_above_the_ceiling_and_never_nothing(
        steps in prop::collection::vec((0..5_000_u64, 0..400_u64, 0..2_000_000_u64, 0..20_000_u64, 0..12_u8), 1..300),
    ) {
        let mut path = Path::new(98 * M, 100 * M);
        for (after, rtt, acked, lost, what) in steps {
            path.now += ms(after);
            path.view.packet(ms(rtt), ms(rtt));
            path.view.end_of_acks(path.now);
            path.governed.acked(acked, what == 0);
            path.governed.lost(lost, what == 1);
            match what {
                2 => path.rate.grant(Some(acked * 10)),
                3 => path.rate.configure(Some(acked * 100 + 1)),
                4 => path.rate.set_floor(Some(acked * 50)),
                _ => {}
            }
            path.governed.end_of_acks(path.now, &path.view);
            let (now, ceiling) = (path.rate.now().unwrap(), path.rate.ceiling().unwrap());
            prop_assert!(now <= ceiling && now >= ceiling / 60, "{now} of {ceiling}");
            prop_assert!(path.governed.window(&path.view) >= 8 * 1452);
        }
    }
}
