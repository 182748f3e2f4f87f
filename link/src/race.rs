//! Reaching any of several addresses as soon as one can be reached.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::{Mutex, MutexGuard},
    task::{Id, JoinSet},
    time::sleep_until,
};

use crate::{Connection, ControlRecv, ControlSend, DialError, Dialer, dial::Reached};

/// What an exporter says first on a connection, right behind its handshake.
pub struct Greeting(Box<dyn Fn() -> Vec<u8> + Send + Sync>);

impl Greeting {
    /// `hello` makes a frame of the control stream, another one each time.
    pub fn new(hello: impl Fn() -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self(Box::new(hello))
    }
}

impl fmt::Debug for Greeting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Greeting").finish_non_exhaustive()
    }
}

/// The word of a race. One attempt at a time has it, and the next only when that one has come to nothing: an importer goes
/// by what was said to it last, which must not come from an attempt that is given up.
#[derive(Debug, Clone)]
pub(crate) struct Word {
    greeting: Arc<Greeting>,
    /// Whether somebody has won.
    won: Arc<Mutex<bool>>,
}

impl Word {
    fn new(greeting: &Arc<Greeting>) -> Self {
        Self { greeting: Arc::clone(greeting), won: Arc::default() }
    }

    /// Waits for the word; for ever when the race is won by another.
    pub(crate) async fn take(&self) -> MutexGuard<'_, bool> {
        let won = self.won.lock().await;
        if *won {
            return std::future::pending().await;
        }
        won
    }

    pub(crate) fn hello(&self) -> Vec<u8> {
        (self.greeting.0)()
    }
}

/// A connection on which hello was said.
#[derive(Debug)]
pub struct Greeted {
    /// The connection.
    pub connection: Connection,
    /// Its control stream, hello sent.
    pub send: ControlSend,
    /// Where the answers come.
    pub recv: ControlRecv,
    /// The place of the address in the list.
    pub place: usize,
}

impl Dialer {
    /// Dials `addresses` over and over, side by side, until one answers. The first attempt is at `addresses[first]`, the one
    /// after it follows a quarter of a second later, and so on round the list.
    ///
    /// Attempts overlap: one that began while the path was dead waits for QUIC's own timers, a fresh one is through
    /// after two round trips. So a path that comes back is used within a quarter of a second and a handshake. After
    /// half a minute, or while attempts fail otherwise than by silence, they begin a second apart; while every address
    /// refuses, so that somebody has to change something, up to six seconds. `failed` hears of each that failed. Every
    /// attempt draws on the same [`Rate`](crate::Rate). Cancel-safe: all attempts end with it.
    ///
    /// # Panics
    /// When `addresses` is empty.
    pub async fn race(
        self: &Arc<Self>,
        addresses: &[String],
        first: usize,
        greeting: &Arc<Greeting>,
        mut failed: impl FnMut(&str, &DialError),
    ) -> Greeted {
        assert!(!addresses.is_empty(), "an importer has at least one address");
        let (mut running, mut places) =
            (JoinSet::<Result<Reached, DialError>>::new(), Vec::<(Id, usize)>::new());
        let word = Word::new(greeting);
        let (mut schedule, mut next) = (Schedule::new(Instant::now(), addresses.len()), first);
        loop {
            tokio::select! {
                biased;
                Some(finished) = running.join_next_with_id() => {
                    let (id, outcome) = match finished {
                        Ok(finished) => finished,
                        Err(join) => std::panic::resume_unwind(join.into_panic()),
                    };
                    let at = places.iter().position(|(known, _)| *known == id);
                    let (_, place) = places.swap_remove(at.expect("every attempt is noted when it begins"));
                    match outcome {
                        Ok((connection, control)) => {
                            let (send, recv) = control.expect("hello was to be said");
                            return Greeted { connection, send, recv, place };
                        }
                        Err(error) => {
                            schedule.failed(&error);
                            failed(&addresses[place], &error);
                        }
                    }
                }
                () = sleep_until(schedule.due().into()), if running.len() < MAX_RUNNING => {
                    let place = next % addresses.len();
                    next = next.wrapping_add(1);
                    let (dialer, address) = (Arc::clone(self), addresses[place].clone());
                    let word = word.clone();
                    let attempt = running.spawn(async move { dialer.reach(&address, Some(&word)).await });
                    places.push((attempt.id(), place));
                    schedule.began(Instant::now());
                }
            }
        }
    }
}

