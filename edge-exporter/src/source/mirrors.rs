//! Which local topics are written by links that end here: what importers' progress topics in this cluster name as
//! targets. Carrying such a topic on could send its records round in a circle, so it is held.
//!
//! An importer puts a target topic into its progress before it writes the first record there. So a look at progress
//! that began after a record was written knows the record's topic.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use kafka::{Isolation, Settings, TopicInfo, reader::Reader};
use proto::progress::{self, Table};

/// See the [module](self).
pub(super) struct Mirrors {
    settings: Settings,
    /// Made when there is progress to be read: most source clusters have none.
    reader: Option<Reader>,
    topics: BTreeMap<String, Progress>,
    /// The link that writes each target topic.
    writers: BTreeMap<Arc<str>, Arc<str>>,
}

/// The progress topic of a link that ends here.
struct Progress {
    link: Arc<str>,
    lanes: Vec<Lane>,
    /// Whether all of it was read at least once.
    complete: bool,
    /// Since when it cannot be read.
    failing: Option<Instant>,
    /// Not before this is it tried again: what cannot be read costs the source's thread its time-out.
    again: Option<Instant>,
    /// What was said about it.
    said: BTreeSet<&'static str>,
}

/// One partition of a progress topic.
#[derive(Default)]
struct Lane {
    next: i64,
    table: Table,
    unreadable: bool,
}

impl Mirrors {
    pub(super) fn new(settings: Settings) -> Self {
        Self { settings, reader: None, topics: BTreeMap::new(), writers: BTreeMap::new() }
    }

    /// Whether any link ends in this cluster.
    pub(super) fn any(&self) -> bool {
        !self.topics.is_empty()
    }

    /// The link that writes `topic`.
    pub(super) fn writer_of(&self, topic: &str) -> Option<&Arc<str>> {
        self.writers.get(topic)
    }

    /// Reads what is new in the progress topics among `listed`.
    ///
    /// # Errors
    /// When one was never read and cannot be now: nothing is known of what its link writes. After a while it is told
    /// in the log instead, so that a broken topic of one link does not stop another for good.
    pub(super) fn look(&mut self, listed: &[TopicInfo]) -> Result<(), kafka::Error> {
        let present: BTreeMap<&str, (&str, usize)> = listed
            .iter()
            .filter_map(|topic| {
                let link = progress::link_of(&topic.name)?;
                Some((topic.name.as_str(), (link, usize::try_from(topic.partitions).unwrap_or(0))))
            })
            .collect();
        let before = self.topics.len();
        self.topics.retain(|name, _| present.contains_key(name.as_str()));
        let mut changed = before != self.topics.len();
        let mut outcome = Ok(());
        for (name, (link, lanes)) in present {
            let progress = self.topics.entry(name.to_owned()).or_insert_with(|| Progress::new(link));
            progress.lanes.resize_with(lanes, Lane::default);
            if progress.again.is_some_and(|again| Instant::now() < again) {
                continue;
            }
            let read = match &mut self.reader {
                Some(reader) => progress.read(name, reader),
                None => Reader::new(&self.settings)
                    .and_then(|reader| progress.read(name, self.reader.insert(reader))),
            };
            match read {
                Ok(news) => changed |= news,
                Err(error) => {
                    if let Err(error) = progress.failed(name, error) {
                        outcome = Err(error);
                    }
                }
            }
        }
        if changed {
            self.writers = self.topics.values().flat_map(Progress::targets).collect();
        }
        outcome
    }

    #[cfg(test)]
    pub(super) fn pretend(&mut self, topic: &str, link: &str) {
        self.topics.insert(progress::topic_of(link), Progress::new(link));
        self.writers.insert(topic.into(), link.into());
    }

    #[cfg(test)]
    pub(super) fn forget(&mut self) {
        self.topics.clear();
        self.writers.clear();
    }
}

impl Progress {
    fn new(link: &str) -> Self {
        Self {
            link: link.into(),
            lanes: Vec::new(),
            complete: false,
            failing: None,
            again: None,
            said: BTreeSet::new(),
        }
    }

    /// Reads each lane on to its end. Says whether there was anything new.
    fn read(&mut self, name: &str, reader: &mut Reader) -> Result<bool, kafka::Error> {
        let numbers: Vec<i32> = (0..self.lanes.len() as i32).collect();
        let ends = reader.ends(name, &numbers, TIMEOUT)?;
        let mut news = false;
        for ((number, lane), ends) in numbers.into_iter().zip(&mut self.lanes).zip(ends) {
            if ends.lso < lane.next {
                // The topic was made again.
                *lane = Lane::default();
                news = true;
            }
            if ends.lso > lane.next {
                let Lane { next, table, unreadable } = lane;
                let end = reader.read(name, number, *next, Isolation::Committed, TIMEOUT, |record| {
                    *unreadable |= table.apply(record.key, record.value).is_err();
                })?;
                *next = end.next;
                news = true;
            }
        }
        self.complete = true;
        (self.failing, self.again) = (None, None);
        if self.lanes.iter().any(|lane| lane.unreadable) && self.said.insert("unreadable") {
            tracing::warn!(
                topic = name, link = %self.link,
                "the progress topic of a link that ends here holds records that this version does not know: which topics \
                 the link writes is known in part only; run the importer's version of the exporter"
            );
        }
        Ok(news)
    }

    /// It could not be read.
    fn failed(&mut self, name: &str, error: kafka::Error) -> Result<(), kafka::Error> {
        if error.code().is_some_and(kafka::KafkaCode::is_unknown_topic) {
            // Deleted just now: the next listing tells.
            return Ok(());
        }
        let refused = error.code().is_some_and(kafka::KafkaCode::is_authorization);
        let since = *self.failing.get_or_insert_with(Instant::now);
        if !refused && !self.complete && since.elapsed() < UNKNOWN_PATIENCE {
            return Err(error);
        }
        self.again = Some(Instant::now() + PAUSE);
        if self.said.insert(if refused { "unauthorized" } else { "failing" }) {
            tracing::warn!(
                topic = name, link = %self.link, %error,
                "which topics the link writes here is not known, so a circle would not be noticed; grant this principal \
                 Read on topics that begin with `__longhaul.`, or look at the topic's leaders; it is tried again by itself"
            );
        }
        Ok(())
    }

    fn targets(&self) -> impl Iterator<Item = (Arc<str>, Arc<str>)> {
        let entries = self.lanes.iter().flat_map(|lane| lane.table.entries.values());
        entries.map(|entry| (Arc::clone(&entry.target.topic), Arc::clone(&self.link)))
    }
}

const TIMEOUT: Duration = Duration::from_secs(2);
/// Between two tries of progress that cannot be read, once nothing waits for it.
const PAUSE: Duration = Duration::from_secs(15);
/// How long nothing is found while progress that was never read cannot be read.
const UNKNOWN_PATIENCE: Duration = Duration::from_secs(30);
