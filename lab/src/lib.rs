//! What Longhaul is tried on.

pub mod checker;
pub mod embedded;
pub mod kafka;
mod net;
pub mod proxy;
pub mod record;
pub mod wire;
