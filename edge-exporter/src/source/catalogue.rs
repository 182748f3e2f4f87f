//! The topics that are carried, as they were listed last.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use kafka::{Admin, KafkaCode};
use proto::{
    ids::{Slot, TopicId},
    limits, progress,
};

use super::mirrors::Mirrors;
use crate::{
    config::{Config, Rules, Skip},
    partition::{Partition, Table, Topic},
    position::Skips,
    topic_check::Loss,
};

/// See the [module](self).
pub(super) struct Catalogue {
    rules: Rules,
    skips: Vec<Skip>,
    table: Arc<Table>,
    topics: BTreeMap<String, Known>,
    /// Topics that the first listing named and could not describe: they are not late.
    early: BTreeSet<String>,
    mirrors: Mirrors,
    /// Topics without a record, where links end here: one of theirs may not be in its progress yet.
    fresh: BTreeMap<String, Fresh>,
    listed: bool,
    next_slot: u32,
    full: bool,
}

struct Known {
    topic: Arc<Topic>,
    partitions: Vec<Arc<Partition>>,
    /// Listings in a row that did not name it.
    missing: u32,
}

/// A topic as a listing found it.
struct Listed {
    name: String,
    id: TopicId,
    partitions: usize,
    log: Log,
}

/// Whether any record was ever written into a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Log {
    Unknown,
    Empty,
    Written,
}

/// A topic that waits until it is known that no link writes it.
struct Fresh {
    since: Instant,
    /// Whether all that it will hold came after it was first seen.
    late: bool,
}

/// What a listing changed.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) found: Vec<Slot>,
    pub(super) lost: Vec<(Arc<Topic>, Loss)>,
}

impl Catalogue {
    pub(super) fn new(config: &Config, rules: Rules, table: Arc<Table>) -> Self {
        Self {
            rules,
            skips: config.skip.clone(),
            table,
            topics: BTreeMap::new(),
            early: BTreeSet::new(),
            mirrors: Mirrors::new(config.kafka_settings().named(format!("longhaul-{}-mirrors", config.link))),
            fresh: BTreeMap::new(),
            listed: false,
            next_slot: 1,
            full: false,
        }
    }

    /// Whether topics wait for a second look.
    pub(super) fn looks_again(&self) -> bool {
        !self.fresh.is_empty()
    }

    /// Asks the cluster for its topics and takes over what changed.
    pub(super) fn list(&mut self, admin: &Admin) -> Result<Changes, kafka::Error> {
        let listed = admin.topics(TIMEOUT)?;
        let names: Vec<&str> =
            listed.iter().map(|topic| topic.name.as_str()).filter(|name| self.rules.carries(name)).collect();
        let mut described = Vec::with_capacity(names.len());
        for chunk in names.chunks(TOPICS_AT_ONCE) {
            for answer in admin.describe(chunk, TIMEOUT)? {
                match answer {
                    Ok(topic) => described.push(Listed {
                        name: topic.name,
                        id: topic.id,
                        partitions: topic.partitions.len(),
                        log: Log::Unknown,
                    }),
                    Err((name, code)) => {
                        tracing::debug!(topic = %name, %code, "the topic cannot be described yet");
                        if !self.listed {
                            self.early.insert(name);
                        }
                    }
                }
            }
        }
        if listed.iter().any(|topic| progress::link_of(&topic.name).is_some()) {
            self.look_at_logs(admin, &mut described);
        }
        // After the logs: whatever a link wrote into them, its progress names the topic by now.
        self.mirrors.look(&listed)?;
        Ok(self.take(&names, &described))
    }

