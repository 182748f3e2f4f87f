//! `cargo demo`: topics mirrored from one Kafka cluster to another over a link that breaks, and the proof that every
//! record arrived exactly once.
//!
//! ```text
//!   feeders ─▶ on premise ─▶ exporter engine ══ QUIC ══ relay (cut once) ══▶ importer engine ─▶ cloud ─▶ tail
//!                   └─────────────────────────── checker ─────────────────(killed once)─────────┘
//! ```
//!
//! Words for people go to stderr; with `--json` the last line of stdout is one object.

mod clusters;
mod display;
mod journey;
mod report;
mod result;
mod topics;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Parser, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};

use clusters::Clusters;
use display::Display;
use journey::Journey;
use topics::Topic;

const EXIT_FAILED: u8 = 1;
const EXIT_DIFFERENT: u8 = 2;
const EXIT_USAGE: u8 = 64;
/// As a shell has it for SIGINT and SIGTERM.
const EXIT_INTERRUPTED: i32 = 130;
const EXIT_TERMINATED: i32 = 143;

/// Mirror Kafka topics over a link that breaks, and see that every record arrives exactly once.
#[derive(Debug, Parser)]
#[command(
    name = "demo",
    version,
    after_help = "Exit codes: 0 everything arrived exactly once, 1 the demo failed, 2 differences were found, 64 bad usage"
)]
struct Arguments {
    /// Your own data in place of made-up records: each file is a topic. Text: a record a line, whatever it holds, blank
    /// ones left out in .jsonl; .kds.zst: packed records
    #[arg(long, value_name = "FILE", num_args = 1..)]
    input: Vec<PathBuf>,
    /// Records to carry, over all topics [default: 150000, or all of the files]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    records: Option<u64>,
    /// The clusters: inside this program, or two real Apache Kafka brokers (Java 17, and Maven or KAFKA_HOME)
    #[arg(long, value_enum, default_value_t = Kind::Embedded)]
    kafka: Kind,
    /// Neither cut the link nor kill the importer
    #[arg(long)]
    no_faults: bool,
    /// What a gigabyte on the link costs, in dollars
    #[arg(long, value_name = "DOLLARS", default_value_t = 0.09, value_parser = price)]
    price: f64,
    /// End stdout with the result as one JSON object
    #[arg(long)]
    json: bool,
}

/// Which clusters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    Embedded,
    Real,
}

fn main() -> ExitCode {
    let arguments: Arguments = match longhaul_lab::arguments::parse() {
        Ok(arguments) => arguments,
        Err(code) => return code,
    };
    let topics = match Topic::of(&arguments.input, arguments.records) {
        Ok(topics) => topics,
        Err(error) => return fail(EXIT_USAGE, &format!("{error:#}")),
    };
    match run(&arguments, topics) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(EXIT_DIFFERENT),
        Err(error) => fail(EXIT_FAILED, &format!("{error:#}")),
    }
}

/// Whether everything arrived exactly once.
fn run(arguments: &Arguments, topics: Vec<Topic>) -> Result<bool> {
    let folder = tempfile::Builder::new().prefix("longhaul-demo-").tempdir();
    // Kept: the audit logs in it are half of the result.
    let folder = folder.context("cannot make a folder for the demo")?.keep();
    remove_when_interrupted(folder.clone()).context("cannot listen for Ctrl-C")?;
    let log = log_to(&folder).context("cannot write the log of the demo")?;
    let display = Display::new(&topics);
    display.introduce(&topics, !arguments.no_faults);
    if arguments.kafka == Kind::Real {
        display.event("two Apache Kafka brokers are started");
    }
    let journey = Clusters::start(arguments.kafka)
        .and_then(|clusters| Journey::new(clusters, topics, &folder))
        .and_then(|journey| journey.travel(&display, !arguments.no_faults));
    display.clear();
    let result =
        journey.with_context(|| format!("the demo could not be finished (see {})", log.display()))?;
    display.say("");
    display.say(&report::people(&result, arguments.price, display.paint()));
    if arguments.json {
        let line = report::json(&result, arguments.price);
        writeln!(std::io::stdout(), "{line}").context("cannot write to stdout")?;
    }
    Ok(result.is_exact())
}

/// Who interrupts the demo wants none of it: the folder holds keys, and logs of half a journey.
fn remove_when_interrupted(folder: PathBuf) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let within = runtime.enter();
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    drop(within);
    std::thread::spawn(move || {
        let code = runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => EXIT_INTERRUPTED,
                _ = terminate.recv() => EXIT_TERMINATED,
            }
        });
        // What still runs may just have made a file.
        let removed = (0..5).map(|_| std::fs::remove_dir_all(&folder)).find(Result::is_ok);
        let words = match removed.unwrap_or_else(|| std::fs::remove_dir_all(&folder)) {
            Ok(()) => format!("stopped: {} is removed", folder.display()),
            Err(error) => format!("stopped: {} stays, as it cannot be removed: {error}", folder.display()),
        };
        let _ = writeln!(std::io::stderr(), "\n{words}");
        std::process::exit(code);
    });
    Ok(())
}

/// What the engines and Kafka clients have to say goes to a file: the terminal is for the demo.
fn log_to(folder: &std::path::Path) -> std::io::Result<PathBuf> {
    let path = folder.join("demo.log");
    let file = std::fs::File::create(&path)?;
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,krafka=warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(file).with_ansi(false).init();
    Ok(path)
}

fn price(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(price) if price.is_finite() && price >= 0.0 => Ok(price),
        _ => Err("write dollars per gigabyte, such as 0.09".to_owned()),
    }
}

fn fail(code: u8, message: &str) -> ExitCode {
    // Nobody may be listening on stderr either.
    let _ = writeln!(std::io::stderr(), "error: {message}");
    ExitCode::from(code)
}
