//! Which partitions are assigned, found by token or by what a message carries.

use std::{
    collections::HashMap,
    ffi::{CStr, CString},
};

use super::Watermarks;
use crate::{
    Error,
    native::{Client, TopicRef, c_text, sys},
};

/// One assigned partition.
pub(super) struct Slot {
    pub(super) token: u64,
    pub(super) topic: CString,
    pub(super) partition: i32,
    /// The next offset to hand out.
    pub(super) position: i64,
    /// The leader epoch of `position`: that of the record before it, or as assigned.
    pub(super) epoch: Option<i32>,
    /// Whether librdkafka fetches it: not after it was lost.
    pub(super) running: bool,
    pub(super) paused: bool,
    /// Whether its leader was heard of: something came from it.
    pub(super) heard: bool,
    /// The first report of a lost position, which is not believed: it may be older than the assignment.
    pub(super) reset_reported: Option<String>,
    pub(super) lso: Option<i64>,
    pub(super) hw: Option<i64>,
    place: Place,
}

impl Slot {
    pub(super) fn watermarks(&self) -> Option<Watermarks> {
        Some(Watermarks { lso: self.lso?, hw: self.hw? })
    }

    pub(super) fn name(&self) -> String {
        format!("{}/{}", self.topic.to_string_lossy(), self.partition)
    }
}

/// How a message names its partition: its topic object's address and the partition's number.
type Place = (usize, i32);

struct Interned {
    topic: TopicRef,
    users: usize,
}

/// All assigned partitions.
#[derive(Default)]
pub(super) struct Slots {
    slots: Vec<Option<Slot>>,
    free: Vec<usize>,
    by_token: HashMap<u64, usize>,
    by_place: HashMap<Place, usize>,
    /// The reference held keeps each address in `by_place` from being used for another topic.
    topics: HashMap<CString, Interned>,
    /// Messages come in runs of one partition: the last one found.
    last: Option<(Place, usize)>,
}

impl Slots {
    /// Adds a partition.
    ///
    /// # Errors
    /// The token or the partition is assigned already, or the topic's name is none.
    pub(super) fn insert(
        &mut self,
        client: &Client,
        topic: &str,
        partition: i32,
        (position, epoch): (i64, Option<i32>),
        token: u64,
    ) -> Result<usize, Error> {
        let what = format!("assign {topic}/{partition}");
        let unusable = |reason: String| Err(Error::Unusable { what: what.clone(), reason });
        if self.by_token.contains_key(&token) {
            return unusable(format!("token {token} is in use"));
        }
        let name = c_text(&what, topic)?;
        let address = match self.topics.get(&name) {
            Some(interned) => interned.topic.as_ptr() as usize,
            None => {
                let topic = client.topic(topic)?;
                let address = topic.as_ptr() as usize;
                self.topics.insert(name.clone(), Interned { topic, users: 0 });
                address
            }
        };
        let place = (address, partition);
        if self.by_place.contains_key(&place) {
            return unusable("the partition is assigned already".into());
        }
        if let Some(interned) = self.topics.get_mut(&name) {
            interned.users += 1;
        }
        let slot = Slot {
            token,
            topic: name,
            partition,
            position,
            epoch,
            running: false,
            paused: false,
            heard: false,
            reset_reported: None,
            lso: None,
            hw: None,
            place,
        };
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.slots[index] = Some(slot);
        self.by_token.insert(token, index);
        self.by_place.insert(place, index);
        Ok(index)
    }

    pub(super) fn remove(&mut self, index: usize) {
        let Some(slot) = self.slots[index].take() else { return };
        self.last = None;
        self.free.push(index);
        self.by_token.remove(&slot.token);
        self.by_place.remove(&slot.place);
        if let Some(interned) = self.topics.get_mut(&slot.topic) {
            interned.users -= 1;
            if interned.users == 0 {
                self.topics.remove(&slot.topic);
            }
        }
    }

    pub(super) fn by_token(&self, token: u64) -> Option<usize> {
        self.by_token.get(&token).copied()
    }

    /// The slot of a message's topic object and partition.
    pub(super) fn by_place(&mut self, topic: *mut sys::rd_kafka_topic_t, partition: i32) -> Option<usize> {
        let place = (topic as usize, partition);
        match self.last {
            Some((last, index)) if last == place => Some(index),
            _ => {
                let index = *self.by_place.get(&place)?;
                self.last = Some((place, index));
                Some(index)
            }
        }
    }

    pub(super) fn by_name(&mut self, topic: &CStr, partition: i32) -> Option<usize> {
        let address = self.topics.get(topic)?.topic.as_ptr();
        self.by_place(address, partition)
    }

    pub(super) fn get(&self, index: usize) -> &Slot {
        self.slots[index].as_ref().expect("indices are forgotten when their slot is removed")
    }

    pub(super) fn get_mut(&mut self, index: usize) -> &mut Slot {
        self.slots[index].as_mut().expect("indices are forgotten when their slot is removed")
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Slot> {
        self.slots.iter().flatten()
    }
}
