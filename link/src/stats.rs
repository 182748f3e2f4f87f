//! What a connection carried, and how its path is.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use quinn::ConnectionStats;

use crate::{
    congestion::{FlightReading, Kind},
    connection::Inner,
    paced::socket::header_bytes,
};

/// Counters of a connection since it began, and its path as it is now.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Stats {
    /// How long it has lasted.
    pub age: Duration,
    /// `governed`, `adaptive` or `cubic`; `fixed` where this end only answers.
    pub congestion: &'static str,
    /// What may leave right now, bits a second on the wire. Where no rate is known, what the path is found to carry.
    pub rate: Option<u64>,
    /// The rate that it keeps below in any case, bits a second.
    pub ceiling: Option<u64>,
    /// The guaranteed floor, bits a second.
    pub floor: Option<u64>,
    /// Smoothed round trip.
    pub rtt: Duration,
    /// Least round trip of the last half minute.
    pub min_rtt: Duration,
    /// How much longer packets take now: the queue that stands on the path.
    pub queue: Duration,
    /// Bytes that may be in flight.
    pub congestion_window: u64,
    /// Bytes in flight after the last acknowledgement.
    pub in_flight: u64,
    /// Largest UDP payload in use, bytes.
    pub mtu: u16,
    /// QUIC packets sent.
    pub sent_packets: u64,
    /// QUIC packets given up as lost and sent anew.
    pub lost_packets: u64,
    /// Their bytes.
    pub lost_bytes: u64,
    /// Bytes of QUIC packets that arrived at the other end, each once.
    pub delivered_bytes: u64,
    /// How often large packets stopped passing.
    pub black_holes: u64,
    /// UDP datagrams sent.
    pub sent_datagrams: u64,
    /// Bytes of UDP payload sent, repeats and acknowledgements included.
    pub sent_bytes: u64,
    /// What was sent, by cause, with IP and UDP headers.
    pub sent: Sent,
    /// System calls that sent it.
    pub send_calls: u64,
    /// UDP datagrams received.
    pub received_datagrams: u64,
    /// Bytes of UDP payload received.
    pub received_bytes: u64,
    /// Bytes of parcels handed to the connection.
    pub parcel_bytes_sent: u64,
    /// Bytes of parcels received in full.
    pub parcel_bytes_received: u64,
    /// Whether the kernel cuts large sends into datagrams.
    pub segmentation_offload: bool,
    /// Usable bytes of the socket's send buffer, as granted.
    pub send_buffer: usize,
    /// Usable bytes of the socket's receive buffer, as granted.
    pub receive_buffer: usize,
    /// Sending time lost on the whole link because this host woke the sender too late.
    pub paced_late: Duration,
}

/// Bytes on the wire by cause. Their sum is what a carrier counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sent {
    /// Packets sent for the first time.
    pub first: u64,
    /// Packets sent because others were lost: as many bytes as were given up.
    pub resent: u64,
    /// Packets that only acknowledge.
    pub acks: u64,
    /// Until the handshake was done.
    pub handshake: u64,
    /// IP and UDP headers of all of them.
    pub headers: u64,
}

impl Sent {
    /// All of it.
    pub fn total(&self) -> u64 {
        self.first + self.resent + self.acks + self.handshake + self.headers
    }
}

impl Stats {
    pub(crate) fn new(quic: &ConnectionStats, flight: &FlightReading, kind: Kind, of: &Inner) -> Self {
        let headers = header_bytes(of.quic.remote_address()) as u64;
        let sent = by_cause(quic, flight, of.handshake_bytes, headers);
        let rate = of.rate.as_ref();
        let found = || (quic.path.cwnd as f64 * 8.0 / quic.path.rtt.as_secs_f64().max(1e-6)) as u64;
        Self {
            age: of.since.elapsed(),
            congestion: kind.word(),
            rate: match kind {
                Kind::Governed => rate.and_then(crate::Rate::now),
                Kind::Fixed(_) => None,
                Kind::Adaptive | Kind::Cubic => {
                    Some(rate.and_then(crate::Rate::ceiling).unwrap_or(u64::MAX).min(found()))
                }
            },
            ceiling: rate.and_then(crate::Rate::ceiling),
            floor: rate.filter(|_| kind == Kind::Governed).and_then(crate::Rate::floor),
            rtt: quic.path.rtt,
            min_rtt: if flight.least_rtt.is_zero() { quic.path.min_rtt } else { flight.least_rtt },
            queue: flight.queue,
            congestion_window: quic.path.cwnd,
            in_flight: flight.in_flight,
            mtu: quic.path.current_mtu,
            sent_packets: quic.path.sent_packets,
            lost_packets: quic.path.lost_packets,
            lost_bytes: quic.path.lost_bytes,
            delivered_bytes: flight.delivered,
            black_holes: quic.path.black_holes_detected,
            sent_datagrams: quic.udp_tx.datagrams,
            sent_bytes: quic.udp_tx.bytes,
            sent,
            send_calls: quic.udp_tx.ios,
            received_datagrams: quic.udp_rx.datagrams,
            received_bytes: quic.udp_rx.bytes,
            parcel_bytes_sent: of.parcels.sent.load(Ordering::Relaxed),
            parcel_bytes_received: of.parcels.received.load(Ordering::Relaxed),
            segmentation_offload: of.granted.segmentation,
            send_buffer: of.granted.send_buffer,
            receive_buffer: of.granted.receive_buffer,
            paced_late: rate.map_or(Duration::ZERO, crate::Rate::late),
        }
    }

    /// Datagrams a system call: about 1 at a high rate means that segmentation offload is not in use, which costs a
    /// factor of three in processor time.
    pub fn datagrams_per_send(&self) -> f64 {
        if self.send_calls == 0 { 0.0 } else { self.sent_datagrams as f64 / self.send_calls as f64 }
    }
}

fn by_cause(quic: &ConnectionStats, flight: &FlightReading, handshake: u64, headers: u64) -> Sent {
    // Each cause is counted in a place of its own: none may take more than is left, so that the sum is always exact.
    let mut left = quic.udp_tx.bytes;
    let mut take = |bytes: u64| {
        let taken = bytes.min(left);
        left -= taken;
        taken
    };
    let (handshake, acks, resent) =
        (take(handshake), take(flight.acknowledgements), take(quic.path.lost_bytes));
    Sent { first: left, resent, acks, handshake, headers: quic.udp_tx.datagrams * headers }
}

/// Parcel bytes of one connection.
#[derive(Debug, Default)]
pub(crate) struct Carried {
    sent: AtomicU64,
    received: AtomicU64,
}

impl Carried {
    pub(crate) fn sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn received(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_causes_add_up_to_what_was_sent() {
        let mut quic = ConnectionStats::default();
        quic.udp_tx.bytes = 100_000;
        quic.udp_tx.datagrams = 80;
        quic.path.lost_bytes = 5_000;
        let flight = FlightReading { acknowledgements: 2_000, ..FlightReading::default() };
        let sent = by_cause(&quic, &flight, 3_000, 28);
        assert_eq!((sent.first, sent.resent, sent.acks, sent.handshake), (90_000, 5_000, 2_000, 3_000));
        assert_eq!(sent.total(), 100_000 + 80 * 28);
        quic.path.lost_bytes = 1 << 40;
        assert_eq!(by_cause(&quic, &flight, 3_000, 28).total(), 100_000 + 80 * 28);
    }
}
