//! The audit log: who connected, what was refused, held, skipped and delivered, in a chain of JSON lines.
//!
//! ```text
//! {"seq":0,"prev":"0000…","time":"2026-03-01T09:00:00.000Z","event":"start",…}
//! {"seq":1,"prev":"9f2c…","time":"2026-03-01T09:00:00.412Z","event":"connect",…}
//!               └── BLAKE3 of the line before, without its line break
//! ```
//!
//! # What must stay true
//! - [`Audit::record`] returns `Ok` only when the line is on disk (`fdatasync`). A caller that governs something
//!   records first and acts then; when recording fails it does not act.
//! - A line is whole or absent. What a crash left of the last line is cut off when the log is opened, and a `torn`
//!   line tells how much; what a failed write left is cut off before the next attempt.
//! - A log that cannot be written is unhealthy and comes back by itself: every [`Audit::record`] and
//!   [`Audit::probe`] tries again, and the first success begins with an `audit_resumed` line.
//! - At [`Options::rotate_bytes`] `edge.jsonl` becomes `edge.1.jsonl` (then `.2`, `.3`; the highest is the
//!   youngest) and the chain goes on in a new `edge.jsonl`. Nothing is ever deleted here.
//! - One process at a time: `edge.jsonl.lock` is held while a log is open.
//!
//! # What the chain proves
//! [`verify`] names a line that was changed, removed, repeated or moved, because the line after it no longer fits.
//! It cannot see that whole lines are missing at the very end, nor a change of the very last line that leaves it
//! readable: nothing follows that would tell. Whoever needs that keeps [`Summary::head`] elsewhere, and compares
//! both ends of a link, which tell the same story independently.

mod chain;
mod files;
mod log;
mod verify;

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

pub use chain::{Line, fingerprint};
pub use log::{AuditLog, check, wrong_name};
pub use verify::{Delivery, Lines, Summary, VerifyError, read, verify};

use crate::event::Event;

/// How a log is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// A file is put aside before it would grow beyond this many bytes. Default 256 MiB.
    pub rotate_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { rotate_bytes: 256 << 20 }
    }
}

/// The audit log as everything in a process shares it. Calls block until the disk has answered: async code goes
/// through `spawn_blocking`.
#[derive(Clone)]
pub struct Audit {
    shared: Arc<Shared>,
}

struct Shared {
    path: PathBuf,
    healthy: AtomicBool,
    log: Mutex<AuditLog>,
}

impl Audit {
    /// Opens the log at `path`, creating it and its folders when absent, and continues its chain.
    ///
    /// # Errors
    /// When it cannot be opened or written, is in use by another process, or does not end in an intact chain.
    pub fn open(path: &Path, options: Options) -> Result<Self, AuditError> {
        Ok(Self::from(AuditLog::open(path, options)?))
    }

    /// Puts one event on record; durable when this returns `Ok`.
    ///
    /// # Errors
    /// When the log cannot be written. It is then unhealthy, and what was to be recorded must not be done.
    pub fn record(&self, event: impl Into<Event>) -> Result<(), AuditError> {
        self.record_many([event])
    }

    /// Puts several events on record, in their order and with one `fdatasync`.
    ///
    /// # Errors
    /// As [`record`](Self::record); none of them counts as recorded then.
    pub fn record_many<E: Into<Event>>(&self, events: impl IntoIterator<Item = E>) -> Result<(), AuditError> {
        let events: Vec<Event> = events.into_iter().map(Into::into).collect();
        self.with_log(|log| log.append(&events))
    }

    /// Whether the last attempt to write succeeded. Governed actions stop while this is `false`.
    pub fn healthy(&self) -> bool {
        self.shared.healthy.load(Ordering::Acquire)
    }

    /// Tries an unhealthy log again; does nothing to a healthy one. Meant to be called every second or so.
    ///
    /// # Errors
    /// While the log still cannot be written.
    pub fn probe(&self) -> Result<(), AuditError> {
        if self.healthy() {
            return Ok(());
        }
        self.with_log(AuditLog::resume)
    }

    /// The file that lines are written to.
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    fn with_log<R>(&self, act: impl FnOnce(&mut AuditLog) -> Result<R, AuditError>) -> Result<R, AuditError> {
        let mut log = self.lock();
        let result = act(&mut log);
        // Set under the lock, so that the flag tells of the latest attempt.
        self.shared.healthy.store(log.is_healthy(), Ordering::Release);
        result
    }

    fn lock(&self) -> MutexGuard<'_, AuditLog> {
        // A panic while writing leaves the log without an open file; the next attempt opens and checks it again.
        self.shared.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl From<AuditLog> for Audit {
    fn from(log: AuditLog) -> Self {
        let (path, healthy) = (log.path().to_owned(), AtomicBool::new(log.is_healthy()));
        Self { shared: Arc::new(Shared { path, healthy, log: Mutex::new(log) }) }
    }
}

/// Why something could not be put on record.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuditError {
    /// The file or its folder cannot be opened or created.
    #[error("the audit log {} cannot be opened: {source}", file.display())]
    Unopenable {
        /// The log.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process has it open.
    #[error("the audit log {} is in use by another process{by}; give each program its own [audit] file", file.display())]
    InUse {
        /// The log.
        file: PathBuf,
        /// The other process, in words, if it is known.
        by: String,
    },
    /// Writing failed: a full disk, a read-only one, an I/O error.
    #[error("the audit log {} cannot be written: {source}; governed actions wait until it can be", file.display())]
    Unwritable {
        /// The log.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The same of a program that is just starting.
    #[error("the audit log {} cannot be written: {source}; without it nothing may be done: not started", file.display())]
    UnwritableAtStart {
        /// The log.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file does not end in an intact chain, so nothing can be added to it.
    #[error(
        "the audit log {} cannot be continued: {what}; check it with `longhaul audit verify`, then move it away to \
         begin a new one",
        file.display()
    )]
    Corrupt {
        /// The log.
        file: PathBuf,
        /// What was found.
        what: String,
    },
    /// An event that is longer than a line may be.
    #[error("a line of {bytes} bytes is longer than the audit log takes ({limit})")]
    TooLong {
        /// Its length.
        bytes: usize,
        /// The most that is taken.
        limit: usize,
    },
}

impl AuditError {
    /// In the words of a program that cannot start for it: nothing waits until the log can be written.
    #[must_use]
    pub fn at_start(self) -> Self {
        match self {
            Self::Unwritable { file, source } => Self::UnwritableAtStart { file, source },
            other => other,
        }
    }
}
