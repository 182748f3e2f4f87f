//! Questions to a cluster and changes to its topics.
//!
//! Every call blocks up to its `timeout` (and a short grace in which librdkafka says why), and is one round trip
//! or two. Nothing is cached, and no question creates a topic.

mod answers;
mod leaders;
mod many;

use std::{
    collections::BTreeMap,
    ffi::c_char,
    sync::OnceLock,
    time::{Duration, Instant},
};

pub use many::Outcomes;

use answers::{About, Metadata, committed_result, describe_result, topic_name, topic_results};
use leaders::Leaders;
use proto::ids::TopicId;

use crate::{
    Ends, Error, KafkaCode, Settings,
    native::{
        self, Client, ErrorText, Kind, PartitionList, admin_call, c_text, call_error, owned_text,
        sys::{self, rd_kafka_admin_op_t as Api},
    },
};

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

/// The answer to a question for a topic: or its name, and why it cannot be described.
pub type Described = Result<Topic, (String, KafkaCode)>;

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

/// Asks and changes. See the module.
pub struct Admin {
    client: Client,
    groups: OnceLock<Client>,
    leaders: Leaders,
    settings: Settings,
}

impl Admin {
    /// Makes the handle; no broker is asked yet.
    ///
    /// # Errors
    /// A property that is refused, unknown or wrong, by name.
    pub fn new(settings: &Settings) -> Result<Self, Error> {
        let conf = settings.conf(&[], &[("allow.auto.create.topics", "false")])?;
        let client = Client::new(Kind::Producer, settings, conf)?;
        Ok(Self { client, groups: OnceLock::new(), leaders: Leaders::default(), settings: settings.clone() })
    }

    /// The cluster's id, as it states it itself.
    ///
    /// # Errors
    /// No answer in time.
    pub fn cluster_id(&self, timeout: Duration) -> Result<String, Error> {
        let what = "cluster id";
        // SAFETY: the client is live; the text returned is ours and freed below.
        let id = unsafe { sys::rd_kafka_clusterid(self.client.as_ptr(), native::millis(timeout)) };
        if id.is_null() {
            return Err(Error::Timeout { what: what.into(), timeout });
        }
        // SAFETY: a NUL-terminated text allocated by librdkafka, copied and then freed once.
        unsafe {
            let text = owned_text(id);
            sys::rd_kafka_mem_free(self.client.as_ptr(), id.cast());
            Ok(text)
        }
    }

    /// Asks for no more than a sign of life.
    ///
    /// Best on a handle that is asked nothing else: librdkafka (2.12) also asks about topics that it has just begun to look
    /// for or not found, and lets the broker create them.
    ///
    /// # Errors
    /// No answer in time.
    pub fn ping(&self, timeout: Duration) -> Result<(), Error> {
        Metadata::ask(&self.client, About::Brokers, timeout).map(drop)
    }

    /// How many brokers the cluster has.
    ///
    /// # Errors
    /// No answer in time.
    pub fn brokers(&self, timeout: Duration) -> Result<usize, Error> {
        let metadata = Metadata::ask(&self.client, About::All, timeout)?;
        Ok(usize::try_from(metadata.get().broker_cnt).unwrap_or(0))
    }

    /// All topics that the principal may see, by name.
    ///
    /// # Errors
    /// No answer in time.
    pub fn topics(&self, timeout: Duration) -> Result<Vec<TopicInfo>, Error> {
        let metadata = Metadata::ask(&self.client, About::All, timeout)?;
        let mut topics: Vec<TopicInfo> = metadata.topics().collect();
        topics.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(topics)
    }

