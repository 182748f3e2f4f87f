//! A stand-in for the long link: a UDP relay on loopback that delays, loses, slows down and cuts. Needs no rights.
//!
//! ```text
//! dialer --> relay.address() [uplink: loss, rate, delay] --> target
//!        <--                 [downlink: the same]        <--
//! ```
//!
//! ```no_run
//! use std::time::Duration;
//! use longhaul_lab::relay::{Conditions, Relay};
//!
//! let importer = "127.0.0.1:7443".parse().unwrap();
//! let long_and_lossy = Conditions {
//!     delay: Duration::from_millis(75),
//!     loss: 0.01,
//!     bits_per_second: Some(50_000_000),
//!     ..Conditions::default()
//! };
//! let relay = Relay::start(importer, long_and_lossy, 42).unwrap();
//! relay.cut(Duration::from_secs(5));
//! ```
//!
//! Both directions are treated alike and shared by all clients, as a cable is. Each loses packets by a random sequence of
//! its own, made from the seed: the n-th packet of a direction is lost or not whatever the other direction does. Delay
//! is one way and precise to about a millisecond. For measurements against TCP use an emulator of the whole path.

mod direction;

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, UdpSocket as StdUdpSocket};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::net::UdpSocket;
use tokio::sync::{mpsc, oneshot};

use direction::{Direction, Fate};

/// Packets on their way in one direction; beyond that they are lost, as in any router.
const MAX_ON_THE_WAY: usize = 65_536;
const MAX_PACKET: usize = 65_536;
/// Asked of the kernel, which may grant less.
const SOCKET_BUFFER_BYTES: usize = 4 << 20;

/// What the path does to packets. `Default`: nothing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Conditions {
    /// One way.
    pub delay: Duration,
    /// Share of packets that is lost, from 0 to 1.
    pub loss: f64,
    /// Bottleneck, in bits per second with 28 bytes of UDP and IP header for each packet.
    pub bits_per_second: Option<u64>,
    /// What may wait in front of the bottleneck; packets that do not fit are lost. Only with a rate.
    pub queue_bytes: u64,
}

impl Default for Conditions {
    fn default() -> Self {
        Self { delay: Duration::ZERO, loss: 0.0, bits_per_second: None, queue_bytes: 1 << 20 }
    }
}

/// What one direction did so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Packets that were passed on.
    pub passed: u64,
    /// Bytes in them, without UDP and IP headers.
    pub passed_bytes: u64,
    /// Packets lost by chance.
    pub lost: u64,
    /// Packets lost because the queue was full.
    pub overflowed: u64,
    /// Packets lost because the link was cut.
    pub cut: u64,
}

/// A running relay; gone when dropped.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    target: SocketAddr,
    conditions: Conditions,
    silent: bool,
    cut_until: Option<Instant>,
    up: Direction,
    down: Direction,
}

/// Which way a packet goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Up,
    Down,
}

struct Packet {
    due: Instant,
    bytes: Vec<u8>,
    from: Arc<UdpSocket>,
    to: SocketAddr,
}

impl Relay {
    /// Starts a relay to `target` on a free port of loopback.
    pub fn start(target: SocketAddr, conditions: Conditions, seed: u64) -> io::Result<Self> {
        let front = bind()?;
        let address = front.local_addr()?;
        let state = State {
            target,
            conditions,
            silent: false,
            cut_until: None,
            up: Direction::new(seed),
            down: Direction::new(seed.wrapping_add(1)),
        };
        let shared = Arc::new(Shared { state: Mutex::new(state) });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let running = shared.clone();
        let thread = std::thread::Builder::new().name("lab-relay".to_owned()).spawn(move || {
            // An error of the socket ends the relay; its clients see a dead link, which tests of it notice.
            runtime.block_on(async {
                tokio::select! {
                    _ = stopped => {}
                    _ = run(running, front) => {}
                }
            });
        })?;
        Ok(Self { address, shared, stop: Some(stop), thread: Some(thread) })
    }

