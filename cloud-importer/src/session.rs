//! One exporter's connection: admitted, listened to, answered.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use link::{CloseCode, Connection, ControlRecv, ControlSend, PathMeter};
use observe::event;
use proto::{
    PeerMisbehaved,
    ids::SessionId,
    policy::Grant,
    receiver::{Action, Entry, Event, Receiver},
    wire::{Hello, ToImporter},
};
use tokio::sync::mpsc;

use crate::{
    board::SessionStatus,
    engine::Shared,
    lane::Reply,
    links::LinkState,
    mailbox::{Arrived, NewSession},
};

/// Why a connection is closed: what the exporter is told.
struct Ending {
    code: CloseCode,
    reason: String,
}

impl Ending {
    fn new(code: CloseCode, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into() }
    }
}

impl From<PeerMisbehaved> for Ending {
    fn from(misbehaved: PeerMisbehaved) -> Self {
        let code = match misbehaved {
            PeerMisbehaved::UnknownVersion { .. } => CloseCode::Version,
            _ => CloseCode::Misbehaved,
        };
        Self::new(code, misbehaved.to_string())
    }
}

/// Serves a connection until it ends.
pub(crate) async fn serve(shared: Arc<Shared>, connection: Connection) {
    let mut session = Session {
        shared,
        connection: connection.clone(),
        receiver: Receiver::new(Duration::ZERO),
        started: Instant::now(),
        open: None,
        refused: false,
    };
    let ending = session.run().await;
    // A check of the link does that, and of several attempts all but the one that is used.
    let left = session.open.is_none() && connection.peer_closed_with() == Some(CloseCode::Done);
    let reason = match left {
        true => format!("it left before it named its link: {}", ending.reason),
        false => format!("{}: {}", ending.code, ending.reason),
    };
    session.end(&reason).await;
    connection.close(ending.code, &ending.reason);
}

struct Session {
    shared: Arc<Shared>,
    connection: Connection,
    receiver: Receiver,
    started: Instant,
    open: Option<Open>,
    /// Whether its refusal is on record.
    refused: bool,
}

/// What a session has once it was admitted.
struct Open {
    link: Arc<LinkState>,
    session: SessionId,
    replies: mpsc::Receiver<Reply>,
    lanes: tokio::task::JoinHandle<Ending>,
    carried: (u64, u64),
    meter: PathMeter,
    /// What it is let in with.
    grant: Grant,
    cluster: String,
}

impl Session {
    async fn run(&mut self) -> Ending {
        let accepted =
            tokio::time::timeout(proto::limits::HANDSHAKE_PATIENCE, self.connection.accept_control());
        let (mut send, mut recv) = match accepted.await {
            Ok(Ok(control)) => control,
            Ok(Err(error)) => return Ending::new(CloseCode::Failed, error.to_string()),
            Err(_) => return PeerMisbehaved::NoHello.into(),
        };
        let Err(ending) = self.converse(&mut send, &mut recv).await;
        if let Err(error) = send.finish() {
            tracing::debug!("the control stream was over already: {error}");
        }
        ending
    }

    async fn converse(
        &mut self,
        send: &mut ControlSend,
        recv: &mut ControlRecv,
    ) -> Result<std::convert::Infallible, Ending> {
        let mut every_second = tokio::time::interval(Duration::from_secs(1));
        let mut stopping = self.shared.stopping.subscribe();
        let mut policy = self.shared.policy.subscribe();
        loop {
            tokio::select! {
                frame = recv.recv() => {
                    let frame = frame.map_err(|error| Ending::new(CloseCode::Misbehaved, error.to_string()))?;
                    let Some(frame) = frame else {
                        return Err(Ending::new(CloseCode::Done, "the exporter ended the control stream"));
                    };
                    let message = ToImporter::decode_frame(&frame).map_err(PeerMisbehaved::from)?;
                    self.heard();
                    self.receiver.handle(Event::Message(message), self.started.elapsed())?;
                }
                happened = next_of(&mut self.open) => match happened {
                    Happened::Reply(Some(Reply::Answer(answer))) => {
                        self.send(send, &answer.encode_frame()).await?;
                    }
                    Happened::Reply(Some(Reply::Misbehaved(misbehaved))) => return Err(misbehaved.into()),
                    Happened::Reply(None) => {
                        return Err(Ending::new(CloseCode::Superseded, "a newer session took over"));
                    }
                    Happened::LanesEnded(ending) => return Err(ending),
                },
                why = self.connection.closed() => return Err(Ending::new(CloseCode::Done, why)),
                _ = every_second.tick() => self.tick()?,
                Ok(()) = policy.changed() => self.regrant().await?,
                _ = stopping.changed() => {
                    self.receiver.handle(Event::Leave("the importer is stopping".into()), self.started.elapsed())?;
                    self.flush(send).await?;
                    return Err(Ending::new(CloseCode::Done, "the importer is stopping"));
                }
            }
            while let Some(action) = self.receiver.poll_action() {
                self.act(action).await?;
            }
            self.flush(send).await?;
        }
    }

