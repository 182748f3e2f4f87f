//! Reaching an importer, however long it takes.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use link::Connection;

use super::Session;
use crate::status::wall_micros;

impl Session {
    /// Dials the importer's addresses in turn until one answers; `None` when the exporter is to leave first.
    pub(super) async fn dial(&mut self) -> Option<(Connection, String)> {
        let (mut attempts, mut refused) = (0, 0);
        loop {
            let addresses = &self.parts.config.importer.address;
            let address = addresses[self.next_address % addresses.len()].clone();
            let outcome = {
                let Self { parts, next_address, .. } = &mut *self;
                *next_address = next_address.wrapping_add(1);
                let attempt = parts.dialer.dial(&address);
                tokio::pin!(attempt);
                tokio::select! {
                    outcome = &mut attempt => outcome,
                    _ = parts.leave.wait_for(|leave| *leave) => return None,
                }
            };
            match outcome {
                Ok(connection) => {
                    self.dial_failures.clear();
                    // Stay with the importer that has the lanes for as long as it answers.
                    self.next_address = self.next_address.wrapping_sub(1);
                    return Some((connection, address));
                }
                Err(error) => {
                    refused = if error.is_transient() { 0 } else { refused + 1 };
                    self.dial_failed(&address, &error);
                }
            }
            attempts += 1;
            // All addresses once, then a pause.
            let all = self.parts.config.importer.address.len() as u32;
            let rounds = attempts / all;
            // Nothing gets better by itself where certificates are refused everywhere.
            let pause = if refused >= all { refused_backoff(refused / all) } else { backoff(rounds) };
            if attempts % all == 0 && !self.idle(pause).await {
                return None;
            }
        }
    }

    fn dial_failed(&mut self, address: &str, error: &link::DialError) {
        let words = error.to_string();
        self.parts.view.facts.failed(&words);
        if let Some(times) = self.dial_failures.is_due(&words, Instant::now()) {
            tracing::warn!(
                importer = %address, times,
                "{words}; dialling goes on, nothing is read and nothing is lost meanwhile"
            );
        }
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

/// 100 ms, 200, 400, 800 and then 1 s.
pub(super) fn backoff(attempt: u32) -> Duration {
    const FIRST: Duration = Duration::from_millis(100);
    const MOST: Duration = Duration::from_secs(1);
    FIRST.saturating_mul(1 << attempt.saturating_sub(1).min(10)).min(MOST)
}

/// 1 s, 2, 4, 8, 16 and then 30 s, a fifth more or less: who was turned away is not let in before somebody changes
/// something, and many of them must not come at once.
pub(super) fn refused_backoff(times: u32) -> Duration {
    const FIRST: Duration = Duration::from_secs(1);
    const MOST: Duration = Duration::from_secs(30);
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
    fn who_is_turned_away_waits_from_one_second_to_thirty_with_some_chance() {
        for (times, even) in [(1, 1.0), (2, 2.0), (5, 16.0), (6, 30.0), (60, 30.0)] {
            let pause = refused_backoff(times).as_secs_f64();
            assert!((even * 0.79..even * 1.21).contains(&pause), "{times}: {pause}");
        }
    }
}
