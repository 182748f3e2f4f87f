//! The house stays as it was drawn: who may depend on whom, and what never reaches a shipped binary.
//!
//! The rules are those of the table in [`ROOMS`]; a crate without a row there fails too.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use cargo_metadata::{DependencyKind, MetadataCommand};

/// A member of the workspace, in terms of folders: `link`, not `longhaul-link`.
struct Member {
    name: String,
    dependencies: Vec<Dependency>,
}

struct Dependency {
    /// The folder of a crate of ours, the package name of any other.
    name: String,
    is_ours: bool,
    /// Only for the tests of the member itself.
    is_dev: bool,
}

/// What a crate of ours may depend on among ours.
struct Room {
    name: &'static str,
    may_use: &'static [&'static str],
    /// No I/O, clock, thread or randomness.
    is_pure: bool,
}

const fn room(name: &'static str, may_use: &'static [&'static str]) -> Room {
    Room { name, may_use, is_pure: false }
}

const fn pure(name: &'static str, may_use: &'static [&'static str]) -> Room {
    Room { name, may_use, is_pure: true }
}

const ENGINE: &[&str] = &["proto", "codec", "link", "kafka", "observe", "certs", "settings"];
const EVERYTHING: &[&str] = &[
    "codec",
    "proto",
    "settings",
    "certs",
    "link",
    "kafka",
    "observe",
    "edge-exporter",
    "cloud-importer",
    "longhaul",
    "lab",
];

const ROOMS: &[Room] = &[
    pure("codec", &[]),
    pure("proto", &["codec"]),
    room("settings", &[]),
    room("certs", &["proto"]),
    room("kafka", &["proto"]),
    room("observe", &["proto"]),
    room("link", &["proto", "certs"]),
    room("edge-exporter", ENGINE),
    room("cloud-importer", ENGINE),
    room("longhaul", &["codec", "proto", "certs", "link", "kafka", "observe"]),
    room("lab", EVERYTHING),
    room("tests", EVERYTHING),
];

/// Crates of others that only some of ours may depend on.
const KEPT_IN: &[(&str, &[&str])] = &[
    ("rdkafka", &["kafka"]),
    ("rdkafka-sys", &["kafka"]),
    // A hostile peer in a test must be able to say what `link` refuses to say; the lab measures `link` against QUIC alone.
    ("quinn", &["link", "lab", "tests"]),
    ("rustls", &["certs", "link", "tests"]),
    ("krafka", &["lab"]),
];

/// What a pure crate must not depend on, tests apart.
const IMPURE: &[&str] = &["tokio", "rand", "socket2", "hyper", "tracing", "nix", "tempfile"];

/// What no shipped binary contains: the in-process broker, and a second crypto library that it would bring along.
const NEVER_SHIPPED: &[&str] = &["krafka", "ring", "longhaul-lab"];
const SHIPPED: &[&str] = &["edge-exporter", "cloud-importer", "longhaul"];

#[test]
fn every_arrow_between_rooms_is_one_that_was_drawn() -> Result<()> {
    let wrong = wrong_arrows(&members()?);
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[test]
fn every_member_says_in_one_line_what_it_is() -> Result<()> {
    let wrong = members_without_comment(&fs::read_to_string(root().join("Cargo.toml"))?);
    ensure!(wrong.is_empty(), "in the members of Cargo.toml: {}", wrong.join(", "));
    Ok(())
}

#[test]
fn no_shipped_binary_contains_what_is_for_trials_only() -> Result<()> {
    for package in SHIPPED {
        let tree = Command::new(env!("CARGO"))
            .current_dir(root())
            .args(["tree", "--locked", "--offline", "--edges", "normal,build", "--prefix", "none"])
            .args(["--format", "{p}", "--package", package])
            .output()
            .context("cargo tree")?;
        ensure!(tree.status.success(), "cargo tree: {}", String::from_utf8_lossy(&tree.stderr));
        let tree = String::from_utf8(tree.stdout)?;
        let names: Vec<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
        ensure!(names.contains(package), "cargo tree does not list {package} itself:\n{tree}");
        for banned in NEVER_SHIPPED {
            ensure!(
                !names.contains(banned),
                "{package} contains {banned}; see `cargo tree -p {package} -i {banned}`"
            );
        }
    }
    Ok(())
}

#[test]
fn a_wrong_arrow_is_named() {
    let planted = [
        member("proto", &["codec", "kafka"]),
        member("edge-exporter", &["link", "cloud-importer"]),
        member("observe", &["settings"]),
        member("longhaul", &["settings"]),
        member("link", &["lab"]),
        member("attic", &[]),
    ];
    assert_eq!(
        wrong_arrows(&planted),
        [
            "proto -> kafka is not an arrow of the house (allowed: codec)",
            "edge-exporter -> cloud-importer is not an arrow of the house \
             (allowed: proto, codec, link, kafka, observe, certs, settings)",
            "observe -> settings is not an arrow of the house (allowed: proto)",
            "longhaul -> settings is not an arrow of the house \
             (allowed: codec, proto, certs, link, kafka, observe)",
            "link -> lab is not an arrow of the house (allowed: proto, certs)",
            "attic has no row in the table of rooms",
        ]
    );
}

#[test]
fn a_library_outside_its_room_is_named() {
    let planted = [
        member("link", &["quinn", "rustls", "tokio"]),
        member("edge-exporter", &["rdkafka", "quinn"]),
        member("kafka", &["rdkafka", "rdkafka-sys", "rustls"]),
        member("tests", &["krafka"]),
        member("proto", &["tokio"]),
    ];
    assert_eq!(
        wrong_arrows(&planted),
        [
            "edge-exporter -> rdkafka belongs in kafka only",
            "edge-exporter -> quinn belongs in link, lab, tests only",
            "kafka -> rustls belongs in certs, link, tests only",
            "tests -> krafka belongs in lab only",
            "proto -> tokio: proto is pure",
        ]
    );
}

#[test]
fn tests_of_a_pure_room_may_use_what_the_room_may_not() {
    let mut proto = member("proto", &["rand", "codec"]);
    proto.dependencies[0].is_dev = true;
    assert_eq!(wrong_arrows(&[proto]), [""; 0]);
}

#[test]
fn a_member_without_a_comment_is_named() {
    let manifest =
        "[workspace]\nmembers = [\n    \"codec\",  # batch <-> parcel\n    \"proto\",\n    \"link\", #\n]\n";
    assert_eq!(members_without_comment(manifest), ["proto", "link"]);
}

/// Every dependency that the table does not allow, in words.
fn wrong_arrows(members: &[Member]) -> Vec<String> {
    let mut wrong = Vec::new();
    for Member { name, dependencies } in members {
        let Some(room) = ROOMS.iter().find(|room| room.name == name) else {
            wrong.push(format!("{name} has no row in the table of rooms"));
            continue;
        };
        for Dependency { name: other, is_ours, is_dev } in dependencies {
            let kept_in = KEPT_IN.iter().find(|(library, _)| library == other).map(|(_, rooms)| *rooms);
            if *is_ours && !room.may_use.contains(&other.as_str()) {
                let allowed = room.may_use.join(", ");
                wrong.push(format!("{name} -> {other} is not an arrow of the house (allowed: {allowed})"));
            }
            if let Some(rooms) = kept_in.filter(|rooms| !rooms.contains(&name.as_str())) {
                wrong.push(format!("{name} -> {other} belongs in {} only", rooms.join(", ")));
            }
            if room.is_pure && !is_dev && IMPURE.contains(&other.as_str()) {
                wrong.push(format!("{name} -> {other}: {name} is pure"));
            }
        }
    }
    wrong
}

/// The members of a root manifest that have no comment on their line.
fn members_without_comment(manifest: &str) -> Vec<String> {
    let lines = manifest.lines().skip_while(|line| !line.starts_with("members")).skip(1);
    lines
        .take_while(|line| !line.starts_with(']'))
        .filter_map(|line| {
            let (member, comment) = line.split_once('#').unwrap_or((line, ""));
            let member = member.trim().trim_matches(['"', ',']);
            (!member.is_empty() && comment.trim().is_empty()).then(|| member.to_owned())
        })
        .collect()
}

/// The workspace as cargo sees it.
fn members() -> Result<Vec<Member>> {
    let metadata = MetadataCommand::new().manifest_path(root().join("Cargo.toml")).no_deps().exec()?;
    let folders: BTreeMap<&str, &str> = metadata
        .packages
        .iter()
        .filter_map(|package| Some((package.name.as_str(), package.manifest_path.parent()?.file_name()?)))
        .collect();
    ensure!(
        folders.len() == ROOMS.len(),
        "{} members, {} rows in the table of rooms",
        folders.len(),
        ROOMS.len()
    );
    let members = metadata.packages.iter().map(|package| Member {
        name: folders[package.name.as_str()].to_owned(),
        dependencies: package
            .dependencies
            .iter()
            .map(|dependency| {
                let folder = folders.get(dependency.name.as_str());
                Dependency {
                    name: folder.map_or_else(|| dependency.name.clone(), |folder| (*folder).to_owned()),
                    is_ours: folder.is_some(),
                    is_dev: dependency.kind == DependencyKind::Development,
                }
            })
            .collect(),
    });
    Ok(members.collect())
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests lie within the workspace")
}

/// A member for the tests of the rules.
fn member(name: &str, dependencies: &[&str]) -> Member {
    let is_ours = |other: &str| ROOMS.iter().any(|room| room.name == other);
    let dependencies = dependencies.iter().map(|other| Dependency {
        name: (*other).into(),
        is_ours: is_ours(other),
        is_dev: false,
    });
    Member { name: name.into(), dependencies: dependencies.collect() }
}
