//! Our own certificate authority: a folder with a key, from which exporters and importers are issued.

use std::{
    fmt,
    net::IpAddr,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    RevokedCertParams, SanType, SerialNumber, string::Ia5String,
};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use x509_parser::prelude::{CertificateRevocationList, FromDer, ParsedExtension, X509Certificate};

use crate::{
    CHAIN_FILE, CRL_FILE, Error, KEY_FILE, ROOTS_FILE, SpiffeId,
    describe::system_time,
    files::{self, Access},
    identity::is_host,
    spiffe::parse,
};

/// What a certificate is issued for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Dials: clientAuth. Needs no host name.
    Exporter,
    /// Listens: serverAuth. Needs at least one DNS or IP name, the one exporters dial.
    Importer,
}

/// From when to when a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// The first moment.
    pub not_before: SystemTime,
    /// The last moment.
    pub not_after: SystemTime,
}

impl Validity {
    /// From now, and a little before so that a peer's clock may be behind, for `duration`.
    pub fn for_duration(duration: Duration) -> Self {
        let now = SystemTime::now();
        Self { not_before: now - CLOCK_ALLOWANCE, not_after: now + duration }
    }

    /// [`Self::for_duration`] in days.
    pub fn for_days(days: u32) -> Self {
        Self::for_duration(Duration::from_secs(u64::from(days) * 86_400))
    }
}

/// A certificate authority opened with its key: whoever holds one can name anybody.
pub struct Authority {
    dir: PathBuf,
    certificate_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Makes a new authority called `name` in `dir`, valid for ten years, with an empty revocation list.
    ///
    /// # Errors
    /// When there is one already, or the folder cannot be written.
    pub fn create(dir: &Path, name: &str) -> Result<Self, Error> {
        files::create_folder(dir)?;
        for file in [CA_FILE, CA_KEY_FILE] {
            if dir.join(file).exists() {
                return Err(Error::AlreadyExists { path: dir.join(file) });
            }
        }
        if dir.join(KEY_FILE).exists() {
            let why = format!("{} is the folder of an identity: choose another one", dir.display());
            return Err(Error::Request { why });
        }
        let validity = Validity::for_days(3653);
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        params.not_before = validity.not_before.into();
        params.not_after = validity.not_after.into();
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(crypto("make a key"))?;
        let certificate = params.self_signed(&key).map_err(crypto("sign the authority's certificate"))?;
        files::write(&dir.join(CA_KEY_FILE), &key.serialize_pem(), Access::Owner)?;
        files::write(&dir.join(CA_FILE), &certificate.pem(), Access::Everybody)?;
        let authority =
            Self { dir: dir.into(), certificate_pem: certificate.pem(), issuer: Issuer::new(params, key) };
        authority.write_crl(Vec::new(), 1)?;
        Ok(authority)
    }

