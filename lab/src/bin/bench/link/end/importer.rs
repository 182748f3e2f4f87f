//! Our receiver: `link` and the importer's machines of `proto`, without codec and without Kafka.
//!
//! A group's numbers stand at the beginning of each parcel's body ([`Cover`]) instead of inside a compressed batch; what
//! a transaction would make durable is kept in memory and counts as committed every 100 ms, as the importer does it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use certs::Identity;
use codec::Batch;
use link::{CloseCode, Connection, Listener, ParcelRecv};
use proto::ids::{Lane as LaneId, LaneEpoch, Offset, SessionId, SourcePartition};
use proto::limits::LANE_CREDIT;
use proto::policy::{LinkPolicy, Mapping, Pattern, Policy};
use proto::receiver::{Action, Admission, Entry, Event, Lane, OpenPartition, Receiver, Sessions, Verdict};
use proto::wire::{Hello, ParcelHeader, ToImporter};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use super::{LANES, Meter, Spec};

/// Name of the link, and of the exporter's cluster.
pub(super) const LINK: &str = "bench";
/// What the exporter's certificate says.
pub(crate) const EXPORTER_ID: &str = "spiffe://longhaul.example/exporter/edge";
/// What the importer's certificate says.
pub(crate) const IMPORTER_ID: &str = "spiffe://longhaul.example/importer/cloud";

/// The numbers of a parcel's only group, at the beginning of its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cover {
    pub(super) slot: u32,
    pub(super) resume_epoch: u32,
    pub(super) prev_next: i64,
    pub(super) next: i64,
}

impl Cover {
    #[cfg(test)]
    const LENGTH: usize = 24;

    pub(super) fn write(&self, body: &mut [u8]) {
        body[..4].copy_from_slice(&self.slot.to_le_bytes());
        body[4..8].copy_from_slice(&self.resume_epoch.to_le_bytes());
        body[8..16].copy_from_slice(&self.prev_next.to_le_bytes());
        body[16..24].copy_from_slice(&self.next.to_le_bytes());
    }

    fn read(body: &[u8]) -> Option<Self> {
        let word = |at: usize| body.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes);
        let long = |at: usize| body.get(at..at + 8)?.try_into().ok().map(i64::from_le_bytes);
        Some(Self { slot: word(0)?, resume_epoch: word(4)?, prev_next: long(8)?, next: long(16)? })
    }
}

/// What outlives a connection: as a target cluster would keep it.
struct Shared {
    started: Instant,
    policy: Policy,
    sessions: Mutex<Sessions>,
    lanes: Vec<Mutex<LaneState>>,
    meter: Meter,
    /// When the first session began, and from and to when after that the first lane takes nothing.
    first: OnceLock<Instant>,
    blocked: Option<(f64, f64)>,
}

struct LaneState {
    lane: Lane,
    committed: BTreeMap<SourcePartition, Offset>,
    /// Accepted and not committed yet.
    pending: Vec<Accepted>,
}

struct Accepted {
    partition: SourcePartition,
    next: Offset,
    session: SessionId,
    epoch: LaneEpoch,
    plain: u64,
    /// Held until it is committed, as the importer holds what it has not written.
    _body: Bytes,
}

impl Shared {
    fn lane(&self, lane: LaneId) -> MutexGuard<'_, LaneState> {
        self.lanes[usize::from(lane.0)].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_blocked(&self, lane: LaneId) -> bool {
        let since = self.first.get().map_or(0.0, |first| first.elapsed().as_secs_f64());
        lane == BLOCKED_LANE && self.blocked.is_some_and(|(from, to)| (from..to).contains(&since))
    }

    /// Whether what `lane` carries is the payload that is measured.
    fn counts(&self, lane: LaneId) -> bool {
        self.blocked.is_none() || lane != BLOCKED_LANE
    }

