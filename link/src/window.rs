//! Congestion control: a window sized for the path, which loss alone does not shrink.
//!
//! Random loss of 1 % starves Cubic and Reno on a long path, and quinn's BBR floods the queue. So the window is told,
//! not found: rate times round trip when a rate is configured, a fixed size otherwise. A guard takes it back when the
//! path shows that it cannot carry that much: a loss share which chance does not explain, or a standing queue.
//!
//! The controller also publishes what quinn does not: bytes in flight and the time of the last acknowledgement.

use std::{
    any::Any,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use quinn::congestion::{Controller, ControllerFactory};
use quinn_proto::RttEstimator;

use crate::settings::{INITIAL_MTU, INITIAL_RTT};

/// Makes the controllers of one endpoint's connections.
#[derive(Debug, Clone)]
pub(crate) struct WindowFactory {
    target: Target,
}

impl WindowFactory {
    /// `rate` in bits a second; `window` in bytes, used when there is no rate.
    pub(crate) fn new(rate: Option<u64>, window: u64) -> Self {
        let target = match rate {
            Some(bits) => Target::Rate(bits as f64 / 8.0),
            None => Target::Fixed(window as f64),
        };
        Self { target }
    }
}

impl ControllerFactory for WindowFactory {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(Window::new(self.target, now, current_mtu))
    }
}

#[derive(Debug, Clone, Copy)]
enum Target {
    /// Bytes a second.
    Rate(f64),
    /// Bytes.
    Fixed(f64),
}

/// What the controller publishes; read without a lock.
#[derive(Debug)]
pub(crate) struct Flight {
    base: Instant,
    /// Nanoseconds after `base`, 0 before the first.
    last_ack: AtomicU64,
    acks: AtomicU64,
    in_flight: AtomicU64,
}

/// A reading of [`Flight`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct FlightReading {
    /// When the peer last acknowledged something new.
    pub(crate) last_ack: Option<Instant>,
    /// How often it did.
    pub(crate) acks: u64,
    /// Bytes in flight after that, less what was given up as lost since. What was sent since is not in it: quinn does
    /// not tell a controller which packets want an answer.
    pub(crate) in_flight: u64,
}

impl Flight {
    fn new(base: Instant) -> Self {
        Self { base, last_ack: 0.into(), acks: 0.into(), in_flight: 0.into() }
    }

    pub(crate) fn read(&self) -> FlightReading {
        // Acquire pairs with the Release in `acked`: the count is never newer than the rest.
        let acks = self.acks.load(Ordering::Acquire);
        let last_ack = self.last_ack.load(Ordering::Relaxed);
        FlightReading {
            last_ack: (last_ack > 0).then(|| self.base + Duration::from_nanos(last_ack)),
            acks,
            in_flight: self.in_flight.load(Ordering::Relaxed),
        }
    }

    fn acked(&self, now: Instant, in_flight: u64) {
        let nanos = u64::try_from(now.duration_since(self.base).as_nanos()).unwrap_or(u64::MAX);
        self.last_ack.store(nanos.max(1), Ordering::Relaxed);
        self.in_flight.store(in_flight, Ordering::Relaxed);
        self.acks.fetch_add(1, Ordering::Release);
    }

    fn lost(&self, bytes: u64) {
        // One writer: the connection calls its controller under its own lock.
        let left = self.in_flight.load(Ordering::Relaxed).saturating_sub(bytes);
        self.in_flight.store(left, Ordering::Relaxed);
    }
}

/// The controller of one connection.
#[derive(Debug, Clone)]
pub(crate) struct Window {
    flight: Arc<Flight>,
    target: Target,
    mtu: u64,
    /// Smoothed and least round trip; zero until measured.
    smoothed: Duration,
    least: Duration,
    /// What the guard leaves of the target: (0, 1].
    scale: f64,
    /// Bytes acknowledged and lost since `since`.
    acked: u64,
    lost: u64,
    since: Option<Instant>,
    /// Everything was lost for a while: send little until something is acknowledged again.
    outage: bool,
}

impl Window {
    fn new(target: Target, now: Instant, mtu: u16) -> Self {
        Self {
            flight: Arc::new(Flight::new(now)),
            target,
            mtu: mtu.into(),
            smoothed: Duration::ZERO,
            least: Duration::ZERO,
            scale: 1.0,
            acked: 0,
            lost: 0,
            since: None,
            outage: false,
        }
    }

    pub(crate) fn flight(&self) -> &Arc<Flight> {
        &self.flight
    }

