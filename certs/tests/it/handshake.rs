//! Handshakes in memory: the right two understand each other, and every hostile variant is refused in words.

use std::{fs, path::Path, sync::Arc};

use certs::{ALPN, Authority, Identity, KeyExchange, Kind, Validity, explain};
use longhaul_certs as certs;
use rustls::{
    ClientConfig, ClientConnection, Error, HandshakeKind, NamedGroup, RootCertStore, ServerConfig,
    ServerConnection,
    client::{Resumption, WebPkiServerVerifier},
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tempfile::TempDir;

use crate::forge::{AWS, FRA, Forge, importer};

struct Pair {
    forge: Forge,
    dir: TempDir,
    exporter: Identity,
    importer: Identity,
}

fn pair() -> Pair {
    let dir = TempDir::new().unwrap();
    let forge = Forge::new("forge");
    let exporter = made(&forge, &dir.path().join("exporter"), |_| {});
    let importer = made(&forge, &dir.path().join("importer"), importer);
    Pair { forge, dir, exporter, importer }
}

fn made(forge: &Forge, dir: &Path, change: impl FnOnce(&mut rcgen::CertificateParams)) -> Identity {
    forge.identity(dir, change);
    Identity::load(dir).unwrap()
}

#[derive(Debug)]
enum Refusal {
    ByExporter(Error),
    ByImporter(Error),
}

/// Carries bytes to and fro until both sides are done or one refuses.
fn handshake(
    client: impl Into<Arc<ClientConfig>>,
    server: impl Into<Arc<ServerConfig>>,
) -> Result<(ClientConnection, ServerConnection), Refusal> {
    let mut client = ClientConnection::new(client.into(), "localhost".try_into().unwrap()).unwrap();
    let mut server = ServerConnection::new(server.into()).unwrap();
    for _ in 0..4 {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            server.process_new_packets().map_err(Refusal::ByImporter)?;
        }
        let mut bytes = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets().map_err(Refusal::ByExporter)?;
        }
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    Ok((client, server))
}

#[track_caller]
fn importer_refuses(client: impl Into<Arc<ClientConfig>>, server: ServerConfig, words: &str) {
    match handshake(client, server) {
        Err(Refusal::ByImporter(error)) => assert!(explain(&error).contains(words), "{}", explain(&error)),
        other => panic!("not refused by the importer: {other:?}"),
    }
}

#[track_caller]
fn exporter_refuses(client: ClientConfig, server: impl Into<Arc<ServerConfig>>, words: &str) {
    match handshake(client, server) {
        Err(Refusal::ByExporter(error)) => assert!(explain(&error).contains(words), "{}", explain(&error)),
        other => panic!("not refused by the exporter: {other:?}"),
    }
}

fn roots(forge: &Forge) -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(forge.pem.as_bytes()).unwrap()).unwrap();
    Arc::new(roots)
}

fn default_provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

