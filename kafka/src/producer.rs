//! The transactional producer of one lane, wholly on librdkafka's C interface.
//!
//! Three rules, each from an interleaving that was seen to break delivery (librdkafka 2.12, no KIP-890):
//!
//! 1. librdkafka re-sends `EndTxn` by itself when a connection breaks, and then reports success; the first copy
//!    may still reach the broker, which applies it to the *next* transaction. So sends of `EndTxn` are counted,
//!    and [`commit`](TransactionalProducer::commit) is `Ok` only when there was exactly one.
//! 2. A transaction is never aborted, for the same reason. Whatever goes wrong, the producer is dropped and a new
//!    one of the same id is made: `init_transactions` ends what was open and fences what is still under way.
//! 3. Delivery reports are drained before the commit: librdkafka would otherwise wait in slices of 100 ms.

mod headers;
mod outcome;
mod push;
mod watch;

use std::{
    collections::VecDeque,
    ffi::c_void,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use headers::HeaderList;
pub use outcome::{CommitError, Delivery, ProduceError, TransactionError};
use push::{Backlog, LINGER, Place, Push};
use watch::Watch;

use crate::{
    Error, KafkaCode, Settings,
    native::{self, Client, Conf, Event, Failure, Kind, Queue, TopicRef, sys},
};

/// How a producer behaves.
#[derive(Debug, Clone)]
pub struct ProducerOptions {
    /// The broker ends a transaction that is open longer than this. Default 60 s.
    pub transaction_timeout: Duration,
    /// Largest batch in bytes: at most the smallest `max.message.bytes` of the target topics, of which a
    /// megabyte is plenty. A record larger than this travels alone. Default 1 000 000.
    pub batch_size: usize,
    /// Bytes of records that may wait or be in flight before [`ProduceError::QueueFull`]. Default 64 MiB.
    pub queue_bytes: usize,
    /// Whether a commit that sent `EndTxn` more than once is an error. Default true; false plants a fault that
    /// a checker must find.
    pub count_end_txn: bool,
}

impl Default for ProducerOptions {
    fn default() -> Self {
        Self {
            transaction_timeout: Duration::from_secs(60),
            batch_size: 1_000_000,
            queue_bytes: 64 * 1024 * 1024,
            count_end_txn: true,
        }
    }
}

/// A topic of one [`TransactionalProducer`]; worthless to any other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopicHandle {
    instance: u64,
    index: usize,
}

/// The producer of one lane. See the module's rules.
pub struct TransactionalProducer {
    // In the order in which they must go: topics and queue before the client.
    topics: Vec<(String, TopicRef)>,
    queue: Queue,
    client: Client,
    watch: Arc<Watch>,
    count_end_txn: bool,
    instance: u64,
    /// Reports taken from librdkafka while a commit drained; handed out before any other.
    drained: VecDeque<Delivery>,
    /// Records that librdkafka took and has not reported on.
    in_flight: usize,
    backlog: Backlog,
    push: Push,
    /// Whether a record was taken since `begin`: a transaction without any sends no `EndTxn`.
    produced: bool,
    /// Sends of `EndTxn` counted when the transaction began.
    sends_at_begin: u64,
    /// The first record that failed since `begin`.
    failed: Option<KafkaCode>,
}

impl TransactionalProducer {
    /// Makes the producer; no broker is asked yet.
    ///
    /// # Errors
    /// A property that is refused, unknown or wrong, by name.
    pub fn new(settings: &Settings, transactional_id: &str, options: ProducerOptions) -> Result<Self, Error> {
        let mut conf = configuration(settings, transactional_id, &options)?;
        conf.set_events(sys::RD_KAFKA_EVENT_DR | sys::RD_KAFKA_EVENT_ERROR);
        let watch = Arc::new(Watch::default());
        let client = Client::observed(Kind::Producer, settings, conf, Arc::<Watch>::clone(&watch))?;
        Ok(Self {
            topics: Vec::new(),
            queue: Queue::main(&client),
            client,
            watch,
            count_end_txn: options.count_end_txn,
            instance: INSTANCES.fetch_add(1, Ordering::Relaxed),
            drained: VecDeque::new(),
            in_flight: 0,
            backlog: Backlog::default(),
            push: Push::default(),
            produced: false,
            sends_at_begin: 0,
            failed: None,
        })
    }

