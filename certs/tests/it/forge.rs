//! Material that the authority itself would never issue.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

pub(crate) const DAY: Duration = Duration::from_secs(86_400);
pub(crate) const FRA: &str = "spiffe://example.org/exporter/fra";
pub(crate) const AWS: &str = "spiffe://example.org/importer/aws";

/// A certificate authority without manners.
pub(crate) struct Forge {
    pub(crate) issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
}

impl Forge {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// An identity folder whose certificate was changed by `change` before it was signed.
    pub(crate) fn identity(&self, dir: &Path, change: impl FnOnce(&mut CertificateParams)) {
        let mut params = exporter(FRA);
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let chain = params.signed_by(&key, &self.issuer).unwrap().pem();
        write_identity(dir, &key.serialize_pem(), &chain, &self.pem);
    }
}

/// A sound exporter's certificate.
pub(crate) fn exporter(id: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![uri(id)];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let now = SystemTime::now();
    params.not_before = (now - DAY).into();
    params.not_after = (now + DAY).into();
    params
}

/// Makes it an importer's, for `localhost`.
pub(crate) fn importer(params: &mut CertificateParams) {
    params.subject_alt_names = vec![uri(AWS), SanType::DnsName("localhost".try_into().unwrap())];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
}

pub(crate) fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

pub(crate) fn write_identity(dir: &Path, key: &str, chain: &str, roots: &str) {
    fs::create_dir_all(dir).unwrap();
    fs::write(dir.join("key.pem"), key).unwrap();
    set_mode(&dir.join("key.pem"), 0o600);
    fs::write(dir.join("chain.pem"), chain).unwrap();
    fs::write(dir.join("roots.pem"), roots).unwrap();
}

pub(crate) fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}
