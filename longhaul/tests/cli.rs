//! The program as an operator runs it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
};

use observe::{
    Audit,
    audit::Options,
    event::{Delivered, Place, Stop},
};
use serde_json::Value;

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

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A log of a start and two deliveries.
fn audit_log(path: &Path) {
    let at = Place {
        link: "fra-to-aws".into(),
        cluster: "c1".into(),
        topic: "orders".into(),
        topic_id: "AAAAAAAAAAAAAAAAAAAAAA".into(),
        partition: 3,
    };
    let delivered = |from: i64, next: i64| Delivered {
        at: at.clone(),
        from,
        next,
        first: Some(from),
        last: Some(next - 1),
        records: next.abs_diff(from),
        not_visible: 0,
        plain_bytes: 1_000,
        wire_bytes: 100,
        digest: "00".repeat(32),
    };
    let audit = Audit::open(path, Options::default()).unwrap();
    audit.record_many([delivered(0, 5), delivered(5, 9)]).unwrap();
    audit.record(Stop { reason: "SIGTERM".into() }).unwrap();
}

#[test]
fn an_authority_issues_identities_that_can_be_shown() {
    let dir = tempfile::tempdir().unwrap();
    let (ca, edge, cloud) = (dir.path().join("ca"), dir.path().join("edge"), dir.path().join("cloud"));
    let made = longhaul(&["certs", "init", text(&ca), "--name", "Example"]);
    assert_eq!((made.code, made.out.as_str()), (0, ""), "{}", made.err);

    let id = "spiffe://example.org/exporter/fra";
    let issued = longhaul(&[
        "certs",
        "issue",
        "--ca",
        text(&ca),
        "--role",
        "exporter",
        "--id",
        id,
        "--out",
        text(&edge),
    ]);
    assert_eq!(issued.code, 0, "{}", issued.err);
    assert_eq!(fs::metadata(edge.join("key.pem")).unwrap().permissions().mode() & 0o777, 0o600);
    let importer = ["--role", "importer", "--id", "spiffe://example.org/importer/aws", "--days", "7"];
    let names = ["--dns", "importer.example", "--dns", "backup.example", "--ip", "192.0.2.7"];
    let issued = longhaul(
        &[&["certs", "issue", "--ca", text(&ca), "--out", text(&cloud)], &importer[..], &names[..]].concat(),
    );
    assert_eq!(issued.code, 0, "{}", issued.err);

    let shown = longhaul(&["certs", "show", text(&edge)]);
    assert!(shown.code == 0 && shown.out.contains(id) && shown.out.contains("an exporter"), "{}", shown.out);
    let shown = longhaul(&["certs", "show", text(&cloud.join("chain.pem")), "--json"]);
    let certificates: Value = serde_json::from_str(&shown.out).unwrap();
    let certificate = &certificates[0];
    assert_eq!(certificate["role"], "importer");
    assert_eq!(certificate["spiffe_ids"], serde_json::json!(["spiffe://example.org/importer/aws"]));
    assert_eq!(certificate["names"], serde_json::json!(["importer.example", "backup.example", "192.0.2.7"]));
    assert_eq!(certificate["expired"], false);
    let authority = longhaul(&["certs", "show", text(&ca), "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&authority.out).unwrap()[0]["role"], "authority");

    certs::Identity::load(&edge).unwrap();
    certs::Identity::load(&cloud).unwrap();
}

#[test]
fn a_revoked_identity_is_on_the_authoritys_list() {
    let dir = tempfile::tempdir().unwrap();
    let (ca, edge) = (dir.path().join("ca"), dir.path().join("edge"));
    assert_eq!(longhaul(&["certs", "init", text(&ca)]).code, 0);
    let id = "spiffe://example.org/exporter/fra";
    let issue = ["certs", "issue", "--ca", text(&ca), "--role", "exporter", "--id", id, "--out", text(&edge)];
    assert_eq!(longhaul(&issue).code, 0);
    let before = fs::read(ca.join("crl.pem")).unwrap();
    let revoked = longhaul(&["certs", "revoke", "--ca", text(&ca), text(&edge)]);
    assert_eq!(revoked.code, 0, "{}", revoked.err);
    let after = fs::read(ca.join("crl.pem")).unwrap();
    assert!(after.len() > before.len(), "the list has one entry more");
    assert_eq!(longhaul(&["certs", "renew-crl", "--ca", text(&ca)]).code, 0);
    assert_ne!(fs::read(ca.join("crl.pem")).unwrap(), after);
}

#[test]
fn what_cannot_be_done_with_certificates_fails_with_a_reason() {
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca");
    assert_eq!(longhaul(&["certs", "init", text(&ca)]).code, 0);
    let again = longhaul(&["certs", "init", text(&ca)]);
    assert!(again.code == 1 && again.err.contains("not overwritten"), "{}", again.err);
    let missing = longhaul(&["certs", "show", text(&dir.path().join("none.pem"))]);
    assert!(missing.code == 1 && missing.err.contains("none.pem does not exist"), "{}", missing.err);
    assert!(missing.out.is_empty());
}

#[test]
fn bad_usage_ends_with_64_and_touches_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (ca, out) = (dir.path().join("ca"), dir.path().join("out"));
    assert_eq!(longhaul(&["certs", "init", text(&ca)]).code, 0);
    let issue = ["certs", "issue", "--ca", text(&ca), "--out", text(&out)];
    for wrong in [
        &["--role", "importer", "--id", "spiffe://example.org/importer/aws"][..],
        &["--role", "exporter", "--id", "https://example.org/exporter"],
        &["--role", "broker", "--id", "spiffe://example.org/exporter/fra"],
        &["--role", "exporter", "--id", "spiffe://example.org/exporter/fra", "--days", "0"],
        &["--role", "importer", "--id", "spiffe://example.org/importer/aws", "--ip", "localhost"],
        &["--role", "exporter"],
    ] {
        let run = longhaul(&[&issue[..], wrong].concat());
        assert_eq!(run.code, 64, "{wrong:?}: {}", run.err);
        assert!(run.err.starts_with("error: ") && run.out.is_empty(), "{wrong:?}: {}", run.err);
    }
    assert!(!out.exists());
    assert_eq!(longhaul(&[]).code, 64);
    assert_eq!(longhaul(&["audit", "verify"]).code, 64);
    assert_eq!(longhaul(&["levitate"]).code, 64);
}

#[test]
fn help_and_version_are_data() {
    for asked in
        [&["--help"][..], &["--version"], &["certs", "issue", "--help"], &["audit", "verify", "--help"]]
    {
        let run = longhaul(asked);
        assert_eq!((run.code, run.err.as_str()), (0, ""), "{asked:?}");
        assert!(!run.out.is_empty());
    }
    assert!(longhaul(&["audit", "verify", "--help"]).out.contains("2 the chain is broken"));
}

#[test]
fn an_intact_log_is_summed_up() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("edge.jsonl");
    audit_log(&log);
    let run = longhaul(&["audit", "verify", text(&log)]);
    assert_eq!((run.code, run.err.as_str()), (0, ""));
    assert!(run.out.starts_with(&format!("{}: intact, 3 lines in 1 file\n", log.display())), "{}", run.out);
    assert!(run.out.contains("events     delivered 2, stop 1\n"), "{}", run.out);
    let delivered = "fra-to-aws orders/3: offsets 0..9, 9 records, 2000 plain bytes, 200 on the link\n";
    assert!(run.out.contains(delivered), "{}", run.out);

    let run = longhaul(&["audit", "verify", "--json", text(&log)]);
    let found: Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!((&found["result"], &found["lines"]), (&"intact".into(), &3.into()));
    assert_eq!(found["delivered"][0]["records"], 9);
}

