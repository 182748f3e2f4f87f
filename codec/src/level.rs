//! Which zstd level a lane encodes with, from what its parcels cost and what it waits for.
//!
//! ```text
//! each parcel: plain and coded bytes, processor time ──┐
//! the lane's time: waited for records, for the link ───┴─▶ Control ──▶ level of the next parcel
//! ```
//!
//! - A higher level is worth its processor time while the link is what records wait for, as fewer bytes are more
//!   records then. It is taken when the lane could encode [`HEADROOM`] times what arrives at that level too.
//! - A [`Priority`] says what else it is worth: to `bytes` all time that is free, to `latency` what is next to nothing,
//!   to `cpu` none.
//! - When the lane has no free time left, the level falls: then encoding is what records wait for.
//! - A level that turned out not to be smaller is left again; which one is, differs from topic to topic.
//!
//! A change costs: zstd begins a new frame with an empty window. So levels move on a few rungs, what was left is
//! tried again only after a while that doubles, and there are never more than [`MOST_CHANGES_A_MINUTE`].
//!
//! Pure: time is an argument, the same observations give the same levels.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A lane encodes at least so many times what arrives before a higher level is taken.
pub const HEADROOM: f64 = 1.3;
/// Changes of the level in any minute, at most.
pub const MOST_CHANGES_A_MINUTE: u32 = 8;

/// What a lane's level is chosen for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Priority {
    /// As few bytes on the link as the processor can make of them.
    Bytes,
    /// As little processor time as a sound ratio allows.
    Cpu,
    /// Records arrive as early as they can: quick to encode, and smaller where the link is what they wait for, or
    /// where it costs next to nothing.
    #[default]
    Latency,
}

impl Priority {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Bytes, Self::Cpu, Self::Latency];

    /// As it is written in a configuration.
    pub fn word(self) -> &'static str {
        match self {
            Self::Bytes => "bytes",
            Self::Cpu => "cpu",
            Self::Latency => "latency",
        }
    }

    /// The level at which a lane begins, before anything is known of its records and its link.
    pub fn first_level(self) -> i32 {
        RUNGS[self.policy().first].level
    }

    fn policy(self) -> Policy {
        match self {
            Self::Bytes => Policy { first: 3, highest: 4, free: 1.0 / HEADROOM, free_highest: 3 },
            Self::Cpu => Policy { first: 0, highest: 2, free: 0.0, free_highest: 0 },
            Self::Latency => Policy { first: 1, highest: 4, free: 0.05, free_highest: 3 },
        }
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// A word that is no [`Priority`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected `bytes`, `cpu` or `latency`, found `{0}`")]
pub struct UnknownPriority(String);

impl FromStr for Priority {
    type Err = UnknownPriority;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        let known = Self::ALL.into_iter().find(|priority| priority.word() == word);
        known.ok_or_else(|| UnknownPriority(word.to_owned()))
    }
}

/// What a lane did in a stretch of time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Observation {
    /// Bytes of keys and values, or plain bytes, that were encoded; the same kind each time.
    pub plain: u64,
    /// Bytes that came of them.
    pub coded: u64,
    /// Processor time of encoding them.
    pub encode: Duration,
    /// Time that passed.
    pub passed: Duration,
    /// Of it, waiting for records: there was nothing to do.
    pub idle: Duration,
    /// Of it, waiting for the link (credit, a full stream) with a batch in hand.
    pub link: Duration,
}

/// What is known of a lane as a whole, for metrics. Of the last window that was looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Gauges {
    /// Encoding, as a share of the time that passed.
    pub cpu_share: f64,
    /// Coded bytes per plain byte.
    pub ratio: f64,
}

/// Chooses the level of one lane. See the [module](self).
#[derive(Debug, Clone)]
pub struct Control {
    policy: Policy,
    rung: usize,
    /// Since the last look.
    window: Observation,
    /// Time since the lane began.
    now: Duration,
    changed: Duration,
    /// When each of the last changes was made.
    changes: [Option<Duration>; MOST_CHANGES_A_MINUTE as usize],
    known: [Known; RUNGS.len()],
    gauges: Gauges,
}

/// A level that is used, and what encoding with it costs next to level 1: a first guess, measured on structured topics.
#[derive(Debug)]
struct Rung {
    level: i32,
    cost: f64,
}

#[derive(Debug, Clone, Copy)]
struct Policy {
    first: usize,
    /// Where the link is waited for.
    highest: usize,
    /// Share of the time that a higher level may take where the link is not waited for.
    free: f64,
    /// How high that may be.
    free_highest: usize,
}

