//! A lane that stands aside for another importer, and when it stands up again.
//!
//! Who owns a lane says so in its progress partition, and commits there with every transaction. As long as that goes on,
//! nothing is wrong but that two importers run. When it stops although records wait (or for long, although none do), the
//! owner is gone, or no exporter talks to it, and an exporter that asks here would wait for ever. Each time this was
//! wrong or was needed again, it takes twice as long the next time: two importers do not take turns.

use std::time::{Duration, Instant};

use proto::{progress::Table, receiver::OpenPartition};

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
    /// Since when records wait that were not committed.
    waiting_since: Option<Instant>,
    table: Table,
}

impl Aside {
    pub(super) fn new(owner: String) -> Self {
        Self { owner, seen: None }
    }

    /// Whether the owner has stopped, judged when `opens` ask for their positions. `times` counts how often this lane stood
    /// up before.
    pub(super) fn is_over(
        &mut self,
        context: &Context,
        opens: &[OpenPartition],
        times: u32,
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
                self.seen = Some(Seen { looked: now, end, still_since: now, waiting_since: None, table });
            } else if let Some(seen) = &mut self.seen {
                seen.looked = now;
            }
        }
        let Some(seen) = &mut self.seen else { return Ok(false) };
        let waits = opens.iter().any(|open| waits(&seen.table, open));
        Ok(seen.judge(now, waits, times))
    }
}

impl Seen {
    fn judge(&mut self, now: Instant, waits: bool, times: u32) -> bool {
        if waits {
            self.waiting_since.get_or_insert(now);
        }
        let factor = 2_u32.pow(times.min(MAX_DOUBLINGS));
        let over = |since: Instant, patience: Duration| now.duration_since(since) >= patience * factor;
        self.waiting_since.is_some_and(|since| over(since, WAITING_PATIENCE))
            || over(self.still_since, QUIET_PATIENCE)
    }
}

/// Whether the source has records of the partition that progress does not name.
fn waits(table: &Table, open: &OpenPartition) -> bool {
    let next = table.entries.get(&open.partition).map_or(open.start, |entry| entry.next);
    next < open.end
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
    use proto::ids::Offset;

    fn seen(now: Instant) -> Seen {
        Seen { looked: now, end: 9, still_since: now, waiting_since: None, table: Table::default() }
    }

    #[test]
    fn an_owner_has_stopped_when_records_wait_and_nothing_is_committed() {
        let start = Instant::now();
        let after = |millis| start + Duration::from_millis(millis);
        let mut owner = seen(start);
        assert!(!owner.judge(after(2000), true, 0), "they wait since now");
        assert!(!owner.judge(after(5400), false, 0));
        assert!(owner.judge(after(5500), false, 0));
        assert!(!owner.judge(after(5500), false, 1), "the second time it takes twice as long");
        assert!(owner.judge(after(9000), false, 1));
        let mut owner = seen(start);
        assert!(!owner.judge(after(29_900), false, 0), "nothing waits");
        assert!(owner.judge(after(30_000), false, 0));
        assert!(!owner.judge(after(30_000), false, 99));
        assert!(owner.judge(after(30_000 * 64), false, 99));
    }

    #[test]
    fn records_wait_where_the_source_has_more_than_progress_names() {
        let open =
            |start, end| OpenPartition { start: Offset(start), end: Offset(end), ..open_of("t", "t", 0) };
        assert!(!waits(&Table::default(), &open(5, 5)));
        assert!(waits(&Table::default(), &open(5, 6)));
    }
}
