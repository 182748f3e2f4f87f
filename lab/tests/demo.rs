//! The demo as a script runs it: quick, on the embedded clusters.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use longhaul_lab::kafka::require_kafka;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

fn demo(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_demo")).args(arguments).env_remove("RUST_LOG").output().unwrap()
}

/// The object on the last line of stdout; removes the folder that the demo keeps.
fn result(output: &Output) -> Value {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    let stdout = String::from_utf8(output.stdout.clone()).unwrap();
    let result: Value = serde_json::from_str(stdout.lines().last().unwrap()).unwrap();
    for log in result["audit"].as_array().unwrap() {
        observe::audit::verify(log.as_str().unwrap().as_ref()).unwrap();
        assert!(stderr.contains(log.as_str().unwrap()), "people are not told where {log} is:\n{stderr}");
    }
    let audit = std::path::Path::new(result["audit"][0].as_str().unwrap()).parent().unwrap();
    std::fs::remove_dir_all(audit.parent().unwrap()).unwrap();
    result
}

#[test]
fn everything_arrives_exactly_once_although_the_link_is_cut_and_the_importer_killed() {
    let output = demo(&["--records", "3000", "--json"]);
    let result = result(&output);
    assert_eq!((&result["kafka"], &result["faults"]), (&"embedded".into(), &true.into()));
    assert_eq!(result["records"], 3000);
    for count in ["lost", "repeated", "reordered", "changed", "other_findings"] {
        assert_eq!(result[count], 0, "{count}");
    }
    assert!(result["seconds"].as_f64().unwrap() > 0.0);
    let (plain, wire) = (result["plain_bytes"].as_u64().unwrap(), result["wire_bytes"].as_u64().unwrap());
    assert!(wire > 0 && wire < plain, "{wire} bytes on the wire for {plain} bytes of records");
    let topics = result["per_topic"].as_array().unwrap();
    assert_eq!(topics.len(), 3);
    for topic in topics {
        assert_eq!(topic["records"], 1000);
        assert!(topic["delay_ms_p50"].as_u64() <= topic["delay_ms_p99"].as_u64());
        assert!(topic["wire_bytes"].as_u64().unwrap() > 0);
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    for word in ["the link is cut", "the importer is killed", "the importer is started again", "exactly once"]
    {
        assert!(stderr.contains(word), "{word:?} is not told:\n{stderr}");
    }
    assert!(!stderr.contains('\u{1b}'), "colours where there is no terminal:\n{stderr}");
}

#[test]
fn who_interrupts_it_is_told_that_nothing_is_left_behind() {
    let folder = tempfile::tempdir().unwrap();
    let kept = || std::fs::read_dir(folder.path()).unwrap().count();
    let demo = Command::new(env!("CARGO_BIN_EXE_demo"))
        .env("TMPDIR", folder.path())
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while kept() == 0
        || !folder.path().read_dir().unwrap().flatten().any(|made| made.path().join("demo.log").exists())
    {
        assert!(Instant::now() < deadline, "the demo does not begin");
        std::thread::sleep(Duration::from_millis(20));
    }
    kill(Pid::from_raw(demo.id() as i32), Signal::SIGINT).unwrap();
    let output = demo.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{stderr}");
    assert!(stderr.contains("is removed"), "{stderr}");
    assert_eq!(kept(), 0, "{stderr}");
}

#[test]
fn files_are_carried_as_topics_and_people_get_nothing_on_stdout() {
    let folder = tempfile::tempdir().unwrap();
    let (text, json) = (folder.path().join("lines.log"), folder.path().join("events.jsonl"));
    std::fs::write(&text, "one\n\nthree\n").unwrap();
    std::fs::write(&json, "{\"a\":1}\n{\"a\":2}\n").unwrap();
    let files = ["--no-faults", "--input", text.to_str().unwrap(), json.to_str().unwrap()];
    let output = demo(&[&files[..], &["--json"]].concat());
    let stdout = String::from_utf8(output.stdout.clone()).unwrap();
    assert_eq!(stdout.lines().count(), 1, "{stdout}");
    let result = result(&output);
    let topics = result["per_topic"].as_array().unwrap();
    let topic = |index: usize| (topics[index]["topic"].as_str().unwrap(), topics[index]["records"].as_u64());
    assert_eq!([topic(0), topic(1)], [("lines", Some(3)), ("events", Some(2))]);
    assert_eq!((&result["lost"], &result["faults"]), (&0.into(), &false.into()));
}

/// The same on real Kafka, with a topic file as the measurements take it.
#[test]
fn a_topic_file_goes_through_real_kafka() {
    if require_kafka("demo on real Kafka").is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("readings.kds.zst");
    let mut records = Vec::new();
    for number in 0..500_u32 {
        let value = format!("{{\"reading\":{number}}}");
        records.extend((number % 4).to_le_bytes());
        records.extend(1_700_000_000_000_i64.to_le_bytes());
        records.extend(4_u32.to_le_bytes());
        records.extend(u32::try_from(value.len()).unwrap().to_le_bytes());
        records.extend(number.to_be_bytes());
        records.extend(value.as_bytes());
    }
    std::fs::write(&file, zstd::encode_all(&records[..], 3).unwrap()).unwrap();
    let output = demo(&["--kafka", "real", "--json", "--input", file.to_str().unwrap()]);
    let result = result(&output);
    assert_eq!((&result["kafka"], &result["records"]), (&"real".into(), &500.into()));
    for count in ["lost", "repeated", "reordered", "changed", "other_findings"] {
        assert_eq!(result[count], 0, "{count}");
    }
    assert_eq!(result["per_topic"][0]["topic"], "readings");
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_starts() {
    for arguments in [
        &["--records", "0"][..],
        &["--kafka", "imaginary"],
        &["--price", "-1"],
        &["--input", "/does/not/exist.jsonl"],
    ] {
        let output = demo(arguments);
        assert_eq!(output.status.code(), Some(64), "{arguments:?}");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(stderr.contains(arguments[1]), "{arguments:?}: {stderr}");
    }
}
