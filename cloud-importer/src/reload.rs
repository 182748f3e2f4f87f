//! Certificates and grants that change without a restart.
//!
//! The files of `[tls] dir` and the configuration file are looked at every few seconds, and at once on SIGHUP. What is
//! broken is refused with a clear error, and what was in effect stays. What is good is put on record first and takes
//! effect then (R-8): live connections are checked against the new roots and revocations. A session that keeps all it was
//! granted goes on and is told what it is granted now, its rate among it; one that lost something ends, so that its exporter
//! asks anew, and a topic that is not granted any more is refused then.
//!
//! Only the policy part of `[[links]]` is reloaded. Other keys that changed are named, and wait for a restart.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use certs::Identity;
use link::Listener;
use observe::event::{Event, Operator, Policy as PolicyChange};
use serde_json::Value;
use settings::Watched;
use tokio::sync::Notify;

use crate::{config::Config, engine::Shared};

/// See the [module](self).
pub(crate) struct Reload {
    shared: Arc<Shared>,
    listener: Arc<Listener>,
    /// As the importer was started.
    started: Config,
    /// What was in the file last and was good.
    current: Config,
    identity: Watched,
    /// Not known before it was read a second time: it may have changed since the first.
    file: Watched,
}

/// The audit log cannot be written: it is tried again.
struct NotOnRecord;

impl Reload {
    /// `identity` are the identity's files, watched since before they were read.
    pub(crate) fn new(
        shared: Arc<Shared>,
        listener: Arc<Listener>,
        config: Config,
        identity: Watched,
    ) -> Self {
        let file = Watched::after_reading(config.file.clone());
        Self { shared, listener, started: config.clone(), current: config, identity, file }
    }

    /// Runs for as long as the importer. `hurry` asks for a look at once, whatever the files' times say.
    pub(crate) async fn run(mut self, hurry: Arc<Notify>) {
        let mut every = tokio::time::interval(INTERVAL);
        loop {
            let told = tokio::select! {
                _ = every.tick() => false,
                () = hurry.notified() => true,
            };
            let turn = tokio::task::spawn_blocking(move || {
                self.turn(told);
                self
            });
            match turn.await {
                Ok(reload) => self = reload,
                Err(_) => return,
            }
        }
    }

    fn turn(&mut self, told: bool) {
        if self.identity.is_due(told) && self.replace_identity().is_ok() {
            self.identity.done();
        }
        if self.file.is_due(told) && self.replace_policy().is_ok() {
            self.file.done();
        }
    }

    /// Files are replaced one after the other: a mixture fails, and is tried again when the next one changed.
    fn replace_identity(&self) -> Result<(), NotOnRecord> {
        let dir = &self.started.tls.dir;
        let refused = |why: &dyn std::fmt::Display| {
            tracing::error!(
                dir = %dir.display(),
                "the identity changed and the new one cannot be used: {why}; the importer goes on with the old one"
            );
        };
        let identity = match Identity::load_importer(dir) {
            Ok(identity) => identity,
            Err(error) => {
                refused(&error);
                return Ok(());
            }
        };
        if identity == *self.shared.identity() {
            // Nothing is replaced, nor on record as replaced, by what it is already.
            return Ok(());
        }
        let act = format!("replaced the identity by {} from {}", identity.spiffe_id(), dir.display());
        self.record(vec![Operator { who: "configuration".into(), act, at: None }.into()])?;
        if let Err(error) = self.listener.replace_identity(&identity) {
            refused(&error);
            return Ok(());
        }
        tracing::info!(identity = %identity.spiffe_id(), "the identity was replaced");
        // Sessions look at their peers every second.
        self.shared.set_identity(identity);
        Ok(())
    }

    fn replace_policy(&mut self) -> Result<(), NotOnRecord> {
        let Some(file) = &self.started.file else { return Ok(()) };
        let new = match Config::load(file) {
            Ok(new) => new,
            Err(error) => {
                tracing::error!(
                    "the configuration changed and is refused: {error}; the importer goes on with the old one"
                );
                return Ok(());
            }
        };
        let changes = Changes::between(&self.current, &new, &self.started);
        let events: Vec<Event> = changes
            .granted
            .iter()
            .map(|(link, summary)| PolicyChange { link: link.clone(), summary: summary.clone() }.into())
            .collect();
        self.record(events)?;
        for (link, summary) in &changes.granted {
            tracing::info!(%link, "the policy changed: {summary}");
        }
        if !changes.waiting.is_empty() {
            tracing::warn!(
                "these keys changed and take effect at the next start only: {}",
                changes.waiting.join(", ")
            );
        }
        let known = |link: &str| self.started.links.iter().any(|started| started.name == link);
        self.current = new;
        if !changes.granted.is_empty() {
            self.shared.set_policy(self.current.policy_of(known));
            for link in changes.granted.keys().filter_map(|link| self.shared.links.get(link)) {
                link.policy_changed();
            }
        }
        Ok(())
    }

    fn record(&self, events: Vec<Event>) -> Result<(), NotOnRecord> {
        self.shared.audit.record_many(events).map_err(|error| {
            tracing::error!("{error}");
            NotOnRecord
        })
    }
}

/// What a new configuration changes.
#[derive(Debug, Default, PartialEq, Eq)]
struct Changes {
    /// Links whose policy is another one, in words.
    granted: BTreeMap<String, String>,
    /// Keys that take effect at the next start.
    waiting: Vec<String>,
}

