//! What the operator writes: `cloud-importer.toml`.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use certs::SpiffeId;
use proto::{
    limits,
    policy::{LinkPolicy, Mapping, Pattern, Policy},
};
use serde::{Deserialize, Deserializer, Serialize};
use settings::{ByteSize, Properties, Rate, Span};

/// The importer's configuration. Unknown keys are refused.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Address and UDP port that exporters dial.
    pub listen: SocketAddr,
    /// The target cluster.
    pub kafka: Kafka,
    /// One per regional exporter.
    pub links: Vec<Link>,
    /// Who the importer is.
    pub tls: Tls,
    /// Where the audit log is written.
    pub audit: Audit,
    /// The admin endpoint. Without it there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin: Option<Admin>,
    /// How transactions are cut.
    #[serde(default)]
    pub transaction: Transaction,
    /// What log lines look like. Default `people`.
    #[serde(default)]
    pub log: observe::logging::Format,
    /// The file that this was read from, to be read again when it changes; not a setting.
    #[serde(skip)]
    pub file: Option<PathBuf>,
    /// Faults that tests plant; not a setting.
    #[serde(skip)]
    pub planted: Planted,
}

/// The target cluster.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kafka {
    /// `host:port` of some brokers, separated by commas.
    pub bootstrap: String,
    /// Any librdkafka property, but those that delivery depends on.
    #[serde(default, skip_serializing_if = "Properties::is_empty")]
    pub properties: Properties,
}

/// What one exporter may write, and how it is carried.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// The link's name, the same in the exporter's configuration.
    pub name: String,
    /// The exporter's SPIFFE id.
    pub identity: String,
    /// The source cluster's id. Default: whichever the exporter names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// Topics this identity may write, by their source names: exact, or a prefix with `*` at its end.
    pub topics: Vec<String>,
    /// Names at the target. Default: the source's.
    #[serde(default)]
    pub map: Map,
    /// How many lanes; fixed when the link first runs. Default 4.
    #[serde(default = "default_lanes", deserialize_with = "settings::whole::<_, _, 1, MAX_LANES>")]
    pub lanes: u16,
    /// The rate the exporter is told to keep below. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// Plain bytes that may wait to be committed, over all lanes. Default: 80 MiB, or the least for so many lanes if that is
    /// more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<ByteSize>,
    /// Replicas of the link's progress topic when it is created. Default: 3, or as many as there are brokers.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "replication")]
    pub replication: Option<i32>,
    /// What happens when a source topic was deleted and made again: `hold`, or `append` its records to the same
    /// target topic. Default `hold`.
    #[serde(default)]
    pub recreated: Recreated,
}

/// Names at the target.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Map {
    /// Put before every source name. Default none.
    #[serde(default)]
    pub prefix: String,
    /// Explicit target names by source name; these take no prefix.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rename: BTreeMap<String, String>,
    /// Whether others write to the target topics too: switches the checks for foreign records off. Default no.
    #[serde(default)]
    pub shared: bool,
}

/// What happens when a source topic was made again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Recreated {
    /// Its partitions hold.
    #[default]
    Hold,
    /// Its records follow the old topic's.
    Append,
}

/// Who the importer is.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// Directory with `key.pem`, `chain.pem`, `roots.pem` and, if there is one, `crl.pem`.
    pub dir: PathBuf,
}

/// Where the audit log is written.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Audit {
    /// The file; its folders are created.
    pub file: PathBuf,
}

/// The admin endpoint.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Admin {
    /// Address and TCP port: keep it on loopback or a management network.
    pub listen: SocketAddr,
}

/// How transactions are cut.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Transaction {
    /// Plain bytes after which a transaction closes. Default 8 MiB.
    pub bytes: ByteSize,
    /// Time between the beginnings of two transactions of a lane, unless the bytes are reached first. Default 100 ms.
    pub interval: Span,
    /// The broker ends a transaction that is open for longer. Default 60 s.
    pub timeout: Span,
}

/// Faults that tests plant, to see them named.
#[derive(Debug, Clone, Copy, Default)]
pub struct Planted {
    /// A commit counts as clean however often `EndTxn` was sent.
    pub ignore_resent_end_txn: bool,
}

impl Default for Transaction {
    fn default() -> Self {
        Self { bytes: ByteSize::from_mib(8), interval: Span::from_millis(100), timeout: Span::from_secs(60) }
    }
}

/// Beyond what a machine has.
const MAX_MEMORY: ByteSize = ByteSize::from_mib(1 << 20);
const MAX_LANES: i64 = limits::MAX_LANES as i64;
const DEFAULT_MEMORY: u64 = limits::LANE_CREDIT * 4;

fn default_lanes() -> u16 {
    4
}

/// Kafka's own bounds.
fn replication<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i32>, D::Error> {
    settings::whole::<_, _, 1, 32_767>(deserializer).map(Some)
}

