//! The numbers of an engine, in OpenMetrics text.
//!
//! Every name begins with `longhaul_exporter_` or `longhaul_importer_` and carries its unit; counters end in
//! `_total`, which is added when they are printed. [`Flow`] holds what both sides have, under the same names, so that
//! one dashboard serves both. Engines add their own through the same [`Metrics`].

use std::sync::atomic::{AtomicU64, Ordering};

pub use prometheus_client::metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram};
use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    registry::{Metric, Registry},
};

/// A gauge with a fraction, such as seconds.
pub type FloatGauge = Gauge<f64, AtomicU64>;

/// Histograms of seconds by label, with the buckets of [`seconds`].
pub type SecondsByLabel<L> = Family<L, Histogram, fn() -> Histogram>;

/// Which engine counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// `longhaul_exporter_`
    Exporter,
    /// `longhaul_importer_`
    Importer,
}

/// All numbers of a process. Registered while it is built, then shared for reading.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
}

impl Metrics {
    /// An empty set for one engine.
    pub fn new(side: Side) -> Self {
        let prefix = match side {
            Side::Exporter => "longhaul_exporter",
            Side::Importer => "longhaul_importer",
        };
        Self { registry: Registry::with_prefix(prefix) }
    }

    /// Adds a metric and gives it back for counting. `name` is without prefix and without `_total`; `help` is one
    /// sentence without a full stop.
    pub fn add<M: Metric + Clone>(&mut self, name: &str, help: &str, metric: M) -> M {
        self.registry.register(name, help, metric.clone());
        metric
    }

    /// Adds a counter.
    pub fn counter(&mut self, name: &str, help: &str) -> Counter {
        self.add(name, help, Counter::default())
    }

    /// Adds counters by label.
    pub fn counters<L: Labels>(&mut self, name: &str, help: &str) -> Family<L, Counter> {
        self.add(name, help, Family::default())
    }

    /// Adds a gauge of whole numbers.
    pub fn gauge(&mut self, name: &str, help: &str) -> Gauge {
        self.add(name, help, Gauge::default())
    }

    /// Adds gauges of whole numbers by label.
    pub fn gauges<L: Labels>(&mut self, name: &str, help: &str) -> Family<L, Gauge> {
        self.add(name, help, Family::default())
    }

    /// Adds gauges with a fraction, by label.
    pub fn float_gauges<L: Labels>(&mut self, name: &str, help: &str) -> Family<L, FloatGauge> {
        self.add(name, help, Family::default())
    }

    /// Adds histograms of seconds by label.
    pub fn seconds_by<L: Labels>(&mut self, name: &str, help: &str) -> SecondsByLabel<L> {
        self.add(name, help, SecondsByLabel::new_with_constructor(seconds))
    }

    /// Everything as OpenMetrics text, with [`CONTENT_TYPE`].
    pub fn encode(&self) -> String {
        let mut text = String::new();
        text::encode(&mut text, &self.registry).expect("a String takes everything that is written to it");
        text
    }
}

/// What both engines count, under the names that dashboards rely on.
#[derive(Debug, Clone)]
pub struct Flow {
    /// `records_total`: records acknowledged (exporter) or committed (importer).
    pub records: Family<Partition, Counter>,
    /// `plain_bytes_total`: their plain size.
    pub plain_bytes: Family<Partition, Counter>,
    /// `wire_bytes_total`: UDP payload on the link, both directions, with retransmissions, acks and headers.
    pub wire_bytes: Family<Link, Counter>,
    /// `lag_records`: offsets not yet committed at the target, up to the end of the source partition.
    pub lag_records: Family<Partition, Gauge>,
    /// `lag_bytes`: plain bytes known here and not yet committed at the target.
    pub lag_bytes: Family<Partition, Gauge>,
    /// `lag_seconds`: age of the oldest record not yet committed at the target.
    pub lag_seconds: Family<Partition, FloatGauge>,
    /// `partitions{state}`: source partitions in each state.
    pub partitions: Family<State, Gauge>,
    /// `holds{reason}`: source partitions held, by reason.
    pub holds: Family<Reason, Gauge>,
    /// `rtt_seconds`: smoothed round-trip time of the link.
    pub rtt_seconds: Family<Link, FloatGauge>,
    /// `lost_packets_total`: QUIC packets declared lost.
    pub lost_packets: Family<Link, Counter>,
    /// How the link's path is.
    pub path: PathNumbers,
    /// `connected`: 1 while the link has a session.
    pub connected: Family<Link, Gauge>,
    /// `commit_seconds`: from the first record of a transaction to its commit (importer), or from a batch's last
    /// record read to its acknowledgement (exporter).
    pub commit_seconds: SecondsByLabel<Lane>,
    /// `audit_healthy`: 1 while the audit log can be written; governed actions stop at 0.
    pub audit_healthy: Gauge,
}

