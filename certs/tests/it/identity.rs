//! Everything that can be wrong with an identity has an error of its own, and its message shows the way out.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, time::SystemTime};

use crate::forge::{AWS, DAY, FRA, Forge, exporter, importer, set_mode, uri, write_identity};
use certs::{Authority, Error, Identity, Kind, Role, SpiffeId, Validity};
use longhaul_certs as certs;
use rcgen::{CertificateRevocationListParams, ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, SanType};
use tempfile::TempDir;

fn id(text: &str) -> SpiffeId {
    text.parse().unwrap()
}

/// An authority in `ca`, an exporter in `fra`, an importer in `aws`.
fn issued() -> (TempDir, Authority) {
    let dir = TempDir::new().unwrap();
    let authority = Authority::create(&dir.path().join("ca"), "test").unwrap();
    let days = Validity::for_days(30);
    authority.issue(&dir.path().join("fra"), Kind::Exporter, &id(FRA), &[], days).unwrap();
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    authority.issue(&dir.path().join("aws"), Kind::Importer, &id(AWS), &names, days).unwrap();
    (dir, authority)
}

/// The error of loading an exporter whose certificate was changed before it was signed.
fn forged(change: impl FnOnce(&mut rcgen::CertificateParams)) -> Error {
    let dir = TempDir::new().unwrap();
    Forge::new("forge").identity(dir.path(), change);
    Identity::load(dir.path()).unwrap_err()
}

/// The error of loading a sound exporter whose folder was changed.
fn spoilt(change: impl FnOnce(&Path)) -> Error {
    let (dir, _authority) = issued();
    change(&dir.path().join("fra"));
    Identity::load(&dir.path().join("fra")).unwrap_err()
}

#[track_caller]
fn assert_says(error: &Error, parts: &[&str]) {
    let text = error.to_string();
    for part in parts {
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
}

#[test]
fn an_issued_identity_loads_and_knows_who_it_is() {
    let (dir, _authority) = issued();
    let exporter = Identity::load(&dir.path().join("fra")).unwrap();
    assert_eq!((exporter.spiffe_id(), exporter.role()), (&id(FRA), Role::Exporter));
    assert!(exporter.client_config().is_ok());
    let importer = Identity::load(&dir.path().join("aws")).unwrap();
    assert_eq!((importer.spiffe_id(), importer.role()), (&id(AWS), Role::Importer));
    assert!(importer.server_config().is_ok());
    let left = importer.not_after().duration_since(SystemTime::now()).unwrap();
    assert!(left > 29 * DAY && left <= 30 * DAY, "{left:?}");
    assert_eq!(certs::peer_spiffe_id(importer.chain()).unwrap(), id(AWS));
    assert!(!importer.checks_revocation());
}

#[test]
fn an_exporter_cannot_listen_and_an_importer_cannot_dial() {
    let (dir, _authority) = issued();
    let error = Identity::load(&dir.path().join("fra")).unwrap().server_config().unwrap_err();
    assert!(matches!(error, Error::WrongPurpose { found: Role::Exporter, wanted: Role::Importer, .. }));
    assert_says(&error, &["chain.pem", "is for an exporter, not for an importer"]);
    let error = Identity::load(&dir.path().join("aws")).unwrap().client_config().unwrap_err();
    assert!(matches!(error, Error::WrongPurpose { found: Role::Importer, wanted: Role::Exporter, .. }));
}

#[test]
fn keys_are_written_for_their_owner_only() {
    let (dir, _authority) = issued();
    for key in ["fra/key.pem", "aws/key.pem", "ca/ca-key.pem"] {
        let mode = fs::metadata(dir.path().join(key)).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600, "{key}");
    }
    let left: Vec<_> =
        fs::read_dir(dir.path().join("fra")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 3, "a temporary file was left: {left:?}");
}

#[test]
fn nothing_prints_a_key() {
    let (dir, authority) = issued();
    let identity = Identity::load(&dir.path().join("fra")).unwrap();
    let key = fs::read_to_string(dir.path().join("fra/key.pem")).unwrap();
    let line = key.lines().nth(1).unwrap();
    assert!(!format!("{identity:?} {authority:?}").contains(line));
    assert!(format!("{identity:?}").contains(FRA));
}

