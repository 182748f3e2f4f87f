//! The two programs as an operator types them: `--version`, `--check`, and what is said of a wrong configuration.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::net::UdpSocket;
use std::path::Path;
use std::process::{Command, Output};

use longhaul_tests::bridge::{Exporter, Ground, Importer, LinkSettings, PATIENCE, binary, wait_until};

const PROGRAMS: [&str; 2] = ["edge-exporter", "cloud-importer"];

fn run(program: &str, arguments: &[&str]) -> Output {
    Command::new(binary(program)).args(arguments).output().unwrap()
}

fn check(program: &str, file: &Path) -> Output {
    run(program, &["--config", &file.display().to_string(), "--check"])
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Both configurations, written, for brokers that do not exist.
fn configurations(ground: &Ground) -> (Exporter, Importer) {
    let links = vec![LinkSettings::new("fra", &["orders"])];
    let mut importer = Importer::new(ground, "importer", "127.0.0.1:1", links);
    let mut exporter = Exporter::new(ground, "fra", "127.0.0.1:1", &importer.address(), &["orders"]);
    for properties in [&mut importer.properties, &mut exporter.properties] {
        properties.insert("sasl.password".to_owned(), "hunter2".to_owned());
    }
    exporter.write_config();
    importer.write_config();
    (exporter, importer)
}

#[test]
fn version_is_on_stdout_and_nothing_else() {
    for program in PROGRAMS {
        let output = run(program, &["--version"]);
        assert_eq!(output.status.code(), Some(0));
        assert_eq!(text(&output.stdout).trim(), format!("{program} {}", env!("CARGO_PKG_VERSION")));
        assert_eq!(text(&output.stderr), "");
    }
}

#[test]
fn check_prints_the_effective_configuration_with_secrets_hidden_and_touches_nothing() {
    let ground = Ground::new();
    let (exporter, importer) = configurations(&ground);
    // The port is taken: a check must not mind.
    let _taken = UdpSocket::bind(importer.address()).unwrap();
    for (program, file) in [(PROGRAMS[0], exporter.config_file()), (PROGRAMS[1], importer.config_file())] {
        let output = check(program, file);
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(0), "{err}");
        assert!(
            !out.contains("hunter2") && !err.contains("hunter2"),
            "{program} shows a password:\n{out}{err}"
        );
        assert!(out.contains("sasl.password") && out.contains("[audit]"), "{out}");
        // What it prints is a configuration again, but for the secret.
        let again = ground.path().join("again.toml");
        std::fs::write(&again, &out).unwrap();
        let output = check(program, &again);
        assert_eq!(output.status.code(), Some(0), "{}\n{out}", text(&output.stderr));
    }
    assert!(!exporter.audit_file().exists() && !importer.audit_file().exists(), "a check wrote an audit log");
}

#[test]
fn a_wrong_configuration_ends_with_64_and_names_file_key_and_line_before_anything_is_touched() {
    let ground = Ground::new();
    let (exporter, importer) = configurations(&ground);
    let file = ground.path().join("wrong.toml");
    for (program, toml, from, to, words) in [
        (PROGRAMS[0], exporter.toml(), "bootstrap =", "bootstap =", &["bootstap", "bootstrap"][..]),
        (PROGRAMS[0], exporter.toml(), "\"earliest\"", "\"erliest\"", &["topics.start", "earliest"]),
        (PROGRAMS[0], exporter.toml(), "spiffe://", "https://", &["importer.identity"]),
        (PROGRAMS[0], exporter.toml(), "[tls]", "[tls", &[""]),
        (PROGRAMS[0], exporter.toml(), "sasl.password", "sasl.pasword", &["sasl.pasword"]),
        (PROGRAMS[1], importer.toml(), "topics =", "topcis =", &["topcis", "topics"]),
        (PROGRAMS[1], importer.toml(), "lanes = 4", "lanes = 0", &["lanes"]),
        (PROGRAMS[1], importer.toml(), "listen = \"127", "listen = \"x127", &["listen"]),
    ] {
        assert!(toml.contains(from), "{from} is not in\n{toml}");
        let wrong = toml.replacen(from, to, 1);
        let line = 1 + toml[..toml.find(from).unwrap()].matches('\n').count();
        std::fs::write(&file, wrong).unwrap();
        for arguments in [vec!["--config", "FILE"], vec!["--config", "FILE", "--check"]] {
            let path = file.display().to_string();
            let arguments: Vec<&str> =
                arguments.into_iter().map(|it| if it == "FILE" { path.as_str() } else { it }).collect();
            let output = run(program, &arguments);
            let err = text(&output.stderr);
            assert_eq!(output.status.code(), Some(64), "{program} with {to:?}: {err}");
            assert!(
                err.contains(&format!("wrong.toml:{line}")),
                "no file and line {line} for {to:?} in {err:?}"
            );
            assert!(words.iter().all(|word| err.contains(word)), "not all of {words:?} in {err:?}");
            assert!(!err.contains("hunter2"), "{err}");
        }
    }
    assert!(!exporter.audit_file().exists() && !importer.audit_file().exists(), "an audit log was begun");
}

