//! Fills topics: fast, with any compression, in transactions or not, and with a count of what readers must see.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ::kafka::rdkafka::ClientContext;
use ::kafka::rdkafka::config::ClientConfig;
use ::kafka::rdkafka::error::{KafkaError, RDKafkaErrorCode};
use ::kafka::rdkafka::message::{Header as RdHeader, Message as _, OwnedHeaders};
use ::kafka::rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext};
use ::kafka::{Admin, Settings};
use crossbeam_channel::Sender;

use crate::checker::client_config;
use crate::record::Record;

const PATIENCE: Duration = Duration::from_secs(60);
/// Default of [`LoadOptions::at_once`], and how many such loads wait.
const LOAD: usize = 500;
const LOADS_WAITING: usize = 16;
/// Delivery reports are collected after so many records.
const POLL_EVERY: u64 = 256;

/// How records are written.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// `none`, `gzip`, `snappy`, `lz4` or `zstd`.
    pub compression: String,
    /// More properties of librdkafka; they win.
    pub properties: BTreeMap<String, String>,
    /// In transactions of so many records.
    pub transactions: Option<Transactions>,
    /// Records that are made before they go to the producer, without transactions. Default 500: quick. 1 where each
    /// must leave as soon as there is one.
    pub at_once: usize,
}

/// How transactions are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transactions {
    /// Records in each.
    pub records: usize,
    /// One transaction in so many is written first in vain: aborted, and then written again and committed.
    pub abort_one_in: Option<usize>,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            compression: "none".to_owned(),
            properties: BTreeMap::new(),
            transactions: None,
            at_once: LOAD,
        }
    }
}

/// What was written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Records that a read_committed reader must see: all that were given.
    pub visible: u64,
    /// Bytes of their keys, values and headers.
    pub visible_bytes: u64,
    /// Records that were aborted, which such a reader must not see.
    pub aborted: u64,
    /// How long it took, until the last was acknowledged.
    pub elapsed: Duration,
}

/// Why a topic could not be made or filled.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot ask the cluster")]
    Admin(#[from] ::kafka::Error),
    #[error("topic {topic} does not exist: create it first")]
    NoTopic { topic: String },
    #[error("cannot write to {topic}")]
    Client { topic: String, source: KafkaError },
    #[error("the cluster refused {count} records, the first for {topic} [{partition}]")]
    Refused { count: u64, topic: String, partition: i32, source: KafkaError },
    #[error("{count} records of {topic} were not acknowledged within {} s", PATIENCE.as_secs())]
    Unacknowledged { topic: String, count: i32 },
}

/// Creates a topic with the broker's default of replicas.
pub fn create_topic(
    settings: &Settings,
    name: &str,
    partitions: i32,
    configs: &[(&str, &str)],
) -> Result<(), Error> {
    Ok(Admin::new(settings)?.create_topic(name, partitions, -1, configs, PATIENCE)?)
}

/// Writes all records to a topic, in order for each partition, and waits until all are acknowledged.
///
/// The records are made on a thread of their own.
pub fn load(
    settings: &Settings,
    topic: &str,
    records: impl Iterator<Item = Record> + Send,
    options: &LoadOptions,
) -> Result<Loaded, Error> {
    let started = Instant::now();
    let mut loader = Loader::new(settings, topic, options)?;
    let (sender, receiver) = crossbeam_channel::bounded(LOADS_WAITING);
    let size = options.transactions.map_or(options.at_once, |it| it.records).max(1);
    let mut loaded = std::thread::scope(|scope| {
        scope.spawn(move || feed(records, size, &sender));
        // Dropped at an error, the receiver ends the feeding thread.
        for (number, load) in receiver.into_iter().enumerate() {
            loader.write(number, &load, options.transactions)?;
        }
        loader.finish()
    })?;
    loaded.elapsed = started.elapsed();
    Ok(loaded)
}

fn feed(mut records: impl Iterator<Item = Record>, size: usize, sender: &Sender<Vec<Record>>) {
    loop {
        let load: Vec<Record> = records.by_ref().take(size).collect();
        if load.is_empty() || sender.send(load).is_err() {
            return;
        }
    }
}

struct Loader {
    producer: BaseProducer<Reports>,
    topic: String,
    partitions: i32,
    sent: u64,
    loaded: Loaded,
}

impl Loader {
    fn new(settings: &Settings, topic: &str, options: &LoadOptions) -> Result<Self, Error> {
        let topics = Admin::new(settings)?.topics(PATIENCE)?;
        let partitions = topics.iter().find(|it| it.name == topic).map(|it| it.partitions);
        let partitions = partitions.ok_or_else(|| Error::NoTopic { topic: topic.to_owned() })?;
        let fail = |source| Error::Client { topic: topic.to_owned(), source };
        let producer: BaseProducer<Reports> = producer_config(settings, topic, options)
            .create_with_context(Reports::default())
            .map_err(fail)?;
        if options.transactions.is_some() {
            producer.init_transactions(PATIENCE).map_err(fail)?;
        }
        Ok(Self { producer, topic: topic.to_owned(), partitions, sent: 0, loaded: Loaded::default() })
    }

