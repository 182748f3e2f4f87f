//! A write that the kernel itself cuts short: the log meets a file-size limit, which fails like a full disk does,
//! in the middle of a line. Signal and limit belong to a whole process, so the test runs itself again in its own.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    env,
    path::Path,
    process::{Command, Stdio},
};

use longhaul_observe::{
    Audit,
    audit::{Options, verify},
    event::Stop,
};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

#[test]
fn a_log_that_meets_a_real_limit_goes_unhealthy_and_comes_back() {
    if let Some(path) = env::var_os(CHILD) {
        return meet_the_limit(Path::new(&path));
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("edge.jsonl");
    // An ignored signal stays ignored across exec; SIGXFSZ would kill the process instead of failing the write.
    let output = Command::new("sh")
        .args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""])
        .arg(env::current_exe().unwrap())
        .args(["--exact", "a_log_that_meets_a_real_limit_goes_unhealthy_and_comes_back"])
        .env(CHILD, &path)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let summary = verify(&path).unwrap();
    assert_eq!(summary.events["audit_resumed"], 1);
    assert_eq!(summary.torn_bytes, 0);
}

fn meet_the_limit(path: &Path) {
    let audit = Audit::open(path, Options::default()).unwrap();
    let (_, hard) = getrlimit(Resource::RLIMIT_FSIZE).unwrap();
    setrlimit(Resource::RLIMIT_FSIZE, 2_000, hard).unwrap();
    // Shorter than the `audit_resumed` line, so that a probe finds no room either.
    let line = || Stop { reason: "x".into() };
    let written = (0..100).take_while(|_| audit.record(line()).is_ok()).count();
    assert!((1..20).contains(&written), "{written} lines in 2000 bytes");
    assert!(!audit.healthy());
    assert_eq!(std::fs::metadata(path).unwrap().len(), 2_000, "the failed line was partly written");
    audit.probe().unwrap_err();

    setrlimit(Resource::RLIMIT_FSIZE, hard, hard).unwrap();
    audit.probe().unwrap();
    assert!(audit.healthy());
    audit.record(line()).unwrap();
    assert_eq!(verify(path).unwrap().events["stop"], written as u64 + 1);
}

const CHILD: &str = "LONGHAUL_TEST_FULL_DISK";
