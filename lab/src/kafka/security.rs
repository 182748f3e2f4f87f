//! Certificates and listener settings for a cluster that does not trust everybody.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use super::options::{ClusterOptions, Mechanism, Security, User};
use super::{Error, Result};

/// PEM files for both ends of a TLS listener.
#[derive(Debug)]
pub(super) struct Certificates {
    /// Key and chain in one file, as Kafka's PEM key store wants them.
    pub(super) broker_store: PathBuf,
    pub(super) authority: PathBuf,
    pub(super) client_chain: PathBuf,
    pub(super) client_key: PathBuf,
}

impl Certificates {
    /// A fresh authority, a broker certificate for loopback and a client certificate `CN=client`.
    pub(super) fn create(directory: &Path) -> Result<Self> {
        let issuer = authority().map_err(Error::Certificates)?;
        let (broker_chain, broker_key) =
            leaf(&issuer, "broker", &["localhost", "127.0.0.1"]).map_err(Error::Certificates)?;
        let (client_chain, client_key) = leaf(&issuer, "client", &[]).map_err(Error::Certificates)?;
        let certificates = Self {
            broker_store: directory.join("broker.pem"),
            authority: directory.join("authority.pem"),
            client_chain: directory.join("client.pem"),
            client_key: directory.join("client.key"),
        };
        write(&certificates.broker_store, &format!("{broker_key}{broker_chain}"))?;
        write(&certificates.authority, &issuer.pem())?;
        write(&certificates.client_chain, &client_chain)?;
        write(&certificates.client_key, &client_key)?;
        Ok(certificates)
    }
}

fn authority() -> std::result::Result<CertifiedIssuer<'static, KeyPair>, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "lab authority");
    CertifiedIssuer::self_signed(params, KeyPair::generate()?)
}

/// Chain and key in PEM.
fn leaf(
    issuer: &CertifiedIssuer<'static, KeyPair>,
    name: &str,
    hosts: &[&str],
) -> std::result::Result<(String, String), rcgen::Error> {
    let mut params = CertificateParams::new(hosts.iter().map(|&host| host.to_owned()).collect::<Vec<_>>())?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, issuer)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).map_err(|source| Error::Write { path: path.to_owned(), source })
}

/// Broker properties of the client listener, which is called `CLIENT`.
pub(super) fn broker_properties(
    options: &ClusterOptions,
    certificates: Option<&Certificates>,
) -> BTreeMap<String, String> {
    let mut properties = BTreeMap::new();
    let mut set =
        |name: &str, value: String| properties.insert(format!("listener.name.client.{name}"), value);
    if let Some(certificates) = certificates {
        set("ssl.keystore.type", "PEM".to_owned());
        set("ssl.keystore.location", certificates.broker_store.display().to_string());
        set("ssl.truststore.type", "PEM".to_owned());
        set("ssl.truststore.location", certificates.authority.display().to_string());
        let mutual = options.security == Security::Tls { mutual: true };
        set("ssl.client.auth", if mutual { "required" } else { "none" }.to_owned());
    }
    if let Security::Sasl { mechanism, .. } = options.security {
        set("sasl.enabled.mechanisms", mechanism.name().to_owned());
        let name = format!("{}.sasl.jaas.config", mechanism.name().to_lowercase());
        set(&name, jaas(mechanism, &options.users));
    }
    if options.acls {
        let class = "org.apache.kafka.metadata.authorizer.StandardAuthorizer";
        properties.insert("authorizer.class.name".to_owned(), class.to_owned());
        properties.insert("super.users".to_owned(), "User:ANONYMOUS;User:admin".to_owned());
    }
    properties
}

fn jaas(mechanism: Mechanism, users: &[User]) -> String {
    match mechanism {
        Mechanism::Plain => {
            let users: String =
                users.iter().map(|user| format!(" user_{}=\"{}\"", user.name, user.password)).collect();
            format!("org.apache.kafka.common.security.plain.PlainLoginModule required{users};")
        }
        Mechanism::ScramSha256 | Mechanism::ScramSha512 => {
            "org.apache.kafka.common.security.scram.ScramLoginModule required;".to_owned()
        }
    }
}

/// Arguments that make the storage tool write the SCRAM users into the first metadata.
pub(super) fn format_arguments(options: &ClusterOptions) -> Vec<String> {
    let Security::Sasl { mechanism: mechanism @ (Mechanism::ScramSha256 | Mechanism::ScramSha512), .. } =
        options.security
    else {
        return Vec::new();
    };
    let entry = |user: &User| {
        let record = format!("{}=[name={},password={}]", mechanism.name(), user.name, user.password);
        ["--add-scram".to_owned(), record]
    };
    options.users.iter().flat_map(entry).collect()
}

/// What a librdkafka client sets to come in by the client listener as `user`.
pub(super) fn client_properties(
    security: Security,
    certificates: Option<&Certificates>,
    user: Option<&User>,
) -> BTreeMap<String, String> {
    let mut properties = BTreeMap::new();
    let mut set = |name: &str, value: String| properties.insert(name.to_owned(), value);
    set("security.protocol", security.protocol().to_owned());
    if let Some(certificates) = certificates {
        set("ssl.ca.location", certificates.authority.display().to_string());
        if security == (Security::Tls { mutual: true }) {
            set("ssl.certificate.location", certificates.client_chain.display().to_string());
            set("ssl.key.location", certificates.client_key.display().to_string());
        }
    }
    if let (Security::Sasl { mechanism, .. }, Some(user)) = (security, user) {
        set("sasl.mechanism", mechanism.name().to_owned());
        set("sasl.username", user.name.clone());
        set("sasl.password", user.password.clone());
    }
    properties
}