    /// Sends what there is to say. An exporter that reads slowly gets the rest with the next turn, so that the policy
    /// and its certificate are looked at in between.
    async fn flush(&mut self, send: &mut ControlSend) -> Result<(), Ending> {
        let began = Instant::now();
        while began.elapsed() < FLUSH_TURN
            && let Some(message) = self.receiver.poll_transmit()
        {
            self.send(send, &message.encode_frame()).await?;
        }
        Ok(())
    }

    async fn send(&self, send: &mut ControlSend, frame: &[u8]) -> Result<(), Ending> {
        in_time(CONTROL_PATIENCE, send.send(frame)).await
    }

    fn heard(&self) {
        if let Some(open) = &self.open {
            open.link.sessions().heard(open.session, self.shared.now());
            open.link.board.heard();
        }
    }

    fn tick(&mut self) -> Result<(), Ending> {
        self.receiver.handle(Event::Tick, self.started.elapsed())?;
        self.count_wire();
        if let Err(error) = self.connection.check_peer(&self.shared.identity()) {
            return Err(Ending::new(CloseCode::Untrusted, error.to_string()));
        }
        Ok(())
    }

    /// The policy changed: a session that keeps what it was let in with goes on and is told the rest; another one ends, for
    /// its exporter to ask anew.
    async fn regrant(&mut self) -> Result<(), Ending> {
        let Some(open) = &mut self.open else { return Ok(()) };
        let peer = self.connection.peer().to_string();
        let policy = Arc::clone(&self.shared.policy.borrow());
        let why = match policy.admit(&open.link.name, &peer, &open.cluster) {
            Ok(grant) if grant == open.grant => return Ok(()),
            Ok(grant) if grant.keeps(&open.grant) => {
                tracing::info!(link = %open.link.name, rate = grant.rate(), "the exporter is told what it is granted now");
                open.grant = grant.clone();
                return Ok(self.receiver.handle(Event::Regranted(grant), self.started.elapsed())?);
            }
            Ok(_) => return Err(Ending::new(CloseCode::Done, "what the link is granted changed: ask anew")),
            Err(refusal) => refusal.to_string(),
        };
        let refusal = event::Refuse { link: Some(open.link.name.to_string()), ..self.refusal(why.clone()) };
        self.put_refusal(refusal).await?;
        Err(Ending::new(CloseCode::NotGranted, why))
    }

    /// Whether what the session was let in with is still its exporter's, and its certificate still good.
    fn still_granted(&self, open: &Open) -> bool {
        let peer = self.connection.peer().to_string();
        let policy = Arc::clone(&self.shared.policy.borrow());
        policy.admit(&open.link.name, &peer, &open.cluster).is_ok_and(|grant| grant.keeps(&open.grant))
            && self.connection.check_peer(&self.shared.identity()).is_ok()
    }

    /// Adds what the connection carried since the last time to the link's numbers.
    fn count_wire(&mut self) {
        let Some(open) = &mut self.open else { return };
        let stats = self.connection.stats();
        let carried = (stats.sent_bytes + stats.received_bytes, stats.lost_packets);
        open.link.board.link_stats(carried.0 - open.carried.0, carried.1 - open.carried.1, stats.rtt);
        open.carried = carried;
        let (path, added) = open.meter.read(&self.connection);
        open.link.board.path(open.session, path, &added);
    }

    async fn act(&mut self, action: Action) -> Result<(), Ending> {
        match action {
            Action::Admit(hello) => return self.admit(hello).await,
            Action::Refused { topic, partition, detail } => {
                let link = self.open.as_ref().map(|open| open.link.name.to_string());
                let refusal = event::Refuse {
                    link,
                    topic: Some(topic),
                    partition: Some(partition),
                    ..self.refusal(detail)
                };
                self.shared.not_granted(refusal).await.map_err(cannot_record)?;
            }
            Action::Left(reason) => {
                return Err(Ending::new(CloseCode::Done, format!("the exporter left: {reason}")));
            }
            Action::Open(open) => self.link()?.lane(open.lane).mailbox.open(open),
            Action::Close { lane, slot } => self.link()?.lane(lane).mailbox.close(slot),
            Action::End { slot, stable, high } => self.link()?.board.end(slot, stable, high),
        }
        Ok(())
    }

    fn link(&self) -> Result<&LinkState, Ending> {
        let open = self.open.as_ref().ok_or(PeerMisbehaved::BeforeHandshake)?;
        Ok(&open.link)
    }

