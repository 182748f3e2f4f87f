//! How far the target is behind one source partition, in records and seconds, never less than it is.
//!
//! The end of the source is looked at now and then. What appeared between two looks counts as written at the earlier
//! one; what was there at the first look is as old as its timestamps say, at least as old as the look.

use std::{
    collections::VecDeque,
    time::{Duration, Instant, SystemTime},
};

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct Lag {
    log_start: i64,
    end: i64,
    committed: Option<i64>,
    looked: Option<Instant>,
    /// What is not committed: ends, ascending, each with the time since when what is below it may have existed.
    behind: VecDeque<(i64, Since)>,
    /// Timestamp of the oldest record that was read and is not committed, ms since 1970.
    oldest: Option<i64>,
}

#[derive(Debug, Clone, Copy)]
enum Since {
    /// Written after this look at the source.
    Look(Instant),
    /// There at the first look already.
    Before(Instant),
}

impl Lag {
    /// The source was looked at: its first offset and its end (the high watermark).
    pub(crate) fn looked(&mut self, now: Instant, log_start: i64, end: i64) {
        self.log_start = self.log_start.max(log_start);
        self.at_least(now, end);
        self.looked = Some(now);
    }

    /// The source reaches to `end` at least; nobody looked how much further.
    pub(crate) fn at_least(&mut self, now: Instant, end: i64) {
        let since = self.looked.map_or(Since::Before(now), Since::Look);
        // An end that moved back is a log that was cut, or an older answer: what was there is still owed.
        if end > self.end {
            self.end = end;
            if self.committed.is_none_or(|committed| committed < end) {
                self.behind.push_back((end, since));
                self.shorten();
            }
        }
    }

    /// Everything below `next` is durable at the target.
    pub(crate) fn committed(&mut self, next: i64) {
        let next = self.committed.map_or(next, |committed| committed.max(next));
        self.committed = Some(next);
        self.end = self.end.max(next);
        while self.behind.front().is_some_and(|(end, _)| *end <= next) {
            self.behind.pop_front();
        }
        if self.behind.is_empty() {
            self.oldest = None;
        }
    }

    /// The importer's position is lower than what was committed before: the target lost something, or is another.
    pub(crate) fn restart(&mut self, next: i64) {
        if self.committed.is_some_and(|committed| committed > next) && self.end > next {
            let since =
                self.behind.front().map_or_else(|| Since::Before(Instant::now()), |(_, since)| *since);
            let end = self.behind.front().map_or(self.end, |(end, _)| *end);
            if self.behind.is_empty() {
                self.behind.push_front((end, since));
            }
        }
        self.committed = None;
        self.committed(next);
    }

    /// Timestamp of the oldest record that was read and is not committed, ms since 1970.
    pub(crate) fn oldest(&mut self, timestamp_ms: Option<i64>) {
        self.oldest = timestamp_ms;
    }

    /// How far the source reaches, as far as is known.
    pub(crate) fn end(&self) -> i64 {
        self.end
    }

    /// When the source was last looked at.
    pub(crate) fn looked_at(&self) -> Option<Instant> {
        self.looked
    }

    /// Offsets up to the source's end that are not committed.
    pub(crate) fn records(&self) -> u64 {
        let from = self.committed.unwrap_or(self.log_start);
        u64::try_from(self.end - from).unwrap_or(0)
    }

    /// Age of the oldest offset that is not committed. While the source cannot be looked at, nobody knows that there
    /// is none: then the time since the last look.
    pub(crate) fn seconds(&self, now: Instant, wall: SystemTime) -> f64 {
        let unseen = self.looked.map_or(Duration::ZERO, |looked| now.saturating_duration_since(looked));
        let unseen = if unseen > PATIENCE { unseen } else { Duration::ZERO };
        let age = match self.behind.front() {
            None => Duration::ZERO,
            Some((_, Since::Look(look))) => now.saturating_duration_since(*look),
            Some((_, Since::Before(look))) => {
                let ms = self.oldest.and_then(|oldest| u64::try_from(oldest).ok());
                let written = ms.map(|ms| SystemTime::UNIX_EPOCH + Duration::from_millis(ms));
                let age = written.and_then(|written| wall.duration_since(written).ok()).unwrap_or_default();
                age.max(now.saturating_duration_since(*look))
            }
        };
        age.max(unseen).as_secs_f64()
    }

