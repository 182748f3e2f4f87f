//! `bench link` from outside: that it measures, and what its JSON says.

use std::process::{Command, Stdio};

use longhaul_lab::wanlink::{Params, Plan, Wan};
use serde_json::Value;

fn bench(arguments: &[&str]) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_bench"))
        .arg("link")
        .args(arguments)
        .arg("--json")
        .stdin(Stdio::null())
        .output()
        .expect("bench runs");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{told}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {told}"))
}

#[test]
fn both_quic_transports_carry_bytes_over_loopback_and_their_cost_is_compared() {
    let found = bench(&["--loopback", "--seconds", "1", "--runs", "1"]);
    let transports = found["transports"].as_array().expect("two transports");
    for (transport, name) in transports.iter().zip(["quinn", "longhaul-adaptive"]) {
        assert_eq!(transport["transport"], name);
        assert!(transport["goodput_bytes"].as_u64() > Some(1_000_000), "{transport}");
        assert!(transport["cpu_s_sender"].as_f64() > Some(0.0), "{transport}");
    }
    assert!(found["cpu_per_byte_against_quinn"].as_f64() > Some(0.0), "{found}");
}

#[test]
fn every_transport_on_an_emulated_path_is_measured_within_its_rate_or_said_not_to_be() {
    // Root alone is not enough: a container may have no TUN device, or may make no namespaces.
    let name = format!("link-test-{}", std::process::id());
    if let Err(error) = Wan::up(&Plan::symmetric(&name, Params::default())) {
        eprintln!("skipped: {error}");
        return;
    }
    let arguments = [
        "--rate",
        "20",
        "--rtt",
        "20",
        "--seconds",
        "3",
        "--transports",
        "longhaul,quinn,tcp-cubic-1,tcp-bbr-1",
    ];
    let found = bench(&arguments);
    let [measured, missing] =
        ["transports", "not_measured"].map(|key| found[key].as_array().expect("a list").clone());
    assert_eq!(measured.len() + missing.len(), 4, "{found}");
    for transport in measured {
        let goodput = transport["goodput_mbit_s"].as_f64().expect("a figure");
        assert!((2.0..20.0).contains(&goodput), "{transport}");
        let (wire, payload) = (transport["wire_bytes"].as_u64(), transport["goodput_bytes"].as_u64());
        assert!(wire > payload && payload > Some(0), "{transport}");
        for key in ["queue_ms_mean", "queue_ms_p99", "cpu_s_sender", "cpu_s_receiver"] {
            assert!(transport[key].is_number(), "{key} of {transport}");
        }
    }
}
