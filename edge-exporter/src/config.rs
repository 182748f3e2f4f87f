//! What the operator writes: `edge-exporter.toml`.
//!
//! Unknown keys are refused. [`Config::load`] reads and checks everything that can be checked without touching a
//! port or a broker, so that a mistake ends the program before it did anything.

mod check;
mod codec;
mod skip;
mod topics;

pub use codec::{AvroSchema, Codec, Priority, SchemaRegistry};
pub use skip::Skip;
pub use topics::{Precedence, Start, Topics};

pub(crate) use topics::Rules;

use std::{net::SocketAddr, path::Path, path::PathBuf};

use serde::{Deserialize, Serialize};
use settings::{ByteSize, Properties, Rate, Span};

/// The whole configuration of an exporter.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Name of the link, the same in the importer's configuration. No default.
    pub link: String,
    /// Names this exporter process to the importer and in both audit logs. Default: one made of the host's name and
    /// the audit log's path, the same after a restart. Two processes of one name replace each other at the importer: give
    /// one only where a single process can ever use it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// How log lines look: `people` or `json`. Default `people`.
    #[serde(default)]
    pub log: Log,
    /// The source cluster.
    pub kafka: Kafka,
    /// What is carried.
    pub topics: Topics,
    /// Where it goes.
    pub importer: Importer,
    /// Who we are.
    pub tls: Tls,
    /// What is put on record.
    pub audit: Audit,
    /// The HTTP endpoint for metrics, health and status. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin: Option<Admin>,
    /// How records are gathered and packed.
    #[serde(default)]
    pub batch: Batch,
    /// How batches are made small.
    #[serde(default)]
    pub codec: Codec,
    /// The operator's recorded word that a range of source offsets will not be delivered. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skip: Vec<Skip>,
    /// The file that this was read from, which is watched for a changed rate; not a setting.
    #[serde(skip)]
    pub file: Option<PathBuf>,
}

/// `log`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Log {
    /// One readable line each.
    #[default]
    People,
    /// One JSON object a line.
    Json,
}

/// `[kafka]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kafka {
    /// `host:port` of some brokers, separated by commas. No default.
    pub bootstrap: String,
    /// Any librdkafka property (`security.protocol`, `sasl.*`, `ssl.*`), secrets by `{ file = ".." }` or
    /// `{ env = ".." }`. Default: none. Those that the promise depends on are refused by name.
    #[serde(default, skip_serializing_if = "Properties::is_empty")]
    pub properties: Properties,
}

/// `[importer]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Importer {
    /// `host:port` of the importer. When there are several, whichever answers first is used, and kept for as long as it
    /// answers. No default.
    pub address: Vec<String>,
    /// SPIFFE id that the importer must prove before anything is sent. No default.
    pub identity: String,
    /// The most that is ever on the wire towards the importer, in bits a second with unit (`"200 Mbit/s"`), IP headers,
    /// repeats and acknowledgements included: a little below what the path carries. Loss alone then does not slow the
    /// link down. The importer may grant less. Default: not known. May be changed while the exporter runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// What is guaranteed of `rate`: below it the link does not yield to others who fill the path's queue. Default: half
    /// of the rate. May be changed while the exporter runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub floor: Option<Rate>,
    /// How the link finds out how much it may send: `governed` at the rate, `adaptive` to find it and share the path
    /// with others, `cubic` as TCP does, for short clean paths. Default: `governed` with a rate, `adaptive` without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub congestion: Option<Congestion>,
}

/// `congestion`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Congestion {
    /// At the configured rate.
    Governed,
    /// Finds the rate.
    Adaptive,
    /// RFC 9438.
    Cubic,
}

impl Importer {
    /// The link's part of it.
    pub(crate) fn link_settings(&self) -> link::Settings {
        let congestion = match self.congestion {
            None => link::Congestion::Auto,
            Some(Congestion::Governed) => link::Congestion::Governed,
            Some(Congestion::Adaptive) => link::Congestion::Adaptive,
            Some(Congestion::Cubic) => link::Congestion::Cubic,
        };
        link::Settings {
            rate: self.rate.map(Rate::bits_per_second),
            floor: self.floor.map(Rate::bits_per_second),
            congestion,
            ..link::Settings::default()
        }
    }
}

/// `[tls]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// Folder with `key.pem`, `chain.pem`, `roots.pem` and optionally `crl.pem`. No default.
    pub dir: PathBuf,
}

/// `[audit]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Audit {
    /// The audit log's file; its folder is made when absent. No default. While it cannot be written nothing is sent.
    pub file: PathBuf,
}

/// `[admin]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Admin {
    /// Address and port of the HTTP endpoint. No default; without authentication, so keep it on a loopback or
    /// management address.
    pub listen: SocketAddr,
}

/// `[batch]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Batch {
    /// How long records wait for others before their batch is closed, with unit. Default `"20 ms"`. Longer packs
    /// better, shorter arrives earlier; a full batch never waits.
    pub linger: Span,
    /// Plain bytes that a lane reads ahead of what it may send, with unit. Default `"4 MiB"`.
    pub read_ahead: ByteSize,
}

impl Default for Batch {
    fn default() -> Self {
        Self { linger: Span::from_millis(20), read_ahead: ByteSize::from_mib(4) }
    }
}

impl Config {
    /// Reads and checks the file at `path`.
    ///
    /// # Errors
    /// The first mistake, with file, line and key, and what would be right.
    pub fn load(path: &Path) -> Result<Self, settings::Error> {
        let mut config: Self = settings::load(path)?;
        check::check(&config).map_err(|wrong| settings::refuse(path, &wrong.key, wrong.what))?;
        config.file = Some(path.into());
        Ok(config)
    }

    /// Reads and checks `text`; `file` is the name that errors give it.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn parse(file: &str, text: &str) -> Result<Self, settings::Error> {
        let config: Self = settings::parse(file, text)?;
        check::check(&config).map_err(|wrong| settings::Error::BadValue {
            place: file.into(),
            key: wrong.key,
            what: wrong.what,
        })?;
        Ok(config)
    }

    /// What is wrong with the value of `key`, with its place in the file.
    pub(crate) fn refuse(&self, key: &str, what: impl Into<String>) -> settings::Error {
        let file = self.file.as_deref().unwrap_or_else(|| Path::new("the configuration"));
        settings::refuse(file, key, what)
    }

    /// The settings of every Kafka client of the exporter.
    pub(crate) fn kafka_settings(&self) -> kafka::Settings {
        kafka::Settings {
            bootstrap: self.kafka.bootstrap.clone(),
            properties: self.kafka.properties.resolve(),
            client_id: format!("longhaul-{}", self.link),
        }
    }

    /// What each lane's consumer is told on top of it.
    pub(crate) fn source_options(&self) -> kafka::SourceOptions {
        kafka::SourceOptions { queued_bytes: QUEUED_BYTES, ..kafka::SourceOptions::default() }
    }

    /// The rules of `[topics]`, which [`check`] has compiled before.
    pub(crate) fn topic_rules(&self) -> Result<Rules, settings::Error> {
        Rules::new(&self.topics).map_err(|(key, what)| self.refuse(&format!("topics.{key}"), what))
    }

    /// The consumer group whose committed offsets tell Kafka's own tools how far the link is.
    pub(crate) fn group(&self) -> String {
        format!("longhaul.{}", self.link)
    }
}

/// Records that librdkafka fetches ahead for one lane, in bytes.
const QUEUED_BYTES: usize = 8 << 20;

#[cfg(test)]
pub(crate) mod tests {
    pub(crate) use super::check::tests::example;
}
