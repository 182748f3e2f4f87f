//! Follows topics as an application at the target would, and tells how long records were on their way.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ::kafka::Settings;
use ::kafka::rdkafka::consumer::{BaseConsumer, Consumer as _};
use ::kafka::rdkafka::error::KafkaError;
use ::kafka::rdkafka::message::Message as _;
use ::kafka::rdkafka::metadata::MetadataTopic;
use ::kafka::rdkafka::{Offset, TopicPartitionList};

use crate::checker::client_config;
use crate::generator::now_ms;

const REQUEST_PATIENCE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(50);

/// Why a tail ended early.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read from the cluster")]
    Client(#[from] KafkaError),
    #[error("cannot start a thread")]
    Thread(#[from] std::io::Error),
}

/// A read_committed reader of some topics from their beginnings on. Dropped: ended.
#[derive(Debug)]
pub struct Tail {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Result<Vec<Delays>, Error>>>,
}

#[derive(Debug)]
struct Shared {
    counts: Vec<AtomicU64>,
    /// Highest timestamp of a record seen.
    newest_ms: AtomicI64,
    /// Delays of records with an older timestamp do not count.
    measured_from_ms: AtomicI64,
    stop: AtomicBool,
}

/// How long the records of a topic were on their way: from their timestamps until the tail had them.
///
/// The clocks of writer and reader must be one. Precise to a millisecond.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Delays {
    by_ms: BTreeMap<u64, u64>,
    count: u64,
}

