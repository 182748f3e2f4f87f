//! SPIFFE ids: who a certificate speaks for.
//!
//! Format: SPIFFE-ID specification, section 2. Parsing is strict: what is not a SPIFFE id to the letter is refused, so
//! that two spellings never mean one peer.

use std::{fmt, str::FromStr, sync::Arc};

use rustls::pki_types::CertificateDer;
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer, X509Certificate},
};

use crate::Error;

/// `spiffe://trust-domain/path`, as in `spiffe://example.org/exporter/fra`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId(Arc<str>);

impl SpiffeId {
    /// The whole id.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part between `spiffe://` and the path.
    pub fn trust_domain(&self) -> &str {
        self.split().0
    }

    /// The path with its leading `/`.
    pub fn path(&self) -> &str {
        self.split().1
    }

    fn split(&self) -> (&str, &str) {
        let rest = &self.0[SCHEME.len()..];
        rest.split_at(rest.find('/').expect("parsing demands a path"))
    }
}

impl FromStr for SpiffeId {
    type Err = InvalidSpiffeId;

    fn from_str(text: &str) -> Result<Self, InvalidSpiffeId> {
        let invalid = |why| {
            // A peer chose this text: keep what is logged of it short.
            let shown: String = text.chars().take(MAX_SHOWN).collect();
            InvalidSpiffeId { text: shown.escape_debug().to_string(), why }
        };
        if text.len() > MAX_LENGTH {
            return Err(invalid("longer than 2048 bytes"));
        }
        let rest = text.strip_prefix(SCHEME).ok_or_else(|| invalid("it must start with spiffe://"))?;
        let (domain, path) = rest.split_once('/').ok_or_else(|| invalid("it has no path"))?;
        if domain.is_empty() || domain.len() > MAX_DOMAIN_LENGTH {
            return Err(invalid("its trust domain must have 1 to 255 characters"));
        }
        if !domain.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_')) {
            return Err(invalid("its trust domain may hold only a-z, 0-9, `.`, `-` and `_`"));
        }
        for segment in path.split('/') {
            if segment.is_empty() {
                return Err(invalid("its path has an empty segment"));
            }
            if segment == "." || segment == ".." {
                return Err(invalid("its path has a relative segment"));
            }
            if !segment.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_')) {
                return Err(invalid("its path may hold only letters, digits, `.`, `-` and `_`"));
            }
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text that is not a SPIFFE id, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a SPIFFE id: {why} (as in spiffe://example.org/exporter/fra)")]
pub struct InvalidSpiffeId {
    text: String,
    why: &'static str,
}

/// The one SPIFFE id of the peer that presented `chain`, end entity first.
///
/// The chain must have been verified already: this reads a name and trusts nothing.
///
/// # Errors
/// When there is no certificate, it does not parse, or it has none, several or an invalid URI name. Several are
/// refused even when one of them is the expected one: a certificate speaks for one party.
pub fn peer_spiffe_id(chain: &[CertificateDer<'_>]) -> Result<SpiffeId, Error> {
    let first = chain.first().ok_or_else(|| Error::NoSpiffeId { place: PEER.into() })?;
    let certificate = parse(first, PEER)?;
    spiffe_id_of(&certificate, PEER)
}

/// Parses DER; anything behind the certificate is an error.
pub(crate) fn parse<'a>(der: &'a [u8], place: &str) -> Result<X509Certificate<'a>, Error> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) => Err(malformed(place, "bytes after its end")),
        Err(error) => Err(malformed(place, &error.to_string())),
    }
}

/// The URI names of a certificate.
pub(crate) fn uri_names<'a>(
    certificate: &'a X509Certificate<'_>,
    place: &str,
) -> Result<Vec<&'a str>, Error> {
    let extension =
        certificate.subject_alternative_name().map_err(|error| malformed(place, &error.to_string()))?;
    let names = extension.map_or(&[][..], |extension| &extension.value.general_names);
    let mut uris = Vec::new();
    for name in names {
        match name {
            GeneralName::URI(uri) => uris.push(*uri),
            // A name we cannot read could be the second URI: refuse to guess.
            GeneralName::Invalid(..) => return Err(malformed(place, "an alternative name cannot be read")),
            _ => {}
        }
    }
    Ok(uris)
}

pub(crate) fn spiffe_id_of(certificate: &X509Certificate<'_>, place: &str) -> Result<SpiffeId, Error> {
    let uris = uri_names(certificate, place)?;
    match uris[..] {
        [] => Err(Error::NoSpiffeId { place: place.into() }),
        [uri] => uri.parse().map_err(|source| Error::InvalidSpiffeId { place: place.into(), source }),
        _ => {
            let names: String = uris.join(" ").chars().take(MAX_SHOWN).collect();
            Err(Error::SeveralSpiffeIds {
                place: place.into(),
                count: uris.len(),
                names: names.escape_debug().to_string(),
            })
        }
    }
}

fn malformed(place: &str, why: &str) -> Error {
    Error::MalformedCertificate { place: place.into(), why: why.into() }
}

const SCHEME: &str = "spiffe://";
const PEER: &str = "peer";
/// SPIFFE-ID specification, 2.3.
const MAX_LENGTH: usize = 2048;
const MAX_DOMAIN_LENGTH: usize = 255;
const MAX_SHOWN: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spiffe_id_comes_back_as_it_was_written() {
        let id: SpiffeId = "spiffe://example.org/exporter/fra-1_a.b".parse().unwrap();
        assert_eq!(id.to_string(), "spiffe://example.org/exporter/fra-1_a.b");
        assert_eq!((id.trust_domain(), id.path()), ("example.org", "/exporter/fra-1_a.b"));
    }

    #[test]
    fn whatever_is_not_a_spiffe_id_to_the_letter_is_refused() {
        for (text, why) in [
            ("", "start with"),
            ("SPIFFE://example.org/a", "start with"),
            ("https://example.org/a", "start with"),
            ("spiffe://example.org", "no path"),
            ("spiffe:///a", "trust domain must have"),
            ("spiffe://Example.org/a", "trust domain may hold"),
            ("spiffe://example.org:443/a", "trust domain may hold"),
            ("spiffe://me@example.org/a", "trust domain may hold"),
            ("spiffe://ex\u{430}mple.org/a", "trust domain may hold"),
            ("spiffe://example.org/", "empty segment"),
            ("spiffe://example.org/a/", "empty segment"),
            ("spiffe://example.org//a", "empty segment"),
            ("spiffe://example.org/a/../b", "relative segment"),
            ("spiffe://example.org/a?b", "path may hold"),
            ("spiffe://example.org/a#b", "path may hold"),
            ("spiffe://example.org/a%2fb", "path may hold"),
            ("spiffe://example.org/a b", "path may hold"),
        ] {
            let error = text.parse::<SpiffeId>().unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
        let long = format!("spiffe://example.org/{}", "a".repeat(2048));
        assert!(long.parse::<SpiffeId>().unwrap_err().to_string().len() < 400);
    }

    #[test]
    fn a_peer_without_a_certificate_has_no_name() {
        assert!(matches!(peer_spiffe_id(&[]), Err(Error::NoSpiffeId { .. })));
        assert!(matches!(peer_spiffe_id(&[vec![0; 9].into()]), Err(Error::MalformedCertificate { .. })));
    }
}