    fn write(
        &mut self,
        number: usize,
        records: &[Record],
        transactions: Option<Transactions>,
    ) -> Result<(), Error> {
        let count = u64::try_from(records.len()).expect("usize has 64 bits or less");
        if let Some(transactions) = transactions {
            let in_vain = transactions.abort_one_in.is_some_and(|n| (number + 1).is_multiple_of(n.max(1)));
            if in_vain {
                self.begin(records)?;
                self.producer.abort_transaction(PATIENCE).map_err(|it| self.failed(it))?;
                self.loaded.aborted += count;
            }
            self.begin(records)?;
            self.producer.commit_transaction(PATIENCE).map_err(|it| self.failed(it))?;
        } else {
            self.send_all(records)?;
        }
        self.loaded.visible += count;
        self.loaded.visible_bytes += records.iter().map(Record::payload_bytes).sum::<u64>();
        Ok(())
    }

    /// A transaction with these records, all acknowledged: what ends it then takes milliseconds.
    fn begin(&mut self, records: &[Record]) -> Result<(), Error> {
        self.producer.begin_transaction().map_err(|it| self.failed(it))?;
        self.send_all(records)?;
        self.drain()
    }

    fn send_all(&mut self, records: &[Record]) -> Result<(), Error> {
        for record in records {
            self.send(record)?;
            self.sent += 1;
            if self.sent.is_multiple_of(POLL_EVERY) {
                self.producer.poll(Duration::ZERO);
            }
        }
        self.producer.context().check()
    }

    fn send(&self, record: &Record) -> Result<(), Error> {
        let mut message = BaseRecord::<[u8], [u8]>::to(&self.topic)
            .partition(record.partition.rem_euclid(self.partitions))
            .timestamp(record.timestamp);
        message.key = record.key.as_deref();
        message.payload = record.value.as_deref();
        if !record.headers.is_empty() {
            let headers = OwnedHeaders::new_with_capacity(record.headers.len());
            let add = |headers: OwnedHeaders, header: &crate::record::Header| {
                headers.insert(RdHeader { key: &header.name, value: header.value.as_ref() })
            };
            message = message.headers(record.headers.iter().fold(headers, add));
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.producer.send(message) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back))
                    if Instant::now() < deadline =>
                {
                    self.producer.poll(Duration::from_millis(5));
                    message = back;
                }
                Err((source, _)) => return Err(self.failed(source)),
            }
        }
    }

    /// Waits for every delivery report.
    fn drain(&self) -> Result<(), Error> {
        let deadline = Instant::now() + PATIENCE;
        while self.producer.in_flight_count() > 0 {
            if Instant::now() > deadline {
                let count = self.producer.in_flight_count();
                return Err(Error::Unacknowledged { topic: self.topic.clone(), count });
            }
            self.producer.poll(Duration::from_millis(1));
        }
        self.producer.context().check()
    }

    fn finish(self) -> Result<Loaded, Error> {
        self.drain()?;
        Ok(self.loaded)
    }

    fn failed(&self, source: KafkaError) -> Error {
        Error::Client { topic: self.topic.clone(), source }
    }
}

fn producer_config(settings: &Settings, topic: &str, options: &LoadOptions) -> ClientConfig {
    let mut config = client_config(settings);
    config
        .set("enable.idempotence", "true")
        .set("compression.type", &options.compression)
        .set("linger.ms", "5")
        .set("batch.size", "262144")
        .set("queue.buffering.max.kbytes", "65536");
    if options.transactions.is_some() {
        // Another loader of this topic takes over: two at a time would not know what is visible.
        config.set("transactional.id", format!("lab-load-{topic}"));
    }
    for (name, value) in &options.properties {
        config.set(name, value);
    }
    config
}

/// What came back for records.
#[derive(Debug, Default)]
struct Reports {
    refused: Mutex<Option<Refused>>,
}

#[derive(Debug)]
struct Refused {
    count: u64,
    topic: String,
    partition: i32,
    source: KafkaError,
}

impl Reports {
    fn check(&self) -> Result<(), Error> {
        match self.lock().take() {
            None => Ok(()),
            Some(Refused { count, topic, partition, source }) => {
                Err(Error::Refused { count, topic, partition, source })
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Refused>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Reports {}

impl ProducerContext for Reports {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, _: ()) {
        if let Err((source, message)) = result {
            let mut refused = self.lock();
            let first = refused.get_or_insert_with(|| Refused {
                count: 0,
                topic: message.topic().to_owned(),
                partition: message.partition(),
                source: source.clone(),
            });
            first.count += 1;
        }
    }
}