    /// Ends what the former producer of the id left open, and fences it. Blocks up to about `timeout`.
    ///
    /// # Errors
    /// `Passing` may be tried again, on this producer or a new one.
    pub fn init_transactions(&mut self, timeout: Duration) -> Result<(), TransactionError> {
        let started = Instant::now();
        let deadline = started + timeout;
        let mut put_off = None;
        self.client.connect(timeout.min(CONNECT_PATIENCE));
        loop {
            let asked = Instant::now();
            let slice = if asked - started < INIT_EAGER { INIT_SLICE } else { 10 * INIT_SLICE };
            let patience = native::millis(deadline.saturating_duration_since(asked).min(slice));
            // SAFETY: the client is live; the error object returned is ours.
            let result =
                unsafe { native::check(sys::rd_kafka_init_transactions(self.client.as_ptr(), patience)) };
            let Err(failure) = result else { return Ok(()) };
            if !failure.retriable {
                return Err(self.transaction_error(failure));
            }
            // A call that only waited does not know why it was in vain.
            let why = match put_off.take() {
                Some(known) if failure.code == KafkaCode::TIMED_OUT => known,
                _ => failure,
            };
            if Instant::now() >= deadline {
                return Err(self.transaction_error(why));
            }
            put_off = Some(why);
            if asked.elapsed() < slice {
                std::thread::sleep(RETRY_PAUSE);
            }
        }
    }

    /// Interns a topic of the target. The handle is worth nothing to another producer.
    ///
    /// # Errors
    /// A name that is no topic's.
    pub fn topic(&mut self, name: &str) -> Result<TopicHandle, Error> {
        let index = match self.topics.iter().position(|(known, _)| known == name) {
            Some(index) => index,
            None => {
                self.topics.push((name.to_owned(), self.client.topic(name)?));
                self.topics.len() - 1
            }
        };
        Ok(TopicHandle { instance: self.instance, index })
    }

    /// Begins a transaction; nothing is sent before the first record.
    ///
    /// # Errors
    /// Recycle the producer.
    pub fn begin(&mut self) -> Result<(), TransactionError> {
        // SAFETY: the client is live; the error object returned is ours.
        unsafe { native::check(sys::rd_kafka_begin_transaction(self.client.as_ptr())) }
            .map_err(|failure| self.transaction_error(failure))?;
        self.sends_at_begin = self.watch.end_txns();
        self.produced = false;
        self.failed = None;
        self.watch.neighbours().clear();
        Ok(())
    }

