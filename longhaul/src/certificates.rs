//! `longhaul certs`: a certificate authority in a folder, and the identities issued from it.

use std::{
    io::{Write, stdout},
    net::IpAddr,
    path::{Path, PathBuf},
    time::SystemTime,
};

use anyhow::Result;
use certs::{Authority, Description, Kind, Role, SpiffeId, Validity};
use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;

use crate::outcome::{Outcome, UsageError, say};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a certificate authority in a new folder
    Init {
        /// Folder for the authority; keep it away from the machines that carry data
        dir: PathBuf,
        /// What the authority calls itself in its certificate
        #[arg(long, default_value = "Longhaul")]
        name: String,
    },
    /// Issue an identity: key.pem, chain.pem and roots.pem, for `[tls] dir`
    Issue(Issue),
    /// Revoke an identity and write the revocation list anew
    Revoke {
        /// Folder of the authority
        #[arg(long, value_name = "DIR")]
        ca: PathBuf,
        /// chain.pem of the identity, or the folder it lies in
        path: PathBuf,
    },
    /// Write the revocation list anew before it goes stale
    RenewCrl {
        /// Folder of the authority
        #[arg(long, value_name = "DIR")]
        ca: PathBuf,
    },
    /// Show what certificates say
    Show {
        /// PEM file, or folder of an identity or an authority
        path: PathBuf,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Issue {
    /// Folder of the authority
    #[arg(long, value_name = "DIR")]
    ca: PathBuf,
    /// What the identity is for
    #[arg(long)]
    role: RoleArgument,
    /// Its name, such as spiffe://example.org/exporter/fra
    #[arg(long, value_name = "SPIFFE")]
    id: SpiffeId,
    /// Host name by which an importer is dialled; may be repeated
    #[arg(long, value_name = "NAME")]
    dns: Vec<String>,
    /// Address by which an importer is dialled; may be repeated
    #[arg(long, value_name = "ADDR")]
    ip: Vec<IpAddr>,
    /// How long it is valid
    #[arg(long, value_name = "N", default_value_t = 90, value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: u32,
    /// Folder for the identity; one that is there already is replaced
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum RoleArgument {
    /// It dials an importer
    Exporter,
    /// It listens for exporters
    Importer,
}

impl Command {
    pub(crate) fn run(self) -> Result<Outcome> {
        match self {
            Self::Init { dir, name } => {
                Authority::create(&dir, &name)?;
                say(&format!(
                    "made the authority `{name}` in {}\nwhoever can read ca-key.pem there can name anybody",
                    dir.display()
                ));
            }
            Self::Issue(issue) => issue.run()?,
            Self::Revoke { ca, path } => {
                let authority = Authority::open(&ca)?;
                authority.revoke(&inside(&path, &["chain.pem"]))?;
                say_where_the_list_is(&authority);
            }
            Self::RenewCrl { ca } => {
                let authority = Authority::open(&ca)?;
                authority.renew_crl()?;
                say_where_the_list_is(&authority);
            }
            Self::Show { path, json } => show(&inside(&path, &["chain.pem", "ca.pem"]), json)?,
        }
        Ok(Outcome::Success)
    }
}

impl Issue {
    fn run(self) -> Result<()> {
        let names: Vec<String> =
            self.dns.iter().cloned().chain(self.ip.iter().map(IpAddr::to_string)).collect();
        let kind = match self.role {
            RoleArgument::Exporter => Kind::Exporter,
            RoleArgument::Importer if names.is_empty() => {
                let what = "an importer needs --dns or --ip: the name or address that exporters dial";
                return Err(UsageError(what.into()).into());
            }
            RoleArgument::Importer => Kind::Importer,
        };
        if let Some(name) = self.dns.iter().find(|name| !certs::is_host(name)) {
            let what = format!("--dns {name:?} is not a DNS name, such as importer.cloud.example");
            return Err(UsageError(what).into());
        }
        let validity = Validity::for_days(self.days);
        Authority::open(&self.ca)?.issue(&self.out, kind, &self.id, &names, validity)?;
        say(&format!(
            "issued {} into {}, valid to {}",
            self.id,
            self.out.display(),
            humantime::format_rfc3339_seconds(validity.not_after)
        ));
        Ok(())
    }
}

/// The file meant by `path`: the first of `names` that is there when it is a folder.
fn inside(path: &Path, names: &[&str]) -> PathBuf {
    if !path.is_dir() {
        return path.to_owned();
    }
    let mut files = names.iter().map(|name| path.join(name));
    files.find(|file| file.exists()).unwrap_or_else(|| path.join(names[0]))
}

fn say_where_the_list_is(authority: &Authority) {
    say(&format!(
        "wrote {}\ncopy it as crl.pem into the folder of every identity that shall check it",
        authority.crl_path().display()
    ));
}

fn show(path: &Path, json: bool) -> Result<()> {
    let certificates = certs::describe_file(path)?;
    let mut out = stdout().lock();
    if json {
        let certificates: Vec<_> = certificates.iter().map(Certificate::from).collect();
        writeln!(out, "{}", serde_json::to_string_pretty(&certificates)?)?;
        return Ok(());
    }
    for (index, certificate) in certificates.iter().enumerate() {
        let gap = if index == 0 { "" } else { "\n" };
        writeln!(out, "{gap}{certificate}")?;
        if certificate.not_after < SystemTime::now() {
            say(&format!("note: {} has expired", certificate.subject));
        }
    }
    Ok(())
}

/// A certificate for scripts. The names are part of the interface.
#[derive(Debug, Serialize)]
struct Certificate<'a> {
    subject: &'a str,
    role: &'static str,
    spiffe_ids: &'a [String],
    names: &'a [String],
    not_before: String,
    not_after: String,
    expired: bool,
    issuer: &'a str,
    serial: &'a str,
    sha256: &'a str,
}

impl<'a> From<&'a Description> for Certificate<'a> {
    fn from(certificate: &'a Description) -> Self {
        let time = |time| humantime::format_rfc3339_seconds(time).to_string();
        Self {
            subject: &certificate.subject,
            role: match certificate.role {
                Role::Exporter => "exporter",
                Role::Importer => "importer",
                Role::Both => "both",
                Role::Authority => "authority",
                Role::Other => "other",
            },
            spiffe_ids: &certificate.spiffe_ids,
            names: &certificate.names,
            not_before: time(certificate.not_before),
            not_after: time(certificate.not_after),
            expired: certificate.not_after < SystemTime::now(),
            issuer: &certificate.issuer,
            serial: &certificate.serial,
            sha256: &certificate.fingerprint,
        }
    }
}
