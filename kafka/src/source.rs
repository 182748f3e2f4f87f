//! The consumer of a cluster's partitions, each assigned by hand under a token of the caller's.
//!
//! What it keeps to:
//!
//! * nothing fetched before an [`unassign`](SourceConsumer::unassign), [`seek`](SourceConsumer::seek) or
//!   [`pause`](SourceConsumer::pause) is handed out after it: librdkafka drops what is older;
//! * a position that is gone is reported, never replaced; after a [`Lost`](Event::Lost) a partition gives
//!   nothing more, so that no record behind the fault is taken for its successor;
//! * one partition's changes leave the others alone: they are incremental, never a new assignment.
//!
//! Records are taken one at a time, as events. librdkafka (2.12) has faster calls, each with a fault: the batch
//! call moves the position one past the end of a partition, from where a pause would lose a record; the callback
//! hands out transaction markers as if they were records; all of them log that a topic is gone and say nothing.

mod beside;
mod record;
mod slots;

use std::time::{Duration, Instant};

pub use record::{Event, Headers, Record, SourceError};
use slots::{Slot, Slots};

use crate::{
    Error, KafkaCode, Settings,
    native::{self, Client, Kind, PartitionList, Queue, sys},
};

/// How a consumer behaves.
#[derive(Debug, Clone)]
pub struct SourceOptions {
    /// Bytes of records fetched ahead, over all partitions. Default 64 MiB.
    pub queued_bytes: usize,
    /// How long a broker may wait for data before it answers a fetch. Default 100 ms.
    pub fetch_wait: Duration,
    /// How often the ends of all assigned partitions are asked for. Default 1 s.
    pub watermark_interval: Duration,
}

impl Default for SourceOptions {
    fn default() -> Self {
        Self {
            queued_bytes: 64 * 1024 * 1024,
            fetch_wait: Duration::from_millis(100),
            watermark_interval: Duration::from_secs(1),
        }
    }
}

/// The ends of a partition as last heard from its leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watermarks {
    /// Last stable offset: where a read_committed reader ends.
    pub lso: i64,
    /// High watermark: where a read_uncommitted reader ends.
    pub hw: i64,
}

/// Reads source partitions. See the module.
pub struct SourceConsumer {
    // In the order in which they must go: topics and queues before the client.
    slots: Slots,
    records: Queue,
    errors: Queue,
    answers: Queue,
    client: Client,
    watermark_interval: Duration,
    watermarks_due: Instant,
    /// Requests for ends without an answer yet.
    watermarks_asked: u32,
}

impl SourceConsumer {
    /// Makes the consumer; no broker is asked yet. `group` is a name only: the consumer never joins it and
    /// commits nothing.
    ///
    /// # Errors
    /// A property that is refused, unknown or wrong, by name.
    pub fn new(settings: &Settings, group: &str, options: SourceOptions) -> Result<Self, Error> {
        let mut conf = configuration(settings, group, &options)?;
        conf.set_events(sys::RD_KAFKA_EVENT_ERROR);
        let client = Client::new(Kind::Consumer, settings, conf)?;
        let Some(records) = Queue::consumer(&client) else {
            return Err(Error::Unusable {
                what: "group of a consumer".into(),
                reason: "it has no name".into(),
            });
        };
        Ok(Self {
            slots: Slots::default(),
            records,
            errors: Queue::main(&client),
            answers: Queue::new(&client),
            client,
            watermark_interval: options.watermark_interval,
            watermarks_due: Instant::now(),
            watermarks_asked: 0,
        })
    }

    /// Starts a partition at `offset`. With the leader epoch of the record before it, a log that was cut
    /// below the position and grew again is found out.
    ///
    /// # Errors
    /// The token or the partition is assigned already; librdkafka has failed.
    pub fn assign(
        &mut self,
        topic: &str,
        partition: i32,
        offset: i64,
        leader_epoch: Option<i32>,
        token: u64,
    ) -> Result<(), Error> {
        let index = self.slots.insert(&self.client, topic, partition, (offset, leader_epoch), token)?;
        let started = self.start(index);
        if started.is_err() {
            self.slots.remove(index);
        }
        started
    }