    /// Queues a record for `partition` of `topic`. Its bytes are copied once.
    ///
    /// A `timestamp_ms` of 0 is replaced by the present time: librdkafka takes it for "none".
    /// `tag` comes back with the record's [`Delivery`].
    ///
    /// # Errors
    /// After `QueueFull` take deliveries and call again; after `Refused` the record is not part of the transaction.
    ///
    /// # Panics
    /// When `topic` was interned by another producer.
    #[allow(clippy::too_many_arguments)] // a record is just that
    pub fn produce<'h>(
        &mut self,
        topic: &TopicHandle,
        partition: i32,
        timestamp_ms: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl IntoIterator<Item = (&'h [u8], Option<&'h [u8]>)>,
        tag: u64,
    ) -> Result<(), ProduceError> {
        assert_eq!(topic.instance, self.instance, "the topic handle belongs to another producer");
        let rkt = self.topics[topic.index].1.as_ptr();
        let headers = HeaderList::copy(headers);
        let arguments = [
            argument(sys::rd_kafka_vtype_t::RD_KAFKA_VTYPE_RKT, Value { rkt }),
            argument(sys::rd_kafka_vtype_t::RD_KAFKA_VTYPE_PARTITION, Value { i32_: partition }),
            argument(sys::rd_kafka_vtype_t::RD_KAFKA_VTYPE_TIMESTAMP, Value { i64_: timestamp_ms }),
            argument(sys::rd_kafka_vtype_t::RD_KAFKA_VTYPE_KEY, Value { mem: memory(key) }),
            argument(sys::rd_kafka_vtype_t::RD_KAFKA_VTYPE_VALUE, Value { mem: memory(value) }),
            argument(sys::rd_kafka_vtype_t::RD_KAFKA_VTYPE_MSGFLAGS, Value { i: sys::RD_KAFKA_MSG_F_COPY }),
            argument(sys::rd_kafka_vtype_t::RD_KAFKA_VTYPE_OPAQUE, Value { ptr: tag as *mut c_void }),
            argument(sys::rd_kafka_vtype_t::RD_KAFKA_VTYPE_HEADERS, Value { headers: headers.as_ptr() }),
        ];
        // Without headers the last argument is left out.
        let count = if headers.is_empty() { arguments.len() - 1 } else { arguments.len() };
        // SAFETY: client, topic and header list are live; key and value are copied before the call returns
        // (MSG_F_COPY); the tag is an integer that is carried and never followed. The header list is taken over
        // on success only.
        let result = unsafe {
            native::check(sys::rd_kafka_produceva(self.client.as_ptr(), arguments.as_ptr(), count))
        };
        match result {
            Ok(()) => {
                headers.taken_over();
                self.backlog.taken((rkt, partition));
                self.in_flight += 1;
                self.push.want();
                self.produced = true;
                Ok(())
            }
            Err(failure) => Err(self.produce_error(failure)),
        }
    }

    /// Hands out delivery reports, waiting up to `timeout` for the first; returns how many. Whoever waits has what was
    /// produced sent: batches that are not full leave only then, or with the commit.
    ///
    /// Once a report is an error, do not wait for the rest: librdkafka holds back what it has not sent of a
    /// transaction that can no longer be committed.
    pub fn deliveries(&mut self, timeout: Duration, mut f: impl FnMut(Delivery)) -> usize {
        let mut count = 0;
        while let Some(delivery) = self.drained.pop_front() {
            f(delivery);
            count += 1;
        }
        let wait = if count > 0 { Duration::ZERO } else { timeout };
        count + self.take_reports(wait, f)
    }

    /// Why the transaction cannot be committed, as far as the reports taken so far tell.
    pub fn failed(&self) -> Option<KafkaCode> {
        self.failed
    }

    /// Records that were taken and not yet reported on by [`deliveries`](Self::deliveries).
    pub fn in_flight(&self) -> usize {
        self.in_flight + self.drained.len()
    }

    /// Commits the transaction: waits for the reports still outstanding, then for the coordinator.
    ///
    /// Reports that come in meanwhile are kept for [`deliveries`](Self::deliveries).
    ///
    /// # Errors
    /// Anything but a clean success with exactly one `EndTxn`: recycle the producer.
    pub fn commit(&mut self, timeout: Duration) -> Result<(), CommitError> {
        let deadline = Instant::now() + timeout;
        self.drain(deadline)?;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            // SAFETY: the client is live; the error object returned is ours.
            let result = unsafe {
                native::check(sys::rd_kafka_commit_transaction(self.client.as_ptr(), native::millis(left)))
            };
            let sends = self.watch.end_txns() - self.sends_at_begin;
            match result {
                Ok(()) => return self.judge_success(sends),
                Err(failure) if failure.retriable && Instant::now() < deadline => {
                    std::thread::sleep(RETRY_PAUSE)
                }
                Err(failure) => return Err(self.commit_error(failure, sends)),
            }
        }
    }

    /// How often `EndTxn` was sent since the last `begin`.
    pub fn end_txn_sends(&self) -> u64 {
        self.watch.end_txns() - self.sends_at_begin
    }

    /// Waits until no report is outstanding.
    fn drain(&mut self, deadline: Instant) -> Result<(), CommitError> {
        loop {
            if let Some((code, _)) = self.client.fatal_error() {
                return Err(if is_fencing(code) {
                    CommitError::Fenced
                } else {
                    CommitError::Failed { code }
                });
            }
            if let Some(code) = self.failed {
                return Err(self.given_up(code));
            }
            if self.in_flight == 0 {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(CommitError::Abortable { code: KafkaCode::TIMED_OUT });
            }
            let mut drained = std::mem::take(&mut self.drained);
            self.take_reports(POLL_SLICE, |delivery| drained.push_back(delivery));
            self.drained = drained;
        }
    }

    /// Why a transaction with a failed record cannot be committed. A purged record only says that librdkafka gave the
    /// transaction up, for example for a missing right; the reason it tells when asked to commit, which it refuses
    /// while a record is undelivered, without a word to the broker.
    fn given_up(&self, code: KafkaCode) -> CommitError {
        if !matches!(code, KafkaCode::PURGED_QUEUE | KafkaCode::PURGED_INFLIGHT) {
            return CommitError::Abortable { code };
        }
        // SAFETY: the client is live; the error object returned is ours.
        let result = unsafe {
            native::check(sys::rd_kafka_commit_transaction(self.client.as_ptr(), native::millis(ASKING_WHY)))
        };
        let sends = self.watch.end_txns() - self.sends_at_begin;
        match result {
            Ok(()) => CommitError::Indefinite { sends, code },
            Err(failure) => self.commit_error(failure, sends),
        }
    }

    fn judge_success(&self, sends: u64) -> Result<(), CommitError> {
        let expected = u64::from(self.produced);
        if sends != expected && self.count_end_txn {
            return Err(CommitError::Indefinite { sends, code: KafkaCode::NONE });
        }
        Ok(())
    }

    fn commit_error(&self, failure: Failure, sends: u64) -> CommitError {
        let code = self.cause(&failure);
        if is_fencing(code) {
            CommitError::Fenced
        } else if sends > 0 {
            CommitError::Indefinite { sends, code }
        } else if failure.requires_abort {
            CommitError::Abortable { code }
        } else {
            CommitError::Failed { code }
        }
    }

    fn transaction_error(&self, failure: Failure) -> TransactionError {
        let code = self.cause(&failure);
        let reason = failure.text;
        if is_fencing(code) {
            TransactionError::Fenced { reason }
        } else if failure.retriable || code.is_retriable() {
            TransactionError::Passing { code, reason }
        } else {
            TransactionError::Failed { code, reason }
        }
    }

    fn produce_error(&self, failure: Failure) -> ProduceError {
        match failure.code {
            KafkaCode::QUEUE_FULL => ProduceError::QueueFull,
            code if code.is_refusal() && !failure.fatal => ProduceError::Refused(code),
            _ => ProduceError::Fatal { code: self.cause(&failure), reason: failure.text },
        }
    }

    /// The error behind an error: librdkafka answers many calls with `_FATAL` or `_STATE` once it has failed.
    fn cause(&self, failure: &Failure) -> KafkaCode {
        match self.client.fatal_error() {
            Some((code, _))
                if failure.fatal || failure.code == KafkaCode::FATAL || failure.code == KafkaCode::STATE =>
            {
                code
            }
            _ => failure.code,
        }
    }

    /// Takes reports from librdkafka, waiting up to `timeout` for the first, in short slices.
    fn take_reports(&mut self, timeout: Duration, mut f: impl FnMut(Delivery)) -> usize {
        let deadline = Instant::now() + timeout;
        let mut count = 0;
        loop {
            if let Some(event) = self.queue.poll(Duration::ZERO) {
                count += self.take(&event, &mut f);
                continue;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if count > 0 || left.is_zero() {
                return count;
            }
            let wait = if self.in_flight == 0 { left } else { self.push.push(&self.client).min(left) };
            if let Some(event) = self.queue.poll(wait) {
                count += self.take(&event, &mut f);
            }
        }
    }

    /// Takes an event; returns how many reports were in it.
    fn take(&mut self, event: &Event, f: &mut impl FnMut(Delivery)) -> usize {
        match event.kind() {
            sys::RD_KAFKA_EVENT_DR => {
                let Self { backlog, push, watch, in_flight, failed, .. } = self;
                let mut reported = None;
                let count = each_report(event, |place, mut delivery| {
                    *in_flight -= 1;
                    reported = Some(place);
                    backlog.reported(place);
                    if delivery.outcome.is_err() && watch.neighbours().remove(&delivery.tag) {
                        delivery.outcome = Err(KafkaCode::INVALID_DIFFERENT_RECORD);
                    }
                    if let (Err(code), None | Some(KafkaCode::INVALID_DIFFERENT_RECORD)) =
                        (delivery.outcome, *failed)
                    {
                        *failed = Some(code);
                    }
                    f(delivery);
                });
                // All are of one partition: what it has queued behind them may be sent now.
                if reported.is_some_and(|place| backlog.has(place)) {
                    push.want();
                }
                count
            }
            // The cause comes back from the next call on the transaction.
            sys::RD_KAFKA_EVENT_ERROR => {
                tracing::debug!(client = self.client.client_id(), code = ?event.code(), "{}", event.error_text());
                0
            }
            _ => 0,
        }
    }
}