/// What a rung was like when it was last used.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    /// Coded per plain byte; none before it was used.
    ratio: Option<f64>,
    /// Seconds of processor time per plain byte.
    cost: Option<f64>,
    /// Not to be taken before.
    barred_until: Duration,
    /// How long it was barred the last time.
    barred_for: Duration,
}

impl Control {
    /// A lane at its beginning.
    pub fn new(priority: Priority) -> Self {
        let policy = priority.policy();
        Self {
            policy,
            rung: policy.first,
            window: Observation::default(),
            now: Duration::ZERO,
            changed: Duration::ZERO,
            changes: [None; MOST_CHANGES_A_MINUTE as usize],
            known: [Known::default(); RUNGS.len()],
            gauges: Gauges::default(),
        }
    }

    /// The level for the next parcel.
    pub fn level(&self) -> i32 {
        RUNGS[self.rung].level
    }

    /// Of the last window.
    pub fn gauges(&self) -> Gauges {
        self.gauges
    }

    /// Takes note of what the lane did since the last call, be it nothing. The level may be another one afterwards.
    pub fn observe(&mut self, seen: Observation) {
        self.now += seen.passed;
        let window = &mut self.window;
        window.plain += seen.plain;
        window.coded += seen.coded;
        window.encode += seen.encode;
        window.passed += seen.passed;
        window.idle += seen.idle;
        window.link += seen.link;
        if self.window.passed >= WINDOW {
            let window = std::mem::take(&mut self.window);
            self.look(&window);
        }
    }

    fn look(&mut self, window: &Observation) {
        let passed = window.passed.as_secs_f64();
        let share = window.encode.as_secs_f64() / passed;
        self.gauges.cpu_share = share;
        if window.plain == 0 {
            return;
        }
        let plain = window.plain as f64;
        self.gauges.ratio = window.coded as f64 / plain;
        let free = ((window.idle + window.link).as_secs_f64() / passed).min(1.0);
        let link = window.link.as_secs_f64() / passed;
        let known = &mut self.known[self.rung];
        let blend = |old: Option<f64>, new: f64| old.map_or(new, |old| old + (new - old) / 4.0);
        known.ratio = Some(blend(known.ratio, self.gauges.ratio));
        known.cost = Some(blend(known.cost, window.encode.as_secs_f64() / plain));
        let stayed = self.now.saturating_sub(self.changed);
        if free < NO_TIME && share > WORTH_SAVING {
            // Encoding is what records wait for.
            if self.rung > 0 && stayed >= STAY_BEFORE_DOWN {
                self.bar(self.rung);
                self.change(self.rung - 1);
            }
        } else if stayed >= STAY {
            self.settle(share, free, link);
        }
    }

    /// There is time left: up where it is worth it, down where it is not.
    fn settle(&mut self, share: f64, free: f64, link: f64) {
        let waits_for_link = link >= LINK_BOUND;
        if let Some(smaller) = self.smaller_below() {
            self.bar(self.rung);
            return self.change(smaller);
        }
        let up = self.rung + 1;
        let highest = if waits_for_link { self.policy.highest } else { self.policy.free_highest };
        if up <= highest && self.now >= self.known[up].barred_until {
            let needed = share * self.times(up);
            let allowed = if waits_for_link { 1.0 } else { self.policy.free * HEADROOM };
            if needed * HEADROOM <= (share + free).min(allowed) {
                return self.change(up);
            }
        }
        // What was taken for the link, or while it was cheap, is not kept for ever.
        let paid_for = self.rung <= self.policy.first || waits_for_link;
        let cheap = self.rung <= self.policy.free_highest && share <= 2.0 * self.policy.free;
        if !paid_for && !cheap && link < LINK_BOUND / 4.0 {
            self.bar(self.rung);
            self.change(self.rung - 1);
        }
    }

    /// The rung below, where it is known to make as little of the same.
    fn smaller_below(&self) -> Option<usize> {
        let below = self.rung.checked_sub(1)?;
        let (here, there) = (self.known[self.rung].ratio?, self.known[below].ratio?);
        (self.rung > self.policy.first && here > there * NOT_SMALLER).then_some(below)
    }

    /// How much more the rung costs than the one in use.
    fn times(&self, rung: usize) -> f64 {
        let guess = RUNGS[rung].cost / RUNGS[self.rung].cost;
        match (self.known[rung].cost, self.known[self.rung].cost) {
            (Some(there), Some(here)) if here > 0.0 => (there / here).clamp(guess / 3.0, guess * 3.0),
            _ => guess,
        }
    }

    fn bar(&mut self, rung: usize) {
        let known = &mut self.known[rung];
        // Forgiven after a long time without.
        let again = self.now < known.barred_until + LONGEST_BAR;
        known.barred_for = if again { known.barred_for * 2 } else { Duration::ZERO };
        known.barred_for = known.barred_for.clamp(SHORTEST_BAR, LONGEST_BAR);
        known.barred_until = self.now + known.barred_for;
    }

