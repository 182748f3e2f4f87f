//! What the documents say is true: their commands run, their configurations load, their tables are complete.

use std::collections::BTreeSet;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs};

use lab::kafka::{Cluster, ClusterOptions, Mechanism, Security, require_kafka};
use longhaul_tests::bridge::{Bridge, PATIENCE, Pair, Turns, binary, fill, topic, wait_until};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use proto::hold::Reason;

static TURNS: Turns<Pair> = Turns::new();

#[test]
fn the_deployment_of_the_readme_works_exactly_as_written() {
    let deployment = marked_block("README.md", "test: deployment");
    assert!(deployment.lines().count() <= 15, "it is short:\n{deployment}");
    let Some(pair) = TURNS.take("readme: the deployment") else { return };
    topic(&pair.source.admin_bootstrap(), "greetings", 3);
    let folder = tempfile::tempdir().unwrap();
    let said: Vec<String> = (0..100).map(|number| format!("hello {number}")).collect();
    let lines = said.join("\n") + "\n";
    let at = pair.source.admin_bootstrap();
    tool(
        &pair.source,
        "org.apache.kafka.tools.ConsoleProducer",
        &["--bootstrap-server", &at, "--topic", "greetings"],
        lines.as_bytes(),
    );
    let free = wait_until(PATIENCE, || UdpSocket::bind("0.0.0.0:7443").is_ok());
    assert!(free, "UDP port 7443, which the README uses, is taken by another program on this machine");
    let mut deployed = Deployed::start(&deployment, folder.path(), &pair);

    let admin = pair.target_admin();
    let ends = || admin.ends("greetings", &[0, 1, 2], Duration::from_secs(5)).unwrap_or_default();
    // The consumer must not be the one who makes the topic.
    let arrived = wait_until(PATIENCE, || {
        assert!(deployed.is_running(), "the exporter ended:\n{}", deployed.log());
        ends().iter().map(|ends| ends.lso).sum::<i64>() > 0
    });
    assert!(arrived, "nothing arrived:\n{}", deployed.log());
    let at = pair.target.admin_bootstrap();
    let count = said.len().to_string();
    let output = tool(
        &pair.target,
        "org.apache.kafka.tools.consumer.ConsoleConsumer",
        &[
            "--bootstrap-server",
            &at,
            "--topic",
            "greetings",
            "--from-beginning",
            "--isolation-level",
            "read_committed",
            "--max-messages",
            &count,
            "--timeout-ms",
            "60000",
        ],
        b"",
    );
    let mut heard: Vec<&str> = output.lines().collect();
    heard.sort_unstable();
    let mut expected: Vec<&str> = said.iter().map(String::as_str).collect();
    expected.sort_unstable();
    assert_eq!(heard, expected, "{}", deployed.log());
    for log in ["audit/edge.jsonl", "audit/cloud.jsonl"] {
        observe::audit::verify(&folder.path().join(log)).unwrap();
    }
}

#[test]
fn the_documented_permissions_are_enough() {
    let Some(installation) = require_kafka("readme: permissions") else { return };
    let guarded = |user: &str| {
        let plain = Security::Sasl { mechanism: Mechanism::Plain, tls: false };
        ClusterOptions::default().security(plain).user(user, "a-password").acls()
    };
    let pair = Pair::with(&installation, guarded("longhaul-exporter"), guarded("longhaul-importer"));
    for (cluster, variable, mark) in [
        (&pair.source, "$EDGE_KAFKA", "test: permissions at the source"),
        (&pair.target, "$CLOUD_KAFKA", "test: permissions at the target"),
    ] {
        for command in marked_block("docs/OPERATIONS.md", mark).lines() {
            let command = command.replace(variable, &cluster.admin_bootstrap());
            let words: Vec<&str> = command.split_whitespace().collect();
            assert_eq!(words[0], "kafka-acls.sh");
            tool(cluster, "org.apache.kafka.tools.AclCommand", &words[1..], b"");
        }
    }
    let topics = ["orders", "payments.eu"];
    let source = pair.source.admin_bootstrap();
    topics.iter().for_each(|name| topic(&source, name, 2));
    let mut bridge = Bridge::new(&pair, "fra-to-aws", &["orders", "payments.*"]);
    bridge.exporter.properties = pair.source.client_properties(Some("longhaul-exporter"));
    bridge.importer.properties = pair.target.client_properties(Some("longhaul-importer"));
    bridge.start();
    for name in topics {
        fill(&source, name, 500, 1);
    }
    bridge.settle(&topics, PATIENCE);
    // Alter: the source grows, and the target with it.
    pair.source_admin().create_partitions("orders", 3, PATIENCE).unwrap();
    fill(&source, "orders", 500, 2);
    bridge.settle(&topics, PATIENCE);
}

