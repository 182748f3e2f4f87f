//! What an endpoint runs with, and the quinn configuration made of it.

use std::{sync::Arc, time::Duration};

use certs::Identity;
use quinn::{
    AckFrequencyConfig, ClientConfig, IdleTimeout, MtuDiscoveryConfig, ServerConfig, TransportConfig, VarInt,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};

use crate::{Congestion, Error, Rate, congestion::WindowFactory};

/// Settings of one side of a link. The defaults suit a path of up to 500 Mbit/s and 200 ms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Lanes of the link, at most [`proto::limits::MAX_LANES`]. Default 4. Bounds the streams an exporter may open.
    pub lanes: u16,
    /// The rate that all connections of a dialler keep below together, bits a second on the wire: IP and UDP headers,
    /// repeats and acknowledgements included. Default `None`: unknown. A listener does not pace.
    pub rate: Option<u64>,
    /// The rate below which a standing queue alone does not bring it, bits a second: it may be somebody else's queue.
    /// Default `None`: half of the rate.
    pub floor: Option<u64>,
    /// How a dialler finds out how much it may send. Default: at the rate when there is one, else it finds the rate.
    pub congestion: Congestion,
    /// Bytes that a listener, which only answers, may have in flight. Default 4 MiB.
    pub window: u64,
    /// Bytes of one stream that the peer may send ahead of our reading. Default 16 MiB.
    pub stream_window: u32,
    /// Bytes of all streams that the peer may send ahead of our reading. Default 32 MiB.
    pub connection_window: u32,
    /// Bytes that we hold for a peer until it has acknowledged them. Default 16 MiB.
    pub send_window: u32,
    /// Size of UDP socket buffers to ask of the operating system, bytes. Default 4 MiB. What is granted is logged.
    pub udp_buffer: usize,
    /// Largest UDP payload that is probed for. Default 1452: IPv6 over Ethernet.
    pub max_mtu: u16,
    /// Interval of keep-alives on a silent connection. Default 8 s: longer than the protocol's heartbeats, which keep a
    /// connection alive by themselves once a session stands.
    pub keep_alive: Duration,
    /// A connection that hears nothing for this long is over. Default 20 s.
    pub idle: Duration,
    /// How long the first attempt to dial may take. Default 2 s. Once the round trip is known: max(1 s, 3 RTT).
    pub first_attempt: Duration,
    /// How long a handshake may take at the listener. Default 10 s.
    pub handshake: Duration,
    /// Handshakes pending at once at the listener, at most. Default 64: more are refused.
    pub max_pending: usize,
    /// From how many pending handshakes on a peer must prove its address first (QUIC Retry). Default 8.
    pub retry_above: usize,
    /// Whether the listener lets a peer change its address in mid-connection. Default no.
    pub migration: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            lanes: 4,
            rate: None,
            floor: None,
            congestion: Congestion::Auto,
            window: 4 << 20,
            stream_window: 16 << 20,
            connection_window: 32 << 20,
            send_window: 16 << 20,
            udp_buffer: 4 << 20,
            max_mtu: 1452,
            keep_alive: Duration::from_secs(8),
            idle: Duration::from_secs(20),
            first_attempt: Duration::from_secs(2),
            handshake: Duration::from_secs(10),
            max_pending: 64,
            retry_above: 8,
            migration: false,
        }
    }
}

impl Settings {
    pub(crate) fn check(&self) -> Result<(), Error> {
        let wrong = |why: &str| Err(Error::Settings { why: why.into() });
        if self.lanes == 0 || self.lanes > proto::limits::MAX_LANES {
            return wrong(&format!("{} lanes, 1 to {} are possible", self.lanes, proto::limits::MAX_LANES));
        }
        if self.rate == Some(0) {
            return wrong("a rate of 0 sends nothing");
        }
        if self.floor.is_some_and(|floor| self.rate.is_some_and(|rate| floor > rate)) {
            return wrong("the guaranteed floor is above the rate");
        }
        if self.stream_window > self.connection_window {
            return wrong("the stream window is larger than the connection window");
        }
        if self.keep_alive >= self.idle {
            return wrong("keep-alives are rarer than the idle time: every silent connection would end");
        }
        if self.idle > MAX_IDLE {
            return wrong("an idle time above one day");
        }
        if self.max_mtu < INITIAL_MTU {
            return wrong("the largest UDP payload must be at least 1200 bytes");
        }
        if self.max_pending == 0 {
            return wrong("no handshake may be pending: nobody could connect");
        }
        Ok(())
    }