    /// Topics with their ids and partitions, in the order asked for; for each that the cluster cannot
    /// describe, its name and why.
    ///
    /// # Errors
    /// No answer in time.
    pub fn describe(&self, topics: &[&str], timeout: Duration) -> Result<Vec<Described>, Error> {
        if topics.is_empty() {
            return Ok(Vec::new());
        }
        let names = topics.iter().map(|name| c_text("topic", name)).collect::<Result<Vec<_>, _>>()?;
        let mut pointers: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
        let event = admin_call(
            &self.client,
            Api::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS,
            &format!("describe {} topics", topics.len()),
            timeout,
            |_| Ok(()),
            // SAFETY: all pointers are live through the block; the request copies the collection, which is
            // freed once.
            |rk, options, queue| unsafe {
                let collection =
                    sys::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
                sys::rd_kafka_DescribeTopics(rk, collection, options, queue);
                sys::rd_kafka_TopicCollection_destroy(collection);
            },
        )?;
        let mut described: BTreeMap<String, Described> =
            describe_result(&event).map(|answer| (topic_name(&answer).to_owned(), answer)).collect();
        Ok(topics
            .iter()
            .map(|name| {
                let missing = || Err(((*name).to_owned(), KafkaCode::UNKNOWN_TOPIC_OR_PARTITION));
                described.remove(*name).unwrap_or_else(missing)
            })
            .collect())
    }

    /// Creates a topic. `partitions` and `replication` may be -1: the cluster's default.
    ///
    /// # Errors
    /// [`KafkaCode::TOPIC_ALREADY_EXISTS`] among others.
    pub fn create_topic(
        &self,
        name: &str,
        partitions: i32,
        replication: i32,
        configs: &[(&str, &str)],
        timeout: Duration,
    ) -> Result<(), Error> {
        let what = format!("create topic `{name}`");
        let c_name = c_text(&what, name)?;
        let mut text = ErrorText::new();
        let size = text.len();
        // SAFETY: the name is live and copied, `text` takes `size` bytes; the object is freed below.
        let topic = unsafe {
            sys::rd_kafka_NewTopic_new(c_name.as_ptr(), partitions, replication, text.as_mut_ptr(), size)
        };
        if topic.is_null() {
            return Err(Error::Unusable { what, reason: text.to_string() });
        }
        let topic = Owned { pointer: topic, free: sys::rd_kafka_NewTopic_destroy };
        for (key, value) in configs {
            let (key, value) = (c_text(&what, key)?, c_text(&what, value)?);
            // SAFETY: the object is live; key and value are copied.
            let code =
                unsafe { sys::rd_kafka_NewTopic_set_config(topic.pointer, key.as_ptr(), value.as_ptr()) }
                    as i32;
            if code != 0 {
                return Err(call_error(what, KafkaCode(code), ""));
            }
        }
        let event = admin_call(
            &self.client,
            Api::RD_KAFKA_ADMIN_OP_CREATETOPICS,
            &what,
            timeout,
            |options| options.set_operation_timeout(timeout),
            // SAFETY: all pointers are live through the call; the request copies the topic.
            |rk, options, queue| unsafe {
                sys::rd_kafka_CreateTopics(rk, [topic.pointer].as_mut_ptr(), 1, options, queue);
            },
        )?;
        // SAFETY: the event is the answer to CreateTopics and outlives what is got from it.
        unsafe {
            let mut count = 0;
            let result = sys::rd_kafka_event_CreateTopics_result(event.as_ptr());
            let results = sys::rd_kafka_CreateTopics_result_topics(result, &mut count);
            topic_results(what, results, count)
        }
    }

