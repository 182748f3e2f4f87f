//! What is measured on: two brokers, the programs, a folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use kafka::{Admin, Settings};
use longhaul_lab::kafka::{Cluster, ClusterOptions, Installation, Jvm};
use longhaul_lab::load::create_topic;
use tempfile::TempDir;

use crate::say;

const PATIENCE: Duration = Duration::from_secs(30);
/// Partitions of every topic.
pub(crate) const PARTITIONS: i32 = 8;

/// Two one-node clusters, and the programs as built for release.
pub(crate) struct Site {
    pub(crate) source: Settings,
    pub(crate) target: Settings,
    pub(crate) target_admin: Admin,
    pub(crate) installation: Installation,
    binaries: PathBuf,
    folder: TempDir,
    _clusters: [Cluster; 2],
}

impl Site {
    /// Builds the programs if need be and starts the brokers.
    pub(crate) fn start() -> Result<Self> {
        let binaries = binaries()?;
        let installation = Installation::find()?;
        say("starting two Kafka brokers");
        let start = || Cluster::start(&installation, ClusterOptions::default().jvm(Jvm::Steady));
        let clusters = [start()?, start()?];
        let settings = |cluster: &Cluster| Settings {
            bootstrap: cluster.bootstrap(),
            properties: BTreeMap::new(),
            client_id: "bench".to_owned(),
        };
        let (source, target) = (settings(&clusters[0]), settings(&clusters[1]));
        let folder = tempfile::Builder::new().prefix("longhaul-bench-").tempdir();
        Ok(Self {
            target_admin: Admin::new(&target)?,
            source,
            target,
            installation,
            binaries,
            folder: folder.context("cannot make a folder")?,
            _clusters: clusters,
        })
    }

    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.binaries.join(name)
    }

    /// A new folder of that name.
    pub(crate) fn folder(&self, name: &str) -> Result<PathBuf> {
        let folder = self.folder.path().join(name);
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(folder)
    }

    /// A new topic at the source.
    pub(crate) fn create_topic(&self, name: &str) -> Result<()> {
        create_topic(&self.source, name, PARTITIONS, &[]).with_context(|| format!("cannot create {name}"))
    }

    /// Deletes a copy, so that it can be made again.
    pub(crate) fn delete_copy(&self, name: &str) -> Result<()> {
        self.target_admin.delete_topic(name, PATIENCE).with_context(|| format!("cannot delete {name}"))
    }

    /// Removes the folder, unless it is worth a look.
    pub(crate) fn finish(self, exact: bool) {
        if !exact {
            say(&format!("configuration, logs and audit logs: {}", self.folder.keep().display()));
        }
    }
}

/// The folder of the programs, brought up to date; `LONGHAUL_BIN_DIR` names another, taken as it is.
fn binaries() -> Result<PathBuf> {
    if let Some(folder) = std::env::var_os("LONGHAUL_BIN_DIR") {
        return Ok(folder.into());
    }
    let this = std::env::current_exe().context("this program has no path")?;
    // TARGET/release/bench
    let target = this.parent().and_then(Path::parent).context("this program is in no target folder")?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    say("building edge-exporter and cloud-importer for release");
    let status = std::process::Command::new(cargo)
        .args([
            "build",
            "--quiet",
            "--release",
            "-p",
            "edge-exporter",
            "-p",
            "cloud-importer",
            "--target-dir",
        ])
        .arg(target)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
        .status()
        .context("cannot run cargo")?;
    ensure!(status.success(), "the programs do not build");
    Ok(target.join("release"))
}
