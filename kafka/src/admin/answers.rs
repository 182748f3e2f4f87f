//! What the cluster's answers say, copied out of librdkafka's hands.

use std::{collections::BTreeMap, time::Duration};

use proto::ids::TopicId;

use super::{Described, Outcomes, Partition, Topic, TopicInfo};
use crate::{
    Error, KafkaCode,
    native::{self, Client, Event, TopicRef, call_error, owned_text, sys},
};

/// What is asked about.
pub(super) enum About<'a> {
    /// Brokers and all topics.
    All,
    /// Brokers and one topic.
    Topic(&'a TopicRef),
    /// Brokers, and what topics the client uses.
    Brokers,
}

/// The cluster's metadata.
pub(super) struct Metadata(*const sys::rd_kafka_metadata_t);

impl Metadata {
    pub(super) fn ask(client: &Client, about: About<'_>, timeout: Duration) -> Result<Self, Error> {
        let mut metadata = std::ptr::null();
        let (all, topic) = match about {
            About::All => (true, std::ptr::null_mut()),
            About::Topic(topic) => (false, topic.as_ptr()),
            About::Brokers => (false, std::ptr::null_mut()),
        };
        // SAFETY: the client and its topic are live; a null topic with `all_topics` asks for all; the object returned is
        // ours.
        let code = KafkaCode(unsafe {
            sys::rd_kafka_metadata(client.as_ptr(), all.into(), topic, &mut metadata, native::millis(timeout))
        });
        match code {
            KafkaCode::NONE => Ok(Self(metadata)),
            KafkaCode::TIMED_OUT => Err(Error::Timeout { what: "metadata".into(), timeout }),
            code => Err(call_error("metadata", code, "")),
        }
    }

    pub(super) fn get(&self) -> &sys::rd_kafka_metadata_t {
        // SAFETY: live and unchanged until `drop`; the struct itself holds numbers and pointers only.
        unsafe { &*self.0 }
    }

    pub(super) fn topics(&self) -> impl Iterator<Item = TopicInfo> {
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

pub(super) fn topic_name(answer: &Described) -> &str {
    match answer {
        Ok(topic) => &topic.name,
        Err((name, _)) => name,
    }
}

/// The first error among the results of a request on topics.
///
/// # Safety
/// `results` are `count` results of a live event.
pub(super) unsafe fn topic_results(
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

/// What became of each topic of a request.
///
/// # Safety
/// `results` are `count` results of a live event.
pub(super) unsafe fn topic_outcomes(
    what: &str,
    results: *mut *const sys::rd_kafka_topic_result_t,
    count: usize,
) -> Outcomes<()> {
    // SAFETY: the caller's promise.
    let results = unsafe { native::pointers(results, count) };
    // SAFETY: each result is live; its texts are copied.
    let outcomes = results.map(|result| unsafe {
        let name = owned_text(sys::rd_kafka_topic_result_name(result));
        let outcome = match KafkaCode(sys::rd_kafka_topic_result_error(result)) {
            KafkaCode::NONE => Ok(()),
            code => {
                let text = owned_text(sys::rd_kafka_topic_result_error_string(result));
                Err(call_error(format!("{what} `{name}`"), code, &text))
            }
        };
        (name, outcome)
    });
    outcomes.collect()
}

/// The configs in an answer to DescribeConfigs, by topic.
pub(super) fn configs_results(event: &Event) -> Outcomes<BTreeMap<String, String>> {
    // SAFETY: the event is the answer to DescribeConfigs and outlives all that is got from it.
    let resources = unsafe {
        let mut count = 0;
        let result = sys::rd_kafka_event_DescribeConfigs_result(event.as_ptr());
        native::pointers(sys::rd_kafka_DescribeConfigs_result_resources(result, &mut count), count)
    };
    // SAFETY: as above; texts are copied.
    let outcomes = resources.map(|resource| unsafe {
        let name = owned_text(sys::rd_kafka_ConfigResource_name(resource));
        match KafkaCode(sys::rd_kafka_ConfigResource_error(resource)) {
            KafkaCode::NONE => {}
            code => {
                let text = owned_text(sys::rd_kafka_ConfigResource_error_string(resource));
                let error = call_error(format!("configs of topic `{name}`"), code, &text);
                return (name, Err(error));
            }
        }
        let mut count = 0;
        let entries = sys::rd_kafka_ConfigResource_configs(resource, &mut count);
        let entries = native::pointers(entries, count).filter_map(|entry| {
            let value = sys::rd_kafka_ConfigEntry_value(entry);
            let shown = !value.is_null() && sys::rd_kafka_ConfigEntry_is_sensitive(entry) != 1;
            shown.then(|| (owned_text(sys::rd_kafka_ConfigEntry_name(entry)), owned_text(value)))
        });
        (name, Ok(entries.collect()))
    });
    outcomes.collect()
}

pub(super) fn describe_result(event: &Event) -> impl Iterator<Item = Described> {
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

/// The positions in an answer to ListConsumerGroupOffsets.
pub(super) fn committed_result(what: &str, event: &Event) -> Result<Vec<(String, i32, i64)>, Error> {
    let mut positions = Vec::new();
    // SAFETY: the event is the answer to ListConsumerGroupOffsets and outlives what is got from it.
    let groups = unsafe {
        let mut count = 0;
        let result = sys::rd_kafka_event_ListConsumerGroupOffsets_result(event.as_ptr());
        native::pointers(sys::rd_kafka_ListConsumerGroupOffsets_result_groups(result, &mut count), count)
    };
    for group in groups {
        // SAFETY: as above; the group's error belongs to the event and is not ours to free.
        let entries = unsafe {
            native::borrowed_error(sys::rd_kafka_group_result_error(group))
                .map_err(|failure| failure.into_error(what))?;
            native::entries(sys::rd_kafka_group_result_partitions(group))
        };
        for entry in entries.filter(|entry| entry.offset >= 0) {
            positions.push((entry.topic.to_string_lossy().into_owned(), entry.partition, entry.offset));
        }
    }
    positions.sort();
    Ok(positions)
}