#[test]
fn a_key_that_others_can_read_is_refused_and_the_cure_is_named() {
    for mode in [0o640, 0o604, 0o644, 0o660] {
        let error = spoilt(|dir| set_mode(&dir.join("key.pem"), mode));
        assert!(matches!(error, Error::KeyExposed { mode: found, .. } if found == mode), "{error}");
        assert_says(&error, &["chmod 600", "key.pem"]);
    }
}

#[test]
fn each_missing_file_is_named() {
    for file in ["key.pem", "chain.pem", "roots.pem"] {
        let error = spoilt(|dir| fs::remove_file(dir.join(file)).unwrap());
        assert!(matches!(error, Error::Missing { .. }), "{error}");
        assert_says(&error, &[file, "does not exist", "longhaul certs issue"]);
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    // A folder in its place: unlike a mode, that stops even a privileged user.
    for file in ["chain.pem", "roots.pem", "crl.pem"] {
        let error = spoilt(|dir| {
            let _ = fs::remove_file(dir.join(file));
            fs::create_dir(dir.join(file)).unwrap();
        });
        assert!(matches!(error, Error::Unreadable { .. }), "{error}");
        assert_says(&error, &["cannot read", file]);
    }
}

#[test]
fn a_file_that_is_not_pem_is_named_with_what_was_wanted() {
    for (file, wanted) in
        [("key.pem", "private key"), ("chain.pem", "certificate"), ("crl.pem", "revocation list")]
    {
        let error = spoilt(|dir| {
            fs::write(dir.join(file), "hello").unwrap();
            set_mode(&dir.join(file), 0o600);
        });
        assert!(matches!(error, Error::NotPem { .. }), "{error}");
        assert_says(&error, &[file, wanted]);
    }
}

#[test]
fn a_torn_file_is_damaged_and_not_merely_short() {
    let error = spoilt(|dir| {
        let whole = fs::read_to_string(dir.join("chain.pem")).unwrap();
        fs::write(dir.join("chain.pem"), &whole[..whole.len() / 2]).unwrap();
    });
    assert!(matches!(error, Error::Malformed { .. }), "{error}");
    assert_says(&error, &["chain.pem", "is damaged"]);
}

#[test]
fn a_certificate_that_does_not_parse_is_refused() {
    let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let error = spoilt(|dir| fs::write(dir.join("chain.pem"), garbage).unwrap());
    assert!(matches!(error, Error::Malformed { .. } | Error::MalformedCertificate { .. }), "{error}");
    assert_says(&error, &["chain.pem"]);
    let error = spoilt(|dir| fs::write(dir.join("roots.pem"), garbage).unwrap());
    assert!(matches!(error, Error::MalformedCertificate { .. }), "{error}");
    assert_says(&error, &["roots.pem"]);
    let garbage = garbage.replace("CERTIFICATE", "X509 CRL");
    let error = spoilt(|dir| fs::write(dir.join("crl.pem"), garbage).unwrap());
    assert!(matches!(error, Error::Malformed { .. }), "{error}");
}

#[test]
fn a_key_that_cannot_sign_is_refused() {
    let garbage = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    let error = spoilt(|dir| fs::write(dir.join("key.pem"), garbage).unwrap());
    assert!(matches!(error, Error::UnusableKey { .. }), "{error}");
    let error = spoilt(|dir| {
        let key = fs::read_to_string(dir.join("key.pem")).unwrap();
        fs::write(dir.join("key.pem"), key.clone() + &key).unwrap();
    });
    assert_says(&error, &["2 private keys"]);
}

#[test]
fn the_key_of_another_certificate_is_refused() {
    let error = spoilt(|dir| {
        fs::write(dir.join("key.pem"), KeyPair::generate().unwrap().serialize_pem()).unwrap();
    });
    assert!(matches!(error, Error::KeyMismatch { .. }), "{error}");
    assert_says(&error, &["key.pem", "chain.pem", "is not the key of"]);
}

#[test]
fn an_expired_certificate_says_when() {
    let error = forged(|params| {
        params.not_before = rcgen::date_time_ymd(2020, 3, 4);
        params.not_after = rcgen::date_time_ymd(2021, 3, 4);
    });
    assert!(matches!(error, Error::Expired { .. }), "{error}");
    assert_says(&error, &["expired at 2021-03-04 00:00:00 UTC", "issue a new one"]);
}

#[test]
fn a_certificate_of_the_future_points_to_the_clock() {
    let error = forged(|params| {
        params.not_before = rcgen::date_time_ymd(2999, 1, 2);
        params.not_after = rcgen::date_time_ymd(3000, 1, 2);
    });
    assert!(matches!(error, Error::NotYetValid { .. }), "{error}");
    assert_says(&error, &["not valid before 2999-01-02", "clock"]);
}

#[test]
fn exactly_one_spiffe_id_is_taken() {
    let error = forged(|params| params.subject_alt_names.clear());
    assert!(matches!(error, Error::NoSpiffeId { .. }), "{error}");
    let error = forged(|params| params.subject_alt_names = vec![SanType::DnsName("fra".try_into().unwrap())]);
    assert!(matches!(error, Error::NoSpiffeId { .. }), "{error}");
    let error = forged(|params| params.subject_alt_names.push(uri("spiffe://example.org/exporter/other")));
    assert!(matches!(error, Error::SeveralSpiffeIds { count: 2, .. }), "{error}");
    assert_says(&error, &["exporter/fra", "exporter/other"]);
    // Also when only one of them is a SPIFFE id, and when both are the same.
    let error = forged(|params| params.subject_alt_names.push(uri("https://example.org/")));
    assert!(matches!(error, Error::SeveralSpiffeIds { count: 2, .. }), "{error}");
    let error = forged(|params| params.subject_alt_names.push(uri(FRA)));
    assert!(matches!(error, Error::SeveralSpiffeIds { count: 2, .. }), "{error}");
    for invalid in ["https://example.org/exporter", "spiffe://Example.org/x", "spiffe://example.org"] {
        let error = forged(|params| params.subject_alt_names = vec![uri(invalid)]);
        assert!(matches!(error, Error::InvalidSpiffeId { .. }), "{error}");
        assert_says(&error, &[invalid, "chain.pem"]);
    }
}

#[test]
fn a_certificate_for_another_purpose_is_refused() {
    for usages in [vec![], vec![ExtendedKeyUsagePurpose::CodeSigning]] {
        let error = forged(|params| params.extended_key_usages = usages);
        assert!(matches!(error, Error::WrongPurpose { found: Role::Other, .. }), "{error}");
    }
    let error = forged(|params| params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained));
    assert!(matches!(error, Error::WrongPurpose { found: Role::Authority, .. }), "{error}");
}

