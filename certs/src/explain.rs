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
        AlertDescription::DecryptError => {
            "a signature in the handshake did not verify: our certificate is badly signed, or from another authority of the \
             same name"
        }
        other => return format!("TLS alert {} ({other:?})", u8::from(other)),
    };
    words.into()
}

/// A TLS alert sent by us, in words: what we hold against the peer. `detail` is the library's own text.
pub fn explain_own_alert(alert: u8, detail: &str) -> String {
    let words = match AlertDescription::from(alert) {
        AlertDescription::CertificateExpired => "its certificate is expired or not valid yet",
        AlertDescription::CertificateRevoked => "its certificate is revoked",
        AlertDescription::UnknownCA => "its certificate comes from an authority that is not in roots.pem",
        AlertDescription::CertificateRequired => "it presented no certificate",
        AlertDescription::BadCertificate => "its certificate is not acceptable",
        AlertDescription::UnsupportedCertificate => "its certificate is for another purpose",
        AlertDescription::NoApplicationProtocol => "it does not speak longhaul/1",
        AlertDescription::ProtocolVersion => "it speaks no TLS 1.3",
        AlertDescription::HandshakeFailure => "it shares no key exchange or cipher with us",
        AlertDescription::DecryptError => {
            "its certificate is badly signed, or from another authority of the same name"
        }
        other => return format!("TLS alert {} ({other:?}): {detail}", u8::from(other)),
    };
    if detail.is_empty() { words.into() } else { format!("{words} ({detail})") }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_side_refuses_reads_the_same_at_both_ends() {
        let cases = [
            (CertificateError::Expired, "expired"),
            (CertificateError::NotValidYet, "not valid yet"),
            (CertificateError::Revoked, "revoked"),
            (CertificateError::UnknownIssuer, "authority"),
        ];
        for (error, word) in cases {
            let alert = u8::from(AlertDescription::from(error.clone()));
            let error = Error::InvalidCertificate(error);
            let own = explain_own_alert(alert, &error.to_string());
            assert!(explain(&error).contains(word), "{}", explain(&error));
            assert!(own.contains(word) && own.starts_with("its certificate"), "{own}");
            let theirs = explain_alert(alert).replace("yet valid", "valid yet");
            assert!(theirs.contains(word) && theirs.starts_with("our certificate"), "{theirs}");
        }
    }

    #[test]
    fn an_unknown_alert_keeps_its_number() {
        assert!(explain_alert(200).contains("200"));
        assert!(explain_own_alert(80, "why").contains("80") && explain_own_alert(80, "why").contains("why"));
    }
}
