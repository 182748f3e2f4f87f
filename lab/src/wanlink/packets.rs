//! Packets in and out of a TUN device, many at a time.
//!
//! As with a network card that cuts segments, TCP and UDP hand over up to 64 KiB at once, and are handed what arrived
//! together. What comes out of here are packets as they would be on a wire, each by itself.

use std::io;

use tun_rs::{GROTable, SyncDevice, VIRTIO_NET_HDR_LEN};

/// Reads packets of a device.
pub(super) struct Source {
    whole: Vec<u8>,
    packets: Vec<Vec<u8>>,
    sizes: Vec<usize>,
}

impl Source {
    pub(super) fn new() -> Self {
        Self {
            whole: vec![0; VIRTIO_NET_HDR_LEN + MAX_PACKET],
            packets: vec![vec![0; MAX_PACKET]; MAX_SEGMENTS],
            sizes: vec![0; MAX_SEGMENTS],
        }
    }

    /// The packets that were sent as one; an error when there is none now.
    pub(super) fn read(&mut self, device: &SyncDevice) -> io::Result<impl Iterator<Item = &[u8]>> {
        let count = device.recv_multiple(&mut self.whole, &mut self.packets, &mut self.sizes, 0)?;
        Ok(self.packets.iter().zip(&self.sizes).take(count).map(|(packet, size)| &packet[..*size]))
    }
}

/// A packet with the room before it that a device wants.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Packet(Vec<u8>);

impl Packet {
    /// Another packet, in the same memory.
    pub(super) fn set(&mut self, packet: &[u8]) {
        self.0.clear();
        self.0.extend_from_slice(&[0; VIRTIO_NET_HDR_LEN]);
        self.0.extend_from_slice(packet);
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0[VIRTIO_NET_HDR_LEN..]
    }

    /// Whether its memory has grown by others that were joined to it.
    pub(super) fn is_large(&self) -> bool {
        self.0.capacity() > LARGE
    }
}

/// Writes packets into a device.
pub(super) struct Sink {
    table: GROTable,
    batch: Vec<Vec<u8>>,
}

impl Sink {
    pub(super) fn new() -> Self {
        Self { table: GROTable::default(), batch: Vec::with_capacity(MAX_SEGMENTS) }
    }

    /// Takes a packet; says whether it is time to [`Self::flush`].
    pub(super) fn put(&mut self, packet: Packet) -> bool {
        self.batch.push(packet.0);
        self.batch.len() >= MAX_SEGMENTS
    }

    /// Writes what was put, of one flow together what can be.
    pub(super) fn flush(&mut self, device: &SyncDevice) -> io::Result<()> {
        if self.batch.is_empty() {
            return Ok(());
        }
        device.send_multiple(&mut self.table, &mut self.batch, VIRTIO_NET_HDR_LEN).map(drop)
    }

    /// The packets that were written, whose memory is free.
    pub(super) fn written(&mut self) -> impl Iterator<Item = Packet> {
        self.batch.drain(..).map(Packet)
    }
}

const MAX_PACKET: usize = 65_536;
/// 64 KiB in the shortest segments that anybody here sends.
const MAX_SEGMENTS: usize = 128;
const LARGE: usize = 4096;

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, UdpSocket};
    use std::time::Duration;

    use quinn::udp::{Transmit, UdpSocketState};

    use super::super::{Error, Params, Plan, Side, Wan, side::in_namespace};

    fn socket(wan: &Wan, side: Side, address: &str) -> UdpSocket {
        let address: SocketAddr = address.parse().expect("an address");
        in_namespace(wan.namespace(side).to_owned(), move || {
            UdpSocket::bind(address).map_err(|why| Error::Tun { why })
        })
        .expect("the namespace has the address")
    }

    #[test]
    fn what_is_sent_as_one_crosses_the_path_packet_by_packet_and_arrives_as_it_was() {
        let mut params = Params::default();
        params.set("delay=5").expect("a parameter");
        let wan = match Wan::up(&Plan::symmetric(&format!("packets-{}", std::process::id()), params)) {
            Ok(wan) => wan,
            Err(error) => return eprintln!("skipped: {error}"),
        };
        let (sender, receiver) =
            (socket(&wan, Side::A, "10.77.0.1:0"), socket(&wan, Side::B, "10.77.0.2:700"));
        receiver.set_read_timeout(Some(Duration::from_secs(5))).expect("a time-out");
        let contents: Vec<u8> = (0..9_500_u32).map(|at| (at / 7) as u8).collect();
        let state = UdpSocketState::new((&sender).into()).expect("a UDP socket");
        let destination = receiver.local_addr().expect("bound");
        let transmit =
            Transmit { destination, ecn: None, contents: &contents, segment_size: Some(1000), src_ip: None };
        state.send((&sender).into(), &transmit).expect("sent");
        let mut buffer = [0; 2000];
        for segment in contents.chunks(1000) {
            let length = receiver.recv(&mut buffer).expect("every segment arrives");
            assert_eq!(&buffer[..length], segment);
        }
        let carried = wan.readings().ab.carried;
        assert_eq!((carried.packets, carried.bytes), (10, 9_500 + 10 * 28));
        assert_eq!(wan.readings().ab.delivered, carried);
    }
}