#[test]
fn every_configuration_in_the_documents_is_accepted() {
    let folder = tempfile::tempdir().unwrap();
    let mut tried = 0;
    for document in documents() {
        let text = read(&document);
        for block in fenced(&text, "toml") {
            let whole = match block.lines().next() {
                Some("# part of edge-exporter.toml") => format!("{EDGE}\n{block}"),
                Some("# part of cloud-importer.toml") => format!("{CLOUD}\n{block}"),
                _ => block.clone(),
            };
            accepted(folder.path(), &whole, &format!("{document}:\n{block}"));
            tried += 1;
        }
    }
    for example in ["deploy/edge-exporter.toml", "deploy/cloud-importer.toml"] {
        let text = read(example);
        accepted(folder.path(), &text, example);
        accepted(folder.path(), &uncommented(&text), &format!("{example}, every key set"));
        tried += 2;
    }
    assert!(tried >= 6, "only {tried} configurations were found");
}

#[test]
fn every_key_of_the_configurations_is_in_the_examples() {
    for (sources, example) in [
        (&["edge-exporter/src/config.rs", "edge-exporter/src/config"][..], "deploy/edge-exporter.toml"),
        (&["cloud-importer/src/config.rs"][..], "deploy/cloud-importer.toml"),
    ] {
        let text = read(example);
        let keys: BTreeSet<&str> = text
            .lines()
            .map(|line| line.strip_prefix('#').unwrap_or(line))
            .flat_map(|line| match line.strip_prefix('[') {
                Some(table) => table.trim_matches(['[', ']']).split('.').collect(),
                None => line.split_once(" = ").map(|(key, _)| vec![key]).unwrap_or_default(),
            })
            .collect();
        let fields = sources.iter().flat_map(|source| config_fields(source)).collect::<BTreeSet<_>>();
        assert!(fields.len() > 15, "{fields:?}");
        let missing: Vec<_> = fields.iter().filter(|field| !keys.contains(field.as_str())).collect();
        assert!(missing.is_empty(), "{example} says nothing of {missing:?}");
    }
}

#[test]
fn every_hold_has_a_row_that_says_what_to_do() {
    let rows = table_words("## Holds");
    let words: BTreeSet<String> = Reason::ALL.iter().map(|reason| reason.word().to_owned()).collect();
    assert_eq!(rows, words, "left: docs/OPERATIONS.md, right: the program");
}

#[test]
fn every_metric_has_a_row() {
    let mut names = BTreeSet::new();
    for source in ["observe/src", "edge-exporter/src", "cloud-importer/src"] {
        for file in rust_files(&root().join(source)) {
            let text = fs::read_to_string(&file).unwrap();
            names.extend(metrics_of(text.split("#[cfg(test)]").next().unwrap_or_default()));
        }
    }
    assert!(names.contains("lag_seconds") && names.contains("producers_recycled_total"), "{names:?}");
    assert_eq!(table_words("## Metrics"), names, "left: docs/OPERATIONS.md, right: the programs");
}

