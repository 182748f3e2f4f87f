//! Every bound of the protocol, in one place, with how they relate checked at compile time.
//!
//! A peer that exceeds one of them is misbehaving; the connection ends with a message that names the bound.

use std::time::Duration;

/// Version of the protocol spoken here; both ends state what they speak in `Hello` and `Welcome`.
pub const PROTOCOL_VERSION: u32 = 1;
/// The ALPN identifier of this protocol's major version.
pub const ALPN: &[u8] = b"longhaul/1";

/// Bytes of one control message, at most.
pub const MAX_CONTROL_MESSAGE: usize = 1 << 20;
/// Lanes of one link, at most. Each lane is a thread and a transactional producer at the importer.
pub const MAX_LANES: u16 = 64;
/// Source partitions opened in one session, at most; closed ones count, as their slots are never given again.
pub const MAX_SLOTS: usize = 100_000;
/// Partitions of one topic, at most: the importer creates a missing topic with as many as an exporter says.
pub const MAX_TOPIC_PARTITIONS: i32 = 10_000;
/// Bytes of a topic's name: Kafka's own limit.
pub const MAX_TOPIC_NAME: usize = 249;
/// Bytes of a link's name: it becomes part of topic names, with `__longhaul.` and `.offsetmap` around it.
pub const MAX_LINK_NAME: usize = 200;
/// Bytes of any other text in a control message: an instance, a cluster id, a reason.
pub const MAX_TEXT: usize = 4096;

/// Plain bytes of one parcel, at most: what a single large record may need.
pub const MAX_PARCEL_PLAIN: u32 = codec::limits::MAX_PLAIN;
/// Coded bytes of one parcel, at most.
pub const MAX_PARCEL_CODED: u32 = codec::limits::MAX_CODED;
/// Plain bytes at which the exporter closes a parcel of one topic.
pub const PARCEL_TARGET: u64 = codec::limits::TARGET_PLAIN as u64;
/// The same of a parcel of many topics.
pub const MOST_PARCEL_TARGET: u64 = 4 * PARCEL_TARGET;
/// Plain bytes that one lane may have sent and not committed, by default.
pub const LANE_CREDIT: u64 = 20 << 20;

/// Plain bytes at which the exporter closes a parcel with records of so many topics. Each topic's columns are then as long as
/// they would be in a parcel of its own, which is what they compress by.
pub fn parcel_target(topics: usize) -> u64 {
    (topics as u64).clamp(1, MOST_PARCEL_TARGET / PARCEL_TARGET) * PARCEL_TARGET
}

/// How often the exporter sends a heartbeat.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(5);
/// How long a heartbeat may stay unanswered before the exporter dials anew.
pub const HEARTBEAT_PATIENCE: Duration = Duration::from_secs(10);
/// How long a session of another instance must have been silent before this one may take its place.
pub const INSTANCE_PATIENCE: Duration = Duration::from_secs(20);
/// Within which time `Hello` and `Welcome` must have been exchanged.
pub const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(10);

const _: () = assert!(LANE_CREDIT >= MAX_PARCEL_PLAIN as u64, "credit always fits one maximal record");
const _: () = assert!(MOST_PARCEL_TARGET < MAX_PARCEL_PLAIN as u64);
const _: () = assert!(MAX_PARCEL_CODED > MAX_PARCEL_PLAIN, "what does not compress still fits");
const _: () = assert!(HEARTBEAT_INTERVAL.as_secs() < HEARTBEAT_PATIENCE.as_secs());
const _: () = assert!(HEARTBEAT_PATIENCE.as_secs() <= INSTANCE_PATIENCE.as_secs());
const _: () = assert!(MAX_LINK_NAME + "__longhaul.".len() + ".offsetmap".len() <= MAX_TOPIC_NAME);
const _: () = assert!(MAX_TEXT < MAX_CONTROL_MESSAGE);