impl Flow {
    /// Adds all of them to `metrics`. `audit_healthy` begins at 1.
    pub fn new(metrics: &mut Metrics) -> Self {
        let flow = Self {
            records: metrics.counters("records", "Records durable at the target"),
            plain_bytes: metrics.counters("plain_bytes", "Plain bytes durable at the target"),
            wire_bytes: metrics.counters("wire_bytes", "UDP payload bytes on the link in both directions"),
            lag_records: metrics.gauges("lag_records", "Source offsets not yet committed at the target"),
            lag_bytes: metrics.gauges("lag_bytes", "Plain bytes not yet committed at the target"),
            lag_seconds: metrics
                .float_gauges("lag_seconds", "Age of the oldest record not yet committed at the target"),
            partitions: metrics.gauges("partitions", "Source partitions by state"),
            holds: metrics.gauges("holds", "Source partitions held by reason"),
            rtt_seconds: metrics.float_gauges("rtt_seconds", "Smoothed round-trip time of the link"),
            lost_packets: metrics.counters("lost_packets", "QUIC packets declared lost"),
            path: PathNumbers::new(metrics),
            connected: metrics.gauges("connected", "1 while the link has a session"),
            commit_seconds: metrics
                .seconds_by("commit_seconds", "Time until records are known to be durable"),
            audit_healthy: metrics.gauge("audit_healthy", "1 while the audit log can be written"),
        };
        flow.audit_healthy.set(1);
        flow
    }

    /// Drops every series of a source partition that is not carried any more.
    pub fn forget(&self, partition: &Partition) {
        self.records.remove(partition);
        self.plain_bytes.remove(partition);
        self.lag_records.remove(partition);
        self.lag_bytes.remove(partition);
        self.lag_seconds.remove(partition);
    }
}

/// How a link's path is, under the same names at both ends.
#[derive(Debug, Clone)]
pub struct PathNumbers {
    gauges: Vec<(&'static str, Family<Link, FloatGauge>)>,
    sent: Family<Cause, Counter>,
    congestion: Family<Control, Gauge>,
}

impl PathNumbers {
    /// Adds all of them to `metrics`.
    pub fn new(metrics: &mut Metrics) -> Self {
        Self {
            gauges: vec![
                (
                    "link_ceiling_bits_per_second",
                    metrics.float_gauges("link_ceiling_bits_per_second", "The lower of both ends' rates"),
                ),
                (
                    "link_rate_bits_per_second",
                    metrics.float_gauges(
                        "link_rate_bits_per_second",
                        "What may be on the wire right now, or what the path is found to carry",
                    ),
                ),
                (
                    "link_goodput_bits_per_second",
                    metrics.float_gauges(
                        "link_goodput_bits_per_second",
                        "Parcels that went through in the last second",
                    ),
                ),
                (
                    "link_min_rtt_seconds",
                    metrics.float_gauges("link_min_rtt_seconds", "Least round trip of the last half minute"),
                ),
                (
                    "link_queue_seconds",
                    metrics.float_gauges("link_queue_seconds", "How much longer packets take than at least"),
                ),
                (
                    "link_window_bytes",
                    metrics.float_gauges("link_window_bytes", "Bytes that may be in flight"),
                ),
                ("link_in_flight_bytes", metrics.float_gauges("link_in_flight_bytes", "Bytes in flight")),
                ("link_mtu_bytes", metrics.float_gauges("link_mtu_bytes", "Largest UDP payload in use")),
                (
                    "link_loss_ratio",
                    metrics.float_gauges("link_loss_ratio", "Share of packets lost in the last second"),
                ),
                (
                    "link_segmentation_offload",
                    metrics.float_gauges(
                        "link_segmentation_offload",
                        "1 when the kernel cuts large sends into datagrams",
                    ),
                ),
                (
                    "link_datagrams_per_send",
                    metrics.float_gauges("link_datagrams_per_send", "Datagrams a system call"),
                ),
                (
                    "link_udp_send_buffer_bytes",
                    metrics
                        .float_gauges("link_udp_send_buffer_bytes", "Send buffer of the socket as granted"),
                ),
                (
                    "link_udp_receive_buffer_bytes",
                    metrics.float_gauges(
                        "link_udp_receive_buffer_bytes",
                        "Receive buffer of the socket as granted",
                    ),
                ),
                (
                    "link_paced_late_seconds",
                    metrics.float_gauges(
                        "link_paced_late_seconds",
                        "Sending time lost because this host woke the sender too late",
                    ),
                ),
            ],
            sent: metrics
                .counters("link_sent_bytes", "Bytes put on the wire by cause, IP and UDP headers included"),
            congestion: metrics.gauges("link_congestion", "1 for the congestion control in use"),
        }
    }

