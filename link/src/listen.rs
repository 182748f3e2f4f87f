//! The importer's end: accepting exporters.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use certs::Identity;
use quinn::{Endpoint, Incoming};
use tokio::{
    sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc},
    task::JoinHandle,
    time::timeout,
};

use crate::{
    CloseCode, Connection, Error, Settings,
    close::{Fault, fault, words},
    socket::{self, Granted},
};

/// Accepts exporters on one UDP address. Handshakes run side by side, bounded in number and time.
#[derive(Debug)]
pub struct Listener {
    endpoint: Endpoint,
    settings: Settings,
    address: SocketAddr,
    inbox: Mutex<mpsc::Receiver<Result<Connection, Refused>>>,
    unreported: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Listener {
    /// Binds `address` and begins to take handshakes.
    ///
    /// # Errors
    /// When the socket cannot be bound, the identity is not an importer's, or the settings contradict themselves.
    pub async fn bind(address: SocketAddr, identity: &Identity, settings: Settings) -> Result<Self, Error> {
        settings.check()?;
        let config = settings.server(identity)?;
        let (endpoint, granted) = socket::listening(address, settings.udp_buffer, config)?;
        let address = endpoint.local_addr().map_err(|source| Error::Socket { address, source })?;
        let (outbox, inbox) = mpsc::channel(settings.max_pending);
        let unreported = Arc::default();
        let door = Door {
            outbox,
            unreported: Arc::clone(&unreported),
            permits: Arc::new(Semaphore::new(settings.max_pending)),
            max_pending: settings.max_pending,
            retry_above: settings.retry_above,
            patience: settings.handshake,
            granted,
            send_window: settings.send_window,
        };
        let task = tokio::spawn(door.run(endpoint.clone()));
        Ok(Self { endpoint, settings, address, inbox: Mutex::new(inbox), unreported, task })
    }

    /// Where it listens; the port is the real one when port 0 was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The next exporter, or the next one that was refused and why; `None` once closed. Cancel-safe.
    pub async fn accept(&self) -> Option<Result<Connection, Refused>> {
        self.inbox.lock().await.recv().await
    }

    /// Refusals that [`Self::accept`] did not give because too many waited there: a flood.
    pub fn unreported_refusals(&self) -> u64 {
        self.unreported.load(Ordering::Relaxed)
    }

    /// Presents and checks with another identity from now on. Connections that live are not touched: look at each
    /// with [`Connection::check_peer`].
    ///
    /// # Errors
    /// When the identity is not an importer's. The old one stays.
    pub fn replace_identity(&self, identity: &Identity) -> Result<(), Error> {
        self.endpoint.set_server_config(Some(self.settings.server(identity)?));
        Ok(())
    }

    /// Takes no more connections, closes those that live with [`CloseCode::Done`] and waits, a moment at most, until
    /// the peers know.
    pub async fn close(&self) {
        self.endpoint.close(CloseCode::Done.into(), b"the importer stops");
        // A peer that is gone would be waited for three probe timeouts long.
        let _ = timeout(CLOSE_PATIENCE, self.endpoint.wait_idle()).await;
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // The task holds the endpoint; without it the socket goes with the last connection.
        self.task.abort();
    }
}

/// An exporter that did not come in.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refused {
    /// Where it is. A sender of one packet can claim any address; see `proven`.
    pub remote: SocketAddr,
    /// Whether it showed that it receives what is sent there.
    pub proven: bool,
    /// Why, in words.
    pub reason: String,
}

/// The task behind a listener.
struct Door {
    outbox: mpsc::Sender<Result<Connection, Refused>>,
    unreported: Arc<AtomicU64>,
    permits: Arc<Semaphore>,
    max_pending: usize,
    retry_above: usize,
    patience: Duration,
    granted: Granted,
    send_window: u32,
}

impl Door {
    async fn run(self, endpoint: Endpoint) {
        let door = Arc::new(self);
        while let Some(incoming) = endpoint.accept().await {
            let pending = door.max_pending - door.permits.available_permits();
            if pending >= door.retry_above && !incoming.remote_address_validated() {
                // An address that is not validated may always be asked to prove itself.
                let _ = incoming.retry();
                continue;
            }
            match Arc::clone(&door.permits).try_acquire_owned() {
                Ok(permit) => drop(tokio::spawn(Arc::clone(&door).handshake(incoming, permit))),
                Err(_) => {
                    let (remote, proven) = (incoming.remote_address(), incoming.remote_address_validated());
                    incoming.refuse();
                    let reason = format!("{} handshakes are pending already", door.max_pending);
                    door.report(Refused { remote, proven, reason });
                }
            }
        }
    }

    /// The permit is held until the connection was taken over: what waits in the inbox is bounded too.
    async fn handshake(self: Arc<Self>, incoming: Incoming, permit: OwnedSemaphorePermit) {
        let remote = incoming.remote_address();
        let validated = incoming.remote_address_validated();
        let outcome = timeout(self.patience, async { incoming.accept()?.await }).await;
        let refused = |proven, reason| Refused { remote, proven, reason };
        let refusal = match outcome {
            Ok(Ok(quic)) => match Connection::new(quic.clone(), None, self.granted, self.send_window, None) {
                Ok(connection) => {
                    // An error means that the listener is gone, and the connection goes with it.
                    let _ = self.outbox.send(Ok(connection)).await;
                    drop(permit);
                    return;
                }
                Err(error) => {
                    quic.close(CloseCode::WrongIdentity.into(), error.to_string().as_bytes());
                    refused(true, error.to_string())
                }
            },
            // A handshake that got as far as a judgement had answers from that address.
            Ok(Err(error)) => refused(validated || fault(&error) == Fault::Theirs, words(&error)),
            Err(_) => {
                let seconds = self.patience.as_secs_f32();
                refused(validated, format!("the handshake was not finished within {seconds} s"))
            }
        };
        drop(permit);
        self.report(refusal);
    }

    /// Refusals never crowd out connections, nor wait: half of the inbox is theirs.
    fn report(&self, refused: Refused) {
        let room = self.outbox.capacity() > self.outbox.max_capacity() / 2;
        if !room || self.outbox.try_send(Err(refused)).is_err() {
            self.unreported.fetch_add(1, Ordering::Relaxed);
        }
    }
}

const CLOSE_PATIENCE: Duration = Duration::from_secs(1);