impl Changes {
    /// What `new` grants otherwise than `current`, and where it is not as the importer was `started`.
    fn between(current: &Config, new: &Config, started: &Config) -> Self {
        let mut changes = Self::default();
        let (was, is, began) = (tables(current), tables(new), tables(started));
        for (link, began) in &began {
            let nothing = BTreeMap::new();
            let (was, is) = (was.get(link).unwrap_or(&nothing), is.get(link).unwrap_or(&nothing));
            if is.is_empty() {
                if !was.is_empty() {
                    let summary = "the link is not configured any more: its exporter is not let in";
                    changes.granted.insert(link.clone(), summary.into());
                }
                continue;
            }
            let changed: Vec<String> = differing(was, is)
                .filter(|key| POLICY_KEYS.contains(&key.as_str()))
                .map(|key| format!("{key} = {} (was {})", shown(is.get(&key)), shown(was.get(&key))))
                .collect();
            if !changed.is_empty() {
                changes.granted.insert(link.clone(), changed.join(", "));
            }
            let waiting = differing(began, is).filter(|key| !POLICY_KEYS.contains(&key.as_str()));
            changes.waiting.extend(waiting.map(|key| format!("links.{link}.{key}")));
        }
        let added = is.keys().filter(|link| !began.contains_key(*link));
        changes.waiting.extend(added.map(|link| format!("links.{link}")));
        changes.waiting.extend(top_changes(started, new));
        changes
    }
}

type Keys = BTreeMap<String, Value>;

/// The `[[links]]` tables, with the keys of `map` beside the others.
fn tables(config: &Config) -> BTreeMap<String, Keys> {
    let table = |link: &crate::config::Link| {
        let mut keys = keys_of(link);
        if let Some(Value::Object(map)) = keys.remove("map") {
            keys.extend(map.into_iter().map(|(key, value)| (format!("map.{key}"), value)));
        }
        (link.name.clone(), keys)
    };
    config.links.iter().map(table).collect()
}

/// Keys that changed, but for the links'.
fn top_changes(started: &Config, new: &Config) -> Vec<String> {
    let without_links = |config: &Config| Config { links: Vec::new(), ..config.clone() };
    let secrets = [("kafka.properties", started.kafka.properties != new.kafka.properties)];
    settings::changed_keys(&without_links(started), &without_links(new), &secrets).unwrap_or_default()
}

fn keys_of(table: &impl serde::Serialize) -> Keys {
    match serde_json::to_value(table) {
        Ok(Value::Object(keys)) => keys.into_iter().collect(),
        _ => Keys::new(),
    }
}

fn differing<'a>(one: &'a Keys, other: &'a Keys) -> impl Iterator<Item = String> + 'a {
    let keys: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
    keys.into_iter().filter(|key| one.get(*key) != other.get(*key)).cloned()
}

fn shown(value: Option<&Value>) -> String {
    value.map_or_else(|| "default".into(), ToString::to_string)
}

/// Keys of `[[links]]` that `proto::policy` decides with.
const POLICY_KEYS: [&str; 6] = ["identity", "cluster", "topics", "map.prefix", "map.rename", "rate"];
/// Two looks in a row decide.
const INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
listen = "0.0.0.0:7443"
[kafka]
bootstrap = "cloud-1:9092"
[[links]]
name = "fra"
identity = "spiffe://example.org/exporter/fra"
topics = ["orders", "payments.*"]
lanes = 4
[[links]]
name = "muc"
identity = "spiffe://example.org/exporter/muc"
topics = ["*"]
[tls]
dir = "certs/cloud"
[audit]
file = "audit/cloud.jsonl"
"#;

    fn config(edits: &[(&str, &str)]) -> Config {
        let mut text = FILE.to_owned();
        for (from, to) in edits {
            assert!(text.contains(from), "{from}");
            text = text.replace(from, to);
        }
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("cloud-importer.toml");
        std::fs::write(&file, text).unwrap();
        Config::load(&file).unwrap()
    }

    fn changes(edits: &[(&str, &str)]) -> Changes {
        let before = config(&[]);
        Changes::between(&before, &config(edits), &before)
    }

    #[test]
    fn a_file_that_says_the_same_changes_nothing() {
        assert_eq!(changes(&[("lanes = 4\n", "")]), Changes::default());
    }

    #[test]
    fn a_grant_that_changed_is_told_with_what_it_was() {
        let changes = changes(&[("\"orders\", ", "")]);
        assert_eq!(changes.waiting, Vec::<String>::new());
        assert_eq!(changes.granted["fra"], r#"topics = ["payments.*"] (was ["orders","payments.*"])"#);
        assert_eq!(changes.granted.len(), 1, "the other link is not touched");
    }

    #[test]
    fn what_is_no_grant_waits_for_a_restart_and_is_named() {
        let changes = changes(&[
            ("lanes = 4", "lanes = 8\nmap = { prefix = \"eu.\", shared = true }"),
            ("cloud-1", "cloud-2"),
            ("name = \"muc\"", "name = \"ber\""),
        ]);
        assert_eq!(changes.granted["fra"], r#"map.prefix = "eu." (was "")"#);
        assert!(changes.granted["muc"].contains("not let in"), "{changes:?}");
        assert_eq!(
            changes.waiting,
            ["links.fra.lanes", "links.fra.map.shared", "links.ber", "kafka.bootstrap"],
            "each with its key"
        );
    }

    #[test]
    fn a_link_that_comes_back_is_granted_again() {
        let (full, less) = (config(&[]), config(&[("name = \"muc\"", "name = \"ber\"")]));
        let back = Changes::between(&less, &full, &full);
        assert!(back.granted["muc"].contains("topics = [\"*\"]"), "{back:?}");
    }
}