    /// A round trip that may rise a little with jitter or a busy host, but not with a standing queue.
    fn reference(&self) -> Duration {
        self.smoothed.min(self.least + JITTER.max(self.least / 5))
    }

    /// The window when nothing is wrong.
    fn full(&self) -> f64 {
        match self.target {
            Target::Rate(rate) => rate * GAIN * self.reference().as_secs_f64(),
            Target::Fixed(window) => window,
        }
    }

    fn start(&self) -> u64 {
        START_PACKETS * self.mtu
    }

    fn forget(&mut self) {
        (self.acked, self.lost, self.since) = (0, 0, None);
    }

    fn on_acked(&mut self, now: Instant, bytes: u64, smoothed: Duration, least: Duration) {
        self.outage = false;
        if least == INITIAL_RTT {
            return; // not a measurement: what quinn was configured with
        }
        (self.smoothed, self.least) = (smoothed, least);
        self.acked += bytes;
        let since = *self.since.get_or_insert(now);
        let elapsed = now.saturating_duration_since(since);
        if elapsed > 16 * smoothed + JUDGE_GAP && self.acked + self.lost < JUDGE_PACKETS * self.mtu {
            // An idle time or an outage, not congestion: it says nothing about the path.
            self.forget();
        } else if elapsed > (4 * smoothed).max(JUDGE_AFTER)
            && self.acked + self.lost >= JUDGE_PACKETS * self.mtu
        {
            self.judge(elapsed);
            self.forget();
        }
    }

    fn judge(&mut self, elapsed: Duration) {
        let loss_share = self.lost as f64 / (self.acked + self.lost) as f64;
        let queue = self.smoothed.saturating_sub(self.least);
        if loss_share > MAX_LOSS_SHARE || queue > MAX_QUEUE.max(self.least / 2) {
            let delivered = self.acked as f64 / elapsed.as_secs_f64();
            let carried = delivered * GAIN * self.reference().as_secs_f64();
            self.scale = (0.95 * carried / self.full()).clamp(MIN_SCALE, 1.0).min(self.scale);
        } else {
            self.scale = (self.scale * 1.05 + 0.01).min(1.0);
        }
    }
}

impl Controller for Window {
    fn on_ack(&mut self, now: Instant, _sent: Instant, bytes: u64, _app_limited: bool, rtt: &RttEstimator) {
        self.on_acked(now, bytes, rtt.get(), rtt.min());
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, _app_limited: bool, _largest: Option<u64>) {
        self.flight.acked(now, in_flight);
    }

    fn on_congestion_event(&mut self, _now: Instant, _sent: Instant, persistent: bool, lost_bytes: u64) {
        self.flight.lost(lost_bytes);
        self.lost += lost_bytes;
        if persistent {
            self.forget();
            self.outage = true;
        }
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.mtu = new_mtu.into();
    }

