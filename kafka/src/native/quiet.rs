//! librdkafka's log, without its repetitions.
//!
//! While a cluster is down every client says so every second, for each broker. Here a line of a kind is passed on once;
//! what follows within a minute is counted, and the next line tells how many there were. That a cluster is back is told
//! by whoever works with it: librdkafka has no word for it.

use std::{
    collections::HashMap,
    sync::{LazyLock, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Which lines are alike: those of one client about one matter. Numbers in the text differ from line to line.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Kind {
    client: String,
    facility: String,
    text: String,
}

#[derive(Debug)]
struct Said {
    at: Instant,
    left_out: u64,
}

/// What was said lately.
#[derive(Debug, Default)]
struct Quiet(HashMap<Kind, Said>);

/// Whether a line is to be passed on; then how many like it were left out since the last one.
pub(super) fn is_due(client: &str, facility: &str, line: &str) -> Option<u64> {
    static SAID: LazyLock<Mutex<Quiet>> = LazyLock::new(Mutex::default);
    let kind = Kind { client: without_digits(client), facility: facility.to_owned(), text: matter(line) };
    SAID.lock().unwrap_or_else(PoisonError::into_inner).note(kind, Instant::now())
}

impl Quiet {
    fn note(&mut self, kind: Kind, now: Instant) -> Option<u64> {
        if let Some(said) = self.0.get_mut(&kind) {
            if now.saturating_duration_since(said.at) < INTERVAL {
                said.left_out += 1;
                return None;
            }
            said.at = now;
            return Some(std::mem::take(&mut said.left_out));
        }
        if self.0.len() >= MAX_KINDS {
            self.0.clear();
        }
        self.0.insert(kind, Said { at: now, left_out: 0 });
        Some(0)
    }
}

/// A line without its digits, and without what follows the first parenthesis: times and counts. What it begins with in
/// brackets names the broker, and stays.
fn matter(line: &str) -> String {
    let (broker, text) = line.split_once("]: ").unwrap_or(("", line));
    let text = text.split_once('(').map_or(text, |(text, _)| text);
    // The text repeats the broker's name.
    format!("{broker}{}", without_digits(text))
}

fn without_digits(text: &str) -> String {
    text.chars().filter(|character| !character.is_ascii_digit()).collect()
}

const INTERVAL: Duration = Duration::from_secs(60);
const MAX_KINDS: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(client: &str, line: &str) -> Kind {
        Kind { client: without_digits(client), facility: "FAIL".into(), text: matter(line) }
    }

    #[test]
    fn a_broker_that_is_down_is_told_once_a_minute_with_a_count() {
        let mut quiet = Quiet::default();
        let start = Instant::now();
        let line = |n: u64| {
            kind(
                &format!("longhaul-importer-admin#producer-{n}"),
                &format!("[thrd:b:9092/1]: b:9092/1: Connect failed: refused (after {n}ms in state CONNECT)"),
            )
        };
        assert_eq!(quiet.note(line(0), start), Some(0));
        for n in 1..60 {
            assert_eq!(quiet.note(line(n), start + Duration::from_secs(n)), None);
        }
        assert_eq!(quiet.note(line(60), start + Duration::from_secs(60)), Some(59));
        assert_eq!(quiet.note(kind("other", "[thrd:b:9092/1]: b:9092/1: Connect failed"), start), Some(0));
        let another = "[thrd:b:9092/2]: b:9092/2: Connect failed: refused (after 1ms in state CONNECT)";
        assert_eq!(quiet.note(kind("longhaul-importer-admin#producer-1", another), start), Some(0));
        assert_eq!(
            quiet.note(kind("longhaul-importer-admin#producer-1", "authentication failed"), start),
            Some(0)
        );
    }
}
