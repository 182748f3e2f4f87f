//! What a lane's time goes into, and the compression level that follows from it.
//!
//! Time in which the lane's thread does not run is time in which it waits: for the link while the path is as full as it
//! may be, else for records. What it waited for a processor that others kept busy is neither, so that lanes do not take
//! a crowded machine for an idle one.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use codec::{
    Sizes,
    level::{Control, Gauges, Observation},
};
use link::Stats;
use nix::time::{ClockId, clock_gettime};

use crate::{config, status::LinkFacts};

/// See the [module](self).
pub(super) struct Effort {
    facts: Arc<LinkFacts>,
    /// None when the level is fixed.
    control: Option<Control>,
    level: i32,
    seen: Observation,
    waits: Waits,
    turn: Instant,
    /// Processor time of the thread at the last turn.
    busy: Duration,
    next_look: Instant,
    /// The connection's counters at the last look.
    path: Option<(Instant, Stats)>,
    path_is_full: bool,
    /// What the thread had waited for a processor at the last look.
    starved: Duration,
    gauges: Gauges,
}

/// What a lane waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waits {
    /// It has nothing to send.
    Records,
    /// The stream takes nothing more.
    Stream,
    /// The importer has enough: it, its cluster or the path is slow.
    Credit,
}

impl Effort {
    pub(super) fn new(settings: &config::Codec, facts: Arc<LinkFacts>) -> Self {
        let control = match settings.level {
            Some(_) => None,
            None => Some(Control::new(settings.priority.into())),
        };
        let level = settings.level.or_else(|| control.as_ref().map(Control::level));
        let now = Instant::now();
        Self {
            facts,
            control,
            level: level.expect("fixed or controlled"),
            seen: Observation::default(),
            waits: Waits::Records,
            turn: now,
            busy: thread_time(),
            next_look: now,
            path: None,
            path_is_full: false,
            starved: waited_for_processor(),
            gauges: Gauges::default(),
        }
    }

    /// For the next parcel.
    pub(super) fn level(&self) -> i32 {
        self.level
    }

    /// Share of time and ratio of the last second or so.
    pub(super) fn gauges(&self) -> Gauges {
        self.gauges
    }

    pub(super) fn waits(&mut self, waits: Waits) {
        self.waits = waits;
    }

    /// Runs `encode` and counts its processor time and what came of it.
    pub(super) fn encode<E>(&mut self, encode: impl FnOnce() -> Result<Sizes, E>) -> Result<Sizes, E> {
        let before = thread_time();
        let sizes = encode()?;
        self.seen.encode += thread_time().saturating_sub(before);
        self.seen.plain += u64::from(sizes.plain);
        self.seen.coded += u64::from(sizes.coded);
        Ok(sizes)
    }

    /// A turn of the lane is over. True now and then: there is something new to tell of.
    pub(super) fn turn(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.turn);
        let busy = thread_time();
        let waited = passed.saturating_sub(busy.saturating_sub(self.busy));
        (self.turn, self.busy) = (now, busy);
        self.seen.passed += passed;
        let for_link = match self.waits {
            Waits::Records => false,
            Waits::Stream => true,
            // Slow targets are not to be had with fewer bytes.
            Waits::Credit => self.path_is_full,
        };
        *(if for_link { &mut self.seen.link } else { &mut self.seen.idle }) += waited;
        let due = now >= self.next_look;
        if due {
            self.next_look = now + LOOK_INTERVAL;
            self.look(now);
        }
        due
    }

    fn look(&mut self, now: Instant) {
        let stats = self.facts.connection().map(|connection| connection.stats());
        self.path_is_full = match (&self.path, &stats) {
            (Some((then, before)), Some(stats)) => {
                is_full(before, stats, now.saturating_duration_since(*then))
            }
            _ => false,
        };
        self.path = stats.map(|stats| (now, stats));
        let starved = waited_for_processor();
        let without = starved.saturating_sub(self.starved);
        self.starved = starved;
        let mut seen = std::mem::take(&mut self.seen);
        seen.idle = seen.idle.saturating_sub(without);
        if let Some(control) = &mut self.control {
            control.observe(seen);
            if control.level() != self.level {
                tracing::debug!(from = self.level, to = control.level(), "another compression level");
            }
            (self.level, self.gauges) = (control.level(), control.gauges());
        } else if seen.plain > 0 {
            let cpu_share = seen.encode.as_secs_f64() / seen.passed.as_secs_f64().max(f64::EPSILON);
            self.gauges = Gauges { cpu_share, ratio: seen.coded as f64 / seen.plain as f64 };
        }
    }
}

/// Whether the path carries about what it may.
fn is_full(before: &Stats, stats: &Stats, passed: Duration) -> bool {
    let sent =
        stats.sent_bytes.saturating_sub(before.sent_bytes) as f64 * 8.0 / passed.as_secs_f64().max(0.001);
    match (stats.ceiling, stats.rate) {
        (Some(_), Some(rate)) => sent >= FULL * rate as f64,
        _ => stats.in_flight as f64 >= FULL * stats.congestion_window as f64,
    }
}

/// Processor time of this thread.
fn thread_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

/// How long this thread was ready to run and another one ran; zero where the kernel does not count it.
fn waited_for_processor() -> Duration {
    let counted = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = counted.split_whitespace().nth(1).and_then(|word| word.parse().ok());
    Duration::from_nanos(nanoseconds.unwrap_or(0))
}

/// From this share of its rate or window on, a path is full.
const FULL: f64 = 0.8;
/// How often the path is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    fn effort(level: Option<i32>) -> Effort {
        let settings = config::Codec { level, ..config::Codec::default() };
        Effort::new(&settings, Arc::default())
    }

    fn work(effort: &mut Effort, turns: u32, waits: Waits) {
        let mut now = effort.turn;
        for _ in 0..turns {
            let coded = 500 - 10 * effort.level() as u32;
            effort.encode(|| Ok::<_, ()>(Sizes { plain: 10_000, coded })).unwrap();
            effort.waits(waits);
            now += Duration::from_millis(100);
            effort.turn(now);
        }
    }

    #[test]
    fn a_fixed_level_stays_whatever_happens() {
        let mut effort = effort(Some(7));
        work(&mut effort, 1000, Waits::Stream);
        assert_eq!(effort.level(), 7);
        assert!((effort.gauges().ratio - 0.043).abs() < 1e-9);
    }

    #[test]
    fn a_lane_that_waits_for_its_stream_compresses_harder() {
        let mut effort = effort(None);
        let first = effort.level();
        work(&mut effort, 600, Waits::Stream);
        assert!(effort.level() > first, "{}", effort.level());
    }

    #[test]
    fn the_kernel_counts_what_a_thread_does() {
        let before = thread_time();
        let mut sum = 0_u64;
        while thread_time() < before + Duration::from_millis(2) {
            sum = sum.wrapping_add(std::hint::black_box(1));
        }
        assert!(sum > 0 && waited_for_processor() < Duration::from_secs(3600));
    }
}
