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
            *mail = Mail { session: Some(session), order: mail.order, ..Mail::default() };
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

    pub(crate) fn ended(&self) {
        self.put(|mail| mail.ended = true);
    }

    /// Asks the lane to end. An order is never taken back.
    pub(crate) fn order(&self, order: Order) {
        self.put(|mail| mail.order = mail.order.max(order));
    }

    /// Puts opens back that could not be answered yet, unless something newer came for their slots.
    pub(crate) fn put_back(&self, opens: Vec<OpenPartition>) {
        let mut mail = self.lock();
        if mail.session.is_none() {
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
