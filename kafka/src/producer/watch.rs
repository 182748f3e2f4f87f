//! What librdkafka tells only on its own threads.

use std::{
    collections::HashSet,
    ffi::CStr,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::native::Observer;

/// What librdkafka's threads tell us.
#[derive(Default)]
pub(super) struct Watch {
    end_txns: AtomicU64,
    /// Tags of records refused only because of another record in their batch; taken out with their reports.
    ///
    /// librdkafka (2.12) reports the batch's error for all of them when exactly one record was at fault. Only
    /// the words tell which that is, and they can be read only before the report.
    neighbours: Mutex<HashSet<u64>>,
}

impl Watch {
    pub(super) fn end_txns(&self) -> u64 {
        // A send is counted before its answer can arrive, and the answer reaches us through librdkafka's locks.
        self.end_txns.load(Ordering::Acquire)
    }

    pub(super) fn neighbours(&self) -> MutexGuard<'_, HashSet<u64>> {
        self.neighbours.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observer for Watch {
    fn sent(&self, api_key: i16) {
        if api_key == END_TXN {
            self.end_txns.fetch_add(1, Ordering::Release);
        }
    }

    fn refused(&self, tag: u64, words: &CStr) {
        if words.to_bytes().starts_with(NEIGHBOUR_OF_THE_REFUSED) {
            self.neighbours().insert(tag);
        }
    }
}

/// Kafka's ApiKey of `EndTxn`.
const END_TXN: i16 = 26;
/// How librdkafka's words for a record begin that is refused for another's sake.
const NEIGHBOUR_OF_THE_REFUSED: &[u8] = b"Failed to append record because it was part of a batch";
