//! A TCP proxy between clients and brokers that understands request headers and can delay, hold, drop and cut.
//!
//! ```text
//! client --> 127.0.0.1:p1 [proxy] --> 127.0.0.1:q1 listener PROXIED of node 1, advertised as 127.0.0.1:p1
//! ```
//!
//! Brokers advertise the proxy's addresses on a listener of their own, so nothing in the stream is changed and a
//! client that came by the proxy stays behind it:
//!
//! ```no_run
//! use std::time::Duration;
//! use longhaul_lab::kafka::{Cluster, ClusterOptions, require_kafka};
//! use longhaul_lab::proxy::Proxy;
//! use longhaul_lab::wire::ApiKey;
//!
//! let Some(installation) = require_kafka("held requests") else { return };
//! let proxy = Proxy::bind(1).unwrap();
//! let cluster = Cluster::start(&installation, ClusterOptions::default().behind(proxy.addresses())).unwrap();
//! proxy.forward_to(cluster.proxied_addresses());
//! let held = proxy.hold_next(ApiKey::EndTxn);
//! // ... a client of proxy.bootstrap() commits on another thread ...
//! assert!(held.wait(Duration::from_secs(10)));
//! held.cut_client();
//! let code = held.release().unwrap();
//! ```

mod held;
mod inspect;
mod pump;
mod rules;

pub use held::Held;
pub use rules::{Action, Match, Times};

use std::collections::HashMap;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::net::Acceptor;
use crate::ports::Port;
use crate::wire::{ApiKey, RequestHeader};
use held::Hold;
use rules::{Rules, Verdict};

/// The proxy in front of the nodes of one cluster. Dropped: every connection is cut and no new one is taken.
#[derive(Debug)]
pub struct Proxy {
    shared: Arc<Shared>,
    ports: Vec<Port>,
    _acceptors: Vec<Acceptor>,
}

/// A rule in force; it stays so until [`Rule::remove`], dropped or not.
#[derive(Debug)]
pub struct Rule {
    id: u64,
    shared: Arc<Shared>,
}

/// What all threads of a proxy share.
#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Told when a connection may have to go on or to end.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    targets: Vec<String>,
    blocked: bool,
    closed: bool,
    rules: Rules,
    counts: HashMap<ApiKey, u64>,
    next_connection: u64,
    /// Both sockets of a connection, or the client's alone while the broker is not yet connected.
    connections: HashMap<u64, Vec<TcpStream>>,
}

