//! Two ends of a link on loopback, with a relay between them where the path must misbehave.

// clippy's exception for tests does not reach their helpers.
#![allow(clippy::unwrap_used)]

mod door;
mod path;
mod pipe;
mod relay;
mod world;
