//! Who gets in, who does not, and that those who do not harm nobody.

use std::{fs, net::UdpSocket, time::Duration};

use certs::{Authority, Identity, Kind};
use link::{DialError, Dialer, Error, Listener, Settings};
use longhaul_link as link;
use tokio::time::{Instant, sleep, timeout};

use crate::{
    relay::Relay,
    world::{AWS, FRA, PATIENCE, World, accept, dial_error, id, issue, local, meet, parcel, preface},
};

#[tokio::test(flavor = "multi_thread")]
async fn an_importer_of_another_name_gets_no_data() {
    let world = World::new();
    let listener = world.listen(Settings::default()).await;
    let address = listener.local_addr().to_string();
    let elsewhere = "spiffe://example.org/importer/elsewhere";
    let dialer = Dialer::new(&world.exporter, id(elsewhere), Settings::default()).unwrap();
    match dial_error(&dialer, &address).await {
        DialError::WrongIdentity { expected, got, .. } => {
            assert_eq!((expected, &got[..]), (id(elsewhere), AWS))
        }
        other => panic!("{other}"),
    }
    // Either the handshake was not even finished there, or it was and nothing came of it.
    if let Ok(connection) = accept(&listener).await {
        assert!(connection.accept_control().await.is_err() && connection.accept_lane().await.is_err());
        assert!(connection.closed().await.contains("wrong identity"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_importer_with_two_names_gets_no_data() {
    // The authority never issues that: any certificate that the exporter's roots trust could carry it.
    let world = World::new();
    let ca_key = fs::read_to_string(world.folder("ca").join("ca-key.pem")).unwrap();
    let ca = fs::read_to_string(world.folder("ca").join("ca.pem")).unwrap();
    let issuer = rcgen::Issuer::from_ca_cert_pem(&ca, rcgen::KeyPair::from_pem(&ca_key).unwrap()).unwrap();
    let mut params =
        rcgen::CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    for name in [AWS, "spiffe://example.org/importer/other"] {
        params.subject_alt_names.push(rcgen::SanType::URI(name.try_into().unwrap()));
    }
    params.extended_key_usages =
        vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth, rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let key = rcgen::KeyPair::generate().unwrap();
    let chain = vec![params.signed_by(&key, &issuer).unwrap().der().clone()];
    let key = || rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();

    let mut tls = world.importer.server_config().unwrap();
    let two_faced =
        rustls::sign::CertifiedKey::from_der(chain.clone(), key(), tls.crypto_provider()).unwrap();
    let two_faced = std::sync::Arc::new(rustls::sign::SingleCertAndKey::from(two_faced));
    tls.cert_resolver = two_faced.clone();
    let tls = quinn::crypto::rustls::QuicServerConfig::try_from(tls).unwrap();
    let config = quinn::ServerConfig::with_crypto(std::sync::Arc::new(tls));
    let server = quinn::Endpoint::server(config, local()).unwrap();
    let address = server.local_addr().unwrap().to_string();
    let serving = tokio::spawn(async move {
        let connection = server.accept().await.unwrap().await.unwrap();
        connection.accept_bi().await.is_err()
    });
    match dial_error(&world.dialer(Settings::default()), &address).await {
        DialError::WrongIdentity { got, .. } => assert!(got.contains("2 URI names"), "{got}"),
        other => panic!("{other}"),
    }
    assert!(serving.await.unwrap(), "a stream was opened towards it");

    // And an exporter with two names.
    let listener = world.listen(Settings::default()).await;
    let mut tls = world.exporter.client_config().unwrap();
    tls.client_auth_cert_resolver = two_faced;
    let (connection, refused) = tokio::join!(world.raw(tls, listener.local_addr()), accept(&listener));
    let refused = refused.expect_err("two names are no name");
    assert!(refused.reason.contains("2 URI names") && refused.proven, "{refused:?}");
    drop(connection);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_is_refused_in_words_at_both_ends() {
    let world = World::new();
    let listener = world.listen(Settings::default()).await;
    let address = listener.local_addr().to_string();
    let strangers = Authority::create(&world.folder("strangers"), "strangers").unwrap();
    issue(&strangers, world.folder("stranger"), Kind::Exporter, FRA);
    let ours = fs::read(world.folder("fra").join("roots.pem")).unwrap();
    fs::write(world.folder("stranger").join("roots.pem"), ours).unwrap();
    let stranger = Identity::load(&world.folder("stranger")).unwrap();
    let dialer = Dialer::new(&stranger, id(AWS), Settings::default()).unwrap();
    let (error, refused) = tokio::join!(dial_error(&dialer, &address), accept(&listener));
    assert!(matches!(error, DialError::Certificate { .. }) && !error.is_transient(), "{error:?}");
    assert!(
        error.to_string().contains("our certificate comes from an authority it does not know"),
        "{error}"
    );
    let refused = refused.unwrap_err();
    assert!(refused.reason.contains("an authority that is not in roots.pem"), "{refused:?}");
    assert!(refused.proven && refused.remote.ip().is_loopback());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_importer_of_another_authority_or_host_name_is_refused_in_words() {
    let world = World::new();
    let strangers = Authority::create(&world.folder("strangers"), "strangers").unwrap();
    let stranger = issue(&strangers, world.folder("stranger"), Kind::Importer, AWS);
    let listener = Listener::bind(local(), &stranger, Settings::default()).await.unwrap();
    let dialer = world.dialer(Settings::default());
    let error = dial_error(&dialer, &listener.local_addr().to_string()).await;
    assert!(matches!(error, DialError::Certificate { .. }), "{error:?}");
    assert!(error.to_string().contains("its certificate comes from an authority"), "{error}");
    // The listener hears of it too.
    let refused = accept(&listener).await.unwrap_err();
    assert!(refused.reason.contains("our certificate comes from an authority"), "{refused:?}");

    world
        .authority
        .issue(
            &world.folder("other"),
            Kind::Importer,
            &id(AWS),
            &["elsewhere.example".into()],
            certs::Validity::for_days(1),
        )
        .unwrap();
    let other = Identity::load(&world.folder("other")).unwrap();
    let listener = Listener::bind(local(), &other, Settings::default()).await.unwrap();
    let error = dial_error(&dialer, &listener.local_addr().to_string()).await.to_string();
    assert!(error.contains("certificate is not acceptable") && error.contains("127.0.0.1"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_certificate_and_another_protocol_are_refused_with_the_reason() {
    let world = World::new();
    let listener = world.listen(Settings::default()).await;
    let mut other_protocol = world.exporter.client_config().unwrap();
    other_protocol.alpn_protocols = vec![b"h3".to_vec()];
    let mut anonymous = world.exporter.client_config().unwrap();
    anonymous.client_auth_cert_resolver = std::sync::Arc::new(NoCertificate);
    for (tls, reason) in
        [(other_protocol, "does not speak longhaul/1"), (anonymous, "presented no certificate")]
    {
        let (_connection, refused) = tokio::join!(world.raw(tls, listener.local_addr()), accept(&listener));
        let refused = refused.unwrap_err();
        assert!(refused.reason.contains(reason), "{refused:?}");
    }
}

#[derive(Debug)]
struct NoCertificate;

impl rustls::client::ResolvesClientCert for NoCertificate {
    fn resolve(
        &self,
        _hints: &[&[u8]],
        _schemes: &[rustls::SignatureScheme],
    ) -> Option<std::sync::Arc<rustls::sign::CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_nobody_answers_says_what_to_look_at() {
    let world = World::new();
    let settings = Settings { first_attempt: Duration::from_millis(300), ..Settings::default() };
    let dialer = world.dialer(settings);
    let deaf = UdpSocket::bind(local()).unwrap();
    let begun = Instant::now();
    let error = dial_error(&dialer, &deaf.local_addr().unwrap().to_string()).await;
    assert!(matches!(error, DialError::Timeout { .. }) && error.is_transient(), "{error:?}");
    assert!(error.to_string().contains("does UDP pass"), "{error}");
    assert!(begun.elapsed() >= Duration::from_millis(300));
    let error = dial_error(&dialer, "importer.invalid:7443").await;
    assert!(matches!(error, DialError::Dns { .. }), "{error:?}");
    assert!(matches!(dial_error(&dialer, "importer").await, DialError::Address { .. }));
    assert!(matches!(dial_error(&dialer, "a b:1").await, DialError::Dns { .. } | DialError::Address { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_with_several_addresses_is_reached_where_somebody_answers() {
    let world = World::new();
    let listener = world.listen(Settings::default()).await;
    let dialer = world.dialer(Settings::default());
    // `localhost` is often ::1 first, where nobody listens.
    let address = format!("localhost:{}", listener.local_addr().port());
    let (dialled, accepted) = tokio::join!(dialer.dial(&address), accept(&listener));
    let (dialled, accepted) = (dialled.unwrap(), accepted.unwrap());
    assert_eq!(dialled.peer(), &id(AWS));
    for end in [dialled, accepted] {
        let handshake = end.handshake();
        assert_eq!(
            (&handshake.protocol[..], handshake.server_name.as_deref()),
            ("longhaul/1", Some("localhost"))
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_wrong_kind_of_identity_cannot_dial_or_listen() {
    let world = World::new();
    let error = Dialer::new(&world.importer, id(AWS), Settings::default()).unwrap_err();
    assert!(matches!(error, Error::Identity(certs::Error::WrongPurpose { .. })), "{error}");
    let error = Listener::bind(local(), &world.exporter, Settings::default()).await.unwrap_err();
    assert!(matches!(error, Error::Identity(certs::Error::WrongPurpose { .. })), "{error}");
    let taken = world.listen(Settings::default()).await;
    let error = Listener::bind(taken.local_addr(), &world.importer, Settings::default()).await.unwrap_err();
    assert!(matches!(error, Error::Socket { .. }), "{error}");
    assert!(error.to_string().contains(&taken.local_addr().to_string()), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn unfinished_handshakes_do_not_hold_up_others_and_end_in_time() {
    let world = World::new();
    // They try for longer than the importer waits.
    let (handshake, first_attempt) = (Duration::from_secs(1), Duration::from_secs(4));
    let settings = Settings { handshake, first_attempt, retry_above: 100, ..Settings::default() };
    let listener = world.listen(settings.clone()).await;
    // Exporters that never hear the importer's answer: the importer waits for them to go on.
    let deaf = Relay::to(listener.local_addr(), Duration::ZERO).await;
    deaf.mute_target();
    let mut unfinished = Vec::new();
    for _ in 0..20 {
        let dialer = world.dialer(settings.clone());
        let to = deaf.address.to_string();
        unfinished.push(tokio::spawn(async move { dialer.dial(&to).await.map(drop) }));
    }
    while deaf.forwarded() < 20 {
        sleep(Duration::from_millis(10)).await;
    }
    let (exporter, importer) = meet(&world.dialer(settings), listener.local_addr(), &listener).await;
    drop((exporter, importer));
    for _ in 0..20 {
        let refused = accept(&listener).await.unwrap_err();
        assert!(refused.reason.contains("not finished within 1 s"), "{refused:?}");
        assert!(!refused.proven, "an address that never answered is not proven");
    }
    for task in unfinished {
        assert!(matches!(task.await.unwrap(), Err(DialError::Timeout { .. })));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_above_the_bound_are_refused_until_there_is_room() {
    let world = World::new();
    let settings = Settings {
        handshake: Duration::from_secs(1),
        max_pending: 4,
        retry_above: 100,
        ..Settings::default()
    };
    let listener = world.listen(settings.clone()).await;
    let deaf = Relay::to(listener.local_addr(), Duration::ZERO).await;
    deaf.mute_target();
    let mut unfinished = Vec::new();
    for _ in 0..4 {
        let dialer = world.dialer(settings.clone());
        let to = deaf.address.to_string();
        unfinished.push(tokio::spawn(async move { dialer.dial(&to).await.map(drop) }));
    }
    let dialer = world.dialer(settings);
    let address = listener.local_addr().to_string();
    // The four are on their way: dial until all of them have arrived.
    let error = timeout(PATIENCE, async {
        loop {
            match dialer.dial(&address).await {
                Ok(_) => sleep(Duration::from_millis(5)).await,
                Err(error) => return error,
            }
        }
    });
    let error = error.await.unwrap();
    assert!(matches!(error, DialError::Refused { .. }) && error.is_transient(), "{error:?}");
    assert!(error.to_string().contains("takes no connection now"), "{error}");
    let refused = loop {
        if let Err(refused) = accept(&listener).await {
            break refused;
        }
    };
    assert!(refused.reason.contains("4 handshakes are pending"), "{refused:?}");
    for task in unfinished {
        assert!(task.await.unwrap().is_err());
    }
    let room = timeout(PATIENCE, async {
        while dialer.dial(&address).await.is_err() {
            sleep(Duration::from_millis(50)).await;
        }
    });
    room.await.expect("there is room again");
}

#[tokio::test(flavor = "multi_thread")]
async fn under_load_an_exporter_proves_its_address_and_gets_in() {
    let world = World::new();
    let settings = Settings { retry_above: 0, ..Settings::default() };
    let listener = world.listen(settings.clone()).await;
    let (exporter, importer) = meet(&world.dialer(settings), listener.local_addr(), &listener).await;
    assert_eq!((exporter.peer(), importer.peer()), (&id(AWS), &id(FRA)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_garbage_harms_nobody() {
    let world = World::new();
    let (listener, exporter, importer) = world.joined(Settings::default()).await;
    let target = listener.local_addr();
    let flood = tokio::task::spawn_blocking(move || {
        let socket = UdpSocket::bind(local()).unwrap();
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for round in 0..5000_usize {
            let mut packet: Vec<u8> = (0..(round * 7) % 1400 + 1)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (state >> 56) as u8
                })
                .collect();
            if round % 3 == 0 {
                // A long header of QUIC version 1: an Initial of nonsense.
                packet[0] = 0xc3;
                packet.splice(1..1, [0, 0, 0, 1, 8]);
                packet.resize(packet.len().max(1200), 0);
            }
            // A full buffer drops it: as good.
            let _ = socket.send_to(&packet, target);
        }
    });
    let sending = async {
        let mut lane = exporter.open_lane(preface(0)).await.unwrap();
        for sequence in 0..50 {
            let (header, body) = parcel(sequence, 100_000);
            lane.send(&header, body).await.unwrap();
        }
        lane.finish().unwrap();
    };
    let receiving = async {
        let mut lane = importer.accept_lane().await.unwrap();
        let mut count = 0;
        while let Some(got) = lane.recv().await.unwrap() {
            assert!(got == parcel(count, 100_000));
            count += 1;
        }
        assert_eq!(count, 50);
    };
    timeout(PATIENCE, async { tokio::join!(sending, receiving) }).await.unwrap();
    flood.await.unwrap();
    let dialer = world.dialer(Settings::default());
    let to = target.to_string();
    let fresh = timeout(PATIENCE, async { while dialer.dial(&to).await.is_err() {} });
    fresh.await.expect("a fresh exporter gets in");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_exporter_is_refused_anew_and_found_while_connected() {
    let world = World::new();
    let (listener, exporter, importer) = world.joined(Settings::default()).await;
    world.authority.revoke(&world.folder("fra").join("chain.pem")).unwrap();
    fs::copy(world.authority.crl_path(), world.folder("aws").join("crl.pem")).unwrap();
    let reloaded = Identity::load(&world.folder("aws")).unwrap();
    importer.check_peer(&world.importer).unwrap();
    let error = importer.check_peer(&reloaded).unwrap_err();
    assert!(error.to_string().contains("revoked"), "{error}");
    exporter.check_peer(&world.exporter).unwrap();

    listener.replace_identity(&reloaded).unwrap();
    assert!(!importer.is_closed(), "a live connection is for its owner to close");
    let dialer = world.dialer(Settings::default());
    let address = listener.local_addr().to_string();
    let (error, refused) = tokio::join!(dial_error(&dialer, &address), accept(&listener));
    assert!(error.to_string().contains("our certificate is revoked"), "{error}");
    assert!(refused.unwrap_err().reason.contains("its certificate is revoked"));
    // A new certificate of the same name, without a restart.
    dialer.replace_identity(&issue(&world.authority, world.folder("new"), Kind::Exporter, FRA)).unwrap();
    meet(&dialer, listener.local_addr(), &listener).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_listener_tells_its_peers_and_ends() {
    let world = World::new();
    let (listener, exporter, _importer) = world.joined(Settings::default()).await;
    let (reason, ()) = tokio::join!(exporter.closed(), listener.close());
    assert_eq!(reason, "closed by the peer: done: the importer stops");
    assert!(timeout(PATIENCE, listener.accept()).await.unwrap().is_none());
}