#[test]
fn wrong_usage_ends_with_64_and_says_what_is_right() {
    for program in PROGRAMS {
        for arguments in [&[][..], &["--confg", "x"], &["--config"]] {
            let output = run(program, arguments);
            assert_eq!(output.status.code(), Some(64), "{program} {arguments:?}: {}", text(&output.stderr));
            assert!(text(&output.stderr).contains("--config"), "{}", text(&output.stderr));
        }
        let output = run(program, &["--config", "/nowhere/at/all.toml"]);
        assert_eq!(output.status.code(), Some(64));
        assert!(text(&output.stderr).contains("/nowhere/at/all.toml"), "{}", text(&output.stderr));
    }
}

/// Starts a program that must end at once, as it was configured wrongly, and gives what it said. A check says it too.
fn refuses_to_start(program: &str, file: &Path) -> String {
    let checked = check(program, file);
    assert_eq!(
        checked.status.code(),
        Some(64),
        "{program}: a check finds nothing: {}",
        text(&checked.stdout)
    );
    assert!(!checked.stderr.is_empty() && checked.stdout.is_empty(), "{program}: {}", text(&checked.stderr));
    let output = run(program, &["--config", &file.display().to_string()]);
    let err = text(&output.stderr) + &text(&output.stdout);
    assert_eq!(output.status.code(), Some(64), "{program}: {err}");
    err
}

#[test]
fn missing_certificates_are_named_once_with_the_way_out_and_end_with_64() {
    let ground = Ground::new();
    let (mut exporter, mut importer) = configurations(&ground);
    exporter.tls = ground.path().join("no-certs");
    importer.tls = ground.path().join("no-certs");
    exporter.write_config();
    importer.write_config();
    for (program, file) in [(PROGRAMS[0], exporter.config_file()), (PROGRAMS[1], importer.config_file())] {
        let err = refuses_to_start(program, file);
        assert!(err.contains("no-certs"), "{err}");
        assert_eq!(err.matches("does not exist").count(), 1, "said twice: {err}");
    }
    assert!(!exporter.audit_file().exists() && !importer.audit_file().exists(), "an audit log was begun");
}

#[test]
fn certificates_of_the_other_side_end_with_64_before_anything_is_touched() {
    let ground = Ground::new();
    let (mut exporter, mut importer) = configurations(&ground);
    std::mem::swap(&mut exporter.tls, &mut importer.tls);
    exporter.write_config();
    importer.write_config();
    for (program, file) in [(PROGRAMS[0], exporter.config_file()), (PROGRAMS[1], importer.config_file())] {
        let err = refuses_to_start(program, file);
        assert!(err.contains("issue one for an"), "the way out is not named: {err}");
    }
    assert!(!exporter.audit_file().exists() && !importer.audit_file().exists(), "an audit log was begun");
}

/// What librdkafka finds out only when a client is made of the properties, and what once crashed it, is found by a check.
#[test]
fn properties_that_make_no_client_end_with_64_and_name_the_property() {
    let ground = Ground::new();
    for (name, value, words) in [
        ("sasl.mechanism", "FOO", "one of PLAIN, SCRAM-SHA-256"),
        ("sasl.mechanism", "AWS_MSK_IAM", "one of PLAIN, SCRAM-SHA-256"),
        ("ssl.ca.location", "/nowhere.pem", "failed"),
        ("security.protocol", "SASL_SL", "SASL_SL"),
        ("message.max.bytes", "1000", "target topic"),
    ] {
        let (mut exporter, mut importer) = configurations(&ground);
        for properties in [&mut importer.properties, &mut exporter.properties] {
            properties.insert("security.protocol".to_owned(), "SASL_SSL".to_owned());
            properties.insert("sasl.mechanism".to_owned(), "PLAIN".to_owned());
            properties.insert("sasl.username".to_owned(), "u".to_owned());
            properties.insert(name.to_owned(), value.to_owned());
        }
        exporter.write_config();
        importer.write_config();
        for (program, file) in [(PROGRAMS[0], exporter.config_file()), (PROGRAMS[1], importer.config_file())]
        {
            let err = refuses_to_start(program, file);
            assert!(err.contains(&format!("`kafka.properties.{name}`")) && err.contains(words), "{err}");
            assert!(err.contains(&format!("{}:", file.display())), "no file and line: {err}");
        }
        assert!(!exporter.audit_file().exists() && !importer.audit_file().exists(), "an audit log was begun");
    }
}