    /// Opens the authority in `dir`.
    ///
    /// # Errors
    /// When a file is missing or damaged, others can read the key, or it is not the certificate's.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let (key_path, path) = (dir.join(CA_KEY_FILE), dir.join(CA_FILE));
        files::check_private(&key_path, CREATE)?;
        let key_pem = utf8(&key_path, files::read(&key_path, CREATE)?)?;
        let certificate_pem = utf8(&path, files::read(&path, CREATE)?)?;
        let key = KeyPair::from_pem(&key_pem)
            .map_err(|error| Error::Malformed { path: key_path.clone(), why: error.to_string() })?;
        let ders: Vec<CertificateDer<'static>> =
            files::sections(&path, certificate_pem.as_bytes(), "certificate")?;
        let certificate = parse(&ders[0], &path.display().to_string())?;
        if certificate.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
            return Err(Error::KeyMismatch { key: key_path, chain: path });
        }
        let issuer = Issuer::from_ca_cert_der(&ders[0], key)
            .map_err(|error| Error::Malformed { path, why: error.to_string() })?;
        Ok(Self { dir: dir.into(), certificate_pem, issuer })
    }

    /// Issues an identity into the folder `out`: `key.pem` (mode 0600), `chain.pem` and `roots.pem`.
    ///
    /// An identity that is there already is replaced, key and all. `names` are the DNS names or IP addresses an
    /// importer is dialled by. No `crl.pem` is written: who copies it there takes on to renew it in time.
    ///
    /// # Errors
    /// When an importer has no name, a name is neither a DNS name nor an address, the validity is empty, or `out`
    /// cannot be written.
    pub fn issue(
        &self,
        out: &Path,
        kind: Kind,
        id: &SpiffeId,
        names: &[String],
        validity: Validity,
    ) -> Result<(), Error> {
        let params = end_entity(kind, id, names, validity)?;
        if out.join(CA_KEY_FILE).exists() {
            return Err(Error::Request {
                why: format!(
                    "{} is the folder of an authority: choose another one for the identity",
                    out.display()
                ),
            });
        }
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(crypto("make a key"))?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(crypto("sign the certificate"))?;
        files::create_folder(out)?;
        files::write(&out.join(KEY_FILE), &key.serialize_pem(), Access::Owner)?;
        files::write(&out.join(CHAIN_FILE), &certificate.pem(), Access::Everybody)?;
        files::write(&out.join(ROOTS_FILE), &self.certificate_pem, Access::Everybody)?;
        Ok(())
    }

    /// The authority's own certificate, PEM: what peers put into their `roots.pem`.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// Where the newest revocation list lies. Copy it to the `crl.pem` of every identity that shall check it.
    pub fn crl_path(&self) -> PathBuf {
        self.dir.join(CRL_FILE)
    }

    /// Revokes the first certificate in the PEM file `chain` and writes a new revocation list, good for
    /// 30 days.
    ///
    /// # Errors
    /// When the file holds no certificate of this authority, or the list cannot be read or written.
    pub fn revoke(&self, chain: &Path) -> Result<(), Error> {
        let content = files::read(chain, "give the chain.pem of the identity to revoke")?;
        let ders: Vec<CertificateDer<'static>> = files::sections(chain, &content, "certificate")?;
        let certificate = parse(&ders[0], &chain.display().to_string())?;
        let own: Vec<CertificateDer<'static>> =
            files::sections(&self.dir.join(CA_FILE), self.certificate_pem.as_bytes(), "certificate")?;
        let own = parse(&own[0], CA_FILE)?;
        // Authorities of one name are told apart by their keys.
        if certificate.issuer().as_raw() != own.subject().as_raw() || issuer_key(&certificate) != key_of(&own)
        {
            return Err(Error::Request {
                why: format!(
                    "{} was issued by `{}`, which is not this authority: give --ca the folder of its own",
                    chain.display(),
                    certificate.issuer()
                ),
            });
        }
        let (mut revoked, number) = self.read_crl()?;
        let serial = SerialNumber::from_slice(certificate.raw_serial());
        if revoked.iter().all(|entry| entry.serial_number != serial) {
            revoked.push(revocation(serial, SystemTime::now()));
        }
        self.write_crl(revoked, number + 1)
    }

    /// Writes the revocation list anew with its entries unchanged, good for another 30 days.
    ///
    /// # Errors
    /// When the list cannot be read or written.
    pub fn renew_crl(&self) -> Result<(), Error> {
        let (revoked, number) = self.read_crl()?;
        self.write_crl(revoked, number + 1)
    }

    fn read_crl(&self) -> Result<(Vec<RevokedCertParams>, u64), Error> {
        let path = self.crl_path();
        let Some(content) = files::read_optional(&path)? else { return Ok((Vec::new(), 0)) };
        let lists: Vec<CertificateRevocationListDer<'static>> =
            files::sections(&path, &content, "revocation list")?;
        let (_, list) = CertificateRevocationList::from_der(&lists[0])
            .map_err(|error| Error::Malformed { path: path.clone(), why: error.to_string() })?;
        let revoked = list
            .iter_revoked_certificates()
            .map(|entry| {
                revocation(SerialNumber::from_slice(entry.raw_serial()), system_time(entry.revocation_date))
            })
            .collect();
        let number =
            list.crl_number().and_then(|number| number.to_u64_digits().first().copied()).unwrap_or(0);
        Ok((revoked, number))
    }

    fn write_crl(&self, revoked_certs: Vec<RevokedCertParams>, number: u64) -> Result<(), Error> {
        let now = SystemTime::now();
        let list = CertificateRevocationListParams {
            this_update: (now - CLOCK_ALLOWANCE).into(),
            next_update: (now + CRL_VALIDITY).into(),
            crl_number: number.into(),
            issuing_distribution_point: None,
            revoked_certs,
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let pem = list.signed_by(&self.issuer).and_then(|list| list.pem());
        files::write(&self.crl_path(), &pem.map_err(crypto("sign the revocation list"))?, Access::Everybody)
    }
}

