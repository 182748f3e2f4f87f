//! What a certificate says, for people: `longhaul certs show`.

use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
    path::Path,
    time::{Duration, SystemTime},
};

use rustls::pki_types::CertificateDer;
use x509_parser::{extensions::GeneralName, prelude::X509Certificate, time::ASN1Time};

use crate::{
    Error, files,
    spiffe::{parse, uri_names},
};

/// What a certificate may be used for: its extended key usage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// clientAuth: it dials.
    Exporter,
    /// serverAuth: it listens.
    Importer,
    /// Both.
    Both,
    /// A certificate authority.
    Authority,
    /// Nothing of ours.
    Other,
}

impl Role {
    /// Whether an exporter can use it.
    pub fn may_dial(self) -> bool {
        matches!(self, Self::Exporter | Self::Both)
    }

    /// Whether an importer can use it.
    pub fn may_listen(self) -> bool {
        matches!(self, Self::Importer | Self::Both)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Exporter => "an exporter",
            Self::Importer => "an importer",
            Self::Both => "an exporter or an importer",
            Self::Authority => "a certificate authority",
            Self::Other => "another purpose",
        })
    }
}

/// One certificate in words. `Display` prints it as a small block of text.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Description {
    /// The subject's distinguished name.
    pub subject: String,
    /// The issuer's distinguished name.
    pub issuer: String,
    /// All URI names, valid SPIFFE ids or not.
    pub spiffe_ids: Vec<String>,
    /// All DNS and IP names.
    pub names: Vec<String>,
    /// Valid from here.
    pub not_before: SystemTime,
    /// Valid to here.
    pub not_after: SystemTime,
    /// The serial number, hexadecimal.
    pub serial: String,
    /// SHA-256 over the DER, hexadecimal.
    pub fingerprint: String,
    /// What it is for.
    pub role: Role,
}

impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |items: &[String]| if items.is_empty() { "none".to_owned() } else { items.join(", ") };
        writeln!(f, "subject      {}", self.subject)?;
        writeln!(f, "for          {}", self.role)?;
        writeln!(f, "spiffe id    {}", list(&self.spiffe_ids))?;
        writeln!(f, "names        {}", list(&self.names))?;
        writeln!(f, "valid from   {}", format_system_time(self.not_before))?;
        writeln!(f, "valid to     {}", format_system_time(self.not_after))?;
        writeln!(f, "issuer       {}", self.issuer)?;
        writeln!(f, "serial       {}", self.serial)?;
        write!(f, "fingerprint  sha256:{}", self.fingerprint)
    }
}

/// Describes one certificate. Nothing is verified.
///
/// # Errors
/// When it does not parse.
pub fn describe(certificate: &CertificateDer<'_>) -> Result<Description, Error> {
    describe_at(certificate, "question")
}

/// Describes every certificate in a PEM file, in its order.
///
/// # Errors
/// When the file cannot be read, holds no certificate, or one does not parse.
pub fn describe_file(path: &Path) -> Result<Vec<Description>, Error> {
    let content = files::read(path, "give a PEM file such as chain.pem")?;
    let sections: Vec<CertificateDer<'static>> = files::sections(path, &content, "certificate")?;
    let place = path.display().to_string();
    sections.iter().map(|der| describe_at(der, &place)).collect()
}

fn describe_at(der: &CertificateDer<'_>, place: &str) -> Result<Description, Error> {
    let certificate = parse(der, place)?;
    let validity = certificate.validity();
    let fingerprint = sha256(der).iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Description {
        subject: certificate.subject().to_string(),
        issuer: certificate.issuer().to_string(),
        spiffe_ids: uri_names(&certificate, place)?
            .into_iter()
            .map(|uri| uri.escape_debug().to_string())
            .collect(),
        names: host_names(&certificate),
        not_before: system_time(validity.not_before),
        not_after: system_time(validity.not_after),
        serial: certificate.raw_serial_as_string(),
        fingerprint,
        role: role_of(&certificate, place)?,
    })
}

fn host_names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else { return Vec::new() };
    let names = extension.value.general_names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(name.escape_debug().to_string()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|ip| Ipv4Addr::from(ip).to_string()),
            _ => <[u8; 16]>::try_from(*bytes).ok().map(|ip| Ipv6Addr::from(ip).to_string()),
        },
        _ => None,
    });
    names.collect()
}

pub(crate) fn role_of(certificate: &X509Certificate<'_>, place: &str) -> Result<Role, Error> {
    if certificate.is_ca() {
        return Ok(Role::Authority);
    }
    let usage = certificate
        .extended_key_usage()
        .map_err(|error| Error::MalformedCertificate { place: place.into(), why: error.to_string() })?;
    // No extended key usage at all would allow everything: a certificate that was not made for us.
    Ok(match usage.map(|usage| (usage.value.client_auth, usage.value.server_auth)) {
        Some((true, true)) => Role::Both,
        Some((true, false)) => Role::Exporter,
        Some((false, true)) => Role::Importer,
        Some((false, false)) | None => Role::Other,
    })
}

/// Times before 1970 count as 1970: nothing of ours is that old.
pub(crate) fn system_time(time: ASN1Time) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(time.timestamp()).unwrap_or(0))
}

pub(crate) fn format_time(time: ASN1Time) -> String {
    let t = time.to_datetime();
    let (year, month, day) = (t.year(), u8::from(t.month()), t.day());
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02} UTC", t.hour(), t.minute(), t.second())
}

fn format_system_time(time: SystemTime) -> String {
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let time = i64::try_from(seconds).ok().and_then(|seconds| ASN1Time::from_timestamp(seconds).ok());
    time.map_or_else(|| "a year beyond 9999".to_owned(), format_time)
}

fn sha256(bytes: &[u8]) -> Vec<u8> {
    use rustls::crypto::{aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256, hash::Hash};
    let suite = TLS13_AES_128_GCM_SHA256.tls13().expect("a TLS 1.3 suite");
    let hash: &dyn Hash = suite.common.hash_provider;
    hash.hash(bytes).as_ref().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fingerprint_is_sha_256() {
        // FIPS 180-2, appendix B.1.
        let hex: String = sha256(b"abc").iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn times_are_utc_and_readable() {
        let time = ASN1Time::from_timestamp(1_614_816_000).unwrap();
        assert_eq!(format_time(time), "2021-03-04 00:00:00 UTC");
        assert_eq!(format_system_time(system_time(time)), "2021-03-04 00:00:00 UTC");
    }
}
