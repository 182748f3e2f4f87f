//! A link at the importer: its session, its lanes. Links share nothing but the process.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use proto::{
    ids::{Lane, SessionId},
    receiver::Sessions,
};

use crate::{
    board::Board,
    config,
    lane::LaneHandle,
    mailbox::{NewSession, Order},
};

/// One configured link.
pub(crate) struct LinkState {
    pub(crate) name: Arc<str>,
    pub(crate) config: Arc<config::Link>,
    pub(crate) board: Arc<Board>,
    sessions: Mutex<Sessions>,
    lanes: Vec<LaneHandle>,
}

impl LinkState {
    pub(crate) fn new(config: Arc<config::Link>, board: Arc<Board>, lanes: Vec<LaneHandle>) -> Self {
        Self { name: config.name.as_str().into(), config, board, sessions: Mutex::default(), lanes }
    }

    pub(crate) fn sessions(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A lane that exists: numbers of peers are checked before.
    pub(crate) fn lane(&self, lane: Lane) -> &LaneHandle {
        &self.lanes[usize::from(lane.0)]
    }

    /// Tells every lane of a new session. The session before loses its answers, and ends by that.
    pub(crate) fn begin_session(&self, session: &NewSession) {
        // Under the lock, so that lanes see sessions in their order.
        let sessions = self.sessions();
        if sessions.current() == Some(session.id) {
            self.lanes.iter().for_each(|lane| lane.mailbox.begin(session.clone()));
        }
    }

    /// What was granted to a session was taken back: what lanes hold of it is dropped. None of it was acknowledged.
    pub(crate) fn void_session(&self, session: SessionId) {
        self.lanes.iter().for_each(|lane| lane.mailbox.void(session));
    }

    /// What the link is granted changed. A session that is there looks for itself; what lanes still hold of one that is gone
    /// is dropped, as its exporter is not here to be judged.
    pub(crate) fn policy_changed(&self) {
        // Under the lock, so that no session begins meanwhile.
        let sessions = self.sessions();
        if sessions.current().is_none() {
            self.void_session(SessionId(u64::MAX));
        }
    }

    /// A session's connection is gone; says whether it was the current one.
    pub(crate) fn end_session(&self, session: SessionId) -> bool {
        let mut sessions = self.sessions();
        let was_current = sessions.current() == Some(session);
        sessions.ended(session);
        if was_current {
            self.lanes.iter().for_each(|lane| lane.mailbox.ended());
        }
        was_current
    }

    /// Tells every lane to end.
    pub(crate) fn order(&self, order: Order) {
        self.lanes.iter().for_each(|lane| lane.mailbox.order(order));
    }

    /// Waits until every lane has ended.
    pub(crate) fn join(&self) {
        self.lanes.iter().for_each(LaneHandle::join);
    }
}
