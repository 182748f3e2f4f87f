//! The exporter's consumer group: how far the link is, for Kafka's own tools.
//!
//! Only what the importer acknowledged is committed. The group decides nothing: positions come from the importer.
//! So a commit that fails is a warning and no more.

use std::{collections::BTreeMap, sync::Arc};

use kafka::SourceConsumer;
use proto::ids::Slot;

use crate::partition::Partition;

/// What is to be committed.
#[derive(Debug)]
pub(crate) struct Commit {
    group: String,
    due: BTreeMap<Slot, (Arc<Partition>, i64)>,
    failing: bool,
}

impl Commit {
    pub(crate) fn new(group: String) -> Self {
        Self { group, due: BTreeMap::new(), failing: false }
    }

    /// Everything of the partition below `next` is acknowledged.
    pub(crate) fn note(&mut self, partition: &Arc<Partition>, next: i64) {
        self.due.insert(partition.slot, (Arc::clone(partition), next));
    }

    /// Writes what is due into the group, without waiting.
    pub(crate) fn flush(&mut self, consumer: &mut SourceConsumer) {
        // The name may stand for another incarnation by now, whose offsets these are not.
        self.due.retain(|_, (partition, _)| partition.topic.standing.loss().is_none());
        if self.due.is_empty() {
            return;
        }
        let positions: Vec<(&str, i32, i64)> = self
            .due
            .values()
            .map(|(partition, next)| (&*partition.topic.name, partition.number, *next))
            .collect();
        match consumer.commit(&positions) {
            Ok(()) => {
                self.failing = false;
                self.due.clear();
            }
            Err(error) => {
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::warn!(
                        %error,
                        "positions cannot be committed into group `{}`: carrying goes on, only tools that look at the \
                         group see old positions; make sure that nobody else uses the group",
                        self.group
                    );
                }
            }
        }
    }
}
