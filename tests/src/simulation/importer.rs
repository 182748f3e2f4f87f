//! The importer as an engine would run it: one receiver per connection, sessions, and a worker per lane.

use std::collections::BTreeMap;

use proto::{
    PeerMisbehaved,
    ids::{Lane as LaneId, SessionId},
    policy::{LinkPolicy, Mapping, Policy},
    receiver::{self, Action, Entry, Receiver, Sessions},
    wire::Hello,
};

use self::lane::{Input, Worker};
use super::{
    LANES, LINK, Planted, WINDOW,
    context::{Context, Event},
    network::{Connection, Up},
};

mod lane;

/// One importer process.
#[derive(Debug)]
pub(super) struct Importer {
    id: usize,
    policy: Policy,
    sessions: Sessions,
    peers: BTreeMap<Connection, Peer>,
    workers: Vec<Worker>,
}

#[derive(Debug)]
struct Peer {
    receiver: Receiver,
    hello: Option<Hello>,
    session: Option<SessionId>,
    /// Its end is known; nothing of it counts any more.
    gone: bool,
}

/// What an importer does by itself.
#[derive(Debug)]
pub(super) enum Step {
    /// Policy, sessions and audit have decided about a connection.
    Admit(Connection),
    Tick(Connection),
    Work(LaneId),
}

/// Whether the process goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    GoesOn,
    /// Progress names a newer owner.
    StandsDown,
}

impl Importer {
    pub(super) fn start(id: usize, ctx: &mut Context) -> Self {
        let granted: &[&str] =
            if ctx.is_planted(Planted::GrantUnchecked) { &["*"] } else { &["orders", "inv*", "payments"] };
        let link = LinkPolicy {
            identity: IDENTITY.into(),
            cluster: None,
            topics: granted.iter().map(|pattern| pattern.parse().expect("a legal pattern")).collect(),
            mapping: Mapping::default(),
            rate: None,
        };
        let mut policy = Policy::new();
        policy.insert(LINK, link);
        let mut importer = Self {
            id,
            policy,
            sessions: Sessions::new(SessionId(0)),
            peers: BTreeMap::new(),
            workers: (0..LANES).map(|lane| Worker::new(id, LaneId(lane))).collect(),
        };
        for lane in 0..LANES {
            importer.wake(LaneId(lane), ctx);
        }
        importer
    }

    pub(super) fn hear(&mut self, connection: Connection, what: Up, ctx: &mut Context) {
        let time = ctx.time();
        let peer = self.peers.entry(connection).or_insert_with(|| {
            let tick = Event::Importer(self.id, Step::Tick(connection));
            ctx.after(10_000, tick);
            Peer { receiver: Receiver::new(time), hello: None, session: None, gone: false }
        });
        if peer.gone && !ctx.is_planted(Planted::SessionsUnfenced) {
            return;
        }
        let session = peer.session;
        match what {
            Up::Message(message) => self.handle(connection, receiver::Event::Message(message), ctx),
            Up::Parcel(lane, header, batch) => {
                let session = if ctx.is_planted(Planted::SessionsUnfenced) {
                    session.and_then(|_| self.sessions.current())
                } else {
                    session
                };
                if let Some(session) = session {
                    self.push(LaneId(lane), Input::Parcel { session, header, batch }, ctx);
                }
            }
        }
        if let Some(session) = session {
            self.sessions.heard(session, time);
        }
    }

    pub(super) fn step(&mut self, step: Step, ctx: &mut Context) -> Life {
        match step {
            Step::Admit(connection) => self.admit(connection, ctx),
            Step::Tick(connection) => {
                if self.peers.get(&connection).is_some_and(|peer| !peer.gone) {
                    self.handle(connection, receiver::Event::Tick, ctx);
                }
            }
            Step::Work(lane) => {
                let worker = &mut self.workers[usize::from(lane.0)];
                let life = worker.step(ctx);
                self.tell(lane, ctx);
                self.wake(lane, ctx);
                return life;
            }
        }
        Life::GoesOn
    }

