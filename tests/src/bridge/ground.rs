//! One test's folder: certificates, configuration files, logs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use certs::{Authority, Kind, SpiffeId, Validity};
use tempfile::TempDir;

use super::say;

/// A folder with a certificate authority. Kept when the test fails, else removed.
pub struct Ground {
    authority: Authority,
    folder: Option<TempDir>,
}

impl Ground {
    /// A new folder and authority.
    #[expect(clippy::new_without_default, reason = "it makes a folder and a key")]
    pub fn new() -> Self {
        let folder =
            tempfile::Builder::new().prefix("longhaul-test-").tempdir().expect("a folder can be made");
        let authority =
            Authority::create(&folder.path().join("ca"), "test").expect("an authority can be made");
        Self { authority, folder: Some(folder) }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.folder.as_ref().expect("taken only by drop").path()
    }

    /// A new folder in it.
    pub fn folder(&self, name: &str) -> PathBuf {
        let folder = self.path().join(name);
        std::fs::create_dir_all(&folder).expect("a folder can be made");
        folder
    }

    /// The authority that issued everything here.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Issues an exporter's identity into `ID/` and gives the folder.
    pub fn exporter_identity(&self, id: &str) -> PathBuf {
        self.issue(Kind::Exporter, id, Validity::for_days(1))
    }

    /// Issues an importer's identity, good for loopback, and gives the folder.
    pub fn importer_identity(&self, id: &str) -> PathBuf {
        self.issue(Kind::Importer, id, Validity::for_days(1))
    }

    /// Issues an exporter's identity that is good for `duration`.
    pub fn short_lived_exporter_identity(&self, id: &str, duration: Duration) -> PathBuf {
        self.issue(Kind::Exporter, id, Validity::for_duration(duration))
    }

    fn issue(&self, kind: Kind, id: &str, validity: Validity) -> PathBuf {
        let folder = self.path().join("certs").join(id.replace(['/', ':'], "_"));
        let id: SpiffeId = id.parse().expect("a test's ids are SPIFFE ids");
        let names = ["127.0.0.1".to_owned(), "localhost".to_owned()];
        let names: &[String] = if kind == Kind::Importer { &names } else { &[] };
        self.authority.issue(&folder, kind, &id, names, validity).expect("an identity can be issued");
        folder
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(folder) = self.folder.take()
        {
            let kept = folder.keep();
            say(format_args!("configuration, audit logs and program logs are kept in {}", kept.display()));
        }
    }
}

/// The identity of the exporter of `link` in every test.
pub(super) fn exporter_id(link: &str) -> String {
    format!("spiffe://test.example/exporter/{link}")
}

/// The identity of the importer in every test.
pub(super) const IMPORTER_ID: &str = "spiffe://test.example/importer/cloud";