/// Never the key.
impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("dir", &self.dir).finish_non_exhaustive()
    }
}

/// Which key signed it, as it says itself (RFC 5280, 4.2.1.1).
fn issuer_key<'a>(certificate: &X509Certificate<'a>) -> Option<&'a [u8]> {
    certificate.iter_extensions().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(of) => of.key_identifier.as_ref().map(|id| id.0),
        _ => None,
    })
}

/// What certificates name an authority's key by.
fn key_of<'a>(authority: &X509Certificate<'a>) -> Option<&'a [u8]> {
    authority.iter_extensions().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0),
        _ => None,
    })
}

fn end_entity(
    kind: Kind,
    id: &SpiffeId,
    names: &[String],
    validity: Validity,
) -> Result<CertificateParams, Error> {
    let refused = |why: String| Error::Request { why };
    if validity.not_after <= validity.not_before {
        return Err(refused("the validity ends before it begins".into()));
    }
    if kind == Kind::Importer && names.is_empty() {
        return Err(refused(
            "an importer needs at least one DNS name or IP address: the one exporters dial".into(),
        ));
    }
    let mut params = CertificateParams::default();
    // The subject is for people; what counts is the SPIFFE id.
    params.distinguished_name = common_name(id.path().trim_start_matches('/'));
    let uri = Ia5String::try_from(id.as_str()).map_err(|error| refused(error.to_string()))?;
    params.subject_alt_names.push(SanType::URI(uri));
    for name in names {
        params.subject_alt_names.push(host_name(name).map_err(refused)?);
    }
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![match kind {
        Kind::Exporter => ExtendedKeyUsagePurpose::ClientAuth,
        Kind::Importer => ExtendedKeyUsagePurpose::ServerAuth,
    }];
    params.use_authority_key_identifier_extension = true;
    params.not_before = validity.not_before.into();
    params.not_after = validity.not_after.into();
    Ok(params)
}

fn host_name(name: &str) -> Result<SanType, String> {
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    Ia5String::try_from(name)
        .ok()
        .filter(|_| is_host(name))
        .map(SanType::DnsName)
        .ok_or_else(|| format!("`{name}` is neither a DNS name nor an IP address"))
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    // X.520 bounds a common name to 64 characters.
    distinguished.push(DnType::CommonName, name.chars().take(64).collect::<String>());
    distinguished
}

fn revocation(serial_number: SerialNumber, at: SystemTime) -> RevokedCertParams {
    RevokedCertParams { serial_number, revocation_time: at.into(), reason_code: None, invalidity_date: None }
}

fn utf8(path: &Path, content: Vec<u8>) -> Result<String, Error> {
    String::from_utf8(content).map_err(|_| Error::Malformed { path: path.into(), why: "not text".into() })
}

fn crypto(what: &'static str) -> impl Fn(rcgen::Error) -> Error {
    move |error| Error::Crypto { what, why: error.to_string() }
}

/// The authority's certificate.
const CA_FILE: &str = "ca.pem";
/// The authority's key, mode 0600: keep it off the machines that run exporters and importers.
const CA_KEY_FILE: &str = "ca-key.pem";
/// How long a revocation list is good; a stale one refuses every peer.
const CRL_VALIDITY: Duration = Duration::from_secs(30 * 86_400);
/// How far a peer's clock may be behind when a fresh certificate is used at once.
const CLOCK_ALLOWANCE: Duration = Duration::from_secs(300);
const CREATE: &str = "make an authority with `longhaul certs init`";
