//! A client instance: its configuration, its log, its end.

use std::{
    ffi::{CStr, CString, c_char, c_int, c_void},
    ptr::NonNull,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{ErrorText, c_text, owned_text, quiet, reaper, silence::Voice, sys};
use crate::{Error, KafkaCode, Settings};

/// What a client is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Producer,
    Consumer,
}

/// A configuration under construction.
pub(crate) struct Conf {
    conf: NonNull<sys::rd_kafka_conf_t>,
}

/// Why a property was not taken.
pub(crate) enum Refusal {
    Unknown,
    Invalid(String),
}

impl Conf {
    pub(crate) fn new() -> Self {
        // SAFETY: takes nothing; the object is freed by `drop` or handed to the client.
        let conf = unsafe { sys::rd_kafka_conf_new() };
        let conf = NonNull::new(conf).expect("librdkafka aborts when it cannot allocate");
        // SAFETY: `conf` is live; the callback is a function that lives for ever.
        unsafe { sys::rd_kafka_conf_set_log_cb(conf.as_ptr(), Some(log)) };
        Self { conf }
    }

    pub(crate) fn set(&mut self, name: &str, value: &str) -> Result<(), Refusal> {
        let Ok(c_name) = CString::new(name) else { return Err(Refusal::Unknown) };
        let Ok(c_value) = CString::new(value) else {
            return Err(Refusal::Invalid("it holds a NUL byte".into()));
        };
        let mut text = ErrorText::new();
        let size = text.len();
        // SAFETY: all pointers are live through the call; librdkafka copies name and value and writes at most
        // `size` bytes into `text`.
        let result = unsafe {
            sys::rd_kafka_conf_set(
                self.conf.as_ptr(),
                c_name.as_ptr(),
                c_value.as_ptr(),
                text.as_mut_ptr(),
                size,
            )
        };
        match result {
            sys::rd_kafka_conf_res_t::RD_KAFKA_CONF_OK => Ok(()),
            sys::rd_kafka_conf_res_t::RD_KAFKA_CONF_UNKNOWN => Err(Refusal::Unknown),
            sys::rd_kafka_conf_res_t::RD_KAFKA_CONF_INVALID => {
                Err(Refusal::Invalid(text.to_string().trim_end().into()))
            }
        }
    }

    /// Chooses which events the client puts on its queues (`RD_KAFKA_EVENT_*`).
    pub(crate) fn set_events(&mut self, events: i32) {
        // SAFETY: `conf` is live.
        unsafe { sys::rd_kafka_conf_set_events(self.conf.as_ptr(), events) };
    }

    pub(super) fn as_ptr(&self) -> *mut sys::rd_kafka_conf_t {
        self.conf.as_ptr()
    }
}

impl Drop for Conf {
    fn drop(&mut self) {
        // SAFETY: whoever gives the object to a client forgets `self`, so it is freed once at most.
        unsafe { sys::rd_kafka_conf_destroy(self.conf.as_ptr()) };
    }
}

/// Told of what happens on librdkafka's own threads.
pub(crate) trait Observer: Send + Sync + 'static {
    /// A request has been written to a connection.
    fn sent(&self, api_key: i16);

    /// A record was refused, with words that the broker or librdkafka had for it. Comes before its report.
    fn refused(&self, tag: u64, words: &CStr);
}

/// One instance with its threads and connections.
///
/// Dropping it takes at most a moment, whatever the brokers do: `reaper`.
pub(crate) struct Client {
    rk: NonNull<sys::rd_kafka_t>,
    client_id: String,
    ears: Arc<Ears>,
}

/// What callbacks of an instance point to; kept until its threads have ended.
pub(super) struct Ears {
    voice: Arc<Voice>,
    observer: Option<Arc<dyn Observer>>,
}

// SAFETY: librdkafka's instances are thread-safe by contract (rdkafka.h, "All rd_kafka_* functions are
// thread-safe"); `ears` is Send + Sync itself.
unsafe impl Send for Client {}
// SAFETY: as above.
unsafe impl Sync for Client {}

impl Client {
    /// Makes an instance.
    pub(crate) fn new(kind: Kind, settings: &Settings, conf: Conf) -> Result<Self, Error> {
        Self::build(kind, settings, conf, None)
    }

    /// Makes an instance that tells `observer` of requests sent and records refused.
    pub(crate) fn observed(
        kind: Kind,
        settings: &Settings,
        conf: Conf,
        observer: Arc<dyn Observer>,
    ) -> Result<Self, Error> {
        Self::build(kind, settings, conf, Some(observer))
    }