    fn change(&mut self, rung: usize) {
        const MINUTE: Duration = Duration::from_secs(60);
        if self.changes[0].is_some_and(|oldest| self.now < oldest + MINUTE) {
            return;
        }
        self.changes.rotate_left(1);
        self.changes[self.changes.len() - 1] = Some(self.now);
        self.rung = rung;
        self.changed = self.now;
    }
}

/// Levels between these cost or gain too little to be worth a new frame; 12 gains less than 1 % more, and its tables alone
/// would be larger than all that a lane may hold (32 MiB at each end).
const RUNGS: [Rung; 5] = [
    Rung { level: 1, cost: 1.0 },
    Rung { level: 3, cost: 1.25 },
    Rung { level: 6, cost: 1.8 },
    Rung { level: 9, cost: 2.5 },
    Rung { level: 11, cost: 4.0 },
];

/// How much is looked at together.
const WINDOW: Duration = Duration::from_secs(1);
/// A level is kept at least so long before a higher one, or one for other reasons than want of time.
const STAY: Duration = Duration::from_secs(5);
/// A level is kept at least so long before want of time makes it fall again.
const STAY_BEFORE_DOWN: Duration = Duration::from_secs(2);
/// Below this share of free time a lane has none.
const NO_TIME: f64 = 0.1;
/// Below this share of time, encoding is not what a busy lane spends it on.
const WORTH_SAVING: f64 = 0.15;
/// From this share of time on, the link is what records wait for.
const LINK_BOUND: f64 = 0.2;
/// A level that makes more than this of what the lower one made is not worth its time.
const NOT_SMALLER: f64 = 0.995;
/// A level that was left is not tried again before this, the first time.
const SHORTEST_BAR: Duration = Duration::from_secs(60);
/// The same, in the end.
const LONGEST_BAR: Duration = Duration::from_secs(32 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    /// A lane in virtual time: what arrives, what the link carries, what encoding costs and gains.
    struct World {
        control: Control,
        /// Plain bytes a second; more than the lane can do means that there is a backlog.
        arrives: f64,
        /// Coded bytes a second.
        link: f64,
        /// Nanoseconds of processor time per plain byte at level 1, and of all other work.
        encode: f64,
        other: f64,
        ratios: [f64; RUNGS.len()],
        changes: Vec<(Duration, i32)>,
    }

    const FAST: f64 = 1e12;

    fn world(priority: Priority) -> World {
        World {
            control: Control::new(priority),
            arrives: 500e3,
            link: FAST,
            encode: 2.0,
            other: 3.0,
            ratios: [0.060, 0.058, 0.053, 0.050, 0.049],
            changes: Vec::new(),
        }
    }

    impl World {
        fn run(&mut self, seconds: u64) -> i32 {
            let step = Duration::from_millis(100);
            for _ in 0..seconds * 10 {
                let rung = self.control.rung;
                let encode = self.encode * 1e-9 * RUNGS[rung].cost;
                let busy = 1.0 / (encode + self.other * 1e-9);
                let carried = self.link / self.ratios[rung];
                let speed = self.arrives.min(busy).min(carried);
                let spare = step.mul_f64((1.0 - speed / busy).max(0.0));
                let waits_for_link = carried <= self.arrives;
                self.control.observe(Observation {
                    plain: (speed / 10.0) as u64,
                    coded: (speed / 10.0 * self.ratios[rung]) as u64,
                    encode: step.mul_f64(speed * encode),
                    passed: step,
                    idle: if waits_for_link { Duration::ZERO } else { spare },
                    link: if waits_for_link { spare } else { Duration::ZERO },
                });
                if self.control.rung != rung {
                    self.changes.push((self.control.now, self.control.level()));
                }
            }
            self.control.level()
        }

        fn changes(&mut self) -> usize {
            std::mem::take(&mut self.changes).len()
        }
    }

    #[test]
    fn every_priority_is_read_as_it_is_written() {
        for priority in Priority::ALL {
            assert_eq!(priority.to_string().parse(), Ok(priority));
            assert_eq!(Control::new(priority).level(), priority.first_level());
        }
        let error = "fast".parse::<Priority>().unwrap_err().to_string();
        assert!(error.contains("`fast`") && error.contains("`latency`"), "{error}");
    }

    #[test]
    fn a_trickle_is_made_as_small_as_is_nearly_free() {
        for (priority, level) in [(Priority::Bytes, 9), (Priority::Latency, 9), (Priority::Cpu, 1)] {
            let mut lane = world(priority);
            assert_eq!(lane.run(60), level, "{priority}");
            assert!(lane.changes() <= 2, "{priority}");
            assert_eq!((lane.run(3600), lane.changes()), (level, 0), "{priority}: settled");
        }
    }

    #[test]
    fn a_flood_that_the_link_takes_is_encoded_at_the_cheapest_level() {
        for priority in Priority::ALL {
            let mut lane = world(priority);
            lane.run(60);
            lane.changes();
            lane.arrives = FAST;
            assert_eq!(lane.run(5), 1, "{priority}: at once");
            assert_eq!(lane.run(3600), 1, "{priority}");
            assert!(lane.changes() <= 3, "{priority}: only down");
        }
    }

    #[test]
    fn a_slow_link_gets_the_highest_level_with_headroom() {
        // At level 11 a byte takes 8 + 3 ns: 91 MB/s. At 9, 8 ns: 125 MB/s.
        for (link, lowest, highest) in [(0.5e6, 11, 11), (4e6, 9, 9), (30e6, 1, 3)] {
            let mut lane = world(Priority::Latency);
            (lane.arrives, lane.link) = (FAST, link);
            let level = lane.run(600);
            assert!((lowest..=highest).contains(&level), "{link} B/s: level {level}");
            assert!(lane.changes() <= 20, "{link} B/s");
            lane.run(3600);
            assert!(lane.changes() <= 24, "{link} B/s: no flapping");
        }
    }

    #[test]
    fn what_was_taken_for_the_link_is_given_back() {
        for priority in [Priority::Cpu, Priority::Latency] {
            let mut lane = world(priority);
            (lane.arrives, lane.link) = (60e6, 1e6);
            let taken = lane.run(60);
            assert!(taken >= 6, "{priority}: {taken}");
            lane.link = FAST;
            let level = lane.run(120);
            assert!(level <= priority.first_level(), "{priority}: {level}");
        }
    }

    #[test]
    fn all_free_time_goes_into_bytes_where_they_are_what_counts() {
        // At level 9 a byte takes 5 + 3 ns: 60 MB/s leave half of the time, 120 MB/s next to none.
        for (arrives, level) in [(60e6, 9), (120e6, 6)] {
            let mut lane = world(Priority::Bytes);
            lane.arrives = arrives;
            lane.run(300);
            assert_eq!(lane.run(300), level, "{arrives} B/s");
        }
    }

    #[test]
    fn a_level_that_is_no_smaller_is_left_again() {
        let mut lane = world(Priority::Latency);
        lane.ratios = [0.0225, 0.0237, 0.0230, 0.0220, 0.0219];
        (lane.arrives, lane.link) = (FAST, 0.5e6);
        lane.run(3600);
        assert!(lane.control.level() >= 9, "{}", lane.control.level());
        lane.ratios = [0.050; RUNGS.len()];
        lane.run(600);
        lane.changes();
        lane.run(3600);
        assert!(lane.changes() <= 16, "tried now and then only: {:?}", lane.changes);
    }

    #[test]
    fn a_silent_lane_keeps_its_level() {
        let mut lane = world(Priority::Latency);
        let level = lane.run(60);
        lane.arrives = 0.0;
        lane.changes();
        assert_eq!((lane.run(3600), lane.changes()), (level, 0));
    }

    #[test]
    fn whatever_is_observed_changes_are_few_and_levels_valid() {
        for seed in 1..20_u64 {
            let mut state = seed;
            let mut random = |most: u64| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state % (most + 1)
            };
            let mut control = Control::new(Priority::ALL[(seed % 3) as usize]);
            let (mut now, mut changes) = (Duration::ZERO, Vec::new());
            for _ in 0..20_000 {
                let passed = Duration::from_millis(random(2000));
                let (plain, coded) = (1 << random(30), 1 << random(28));
                let before = control.level();
                let share = |of: u64| passed.mul_f64(of as f64 / 100.0);
                control.observe(Observation {
                    plain: random(plain),
                    coded: random(coded),
                    encode: share(random(120)),
                    passed,
                    idle: share(random(100)),
                    link: share(random(100)),
                });
                now += passed;
                assert!(crate::limits::LEVELS.contains(&control.level()));
                let gauges = control.gauges();
                assert!(gauges.cpu_share.is_finite() && gauges.ratio.is_finite());
                if control.level() != before {
                    changes.push(now);
                }
            }
            let minute = |at: &Duration| *at..*at + Duration::from_secs(60);
            for change in &changes {
                let within = changes.iter().filter(|at| minute(change).contains(at)).count();
                assert!(within <= MOST_CHANGES_A_MINUTE as usize, "seed {seed}: {within} in a minute");
            }
        }
    }
}