    /// Decides about a hello: policy, then sessions, then the audit log, then the welcome.
    async fn admit(&mut self, hello: Hello) -> Result<(), Ending> {
        let peer = self.connection.peer().to_string();
        let policy = Arc::clone(&self.shared.policy.borrow());
        let grant = match policy.admit(&hello.link, &peer, &hello.source_cluster_id) {
            Ok(grant) => grant,
            Err(refusal) => {
                return Err(self.refuse(&hello, CloseCode::NotGranted, refusal.to_string()).await?);
            }
        };
        let Some(link) = self.shared.links.get(hello.link.as_str()).cloned() else {
            return Err(self
                .refuse(&hello, CloseCode::NotGranted, "the link is not served here".into())
                .await?);
        };
        let entry = link.sessions().hello(&hello, self.shared.now());
        let (session, replaces) = match entry {
            Entry::Welcome { session, replaces } => (session, replaces),
            Entry::Stale => {
                let why = "a newer connection of this exporter is here already".to_owned();
                return Err(self.refuse(&hello, CloseCode::Superseded, why).await?);
            }
            Entry::Busy { instance, free_in } => {
                let why = format!(
                    "link `{}` is in use by exporter {instance}; another one is let in when that has been silent for {:.0} s: \
                     stop one of the two",
                    hello.link,
                    free_in.as_secs_f64().ceil()
                );
                return Err(self.refuse(&hello, CloseCode::Busy, why).await?);
            }
        };
        let event = event::Connect {
            link: hello.link.clone(),
            peer: peer.clone(),
            remote: self.connection.remote_address().to_string(),
            session: Some(session.0),
            cluster: Some(hello.source_cluster_id.clone()),
            instance: Some(hello.instance.clone()),
        };
        if let Err(ending) = self.record(event).await {
            link.sessions().ended(session);
            return Err(ending);
        }
        tracing::info!(link = %link.name, %peer, %session, remote = %self.connection.remote_address(),
            replaces = ?replaces.map(|replaced| replaced.0), "exporter connected");
        let (sender, replies) = mpsc::channel(REPLIES);
        link.begin_session(&NewSession { id: session, replies: sender });
        link.board.connected(SessionStatus {
            session: session.0,
            peer,
            remote: self.connection.remote_address().to_string(),
            instance: hello.instance,
        });
        let lanes = tokio::spawn(receive_lanes(self.connection.clone(), link.clone(), session));
        let (count, credit) = (link.config.lanes, link.config.lane_credit());
        let cluster = hello.source_cluster_id;
        let held = grant.clone();
        self.open = Some(Open {
            link,
            session,
            replies,
            lanes,
            carried: (0, 0),
            meter: PathMeter::default(),
            grant: held,
            cluster,
        });
        let admitted = Event::Admitted { session, grant, lanes: count, credit };
        Ok(self.receiver.handle(admitted, self.started.elapsed())?)
    }

    /// Puts a refusal on record and says what the exporter is told.
    async fn refuse(&mut self, hello: &Hello, code: CloseCode, why: String) -> Result<Ending, Ending> {
        let refusal = event::Refuse {
            link: Some(hello.link.clone()),
            cluster: Some(hello.source_cluster_id.clone()),
            ..self.refusal(why.clone())
        };
        self.put_refusal(refusal).await?;
        Ok(Ending::new(code, why))
    }

    async fn put_refusal(&mut self, refusal: event::Refuse) -> Result<(), Ending> {
        self.shared.refused(refusal).await.map_err(cannot_record)?;
        self.refused = true;
        Ok(())
    }

    fn refusal(&self, reason: String) -> event::Refuse {
        event::Refuse {
            remote: Some(self.connection.remote_address().to_string()),
            peer: Some(self.connection.peer().to_string()),
            reason,
            ..event::Refuse::default()
        }
    }

    /// Puts something on record; the connection ends when that is not possible.
    async fn record(&self, event: impl Into<event::Event>) -> Result<(), Ending> {
        record(&self.shared.audit, event.into()).await.map_err(cannot_record)
    }

    async fn end(&mut self, reason: &str) {
        self.count_wire();
        let Some(open) = self.open.take() else {
            // Nobody was admitted: what the peer did wrong is on record all the same.
            if self.refused || *self.shared.stopping.borrow() {
                return;
            }
            if let Err(error) = self.shared.refused(self.refusal(reason.to_owned())).await {
                tracing::error!("{error}");
            }
            return;
        };
        open.lanes.abort();
        if !self.still_granted(&open) {
            open.link.void_session(open.session);
        }
        let was_current = open.link.end_session(open.session);
        open.link.board.disconnected(open.session);
        tracing::info!(link = %open.link.name, session = %open.session, was_current, "exporter disconnected: {reason}");
        let disconnect = event::Disconnect {
            link: open.link.name.to_string(),
            peer: self.connection.peer().to_string(),
            remote: self.connection.remote_address().to_string(),
            session: Some(open.session.0),
            reason: reason.to_owned(),
        };
        if let Err(error) = record(&self.shared.audit, disconnect.into()).await {
            tracing::error!("{error}");
        }
    }
}

