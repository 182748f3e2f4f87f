//! An exporter process and what it is configured to do.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};

use super::daemon::Daemon;
use super::ground::{Ground, IMPORTER_ID, exporter_id};
use super::journal::Journal;

/// One exporter. Its fields are written to the configuration file at each [`Exporter::start`].
#[derive(Debug)]
pub struct Exporter {
    /// `link`.
    pub link: String,
    /// `kafka.bootstrap`.
    pub bootstrap: String,
    /// `[kafka.properties]`.
    pub properties: BTreeMap<String, String>,
    /// `topics.include`.
    pub include: Vec<String>,
    /// `topics.exclude`.
    pub exclude: Vec<String>,
    /// `topics.start`.
    pub start_at: String,
    /// `importer.address`.
    pub importers: Vec<String>,
    /// `importer.identity`.
    pub importer_identity: String,
    /// `importer.rate`.
    pub rate: Option<String>,
    /// `tls.dir`.
    pub tls: PathBuf,
    /// `audit.file`.
    pub audit: PathBuf,
    /// TOML that is appended as it is.
    pub more: String,
    daemon: Daemon,
}

impl Exporter {
    /// The exporter of `link`, with an identity of its own and the rest of its configuration usual.
    pub fn new(ground: &Ground, link: &str, bootstrap: &str, importer: &str, topics: &[&str]) -> Self {
        Self::named(ground, &format!("exporter-{link}"), link, bootstrap, importer, topics)
    }

    /// [`Exporter::new`] in a folder of another name: a second one of the same link.
    pub fn named(
        ground: &Ground,
        name: &str,
        link: &str,
        bootstrap: &str,
        importer: &str,
        topics: &[&str],
    ) -> Self {
        let folder = ground.folder(name);
        Self {
            link: link.to_owned(),
            bootstrap: bootstrap.to_owned(),
            properties: BTreeMap::new(),
            include: topics.iter().map(|&topic| topic.to_owned()).collect(),
            exclude: Vec::new(),
            start_at: "earliest".to_owned(),
            importers: vec![importer.to_owned()],
            importer_identity: IMPORTER_ID.to_owned(),
            rate: None,
            tls: ground.exporter_identity(&exporter_id(link)),
            audit: folder.join("audit.jsonl"),
            more: String::new(),
            daemon: Daemon::new("edge-exporter", &folder),
        }
    }

    /// Writes the configuration file and starts the process.
    pub fn start(&mut self) {
        self.write_config();
        self.daemon.start();
    }

    /// Writes the configuration file.
    pub fn write_config(&self) {
        std::fs::write(self.daemon.config_file(), self.toml()).expect("a configuration can be written");
    }

    /// The configuration as it will be written.
    pub fn toml(&self) -> String {
        let mut text = String::new();
        let mut line =
            |it: std::fmt::Arguments<'_>| writeln!(text, "{it}").expect("a string takes everything");
        line(format_args!("link = {:?}", self.link));
        line(format_args!("[kafka]\nbootstrap = {:?}", self.bootstrap));
        line(format_args!("{}", properties(&self.properties)));
        line(format_args!("[topics]\ninclude = {:?}\nexclude = {:?}", self.include, self.exclude));
        line(format_args!("start = {:?}", self.start_at));
        line(format_args!("[importer]\naddress = {:?}", self.importers));
        line(format_args!("identity = {:?}", self.importer_identity));
        if let Some(rate) = &self.rate {
            line(format_args!("rate = {rate:?}"));
        }
        line(format_args!("[tls]\ndir = {:?}", self.tls));
        line(format_args!("[audit]\nfile = {:?}", self.audit));
        line(format_args!("[admin]\nlisten = \"{}\"", self.daemon.admin()));
        line(format_args!("{}", self.more));
        text
    }

    /// The consumer group that tells how far it is.
    pub fn group(&self) -> String {
        format!("longhaul.{}", self.link)
    }

    /// Its audit log so far.
    pub fn journal(&self) -> Journal {
        Journal::read(&self.audit)
    }

    /// Its audit log.
    pub fn audit_file(&self) -> &Path {
        &self.audit
    }
}

impl Deref for Exporter {
    type Target = Daemon;

    fn deref(&self) -> &Daemon {
        &self.daemon
    }
}

impl DerefMut for Exporter {
    fn deref_mut(&mut self) -> &mut Daemon {
        &mut self.daemon
    }
}

/// `[kafka.properties]` in TOML.
pub(super) fn properties(properties: &BTreeMap<String, String>) -> String {
    let lines = properties.iter().map(|(name, value)| format!("{name:?} = {value:?}\n"));
    if properties.is_empty() {
        String::new()
    } else {
        format!("[kafka.properties]\n{}", lines.collect::<String>())
    }
}
