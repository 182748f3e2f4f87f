//! What one end of a measured transport is told to do, and what it tells afterwards. Both travel as JSON between this
//! program and its children.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::resource::{UsageWho, getrusage};
use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// What carries the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Transport {
    /// Ours: `link` between both machines of `proto`, at a configured rate.
    Longhaul,
    /// Ours, which finds the rate by itself.
    LonghaulAdaptive,
    /// Ours, with Cubic.
    LonghaulCubic,
    /// Streams of quinn as it is, with its default congestion control.
    Quinn,
    /// The kernel's TCP with Cubic.
    TcpCubic {
        /// Connections side by side.
        flows: u32,
    },
    /// The kernel's TCP with BBR.
    TcpBbr {
        /// Connections side by side.
        flows: u32,
    },
}

impl Transport {
    /// All that are measured side by side.
    pub(crate) const ALL: [Self; 7] = [
        Self::Longhaul,
        Self::LonghaulAdaptive,
        Self::Quinn,
        Self::TcpCubic { flows: 1 },
        Self::TcpCubic { flows: 4 },
        Self::TcpBbr { flows: 1 },
        Self::TcpBbr { flows: 4 },
    ];

    pub(crate) fn is_ours(self) -> bool {
        matches!(self, Self::Longhaul | Self::LonghaulAdaptive | Self::LonghaulCubic)
    }

    /// Why it cannot be measured here.
    pub(crate) fn objection(self) -> Option<String> {
        let Self::TcpBbr { .. } = self else { return None };
        let available = std::fs::read_to_string(AVAILABLE).unwrap_or_default();
        (!available.split_whitespace().any(|name| name == "bbr"))
            .then(|| "this kernel offers no BBR to TCP: try `modprobe tcp_bbr`".to_owned())
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Longhaul => f.write_str("longhaul"),
            Self::LonghaulAdaptive => f.write_str("longhaul-adaptive"),
            Self::LonghaulCubic => f.write_str("longhaul-cubic"),
            Self::Quinn => f.write_str("quinn"),
            Self::TcpCubic { flows } => write!(f, "tcp-cubic-{flows}"),
            Self::TcpBbr { flows } => write!(f, "tcp-bbr-{flows}"),
        }
    }
}

impl std::str::FromStr for Transport {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().chain([Self::LonghaulCubic]);
        let names = || known.clone().map(|it| it.to_string()).collect::<Vec<_>>().join(", ");
        known.clone().find(|it| it.to_string() == text).ok_or_else(|| format!("one of {}", names()))
    }
}

/// What both ends of one transport do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Spec {
    pub(crate) transport: Transport,
    /// Where the receiver listens; the sender tries them all.
    pub(crate) addresses: Vec<SocketAddr>,
    /// Folder with the certificates of both ends.
    pub(crate) certificates: PathBuf,
    /// Configured at the sender, bits a second; only of use to ours.
    pub(crate) rate: Option<u64>,
    /// What it does not yield below, bits a second; `None` is its default.
    pub(crate) floor: Option<u64>,
    /// When the sender begins to dial.
    pub(crate) start: Moment,
    /// How long it sends from then on.
    pub(crate) seconds: f64,
    /// Partitions that are open besides those that are sent.
    pub(crate) idle_partitions: u32,
    /// Whether anything is sent at all.
    pub(crate) idle: bool,
    /// When the first lane's target takes nothing, in seconds from the first session. That lane does not count.
    pub(crate) blocked: Option<(f64, f64)>,
}

impl Spec {
    pub(crate) fn end(&self) -> Moment {
        Moment(self.start.0 + (self.seconds * 1e9) as u64)
    }
}

/// The kernel's monotonic clock, in nanoseconds: the same in all processes and namespaces of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Moment(pub(crate) u64);

impl Moment {
    pub(crate) fn now() -> Self {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("every Linux has this clock");
        Self(u64::try_from(Duration::from(now).as_nanos()).expect("584 years after the start"))
    }

