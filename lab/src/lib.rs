//! What Longhaul is tried on.

pub mod checker;
pub mod kafka;
pub mod proxy;
pub mod record;
pub mod wire;
