//! Where the programs under test are.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The path of `edge-exporter`, `cloud-importer` or `longhaul`, built from this tree in the profile of this test.
///
/// The first call of a test run asks Cargo to bring them up to date, which takes no time when they are. With
/// `LONGHAUL_BIN_DIR` set they are taken from that folder as they are, for example to try release builds.
///
/// # Panics
/// When they cannot be built.
pub fn binary(name: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| match std::env::var_os("LONGHAUL_BIN_DIR") {
        Some(folder) => folder.into(),
        None => build(),
    });
    let path = folder.join(name);
    assert!(path.is_file(), "{} is not there", path.display());
    path
}

/// Builds next to this very test: `TARGET/PROFILE/deps/this-test` tells both folder and profile.
fn build() -> PathBuf {
    let test = std::env::current_exe().expect("a running test has a path");
    let folder = test.parent().and_then(Path::parent).expect("tests lie in TARGET/PROFILE/deps").to_owned();
    let target = folder.parent().expect("profiles lie in the target folder");
    let profile = folder.file_name().expect("the folder of a profile has a name").to_string_lossy();
    let profile = if profile == "debug" { "dev" } else { &profile };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["build", "--quiet", "--profile", profile, "--target-dir"])
        .arg(target)
        .args(["-p", "edge-exporter", "-p", "cloud-importer", "-p", "longhaul", "--bins"])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "the programs do not build:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    folder
}
