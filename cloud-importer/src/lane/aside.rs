//! A lane that stands aside for another importer, and when it stands up again.
//!
//! Who owns a lane says so in its progress partition, and commits there with every transaction. As long as that goes on,
//! nothing is wrong but that two importers run. When it stops although records wait, the owner is gone, or no exporter talks to
//! it, and an exporter that asks here would wait for ever. So that two importers do not take turns, a partition that
//! stays where it was although the lane was taken back for its sake is no reason any more (a record that the target refuses
//! holds it, here and there); and where nothing waits, it takes twice as long each time.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use proto::{
    ids::{Offset, SourcePartition},
    progress::Table,
    receiver::OpenPartition,
};

use super::Context;
use crate::{progress_topic, target::Obstacle};

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Aside {
    /// The other importer, by its name in progress.
    pub(super) owner: String,
    seen: Option<Seen>,
}

/// What was last seen of the owner's work.
#[derive(Debug)]
struct Seen {
    looked: Instant,
    /// The end of the lane's progress partition, and since when it has not moved.
    end: i64,
    still_since: Instant,
    /// Where partitions have records that were not committed, and since when that is known.
    waiting: BTreeMap<SourcePartition, (Offset, Instant)>,
    table: Table,
}

/// The times that this session stood up before.
#[derive(Debug, Default)]
pub(super) struct Before {
    /// Partitions that were a reason for it, and where they stood.
    in_vain: BTreeMap<SourcePartition, Offset>,
    /// How often there was none.
    quiet: u32,
}

impl Aside {
    pub(super) fn new(owner: String) -> Self {
        Self { owner, seen: None }
    }

    /// Whether the owner has stopped, judged when `opens` ask for their positions.
    pub(super) fn is_over(
        &mut self,
        context: &Context,
        opens: &[OpenPartition],
        before: &mut Before,
    ) -> Result<bool, Obstacle> {
        let now = Instant::now();
        if self.seen.as_ref().is_none_or(|seen| now.duration_since(seen.looked) >= LOOK_INTERVAL) {
            let topic = context.link.progress_topic();
            let end = progress_topic::committed_end(&context.admin, &topic, context.lane)?;
            if self.seen.as_ref().is_none_or(|seen| seen.end != end) {
                let (table, _) = progress_topic::read_committed(&context.kafka, &topic, context.lane)?;
                if let Some(owner) = &table.owner {
                    self.owner.clone_from(&owner.instance);
                }
                self.seen =
                    Some(Seen { looked: now, end, still_since: now, waiting: BTreeMap::new(), table });
            } else if let Some(seen) = &mut self.seen {
                seen.looked = now;
            }
        }
        let Some(seen) = &mut self.seen else { return Ok(false) };
        for open in opens {
            let next = seen.table.entries.get(&open.partition).map_or(open.start, |entry| entry.next);
            if next < open.end {
                seen.waits(&open.partition, next, now, before);
            }
        }
        Ok(seen.is_over(now, before))
    }
}

impl Seen {
    /// The source has records of a partition from `next` on that progress does not name.
    fn waits(&mut self, partition: &SourcePartition, next: Offset, now: Instant, before: &Before) {
        if before.in_vain.get(partition) != Some(&next) {
            self.waiting.entry(partition.clone()).or_insert((next, now));
        }
    }

    /// Whether the owner has stopped; then what it is believed to have stopped for is remembered.
    fn is_over(&self, now: Instant, before: &mut Before) -> bool {
        let since = |since: Instant| now.duration_since(since);
        if self.waiting.values().any(|(_, at)| since(*at) >= WAITING_PATIENCE) {
            let waiting = self.waiting.iter().map(|(partition, (next, _))| (partition.clone(), *next));
            before.in_vain.extend(waiting);
            return true;
        }
        let quiet = since(self.still_since) >= QUIET_PATIENCE * 2_u32.pow(before.quiet.min(MAX_DOUBLINGS));
        before.quiet += u32::from(quiet);
        quiet
    }
}

/// The owner is looked at so often at most, however many partitions ask.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How long records may wait while the owner commits nothing. An exporter asks every two seconds; with this and the take-over
/// itself records flow again within ten.
const WAITING_PATIENCE: Duration = Duration::from_millis(3500);
/// How long the owner may commit nothing when nothing is known to wait.
const QUIET_PATIENCE: Duration = Duration::from_secs(30);
const MAX_DOUBLINGS: u32 = 6;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lane::tests::open_of;

    fn seen(now: Instant) -> Seen {
        Seen { looked: now, end: 9, still_since: now, waiting: BTreeMap::new(), table: Table::default() }
    }

    #[test]
    fn an_owner_has_stopped_when_records_wait_and_nothing_is_committed() {
        let (start, before) = (Instant::now(), &mut Before::default());
        let after = |millis| start + Duration::from_millis(millis);
        let (poison, other) = (open_of("p", "p", 0).partition, open_of("o", "o", 1).partition);
        let mut owner = seen(start);
        assert!(!owner.is_over(after(5000), before), "nothing waits");
        owner.waits(&poison, Offset(4), after(5000), before);
        owner.waits(&poison, Offset(4), after(6000), before);
        assert!(!owner.is_over(after(8400), before));
        assert!(owner.is_over(after(8500), before));

        // The lane was taken back, and went to the other importer again.
        let mut owner = seen(start);
        owner.waits(&poison, Offset(4), start, before);
        assert!(!owner.is_over(after(20_000), before), "it was no use");
        owner.waits(&other, Offset(0), after(20_000), before);
        assert!(owner.is_over(after(23_500), before), "that is another matter");
        let mut owner = seen(start);
        owner.waits(&poison, Offset(5), start, before);
        assert!(owner.is_over(after(3500), before), "it moved meanwhile");
    }

    #[test]
    fn where_nothing_waits_it_takes_twice_as_long_each_time() {
        let (start, before) = (Instant::now(), &mut Before::default());
        let mut waited = Vec::new();
        for _ in 0..9 {
            let over = |seconds: &u64| seen(start).is_over(start + Duration::from_secs(*seconds), before);
            waited.push((0..).step_by(30).find(over).unwrap());
        }
        assert_eq!(waited, [30, 60, 120, 240, 480, 960, 1920, 1920, 1920]);
    }
}
