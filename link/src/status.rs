//! A connection's path in numbers that people and scrapers read.

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::{Connection, Sent, Stats};

/// The path of one connection at one moment: what `/api/status` says of it. Rates are in bits a second.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct PathStatus {
    /// Where the peer is.
    pub remote: String,
    /// How long the connection has lasted.
    pub connected_seconds: f64,
    /// `governed`, `adaptive` or `cubic`; `fixed` at an end that only answers.
    pub congestion: &'static str,
    /// The rate configured at this end.
    pub configured_bits_per_second: Option<u64>,
    /// The rate that the other end grants.
    pub granted_bits_per_second: Option<u64>,
    /// The lower of the two.
    pub ceiling_bits_per_second: Option<u64>,
    /// What is guaranteed of it.
    pub floor_bits_per_second: Option<u64>,
    /// What may leave right now; where no rate is known, what the path is found to carry.
    pub rate_bits_per_second: Option<u64>,
    /// What arrived in the last second or so: QUIC packets at the other end, each once, and parcels at this one.
    pub goodput_bits_per_second: u64,
    /// Smoothed round trip.
    pub rtt_seconds: f64,
    /// Least round trip of the last half minute.
    pub min_rtt_seconds: f64,
    /// How much longer packets take now.
    pub queue_seconds: f64,
    /// Bytes that may be in flight.
    pub window_bytes: u64,
    /// Bytes that are.
    pub in_flight_bytes: u64,
    /// Largest UDP payload in use.
    pub mtu_bytes: u16,
    /// QUIC packets sent.
    pub sent_packets: u64,
    /// QUIC packets lost.
    pub lost_packets: u64,
    /// Share of packets lost in the last second or so.
    pub loss_ratio: f64,
    /// Bytes on the wire by cause.
    pub sent: SentStatus,
    /// UDP payload received.
    pub received_bytes: u64,
    /// Whether the kernel cuts large sends into datagrams.
    pub segmentation_offload: bool,
    /// Datagrams a system call.
    pub datagrams_per_send: f64,
    /// Send buffer of the socket, as granted.
    pub udp_send_buffer_bytes: usize,
    /// Receive buffer of the socket, as granted.
    pub udp_receive_buffer_bytes: usize,
    /// Sending time lost because this host woke the sender too late.
    pub paced_late_seconds: f64,
}

/// [`Sent`], as it is printed. The sum is what a carrier counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SentStatus {
    /// Sent for the first time.
    pub first_bytes: u64,
    /// Sent again.
    pub resent_bytes: u64,
    /// Acknowledgements.
    pub ack_bytes: u64,
    /// Handshakes, and attempts that became no connection.
    pub handshake_bytes: u64,
    /// IP and UDP headers.
    pub header_bytes: u64,
}

