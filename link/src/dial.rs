//! The exporter's end: dialling an importer.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use certs::{Identity, SpiffeId};
use quinn::{ClientConfig, ConnectError, Endpoint};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    CloseCode, Connection, ControlRecv, ControlSend, Error, Rate, Settings,
    close::{Fault, fault, words},
    race::Word,
    socket::{self, Granted},
};

/// Dials one importer, wherever it is. Keeps nothing between attempts but the round trip it measured.
#[derive(Debug)]
pub struct Dialer {
    /// Swapped when the identity is reloaded.
    config: RwLock<ClientConfig>,
    expected: SpiffeId,
    settings: Settings,
    /// Of all connections together.
    rate: Rate,
    /// Smoothed round trip of the last connection, microseconds; 0 when there was none.
    rtt_us: AtomicU64,
}

impl Dialer {
    /// A dialler that believes only `expected_peer`.
    ///
    /// # Errors
    /// When the identity is not an exporter's or the settings contradict themselves.
    pub fn new(identity: &Identity, expected_peer: SpiffeId, settings: Settings) -> Result<Self, Error> {
        settings.check()?;
        let rate = Rate::new(settings.rate, settings.floor);
        let config = RwLock::new(settings.client(identity, &rate)?);
        Ok(Self { config, expected: expected_peer, settings, rate, rtt_us: 0.into() })
    }

    /// Dials with another identity from now on; connections that live are not touched.
    ///
    /// # Errors
    /// When the identity is not an exporter's. The old one stays.
    pub fn replace_identity(&self, identity: &Identity) -> Result<(), Error> {
        let config = self.settings.client(identity, &self.rate)?;
        *self.config.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = config;
        Ok(())
    }

    /// The rate of all its connections together; changes apply at once.
    pub fn rate(&self) -> &Rate {
        &self.rate
    }

    /// How long one attempt may take now: max(1 s, 3 RTT), or the setting while the round trip is not known.
    pub fn attempt_timeout(&self) -> Duration {
        match Duration::from_micros(self.rtt_us.load(Ordering::Relaxed)) {
            Duration::ZERO => self.settings.first_attempt,
            rtt => MIN_ATTEMPT.max(3 * rtt),
        }
    }

    /// Makes one attempt to reach the importer at `address`: `host:port`, the host a DNS name, an IPv4 address or an
    /// IPv6 address in brackets. All addresses of a name are tried, a new one each quarter of a second.
    ///
    /// When this returns `Ok`, the importer is who it should be and has taken our certificate; nothing was sent yet.
    /// Bounded by three times [`Self::attempt_timeout`], and in practice by one: the caller loops. Several calls may
    /// run at once; each uses a socket of its own, so a fresh attempt takes a fresh path through NATs and balancers.
    ///
    /// # Errors
    /// What is wrong, see [`DialError`]. With several addresses: the most telling one.
    pub async fn dial(&self, address: &str) -> Result<Connection, DialError> {
        Ok(self.reach(address, None).await?.0)
    }

    /// [`Self::dial`], and the control stream if something was to be said on it.
    pub(crate) async fn reach(&self, address: &str, word: Option<&Word>) -> Result<Reached, DialError> {
        let limit = self.attempt_timeout();
        let host = host_of(address)?;
        let mut addresses = resolve(address, limit).await?.into_iter();
        let config = self.config.read().unwrap_or_else(|poisoned| poisoned.into_inner()).clone();
        let attempt = |remote| Attempt {
            config: config.clone(),
            expected: self.expected.clone(),
            address: Arc::from(address),
            host: host.into(),
            remote,
            limit,
            udp_buffer: self.settings.udp_buffer,
            send_window: self.settings.send_window,
            rate: self.rate.clone(),
            word: word.cloned(),
        };
        let mut running = JoinSet::new();
        let mut failure: Option<DialError> = None;
        loop {
            let next = addresses.next();
            let more = next.is_some();
            if let Some(remote) = next {
                running.spawn(attempt(remote).run());
            }
            let finished = tokio::select! {
                finished = running.join_next() => finished,
                () = sleep(STAGGER), if more => continue,
            };
            match finished {
                Some(Ok(Ok(reached))) => {
                    self.remember(&reached.0);
                    return Ok(reached);
                }
                Some(Ok(Err(error))) => failure = Some(more_telling(failure, error)),
                Some(Err(join)) => std::panic::resume_unwind(join.into_panic()),
                None => return Err(failure.unwrap_or_else(|| no_address(address))),
            }
        }
    }