#[test]
fn roots_that_trust_nobody_are_refused() {
    for content in ["", "no certificate here\n"] {
        let error = spoilt(|dir| fs::write(dir.join("roots.pem"), content).unwrap());
        assert!(matches!(error, Error::RootsEmpty { .. }), "{error}");
        assert_says(&error, &["roots.pem", "no certificate authority"]);
    }
    let error = spoilt(|dir| assert!(fs::copy(dir.join("chain.pem"), dir.join("roots.pem")).is_ok()));
    assert!(matches!(error, Error::RootUnusable { .. }), "{error}");
    assert_says(&error, &["roots.pem", "cannot be a certificate authority"]);
}

#[test]
fn what_was_put_in_place_of_a_key_or_a_certificate_is_said_as_it_is() {
    let key_as = |content: &'static str| spoilt(move |dir| fs::write(dir.join("key.pem"), content).unwrap());
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIHe\n-----END ENCRYPTED PRIVATE KEY-----\n";
    assert_says(&key_as(encrypted), &["key.pem is encrypted", "without a passphrase"]);
    assert_says(&key_as("-----BEGIN PRIVATE KEY-----\nMIHe\n"), &["key.pem", "private key is cut off"]);
    assert_says(&key_as("0\u{1}binary"), &["holds no PEM private key", "-----BEGIN"]);
    let folder = spoilt(|dir| {
        fs::remove_file(dir.join("key.pem")).unwrap();
        fs::create_dir(dir.join("key.pem")).unwrap();
    });
    assert_says(&folder, &["cannot read", "is a directory"]);
}

