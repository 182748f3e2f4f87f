//! Congestion control: what may be outstanding, and how fast.
//!
//! Random loss of 1 % starves Cubic and Reno on a long path, and quinn's own BBR floods the queue. So there are three
//! controllers of ours on quinn's trait, chosen by [`Congestion`]:
//!
//! - [`governed`]: the rate is told, not found. A bucket in the socket holds it, a window bounds what is outstanding, and
//!   a guard takes both back when the path shows that it cannot carry that much;
//! - [`adaptive`]: the rate is found. Cubic, which counts a loss only while the path's queue stands;
//! - Cubic as quinn has it, and a fixed window for an end that only answers.
//!
//! Whichever it is, [`Window`] publishes what quinn does not tell: see [`flight`].

mod adaptive;
mod breath;
mod curve;
mod flight;
mod governed;
mod path;

use std::{any::Any, fmt, sync::Arc, time::Instant};

use quinn::congestion::{Controller, ControllerFactory, Cubic, CubicConfig};
use quinn_proto::RttEstimator;

pub(crate) use flight::{Flight, FlightReading};

use crate::{rate::Rate, settings::INITIAL_RTT};

use adaptive::Adaptive;
use breath::Breath;
use governed::Governed;
use path::PathView;

/// How a link finds out how much it may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Congestion {
    /// [`Governed`](Self::Governed) when a rate is configured, [`Adaptive`](Self::Adaptive) otherwise.
    #[default]
    Auto,
    /// At the configured rate. Loss alone does not slow it down.
    Governed,
    /// Finds the rate, below the configured one if there is one. Shares a path fairly with TCP; loss without a queue
    /// does not slow it down.
    Adaptive,
    /// RFC 9438, below the configured rate if there is one. Every loss slows it down: for short clean paths.
    Cubic,
}

/// Which controller a connection runs with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Governed,
    Adaptive,
    Cubic,
    /// A window of so many bytes.
    Fixed(u64),
}

impl Kind {
    /// The word that people see.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Governed => "governed",
            Self::Adaptive => "adaptive",
            Self::Cubic => "cubic",
            Self::Fixed(_) => "fixed",
        }
    }
}

/// Makes the controllers of one endpoint's connections.
#[derive(Debug, Clone)]
pub(crate) enum WindowFactory {
    /// For connections that are dialled: as chosen, below the link's rate.
    Dialled {
        /// The choice.
        congestion: Congestion,
        /// The link's rate.
        rate: Rate,
        /// The largest datagram that is probed for.
        max_mtu: u16,
    },
    /// For connections that are accepted: this many bytes in flight.
    Accepted {
        /// The window.
        window: u64,
    },
}

impl WindowFactory {
    fn kind(&self) -> Kind {
        match self {
            Self::Accepted { window } => Kind::Fixed(*window),
            Self::Dialled { congestion, rate, .. } => match congestion {
                Congestion::Auto => auto(rate),
                Congestion::Governed => Kind::Governed,
                Congestion::Adaptive => Kind::Adaptive,
                Congestion::Cubic => Kind::Cubic,
            },
        }
    }
}

fn auto(rate: &Rate) -> Kind {
    if rate.configured().is_some() { Kind::Governed } else { Kind::Adaptive }
}

impl ControllerFactory for WindowFactory {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        let (rate, max_mtu) = match &*self {
            Self::Dialled { rate, max_mtu, .. } => (Some(rate.clone()), *max_mtu),
            Self::Accepted { .. } => (None, current_mtu),
        };
        let auto = matches!(*self, Self::Dialled { congestion: Congestion::Auto, .. });
        Box::new(Window::new(self.kind(), auto, rate, now, Breath::new(current_mtu, max_mtu)))
    }
}

/// The controller of one connection.
#[derive(Clone)]
pub(crate) struct Window {
    kind: Kind,
    /// What the choice follows when it was left to us: whether a rate is configured may change.
    auto: Option<Rate>,
    flight: Arc<Flight>,
    path: PathView,
    breath: Breath,
    inner: Inner,
}

#[derive(Clone)]
enum Inner {
    Governed(Box<Governed>),
    Adaptive(Box<Adaptive>),
    Cubic(Box<Cubic>),
    Fixed(u64),
}

