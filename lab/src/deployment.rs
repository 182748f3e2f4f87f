//! The two programs set up between two clusters: certificates and configuration files in one folder.
//!
//! ```text
//! folder/ca/                 our own authority
//!        certs/edge, cloud   what it issued
//!        edge-exporter.toml, cloud-importer.toml
//!        audit/edge.jsonl, cloud.jsonl
//! ```

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use certs::{Authority, Kind, SpiffeId, Validity};

const EXPORTER_ID: &str = "spiffe://longhaul.example/exporter/edge";
const IMPORTER_ID: &str = "spiffe://longhaul.example/importer/cloud";

/// Why the folder could not be filled.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot issue certificates")]
    Certificates(#[from] certs::Error),
    #[error("cannot write {}", path.display())]
    Write { path: PathBuf, source: std::io::Error },
}

/// One exporter and one importer of a link that carries some topics under their own names.
#[derive(Debug, Clone)]
pub struct Deployment {
    folder: PathBuf,
    link: String,
    topics: Vec<String>,
}

impl Deployment {
    /// Makes an authority in `folder` and issues both identities, good for loopback and a day.
    pub fn create(folder: &Path, link: &str, topics: Vec<String>) -> Result<Self, Error> {
        let authority = Authority::create(&folder.join("ca"), "Longhaul lab")?;
        let loopback = ["127.0.0.1".to_owned(), "localhost".to_owned()];
        let identities: [(&str, Kind, &str, &[String]); 2] =
            [("edge", Kind::Exporter, EXPORTER_ID, &[]), ("cloud", Kind::Importer, IMPORTER_ID, &loopback)];
        for (name, kind, id, names) in identities {
            let id: SpiffeId = id.parse().expect("the ids above are SPIFFE ids");
            authority.issue(&folder.join("certs").join(name), kind, &id, names, Validity::for_days(1))?;
        }
        Ok(Self { folder: folder.to_owned(), link: link.to_owned(), topics })
    }

    /// Writes `edge-exporter.toml`: from the cluster at `source` to the importer at `importer`.
    pub fn write_exporter(
        &self,
        source: &str,
        importer: SocketAddr,
        admin: Option<SocketAddr>,
    ) -> Result<PathBuf, Error> {
        let text = format!(
            "link = {:?}\n\n[kafka]\nbootstrap = {source:?}\n\n[topics]\ninclude = {:?}\n\n\
             [importer]\naddress = [\"{importer}\"]\nidentity = {IMPORTER_ID:?}\n\n\
             [tls]\ndir = {:?}\n\n[audit]\nfile = {:?}\n{}",
            self.link,
            self.topics,
            self.folder.join("certs/edge"),
            self.edge_audit(),
            admin_table(admin),
        );
        self.write("edge-exporter.toml", &text)
    }

    /// Writes `cloud-importer.toml`: listening at `listen`, into the cluster at `target`.
    pub fn write_importer(
        &self,
        listen: SocketAddr,
        target: &str,
        admin: Option<SocketAddr>,
    ) -> Result<PathBuf, Error> {
        let text = format!(
            "listen = \"{listen}\"\n\n[kafka]\nbootstrap = {target:?}\n\n\
             [[links]]\nname = {:?}\nidentity = {EXPORTER_ID:?}\ntopics = {:?}\n\n\
             [tls]\ndir = {:?}\n\n[audit]\nfile = {:?}\n{}",
            self.link,
            self.topics,
            self.folder.join("certs/cloud"),
            self.cloud_audit(),
            admin_table(admin),
        );
        self.write("cloud-importer.toml", &text)
    }

    /// The exporter's audit log.
    pub fn edge_audit(&self) -> PathBuf {
        self.folder.join("audit/edge.jsonl")
    }

    /// The importer's audit log.
    pub fn cloud_audit(&self) -> PathBuf {
        self.folder.join("audit/cloud.jsonl")
    }

    /// The consumer group whose offsets tell how far the exporter is.
    pub fn group(&self) -> String {
        format!("longhaul.{}", self.link)
    }

    /// The names of the topics.
    pub fn topics(&self) -> &[String] {
        &self.topics
    }

    fn write(&self, name: &str, text: &str) -> Result<PathBuf, Error> {
        let path = self.folder.join(name);
        fs::write(&path, text).map_err(|source| Error::Write { path: path.clone(), source })?;
        Ok(path)
    }
}

fn admin_table(admin: Option<SocketAddr>) -> String {
    admin.map_or_else(String::new, |address| format!("\n[admin]\nlisten = \"{address}\"\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_programs_accept_what_is_written_for_them() {
        let folder = tempfile::tempdir().unwrap();
        let topics = vec!["shop.orders".to_owned(), "a\"b\\c".replace(['"', '\\'], "-")];
        let deployment = Deployment::create(folder.path(), "lab", topics).unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let importer: SocketAddr = "127.0.0.1:7443".parse().unwrap();
        let exporter = deployment.write_exporter("127.0.0.1:9092", importer, Some(any)).unwrap();
        let exporter = edge_exporter::config::Config::load(&exporter).unwrap();
        assert_eq!(exporter.topics.include, deployment.topics());
        let importer = deployment.write_importer(any, "127.0.0.1:9092", None).unwrap();
        let importer = cloud_importer::config::Config::load(&importer).unwrap();
        assert_eq!(importer.links[0].topics, deployment.topics());
        assert_eq!(exporter.link, importer.links[0].name);
        certs::Identity::load(&exporter.tls.dir).unwrap();
        certs::Identity::load(&importer.tls.dir).unwrap();
    }
}