    /// Grows a topic to `total` partitions.
    ///
    /// # Errors
    /// A `total` that is not more than what there is, among others.
    pub fn create_partitions(&self, name: &str, total: i32, timeout: Duration) -> Result<(), Error> {
        let what = format!("grow topic `{name}` to {total} partitions");
        let c_name = c_text(&what, name)?;
        let mut text = ErrorText::new();
        let size = text.len();
        let total = usize::try_from(total).unwrap_or(0);
        // SAFETY: the name is live and copied, `text` takes `size` bytes; the object is freed below.
        let partitions =
            unsafe { sys::rd_kafka_NewPartitions_new(c_name.as_ptr(), total, text.as_mut_ptr(), size) };
        if partitions.is_null() {
            return Err(Error::Unusable { what, reason: text.to_string() });
        }
        let partitions = Owned { pointer: partitions, free: sys::rd_kafka_NewPartitions_destroy };
        let event = admin_call(
            &self.client,
            Api::RD_KAFKA_ADMIN_OP_CREATEPARTITIONS,
            &what,
            timeout,
            |options| options.set_operation_timeout(timeout),
            // SAFETY: all pointers are live through the call; the request copies the object.
            |rk, options, queue| unsafe {
                sys::rd_kafka_CreatePartitions(rk, [partitions.pointer].as_mut_ptr(), 1, options, queue);
            },
        )?;
        // SAFETY: the event is the answer to CreatePartitions and outlives what is got from it.
        unsafe {
            let mut count = 0;
            let result = sys::rd_kafka_event_CreatePartitions_result(event.as_ptr());
            let results = sys::rd_kafka_CreatePartitions_result_topics(result, &mut count);
            topic_results(what, results, count)
        }
    }

    /// The topic's effective configs; secret ones are left out.
    ///
    /// # Errors
    /// [`KafkaCode::UNKNOWN_TOPIC_OR_PARTITION`] among others.
    pub fn topic_configs(&self, name: &str, timeout: Duration) -> Result<BTreeMap<String, String>, Error> {
        let missing = || Err(empty_answer(format!("configs of topic `{name}`")));
        self.configs_of(&[name], timeout)?.remove(name).unwrap_or_else(missing)
    }

    /// Deletes a topic and waits until the controller has.
    ///
    /// # Errors
    /// [`KafkaCode::UNKNOWN_TOPIC_OR_PARTITION`] among others.
    pub fn delete_topic(&self, name: &str, timeout: Duration) -> Result<(), Error> {
        let what = format!("delete topic `{name}`");
        let c_name = c_text(&what, name)?;
        // SAFETY: the name is live and copied; the object is freed below.
        let topic = unsafe { sys::rd_kafka_DeleteTopic_new(c_name.as_ptr()) };
        let topic = Owned { pointer: topic, free: sys::rd_kafka_DeleteTopic_destroy };
        let event = admin_call(
            &self.client,
            Api::RD_KAFKA_ADMIN_OP_DELETETOPICS,
            &what,
            timeout,
            |options| options.set_operation_timeout(timeout),
            // SAFETY: all pointers are live through the call; the request copies the object.
            |rk, options, queue| unsafe {
                sys::rd_kafka_DeleteTopics(rk, [topic.pointer].as_mut_ptr(), 1, options, queue);
            },
        )?;
        // SAFETY: the event is the answer to DeleteTopics and outlives what is got from it.
        unsafe {
            let mut count = 0;
            let result = sys::rd_kafka_event_DeleteTopics_result(event.as_ptr());
            let results = sys::rd_kafka_DeleteTopics_result_topics(result, &mut count);
            topic_results(what, results, count)
        }
    }

    /// Deletes the records before offset `before`; -1 stands for the high watermark. Returns the new log start.
    ///
    /// # Errors
    /// [`KafkaCode::OFFSET_OUT_OF_RANGE`] among others.
    pub fn delete_records(
        &self,
        topic: &str,
        partition: i32,
        before: i64,
        timeout: Duration,
    ) -> Result<i64, Error> {
        let what = format!("delete records of {topic}/{partition} before {before}");
        let list = PartitionList::of(&c_text(&what, topic)?, partition, before, None);
        // SAFETY: the list is live and copied; the object is freed below.
        let request = unsafe { sys::rd_kafka_DeleteRecords_new(list.as_ptr()) };
        let request = Owned { pointer: request, free: sys::rd_kafka_DeleteRecords_destroy };
        let event = admin_call(
            &self.client,
            Api::RD_KAFKA_ADMIN_OP_DELETERECORDS,
            &what,
            timeout,
            |options| options.set_operation_timeout(timeout),
            // SAFETY: all pointers are live through the call; the request copies the object.
            |rk, options, queue| unsafe {
                sys::rd_kafka_DeleteRecords(rk, [request.pointer].as_mut_ptr(), 1, options, queue);
            },
        )?;
        // SAFETY: the event is the answer to DeleteRecords and outlives the entries.
        let mut entries = unsafe {
            let result = sys::rd_kafka_event_DeleteRecords_result(event.as_ptr());
            native::entries(sys::rd_kafka_DeleteRecords_result_offsets(result))
        };
        match entries.next() {
            Some(entry) if entry.code == KafkaCode::NONE => Ok(entry.offset),
            Some(entry) => Err(call_error(what, entry.code, "")),
            None => Err(empty_answer(what)),
        }
    }

