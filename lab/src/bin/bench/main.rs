//! Measurements: `cargo bench-e2e`, the two programs between two real Kafka brokers on this machine, measured from
//! outside; `cargo bench-codec`, what the codec makes of topics from files; `cargo bench-link`, the link on an emulated
//! path beside TCP and bare QUIC.

mod compression;
mod link;
mod mirrormaker;
mod paced;
mod programs;
mod recovery;
mod report;
mod site;
mod speed;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand, ValueEnum};

use report::Results;
use site::Site;
use speed::Payload;

const EXIT_FAILED: u8 = 1;
const EXIT_DIFFERENT: u8 = 2;

/// Measurements of Longhaul.
#[derive(Debug, Parser)]
#[command(
    name = "bench",
    version,
    after_help = "Exit codes: 0 measured, 1 failed, 2 measured, but a copy was not exact, 64 bad usage"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Speed, delay, processor time, memory and recovery of both programs between two Kafka brokers
    E2e(Options),
    /// Bytes and speed of the codec on topics from files, beside what Kafka's own batches need
    Codec(compression::Options),
    /// Our link, bare QUIC and TCP side by side on one emulated path
    Link(Box<link::Options>),
    /// One end of a measured transport: what `link` starts
    #[command(hide = true)]
    LinkEnd(link::end::Options),
}

#[derive(Debug, Parser)]
struct Options {
    /// About how long each single measurement takes
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// How often each is repeated; the median counts
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
    /// Only these parts: all of them unless named, `paced` with --input
    #[arg(long, value_name = "PART", value_enum)]
    only: Vec<Part>,
    /// Only these records of `speed` and `delay`
    #[arg(long, value_name = "KIND", value_parser = ["100B", "1kB"])]
    payload: Vec<String>,
    /// Records for `paced`: a topic for each file (.kds.zst, .jsonl, or text with a record a line). With `--only speed`
    /// for `speed`, again and again, in place of generated ones
    #[arg(long, value_name = "FILE", num_args = 1.., value_parser = longhaul_lab::arguments::readable_file)]
    input: Vec<PathBuf>,
    /// Measure MirrorMaker 2 beside `speed` too, as shipped and tuned: take 30 --seconds or more, for its compiler warms up
    #[arg(long)]
    mm2: bool,
    /// The result as one JSON object on stdout, the table on stderr
    #[arg(long)]
    json: bool,
}

/// What can be measured by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// A full topic at full speed
    Speed,
    /// A trickle
    Delay,
    /// Start, new topic, kill -9
    Recovery,
    /// 2,000 records a second from files: bytes on the link
    Paced,
}

impl Options {
    fn wants(&self, part: Part) -> bool {
        let named = self.only.is_empty() || self.only.contains(&part);
        named && (part != Part::Paced || !self.input.is_empty())
    }

    fn payloads(&self) -> Result<Vec<Payload>> {
        if !self.input.is_empty() && self.only.contains(&Part::Speed) {
            return self.input.iter().map(|file| Payload::of_file(file)).collect();
        }
        let wanted = |payload: &Payload| self.payload.is_empty() || self.payload.contains(&payload.name);
        Ok(Payload::generated().into_iter().filter(wanted).collect())
    }
}

fn main() -> ExitCode {
    let arguments = match longhaul_lab::arguments::parse::<Arguments>() {
        Ok(arguments) => arguments,
        Err(code) => return code,
    };
    let measured = match &arguments.command {
        Command::E2e(options) => run(options),
        Command::Codec(options) => compression::run(options).map(|()| true),
        Command::Link(options) => link::run(options).map(|()| true),
        Command::LinkEnd(options) => link::end::run(options).map(|()| true),
    };
    match measured {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(EXIT_DIFFERENT),
        Err(error) => {
            say(&format!("error: {error:#}"));
            ExitCode::from(EXIT_FAILED)
        }
    }
}

/// Whether all copies were exact.
fn run(options: &Options) -> Result<bool> {
    let payloads = options.payloads()?;
    let site = Site::start()?;
    let mut results = Results::new(options.seconds, options.runs);
    for payload in &payloads {
        if options.wants(Part::Speed) {
            results.speed.push(speed::measure(&site, payload, options)?);
        }
        if options.wants(Part::Delay) {
            results.delay.push(speed::low_load(&site, payload, options.seconds)?);
        }
    }
    if options.wants(Part::Paced) {
        for file in &options.input {
            results.paced.push(paced::measure(&site, file)?);
        }
    }
    if options.wants(Part::Recovery) {
        results.start = recovery::start(&site, options.runs)?;
        results.new_topic = recovery::new_topic(&site, options.runs)?;
        results.kills = recovery::kills(&site, options.runs)?;
    }
    let exact = results.is_exact();
    let table = report::table(&results);
    if options.json {
        say(&table);
        writeln!(std::io::stdout(), "{}", report::json(&results)).context("cannot write to stdout")?;
    } else {
        writeln!(std::io::stdout(), "{table}").context("cannot write to stdout")?;
    }
    site.finish(exact);
    Ok(exact)
}

/// A line for people.
pub(crate) fn say(line: &str) {
    // Nobody may be listening.
    let _ = writeln!(std::io::stderr(), "{line}");
}
