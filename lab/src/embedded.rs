//! A Kafka cluster inside this process: for the demo, and for tests that must be quick.
//!
//! The cluster is krafka's `FakeBroker`: real wire protocol, transactions, fencing, isolation. librdkafka cannot
//! talk to it in a few places, which a shim in front of it makes up for:
//!
//! ```text
//! librdkafka --> shim: EndTxn 0/1 as 3, DeleteTopics 1 as 3; DescribeConfigs, CreatePartitions answered here --> FakeBroker
//! ```
//!
//! What it is not: durable; a judge of group rebalances (two members get the same partitions), of transaction
//! timeouts (a transaction without an end stays open), of retention or of `DeleteRecords`. For those there is
//! [`crate::kafka`]. Its memory grows with the data.

mod answers;
mod shim;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use krafka::testing::ApiKey;
use krafka::testing::FakeBroker;
use tokio::runtime::Runtime;

use shim::Shim;

/// How often the broker forgets the requests it has recorded: it scans them all on every call.
const FORGET_INTERVAL: Duration = Duration::from_secs(1);

/// Why an embedded cluster could not be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot start the threads of an embedded cluster")]
    Threads(#[source] std::io::Error),
    #[error("cannot start the embedded broker")]
    Broker(#[source] krafka::KrafkaError),
    #[error("cannot listen for clients of the embedded cluster")]
    Listen(#[source] std::io::Error),
}

/// Configurations of topics, by name: the broker keeps none.
type TopicConfigs = Arc<Mutex<BTreeMap<String, BTreeMap<String, String>>>>;

/// A cluster of one broker in this process; gone when dropped.
#[derive(Debug)]
pub struct EmbeddedCluster {
    broker: Arc<FakeBroker>,
    configs: TopicConfigs,
    shim: Shim,
    /// `None` only while it is dropped.
    runtime: Option<Runtime>,
}

impl EmbeddedCluster {
    /// Starts a cluster with this cluster id. Topics are made by [`EmbeddedCluster::create_topic`] or by an admin
    /// client, never by being named.
    pub fn start(cluster_id: &str) -> Result<Self, Error> {
        // On a thread of its own: the caller may be inside a runtime, where another one may not block.
        let start = || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .thread_name("embedded-kafka")
                .enable_all()
                .build()
                .map_err(Error::Threads)?;
            let broker = runtime.block_on(FakeBroker::start()).map_err(Error::Broker)?;
            Ok((runtime, Arc::new(broker)))
        };
        let (runtime, broker) =
            std::thread::scope(|scope| scope.spawn(start).join().expect("starting a broker does not panic"))?;
        let configs = TopicConfigs::default();
        let shim = Shim::start(broker.clone(), configs.clone()).map_err(Error::Listen)?;
        broker.with_state(|state| {
            state.cluster_id = cluster_id.to_owned();
            state.auto_create_topics = false;
            for node in &mut state.brokers {
                node.port = i32::from(shim.address().port());
            }
        });
        broker.set_api_versions(ApiKey::EndTxn, 0, 5);
        broker.set_api_versions(ApiKey::DeleteTopics, 1, 3);
        broker.set_api_versions(ApiKey::DescribeConfigs, 1, 1);
        broker.set_api_versions(ApiKey::CreatePartitions, 0, 1);
        let weak = Arc::downgrade(&broker);
        runtime.spawn(async move {
            while let Some(broker) = weak.upgrade() {
                broker.clear_requests();
                drop(broker);
                tokio::time::sleep(FORGET_INTERVAL).await;
            }
        });
        Ok(Self { broker, configs, shim, runtime: Some(runtime) })
    }

    /// `bootstrap.servers`.
    pub fn bootstrap(&self) -> String {
        self.shim.address().to_string()
    }

    /// Creates a topic; false when there is one of that name.
    pub fn create_topic(&self, name: &str, partitions: i32) -> bool {
        self.broker.create_topic(name, partitions)
    }

    /// Creates a topic with configurations, which `DescribeConfigs` gives back and nothing acts upon.
    pub fn create_topic_with(&self, name: &str, partitions: i32, configs: &[(&str, &str)]) -> bool {
        let created = self.create_topic(name, partitions);
        if created {
            let configs = configs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
            self.configs().insert(name.to_owned(), configs);
        }
        created
    }

    /// Deletes a topic; false when there is none. One of the same name gets a new id.
    pub fn delete_topic(&self, name: &str) -> bool {
        self.configs().remove(name);
        self.broker.delete_topic(name)
    }

    /// The id of a topic.
    pub fn topic_id(&self, name: &str) -> Option<[u8; 16]> {
        self.broker.topic_id(name)
    }

    /// Lets a topic grow to that many partitions; how many were added.
    pub fn add_partitions(&self, name: &str, partitions: i32) -> usize {
        self.broker.add_partitions(name, partitions)
    }

    /// High watermark of a partition.
    pub fn end_offset(&self, topic: &str, partition: i32) -> Option<i64> {
        self.broker.next_offset(topic, partition)
    }

    /// What a group has committed for a partition.
    pub fn group_offset(&self, group: &str, topic: &str, partition: i32) -> Option<i64> {
        self.broker.committed_offset(group, topic, partition)
    }

    /// The broker is gone: connections end and new ones are refused, until [`EmbeddedCluster::restart`]. Data stays.
    pub fn crash(&self) {
        self.broker.crash(0);
    }

    /// The broker is back after [`EmbeddedCluster::crash`].
    pub fn restart(&self) {
        self.broker.restart(0);
    }

    /// The broker itself, for faults that have no name here (`on_once`, `hold_transaction_markers`, ...).
    pub fn broker(&self) -> &FakeBroker {
        &self.broker
    }

    fn configs(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, BTreeMap<String, String>>> {
        self.configs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for EmbeddedCluster {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Not the runtime's own drop: that would block, which a caller inside a runtime may not.
            runtime.shutdown_background();
        }
    }
}
