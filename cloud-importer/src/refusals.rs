//! How much of a flood of refusals goes on record one by one.
//!
//! The first ones of a kind are recorded at once, each with its line. What follows in the same interval is counted, and
//! the counts are recorded when it is over. So a flood of bad handshakes fills neither the audit log nor the disk under
//! it, and still nothing is missing in the sum.

use std::{
    collections::BTreeMap,
    mem,
    time::{Duration, Instant},
};

use observe::event::Refuse;

/// How many lines an interval may have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Of one kind from one place.
    pub(crate) kind: u32,
    /// From one place.
    pub(crate) place: u32,
    /// Altogether.
    pub(crate) all: u32,
    pub(crate) interval: Duration,
}

impl Limits {
    /// For peers that did not come in.
    pub(crate) const STRANGERS: Self =
        Self { kind: 3, place: 20, all: 200, interval: Duration::from_secs(60) };
    /// For what admitted peers asked for and were not granted: topics, which are asked for again and again.
    pub(crate) const ADMITTED: Self =
        Self { kind: 2, place: 5000, all: 10_000, interval: Duration::from_secs(3600) };
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Refusals {
    limits: Limits,
    began: Option<Instant>,
    recorded: u32,
    places: BTreeMap<String, u32>,
    kinds: BTreeMap<Kind, Count>,
    /// Not recorded, and of too many kinds to tell them apart.
    others: u64,
    /// Lines that could not be written: they are tried again.
    unwritten: Vec<Line>,
}

/// A line for the audit log.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) refusal: Refuse,
    /// How many refusals it tells of.
    count: u64,
}

impl Line {
    /// A line about one refusal.
    pub(crate) fn single(refusal: Refuse) -> Self {
        Self { refusal, count: 1 }
    }
}

/// From where, and why.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    place: String,
    link: Option<String>,
    reason: String,
}

#[derive(Debug, Default)]
struct Count {
    recorded: u32,
    left_out: u64,
}

impl Refusals {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            began: None,
            recorded: 0,
            places: BTreeMap::new(),
            kinds: BTreeMap::new(),
            others: 0,
            unwritten: Vec::new(),
        }
    }

    /// Something was refused. Says whether it is to be recorded now.
    pub(crate) fn note(&mut self, refusal: &Refuse, now: Instant) -> bool {
        self.began.get_or_insert(now);
        let kind = Kind { place: place_of(refusal), link: refusal.link.clone(), reason: reason_of(refusal) };
        let full = self.kinds.len() >= MAX_KINDS && !self.kinds.contains_key(&kind);
        if full {
            self.others += 1;
            return false;
        }
        if self.places.len() >= MAX_KINDS && !self.places.contains_key(&kind.place) {
            self.others += 1;
            return false;
        }
        let from_place = self.places.entry(kind.place.clone()).or_default();
        let count = self.kinds.entry(kind).or_default();
        let (limits, recorded) = (self.limits, self.recorded);
        if count.recorded < limits.kind && *from_place < limits.place && recorded < limits.all {
            count.recorded += 1;
            *from_place += 1;
            self.recorded += 1;
            return true;
        }
        count.left_out += 1;
        false
    }

    /// Refusals of which only the number is known.
    pub(crate) fn note_unseen(&mut self, count: u64, now: Instant) {
        if count > 0 {
            self.began.get_or_insert(now);
            self.others += count;
        }
    }

    /// A line could not be written: it comes again with the next [`Refusals::due`]. Beyond a bound only its number does.
    pub(crate) fn put_back(&mut self, line: Line, now: Instant) {
        if self.unwritten.len() < MAX_UNWRITTEN {
            self.unwritten.push(line);
        } else {
            self.note_unseen(line.count, now);
        }
    }

    /// Lines to be recorded: those that could not be written before, and what was counted when the interval is over.
    pub(crate) fn due(&mut self, now: Instant) -> Vec<Line> {
        let mut lines = mem::take(&mut self.unwritten);
        if self.began.is_some_and(|began| now.saturating_duration_since(began) >= self.limits.interval) {
            lines.append(&mut self.summary());
        }
        lines
    }

    /// The same at the end, however long ago the interval began.
    pub(crate) fn last(&mut self) -> Vec<Line> {
        let mut lines = mem::take(&mut self.unwritten);
        lines.append(&mut self.summary());
        lines
    }

    fn summary(&mut self) -> Vec<Line> {
        let done = mem::replace(self, Self::new(self.limits));
        let minutes = self.limits.interval.as_secs() / 60;
        let mut counted: Vec<(Kind, u64)> = done
            .kinds
            .into_iter()
            .filter(|(_, count)| count.left_out > 0)
            .map(|(kind, count)| (kind, count.left_out))
            .collect();
        counted.sort_by_key(|(_, left_out)| std::cmp::Reverse(*left_out));
        let rest: u64 = counted.iter().skip(MAX_SUMMARY).map(|(_, left_out)| left_out).sum();
        let line = |(kind, left_out): (Kind, u64)| Line {
            refusal: Refuse {
                remote: Some(kind.place),
                link: kind.link,
                reason: format!("{left_out} more times within {minutes} min: {}", kind.reason),
                ..Refuse::default()
            },
            count: left_out,
        };
        let mut lines: Vec<Line> = counted.into_iter().take(MAX_SUMMARY).map(line).collect();
        let rest = rest + done.others;
        if rest > 0 {
            let reason = format!("{rest} more refusals within {minutes} min, of too many kinds to list them");
            lines.push(Line { refusal: Refuse { reason, ..Refuse::default() }, count: rest });
        }
        lines
    }
}

