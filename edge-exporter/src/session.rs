//! The session: dials the importer, speaks on the control stream, and decides what lanes and holds do.
//!
//! One async task for the life of the process. Connections come and go under it; what it knows of source partitions
//! and holds stays. It never waits for a lane or for the disk: both are behind the clerk.

mod act;
mod dial;
mod news;
mod streams;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, MutexGuard, PoisonError, atomic::AtomicU64},
    time::{Duration, Instant},
};

use crossbeam_channel::{Sender as AskSender, TrySendError};
use link::{CloseCode, Connection, ControlRecv, ControlSend, Dialer, Greeted};
use observe::event::{Disconnect, Event};
use proto::{
    ids::{Lane as LaneId, LaneEpoch, Offset, ResumeEpoch, SessionId, Slot},
    sender::{self, Sender},
    wire::{SourceEnd, ToExporter},
};
use tokio::sync::{mpsc, watch};

use crate::{
    clerk::Item,
    config::Config,
    engine::View,
    holds::Holds,
    lane::{Command, LaneEvent},
    lanes::Lanes,
    partition::{Partition, State},
    repeats::Repeats,
    source::{Ask, News},
    status::wall_micros,
};

use streams::Streams;

/// Everything the session works with.
pub(crate) struct Parts {
    pub(crate) view: View,
    pub(crate) config: Arc<Config>,
    pub(crate) dialer: Arc<Dialer>,
    pub(crate) asks: AskSender<Ask>,
    pub(crate) news: mpsc::Receiver<News>,
    pub(crate) lane_events: mpsc::Receiver<LaneEvent>,
    pub(crate) clerk: mpsc::Sender<Item>,
    pub(crate) lanes: Lanes,
    /// Becomes true when the exporter is to leave.
    pub(crate) leave: watch::Receiver<bool>,
}

/// See the [module](self).
pub(crate) struct Session {
    parts: Parts,
    started: Instant,
    /// The last one that was said.
    nonces: Arc<AtomicU64>,
    /// Positions that were reported gone, in a row, by slot.
    resets: BTreeMap<Slot, u32>,
    dial_failures: Repeats,
    endings: Repeats,
    next_address: usize,
    /// The place of the address that gave no session just now.
    turned_away: Option<usize>,
}

/// One connection.
struct Live {
    connection: Connection,
    sender: Sender,
    session: Option<SessionId>,
    streams: Streams,
    /// Slots that were opened in this session.
    opened: BTreeSet<Slot>,
    /// The ends that the importer was told of.
    ends: BTreeMap<Slot, (i64, i64)>,
    /// Opened for the first time, and not answered yet: the position given is what is committed.
    awaiting: BTreeSet<Slot>,
    /// Opened, and not answered yet.
    unanswered: BTreeSet<Slot>,
    /// Slots that the source is to be asked about.
    to_ask: BTreeSet<Slot>,
    /// Positions that wait for fresh ends of their log.
    doubtful: BTreeMap<Slot, Position>,
    /// What is to be recorded and passed on.
    item: Item,
    /// Lanes of which everything is acknowledged, while leaving.
    drained: BTreeSet<LaneId>,
    /// Until when they have time, while leaving.
    leave_by: Option<Instant>,
    next_ends: Instant,
}

/// A position as the importer gave it.
#[derive(Debug, Clone, Copy)]
struct Position {
    resume_epoch: ResumeEpoch,
    next: Offset,
    leader_epoch: Option<i32>,
    new: bool,
    committed: bool,
}

/// What happened on a connection.
enum Turn {
    Ended(Ended),
    Leave,
    Frame(Result<Option<Vec<u8>>, link::Error>),
    News(News),
    Lane(LaneEvent),
    Tick,
}

/// How a connection ended.
struct Ended {
    why: String,
    code: CloseCode,
    /// The exporter leaves for good.
    left: bool,
    /// There was no session: an importer that turned us away, or one that is in trouble.
    unwelcome: bool,
    /// The importer does not let this exporter in.
    refused: bool,
    /// How long to wait before the next attempt.
    pause: Duration,
}

impl Ended {
    fn again(code: CloseCode, why: impl Into<String>) -> Self {
        Self { why: why.into(), code, left: false, unwelcome: false, refused: false, pause: Duration::ZERO }
    }
}

impl Session {
    pub(crate) fn new(parts: Parts) -> Self {
        Self {
            parts,
            started: Instant::now(),
            nonces: Arc::new(wall_micros().into()),
            resets: BTreeMap::new(),
            dial_failures: Repeats::default(),
            endings: Repeats::default(),
            next_address: 0,
            turned_away: None,
        }
    }

