//! What there is to carry: topics, their ids and partitions, and how far their logs reach.
//!
//! One thread with an admin client lists the source cluster every few seconds, keeps the [`Table`] of source
//! partitions, and answers what the session asks: where a partition's log begins and ends right now, so that it can be
//! opened at the importer.
//!
//! What must stay true: a slot stands for one partition of one incarnation of a topic for as long as the process
//! lives. Topics and partitions that appear while it runs begin at their log's start, whatever `start` says: they
//! belong to what is carried from their first record on.

mod catalogue;
mod ends;
mod mirrors;

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::Arc,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use kafka::{Admin, KafkaCode};
use proto::{
    ids::{Slot, TopicId},
    wire,
};
use tokio::sync::mpsc;

use crate::{
    config::{Config, Rules, Start},
    partition::{Cluster, Partition, State, Table, Topic},
    position::Ends,
    stop::Stop,
    topic_check::Loss,
};

use catalogue::Catalogue;

/// What the source thread tells the session.
#[derive(Debug)]
pub(crate) enum News {
    /// The source cluster's id; the first thing that is told.
    Cluster(Arc<str>),
    /// Source partitions that are in the table from now on.
    Found(Vec<Slot>),
    /// An incarnation of a topic is not there any more.
    Lost(Arc<Topic>, Loss),
    /// What was asked for with [`Ask`].
    Resolved {
        /// As in the question.
        round: u64,
        /// The partition.
        slot: Slot,
        /// How to open it, or what became of its topic.
        outcome: Result<wire::Open, Loss>,
    },
}

/// A question: how to open these source partitions, with ends as they are now. Each gets one answer, however long the
/// cluster takes. A later question about a slot replaces an earlier one.
#[derive(Debug)]
pub(crate) struct Ask {
    /// Given back with the answers.
    pub(crate) round: u64,
    /// The partitions.
    pub(crate) slots: BTreeSet<Slot>,
}

/// The source thread.
pub(crate) struct Source {
    admin: Admin,
    start: Start,
    table: Arc<Table>,
    cluster: Cluster,
    catalogue: Catalogue,
    asked: Receiver<Ask>,
    news: mpsc::Sender<News>,
    stop: Stop,
    /// What is not answered yet.
    open: BTreeMap<Slot, u64>,
    /// Failing since the last success; logged once.
    failing: bool,
    /// Where the round of looks at ends goes on.
    looked: TopicId,
}

impl Source {
    /// The thread's state, and the door for questions.
    pub(crate) fn new(
        config: &Config,
        table: Arc<Table>,
        (cluster, news): (Cluster, mpsc::Sender<News>),
        stop: Stop,
        rules: Rules,
    ) -> Result<(Self, Sender<Ask>), kafka::Error> {
        let (asks, asked) = crossbeam_channel::bounded(MAX_ASKS);
        let source = Self {
            admin: Admin::new(&config.kafka_settings().named(format!("longhaul-{}-source", config.link)))?,
            start: config.topics.start,
            catalogue: Catalogue::new(config, rules, Arc::clone(&table)),
            table,
            cluster,
            asked,
            news,
            stop,
            open: BTreeMap::new(),
            failing: false,
            looked: TopicId::ZERO,
        };
        Ok((source, asks))
    }