    fn sessions(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Accepts connections and counts what is accepted, in the background.
pub(super) async fn receive(spec: &Spec, meter: Meter) -> Result<JoinHandle<()>> {
    let identity = Identity::load(&spec.certificates.join("cloud"))?;
    let listener = Listener::bind(spec.addresses[0], &identity, link::Settings::default()).await?;
    let mut policy = Policy::new();
    let topics = vec!["*".parse::<Pattern>().context("a pattern")?];
    let granted = LinkPolicy {
        identity: EXPORTER_ID.into(),
        cluster: None,
        topics,
        mapping: Mapping::default(),
        rate: None,
    };
    policy.insert(LINK, granted);
    let lane = |number| {
        let lane = Lane::new(LaneId(number), LANE_CREDIT);
        Mutex::new(LaneState { lane, committed: BTreeMap::new(), pending: Vec::new() })
    };
    let shared = Arc::new(Shared {
        started: Instant::now(),
        policy,
        sessions: Mutex::new(Sessions::new(SessionId(0))),
        lanes: (0..LANES).map(lane).collect(),
        meter,
        first: OnceLock::new(),
        blocked: spec.blocked,
    });
    Ok(tokio::spawn(async move {
        while let Some(accepted) = listener.accept().await {
            match accepted {
                Ok(connection) => drop(tokio::spawn(serve(shared.clone(), connection))),
                Err(refused) => tracing::warn!(remote = %refused.remote, "refused: {}", refused.reason),
            }
        }
    }))
}

async fn serve(shared: Arc<Shared>, connection: Connection) {
    let outcome = converse(&shared, &connection).await;
    let Err(error) = outcome;
    tracing::info!("a connection ended: {error:#}");
    connection.close(CloseCode::Done, &error.to_string());
}

async fn converse(shared: &Arc<Shared>, connection: &Connection) -> Result<std::convert::Infallible> {
    let (mut send, mut frames) = connection.accept_control().await?;
    let mut receiver = Receiver::new(Duration::ZERO);
    let mut session = None;
    let mut commit = interval(COMMIT_INTERVAL);
    commit.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Ends with this connection, and with it the tasks inside.
    let mut streams = tokio::task::JoinSet::new();
    let closed = connection.closed();
    tokio::pin!(closed);
    loop {
        tokio::select! {
            frame = frames.recv() => {
                let frame = frame?.context("the exporter ended the conversation")?;
                let now = shared.started.elapsed();
                receiver.handle(Event::Message(ToImporter::decode_frame(&frame)?), now)?;
            }
            _ = commit.tick() => {
                receiver.handle(Event::Tick, shared.started.elapsed())?;
                if session.is_some() {
                    commit_all(shared);
                }
            }
            why = &mut closed => bail!("{why}"),
            Some(ended) = streams.join_next() => ended??,
        }
        while let Some(action) = receiver.poll_action() {
            match action {
                Action::Admit(hello) => {
                    let number = admit(shared, connection, &mut receiver, &hello)?;
                    session = Some(number);
                    streams.spawn(lanes(shared.clone(), connection.clone(), number));
                }
                Action::Open(open) => answer_open(shared, open),
                Action::Close { lane, slot } => shared.lane(lane).lane.close(slot),
                Action::Left(reason) => bail!("the exporter left: {reason}"),
                Action::Refused { detail, .. } => bail!("refused: {detail}"),
                Action::End { .. } => {}
            }
        }
        while let Some(message) = receiver.poll_transmit() {
            send.send(&message.encode_frame()).await?;
        }
        let Some(session) = session else { continue };
        for number in 0..LANES {
            loop {
                let message = {
                    let mut state = shared.lane(LaneId(number));
                    if state.lane.session() != Some(session) {
                        bail!("a newer session took over");
                    }
                    state.lane.poll_transmit()
                };
                let Some(message) = message else { break };
                send.send(&message.encode_frame()).await?;
            }
        }
    }
}

fn admit(
    shared: &Shared,
    connection: &Connection,
    receiver: &mut Receiver,
    hello: &Hello,
) -> Result<SessionId> {
    let peer = connection.peer().to_string();
    let grant = shared.policy.admit(&hello.link, &peer, &hello.source_cluster_id)?;
    let Entry::Welcome { session, .. } = shared.sessions().hello(hello, shared.started.elapsed()) else {
        bail!("another connection holds the link");
    };
    shared.first.get_or_init(Instant::now);
    for number in 0..LANES {
        shared.lane(LaneId(number)).lane.begin_session(session);
    }
    let admitted = Event::Admitted { session, grant, lanes: LANES, credit: LANE_CREDIT };
    receiver.handle(admitted, shared.started.elapsed())?;
    Ok(session)
}

/// Positions are in memory: the answer is there at once.
fn answer_open(shared: &Shared, open: OpenPartition) {
    let mut state = shared.lane(open.lane);
    // What was accepted under an earlier session counts: it is in memory and will be committed.
    let pending = state.pending.iter().rfind(|accepted| accepted.partition == open.partition);
    let known =
        pending.map(|accepted| accepted.next).or_else(|| state.committed.get(&open.partition).copied());
    let (next, new) = (known.unwrap_or(open.start), known.is_none());
    state.lane.open(open.slot, open.partition, open.permit, next, None, new);
}

fn commit_all(shared: &Shared) {
    for number in (0..LANES).filter(|number| !shared.is_blocked(LaneId(*number))) {
        let mut state = shared.lane(LaneId(number));
        let LaneState { lane, committed, pending } = &mut *state;
        for Accepted { partition, next, session, epoch, plain, .. } in pending.drain(..) {
            lane.committed(&partition, next, None);
            lane.free(session, epoch, plain);
            committed.insert(partition, next);
        }
    }
}

/// Takes in the streams of a session; ends with the connection or with what is wrong.
async fn lanes(shared: Arc<Shared>, connection: Connection, session: SessionId) -> Result<()> {
    let mut streams = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            stream = connection.accept_lane() => drop(streams.spawn(parcels(shared.clone(), stream?, session))),
            Some(ended) = streams.join_next() => ended??,
        }
    }
}

