//! What was measured, in a table and as JSON.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::batches::{Batches, Fill, Packing};
use super::{Entry, Options, Profile};

/// What shares are judged by: the bytes that a tuned MirrorMaker 2 moves.
const YARDSTICK: Batches = Batches { packing: Packing::Zstd, fill: Fill::Java };

impl Entry {
    fn per_raw(&self, bytes: u64) -> f64 {
        bytes as f64 / self.raw as f64
    }

    /// Megabytes of keys and values in a second of one core.
    fn speed(&self, time: Duration) -> f64 {
        self.raw as f64 / 1e6 / time.as_secs_f64()
    }

    fn sizes(&self) -> &Profile {
        &self.profiles[0]
    }

    fn speeds(&self) -> &Profile {
        &self.profiles[self.profiles.len() - 1]
    }

    /// Our bytes as a share of the yardstick's.
    fn share(&self) -> Option<f64> {
        let (_, bytes) = self.kafka.iter().find(|(batches, _)| *batches == YARDSTICK)?;
        Some(self.sizes().figures.wire as f64 / *bytes as f64)
    }
}

/// For people.
pub(super) fn table(entries: &[Entry], options: &Options) -> String {
    let mut text = String::new();
    // A string takes everything.
    let _ = write_table(&mut text, entries, options);
    text
}

fn write_table(text: &mut String, entries: &[Entry], options: &Options) -> std::fmt::Result {
    let flush = options.flush.map_or_else(
        || "256 KiB of plain bytes for each topic in them, as the exporter's".to_owned(),
        |bytes| format!("{bytes} bytes of keys and values"),
    );
    writeln!(
        text,
        "Bytes: everything on the lanes' streams (of Kafka: its record batches), per byte of keys and values.\n\
         Speeds: keys and values per second of processor time of one core, median of {} rounds.\n\
         Memory: of encoder + decoder. Followed: keys and values of a known shape, which are not parsed.\n\
         {} partitions, {} lane(s), parcels of {flush}.",
        options.rounds, options.partitions, options.lanes
    )?;
    for entry in entries {
        writeln!(
            text,
            "\n{}: {} records, {:.1} MB of keys and values",
            entry.name,
            entry.records,
            entry.raw as f64 / 1e6
        )?;
        writeln!(
            text,
            "  {:<44} {:>6} {:>11} {:>9} {:>12} {:>12} {:>13} {:>10}",
            "", "level", "bytes", "per byte", "encode MB/s", "decode MB/s", "memory MiB", "followed"
        )?;
        for Profile { name, level, figures } in &entry.profiles {
            let (wire, title) = (figures.wire, format!("Longhaul, {name}"));
            let (encode, decode) = (entry.speed(figures.encode), entry.speed(figures.decode));
            let per_byte = entry.per_raw(wire);
            let mebibytes = |bytes: usize| bytes as f64 / f64::from(1 << 20);
            let (sending, receiving) = (mebibytes(figures.encoder_memory), mebibytes(figures.decoder_memory));
            let memory = format!("{sending:.1} + {receiving:.1}");
            let hits = figures.hit_rate * 100.0;
            writeln!(
                text,
                "  {title:<44} {level:>6} {wire:>11} {per_byte:>9.4} {encode:>12.0} {decode:>12.0} {memory:>13} {hits:>8.1} %"
            )?;
        }
        if let Some(apart) = entry.apart {
            let mixed = entry.sizes().figures.wire as f64;
            let (more, per_byte) = ((mixed / apart as f64 - 1.0) * 100.0, entry.per_raw(apart));
            let title = "each file in lanes of its own";
            writeln!(text, "  {title:<44} {:>6} {apart:>11} {per_byte:>9.4}   mixed: {more:+.1} %", "")?;
        }
        for (batches, bytes) in &entry.kafka {
            let (title, per_byte) = (format!("Kafka, {}", batches.title()), entry.per_raw(*bytes));
            let share = entry.sizes().figures.wire as f64 / *bytes as f64;
            writeln!(
                text,
                "  {title:<44} {:>6} {bytes:>11} {per_byte:>9.4}   Longhaul: {share:.3} of it",
                ""
            )?;
        }
        writeln!(
            text,
            "  verified: {} parcels decoded, every record compared",
            entry.sizes().figures.parcels
        )?;
    }
    if let Some(mean) = mean_share(entries) {
        writeln!(text, "\nLonghaul as a share of Kafka's {}, geometric mean: {mean:.3}", YARDSTICK.title())?;
    }
    Ok(())
}

/// Geometric mean over the files.
fn mean_share(entries: &[Entry]) -> Option<f64> {
    let single = entries.iter().filter(|entry| entry.apart.is_none());
    let shares: Vec<f64> = single.filter_map(Entry::share).collect();
    (shares.len() > 1)
        .then(|| (shares.iter().map(|share| share.ln()).sum::<f64>() / shares.len() as f64).exp())
}

/// For scripts.
pub(super) fn json(entries: &[Entry], options: &Options) -> Value {
    json!({
        "partitions": options.partitions,
        "lanes": options.lanes,
        "flush_bytes": options.flush,
        "rounds": options.rounds,
        "files": entries.iter().map(entry_json).collect::<Vec<_>>(),
        "geometric_mean_of_kafka_zstd3_java": mean_share(entries).map(round),
    })
}

fn entry_json(entry: &Entry) -> Value {
    let (sizes, speeds) = (entry.sizes(), entry.speeds());
    let kafka: Map<String, Value> = entry
        .kafka
        .iter()
        .map(|(batches, bytes)| {
            let share = sizes.figures.wire as f64 / *bytes as f64;
            let of = json!({ "bytes": bytes, "ratio": round(entry.per_raw(*bytes)), "longhaul_share": round(share) });
            (batches.key(), of)
        })
        .collect();
    json!({
        "file": entry.name,
        "records": entry.records,
        "raw_bytes": entry.raw,
        "wire_bytes": sizes.figures.wire,
        "ratio": round(entry.per_raw(sizes.figures.wire)),
        "level": sizes.level,
        "encode_megabytes_per_second": round(entry.speed(speeds.figures.encode)),
        "decode_megabytes_per_second": round(entry.speed(speeds.figures.decode)),
        "speed_level": speeds.level,
        "encoder_memory_bytes": speeds.figures.encoder_memory,
        "decoder_memory_bytes": speeds.figures.decoder_memory,
        "template_hit_rate": round(sizes.figures.hit_rate),
        // Whatever is not as it was sent ends the program.
        "verified": true,
        "apart_wire_bytes": entry.apart,
        "profiles": entry.profiles.iter().map(|profile| profile_json(entry, profile)).collect::<Vec<_>>(),
        "kafka": kafka,
    })
}

fn profile_json(entry: &Entry, profile: &Profile) -> Value {
    let figures = &profile.figures;
    json!({
        "name": profile.name,
        "level": profile.level,
        "wire_bytes": figures.wire,
        "ratio": round(entry.per_raw(figures.wire)),
        "parcels": figures.parcels,
        "encode_megabytes_per_second": round(entry.speed(figures.encode)),
        "decode_megabytes_per_second": round(entry.speed(figures.decode)),
        "encoder_memory_bytes": figures.encoder_memory,
        "decoder_memory_bytes": figures.decoder_memory,
        "template_hit_rate": round(figures.hit_rate),
    })
}

fn round(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}