    /// Stops a partition and forgets the token; nothing of it is handed out any more.
    ///
    /// # Errors
    /// The token is not assigned; librdkafka has failed.
    pub fn unassign(&mut self, token: u64) -> Result<(), Error> {
        let index = self.index(token)?;
        let stopped = self.stop(index);
        self.slots.remove(index);
        stopped
    }

    /// Stops fetching, and drops what was fetched ahead.
    ///
    /// # Errors
    /// The token is not assigned.
    pub fn pause(&mut self, token: u64) -> Result<(), Error> {
        let index = self.index(token)?;
        self.slots.get_mut(index).paused = true;
        self.apply_pause(index)
    }

    /// Goes on after the last record that was handed out.
    ///
    /// # Errors
    /// The token is not assigned.
    pub fn resume(&mut self, token: u64) -> Result<(), Error> {
        let index = self.index(token)?;
        self.slots.get_mut(index).paused = false;
        self.apply_pause(index)
    }

    /// Goes on at another offset, also after the partition was lost; a pause stays.
    ///
    /// # Errors
    /// The token is not assigned; librdkafka has failed.
    pub fn seek(&mut self, token: u64, offset: i64, leader_epoch: Option<i32>) -> Result<(), Error> {
        let index = self.index(token)?;
        self.stop(index)?;
        let slot = self.slots.get_mut(index);
        (slot.position, slot.epoch, slot.reset_reported) = (offset, leader_epoch, None);
        self.start(index)
    }