impl PathStatus {
    /// The numbers that a scraper gets, by name; those that are not known are left out.
    pub fn gauges(&self) -> impl Iterator<Item = (&'static str, f64)> {
        let bits = |rate: Option<u64>| rate.map(|rate| rate as f64);
        [
            // One that is gone must not stand there for ever.
            ("link_ceiling_bits_per_second", Some(self.ceiling_bits_per_second.unwrap_or(0) as f64)),
            ("link_rate_bits_per_second", bits(self.rate_bits_per_second)),
            ("link_goodput_bits_per_second", bits(Some(self.goodput_bits_per_second))),
            ("link_min_rtt_seconds", Some(self.min_rtt_seconds)),
            ("link_queue_seconds", Some(self.queue_seconds)),
            ("link_window_bytes", Some(self.window_bytes as f64)),
            ("link_in_flight_bytes", Some(self.in_flight_bytes as f64)),
            ("link_mtu_bytes", Some(f64::from(self.mtu_bytes))),
            ("link_loss_ratio", Some(self.loss_ratio)),
            ("link_segmentation_offload", Some(f64::from(u8::from(self.segmentation_offload)))),
            ("link_datagrams_per_send", Some(self.datagrams_per_send)),
            ("link_udp_send_buffer_bytes", Some(self.udp_send_buffer_bytes as f64)),
            ("link_udp_receive_buffer_bytes", Some(self.udp_receive_buffer_bytes as f64)),
            ("link_paced_late_seconds", Some(self.paced_late_seconds)),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
    }
}

impl SentStatus {
    /// Causes and bytes.
    pub fn causes(&self) -> [(&'static str, u64); 5] {
        [
            ("first", self.first_bytes),
            ("resent", self.resent_bytes),
            ("ack", self.ack_bytes),
            ("handshake", self.handshake_bytes),
            ("header", self.header_bytes),
        ]
    }

    /// All of it.
    pub fn total(&self) -> u64 {
        self.causes().iter().map(|(_, bytes)| bytes).sum()
    }

    /// What another reading found on top.
    pub fn add(&mut self, more: &Self) {
        self.first_bytes += more.first_bytes;
        self.resent_bytes += more.resent_bytes;
        self.ack_bytes += more.ack_bytes;
        self.handshake_bytes += more.handshake_bytes;
        self.header_bytes += more.header_bytes;
    }

    /// What was added since `before`.
    fn since(&self, before: &Self) -> Self {
        Self {
            first_bytes: self.first_bytes.saturating_sub(before.first_bytes),
            resent_bytes: self.resent_bytes.saturating_sub(before.resent_bytes),
            ack_bytes: self.ack_bytes.saturating_sub(before.ack_bytes),
            handshake_bytes: self.handshake_bytes.saturating_sub(before.handshake_bytes),
            header_bytes: self.header_bytes.saturating_sub(before.header_bytes),
        }
    }
}

impl From<Sent> for SentStatus {
    fn from(sent: Sent) -> Self {
        Self {
            first_bytes: sent.first,
            resent_bytes: sent.resent,
            ack_bytes: sent.acks,
            handshake_bytes: sent.handshake,
            header_bytes: sent.headers,
        }
    }
}

/// Reads one connection from time to time, about once a second, and says what changed since.
#[derive(Debug, Default)]
pub struct PathMeter {
    last: Option<(Instant, Stats)>,
}

impl PathMeter {
    /// The path now, and what was sent since the last reading.
    pub fn read(&mut self, connection: &Connection) -> (PathStatus, SentStatus) {
        let (now, stats) = (Instant::now(), connection.stats());
        let before = self.last.replace((now, stats));
        let span = before.map_or(stats.age, |(then, _)| now.saturating_duration_since(then));
        let before = before.map(|(_, stats)| stats);
        let sent = SentStatus::from(stats.sent);
        let added = sent.since(&before.map(|before| before.sent.into()).unwrap_or_default());
        (status(connection, &stats, before.as_ref(), span, sent), added)
    }
}

fn status(
    connection: &Connection,
    stats: &Stats,
    before: Option<&Stats>,
    span: Duration,
    sent: SentStatus,
) -> PathStatus {
    let grown = |of: fn(&Stats) -> u64| of(stats).saturating_sub(before.map_or(0, of));
    let arrived = grown(|stats| stats.delivered_bytes + stats.parcel_bytes_received);
    let lost = grown(|stats| stats.lost_packets) as f64;
    let rate = connection.rate();
    PathStatus {
        remote: connection.remote_address().to_string(),
        connected_seconds: stats.age.as_secs_f64(),
        congestion: stats.congestion,
        configured_bits_per_second: rate.and_then(crate::Rate::configured),
        granted_bits_per_second: rate.and_then(crate::Rate::granted),
        ceiling_bits_per_second: stats.ceiling,
        floor_bits_per_second: stats.floor,
        rate_bits_per_second: stats.rate,
        goodput_bits_per_second: (arrived as f64 * 8.0 / span.as_secs_f64().max(MIN_SPAN)) as u64,
        rtt_seconds: stats.rtt.as_secs_f64(),
        min_rtt_seconds: stats.min_rtt.as_secs_f64(),
        queue_seconds: stats.queue.as_secs_f64(),
        window_bytes: stats.congestion_window,
        in_flight_bytes: stats.in_flight,
        mtu_bytes: stats.mtu,
        sent_packets: stats.sent_packets,
        lost_packets: stats.lost_packets,
        loss_ratio: lost / (grown(|stats| stats.sent_packets) as f64).max(lost).max(1.0),
        sent,
        received_bytes: stats.received_bytes,
        segmentation_offload: stats.segmentation_offload,
        datagrams_per_send: stats.datagrams_per_send(),
        udp_send_buffer_bytes: stats.send_buffer,
        udp_receive_buffer_bytes: stats.receive_buffer,
        paced_late_seconds: stats.paced_late.as_secs_f64(),
    }
}

/// Seconds; two readings at once say nothing of a rate.
const MIN_SPAN: f64 = 0.1;
