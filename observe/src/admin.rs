//! The admin HTTP endpoint: what a scraper, a load balancer and an operator ask.
//!
//! | path | answer |
//! |---|---|
//! | `/metrics` | [`Metrics::encode`] |
//! | `/healthz` | 200 while the process answers |
//! | `/readyz` | 200 `{"ready":true}`, or 503 with what is not ready |
//! | `/api/status` | JSON from the engine |
//!
//! Read-only (GET and HEAD), without authentication: it belongs on a loopback or management address. At most
//! [`MAX_CONNECTIONS`] connections are served at a time, others wait in the listen queue; each gets
//! [`HEADER_TIMEOUT`] for its request and [`CONNECTION_TIMEOUT`] in all, and one request.

use std::{convert::Infallible, fmt, io, net::SocketAddr, sync::Arc, time::Duration};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinHandle,
    time::timeout,
};

use crate::metrics::{self, Metrics};

/// What the endpoint asks the engine. The closures must not block.
#[derive(Clone)]
pub struct Endpoints {
    /// For `/metrics`.
    pub metrics: Arc<Metrics>,
    /// For `/readyz`.
    pub readiness: Arc<dyn Fn() -> Readiness + Send + Sync>,
    /// For `/api/status`.
    pub status: Arc<dyn Fn() -> serde_json::Value + Send + Sync>,
}

/// Whether the engine does its work right now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Readiness {
    /// What is not ready, one short sentence each; empty when everything is.
    pub missing: Vec<String>,
}

/// The running endpoint. Dropping it stops it without waiting.
#[derive(Debug)]
pub struct Admin {
    local_addr: SocketAddr,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// Why the endpoint could not be started.
#[derive(Debug, thiserror::Error)]
#[error("the admin endpoint cannot listen on {listen}: {source}; choose another [admin] listen address")]
pub struct AdminError {
    listen: SocketAddr,
    source: io::Error,
}

/// An address that nobody else has any more, and that does not answer yet: a program that cannot have it ends before it
/// talks to anybody.
#[derive(Debug)]
pub struct Bound {
    listener: TcpListener,
    local_addr: SocketAddr,
}

/// Takes the address `listen`.
///
/// # Errors
/// When it cannot be bound.
pub async fn bind(listen: SocketAddr) -> Result<Bound, AdminError> {
    let failed = |source| AdminError { listen, source };
    let listener = TcpListener::bind(listen).await.map_err(failed)?;
    let local_addr = listener.local_addr().map_err(failed)?;
    Ok(Bound { listener, local_addr })
}

impl Bound {
    /// Answers in the background. Call it within a tokio runtime.
    pub fn serve(self, endpoints: Endpoints) -> Admin {
        let Self { listener, local_addr } = self;
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(accept(listener, endpoints, stopped));
        Admin { local_addr, stop, task }
    }
}

impl Admin {
    /// Where it listens, with the port that was chosen for port 0.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Stops listening and waits until the requests in hand are answered, [`CONNECTION_TIMEOUT`] at most.
    pub async fn shutdown(self) {
        self.stop.send_replace(true);
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the admin endpoint failed");
        }
    }
}

impl Readiness {
    /// Everything is ready.
    pub fn ready() -> Self {
        Self::default()
    }

    /// `what` is not ready.
    pub fn missing(what: impl Into<String>) -> Self {
        Self { missing: vec![what.into()] }
    }

    /// Adds `what` when it is not `ready`.
    #[must_use]
    pub fn and(mut self, ready: bool, what: impl Into<String>) -> Self {
        if !ready {
            self.missing.push(what.into());
        }
        self
    }

    /// Whether nothing is missing.
    pub fn is_ready(&self) -> bool {
        self.missing.is_empty()
    }
}

impl fmt::Debug for Endpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoints").finish_non_exhaustive()
    }
}

async fn accept(listener: TcpListener, endpoints: Endpoints, stopped: watch::Receiver<bool>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut stop = stopped.clone();
    loop {
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await.expect("the semaphore is never closed");
            (listener.accept().await, place)
        };
        let (accepted, place) = tokio::select! {
            next = next => next,
            // An error means that the handle was dropped.
            _ = stop.wait_for(|stop| *stop) => break,
        };
        match accepted {
            Ok((stream, _)) => drop(tokio::spawn(answer(stream, endpoints.clone(), stopped.clone(), place))),
            Err(error) => {
                tracing::warn!(%error, "the admin endpoint cannot accept a connection");
                // Out of file descriptors, most likely: give others time to close some.
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    let all = u32::try_from(MAX_CONNECTIONS).expect("a small constant");
    let _answered = places.acquire_many(all).await;
}

async fn answer(
    stream: TcpStream,
    endpoints: Endpoints,
    mut stop: watch::Receiver<bool>,
    place: OwnedSemaphorePermit,
) {
    let service = service_fn(|request: Request<Incoming>| {
        let response = respond(&request, &endpoints);
        async move { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_REQUEST)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let whole = timeout(CONNECTION_TIMEOUT, async {
        tokio::select! {
            done = connection.as_mut() => return done,
            _ = stop.wait_for(|stop| *stop) => connection.as_mut().graceful_shutdown(),
        }
        connection.await
    });
    match whole.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "an admin connection failed"),
        Err(_) => tracing::debug!("an admin connection was too slow"),
    }
    drop(place);
}

fn respond(request: &Request<Incoming>, endpoints: &Endpoints) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "this endpoint is read-only: use GET\n");
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    match request.uri().path() {
        "/metrics" => body(StatusCode::OK, metrics::CONTENT_TYPE, endpoints.metrics.encode()),
        "/healthz" => text(StatusCode::OK, "ok\n"),
        "/readyz" => ready(&(endpoints.readiness)()),
        "/api/status" => json(StatusCode::OK, &(endpoints.status)()),
        "/" => text(StatusCode::OK, INDEX),
        _ => text(StatusCode::NOT_FOUND, INDEX),
    }
}

fn ready(readiness: &Readiness) -> Response<Full<Bytes>> {
    let code = if readiness.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    json(code, &serde_json::json!({ "ready": readiness.is_ready(), "missing": readiness.missing }))
}

fn json(code: StatusCode, value: &impl Serialize) -> Response<Full<Bytes>> {
    let value = serde_json::to_string(value).expect("a JSON value always prints");
    body(code, "application/json", value + "\n")
}

fn text(code: StatusCode, words: &'static str) -> Response<Full<Bytes>> {
    body(code, "text/plain; charset=utf-8", words)
}

fn body(code: StatusCode, content_type: &'static str, content: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(content.into()));
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Connections served at a time.
pub const MAX_CONNECTIONS: usize = 32;
/// Time for a client to send its request.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for a whole connection.
pub const CONNECTION_TIMEOUT: Duration = Duration::from_secs(20);

/// Most bytes of a request line with its headers.
const MAX_REQUEST: usize = 16 << 10;
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
const INDEX: &str = "longhaul: /metrics /healthz /readyz /api/status\n";