    /// Which of the topics that are not carried yet hold records.
    fn look_at_logs(&self, admin: &Admin, described: &mut [Listed]) {
        let mut unknown: Vec<&mut Listed> =
            described.iter_mut().filter(|topic| !self.topics.contains_key(&topic.name)).collect();
        for topics in unknown.chunks_mut(TOPICS_AT_ONCE) {
            let partitions: Vec<(&str, i32)> = topics
                .iter()
                .flat_map(|topic| (0..topic.partitions as i32).map(|number| (topic.name.as_str(), number)))
                .collect();
            let mut ends = match admin.ends_of(&partitions, TIMEOUT) {
                Ok(ends) => ends.into_iter(),
                Err(error) => {
                    tracing::debug!(%error, "whether new topics hold records is not known yet");
                    return;
                }
            };
            let logs: Vec<Log> =
                topics.iter().map(|topic| Log::of(ends.by_ref().take(topic.partitions))).collect();
            topics.iter_mut().zip(logs).for_each(|(topic, log)| topic.log = log);
        }
    }

    /// Takes over what a listing named and what was described of it.
    fn take(&mut self, names: &[&str], described: &[Listed]) -> Changes {
        let mut changes = Changes::default();
        for topic in described {
            self.seen(topic, &mut changes);
        }
        self.mark_mirrors(&mut changes);
        let named: BTreeSet<&str> = names.iter().copied().collect();
        self.fresh.retain(|name, _| named.contains(name.as_str()));
        for (name, known) in &mut self.topics {
            if named.contains(name.as_str()) {
                known.missing = 0;
                continue;
            }
            known.missing += 1;
            // A broker that just came up may not name everything yet.
            if known.missing >= MISSING_LISTINGS
                && known.topic.standing.loss().is_none()
                && known.topic.standing.lose(Loss::Gone)
            {
                changes.lost.push((Arc::clone(&known.topic), Loss::Gone));
            }
        }
        if !std::mem::replace(&mut self.listed, true) && self.topics.is_empty() {
            tracing::warn!(
                "no topic of the source cluster matches [topics] include: nothing is carried until one is created; \
                 check the patterns and that the principal may describe the topics"
            );
        }
        changes
    }

    /// Topics that a link writes here are not carried on.
    fn mark_mirrors(&mut self, changes: &mut Changes) {
        for (name, known) in &self.topics {
            let writer = self.mirrors.writer_of(name).filter(|_| !self.rules.relays(name));
            known.topic.set_writer(writer.cloned());
            if writer.is_some()
                && known.topic.standing.loss().is_none()
                && known.topic.standing.lose(Loss::Mirrored)
            {
                changes.lost.push((Arc::clone(&known.topic), Loss::Mirrored));
            }
        }
    }

    /// Whether a topic that is not carried yet counts as late, once it may be carried: an importer makes a topic before
    /// it puts it into its progress, so one that nothing was written into yet may be of a link.
    fn settle(&mut self, name: &str, late: bool, log: Log) -> Option<bool> {
        let since = Instant::now();
        let fresh = self.fresh.entry(name.to_owned()).or_insert(Fresh { since, late });
        fresh.late |= log == Log::Empty;
        if log != Log::Written && fresh.since.elapsed() < SETTLING {
            return None;
        }
        self.fresh.remove(name).map(|fresh| fresh.late)
    }

    fn seen(&mut self, listed: &Listed, changes: &mut Changes) {
        let Listed { name, id, partitions, log } = listed;
        let (name, id, partitions) = (name.as_str(), *id, *partitions);
        if id == TopicId::ZERO {
            tracing::warn!(topic = %name, "the source cluster states no topic ids: the topic is not carried, as it \
                could not be told from one of the same name made later; brokers of Kafka 3.6 or newer are needed");
            return;
        }
        let mut late = self.listed && !self.early.remove(name);
        if !self.topics.contains_key(name) && self.mirrors.any() {
            match self.settle(name, late, *log) {
                Some(settled) => late = settled,
                None => return,
            }
        }
        let known = match self.topics.get_mut(name) {
            Some(known) if known.topic.id == id => known,
            Some(known) => {
                if known.topic.standing.lose(Loss::Recreated) {
                    changes.lost.push((Arc::clone(&known.topic), Loss::Recreated));
                }
                *known = Known::new(name, id);
                known
            }
            None => self.topics.entry(name.to_owned()).or_insert_with(|| Known::new(name, id)),
        };
        let count = i32::try_from(partitions).unwrap_or(i32::MAX);
        let first = known.partitions.len();
        if first == partitions {
            return;
        }
        known.partitions.iter().for_each(|partition| partition.set_count(count));
        for number in first..partitions {
            if self.next_slot as usize > limits::MAX_SLOTS {
                if !std::mem::replace(&mut self.full, true) {
                    tracing::error!(
                        "{} source partitions are the most of one link: {name}/{number} and what comes after it is not \
                         carried; spread the topics over several links",
                        limits::MAX_SLOTS
                    );
                }
                return;
            }
            let slot = Slot(self.next_slot);
            self.next_slot += 1;
            let number = i32::try_from(number).unwrap_or(i32::MAX);
            let skips = Skips::new(self.skips.iter().filter(|skip| skip.is_about(name, id, number)));
            let topic = Arc::clone(&known.topic);
            // A topic that grew while nobody looked began with its partitions of today.
            let partition = Arc::new(Partition::new(slot, topic, number, count, skips, late));
            self.table.insert(Arc::clone(&partition));
            known.partitions.push(partition);
            changes.found.push(slot);
        }
    }
}

