//! UDP sockets with buffers for a long path.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    sync::Once,
};

use socket2::{Domain, Protocol, Socket, Type};

use crate::Error;

/// Binds `address` and asks for buffers of `buffer` bytes. A wildcard IPv6 address takes IPv4 too where it can.
pub(crate) fn bind(address: SocketAddr, buffer: usize) -> Result<UdpSocket, Error> {
    open(address, buffer).map_err(|source| Error::Socket { address, source })
}

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
    tracing::debug!(%address, asked = buffer, receive = granted.0, send = granted.1, "UDP socket buffers");
    if granted.0 < buffer || granted.1 < buffer {
        warn_once(buffer, granted);
    }
    socket.bind(&address.into())?;
    Ok(socket.into())
}

fn warn_once(asked: usize, granted: (usize, usize)) {
    static WARNED: Once = Once::new();
    WARNED.call_once(|| {
        tracing::warn!(
            asked,
            receive = granted.0,
            send = granted.1,
            "UDP socket buffers are smaller than asked for: a fast link loses packets on this host; \
             raise net.core.rmem_max and net.core.wmem_max"
        );
    });
}

/// Linux answers with twice what is usable: see socket(7).
fn halved(size: usize) -> usize {
    if cfg!(target_os = "linux") { size / 2 } else { size }
}
