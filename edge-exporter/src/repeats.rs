//! Saying the same thing again and again, but not too often.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// Remembers what was said lately.
#[derive(Debug, Default)]
pub(crate) struct Repeats {
    said: HashMap<String, Said>,
}

#[derive(Debug)]
struct Said {
    at: Instant,
    since_then: u64,
}

impl Repeats {
    /// Whether `what` is to be said now; then how often it happened since it was said last, this time included.
    pub(crate) fn is_due(&mut self, what: &str, now: Instant) -> Option<u64> {
        match self.said.get_mut(what) {
            Some(said) if now.saturating_duration_since(said.at) < INTERVAL => {
                said.since_then += 1;
                None
            }
            Some(said) => {
                said.at = now;
                Some(std::mem::take(&mut said.since_then) + 1)
            }
            None => {
                if self.said.len() >= MAX_REMEMBERED {
                    self.said.clear();
                }
                self.said.insert(what.into(), Said { at: now, since_then: 0 });
                Some(1)
            }
        }
    }

    /// Whatever comes next is news.
    pub(crate) fn clear(&mut self) {
        self.said.clear();
    }
}

const INTERVAL: Duration = Duration::from_secs(10);
const MAX_REMEMBERED: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_words_are_said_every_ten_seconds_with_how_often_they_were_true() {
        let mut repeats = Repeats::default();
        let start = Instant::now();
        assert_eq!(repeats.is_due("no answer", start), Some(1));
        for second in 1..10 {
            assert_eq!(repeats.is_due("no answer", start + Duration::from_secs(second)), None);
        }
        assert_eq!(repeats.is_due("refused", start + Duration::from_secs(5)), Some(1), "other words");
        assert_eq!(repeats.is_due("no answer", start + Duration::from_secs(10)), Some(10));
        repeats.clear();
        assert_eq!(repeats.is_due("no answer", start + Duration::from_secs(11)), Some(1));
    }
}
