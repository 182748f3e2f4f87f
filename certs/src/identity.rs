//! Loading an identity: the folder named by `[tls] dir`.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use rustls::{
    ClientConfig, InconsistentKeys, RootCertStore, ServerConfig,
    crypto::aws_lc_rs::sign::any_supported_type,
    pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName, UnixTime},
    sign::CertifiedKey,
};
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};

use crate::{
    Error, KeyExchange, Role, SpiffeId,
    describe::{format_time, role_of, system_time},
    explain, files,
    spiffe::{parse, spiffe_id_of},
    tls::{self, Material},
};

/// The private key, mode 0600.
pub const KEY_FILE: &str = "key.pem";
/// The certificate, then those between it and a root.
pub const CHAIN_FILE: &str = "chain.pem";
/// The authorities a peer may come from. Two during a change of authority.
pub const ROOTS_FILE: &str = "roots.pem";
/// Optional revocation lists. When the file is there, every authority that peers come from must have one in it.
pub const CRL_FILE: &str = "crl.pem";

/// Whether a certificate can name `host`: a DNS name or an IP address.
pub fn is_host(host: &str) -> bool {
    ServerName::try_from(host).is_ok()
}

/// Who this process is, and whom it can believe. Loaded whole or not at all; cheap to clone.
#[derive(Clone)]
pub struct Identity(Arc<Inner>);

struct Inner {
    dir: PathBuf,
    key: PrivateKeyDer<'static>,
    chain: Vec<CertificateDer<'static>>,
    roots: Arc<RootCertStore>,
    crls: Vec<CertificateRevocationListDer<'static>>,
    key_exchange: KeyExchange,
    spiffe_id: SpiffeId,
    role: Role,
    not_after: SystemTime,
}

impl Identity {
    /// The files that an identity in `dir` is made of; `crl.pem` need not be there.
    pub fn files(dir: &Path) -> [PathBuf; 4] {
        [KEY_FILE, CHAIN_FILE, ROOTS_FILE, CRL_FILE].map(|file| dir.join(file))
    }

    /// [`load`](Self::load), for a program that dials.
    ///
    /// # Errors
    /// As there, and when the identity is not an exporter's.
    pub fn load_exporter(dir: &Path) -> Result<Self, Error> {
        let identity = Self::load(dir)?;
        identity.client_config()?;
        Ok(identity)
    }

    /// [`load`](Self::load), for a program that listens.
    ///
    /// # Errors
    /// As there, and when the identity is not an importer's.
    pub fn load_importer(dir: &Path) -> Result<Self, Error> {
        let identity = Self::load(dir)?;
        identity.server_config()?;
        Ok(identity)
    }

    /// Loads and checks `key.pem`, `chain.pem`, `roots.pem` and, when present, `crl.pem` in `dir`.
    ///
    /// # Errors
    /// One of its own for each thing that can be wrong; the message names the file and the way out.
    pub fn load(dir: &Path) -> Result<Self, Error> {
        tls::seed_randomness();
        let chain_path = dir.join(CHAIN_FILE);
        let chain: Vec<CertificateDer<'static>> =
            files::sections(&chain_path, &files::read(&chain_path, ISSUE)?, "certificate")?;
        let key = load_key(&dir.join(KEY_FILE))?;
        check_pair(&key, &chain, &dir.join(KEY_FILE), &chain_path)?;

        let place = chain_path.display().to_string();
        let certificate = parse(&chain[0], &place)?;
        for der in &chain {
            check_validity(&parse(der, &place)?, &chain_path)?;
        }
        let spiffe_id = spiffe_id_of(&certificate, &place)?;
        let role = role_of(&certificate, &place)?;
        if !role.may_dial() && !role.may_listen() {
            return Err(Error::WrongPurpose { path: chain_path, found: role, wanted: Role::Both });
        }
        let not_after = chain
            .iter()
            .map(|der| Ok(system_time(parse(der, &place)?.validity().not_after)))
            .collect::<Result<Vec<_>, Error>>()?
            .into_iter()
            .min()
            .expect("a chain has at least one certificate");
        Ok(Self(Arc::new(Inner {
            roots: Arc::new(load_roots(&dir.join(ROOTS_FILE))?),
            crls: load_crls(&dir.join(CRL_FILE))?,
            dir: dir.into(),
            key,
            chain,
            key_exchange: KeyExchange::default(),
            spiffe_id,
            role,
            not_after,
        })))
    }

