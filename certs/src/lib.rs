//! Who you are: certificates, SPIFFE identities and the TLS both ends of a link speak.
//!
//! Two things matter here. An [`Authority`] is our own certificate authority: a folder from which exporters and
//! importers are issued. An [`Identity`] is what one of them runs with: the folder named by `[tls] dir`, loaded and
//! checked, able to make the rustls configuration of its side.
//!
//! ```text
//! authority folder          identity folder            what is made of it
//!   ca.pem                    key.pem    (mode 0600)
//!   ca-key.pem (mode 0600)    chain.pem               client_config(): exporter, clientAuth
//!   crl.pem                   roots.pem               server_config(): importer, serverAuth
//!                             crl.pem    (optional)
//! ```
//!
//! Rules that must stay true: TLS 1.3 only and always mutual; one ALPN; exactly one SPIFFE id a certificate; nothing
//! is remembered between handshakes (no tickets, no session storage, no 0-RTT), so that every connection is checked
//! against today's roots, revocations and clock; the key is readable by its owner only and is never printed.

#![warn(missing_docs)]

mod authority;
mod describe;
mod error;
mod explain;
mod files;
mod identity;
mod spiffe;
mod tls;
mod web;

pub use authority::{Authority, Kind, Validity};
pub use describe::{Description, Role, describe, describe_file};
pub use error::Error;
pub use explain::{explain, explain_alert, explain_own_alert};
pub use identity::{CHAIN_FILE, CRL_FILE, Identity, KEY_FILE, ROOTS_FILE, is_host};
pub use rustls::pki_types::CertificateDer;
pub use spiffe::{InvalidSpiffeId, SpiffeId, peer_spiffe_id};
pub use tls::{ALPN, KeyExchange};
pub use web::web_client;
