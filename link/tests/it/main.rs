//! Two ends of a link on loopback, with a relay between them where the path must misbehave.

mod door;
mod path;
mod pipe;
mod relay;
mod world;
