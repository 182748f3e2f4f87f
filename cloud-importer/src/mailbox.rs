//! What the control stream tells a lane's thread. Bounded by coalescing: there is one entry per slot.
//!
//! Parcels go another way, through a channel that the lane's credit bounds; a lane that waits for the target cluster
//! never makes a control stream wait.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
};

use bytes::Bytes;
use proto::{
    ids::{SessionId, Slot},
    receiver::OpenPartition,
    wire::{LanePreface, ParcelHeader},
};
use tokio::sync::{Notify, OwnedSemaphorePermit, mpsc};

use crate::lane::Reply;

/// One lane's mailbox.
#[derive(Debug, Default)]
pub(crate) struct Mailbox {
    mail: Mutex<Mail>,
    news: Notify,
}

/// Everything that came since the lane looked last.
#[derive(Debug, Default)]
pub(crate) struct Mail {
    /// A new session, which voids everything of the one before.
    pub(crate) session: Option<NewSession>,
    pub(crate) opens: BTreeMap<Slot, OpenPartition>,
    pub(crate) closes: BTreeSet<Slot>,
    /// The session's connection is gone.
    pub(crate) ended: bool,
    /// The grant of this session, and of those before it, was taken back: nothing of theirs is written any more.
    pub(crate) void: Option<SessionId>,
    pub(crate) order: Order,
}

/// Whether the lane is to go on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Order {
    #[default]
    Run,
    /// Commit what is accepted, then end.
    Drain,
    /// End now; nothing that is not committed was acknowledged.
    Kill,
}

/// A session that begins, and where its exporter is answered.
#[derive(Debug, Clone)]
pub(crate) struct NewSession {
    pub(crate) id: SessionId,
    pub(crate) replies: mpsc::Sender<Reply>,
}

/// A parcel as it came from the link.
#[derive(Debug)]
pub(crate) struct Arrived {
    pub(crate) session: SessionId,
    pub(crate) preface: LanePreface,
    pub(crate) header: ParcelHeader,
    pub(crate) body: Bytes,
    /// Its place in the lane's memory, given back when it is dropped.
    pub(crate) room: OwnedSemaphorePermit,
}

impl Mailbox {
    pub(crate) fn begin(&self, session: NewSession) {
        self.put(|mail| {
            *mail = Mail { session: Some(session), order: mail.order, void: mail.void, ..Mail::default() };
        });
    }

    pub(crate) fn open(&self, open: OpenPartition) {
        self.put(|mail| {
            mail.closes.remove(&open.slot);
            mail.opens.insert(open.slot, open);
        });
    }

    pub(crate) fn close(&self, slot: Slot) {
        self.put(|mail| {
            mail.opens.remove(&slot);
            mail.closes.insert(slot);
        });
    }

    /// Nobody waits for the answers of the session any more.
    pub(crate) fn ended(&self) {
        self.put(|mail| {
            mail.ended = true;
            mail.opens.clear();
        });
    }

    /// Takes back what was granted to `session`.
    pub(crate) fn void(&self, session: SessionId) {
        self.put(|mail| mail.void = mail.void.max(Some(session)));
    }

    /// The session whose grant was taken back since the last look, for a lane that is busy with what it holds of it.
    pub(crate) fn take_void(&self) -> Option<SessionId> {
        self.lock().void.take()
    }

    /// Asks the lane to end. An order is never taken back.
    pub(crate) fn order(&self, order: Order) {
        self.put(|mail| mail.order = mail.order.max(order));
    }

    /// Puts opens back that could not be answered yet, unless something newer came for their slots or their session
    /// is over.
    pub(crate) fn put_back(&self, opens: Vec<OpenPartition>) {
        let mut mail = self.lock();
        if mail.session.is_none() && !mail.ended {
            for open in opens {
                if !mail.closes.contains(&open.slot) {
                    mail.opens.entry(open.slot).or_insert(open);
                }
            }
        }
    }

    pub(crate) fn take(&self) -> Mail {
        let mut mail = self.lock();
        let order = mail.order;
        std::mem::replace(&mut *mail, Mail { order, ..Mail::default() })
    }

    /// The order in force, without taking anything.
    pub(crate) fn current_order(&self) -> Order {
        self.lock().order
    }

    /// Resolves when something was put in since the last look.
    pub(crate) async fn news(&self) {
        self.news.notified().await;
    }

    fn put(&self, change: impl FnOnce(&mut Mail)) {
        change(&mut self.lock());
        self.news.notify_one();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Mail> {
        // Every change above leaves the mail whole at each step.
        self.mail.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lane::tests::open_of;

    #[test]
    fn opens_of_a_session_that_is_over_are_not_put_back_for_ever() {
        let mailbox = Mailbox::default();
        mailbox.open(open_of("orders", "orders", 0));
        let taken = mailbox.take().opens.into_values().collect();
        mailbox.open(open_of("orders", "orders", 1));
        mailbox.ended();
        mailbox.put_back(taken);
        let mail = mailbox.take();
        assert!(mail.ended && mail.opens.is_empty(), "{mail:?}");
    }

    #[test]
    fn a_grant_that_was_taken_back_stays_so_when_a_new_session_begins() {
        let mailbox = Mailbox::default();
        mailbox.void(SessionId(1));
        mailbox.void(SessionId(2));
        let (replies, _kept) = mpsc::channel(1);
        mailbox.begin(NewSession { id: SessionId(3), replies });
        assert_eq!(mailbox.take().void, Some(SessionId(2)));
        assert_eq!(mailbox.take_void(), None, "once");
    }
}