    /// Runs until the exporter is told to leave; gives the threads that are left to be waited for.
    pub(crate) async fn run(mut self) -> Vec<std::thread::JoinHandle<()>> {
        let (mut failures, mut refusals) = (0_u32, 0_u32);
        if !self.meet_source().await {
            return self.parts.lanes.end();
        }
        while let Some(greeted) = self.dial().await {
            let (began, place) = (Instant::now(), greeted.place);
            let ended = self.serve(greeted).await;
            if ended.left {
                break;
            }
            self.turned_away = ended.unwelcome.then_some(place);
            // Who turns us away at once would be asked in a tight loop otherwise.
            failures = if began.elapsed() > STABLE { 0 } else { failures + 1 };
            if failures > 0 {
                // Perhaps another one takes us.
                self.next_address = self.next_address.wrapping_add(1);
            }
            refusals = if ended.refused { refusals + 1 } else { 0 };
            let pause = match (refusals, failures) {
                (0, 0 | 1) => ended.pause,
                (0, _) => dial::backoff(failures - 1).max(ended.pause),
                _ => dial::refused_backoff(refusals),
            };
            self.say_why(&ended, pause);
            if !self.idle(pause).await {
                break;
            }
        }
        self.parts.lanes.end()
    }

    /// A connection is over. The same words again and again are said every ten seconds.
    fn say_why(&mut self, ended: &Ended, pause: Duration) {
        let Some(times) = self.endings.is_due(&ended.why, Instant::now()) else { return };
        let why = &ended.why;
        if ended.refused {
            tracing::warn!(
                times,
                "the importer does not let this exporter in: {why}; it is asked again in {:.0} s, nothing is read and \
                 nothing is lost meanwhile",
                pause.as_secs_f64()
            );
        } else {
            tracing::warn!(
                times, %why,
                "disconnected: dialling again, everything goes on from what the importer committed"
            );
        }
    }

    /// Waits until the source cluster has told its id. Says whether to go on.
    async fn meet_source(&mut self) -> bool {
        loop {
            let told = tokio::select! {
                told = self.parts.news.recv() => told,
                _ = self.parts.leave.wait_for(|leave| *leave) => None,
            };
            match told {
                Some(News::Cluster(id)) => {
                    tracing::info!(cluster = %id, "the source cluster answers");
                    self.parts.view.cluster.tell(id);
                    return true;
                }
                Some(_) => {}
                None => return false,
            }
        }
    }

    /// Works on one connection until it ends.
    async fn serve(&mut self, greeted: Greeted) -> Ended {
        let Greeted { connection, send, recv, place } = greeted;
        let address = &self.parts.config.importer.address[place];
        tracing::debug!(importer = %address, remote = %connection.remote_address(), "connected");
        self.parts.view.facts.connected(&connection);
        let mut live = Live::new(connection.clone(), Sender::greeted(self.started.elapsed()));
        let mut ended = self.converse(&mut live, send, recv).await;
        ended.unwelcome = live.session.is_none();
        ended.refused = ended.unwelcome && connection.peer_closed_with().is_some_and(is_refusal);
        connection.close(ended.code, &ended.why);
        self.finish(live, &ended).await;
        ended
    }

    async fn converse(
        &mut self,
        live: &mut Live,
        mut control: ControlSend,
        mut frames: ControlRecv,
    ) -> Ended {
        let connection = live.connection.clone();
        let closed = connection.closed();
        let stalled = connection.stalled();
        let mut leave = self.parts.leave.clone();
        tokio::pin!(closed, stalled);
        loop {
            self.ask(live);
            if let Err(ended) = self.flush(live, &mut control, closed.as_mut(), stalled.as_mut()).await {
                return ended;
            }
            let next_turn = self.next_turn(live);
            let turn = tokio::select! {
                biased;
                why = &mut closed => Turn::Ended(Ended::again(CloseCode::Done, why)),
                stall = &mut stalled => Turn::Ended(Ended::again(CloseCode::Stalled, stall.to_string())),
                _ = leave.wait_for(|leave| *leave), if live.leave_by.is_none() => Turn::Leave,
                frame = frames.recv() => Turn::Frame(frame),
                Some(news) = self.parts.news.recv() => Turn::News(news),
                Some(event) = self.parts.lane_events.recv() => Turn::Lane(event),
                () = sleep_until(next_turn) => Turn::Tick,
            };
            let stepped = match turn {
                Turn::Ended(ended) => Err(ended),
                Turn::Leave => {
                    self.begin_leaving(live);
                    Ok(())
                }
                Turn::Frame(Ok(Some(frame))) => self.heard(live, &frame),
                Turn::Frame(Ok(None)) => {
                    // Why follows: it closes the connection when that is on its record.
                    let why = tokio::time::timeout(CLOSE_PATIENCE, closed.as_mut()).await;
                    let why = why.unwrap_or_else(|_| "the importer ended the conversation".into());
                    Err(Ended::again(CloseCode::Done, why))
                }
                Turn::Frame(Err(error)) => Err(Ended::again(CloseCode::Failed, error.to_string())),
                Turn::News(news) => {
                    self.news(news, Some(live));
                    Ok(())
                }
                Turn::Lane(event) => self.lane_event(event, live),
                Turn::Tick => self.tick(live),
            };
            if let Err(ended) = stepped {
                return ended;
            }
            while let Some(action) = live.sender.poll_action() {
                if let Err(ended) = self.act(action, live) {
                    return ended;
                }
            }
            if self.has_left(live) {
                return self.goodbye(live, control).await;
            }
        }
    }