    fn build(
        kind: Kind,
        settings: &Settings,
        conf: Conf,
        observer: Option<Arc<dyn Observer>>,
    ) -> Result<Self, Error> {
        let client_id = &settings.client_id;
        let voice = Voice::new(c_text("bootstrap", &settings.bootstrap)?);
        let ears = Arc::new(Ears { voice, observer });
        // SAFETY: `conf` is live; `ears` is held until the instance and all its threads are gone, and longer than this
        // call when the instance cannot be made.
        unsafe {
            sys::rd_kafka_conf_interceptor_add_on_new(
                conf.as_ptr(),
                INTERCEPTOR.as_ptr(),
                Some(on_new),
                Arc::as_ptr(&ears).cast_mut().cast::<c_void>(),
            );
        }
        let kind = match kind {
            Kind::Producer => sys::rd_kafka_type_t::RD_KAFKA_PRODUCER,
            Kind::Consumer => sys::rd_kafka_type_t::RD_KAFKA_CONSUMER,
        };
        let mut text = ErrorText::new();
        let size = text.len();
        // SAFETY: `conf` is live and not used after this; `text` takes `size` bytes.
        let rk = unsafe { sys::rd_kafka_new(kind, conf.as_ptr(), text.as_mut_ptr(), size) };
        // Not freed here in either case. An instance that fails halfway has freed the list of interceptors that it shares with
        // `conf` (2.12, `rd_kafka_interceptors_destroy` on a copy of the struct): freeing it again is a crash, and
        // leaving it costs some kilobytes each time that an operator makes the mistake.
        std::mem::forget(conf);
        let Some(rk) = NonNull::new(rk) else {
            return Err(Error::Create { client_id: client_id.clone(), reason: text.to_string() });
        };
        ears.voice.begin(rk);
        Ok(Self { rk, client_id: client_id.clone(), ears })
    }

    pub(crate) fn as_ptr(&self) -> *mut sys::rd_kafka_t {
        self.rk.as_ptr()
    }

    pub(crate) fn client_id(&self) -> &str {
        &self.client_id
    }

    /// The error that made the instance useless, if there is one.
    pub(crate) fn fatal_error(&self) -> Option<(KafkaCode, String)> {
        let mut text = ErrorText::new();
        let size = text.len();
        // SAFETY: the instance is live; `text` takes `size` bytes.
        let code = unsafe { sys::rd_kafka_fatal_error(self.as_ptr(), text.as_mut_ptr(), size) };
        (code != 0).then(|| (KafkaCode(code), text.to_string()))
    }

    /// Waits up to `patience` until a broker is connected that is known by its id.
    ///
    /// librdkafka makes do without, but what needs a coordinator then looks for a connection at once, finds none and
    /// looks again only half a second later (2.12).
    pub(crate) fn connect(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        // The first answer comes over a bootstrap connection, which ends with it; the second from a broker.
        for _ in 0..2 {
            let left = super::millis(deadline.saturating_duration_since(Instant::now()));
            let mut metadata = std::ptr::null();
            // SAFETY: the instance is live; without a topic only the brokers are asked for; the object returned on
            // success is ours and freed once.
            unsafe {
                let code =
                    sys::rd_kafka_metadata(self.as_ptr(), 0, std::ptr::null_mut(), &mut metadata, left);
                if code != 0 {
                    return;
                }
                sys::rd_kafka_metadata_destroy(metadata);
            }
        }
    }