    /// Log start, and the end under `isolation`.
    ///
    /// # Errors
    /// [`KafkaCode::UNKNOWN_TOPIC_OR_PARTITION`] among others.
    pub fn offsets(
        &self,
        topic: &str,
        partition: i32,
        isolation: Isolation,
        timeout: Duration,
    ) -> Result<(i64, i64), Error> {
        let low = self.list_offsets(topic, &[partition], EARLIEST, isolation, timeout)?;
        let end = self.list_offsets(topic, &[partition], LATEST, isolation, timeout)?;
        Ok((low[0], end[0]))
    }

    /// All three ends of some partitions of a topic, in the order asked for.
    ///
    /// # Errors
    /// [`KafkaCode::UNKNOWN_TOPIC_OR_PARTITION`] among others.
    pub fn ends(&self, topic: &str, partitions: &[i32], timeout: Duration) -> Result<Vec<Ends>, Error> {
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        let low = self.list_offsets(topic, partitions, EARLIEST, Isolation::Uncommitted, timeout)?;
        // In this order LSO <= HW holds in the answer too.
        let lso = self.list_offsets(topic, partitions, LATEST, Isolation::Committed, timeout)?;
        let hw = self.list_offsets(topic, partitions, LATEST, Isolation::Uncommitted, timeout)?;
        Ok(low.into_iter().zip(lso).zip(hw).map(|((low, lso), hw)| Ends { low, lso, hw }).collect())
    }

    /// The first offset whose timestamp is at or after `timestamp_ms` (ms since 1970); `None` when there is none.
    ///
    /// # Errors
    /// [`KafkaCode::UNKNOWN_TOPIC_OR_PARTITION`] among others.
    pub fn offset_for_time(
        &self,
        topic: &str,
        partition: i32,
        timestamp_ms: i64,
        timeout: Duration,
    ) -> Result<Option<i64>, Error> {
        // Negative numbers are Kafka's names for the ends.
        let spec = timestamp_ms.max(0);
        let offsets = self.list_offsets(topic, &[partition], spec, Isolation::Uncommitted, timeout)?;
        Ok(Some(offsets[0]).filter(|offset| *offset >= 0))
    }

