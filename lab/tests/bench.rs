//! The measurements as a script runs them: bad usage.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::process::Command;

#[test]
fn a_file_that_is_not_there_is_refused_before_anything_starts() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().to_str().unwrap();
    for (arguments, word) in [
        (["e2e", "--input", "/does/not/exist.jsonl"], "/does/not/exist.jsonl"),
        (["e2e", "--input", folder], "it is a folder"),
        (["codec", "--json", "/does/not/exist.jsonl"], "/does/not/exist.jsonl"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_bench")).args(arguments).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{arguments:?}: {stderr}");
        assert!(stderr.contains(word), "{arguments:?}: {stderr}");
    }
}
