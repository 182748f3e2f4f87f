//! What Longhaul is tried on.

pub mod kafka;
pub mod proxy;
pub mod wire;