/// Ends the producer within a moment. An open transaction stays open at the broker, until the next producer of
/// the id or the time-out ends it: nothing is committed and nothing is aborted here.
impl Drop for TransactionalProducer {
    fn drop(&mut self) {
        let flags =
            sys::RD_KAFKA_PURGE_F_QUEUE | sys::RD_KAFKA_PURGE_F_INFLIGHT | sys::RD_KAFKA_PURGE_F_NON_BLOCKING;
        // SAFETY: the client is live; what it returns tells only of a consumer.
        unsafe { sys::rd_kafka_purge(self.client.as_ptr(), flags) };
    }
}

type Value = sys::rd_kafka_vu_s__bindgen_ty_1;

fn argument(vtype: sys::rd_kafka_vtype_t, u: Value) -> sys::rd_kafka_vu_t {
    sys::rd_kafka_vu_t { vtype, u }
}

/// Null for null; an empty slice has a non-null pointer, which librdkafka keeps apart.
fn memory(bytes: Option<&[u8]>) -> sys::rd_kafka_vu_s__bindgen_ty_1__bindgen_ty_1 {
    let (ptr, size) = bytes.map_or((std::ptr::null(), 0), |bytes| (bytes.as_ptr(), bytes.len()));
    sys::rd_kafka_vu_s__bindgen_ty_1__bindgen_ty_1 { ptr: ptr.cast_mut().cast(), size }
}