    /// Passes on what is due: to the clerk, and to the importer.
    async fn flush(
        &mut self,
        live: &mut Live,
        control: &mut ControlSend,
        mut closed: std::pin::Pin<&mut impl Future<Output = String>>,
        mut stalled: std::pin::Pin<&mut impl Future<Output = link::Stall>>,
    ) -> Result<(), Ended> {
        if !live.item.is_empty() {
            let item = std::mem::take(&mut live.item);
            // The clerk may wait for the disk; the connection may end meanwhile.
            tokio::select! {
                sent = self.parts.clerk.send(item) => {
                    sent.map_err(|_| Ended::again(CloseCode::Failed, "the exporter is ending"))?;
                }
                why = closed.as_mut() => return Err(Ended::again(CloseCode::Done, why)),
            }
        }
        while let Some(message) = live.sender.poll_transmit() {
            let frame = message.encode_frame();
            tokio::select! {
                sent = control.send(&frame) => {
                    sent.map_err(|error| Ended::again(CloseCode::Failed, error.to_string()))?;
                }
                why = closed.as_mut() => return Err(Ended::again(CloseCode::Done, why)),
                stall = stalled.as_mut() => return Err(Ended::again(CloseCode::Stalled, stall.to_string())),
            }
        }
        Ok(())
    }

    fn heard(&mut self, live: &mut Live, frame: &[u8]) -> Result<(), Ended> {
        let message = ToExporter::decode_frame(frame)
            .map_err(|error| Ended::again(CloseCode::Misbehaved, error.to_string()))?;
        self.step(live, sender::Event::Message(message))
    }

    fn step(&mut self, live: &mut Live, event: sender::Event) -> Result<(), Ended> {
        live.sender
            .handle(event, self.started.elapsed())
            .map_err(|error| Ended::again(CloseCode::Misbehaved, error.to_string()))
    }

    fn tick(&mut self, live: &mut Live) -> Result<(), Ended> {
        let now = Instant::now();
        if live.session.is_some() && now >= live.next_ends {
            live.next_ends = now + ENDS_INTERVAL;
            self.report_ends(live)?;
        }
        if live.session.is_some() {
            let due = self.holds().due(now);
            live.to_ask.extend(due);
        }
        self.step(live, sender::Event::Tick)
    }

    /// When [`tick`](Self::tick) is to be called.
    fn next_turn(&self, live: &Live) -> Instant {
        let mut next = self.started + live.sender.poll_timeout();
        if live.session.is_some() {
            next = next.min(live.next_ends);
            if let Some(due) = self.holds().next_due() {
                next = next.min(due);
            }
            if !live.to_ask.is_empty() {
                next = next.min(Instant::now() + ASK_AGAIN);
            }
        }
        live.leave_by.map_or(next, |leave_by| next.min(leave_by))
    }

    /// Tells the importer how far the source is, so that it knows its lag.
    fn report_ends(&mut self, live: &mut Live) -> Result<(), Ended> {
        for slot in live.opened.iter().copied().collect::<Vec<_>>() {
            let Some(partition) = self.parts.view.table.get(slot) else { continue };
            let (stable, high) = {
                let facts = partition.facts();
                (facts.ends.map_or(0, |ends| ends.stable), facts.lag.end())
            };
            // An idle link costs nothing: only what changed is said.
            if live.ends.insert(slot, (stable, high)) != Some((stable, high)) {
                self.step(live, sender::Event::End(SourceEnd { slot: slot.0, stable, high }))?;
            }
        }
        Ok(())
    }

    /// Asks the source how to open what is to be opened; the answers come as news.
    fn ask(&self, live: &mut Live) {
        let Some(session) = live.session.filter(|_| live.leave_by.is_none()) else {
            return live.to_ask.clear();
        };
        if live.to_ask.is_empty() {
            return;
        }
        let slots = std::mem::take(&mut live.to_ask);
        if let Err(TrySendError::Full(ask)) = self.parts.asks.try_send(Ask { round: session.0, slots }) {
            // It is asked again with the next turn.
            live.to_ask = ask.slots;
        }
    }