/// Nothing of the operator's is written over, and a start that fails does not say that anything waits.
#[test]
fn an_audit_log_that_is_none_or_cannot_be_written_ends_a_start() {
    let ground = Ground::new();
    let (exporter, importer) = configurations(&ground);
    for (program, file, audit) in [
        (PROGRAMS[0], exporter.config_file(), exporter.audit_file()),
        (PROGRAMS[1], importer.config_file(), importer.audit_file()),
    ] {
        let start = |limit: &str| {
            let script = format!("{limit} exec \"$0\" --config \"$1\"");
            let arguments = [binary(program).as_os_str().to_owned(), file.as_os_str().to_owned()];
            let output = Command::new("bash").args(["-c", &script]).args(arguments).output().unwrap();
            (output.status.code(), text(&output.stderr) + &text(&output.stdout))
        };
        let (code, said) = start("ulimit -f 0;");
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("cannot be written") && said.contains("not started"), "{said}");
        assert!(!said.contains("wait"), "{said}");
        std::fs::write(audit, "precious text").unwrap();
        let (code, said) = start("");
        assert!(code == Some(1) && said.contains("a file of another kind"), "{said}");
        let checked = check(program, file);
        assert_eq!(checked.status.code(), Some(1), "{}", text(&checked.stderr));
        assert_eq!(std::fs::read_to_string(audit).unwrap(), "precious text");
    }
}

/// The port is taken before anything is begun: no thread is left behind to be torn down.
#[test]
fn a_taken_admin_port_ends_a_start_in_words() {
    let ground = Ground::new();
    let (exporter, importer) = configurations(&ground);
    for (program, file, admin) in [
        (PROGRAMS[0], exporter.config_file(), exporter.admin()),
        (PROGRAMS[1], importer.config_file(), importer.admin()),
    ] {
        let _taken = std::net::TcpListener::bind(admin).unwrap();
        let output = run(program, &["--config", &file.display().to_string()]);
        let said = text(&output.stderr) + &text(&output.stdout);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("[admin] listen") && !said.contains("panicked"), "{said}");
    }
}

#[test]
fn a_bad_log_filter_ends_with_64_and_is_named() {
    let ground = Ground::new();
    let (exporter, importer) = configurations(&ground);
    for (program, file) in [(PROGRAMS[0], exporter.config_file()), (PROGRAMS[1], importer.config_file())] {
        for check in [&[][..], &["--check"]] {
            let output = Command::new(binary(program))
                .args(["--config", &file.display().to_string()])
                .args(check)
                .env("RUST_LOG", "link=loud")
                .output()
                .unwrap();
            let err = text(&output.stderr);
            assert_eq!(output.status.code(), Some(64), "{program} {check:?}: {err}");
            assert!(err.contains("link=loud") && err.contains("RUST_LOG"), "{err}");
        }
    }
}

/// a limit on the size of files (`ulimit -f`) is a log that cannot be written. It does not end the program.
#[test]
fn a_limit_on_file_sizes_does_not_end_the_importer() {
    let ground = Ground::new();
    let (_, importer) = configurations(&ground);
    // One KiB: room for the first line, and not for the refusals that follow.
    let script = "ulimit -f 1; exec \"$0\" --config \"$1\"";
    let mut process = Command::new("bash")
        .args(["-c", script])
        .args([binary(PROGRAMS[1]).as_os_str(), importer.config_file().as_os_str()])
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    assert!(wait_until(PATIENCE, || importer.get("/healthz").is_some()), "it does not come up");
    let strangers = Ground::new();
    let stranger = strangers.exporter_identity("spiffe://other.example/exporter/x");
    let stranger = certs::Identity::load(&stranger).unwrap();
    let expected = "spiffe://test.example/importer/cloud".parse().unwrap();
    let dialer = link::Dialer::new(&stranger, expected, link::Settings::default()).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let full = wait_until(PATIENCE, || {
        assert!(runtime.block_on(dialer.dial(&importer.address())).is_err(), "a stranger is let in");
        importer.get("/readyz").is_some_and(|(_, body)| body.contains("audit"))
    });
    let ended = process.try_wait().unwrap();
    process.kill().unwrap();
    process.wait().unwrap();
    assert!(ended.is_none(), "the importer ended: {ended:?}");
    assert!(full, "the limit was not reached");
}
