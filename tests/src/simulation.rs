//! A seeded simulation of an exporter and an importer around the real machines of `proto`.
//!
//! One thread, no clock, no I/O: a schedule is a list of events drawn from a seed. The source, the link and the
//! target are models that break as the real ones were seen to; the two engines are the thinnest that follow the
//! design; `Sender`, `Receiver`, `Sessions` and both `Lane`s are the product's. The checker reads the modelled target
//! and names what is wrong. A checker that was never seen to fail proves nothing: [`Planted`] faults are switched on
//! one at a time, and each must be found.
//!
//! ```text
//!  source ──▶ exporter ══ network ══▶ importer ──▶ target ◀── checker
//!             Sender, Lane            Sessions, Receiver, Lane
//! ```

use std::fmt;

use world::World;

mod chance;
mod checker;
mod context;
mod exporter;
mod importer;
mod network;
mod source;
mod target;
mod world;

/// What is wrong, by the promise that it breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// R-1: progress passed a record that nobody said anything about.
    Lost,
    /// R-1: a record was said not to exist, but it does.
    SilentGap,
    /// R-2: a record is at the target twice.
    Repeated,
    /// R-3: two records of a partition changed places.
    Reordered,
    /// R-4: a record is not what it was, or not where it belongs.
    Changed,
    /// R-5: the exporter committed what is not committed at the target.
    OverCommit,
    /// R-7: a topic that was not granted has records.
    Ungranted,
    /// R-9: something is still not delivered, acknowledged and committed long after the last fault.
    Stuck,
    /// An honest machine accused the other one.
    Misbehaved,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lost => "lost",
            Self::SilentGap => "silent-gap",
            Self::Repeated => "repeated",
            Self::Reordered => "reordered",
            Self::Changed => "changed",
            Self::OverCommit => "over-commit",
            Self::Ungranted => "ungranted",
            Self::Stuck => "stuck",
            Self::Misbehaved => "misbehaved",
        })
    }
}

/// Something wrong, with its coordinates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anomaly {
    /// Its name.
    pub kind: Kind,
    /// Where.
    pub what: String,
}

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, self.what)
    }
}

/// A fault in the model's engines or in the check that they make: each is a mistake that an engine could make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Planted {
    /// Progress is written after the transaction, not in it.
    ProgressApart,
    /// What was produced is acknowledged before it is committed.
    AckBeforeCommit,
    /// A commit that needed several `EndTxn` counts as clean: no recycle.
    ResendsUncounted,
    /// A group need not begin where the one before ended.
    ChainUnchecked,
    /// The exporter sends what it read before the last position.
    ResumeEpochIgnoredByExporter,
    /// The importer takes groups sent before the last position.
    ResumeEpochIgnoredByImporter,
    /// A recycled producer writes everything in memory again, committed or not.
    ReplayUnread,
    /// The exporter commits what it sent.
    CommitAboveAck,
    /// Whatever an exporter opens is granted.
    GrantUnchecked,
    /// Parcels of replaced connections count as the current one's.
    SessionsUnfenced,
    /// Progress is read before the predecessor's transaction was finished.
    ProgressReadBeforeInit,
    /// Records are sent without a look at the topic's id.
    TopicIdUnchecked,
    /// A recycled importer goes on from what it accepted, although another one went further.
    ForeignProgressIgnored,
    /// The target takes writes of producers that were fenced.
    ProducersUnfenced,
}

/// What one schedule came to.
#[derive(Debug, Clone, Copy, Default)]
pub struct Summary {
    /// Events handled.
    pub events: u64,
    /// Faults that happened.
    pub faults: u64,
    /// Records visible at the target.
    pub delivered: u64,
    /// Milliseconds of the model's time from the last fault until everything was delivered and acknowledged.
    pub recovery_ms: u64,
}

/// Runs the schedule of `seed`, with a fault planted or without one.
pub fn run(seed: u64, planted: Option<Planted>) -> Result<Summary, Anomaly> {
    World::new(seed, planted).run()
}

/// The link's name.
const LINK: &str = "edge-to-cloud";
/// Lanes of the link: fewer than topics, so that topics share one.
const LANES: u16 = 2;
/// What the importer's policy grants.
const GRANTED: [&str; 3] = ["orders", "invoices", "payments"];
/// Plain bytes that a lane may have outstanding: little more than one maximal parcel.
const WINDOW: u64 = proto::limits::LANE_CREDIT;