impl Config {
    /// Reads and checks a file. No port and no broker is touched.
    ///
    /// # Errors
    /// Names the file, the line and the key, and what is accepted there.
    pub fn load(path: &Path) -> Result<Self, settings::Error> {
        let mut config: Self = settings::load(path)?;
        config.file = Some(path.to_owned());
        config.check().map_err(|(key, what)| settings::refuse(path, &key, what))?;
        Ok(config)
    }

    /// The policy that the links spell out.
    ///
    /// # Panics
    /// When the configuration was not checked.
    pub fn policy(&self) -> Policy {
        self.policy_of(|_| true)
    }

    /// The policy of the links that are `served`.
    pub(crate) fn policy_of(&self, served: impl Fn(&str) -> bool) -> Policy {
        let mut policy = Policy::new();
        for link in self.links.iter().filter(|link| served(&link.name)) {
            policy.insert(&link.name, link.policy().expect("patterns are checked when a config is loaded"));
        }
        policy
    }

    /// What is wrong with the value of `key`, with its place in the file.
    pub(crate) fn refuse(&self, key: &str, what: impl Into<String>) -> settings::Error {
        let file = self.file.as_deref().unwrap_or_else(|| Path::new("the configuration"));
        settings::refuse(file, key, what)
    }

    /// How to reach the target cluster.
    pub fn kafka_settings(&self, purpose: &str) -> kafka::Settings {
        kafka::Settings {
            bootstrap: self.kafka.bootstrap.clone(),
            properties: self.kafka.properties.resolve(),
            client_id: format!("longhaul-importer-{purpose}"),
        }
    }

    /// What is wrong, by key.
    fn check(&self) -> Result<(), (String, String)> {
        let refuse = |key: &str, what: &str| Err((key.to_owned(), what.to_owned()));
        if self.links.is_empty() {
            return refuse("links", "no link is configured: add a [[links]] table for each exporter");
        }
        let mut names = BTreeSet::new();
        for (index, link) in self.links.iter().enumerate() {
            link.check().map_err(|(key, what)| (format!("links[{index}].{key}"), what))?;
            if !names.insert(link.name.as_str()) {
                let what = format!("a link named \"{}\" stands above already", link.name);
                return Err((format!("links[{index}].name"), what));
            }
        }
        if let Some(what) = observe::audit::wrong_name(&self.audit.file) {
            return refuse("audit.file", what);
        }
        let transaction = &self.transaction;
        if transaction.bytes.bytes() < 1000 || transaction.bytes > ByteSize::from_mib(64) {
            return refuse("transaction.bytes", "write a size from 1 kB to 64 MiB");
        }
        if transaction.interval.duration() > Duration::from_secs(10) {
            return refuse("transaction.interval", "a transaction interval above 10 s is not accepted");
        }
        if !(Duration::from_secs(5)..=Duration::from_secs(900)).contains(&transaction.timeout.duration()) {
            return refuse("transaction.timeout", "write a time from 5 s to 15 min, the brokers' own limit");
        }
        self.check_kafka()
    }

    /// Properties first: a protocol that does not exist would be blamed on the brokers.
    fn check_kafka(&self) -> Result<(), (String, String)> {
        let kafka = self.kafka_settings("check");
        let options = kafka::ProducerOptions {
            transaction_timeout: self.transaction.timeout.duration(),
            ..kafka::ProducerOptions::default()
        };
        kafka
            .check_target(&options)
            .map_err(|error| (format!("kafka.{}", error.key()), error.to_string()))?;
        kafka.check_bootstrap().map_err(|what| ("kafka.bootstrap".to_owned(), what))
    }
}

impl Link {
    /// The link's progress topic.
    pub fn progress_topic(&self) -> String {
        proto::progress::topic_of(&self.name)
    }

    /// The link's offset map topic.
    pub fn offset_map_topic(&self) -> String {
        format!("__longhaul.{}.offsetmap", self.name)
    }

    /// Plain bytes that one lane may have outstanding.
    pub fn lane_credit(&self) -> u64 {
        let memory = self.memory.map_or_else(|| DEFAULT_MEMORY.max(self.least_memory()), ByteSize::bytes);
        memory / u64::from(self.lanes)
    }

    /// Room for a record of the greatest size in each lane.
    fn least_memory(&self) -> u64 {
        u64::from(limits::MAX_PARCEL_PLAIN) * u64::from(self.lanes)
    }

