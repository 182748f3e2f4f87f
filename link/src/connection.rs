//! A connection to a peer whose certificate was verified and whose name is known.

use std::{
    fmt,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use certs::{CertificateDer, SpiffeId};
use proto::wire::LanePreface;
use quinn::{ConnectionStats, crypto::rustls::HandshakeData};
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::{
    CloseCode, ControlRecv, ControlSend, Error, ParcelRecv, ParcelSend, Rate, Stall, Stats,
    close::{MAX_REASON, words},
    congestion::{Kind, Window},
    outgoing::Outgoing,
    socket::Granted,
    stall::{Sample, TICK, Watch},
    stats::Carried,
};

/// One QUIC connection. Cheap to clone; it is closed when the last clone and the last stream are dropped.
#[derive(Clone)]
pub struct Connection(Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) quic: quinn::Connection,
    peer: SpiffeId,
    chain: Vec<CertificateDer<'static>>,
    /// The host that was dialled; `None` at the listener.
    host: Option<String>,
    pub(crate) granted: Granted,
    /// Where this end paces.
    pub(crate) rate: Option<Rate>,
    pub(crate) since: Instant,
    /// UDP payload sent until the handshake was done.
    pub(crate) handshake_bytes: u64,
    /// Parcel bytes, headers of parcels included.
    pub(crate) parcels: Arc<Carried>,
    outgoing: Arc<Outgoing>,
}

impl Connection {
    /// Takes a connection whose handshake is done; fails when the peer's certificate does not name one identity.
    pub(crate) fn new(
        quic: quinn::Connection,
        host: Option<String>,
        granted: Granted,
        send_window: u32,
        rate: Option<Rate>,
    ) -> Result<Self, certs::Error> {
        let chain = quic
            .peer_identity()
            .and_then(|identity| identity.downcast::<Vec<CertificateDer<'static>>>().ok())
            .map(|chain| *chain)
            .unwrap_or_default();
        let peer = certs::peer_spiffe_id(&chain)?;
        let handshake_bytes = quic.stats().udp_tx.bytes;
        let flight = window_of(&quic).map(|window| Arc::clone(window.flight()));
        let outgoing = Arc::new(Outgoing::new(quic.clone(), flight, send_window.into()));
        Ok(Self(Arc::new(Inner {
            quic,
            peer,
            chain,
            host,
            granted,
            rate,
            since: Instant::now(),
            handshake_bytes,
            parcels: Arc::default(),
            outgoing,
        })))
    }

    /// Who the peer is.
    pub fn peer(&self) -> &SpiffeId {
        &self.0.peer
    }

    /// The certificates the peer presented, end entity first.
    pub fn peer_chain(&self) -> &[CertificateDer<'static>] {
        &self.0.chain
    }

    /// What was agreed on in the handshake, for the record.
    pub fn handshake(&self) -> Handshake {
        let data = self.0.quic.handshake_data().and_then(|data| data.downcast::<HandshakeData>().ok());
        let (protocol, server_name) = data.map(|data| (data.protocol, data.server_name)).unwrap_or_default();
        Handshake {
            protocol: String::from_utf8_lossy(&protocol.unwrap_or_default()).into_owned(),
            server_name: self.0.host.clone().or(server_name),
        }
    }

    /// Where the peer is.
    pub fn remote_address(&self) -> SocketAddr {
        self.0.quic.remote_address()
    }

    /// The rate of the link, at the end that dialled.
    pub fn rate(&self) -> Option<&Rate> {
        self.0.rate.as_ref()
    }

    /// Verifies the peer's certificate again, now and against `identity`: after a reload of roots or revocation
    /// lists, and from time to time, as a live connection may outlast its certificate.
    ///
    /// # Errors
    /// [`certs::Error::Untrusted`]: close with [`CloseCode::Untrusted`].
    pub fn check_peer(&self, identity: &certs::Identity) -> Result<(), certs::Error> {
        match &self.0.host {
            Some(host) => identity.check_importer(&self.0.chain, host),
            None => identity.check_exporter(&self.0.chain),
        }
    }

    /// Opens the control stream: the exporter does. The importer sees it with the first frame.
    ///
    /// # Errors
    /// Why the connection is over.
    pub async fn open_control(&self) -> Result<(ControlSend, ControlRecv), Error> {
        let (send, recv) = self.0.quic.open_bi().await?;
        Ok((ControlSend::new(send, Arc::clone(&self.0.outgoing)), ControlRecv::new(recv)))
    }

    /// Waits for the control stream: the importer does, once.
    ///
    /// # Errors
    /// Why the connection is over.
    pub async fn accept_control(&self) -> Result<(ControlSend, ControlRecv), Error> {
        let (send, recv) = self.0.quic.accept_bi().await?;
        Ok((ControlSend::new(send, Arc::clone(&self.0.outgoing)), ControlRecv::new(recv)))
    }

    /// Opens the stream of a lane epoch: the exporter does. Waits while all streams that the importer allows are open.
    ///
    /// # Errors
    /// Why the connection is over.
    pub async fn open_lane(&self, preface: LanePreface) -> Result<ParcelSend, Error> {
        let (outgoing, carried) = (Arc::clone(&self.0.outgoing), Arc::clone(&self.0.parcels));
        ParcelSend::open(self.0.quic.open_uni().await?, preface, outgoing, carried).await
    }

    /// Waits for the next lane stream and its preface: the importer does.
    ///
    /// Not cancel-safe: a stream whose preface was on the way is lost. Call it in a task of its own, or together with
    /// what ends the whole connection.
    ///
    /// # Errors
    /// Why the connection is over, or what is wrong with this one stream; see [`Error::ends_connection`].
    pub async fn accept_lane(&self) -> Result<ParcelRecv, Error> {
        let stream = self.0.quic.accept_uni().await?;
        match timeout(PREFACE_PATIENCE, ParcelRecv::accept(stream, Arc::clone(&self.0.parcels))).await {
            Ok(result) => result,
            Err(_) => Err(Error::NoPreface { seconds: PREFACE_PATIENCE.as_secs() }),
        }
    }

    /// Resolves when the peer acknowledged nothing for max(1 s, 4 RTT) with data outstanding. Keep-alives count as
    /// data, so a dead path shows on a silent connection too, one keep-alive interval later.
    ///
    /// Never resolves once the connection is over: race it with [`Self::closed`].
    pub async fn stalled(&self) -> Stall {
        let mut watch = Watch::default();
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            if self.0.quic.close_reason().is_some() {
                return std::future::pending().await;
            }
            if let Some(stall) = watch.observe(Instant::now(), &self.sample()) {
                return stall;
            }
        }
    }