    /// The exporter's side: the importer opens no streams towards it.
    pub(crate) fn client(&self, identity: &Identity, rate: &Rate) -> Result<ClientConfig, Error> {
        let tls =
            QuicClientConfig::try_from(identity.client_config()?).expect("our provider has AES-128-GCM");
        let mut config = ClientConfig::new(Arc::new(tls));
        let (congestion, rate, max_mtu) = (self.congestion, rate.clone(), self.max_mtu);
        let window = WindowFactory::Dialled { congestion, rate, max_mtu };
        let mut transport = self.transport(0, 0, window);
        let mut acks = AckFrequencyConfig::default();
        acks.ack_eliciting_threshold(PACKETS_PER_ACK);
        transport.ack_frequency_config(Some(acks));
        config.transport_config(Arc::new(transport));
        Ok(config)
    }

    /// The importer's side: one control stream, one stream a lane and a few while lanes change epochs.
    pub(crate) fn server(&self, identity: &Identity) -> Result<ServerConfig, Error> {
        let tls =
            QuicServerConfig::try_from(identity.server_config()?).expect("our provider has AES-128-GCM");
        let mut config = ServerConfig::with_crypto(Arc::new(tls));
        let window = WindowFactory::Accepted { window: self.window };
        config
            .transport_config(Arc::new(self.transport(1, u32::from(self.lanes) + SPARE_STREAMS, window)))
            .migration(self.migration)
            .max_incoming(self.max_pending * 2)
            .incoming_buffer_size(INCOMING_BUFFER)
            .incoming_buffer_size_total(INCOMING_BUFFER_TOTAL);
        Ok(config)
    }

    fn transport(&self, bidirectional: u32, unidirectional: u32, window: WindowFactory) -> TransportConfig {
        let mut mtu = MtuDiscoveryConfig::default();
        mtu.upper_bound(self.max_mtu);
        let idle = IdleTimeout::try_from(self.idle).expect("checked against one day");
        let mut transport = TransportConfig::default();
        transport
            .max_concurrent_bidi_streams(VarInt::from_u32(bidirectional))
            .max_concurrent_uni_streams(VarInt::from_u32(unidirectional))
            .stream_receive_window(VarInt::from_u32(self.stream_window))
            .receive_window(VarInt::from_u32(self.connection_window))
            .send_window(u64::from(self.send_window))
            .initial_rtt(INITIAL_RTT)
            .initial_mtu(INITIAL_MTU)
            .mtu_discovery_config(Some(mtu))
            .enable_segmentation_offload(true)
            .keep_alive_interval(Some(self.keep_alive))
            .max_idle_timeout(Some(idle))
            .datagram_receive_buffer_size(None)
            .allow_spin(false)
            .congestion_controller_factory(Arc::new(window));
        transport
    }
}

/// Packets that the listener may receive before it must acknowledge them; it never waits longer than 25 ms, nor when one
/// is missing. What comes back is paid for too, often more dearly: a cloud charges for what leaves it.
const PACKETS_PER_ACK: VarInt = VarInt::from_u32(9);

/// What a path is taken for until it was measured: RFC 9002's value, and how the window knows that it was not.
pub(crate) const INITIAL_RTT: Duration = Duration::from_millis(333);
pub(crate) const INITIAL_MTU: u16 = 1200;
/// Streams beyond one a lane: old and new lane epochs exist side by side for a moment.
const SPARE_STREAMS: u32 = 4;
const MAX_IDLE: Duration = Duration::from_secs(86_400);
/// Bytes held for a peer whose handshake was not yet looked at: a ClientHello with X25519MLKEM768 is 1.5 kB.
const INCOMING_BUFFER: u64 = 16 << 10;
const INCOMING_BUFFER_TOTAL: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_contradict_themselves_are_refused() {
        assert!(Settings::default().check().is_ok());
        let wrong = [
            Settings { lanes: 0, ..Settings::default() },
            Settings { lanes: proto::limits::MAX_LANES + 1, ..Settings::default() },
            Settings { rate: Some(0), ..Settings::default() },
            Settings { rate: Some(5), floor: Some(6), ..Settings::default() },
            Settings { stream_window: 64 << 20, ..Settings::default() },
            Settings { idle: Duration::from_secs(8), ..Settings::default() },
            Settings { idle: Duration::MAX, ..Settings::default() },
            Settings { max_mtu: 1199, ..Settings::default() },
            Settings { max_pending: 0, ..Settings::default() },
        ];
        for settings in wrong {
            assert!(matches!(settings.check(), Err(Error::Settings { .. })), "{settings:?}");
        }
    }
}
