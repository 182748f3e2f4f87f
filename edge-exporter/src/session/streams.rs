//! The lanes' streams: a task each, which sends what its lane hands over.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
};

use link::{Connection, ParcelSend};
use proto::{
    ids::{Lane, LaneEpoch},
    wire::LanePreface,
};
use tokio::{sync::mpsc, task::JoinHandle};

use crate::lane::Parcel;

/// The streams of one connection.
pub(super) struct Streams {
    connection: Connection,
    tasks: Vec<(Lane, JoinHandle<()>)>,
    weights: BTreeMap<Lane, Arc<AtomicU16>>,
}

impl Streams {
    pub(super) fn new(connection: Connection) -> Self {
        Self { connection, tasks: Vec::new(), weights: BTreeMap::new() }
    }

    /// Opens the stream of a lane epoch and gives up the one before; gives the lane's end of it.
    pub(super) fn open(&mut self, lane: Lane, epoch: LaneEpoch) -> mpsc::Sender<Parcel> {
        if let Some(at) = self.tasks.iter().position(|(other, _)| *other == lane) {
            self.tasks.swap_remove(at).1.abort();
        }
        let (parcels, queue) = mpsc::channel(QUEUE);
        let preface = LanePreface { lane, codec_version: codec::VERSION.into(), epoch };
        let weight = Arc::clone(self.weights.entry(lane).or_default());
        let task = tokio::spawn(carry(self.connection.clone(), preface, queue, weight));
        self.tasks.push((lane, task));
        parcels
    }

    /// A lane carries something of this weight: it has at least this one from now on.
    pub(super) fn raise(&mut self, lane: Lane, weight: u16) {
        self.weights.entry(lane).or_default().fetch_max(weight, Ordering::Relaxed);
    }

    /// Gives all of them up.
    pub(super) fn end(self) {
        for (_, task) in self.tasks {
            task.abort();
        }
    }
}

async fn carry(
    connection: Connection,
    preface: LanePreface,
    mut queue: mpsc::Receiver<Parcel>,
    weight: Arc<AtomicU16>,
) {
    let outcome = async {
        let mut stream: ParcelSend = connection.open_lane(preface).await?;
        while let Some((header, body)) = queue.recv().await {
            stream.set_weight(weight.load(Ordering::Relaxed));
            stream.send(&header, body).await?;
        }
        stream.finish()
    };
    if let Err(error) = outcome.await {
        // The importer's reset, or the connection's end, tells the session in its own way.
        tracing::debug!(%error, lane = %preface.lane, epoch = %preface.epoch, "a lane's stream ended");
    }
}

/// Parcels between a lane and its stream: enough that neither waits for the other's turn.
const QUEUE: usize = 4;