    fn policy(&self) -> Result<LinkPolicy, (String, String)> {
        let mut topics = Vec::new();
        for (index, topic) in self.topics.iter().enumerate() {
            let pattern: Pattern =
                topic.parse().map_err(|error| (format!("topics[{index}]"), format!("{error}")))?;
            topics.push(pattern);
        }
        let mapping = Mapping { prefix: self.map.prefix.clone(), rename: self.map.rename.clone() };
        let rate = self.rate.map(Rate::bits_per_second);
        let (identity, cluster) = (self.identity.clone(), self.cluster.clone());
        Ok(LinkPolicy { identity, cluster, topics, mapping, rate })
    }

    /// The topic that is granted by its exact name, is not renamed, and has this name at the target. What a pattern covers
    /// need not exist: two such topics are told apart when they come.
    fn other_with_target(&self, target: &str) -> Option<&str> {
        let other = target.strip_prefix(self.map.prefix.as_str())?;
        let granted = self.topics.iter().find(|topic| *topic == other)?;
        (!self.map.rename.contains_key(other)).then_some(granted.as_str())
    }

    fn check(&self) -> Result<(), (String, String)> {
        let refuse = |key: &str, what: String| Err((key.to_owned(), what));
        if !proto::policy::is_legal_topic(&self.name) || self.name.len() > limits::MAX_LINK_NAME {
            let what = format!(
                "\"{}\" cannot be part of a topic's name: write letters, digits, `.`, `_` and `-`, at most {}",
                self.name,
                limits::MAX_LINK_NAME
            );
            return refuse("name", what);
        }
        if let Err(error) = self.identity.parse::<SpiffeId>() {
            return refuse("identity", error.to_string());
        }
        if self.topics.is_empty() {
            return refuse("topics", "nothing is granted: name topics, or \"*\" for all".into());
        }
        self.policy()?;
        let least = Rate::from_bits_per_second(link::LEAST_RATE);
        if let Some(rate) = self.rate.filter(|rate| *rate < least) {
            let what =
                format!("expected at least {least}, found {rate}; leave the key out when there is no limit");
            return refuse("rate", what);
        }
        if let Some(memory) = self.memory.filter(|memory| *memory > MAX_MEMORY) {
            return refuse("memory", format!("expected at most {MAX_MEMORY}, found {memory}"));
        }
        let least = self.least_memory();
        if let Some(memory) = self.memory.filter(|memory| memory.bytes() < least) {
            let what = format!(
                "{} lanes need at least {}, room for a record of the greatest size in each; found {memory}",
                self.lanes,
                ByteSize::from_bytes(least)
            );
            return refuse("memory", what);
        }
        if self.cluster.as_ref().is_some_and(|cluster| cluster.trim().is_empty()) {
            return refuse("cluster", "expected the source cluster's id, found nothing".into());
        }
        let prefix = &self.map.prefix;
        if !prefix.is_empty()
            && (!proto::policy::is_legal_topic(&format!("{prefix}t")) || proto::policy::is_internal(prefix))
        {
            return refuse("map.prefix", format!("\"{prefix}\" is not how a target topic's name may begin"));
        }
        let mut targets = BTreeMap::new();
        for (source, target) in &self.map.rename {
            let key = format!("map.rename.{source}");
            if !proto::policy::is_legal_topic(source) {
                return refuse(&key, format!("{source:?} is not the exact name of a source topic"));
            }
            if !proto::policy::is_legal_topic(target) || proto::policy::is_internal(target) {
                return refuse(&key, format!("{target:?} is not a name a target topic may have"));
            }
            if let Some(other) = targets.insert(target, source) {
                return refuse(&key, format!("\"{other}\" and \"{source}\" would both become \"{target}\""));
            }
            if let Some(other) = self.other_with_target(target) {
                let what = format!("\"{source}\" and the granted \"{other}\" would both become \"{target}\"");
                return refuse(&key, what);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A link as it is configured.
    pub(crate) fn link() -> Link {
        load(GOOD).unwrap().links.remove(0)
    }

    const GOOD: &str = r#"
listen = "0.0.0.0:7443"
[kafka]
bootstrap = "cloud-1:9092"
[[links]]
name = "fra-to-aws"
identity = "spiffe://example.org/exporter/fra"
topics = ["orders", "payments.*"]
map = { prefix = "" }
lanes = 4
rate = "200 Mbit/s"
[tls]
dir = "certs/cloud"
[audit]
file = "audit/cloud.jsonl"
[admin]
listen = "127.0.0.1:9601"
"#;

    fn load(text: &str) -> Result<Config, settings::Error> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cloud-importer.toml");
        std::fs::write(&path, text).unwrap();
        Config::load(&path)
    }

    #[test]
    fn the_documented_configuration_loads() {
        let config = load(GOOD).unwrap();
        assert_eq!(config.links[0].progress_topic(), "__longhaul.fra-to-aws.progress");
        assert!(config.policy().admit("fra-to-aws", "spiffe://example.org/exporter/fra", "any").is_ok());
        assert!(config.links[0].lane_credit() >= u64::from(limits::MAX_PARCEL_PLAIN));
    }

    #[test]
    fn every_mistake_names_its_key() {
        for (from, to, expected) in [
            ("topics = [", "topcis = [", "did you mean `topics`"),
            ("\"payments.*\"", "\"*.x\"", "links[0].topics[1]"),
            ("lanes = 4", "lanes = 0", "links[0].lanes"),
            ("lanes = 4", "lanes = 65", "links[0].lanes"),
            ("lanes = 4", "lanes = 4\nmemory = \"67 MiB\"", "links[0].memory"),
            ("lanes = 4", "lanes = 64\nmemory = \"80 MiB\"", "1088 MiB"),
            ("rate = \"200 Mbit/s\"", "rate = \"0 Mbit/s\"", "links[0].rate"),
            ("rate = \"200 Mbit/s\"", "rate = \"63 kbit/s\"", "at least 64 kbit/s, found 63 kbit/s"),
            ("spiffe://", "http://", "links[0].identity"),
            ("name = \"fra-to-aws\"", "name = \"fra/aws\"", "links[0].name"),
            ("map = { prefix = \"\" }", "map = { rename = { a = \"__b\" } }", "__b"),
            ("map = { prefix = \"\" }", "map = { prefix = \"__eu.\" }", "links[0].map.prefix"),
            ("map = { prefix = \"\" }", "map = { prefix = \"eu/\" }", "links[0].map.prefix"),
            (
                "listen = \"0.0.0.0:7443\"",
                "listen = \"cloud:7443\"",
                "`listen`: expected an IP address and a port",
            ),
            ("map = { prefix = \"\" }", "map = { rename = { a = \"c\", b = \"c\" } }", "both become"),
            ("map = { prefix = \"\" }", "map = { rename = { a = \"orders\" } }", "the granted \"orders\""),
            ("bootstrap = \"cloud-1:9092\"", "bootstrap = \" \"", "kafka.bootstrap"),
            ("bootstrap = \"cloud-1:9092\"", "bootstrap = \"cloud-1\"", "kafka.bootstrap"),
            ("lanes = 4", "lanes = 4\nmemory = \"18446744073709551615 B\"", "at most 1 TiB"),
            (
                "lanes = 4",
                "lanes = 4\nreplication = 40000",
                "replication`: expected a whole number from 1 to 32767",
            ),
            ("lanes = 4", "lanes = 4\ncluster = \" \"", "links[0].cluster"),
            (
                "map = { prefix = \"\" }",
                "map = { rename = { \"a b\" = \"c\" } }",
                "`links[0].map.rename.a b`",
            ),
            ("[tls]", "[transaction]\nbytes = \"1 B\"\n[tls]", "transaction.bytes"),
            ("[tls]", "[kafka.properties]\n\"linger.ms\" = \"abc\"\n[tls]", "`kafka.properties.linger.ms`"),
            (
                "[tls]",
                "[kafka.properties]\n\"security.protocol\" = \"SASL_SL\"\n[tls]",
                "`kafka.properties.security.protocol`",
            ),
            (
                "[tls]",
                "[transaction]\ntimeout = \"5 s\"\n[kafka.properties]\n\"socket.timeout.ms\" = 30000\n[tls]",
                "`kafka.properties.socket.timeout.ms`",
            ),
            ("audit/cloud.jsonl", "a\\u0000b", "`audit.file`"),
            ("[tls]", "[transaction]\ntimeout = \"1 s\"\n[tls]", "transaction.timeout"),
            ("[tls]", "[kafka.properties]\n\"enable.idempotence\" = false\n[tls]", "enable.idempotence"),
        ] {
            assert!(GOOD.contains(from), "{from}");
            let error = load(&GOOD.replace(from, to)).expect_err(to).to_string();
            assert!(error.contains(expected), "{to}: {error}");
            assert!(error.contains("cloud-importer.toml"), "{error}");
        }
    }

    #[test]
    fn memory_follows_the_number_of_lanes_unless_it_is_written() {
        for (lanes, credit) in [
            ("lanes = 1", 80 << 20),
            ("lanes = 64", limits::MAX_PARCEL_PLAIN.into()),
            ("lanes = 2\nmemory = \"68 MiB\"", 34 << 20),
        ] {
            assert_eq!(
                load(&GOOD.replace("lanes = 4", lanes)).unwrap().links[0].lane_credit(),
                credit,
                "{lanes}"
            );
        }
    }

    #[test]
    fn two_links_of_one_name_are_refused() {
        let twice = GOOD.replace(
            "[tls]",
            "[[links]]\nname = \"fra-to-aws\"\nidentity = \"spiffe://a/b\"\ntopics = [\"x\"]\n[tls]",
        );
        assert!(load(&twice).unwrap_err().to_string().contains("links[1].name"));
    }
}
