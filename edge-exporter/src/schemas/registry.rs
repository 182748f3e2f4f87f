//! The schema registry's REST interface, as Confluent, Karapace and Apicurio have it: `GET /schemas/ids/{id}`.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use codec::avro::Schema;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{Request, StatusCode, body::Bytes, header};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::mpsc,
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    rustls::pki_types::{InvalidDnsNameError, ServerName},
};

use super::{Answers, Meters};
use crate::{config::SchemaRegistry, repeats::Repeats};

/// Asks the registry, one id after the other.
pub(crate) struct Registry {
    settings: SchemaRegistry,
    /// For https.
    tls: Option<TlsConnector>,
    asked: mpsc::Receiver<u32>,
    answers: Arc<Answers>,
    meters: Arc<Meters>,
    /// Ids without an answer, and when they are asked for again.
    open: HashMap<u32, Retry>,
    said: Repeats,
}

#[derive(Debug, Clone, Copy)]
struct Retry {
    at: Instant,
    pause: Duration,
}

/// Why there is no schema for an id.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("it cannot be reached: {0}")]
    Connect(#[from] std::io::Error),
    #[error("its host can have no certificate: {0}")]
    Name(#[from] InvalidDnsNameError),
    #[error("it does not speak HTTP: {0}")]
    Http(#[from] hyper::Error),
    #[error("the request cannot be written: {0}")]
    Request(#[from] hyper::http::Error),
    #[error("no answer within {} s", PATIENCE.as_secs())]
    Late,
    #[error("it answers {0}")]
    Status(StatusCode),
    #[error("its answer cannot be read: {0}")]
    Answer(String),
    #[error("the schema is {0}, not AVRO")]
    Kind(String),
    #[error("the schema refers to others, which is not supported")]
    References,
    #[error(transparent)]
    Schema(#[from] codec::avro::SchemaError),
}

/// What the registry says of an id.
#[derive(Debug, Deserialize)]
struct Answer {
    schema: String,
    /// Absent for Avro.
    #[serde(default, rename = "schemaType")]
    kind: Option<String>,
    #[serde(default)]
    references: Vec<serde::de::IgnoredAny>,
}

impl Registry {
    pub(super) fn new(
        (settings, tls): (SchemaRegistry, Option<TlsConnector>),
        asked: mpsc::Receiver<u32>,
        answers: Arc<Answers>,
        meters: Arc<Meters>,
    ) -> Self {
        Self { settings, tls, asked, answers, meters, open: HashMap::new(), said: Repeats::default() }
    }

    /// Runs until no lane is left to ask.
    pub(crate) async fn run(mut self) {
        loop {
            let next = self.open.values().map(|retry| retry.at).min();
            let wait = next.map_or(IDLE, |at| at.saturating_duration_since(Instant::now()));
            match timeout(wait, self.asked.recv()).await {
                Ok(None) => return,
                Ok(Some(id)) if self.open.contains_key(&id) || self.answers.has(id) => {}
                Ok(Some(id)) => self.ask(id).await,
                Err(_) => {
                    let now = Instant::now();
                    let due = self.open.iter().find(|(_, retry)| retry.at <= now).map(|(id, _)| *id);
                    if let Some(id) = due {
                        self.ask(id).await;
                    }
                }
            }
        }
    }

    async fn ask(&mut self, id: u32) {
        let asked = timeout(PATIENCE, self.fetch(id)).await.unwrap_or(Err(Failure::Late));
        match asked {
            Ok(schema) => {
                tracing::info!(
                    id,
                    "the schema registry gave a schema: its records go by columns from now on"
                );
                self.open.remove(&id);
                self.answers.add(id, schema);
                self.meters.known.inc();
            }
            Err(failure) => {
                self.meters.failed.inc();
                self.put_off(id, &failure);
            }
        }
    }

    async fn fetch(&self, id: u32) -> Result<Schema, Failure> {
        let address = self.settings.host_and_port();
        let stream = TcpStream::connect(&address).await?;
        let Some(tls) = &self.tls else { return question(&self.settings, stream, id).await };
        let (host, _) = address.rsplit_once(':').expect("it has a port");
        let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())?;
        let stream = tls.connect(name, stream).await?;
        question(&self.settings, stream, id).await
    }

    /// Asks again later: soon if the registry may only be down, rarely if it has said no.
    fn put_off(&mut self, id: u32, failure: &Failure) {
        let is_final = match failure {
            Failure::Status(status) => status.is_client_error(),
            Failure::Kind(_) | Failure::References | Failure::Schema(_) => true,
            _ => false,
        };
        let before = self.open.get(&id).map_or(FIRST_PAUSE / 2, |retry| retry.pause);
        let pause = if is_final { LAST_PAUSE } else { (before * 2).min(LONG_PAUSE) };
        let now = Instant::now();
        if self.open.len() < MAX_OPEN || self.open.contains_key(&id) {
            self.open.insert(id, Retry { at: now + pause, pause });
        }
        // Not by id: what is no Avro can look like many ids.
        if let Some(times) = self.said.is_due(&failure.to_string(), now) {
            let url = &self.settings.url;
            tracing::warn!(
                id,
                times,
                "the schema registry {url} has no schema for us: {failure}; records of this id travel without one, asked \
                 again in {} s",
                pause.as_secs()
            );
        }
    }
}

async fn question<S>(settings: &SchemaRegistry, stream: S, id: u32) -> Result<Schema, Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (authority, path) = settings.address();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    let mut request = Request::get(format!("{path}/schemas/ids/{id}"))
        .header(header::HOST, authority)
        .header(header::ACCEPT, "application/vnd.schemaregistry.v1+json, application/json");
    if let (Some(user), Some(password)) = (&settings.user, &settings.password) {
        request = request.header(header::AUTHORIZATION, basic(user, password.expose()));
    }
    let response = sender.send_request(request.body(Empty::<Bytes>::new())?).await?;
    let status = response.status();
    if status != StatusCode::OK {
        driver.abort();
        return Err(Failure::Status(status));
    }
    let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
    driver.abort();
    let body = body.map_err(|error| Failure::Answer(error.to_string()))?.to_bytes();
    let answer: Answer = serde_json::from_slice(&body).map_err(|error| Failure::Answer(error.to_string()))?;
    match answer.kind {
        Some(kind) if kind != "AVRO" => return Err(Failure::Kind(kind)),
        _ if !answer.references.is_empty() => return Err(Failure::References),
        _ => {}
    }
    Ok(Schema::parse(&answer.schema)?)
}

/// The `Authorization` header of RFC 7617.
fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// How long one question may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Pauses before a question is asked again: at first, at most, and where the answer was no.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONG_PAUSE: Duration = Duration::from_secs(60);
const LAST_PAUSE: Duration = Duration::from_secs(600);
const IDLE: Duration = Duration::from_secs(3600);
/// Ids that are asked for again.
const MAX_OPEN: usize = 1024;
const MAX_ANSWER: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_written_as_http_has_them() {
        assert_eq!(basic("Aladdin", "open sesame"), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        assert_eq!((basic("a", ""), basic("a", "b")), ("Basic YTo=".to_owned(), "Basic YTpi".to_owned()));
    }
}
