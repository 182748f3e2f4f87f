//! Asking a QUIC server whether it is there, with single UDP packets and without a handshake.
//!
//! Two kinds of packet make every QUIC server answer at once, whoever asks: one of a version that does not exist (RFC
//! 9000, 6.1: Version Negotiation, if it has at least 1,200 bytes), and one of a connection that does not exist (10.3:
//! Stateless Reset, also for a small one). So a path can be told apart from its ends, and large packets from small ones.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use rustix::net::sockopt::{
    Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery, set_ip_mtu_discover, set_ipv6_mtu_discover,
};

/// A socket towards one address, whose packets are never cut in pieces on the way.
#[derive(Debug)]
pub(crate) struct Probe {
    socket: UdpSocket,
}

/// What came of asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// A QUIC server answered after so long.
    After(Duration),
    /// The host says that nobody listens on this port.
    NobodyListens,
    /// This host has no way there, or does not let packets out.
    NoRoute(io::ErrorKind),
    /// The packet is too large for this host's own interface.
    TooLargeHere,
    /// Nothing came.
    Silence,
}

impl Probe {
    pub(crate) fn new(remote: SocketAddr) -> io::Result<Self> {
        let any = match remote {
            SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
        };
        let socket = UdpSocket::bind(any)?;
        match remote {
            SocketAddr::V4(_) => set_ip_mtu_discover(&socket, Ipv4PathMtuDiscovery::PROBE)?,
            SocketAddr::V6(_) => set_ipv6_mtu_discover(&socket, Ipv6PathMtuDiscovery::PROBE)?,
        }
        // A connected socket hears of ICMP errors.
        socket.connect(remote)?;
        Ok(Self { socket })
    }

    /// Asks with a packet of `bytes` of UDP payload, again up to `tries` times, each time waiting up to `wait`.
    ///
    /// # Panics
    /// With less than [`MIN_INITIAL`] bytes, which no server answers.
    pub(crate) fn ask(&self, bytes: usize, tries: u32, wait: Duration) -> Answer {
        assert!(bytes >= MIN_INITIAL, "no server answers an Initial packet of {bytes} bytes");
        self.exchange(&unknown_version(bytes), tries, wait, |answer| {
            answer.len() > 5 && answer[0] & LONG_HEADER != 0 && answer[1..5] == [0; 4]
        })
    }

    /// Asks with a packet far below any path's MTU.
    pub(crate) fn ask_small(&self, tries: u32, wait: Duration) -> Answer {
        self.exchange(&unknown_connection(), tries, wait, |answer| answer.len() >= MIN_RESET)
    }

    fn exchange(
        &self,
        packet: &[u8],
        tries: u32,
        wait: Duration,
        is_answer: impl Fn(&[u8]) -> bool,
    ) -> Answer {
        let mut buffer = [0; 2048];
        for _ in 0..tries {
            let asked = Instant::now();
            match self.socket.send(packet) {
                Ok(_) => {}
                Err(error) if error.raw_os_error() == Some(rustix::io::Errno::MSGSIZE.raw_os_error()) => {
                    return Answer::TooLargeHere;
                }
                // Of a packet before.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    return Answer::NobodyListens;
                }
                Err(error) => return Answer::NoRoute(error.kind()),
            }
            while let Some(left) = wait.checked_sub(asked.elapsed()).filter(|left| !left.is_zero()) {
                if self.socket.set_read_timeout(Some(left)).is_err() {
                    return Answer::Silence;
                }
                match self.socket.recv(&mut buffer) {
                    Ok(length) if is_answer(&buffer[..length]) => return Answer::After(asked.elapsed()),
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                        return Answer::NobodyListens;
                    }
                    Err(_) => break,
                }
            }
        }
        Answer::Silence
    }
}

/// A long header with a version reserved for this purpose (RFC 9000, 15), padded to `bytes`.
fn unknown_version(bytes: usize) -> Vec<u8> {
    let mut packet = vec![LONG_HEADER | FIXED_BIT];
    packet.extend([0x1a, 0x2a, 0x3a, 0x4a]);
    for id in [b"longhaul", b"checking"] {
        packet.push(8);
        packet.extend(id);
    }
    packet.resize(bytes, 0);
    packet
}

/// A short header of a connection that does not exist.
fn unknown_connection() -> Vec<u8> {
    let mut packet = vec![FIXED_BIT];
    packet.extend(b"longhaul checks the path below QUIC, nothing is wrong");
    packet.resize(SMALL, 0);
    packet
}

/// The least UDP payload that carries a QUIC handshake (RFC 9000, 14.1).
pub(crate) const MIN_INITIAL: usize = 1200;
const LONG_HEADER: u8 = 0x80;
const FIXED_BIT: u8 = 0x40;
const SMALL: usize = 120;
/// RFC 9000, 10.3.
const MIN_RESET: usize = 21;

#[cfg(test)]
mod tests {
    use super::*;

    const WAIT: Duration = Duration::from_millis(200);

    /// A server that answers `answer` to every packet that `takes` says yes to.
    fn server(answer: &'static [u8], takes: fn(&[u8]) -> bool) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let address = socket.local_addr().expect("an address");
        std::thread::spawn(move || {
            let mut buffer = [0; 2048];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                if takes(&buffer[..length]) {
                    let _ = socket.send_to(answer, from);
                }
            }
        });
        address
    }

    const NEGOTIATION: &[u8] = &[0x80, 0, 0, 0, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8];

    #[test]
    fn an_answer_to_a_version_that_does_not_exist_is_an_answer() -> io::Result<()> {
        let probe = Probe::new(server(NEGOTIATION, |packet| packet.len() == 1300))?;
        assert!(matches!(probe.ask(1300, 1, WAIT), Answer::After(_)));
        assert_eq!(probe.ask(1301, 2, WAIT), Answer::Silence);
        Ok(())
    }

    #[test]
    fn an_answer_that_is_not_quic_is_none() -> io::Result<()> {
        let probe = Probe::new(server(b"220 smtp", |_| true))?;
        assert_eq!(probe.ask(1200, 1, WAIT), Answer::Silence);
        Ok(())
    }

    #[test]
    fn small_packets_are_answered_where_large_ones_are_not() -> io::Result<()> {
        let probe = Probe::new(server(&[0x40; 40], |packet| packet.len() < 1000))?;
        assert_eq!(probe.ask(1200, 1, WAIT), Answer::Silence);
        assert!(matches!(probe.ask_small(1, WAIT), Answer::After(_)));
        Ok(())
    }

    #[test]
    fn a_port_that_nobody_listens_on_is_told_from_silence() -> io::Result<()> {
        let free = UdpSocket::bind("127.0.0.1:0")?.local_addr()?;
        assert_eq!(Probe::new(free)?.ask(1200, 3, WAIT), Answer::NobodyListens);
        Ok(())
    }
}
