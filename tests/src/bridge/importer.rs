//! An importer process and what it is configured to do.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};

use lab::ports::Port;

use super::daemon::Daemon;
use super::exporter::properties;
use super::ground::{Ground, IMPORTER_ID, exporter_id};
use super::journal::Journal;

/// One `[[links]]` table.
#[derive(Debug, Clone)]
pub struct LinkSettings {
    /// `name`.
    pub name: String,
    /// `identity`.
    pub identity: String,
    /// `topics`.
    pub topics: Vec<String>,
    /// `lanes`.
    pub lanes: u16,
    /// More keys of the table, as they are: `map = { prefix = "fra." }`.
    pub more: String,
}

impl LinkSettings {
    /// The link's exporter may write these topics, under their own names, over four lanes.
    pub fn new(name: &str, topics: &[&str]) -> Self {
        let topics = topics.iter().map(|&topic| topic.to_owned()).collect();
        Self { name: name.to_owned(), identity: exporter_id(name), topics, lanes: 4, more: String::new() }
    }

    /// With more keys.
    #[must_use]
    pub fn with(mut self, more: &str) -> Self {
        self.more = format!("{}{more}\n", self.more);
        self
    }
}

/// One importer. Its fields are written to the configuration file at each [`Importer::start`].
#[derive(Debug)]
pub struct Importer {
    /// Port of `listen`.
    port: Port,
    /// `kafka.bootstrap`.
    pub bootstrap: String,
    /// `[kafka.properties]`.
    pub properties: BTreeMap<String, String>,
    /// `[[links]]`.
    pub links: Vec<LinkSettings>,
    /// `tls.dir`.
    pub tls: PathBuf,
    /// `audit.file`.
    pub audit: PathBuf,
    /// TOML that is appended as it is.
    pub more: String,
    daemon: Daemon,
}

impl Importer {
    /// An importer called `name` (its folder's name) of these links.
    pub fn new(ground: &Ground, name: &str, bootstrap: &str, links: Vec<LinkSettings>) -> Self {
        let folder = ground.folder(name);
        Self {
            port: Port::reserve().expect("loopback has a free port"),
            bootstrap: bootstrap.to_owned(),
            properties: BTreeMap::new(),
            links,
            tls: ground.importer_identity(IMPORTER_ID),
            audit: folder.join("audit.jsonl"),
            more: String::new(),
            daemon: Daemon::new("cloud-importer", &folder),
        }
    }

    /// What exporters dial.
    pub fn address(&self) -> String {
        self.port.address().to_string()
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
        line(format_args!("listen = \"{}\"", self.address()));
        line(format_args!("[kafka]\nbootstrap = {:?}", self.bootstrap));
        line(format_args!("{}", properties(&self.properties)));
        for link in &self.links {
            line(format_args!("[[links]]\nname = {:?}\nidentity = {:?}", link.name, link.identity));
            line(format_args!("topics = {:?}\nlanes = {}\n{}", link.topics, link.lanes, link.more));
        }
        line(format_args!("[tls]\ndir = {:?}", self.tls));
        line(format_args!("[audit]\nfile = {:?}", self.audit));
        line(format_args!("[admin]\nlisten = \"{}\"", self.daemon.admin()));
        line(format_args!("{}", self.more));
        text
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

impl Deref for Importer {
    type Target = Daemon;

    fn deref(&self) -> &Daemon {
        &self.daemon
    }
}

impl DerefMut for Importer {
    fn deref_mut(&mut self) -> &mut Daemon {
        &mut self.daemon
    }
}
