//! The controller on a path made of arithmetic, alone and beside a flow of TCP Cubic.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

/// On the wire.
const PACKET: u64 = 1480;
const PAYLOAD: u64 = 1452;

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
        let mut link = Self { adaptive: Adaptive::new(1452), path: PathView::default(), now: Instant::now() };
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

    fn end_slow_start(&mut self) {
        self.adaptive.curve.level_off(self.adaptive.window());
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
    link.end_slow_start();
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
    let after = link.adaptive.window();
    assert!(after < before && after > before / 2, "{after} of {before}");
    link.rtts(180, 40);
    assert_eq!(link.adaptive.window(), after);
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
    let mut link = Link { adaptive: Adaptive::new(1452), path: PathView::default(), now: Instant::now() };
    // The true path takes 100 ms, which is never seen.
    link.rtts(145, 20);
    link.end_slow_start();
    link.rtts(200, 40);
    let before = link.adaptive.window();
    link.lose(1);
    assert!(link.adaptive.window() < before);
}

/// Who sends over the path.
enum Control {
    Ours(Box<Adaptive>),
    /// As Linux does it: slow start ends with the first delay, without a reduction, and every loss counts.
    Tcp(Curve),
}

struct Flow {
    control: Control,
    view: PathView,
    begins: Duration,
    in_flight: u64,
    tokens: f64,
    fates: VecDeque<(Instant, Instant, bool)>,
    smoothed: Duration,
    delivered: u64,
}

impl Flow {
    fn new(control: Control, begins: Duration) -> Self {
        Self {
            control,
            view: PathView::default(),
            begins,
            in_flight: 0,
            tokens: 0.0,
            fates: VecDeque::new(),
            smoothed: ms(100),
            delivered: 0,
        }
    }

    fn window(&self) -> u64 {
        match &self.control {
            Control::Ours(adaptive) => adaptive.window(),
            Control::Tcp(curve) => curve.window(),
        }
    }

    /// Both pace at a little more than a window each round trip.
    fn tick(&mut self) {
        let pace = self.window() as f64 * 1.25 / self.smoothed.as_secs_f64() / 1000.0;
        self.tokens = (self.tokens + pace).min((2.0 * pace).max(PACKET as f64));
    }

    fn may_send(&self) -> bool {
        self.tokens >= PACKET as f64 && self.in_flight + PAYLOAD <= self.window()
    }

    fn hear(&mut self, now: Instant) {
        while let Some((_, sent, lost)) = self.fates.pop_front_if(|(at, ..)| *at <= now) {
            self.in_flight -= PAYLOAD;
            if lost {
                match &mut self.control {
                    Control::Ours(adaptive) => adaptive.lost(now, sent, false, PAYLOAD, &self.view),
                    Control::Tcp(curve) => curve.reduce(now, sent),
                }
                continue;
            }
            let rtt = now - sent;
            self.smoothed = (7 * self.smoothed + rtt) / 8;
            self.delivered += PAYLOAD;
            self.view.packet(rtt, self.smoothed);
            self.view.end_of_acks(now);
            match &mut self.control {
                Control::Ours(adaptive) => {
                    adaptive.acked(now, sent, PAYLOAD, false, &self.view);
                    adaptive.end_of_acks(now, &self.view);
                }
                Control::Tcp(curve) => {
                    curve.acked(now, sent, PAYLOAD, false, self.smoothed);
                    let least = self.view.least();
                    if curve.in_slow_start() && self.view.queue() > (least / 8).clamp(ms(4), ms(16)) {
                        curve.level_off(curve.window());
                    }
                }
            }
        }
    }
}

/// A bottleneck with a queue of 100 ms that drops its tail, 100 ms of round trip, random loss behind it.
struct Path {
    start: Instant,
    now: Instant,
    flows: Vec<Flow>,
    queue: f64,
    bits: f64,
    lose_every: u64,
    sent: u64,
}

impl Path {
    fn new(flows: Vec<Flow>) -> Self {
        let start = Instant::now();
        Self { start, now: start, flows, queue: 0.0, bits: 100e6, lose_every: 0, sent: 0 }
    }