    /// A topic of the instance.
    pub(crate) fn topic(&self, name: &str) -> Result<TopicRef, Error> {
        let what = format!("topic `{name}`");
        let c_name = c_text(&what, name)?;
        // SAFETY: the instance is live; a null configuration stands for the instance's defaults.
        let rkt = unsafe { sys::rd_kafka_topic_new(self.as_ptr(), c_name.as_ptr(), std::ptr::null_mut()) };
        match NonNull::new(rkt) {
            Some(rkt) => Ok(TopicRef { rkt }),
            None => {
                // SAFETY: reads a thread-local integer.
                let code = KafkaCode(unsafe { sys::rd_kafka_last_error() });
                Err(super::call_error(what, code, ""))
            }
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.ears.voice.end();
        reaper::destroy(self.rk, Arc::clone(&self.ears));
    }
}

/// A counted reference to a topic of an instance; must be dropped before the instance.
pub(crate) struct TopicRef {
    rkt: NonNull<sys::rd_kafka_topic_t>,
}

// SAFETY: topic objects are thread-safe and counted.
unsafe impl Send for TopicRef {}

impl TopicRef {
    pub(crate) fn as_ptr(&self) -> *mut sys::rd_kafka_topic_t {
        self.rkt.as_ptr()
    }
}

impl Drop for TopicRef {
    fn drop(&mut self) {
        // SAFETY: gives back the one reference taken by `rd_kafka_topic_new`; holders drop it before the client.
        unsafe { sys::rd_kafka_topic_destroy(self.rkt.as_ptr()) };
    }
}

/// Adds the ears to an instance that is being made.
unsafe extern "C" fn on_new(
    rk: *mut sys::rd_kafka_t,
    _conf: *const sys::rd_kafka_conf_t,
    opaque: *mut c_void,
    _text: *mut c_char,
    _size: usize,
) -> sys::rd_kafka_resp_err_t {
    // SAFETY: librdkafka calls this with the instance under construction; `opaque` is its `Ears`.
    unsafe {
        if (*opaque.cast::<Ears>()).observer.is_some() {
            sys::rd_kafka_interceptor_add_on_acknowledgement(
                rk,
                INTERCEPTOR.as_ptr(),
                Some(on_acknowledgement),
                opaque,
            );
        }
        sys::rd_kafka_interceptor_add_on_request_sent(rk, INTERCEPTOR.as_ptr(), Some(on_sent), opaque)
    }
}

unsafe extern "C" fn on_acknowledgement(
    _rk: *mut sys::rd_kafka_t,
    message: *mut sys::rd_kafka_message_t,
    opaque: *mut c_void,
) -> sys::rd_kafka_resp_err_t {
    // SAFETY: the message is live during the call, and so are its words: librdkafka frees those of the broker
    // before the report is taken, so this is the only place where they can be read. `opaque` as in `on_sent`.
    unsafe {
        let words = sys::rd_kafka_message_produce_errstr(message);
        if !words.is_null()
            && let Some(observer) = &(*opaque.cast::<Ears>()).observer
        {
            observer.refused((*message)._private as u64, CStr::from_ptr(words));
        }
    }
    sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR
}

unsafe extern "C" fn on_sent(
    _rk: *mut sys::rd_kafka_t,
    _socket: c_int,
    _broker: *const c_char,
    _broker_id: i32,
    api_key: i16,
    _api_version: i16,
    _correlation: i32,
    _size: usize,
    opaque: *mut c_void,
) -> sys::rd_kafka_resp_err_t {
    // SAFETY: `opaque` is the `Ears` that the client keeps until its threads have ended; only shared access.
    let ears = unsafe { &*opaque.cast::<Ears>() };
    ears.voice.sent();
    if let Some(observer) = &ears.observer {
        observer.sent(api_key);
    }
    sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR
}

/// librdkafka's log, into ours.
unsafe extern "C" fn log(
    rk: *const sys::rd_kafka_t,
    level: c_int,
    facility: *const c_char,
    line: *const c_char,
) {
    // A subscriber that panics must not unwind into C.
    let _ = std::panic::catch_unwind(|| {
        // SAFETY: librdkafka passes a live instance or null, and two NUL-terminated texts.
        let (client, facility, line) = unsafe {
            let client = if rk.is_null() { String::new() } else { owned_text(sys::rd_kafka_name(rk)) };
            (client, owned_text(facility), owned_text(line))
        };
        let left_out = if level <= 6 {
            let Some(left_out) = quiet::is_due(&client, &facility, &line) else { return };
            left_out
        } else {
            0
        };
        let line = match left_out {
            0 => line,
            times => format!("{line} ({times} more like it since it was told last)"),
        };
        match level {
            // The properties of one cluster are given to producers and consumers alike, and each kind
            // complains about the other's.
            _ if facility == "CONFWARN" => tracing::debug!(target: "kafka", client, facility, "{line}"),
            0..=2 => tracing::error!(target: "kafka", client, facility, "{line}"),
            3..=4 => tracing::warn!(target: "kafka", client, facility, "{line}"),
            5..=6 => tracing::info!(target: "kafka", client, facility, "{line}"),
            _ => tracing::debug!(target: "kafka", client, facility, "{line}"),
        }
    });
}

const INTERCEPTOR: &CStr = c"longhaul";