/// When the next attempt begins.
#[derive(Debug)]
struct Schedule {
    addresses: u32,
    since: Instant,
    last: Option<Instant>,
    /// The last failure was a word, not silence.
    answered: bool,
    /// Failures in a row that time alone does not mend.
    refused: u32,
    /// Spreads many exporters that are refused at once: 0.8 to 1.2.
    spread: f64,
}

impl Schedule {
    fn new(now: Instant, addresses: usize) -> Self {
        let addresses = u32::try_from(addresses).unwrap_or(u32::MAX);
        Self { addresses, since: now, last: None, answered: false, refused: 0, spread: spread() }
    }

    fn began(&mut self, now: Instant) {
        self.last = Some(now);
    }

    fn failed(&mut self, error: &DialError) {
        self.answered = !matches!(error, DialError::Timeout { .. });
        self.refused = if error.is_transient() { 0 } else { self.refused.saturating_add(1) };
    }

    fn due(&self) -> Instant {
        let Some(last) = self.last else { return self.since };
        let rounds = self.refused / self.addresses;
        last + if rounds > 0 {
            SLOW.saturating_mul(1 << (rounds - 1).min(10)).min(SLOWEST).mul_f64(self.spread)
        } else if self.answered || last.saturating_duration_since(self.since) > HURRY {
            SLOW
        } else {
            FAST
        }
    }
}

fn spread() -> f64 {
    use std::hash::{BuildHasher, RandomState};
    // std's own seed is chance enough.
    0.8 + (RandomState::new().hash_one(0) % 1000) as f64 / 2500.0
}

/// Between the beginnings of two attempts.
const FAST: Duration = Duration::from_millis(250);
const SLOW: Duration = Duration::from_secs(1);
/// What was in the way may be mended at any time, and then records are to flow within ten seconds.
const SLOWEST: Duration = Duration::from_secs(6);
/// How long attempts follow fast: a dead path is not to be paid for all night.
const HURRY: Duration = Duration::from_secs(30);
/// Attempts at a time; each has a socket.
const MAX_RUNNING: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;

    fn timeout() -> DialError {
        let remote = "192.0.2.1:7443".parse().unwrap();
        DialError::Timeout { address: "a:1".into(), remote, after: SLOW }
    }

    #[test]
    fn attempts_follow_fast_at_first_and_each_second_later() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start, 2);
        assert_eq!(schedule.due(), start);
        schedule.began(start);
        assert_eq!(schedule.due(), start + FAST);
        schedule.failed(&timeout());
        schedule.began(start + Duration::from_secs(29));
        assert_eq!(schedule.due(), start + Duration::from_secs(29) + FAST);
        schedule.began(start + Duration::from_secs(31));
        assert_eq!(schedule.due(), start + Duration::from_secs(31) + SLOW);
    }

    #[test]
    fn who_answers_with_a_refusal_is_not_asked_four_times_a_second() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start, 2);
        schedule.began(start);
        schedule.failed(&DialError::Failed { address: "a:1".into(), why: "no".into() });
        assert_eq!(schedule.due(), start + SLOW);
        schedule.failed(&timeout());
        assert_eq!(schedule.due(), start + FAST);
    }

    #[test]
    fn while_every_address_refuses_attempts_back_off_to_six_seconds() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start, 2);
        schedule.began(start);
        let refusal = DialError::Address { address: "a".into(), why: "no" };
        let mut gaps = Vec::new();
        for _ in 0..14 {
            schedule.failed(&refusal);
            gaps.push((schedule.due() - start).as_secs_f64());
        }
        assert_eq!(gaps[0], 1.0, "the other address may take us");
        for (gap, even) in gaps[1..].iter().zip([1.0, 1.0, 2.0, 2.0, 4.0, 4.0, 6.0, 6.0, 6.0, 6.0, 6.0]) {
            assert!((even * 0.79..even * 1.21).contains(gap), "{gaps:?}");
        }
    }
}
