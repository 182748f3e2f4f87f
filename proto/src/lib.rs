//! Placeholder.
pub mod ids;
pub mod limits;
pub mod wire;
