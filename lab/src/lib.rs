//! What Longhaul is tried on: clusters to carry between, ways to hurt them and the link, data, and a judge.
//!
//! | to have | use |
//! |---|---|
//! | a real Kafka cluster, killed, paused and started again | [`kafka::Cluster`] |
//! | a quick one inside this process | [`embedded::EmbeddedCluster`] |
//! | requests held, dropped and cut on their way to a broker | [`proxy::Proxy`] |
//! | a port that is kept while nobody listens on it | [`ports::Port`] |
//! | a long, lossy, slow or dead link for UDP, without rights | [`relay::Relay`] |
//! | the same for everything that speaks IP, exact enough to measure on | [`wanlink::Wan`] |
//! | records that look like the real thing, or that torture | [`generator`], [`topicfile::TopicFile`] |
//! | topics full of them | [`load::load`], at a steady rate with [`pace::Paced`] |
//! | the two programs set up between two clusters | [`deployment::Deployment`] |
//! | how long records are on their way | [`tail::Tail`] |
//! | a command line that came through a cargo alias | [`arguments::parse`] |
//! | the verdict: lost, repeated, reordered, changed, ... | [`checker::Check`] |
//!
//! Everything blocks and can be used from a plain test as well as inside a runtime (on a thread that may block).
//! Nothing of this is part of the shipped programs. Suites that need a real Kafka begin with
//! [`kafka::require_kafka`].

pub mod arguments;
pub mod checker;
pub mod deployment;
pub mod embedded;
pub mod generator;
pub mod kafka;
pub mod load;
mod net;
pub mod pace;
pub mod ports;
pub mod proxy;
pub mod record;
pub mod relay;
pub mod tail;
pub mod topicfile;
pub mod wanlink;
pub mod wire;
