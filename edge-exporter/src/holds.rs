//! Source partitions that stand still on purpose: why, since when, and when they are tried again.
//!
//! Every hold is tried again by itself: what an operator cured goes on without a restart. A hold that comes back with
//! the same reason is no news; it is logged and put on record when it begins, when its reason changes and when it ends.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant, SystemTime},
};

use proto::{hold::Reason, ids::Slot};

/// Why a source partition stands still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// One of the named reasons.
    Hold(Reason),
    /// The importer does not grant the topic.
    Refused,
}

/// What ends a hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Until {
    /// A position to read from.
    Resumed,
    /// Something beyond this offset is committed: the position alone was never the matter.
    Committed(i64),
}

/// A source partition that stands still.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    pub(crate) cause: Cause,
    pub(crate) detail: String,
    pub(crate) since: SystemTime,
    until: Until,
    next_try: Option<Instant>,
    backoff: Duration,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Holds {
    held: BTreeMap<Slot, Held>,
}

impl Holds {
    /// `slot` stands still. Says whether that is news.
    pub(crate) fn hold(
        &mut self,
        slot: Slot,
        cause: Cause,
        detail: &str,
        until: Until,
        now: Instant,
    ) -> bool {
        let (first, longest) = backoff(cause);
        if let Some(held) = self.held.get_mut(&slot)
            && held.cause == cause
        {
            held.detail = detail.into();
            held.until = until;
            held.next_try = Some(now + held.backoff);
            held.backoff = (held.backoff * 2).min(longest);
            return false;
        }
        let held = Held {
            cause,
            detail: detail.into(),
            since: SystemTime::now(),
            until,
            next_try: Some(now + first),
            backoff: (first * 2).min(longest),
        };
        self.held.insert(slot, held);
        true
    }

    /// `slot` has a position to read from. Gives the hold that this ends.
    pub(crate) fn resumed(&mut self, slot: Slot) -> Option<Held> {
        if self.held.get(&slot)?.until == Until::Resumed { self.held.remove(&slot) } else { None }
    }

    /// Everything of `slot` below `next` is committed. Gives the hold that this ends.
    pub(crate) fn committed(&mut self, slot: Slot, next: i64) -> Option<Held> {
        match self.held.get(&slot)?.until {
            Until::Committed(beyond) if next > beyond => self.held.remove(&slot),
            // What is acknowledged may have been sent before the hold.
            Until::Committed(_) | Until::Resumed => None,
        }
    }

    /// `slot` is not carried any more.
    pub(crate) fn forget(&mut self, slot: Slot) -> Option<Held> {
        self.held.remove(&slot)
    }

    pub(crate) fn get(&self, slot: Slot) -> Option<&Held> {
        self.held.get(&slot)
    }

    /// The slots that the importer does not grant.
    pub(crate) fn refused(&self) -> Vec<Slot> {
        self.held.iter().filter(|(_, held)| held.cause == Cause::Refused).map(|(slot, _)| *slot).collect()
    }

    /// The slots to be tried again now. Each waits for its outcome: [`hold`](Self::hold) again, or an end.
    pub(crate) fn due(&mut self, now: Instant) -> Vec<Slot> {
        let mut due = Vec::new();
        for (slot, held) in &mut self.held {
            if held.next_try.is_some_and(|at| at <= now) {
                // Should the outcome never come, it is tried again all the same.
                held.next_try = Some(now + MAX_BACKOFF);
                due.push(*slot);
            }
        }
        due
    }

    /// When the next one is due.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.held.values().filter_map(|held| held.next_try).min()
    }
}

/// The first pause between two tries, and the longest.
fn backoff(cause: Cause) -> (Duration, Duration) {
    match cause {
        // Ends without anybody's doing, when the other importer is gone: within ten seconds.
        Cause::Hold(Reason::OwnedElsewhere) => (OWNER_BACKOFF, OWNER_BACKOFF),
        _ => (FIRST_BACKOFF, MAX_BACKOFF),
    }
}

const OWNER_BACKOFF: Duration = Duration::from_secs(2);
const FIRST_BACKOFF: Duration = Duration::from_secs(5);
const MAX_BACKOFF: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    const GONE: Cause = Cause::Hold(Reason::SourceGone);
    const SLOT: Slot = Slot(3);

    #[test]
    fn a_hold_is_tried_again_after_5_10_20_40_60_and_60_seconds() {
        let mut holds = Holds::default();
        let mut now = Instant::now();
        assert!(holds.hold(SLOT, GONE, "gone", Until::Resumed, now), "news");
        let mut waits = Vec::new();
        for _ in 0..6 {
            let due = holds.next_due().unwrap();
            assert!(holds.due(due - Duration::from_millis(1)).is_empty());
            assert_eq!(holds.due(due), [SLOT]);
            waits.push((due - now).as_secs());
            now = due;
            assert!(!holds.hold(SLOT, GONE, "still gone", Until::Resumed, now), "no news");
        }
        assert_eq!(waits, [5, 10, 20, 40, 60, 60]);
        assert_eq!(holds.get(SLOT).unwrap().detail, "still gone");
    }

    #[test]
    fn a_partition_that_another_importer_owns_is_tried_again_every_two_seconds() {
        let mut holds = Holds::default();
        let mut now = Instant::now();
        for _ in 0..5 {
            holds.hold(SLOT, Cause::Hold(Reason::OwnedElsewhere), "theirs", Until::Resumed, now);
            assert_eq!(holds.next_due(), Some(now + OWNER_BACKOFF));
            now += OWNER_BACKOFF;
        }
    }

    #[test]
    fn another_reason_is_news_and_starts_the_backoff_anew() {
        let mut holds = Holds::default();
        let now = Instant::now();
        for _ in 0..5 {
            holds.hold(SLOT, GONE, "gone", Until::Resumed, now);
        }
        let other = Cause::Hold(Reason::SourceTruncated);
        assert!(holds.hold(SLOT, other, "truncated", Until::Resumed, now));
        assert_eq!(holds.next_due(), Some(now + FIRST_BACKOFF));
    }

    #[test]
    fn a_try_without_an_outcome_is_tried_again() {
        let mut holds = Holds::default();
        let now = Instant::now();
        holds.hold(SLOT, GONE, "gone", Until::Resumed, now);
        assert_eq!(holds.due(now + FIRST_BACKOFF), [SLOT]);
        assert!(holds.due(now + FIRST_BACKOFF * 2).is_empty());
        assert_eq!(holds.due(now + FIRST_BACKOFF + MAX_BACKOFF), [SLOT]);
    }

    #[test]
    fn a_record_that_was_too_large_ends_its_hold_only_when_it_is_past() {
        let mut holds = Holds::default();
        let cause = Cause::Hold(Reason::RecordTooLargeForLink);
        holds.hold(SLOT, cause, "offset 7", Until::Committed(7), Instant::now());
        assert!(holds.resumed(SLOT).is_none());
        assert!(holds.committed(SLOT, 7).is_none(), "everything below it");
        assert_eq!(holds.committed(SLOT, 8).unwrap().cause, cause);
        assert!(holds.get(SLOT).is_none());
    }
}
