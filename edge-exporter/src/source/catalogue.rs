//! The topics that are carried, as they were listed last.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use kafka::Admin;
use proto::{
    ids::{Slot, TopicId},
    limits,
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
    /// Topics that were seen once, where links end here: theirs may not be in progress yet.
    fresh: BTreeSet<String>,
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
            fresh: BTreeSet::new(),
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
                    Ok(topic) => described.push((topic.name, topic.id, topic.partitions.len())),
                    Err((name, code)) => {
                        tracing::debug!(topic = %name, %code, "the topic cannot be described yet");
                        if !self.listed {
                            self.early.insert(name);
                        }
                    }
                }
            }
        }
        self.mirrors.look(&listed)?;
        Ok(self.take(&names, &described))
    }

    /// Takes over what a listing named and what was described of it.
    fn take(&mut self, names: &[&str], described: &[(String, TopicId, usize)]) -> Changes {
        let mut changes = Changes::default();
        for (name, id, partitions) in described {
            self.seen(name, *id, *partitions, &mut changes);
        }
        self.mark_mirrors(&mut changes);
        let named: BTreeSet<&str> = names.iter().copied().collect();
        self.fresh.retain(|name| named.contains(name.as_str()));
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

    fn seen(&mut self, name: &str, id: TopicId, partitions: usize, changes: &mut Changes) {
        if id == TopicId::ZERO {
            tracing::warn!(topic = %name, "the source cluster states no topic ids: the topic is not carried, as it \
                could not be told from one of the same name made later; brokers of Kafka 3.6 or newer are needed");
            return;
        }
        let late = self.listed && !self.early.remove(name);
        // An importer makes a topic before it puts it into its progress.
        let unknown = !self.topics.contains_key(name);
        if late && unknown && self.mirrors.any() && self.fresh.insert(name.to_owned()) {
            return;
        }
        self.fresh.remove(name);
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

impl Known {
    fn new(name: &str, id: TopicId) -> Self {
        Self { topic: Arc::new(Topic::new(name, id)), partitions: Vec::new(), missing: 0 }
    }
}

const TIMEOUT: Duration = Duration::from_secs(10);
const TOPICS_AT_ONCE: usize = 200;
/// Listings in a row that must not name a topic before it counts as gone.
const MISSING_LISTINGS: u32 = 2;

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
        let described: Vec<_> =
            topics.iter().map(|(name, id, partitions)| ((*name).to_owned(), *id, *partitions)).collect();
        catalogue.take(&names, &described)
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

    #[test]
    fn a_topic_made_where_links_end_is_found_by_the_second_listing() {
        let mut catalogue = catalogue();
        take(&mut catalogue, &[("orders", A, 1)]);
        catalogue.mirrors.pretend("eu.orders", "muc-to-fra");
        assert!(take(&mut catalogue, &[("orders", A, 1), ("payments.eu", B, 1)]).found.is_empty());
        assert_eq!(take(&mut catalogue, &[("orders", A, 1), ("payments.eu", B, 1)]).found, [Slot(2)]);
        assert!(catalogue.table.get(Slot(2)).unwrap().late);
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