    fn remember(&self, connection: &Connection) {
        let rtt = u64::try_from(connection.stats().rtt.as_micros()).unwrap_or(u64::MAX);
        self.rtt_us.store(rtt.max(1), Ordering::Relaxed);
    }
}

/// Why an importer could not be reached, in words for its operator.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// The address is not `host:port`.
    #[error("`{address}` is not host:port: {why}")]
    Address {
        /// The address as given.
        address: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The name has no address.
    #[error("cannot find the address of {address}: {why}")]
    Dns {
        /// The address as given.
        address: String,
        /// What the resolver said.
        why: String,
    },
    /// Nobody answered.
    #[error(
        "no answer from {address} ({remote}) within {} ms: is the importer running, and does UDP pass both ways \
         through the firewalls?",
        after.as_millis()
    )]
    Timeout {
        /// The address as given.
        address: String,
        /// Where that is.
        remote: SocketAddr,
        /// How long was waited.
        after: Duration,
    },
    /// One side does not accept the other's certificate or TLS.
    #[error("{address} ({remote}): {why}")]
    Certificate {
        /// The address as given.
        address: String,
        /// Where that is.
        remote: SocketAddr,
        /// Whose certificate, and what is wrong with it.
        why: String,
    },
    /// Somebody else answered: a valid certificate, another name.
    #[error("{address} ({remote}) is not the importer of this link: expected {expected}, got {got}")]
    WrongIdentity {
        /// The address as given.
        address: String,
        /// Where that is.
        remote: SocketAddr,
        /// Who it should be.
        expected: SpiffeId,
        /// Who it is, or why it is nobody.
        got: String,
    },
    /// The importer does not want this connection.
    #[error("{address} ({remote}) refused the connection: {why}")]
    Refused {
        /// The address as given.
        address: String,
        /// Where that is.
        remote: SocketAddr,
        /// Its reason.
        why: String,
    },
    /// Something failed on this side or in QUIC.
    #[error("cannot dial {address}: {why}")]
    Failed {
        /// The address as given.
        address: String,
        /// What failed.
        why: String,
    },
}

impl DialError {
    /// Whether trying again soon can help without anybody changing anything.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Dns { .. } | Self::Timeout { .. } | Self::Refused { .. } | Self::Failed { .. })
    }
}

/// One attempt to reach one address.
struct Attempt {
    config: ClientConfig,
    expected: SpiffeId,
    address: Arc<str>,
    host: String,
    remote: SocketAddr,
    limit: Duration,
    udp_buffer: usize,
    send_window: u32,
    rate: Rate,
    word: Option<Word>,
}

/// A connection that stands, with its control stream if something was said on it.
pub(crate) type Reached = (Connection, Option<(ControlSend, ControlRecv)>);

impl Attempt {
    async fn run(self) -> Result<Reached, DialError> {
        let (endpoint, granted) = self.endpoint()?;
        let connecting = endpoint
            .connect_with(self.config.clone(), self.remote, &self.host)
            .map_err(|error| self.not_started(&error))?;
        let quic = match timeout(self.limit, connecting).await {
            Ok(Ok(quic)) => quic,
            Ok(Err(error)) => return Err(self.failed(&error)),
            Err(_) => return Err(self.timed_out()),
        };
        let connection = Connection::new(
            quic.clone(),
            Some(self.host.clone()),
            granted,
            self.send_window,
            Some(self.rate.clone()),
        );
        let got = match &connection {
            Ok(connection) if *connection.peer() == self.expected => None,
            Ok(connection) => Some(connection.peer().to_string()),
            Err(error) => Some(error.to_string()),
        };
        match (connection, got) {
            (Ok(connection), None) => self.greeted(connection).await,
            (_, got) => {
                quic.close(CloseCode::WrongIdentity.into(), b"not the importer expected here");
                let (address, remote) = (self.address.to_string(), self.remote);
                let got = got.unwrap_or_default();
                Err(DialError::WrongIdentity { address, remote, expected: self.expected, got })
            }
        }
    }