    fn begin_leaving(&mut self, live: &mut Live) {
        tracing::info!(
            "leaving: what was read is sent and waited for, {} s at most",
            LEAVE_PATIENCE.as_secs()
        );
        live.leave_by = Some(Instant::now() + LEAVE_PATIENCE);
        if live.session.is_none() {
            live.leave_by = Some(Instant::now());
        }
        for (_, lane) in self.parts.lanes.all() {
            live.item.commands.push((lane.clone(), Command::Drain));
        }
    }

    fn has_left(&self, live: &Live) -> bool {
        live.leave_by.is_some_and(|leave_by| {
            live.drained.len() >= self.parts.lanes.count() || Instant::now() >= leave_by
        })
    }

    async fn goodbye(&mut self, live: &mut Live, mut control: ControlSend) -> Ended {
        if live.drained.len() < self.parts.lanes.count() && live.session.is_some() {
            tracing::warn!(
                "not everything that was sent was acknowledged within {} s: the next start goes on from what the \
                 importer committed, nothing is lost and nothing repeated",
                LEAVE_PATIENCE.as_secs()
            );
        }
        let why = "the exporter was told to stop";
        let _ = self.step(live, sender::Event::Leave(why.into()));
        let farewell = async {
            while let Some(message) = live.sender.poll_transmit() {
                if control.send(&message.encode_frame()).await.is_err() {
                    return;
                }
            }
            let _ = control.finish();
            // The importer closes when it has read it.
            live.connection.closed().await;
        };
        let _ = tokio::time::timeout(GOODBYE_PATIENCE, farewell).await;
        Ended { left: true, ..Ended::again(CloseCode::Done, why) }
    }

    /// The connection is over.
    async fn finish(&mut self, live: Live, ended: &Ended) {
        self.parts.view.facts.disconnected(&ended.why);
        let Live { connection, session, streams, mut item, .. } = live;
        streams.end();
        let Some(session) = session else { return };
        for partition in self.parts.view.table.active() {
            if partition.state() == State::Flowing {
                partition.set_state(State::Opening);
            }
        }
        for (_, lane) in self.parts.lanes.all() {
            item.commands.push((lane.clone(), Command::End(session)));
        }
        item.events.push(Event::from(Disconnect {
            link: self.parts.config.link.clone(),
            peer: connection.peer().to_string(),
            remote: connection.remote_address().to_string(),
            session: Some(session.0),
            reason: ended.why.clone(),
        }));
        // While the clerk waits for the disk there is nothing better to do than to wait with it.
        let _ = self.parts.clerk.send(item).await;
    }

    fn holds(&self) -> MutexGuard<'_, Holds> {
        self.parts.view.holds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn place(&self, partition: &Partition) -> observe::event::Place {
        partition.place(&self.parts.config.link, self.parts.view.cluster.id())
    }
}

impl Live {
    fn new(connection: Connection, sender: Sender) -> Self {
        Self {
            streams: Streams::new(connection.clone()),
            connection,
            sender,
            session: None,
            opened: BTreeSet::new(),
            ends: BTreeMap::new(),
            awaiting: BTreeSet::new(),
            unanswered: BTreeSet::new(),
            to_ask: BTreeSet::new(),
            doubtful: BTreeMap::new(),
            item: Item::default(),
            drained: BTreeSet::new(),
            leave_by: None,
            next_ends: Instant::now(),
        }
    }
}

/// Whether somebody must change something before the importer lets this exporter in.
fn is_refusal(code: CloseCode) -> bool {
    matches!(
        code,
        CloseCode::WrongIdentity | CloseCode::NotGranted | CloseCode::Version | CloseCode::Untrusted
    )
}

async fn sleep_until(at: Instant) {
    tokio::time::sleep_until(at.into()).await;
}

const FIRST_EPOCH: LaneEpoch = LaneEpoch(1);
/// How long a connection must have lasted for the next attempt to follow at once.
const STABLE: Duration = Duration::from_secs(5);
/// How often the importer is told how far the source is; it travels with the heartbeats.
const ENDS_INTERVAL: Duration = Duration::from_secs(2);
/// How long leaving waits for acknowledgements.
const LEAVE_PATIENCE: Duration = Duration::from_secs(10);
/// How soon a question is put again that the source had no room for.
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// How long the importer may take to say why it ended the conversation.
const CLOSE_PATIENCE: Duration = Duration::from_secs(1);
const GOODBYE_PATIENCE: Duration = Duration::from_secs(1);