    /// Runs until the process stops.
    pub(crate) fn run(mut self) {
        let Some(cluster) = self.find_cluster() else { return };
        if !self.tell(News::Cluster(cluster)) {
            return;
        }
        let mut next_listing = Instant::now();
        while !self.stop.is_killed() {
            let began = Instant::now();
            if began >= next_listing {
                let listed = self.list();
                // A cluster that needs long to list all it has is asked less often.
                let interval = (began.elapsed() * LISTING_REST).clamp(SECOND_LOOK, LISTING_INTERVAL);
                next_listing = Instant::now()
                    + match listed {
                        true if self.catalogue.looks_again() => SECOND_LOOK,
                        true => interval,
                        false => RETRY,
                    };
            }
            self.look_at_ends();
            let pause = if self.open.is_empty() { TICK } else { RETRY };
            match self.asked.recv_timeout(pause.min(next_listing.saturating_duration_since(Instant::now()))) {
                Ok(ask) => self.add(ask),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            while let Ok(ask) = self.asked.try_recv() {
                self.add(ask);
            }
            if !self.answer() {
                return;
            }
        }
    }

    fn add(&mut self, ask: Ask) {
        self.open.extend(ask.slots.into_iter().map(|slot| (slot, ask.round)));
    }

    /// The cluster's id, however long it takes to be told; `None` when the process stops first.
    fn find_cluster(&mut self) -> Option<Arc<str>> {
        while !self.stop.is_stopping() {
            match self.admin.cluster_id(TIMEOUT) {
                Ok(id) => {
                    self.succeeded();
                    return Some(id.into());
                }
                Err(error) => self.failed("its id", &error),
            }
            std::thread::sleep(RETRY);
        }
        None
    }

    /// Lists the cluster. Says whether that succeeded.
    fn list(&mut self) -> bool {
        match self.catalogue.list(&self.admin) {
            Ok(changes) => {
                self.succeeded();
                for (topic, loss) in changes.lost {
                    self.tell(News::Lost(topic, loss));
                }
                if !changes.found.is_empty() {
                    self.tell(News::Found(changes.found));
                }
                true
            }
            Err(error) => {
                self.failed("its topics", &error);
                false
            }
        }
    }

    /// Answers what is asked, as far as the cluster does. Says whether anybody still listens.
    fn answer(&mut self) -> bool {
        let mut topics: BTreeMap<_, (Arc<Topic>, Vec<Arc<Partition>>)> = BTreeMap::new();
        for slot in self.open.keys().copied().collect::<Vec<_>>() {
            match self.table.get(slot).filter(|partition| partition.state() != State::Closed) {
                Some(partition) => {
                    let topic = Arc::clone(&partition.topic);
                    topics.entry(topic.id).or_insert_with(|| (topic, Vec::new())).1.push(partition);
                }
                None => drop(self.open.remove(&slot)),
            }
        }
        let topics: Vec<_> = topics.into_values().collect();
        topics.chunks(TOPICS_AT_ONCE).all(|chunk| self.answer_topics(chunk))
    }

    fn answer_topics(&mut self, topics: &[(Arc<Topic>, Vec<Arc<Partition>>)]) -> bool {
        let names: Vec<&str> = topics.iter().map(|(topic, _)| &*topic.name).collect();
        let described = match self.admin.describe(&names, TIMEOUT) {
            Ok(described) => described,
            Err(error) => {
                self.failed("its topics", &error);
                return true;
            }
        };
        let mut answers: Vec<(&Arc<Partition>, Result<(), Loss>)> = Vec::new();
        // A question about a partition without a leader is not answered, and no other in it either.
        let mut leaderless = BTreeSet::new();
        for ((topic, partitions), described) in topics.iter().zip(described) {
            let loss = match described {
                Ok(described) if described.id == topic.id => {
                    let numbers = (0..).zip(&described.partitions);
                    let without = numbers.filter(|(_, partition)| partition.leader.is_none());
                    leaderless.extend(without.map(|(number, _): (i32, _)| (topic.id, number)));
                    topic.writer().map(|_| Loss::Mirrored)
                }
                Ok(_) => Some(Loss::Recreated),
                Err((_, KafkaCode::UNKNOWN_TOPIC_OR_PARTITION | KafkaCode::UNKNOWN_TOPIC_ID)) => {
                    Some(Loss::Gone)
                }
                Err((_, KafkaCode::TOPIC_AUTHORIZATION_FAILED)) => Some(Loss::Unauthorized),
                Err((_, code)) => {
                    tracing::debug!(topic = %topic.name, %code, "the topic cannot be described yet");
                    continue;
                }
            };
            match loss {
                Some(loss) => drop(topic.standing.lose(loss)),
                None => topic.standing.restore(),
            }
            answers.extend(partitions.iter().map(|partition| (partition, loss.map_or(Ok(()), Err))));
        }
        answers.retain(|(partition, found)| {
            found.is_err() || !leaderless.contains(&(partition.topic.id, partition.number))
        });
        self.answer_partitions(answers)
    }

    /// Answers what is known, and asks for the ends of all others at once.
    fn answer_partitions(&mut self, mut answers: Vec<(&Arc<Partition>, Result<(), Loss>)>) -> bool {
        let there = |(partition, found): &(&Arc<Partition>, Result<(), Loss>)| {
            found.is_ok().then(|| Arc::clone(partition))
        };
        let there: Vec<Arc<Partition>> = answers.iter().filter_map(there).collect();
        let ends = match ends::look(&self.admin, &there) {
            Ok(ends) => ends,
            Err(error) => {
                self.failed("the ends of its partitions", &error);
                answers.retain(|(_, found)| found.is_err());
                Vec::new()
            }
        };
        let mut ends = ends.into_iter();
        for (partition, found) in answers {
            let outcome = match found {
                Err(loss) => Err(loss),
                Ok(()) => match ends.next() {
                    Some(Ok(ends)) => match self.open_of(partition, ends) {
                        Ok(open) => {
                            self.succeeded();
                            Ok(open)
                        }
                        Err(error) => {
                            self.failed("the offset of a time", &error);
                            continue;
                        }
                    },
                    Some(Err(KafkaCode::TOPIC_AUTHORIZATION_FAILED)) => Err(Loss::Unauthorized),
                    Some(Err(code)) => {
                        tracing::debug!(%partition, %code, "the ends of the partition are not known yet");
                        continue;
                    }
                    None => continue,
                },
            };
            if !self.answer_partition(partition, outcome) {
                return false;
            }
        }
        true
    }

    /// Answers what was asked about a partition. Says whether anybody still listens.
    fn answer_partition(&mut self, partition: &Partition, outcome: Result<wire::Open, Loss>) -> bool {
        let Some(round) = self.open.remove(&partition.slot) else { return true };
        self.tell(News::Resolved { round, slot: partition.slot, outcome })
    }

    fn open_of(&self, partition: &Partition, ends: Ends) -> Result<wire::Open, kafka::Error> {
        let topic = &partition.topic;
        Ok(wire::Open {
            slot: partition.slot.0,
            topic_id: topic.id.0.to_vec(),
            topic: topic.name.to_string(),
            partition: partition.number,
            partition_count: partition.count(),
            log_start: ends.log_start,
            end: ends.stable,
            start: self.start_of(partition, ends)?,
        })
    }

    /// Where a partition begins of which the importer knows nothing.
    fn start_of(&self, partition: &Partition, ends: Ends) -> Result<i64, kafka::Error> {
        if partition.late || self.start == Start::Earliest {
            return Ok(ends.log_start);
        }
        // "Latest" is where the end was when the partition was first seen, also after a reconnect.
        if let Some(start) = partition.facts().start {
            return Ok(start);
        }
        let start = match self.start {
            Start::Timestamp(ms) => {
                let topic = &partition.topic.name;
                self.admin.offset_for_time(topic, partition.number, ms, TIMEOUT)?.unwrap_or(ends.stable)
            }
            Start::Latest | Start::Earliest => ends.stable,
        };
        partition.facts().start = Some(start);
        Ok(start)
    }

    /// Looks at the ends of what is carried, topic by topic, so that lag is known whatever the lanes do.
    fn look_at_ends(&mut self) {
        let mut topics: BTreeMap<TopicId, Vec<Arc<Partition>>> = BTreeMap::new();
        for partition in self.table.active() {
            topics.entry(partition.topic.id).or_default().push(partition);
        }
        let until = Instant::now() + LOOK_BUDGET;
        let after = topics.range((Bound::Excluded(self.looked), Bound::Unbounded));
        for (id, partitions) in after.chain(topics.range(..=self.looked)) {
            let topic = &partitions[0].topic;
            if topic.standing.loss().is_some() || !partitions.iter().any(|partition| ends::is_due(partition))
            {
                continue;
            }
            if Instant::now() > until || !self.asked.is_empty() {
                return;
            }
            self.looked = *id;
            if let Err(error) = ends::look(&self.admin, partitions) {
                tracing::debug!(%error, topic = %topic.name, "the ends of the topic are not known");
                return;
            }
        }
    }

    /// Tells the session. Says whether it still listens.
    fn tell(&self, news: News) -> bool {
        self.news.blocking_send(news).is_ok()
    }

    fn failed(&mut self, what: &str, error: &kafka::Error) {
        self.cluster.answered(false);
        if !std::mem::replace(&mut self.failing, true) {
            tracing::warn!(
                %error,
                "the source cluster does not tell {what}: what it has goes on as far as it can, and this is tried \
                 again every {} ms; check [kafka] bootstrap and that the brokers are up",
                RETRY.as_millis()
            );
        }
    }

    fn succeeded(&mut self) {
        self.cluster.answered(true);
        if std::mem::take(&mut self.failing) {
            tracing::info!("the source cluster answers again");
        }
    }
}

const LISTING_INTERVAL: Duration = Duration::from_secs(3);
/// A listing is followed by a rest of so many times its own length, at least a second and at most the interval.
const LISTING_REST: u32 = 50;
/// How soon a topic is looked at again that a link may just have made.
const SECOND_LOOK: Duration = Duration::from_secs(1);
const RETRY: Duration = Duration::from_millis(500);
const TICK: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(5);
/// Time that looks at ends may take at once: questions wait meanwhile.
const LOOK_BUDGET: Duration = Duration::from_millis(500);
const TOPICS_AT_ONCE: usize = 200;
const MAX_ASKS: usize = 1024;
