//! An exact rate on the wire.
//!
//! quinn paces at 1.25 windows a round trip and takes no rate from its controller. So the window alone is either too
//! tight, and every jitter costs rate, or too wide, and the surplus stands in the path's queue. Here the socket itself
//! holds the rate: a [`Bucket`](bucket::Bucket) decides when a datagram may leave, and the window only bounds what may
//! be outstanding.
//!
//! What is counted is what leaves, as the carrier counts it: first sends, repeats, acknowledgements, probes and
//! handshakes, IP and UDP headers included. Every connection of a [`Dialer`](crate::Dialer) draws on the same bucket,
//! so that connections raced against each other stay below the rate together.
//!
//! In any span of time no more leaves than rate x span and [`bucket::excess`]. Only the dialling side paces: a
//! listening socket serves all its peers and cannot tell them apart when it is asked whether it is ready.

mod alarm;
pub(crate) mod bucket;
pub(crate) mod socket;
