//! Questions and changes about many topics at once: one request where one each would take minutes.

use std::{
    collections::{BTreeMap, HashMap},
    ffi::CString,
    time::Duration,
};

use super::{
    Admin, EARLIEST, Isolation, LATEST, Owned,
    answers::{configs_results, topic_outcomes},
};
use crate::{
    Ends, Error, KafkaCode,
    native::{
        self, ErrorText, PartitionList, admin_call, c_text,
        sys::{self, rd_kafka_admin_op_t as Api},
    },
};

/// What became of each topic, by name.
pub type Outcomes<T> = BTreeMap<String, Result<T, Error>>;

impl Admin {
    /// Creates topics with these numbers of partitions and the cluster's defaults for everything else.
    ///
    /// # Errors
    /// No answer in time. What became of each topic is in the answer: [`KafkaCode::TOPIC_ALREADY_EXISTS`] among others.
    pub fn create_topics(&self, topics: &[(&str, i32)], timeout: Duration) -> Result<Outcomes<()>, Error> {
        if topics.is_empty() {
            return Ok(Outcomes::new());
        }
        let what = format!("create {} topics", topics.len());
        let mut made = Vec::with_capacity(topics.len());
        for (name, partitions) in topics {
            let c_name = c_text(&what, name)?;
            let mut text = ErrorText::new();
            let size = text.len();
            // SAFETY: the name is live and copied, `text` takes `size` bytes; the object is freed below.
            let topic = unsafe {
                sys::rd_kafka_NewTopic_new(c_name.as_ptr(), *partitions, -1, text.as_mut_ptr(), size)
            };
            if topic.is_null() {
                return Err(Error::Unusable { what, reason: text.to_string() });
            }
            made.push(Owned { pointer: topic, free: sys::rd_kafka_NewTopic_destroy });
        }
        let mut pointers: Vec<_> = made.iter().map(|topic| topic.pointer).collect();
        let event = admin_call(
            &self.client,
            Api::RD_KAFKA_ADMIN_OP_CREATETOPICS,
            &what,
            timeout,
            |options| options.set_operation_timeout(timeout),
            // SAFETY: all pointers are live through the call; the request copies the topics.
            |rk, options, queue| unsafe {
                sys::rd_kafka_CreateTopics(rk, pointers.as_mut_ptr(), pointers.len(), options, queue);
            },
        )?;
        // SAFETY: the event is the answer to CreateTopics and outlives what is got from it.
        unsafe {
            let mut count = 0;
            let result = sys::rd_kafka_event_CreateTopics_result(event.as_ptr());
            let results = sys::rd_kafka_CreateTopics_result_topics(result, &mut count);
            Ok(topic_outcomes("create topic", results, count))
        }
    }

    /// The effective configs of topics; secret ones are left out.
    ///
    /// # Errors
    /// No answer in time. A topic that cannot be asked about has its error in the answer.
    pub fn configs_of(
        &self,
        topics: &[&str],
        timeout: Duration,
    ) -> Result<Outcomes<BTreeMap<String, String>>, Error> {
        if topics.is_empty() {
            return Ok(Outcomes::new());
        }
        let what = format!("configs of {} topics", topics.len());
        let mut made = Vec::with_capacity(topics.len());
        for name in topics {
            let c_name = c_text(&what, name)?;
            let kind = sys::rd_kafka_ResourceType_t::RD_KAFKA_RESOURCE_TOPIC;
            // SAFETY: the name is live and copied; the object is freed below.
            let resource = unsafe { sys::rd_kafka_ConfigResource_new(kind, c_name.as_ptr()) };
            if resource.is_null() {
                return Err(Error::Unusable { what, reason: "an empty name".into() });
            }
            made.push(Owned { pointer: resource, free: sys::rd_kafka_ConfigResource_destroy });
        }
        let mut pointers: Vec<_> = made.iter().map(|resource| resource.pointer).collect();
        let event = admin_call(
            &self.client,
            Api::RD_KAFKA_ADMIN_OP_DESCRIBECONFIGS,
            &what,
            timeout,
            |_| Ok(()),
            // SAFETY: all pointers are live through the call; the request copies the resources.
            |rk, options, queue| unsafe {
                sys::rd_kafka_DescribeConfigs(rk, pointers.as_mut_ptr(), pointers.len(), options, queue);
            },
        )?;
        Ok(configs_results(&event))
    }

    /// All three ends of partitions of any topics, in the order asked for; or why those of one are not known.
    ///
    /// # Errors
    /// No answer in time.
    pub fn ends_of(
        &self,
        partitions: &[(&str, i32)],
        timeout: Duration,
    ) -> Result<Vec<Result<Ends, KafkaCode>>, Error> {
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        let what = format!("offsets of {} partitions", partitions.len());
        let mut names: HashMap<&str, CString> = HashMap::new();
        for (topic, _) in partitions {
            if !names.contains_key(topic) {
                names.insert(topic, c_text(&what, topic)?);
            }
        }
        let ask = |spec, isolation: Isolation| {
            let mut list = PartitionList::new();
            for (topic, partition) in partitions {
                list.add(&names[topic], *partition, spec, None);
            }
            let event = self.ask_offsets(&what, &list, isolation, timeout)?;
            let mut found = HashMap::with_capacity(partitions.len());
            for entry in native::listed_offsets(&event) {
                let outcome = if entry.code == KafkaCode::NONE { Ok(entry.offset) } else { Err(entry.code) };
                found.insert((entry.topic.to_owned(), entry.partition), outcome);
            }
            let answers = partitions.iter().map(|(topic, partition)| {
                let missing = Err(KafkaCode::UNKNOWN_TOPIC_OR_PARTITION);
                found.get(&(names[topic].clone(), *partition)).copied().unwrap_or(missing)
            });
            Ok::<Vec<_>, Error>(answers.collect())
        };
        let low = ask(EARLIEST, Isolation::Uncommitted)?;
        // In this order LSO <= HW holds in the answer too.
        let lso = ask(LATEST, Isolation::Committed)?;
        let hw = ask(LATEST, Isolation::Uncommitted)?;
        let ends = low.into_iter().zip(lso).zip(hw);
        Ok(ends.map(|((low, lso), hw)| Ok(Ends { low: low?, lso: lso?, hw: hw? })).collect())
    }
}