#[test]
fn every_event_of_the_audit_log_has_a_row() {
    let source = read("observe/src/event.rs");
    let variants = source.split_once("pub enum Event {").unwrap().1.split_once("\n}").unwrap().0;
    let events: BTreeSet<String> = variants
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .filter_map(|line| line.trim().split_once('('))
        .map(|(variant, _)| snake_case(variant))
        .collect();
    assert!(events.contains("audit_resumed"), "{events:?}");
    assert_eq!(table_words("## The audit log"), events, "left: docs/OPERATIONS.md, right: the programs");
}

#[test]
fn every_link_between_the_documents_leads_somewhere() {
    for document in documents() {
        let text = read(&document);
        let folder = Path::new(&document).parent().unwrap().to_owned();
        for target in
            text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target)
        {
            if target.contains("://") {
                continue;
            }
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            let file = if file.is_empty() { PathBuf::from(&document) } else { folder.join(file) };
            assert!(root().join(&file).exists(), "{document} leads to {target}, which is not there");
            if !heading.is_empty() {
                let anchors = anchors(&read(&file.to_string_lossy()));
                assert!(anchors.contains(heading), "{document} leads to {target}, of {anchors:?}");
            }
        }
    }
}

#[test]
fn every_file_and_every_test_that_the_documents_name_is_there() {
    let mut sources = String::new();
    for folder in fs::read_dir(root()).unwrap() {
        let folder = folder.unwrap().path();
        for part in ["src", "tests"] {
            if folder.join(part).is_dir() {
                let texts = rust_files(&folder.join(part)).into_iter().map(fs::read_to_string);
                sources.extend(texts.map(|text| text.unwrap()));
            }
        }
    }
    let mut named = 0;
    for document in documents() {
        for word in read(&document).split('`').skip(1).step_by(2) {
            if word.contains('/') && word.ends_with(".rs") {
                assert!(root().join(word).exists(), "{document} names {word}, which is not there");
                named += 1;
            }
            let is_sentence = word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
                // A function of librdkafka.
                && !word.starts_with("rd_kafka_");
            if is_sentence && word.matches('_').count() >= 4 && Reason::from_word(word) == Reason::Other {
                // A metric, in quotes where it is made; or a test.
                let is_there = [format!("\"{word}\""), format!("fn {word}(")];
                assert!(
                    is_there.iter().any(|text| sources.contains(text)),
                    "{document} names the test or metric {word}, which is not there"
                );
                named += 1;
            }
        }
    }
    assert!(named > 30, "only {named} were found");
}

/// A shell with everything that a deployment started, in a process group of its own.
struct Deployed {
    shell: Child,
    log: PathBuf,
}

impl Deployed {
    fn start(deployment: &str, folder: &Path, pair: &Pair) -> Self {
        let script = folder.join("deployment.sh");
        fs::write(&script, deployment).expect("a script can be written");
        let log = folder.join("deployment.log");
        let output = fs::File::create(&log).expect("a log can be made");
        let programs = binary("longhaul").parent().expect("programs lie in a folder").to_owned();
        let path = env::var_os("PATH").unwrap_or_default();
        let path = env::join_paths([programs].into_iter().chain(env::split_paths(&path)));
        let path = path.expect("no folder has a colon in its name");
        let shell = {
            use std::os::unix::process::CommandExt as _;
            Command::new("sh")
                .args(["-c", RUN, "sh"])
                .arg(&script)
                .current_dir(folder)
                .env("PATH", path)
                .env("EDGE_KAFKA", pair.source.admin_bootstrap())
                .env("CLOUD_KAFKA", pair.target.admin_bootstrap())
                .stdin(Stdio::piped())
                .stdout(output.try_clone().expect("a file can be written by two"))
                .stderr(output)
                .process_group(0)
                .spawn()
                .expect("a shell runs")
        };
        Self { shell, log }
    }

