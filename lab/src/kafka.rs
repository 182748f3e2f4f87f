//! Real Apache Kafka: found, started, hurt and stopped.
//!
//! ```no_run
//! use longhaul_lab::kafka::{Cluster, ClusterOptions, require_kafka};
//!
//! let Some(installation) = require_kafka("leader faults") else { return };
//! let cluster = Cluster::start(&installation, ClusterOptions::nodes(3)).unwrap();
//! cluster.kill(2);
//! cluster.start_node(2).unwrap();
//! ```
//!
//! [`Installation`] knows where the jars are. A [`Cluster`] is one or three KRaft nodes on loopback, each both broker
//! and controller; every node has a plain listener for the other nodes and for administration, and as the
//! [`ClusterOptions`] say one with SASL or TLS and one that is advertised at the address of a [`crate::proxy`].
//! No process started here outlives the one that started it.

mod cluster;
mod installation;
mod options;
mod probe;
mod process;
mod security;

pub use cluster::Cluster;
pub use installation::{Installation, Missing, REQUIRE_KAFKA, ToolOutput, require_kafka};
pub use options::{ClusterOptions, Jvm, Mechanism, Security, User};
pub use process::{Process, Spawn};

use std::path::PathBuf;

/// What can go wrong between an installation and a cluster that answers.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot start {program}")]
    Spawn { program: String, source: std::io::Error },
    #[error("cannot run {class}")]
    Tool { class: String, source: std::io::Error },
    #[error("cannot write {}", path.display())]
    Write { path: PathBuf, source: std::io::Error },
    #[error("no free port on loopback")]
    Ports(#[source] std::io::Error),
    #[error("cannot make certificates for the cluster")]
    Certificates(#[source] rcgen::Error),
    #[error("formatting the storage of node {node} failed: {output}")]
    Format { node: i32, output: String },
    #[error("node {node} ended while it started; the end of its log:\n{log}")]
    Ended { node: i32, log: String },
    #[error("node {node} does not answer after {seconds} s ({why}); the end of its log:\n{log}")]
    Silent { node: i32, seconds: u64, why: String, log: String },
}

/// The result of everything here.
pub type Result<T> = std::result::Result<T, Error>;