    fn window(&self) -> u64 {
        if self.outage || self.least.is_zero() {
            return self.start();
        }
        (self.full() * self.scale) as u64 + ALLOWANCE_PACKETS * self.mtu
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        START_PACKETS * u64::from(INITIAL_MTU)
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

/// How much more than the bare product is in flight: quinn paces at 1.25 windows a round trip.
const GAIN: f64 = 1.15;
/// Packets before the path was measured, and after an outage.
const START_PACKETS: u64 = 64;
/// Packets on top, so that a short path is not held to less than it can pace.
const ALLOWANCE_PACKETS: u64 = 8;
const JITTER: Duration = Duration::from_millis(20);
/// Random loss on a bad path stays well below.
const MAX_LOSS_SHARE: f64 = 0.08;
const MAX_QUEUE: Duration = Duration::from_millis(40);
const MIN_SCALE: f64 = 0.02;
/// A judgement needs this much time and this many packets, or a burst of losses would decide it.
const JUDGE_AFTER: Duration = Duration::from_secs(1);
const JUDGE_PACKETS: u64 = 1000;
const JUDGE_GAP: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    /// A path that carries `bytes_per_second` and loses a share; runs for some time and gives the last window.
    struct Path {
        window: Window,
        now: Instant,
    }

    impl Path {
        fn new(rate_bits: Option<u64>) -> Self {
            let now = Instant::now();
            let target = WindowFactory::new(rate_bits, 4 << 20).target;
            Self { window: Window::new(target, now, 1452), now }
        }

        fn run(
            &mut self,
            seconds: u64,
            bytes_per_second: f64,
            loss: f64,
            smoothed: Duration,
            least: Duration,
        ) {
            for _ in 0..seconds * 100 {
                self.now += ms(10);
                let bytes = (bytes_per_second / 100.0) as u64;
                let lost = (bytes as f64 * loss) as u64;
                if lost > 0 {
                    self.window.on_congestion_event(self.now, self.now, false, lost);
                }
                self.window.on_acked(self.now, bytes - lost, smoothed, least);
                self.window.on_end_acks(self.now, 0, false, None);
            }
        }
    }

    const RATE: u64 = 100_000_000;
    const CARRIED: f64 = 12_500_000.0;

    #[test]
    fn a_known_rate_gives_a_window_of_rate_times_round_trip() {
        let mut path = Path::new(Some(RATE));
        assert_eq!(path.window.window(), 64 * 1452, "before the first measurement");
        path.run(1, CARRIED, 0.0, ms(100), ms(100));
        let product = CARRIED * 0.1;
        let window = path.window.window() as f64;
        assert!(window > product * 1.1 && window < product * 1.2, "{window} for {product}");
    }

    #[test]
    fn quinns_initial_round_trip_is_no_measurement() {
        let mut path = Path::new(Some(RATE));
        path.window.on_acked(path.now, 1200, INITIAL_RTT, INITIAL_RTT);
        assert_eq!(path.window.window(), 64 * 1452);
    }

    #[test]
    fn random_loss_does_not_shrink_the_window() {
        let mut path = Path::new(Some(RATE));
        path.run(5, CARRIED, 0.0, ms(100), ms(100));
        let before = path.window.window();
        path.run(30, CARRIED, 0.05, ms(100), ms(100));
        assert_eq!(path.window.window(), before);
    }

    #[test]
    fn a_standing_queue_or_heavy_loss_takes_the_window_back_to_what_is_carried() {
        for (loss, smoothed) in [(0.0, ms(200)), (0.3, ms(100))] {
            let mut path = Path::new(Some(2 * RATE));
            path.run(10, CARRIED, loss, smoothed, ms(100));
            let product = CARRIED * (1.0 - loss) * 0.1;
            let window = path.window.window() as f64;
            assert!(window < 1.4 * product, "{window} for {product} carried");
            assert!(window > 0.8 * product, "{window} for {product} carried");
            path.run(60, CARRIED, 0.0, ms(100), ms(100));
            assert!(path.window.window() as f64 > 1.1 * 2.0 * CARRIED * 0.1, "it does not come back");
        }
    }

    #[test]
    fn without_a_rate_the_window_is_fixed() {
        let mut path = Path::new(None);
        path.run(3, CARRIED, 0.01, ms(100), ms(100));
        let window = path.window.window();
        assert!((4 << 20..(4 << 20) + 20_000).contains(&window), "{window}");
    }

    #[test]
    fn little_traffic_decides_nothing() {
        let mut path = Path::new(Some(RATE));
        path.run(1, CARRIED, 0.0, ms(100), ms(100));
        let before = path.window.window();
        path.run(2, 20_000.0, 0.5, ms(100), ms(100));
        assert_eq!(path.window.window(), before);
    }

    #[test]
    fn an_outage_lets_little_out_until_something_is_acknowledged_and_forgets_its_losses() {
        let mut path = Path::new(Some(RATE));
        path.run(5, CARRIED, 0.0, ms(100), ms(100));
        let before = path.window.window();
        path.window.on_congestion_event(path.now, path.now, true, 5_000_000);
        assert_eq!(path.window.window(), 64 * 1452);
        path.run(5, CARRIED, 0.0, ms(100), ms(100));
        assert_eq!(path.window.window(), before);
    }

    #[test]
    fn the_published_flight_follows_acknowledgements_and_losses() {
        let mut path = Path::new(None);
        let flight = path.window.flight().clone();
        assert!(flight.read().last_ack.is_none());
        path.window.on_end_acks(path.now + ms(5), 9000, false, None);
        let reading = flight.read();
        assert_eq!((reading.last_ack, reading.acks, reading.in_flight), (Some(path.now + ms(5)), 1, 9000));
        path.window.on_congestion_event(path.now, path.now, false, 4000);
        assert_eq!(flight.read().in_flight, 5000);
        path.window.on_congestion_event(path.now, path.now, false, 9999);
        assert_eq!((flight.read().in_flight, flight.read().acks), (0, 1));
        // The copy that quinn makes for a moved path publishes in the same place.
        let mut copy = path.window.clone_box();
        copy.on_end_acks(path.now + ms(9), 1, false, None);
        assert_eq!(flight.read().acks, 2);
    }
}
