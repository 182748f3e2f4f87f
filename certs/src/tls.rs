//! The rustls configurations of both sides, built by hand.
//!
//! The convenience constructors of rustls and quinn allow early data, keep 256 sessions and send tickets. A resumed
//! session does not look at the peer's certificate again and early data can be replayed, so all of it is off here.

use std::sync::{Arc, Once};

use rustls::{
    ClientConfig, NoKeyLog, RootCertStore, ServerConfig,
    client::{Resumption, WebPkiServerVerifier},
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer},
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
    version::TLS13,
};

use crate::Error;

/// The one application protocol of a link: a peer that speaks another is refused in the handshake.
pub const ALPN: &[u8] = proto::limits::ALPN;

/// Which key exchanges are offered and taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KeyExchange {
    /// X25519MLKEM768 first, then X25519 and P-256.
    #[default]
    Preferred,
    /// X25519MLKEM768 or nothing: what is recorded today cannot be read with a quantum computer later.
    PostQuantumOnly,
}

/// What a configuration is made of. `crls` empty: no revocation is checked.
pub(crate) struct Material<'a> {
    pub(crate) chain: &'a [CertificateDer<'static>],
    pub(crate) key: &'a PrivateKeyDer<'static>,
    pub(crate) roots: &'a Arc<RootCertStore>,
    pub(crate) crls: &'a [CertificateRevocationListDer<'static>],
    pub(crate) key_exchange: KeyExchange,
}

impl Material<'_> {
    pub(crate) fn client_config(&self) -> Result<ClientConfig, Error> {
        let failed = |error: rustls::Error| crypto("make the exporter's TLS configuration", &error);
        let mut config = ClientConfig::builder_with_provider(provider(self.key_exchange))
            .with_protocol_versions(&[&TLS13])
            .map_err(failed)?
            .with_webpki_verifier(self.server_verifier()?)
            .with_client_auth_cert(self.chain.to_vec(), self.key.clone_key())
            .map_err(failed)?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.enable_early_data = false;
        config.resumption = Resumption::disabled();
        config.key_log = Arc::new(NoKeyLog);
        Ok(config)
    }

    pub(crate) fn server_config(&self) -> Result<ServerConfig, Error> {
        let failed = |error: rustls::Error| crypto("make the importer's TLS configuration", &error);
        let mut config = ServerConfig::builder_with_provider(provider(self.key_exchange))
            .with_protocol_versions(&[&TLS13])
            .map_err(failed)?
            .with_client_cert_verifier(self.client_verifier()?)
            .with_single_cert(self.chain.to_vec(), self.key.clone_key())
            .map_err(failed)?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.max_early_data_size = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.send_half_rtt_data = false;
        config.key_log = Arc::new(NoKeyLog);
        Ok(config)
    }

    /// Verifies importers: chain, serverAuth, name, validity, revocation.
    pub(crate) fn server_verifier(&self) -> Result<Arc<WebPkiServerVerifier>, Error> {
        // Without revocation lists the two extra settings do nothing.
        WebPkiServerVerifier::builder_with_provider(Arc::clone(self.roots), provider(self.key_exchange))
            .with_crls(self.crls.iter().cloned())
            .enforce_revocation_expiration()
            .build()
            .map_err(|error| crypto("make the verifier of importers", &error))
    }

    /// Verifies exporters: chain, clientAuth, validity, revocation. No certificate, no connection.
    pub(crate) fn client_verifier(&self) -> Result<Arc<dyn ClientCertVerifier>, Error> {
        WebPkiClientVerifier::builder_with_provider(Arc::clone(self.roots), provider(self.key_exchange))
            .with_crls(self.crls.iter().cloned())
            .enforce_revocation_expiration()
            .build()
            .map_err(|error| crypto("make the verifier of exporters", &error))
    }
}

/// aws-lc-rs by name: never whatever another crate of the process installed as the default.
pub(crate) fn provider(key_exchange: KeyExchange) -> Arc<CryptoProvider> {
    use aws_lc_rs::kx_group::{SECP256R1, X25519, X25519MLKEM768};
    let kx_groups = match key_exchange {
        KeyExchange::Preferred => vec![X25519MLKEM768, X25519, SECP256R1],
        KeyExchange::PostQuantumOnly => vec![X25519MLKEM768],
    };
    Arc::new(CryptoProvider { kx_groups, ..aws_lc_rs::default_provider() })
}

/// Has the source of randomness seeded beside whatever goes on, once a process: AWS-LC takes 50 ms for that when it is
/// first asked, which would be in the first handshake.
pub(crate) fn seed_randomness() {
    static SEEDED: Once = Once::new();
    SEEDED.call_once(|| {
        std::thread::spawn(|| aws_lc_rs::default_provider().secure_random.fill(&mut [0]).is_ok());
    });
}

fn crypto(what: &'static str, error: &dyn std::error::Error) -> Error {
    Error::Crypto { what, why: error.to_string() }
}
