//! Questions and changes.
use std::{collections::BTreeMap, time::Duration};

use proto::ids::TopicId;

use crate::{Error, KafkaCode, Settings};

/// Which end of a partition is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// The last stable offset: all transactions before it are over.
    Committed,
    /// The high watermark.
    Uncommitted,
}

/// A topic as the cluster lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicInfo {
    /// Its name.
    pub name: String,
    /// How many partitions it has.
    pub partitions: i32,
}

/// A topic as the cluster describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// Its id: another one after it was created anew.
    pub id: TopicId,
    /// Its partitions, by number.
    pub partitions: Vec<Partition>,
}

/// A partition as the cluster describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Its leader, if it has one.
    pub leader: Option<i32>,
    /// The brokers that hold it.
    pub replicas: Vec<i32>,
    /// Those of them in sync.
    pub isr: Vec<i32>,
}

/// Asks and changes.
pub struct Admin {
    _private: (),
}

#[allow(unused_variables)]
impl Admin {
    /// Makes the handle; no broker is asked yet.
    pub fn new(settings: &Settings) -> Result<Self, Error> {
        unimplemented!()
    }
    /// The cluster's id.
    pub fn cluster_id(&self, timeout: Duration) -> Result<String, Error> {
        unimplemented!()
    }
    /// How many brokers the cluster has.
    pub fn brokers(&self, timeout: Duration) -> Result<usize, Error> {
        unimplemented!()
    }
    /// All topics that the principal may see.
    pub fn topics(&self, timeout: Duration) -> Result<Vec<TopicInfo>, Error> {
        unimplemented!()
    }
    /// Topics with ids, in the order asked for.
    pub fn describe(
        &self,
        topics: &[&str],
        timeout: Duration,
    ) -> Result<Vec<Result<Topic, (String, KafkaCode)>>, Error> {
        unimplemented!()
    }
    /// Creates a topic; `replication` -1 takes the cluster's default.
    pub fn create_topic(
        &self,
        name: &str,
        partitions: i32,
        replication: i32,
        configs: &[(&str, &str)],
        timeout: Duration,
    ) -> Result<(), Error> {
        unimplemented!()
    }
    /// Grows a topic to `total` partitions.
    pub fn create_partitions(&self, name: &str, total: i32, timeout: Duration) -> Result<(), Error> {
        unimplemented!()
    }
    /// The topic's effective configs, secret ones left out.
    pub fn topic_configs(&self, name: &str, timeout: Duration) -> Result<BTreeMap<String, String>, Error> {
        unimplemented!()
    }
    /// Deletes a topic.
    pub fn delete_topic(&self, name: &str, timeout: Duration) -> Result<(), Error> {
        unimplemented!()
    }
    /// Deletes the records before `before`; -1 means all. Returns the new log start.
    pub fn delete_records(&self, topic: &str, partition: i32, before: i64, timeout: Duration) -> Result<i64, Error> {
        unimplemented!()
    }
    /// Log start and end.
    pub fn offsets(
        &self,
        topic: &str,
        partition: i32,
        isolation: Isolation,
        timeout: Duration,
    ) -> Result<(i64, i64), Error> {
        unimplemented!()
    }
    /// The first offset whose timestamp is at or after `timestamp_ms`; `None` when there is none.
    pub fn offset_for_time(
        &self,
        topic: &str,
        partition: i32,
        timestamp_ms: i64,
        timeout: Duration,
    ) -> Result<Option<i64>, Error> {
        unimplemented!()
    }
    /// What the group has committed: topic, partition, next offset.
    pub fn committed(&self, group: &str, timeout: Duration) -> Result<Vec<(String, i32, i64)>, Error> {
        unimplemented!()
    }
}