#[test]
fn the_right_two_understand_each_other() {
    let Pair { exporter, importer, .. } = pair();
    let (client, server) =
        handshake(exporter.client_config().unwrap(), importer.server_config().unwrap()).unwrap();
    assert_eq!(client.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    assert_eq!((client.alpn_protocol(), server.alpn_protocol()), (Some(ALPN), Some(ALPN)));
    let group = client.negotiated_key_exchange_group().unwrap().name();
    assert_eq!(group, NamedGroup::X25519MLKEM768);
    assert_eq!(certs::peer_spiffe_id(client.peer_certificates().unwrap()).unwrap().as_str(), AWS);
    assert_eq!(certs::peer_spiffe_id(server.peer_certificates().unwrap()).unwrap().as_str(), FRA);
}

#[test]
fn what_the_authority_issues_understands_each_other_under_its_revocation_list() {
    let dir = TempDir::new().unwrap();
    let authority = Authority::create(&dir.path().join("ca"), "test").unwrap();
    let (fra, aws) = (dir.path().join("fra"), dir.path().join("aws"));
    let days = Validity::for_days(2);
    authority.issue(&fra, Kind::Exporter, &FRA.parse().unwrap(), &[], days).unwrap();
    authority.issue(&aws, Kind::Importer, &AWS.parse().unwrap(), &["localhost".into()], days).unwrap();
    let configs = || {
        for folder in [&fra, &aws] {
            fs::copy(authority.crl_path(), folder.join("crl.pem")).unwrap();
        }
        let (exporter, importer) = (Identity::load(&fra).unwrap(), Identity::load(&aws).unwrap());
        (exporter.client_config().unwrap(), importer.server_config().unwrap())
    };
    let (client, server) = configs();
    handshake(client, server).unwrap();
    authority.revoke(&fra.join("chain.pem")).unwrap();
    let (client, server) = configs();
    importer_refuses(client, server, "its certificate is revoked");
    authority.revoke(&aws.join("chain.pem")).unwrap();
    let (client, server) = configs();
    exporter_refuses(client, server, "its certificate is revoked");
}

#[test]
fn another_authority_is_refused_by_both_sides() {
    let Pair { exporter, importer, dir, .. } = pair();
    let stranger = Forge::new("stranger");
    // They trust us and we do not trust them: the roots of the pair go into the strangers' folders.
    let ours = fs::read_to_string(dir.path().join("exporter/roots.pem")).unwrap();
    let load = |name: &str, change: fn(&mut rcgen::CertificateParams)| {
        let folder = dir.path().join(name);
        stranger.identity(&folder, change);
        fs::write(folder.join("roots.pem"), &ours).unwrap();
        Identity::load(&folder).unwrap()
    };
    let strange_exporter = load("strange-exporter", |_| {});
    let strange_importer = load("strange-importer", crate::forge::importer);
    let server = importer.server_config().unwrap();
    importer_refuses(strange_exporter.client_config().unwrap(), server, "not in roots.pem");
    let server = strange_importer.server_config().unwrap();
    exporter_refuses(exporter.client_config().unwrap(), server, "not in roots.pem");
}

#[test]
fn an_authority_of_the_same_name_is_still_another_one() {
    let Pair { importer, dir, .. } = pair();
    let namesake = made(&Forge::new("forge"), &dir.path().join("namesake"), |_| {});
    let ours = fs::read_to_string(dir.path().join("importer/roots.pem")).unwrap();
    fs::write(dir.path().join("namesake/roots.pem"), ours).unwrap();
    let client = Identity::load(&dir.path().join("namesake")).unwrap().client_config().unwrap();
    assert_eq!(namesake.spiffe_id().as_str(), FRA);
    importer_refuses(client, importer.server_config().unwrap(), "badly signed, or from another authority");
}

#[test]
fn an_expired_certificate_is_refused_by_both_sides() {
    let Pair { forge, exporter, importer, dir } = pair();
    // An identity that expired cannot be loaded: its holder does not use our loader.
    let expired = |name: &str, change: fn(&mut rcgen::CertificateParams)| {
        let folder = dir.path().join(name);
        forge.identity(&folder, |params| {
            change(params);
            params.not_before = rcgen::date_time_ymd(2020, 1, 1);
            params.not_after = rcgen::date_time_ymd(2021, 1, 1);
        });
        let chain = CertificateDer::pem_file_iter(folder.join("chain.pem")).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::from_pem_file(folder.join("key.pem")).unwrap();
        (chain.collect::<Result<Vec<_>, _>>().unwrap(), key)
    };
    let (chain, key) = expired("old-exporter", |_| {});
    let verifier =
        WebPkiServerVerifier::builder_with_provider(roots(&forge), default_provider()).build().unwrap();
    let mut client = ClientConfig::builder_with_provider(default_provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_webpki_verifier(verifier)
        .with_client_auth_cert(chain, key)
        .unwrap();
    client.alpn_protocols = vec![ALPN.to_vec()];
    importer_refuses(client, importer.server_config().unwrap(), "its certificate is expired");

    let (chain, key) = expired("old-importer", crate::forge::importer);
    let verifier =
        WebPkiClientVerifier::builder_with_provider(roots(&forge), default_provider()).build().unwrap();
    let mut server = ServerConfig::builder_with_provider(default_provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .unwrap();
    server.alpn_protocols = vec![ALPN.to_vec()];
    exporter_refuses(exporter.client_config().unwrap(), server, "its certificate is expired");
}

/// A client that trusts the importer and has no certificate of its own.
fn anonymous(forge: &Forge) -> ClientConfig {
    let verifier =
        WebPkiServerVerifier::builder_with_provider(roots(forge), default_provider()).build().unwrap();
    let mut client = ClientConfig::builder_with_provider(default_provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_webpki_verifier(verifier)
        .with_no_client_auth();
    client.alpn_protocols = vec![ALPN.to_vec()];
    client
}

#[test]
fn an_exporter_without_a_certificate_is_refused() {
    let Pair { forge, importer, .. } = pair();
    importer_refuses(anonymous(&forge), importer.server_config().unwrap(), "it presented no certificate");
}

#[test]
fn another_application_protocol_is_refused() {
    let Pair { exporter, importer, .. } = pair();
    let mut client = exporter.client_config().unwrap();
    client.alpn_protocols = vec![b"h3".to_vec()];
    importer_refuses(client, importer.server_config().unwrap(), "does not speak longhaul/1");
}

#[test]
fn a_certificate_for_another_purpose_is_refused_by_both_sides() {
    let Pair { forge, exporter, importer, dir } = pair();
    let both = |name: &str| {
        made(&forge, &dir.path().join(name), |params| {
            crate::forge::importer(params);
            params.extended_key_usages.push(rcgen::ExtendedKeyUsagePurpose::ClientAuth);
        })
    };
    // The right keys under the wrong certificates: what a stolen exporter would try as an importer.
    let resolver = rustls::sign::SingleCertAndKey::from(certified(&dir.path().join("exporter")));
    let mut server = both("both").server_config().unwrap();
    server.cert_resolver = Arc::new(resolver);
    exporter_refuses(exporter.client_config().unwrap(), server, "another purpose");
    let resolver = rustls::sign::SingleCertAndKey::from(certified(&dir.path().join("importer")));
    let mut client = both("both").client_config().unwrap();
    client.client_auth_cert_resolver = Arc::new(resolver);
    importer_refuses(client, importer.server_config().unwrap(), "another purpose");
}

fn certified(dir: &Path) -> rustls::sign::CertifiedKey {
    let chain = CertificateDer::pem_file_iter(dir.join("chain.pem")).unwrap().collect::<Result<Vec<_>, _>>();
    let key = rustls::pki_types::PrivateKeyDer::from_pem_file(dir.join("key.pem")).unwrap();
    rustls::sign::CertifiedKey::from_der(chain.unwrap(), key, &default_provider()).unwrap()
}

#[test]
fn an_importer_of_another_name_is_refused() {
    let Pair { forge, exporter, dir, .. } = pair();
    let other = made(&forge, &dir.path().join("other"), |params| {
        importer(params);
        params.subject_alt_names.truncate(1);
        params.subject_alt_names.push(rcgen::SanType::DnsName("elsewhere.example".try_into().unwrap()));
    });
    let server = other.server_config().unwrap();
    exporter_refuses(exporter.client_config().unwrap(), server, "not for localhost but for");
}

#[test]
fn a_tls_1_2_peer_is_refused() {
    let Pair { importer, .. } = pair();
    let mut server = ServerConnection::new(Arc::new(importer.server_config().unwrap())).unwrap();
    let hello = tls12_client_hello();
    server.read_tls(&mut &hello[..]).unwrap();
    let error = server.process_new_packets().unwrap_err();
    assert!(matches!(error, Error::PeerIncompatible(_)), "{error}");
    assert!(explain(&error).contains("speaks no TLS 1.3"), "{}", explain(&error));
}

/// A ClientHello as of RFC 5246, without the extension in which a TLS 1.3 client names its versions.
fn tls12_client_hello() -> Vec<u8> {
    let mut extensions = Vec::new();
    extensions.extend([0, 10, 0, 4, 0, 2, 0, 23]); // supported_groups: P-256
    extensions.extend([0, 11, 0, 2, 1, 0]); // ec_point_formats: uncompressed
    extensions.extend([0, 13, 0, 4, 0, 2, 4, 3]); // signature_algorithms: ecdsa_secp256r1_sha256
    let mut body = vec![3, 3];
    body.extend([7; 32]); // random
    body.push(0); // session id
    body.extend([0, 2, 0xc0, 0x2b]); // ECDHE-ECDSA-AES128-GCM-SHA256
    body.extend([1, 0]); // no compression
    body.extend((extensions.len() as u16).to_be_bytes());
    body.extend(extensions);
    let mut message = vec![1, 0];
    message.extend((body.len() as u16).to_be_bytes());
    message.extend(body);
    let mut record = vec![22, 3, 1];
    record.extend((message.len() as u16).to_be_bytes());
    record.extend(message);
    record
}

#[test]
fn no_session_is_ever_resumed_and_no_early_data_taken() {
    let Pair { exporter, importer, .. } = pair();
    // A client that would resume and send early data, and a server that remembers whatever ours would.
    let mut eager = exporter.client_config().unwrap();
    eager.resumption = Resumption::in_memory_sessions(16);
    eager.enable_early_data = true;
    let (eager, server) = (Arc::new(eager), Arc::new(importer.server_config().unwrap()));
    for _ in 0..2 {
        let mut fresh = ClientConnection::new(eager.clone(), "localhost".try_into().unwrap()).unwrap();
        assert!(fresh.early_data().is_none(), "a ticket was issued");
        let (client, server) = handshake(eager.clone(), server.clone()).unwrap();
        assert!(matches!(
            client.handshake_kind(),
            Some(HandshakeKind::Full | HandshakeKind::FullWithHelloRetryRequest)
        ));
        assert_eq!(client.handshake_kind(), server.handshake_kind());
        assert_eq!(client.tls13_tickets_received(), 0);
    }
    // And the other way round: our client keeps no ticket of a server that issues them.
    let mut generous = importer.server_config().unwrap();
    generous.send_tls13_tickets = 4;
    generous.session_storage = rustls::server::ServerSessionMemoryCache::new(16);
    generous.max_early_data_size = u32::MAX;
    let (client, generous) = (Arc::new(exporter.client_config().unwrap()), Arc::new(generous));
    for _ in 0..2 {
        let (used, _) = handshake(client.clone(), generous.clone()).unwrap();
        assert!(used.tls13_tickets_received() > 0, "the server should have issued tickets");
        assert_ne!(used.handshake_kind(), Some(HandshakeKind::Resumed));
    }
    assert!(!client.enable_early_data);
    assert_eq!(server.max_early_data_size, 0);
    assert_eq!(server.send_tls13_tickets, 0);
}

#[test]
fn strict_mode_takes_nothing_but_post_quantum_key_exchange() {
    let Pair { forge, exporter, importer, dir } = pair();
    let strict = importer.with_key_exchange(KeyExchange::PostQuantumOnly);
    handshake(exporter.client_config().unwrap(), strict.server_config().unwrap()).unwrap();
    let classical =
        CryptoProvider { kx_groups: vec![aws_lc_rs::kx_group::X25519], ..aws_lc_rs::default_provider() };
    let verifier =
        WebPkiServerVerifier::builder_with_provider(roots(&forge), default_provider()).build().unwrap();
    let key = certified(&dir.path().join("exporter"));
    let mut client = ClientConfig::builder_with_provider(Arc::new(classical))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_webpki_verifier(verifier)
        .with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(key)));
    client.alpn_protocols = vec![ALPN.to_vec()];
    let client = Arc::new(client);
    handshake(client.clone(), importer.server_config().unwrap()).unwrap();
    importer_refuses(client, strict.server_config().unwrap(), "shares no key exchange");
}
