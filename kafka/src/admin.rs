//! Questions to a cluster and changes to its topics.
//!
//! Every call blocks up to its `timeout` (and a short grace in which librdkafka says why), and is one round trip
//! or two. Nothing is cached, and no question creates a topic.

use std::{collections::BTreeMap, ffi::c_char, time::Duration};

use proto::ids::TopicId;

use crate::{
    Ends, Error, KafkaCode, Settings,
    native::{
        self, Client, ErrorText, Event, Kind, PartitionList, admin_call, c_text, call_error, owned_text,
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
}

impl Admin {
    /// Makes the handle; no broker is asked yet.
    ///
    /// # Errors
    /// A property that is refused, unknown or wrong, by name.
    pub fn new(settings: &Settings) -> Result<Self, Error> {
        let conf = settings.conf(&[], &[("allow.auto.create.topics", "false")])?;
        Ok(Self { client: Client::new(Kind::Producer, &settings.client_id, conf)? })
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

    /// How many brokers the cluster has.
    ///
    /// # Errors
    /// No answer in time.
    pub fn brokers(&self, timeout: Duration) -> Result<usize, Error> {
        let metadata = Metadata::ask(&self.client, timeout)?;
        Ok(usize::try_from(metadata.get().broker_cnt).unwrap_or(0))
    }

    /// All topics that the principal may see, by name.
    ///
    /// # Errors
    /// No answer in time.
    pub fn topics(&self, timeout: Duration) -> Result<Vec<TopicInfo>, Error> {
        let metadata = Metadata::ask(&self.client, timeout)?;
        let mut topics: Vec<TopicInfo> = metadata.topics().collect();
        topics.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(topics)
    }

    /// Topics with their ids and partitions, in the order asked for; for each that the cluster cannot
    /// describe, its name and why.
    ///
    /// # Errors
    /// No answer in time.
    pub fn describe(
        &self,
        topics: &[&str],
        timeout: Duration,
    ) -> Result<Vec<Result<Topic, (String, KafkaCode)>>, Error> {
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
        let mut described: BTreeMap<String, Result<Topic, (String, KafkaCode)>> =
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
        let what = format!("configs of topic `{name}`");
        let c_name = c_text(&what, name)?;
        // SAFETY: the name is live and copied; the object is freed below.
        let resource = unsafe {
            sys::rd_kafka_ConfigResource_new(
                sys::rd_kafka_ResourceType_t::RD_KAFKA_RESOURCE_TOPIC,
                c_name.as_ptr(),
            )
        };
        if resource.is_null() {
            return Err(Error::Unusable { what, reason: "an empty name".into() });
        }
        let resource = Owned { pointer: resource, free: sys::rd_kafka_ConfigResource_destroy };
        let event = admin_call(
            &self.client,
            Api::RD_KAFKA_ADMIN_OP_DESCRIBECONFIGS,
            &what,
            timeout,
            |_| Ok(()),
            // SAFETY: all pointers are live through the call; the request copies the resource.
            |rk, options, queue| unsafe {
                sys::rd_kafka_DescribeConfigs(rk, [resource.pointer].as_mut_ptr(), 1, options, queue);
            },
        )?;
        configs_result(what, &event)
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
        let what = format!("positions of group `{group}`");
        let c_group = c_text(&what, group)?;
        // SAFETY: the name is live and copied; a null list asks for all partitions; freed below.
        let request =
            unsafe { sys::rd_kafka_ListConsumerGroupOffsets_new(c_group.as_ptr(), std::ptr::null()) };
        let request = Owned { pointer: request, free: sys::rd_kafka_ListConsumerGroupOffsets_destroy };
        let event = admin_call(
            &self.client,
            Api::RD_KAFKA_ADMIN_OP_LISTCONSUMERGROUPOFFSETS,
            &what,
            timeout,
            |_| Ok(()),
            // SAFETY: all pointers are live through the call; the request copies the object.
            |rk, options, queue| unsafe {
                sys::rd_kafka_ListConsumerGroupOffsets(rk, [request.pointer].as_mut_ptr(), 1, options, queue);
            },
        )?;
        let mut positions = Vec::new();
        // SAFETY: the event is the answer to ListConsumerGroupOffsets and outlives what is got from it.
        let groups = unsafe {
            let mut count = 0;
            let result = sys::rd_kafka_event_ListConsumerGroupOffsets_result(event.as_ptr());
            let groups = sys::rd_kafka_ListConsumerGroupOffsets_result_groups(result, &mut count);
            native::pointers(groups, count)
        };
        for group in groups {
            // SAFETY: as above; the group's error belongs to the event and is not ours to free.
            let entries = unsafe {
                native::borrowed_error(sys::rd_kafka_group_result_error(group))
                    .map_err(|failure| failure.into_error(what.clone()))?;
                native::entries(sys::rd_kafka_group_result_partitions(group))
            };
            for entry in entries.filter(|entry| entry.offset >= 0) {
                positions.push((entry.topic.to_string_lossy().into_owned(), entry.partition, entry.offset));
            }
        }
        positions.sort();
        Ok(positions)
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
        let event = admin_call(
            &self.client,
            Api::RD_KAFKA_ADMIN_OP_LISTOFFSETS,
            &what,
            timeout,
            |options| options.set_isolation(isolation),
            // SAFETY: all pointers are live through the call; the request copies the list.
            |rk, options, queue| unsafe { sys::rd_kafka_ListOffsets(rk, list.as_ptr(), options, queue) },
        )?;
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
}

/// The cluster's metadata over all topics.
struct Metadata(*const sys::rd_kafka_metadata_t);

impl Metadata {
    fn ask(client: &Client, timeout: Duration) -> Result<Self, Error> {
        let mut metadata = std::ptr::null();
        // SAFETY: the client is live; a null topic with `all_topics` asks for all; the object returned is ours.
        let code = KafkaCode(unsafe {
            sys::rd_kafka_metadata(
                client.as_ptr(),
                1,
                std::ptr::null_mut(),
                &mut metadata,
                native::millis(timeout),
            )
        });
        match code {
            KafkaCode::NONE => Ok(Self(metadata)),
            KafkaCode::TIMED_OUT => Err(Error::Timeout { what: "metadata".into(), timeout }),
            code => Err(call_error("metadata", code, "")),
        }
    }

    fn get(&self) -> &sys::rd_kafka_metadata_t {
        // SAFETY: live and unchanged until `drop`; the struct itself holds numbers and pointers only.
        unsafe { &*self.0 }
    }

    fn topics(&self) -> impl Iterator<Item = TopicInfo> {
        let (first, count) = (self.get().topics, usize::try_from(self.get().topic_cnt).unwrap_or(0));
        (0..count).map(move |index| {
            // SAFETY: there are `count` topics from `first` on, live as long as `self`; read field by field
            // because their code may be none of the binding's enum.
            unsafe {
                let topic = first.add(index);
                TopicInfo { name: owned_text((*topic).topic), partitions: (*topic).partition_cnt }
            }
        })
    }
}

impl Drop for Metadata {
    fn drop(&mut self) {
        // SAFETY: ours, freed once.
        unsafe { sys::rd_kafka_metadata_destroy(self.0) };
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

fn topic_name(answer: &Result<Topic, (String, KafkaCode)>) -> &str {
    match answer {
        Ok(topic) => &topic.name,
        Err((name, _)) => name,
    }
}

/// The first error among the results of a request on topics.
///
/// # Safety
/// `results` are `count` results of a live event.
unsafe fn topic_results(
    what: String,
    results: *mut *const sys::rd_kafka_topic_result_t,
    count: usize,
) -> Result<(), Error> {
    // SAFETY: the caller's promise.
    for result in unsafe { native::pointers(results, count) } {
        // SAFETY: the result is live; its text is copied.
        let (code, text) = unsafe {
            (
                KafkaCode(sys::rd_kafka_topic_result_error(result)),
                owned_text(sys::rd_kafka_topic_result_error_string(result)),
            )
        };
        match code {
            KafkaCode::NONE => {}
            code => return Err(call_error(what, code, &text)),
        }
    }
    Ok(())
}

fn configs_result(what: String, event: &Event) -> Result<BTreeMap<String, String>, Error> {
    let mut configs = BTreeMap::new();
    // SAFETY: the event is the answer to DescribeConfigs and outlives all that is got from it.
    unsafe {
        let mut count = 0;
        let result = sys::rd_kafka_event_DescribeConfigs_result(event.as_ptr());
        let resources = sys::rd_kafka_DescribeConfigs_result_resources(result, &mut count);
        for resource in native::pointers(resources, count) {
            match KafkaCode(sys::rd_kafka_ConfigResource_error(resource)) {
                KafkaCode::NONE => {}
                code => {
                    let text = owned_text(sys::rd_kafka_ConfigResource_error_string(resource));
                    return Err(call_error(what, code, &text));
                }
            }
            let entries = sys::rd_kafka_ConfigResource_configs(resource, &mut count);
            for entry in native::pointers(entries, count) {
                let value = sys::rd_kafka_ConfigEntry_value(entry);
                if !value.is_null() && sys::rd_kafka_ConfigEntry_is_sensitive(entry) != 1 {
                    configs.insert(owned_text(sys::rd_kafka_ConfigEntry_name(entry)), owned_text(value));
                }
            }
        }
    }
    Ok(configs)
}

fn describe_result(event: &Event) -> impl Iterator<Item = Result<Topic, (String, KafkaCode)>> {
    // SAFETY: the event is the answer to DescribeTopics and outlives what is got from it.
    let topics = unsafe {
        let mut count = 0;
        let result = sys::rd_kafka_event_DescribeTopics_result(event.as_ptr());
        native::pointers(sys::rd_kafka_DescribeTopics_result_topics(result, &mut count), count)
    };
    // SAFETY: as above; errors of a topic belong to the event and are not ours to free.
    topics.map(|topic| unsafe {
        let name = owned_text(sys::rd_kafka_TopicDescription_name(topic));
        if let Err(failure) = native::borrowed_error(sys::rd_kafka_TopicDescription_error(topic)) {
            return Err((name, failure.code));
        }
        let mut count = 0;
        let partitions = sys::rd_kafka_TopicDescription_partitions(topic, &mut count);
        let mut partitions: Vec<(i32, Partition)> =
            native::pointers(partitions, count).map(|partition| describe_partition(partition)).collect();
        partitions.sort_by_key(|(number, _)| *number);
        let id = topic_id(sys::rd_kafka_TopicDescription_topic_id(topic));
        Ok(Topic { name, id, partitions: partitions.into_iter().map(|(_, partition)| partition).collect() })
    })
}

/// # Safety
/// `partition` belongs to a live event.
unsafe fn describe_partition(partition: *const sys::rd_kafka_TopicPartitionInfo_t) -> (i32, Partition) {
    // SAFETY: the caller's promise; nodes belong to the same event.
    unsafe {
        let leader = sys::rd_kafka_TopicPartitionInfo_leader(partition);
        let leader = (!leader.is_null()).then(|| sys::rd_kafka_Node_id(leader)).filter(|id| *id >= 0);
        let mut count = 0;
        let replicas = sys::rd_kafka_TopicPartitionInfo_replicas(partition, &mut count);
        let replicas = native::pointers(replicas, count).map(|node| sys::rd_kafka_Node_id(node)).collect();
        let isr = sys::rd_kafka_TopicPartitionInfo_isr(partition, &mut count);
        let isr = native::pointers(isr, count).map(|node| sys::rd_kafka_Node_id(node)).collect();
        (sys::rd_kafka_TopicPartitionInfo_partition(partition), Partition { leader, replicas, isr })
    }
}

/// # Safety
/// `uuid` is null or belongs to a live event.
unsafe fn topic_id(uuid: *const sys::rd_kafka_Uuid_t) -> TopicId {
    if uuid.is_null() {
        return TopicId::ZERO;
    }
    // SAFETY: the caller's promise.
    let (most, least) = unsafe {
        (sys::rd_kafka_Uuid_most_significant_bits(uuid), sys::rd_kafka_Uuid_least_significant_bits(uuid))
    };
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&most.to_be_bytes());
    bytes[8..].copy_from_slice(&least.to_be_bytes());
    TopicId(bytes)
}

/// Kafka's names for the two ends in a question for offsets.
const EARLIEST: i64 = -2;
const LATEST: i64 = -1;
