//! Placeholder.
pub mod ids;