/// Waits for a control frame to be taken, for `patience` at most: an exporter that does not read must not keep its session
/// from noticing that its grant or its certificate was taken back. Half a frame may be out then, so the session ends.
async fn in_time(
    patience: Duration,
    sent: impl Future<Output = Result<(), link::Error>>,
) -> Result<(), Ending> {
    match tokio::time::timeout(patience, sent).await {
        Ok(sent) => sent.map_err(|error| Ending::new(CloseCode::Failed, error.to_string())),
        Err(_) => {
            let why = format!("the exporter has not read the control stream for {} s", patience.as_secs());
            Err(Ending::new(CloseCode::Failed, why))
        }
    }
}

fn cannot_record(error: String) -> Ending {
    // Said once by who tries the log again every second; exporters that dial meanwhile are no news.
    tracing::debug!("{error}");
    Ending::new(CloseCode::Failed, "the importer cannot write its audit log")
}

/// Puts an event on record from async code.
pub(crate) async fn record(audit: &observe::Audit, event: event::Event) -> Result<(), String> {
    let audit = audit.clone();
    let done = tokio::task::spawn_blocking(move || audit.record(event)).await;
    done.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
}

/// What happens to a session that was admitted.
enum Happened {
    /// A lane has something to say; none will any more.
    Reply(Option<Reply>),
    LanesEnded(Ending),
}

async fn next_of(open: &mut Option<Open>) -> Happened {
    let Some(open) = open else { return std::future::pending().await };
    tokio::select! {
        reply = open.replies.recv() => Happened::Reply(reply),
        ended = &mut open.lanes => Happened::LanesEnded(ended.unwrap_or_else(|error| {
            Ending::new(CloseCode::Failed, format!("the lanes' task failed: {error}"))
        })),
    }
}

/// Takes lane streams in and hands their parcels to the lanes' threads. Ends when the exporter misbehaves, or the
/// connection is over.
async fn receive_lanes(connection: Connection, link: Arc<LinkState>, session: SessionId) -> Ending {
    let mut streams = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            accepted = connection.accept_lane() => match accepted {
                Ok(stream) => {
                    let preface = stream.preface();
                    if preface.lane.0 >= link.config.lanes {
                        return PeerMisbehaved::UnknownLane { lane: preface.lane.0.into() }.into();
                    }
                    streams.spawn(receive_parcels(stream, link.clone(), session));
                }
                Err(error) if error.ends_connection() => return Ending::new(CloseCode::Done, error.to_string()),
                Err(error) => return Ending::new(CloseCode::Misbehaved, error.to_string()),
            },
            Some(ended) = streams.join_next() => {
                if let Ok(Err(ending)) = ended {
                    return ending;
                }
            }
        }
    }
}

async fn receive_parcels(
    mut stream: link::ParcelRecv,
    link: Arc<LinkState>,
    session: SessionId,
) -> Result<(), Ending> {
    let preface = stream.preface();
    let lane = link.lane(preface.lane);
    let (parcels, room) = (lane.parcels.clone(), lane.room.clone());
    loop {
        match stream.recv().await {
            Ok(Some((header, body))) => {
                let kib = header.coded.div_ceil(1024).max(1);
                let Ok(room) = room.clone().acquire_many_owned(kib).await else { return Ok(()) };
                if parcels.send(Arrived { session, preface, header, body, room }).await.is_err() {
                    // The lane has ended: the importer is stopping.
                    return Ok(());
                }
            }
            Ok(None) => return Ok(()),
            // The exporter gave the epoch up, or the connection is over, which others notice.
            Err(link::Error::Reset { .. }) => return Ok(()),
            Err(error) if error.ends_connection() => return Ok(()),
            Err(error) => return Err(Ending::new(CloseCode::Misbehaved, error.to_string())),
        }
    }
}

/// Answers that may wait for the control stream.
const REPLIES: usize = 1024;
/// How long an exporter may take to make room for one control frame.
const CONTROL_PATIENCE: Duration = Duration::from_secs(5);
/// How long a session sends before it looks round again.
const FLUSH_TURN: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_control_stream_that_is_not_read_ends_its_session() {
        let ended = in_time(Duration::from_millis(20), std::future::pending()).await;
        let Err(ending) = ended else { panic!("nothing was sent") };
        assert_eq!(ending.code, CloseCode::Failed);
        assert!(ending.reason.contains("has not read the control stream"), "{}", ending.reason);
        assert!(in_time(CONTROL_PATIENCE, std::future::ready(Ok(()))).await.is_ok());
    }
}
