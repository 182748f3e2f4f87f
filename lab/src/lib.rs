//! What Longhaul is tried on.

pub mod checker;
pub mod embedded;
pub mod generator;
pub mod kafka;
pub mod load;
mod net;
pub mod proxy;
pub mod record;
pub mod relay;
pub mod topicfile;
pub mod wire;