    /// Says what is to be said right behind the handshake, a round trip before the importer's word on it comes.
    async fn greeted(self, connection: Connection) -> Result<Reached, DialError> {
        let Some(word) = &self.word else {
            self.confirmed(&connection).await?;
            return Ok((connection, None));
        };
        let said = async {
            let won = word.take().await;
            let (mut send, recv) = connection.open_control().await?;
            send.send(&word.hello()).await?;
            Ok::<_, Error>((won, send, recv))
        };
        let (mut won, send, recv) = match timeout(self.limit, said).await {
            Ok(Ok(said)) => said,
            Ok(Err(error)) => {
                return Err(match connection.close_error() {
                    Some(closed) => self.failed(&closed),
                    None => DialError::Failed { address: self.address.to_string(), why: error.to_string() },
                });
            }
            Err(_) => return Err(self.timed_out()),
        };
        self.confirmed(&connection).await?;
        *won = true;
        Ok((connection, Some((send, recv))))
    }

    /// A dialler's handshake ends before the importer has looked at our certificate: wait for its word, one round
    /// trip, so that a refusal shows here and not in the middle of the first exchange.
    async fn confirmed(&self, connection: &Connection) -> Result<(), DialError> {
        let wait = async {
            while !connection.is_confirmed() {
                match connection.close_error() {
                    // It has read what we said, and answers: that is for whoever said it.
                    Some(quinn::ConnectionError::ApplicationClosed(_)) if self.word.is_some() => break,
                    Some(error) => return Err(self.failed(&error)),
                    None => sleep(CONFIRM_TICK).await,
                }
            }
            Ok(())
        };
        timeout(self.limit, wait).await.unwrap_or_else(|_| Err(self.timed_out()))
    }

    fn endpoint(&self) -> Result<(Endpoint, Granted), DialError> {
        let any = match self.remote {
            SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
        };
        socket::dialling(any, self.udp_buffer, &self.rate)
            .map_err(|error| DialError::Failed { address: self.address.to_string(), why: error.to_string() })
    }

    fn not_started(&self, error: &ConnectError) -> DialError {
        match error {
            ConnectError::InvalidServerName(_) => {
                DialError::Address { address: self.address.to_string(), why: NO_HOST }
            }
            error => DialError::Failed { address: self.address.to_string(), why: error.to_string() },
        }
    }

    fn failed(&self, error: &quinn::ConnectionError) -> DialError {
        let (address, remote, why) = (self.address.to_string(), self.remote, words(error));
        match fault(error) {
            Fault::Theirs | Fault::Ours => DialError::Certificate { address, remote, why },
            Fault::Refused => DialError::Refused { address, remote, why },
            Fault::Silence => self.timed_out(),
            Fault::Other => DialError::Failed { address, why },
        }
    }

    fn timed_out(&self) -> DialError {
        DialError::Timeout { address: self.address.to_string(), remote: self.remote, after: self.limit }
    }
}

/// Whether `address` is one that can be dialled; no name is looked up.
///
/// # Errors
/// [`DialError::Address`], with what is wrong.
pub fn check_address(address: &str) -> Result<(), DialError> {
    host_of(address).map(drop)
}

