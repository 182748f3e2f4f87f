//! UDP sockets with buffers for a long path.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    sync::{Arc, Once},
};

use quinn::{Endpoint, EndpointConfig, Runtime, ServerConfig, TokioRuntime};
use socket2::{Domain, Protocol, Socket, Type};

use crate::Error;

/// A QUIC endpoint on `address`, with UDP buffers of `buffer` bytes asked for. Without `server` it only dials.
pub(crate) fn endpoint(
    address: SocketAddr,
    buffer: usize,
    server: Option<ServerConfig>,
) -> Result<Endpoint, Error> {
    let failed = |source| Error::Socket { address, source };
    let socket = TokioRuntime.wrap_udp_socket(open(address, buffer).map_err(failed)?).map_err(failed)?;
    if server.is_some() {
        // More than 1 means that the kernel cuts large sends into datagrams; without that, high rates cost three
        // times the processor time.
        tracing::info!(%address, segments = socket.max_transmit_segments(), "UDP segmentation offload");
    }
    let config = EndpointConfig::default();
    Endpoint::new_with_abstract_socket(config, server, socket, Arc::new(TokioRuntime)).map_err(failed)
}

/// A wildcard IPv6 address takes IPv4 too where it can.
fn open(address: SocketAddr, buffer: usize) -> io::Result<UdpSocket> {
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
    Ok(socket.into())
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
