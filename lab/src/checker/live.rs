//! A running cluster, read with librdkafka.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ::kafka::Settings;
use ::kafka::rdkafka::config::ClientConfig;
use ::kafka::rdkafka::consumer::{BaseConsumer, Consumer};
use ::kafka::rdkafka::error::KafkaError;
use ::kafka::rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use ::kafka::rdkafka::{Offset, TopicPartitionList};

use super::{Error, History, Place, Seen};

const REQUEST_PATIENCE: Duration = Duration::from_secs(30);
/// A reader waits this long for more before it says that something is stuck.
const READ_PATIENCE: Duration = Duration::from_secs(30);

/// A cluster as a read_committed reader sees it.
#[derive(Clone)]
pub struct LiveHistory {
    settings: Settings,
    /// Kept from one partition to the next: a new one takes half a second to get going.
    consumer: Arc<Mutex<Option<BaseConsumer>>>,
}

impl LiveHistory {
    /// The cluster that these settings lead to.
    pub fn new(settings: Settings) -> Self {
        Self { settings, consumer: Arc::default() }
    }

    /// The cluster at this address, without any security.
    pub fn at(bootstrap: &str) -> Self {
        let client_id = "longhaul-checker".to_owned();
        Self::new(Settings { bootstrap: bootstrap.to_owned(), properties: BTreeMap::new(), client_id })
    }

    /// Does something with the consumer; after an error the next one is new.
    fn with_consumer<T>(&self, act: impl FnOnce(&BaseConsumer) -> Result<T, Error>) -> Result<T, Error> {
        let mut kept = self.consumer.lock().unwrap_or_else(PoisonError::into_inner);
        let consumer = kept.take().map_or_else(|| self.new_consumer(), Ok)?;
        let outcome = act(&consumer);
        if outcome.is_ok() {
            *kept = Some(consumer);
        }
        outcome
    }

    fn new_consumer(&self) -> Result<BaseConsumer, Error> {
        let mut config = client_config(&self.settings);
        config
            .set("group.id", "longhaul-checker")
            .set("enable.auto.commit", "false")
            .set("isolation.level", "read_committed")
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "earliest")
            .set("queued.max.messages.kbytes", "32768")
            .set("fetch.wait.max.ms", "20");
        config.create().map_err(|source| self.client_error(source))
    }

    fn client_error(&self, source: KafkaError) -> Error {
        Error::Client { bootstrap: self.settings.bootstrap.clone(), source }
    }
}

impl History for LiveHistory {
    fn topics(&self) -> Result<Vec<String>, Error> {
        self.with_consumer(|consumer| {
            let metadata = consumer.fetch_metadata(None, REQUEST_PATIENCE);
            let metadata = metadata.map_err(|source| self.client_error(source))?;
            Ok(metadata.topics().iter().map(|topic| topic.name().to_owned()).collect())
        })
    }

    fn partitions(&self, topic: &str) -> Result<i32, Error> {
        let count = self.with_consumer(|consumer| {
            let metadata = consumer.fetch_metadata(Some(topic), REQUEST_PATIENCE);
            let metadata = metadata.map_err(|source| self.client_error(source))?;
            let found = metadata.topics().iter().find(|it| it.name() == topic);
            Ok(found.map_or(0, |it| it.partitions().len()))
        })?;
        if count == 0 {
            return Err(Error::NoTopic {
                bootstrap: self.settings.bootstrap.clone(),
                topic: topic.to_owned(),
            });
        }
        Ok(i32::try_from(count).expect("Kafka numbers partitions by an i32"))
    }

    fn read(&self, topic: &str, partition: i32, visit: &mut dyn FnMut(Seen<'_>)) -> Result<(), Error> {
        self.with_consumer(|consumer| {
            let assign = |list: &TopicPartitionList| consumer.assign(list);
            let mut list = TopicPartitionList::new();
            let assigned =
                list.add_partition_offset(topic, partition, Offset::Beginning).and_then(|()| assign(&list));
            assigned.map_err(|source| self.client_error(source))?;
            read_to_end(consumer, topic, partition, visit)?;
            assign(&TopicPartitionList::new()).map_err(|source| self.client_error(source))
        })
    }
}

/// Reads what is assigned until its end.
fn read_to_end(
    consumer: &BaseConsumer,
    topic: &str,
    partition: i32,
    visit: &mut dyn FnMut(Seen<'_>),
) -> Result<(), Error> {
    let mut offset = -1;
    let mut last_sign = Instant::now();
    loop {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                offset = message.offset();
                last_sign = Instant::now();
                show(&message, visit);
            }
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(()),
            Some(Err(source)) if is_fatal(&source) => {
                return Err(Error::Read { topic: topic.to_owned(), partition, offset, source });
            }
            _ if last_sign.elapsed() > READ_PATIENCE => {
                let seconds = READ_PATIENCE.as_secs();
                return Err(Error::Stuck { topic: topic.to_owned(), partition, offset, seconds });
            }
            _ => {}
        }
    }
}

/// The offsets that a group has committed for all partitions of these topics; partitions without one are left out.
pub fn group_offsets(
    settings: &Settings,
    group: &str,
    topics: &[&str],
) -> Result<BTreeMap<Place, i64>, Error> {
    let fail = |source| Error::Client { bootstrap: settings.bootstrap.clone(), source };
    let consumer: BaseConsumer = client_config(settings).set("group.id", group).create().map_err(fail)?;
    let history = LiveHistory::new(settings.clone());
    let mut list = TopicPartitionList::new();
    for topic in topics {
        for partition in 0..history.partitions(topic)? {
            list.add_partition(topic, partition);
        }
    }
    let committed = consumer.committed_offsets(list, REQUEST_PATIENCE).map_err(fail)?;
    let elements = committed.elements();
    let known = elements.iter().filter_map(|it| match it.offset() {
        Offset::Offset(offset) => Some(((it.topic().to_owned(), it.partition()), offset)),
        _ => None,
    });
    Ok(known.collect())
}

/// What every client of a cluster is told.
pub(crate) fn client_config(settings: &Settings) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &settings.bootstrap).set("client.id", &settings.client_id);
    for (name, value) in &settings.properties {
        config.set(name, value);
    }
    config
}

/// Lost connections come back by themselves; what a retry does not cure is told at once.
fn is_fatal(error: &KafkaError) -> bool {
    use ::kafka::rdkafka::types::RDKafkaErrorCode::{
        AllBrokersDown, BrokerTransportFailure, OperationTimedOut, Resolve,
    };
    let transient = [AllBrokersDown, BrokerTransportFailure, OperationTimedOut, Resolve];
    !error.rdkafka_error_code().is_some_and(|code| transient.contains(&code))
}

fn show(message: &BorrowedMessage<'_>, visit: &mut dyn FnMut(Seen<'_>)) {
    let headers: Vec<(&str, Option<&[u8]>)> = message
        .headers()
        .map(|it| it.iter().map(|header| (header.key, header.value)).collect())
        .unwrap_or_default();
    visit(Seen {
        offset: message.offset(),
        timestamp: message.timestamp().to_millis().unwrap_or(-1),
        key: message.key(),
        value: message.payload(),
        headers: &headers,
    });
}