    /// The same identity with another choice of key exchanges.
    #[must_use]
    pub fn with_key_exchange(&self, key_exchange: KeyExchange) -> Self {
        let inner = &self.0;
        Self(Arc::new(Inner {
            dir: inner.dir.clone(),
            key: inner.key.clone_key(),
            chain: inner.chain.clone(),
            roots: Arc::clone(&inner.roots),
            crls: inner.crls.clone(),
            key_exchange,
            spiffe_id: inner.spiffe_id.clone(),
            role: inner.role,
            not_after: inner.not_after,
        }))
    }

    /// Who this is.
    pub fn spiffe_id(&self) -> &SpiffeId {
        &self.0.spiffe_id
    }

    /// What this is for.
    pub fn role(&self) -> Role {
        self.0.role
    }

    /// When the first certificate of the chain ends: reload before.
    pub fn not_after(&self) -> SystemTime {
        self.0.not_after
    }

    /// The certificates presented to a peer, end entity first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.0.chain
    }

    /// Whether revocation is checked: `crl.pem` was there.
    pub fn checks_revocation(&self) -> bool {
        !self.0.crls.is_empty()
    }

    /// The exporter's side of the handshake.
    ///
    /// # Errors
    /// When the certificate is not for an exporter.
    pub fn client_config(&self) -> Result<ClientConfig, Error> {
        if !self.0.role.may_dial() {
            return Err(self.wrong_purpose(Role::Exporter));
        }
        self.material().client_config()
    }

    /// The importer's side of the handshake.
    ///
    /// # Errors
    /// When the certificate is not for an importer.
    pub fn server_config(&self) -> Result<ServerConfig, Error> {
        if !self.0.role.may_listen() {
            return Err(self.wrong_purpose(Role::Importer));
        }
        self.material().server_config()
    }

    /// Checks again the chain of an exporter that is connected: after a reload of roots or revocation lists, or as
    /// time passes. A live connection is otherwise checked only once.
    ///
    /// # Errors
    /// [`Error::Untrusted`] with the reason in words.
    pub fn check_exporter(&self, chain: &[CertificateDer<'_>]) -> Result<(), Error> {
        let (first, rest) = chain.split_first().ok_or_else(no_certificate)?;
        let verifier = self.material().client_verifier()?;
        verifier.verify_client_cert(first, rest, UnixTime::now()).map(drop).map_err(untrusted)
    }

    /// Like [`Self::check_exporter`] for an importer that was dialled as `host`.
    ///
    /// # Errors
    /// [`Error::Untrusted`] with the reason in words.
    pub fn check_importer(&self, chain: &[CertificateDer<'_>], host: &str) -> Result<(), Error> {
        use rustls::client::danger::ServerCertVerifier;
        let (first, rest) = chain.split_first().ok_or_else(no_certificate)?;
        let name = ServerName::try_from(host)
            .map_err(|_| Error::Untrusted { why: format!("`{host}` is no host name") })?;
        let verifier = self.material().server_verifier()?;
        verifier.verify_server_cert(first, rest, &name, &[], UnixTime::now()).map(drop).map_err(untrusted)
    }

    fn material(&self) -> Material<'_> {
        let Inner { chain, key, roots, crls, key_exchange, .. } = &*self.0;
        Material { chain, key, roots, crls, key_exchange: *key_exchange }
    }

    fn wrong_purpose(&self, wanted: Role) -> Error {
        Error::WrongPurpose { path: self.0.dir.join(CHAIN_FILE), found: self.0.role, wanted }
    }
}

