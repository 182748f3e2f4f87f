//! Queues, what comes out of them, and calls that are answered through them.

use std::{
    ffi::{CStr, CString, c_int},
    ptr::NonNull,
    time::{Duration, Instant},
};

use super::{Client, Entry, ErrorText, check, list::read, millis, owned_text, pointers, sys};
use crate::{Error, Isolation, KafkaCode};

/// A queue of a client; must be dropped before the client.
pub(crate) struct Queue {
    queue: NonNull<sys::rd_kafka_queue_t>,
}

// SAFETY: queues are thread-safe.
unsafe impl Send for Queue {}

impl Queue {
    /// A new queue for answers.
    pub(crate) fn new(client: &Client) -> Self {
        // SAFETY: the client is live.
        Self::take(unsafe { sys::rd_kafka_queue_new(client.as_ptr()) })
    }

    /// The queue of delivery reports and errors.
    pub(crate) fn main(client: &Client) -> Self {
        // SAFETY: the client is live.
        Self::take(unsafe { sys::rd_kafka_queue_get_main(client.as_ptr()) })
    }

    /// The queue of fetched records; `None` for a producer.
    pub(crate) fn consumer(client: &Client) -> Option<Self> {
        // SAFETY: the client is live.
        NonNull::new(unsafe { sys::rd_kafka_queue_get_consumer(client.as_ptr()) }).map(|queue| Self { queue })
    }

    fn take(queue: *mut sys::rd_kafka_queue_t) -> Self {
        Self { queue: NonNull::new(queue).expect("librdkafka aborts when it cannot allocate") }
    }

    pub(crate) fn as_ptr(&self) -> *mut sys::rd_kafka_queue_t {
        self.queue.as_ptr()
    }

    /// The next event, waiting up to `timeout`.
    pub(crate) fn poll(&self, timeout: Duration) -> Option<Event> {
        // SAFETY: the queue is live; the event returned is ours.
        NonNull::new(unsafe { sys::rd_kafka_queue_poll(self.as_ptr(), millis(timeout)) })
            .map(|event| Event { event })
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: gives back our reference, once; holders drop it before the client.
        unsafe { sys::rd_kafka_queue_destroy(self.queue.as_ptr()) };
    }
}

/// An event taken from a queue.
pub(crate) struct Event {
    event: NonNull<sys::rd_kafka_event_t>,
}

impl Event {
    pub(crate) fn as_ptr(&self) -> *mut sys::rd_kafka_event_t {
        self.event.as_ptr()
    }

    /// `RD_KAFKA_EVENT_*`
    pub(crate) fn kind(&self) -> i32 {
        // SAFETY: the event is live.
        unsafe { sys::rd_kafka_event_type(self.as_ptr()) }
    }

    /// The error that the whole event stands for; [`KafkaCode::NONE`] when it is none.
    pub(crate) fn code(&self) -> KafkaCode {
        // SAFETY: the event is live.
        KafkaCode(unsafe { sys::rd_kafka_event_error(self.as_ptr()) })
    }

    pub(crate) fn error_text(&self) -> String {
        // SAFETY: the event is live; the text is copied.
        unsafe { owned_text(sys::rd_kafka_event_error_string(self.as_ptr())) }
    }

    /// The next message of the event: of a fetch the one record, of delivery reports each.
    ///
    /// It belongs to the event. Taking a fetched record moves its partition's position.
    pub(crate) fn next_message(&self) -> Option<NonNull<sys::rd_kafka_message_t>> {
        // SAFETY: the event is live.
        NonNull::new(unsafe { sys::rd_kafka_event_message_next(self.as_ptr()) }.cast_mut())
    }

    /// The partition that an error is about, and its offset; `None` when it is about none.
    pub(crate) fn place(&self) -> Option<(CString, i32, i64)> {
        // SAFETY: the event is live; the object returned is ours, read and then freed once.
        unsafe {
            let place = sys::rd_kafka_event_topic_partition(self.as_ptr());
            if place.is_null() {
                return None;
            }
            let topic = CStr::from_ptr((*place).topic).to_owned();
            let found = (topic, (*place).partition, (*place).offset);
            sys::rd_kafka_topic_partition_destroy(place);
            Some(found)
        }
    }

    /// The number given by [`AdminOptions::set_opaque`].
    pub(crate) fn opaque(&self) -> usize {
        // SAFETY: the event is live.
        unsafe { sys::rd_kafka_event_opaque(self.as_ptr()) as usize }
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: ours, freed once; what was got from it borrows `self`.
        unsafe { sys::rd_kafka_event_destroy(self.event.as_ptr()) };
    }
}

/// The options of one admin request.
pub(crate) struct AdminOptions {
    options: NonNull<sys::rd_kafka_AdminOptions_t>,
}

