//! `[codec]`: how batches are made small.

use std::path::PathBuf;

use codec::{avro::Schema, level, limits::LEVELS};
use globset::GlobSet;
use serde::{Deserialize, Serialize};
use settings::Secret;
use tokio_rustls::TlsConnector;

use super::topics::compile;

/// `[codec]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Codec {
    /// What each lane chooses its compression level for, while it runs: `bytes` spends all processor time that is free
    /// on fewer bytes, `cpu` as little as it can, `latency` as little as keeps records moving: more where they wait for
    /// the link, and where it costs next to nothing. Default `latency`.
    pub priority: Priority,
    /// A fixed zstd level, 1 to 12, in place of one that follows what happens. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub level: Option<i32>,
    /// Schemas by which Avro records are cut into columns. Default: none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub avro: Vec<AvroSchema>,
    /// Where the schema is found whose id stands before a record. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schema_registry: Option<SchemaRegistry>,
}

/// `[[codec.avro]]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AvroSchema {
    /// Topics whose records follow the schema: names or globs. No default.
    pub topics: Vec<String>,
    /// The schema's file, as JSON. No default. Read when the exporter starts.
    pub schema: PathBuf,
    /// Only records behind this id of a schema registry follow it. Default: all, with an id or without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<u32>,
}

/// `codec.schema_registry`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SchemaRegistry {
    /// Where its REST interface is, `http://host:port` or `https://host:port`, perhaps with a path. No default.
    pub url: String,
    /// PEM file of the authorities that may vouch for an https registry. Default: those that the system trusts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// Name for HTTP basic authentication. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Password for it, best as `{ file = ".." }` or `{ env = ".." }`. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
}

/// `priority`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// Fewest bytes.
    Bytes,
    /// Least processor time.
    Cpu,
    /// Earliest arrival.
    #[default]
    Latency,
}

impl Codec {
    /// What is wrong with it: the key, and what would be right.
    pub(super) fn check(&self) -> Result<(), (String, String)> {
        let (least, most) = LEVELS.into_inner();
        if let Some(level) = self.level.filter(|level| !LEVELS.contains(level)) {
            return Err(("level".into(), format!("expected {least} to {most}, found {level}")));
        }
        for (index, avro) in self.avro.iter().enumerate() {
            avro.topics().map_err(|(key, what)| (format!("avro[{index}].{key}"), what))?;
            avro.load().map_err(|(key, what)| (format!("avro[{index}].{key}"), what))?;
        }
        match &self.schema_registry {
            Some(registry) => {
                registry.check().map_err(|(key, what)| (format!("schema_registry.{key}"), what))
            }
            None => Ok(()),
        }
    }
}

impl AvroSchema {
    /// The topics, compiled.
    pub(crate) fn topics(&self) -> Result<GlobSet, (String, String)> {
        if self.topics.is_empty() {
            return Err(("topics".into(), "expected at least one topic".into()));
        }
        compile(&self.topics).map_err(|(index, what)| (format!("topics[{index}]"), what))
    }

    /// The schema, read from its file.
    pub(crate) fn load(&self) -> Result<Schema, (&'static str, String)> {
        let file = self.schema.display();
        let text = std::fs::read_to_string(&self.schema)
            .map_err(|error| ("schema", format!("{file} cannot be read: {error}")))?;
        Schema::parse(&text).map_err(|error| ("schema", format!("{file}: {error}")))
    }
}

impl SchemaRegistry {
    fn check(&self) -> Result<(), (&'static str, String)> {
        let is_url = self.url.starts_with("http://") || self.is_https();
        let (authority, path) = self.address();
        if authority.contains('@') {
            // Not repeated: it may hold a password.
            return Err(("url", "no user is written in it: use the keys `user` and `password`".into()));
        }
        let is_path = path.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#".contains(&byte));
        if !is_url || !is_path || link::check_address(&self.host_and_port()).is_err() {
            return Err((
                "url",
                format!(
                    "expected http://host:port or https://host:port, perhaps a path, found {:?}",
                    self.url
                ),
            ));
        }
        self.tls()?;
        let is_user = |user: &str| !user.is_empty() && !user.contains(|c: char| c == ':' || c.is_control());
        match (&self.user, &self.password) {
            (Some(user), _) if !is_user(user) => {
                Err(("user", "expected a name without `:` and control characters".into()))
            }
            (Some(_), None) => {
                Err(("user", "a user without `password` has no meaning; write the password too".into()))
            }
            (None, Some(_)) => {
                Err(("password", "a password without `user` has no meaning; write the user too".into()))
            }
            _ => Ok(()),
        }
    }

