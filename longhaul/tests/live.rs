//! The commands that ask what is running.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, UdpSocket},
    path::Path,
    process::{Command, Stdio},
};

use certs::{Authority, Identity, Kind, Validity};
use link::{Listener, Settings};

const IMPORTER: &str = "spiffe://example.org/importer/cloud";

struct Run {
    code: i32,
    out: String,
    err: String,
}

fn longhaul(arguments: &[&str]) -> Run {
    let output =
        Command::new(env!("CARGO_BIN_EXE_longhaul")).args(arguments).stdin(Stdio::null()).output().unwrap();
    Run {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Identities of both ends in `edge` and `cloud`.
fn identities(folder: &Path, importer_names: &[String]) {
    let authority = Authority::create(&folder.join("ca"), "Test").unwrap();
    for (name, kind, id, names) in [
        ("edge", Kind::Exporter, "spiffe://example.org/exporter/edge", [].as_slice()),
        ("cloud", Kind::Importer, IMPORTER, importer_names),
    ] {
        let id = id.parse().unwrap();
        authority.issue(&folder.join(name), kind, &id, names, Validity::for_days(1)).unwrap();
    }
}

fn check(folder: &Path, address: &str, identity: &str) -> Run {
    let config = folder.join("edge-exporter.toml");
    let dir = folder.join("edge");
    // Other keys are there and play no part.
    let text = format!(
        "link = \"l\"\n[kafka]\nbootstrap = \"x:1\"\n[importer]\naddress = [{address:?}]\nidentity = {identity:?}\n\
         [tls]\ndir = {dir:?}\n"
    );
    fs::write(&config, text).unwrap();
    longhaul(&["check", "link", "--config", config.to_str().unwrap()])
}

fn importer(folder: &Path) -> (tokio::runtime::Runtime, Listener) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let identity = Identity::load(&folder.join("cloud")).unwrap();
    let any = "127.0.0.1:0".parse().unwrap();
    let listener = runtime.block_on(Listener::bind(any, &identity, Settings::default())).unwrap();
    (runtime, listener)
}

#[test]
fn the_way_to_a_running_importer_is_free() {
    let folder = tempfile::tempdir().unwrap();
    identities(folder.path(), &["127.0.0.1".to_owned()]);
    let (_runtime, listener) = importer(folder.path());
    let run = check(folder.path(), &listener.local_addr().to_string(), IMPORTER);
    assert_eq!(run.code, 0, "{}{}", run.out, run.err);
    for part in [
        "answers QUIC",
        "UDP packets of 1452 bytes pass",
        "is spiffe://example.org/importer/cloud",
        "socket buffers",
    ] {
        assert!(run.out.contains(part), "{part} in:\n{}", run.out);
    }
}

#[test]
fn a_wrong_certificate_is_told_from_a_path_that_is_blocked() {
    let folder = tempfile::tempdir().unwrap();
    identities(folder.path(), &["importer.example".to_owned()]);
    let (_runtime, listener) = importer(folder.path());
    let address = listener.local_addr().to_string();
    let run = check(folder.path(), &address, IMPORTER);
    assert_eq!(run.code, 1, "{}", run.out);
    assert!(run.out.contains("answers QUIC") && run.out.contains("FAILED handshake"), "{}", run.out);
}

#[test]
fn a_host_where_nothing_listens_is_told_from_one_that_is_silent() {
    let folder = tempfile::tempdir().unwrap();
    identities(folder.path(), &["127.0.0.1".to_owned()]);
    let nobody = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let run = check(folder.path(), &nobody, IMPORTER);
    assert_eq!(run.code, 1);
    assert!(run.out.contains("nothing listens on this UDP port"), "{}", run.out);
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let run = check(folder.path(), &silent.local_addr().unwrap().to_string(), IMPORTER);
    assert_eq!(run.code, 1);
    assert!(
        run.out.contains("though the host is there") && run.out.contains("is blocked on the way"),
        "{}",
        run.out
    );
}

#[test]
fn a_check_without_a_sound_configuration_touches_nothing() {
    let folder = tempfile::tempdir().unwrap();
    identities(folder.path(), &["127.0.0.1".to_owned()]);
    let run = longhaul(&["check", "link", "--config", "/nowhere.toml"]);
    assert!(run.code == 64 && run.err.contains("/nowhere.toml"), "{}", run.err);
    let run = check(folder.path(), "127.0.0.1:1", "nobody");
    assert!(run.code == 64 && run.err.contains("importer.identity"), "{}", run.err);
    let run = check(folder.path(), "127.0.0.1", IMPORTER);
    assert!(run.code == 64 && run.err.contains("`importer.address[0]`"), "{}", run.err);
    fs::remove_file(folder.path().join("edge/key.pem")).unwrap();
    let run = check(folder.path(), "127.0.0.1:1", IMPORTER);
    assert!(run.code == 1 && run.out.contains("FAILED own certificate"), "{}", run.out);
}

/// Answers one request with `code` and `body`.
fn admin(code: &'static str, body: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 1024];
        let length = stream.read(&mut request).unwrap();
        assert!(request[..length].starts_with(b"GET /api/status HTTP/1.1\r\n"));
        write!(stream, "HTTP/1.1 {code}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
    });
    address
}

#[test]
fn a_status_is_for_people_or_as_it_is() {
    let body = r#"{"link":"fra","instance":"i","session":7,"importer":"127.0.0.1:1","audit_healthy":true,"partitions":[]}"#;
    let run = longhaul(&["status", "--admin", &admin("200 OK", body)]);
    assert!(run.code == 0 && run.out.contains("7 with 127.0.0.1:1"), "{}{}", run.out, run.err);
    let run = longhaul(&["status", "--json", "--admin", &format!("http://{}/", admin("200 OK", body))]);
    assert_eq!((run.code, run.out.trim_end()), (0, body));
    let alone = r#"{"link":"fra","instance":"i","session":null,"last_failure":"no answer","partitions":[]}"#;
    let run = longhaul(&["status", "--admin", &admin("200 OK", alone)]);
    assert!(run.code == 2 && run.out.contains("NONE: no answer"), "{}", run.out);
}

#[test]
fn a_status_that_cannot_be_had_says_where_it_was_asked() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    for (address, words) in [
        (nobody, "is the program running"),
        (admin("404 Not Found", ""), "with 404"),
        (admin("200 OK", "hello"), "did not answer with a status"),
        (admin("200 OK", "{}"), "not as an exporter or an importer"),
    ] {
        let run = longhaul(&["status", "--admin", &address]);
        assert!(run.code == 1 && run.err.contains(words) && run.err.contains(&address), "{}", run.err);
    }
}