    /// Resolves when the connection is over, with the reason in words.
    pub async fn closed(&self) -> String {
        words(&self.0.quic.closed().await)
    }

    /// The code with which the peer closed the connection, if it did and this version knows the code.
    pub fn peer_closed_with(&self) -> Option<CloseCode> {
        match self.0.quic.close_reason()? {
            quinn::ConnectionError::ApplicationClosed(close) => {
                CloseCode::from_number(close.error_code.into_inner())
            }
            _ => None,
        }
    }

    /// Whether the connection is over.
    pub fn is_closed(&self) -> bool {
        self.0.quic.close_reason().is_some()
    }

    /// Closes at once: data that did not arrive yet is dropped. `reason` is for people at the other end.
    pub fn close(&self, code: CloseCode, reason: &str) {
        let mut end = reason.len().min(MAX_REASON);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        self.0.quic.close(code.into(), &reason.as_bytes()[..end]);
    }

    /// Counters since the connection began, and its path as it is now.
    pub fn stats(&self) -> Stats {
        let quic = self.0.quic.stats();
        let window = self.window();
        let kind = window.as_ref().map_or(Kind::Fixed(0), |window| window.kind());
        let flight = window.map(|window| window.flight().read()).unwrap_or_default();
        Stats::new(&quic, &flight, kind, &self.0)
    }

    /// Whether the peer has confirmed the handshake: RFC 9001, 4.1.2. For a dialler: it has taken our certificate.
    pub(crate) fn is_confirmed(&self) -> bool {
        self.0.quic.stats().frame_rx.handshake_done > 0
    }

    pub(crate) fn close_error(&self) -> Option<quinn::ConnectionError> {
        self.0.quic.close_reason()
    }

    /// Asked anew each time: a path that was validated afresh has another controller.
    fn window(&self) -> Option<Box<Window>> {
        window_of(&self.0.quic)
    }

    fn sample(&self) -> Sample {
        let quic = self.0.quic.stats();
        let flight = self.window().map(|window| window.flight().read());
        Sample {
            last_ack: flight.and_then(|flight| flight.last_ack),
            acks: flight.map_or(0, |flight| flight.acks),
            in_flight: flight.map_or(0, |flight| flight.in_flight),
            eliciting: eliciting(&quic),
            rtt: quic.path.rtt,
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("peer", &self.0.peer)
            .field("remote", &self.remote_address())
            .finish_non_exhaustive()
    }
}

fn window_of(quic: &quinn::Connection) -> Option<Box<Window>> {
    quic.congestion_state().into_any().downcast().ok()
}

/// What was agreed on in a handshake. TLS is always 1.3 and mutual; QUIC does not tell the key exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Handshake {
    /// The application protocol: `longhaul/1`.
    pub protocol: String,
    /// The host name that the exporter dialled; at the importer `None` when that was an IP address.
    pub server_name: Option<String>,
}

/// Frames sent that want an acknowledgement: all but ACK, PADDING and CONNECTION_CLOSE (RFC 9002, 2). QUIC's own loss
/// probes are IMMEDIATE_ACK or PING. Probes for a larger MTU count too: when one is lost, a loss probe follows and is
/// acknowledged in time.
fn eliciting(stats: &ConnectionStats) -> u64 {
    let f = &stats.frame_tx;
    f.ack_frequency
        + f.crypto
        + f.data_blocked
        + f.datagram
        + u64::from(f.handshake_done)
        + f.immediate_ack
        + f.max_data
        + f.max_stream_data
        + f.max_streams_bidi
        + f.max_streams_uni
        + f.new_connection_id
        + f.new_token
        + f.path_challenge
        + f.path_response
        + f.ping
        + f.reset_stream
        + f.retire_connection_id
        + f.stream_data_blocked
        + f.streams_blocked_bidi
        + f.streams_blocked_uni
        + f.stop_sending
        + f.stream
}

const PREFACE_PATIENCE: Duration = proto::limits::HANDSHAKE_PATIENCE;