    /// Host and port, and the path before the registry's own ones.
    pub(crate) fn address(&self) -> (&str, &str) {
        let (_, rest) = self.url.split_once("://").unwrap_or_default();
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        (authority, path.trim_end_matches('/'))
    }

    /// Where it is dialled: the port of its scheme unless another one is written.
    pub(crate) fn host_and_port(&self) -> String {
        let (authority, _) = self.address();
        // Behind the brackets of an IPv6 address, if it is one.
        let host = authority.rfind(']').map_or(authority, |bracket| &authority[bracket..]);
        match host.contains(':') {
            true => authority.to_owned(),
            false => format!("{authority}:{}", if self.is_https() { 443 } else { 80 }),
        }
    }

    /// What makes the connection to an https registry; none for http.
    pub(crate) fn tls(&self) -> Result<Option<TlsConnector>, (&'static str, String)> {
        if self.is_https() {
            let key = if self.ca.is_some() { "ca" } else { "url" };
            let config = certs::web_client(self.ca.as_deref()).map_err(|error| (key, error.to_string()))?;
            return Ok(Some(config.into()));
        }
        match &self.ca {
            Some(_) => Err(("ca", "authorities have no meaning for http; write https:// in `url`".into())),
            None => Ok(None),
        }
    }

    fn is_https(&self) -> bool {
        self.url.starts_with("https://")
    }
}

impl From<Priority> for level::Priority {
    fn from(priority: Priority) -> Self {
        match priority {
            Priority::Bytes => Self::Bytes,
            Priority::Cpu => Self::Cpu,
            Priority::Latency => Self::Latency,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_has_a_host_a_port_and_perhaps_a_path() {
        let registry = |url: &str| SchemaRegistry { url: url.into(), ca: None, user: None, password: None };
        for (good, dialled) in [
            ("http://r:8081", "r:8081"),
            ("http://r", "r:80"),
            ("http://[::1]/registry/v1", "[::1]:80"),
            ("https://r.example", "r.example:443"),
            ("http://10.0.0.1:8081/", "10.0.0.1:8081"),
        ] {
            registry(good).check().unwrap();
            assert_eq!(registry(good).host_and_port(), dialled);
        }
        for bad in [
            "r:8081",
            "http://",
            "http://r:",
            "http://r:0",
            "http://r:99999",
            "http://r:x",
            "http://r:80:80",
            "http://::1:8081",
            "http://[::g]:8081",
            "http://r:8081,s:8081",
            "http://r?x=1",
            "http://r/a b",
            "http://r/a?b",
            "http://r/#f",
            "http://r:8081/a\r\nHost: x",
        ] {
            assert_eq!(registry(bad).check().unwrap_err().0, "url", "{bad}");
        }
        let (_, what) = registry("http://u:hunter2@r:8081").check().unwrap_err();
        assert!(what.contains("`user`") && !what.contains("hunter2"), "{what}");
        for user in ["", "a:b", "a\nb"] {
            let registry = SchemaRegistry { user: Some(user.into()), ..registry("http://r") };
            assert_eq!(registry.check().unwrap_err().0, "user", "{user:?}");
        }
    }

    #[test]
    fn words_and_default_are_the_codecs() {
        assert_eq!(level::Priority::from(Priority::default()), level::Priority::default());
        for priority in [Priority::Bytes, Priority::Cpu, Priority::Latency] {
            let text = serde_json::to_string(&priority).unwrap();
            assert_eq!(text, format!("\"{}\"", level::Priority::from(priority)));
        }
    }
}