    /// Sets the gauge of a name; one that is not known here is left out.
    pub fn set(&self, link: &Link, name: &str, value: f64) {
        if let Some((_, family)) = self.gauges.iter().find(|(known, _)| *known == name) {
            family.get_or_create(link).set(value);
        }
    }

    /// Counts bytes put on the wire.
    pub fn sent(&self, link: &Link, cause: &str, bytes: u64) {
        let labels = Cause { link: link.link.clone(), cause: cause.into() };
        self.sent.get_or_create(&labels).inc_by(bytes);
    }

    /// Says which congestion control is in use.
    pub fn congestion(&self, link: &Link, control: &str) {
        for word in ["governed", "adaptive", "cubic", "fixed"] {
            let labels = Control { link: link.link.clone(), congestion: word.into() };
            if word == control {
                self.congestion.get_or_create(&labels).set(1);
            } else {
                self.congestion.remove(&labels);
            }
        }
    }
}

/// What can be a set of labels.
pub trait Labels:
    EncodeLabelSet + Clone + std::hash::Hash + Eq + std::fmt::Debug + Send + Sync + 'static
{
}

impl<L: EncodeLabelSet + Clone + std::hash::Hash + Eq + std::fmt::Debug + Send + Sync + 'static> Labels
    for L
{
}

/// A link.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Link {
    /// Its name.
    pub link: String,
}

/// Why a link put bytes on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Cause {
    /// Name of the link.
    pub link: String,
    /// `first`, `resent`, `ack`, `handshake` or `header`.
    pub cause: String,
}

/// How a link finds out how much it may send.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Control {
    /// Name of the link.
    pub link: String,
    /// `governed`, `adaptive`, `cubic` or `fixed`.
    pub congestion: String,
}

/// A lane of a link.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Lane {
    /// Name of the link.
    pub link: String,
    /// Number of the lane.
    pub lane: u16,
}

/// A source partition of a link.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Partition {
    /// Name of the link.
    pub link: String,
    /// Name of the source topic.
    pub topic: String,
    /// Number of the partition.
    pub partition: i32,
}

/// A state that source partitions of a link can be in.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct State {
    /// Name of the link.
    pub link: String,
    /// Name of the state.
    pub state: String,
}

/// A reason for which something of a link was held or refused.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Reason {
    /// Name of the link.
    pub link: String,
    /// Name of the reason.
    pub reason: String,
}

/// Moves a counter up to a total that is kept elsewhere, such as a connection's own count. Never down.
pub fn raise_to(counter: &Counter, total: u64) {
    counter.inner().fetch_max(total, Ordering::Relaxed);
}

/// A histogram of seconds, from 1 ms to about 65 s in factors of two.
pub fn seconds() -> Histogram {
    Histogram::new(prometheus_client::metrics::histogram::exponential_buckets(0.001, 2.0, 17))
}

