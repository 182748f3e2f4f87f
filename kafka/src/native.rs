//! Safe handles on librdkafka's objects: each frees what it holds, none outlives what it points into.
//!
//! What holds everywhere here: an `rd_kafka_t` may be used from any thread; objects got from a result or a
//! message are valid as long as that result or message; queues and topics are given back before their client.

mod client;
mod event;
mod list;
mod quiet;
mod reaper;
mod silence;

use std::ffi::{CStr, CString, c_char};

pub(crate) use client::{Client, Conf, Kind, Observer, Refusal, TopicRef};
pub(crate) use event::{AdminOptions, Event, Queue, admin_call, listed_offsets};
pub(crate) use list::{Entry, PartitionList, entries};

use crate::{Error, KafkaCode};

/// librdkafka's C interface.
///
/// The functions declared here return or take a code that a broker chose. The generated bindings type it as a
/// Rust enum, which a code newer than the client would make undefined: here it is the integer that it is in C.
pub(crate) mod sys {
    use std::ffi::{c_char, c_int};

    pub(crate) use rdkafka_sys::bindings::*;

    unsafe extern "C" {
        pub(crate) fn rd_kafka_err2name(err: c_int) -> *const c_char;
        pub(crate) fn rd_kafka_err2str(err: c_int) -> *const c_char;
        pub(crate) fn rd_kafka_error_code(error: *const rd_kafka_error_t) -> c_int;
        pub(crate) fn rd_kafka_event_error(event: *mut rd_kafka_event_t) -> c_int;
        pub(crate) fn rd_kafka_topic_result_error(result: *const rd_kafka_topic_result_t) -> c_int;
        pub(crate) fn rd_kafka_ConfigResource_error(resource: *const rd_kafka_ConfigResource_t) -> c_int;
        pub(crate) fn rd_kafka_last_error() -> c_int;
        pub(crate) fn rd_kafka_fatal_error(rk: *mut rd_kafka_t, text: *mut c_char, size: usize) -> c_int;
        pub(crate) fn rd_kafka_metadata(
            rk: *mut rd_kafka_t,
            all_topics: c_int,
            only_rkt: *mut rd_kafka_topic_t,
            metadata: *mut *const rd_kafka_metadata_t,
            timeout_ms: c_int,
        ) -> c_int;
    }
}

/// librdkafka's name of a code; `None` for one that it does not know.
pub(crate) fn code_name(code: i32) -> Option<&'static str> {
    // SAFETY: the function takes any integer and returns a NUL-terminated text, valid at least until this
    // thread calls it again.
    let text = unsafe { CStr::from_ptr(sys::rd_kafka_err2name(code)) };
    if text.to_bytes().last() == Some(&b'?') {
        return None;
    }
    // SAFETY: only a text for an unknown code lies in a thread's buffer, and it ends in `?`; all others are
    // constants of the library.
    unsafe { constant(text) }
}

/// librdkafka's description of a code; `None` for one that it does not know.
pub(crate) fn code_description(code: i32) -> Option<&'static str> {
    // SAFETY: as in `code_name`.
    let text = unsafe { CStr::from_ptr(sys::rd_kafka_err2str(code)) };
    if text.to_bytes().last() == Some(&b'?') {
        return None;
    }
    // SAFETY: as in `code_name`.
    unsafe { constant(text) }
}

/// # Safety
/// `text` must live for ever.
unsafe fn constant(text: &CStr) -> Option<&'static str> {
    // SAFETY: the caller's promise.
    let text: &'static CStr = unsafe { CStr::from_ptr(text.as_ptr()) };
    text.to_str().ok()
}

/// A text for C.
pub(crate) fn c_text(what: &str, text: &str) -> Result<CString, Error> {
    CString::new(text).map_err(|_| Error::Unusable {
        what: what.to_owned(),
        reason: format!("`{}` holds a NUL byte", text.escape_default()),
    })
}

/// A text from C, empty for a null pointer.
///
/// # Safety
/// `text` is null or points to a NUL-terminated text that lives through the call.
pub(crate) unsafe fn owned_text(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// A text buffer that librdkafka writes an error into.
pub(crate) struct ErrorText([c_char; 512]);

impl ErrorText {
    pub(crate) fn new() -> Self {
        Self([0; 512])
    }

    pub(crate) fn as_mut_ptr(&mut self) -> *mut c_char {
        self.0.as_mut_ptr()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

impl std::fmt::Display for ErrorText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let bytes: Vec<u8> = self.0.iter().take_while(|c| **c != 0).map(|c| *c as u8).collect();
        f.write_str(&String::from_utf8_lossy(&bytes))
    }
}

/// An `rd_kafka_error_t` taken over and freed: what it said.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) code: KafkaCode,
    pub(crate) text: String,
    pub(crate) fatal: bool,
    pub(crate) retriable: bool,
    pub(crate) requires_abort: bool,
}

/// Takes over what a call returned: null is success.
///
/// # Safety
/// `error` is null or an error object that nobody else frees.
pub(crate) unsafe fn check(error: *mut sys::rd_kafka_error_t) -> Result<(), Failure> {
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: `error` is live by the caller's promise, and read before it is freed, once.
    unsafe {
        let result = borrowed_error(error);
        sys::rd_kafka_error_destroy(error);
        result
    }
}

/// What an error says that belongs to a result: null, or one with the code 0, is none.
///
/// # Safety
/// `error` is null or live.
pub(crate) unsafe fn borrowed_error(error: *const sys::rd_kafka_error_t) -> Result<(), Failure> {
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: the caller's promise; the text is copied.
    unsafe {
        match KafkaCode(sys::rd_kafka_error_code(error)) {
            KafkaCode::NONE => Ok(()),
            code => Err(Failure {
                code,
                text: owned_text(sys::rd_kafka_error_string(error)),
                fatal: sys::rd_kafka_error_is_fatal(error) != 0,
                retriable: sys::rd_kafka_error_is_retriable(error) != 0,
                requires_abort: sys::rd_kafka_error_txn_requires_abort(error) != 0,
            }),
        }
    }
}

/// The elements of an array of pointers, as results come in.
///
/// # Safety
/// `first` is null with a `count` of 0, or there are `count` elements from it on through the iteration.
pub(crate) unsafe fn pointers<T>(
    first: *mut *const T,
    count: usize,
) -> impl ExactSizeIterator<Item = *const T> {
    let count = if first.is_null() { 0 } else { count };
    // SAFETY: the caller's promise.
    (0..count).map(move |index| unsafe { *first.add(index) })
}

impl Failure {
    pub(crate) fn into_error(self, what: impl Into<String>) -> Error {
        call_error(what, self.code, &self.text)
    }
}

/// The error of a call; the text is left out where it only repeats the code.
pub(crate) fn call_error(what: impl Into<String>, code: KafkaCode, text: &str) -> Error {
    let known = text.is_empty() || text == code.description();
    let detail = if known { String::new() } else { format!("; {text}") };
    Error::Call { what: what.into(), code, detail }
}

/// A duration as librdkafka takes it.
pub(crate) fn millis(duration: std::time::Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}