async fn parcels(shared: Arc<Shared>, mut stream: ParcelRecv, session: SessionId) -> Result<()> {
    let number = stream.preface().lane;
    while let Some((header, body)) = stream.recv().await? {
        judge(&shared, number, session, &header, &body)?;
    }
    Ok(())
}

fn judge(
    shared: &Shared,
    number: LaneId,
    session: SessionId,
    header: &ParcelHeader,
    body: &Bytes,
) -> Result<()> {
    let cover = Cover::read(body).context("a parcel without its numbers")?;
    let mut state = shared.lane(number);
    let LaneState { lane, pending, .. } = &mut *state;
    if lane.parcel(session, header)? == Admission::Stale {
        return Ok(());
    }
    let mut batch = Batch::new();
    let index = batch.group_index(cover.slot);
    let group = &mut batch.groups_mut()[index];
    (group.resume_epoch, group.prev_next, group.next) = (cover.resume_epoch, cover.prev_next, cover.next);
    let plain = u64::from(header.plain);
    let accepted = match lane.judge(&batch.groups()[index], None)? {
        Verdict::Accept(partition, _) => Some(partition.clone()),
        Verdict::Stale | Verdict::Rewound => None,
    };
    match accepted {
        Some(partition) => {
            if shared.counts(number) {
                shared.meter.add(body.len());
            }
            let next = Offset(cover.next);
            let (epoch, _body) = (header.epoch, body.clone());
            pending.push(Accepted { partition, next, session, epoch, plain, _body });
        }
        None => lane.free(session, header.epoch, plain),
    }
    Ok(())
}

const BLOCKED_LANE: LaneId = LaneId(0);
/// As the importer closes its transactions.
const COMMIT_INTERVAL: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_of_a_parcel_are_read_as_they_were_written() {
        let cover = Cover { slot: 7, resume_epoch: 3, prev_next: 1 << 40, next: (1 << 40) + 100 };
        let mut body = [0; Cover::LENGTH + 5];
        cover.write(&mut body);
        assert_eq!(Cover::read(&body), Some(cover));
        assert_eq!(Cover::read(&body[..Cover::LENGTH - 1]), None);
    }
}
