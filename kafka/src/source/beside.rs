//! What goes on beside the records: errors of the client, positions written into the group, ends asked for.

use std::time::{Duration, Instant};

use super::{Event, SourceConsumer};
use crate::{
    Error, Isolation, KafkaCode,
    native::{
        self, AdminOptions, PartitionList, c_text, listed_offsets,
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
            match event.kind() {
                sys::RD_KAFKA_EVENT_LISTOFFSETS_RESULT => self.take_watermarks(&event),
                sys::RD_KAFKA_EVENT_ALTERCONSUMERGROUPOFFSETS_RESULT => {
                    let written = std::mem::take(&mut self.commit_running);
                    if let Some((code, text)) = commit_failure(&event) {
                        let reason = format!("commit into group `{}`: {text}", self.group);
                        f(Event::Trouble { code, reason });
                        count += 1;
                        if code.is_retriable() {
                            self.commit_not_before = Instant::now() + COMMIT_PAUSE;
                            for (partition, offset) in written {
                                self.commit_waiting.entry(partition).or_insert(offset);
                            }
                        }
                    }
                }
                _ => {}
            }
        }
        if let Err(error) = self.write_positions() {
            tracing::debug!(client = self.client.client_id(), %error, "cannot write positions");
        }
        self.ask_watermarks();
        count
    }

    pub(super) fn write_positions(&mut self) -> Result<(), Error> {
        let may = self.commit_running.is_empty() && Instant::now() >= self.commit_not_before;
        if !may || self.commit_waiting.is_empty() {
            return Ok(());
        }
        let what = "commit";
        let group = c_text(what, &self.group)?;
        let mut list = PartitionList::new();
        for ((topic, partition), offset) in &self.commit_waiting {
            list.add(&c_text(what, topic)?, *partition, *offset, None);
        }
        let options = AdminOptions::new(
            &self.client,
            Api::RD_KAFKA_ADMIN_OP_ALTERCONSUMERGROUPOFFSETS,
            ANSWER_TIMEOUT,
        )?;
        // An admin request, not a consumer's commit: those keep partitions from starting while under way.
        // SAFETY: all pointers are live through the block; the request copies the object, which is freed once.
        unsafe {
            let mut request = sys::rd_kafka_AlterConsumerGroupOffsets_new(group.as_ptr(), list.as_ptr());
            sys::rd_kafka_AlterConsumerGroupOffsets(
                self.client.as_ptr(),
                &mut request,
                1,
                options.as_ptr(),
                self.answers.as_ptr(),
            );
            sys::rd_kafka_AlterConsumerGroupOffsets_destroy(request);
        }
        self.commit_running = std::mem::take(&mut self.commit_waiting);
        Ok(())
    }

    fn ask_watermarks(&mut self) {
        let now = Instant::now();
        if self.watermarks_asked > 0 || now < self.watermarks_due {
            return;
        }
        self.watermarks_due = now + self.watermark_interval;
        let mut list = PartitionList::new();
        for slot in self.slots.iter().filter(|slot| slot.running) {
            list.add(&slot.topic, slot.partition, LATEST, None);
        }
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

/// The first thing that went wrong with a commit.
fn commit_failure(event: &native::Event) -> Option<(KafkaCode, String)> {
    if event.code() != KafkaCode::NONE {
        return Some((event.code(), event.error_text()));
    }
    // SAFETY: the event is the answer to AlterConsumerGroupOffsets and outlives what is got from it; a group's
    // error belongs to it.
    unsafe {
        let mut count = 0;
        let result = sys::rd_kafka_event_AlterConsumerGroupOffsets_result(event.as_ptr());
        let groups = sys::rd_kafka_AlterConsumerGroupOffsets_result_groups(result, &mut count);
        for group in native::pointers(groups, count) {
            if let Err(failure) = native::borrowed_error(sys::rd_kafka_group_result_error(group)) {
                return Some((failure.code, failure.text));
            }
            for entry in native::entries(sys::rd_kafka_group_result_partitions(group)) {
                if entry.code != KafkaCode::NONE {
                    return Some((
                        entry.code,
                        format!("{}/{}", entry.topic.to_string_lossy(), entry.partition),
                    ));
                }
            }
        }
    }
    None
}

/// Kafka's name of the end in a question for offsets.
const LATEST: i64 = -1;
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
const COMMIT_PAUSE: Duration = Duration::from_millis(500);
