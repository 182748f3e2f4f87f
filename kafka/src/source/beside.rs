//! What goes on beside the records: errors of the client, ends asked for.

use std::time::{Duration, Instant};

use super::{Event, SourceConsumer};
use crate::{
    Isolation, KafkaCode,
    native::{
        self, AdminOptions, PartitionList, listed_offsets,
        sys::{self, rd_kafka_admin_op_t as Api},
    },
};

impl SourceConsumer {
    /// Sends what is due, takes what came in beside the records; returns how many events it made.
    pub(super) fn serve(&mut self, f: &mut impl FnMut(Event<'_>)) -> usize {
        let mut count = 0;
        while let Some(event) = self.errors.poll(Duration::ZERO) {
            if event.kind() == sys::RD_KAFKA_EVENT_ERROR {
                f(Event::Trouble { code: event.code(), reason: event.error_text() });
                count += 1;
            }
        }
        while let Some(event) = self.answers.poll(Duration::ZERO) {
            if event.kind() == sys::RD_KAFKA_EVENT_LISTOFFSETS_RESULT {
                self.take_watermarks(&event);
            }
        }
        self.ask_watermarks();
        count
    }

    fn ask_watermarks(&mut self) {
        let now = Instant::now();
        if self.watermarks_asked > 0 || now < self.watermarks_due {
            return;
        }
        self.watermarks_due = now + self.watermark_interval;
        let list = self.with_leader();
        if list.entries().len() == 0 {
            return;
        }
        for isolation in [Isolation::Committed, Isolation::Uncommitted] {
            let api = Api::RD_KAFKA_ADMIN_OP_LISTOFFSETS;
            let Ok(mut options) = AdminOptions::new(&self.client, api, ANSWER_TIMEOUT) else { return };
            if options.set_isolation(isolation).is_err() {
                return;
            }
            options.set_opaque(isolation as usize);
            // SAFETY: all pointers are live through the call; the request copies the list.
            unsafe {
                sys::rd_kafka_ListOffsets(
                    self.client.as_ptr(),
                    list.as_ptr(),
                    options.as_ptr(),
                    self.answers.as_ptr(),
                );
            }
            self.watermarks_asked += 1;
        }
    }

    /// Partitions whose leader librdkafka knows for certain.
    ///
    /// Asked for offsets of a topic that it has no leader of yet, librdkafka (2.12) looks for it on two threads, the caller's
    /// and its own, as soon as any news of topics comes in, and the slower one takes a lock that the other has freed.
    fn with_leader(&self) -> PartitionList {
        let mut list = PartitionList::new();
        for slot in self.slots.iter().filter(|slot| slot.running && slot.heard) {
            list.add(&slot.topic, slot.partition, LATEST, None);
        }
        list
    }

    fn take_watermarks(&mut self, event: &native::Event) {
        self.watermarks_asked -= 1;
        if event.code() != KafkaCode::NONE {
            tracing::debug!(client = self.client.client_id(), code = ?event.code(), "no answer on ends");
            return;
        }
        let committed = event.opaque() == Isolation::Committed as usize;
        for entry in listed_offsets(event).filter(|entry| entry.code == KafkaCode::NONE) {
            let Some(index) = self.slots.by_name(entry.topic, entry.partition) else { continue };
            let slot = self.slots.get_mut(index);
            let end = if committed { &mut slot.lso } else { &mut slot.hw };
            *end = Some(entry.offset);
        }
    }
}

/// Kafka's name of the end in a question for offsets.
const LATEST: i64 = -1;
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Settings, SourceOptions};

    #[test]
    fn ends_are_asked_for_only_where_the_leader_was_heard_of() {
        let settings = Settings { bootstrap: "127.0.0.1:1".into(), ..Settings::default() };
        let mut source = SourceConsumer::new(&settings, "ends", SourceOptions::default()).unwrap();
        source.assign("t", 0, 0, None, 1).unwrap();
        source.assign("t", 1, 0, None, 2).unwrap();
        source.poll(Duration::ZERO, |_| {});
        assert_eq!((source.with_leader().entries().len(), source.watermarks_asked), (0, 0));
        let index = source.index(2).unwrap();
        source.slots.get_mut(index).heard = true;
        let asked: Vec<i32> = source.with_leader().entries().map(|entry| entry.partition).collect();
        assert_eq!(asked, [1]);
    }
}
