//! Leaders are looked up before offsets are asked for.
//!
//! librdkafka (2.12) looks for a leader that it does not know on two threads at once, the caller's and its own as soon as
//! any news of topics comes in, and the slower one takes a lock that the other has freed. It never looks for one of a topic
//! that it was told about lately.

use std::{
    collections::HashMap,
    ffi::{CStr, CString},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::answers::{About, Metadata};
use crate::{
    Error,
    native::{Client, TopicRef},
};

/// Topics that a client was told about lately.
#[derive(Debug, Default)]
pub(super) struct Leaders(Mutex<HashMap<CString, Instant>>);

impl Leaders {
    /// Has the cluster asked about those of `topics` that it was not asked about lately.
    pub(super) fn learn<'a>(
        &self,
        client: &Client,
        topics: impl Iterator<Item = &'a CStr>,
        timeout: Duration,
    ) -> Result<(), Error> {
        let now = Instant::now();
        let unknown = self.unknown(topics, now);
        if unknown.len() > MANY {
            Metadata::ask(client, About::All, timeout)?;
        } else {
            for topic in &unknown {
                let topic: TopicRef = client.topic(&topic.to_string_lossy())?;
                Metadata::ask(client, About::Topic(&topic), timeout)?;
            }
        }
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.extend(unknown.into_iter().map(|topic| (topic, now)));
        Ok(())
    }

    fn unknown<'a>(&self, topics: impl Iterator<Item = &'a CStr>, now: Instant) -> Vec<CString> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, asked| now.saturating_duration_since(*asked) < LATELY);
        let mut unknown: Vec<CString> =
            topics.filter(|topic| !known.contains_key(*topic)).map(CStr::to_owned).collect();
        unknown.sort_unstable();
        unknown.dedup();
        unknown
    }
}

/// Half of `metadata.max.age.ms`, after which librdkafka forgets.
const LATELY: Duration = Duration::from_secs(450);
/// More topics than this are not asked about one by one.
const MANY: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_asked_about_once_and_again_before_it_is_forgotten() {
        let (leaders, now) = (Leaders::default(), Instant::now());
        let topics = || [c"b", c"a", c"b"].into_iter();
        assert_eq!(leaders.unknown(topics(), now), [c"a".to_owned(), c"b".to_owned()]);
        leaders.0.lock().unwrap().insert(c"a".to_owned(), now);
        assert_eq!(leaders.unknown(topics(), now + LATELY / 2), [c"b".to_owned()]);
        assert_eq!(leaders.unknown(topics(), now + LATELY).len(), 2);
    }
}
