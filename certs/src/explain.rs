//! Failed handshakes in words an operator can act on.

use rustls::{AlertDescription, CertificateError, Error};

/// A failure on our own side of a handshake, in words.
pub fn explain(error: &Error) -> String {
    let words = match error {
        Error::InvalidCertificate(error) => return explain_certificate(error),
        Error::NoCertificatesPresented => "it presented no certificate",
        Error::NoApplicationProtocol => "it does not speak longhaul/1",
        Error::PeerIncompatible(_) => "it speaks no TLS 1.3 or shares no key exchange or cipher with us",
        Error::AlertReceived(alert) => return explain_alert(u8::from(*alert)),
        _ => return error.to_string(),
    };
    words.into()
}

/// A TLS alert sent by the peer, in words: what the peer holds against us. See RFC 8446, 6.2.
pub fn explain_alert(alert: u8) -> String {
    let words = match AlertDescription::from(alert) {
        AlertDescription::CertificateExpired => "our certificate is expired or not yet valid by its clock",
        AlertDescription::CertificateRevoked => "our certificate is revoked",
        AlertDescription::UnknownCA => "our certificate comes from an authority it does not know",
        AlertDescription::CertificateRequired => "we presented no certificate",
        AlertDescription::BadCertificate => {
            "our certificate is not acceptable: wrong name, damaged or badly signed"
        }
        AlertDescription::UnsupportedCertificate => "our certificate is for another purpose",
        AlertDescription::CertificateUnknown => {
            "our certificate is not acceptable, for a reason it does not name"
        }
        AlertDescription::AccessDenied => "it denies us access",
        AlertDescription::NoApplicationProtocol => "it does not speak longhaul/1",
        AlertDescription::ProtocolVersion => "it speaks another version of TLS",
        AlertDescription::HandshakeFailure => "we share no key exchange or cipher",
        AlertDescription::DecryptError => "a signature in the handshake did not verify",
        other => return format!("TLS alert {} ({other:?})", u8::from(other)),
    };
    words.into()
}

fn explain_certificate(error: &CertificateError) -> String {
    let words = match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "its certificate is expired",
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "its certificate is not valid yet: check both clocks"
        }
        CertificateError::Revoked => "its certificate is revoked",
        CertificateError::UnknownIssuer => "its certificate comes from an authority that is not in roots.pem",
        CertificateError::BadSignature => {
            "its certificate is badly signed, or from another authority of the same name"
        }
        CertificateError::UnknownRevocationStatus => "crl.pem has no revocation list of its authority",
        CertificateError::ExpiredRevocationList | CertificateError::ExpiredRevocationListContext { .. } => {
            "the revocation list of its authority in crl.pem is stale"
        }
        CertificateError::NotValidForName => "its certificate is for another host name",
        CertificateError::NotValidForNameContext { expected, presented } => {
            return format!(
                "its certificate is not for {} but for {}",
                expected.to_str(),
                if presented.is_empty() { "no name".into() } else { presented.join(", ") }
            );
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "its certificate is for another purpose (exporters need clientAuth, importers serverAuth)"
        }
        CertificateError::BadEncoding => "its certificate does not parse",
        other => return format!("its certificate is not acceptable: {other:?}"),
    };
    words.into()
}
