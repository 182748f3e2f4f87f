//! A new identity, and a new rate, without a restart.
//!
//! The files of `[tls] dir` and the configuration file are looked at every second, and at once on SIGHUP. When the
//! identity changed and is good, the next dial uses it; a connection that lives stays, unless the importer's
//! certificate is no longer trusted. Of the configuration `importer.rate` and `importer.floor` are taken over at once;
//! other keys that changed are named, and wait for a restart. Changes are on record before they take effect.

use std::{sync::Arc, time::Duration};

use certs::Identity;
use link::{CloseCode, Dialer};
use observe::{Audit, event::Operator};
use settings::{Rate, Watched};
use tokio::sync::Notify;

use crate::{config::Config, engine::View, status::LinkFacts};

/// See the [module](self).
pub(crate) struct Reload {
    /// As the exporter was started.
    started: Config,
    /// In use.
    identity: Identity,
    rates: Rates,
    dialer: Arc<Dialer>,
    facts: Arc<LinkFacts>,
    audit: Audit,
    identity_files: Watched,
    /// Not known before it was read a second time: it may have changed since the first.
    config_file: Watched,
}

/// What is taken over from a changed configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rates {
    rate: Option<Rate>,
    floor: Option<Rate>,
}

impl Rates {
    fn of(config: &Config) -> Self {
        Self { rate: config.importer.rate, floor: config.importer.floor }
    }
}

impl Reload {
    /// `identity` was loaded from the files that are watched since before that.
    pub(crate) fn new(
        config: &Config,
        (identity, identity_files): (Identity, Watched),
        dialer: Arc<Dialer>,
        view: &View,
    ) -> Self {
        Self {
            started: config.clone(),
            identity,
            rates: Rates::of(config),
            dialer,
            facts: Arc::clone(&view.facts),
            audit: view.audit.clone(),
            identity_files,
            config_file: Watched::after_reading(config.file.clone()),
        }
    }

    /// Runs for as long as the exporter. `hurry` asks for a look at once, whatever the files' times say.
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
        if self.identity_files.is_due(told) && self.replace_identity().is_ok() {
            self.identity_files.done();
        }
        if self.config_file.is_due(told) && self.replace_rates().is_ok() {
            self.config_file.done();
        }
    }

    /// Takes a changed rate over.
    fn replace_rates(&mut self) -> Result<(), NotOnRecord> {
        let Some(file) = &self.started.file else { return Ok(()) };
        let new = match Config::load(file) {
            Ok(new) => new,
            Err(error) => {
                tracing::error!(
                    "the configuration changed and is refused: {error}; the exporter goes on with the old one"
                );
                return Ok(());
            }
        };
        let rates = Rates::of(&new);
        if rates != self.rates {
            let words = |rate: Option<Rate>| rate.map_or_else(|| "none".into(), |rate| rate.to_string());
            let (rate, floor) = (words(rates.rate), words(rates.floor));
            self.record(format!("changed importer.rate to {rate} and importer.floor to {floor}"))?;
            self.dialer.rate().set_floor(rates.floor.map(Rate::bits_per_second));
            self.dialer.rate().configure(rates.rate.map(Rate::bits_per_second));
            tracing::info!(rate, floor, "the link's rate was changed");
            self.rates = rates;
        }
        let waiting = waiting(&self.started, &new);
        if !waiting.is_empty() {
            tracing::warn!(
                "these keys changed and take effect at the next start only: {}",
                waiting.join(", ")
            );
        }
        Ok(())
    }

    /// Files are replaced one after the other: a mixture fails, and is tried again when the next one changed.
    fn replace_identity(&mut self) -> Result<(), NotOnRecord> {
        let dir = self.started.tls.dir.clone();
        let refused = |why: &dyn std::fmt::Display| {
            tracing::error!(
                dir = %dir.display(),
                "the identity changed and the new one cannot be used: {why}; the exporter goes on with the old one"
            );
            Ok(())
        };
        let identity = match Identity::load_exporter(&dir) {
            Ok(identity) => identity,
            Err(error) => return refused(&error),
        };
        if identity == self.identity {
            // Nothing is replaced, nor on record as replaced, by what it is already.
            return Ok(());
        }
        self.record(format!("replaced the identity by {} from {}", identity.spiffe_id(), dir.display()))?;
        if let Err(error) = self.dialer.replace_identity(&identity) {
            return refused(&error);
        }
        tracing::info!(identity = %identity.spiffe_id(), "the identity was replaced");
        // Who was turned away with the old one need not wait any longer.
        self.facts.hurry();
        if let Some(connection) = self.facts.connection()
            && let Err(error) = connection.check_peer(&identity)
        {
            connection.close(CloseCode::Untrusted, &error.to_string());
        }
        self.identity = identity;
        Ok(())
    }

    fn record(&self, act: String) -> Result<(), NotOnRecord> {
        let line = Operator { who: "configuration".into(), act, at: None };
        self.audit.record(line).map_err(|error| {
            tracing::error!("{error}");
            NotOnRecord
        })
    }
}

/// The audit log cannot be written: it is tried again.
struct NotOnRecord;

/// Keys that changed and are not taken over.
fn waiting(started: &Config, new: &Config) -> Vec<String> {
    let password = |config: &Config| config.codec.schema_registry.as_ref()?.password.clone();
    let secrets = [
        ("kafka.properties", started.kafka.properties != new.kafka.properties),
        ("codec.schema_registry.password", password(started) != password(new)),
    ];
    let mut keys = settings::changed_keys(started, new, &secrets).unwrap_or_default();
    keys.retain(|key| !TAKEN_OVER.contains(&key.as_str()));
    keys
}

const TAKEN_OVER: [&str; 2] = ["importer.rate", "importer.floor"];
/// Two looks in a row decide.
const INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::example;

    #[test]
    fn what_is_no_rate_waits_for_a_restart_and_is_named() {
        let started = example();
        let mut new = started.clone();
        new.importer.rate = None;
        new.importer.floor = Some(Rate::from_bits_per_second(1_000_000));
        assert_eq!(waiting(&started, &new), Vec::<String>::new());
        new.kafka.properties.insert("sasl.password", settings::Property::Text("another".into()));
        assert_eq!(waiting(&started, &new), ["kafka.properties"]);
        new.importer.address.push("other:7443".into());
        new.topics.exclude.clear();
        assert_eq!(waiting(&started, &new), ["importer.address", "kafka.properties", "topics.exclude"]);
        let registry = |password: &str| crate::config::SchemaRegistry {
            url: "http://r".into(),
            ca: None,
            user: Some("u".into()),
            password: Some(settings::Secret::new(password)),
        };
        let with_registry = |password| {
            let mut config = new.clone();
            config.codec.schema_registry = Some(registry(password));
            config
        };
        assert_eq!(waiting(&with_registry("a"), &with_registry("b")), ["codec.schema_registry.password"]);
        let mut other = new.clone();
        other.kafka.properties.insert("sasl.password", settings::Property::Text("a third".into()));
        assert_eq!(waiting(&new, &other), ["kafka.properties"], "what is not shown is compared all the same");
    }
}
