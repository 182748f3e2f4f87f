//! What a consumer hands out: records borrowed from librdkafka, and what happens to partitions.

use std::{ffi::CStr, marker::PhantomData, ptr::NonNull};

use crate::{KafkaCode, native::sys};

/// What [`poll`](crate::SourceConsumer::poll) hands out.
#[derive(Debug)]
pub enum Event<'a> {
    /// A record. Within a partition records come in the order of their offsets.
    Record(Record<'a>),
    /// No record visible to a read_committed reader lies at or after `position` right now.
    EndOfPartition {
        /// The partition.
        token: u64,
        /// The next offset to fetch: past trailing markers and aborted records.
        position: i64,
    },
    /// The partition gives nothing more until it is unassigned and assigned anew, or sought.
    Lost {
        /// The partition.
        token: u64,
        /// Why.
        cause: SourceError,
    },
    /// Something is wrong that may pass by itself: connections, brokers, the group's coordinator.
    Trouble {
        /// The code.
        code: KafkaCode,
        /// librdkafka's words.
        reason: String,
    },
}

/// Why a partition gives no more records as it is assigned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// The log was cut below the position, or the position is outside the log: ask for the ends, then classify.
    #[error("the position is gone: {reason}")]
    Reset {
        /// librdkafka's words.
        reason: String,
    },
    /// The principal may not read it.
    #[error("not authorised to read: {code}")]
    Authorization {
        /// The code.
        code: KafkaCode,
    },
    /// The topic or partition does not exist any more.
    #[error("the topic is gone: {code}")]
    TopicGone {
        /// The code.
        code: KafkaCode,
    },
    /// Anything else, e.g. a batch that fails its checksum.
    #[error("{code}: {reason}")]
    Other {
        /// The code.
        code: KafkaCode,
        /// librdkafka's words.
        reason: String,
    },
}

/// One record, borrowed from librdkafka until the callback returns.
#[derive(Debug)]
pub struct Record<'a> {
    /// The token of its partition.
    pub token: u64,
    /// Its offset.
    pub offset: i64,
    /// Its timestamp, in ms since 1970; -1 when it has none.
    pub timestamp: i64,
    /// The epoch of the leader that wrote it, where known.
    pub leader_epoch: Option<i32>,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value.
    pub value: Option<&'a [u8]>,
    headers: Headers<'a>,
}

impl<'a> Record<'a> {
    /// Its headers in order, duplicates included: name and value.
    ///
    /// A name ends at its first NUL byte, if it holds one: librdkafka hands names out as C texts.
    pub fn headers(&self) -> Headers<'a> {
        self.headers
    }

    /// Bytes of key and value.
    pub fn payload_len(&self) -> usize {
        self.key.map_or(0, <[u8]>::len) + self.value.map_or(0, <[u8]>::len)
    }

    /// Views a message without an error.
    ///
    /// # Errors
    /// Headers that cannot be parsed.
    ///
    /// # Safety
    /// `message` is a live message that was fetched, lives through `'a` and is used by nobody else meanwhile.
    pub(super) unsafe fn view(message: *mut sys::rd_kafka_message_t, token: u64) -> Result<Self, KafkaCode> {
        // SAFETY: the caller's promise; key and payload are null or `*_len` bytes that live with the message.
        unsafe {
            let mut kind = sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
            let timestamp = sys::rd_kafka_message_timestamp(message, &mut kind);
            let has_time = kind != sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
            let epoch = sys::rd_kafka_message_leader_epoch(message);
            Ok(Self {
                token,
                offset: (*message).offset,
                timestamp: if has_time { timestamp } else { -1 },
                leader_epoch: (epoch >= 0).then_some(epoch),
                key: bytes((*message).key.cast(), (*message).key_len),
                value: bytes((*message).payload.cast(), (*message).len),
                headers: Headers::of(message)?,
            })
        }
    }
}

/// The headers of a record.
#[derive(Debug, Clone, Copy)]
pub struct Headers<'a> {
    list: Option<NonNull<sys::rd_kafka_headers_t>>,
    next: usize,
    count: usize,
    record: PhantomData<&'a [u8]>,
}

impl Headers<'_> {
    /// # Safety
    /// As [`Record::view`].
    unsafe fn of(message: *mut sys::rd_kafka_message_t) -> Result<Self, KafkaCode> {
        let mut list = std::ptr::null_mut();
        // SAFETY: the message is live; the list belongs to it.
        let code = unsafe { sys::rd_kafka_message_headers(message, &mut list) };
        let list = match code {
            sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => NonNull::new(list),
            sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__NOENT => None,
            code => return Err(KafkaCode(code as i32)),
        };
        // SAFETY: the list lives with the message.
        let count = list.map_or(0, |list| unsafe { sys::rd_kafka_header_cnt(list.as_ptr()) });
        Ok(Self { list, next: 0, count, record: PhantomData })
    }
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        let list = self.list?;
        if self.next == self.count {
            return None;
        }
        let (mut name, mut value, mut size) = (std::ptr::null(), std::ptr::null(), 0);
        // SAFETY: the list lives with the message, which outlives `'a`; so do name and value. For an index
        // below the count the call fills all three.
        unsafe {
            sys::rd_kafka_header_get_all(list.as_ptr(), self.next, &mut name, &mut value, &mut size);
            self.next += 1;
            Some((CStr::from_ptr(name).to_bytes(), bytes(value.cast(), size)))
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.count - self.next;
        (left, Some(left))
    }
}

impl ExactSizeIterator for Headers<'_> {}

/// # Safety
/// `first` is null, or `len` bytes from it on live through `'a`.
unsafe fn bytes<'a>(first: *const u8, len: usize) -> Option<&'a [u8]> {
    // SAFETY: the caller's promise.
    (!first.is_null()).then(|| unsafe { std::slice::from_raw_parts(first, len) })
}
