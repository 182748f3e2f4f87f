//! What an exporter says about itself: `/api/status`, and [`Handle::status`](crate::engine::Handle::status).

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use link::{Connection, PathMeter, PathStatus, Rate, SentStatus};
use proto::ids::SessionId;
use serde::Serialize;
use tokio::sync::Notify;

use crate::{
    holds::Holds,
    metrics::Meters,
    partition::{Partition, State, Table},
};

/// The exporter at one moment.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// Name of the link.
    pub link: String,
    /// Names this process.
    pub instance: String,
    /// Id of the source cluster, once it was told.
    pub cluster: Option<String>,
    /// The session at the importer, if one stands.
    pub session: Option<u64>,
    /// Address of the importer, if a session stands.
    pub importer: Option<String>,
    /// Sessions since the start.
    pub sessions: u64,
    /// Why the last connection or attempt ended.
    pub last_failure: Option<String>,
    /// Smoothed round trip, in seconds.
    pub rtt_seconds: Option<f64>,
    /// The connection's path, as it was within the last second; none while there is no connection.
    pub path: Option<PathStatus>,
    /// UDP payload in both directions since the start, in bytes.
    pub wire_bytes: u64,
    /// QUIC packets lost since the start.
    pub lost_packets: u64,
    /// Records durable at the target since the start.
    pub records: u64,
    /// Their plain size, in bytes.
    pub plain_bytes: u64,
    /// Offsets not yet durable at the target, over all partitions.
    pub lag_records: u64,
    /// The oldest of them, in seconds.
    pub lag_seconds: f64,
    /// Whether the audit log can be written; nothing is sent while not.
    pub audit_healthy: bool,
    /// Whether the source cluster answered when it was last asked, some seconds ago at most.
    pub cluster_answers: bool,
    /// Every source partition that is carried.
    pub partitions: Vec<PartitionStatus>,
}

/// A source partition at one moment.
#[derive(Debug, Clone, Serialize)]
pub struct PartitionStatus {
    /// Name of the source topic.
    pub topic: String,
    /// Its id, as Kafka prints it.
    pub topic_id: String,
    /// Number of the partition.
    pub partition: i32,
    /// `opening`, `flowing`, `held` or `refused`.
    pub state: &'static str,
    /// Why it is held, as a word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// Why it is held, and what the operator can do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Since when it is held, seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
    /// First offset that the source still has.
    pub log_start: Option<i64>,
    /// The end that a read_committed reader sees: a transaction that is open at the source begins here.
    pub stable: Option<i64>,
    /// How far the source reaches, as far as is known: its high watermark.
    pub end: i64,
    /// The next offset to be read.
    pub position: Option<i64>,
    /// The next offset that is not durable at the target.
    pub committed: Option<i64>,
    /// Offsets not yet durable at the target.
    pub lag_records: u64,
    /// Age of the oldest of them, in seconds.
    pub lag_seconds: f64,
    /// Records durable at the target since the start.
    pub records: u64,
    /// Their plain size, in bytes.
    pub plain_bytes: u64,
}

impl PartitionStatus {
    pub(crate) fn new(partition: &Partition, holds: &Holds, meters: &Meters) -> Self {
        let held = holds.get(partition.slot);
        let (records, plain_bytes) = meters.delivered(partition);
        let (lag_records, lag_seconds) = partition.lag();
        let facts = partition.facts();
        Self {
            topic: partition.topic.name.to_string(),
            topic_id: partition.topic.id.to_string(),
            partition: partition.number,
            state: facts.state.word(),
            reason: match facts.state {
                State::Held(reason) => Some(reason.word()),
                _ => None,
            },
            detail: held.map(|held| held.detail.clone()),
            since: held
                .and_then(|held| held.since.duration_since(UNIX_EPOCH).ok())
                .map(|since| since.as_secs()),
            log_start: facts.ends.map(|ends| ends.log_start),
            stable: facts.ends.map(|ends| ends.stable),
            end: facts.lag.end(),
            position: facts.position,
            committed: facts.committed,
            lag_records,
            lag_seconds,
            records,
            plain_bytes,
        }
    }

    /// All that are carried.
    pub(crate) fn all(table: &Table, holds: &Holds, meters: &Meters) -> Vec<Self> {
        table.active().iter().map(|partition| Self::new(partition, holds, meters)).collect()
    }
}

