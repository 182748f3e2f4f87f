//! A new identity, and a new rate, without a restart.
//!
//! The files of `[tls] dir` and the configuration file are looked at every few seconds, and at once on SIGHUP. When the
//! identity changed and is good, the next dial uses it; a connection that lives stays, unless the importer's
//! certificate is no longer trusted. Of the configuration `importer.rate` and `importer.floor` are taken over at once;
//! everything else waits for a restart. Changes are on record before they take effect.

use std::{path::PathBuf, sync::Arc, time::Duration};

use certs::Identity;
use link::{CloseCode, Dialer};
use observe::{Audit, event::Operator};
use settings::Stamps;
use tokio::sync::Notify;

use crate::{
    config::{Config, Importer},
    engine::View,
    status::LinkFacts,
};

/// See the [module](self).
pub(crate) struct Reload {
    dir: PathBuf,
    /// In use.
    identity: Identity,
    dialer: Arc<Dialer>,
    facts: Arc<LinkFacts>,
    audit: Audit,
    seen: Stamps,
    file: Option<PathBuf>,
    file_seen: Stamps,
    importer: Importer,
}

impl Reload {
    /// Watches the folder that `identity` was loaded from, which was as `seen` before.
    pub(crate) fn new(
        config: &Config,
        (identity, seen): (Identity, Stamps),
        dialer: Arc<Dialer>,
        view: &View,
    ) -> Self {
        Self {
            seen,
            identity,
            dir: config.tls.dir.clone(),
            dialer,
            facts: Arc::clone(&view.facts),
            audit: view.audit.clone(),
            file_seen: Stamps::of(config.file.clone()),
            file: config.file.clone(),
            importer: config.importer.clone(),
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
                self.look_at_config(told);
                self
            });
            match turn.await {
                Ok(reload) => self = reload,
                Err(_) => return,
            }
        }
    }

    fn turn(&mut self, told: bool) {
        let now = look(&self.dir);
        if !told && now == self.seen {
            return;
        }
        // Files are replaced one after the other: a mixture fails, and is tried again when the next one changed.
        match self.replace() {
            Ok(()) => self.seen = now,
            Err(Refusal::Unusable(why)) => {
                tracing::error!(
                    dir = %self.dir.display(),
                    "the identity changed and the new one cannot be used: {why}; the exporter goes on with the old one"
                );
                self.seen = now;
            }
            // Tried again with the next turn.
            Err(Refusal::NotOnRecord) => {}
        }
    }

    /// Takes a changed rate over.
    fn look_at_config(&mut self, told: bool) {
        let Some(file) = &self.file else { return };
        let now = Stamps::of([file.clone()]);
        if !told && now == self.file_seen {
            return;
        }
        let importer = match Config::load(file) {
            Ok(config) => config.importer,
            Err(error) => {
                tracing::error!(
                    "the configuration changed and cannot be used: {error}; the exporter goes on with the old one"
                );
                self.file_seen = now;
                return;
            }
        };
        let same = (importer.rate, importer.floor) == (self.importer.rate, self.importer.floor);
        if !same {
            let words =
                |rate: Option<settings::Rate>| rate.map_or_else(|| "none".into(), |rate| rate.to_string());
            let (rate, floor) = (words(importer.rate), words(importer.floor));
            let act = format!("changed importer.rate to {rate} and importer.floor to {floor}");
            let line = Operator { who: "configuration".into(), act, at: None };
            if self.audit.record(line).is_err() {
                return; // tried again with the next turn
            }
            self.dialer.rate().set_floor(importer.floor.map(settings::Rate::bits_per_second));
            self.dialer.rate().configure(importer.rate.map(settings::Rate::bits_per_second));
            tracing::info!(rate, floor, "the link's rate was changed");
            self.importer = importer;
        }
        self.file_seen = now;
    }

    fn replace(&mut self) -> Result<(), Refusal> {
        let unusable = |error: &dyn std::fmt::Display| Refusal::Unusable(error.to_string());
        let identity = Identity::load(&self.dir).map_err(|error| unusable(&error))?;
        identity.client_config().map_err(|error| unusable(&error))?;
        if identity == self.identity {
            // Nothing is replaced, nor on record as replaced, by what it is already.
            return Ok(());
        }
        let act = format!("replaced the identity by {} from {}", identity.spiffe_id(), self.dir.display());
        let line = Operator { who: "configuration".into(), act, at: None };
        self.audit.record(line).map_err(|_| Refusal::NotOnRecord)?;
        self.dialer.replace_identity(&identity).map_err(|error| unusable(&error))?;
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
}

enum Refusal {
    Unusable(String),
    NotOnRecord,
}

pub(crate) fn look(dir: &std::path::Path) -> Stamps {
    let files = [certs::KEY_FILE, certs::CHAIN_FILE, certs::ROOTS_FILE, certs::CRL_FILE];
    Stamps::of(files.map(|file| dir.join(file)))
}

const INTERVAL: Duration = Duration::from_secs(5);
