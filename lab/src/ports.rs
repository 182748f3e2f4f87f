//! Ports of loopback that stay ours while nobody listens on them.
//!
//! A broker or a daemon that is killed comes back on its port. Below the kernel's ephemeral range no outgoing
//! connection can take the port meanwhile, and a locked file keeps other processes of these suites off it.

use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};

/// Linux hands out ephemeral ports from 32768 on.
const FIRST: u16 = 17_000;
const COUNT: u16 = 14_000;

/// A port reserved for TCP and UDP; free for others again when dropped.
#[derive(Debug)]
pub struct Port {
    number: u16,
    /// Its lock is the reservation.
    _lock: File,
}

impl Port {
    /// A port on which nobody listens.
    ///
    /// For somebody who begins to listen a while later. A process that is started on another thread at this moment
    /// may hold a copy of the socket that was tried until it has become another program, so that an attempt to
    /// listen at once can find the port in use.
    pub fn reserve() -> io::Result<Self> {
        Self::listen().map(|(port, _)| port)
    }

    /// A port and the socket that listens on it.
    pub(crate) fn listen() -> io::Result<(Self, TcpListener)> {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let directory = std::env::temp_dir().join("longhaul-lab-ports");
        std::fs::create_dir_all(&directory)?;
        let start = std::process::id() * 37 % u32::from(COUNT);
        for _ in 0..COUNT {
            let step = u32::from(NEXT.fetch_add(1, Ordering::Relaxed));
            let number = FIRST + u16::try_from((start + step) % u32::from(COUNT)).expect("below COUNT");
            let lock = File::create(directory.join(number.to_string()))?;
            if lock.try_lock().is_ok()
                && UdpSocket::bind(("127.0.0.1", number)).is_ok()
                && let Ok(listener) = TcpListener::bind(("127.0.0.1", number))
            {
                return Ok((Self { number, _lock: lock }, listener));
            }
        }
        Err(io::Error::other("every port from 17000 to 31000 is taken"))
    }

    /// The port's number.
    pub fn number(&self) -> u16 {
        self.number
    }

    /// The port on 127.0.0.1.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserved_port_is_not_given_out_twice() {
        let ports: Vec<Port> = (0..50).map(|_| Port::reserve().unwrap()).collect();
        let mut numbers: Vec<u16> = ports.iter().map(Port::number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), 50);
    }
}
