//! The Longhaul protocol, without a network.
//!
//! An exporter and an importer share one QUIC connection: a control stream with messages both ways ([`wire`]), and
//! a stream of parcels per lane. What either side must do is decided here, by machines without I/O, clock, thread or
//! randomness: [`sender::Sender`] and [`sender::Lane`] at the exporter, [`receiver::Receiver`], [`receiver::Sessions`]
//! and [`receiver::Lane`] at the importer. The engines only move data and time.
//!
//! ```text
//!  exporter                                              importer
//!  Sender  ── Hello ────────────────────────────────────▶ Receiver ──▶ policy, Sessions
//!          ◀──────────────────────────────────── Welcome ──
//!          ── Open(slot) ───────────────────────────────▶ ──▶ Lane: what is committed?
//!          ◀─────────────── Resume(slot, resume epoch, next) ──
//!  Lane    ══ parcel(epoch, sequence){groups: prev_next..next} ═══▶ Lane: judge ──▶ one transaction
//!          ◀───────────────────────── Ack(committed, credit) ──
//! ```
//!
//! # Numbers that fence
//!
//! | number | who counts | grows when | fences |
//! |---|---|---|---|
//! | [`ids::SessionId`] | importer, per link | a connection is welcomed | parcels and messages of replaced connections |
//! | [`ids::LaneEpoch`] | importer, per lane and session | a parcel does not decode | parcels coded with an older codec context |
//! | [`ids::ResumeEpoch`] | importer, per slot and session | a position is given | groups read before that position was known |
//! | topic id | Kafka | a topic is created | records of a topic of the same name before it |
//! | leader epoch | Kafka | a partition gets a leader | positions in a log that was cut back |
//! | producer epoch | Kafka | a producer is initialised | a lane's predecessor, and requests still under way |
//!
//! # Words of place
//!
//! *received*: in memory; *accepted*: chained and permitted; *committed*: in a committed transaction at the target;
//! *acknowledged*: the exporter knows. Progress only ever speaks of *committed*.

pub mod hold;
pub mod ids;
pub mod limits;
pub mod misbehaved;
pub mod policy;
pub mod progress;
pub mod receiver;
pub mod sender;
pub mod wire;

pub use misbehaved::PeerMisbehaved;