    /// What the group has committed: topic, partition, next offset; in that order.
    ///
    /// # Errors
    /// No right to the group, no answer in time.
    pub fn committed(&self, group: &str, timeout: Duration) -> Result<Vec<(String, i32, i64)>, Error> {
        let deadline = Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.ask_committed(group, left) {
                // The group's coordinator is being made, loaded or moved.
                Err(error) if error.is_retriable() && Instant::now() + RETRY_PAUSE < deadline => {
                    std::thread::sleep(RETRY_PAUSE);
                }
                answer => return answer,
            }
        }
    }

    fn ask_committed(&self, group: &str, timeout: Duration) -> Result<Vec<(String, i32, i64)>, Error> {
        let what = format!("positions of group `{group}`");
        let c_group = c_text(&what, group)?;
        let client = self.group_client()?;
        // SAFETY: the name is live and copied; a null list asks for all partitions; freed below.
        let request =
            unsafe { sys::rd_kafka_ListConsumerGroupOffsets_new(c_group.as_ptr(), std::ptr::null()) };
        let request = Owned { pointer: request, free: sys::rd_kafka_ListConsumerGroupOffsets_destroy };
        let event = admin_call(
            client,
            Api::RD_KAFKA_ADMIN_OP_LISTCONSUMERGROUPOFFSETS,
            &what,
            timeout,
            |_| Ok(()),
            // SAFETY: all pointers are live through the call; the request copies the object.
            |rk, options, queue| unsafe {
                sys::rd_kafka_ListConsumerGroupOffsets(rk, [request.pointer].as_mut_ptr(), 1, options, queue);
            },
        )?;
        committed_result(&what, &event)
    }

    /// A client for questions about groups, made when first needed.
    ///
    /// It is a consumer: librdkafka (2.12) crashes when one that is not gets NOT_COORDINATOR for an answer.
    fn group_client(&self) -> Result<&Client, Error> {
        if let Some(client) = self.groups.get() {
            return Ok(client);
        }
        let forced = [("group.id", GROUP), ("allow.auto.create.topics", "false")];
        let conf = self.settings.conf(&[], &forced)?;
        let client = Client::new(Kind::Consumer, &self.settings, conf)?;
        Ok(self.groups.get_or_init(|| client))
    }

    /// One offset per partition, in the order asked for; exactly as many.
    fn list_offsets(
        &self,
        topic: &str,
        partitions: &[i32],
        spec: i64,
        isolation: Isolation,
        timeout: Duration,
    ) -> Result<Vec<i64>, Error> {
        let what = match partitions {
            [partition] => format!("offsets of {topic}/{partition}"),
            _ => format!("offsets of {} partitions of {topic}", partitions.len()),
        };
        let name = c_text(&what, topic)?;
        let mut list = PartitionList::new();
        for partition in partitions {
            list.add(&name, *partition, spec, None);
        }
        let event = self.ask_offsets(&what, &list, isolation, timeout)?;
        let mut found = BTreeMap::new();
        for entry in native::listed_offsets(&event) {
            if entry.code != KafkaCode::NONE {
                return Err(call_error(format!("offsets of {topic}/{}", entry.partition), entry.code, ""));
            }
            found.insert(entry.partition, entry.offset);
        }
        partitions
            .iter()
            .map(|partition| {
                found.get(partition).copied().ok_or_else(|| Error::Unusable {
                    what: format!("offsets of {topic}/{partition}"),
                    reason: "the answer leaves it out".into(),
                })
            })
            .collect()
    }

    /// Asks for the offsets that `list` specifies.
    fn ask_offsets(
        &self,
        what: &str,
        list: &PartitionList,
        isolation: Isolation,
        timeout: Duration,
    ) -> Result<native::Event, Error> {
        self.leaders.learn(&self.client, list.entries().map(|entry| entry.topic), timeout)?;
        admin_call(
            &self.client,
            Api::RD_KAFKA_ADMIN_OP_LISTOFFSETS,
            what,
            timeout,
            |options| options.set_isolation(isolation),
            // SAFETY: all pointers are live through the call; the request copies the list.
            |rk, options, queue| unsafe { sys::rd_kafka_ListOffsets(rk, list.as_ptr(), options, queue) },
        )
    }
}

/// An object of a request, freed with its own function.
struct Owned<T> {
    pointer: *mut T,
    free: unsafe extern "C" fn(*mut T),
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: made by the matching constructor, ours, freed once.
        unsafe { (self.free)(self.pointer) };
    }
}

fn empty_answer(what: String) -> Error {
    Error::Unusable { what, reason: "the answer is empty".into() }
}

/// A consumer must name a group; this one is neither joined nor written to.
const GROUP: &str = "__longhaul.admin";
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// Kafka's names for the two ends in a question for offsets.
const EARLIEST: i64 = -2;
const LATEST: i64 = -1;