#[test]
fn a_broken_log_ends_with_2_and_names_the_line() {
    let dir = tempfile::tempdir().unwrap();
    let (good, bad) = (dir.path().join("good.jsonl"), dir.path().join("bad.jsonl"));
    audit_log(&good);
    audit_log(&bad);
    fs::write(&bad, fs::read_to_string(&bad).unwrap().replace("\"next\":9", "\"next\":8")).unwrap();
    let run = longhaul(&["audit", "verify", text(&bad), text(&good)]);
    assert_eq!(run.code, 2);
    assert!(run.out.starts_with(&format!("{}:2: the chain is broken: ", bad.display())), "{}", run.out);
    assert!(run.out.contains("good.jsonl: intact"), "the other log is checked too");

    let run = longhaul(&["audit", "verify", "--json", text(&bad), text(&good)]);
    let verdicts: Vec<Value> = run.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((run.code, verdicts.len()), (2, 2));
    assert_eq!((&verdicts[0]["result"], &verdicts[0]["line"]), (&"broken".into(), &2.into()));
}

#[test]
fn a_log_that_cannot_be_read_ends_with_1() {
    let dir = tempfile::tempdir().unwrap();
    let run = longhaul(&["audit", "verify", text(&dir.path().join("none.jsonl"))]);
    assert_eq!((run.code, run.out.as_str()), (1, ""));
    assert!(run.err.starts_with("error: ") && run.err.contains("cannot read the audit log"), "{}", run.err);
    let run = longhaul(&["audit", "verify", "--json", "/nowhere/none.jsonl"]);
    assert_eq!(serde_json::from_str::<Value>(&run.out).unwrap()["result"], "unreadable");
}
