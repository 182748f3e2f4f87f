//! A request that was caught on its way and waits in the proxy's hand.

use std::io;
use std::net::TcpStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Shared;
use super::inspect;
use crate::wire::{RequestHeader, read_frame, write_frame};

/// A broker that is busy with a fault may take a while; for ever it may not.
const ANSWER_PATIENCE: Duration = Duration::from_secs(30);

/// The meeting point of the connection that caught the request and the [`Held`] that decides on it.
#[derive(Debug, Default)]
pub(super) struct Hold {
    phase: Mutex<Phase>,
    changed: Condvar,
}

#[derive(Debug, Default)]
enum Phase {
    /// No request has fitted yet.
    #[default]
    Waiting,
    /// The connection thread waits for a decision.
    Caught(Caught),
    /// The connection thread forwards the request and reports the answer.
    Released,
    /// The answer has come, with its error code where the proxy can read it.
    Answered(Option<i16>),
    /// The request will never be forwarded by its connection.
    Gone,
}

#[derive(Debug, Clone)]
pub(super) struct Caught {
    pub(super) header: RequestHeader,
    pub(super) frame: Vec<u8>,
    pub(super) connection: u64,
    pub(super) target: String,
}

impl Hold {
    /// Called by the connection thread: gives the request away and waits. True: forward it.
    pub(super) fn catch(&self, caught: Caught) -> bool {
        let mut phase = self.lock();
        if matches!(*phase, Phase::Gone) {
            return false;
        }
        *phase = Phase::Caught(caught);
        self.changed.notify_all();
        while matches!(*phase, Phase::Caught(_)) {
            phase = self.changed.wait(phase).unwrap_or_else(PoisonError::into_inner);
        }
        matches!(*phase, Phase::Released)
    }

    /// Called by the connection's answer thread; `None` when the connection ended without an answer.
    pub(super) fn answered(&self, code: Option<i16>) {
        let mut phase = self.lock();
        if matches!(*phase, Phase::Released) {
            *phase = Phase::Answered(code);
            self.changed.notify_all();
        }
    }

    /// The connection ended without an answer to the released request.
    pub(super) fn lost(&self) {
        let mut phase = self.lock();
        if matches!(*phase, Phase::Released) {
            *phase = Phase::Gone;
            self.changed.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A rule that catches the next request that fits, and then that request.
///
/// Dropped: an uncaught rule is withdrawn; a caught request is thrown away and its connection cut.
#[derive(Debug)]
pub struct Held {
    pub(super) hold: Arc<Hold>,
    pub(super) rule: u64,
    pub(super) shared: Arc<Shared>,
    /// The request, once its connection was cut and its bytes are all there is of it.
    pub(super) kept: Mutex<Option<Caught>>,
}

impl Held {
    /// Waits until a request is in hand; false when none came in time.
    #[must_use]
    pub fn wait(&self, timeout: Duration) -> bool {
        let phase = self.hold.lock();
        let waiting = |phase: &mut Phase| matches!(phase, Phase::Waiting);
        let (phase, _) = self
            .hold
            .changed
            .wait_timeout_while(phase, timeout, waiting)
            .unwrap_or_else(PoisonError::into_inner);
        !matches!(*phase, Phase::Waiting)
    }

    /// Cuts the connection that the request came on; the request stays in hand.
    ///
    /// # Panics
    /// When no request was caught yet: see [`Held::wait`].
    pub fn cut_client(&self) {
        let mut phase = self.hold.lock();
        let Phase::Caught(caught) = &*phase else {
            panic!("there is no request in hand to cut the client of")
        };
        self.shared.cut(caught.connection);
        *self.kept() = Some(caught.clone());
        *phase = Phase::Gone;
        self.hold.changed.notify_all();
    }

    /// Forwards the request and waits for the broker's answer: on its own connection, or over a new one when that was
    /// cut. Gives the error code of the answer where the proxy can read it (`EndTxn`, `InitProducerId`).
    ///
    /// # Panics
    /// When no request was caught yet: see [`Held::wait`].
    pub fn release(&self) -> io::Result<Option<i16>> {
        if let Some(caught) = self.kept().take() {
            return send_anew(&caught);
        }
        let mut phase = self.hold.lock();
        let Phase::Caught(caught) = &*phase else { panic!("there is no request in hand to release") };
        if !self.shared.is_open(caught.connection) {
            let caught = caught.clone();
            *phase = Phase::Gone;
            self.hold.changed.notify_all();
            drop(phase);
            return send_anew(&caught);
        }
        *phase = Phase::Released;
        self.hold.changed.notify_all();
        let unanswered = |phase: &mut Phase| matches!(phase, Phase::Released);
        let (phase, _) = self
            .hold
            .changed
            .wait_timeout_while(phase, ANSWER_PATIENCE, unanswered)
            .unwrap_or_else(PoisonError::into_inner);
        match *phase {
            Phase::Answered(code) => Ok(code),
            Phase::Gone => Err(io::ErrorKind::ConnectionReset.into()),
            _ => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    fn kept(&self) -> MutexGuard<'_, Option<Caught>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.shared.remove_rule(self.rule);
        let mut phase = self.hold.lock();
        if let Phase::Caught(caught) = &*phase {
            self.shared.cut(caught.connection);
        }
        if matches!(*phase, Phase::Caught(_) | Phase::Waiting) {
            *phase = Phase::Gone;
            self.hold.changed.notify_all();
        }
    }
}

fn send_anew(caught: &Caught) -> io::Result<Option<i16>> {
    let mut stream = TcpStream::connect(&caught.target)?;
    stream.set_read_timeout(Some(ANSWER_PATIENCE))?;
    write_frame(&mut stream, &caught.frame)?;
    let answer = read_frame(&mut stream)?.ok_or(io::ErrorKind::UnexpectedEof)?;
    Ok(inspect::error_code(&caught.header, &answer))
}