    /// Waits up to `timeout` for the first event, hands out what is there (up to about a megabyte); returns how
    /// many.
    pub fn poll(&mut self, timeout: Duration, mut f: impl FnMut(Event<'_>)) -> usize {
        let mut count = self.serve(&mut f);
        let (mut bytes, mut wait) = (0, if count > 0 { Duration::ZERO } else { timeout });
        while count < MAX_POLL_EVENTS && bytes < MAX_POLL_BYTES {
            let Some(event) = self.records.poll(wait) else { break };
            wait = Duration::ZERO;
            match event.kind() {
                sys::RD_KAFKA_EVENT_FETCH => {
                    if let Some(size) = self.hand_out(&event, &mut f) {
                        bytes += size;
                        count += 1;
                    }
                }
                sys::RD_KAFKA_EVENT_ERROR => count += self.judge(&event, &mut f),
                _ => {}
            }
        }
        count
    }

    /// The next offset to be handed out, past the markers known to lie before it; `None` for an unknown token.
    pub fn position(&self, token: u64) -> Option<i64> {
        let slot = self.slots.get(self.slots.by_token(token)?);
        if !slot.running {
            return Some(slot.position);
        }
        let list = PartitionList::of(&slot.topic, slot.partition, -1, None);
        // SAFETY: client and list are live; the call fills in offsets that are known locally.
        unsafe { sys::rd_kafka_position(self.client.as_ptr(), list.as_ptr()) };
        let known = list.entries().next().map_or(-1, |entry| entry.offset);
        Some(slot.position.max(known))
    }

    /// The ends as last heard, also of a paused partition; `None` before the first answer.
    pub fn watermarks(&self, token: u64) -> Option<Watermarks> {
        self.slots.get(self.slots.by_token(token)?).watermarks()
    }

    fn index(&self, token: u64) -> Result<usize, Error> {
        self.slots.by_token(token).ok_or_else(|| Error::Unusable {
            what: format!("partition with token {token}"),
            reason: "it is not assigned".into(),
        })
    }

    fn start(&mut self, index: usize) -> Result<(), Error> {
        let slot = self.slots.get(index);
        let has_epoch = slot.epoch.is_some();
        if has_epoch {
            // Nothing is fetched before the epoch was compared. A partition that librdkafka does not know yet
            // cannot be paused, but has no leader to fetch from either.
            self.set_paused(slot, true);
        }
        let list = PartitionList::of(&slot.topic, slot.partition, slot.position, slot.epoch);
        // SAFETY: client and list are live; the error object returned is ours.
        unsafe { native::check(sys::rd_kafka_incremental_assign(self.client.as_ptr(), list.as_ptr())) }
            .map_err(|failure| {
                self.set_paused(slot, false);
                failure.into_error(format!("assign {}", slot.name()))
            })?;
        self.slots.get_mut(index).running = true;
        let validated = if has_epoch { self.validate(index) } else { Ok(()) };
        let slot = self.slots.get(index);
        if has_epoch || slot.paused {
            self.set_paused(slot, slot.paused);
        }
        validated.inspect_err(|_| {
            let _ = self.stop(index);
        })
    }

    /// Has the position's leader epoch compared with the log.
    ///
    /// An assignment alone does that only for a topic whose leader is not known yet; a seek always.
    fn validate(&self, index: usize) -> Result<(), Error> {
        let slot = self.slots.get(index);
        let what = || format!("check the leader epoch of {}", slot.name());
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            let list = PartitionList::of(&slot.topic, slot.partition, slot.position, slot.epoch);
            // SAFETY: client and list are live; the error object returned is ours, the result of the partition
            // is written into the list.
            unsafe {
                native::check(sys::rd_kafka_seek_partitions(
                    self.client.as_ptr(),
                    list.as_ptr(),
                    native::millis(START_TIMEOUT),
                ))
            }
            .map_err(|failure| failure.into_error(what()))?;
            let code = list.entries().next().map_or(KafkaCode::NONE, |entry| entry.code);
            match code {
                // Not known: the comparison follows when it is.
                KafkaCode::NONE | KafkaCode::UNKNOWN_PARTITION_LOCAL => return Ok(()),
                // The fetcher of the former assignment is still ending.
                KafkaCode::STATE | KafkaCode::PREV_IN_PROGRESS if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(2));
                }
                code => return Err(native::call_error(what(), code, "")),
            }
        }
    }

    fn stop(&mut self, index: usize) -> Result<(), Error> {
        let slot = self.slots.get_mut(index);
        if !slot.running {
            return Ok(());
        }
        let (list, name) = (PartitionList::of(&slot.topic, slot.partition, slot.position, None), slot.name());
        slot.running = false;
        if slot.paused {
            self.set_paused(self.slots.get(index), false);
        }
        // SAFETY: client and list are live; the error object returned is ours. When the call returns, whatever
        // was fetched before carries an outdated version and is dropped on its way out.
        unsafe { native::check(sys::rd_kafka_incremental_unassign(self.client.as_ptr(), list.as_ptr())) }
            .map_err(|failure| failure.into_error(format!("unassign {name}")))
    }

    fn apply_pause(&self, index: usize) -> Result<(), Error> {
        let slot = self.slots.get(index);
        if !slot.running {
            return Ok(());
        }
        match self.set_paused(slot, slot.paused) {
            KafkaCode::NONE => Ok(()),
            code => Err(native::call_error(format!("pause or resume {}", slot.name()), code, "")),
        }
    }

    /// Tells librdkafka, which remembers it also while the partition is not assigned.
    fn set_paused(&self, slot: &Slot, paused: bool) -> KafkaCode {
        let list = PartitionList::of(&slot.topic, slot.partition, slot.position, None);
        // SAFETY: client and list are live; the result of the partition is written into the list.
        unsafe {
            if paused {
                sys::rd_kafka_pause_partitions(self.client.as_ptr(), list.as_ptr());
            } else {
                sys::rd_kafka_resume_partitions(self.client.as_ptr(), list.as_ptr());
            }
        }
        list.entries().next().map_or(KafkaCode::NONE, |entry| entry.code)
    }

    /// Hands out a record; returns its size, or `None` when its partition gives nothing.
    fn hand_out(&mut self, event: &native::Event, f: &mut impl FnMut(Event<'_>)) -> Option<usize> {
        let message = event.next_message()?.as_ptr();
        // SAFETY: the message belongs to the event, which is live.
        let (topic, partition, offset) = unsafe { ((*message).rkt, (*message).partition, (*message).offset) };
        let index = self.slots.by_place(topic, partition)?;
        if !self.slots.get(index).running {
            return None;
        }
        self.heard(index);
        let slot = self.slots.get_mut(index);
        // SAFETY: the message was fetched; it lives with the event, which outlives the record.
        match unsafe { Record::view(message, slot.token) } {
            Ok(record) => {
                slot.position = record.offset + 1;
                slot.epoch = record.leader_epoch.or(slot.epoch);
                slot.reset_reported = None;
                let size = record.payload_len();
                f(Event::Record(record));
                Some(size)
            }
            Err(code) => {
                let reason = format!("the headers of offset {offset} cannot be read");
                self.lose(index, SourceError::Other { code, reason }, f);
                Some(0)
            }
        }
    }

    /// Something came from a partition's leader. When it is the first, its ends are asked for at the next poll.
    fn heard(&mut self, index: usize) {
        if !std::mem::replace(&mut self.slots.get_mut(index).heard, true) {
            self.watermarks_due = Instant::now();
        }
    }

    /// What an error on the record queue means; returns how many events it made.
    fn judge(&mut self, event: &native::Event, f: &mut impl FnMut(Event<'_>)) -> usize {
        let (code, reason) = (event.code(), event.error_text());
        let Some((topic, partition, offset)) = event.place() else {
            f(Event::Trouble { code, reason });
            return 1;
        };
        // What is left over from a partition that was unassigned or lost concerns nobody.
        let Some(index) = self.slots.by_name(&topic, partition) else { return 0 };
        if !self.slots.get(index).running {
            return 0;
        }
        match code {
            KafkaCode::PARTITION_EOF => {
                self.heard(index);
                let slot = self.slots.get_mut(index);
                slot.position = slot.position.max(offset);
                slot.reset_reported = None;
                f(Event::EndOfPartition { token: slot.token, position: slot.position });
            }
            KafkaCode::AUTO_OFFSET_RESET | KafkaCode::LOG_TRUNCATION | KafkaCode::OFFSET_OUT_OF_RANGE => {
                return self.judge_reset(index, reason, f);
            }
            code if code.is_unknown_topic() => self.lose(index, SourceError::TopicGone { code }, f),
            code if code.is_authorization() => self.lose(index, SourceError::Authorization { code }, f),
            code if code.is_retriable() => f(Event::Trouble { code, reason }),
            code => self.lose(index, SourceError::Other { code, reason }, f),
        }
        1
    }

    /// A report of a lost position carries no version, so it can stem from before the partition was assigned or
    /// sought. The first one only starts the partition anew where it stands: a true one comes again.
    fn judge_reset(&mut self, index: usize, reason: String, f: &mut impl FnMut(Event<'_>)) -> usize {
        let Some(first) = self.slots.get_mut(index).reset_reported.take() else {
            if let Err(error) = self.stop(index).and_then(|()| self.start(index)) {
                self.lose(index, SourceError::Reset { reason: format!("{reason}; {error}") }, f);
                return 1;
            }
            self.slots.get_mut(index).reset_reported = Some(reason);
            return 0;
        };
        let reason = if first == reason { reason } else { format!("{reason}; reported before: {first}") };
        self.lose(index, SourceError::Reset { reason }, f);
        1
    }

    fn lose(&mut self, index: usize, cause: SourceError, f: &mut impl FnMut(Event<'_>)) {
        if let Err(error) = self.stop(index) {
            tracing::debug!(client = self.client.client_id(), %error, "cannot stop a lost partition");
        }
        f(Event::Lost { token: self.slots.get(index).token, cause });
    }
}

pub(crate) fn configuration(
    settings: &Settings,
    group: &str,
    options: &SourceOptions,
) -> Result<native::Conf, Error> {
    let kilobytes = (options.queued_bytes / 1024).clamp(1, 2_097_151);
    // One answer may come on top of what is queued, per broker.
    let fetch_max_bytes = (options.queued_bytes / 2).clamp(1_048_576, 52_428_800);
    settings.conf(
        &[
            ("queued.max.messages.kbytes", &kilobytes.to_string()),
            ("fetch.max.bytes", &fetch_max_bytes.to_string()),
            ("fetch.wait.max.ms", &native::millis(options.fetch_wait).to_string()),
            // How soon a full queue is looked at again: a second, by default.
            ("fetch.queue.backoff.ms", "10"),
            ("fetch.error.backoff.ms", "100"),
        ],
        &[
            ("group.id", group),
            ("isolation.level", "read_committed"),
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            ("auto.offset.reset", "error"),
            ("enable.partition.eof", "true"),
            ("check.crcs", "true"),
            ("allow.auto.create.topics", "false"),
        ],
    )
}

/// librdkafka answers within itself, so this is for a machine at its limits.
const START_TIMEOUT: Duration = Duration::from_secs(5);
const MAX_POLL_EVENTS: usize = 1000;
const MAX_POLL_BYTES: usize = 1024 * 1024;
