//! A client that has stopped giving anything, and its replacement.
//!
//! Seen once with librdkafka 2.12: a broker stood still for as long as a fetch may take, went on, answered every question
//! about ends, and the client never fetched from it again. Why is not known, so it is judged by what cannot be denied: the
//! leader says again and again that there is more, and nothing of it comes while nothing else comes either.

use super::{Event, SourceConsumer, SourceError};
use crate::KafkaCode;

impl SourceConsumer {
    /// Whether records were waited for in vain for at least half of the time since this was last asked. Otherwise others
    /// are being read, and a partition that gives nothing may only have to wait for its turn.
    pub(super) fn starved(&mut self) -> bool {
        std::mem::take(&mut self.idle) >= self.options.watermark_interval / 2
    }

    /// In words, the partition that shows that the client has stopped.
    pub(super) fn stalled(&self) -> Option<String> {
        let slot = self.slots.iter().find(|slot| slot.running && slot.behind >= PATIENCE)?;
        let (name, end, position) = (slot.name(), slot.lso?, slot.position);
        Some(format!("the leader of {name} has records up to offset {end}, and none came from {position} on"))
    }

    /// Replaces the client; every partition goes on where it is. Returns how many events that made.
    ///
    /// Ends of a partition are asked for only when something came of it, so a new client is not replaced before that: what
    /// is slow in another way (a long run of aborted records) is begun anew once and not for ever.
    pub(super) fn renew(&mut self, why: &str, f: &mut impl FnMut(Event<'_>)) -> usize {
        let client = self.client.client_id();
        let mut fresh = match Self::new(&self.settings, &self.group, self.options.clone()) {
            Ok(fresh) => fresh,
            Err(error) => {
                tracing::warn!(client, %error, "{why}; a new client cannot be made: tried again");
                self.slots.iter_mut().for_each(|slot| slot.behind = 0);
                return 0;
            }
        };
        tracing::warn!(client, "{why}; the client is replaced by a new one, which reads on from there");
        let mut lost = 0;
        for old in self.slots.iter() {
            let topic = old.topic.to_string_lossy();
            let place = (old.position, old.epoch);
            let begun = fresh.slots.insert(&fresh.client, &topic, old.partition, place, old.token).and_then(
                |index| {
                    let slot = fresh.slots.get_mut(index);
                    (slot.paused, slot.lso, slot.hw) = (old.paused, old.lso, old.hw);
                    if old.running { fresh.start(index) } else { Ok(()) }
                },
            );
            if let Err(error) = begun {
                let code = error.code().unwrap_or(KafkaCode::STATE);
                f(Event::Lost {
                    token: old.token,
                    cause: SourceError::Other { code, reason: error.to_string() },
                });
                lost += 1;
            }
        }
        *self = fresh;
        lost
    }
}

/// Answers on ends in a row, at one a second by default.
const PATIENCE: u32 = 8;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{Settings, SourceOptions};

    #[test]
    fn a_client_has_stopped_only_when_nothing_at_all_comes_for_several_answers() {
        let settings = Settings { bootstrap: "127.0.0.1:1".into(), ..Settings::default() };
        let mut source = SourceConsumer::new(&settings, "stalls", SourceOptions::default()).unwrap();
        source.assign("t", 0, 7, None, 1).unwrap();
        assert!(!source.starved(), "nothing was waited for");
        source.idle = Duration::from_millis(500);
        assert!(source.starved());
        assert!(!source.starved(), "each answer is judged by the time since the one before");
        let index = source.index(1).unwrap();
        let slot = source.slots.get_mut(index);
        (slot.lso, slot.heard, slot.behind) = (Some(12), true, PATIENCE - 1);
        assert_eq!(source.stalled(), None);
        source.slots.get_mut(index).behind = PATIENCE;
        let why = source.stalled().unwrap();
        assert_eq!(why, "the leader of t/0 has records up to offset 12, and none came from 7 on");
        source.heard(index);
        assert_eq!(source.stalled(), None, "something came");

        source.slots.get_mut(index).behind = PATIENCE;
        assert_eq!(source.renew(&why, &mut |_| {}), 0);
        let index = source.index(1).unwrap();
        let slot = source.slots.get(index);
        assert_eq!((slot.position, slot.running, slot.heard, slot.behind), (7, true, false, 0));
        assert_eq!(source.stalled(), None, "a new client is not judged before something came");
    }
}