/// Calls `f` with each report of the event, and the topic and partition that it is about; returns how many.
fn each_report(event: &Event, mut f: impl FnMut(Place, Delivery)) -> usize {
    let mut count = 0;
    while let Some(message) = event.next_message() {
        let message = message.as_ptr();
        // SAFETY: the message belongs to the event, which is live; the code is read as the integer that it is
        // in C.
        let (place, code, offset, tag) = unsafe {
            (
                ((*message).rkt, (*message).partition),
                (&raw const (*message).err).cast::<i32>().read(),
                (*message).offset,
                (*message)._private as u64,
            )
        };
        let outcome = match KafkaCode(code) {
            // Written, but the broker does not remember where: worth a recycle, not a guess.
            KafkaCode::NONE if offset < 0 => Err(KafkaCode::DUPLICATE_SEQUENCE_NUMBER),
            KafkaCode::NONE => Ok(offset),
            code => Err(code),
        };
        f(place, Delivery { tag, outcome });
        count += 1;
    }
    count
}

fn is_fencing(code: KafkaCode) -> bool {
    matches!(code, KafkaCode::FENCED | KafkaCode::INVALID_PRODUCER_EPOCH | KafkaCode::PRODUCER_FENCED)
}

pub(crate) fn configuration(
    settings: &Settings,
    transactional_id: &str,
    options: &ProducerOptions,
) -> Result<Conf, Error> {
    let timeout_ms = native::millis(options.transaction_timeout).max(1000);
    // librdkafka wants it below the transaction's; a report must come before the transaction is lost.
    let message_timeout_ms = timeout_ms / 4 * 3;
    settings.conf(
        &[
            // librdkafka wants it within the transaction's time-out.
            ("socket.timeout.ms", &timeout_ms.min(10_000).to_string()),
            ("linger.ms", &native::millis(LINGER).to_string()),
            ("batch.size", &options.batch_size.to_string()),
            ("batch.num.messages", "50000"),
            // What a topic takes is the topic's to say: its refusal comes back as the record's delivery.
            ("message.max.bytes", "1000000000"),
            ("queue.buffering.max.kbytes", &(options.queue_bytes / 1024).max(1).to_string()),
            // Bytes are what is bounded.
            ("queue.buffering.max.messages", "0"),
        ],
        &[
            ("transactional.id", transactional_id),
            ("transaction.timeout.ms", &timeout_ms.to_string()),
            ("message.timeout.ms", &message_timeout_ms.to_string()),
            ("enable.idempotence", "true"),
            ("acks", "all"),
            ("delivery.report.only.error", "false"),
            // librdkafka's producers ask for missing topics to be created unless this is set.
            ("allow.auto.create.topics", "false"),
        ],
    )
}