/// The peer's host: its port is another one each time.
fn place_of(refusal: &Refuse) -> String {
    let remote = refusal.remote.as_deref().unwrap_or("?");
    remote.parse().map_or_else(|_| remote.to_owned(), |remote: std::net::SocketAddr| remote.ip().to_string())
}

fn reason_of(refusal: &Refuse) -> String {
    match &refusal.peer {
        Some(peer) => format!("{peer}: {}", refusal.reason),
        None => refusal.reason.clone(),
    }
}

/// Kinds and places that are told apart; a flood may make up any number of them.
const MAX_KINDS: usize = 10_000;
/// Lines of a summary.
const MAX_SUMMARY: usize = 50;
/// Lines that are kept while they cannot be written.
const MAX_UNWRITTEN: usize = 500;

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(host: u8, reason: &str) -> Refuse {
        static PORT: std::sync::atomic::AtomicU16 = std::sync::atomic::AtomicU16::new(1);
        let port = PORT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Refuse { remote: Some(format!("10.0.0.{host}:{port}")), reason: reason.into(), ..Refuse::default() }
    }

    #[test]
    fn the_first_of_a_kind_are_recorded_at_once_and_the_rest_counted() {
        let mut refusals = Refusals::new(Limits::STRANGERS);
        let start = Instant::now();
        let recorded = (0..1000).filter(|_| refusals.note(&refusal(1, "expired"), start)).count();
        assert_eq!(recorded, 3);
        assert!(refusals.note(&refusal(2, "expired"), start), "another host is not drowned");
        assert!(refusals.note(&refusal(1, "no certificate"), start), "nor is another reason");
        assert!(refusals.due(start + Duration::from_secs(59)).is_empty());
        let lines = refusals.due(start + Duration::from_secs(60));
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert_eq!(lines[0].refusal.remote.as_deref(), Some("10.0.0.1"));
        assert_eq!(lines[0].refusal.reason, "997 more times within 1 min: expired");
        assert!(refusals.note(&refusal(1, "expired"), start + Duration::from_secs(61)), "a new interval");
    }

    #[test]
    fn reasons_that_a_peer_makes_up_do_not_fill_the_log_and_are_all_counted() {
        let mut refusals = Refusals::new(Limits::STRANGERS);
        let start = Instant::now();
        let total = 20_000_u64;
        let recorded =
            (0..total).filter(|n| refusals.note(&refusal(1, &format!("link {n}")), start)).count() as u64;
        assert_eq!(recorded, 20);
        refusals.note_unseen(7, start);
        let lines = refusals.due(start + Duration::from_secs(60));
        assert!(lines.len() <= MAX_SUMMARY + 1);
        let number = |line: &Line| line.refusal.reason.split(' ').next().unwrap().parse::<u64>().unwrap();
        let counted: u64 = lines.iter().map(number).sum();
        assert_eq!(counted + recorded, total + 7);
    }

    #[test]
    fn what_could_not_be_written_comes_again_and_the_end_waits_for_no_interval() {
        let mut refusals = Refusals::new(Limits::STRANGERS);
        let start = Instant::now();
        let recorded = (0..10).filter(|_| refusals.note(&refusal(1, "expired"), start)).count();
        assert_eq!(recorded, 3);
        for line in refusals.due(start + Duration::from_secs(60)) {
            refusals.put_back(line, start);
        }
        let again = refusals.due(start + Duration::from_secs(61));
        assert_eq!(again.iter().map(|line| line.count).sum::<u64>(), 7, "{again:?}");
        assert_eq!((0..5).filter(|_| refusals.note(&refusal(1, "expired"), start)).count(), 3);
        assert_eq!(refusals.last().iter().map(|line| line.count).sum::<u64>(), 2);
        let many = MAX_UNWRITTEN + 5;
        (0..many).for_each(|_| refusals.put_back(Line::single(refusal(1, "expired")), start));
        assert_eq!(refusals.last().iter().map(|line| line.count).sum::<u64>(), many as u64);
    }
}