/// The content type of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_are_those_that_dashboards_rely_on() {
        for (side, prefix) in [(Side::Exporter, "longhaul_exporter_"), (Side::Importer, "longhaul_importer_")]
        {
            let mut metrics = Metrics::new(side);
            let flow = Flow::new(&mut metrics);
            let link = Link { link: "l".into() };
            let partition = Partition { link: "l".into(), topic: "t".into(), partition: 3 };
            flow.records.get_or_create(&partition).inc_by(7);
            flow.plain_bytes.get_or_create(&partition).inc();
            flow.wire_bytes.get_or_create(&link).inc();
            flow.lag_records.get_or_create(&partition).set(5);
            flow.lag_seconds.get_or_create(&partition).set(0.5);
            flow.partitions.get_or_create(&State { link: "l".into(), state: "flowing".into() }).set(1);
            flow.holds.get_or_create(&Reason { link: "l".into(), reason: "expired".into() }).set(1);
            flow.rtt_seconds.get_or_create(&link).set(0.08);
            flow.lost_packets.get_or_create(&link).inc();
            flow.commit_seconds.get_or_create(&Lane { link: "l".into(), lane: 2 }).observe(0.01);
            let text = metrics.encode();
            for line in [
                "records_total{link=\"l\",topic=\"t\",partition=\"3\"} 7",
                "plain_bytes_total{link=\"l\",topic=\"t\",partition=\"3\"} 1",
                "wire_bytes_total{link=\"l\"} 1",
                "lag_records{link=\"l\",topic=\"t\",partition=\"3\"} 5",
                "lag_seconds{link=\"l\",topic=\"t\",partition=\"3\"} 0.5",
                "partitions{link=\"l\",state=\"flowing\"} 1",
                "holds{link=\"l\",reason=\"expired\"} 1",
                "rtt_seconds{link=\"l\"} 0.08",
                "lost_packets_total{link=\"l\"} 1",
                "commit_seconds_count{link=\"l\",lane=\"2\"} 1",
                "audit_healthy 1",
            ] {
                assert!(
                    text.lines().any(|found| found == format!("{prefix}{line}")),
                    "{prefix}{line} in\n{text}"
                );
            }
            assert!(text.ends_with("# EOF\n"));
        }
    }

    #[test]
    fn a_path_is_shown_under_the_same_names_at_both_ends() {
        let mut metrics = Metrics::new(Side::Exporter);
        let path = PathNumbers::new(&mut metrics);
        let link = Link { link: "l".into() };
        path.set(&link, "link_rate_bits_per_second", 98e6);
        path.set(&link, "not known here", 1.0);
        path.sent(&link, "resent", 1480);
        path.congestion(&link, "governed");
        path.congestion(&link, "adaptive");
        let text = metrics.encode();
        for line in [
            "link_rate_bits_per_second{link=\"l\"} 98000000.0",
            "link_sent_bytes_total{link=\"l\",cause=\"resent\"} 1480",
            "link_congestion{link=\"l\",congestion=\"adaptive\"} 1",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
        assert!(!text.contains("governed") && !text.contains("not known"), "{text}");
    }

    #[test]
    fn a_partition_that_is_forgotten_has_no_series_left() {
        let mut metrics = Metrics::new(Side::Exporter);
        let flow = Flow::new(&mut metrics);
        let partition = Partition { link: "l".into(), topic: "gone".into(), partition: 0 };
        flow.records.get_or_create(&partition).inc();
        flow.plain_bytes.get_or_create(&partition).inc();
        flow.lag_records.get_or_create(&partition).set(1);
        flow.lag_bytes.get_or_create(&partition).set(1);
        flow.lag_seconds.get_or_create(&partition).set(1.0);
        flow.forget(&partition);
        assert!(!metrics.encode().contains("gone"), "{}", metrics.encode());
    }

    #[test]
    fn a_counter_is_raised_to_a_total_and_never_lowered() {
        let counter = Counter::default();
        raise_to(&counter, 10);
        raise_to(&counter, 4);
        assert_eq!(counter.get(), 10);
    }
}