impl Inner {
    fn new(kind: Kind, rate: Option<&Rate>, now: Instant, mtu: u16) -> Self {
        if kind != Kind::Governed
            && let Some(rate) = rate
        {
            // What a guard held back, nobody would give back.
            rate.set_scale(1.0);
        }
        match kind {
            Kind::Governed => {
                let rate = rate.cloned().unwrap_or_else(|| Rate::new(None, None));
                Self::Governed(Box::new(Governed::new(rate, mtu)))
            }
            Kind::Adaptive => Self::Adaptive(Box::new(Adaptive::new(mtu))),
            Kind::Cubic => Self::Cubic(Box::new(Cubic::new(Arc::new(CubicConfig::default()), now, mtu))),
            Kind::Fixed(window) => Self::Fixed(window),
        }
    }
}

impl Window {
    fn new(kind: Kind, auto: bool, rate: Option<Rate>, now: Instant, breath: Breath) -> Self {
        let inner = Inner::new(kind, rate.as_ref(), now, breath.mtu());
        let auto = rate.filter(|_| auto);
        Self { kind, auto, flight: Arc::new(Flight::new(now)), path: PathView::default(), breath, inner }
    }

    /// A rate that was configured or taken away changes the controller of a connection that lives, too: governed without
    /// a rate would not be paced by anything.
    fn follow_choice(&mut self, now: Instant) {
        let Some(rate) = &self.auto else { return };
        let kind = auto(rate);
        if kind != self.kind {
            self.inner = Inner::new(kind, Some(rate), now, self.breath.mtu());
            self.kind = kind;
        }
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    pub(crate) fn flight(&self) -> &Arc<Flight> {
        &self.flight
    }

    /// The window without room for probes.
    fn bare_window(&self) -> u64 {
        match &self.inner {
            Inner::Governed(governed) => governed.window(&self.path),
            Inner::Adaptive(adaptive) => adaptive.window(),
            Inner::Cubic(cubic) => cubic.window(),
            Inner::Fixed(window) => *window,
        }
    }
}

impl fmt::Debug for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Window")
            .field("kind", &self.kind)
            .field("window", &self.window())
            .finish_non_exhaustive()
    }
}

impl Controller for Window {
    fn on_sent(&mut self, _now: Instant, bytes: u64, _last_packet_number: u64) {
        self.flight.sent(bytes);
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, rtt: &RttEstimator) {
        self.flight.delivered(bytes);
        let measured = rtt.min() != INITIAL_RTT; // else: what quinn was configured with
        if measured {
            self.path.packet(now.saturating_duration_since(sent), rtt.get());
        }
        match &mut self.inner {
            Inner::Governed(governed) => governed.acked(bytes, app_limited),
            Inner::Adaptive(adaptive) => adaptive.acked(now, sent, bytes, app_limited, &self.path),
            Inner::Cubic(cubic) => cubic.on_ack(now, sent, bytes, app_limited, rtt),
            Inner::Fixed(_) => {}
        }
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool, largest: Option<u64>) {
        self.flight.acked(now, in_flight);
        self.path.end_of_acks(now);
        self.flight.path(self.path.least(), self.path.queue());
        self.breath.end_of_acks(now, self.path.smoothed(), in_flight > self.bare_window() / 4);
        self.follow_choice(now);
        match &mut self.inner {
            Inner::Governed(governed) => governed.end_of_acks(now, &self.path),
            Inner::Adaptive(adaptive) => adaptive.end_of_acks(now, &self.path),
            Inner::Cubic(cubic) => cubic.on_end_acks(now, in_flight, app_limited, largest),
            Inner::Fixed(_) => {}
        }
        self.flight.open(self.bare_window());
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, persistent: bool, lost_bytes: u64) {
        self.flight.lost(lost_bytes);
        match &mut self.inner {
            Inner::Governed(governed) => governed.lost(lost_bytes, persistent),
            Inner::Adaptive(adaptive) => adaptive.lost(now, sent, persistent, lost_bytes, &self.path),
            Inner::Cubic(cubic) => cubic.on_congestion_event(now, sent, persistent, lost_bytes),
            Inner::Fixed(_) => {}
        }
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.breath.set_mtu(new_mtu);
        match &mut self.inner {
            Inner::Governed(governed) => governed.set_mtu(new_mtu),
            Inner::Adaptive(adaptive) => adaptive.set_mtu(new_mtu),
            Inner::Cubic(cubic) => cubic.on_mtu_update(new_mtu),
            Inner::Fixed(_) => {}
        }
    }

