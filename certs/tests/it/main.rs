//! Identities good and broken, and handshakes between them.

// clippy's exception for tests does not reach their helpers.
#![allow(clippy::unwrap_used)]

mod forge;
mod handshake;
mod identity;
