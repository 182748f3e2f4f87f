//! The on-premise engine of Longhaul: Kafka -> link.
//!
//! Two doors: [`config::Config`] is what the operator writes, [`engine::Engine`] starts an exporter with it and gives
//! an [`engine::Handle`].
//!
//! ```text
//!  source ──▶ table of source partitions            session (async): dial, control stream, holds
//!  (thread)                                            │ items            ▲ news, events
//!                                                      ▼                  │
//!  lane threads ◀── commands, once on record ──── clerk (thread): audit log first
//!    consume ▶ assemble ▶ topic check ▶ stamp, encode ▶ stream task ▶ importer
//!                         (thread)
//! ```
//!
//! The importer is the authority on progress: an exporter keeps no state of its own. What it reads it reads from where
//! the importer says, and what it sent and did not see acknowledged is read again.

pub mod config;
pub mod engine;
pub mod status;

mod clerk;
mod commit;
mod holds;
mod journal;
mod lag;
mod lane;
mod lanes;
mod metrics;
mod partition;
mod position;
mod reload;
mod repeats;
mod schemas;
mod session;
mod source;
mod stop;
mod topic_check;