impl AdminOptions {
    /// Options for one kind of request, which is given up after `timeout`.
    pub(crate) fn new(
        client: &Client,
        api: sys::rd_kafka_admin_op_t,
        timeout: Duration,
    ) -> Result<Self, Error> {
        // SAFETY: the client is live.
        let options = unsafe { sys::rd_kafka_AdminOptions_new(client.as_ptr(), api) };
        let options =
            Self { options: NonNull::new(options).expect("the kind of request is one librdkafka knows") };
        let mut text = ErrorText::new();
        let size = text.len();
        // librdkafka takes 0 to 3,600,000 ms here.
        let timeout_ms: c_int = millis(timeout).clamp(1, 3_600_000);
        // SAFETY: the options are live, `text` takes `size` bytes.
        let code = unsafe {
            sys::rd_kafka_AdminOptions_set_request_timeout(
                options.as_ptr(),
                timeout_ms,
                text.as_mut_ptr(),
                size,
            )
        } as i32;
        if code != 0 {
            return Err(super::call_error("admin request", KafkaCode(code), &text.to_string()));
        }
        Ok(options)
    }

    pub(crate) fn set_isolation(&mut self, isolation: Isolation) -> Result<(), Error> {
        let level = match isolation {
            Isolation::Committed => sys::rd_kafka_IsolationLevel_t::RD_KAFKA_ISOLATION_LEVEL_READ_COMMITTED,
            Isolation::Uncommitted => {
                sys::rd_kafka_IsolationLevel_t::RD_KAFKA_ISOLATION_LEVEL_READ_UNCOMMITTED
            }
        };
        // SAFETY: the options are live; the error object returned is ours.
        unsafe { check(sys::rd_kafka_AdminOptions_set_isolation_level(self.as_ptr(), level)) }
            .map_err(|failure| failure.into_error("isolation level"))
    }

    /// How long the broker itself may take before it answers; else it answers when the request is accepted.
    pub(crate) fn set_operation_timeout(&mut self, timeout: Duration) -> Result<(), Error> {
        let mut text = ErrorText::new();
        let size = text.len();
        let timeout_ms: c_int = millis(timeout).clamp(1, 3_600_000);
        // SAFETY: the options are live, `text` takes `size` bytes.
        let code = unsafe {
            sys::rd_kafka_AdminOptions_set_operation_timeout(
                self.as_ptr(),
                timeout_ms,
                text.as_mut_ptr(),
                size,
            )
        } as i32;
        if code != 0 {
            return Err(super::call_error("admin request", KafkaCode(code), &text.to_string()));
        }
        Ok(())
    }

    pub(crate) fn set_opaque(&mut self, number: usize) {
        // SAFETY: the options are live; the pointer is only carried, never followed.
        unsafe { sys::rd_kafka_AdminOptions_set_opaque(self.as_ptr(), number as *mut _) };
    }

    pub(crate) fn as_ptr(&self) -> *mut sys::rd_kafka_AdminOptions_t {
        self.options.as_ptr()
    }
}

impl Drop for AdminOptions {
    fn drop(&mut self) {
        // SAFETY: ours, freed once; requests copied them.
        unsafe { sys::rd_kafka_AdminOptions_destroy(self.options.as_ptr()) };
    }
}

/// Sends an admin request and waits for its answer.
///
/// `submit` gets the client, the options and the queue for the answer.
pub(crate) fn admin_call(
    client: &Client,
    api: sys::rd_kafka_admin_op_t,
    what: &str,
    timeout: Duration,
    configure: impl FnOnce(&mut AdminOptions) -> Result<(), Error>,
    submit: impl FnOnce(*mut sys::rd_kafka_t, *const sys::rd_kafka_AdminOptions_t, *mut sys::rd_kafka_queue_t),
) -> Result<Event, Error> {
    let deadline = Instant::now() + timeout;
    let queue = Queue::new(client);
    let mut options = AdminOptions::new(client, api, timeout)?;
    configure(&mut options)?;
    submit(client.as_ptr(), options.as_ptr(), queue.as_ptr());
    // librdkafka gives up by itself at `timeout`; the grace lets its own, better error arrive.
    let left = (deadline + GRACE).saturating_duration_since(Instant::now());
    let Some(event) = queue.poll(left) else {
        return Err(Error::Timeout { what: what.to_owned(), timeout });
    };
    match event.code() {
        KafkaCode::NONE => Ok(event),
        KafkaCode::TIMED_OUT => Err(Error::Timeout { what: what.to_owned(), timeout }),
        code => Err(super::call_error(what, code, &event.error_text())),
    }
}

/// The answers to a ListOffsets request, by partition.
pub(crate) fn listed_offsets(event: &Event) -> impl Iterator<Item = Entry<'_>> {
    // SAFETY: the event is an answer to ListOffsets and outlives, by the borrow, what is got from it.
    let infos = unsafe {
        let mut count = 0;
        let result = sys::rd_kafka_event_ListOffsets_result(event.as_ptr());
        pointers(sys::rd_kafka_ListOffsets_result_infos(result, &mut count), count)
    };
    // SAFETY: as above.
    infos.map(|info| unsafe { read(sys::rd_kafka_ListOffsetsResultInfo_topic_partition(info)) })
}

const GRACE: Duration = Duration::from_millis(500);
