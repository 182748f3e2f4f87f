//! An authority, an exporter, an importer and what joins them.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use certs::{Authority, Identity, Kind, SpiffeId, Validity};
use link::{Connection, DialError, Dialer, Listener, Refused, Settings};
use longhaul_link as link;
use proto::{
    ids::{Lane, LaneEpoch},
    wire::{LanePreface, ParcelHeader},
};
use tempfile::TempDir;
use tokio::time::timeout;

pub(crate) const FRA: &str = "spiffe://example.org/exporter/fra";
pub(crate) const AWS: &str = "spiffe://example.org/importer/aws";
/// Far more than anything here takes: a test that hangs shall fail by name.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct World {
    dir: TempDir,
    pub(crate) authority: Authority,
    pub(crate) exporter: Identity,
    pub(crate) importer: Identity,
}

impl World {
    pub(crate) fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let authority = Authority::create(&dir.path().join("ca"), "test").unwrap();
        let exporter = issue(&authority, dir.path().join("fra"), Kind::Exporter, FRA);
        let importer = issue(&authority, dir.path().join("aws"), Kind::Importer, AWS);
        Self { dir, authority, exporter, importer }
    }

    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) async fn listen(&self, settings: Settings) -> Listener {
        Listener::bind(local(), &self.importer, settings).await.unwrap()
    }

    pub(crate) fn dialer(&self, settings: Settings) -> Dialer {
        Dialer::new(&self.exporter, id(AWS), settings).unwrap()
    }

    /// A listener and both ends of one connection to it.
    pub(crate) async fn joined(&self, settings: Settings) -> (Listener, Connection, Connection) {
        let listener = self.listen(settings.clone()).await;
        let dialer = self.dialer(settings);
        let (exporter, importer) = meet(&dialer, listener.local_addr(), &listener).await;
        (listener, exporter, importer)
    }

    /// A connection whose other end is bare QUIC with the exporter's certificate: a hostile exporter.
    pub(crate) async fn hostile(&self, listener: &Listener) -> (quinn::Connection, Connection) {
        let quic = self.raw(self.exporter.client_config().unwrap(), listener.local_addr());
        let (quic, accepted) = tokio::join!(quic, accept(listener));
        (quic.unwrap(), accepted.unwrap())
    }

    /// Bare QUIC with any TLS.
    pub(crate) async fn raw(
        &self,
        tls: rustls::ClientConfig,
        to: SocketAddr,
    ) -> Result<quinn::Connection, quinn::ConnectionError> {
        let tls = quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
        let endpoint = quinn::Endpoint::client(local()).unwrap();
        endpoint.connect_with(quinn::ClientConfig::new(Arc::new(tls)), to, "localhost").unwrap().await
    }
}

pub(crate) fn issue(authority: &Authority, out: PathBuf, kind: Kind, name: &str) -> Identity {
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    authority.issue(&out, kind, &id(name), &names, Validity::for_days(1)).unwrap();
    Identity::load(&out).unwrap()
}

pub(crate) fn id(text: &str) -> SpiffeId {
    text.parse().unwrap()
}

pub(crate) fn local() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// Dials `to` and accepts at `listener`.
pub(crate) async fn meet(dialer: &Dialer, to: SocketAddr, listener: &Listener) -> (Connection, Connection) {
    let to = to.to_string();
    let (dialled, accepted) = tokio::join!(dialer.dial(&to), accept(listener));
    (dialled.unwrap(), accepted.unwrap())
}

pub(crate) async fn accept(listener: &Listener) -> Result<Connection, Refused> {
    timeout(PATIENCE, listener.accept())
        .await
        .expect("somebody should have come")
        .expect("the listener lives")
}

/// The error of dialling `to`, while the listener accepts whatever comes.
pub(crate) async fn dial_error(dialer: &Dialer, to: &str) -> DialError {
    timeout(PATIENCE, dialer.dial(to))
        .await
        .expect("an attempt is bounded")
        .expect_err("the dial should fail")
}

pub(crate) fn preface(lane: u16) -> LanePreface {
    LanePreface { lane: Lane(lane), codec_version: 1, epoch: LaneEpoch(7) }
}

/// A parcel whose content follows from its number.
pub(crate) fn parcel(sequence: u64, length: usize) -> (ParcelHeader, Bytes) {
    let body: Vec<u8> =
        (0..length).map(|at| (at as u64).wrapping_mul(31).wrapping_add(sequence) as u8).collect();
    let header =
        ParcelHeader { epoch: LaneEpoch(7), sequence, coded: length as u32, plain: 2 * length as u32 };
    (header, body.into())
}

/// A control frame as the protocol makes them.
pub(crate) fn frame(content: &[u8]) -> Vec<u8> {
    let mut frame = (content.len() as u32).to_le_bytes().to_vec();
    frame.extend_from_slice(content);
    frame
}
