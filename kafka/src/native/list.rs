//! Lists of partitions with offsets.

use std::{
    ffi::{CStr, c_int},
    ptr::NonNull,
};

use super::sys;
use crate::KafkaCode;

/// A list of our own.
pub(crate) struct PartitionList {
    list: NonNull<sys::rd_kafka_topic_partition_list_t>,
}

// SAFETY: a plain heap object with one owner.
unsafe impl Send for PartitionList {}

/// One entry, as read.
pub(crate) struct Entry<'a> {
    pub(crate) topic: &'a CStr,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) code: KafkaCode,
}

impl PartitionList {
    pub(crate) fn new() -> Self {
        // SAFETY: makes a new object.
        let list = unsafe { sys::rd_kafka_topic_partition_list_new(1) };
        Self { list: NonNull::new(list).expect("librdkafka aborts when it cannot allocate") }
    }

    /// A list of one partition.
    pub(crate) fn of(topic: &CStr, partition: i32, offset: i64, leader_epoch: Option<i32>) -> Self {
        let mut list = Self::new();
        list.add(topic, partition, offset, leader_epoch);
        list
    }

    pub(crate) fn add(&mut self, topic: &CStr, partition: i32, offset: i64, leader_epoch: Option<i32>) {
        // SAFETY: the list is live and ours; the name is copied; the entry returned lies in the list and is
        // used before anything else is added.
        unsafe {
            let entry = sys::rd_kafka_topic_partition_list_add(self.list.as_ptr(), topic.as_ptr(), partition);
            (*entry).offset = offset;
            if let Some(epoch) = leader_epoch {
                sys::rd_kafka_topic_partition_set_leader_epoch(entry, epoch);
            }
        }
    }

    pub(crate) fn as_ptr(&self) -> *mut sys::rd_kafka_topic_partition_list_t {
        self.list.as_ptr()
    }

    pub(crate) fn entries(&self) -> impl ExactSizeIterator<Item = Entry<'_>> {
        // SAFETY: the list is live as long as `self` is borrowed, and nothing changes it meanwhile.
        unsafe { entries(self.list.as_ptr()) }
    }
}

impl Drop for PartitionList {
    fn drop(&mut self) {
        // SAFETY: ours, freed once.
        unsafe { sys::rd_kafka_topic_partition_list_destroy(self.list.as_ptr()) };
    }
}

/// The entries of a list that belongs to somebody else; none for a null list.
///
/// # Safety
/// `list` is null or live and unchanged through `'a`.
pub(crate) unsafe fn entries<'a>(
    list: *const sys::rd_kafka_topic_partition_list_t,
) -> impl ExactSizeIterator<Item = Entry<'a>> {
    let (first, count) = if list.is_null() {
        (std::ptr::null(), 0)
    } else {
        // SAFETY: the list is live by the caller's promise.
        unsafe { ((*list).elems.cast_const(), usize::try_from((*list).cnt).unwrap_or(0)) }
    };
    // SAFETY: a live list has `count` entries from `first` on.
    (0..count).map(move |index| unsafe { read(first.add(index)) })
}

/// # Safety
/// `entry` is an entry of a live list, behind a pointer because its code may be none of the binding's enum.
pub(super) unsafe fn read<'a>(entry: *const sys::rd_kafka_topic_partition_t) -> Entry<'a> {
    // SAFETY: the fields of a live entry are initialised; the code is read as the integer that it is in C.
    unsafe {
        Entry {
            topic: CStr::from_ptr((*entry).topic),
            partition: (*entry).partition,
            offset: (*entry).offset,
            code: KafkaCode((&raw const (*entry).err).cast::<c_int>().read()),
        }
    }
}