impl Tail {
    /// Follows these topics with their numbers of partitions. Those that do not exist yet are waited for.
    pub fn start(settings: &Settings, topics: &[(String, i32)]) -> Result<Self, Error> {
        let shared = Arc::new(Shared {
            counts: topics.iter().map(|_| AtomicU64::new(0)).collect(),
            newest_ms: AtomicI64::new(i64::MIN),
            measured_from_ms: AtomicI64::new(i64::MIN),
            stop: AtomicBool::new(false),
        });
        let follower = Follower {
            settings: settings.named("longhaul-tail".to_owned()),
            topics: topics.to_owned(),
            shared: shared.clone(),
        };
        let thread = std::thread::Builder::new().name("lab-tail".to_owned()).spawn(move || follower.run())?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Records seen so far of the topic at this index.
    pub fn seen(&self, topic: usize) -> u64 {
        self.shared.counts[topic].load(Ordering::Relaxed)
    }

    /// Records seen so far of all topics.
    pub fn seen_in_all(&self) -> u64 {
        self.shared.counts.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// The highest timestamp of all records seen so far, in milliseconds since 1970; far in the past before the first.
    pub fn newest_ms(&self) -> i64 {
        self.shared.newest_ms.load(Ordering::Relaxed)
    }

    /// From now on only delays of records count that are produced from now on.
    pub fn measure_from_now(&self) {
        self.shared.measured_from_ms.store(now_ms(), Ordering::Relaxed);
    }

    /// Whether it ended by itself: [`Tail::stop`] tells why.
    pub fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Ends it, and gives the delays of each topic.
    pub fn stop(mut self) -> Result<Vec<Delays>, Error> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("a tail is stopped once");
        thread.join().expect("a tail does not panic")
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

impl Delays {
    /// One more.
    pub fn add(&mut self, ms: u64) {
        *self.by_ms.entry(ms).or_default() += 1;
        self.count += 1;
    }

    /// The delay in milliseconds that this share of the records did not exceed; `None` without records.
    pub fn quantile_ms(&self, share: f64) -> Option<u64> {
        let rank = ((self.count as f64 * share).ceil() as u64).clamp(1, self.count.max(1));
        let mut below = 0;
        self.by_ms.iter().find_map(|(ms, count)| {
            below += count;
            (below >= rank).then_some(*ms)
        })
    }
}

/// The delays of each topic, of records produced from a moment on.
struct Measured {
    delays: Vec<Delays>,
    from_ms: i64,
}

impl Measured {
    fn new(topics: usize) -> Self {
        Self { delays: vec![Delays::default(); topics], from_ms: i64::MIN }
    }

    /// A record came. With another moment than before, what was measured until now does not count.
    fn add(&mut self, topic: usize, produced_ms: i64, now_ms: i64, from_ms: i64) {
        if from_ms != self.from_ms {
            self.from_ms = from_ms;
            self.delays.fill(Delays::default());
        }
        if produced_ms >= from_ms {
            self.delays[topic].add(u64::try_from(now_ms - produced_ms).unwrap_or(0));
        }
    }
}

struct Follower {
    settings: Settings,
    topics: Vec<(String, i32)>,
    shared: Arc<Shared>,
}

impl Follower {
    fn run(self) -> Result<Vec<Delays>, Error> {
        let mut measured = Measured::new(self.topics.len());
        let consumer: BaseConsumer = client_config(&self.settings)
            .set("group.id", "longhaul-tail")
            .set("enable.auto.commit", "false")
            .set("isolation.level", "read_committed")
            .set("auto.offset.reset", "earliest")
            .set("fetch.wait.max.ms", "50")
            .set("fetch.queue.backoff.ms", "5")
            // A topic that has just been made is not known to its leader for a moment.
            .set("fetch.error.backoff.ms", "20")
            .set("queued.max.messages.kbytes", "16384")
            .create()?;
        let mut followed = vec![false; self.topics.len()];
        let mut looked: Option<Instant> = None;
        while !self.shared.stop.load(Ordering::Relaxed) {
            if followed.contains(&false) && looked.is_none_or(|it| it.elapsed() >= POLL) {
                self.follow_new(&consumer, &mut followed)?;
                looked = Some(Instant::now());
            }
            match consumer.poll(POLL) {
                Some(Ok(message)) => {
                    let index = self.topics.iter().position(|(name, _)| name == message.topic());
                    let index = index.expect("only these topics are read");
                    let produced_ms = message.timestamp().to_millis().unwrap_or_default();
                    let from_ms = self.shared.measured_from_ms.load(Ordering::Relaxed);
                    measured.add(index, produced_ms, now_ms(), from_ms);
                    self.shared.newest_ms.fetch_max(produced_ms, Ordering::Relaxed);
                    self.shared.counts[index].fetch_add(1, Ordering::Relaxed);
                }
                // Brokers come and go; whoever waits for records sees that none come.
                Some(Err(error)) => tracing::debug!(%error, "tail"),
                None => {}
            }
        }
        Ok(measured.delays)
    }

    /// Begins to read the topics that exist by now.
    fn follow_new(&self, consumer: &BaseConsumer, followed: &mut [bool]) -> Result<(), Error> {
        let mut list = TopicPartitionList::new();
        for ((name, partitions), followed) in self.topics.iter().zip(followed) {
            if *followed || !exists(consumer, name, *partitions)? {
                continue;
            }
            *followed = true;
            for partition in 0..*partitions {
                // Not `Beginning`: librdkafka looks for it half a second later when it does not know the leader yet. What
                // begins later is found by `auto.offset.reset`.
                list.add_partition_offset(name, partition, Offset::Offset(0))?;
            }
        }
        if list.count() > 0 {
            consumer.incremental_assign(&list)?;
        }
        Ok(())
    }
}

/// Whether the topic has all its partitions, with their leaders. The reader itself is asked, so that it knows them when it
/// begins: by itself it looks for topics that it does not know once a second.
fn exists(consumer: &BaseConsumer, name: &str, partitions: i32) -> Result<bool, KafkaError> {
    let metadata = consumer.fetch_metadata(Some(name), REQUEST_PATIENCE)?;
    let led = |topic: &MetadataTopic| topic.partitions().iter().filter(|it| it.leader() >= 0).count();
    Ok(metadata.topics().iter().any(|topic| topic.name() == name && led(topic) >= partitions as usize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_records() {
        let mut delays = Delays::default();
        assert_eq!(delays.quantile_ms(0.5), None);
        for ms in 1..=100 {
            delays.add(ms);
        }
        assert_eq!(delays.quantile_ms(0.5), Some(50));
        assert_eq!(delays.quantile_ms(0.99), Some(99));
        assert_eq!(delays.quantile_ms(1.0), Some(100));
        assert_eq!(delays.quantile_ms(0.0), Some(1));
    }

    #[test]
    fn what_came_before_the_measurement_began_does_not_count() {
        let mut measured = Measured::new(1);
        measured.add(0, 100, 5100, i64::MIN);
        assert_eq!(measured.delays[0].quantile_ms(1.0), Some(5000));
        measured.add(0, 190, 5190, 200);
        assert_eq!(measured.delays[0].quantile_ms(1.0), None);
        measured.add(0, 200, 210, 200);
        assert_eq!(measured.delays[0].quantile_ms(1.0), Some(10));
    }
}
