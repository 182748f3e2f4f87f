//! The pipe: QUIC connections between an exporter and an importer. Never Kafka.
//!
//! An exporter has a [`Dialer`], an importer a [`Listener`]; both make [`Connection`]s to a peer whose certificate was
//! verified and whose SPIFFE id is known. On a connection there is one control stream of small frames
//! ([`ControlSend`], [`ControlRecv`]) and one stream of parcels a lane epoch, exporter to importer ([`ParcelSend`],
//! [`ParcelRecv`]).
//!
//! ```text
//! Dialer::dial ──── QUIC, TLS 1.3, mutual ────> Listener::accept
//!   open_control   <── frames, both ways ──>      accept_control
//!   open_lane      ──── parcels ────────────>     accept_lane
//!   stalled ── no ack while data is outstanding: dial again, do not wait
//! ```
//!
//! How much is sent: [`Congestion`] chooses how it is found out, and [`Rate`] is what all connections of a dialler keep
//! below together, on the wire and to the byte.
//!
//! What must stay true:
//! - memory a peer can make us hold is bounded: stream and connection windows, pending handshakes, declared sizes
//!   checked before anything is allocated;
//! - one slow handshake, stream or peer never blocks another;
//! - nothing of a handshake is reused by the next one: see [`certs`].

#![warn(missing_docs)]

mod close;
mod congestion;
mod connection;
mod control;
mod dial;
mod error;
mod listen;
mod outgoing;
mod paced;
mod parcel;
mod race;
mod rate;
mod settings;
mod socket;
mod stall;
mod stats;
mod status;
mod turns;

pub use close::CloseCode;
pub use congestion::Congestion;
pub use connection::{Connection, Handshake};
pub use control::{ControlRecv, ControlSend};
pub use dial::{DialError, Dialer, check_address};
pub use error::Error;
pub use listen::{Listener, Refused};
pub use parcel::{ParcelRecv, ParcelSend};
pub use race::{Greeted, Greeting};
pub use rate::{LEAST_RATE, Rate};
pub use settings::Settings;
pub use stall::{Stall, is_stalled};
pub use stats::{Sent, Stats};
pub use status::{PathMeter, PathStatus, SentStatus};