/// Equal when nothing would change by using one instead of the other: what a reload asks.
impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        let (a, b) = (&self.0, &other.0);
        a.key == b.key
            && a.chain == b.chain
            && a.roots.roots == b.roots.roots
            && a.crls == b.crls
            && a.key_exchange == b.key_exchange
    }
}

/// Never the key.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("dir", &self.0.dir)
            .field("spiffe_id", &self.0.spiffe_id)
            .field("role", &self.0.role)
            .finish_non_exhaustive()
    }
}

fn load_key(path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    files::check_private(path, ISSUE)?;
    let mut keys: Vec<PrivateKeyDer<'static>> =
        files::sections(path, &files::read(path, ISSUE)?, "private key")?;
    match keys.len() {
        1 => Ok(keys.remove(0)),
        count => {
            Err(Error::Malformed { path: path.into(), why: format!("{count} private keys, one expected") })
        }
    }
}

fn check_pair(
    key: &PrivateKeyDer<'static>,
    chain: &[CertificateDer<'static>],
    key_path: &Path,
    chain_path: &Path,
) -> Result<(), Error> {
    let signer = any_supported_type(key)
        .map_err(|error| Error::UnusableKey { path: key_path.into(), why: error.to_string() })?;
    match CertifiedKey::new(chain.to_vec(), signer).keys_match() {
        Ok(()) => Ok(()),
        Err(rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
            Err(Error::KeyMismatch { key: key_path.into(), chain: chain_path.into() })
        }
        Err(error) => Err(Error::Malformed { path: chain_path.into(), why: explain(&error) }),
    }
}

fn check_validity(certificate: &X509Certificate<'_>, path: &Path) -> Result<(), Error> {
    let validity = certificate.validity();
    let now = SystemTime::now();
    if now > system_time(validity.not_after) {
        return Err(Error::Expired { path: path.into(), not_after: format_time(validity.not_after) });
    }
    if now < system_time(validity.not_before) {
        return Err(Error::NotYetValid { path: path.into(), not_before: format_time(validity.not_before) });
    }
    Ok(())
}

fn load_roots(path: &Path) -> Result<RootCertStore, Error> {
    let content = files::read(path, ISSUE)?;
    let sections = match files::sections::<CertificateDer<'static>>(path, &content, "certificate") {
        Err(Error::NotPem { .. }) => return Err(Error::RootsEmpty { path: path.into() }),
        other => other?,
    };
    let mut roots = RootCertStore::empty();
    for section in sections {
        let unusable = |why: String| Error::RootUnusable { path: path.into(), why };
        let certificate = parse(&section, &path.display().to_string())?;
        if !certificate.is_ca() {
            return Err(unusable(format!("`{}` is not marked as one", certificate.subject())));
        }
        roots.add(section).map_err(|error| unusable(explain(&error)))?;
    }
    Ok(roots)
}

fn load_crls(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, Error> {
    let Some(content) = files::read_optional(path)? else { return Ok(Vec::new()) };
    let crls: Vec<CertificateRevocationListDer<'static>> =
        files::sections(path, &content, "revocation list")?;
    for crl in &crls {
        let (_, parsed) = CertificateRevocationList::from_der(crl)
            .map_err(|error| Error::Malformed { path: path.into(), why: error.to_string() })?;
        if let Some(next_update) = parsed.next_update()
            && SystemTime::now() > system_time(next_update)
        {
            let next_update = format_time(next_update);
            return Err(Error::StaleRevocationList { path: path.into(), next_update });
        }
    }
    Ok(crls)
}

fn no_certificate() -> Error {
    Error::Untrusted { why: "it presented none".into() }
}

fn untrusted(error: rustls::Error) -> Error {
    Error::Untrusted { why: explain(&error) }
}

const ISSUE: &str = "issue an identity with `longhaul certs issue` and copy its folder here";
