//! A process that is killed while it records.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    env,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use longhaul_observe::{
    Audit,
    audit::{Options, verify},
    event::Stop,
};

#[test]
fn a_killed_writer_leaves_a_log_that_goes_on() {
    if let Some(path) = env::var_os(CHILD) {
        return record_for_ever(Path::new(&path));
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("edge.jsonl");
    let mut lines = 0;
    for _ in 0..5 {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "a_killed_writer_leaves_a_log_that_goes_on"])
            .env(CHILD, &path)
            .stdout(Stdio::null())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        while !verify(&path).is_ok_and(|summary| summary.lines > lines + 20) {
            assert!(child.try_wait().unwrap().is_none(), "the writer ended by itself");
            thread::sleep(Duration::from_millis(5));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // The lock went with the process, and the chain goes on.
        drop(Audit::open(&path, Options::default()).unwrap());
        let summary = verify(&path).unwrap();
        assert_eq!((summary.first_seq, summary.torn_bytes), (0, 0));
        assert!(summary.lines > lines);
        lines = summary.lines;
    }
}

fn record_for_ever(path: &Path) {
    let audit = Audit::open(path, Options { rotate_bytes: 3_000 }).unwrap();
    for n in 0.. {
        audit.record_many((0..3).map(|part| Stop { reason: format!("{n}.{part}") })).unwrap();
    }
}

const CHILD: &str = "LONGHAUL_TEST_KILLED";
