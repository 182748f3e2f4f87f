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

use tokio::{net::UdpSocket, task::JoinHandle, time::sleep};

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
    let mut upstream: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
    let mut buffer = vec![0; 65536];
    loop {
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else { continue };
        let out = match upstream.entry(from) {
            Entry::Occupied(known) => known.get().clone(),
            Entry::Vacant(new) => {
                let out = Arc::new(UdpSocket::bind(local()).await.unwrap());
                out.connect(target).await.unwrap();
                tokio::spawn(back(out.clone(), socket.clone(), from, switches.clone()));
                new.insert(out).clone()
            }
        };
        if switches.forward.load(Ordering::SeqCst) {
            switches.forwarded.fetch_add(1, Ordering::SeqCst);
            let packet = buffer[..length].to_vec();
            later(switches.delay, async move { drop(out.send(&packet).await) }).await;
        }
    }
}

async fn back(out: Arc<UdpSocket>, socket: Arc<UdpSocket>, to: SocketAddr, switches: Arc<Switches>) {
    let mut buffer = vec![0; 65536];
    loop {
        // An error is an ICMP message about a packet sent before: the target may be back later.
        let Ok(length) = out.recv(&mut buffer).await else { continue };
        if switches.back.load(Ordering::SeqCst) {
            let (packet, socket) = (buffer[..length].to_vec(), socket.clone());
            later(switches.delay, async move { drop(socket.send_to(&packet, to).await) }).await;
        }
    }
}

async fn later(delay: Duration, work: impl Future<Output = ()> + Send + 'static) {
    if delay.is_zero() {
        work.await;
    } else {
        tokio::spawn(async move {
            sleep(delay).await;
            work.await;
        });
    }
}
