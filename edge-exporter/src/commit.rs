//! The exporter's consumer group: how far the link is, for Kafka's own tools.
//!
//! Only what the importer acknowledged is committed. The group decides nothing: positions come from the importer.
//! So a commit that fails is a warning and no more. Lanes note positions, one thread writes them every second.

use std::{
    collections::BTreeMap,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use kafka::GroupPositions;
use proto::ids::Slot;

use crate::{partition::Partition, stop::Stop};

/// Positions to be committed, shared by the lanes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Commit {
    shared: Arc<(Mutex<Due>, Condvar)>,
}

#[derive(Debug, Default)]
struct Due {
    positions: BTreeMap<Slot, (Arc<Partition>, i64)>,
    /// No position will be noted any more.
    closed: bool,
}

impl Commit {
    /// Everything of the partition below `next` is acknowledged.
    pub(crate) fn note(&self, partition: &Arc<Partition>, next: i64) {
        self.lock().positions.insert(partition.slot, (Arc::clone(partition), next));
    }

    /// No position will be noted any more: what is due is written once, then the thread ends.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.shared.1.notify_all();
    }

    /// Writes what is noted, every second, until it is closed or the exporter is killed.
    pub(crate) fn run(&self, mut group: GroupPositions, stop: &Stop) {
        let mut failing = false;
        loop {
            let (due, closed) = self.wait();
            if stop.is_killed() {
                return;
            }
            if let Err(error) = write(&mut group, &due) {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(
                        %error,
                        "positions cannot be committed into the group: carrying goes on, only tools that look at \
                         the group see old positions; make sure that nobody else uses the group"
                    );
                }
                self.put_back(due);
            } else if std::mem::take(&mut failing) {
                tracing::info!("positions are committed into the group again");
            }
            if closed {
                return;
            }
        }
    }

    /// Waits for the next turn; gives what is due, and whether it is the last.
    fn wait(&self) -> (BTreeMap<Slot, (Arc<Partition>, i64)>, bool) {
        let until = Instant::now() + INTERVAL;
        let mut due = self.lock();
        while !due.closed {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            due = self.shared.1.wait_timeout(due, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        (std::mem::take(&mut due.positions), due.closed)
    }

    /// What was not written is due again, unless there is something newer.
    fn put_back(&self, positions: BTreeMap<Slot, (Arc<Partition>, i64)>) {
        let mut due = self.lock();
        for (slot, position) in positions {
            due.positions.entry(slot).or_insert(position);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Due> {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn write(
    group: &mut GroupPositions,
    due: &BTreeMap<Slot, (Arc<Partition>, i64)>,
) -> Result<(), kafka::Error> {
    let positions: Vec<(&str, i32, i64)> = due
        .values()
        // The name may stand for another incarnation by now, whose offsets these are not.
        .filter(|(partition, _)| partition.topic.standing.loss().is_none())
        .map(|(partition, next)| (&*partition.topic.name, partition.number, *next))
        .collect();
    if positions.is_empty() { Ok(()) } else { group.write(&positions, TIMEOUT) }
}

const INTERVAL: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::partition::tests::partition;

    #[test]
    fn what_could_not_be_written_never_replaces_a_newer_position() {
        let commit = Commit::default();
        let (a, b) = (Arc::new(partition(1, "a")), Arc::new(partition(2, "b")));
        commit.note(&a, 5);
        commit.note(&b, 7);
        commit.close();
        let (failed, closed) = commit.wait();
        assert!(closed && failed.len() == 2);
        commit.note(&a, 9);
        commit.put_back(failed);
        let (due, _) = commit.wait();
        assert_eq!(due.values().map(|(_, next)| *next).collect::<Vec<_>>(), [9, 7]);
    }
}