impl Log {
    fn of(ends: impl Iterator<Item = Result<kafka::Ends, KafkaCode>>) -> Self {
        let mut log = Self::Empty;
        for ends in ends {
            match ends {
                Ok(ends) if ends.hw > 0 => return Self::Written,
                Ok(_) => {}
                Err(_) => log = Self::Unknown,
            }
        }
        log
    }
}

impl Known {
    fn new(name: &str, id: TopicId) -> Self {
        Self { topic: Arc::new(Topic::new(name, id)), partitions: Vec::new(), missing: 0 }
    }
}

const TIMEOUT: Duration = Duration::from_secs(10);
const TOPICS_AT_ONCE: usize = 200;
/// Listings in a row that must not name a topic before it counts as gone.
const MISSING_LISTINGS: u32 = 2;
/// How long a topic without a record is waited for where links end: what makes it for a link has it in progress by then.
const SETTLING: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::example;

    const A: TopicId = TopicId([1; 16]);
    const B: TopicId = TopicId([2; 16]);

    fn catalogue() -> Catalogue {
        let config = example();
        Catalogue::new(&config, config.topic_rules().unwrap(), Arc::default())
    }

    fn take(catalogue: &mut Catalogue, topics: &[(&str, TopicId, usize)]) -> Changes {
        let names: Vec<&str> = topics.iter().map(|(name, ..)| *name).collect();
        catalogue.take(&names, &listed(topics, Log::Written))
    }

    fn listed(topics: &[(&str, TopicId, usize)], log: Log) -> Vec<Listed> {
        let listed = |(name, id, partitions): &(&str, TopicId, usize)| Listed {
            name: (*name).to_owned(),
            id: *id,
            partitions: *partitions,
            log,
        };
        topics.iter().map(listed).collect()
    }

    #[test]
    fn what_appears_while_running_is_late_and_slots_stay() {
        let mut catalogue = catalogue();
        assert_eq!(take(&mut catalogue, &[("orders", A, 2)]).found, [Slot(1), Slot(2)]);
        assert!(take(&mut catalogue, &[("orders", A, 2)]).found.is_empty());
        assert_eq!(
            take(&mut catalogue, &[("orders", A, 3), ("payments.eu", B, 1)]).found,
            [Slot(3), Slot(4)]
        );
        let late: Vec<bool> = catalogue.table.all().iter().map(|partition| partition.late).collect();
        assert_eq!(late, [false, false, true, true]);
        assert_eq!(catalogue.table.get(Slot(1)).unwrap().count(), 3);
    }

    #[test]
    fn a_topic_made_again_gets_slots_of_its_own_and_loses_the_old_ones() {
        let mut catalogue = catalogue();
        take(&mut catalogue, &[("orders", A, 1)]);
        let changes = take(&mut catalogue, &[("orders", B, 1)]);
        assert_eq!(changes.found, [Slot(2)]);
        assert_eq!(changes.lost.len(), 1);
        assert_eq!((changes.lost[0].0.id, changes.lost[0].1), (A, Loss::Recreated));
        assert!(catalogue.table.get(Slot(2)).unwrap().late, "it is carried from its first record on");
    }

    #[test]
    fn a_topic_that_a_link_writes_here_is_not_carried_on_until_the_link_is_gone() {
        let mut catalogue = catalogue();
        take(&mut catalogue, &[("orders", A, 1)]);
        catalogue.mirrors.pretend("orders", "muc-to-fra");
        let changes = take(&mut catalogue, &[("orders", A, 1)]);
        assert_eq!(changes.lost.len(), 1);
        assert_eq!(changes.lost[0].1, Loss::Mirrored);
        assert_eq!(changes.lost[0].0.writer().as_deref(), Some("muc-to-fra"));
        assert!(take(&mut catalogue, &[("orders", A, 1)]).lost.is_empty(), "told once");
        catalogue.mirrors.forget();
        assert!(take(&mut catalogue, &[("orders", A, 1)]).lost.is_empty());
        assert_eq!(catalogue.table.get(Slot(1)).unwrap().topic.writer(), None);
    }

    /// R-2, on the way round: an importer makes its topic first, names it in its progress next and writes it last.
    #[test]
    fn where_links_end_a_topic_waits_for_its_first_record() {
        for first in [true, false] {
            let mut catalogue = catalogue();
            if !first {
                take(&mut catalogue, &[("orders", A, 1)]);
            }
            catalogue.mirrors.pretend("eu.orders", "muc-to-fra");
            for log in [Log::Unknown, Log::Empty] {
                let changes = catalogue.take(&["payments.eu"], &listed(&[("payments.eu", B, 1)], log));
                assert!(changes.found.is_empty(), "{log:?}, first listing {first}");
                assert!(catalogue.looks_again());
            }
            let changes = take(&mut catalogue, &[("payments.eu", B, 1)]);
            assert_eq!(changes.found.len(), 1);
            assert!(
                catalogue.table.get(changes.found[0]).unwrap().late,
                "it is carried from its first record on"
            );
            assert!(!catalogue.looks_again());
        }
    }

    #[test]
    fn where_links_end_a_topic_with_records_is_found_at_once_and_an_empty_one_after_a_while() {
        let mut catalogue = catalogue();
        catalogue.mirrors.pretend("eu.orders", "muc-to-fra");
        let found = take(&mut catalogue, &[("orders", A, 1)]).found;
        assert!(!catalogue.table.get(found[0]).unwrap().late, "it was there before");
        let empty = [("payments.eu", B, 1)];
        assert!(catalogue.take(&["payments.eu"], &listed(&empty, Log::Empty)).found.is_empty());
        catalogue.fresh.get_mut("payments.eu").unwrap().since -= SETTLING;
        assert_eq!(catalogue.take(&["payments.eu"], &listed(&empty, Log::Empty)).found.len(), 1);
    }

    #[test]
    fn a_log_is_empty_where_all_partitions_say_so_and_written_where_one_does() {
        let ends = |hw| Ok(kafka::Ends { low: 0, lso: 0, hw });
        let lost = Err(KafkaCode::TIMED_OUT);
        assert_eq!(Log::of([ends(0), ends(0)].into_iter()), Log::Empty);
        assert_eq!(Log::of([ends(0), lost].into_iter()), Log::Unknown);
        assert_eq!(Log::of([lost, ends(1)].into_iter()), Log::Written);
    }

    #[test]
    fn one_listing_without_a_topic_does_not_lose_it_and_two_do_once() {
        let mut catalogue = catalogue();
        take(&mut catalogue, &[("orders", A, 1)]);
        assert!(take(&mut catalogue, &[]).lost.is_empty());
        assert!(take(&mut catalogue, &[("orders", A, 1)]).lost.is_empty());
        assert!(take(&mut catalogue, &[]).lost.is_empty());
        assert_eq!(take(&mut catalogue, &[]).lost.len(), 1);
        assert!(take(&mut catalogue, &[]).lost.is_empty());
    }
}
