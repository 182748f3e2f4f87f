//! A UDP relay that can fall silent in either direction and take its time.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    net::UdpSocket,
    sync::mpsc::{UnboundedSender, unbounded_channel},
    task::JoinHandle,
    time::{Instant, sleep_until},
};

use crate::world::local;

pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    switches: Arc<Switches>,
    task: JoinHandle<()>,
}

struct Switches {
    forward: AtomicBool,
    back: AtomicBool,
    forwarded: AtomicU64,
    delay: Duration,
}

impl Relay {
    /// Relays to `target`, each packet after `delay`.
    pub(crate) async fn to(target: SocketAddr, delay: Duration) -> Self {
        let socket = Arc::new(UdpSocket::bind(local()).await.unwrap());
        let address = socket.local_addr().unwrap();
        let switches =
            Arc::new(Switches { forward: true.into(), back: true.into(), forwarded: 0.into(), delay });
        let task = tokio::spawn(forward(socket, target, switches.clone()));
        Self { address, switches, task }
    }

    /// Drops everything, both ways.
    pub(crate) fn cut(&self) {
        self.switches.forward.store(false, Ordering::SeqCst);
        self.switches.back.store(false, Ordering::SeqCst);
    }

    /// Drops what comes back from the target.
    pub(crate) fn mute_target(&self) {
        self.switches.back.store(false, Ordering::SeqCst);
    }

    pub(crate) fn restore(&self) {
        self.switches.forward.store(true, Ordering::SeqCst);
        self.switches.back.store(true, Ordering::SeqCst);
    }

    /// Packets that reached the target.
    pub(crate) fn forwarded(&self) -> u64 {
        self.switches.forwarded.load(Ordering::SeqCst)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn forward(socket: Arc<UdpSocket>, target: SocketAddr, switches: Arc<Switches>) {
    let mut upstream = HashMap::new();
    let mut buffer = vec![0; 65536];
    loop {
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else { continue };
        let line = match upstream.entry(from) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                let out = Arc::new(UdpSocket::bind(local()).await.unwrap());
                out.connect(target).await.unwrap();
                tokio::spawn(back(out.clone(), socket.clone(), from, switches.clone()));
                new.insert(line(switches.delay, out, target))
            }
        };
        if switches.forward.load(Ordering::SeqCst) {
            switches.forwarded.fetch_add(1, Ordering::SeqCst);
            let _ = line.send((Instant::now(), buffer[..length].to_vec()));
        }
    }
}

async fn back(out: Arc<UdpSocket>, socket: Arc<UdpSocket>, to: SocketAddr, switches: Arc<Switches>) {
    let line = line(switches.delay, socket, to);
    let mut buffer = vec![0; 65536];
    loop {
        // An error is an ICMP message about a packet sent before: the target may be back later.
        let Ok(length) = out.recv(&mut buffer).await else { continue };
        if switches.back.load(Ordering::SeqCst) {
            let _ = line.send((Instant::now(), buffer[..length].to_vec()));
        }
    }
}

/// Takes packets with the time they came, and sends each `to` when its delay has passed, in the order they came: a
/// handshake that is overtaken by what follows it costs QUIC a second.
fn line(delay: Duration, socket: Arc<UdpSocket>, to: SocketAddr) -> UnboundedSender<(Instant, Vec<u8>)> {
    let (sender, mut packets) = unbounded_channel::<(Instant, Vec<u8>)>();
    tokio::spawn(async move {
        while let Some((came, packet)) = packets.recv().await {
            sleep_until(came + delay).await;
            drop(socket.send_to(&packet, to).await);
        }
    });
    sender
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_relay_keeps_the_order() {
    let (target, sender) = (UdpSocket::bind(local()).await.unwrap(), UdpSocket::bind(local()).await.unwrap());
    let relay = Relay::to(target.local_addr().unwrap(), Duration::from_millis(20)).await;
    for packet in 0..200_u8 {
        sender.send_to(&[packet], relay.address).await.unwrap();
    }
    let mut buffer = [0; 8];
    for packet in 0..200_u8 {
        let (_, back) = target.recv_from(&mut buffer).await.unwrap();
        assert_eq!(buffer[0], packet);
        target.send_to(&[packet], back).await.unwrap();
    }
    for packet in 0..200_u8 {
        sender.recv_from(&mut buffer).await.unwrap();
        assert_eq!(buffer[0], packet);
    }
}
