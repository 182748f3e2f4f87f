use std::time::Duration;

use crate::{ids::SessionId, limits, wire};

/// Which connection of a link counts: there is one session at a time.
///
/// A newer connection of the same exporter process wins at once. Another process waits until the first has been silent
/// for [`limits::INSTANCE_PATIENCE`], so that two exporters started by mistake do not take turns.
#[derive(Debug, Default)]
pub struct Sessions {
    last: SessionId,
    current: Option<Current>,
}

#[derive(Debug)]
struct Current {
    session: SessionId,
    instance: String,
    nonce: u64,
    last_heard: Duration,
}

/// What becomes of a connection that said hello.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// It is the session now; the one it replaces, if any, is to be closed.
    Welcome {
        /// Its number.
        session: SessionId,
        /// The session that ends with it.
        replaces: Option<SessionId>,
    },
    /// Another exporter process holds the link.
    Busy {
        /// Which one.
        instance: String,
        /// After how long a silence it may be replaced.
        free_in: Duration,
    },
    /// A newer connection of the same process was here already.
    Stale,
}

impl Sessions {
    /// No session yet. `last` is the last number given to a session of this link, so that numbers only grow.
    pub fn new(last: SessionId) -> Self {
        Self { last, current: None }
    }

    /// A connection said hello.
    pub fn hello(&mut self, hello: &wire::Hello, now: Duration) -> Entry {
        let mut replaces = None;
        if let Some(current) = &self.current {
            if current.instance == hello.instance {
                if hello.nonce <= current.nonce {
                    return Entry::Stale;
                }
            } else if now < current.last_heard + limits::INSTANCE_PATIENCE {
                let free_in = current.last_heard + limits::INSTANCE_PATIENCE - now;
                return Entry::Busy { instance: current.instance.clone(), free_in };
            }
            replaces = Some(current.session);
        }
        self.last = SessionId(self.last.0 + 1);
        self.current = Some(Current {
            session: self.last,
            instance: hello.instance.clone(),
            nonce: hello.nonce,
            last_heard: now,
        });
        Entry::Welcome { session: self.last, replaces }
    }

    /// The current session, if there is one.
    pub fn current(&self) -> Option<SessionId> {
        self.current.as_ref().map(|current| current.session)
    }

    /// Something came from a session.
    pub fn heard(&mut self, session: SessionId, now: Duration) {
        if let Some(current) = self.current.as_mut().filter(|current| current.session == session) {
            current.last_heard = now;
        }
    }

    /// A session's connection is gone: another process may come at once.
    pub fn ended(&mut self, session: SessionId) {
        if self.current() == Some(session) {
            self.current = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(instance: &str, nonce: u64) -> wire::Hello {
        wire::Hello { instance: instance.into(), nonce, ..wire::Hello::default() }
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_newer_connection_of_the_same_instance_wins_at_once_and_an_older_one_never() {
        let mut sessions = Sessions::default();
        assert_eq!(
            sessions.hello(&hello("a", 1), SECOND),
            Entry::Welcome { session: SessionId(1), replaces: None }
        );
        assert_eq!(
            sessions.hello(&hello("a", 3), SECOND),
            Entry::Welcome { session: SessionId(2), replaces: Some(SessionId(1)) }
        );
        assert_eq!(sessions.hello(&hello("a", 2), SECOND), Entry::Stale, "raced, and late");
        sessions.ended(SessionId(1));
        assert_eq!(sessions.current(), Some(SessionId(2)), "the old one's end is not the new one's");
    }

    #[test]
    fn another_instance_waits_until_the_first_is_silent_or_gone() {
        let mut sessions = Sessions::default();
        sessions.hello(&hello("a", 1), SECOND);
        sessions.heard(SessionId(1), 5 * SECOND);
        let busy = sessions.hello(&hello("b", 1), 6 * SECOND);
        assert_eq!(busy, Entry::Busy { instance: "a".into(), free_in: limits::INSTANCE_PATIENCE - SECOND });
        let later = 5 * SECOND + limits::INSTANCE_PATIENCE;
        assert!(matches!(
            sessions.hello(&hello("b", 1), later),
            Entry::Welcome { session: SessionId(2), replaces: Some(SessionId(1)) }
        ));
        sessions.ended(SessionId(2));
        assert!(matches!(sessions.hello(&hello("a", 2), later), Entry::Welcome { replaces: None, .. }));
    }
}
