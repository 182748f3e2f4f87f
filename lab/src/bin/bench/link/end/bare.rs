//! Streams of quinn as it is: the same TLS, windows and socket buffers as ours, its default congestion control, no
//! protocol of ours.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use certs::Identity;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    ClientConfig, Connection, Endpoint, EndpointConfig, ServerConfig, TokioRuntime, TransportConfig, VarInt,
};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::super::spec::PathView;
use super::{BLOCK_BYTES, LANES, Meter, Sent, Spec};

/// Sends over one connection until the end.
pub(super) async fn send(spec: &Spec) -> Result<Sent> {
    let identity = Identity::load(&spec.certificates.join("edge"))?;
    let tls = QuicClientConfig::try_from(identity.client_config()?).context("TLS")?;
    let mut config = ClientConfig::new(Arc::new(tls));
    config.transport_config(transport());
    let any: SocketAddr = "0.0.0.0:0".parse().expect("an address");
    let endpoint = Endpoint::new(EndpointConfig::default(), None, socket(any)?, Arc::new(TokioRuntime))?;
    sleep(spec.start.left()).await;
    let (remote, end) = (spec.addresses[0], spec.end());
    let connection = endpoint.connect_with(config, remote, &remote.ip().to_string())?.await?;
    let block = Bytes::from(vec![0x5a; BLOCK_BYTES]);
    let tasks: Vec<JoinHandle<Result<()>>> =
        (0..LANES).map(|_| tokio::spawn(fill(connection.clone(), block.clone()))).collect();
    sleep(end.left()).await;
    let view = view(&connection);
    tasks.iter().for_each(JoinHandle::abort);
    connection.close(VarInt::from_u32(0), b"done");
    // A peer that is gone would be waited for.
    let _ = timeout(Duration::from_secs(1), endpoint.wait_idle()).await;
    Ok(Sent { connections: 1, path: Some(view), ..Sent::default() })
}

async fn fill(connection: Connection, block: Bytes) -> Result<()> {
    let mut stream = connection.open_uni().await?;
    loop {
        stream.write_chunk(block.clone()).await?;
    }
}

fn view(connection: &Connection) -> PathView {
    let stats = connection.stats();
    PathView {
        rtt_ms: stats.path.rtt.as_secs_f64() * 1e3,
        window_bytes: stats.path.cwnd,
        mtu: stats.path.current_mtu,
        sent_packets: stats.path.sent_packets,
        lost_packets: stats.path.lost_packets,
        datagrams_per_send: stats.udp_tx.datagrams as f64 / stats.udp_tx.ios.max(1) as f64,
        woken_late_seconds: 0.0,
    }
}

/// Accepts connections and counts what comes, in the background.
pub(super) async fn receive(spec: &Spec, meter: Meter) -> Result<JoinHandle<()>> {
    let identity = Identity::load(&spec.certificates.join("cloud"))?;
    let tls = QuicServerConfig::try_from(identity.server_config()?).context("TLS")?;
    let mut config = ServerConfig::with_crypto(Arc::new(tls));
    config.transport_config(transport());
    let socket = socket(spec.addresses[0])?;
    let endpoint = Endpoint::new(EndpointConfig::default(), Some(config), socket, Arc::new(TokioRuntime))?;
    Ok(tokio::spawn(async move {
        while let Some(incoming) = endpoint.accept().await {
            let meter = meter.clone();
            tokio::spawn(async move {
                let Ok(connection) = incoming.await else { return };
                while let Ok(mut stream) = connection.accept_uni().await {
                    let meter = meter.clone();
                    tokio::spawn(async move {
                        while let Ok(Some(chunk)) = stream.read_chunk(BLOCK_BYTES, true).await {
                            meter.add(chunk.bytes.len());
                        }
                    });
                }
            });
        }
    }))
}

fn socket(address: SocketAddr) -> Result<UdpSocket> {
    let socket = UdpSocket::bind(address).with_context(|| format!("cannot bind {address}"))?;
    let options = socket2::SockRef::from(&socket);
    options.set_recv_buffer_size(SOCKET_BUFFER_BYTES)?;
    options.set_send_buffer_size(SOCKET_BUFFER_BYTES)?;
    Ok(socket)
}

/// As `link` does by default.
fn transport() -> Arc<TransportConfig> {
    let mut transport = TransportConfig::default();
    transport
        .stream_receive_window(VarInt::from_u32(16 << 20))
        .receive_window(VarInt::from_u32(32 << 20))
        .send_window(16 << 20)
        .keep_alive_interval(Some(Duration::from_secs(5)));
    Arc::new(transport)
}

const SOCKET_BUFFER_BYTES: usize = 4 << 20;
