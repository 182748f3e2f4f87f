//! Positions in a consumer group that nobody is a member of.
//!
//! A client of its own, apart from the one that reads: while a consumer commits, librdkafka starts no partition on it.
//! And a consumer's commit, not the admin API's AlterConsumerGroupOffsets: that one aborts the whole process when it
//! timed out while its coordinator was away and the coordinator then comes back (2.12, an assertion in
//! `rd_kafka_enq_once_del_source_return`: the late answer uses what the time-out freed).

use std::time::{Duration, Instant};

use crate::{
    Error, KafkaCode, Settings,
    native::{self, Client, Kind, PartitionList, Queue, c_text, sys},
};

/// Writes positions into a consumer group that nobody is a member of, for Kafka's own tools to see.
pub struct GroupPositions {
    // In the order in which they must go: the queue before the client.
    answers: Queue,
    client: Client,
    group: String,
    /// A write without an answer yet.
    under_way: bool,
}

impl GroupPositions {
    /// Makes the client; no broker is asked yet, and the group is never joined.
    ///
    /// # Errors
    /// A property that is refused, unknown or wrong, by name.
    pub fn new(settings: &Settings, group: &str) -> Result<Self, Error> {
        let forced =
            [("group.id", group), ("enable.auto.commit", "false"), ("enable.auto.offset.store", "false")];
        let mut conf = settings.conf(&[], &forced)?;
        // Errors of the client show as writes that fail; nobody asks for its events.
        conf.set_events(sys::RD_KAFKA_EVENT_OFFSET_COMMIT);
        let client = Client::new(Kind::Consumer, settings, conf)?;
        Ok(Self { answers: Queue::new(&client), client, group: group.to_owned(), under_way: false })
    }

    /// Writes positions (topic, partition, next offset) and waits up to `timeout` for the answer. A write that got
    /// none in time is waited for by the next call before it writes anew.
    ///
    /// The broker takes positions only while the group has no members.
    ///
    /// # Errors
    /// [`Error::Timeout`], or what the group's coordinator says, with the first partition that it says it of.
    pub fn write(&mut self, positions: &[(&str, i32, i64)], timeout: Duration) -> Result<(), Error> {
        let until = Instant::now() + timeout;
        if self.under_way {
            // What it says is of older positions.
            drop(self.answer(until, timeout)?);
        }
        let mut list = PartitionList::new();
        for (topic, partition, offset) in positions {
            list.add(&c_text("commit", topic)?, *partition, *offset, None);
        }
        // SAFETY: client, list and queue are live; the list is copied; without a callback the answer is an event on
        // the queue.
        let code = unsafe {
            sys::rd_kafka_commit_queue(
                self.client.as_ptr(),
                list.as_ptr(),
                self.answers.as_ptr(),
                None,
                std::ptr::null_mut(),
            )
        } as i32;
        if code != 0 {
            return Err(native::call_error(self.what(), KafkaCode(code), ""));
        }
        self.under_way = true;
        match self.answer(until, timeout)? {
            None => Ok(()),
            Some((code, text)) => Err(native::call_error(self.what(), code, &text)),
        }
    }

    /// The answer to the write under way: what went wrong, if anything.
    fn answer(&mut self, until: Instant, timeout: Duration) -> Result<Option<(KafkaCode, String)>, Error> {
        loop {
            let Some(event) = self.answers.poll(until.saturating_duration_since(Instant::now())) else {
                return Err(Error::Timeout { what: self.what(), timeout });
            };
            if event.kind() != sys::RD_KAFKA_EVENT_OFFSET_COMMIT {
                continue;
            }
            self.under_way = false;
            // SAFETY: the event is live through the block and its list belongs to it.
            let refused = unsafe {
                native::entries(sys::rd_kafka_event_topic_partition_list(event.as_ptr()))
                    .find(|entry| entry.code != KafkaCode::NONE)
                    .map(|entry| {
                        (entry.code, format!("{}/{}", entry.topic.to_string_lossy(), entry.partition))
                    })
            };
            let whole = (event.code() != KafkaCode::NONE).then(|| (event.code(), String::new()));
            return Ok(refused.or(whole));
        }
    }

    fn what(&self) -> String {
        format!("positions of group `{}`", self.group)
    }
}
