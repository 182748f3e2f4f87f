//! TLS towards servers that are no part of a link, such as a schema registry over https.

use std::{path::Path, sync::Arc};

use rustls::{ClientConfig, RootCertStore, pki_types::CertificateDer};

use crate::{Error, files, tls::provider};

/// A client without a certificate, TLS 1.3 or 1.2. It believes whom the authorities in the PEM file `ca` vouch for, or those
/// that this system trusts (`SSL_CERT_FILE` and `SSL_CERT_DIR` name others).
///
/// # Errors
/// The file cannot be read or used, or the system trusts nobody.
pub fn web_client(ca: Option<&Path>) -> Result<Arc<ClientConfig>, Error> {
    let roots = match ca {
        Some(path) => of_file(path)?,
        None => of_system()?,
    };
    let config = ClientConfig::builder_with_provider(provider(Default::default()))
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Crypto { what: "make a TLS configuration", why: error.to_string() })?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

fn of_file(path: &Path) -> Result<RootCertStore, Error> {
    let content =
        files::read(path, "name the PEM file of the authority that issued the server's certificate")?;
    let mut roots = RootCertStore::empty();
    for certificate in files::sections::<CertificateDer<'static>>(path, &content, "certificate")? {
        roots
            .add(certificate)
            .map_err(|error| Error::RootUnusable { path: path.into(), why: error.to_string() })?;
    }
    Ok(roots)
}

fn of_system() -> Result<RootCertStore, Error> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // One that cannot be used vouches for nobody; the others do.
    let (usable, _) = roots.add_parsable_certificates(found.certs);
    if usable > 0 {
        return Ok(roots);
    }
    let why = found.errors.first().map_or_else(|| "it has no certificates".to_owned(), ToString::to_string);
    Err(Error::NobodyTrusted { why })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_that_is_none_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        let words = |path: &Path| web_client(Some(path)).unwrap_err().to_string();
        assert!(words(&path).contains("ca.pem does not exist: name the PEM file"), "{}", words(&path));
        std::fs::write(&path, "nothing").unwrap();
        assert!(words(&path).contains("ca.pem holds no PEM certificate"), "{}", words(&path));
    }
}
