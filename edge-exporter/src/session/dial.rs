//! Reaching an importer, however long it takes.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use link::{DialError, Dialer, Greeted, Greeting};
use proto::wire::{Hello, ToImporter};

use super::Session;
use crate::status::wall_micros;

impl Session {
    /// Dials all of the importer's addresses, side by side, until one answers, and says hello there; `None` when the
    /// exporter is to leave first.
    pub(super) async fn dial(&mut self) -> Option<Greeted> {
        let mut leave = self.parts.leave.clone();
        let facts = Arc::clone(&self.parts.view.facts);
        loop {
            let greeted = tokio::select! {
                biased;
                _ = leave.wait_for(|leave| *leave) => return None,
                // What was in the way may be over: all anew, with what is configured now.
                () = facts.hurried() => continue,
                won = self.race() => won,
            };
            self.dial_failures.clear();
            // Stay with the importer that has the lanes for as long as it answers.
            self.next_address = greeted.place;
            return Some(greeted);
        }
    }

    /// The first connection that stands.
    async fn race(&mut self) -> Greeted {
        let greeting = Arc::new(self.greeting());
        let Self { parts, dial_failures, next_address, turned_away, .. } = self;
        let facts = &parts.view.facts;
        let failed = |address: &str, error: &link::DialError| {
            let words = error.to_string();
            facts.failed(&words);
            if let Some(times) = dial_failures.is_due(&words, Instant::now()) {
                tracing::warn!(
                    importer = %address, times,
                    "{words}; dialling goes on, nothing is read and nothing is lost meanwhile"
                );
            }
        };
        let addresses = &parts.config.importer.address;
        let race = race(&parts.dialer, addresses, *next_address, turned_away.take(), &greeting, failed);
        tokio::pin!(race);
        loop {
            tokio::select! {
                won = &mut race => return won,
                // Without a session nobody waits for these: all is asked anew with the next one.
                Some(_) = parts.news.recv() => {}
                Some(_) = parts.lane_events.recv() => {}
            }
        }
    }

    /// Hello, with another nonce each time: an importer orders the connections of this instance by it.
    fn greeting(&self) -> Greeting {
        let nonces = Arc::clone(&self.nonces);
        let hello = Hello {
            versions: vec![proto::limits::PROTOCOL_VERSION],
            link: self.parts.config.link.clone(),
            source_cluster_id: self.parts.view.cluster.id().into(),
            instance: self.parts.view.instance.to_string(),
            nonce: 0,
        };
        Greeting::new(move || {
            let nonce = nonces.fetch_add(1, Ordering::Relaxed) + 1;
            ToImporter::from(Hello { nonce, ..hello.clone() }).encode_frame()
        })
    }

    /// Lets time pass, with an ear for what the source and the lanes tell. Says whether to go on.
    pub(super) async fn idle(&mut self, pause: Duration) -> bool {
        let sleep = tokio::time::sleep(pause);
        let mut leave = self.parts.leave.clone();
        let facts = Arc::clone(&self.parts.view.facts);
        let hurried = facts.hurried();
        tokio::pin!(sleep, hurried);
        loop {
            tokio::select! {
                biased;
                _ = leave.wait_for(|leave| *leave) => return false,
                Some(news) = self.parts.news.recv() => self.news(news, None),
                // Of a session that is over.
                Some(_) = self.parts.lane_events.recv() => {}
                () = &mut sleep => return true,
                () = &mut hurried => return true,
            }
        }
    }
}

/// [`Dialer::race`], in which the address that turned us away just now joins only when the others had their chance: it may
/// be the nearest, would win every race and turn us away every time.
async fn race(
    dialer: &Arc<Dialer>,
    addresses: &[String],
    first: usize,
    turned_away: Option<usize>,
    greeting: &Arc<Greeting>,
    mut failed: impl FnMut(&str, &DialError),
) -> Greeted {
    if let Some(away) = turned_away {
        let others = others(addresses.len(), first, away);
        if !others.is_empty() {
            let names: Vec<String> = others.iter().map(|place| addresses[*place].clone()).collect();
            let chance =
                tokio::time::timeout(CHANCE_OF_OTHERS, dialer.race(&names, 0, greeting, &mut failed));
            if let Ok(greeted) = chance.await {
                return Greeted { place: others[greeted.place], ..greeted };
            }
        }
    }
    dialer.race(addresses, first, greeting, failed).await
}

/// The places of all addresses but one, from `first` round the list.
fn others(addresses: usize, first: usize, but: usize) -> Vec<usize> {
    (0..addresses).map(|n| (first + n) % addresses).filter(|place| *place != but).collect()
}

/// How long the other addresses are dialled alone: a handshake over 250 ms of round trip, with a loss on the way.
const CHANCE_OF_OTHERS: Duration = Duration::from_secs(2);

/// 100 ms, 200, 400, 800 and then 1 s.
pub(super) fn backoff(attempt: u32) -> Duration {
    const FIRST: Duration = Duration::from_millis(100);
    const MOST: Duration = Duration::from_secs(1);
    FIRST.saturating_mul(1 << attempt.saturating_sub(1).min(10)).min(MOST)
}

/// 1 s, 2, 4 and then 6 s, a fifth more or less: who was turned away is not let in before somebody changes something, and
/// many of them must not come at once. Not more, so that records flow within ten seconds of the change.
pub(super) fn refused_backoff(times: u32) -> Duration {
    const FIRST: Duration = Duration::from_secs(1);
    const MOST: Duration = Duration::from_secs(6);
    let even = FIRST.saturating_mul(1 << times.saturating_sub(1).min(10)).min(MOST);
    // Microseconds of the clock are chance enough.
    let chance = (wall_micros() % 1000) as f64 / 1000.0;
    even.mul_f64(0.8 + 0.4 * chance)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dialling_backs_off_from_a_tenth_of_a_second_to_one_and_stays_there() {
        let millis: Vec<u128> = (1..7).map(|attempt| backoff(attempt).as_millis()).collect();
        assert_eq!(millis, [100, 200, 400, 800, 1000, 1000]);
    }

    #[test]
    fn the_address_that_turned_us_away_lets_the_others_go_first() {
        assert_eq!(others(3, 4, 1), [2, 0]);
        assert_eq!(others(2, 1, 0), [1]);
        assert!(others(1, 0, 0).is_empty(), "there is no other: it is dialled at once");
    }

    #[test]
    fn who_is_turned_away_waits_from_one_second_to_six_with_some_chance() {
        for (times, even) in [(1, 1.0), (2, 2.0), (3, 4.0), (4, 6.0), (60, 6.0)] {
            let pause = refused_backoff(times).as_secs_f64();
            assert!((even * 0.79..even * 1.21).contains(&pause), "{times}: {pause}");
        }
    }
}