    /// Whether the shell still waits for its programs.
    fn is_running(&mut self) -> bool {
        matches!(self.shell.try_wait(), Ok(None))
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Deployed {
    fn drop(&mut self) {
        let group = Pid::from_raw(i32::try_from(self.shell.id()).expect("process ids are small"));
        // Gone already is as good.
        let _ = killpg(group, Signal::SIGKILL);
        let _ = self.shell.wait();
    }
}

/// Runs the deployment in this very shell, then waits until the last program that it started ends. The pipe on stdin is
/// held by the test and never written: should the test be killed, everything in the group goes with it.
const RUN: &str = r#"
exec 3<&0
( read -r _ <&3; kill -9 0 ) &
. "$1"
wait $!
"#;

/// A complete exporter's configuration that a part can be added to.
const EDGE: &str = r#"
link = "l"
[kafka]
bootstrap = "kafka:9092"
[topics]
include = ["*"]
[importer]
address = ["importer:7443"]
identity = "spiffe://example.org/importer"
[tls]
dir = "certs"
[audit]
file = "audit.jsonl"
"#;

/// The same for an importer.
const CLOUD: &str = r#"
listen = "0.0.0.0:7443"
[kafka]
bootstrap = "kafka:9092"
[tls]
dir = "certs"
[audit]
file = "audit.jsonl"
[[links]]
name = "l"
identity = "spiffe://example.org/exporter"
topics = ["*"]
"#;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// README, changelog and everything in `docs/`, by their path in the repository.
fn documents() -> Vec<String> {
    let mut documents = vec!["README.md".to_owned(), "CHANGELOG.md".to_owned()];
    for folder in ["docs", "docs/decisions"] {
        for entry in fs::read_dir(root().join(folder)).expect("the folder is there") {
            let name = entry.expect("a folder can be listed").file_name();
            let name = name.into_string().expect("names are plain");
            if name.ends_with(".md") {
                documents.push(format!("{folder}/{name}"));
            }
        }
    }
    documents
}

/// The fenced blocks of a language, without their fences.
fn fenced(text: &str, language: &str) -> Vec<String> {
    let opening = format!("\n```{language}\n");
    let blocks = text.split(&opening).skip(1);
    blocks.map(|rest| rest.split_once("\n```").expect("a fence is closed").0.to_owned()).collect()
}

/// The first shell block after an HTML comment.
fn marked_block(document: &str, mark: &str) -> String {
    let text = read(document);
    let (_, rest) = text.split_once(&format!("<!-- {mark} -->")).expect("the block is marked");
    fenced(rest, "sh").swap_remove(0) + "\n"
}

/// Loads a whole configuration as the program that it is for would.
fn accepted(folder: &Path, text: &str, what: &str) {
    let secret = folder.join("kafka-password");
    fs::write(&secret, "secret\n").expect("a secret can be written");
    let schema = folder.join("flight.avsc");
    fs::write(&schema, "\"string\"").expect("a schema can be written");
    let authority = folder.join("registry-ca");
    if !authority.is_dir() {
        certs::Authority::create(&authority, "registry").expect("an authority can be made");
    }
    let secret = secret.display().to_string();
    let text = text
        .replace("secrets/kafka-password", &secret)
        .replace("secrets/registry-password", &secret)
        .replace("certs/registry-ca.pem", &authority.join("ca.pem").display().to_string())
        .replace("schemas/flight.avsc", &schema.display().to_string());
    let file = folder.join("config.toml");
    fs::write(&file, &text).expect("a configuration can be written");
    let is_importer = text.lines().any(|line| line.starts_with("listen = ") && !line.contains("127.0.0.1"));
    let loaded = if is_importer {
        cloud_importer::config::Config::load(&file).map(drop).map_err(|error| error.to_string())
    } else {
        edge_exporter::config::Config::load(&file).map(drop).map_err(|error| error.to_string())
    };
    if let Err(error) = loaded {
        panic!("{error}\nin {what}");
    }
}

/// An example with every key that is commented out (`#key = ...`, `#[[table]]`) set.
fn uncommented(text: &str) -> String {
    let lines = text.lines().map(|line| match line.strip_prefix('#') {
        Some(key) if !key.starts_with(' ') && !key.is_empty() => key,
        _ => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Names of the public fields of the configuration types in a file, or in the files of a folder.
fn config_fields(source: &str) -> Vec<String> {
    let path = root().join(source);
    let files = if path.is_dir() { rust_files(&path) } else { vec![path] };
    let mut fields = Vec::new();
    for file in files {
        let text = fs::read_to_string(file).expect("a source can be read");
        let text = text.split("#[cfg(test)]").next().unwrap_or_default();
        // Faults that tests plant are no settings.
        for item in text.split("\npub struct ").skip(1).filter(|item| !item.starts_with("Planted")) {
            let body = item.split("\n}").next().unwrap_or_default();
            let lines: Vec<&str> = body.lines().collect();
            for (index, line) in lines.iter().enumerate() {
                let is_skipped = index > 0 && lines[index - 1].trim() == "#[serde(skip)]";
                if let Some((name, _)) =
                    line.trim().strip_prefix("pub ").and_then(|rest| rest.split_once(':'))
                    && !is_skipped
                {
                    fields.push(name.to_owned());
                }
            }
        }
    }
    fields
}

/// Names of the metrics that a source file adds, as they are printed but for the prefix.
fn metrics_of(source: &str) -> Vec<String> {
    let mut names = Vec::new();
    for (adder, suffix) in [
        ("counter", "_total"),
        ("counters", "_total"),
        ("gauge", ""),
        ("gauges", ""),
        ("float_gauges", ""),
        ("seconds_by", ""),
    ] {
        for rest in source.split(&format!(".{adder}(")).skip(1) {
            if let Some(rest) = rest.trim_start().strip_prefix('"') {
                names.push(format!("{}{suffix}", rest.split('"').next().unwrap_or_default()));
            }
        }
    }
    names
}

/// The words in the first column of the tables under a heading of docs/OPERATIONS.md.
fn table_words(heading: &str) -> BTreeSet<String> {
    let text = read("docs/OPERATIONS.md");
    let (_, rest) = text.split_once(&format!("\n{heading}\n")).expect("the heading is there");
    let section = rest.split("\n## ").next().unwrap_or_default();
    let cells =
        section.lines().filter_map(|line| line.strip_prefix("| `")).filter_map(|row| row.split('`').next());
    cells.map(|cell| cell.split('{').next().unwrap_or_default().to_owned()).collect()
}

/// The anchors that a reader of Markdown makes of headings.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings =
        text.lines().filter_map(|line| line.strip_prefix('#')).map(|line| line.trim_start_matches('#'));
    let anchor = |heading: &str| -> String {
        let kept = heading.trim().to_lowercase();
        kept.chars()
            .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
            .map(|c| if c == ' ' { '-' } else { c })
            .collect()
    };
    headings.map(anchor).collect()
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("the folder is there") {
        let path = entry.expect("a folder can be listed").path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

fn snake_case(name: &str) -> String {
    let mut text = String::new();
    for (index, letter) in name.char_indices() {
        if letter.is_uppercase() && index > 0 {
            text.push('_');
        }
        text.extend(letter.to_lowercase());
    }
    text
}

/// Runs one of Kafka's own tools and gives what it prints.
fn tool(cluster: &Cluster, class: &str, args: &[&str], stdin: &[u8]) -> String {
    let started = Instant::now();
    let output = cluster.run_tool(class, args, stdin).expect("Kafka's tools run");
    let took = started.elapsed();
    assert!(output.status.success(), "{class} {args:?} after {took:?}: {}{}", output.stdout, output.stderr);
    output.stdout
}