    fn run(&mut self, seconds: u64) -> Vec<f64> {
        let before: Vec<u64> = self.flows.iter().map(|flow| flow.delivered).collect();
        for _ in 0..seconds * 1000 {
            self.now += ms(1);
            self.queue = (self.queue - self.bits / 8000.0).max(0.0);
            let mut sending: Vec<usize> = Vec::new();
            for (number, flow) in self.flows.iter_mut().enumerate() {
                flow.hear(self.now);
                flow.tick();
                if self.now - self.start >= flow.begins {
                    sending.push(number);
                }
            }
            // Packet by packet in turn, or who comes first would fill the queue alone.
            let mut turn = 0;
            while !sending.is_empty() {
                turn = (turn + 1) % sending.len();
                if self.flows[sending[turn]].may_send() {
                    self.send(sending[turn]);
                } else {
                    sending.swap_remove(turn);
                }
            }
        }
        let bits = |(flow, before): (&Flow, u64)| (flow.delivered - before) as f64 * 8.0 / seconds as f64;
        self.flows.iter().zip(before).map(bits).collect()
    }

    fn send(&mut self, number: usize) {
        let flow = &mut self.flows[number];
        flow.tokens -= PACKET as f64;
        flow.in_flight += PAYLOAD;
        self.sent += 1;
        let full = self.queue + PACKET as f64 > self.bits / 8.0 * 0.1;
        let lost = full || (self.lose_every > 0 && self.sent.is_multiple_of(self.lose_every));
        let delay = Duration::from_secs_f64(self.queue / (self.bits / 8.0));
        if !full {
            self.queue += PACKET as f64;
        }
        let at = self.now + ms(100) + delay;
        flow.fates.push_back((at, self.now, lost));
    }
}

fn ours(begins: u64) -> Flow {
    Flow::new(Control::Ours(Box::new(Adaptive::new(1452))), ms(begins))
}

fn tcp(begins: u64) -> Flow {
    Flow::new(Control::Tcp(Curve::new(10 * PAYLOAD, 1452)), ms(begins))
}

#[test]
fn alone_it_finds_what_the_path_carries_whatever_is_lost_by_chance() {
    for lose_every in [0, 1000, 100, 33] {
        let mut path = Path::new(vec![ours(0)]);
        path.lose_every = lose_every;
        path.run(5);
        let share = if lose_every == 0 { 1.0 } else { 1.0 - 1.0 / lose_every as f64 };
        let arrived = path.run(30)[0];
        assert!(arrived > 0.92 * share * 98.1e6, "{arrived} at one in {lose_every}");
    }
}

#[test]
fn beside_tcp_cubic_each_gets_its_share_whoever_began() {
    for (mine, theirs) in [(0, 0), (0, 8000), (8000, 0)] {
        let mut path = Path::new(vec![ours(mine), tcp(theirs)]);
        path.run(30);
        let rates = path.run(40);
        let share = rates[0] / (rates[0] + rates[1]);
        assert!((0.30..0.65).contains(&share), "began at {mine} and {theirs} ms: {rates:?}");
        assert!(rates[0] + rates[1] > 90e6, "{rates:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    /// Whatever comes in whatever order, with a clock that jumps ahead and back and counts that overflow: a window that a
    /// connection can go on with, and that no loss makes larger.
    #[test]
    fn the_window_can_always_be_used_and_no_loss_makes_it_larger(
        steps in prop::collection::vec(
            (-3_000_i64..100_000, 0..2_000_u64, prop_oneof![0..3_000_000_u64, Just(u64::MAX)], 0..12_u8),
            1..300,
        ),
    ) {
        let (mut adaptive, mut path) = (Adaptive::new(1452), PathView::default());
        let start = Instant::now() + ms(3_000_000);
        let mut now = start;
        for (after, rtt, bytes, what) in steps {
            now = if after < 0 { now - ms(after.unsigned_abs()).min(now - start) } else { now + ms(after.unsigned_abs()) };
            if what != 0 {
                path.packet(ms(rtt), ms(rtt));
                path.end_of_acks(now);
            }
            adaptive.acked(now, now - ms(rtt), bytes, what == 1, &path);
            adaptive.end_of_acks(now, &path);
            let before = adaptive.window();
            match what {
                2..=4 => adaptive.lost(now, now - ms(rtt), what == 2, bytes, &path),
                5 => adaptive.set_mtu(if rtt % 2 == 0 { 1200 } else { 1452 }),
                _ => {}
            }
            if (2..=4).contains(&what) {
                prop_assert!(adaptive.window() <= before.max(2 * 1452), "{} after {before}", adaptive.window());
            }
            prop_assert!(adaptive.window() >= 2 * 1200, "{}", adaptive.window());
        }
    }
}
