//! UDP sockets with buffers for a long path.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    sync::{Arc, Once},
};

use quinn::{Endpoint, EndpointConfig, Runtime, ServerConfig, TokioRuntime};
use quinn_proto::RandomConnectionIdGenerator;
use socket2::{Domain, Protocol, Socket, Type};

use crate::{Error, Rate, paced::socket::PacedSocket};

/// What the operating system gave a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Granted {
    /// Usable bytes of the buffers.
    pub(crate) receive_buffer: usize,
    pub(crate) send_buffer: usize,
    /// Whether the kernel cuts large sends into datagrams; without that, high rates cost three times the processor time.
    pub(crate) segmentation: bool,
}

/// A QUIC endpoint that dials, on any port of `address`'s family, below `rate`; `buffer` bytes of UDP buffers are asked
/// for.
pub(crate) fn dialling(
    address: SocketAddr,
    buffer: usize,
    rate: &Rate,
) -> Result<(Endpoint, Granted), Error> {
    endpoint(address, buffer, None, Some(rate))
}

/// A QUIC endpoint that listens on `address`.
pub(crate) fn listening(
    address: SocketAddr,
    buffer: usize,
    server: ServerConfig,
) -> Result<(Endpoint, Granted), Error> {
    let (endpoint, granted) = endpoint(address, buffer, Some(server), None)?;
    tracing::info!(%address, in_use = granted.segmentation, "UDP segmentation offload");
    Ok((endpoint, granted))
}

fn endpoint(
    address: SocketAddr,
    buffer: usize,
    server: Option<ServerConfig>,
    rate: Option<&Rate>,
) -> Result<(Endpoint, Granted), Error> {
    let failed = |source| Error::Socket { address, source };
    let (socket, (receive_buffer, send_buffer)) = open(address, buffer).map_err(failed)?;
    let mut socket = TokioRuntime.wrap_udp_socket(socket).map_err(failed)?;
    let segmentation = socket.max_transmit_segments() > 1;
    if let Some(rate) = rate {
        socket = Arc::new(PacedSocket::new(socket, rate.clone()));
    }
    let mut config = EndpointConfig::default();
    config.cid_generator(|| Box::new(RandomConnectionIdGenerator::new(CONNECTION_ID_BYTES)));
    let endpoint =
        Endpoint::new_with_abstract_socket(config, server, socket, Arc::new(TokioRuntime)).map_err(failed)?;
    Ok((endpoint, Granted { receive_buffer, send_buffer, segmentation }))
}

/// A wildcard IPv6 address takes IPv4 too where it can.
fn open(address: SocketAddr, buffer: usize) -> io::Result<(UdpSocket, (usize, usize))> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6()
        && address.ip().is_unspecified()
        && let Err(error) = socket.set_only_v6(false)
    {
        tracing::debug!(%error, "the socket takes IPv6 only");
    }
    socket.set_nonblocking(true)?;
    // The kernel caps these silently: what counts is what is read back.
    socket.set_recv_buffer_size(buffer)?;
    socket.set_send_buffer_size(buffer)?;
    let granted = (halved(socket.recv_buffer_size()?), halved(socket.send_buffer_size()?));
    tell_once(buffer, granted);
    socket.bind(&address.into())?;
    Ok((socket.into(), granted))
}

/// Once a process: each attempt to dial has a socket of its own, and all get the same.
fn tell_once(asked: usize, (receive, send): (usize, usize)) {
    static TOLD: Once = Once::new();
    TOLD.call_once(|| {
        if receive >= asked && send >= asked {
            tracing::info!(asked, receive, send, "UDP socket buffers, bytes");
        } else {
            tracing::warn!(
                asked,
                receive,
                send,
                "UDP socket buffers, bytes: smaller than asked for, a fast link loses packets on this host; raise \
                 net.core.rmem_max and net.core.wmem_max"
            );
        }
    });
}

/// Linux answers with twice what is usable: see socket(7).
fn halved(size: usize) -> usize {
    if cfg!(target_os = "linux") { size / 2 } else { size }
}

/// Every packet carries the receiver's connection id. Four bytes tell some thousands of connections apart, and four
/// less a packet are 0.3 % of what is paid for.
const CONNECTION_ID_BYTES: usize = 4;