    /// Joins neighbours when there are too many, towards the older time.
    fn shorten(&mut self) {
        if self.behind.len() <= MAX_LOOKS {
            return;
        }
        let joined = self.behind.make_contiguous().chunks(2);
        self.behind = joined.map(|pair| (pair[pair.len() - 1].0, pair[0].1)).collect();
    }
}

/// Looks that are remembered; beyond, two become one.
const MAX_LOOKS: usize = 256;
/// How old a look may be before not knowing counts as lag. Looks are at most a few seconds apart.
const PATIENCE: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    use super::*;

    fn at(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn what_appeared_between_two_looks_counts_from_the_earlier_one() {
        let (start, wall) = (Instant::now(), SystemTime::now());
        let mut lag = Lag::default();
        lag.looked(start, 0, 10);
        lag.committed(10);
        assert_eq!((lag.records(), lag.seconds(start, wall)), (0, 0.0));
        lag.looked(at(start, 5), 0, 20);
        lag.looked(at(start, 7), 0, 30);
        assert_eq!((lag.records(), lag.seconds(at(start, 8), wall)), (20, 8.0));
        lag.committed(19);
        assert_eq!((lag.records(), lag.seconds(at(start, 8), wall)), (11, 8.0));
        lag.committed(20);
        assert_eq!((lag.records(), lag.seconds(at(start, 8), wall)), (10, 3.0));
        lag.committed(30);
        assert_eq!((lag.records(), lag.seconds(at(start, 9), wall)), (0, 0.0));
    }

    #[test]
    fn what_was_there_before_the_first_look_is_as_old_as_its_timestamp() {
        let (start, wall) = (Instant::now(), SystemTime::now());
        let mut lag = Lag::default();
        lag.looked(start, 100, 150);
        assert_eq!(lag.records(), 50, "nothing is known to be committed");
        let hour_ago = wall - Duration::from_secs(3600);
        lag.oldest(Some(hour_ago.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() as i64));
        assert!(lag.seconds(start, wall) >= 3600.0);
        lag.oldest(Some(-1));
        assert_eq!(lag.seconds(at(start, 4), wall), 4.0, "a record without a timestamp");
    }

    #[test]
    fn what_is_read_beyond_the_last_look_counts_from_that_look() {
        let (start, wall) = (Instant::now(), SystemTime::now());
        let mut lag = Lag::default();
        lag.looked(start, 0, 10);
        lag.committed(10);
        lag.at_least(at(start, 2), 15);
        lag.looked(at(start, 3), 0, 30);
        assert_eq!((lag.records(), lag.seconds(at(start, 3), wall)), (20, 3.0));
        lag.committed(15);
        assert_eq!(lag.seconds(at(start, 3), wall), 3.0, "the rest may be as old: nobody looked at 2 s");
    }

    #[test]
    fn a_source_that_cannot_be_looked_at_is_not_reported_as_caught_up() {
        let (start, wall) = (Instant::now(), SystemTime::now());
        let mut lag = Lag::default();
        lag.looked(start, 0, 10);
        lag.committed(10);
        assert_eq!(lag.seconds(at(start, 60), wall), 60.0);
    }

    #[test]
    fn a_long_outage_takes_bounded_memory_and_is_never_under_reported() {
        let (start, wall) = (Instant::now(), SystemTime::now());
        let mut lag = Lag::default();
        lag.looked(start, 0, 1);
        lag.committed(1);
        for second in 1..5_000 {
            lag.looked(at(start, second), 0, 1 + second as i64);
        }
        assert!(lag.behind.len() <= MAX_LOOKS);
        lag.committed(2_500);
        let true_age = 5_000.0 - 2_500.0;
        assert!(lag.seconds(at(start, 5_000), wall) >= true_age);
    }

    #[test]
    fn a_position_that_went_back_shows_as_lag_again() {
        let (start, wall) = (Instant::now(), SystemTime::now());
        let mut lag = Lag::default();
        lag.looked(start, 0, 10);
        lag.committed(10);
        lag.restart(4);
        assert_eq!(lag.records(), 6);
        assert!(lag.seconds(at(Instant::now(), 1), wall) > 0.0);
    }
}
