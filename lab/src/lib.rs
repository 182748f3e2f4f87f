//! What Longhaul is tried on.

pub mod kafka;
pub mod wire;
