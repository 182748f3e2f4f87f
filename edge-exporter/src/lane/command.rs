//! What a lane is told, and what it tells.

use std::sync::Arc;

use bytes::Bytes;
use kafka::SourceError;
use proto::{
    PeerMisbehaved,
    ids::{Lane, LaneEpoch, Offset, ResumeEpoch, SessionId, Slot},
    wire::ParcelHeader,
};
use tokio::sync::mpsc;

use crate::partition::Partition;

/// A parcel on its way to the lane's stream.
pub(crate) type Parcel = (ParcelHeader, Bytes);

/// What the session tells a lane. Commands of a session that is over are ignored.
#[derive(Debug)]
pub(crate) enum Command {
    /// A session stands; its connect is on record.
    Begin { session: SessionId, epoch: LaneEpoch, credit: u64, parcels: mpsc::Sender<Parcel> },
    /// The lane starts anew: another stream, another codec context, positions to come.
    Reset { session: SessionId, epoch: LaneEpoch, credit: u64, parcels: mpsc::Sender<Parcel> },
    /// Read a source partition from a position.
    Resume(Resume),
    /// Send nothing of a slot until it has a position again.
    Remove { session: SessionId, slot: Slot },
    /// Committed at the target.
    Committed { session: SessionId, slot: Slot, next: Offset },
    /// More may be sent.
    Credit { session: SessionId, epoch: LaneEpoch, total: u64 },
    /// The connection is over.
    End(SessionId),
    /// Read nothing more; send what is gathered, and tell when all of it is acknowledged.
    Drain,
}

/// See [`Command::Resume`].
#[derive(Debug)]
pub(crate) struct Resume {
    pub(crate) session: SessionId,
    pub(crate) partition: Arc<Partition>,
    pub(crate) resume_epoch: ResumeEpoch,
    /// The first offset to send.
    pub(crate) next: Offset,
    pub(crate) leader_epoch: Option<i32>,
    /// Whether everything below `next` is known to be durable at the target, and not only accepted there.
    pub(crate) committed: bool,
    pub(crate) expired: Option<Expired>,
}

/// Offsets that the source lost, as an operator accepts.
#[derive(Debug)]
pub(crate) struct Expired {
    /// Where the log begins now.
    pub(crate) log_start: i64,
    /// The operator's words.
    pub(crate) why: Arc<str>,
}

/// What a lane tells the session.
#[derive(Debug)]
pub(crate) enum LaneEvent {
    /// A source partition gives nothing more; it needs a new position.
    Lost { session: SessionId, slot: Slot, cause: SourceError },
    /// A record that no parcel can carry stopped its slot.
    TooLarge { session: SessionId, slot: Slot, offset: i64, bytes: u64 },
    /// The importer said what cannot be true.
    Misbehaved { session: SessionId, error: PeerMisbehaved },
    /// The lane cannot work in this session.
    Failed { session: SessionId, what: String },
    /// Everything that was sent is acknowledged.
    Drained(Lane),
}