/// The host in `host:port`, brackets of IPv6 removed: the name that the importer's certificate must carry.
fn host_of(address: &str) -> Result<&str, DialError> {
    let wrong = |why| DialError::Address { address: address.into(), why };
    if address.contains("://") {
        return Err(wrong(
            "an importer is reached by QUIC, not at a web address: leave out what stands before `//`",
        ));
    }
    let (host, port) = address.rsplit_once(':').ok_or_else(|| wrong("the port is missing"))?;
    if address.contains(',') {
        return Err(wrong("each address is an entry of its own in the list"));
    }
    if port.starts_with('+') || !port.parse::<u16>().is_ok_and(|port| port > 0) {
        return Err(wrong("the port must be 1 to 65535"));
    }
    let is_nobody = |ip: IpAddr| {
        ip.is_unspecified() || ip.is_multicast() || matches!(ip, IpAddr::V4(ip) if ip.is_broadcast())
    };
    if host.trim_matches(['[', ']']).parse().is_ok_and(is_nobody) {
        return Err(wrong("nobody can be reached there"));
    }
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    match bracketed {
        Some(host) if host.parse::<Ipv6Addr>().is_ok() => Ok(host),
        Some(_) => Err(wrong("between brackets must be an IPv6 address")),
        None if host.is_empty() => Err(wrong("the host is missing")),
        None if host.contains(':') => {
            Err(wrong("an IPv6 address stands in brackets, as in [2001:db8::1]:7443"))
        }
        None if !certs::is_host(host) => Err(wrong(NO_HOST)),
        None => Ok(host),
    }
}

async fn resolve(address: &str, limit: Duration) -> Result<Vec<SocketAddr>, DialError> {
    let failed = |why: String| DialError::Dns { address: address.into(), why };
    let found = timeout(limit, tokio::net::lookup_host(address))
        .await
        .map_err(|_| failed(format!("the resolver did not answer within {} ms", limit.as_millis())))?
        .map_err(|error| failed(error.to_string()))?;
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for found in found.take(MAX_ADDRESSES) {
        if !addresses.contains(&found) {
            addresses.push(found);
        }
    }
    Ok(addresses)
}

/// Of two failures the one that tells more: silence tells least.
fn more_telling(before: Option<DialError>, now: DialError) -> DialError {
    match before {
        Some(before) if !matches!(before, DialError::Timeout { .. } | DialError::Failed { .. }) => before,
        _ => now,
    }
}

fn no_address(address: &str) -> DialError {
    DialError::Dns { address: address.into(), why: "the name has no address".into() }
}

const NO_HOST: &str = "the host is neither a DNS name nor an IP address";
const MIN_ATTEMPT: Duration = Duration::from_secs(1);
/// Until the next address of a name is tried alongside: RFC 8305, 5.
const STAGGER: Duration = Duration::from_millis(250);
const CONFIRM_TICK: Duration = Duration::from_millis(2);
/// Addresses of one name that are tried.
const MAX_ADDRESSES: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_of_an_address_is_what_the_certificate_must_name() {
        assert_eq!(host_of("importer.cloud.example:7443").unwrap(), "importer.cloud.example");
        assert_eq!(host_of("192.0.2.1:1").unwrap(), "192.0.2.1");
        assert_eq!(host_of("[2001:db8::1]:7443").unwrap(), "2001:db8::1");
        assert_eq!(host_of("Importer_1.cloud.example.:7443").unwrap(), "Importer_1.cloud.example.");
    }

    #[test]
    fn an_address_that_is_not_host_and_port_says_why() {
        for (address, why) in [
            ("importer", "the port is missing"),
            (":7443", "the host is missing"),
            ("importer:", "1 to 65535"),
            ("importer:0", "1 to 65535"),
            ("importer:70000", "1 to 65535"),
            ("importer:+7443", "1 to 65535"),
            ("a:7443,b:7443", "an entry of its own"),
            ("0.0.0.0:7443", "nobody"),
            ("[::]:7443", "nobody"),
            ("224.0.0.1:7443", "nobody"),
            ("999.1.1.1:7443", "neither a DNS name nor"),
            ("*:7443", "neither a DNS name nor"),
            ("user@importer:7443", "neither a DNS name nor"),
            ("a..b:7443", "neither a DNS name nor"),
            ("2001:db8::1:7443", "in brackets"),
            ("[importer]:7443", "must be an IPv6 address"),
            ("an importer:7443", "neither a DNS name nor"),
            (" importer:7443", "neither a DNS name nor"),
            ("importer/path:7443", "neither a DNS name nor"),
            ("https://importer:7443", "not at a web address"),
        ] {
            let error = host_of(address).unwrap_err().to_string();
            assert!(error.contains(why), "{address}: {error}");
        }
    }
}