    fn window(&self) -> u64 {
        self.breath.of(self.bare_window())
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        match &self.inner {
            Inner::Fixed(window) => *window,
            Inner::Cubic(cubic) => cubic.initial_window(),
            Inner::Governed(_) | Inner::Adaptive(_) => {
                START_PACKETS * u64::from(crate::settings::INITIAL_MTU)
            }
        }
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

/// Packets before the path was measured, and after an outage.
const START_PACKETS: u64 = 64;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn built(factory: WindowFactory) -> Window {
        let controller = Arc::new(factory).build(Instant::now(), 1452);
        *controller.into_any().downcast::<Window>().unwrap()
    }

    #[test]
    fn the_choice_follows_the_configured_rate_and_not_the_granted_one() {
        let dialled = |congestion, rate: &Rate| {
            built(WindowFactory::Dialled { congestion, rate: rate.clone(), max_mtu: 1452 }).kind().word()
        };
        let rate = Rate::new(None, None);
        assert_eq!(dialled(Congestion::Auto, &rate), "adaptive");
        rate.grant(Some(1_000_000));
        assert_eq!(dialled(Congestion::Auto, &rate), "adaptive");
        rate.configure(Some(1_000_000));
        assert_eq!(dialled(Congestion::Auto, &rate), "governed");
        assert_eq!(dialled(Congestion::Adaptive, &rate), "adaptive");
        assert_eq!(dialled(Congestion::Cubic, &rate), "cubic");
        assert_eq!(built(WindowFactory::Accepted { window: 9 }).kind().word(), "fixed");
    }

    #[test]
    fn a_rate_that_comes_or_goes_changes_the_controller_of_a_connection_that_lives() {
        let rate = Rate::new(Some(80_000_000), None);
        let factory = |congestion| WindowFactory::Dialled { congestion, rate: rate.clone(), max_mtu: 1452 };
        let (mut auto, mut told) = (built(factory(Congestion::Auto)), built(factory(Congestion::Governed)));
        let start = Instant::now();
        let mut words_at = |second| {
            let now = start + Duration::from_secs(second);
            auto.on_end_acks(now, 0, false, None);
            told.on_end_acks(now, 0, false, None);
            (auto.kind().word(), told.kind().word())
        };
        rate.set_scale(0.5);
        assert_eq!(words_at(1), ("governed", "governed"));
        rate.grant(Some(9_000_000));
        rate.set_scale(0.5);
        rate.configure(None);
        assert_eq!(words_at(2), ("adaptive", "governed"));
        assert_eq!(rate.now(), Some(9_000_000), "what the guard held back is given back");
        rate.configure(Some(50_000_000));
        assert_eq!(words_at(3), ("governed", "governed"));
    }

    #[test]
    fn the_published_flight_follows_acknowledgements_and_losses() {
        let mut window = built(WindowFactory::Accepted { window: 4 << 20 });
        let (flight, now) = (window.flight().clone(), Instant::now() + Duration::from_secs(1));
        assert!(flight.read().last_ack.is_none());
        window.on_sent(now, 20_000, 7);
        window.on_end_acks(now, 9000, false, None);
        let reading = flight.read();
        assert_eq!((reading.last_ack, reading.acks, reading.in_flight), (Some(now), 1, 9000));
        window.on_congestion_event(now, now, false, 4000);
        assert_eq!(flight.read().in_flight, 5000);
        window.on_congestion_event(now, now, false, 9999);
        assert_eq!((flight.read().in_flight, flight.read().acks), (0, 1));
        // The copy that quinn makes for a moved path publishes in the same place.
        let mut copy = window.clone_box();
        copy.on_end_acks(now + Duration::from_millis(9), 1, false, None);
        assert_eq!(flight.read().acks, 2);
    }

    #[test]
    fn a_fixed_window_stays() {
        let mut window = built(WindowFactory::Accepted { window: 4 << 20 });
        window.on_congestion_event(Instant::now(), Instant::now(), true, 4000);
        assert_eq!(window.window(), 4 << 20);
    }
}
