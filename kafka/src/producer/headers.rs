//! Headers on their way into a record.

use std::{
    ffi::{c_char, c_void},
    ptr::NonNull,
};

use crate::native::sys;

/// Headers on their way to librdkafka.
pub(super) struct HeaderList(Option<NonNull<sys::rd_kafka_headers_t>>);

impl HeaderList {
    pub(super) fn copy<'h>(headers: impl IntoIterator<Item = (&'h [u8], Option<&'h [u8]>)>) -> Self {
        let mut list = Self(None);
        for (name, value) in headers {
            let pointer = *list.0.get_or_insert_with(|| {
                // SAFETY: makes a new object.
                NonNull::new(unsafe { sys::rd_kafka_headers_new(8) })
                    .expect("librdkafka aborts when it cannot allocate")
            });
            let (value, value_size) = match value {
                Some(value) => (value.as_ptr().cast::<c_void>(), value.len()),
                None => (std::ptr::null(), 0),
            };
            // SAFETY: the list is live; name and value are copied by their lengths, which a slice's length
            // always fits; a null value stays null, an empty one has a non-null pointer.
            unsafe {
                sys::rd_kafka_header_add(
                    pointer.as_ptr(),
                    name.as_ptr().cast::<c_char>(),
                    name.len() as isize,
                    value,
                    value_size as isize,
                );
            }
        }
        list
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    pub(super) fn as_ptr(&self) -> *mut sys::rd_kafka_headers_t {
        self.0.map_or(std::ptr::null_mut(), NonNull::as_ptr)
    }

    /// The message owns the list now.
    pub(super) fn taken_over(mut self) {
        self.0 = None;
    }
}

impl Drop for HeaderList {
    fn drop(&mut self) {
        if let Some(list) = self.0 {
            // SAFETY: still ours, freed once.
            unsafe { sys::rd_kafka_headers_destroy(list.as_ptr()) };
        }
    }
}