impl Proxy {
    /// Listens on one port of loopback for each of `nodes` brokers; connections wait until [`Proxy::forward_to`].
    pub fn bind(nodes: usize) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let (mut ports, mut acceptors) = (Vec::new(), Vec::new());
        for node in 0..nodes {
            let (port, listener) = Port::listen()?;
            let shared = shared.clone();
            acceptors.push(Acceptor::spawn(listener, move |client| pump::serve(&shared, node, client))?);
            ports.push(port);
        }
        Ok(Self { shared, ports, _acceptors: acceptors })
    }

    /// Where clients connect, one address per node.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.ports.iter().map(Port::address).collect()
    }

    /// [`Proxy::addresses`] as `bootstrap.servers`.
    pub fn bootstrap(&self) -> String {
        self.ports.iter().map(|port| port.address().to_string()).collect::<Vec<_>>().join(",")
    }

    /// Where the brokers listen (`host:port`), in the order of [`Proxy::addresses`].
    pub fn forward_to(&self, targets: Vec<String>) {
        assert_eq!(targets.len(), self.ports.len(), "a proxy forwards to as many brokers as it has ports");
        self.shared.lock().targets = targets;
        self.shared.changed.notify_all();
    }

    /// Catches the next request that fits and keeps it until it is released.
    pub fn hold_next(&self, matches: impl Into<Match>) -> Held {
        let hold = Arc::new(Hold::default());
        let rule = self.shared.lock().rules.add(matches.into(), Verdict::Hold(hold.clone()), Times::Next(1));
        Held { hold, rule, shared: self.shared.clone(), kept: Mutex::default() }
    }

    /// Treats requests that fit so, as often as `times` says. Older rules come first.
    pub fn on(&self, matches: impl Into<Match>, action: Action, times: Times) -> Rule {
        let id = self.shared.lock().rules.add(matches.into(), Verdict::Act(action), times);
        Rule { id, shared: self.shared.clone() }
    }

    /// Ends all rules; requests in hand stay there.
    pub fn clear_rules(&self) {
        self.shared.lock().rules.clear();
    }

    /// From now on nothing passes in either direction and connections stay open, as behind a dead switch.
    pub fn block(&self) {
        self.shared.lock().blocked = true;
    }

    /// Everything that waited passes.
    pub fn unblock(&self) {
        self.shared.lock().blocked = false;
        self.shared.changed.notify_all();
    }

    /// Cuts every connection there is; new ones are served.
    pub fn cut_all(&self) {
        let connections = std::mem::take(&mut self.shared.lock().connections);
        connections.values().for_each(|sockets| shut(sockets));
        self.shared.changed.notify_all();
    }

    /// How many requests of this kind came so far, whatever was done to them.
    pub fn count(&self, api_key: ApiKey) -> u64 {
        self.shared.lock().counts.get(&api_key).copied().unwrap_or(0)
    }

    /// Counts from zero again.
    pub fn reset_counts(&self) {
        self.shared.lock().counts.clear();
    }

    /// Connections of clients now.
    pub fn connections(&self) -> usize {
        self.shared.lock().connections.len()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.cut_all();
    }
}

impl Rule {
    /// How often it was applied; none once removed.
    pub fn hits(&self) -> u64 {
        self.shared.lock().rules.hits(self.id).unwrap_or(0)
    }

    /// Ends the rule.
    pub fn remove(self) {
        self.shared.remove_rule(self.id);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a new client connection in.
    fn open(&self, client: &TcpStream) -> io::Result<u64> {
        let client = client.try_clone()?;
        let mut state = self.lock();
        if state.closed {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        state.next_connection += 1;
        let id = state.next_connection;
        state.connections.insert(id, vec![client]);
        Ok(id)
    }

    /// Adds the broker's side, unless the connection was cut meanwhile.
    fn attach(&self, id: u64, broker: &TcpStream) -> io::Result<()> {
        let broker = broker.try_clone()?;
        let mut state = self.lock();
        state.connections.get_mut(&id).ok_or(io::ErrorKind::ConnectionAborted)?.push(broker);
        Ok(())
    }

    fn is_open(&self, id: u64) -> bool {
        self.lock().connections.contains_key(&id)
    }

    fn close(&self, id: u64) {
        self.lock().connections.remove(&id);
    }

    fn cut(&self, id: u64) {
        if let Some(sockets) = self.lock().connections.remove(&id) {
            shut(&sockets);
        }
        self.changed.notify_all();
    }

    /// Waits while nothing may pass; an error when the connection was cut.
    fn pass(&self, id: u64) -> io::Result<()> {
        let mut state = self.lock();
        while state.connections.contains_key(&id) && (state.blocked || state.targets.is_empty()) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.connections.contains_key(&id) {
            Ok(())
        } else {
            Err(io::ErrorKind::ConnectionAborted.into())
        }
    }

    fn target(&self, node: usize) -> String {
        self.lock().targets.get(node).cloned().unwrap_or_default()
    }

    fn judge(&self, header: &RequestHeader, frame: &[u8]) -> Verdict {
        let mut state = self.lock();
        *state.counts.entry(header.api_key).or_default() += 1;
        state.rules.judge(header, frame)
    }

    fn remove_rule(&self, id: u64) {
        self.lock().rules.remove(id);
    }
}

/// A socket that is closed already is what was wanted.
fn shut(sockets: &[TcpStream]) {
    for socket in sockets {
        drop(socket.shutdown(Shutdown::Both));
    }
}

#[cfg(test)]
mod tests;