/// What is known of the link, shared by the session, metrics and status.
#[derive(Debug, Default)]
pub(crate) struct LinkFacts {
    inner: Mutex<Inner>,
    hurry: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    session: Option<SessionId>,
    sessions: u64,
    last_failure: Option<String>,
    connection: Option<Connection>,
    meter: PathMeter,
    measured: Option<PathStatus>,
    /// The rate that all connections and attempts keep below, which knows what left: none before the first connection.
    rate: Option<Rate>,
    /// Sent, and not yet handed out by [`LinkFacts::measure`].
    unreported: SentStatus,
    /// Bytes of connections and of attempts that were counted so far.
    counted: u64,
    attempts: u64,
    /// Of connections that are over.
    past: Path,
}

/// What a path carried.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Path {
    pub(crate) rtt: Option<Duration>,
    pub(crate) wire_bytes: u64,
    pub(crate) lost_packets: u64,
}

impl LinkFacts {
    /// A connection was made; there is no session yet.
    pub(crate) fn connected(&self, connection: &Connection) {
        let mut inner = self.lock();
        inner.connection = Some(connection.clone());
        inner.rate = connection.rate().cloned();
        inner.meter = PathMeter::default();
        inner.look();
    }

    /// Looks at the path anew, about once a second; also what was sent since the last time, on connections that are over
    /// too.
    pub(crate) fn measure(&self) -> (Option<PathStatus>, SentStatus) {
        let mut inner = self.lock();
        inner.look();
        (inner.measured.clone(), std::mem::take(&mut inner.unreported))
    }

    /// The path as it was last looked at.
    pub(crate) fn measured(&self) -> Option<PathStatus> {
        self.lock().measured.clone()
    }

    /// A session stands.
    pub(crate) fn established(&self, session: SessionId) {
        let mut inner = self.lock();
        inner.session = Some(session);
        inner.sessions += 1;
        inner.last_failure = None;
    }

    /// The connection is over.
    pub(crate) fn disconnected(&self, why: &str) {
        let mut inner = self.lock();
        inner.look();
        inner.past = path_of(&inner);
        inner.past.rtt = None;
        inner.connection = None;
        inner.measured = None;
        inner.session = None;
        inner.last_failure = Some(why.into());
    }

    /// What was in the way may be over: no attempt waits any longer.
    pub(crate) fn hurry(&self) {
        self.hurry.notify_waiters();
    }

    /// Resolves at the next [`hurry`](Self::hurry).
    pub(crate) async fn hurried(&self) {
        self.hurry.notified().await;
    }

    /// An attempt to dial failed.
    pub(crate) fn failed(&self, why: &str) {
        self.lock().last_failure = Some(why.into());
    }

    pub(crate) fn session(&self) -> Option<SessionId> {
        self.lock().session
    }

    /// The connection, while there is one.
    pub(crate) fn connection(&self) -> Option<Connection> {
        self.lock().connection.clone()
    }

    pub(crate) fn sessions(&self) -> u64 {
        self.lock().sessions
    }

    pub(crate) fn last_failure(&self) -> Option<String> {
        self.lock().last_failure.clone()
    }

    /// Address of the importer, while a session stands.
    pub(crate) fn importer(&self) -> Option<String> {
        let inner = self.lock();
        inner.session?;
        inner.connection.as_ref().map(|connection| connection.remote_address().to_string())
    }

    /// What was carried since the start.
    pub(crate) fn path(&self) -> Path {
        path_of(&self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn look(&mut self) {
        // Asked before the connection, which counts a datagram sooner: nothing of it is taken for an attempt.
        let left = self.rate.as_ref().map_or(0, Rate::sent_bytes);
        if let Some(connection) = &self.connection {
            let (status, added) = self.meter.read(connection);
            self.measured = Some(status);
            self.counted += added.total();
            self.unreported.add(&added);
        }
        // What no connection in use sent: attempts in vain, and those that lost a race.
        let attempts = left.saturating_sub(self.counted).max(self.attempts);
        self.unreported.handshake_bytes += attempts - self.attempts;
        self.attempts = attempts;
    }
}

fn path_of(inner: &Inner) -> Path {
    let mut path = inner.past;
    if let Some(connection) = &inner.connection {
        let stats = connection.stats();
        path.rtt = Some(stats.rtt);
        path.wire_bytes += stats.sent_bytes + stats.received_bytes;
        path.lost_packets += stats.lost_packets;
    }
    path
}

/// Microseconds since 1970: orders the connections of one instance.
pub(crate) fn wall_micros() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
