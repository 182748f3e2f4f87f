//! The cloud engine of Longhaul: link -> Kafka.
//!
//! ```text
//!  link ─▶ session ──opens──▶ lane's mailbox ─┐
//!             │                               ▼
//!             └──parcels──▶ lane: decode ─▶ judge ─▶ one transaction {records, progress, offset map} ─▶ ack
//! ```
//!
//! - [`config::Config`] is what the operator writes, [`engine::start`] runs it.
//! - `session` serves one connection; what it may do is decided in `proto::receiver` and `proto::policy`.
//! - `lane` is where records become durable: `lane/commit.rs` is the only place that commits, `lane/takeover.rs` the
//!   only way to a producer, `lane/open.rs` decides where a source partition goes on.
//! - `progress_topic` and `offset_map` are the link's own topics at the target; the format of progress is
//!   [`proto::progress`].

pub mod board;
pub mod config;
pub mod engine;
mod lane;
mod links;
mod mailbox;
mod offset_map;
mod progress_topic;
mod pulse;
mod refusals;
mod reload;
mod session;
mod target;