#[test]
fn a_stale_revocation_list_is_refused_before_it_refuses_everybody() {
    let dir = TempDir::new().unwrap();
    let forge = Forge::new("forge");
    forge.identity(dir.path(), importer);
    let list = CertificateRevocationListParams {
        this_update: rcgen::date_time_ymd(2020, 1, 1),
        next_update: rcgen::date_time_ymd(2020, 2, 1),
        crl_number: 1_u64.into(),
        issuing_distribution_point: None,
        revoked_certs: Vec::new(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    fs::write(dir.path().join("crl.pem"), list.signed_by(&forge.issuer).unwrap().pem().unwrap()).unwrap();
    let error = Identity::load(dir.path()).unwrap_err();
    assert!(matches!(error, Error::StaleRevocationList { .. }), "{error}");
    assert_says(&error, &["crl.pem", "2020-02-01"]);
}

#[test]
fn an_authority_opens_again_and_is_never_overwritten() {
    let (dir, _authority) = issued();
    let ca = dir.path().join("ca");
    let again = Authority::open(&ca).unwrap();
    let out = dir.path().join("later");
    again.issue(&out, Kind::Exporter, &id(FRA), &[], Validity::for_days(1)).unwrap();
    let importer = Identity::load(&dir.path().join("aws")).unwrap();
    importer.check_exporter(Identity::load(&out).unwrap().chain()).unwrap();

    assert_says(&Authority::create(&out, "in an identity").unwrap_err(), &["folder of an identity"]);
    let error = Authority::create(&ca, "again").unwrap_err();
    assert!(matches!(error, Error::AlreadyExists { .. }), "{error}");
    assert_says(&Authority::open(&dir.path().join("none")).unwrap_err(), &["ca-key.pem", "certs init"]);
    set_mode(&ca.join("ca-key.pem"), 0o644);
    assert!(matches!(Authority::open(&ca), Err(Error::KeyExposed { .. })));
    set_mode(&ca.join("ca-key.pem"), 0o600);
    fs::write(ca.join("ca-key.pem"), KeyPair::generate().unwrap().serialize_pem()).unwrap();
    assert!(matches!(Authority::open(&ca), Err(Error::KeyMismatch { .. })));
}

#[test]
fn a_request_that_makes_no_sense_is_refused() {
    let (dir, authority) = issued();
    let out = dir.path().join("out");
    let issue = |kind, names: &[&str], validity| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        authority.issue(&out, kind, &id(AWS), &names, validity).unwrap_err()
    };
    let days = Validity::for_days(1);
    assert_says(&issue(Kind::Importer, &[], days), &["at least one DNS name"]);
    assert_says(&issue(Kind::Importer, &["not a name"], days), &["`not a name`"]);
    let backwards = Validity { not_before: days.not_after, not_after: days.not_before };
    assert_says(&issue(Kind::Exporter, &[], backwards), &["ends before it begins"]);
    assert!(!out.exists(), "nothing is written for a refused request");
    let own = authority.issue(&dir.path().join("ca"), Kind::Exporter, &id(FRA), &[], days).unwrap_err();
    assert_says(&own, &["folder of an authority"]);
    assert!(!dir.path().join("ca/key.pem").exists());
}

#[test]
fn a_revoked_identity_is_not_trusted_and_its_neighbour_is() {
    let (dir, authority) = issued();
    authority.issue(&dir.path().join("ber"), Kind::Exporter, &id(FRA), &[], Validity::for_days(1)).unwrap();
    let importer = || {
        fs::copy(authority.crl_path(), dir.path().join("aws/crl.pem")).unwrap();
        Identity::load(&dir.path().join("aws")).unwrap()
    };
    let chain = |name| Identity::load(&dir.path().join(name)).unwrap().chain().to_vec();
    assert!(importer().checks_revocation());
    importer().check_exporter(&chain("fra")).unwrap();
    authority.revoke(&dir.path().join("fra/chain.pem")).unwrap();
    let error = importer().check_exporter(&chain("fra")).unwrap_err();
    assert_says(&error, &["revoked"]);
    importer().check_exporter(&chain("ber")).unwrap();
    // A second revocation and a renewal keep the first.
    authority.revoke(&dir.path().join("ber/chain.pem")).unwrap();
    authority.renew_crl().unwrap();
    for name in ["fra", "ber"] {
        assert_says(&importer().check_exporter(&chain(name)).unwrap_err(), &["revoked"]);
    }
    let foreign = TempDir::new().unwrap();
    Forge::new("forge").identity(foreign.path(), |_| {});
    assert_says(
        &authority.revoke(&foreign.path().join("chain.pem")).unwrap_err(),
        &["which is not this authority"],
    );
    // One of the same name, with another key.
    let (other, _authority) = issued();
    assert_says(
        &authority.revoke(&other.path().join("fra/chain.pem")).unwrap_err(),
        &["which is not this authority", "--ca"],
    );
}

#[test]
fn a_live_peer_can_be_checked_again() {
    let (dir, _authority) = issued();
    let exporter = Identity::load(&dir.path().join("fra")).unwrap();
    let importer = Identity::load(&dir.path().join("aws")).unwrap();
    exporter.check_importer(importer.chain(), "localhost").unwrap();
    exporter.check_importer(importer.chain(), "127.0.0.1").unwrap();
    exporter.check_importer(importer.chain(), "::1").unwrap();
    let error = exporter.check_importer(importer.chain(), "other.example").unwrap_err();
    assert_says(&error, &["other.example", "localhost"]);
    assert_says(&importer.check_exporter(importer.chain()).unwrap_err(), &["another purpose"]);
    assert_says(&importer.check_exporter(&[]).unwrap_err(), &["presented none"]);
    let stranger = TempDir::new().unwrap();
    Forge::new("forge").identity(stranger.path(), |_| {});
    let stranger = Identity::load(stranger.path()).unwrap();
    assert_says(&importer.check_exporter(stranger.chain()).unwrap_err(), &["not in roots.pem"]);
}

#[test]
fn a_certificate_is_described_for_people() {
    let (dir, _authority) = issued();
    let described = certs::describe_file(&dir.path().join("aws/chain.pem")).unwrap();
    let [importer] = &described[..] else { panic!("{described:?}") };
    assert_eq!(importer.spiffe_ids, [AWS]);
    assert_eq!(importer.names, ["localhost", "127.0.0.1", "::1"]);
    assert_eq!(importer.role, Role::Importer);
    assert_eq!(importer.fingerprint.len(), 64);
    let text = importer.to_string();
    for part in ["importer/aws", "an importer", "valid to", "CN=test", "sha256:"] {
        assert!(text.contains(part), "`{part}` is not in:\n{text}");
    }
    let roots = certs::describe_file(&dir.path().join("aws/roots.pem")).unwrap();
    assert_eq!(roots[0].role, Role::Authority);
    assert!(matches!(certs::describe_file(&dir.path().join("none.pem")), Err(Error::Missing { .. })));
    assert!(matches!(certs::describe_file(&dir.path().join("aws/key.pem")), Err(Error::NotPem { .. })));
}

#[test]
fn an_intermediate_that_ends_first_is_what_counts() {
    let dir = TempDir::new().unwrap();
    let root = Forge::new("root");
    let mut params = exporter(FRA);
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
    params.not_after = (SystemTime::now() + DAY / 2).into();
    let key = KeyPair::generate().unwrap();
    let middle = params.signed_by(&key, &root.issuer).unwrap().pem();
    let issuer = rcgen::Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let leaf = exporter(FRA).signed_by(&key, &issuer).unwrap().pem();
    write_identity(dir.path(), &key.serialize_pem(), &(leaf + &middle), &root.pem);
    let identity = Identity::load(dir.path()).unwrap();
    assert!(identity.not_after().duration_since(SystemTime::now()).unwrap() <= DAY / 2);
}

#[test]
fn a_reload_tells_whether_anything_changed() {
    let (dir, authority) = issued();
    let folder = dir.path().join("aws");
    let load = || Identity::load(&folder).unwrap();
    let first = load();
    assert!(first == load());
    fs::copy(authority.crl_path(), folder.join("crl.pem")).unwrap();
    let with_crl = load();
    assert!(with_crl != first);
    let more_roots = fs::read_to_string(folder.join("roots.pem")).unwrap() + &Forge::new("second").pem;
    fs::write(folder.join("roots.pem"), more_roots).unwrap();
    let with_roots = load();
    assert!(with_roots != with_crl);
    authority.issue(&folder, Kind::Importer, &id(AWS), &["localhost".into()], Validity::for_days(2)).unwrap();
    assert!(load() != with_roots);
}