    pub(super) fn lose(&mut self, connection: Connection) {
        let Some(peer) = self.peers.get_mut(&connection) else { return };
        peer.gone = true;
        if let Some(session) = peer.session {
            self.sessions.ended(session);
        }
    }

    fn handle(&mut self, connection: Connection, event: receiver::Event, ctx: &mut Context) {
        let Some(peer) = self.peers.get_mut(&connection) else { return };
        match peer.receiver.handle(event, ctx.time()) {
            Ok(()) => self.act(connection, ctx),
            Err(PeerMisbehaved::NoHello) => self.refuse(connection, ctx),
            Err(error) => ctx.misbehaved("the importer", &error),
        }
    }

    fn act(&mut self, connection: Connection, ctx: &mut Context) {
        while let Some(peer) = self.peers.get_mut(&connection) {
            if let Some(message) = peer.receiver.poll_transmit() {
                ctx.send_down(connection, message);
                continue;
            }
            let Some(action) = peer.receiver.poll_action() else { return };
            let session = peer.session;
            match (action, session) {
                (Action::Admit(hello), _) => {
                    peer.hello = Some(hello);
                    let delay = ctx.pause(20);
                    ctx.after(delay, Event::Importer(self.id, Step::Admit(connection)));
                }
                (Action::Open(open), Some(session)) => {
                    self.push(open.lane, Input::Open { session, open }, ctx);
                }
                (Action::Close { lane, slot }, Some(session)) => {
                    self.push(lane, Input::Close { session, slot }, ctx);
                }
                (Action::Open(_) | Action::Close { .. }, None) => {
                    unreachable!("nothing is opened before a session stands")
                }
                (Action::Refused { .. } | Action::End { .. } | Action::Left(_), _) => {}
            }
        }
    }

    fn admit(&mut self, connection: Connection, ctx: &mut Context) {
        let Some(peer) = self.peers.get_mut(&connection).filter(|peer| !peer.gone) else { return };
        let Some(hello) = peer.hello.take() else { return };
        let Ok(grant) = self.policy.admit(&hello.link, IDENTITY, &hello.source_cluster_id) else {
            return self.refuse(connection, ctx);
        };
        let Entry::Welcome { session, replaces } = self.sessions.hello(&hello, ctx.time()) else {
            return self.refuse(connection, ctx);
        };
        peer.session = Some(session);
        let replaced = self.peers.iter().find(|(_, peer)| replaces.is_some() && peer.session == replaces);
        let replaced = replaced.map(|(connection, _)| *connection);
        if let Some(replaced) = replaced.filter(|_| !ctx.is_planted(Planted::SessionsUnfenced)) {
            self.refuse(replaced, ctx);
        }
        for lane in 0..LANES {
            self.push(LaneId(lane), Input::Session(session), ctx);
        }
        let admitted = receiver::Event::Admitted { session, grant, lanes: LANES, credit: WINDOW };
        self.handle(connection, admitted, ctx);
    }

    fn refuse(&mut self, connection: Connection, ctx: &mut Context) {
        ctx.cut(connection, 200);
        if let Some(peer) = self.peers.get_mut(&connection) {
            peer.gone = true;
        }
    }

    fn push(&mut self, lane: LaneId, input: Input, ctx: &mut Context) {
        self.workers[usize::from(lane.0)].push(input);
        self.wake(lane, ctx);
    }

    fn wake(&mut self, lane: LaneId, ctx: &mut Context) {
        if let Some(delay) = self.workers[usize::from(lane.0)].wake(ctx) {
            ctx.after(delay, Event::Importer(self.id, Step::Work(lane)));
        }
    }

    /// What a lane has to say goes to the connection of its session.
    fn tell(&mut self, lane: LaneId, ctx: &mut Context) {
        let worker = &mut self.workers[usize::from(lane.0)];
        let session = worker.session();
        let peer = self.peers.iter().find(|(_, peer)| session.is_some() && peer.session == session);
        let connection = peer.map(|(connection, _)| *connection);
        for message in worker.messages() {
            if let Some(connection) = connection {
                ctx.send_down(connection, message);
            }
        }
    }
}

/// Who the exporter's certificate says it is.
const IDENTITY: &str = "spiffe://example.org/exporter/edge";