static INSTANCES: AtomicU64 = AtomicU64::new(0);
const POLL_SLICE: Duration = Duration::from_millis(1);
/// How long one call waits for the producer to become ready, at first.
///
/// A coordinator that loads, or that still ends the former producer's transaction, is done with it in some milliseconds.
/// librdkafka (2.12) asks again half a second later, or at once when it is called again (`rd_kafka_idemp_start`); what is
/// under way goes on.
const INIT_SLICE: Duration = Duration::from_millis(40);
/// For how long it is asked that often; then a tenth as often, which is about as often as librdkafka asks by itself.
const INIT_EAGER: Duration = Duration::from_secs(2);
const RETRY_PAUSE: Duration = Duration::from_millis(20);
/// How long a connection is waited for before librdkafka is left to find one by itself.
const CONNECT_PATIENCE: Duration = Duration::from_secs(1);
/// For a question that librdkafka answers from memory.
const ASKING_WHY: Duration = Duration::from_secs(1);
const _: () = assert!(size_of::<usize>() >= size_of::<u64>(), "tags travel as pointers");

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const INIT_PRODUCER_ID: i16 = 22;
    const LOADS: sys::rd_kafka_resp_err_t =
        sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS;

    #[test]
    fn a_coordinator_that_loads_is_asked_soon_again_and_named_in_the_end() {
        let properties = BTreeMap::from([("test.mock.num.brokers".to_owned(), "1".to_owned())]);
        let settings =
            Settings { bootstrap: "127.0.0.1:1".to_owned(), properties, client_id: "mock".to_owned() };
        let mut producer = TransactionalProducer::new(&settings, "lane", ProducerOptions::default()).unwrap();
        let errors = [LOADS; 1000];
        // SAFETY: the instance is live and has a cluster of its own by its configuration, which lives as long; the errors
        // are copied.
        let cluster = unsafe {
            let cluster = sys::rd_kafka_handle_mock_cluster(producer.client.as_ptr());
            assert!(!cluster.is_null());
            sys::rd_kafka_mock_start_request_tracking(cluster);
            sys::rd_kafka_mock_push_request_errors_array(
                cluster,
                INIT_PRODUCER_ID,
                errors.len(),
                errors.as_ptr(),
            );
            cluster
        };
        let error = producer.init_transactions(Duration::from_secs(2)).unwrap_err();
        let TransactionError::Passing { code, .. } = &error else { panic!("{error}") };
        assert_eq!(code.name(), "COORDINATOR_LOAD_IN_PROGRESS", "{error}");
        // SAFETY: the cluster is live; the array and what it points to are ours until destroyed, once.
        let asked = unsafe {
            let mut count = 0;
            let requests = sys::rd_kafka_mock_get_requests(cluster, &mut count);
            let of = |at| sys::rd_kafka_mock_request_api_key(*requests.add(at));
            let asked = (0..count).filter(|&at| of(at) == INIT_PRODUCER_ID).count();
            sys::rd_kafka_mock_request_destroy_array(requests, count);
            asked
        };
        // By itself librdkafka asks five times in two seconds.
        assert!(asked >= 10, "asked {asked} times");
    }
}
