//! quinn's UDP socket with a bucket before it.

use std::{
    fmt,
    io::{self, IoSliceMut},
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Instant,
};

use super::alarm::Alarm;
use crate::rate::Rate;
use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{RecvMeta, Transmit},
};

/// A socket that sends no faster than a [`Rate`] allows.
pub(crate) struct PacedSocket {
    inner: Arc<dyn AsyncUdpSocket>,
    rate: Rate,
}

impl PacedSocket {
    pub(crate) fn new(inner: Arc<dyn AsyncUdpSocket>, rate: Rate) -> Self {
        Self { inner, rate }
    }
}

impl fmt::Debug for PacedSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PacedSocket").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl AsyncUdpSocket for PacedSocket {
    /// Makes a timer: dialling happens inside the runtime.
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(PacedPoller {
            rate: self.rate.clone(),
            inner: Arc::clone(&self.inner).create_io_poller(),
            alarm: Alarm::new(),
            until: None,
        })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        // Asked and charged under one lock: two connections never take the same gap. Only what the kernel took is
        // charged, or a full socket buffer would be paid for twice.
        let mut bucket = self.rate.bucket();
        let now = Instant::now();
        if bucket.opens(now).is_some() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.inner.try_send(transmit)?;
        let bytes = wire_bytes(transmit.contents.len(), transmit.segment_size, transmit.destination);
        bucket.pay(bytes, now);
        self.rate.left(bytes);
        Ok(())
    }

    fn max_transmit_segments(&self) -> usize {
        self.inner.max_transmit_segments().min(self.rate.bucket().segments())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.inner.poll_recv(cx, bufs, meta)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    // The trait has defaults for these two, which would switch off receive offload and MTU discovery.
    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}

/// Says when a connection may try to send. It judges by the same rule as `try_send`, or quinn would spin between them.
struct PacedPoller {
    rate: Rate,
    inner: Pin<Box<dyn UdpPoller>>,
    alarm: Alarm,
    /// Until when it waits.
    until: Option<Instant>,
}

impl fmt::Debug for PacedPoller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PacedPoller").field("until", &self.until).finish_non_exhaustive()
    }
}

impl UdpPoller for PacedPoller {
    fn poll_writable(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            let now = Instant::now();
            let (opens, linger) = {
                let bucket = this.rate.bucket();
                (bucket.opens(now), bucket.linger())
            };
            let at = match (opens, this.until) {
                (Some(at), _) => at + linger,
                // A wake-up from elsewhere does not cut the wait short.
                (None, Some(until)) if now < until && until - now <= linger => until,
                (None, _) => break,
            };
            this.until = Some(at);
            // That time has passed does not mean that there is room: another connection may have been first.
            ready!(this.alarm.poll(at, cx));
        }
        if this.until.take().is_some() {
            this.rate.left_late();
        }
        this.inner.as_mut().poll_writable(cx)
    }
}

/// IP bytes of a transmit: each datagram of a batch has headers of its own.
fn wire_bytes(payload: usize, segment: Option<usize>, destination: SocketAddr) -> u64 {
    let datagrams = segment.map_or(1, |segment| payload.div_ceil(segment.max(1)));
    (payload + datagrams * header_bytes(destination)) as u64
}

/// IP and UDP headers of one datagram.
pub(crate) fn header_bytes(destination: SocketAddr) -> usize {
    match destination.ip() {
        IpAddr::V6(address) if address.to_ipv4_mapped().is_none() => 48,
        _ => 28,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_datagram_of_a_batch_pays_for_its_headers() {
        let v4: SocketAddr = "192.0.2.1:7443".parse().unwrap();
        let v6: SocketAddr = "[2001:db8::1]:7443".parse().unwrap();
        let mapped: SocketAddr = "[::ffff:192.0.2.1]:7443".parse().unwrap();
        assert_eq!(wire_bytes(1200, None, v4), 1228);
        assert_eq!(wire_bytes(14_520, Some(1452), v4), 14_800);
        assert_eq!(wire_bytes(14_521, Some(1452), v4), 14_521 + 11 * 28);
        assert_eq!(wire_bytes(2904, Some(1452), v6), 3000);
        assert_eq!(wire_bytes(1200, None, mapped), 1228);
    }
}
