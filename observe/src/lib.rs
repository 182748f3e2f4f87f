//! On the record: what both engines tell about themselves.
//!
//! - [`Audit`] is the audit log: a chain of JSON lines, durable before a governed action takes effect. What can be
//!   put on it is in [`event`]; [`audit::verify`] checks a log, [`audit::read`] reads it back.
//! - [`metrics::Metrics`] is the set of numbers, with the names that dashboards rely on.
//! - [`admin::bind`] answers `/metrics`, `/healthz`, `/readyz` and `/api/status` over HTTP.
//! - [`logging::init`] sets `tracing` up, for people or as JSON.

#![warn(missing_docs)]

pub mod admin;
pub mod audit;
pub mod event;
pub mod logging;
pub mod metrics;

pub use audit::{Audit, AuditError};