    pub(crate) fn after(self, wait: Duration) -> Self {
        Self(self.0 + u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX))
    }

    pub(crate) fn seconds_since(self, earlier: Self) -> f64 {
        (self.0 as f64 - earlier.0 as f64) / 1e9
    }

    /// How long it is until then.
    pub(crate) fn left(self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(Self::now().0))
    }

    pub(crate) fn sleep(self) {
        std::thread::sleep(self.left());
    }
}

/// What a receiver tells when it is done.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Received {
    /// Payload bytes received so far, whenever there were more than 10 ms before.
    pub(crate) timeline: Vec<(u64, u64)>,
    pub(crate) cpu_seconds: f64,
    pub(crate) memory: Memory,
}

/// Resident bytes of a process, twice a second.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Memory(pub(crate) Vec<(u64, u64)>);

impl Memory {
    /// The most between two moments.
    pub(crate) fn most(&self, from: Moment, to: Moment) -> u64 {
        let within = self.0.iter().filter(|(at, _)| (from.0..=to.0).contains(at));
        within.map(|(_, bytes)| *bytes).max().unwrap_or(0)
    }
}

impl Received {
    /// Payload bytes received until then.
    pub(crate) fn until(&self, moment: Moment) -> u64 {
        let after = self.timeline.partition_point(|(at, _)| *at <= moment.0);
        after.checked_sub(1).map_or(0, |last| self.timeline[last].1)
    }

    /// When more than what was there at `moment` had come.
    pub(crate) fn first_after(&self, moment: Moment) -> Option<Moment> {
        let before = self.until(moment);
        self.timeline.iter().find(|(at, bytes)| *at > moment.0 && *bytes > before).map(|(at, _)| Moment(*at))
    }

    /// Mbit/s of payload between two moments.
    pub(crate) fn mbit(&self, from: Moment, to: Moment) -> f64 {
        (self.until(to) - self.until(from)) as f64 * 8.0 / 1e6 / to.seconds_since(from)
    }
}

/// What a sender tells when it is done.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Sent {
    pub(crate) cpu_seconds: f64,
    pub(crate) memory: Memory,
    /// Connections made.
    pub(crate) connections: u32,
    /// Why the ones before the last ended.
    pub(crate) endings: Vec<String>,
    /// QUIC's view of the last connection, when there was one.
    pub(crate) path: Option<PathView>,
}

/// What QUIC said of its path at the end.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct PathView {
    pub(crate) rtt_ms: f64,
    pub(crate) window_bytes: u64,
    pub(crate) mtu: u16,
    pub(crate) sent_packets: u64,
    pub(crate) lost_packets: u64,
    pub(crate) datagrams_per_send: f64,
    /// Sending time that was lost because this machine woke the sender too late; only of ours.
    pub(crate) woken_late_seconds: f64,
}

/// Processor time of this process so far, user and system.
pub(crate) fn cpu_seconds() -> Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_SELF).context("getrusage")?;
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    Ok(seconds(usage.user_time()) + seconds(usage.system_time()))
}

const AVAILABLE: &str = "/proc/sys/net/ipv4/tcp_available_congestion_control";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_transport_is_known_by_the_name_it_prints() {
        for transport in Transport::ALL {
            assert_eq!(transport.to_string().parse(), Ok(transport));
        }
        assert!("tcp-reno".parse::<Transport>().unwrap_err().contains("tcp-bbr-4"));
    }

    #[test]
    fn a_timeline_tells_what_had_come_and_when_it_went_on() {
        let timeline = vec![(1_000_000_000, 500), (1_100_000_000, 1000), (12_000_000_000, 1500)];
        let received = Received { timeline, ..Received::default() };
        let at = |seconds: f64| Moment((seconds * 1e9) as u64);
        assert_eq!(
            (received.until(at(0.5)), received.until(at(1.0)), received.until(at(5.0))),
            (0, 500, 1000)
        );
        assert_eq!(received.first_after(at(2.0)), Some(at(12.0)));
        assert_eq!(received.first_after(at(13.0)), None);
        assert!((received.mbit(at(0.0), at(2.0)) - 0.004).abs() < 1e-9);
    }
}