    /// Where clients send to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on the path is so; packets on their way are not touched.
    pub fn set_conditions(&self, conditions: Conditions) {
        self.shared.lock().conditions = conditions;
    }

    /// How the path is now.
    pub fn conditions(&self) -> Conditions {
        self.shared.lock().conditions
    }

    /// Nothing passes for so long; packets on their way still arrive.
    pub fn cut(&self, duration: Duration) {
        self.shared.lock().cut_until = Some(Instant::now() + duration);
    }

    /// Nothing passes until [`Relay::restore`].
    pub fn silence(&self) {
        self.shared.lock().silent = true;
    }

    /// Ends a silence and a cut.
    pub fn restore(&self) {
        let mut state = self.shared.lock();
        state.silent = false;
        state.cut_until = None;
    }

    /// From now on packets go there; what the old target still sends is lost.
    pub fn set_target(&self, target: SocketAddr) {
        self.shared.lock().target = target;
    }

    /// What became of packets from the clients to the target.
    pub fn up(&self) -> Counts {
        self.shared.lock().up.counts()
    }

    /// What became of packets from the target to the clients.
    pub fn down(&self) -> Counts {
        self.shared.lock().down.counts()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When a packet that arrives now leaves; `None` when it does not.
    fn due(&self, way: Way, bytes: usize) -> Option<Instant> {
        let now = Instant::now();
        let mut state = self.lock();
        let cut = state.silent || state.cut_until.is_some_and(|until| now < until);
        let conditions = state.conditions;
        let direction = match way {
            Way::Up => &mut state.up,
            Way::Down => &mut state.down,
        };
        match direction.fate(&conditions, cut, bytes, now) {
            Fate::LeavesAt(due) => Some(due),
            Fate::Lost => None,
        }
    }

    fn target(&self) -> SocketAddr {
        self.lock().target
    }
}

fn bind() -> io::Result<StdUdpSocket> {
    let socket = StdUdpSocket::bind("127.0.0.1:0")?;
    socket.set_nonblocking(true)?;
    let options = socket2::SockRef::from(&socket);
    options.set_recv_buffer_size(SOCKET_BUFFER_BYTES)?;
    options.set_send_buffer_size(SOCKET_BUFFER_BYTES)?;
    Ok(socket)
}

/// Takes what clients send; each client has a socket of its own towards the target.
async fn run(shared: Arc<Shared>, front: StdUdpSocket) -> io::Result<()> {
    let front = Arc::new(UdpSocket::from_std(front)?);
    let up = sender();
    let down = sender();
    let mut clients: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
    let mut buffer = vec![0; MAX_PACKET];
    loop {
        // On Linux a UDP socket reports that an earlier packet found nobody; the next one may.
        let Ok((length, client)) = front.recv_from(&mut buffer).await else { continue };
        let back = match clients.get(&client) {
            Some(back) => back.clone(),
            None => {
                let back = Arc::new(UdpSocket::from_std(bind()?)?);
                clients.insert(client, back.clone());
                tokio::spawn(answers(shared.clone(), back.clone(), front.clone(), client, down.clone()));
                back
            }
        };
        if let Some(due) = shared.due(Way::Up, length) {
            let packet = Packet { due, bytes: buffer[..length].to_vec(), from: back, to: shared.target() };
            // A full channel is a full router.
            drop(up.try_send(packet));
        }
    }
}

/// Takes what the target sends to one client.
async fn answers(
    shared: Arc<Shared>,
    back: Arc<UdpSocket>,
    front: Arc<UdpSocket>,
    client: SocketAddr,
    down: mpsc::Sender<Packet>,
) {
    let mut buffer = vec![0; MAX_PACKET];
    loop {
        let Ok((length, from)) = back.recv_from(&mut buffer).await else { continue };
        if from != shared.target() {
            continue;
        }
        if let Some(due) = shared.due(Way::Down, length) {
            let packet = Packet { due, bytes: buffer[..length].to_vec(), from: front.clone(), to: client };
            drop(down.try_send(packet));
        }
    }
}

/// Sends packets when they are due, in the order they came: the path does not reorder.
fn sender() -> mpsc::Sender<Packet> {
    let (sender, mut receiver) = mpsc::channel::<Packet>(MAX_ON_THE_WAY);
    tokio::spawn(async move {
        while let Some(packet) = receiver.recv().await {
            tokio::time::sleep_until(packet.due.into()).await;
            // Nobody there to receive it: the packet is lost, as on any network.
            drop(packet.from.send_to(&packet.bytes, packet.to).await);
        }
    });
    sender
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A target that sends everything back, and a client behind the relay.
    fn echo(conditions: Conditions, seed: u64) -> (Relay, StdUdpSocket) {
        let relay = Relay::start(echo_server(b""), conditions, seed).unwrap();
        let client = StdUdpSocket::bind("127.0.0.1:0").unwrap();
        client.connect(relay.address()).unwrap();
        client.set_read_timeout(Some(Duration::from_millis(400))).unwrap();
        (relay, client)
    }

    fn echo_server(prefix: &'static [u8]) -> SocketAddr {
        let server = StdUdpSocket::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        std::thread::spawn(move || {
            let mut buffer = [0; 2048];
            while let Ok((length, from)) = server.recv_from(&mut buffer) {
                let answer = [prefix, &buffer[..length]].concat();
                server.send_to(&answer, from).unwrap();
            }
        });
        address
    }

    fn ask(client: &StdUdpSocket, text: &[u8]) -> Option<Vec<u8>> {
        let mut buffer = [0; 2048];
        client.send(text).unwrap();
        client.recv(&mut buffer).ok().map(|length| buffer[..length].to_vec())
    }

    #[test]
    fn packets_pass_both_ways_after_the_delay() {
        let conditions = Conditions { delay: Duration::from_millis(60), ..Conditions::default() };
        let (relay, client) = echo(conditions, 1);
        let started = Instant::now();
        assert_eq!(ask(&client, b"hello").unwrap(), b"hello");
        assert!(started.elapsed() >= Duration::from_millis(120));
        assert_eq!((relay.up().passed, relay.down().passed_bytes), (1, 5));
    }

    #[test]
    fn a_silent_relay_passes_nothing_until_it_is_restored() {
        let (relay, client) = echo(Conditions::default(), 1);
        assert!(ask(&client, b"1").is_some());
        relay.silence();
        assert!(ask(&client, b"2").is_none());
        relay.restore();
        assert_eq!(ask(&client, b"3").unwrap(), b"3");
        assert_eq!(relay.up().cut, 1);
    }

    #[test]
    fn a_cut_ends_by_itself() {
        let (relay, client) = echo(Conditions::default(), 1);
        relay.cut(Duration::from_millis(500));
        assert!(ask(&client, b"1").is_none());
        std::thread::sleep(Duration::from_millis(200));
        assert_eq!(ask(&client, b"2").unwrap(), b"2");
    }

    #[test]
    fn another_target_answers_after_the_change() {
        let (relay, client) = echo(Conditions::default(), 1);
        assert_eq!(ask(&client, b"1").unwrap(), b"1");
        relay.set_target(echo_server(b"other "));
        assert_eq!(ask(&client, b"2").unwrap(), b"other 2");
    }

    #[test]
    fn two_clients_get_their_own_answers() {
        let (relay, first) = echo(Conditions::default(), 1);
        let second = StdUdpSocket::bind("127.0.0.1:0").unwrap();
        second.connect(relay.address()).unwrap();
        second.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        first.send(b"first").unwrap();
        assert_eq!(ask(&second, b"second").unwrap(), b"second");
        let mut buffer = [0; 16];
        let length = first.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"first");
    }
}
