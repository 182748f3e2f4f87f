//! Identities good and broken, and handshakes between them.

mod forge;
mod handshake;
mod identity;
