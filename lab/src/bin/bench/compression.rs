//! `cargo bench-codec`: what the codec makes of topics from files, beside what Kafka's own batches would need.
//!
//! Per file the records are packed into batches as the exporter packs them, encoded as one lane epoch (or several),
//! decoded, and compared one by one. Bytes are everything that parcels cost on their stream: preface, headers, bodies.
//! Times are processor time of the one thread that works, so that other programs do not count; QUIC, TLS and Kafka's
//! request headers are counted for nobody.

mod batches;
mod lanes;
mod report;
mod topic;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use clap::Parser;
use codec::avro::Schema;
use codec::level::Priority;

use crate::say;
use batches::{Batches, Fill};
use lanes::{Figures, Setting};
use topic::{Records, Topic};

#[derive(Debug, Parser)]
pub(crate) struct Options {
    /// What the level is chosen for: bytes, cpu or latency. Default: sizes for `bytes`, speeds for the product's default
    #[arg(long, value_name = "WHAT")]
    priority: Option<Priority>,
    /// zstd level in place of the priority's
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..=12))]
    level: Option<i32>,
    /// Bytes of keys and values at which a parcel is closed. Default: as the product closes it, at 256 KiB of plain
    /// bytes for each topic in it, at most 1 MiB
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1..=16 << 20))]
    flush: Option<u64>,
    /// Lanes over which the partitions are spread; with --interleave the files
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    lanes: u16,
    /// Partitions that each file's records are spread over
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    partitions: u32,
    /// Rounds of which the median speed counts
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// The files also mixed evenly into the same lanes, beside each in lanes of its own
    #[arg(long)]
    interleave: bool,
    /// Avro schema that records follow, with the id of a schema registry before them or without
    #[arg(long, value_name = "FILE.avsc", value_parser = longhaul_lab::arguments::readable_file)]
    avro: Option<PathBuf>,
    /// One JSON object with an entry per file on stdout, the table on stderr
    #[arg(long)]
    json: bool,
    /// Topics: `.kds.zst`, `.jsonl` (a record a line), or text (a record a line)
    #[arg(required = true, value_name = "FILE", value_parser = longhaul_lab::arguments::readable_file)]
    files: Vec<PathBuf>,
}

/// What was measured of one file, or of several mixed.
struct Entry {
    name: String,
    records: u64,
    raw: u64,
    /// For sizes first, for speeds second; one when a priority or level was asked for.
    profiles: Vec<Profile>,
    /// What Kafka would need: method and bytes.
    kafka: Vec<(Batches, u64)>,
    /// Of a mix: the same records with lanes of their own for each file, in bytes.
    apart: Option<u64>,
}

struct Profile {
    name: String,
    level: i32,
    figures: Figures,
}

/// Measures all files and prints what was found.
///
/// # Errors
/// A file that cannot be read or has nothing to measure; a record that did not come back as it was.
pub(crate) fn run(options: &Options) -> Result<()> {
    let mut topics = Vec::new();
    for path in &options.files {
        topics.push(Topic::load(path, options.partitions)?);
    }
    let mut entries = Vec::new();
    for topic in &topics {
        say(&format!("measuring {}", topic.name()));
        let mut entry = measure(options, &Records::of(topic), &|slot| slot % u32::from(options.lanes))?;
        entry.kafka = kafka(options, topic);
        entries.push(entry);
    }
    if options.interleave {
        entries.push(interleaved(options, &topics, &entries)?);
    }
    let table = report::table(&entries, options);
    if options.json {
        say(&table);
        writeln!(std::io::stdout(), "{}", report::json(&entries, options)).context("cannot write to stdout")
    } else {
        writeln!(std::io::stdout(), "{table}").context("cannot write to stdout")
    }
}

fn interleaved(options: &Options, topics: &[Topic], entries: &[Entry]) -> Result<Entry> {
    say("measuring them mixed");
    let lane_of_topic = |slot: u32| slot / options.partitions % u32::from(options.lanes);
    let mut mixed = measure(options, &Records::mixed(topics), &lane_of_topic)?;
    mixed.apart = Some(entries.iter().map(|entry| entry.profiles[0].figures.wire).sum());
    for entry in entries {
        for (at, (batches, bytes)) in entry.kafka.iter().enumerate() {
            match mixed.kafka.get_mut(at) {
                Some((_, sum)) => *sum += bytes,
                None => mixed.kafka.push((*batches, *bytes)),
            }
        }
    }
    Ok(mixed)
}

fn measure(options: &Options, records: &Records<'_>, lane_of: &dyn Fn(u32) -> u32) -> Result<Entry> {
    let mut profiles = Vec::new();
    let avro = options.avro.as_deref().map(read_schema).transpose()?;
    for (name, level) in wanted(options) {
        let avro = avro.clone();
        let setting = Setting { level, flush: options.flush, lanes: options.lanes, lane_of, avro };
        let figures = lanes::measure(records, &setting, options.rounds)?;
        profiles.push(Profile { name, level, figures });
    }
    let (count, raw) = records.totals();
    Ok(Entry { name: records.name(), records: count, raw, profiles, kafka: Vec::new(), apart: None })
}

fn read_schema(path: &Path) -> Result<Arc<Schema>> {
    let name = path.display();
    let text = std::fs::read_to_string(path).with_context(|| format!("{name} cannot be read"))?;
    Ok(Arc::new(Schema::parse(&text).with_context(|| format!("{name} is no Avro schema"))?))
}

/// Names and levels that are measured: what sizes are judged by, then what speeds are judged by.
fn wanted(options: &Options) -> Vec<(String, i32)> {
    let of = |priority: Priority| {
        let default = if priority == Priority::default() { " (default)" } else { "" };
        (format!("{priority}{default}"), priority.first_level())
    };
    match (options.level, options.priority) {
        (Some(level), _) => vec![("fixed".to_owned(), level)],
        (None, Some(priority)) => vec![of(priority)],
        (None, None) => vec![of(Priority::Bytes), of(Priority::default())],
    }
}

fn kafka(options: &Options, topic: &Topic) -> Vec<(Batches, u64)> {
    let mut methods = Batches::STANDARD.to_vec();
    if let Some(flush) = options.flush {
        methods.push(Batches { packing: batches::Packing::Zstd, fill: Fill::Raw(flush) });
    }
    methods.into_iter().map(|batches| (batches, batches.bytes(topic))).collect()
}
