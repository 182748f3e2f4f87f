//! How the parts of an exporter are told to end.

use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering},
};

/// Shared by everything that runs. Only ever goes forward: running, stopping (drain what is under way), killed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stop(Arc<AtomicU8>);

impl Stop {
    /// Ends in good order.
    pub(crate) fn stop(&self) {
        self.0.fetch_max(STOPPING, Ordering::AcqRel);
    }

    /// Ends at once.
    pub(crate) fn kill(&self) {
        self.0.fetch_max(KILLED, Ordering::AcqRel);
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.0.load(Ordering::Acquire) >= STOPPING
    }

    pub(crate) fn is_killed(&self) -> bool {
        self.0.load(Ordering::Acquire) >= KILLED
    }
}

const STOPPING: u8 = 1;
const KILLED: u8 = 2;
