//! What was measured, in a table and as JSON, beside what MirrorMaker 2 needs.

use std::fmt::Write as _;

use longhaul_lab::checker::{Anomaly, Report};
use serde_json::{Value, json};

use crate::paced;
use crate::programs::Levels;
use crate::speed::Payload;

/// MirrorMaker 2 of Apache Kafka 4.3.1, measured for this project beside the target cluster: OpenJDK 17, 2 cores that it
/// shared with both brokers, 8 partitions, no TLS, no limit of the link; process alone, user and system time, after 10 s
/// of warm-up. From its default settings to tuned ones (8 tasks, large batches, zstd). Record bytes are key + value.
mod mm2 {
    /// Small records: samples as JSON, 135 B.
    pub(super) const SMALL: Known = Known { cpu_per_gb: [21.4, 40.8], cpu_per_million: [2.85, 5.41] };
    /// Row changes as Debezium's JSON, 1,086 B.
    pub(super) const LARGE: Known = Known { cpu_per_gb: [8.7, 9.5], cpu_per_million: [9.5, 10.3] };
    /// Peak memory: what `-Xmx2G` of its start script allows.
    pub(super) const PEAK_MEMORY_GB: [f64; 2] = [2.2, 2.5];
    /// Start to first record, with a round trip of 100 ms.
    pub(super) const START_SECONDS: [f64; 2] = [16.0, 19.0];
    /// kill -9 and restart under 2,000 records/s, until data flows: median of 5, round trip of 100 ms.
    pub(super) const KILL_SECONDS: f64 = 20.3;
    /// What such a kill repeats at the target, without its exactly-once mode.
    pub(super) const KILL_REPEATS: [u64; 2] = [10_000, 250_000];
    /// New topic to first record, default refresh interval.
    pub(super) const NEW_TOPIC_SECONDS: f64 = 598.0;

    pub(super) struct Known {
        pub(super) cpu_per_gb: [f64; 2],
        pub(super) cpu_per_million: [f64; 2],
    }
}

/// Exporter and importer, in this order.
const SIDES: [&str; 2] = ["exporter", "importer"];

/// All that was measured.
pub(crate) struct Results {
    seconds: u32,
    runs: u32,
    pub(crate) speed: Vec<Speed>,
    pub(crate) delay: Vec<Delay>,
    pub(crate) paced: Vec<paced::Outcome>,
    /// Seconds, each run.
    pub(crate) start: Vec<f64>,
    /// Seconds, each run.
    pub(crate) new_topic: Vec<f64>,
    pub(crate) kills: Kills,
}

/// One kind of records.
pub(crate) struct Speed {
    pub(crate) payload: Payload,
    /// Records in the topic.
    pub(crate) records: u64,
    pub(crate) bytes_per_record: f64,
    /// Of the median run.
    pub(crate) cost: Cost,
    /// MirrorMaker 2 in this run, as shipped and tuned, if it was asked for.
    pub(crate) mm2: Option<[Mm2; 2]>,
}

/// What MirrorMaker 2 needed here and now: the process alone, warmed up. Bytes are those of keys, values and headers.
pub(crate) struct Mm2 {
    pub(crate) bytes_per_second: f64,
    pub(crate) cpu_per_gb: f64,
    pub(crate) cpu_per_million: f64,
    pub(crate) peak_memory_bytes: u64,
}

/// Of single records at low load.
pub(crate) struct Delay {
    pub(crate) payload: Payload,
    pub(crate) p50_ms: u64,
    pub(crate) p99_ms: u64,
}

/// One run at full speed, from the first record to the last. Bytes are those of keys, values and headers.
pub(crate) struct Cost {
    pub(crate) records_per_second: f64,
    pub(crate) bytes_per_second: f64,
    /// UDP payload in both directions per byte of records.
    pub(crate) wire_share: f64,
    pub(crate) carried_records: f64,
    pub(crate) carried_bytes: f64,
    pub(crate) user_seconds: [f64; 2],
    pub(crate) system_seconds: [f64; 2],
    pub(crate) levels: Levels,
    pub(crate) peak_memory_bytes: [u64; 2],
}

/// kill -9 under load.
#[derive(Default)]
pub(crate) struct Kills {
    /// Seconds until records flowed again, each run.
    pub(crate) exporter: Vec<f64>,
    /// The same.
    pub(crate) importer: Vec<f64>,
    pub(crate) report: Report,
}

impl Results {
    pub(crate) fn new(seconds: u32, runs: u32) -> Self {
        Self {
            seconds,
            runs,
            speed: Vec::new(),
            delay: Vec::new(),
            paced: Vec::new(),
            start: Vec::new(),
            new_topic: Vec::new(),
            kills: Kills::default(),
        }
    }

    /// Whether what was carried while processes were killed is exactly what was written.
    pub(crate) fn is_exact(&self) -> bool {
        self.kills.report.is_clean()
    }
}

impl Cost {
    pub(crate) fn cpu_per_gb(&self, side: usize) -> f64 {
        self.cpu_seconds(side) / self.carried_bytes * 1e9
    }

    fn cpu_per_million(&self, side: usize) -> f64 {
        self.cpu_seconds(side) / self.carried_records * 1e6
    }

    fn cpu_seconds(&self, side: usize) -> f64 {
        self.user_seconds[side] + self.system_seconds[side]
    }

    /// Share of the processor time that the kernel spent, on sockets above all.
    fn system_share(&self, side: usize) -> f64 {
        self.system_seconds[side] / self.cpu_seconds(side)
    }

    pub(crate) fn of_both(&self, of: impl Fn(&Self, usize) -> f64) -> f64 {
        of(self, 0) + of(self, 1)
    }
}

/// For people.
pub(crate) fn table(results: &Results) -> String {
    let mut text = String::new();
    // A string takes everything.
    let _ = speed_table(&mut text, results);
    let _ = delay_table(&mut text, results);
    let _ = paced::table(&mut text, &results.paced);
    if !results.start.is_empty() {
        let _ = time_table(&mut text, results);
    }
    text
}

fn speed_table(text: &mut String, results: &Results) -> std::fmt::Result {
    writeln!(
        text,
        "Two Kafka brokers, both programs and the load share the cores of this machine; loopback, TLS.\n\
         Median of {} runs at full speed; delay at 100 records/s over {} s, until a read_committed reader has it.\n",
        results.runs, results.seconds
    )?;
    for speed in &results.speed {
        let (cost, mm2) = (&speed.cost, mm2_of(speed));
        let Speed { payload, records, bytes_per_record, .. } = speed;
        writeln!(
            text,
            "{} records: {}, {bytes_per_record:.0} B each, {records} of them",
            payload.name, payload.what
        )?;
        writeln!(
            text,
            "  speed            {:>9.0} records/s   {:.1} MB/s   {:.3} bytes on the wire per byte",
            cost.records_per_second,
            cost.bytes_per_second / 1e6,
            cost.wire_share
        )?;
        writeln!(text, "  level            {}", cost.levels)?;
        writeln!(
            text,
            "  {:<16} {:>10} {:>12} {:>14} {:>14}",
            "", "CPU s/GB", "CPU s/Mrec", "peak MiB", "in the kernel"
        )?;
        for (side, name) in SIDES.iter().enumerate() {
            let mebibytes = cost.peak_memory_bytes[side] as f64 / f64::from(1 << 20);
            writeln!(
                text,
                "  {name:<16} {:>10.2} {:>12.2} {mebibytes:>14.0} {:>12.0} %",
                cost.cpu_per_gb(side),
                cost.cpu_per_million(side),
                cost.system_share(side) * 100.0
            )?;
        }
        writeln!(
            text,
            "  {:<16} {:>10.2} {:>12.2}",
            "both",
            cost.of_both(Cost::cpu_per_gb),
            cost.of_both(Cost::cpu_per_million)
        )?;
        for (mm2, tuning) in speed.mm2.iter().flatten().zip(["as shipped", "tuned"]) {
            writeln!(
                text,
                "  {:<16} {:>10.2} {:>12.2} {:>14.0}   {:.1} MB/s, in this run",
                format!("MM2 {tuning}"),
                mm2.cpu_per_gb,
                mm2.cpu_per_million,
                mm2.peak_memory_bytes as f64 / f64::from(1 << 20),
                mm2.bytes_per_second / 1e6
            )?;
        }
        let [low, high] = mm2.cpu_per_gb;
        let [low_million, high_million] = mm2.cpu_per_million;
        let [low_memory, high_memory] = mm2::PEAK_MEMORY_GB;
        writeln!(
            text,
            "  {:<16} {:>10} {:>12} {:>14}   on another day\n",
            "MM2 4.3.1",
            format!("{low}-{high}"),
            format!("{low_million}-{high_million}"),
            format!("{low_memory}-{high_memory} GB")
        )?;
    }
    Ok(())
}

fn delay_table(text: &mut String, results: &Results) -> std::fmt::Result {
    for Delay { payload, p50_ms, p99_ms } in &results.delay {
        writeln!(text, "{} records, delay: p50 {p50_ms} ms, p99 {p99_ms} ms", payload.name)?;
    }
    writeln!(text)
}

fn time_table(text: &mut String, results: &Results) -> std::fmt::Result {
    let [start_low, start_high] = mm2::START_SECONDS;
    let killed = format!("{} s", mm2::KILL_SECONDS);
    let rows = [
        ("start to first record", &results.start, format!("{start_low}-{start_high} s")),
        ("new topic to first record", &results.new_topic, format!("{} s", mm2::NEW_TOPIC_SECONDS)),
        ("kill -9 of the exporter until records flow", &results.kills.exporter, killed.clone()),
        ("kill -9 of the importer until records flow", &results.kills.importer, killed),
    ];
    writeln!(text, "{:<44} {:>8} {:>8}   MM2 4.3.1 (100 ms round trip)", "seconds", "median", "worst")?;
    for (what, seconds, mm2) in rows {
        let (median, worst) = (median(seconds), seconds.iter().copied().fold(0.0, f64::max));
        writeln!(text, "{what:<44} {median:>8.2} {worst:>8.2}   {mm2}")?;
    }
    let report = &results.kills.report;
    let counts = ANOMALIES.map(|anomaly| format!("{anomaly} {}", report.count(anomaly)));
    let [few, many] = mm2::KILL_REPEATS;
    writeln!(
        text,
        "over these kills, of {} records: {}   (MM2 repeats {few} to {many} per kill)",
        report.records(),
        counts.join(", ")
    )?;
    if !report.is_clean() {
        write!(text, "{report}")?;
    }
    Ok(())
}

const ANOMALIES: [Anomaly; 4] = [Anomaly::Lost, Anomaly::Repeated, Anomaly::Reordered, Anomaly::Changed];

/// Records below this size are small ones.
const SMALL_BYTES: f64 = 400.0;

fn mm2_of(speed: &Speed) -> mm2::Known {
    if speed.bytes_per_record < SMALL_BYTES { mm2::SMALL } else { mm2::LARGE }
}

/// For scripts.
pub(crate) fn json(results: &Results) -> Value {
    let timed = |seconds: &[f64]| json!({ "median": round(median(seconds)), "runs": seconds.iter().map(|&it| round(it)).collect::<Vec<_>>() });
    let report = &results.kills.report;
    let counts = ANOMALIES.map(|anomaly| (anomaly.to_string(), Value::from(report.count(anomaly))));
    let kills: serde_json::Map<String, Value> = counts.into_iter().collect();
    json!({
        "seconds": results.seconds,
        "runs": results.runs,
        "speed": results.speed.iter().map(|speed| speed_json(speed, &results.delay)).collect::<Vec<_>>(),
        "paced": results.paced.iter().map(paced::json).collect::<Vec<_>>(),
        "start_seconds": timed(&results.start),
        "new_topic_seconds": timed(&results.new_topic),
        "kill_exporter_seconds": timed(&results.kills.exporter),
        "kill_importer_seconds": timed(&results.kills.importer),
        "kills": kills,
        "kills_records": report.records(),
        "exact": results.is_exact(),
    })
}

fn speed_json(speed: &Speed, delays: &[Delay]) -> Value {
    let (cost, mm2) = (&speed.cost, mm2_of(speed));
    let delay = delays.iter().find(|delay| delay.payload.name == speed.payload.name);
    let side = |side: usize| {
        json!({
            "cpu_seconds_per_gb": round(cost.cpu_per_gb(side)),
            "cpu_seconds_per_million_records": round(cost.cpu_per_million(side)),
            "share_in_the_kernel": round(cost.system_share(side)),
            "peak_memory_bytes": cost.peak_memory_bytes[side],
        })
    };
    let here = |mm2: &Mm2| {
        json!({
            "megabytes_per_second": round(mm2.bytes_per_second / 1e6),
            "cpu_seconds_per_gb": round(mm2.cpu_per_gb),
            "cpu_seconds_per_million_records": round(mm2.cpu_per_million),
            "peak_memory_bytes": mm2.peak_memory_bytes,
        })
    };
    let here =
        speed.mm2.as_ref().map(|[shipped, tuned]| json!({ "shipped": here(shipped), "tuned": here(tuned) }));
    json!({
        "mm2_in_this_run": here,
        "payload": speed.payload.name,
        "what": speed.payload.what,
        "records": speed.records,
        "bytes_per_record": round(speed.bytes_per_record),
        "records_per_second": round(cost.records_per_second),
        "megabytes_per_second": round(cost.bytes_per_second / 1e6),
        "wire_bytes_per_byte": round(cost.wire_share),
        "levels": cost.levels.to_string(),
        "delay_p50_ms": delay.map(|delay| delay.p50_ms),
        "delay_p99_ms": delay.map(|delay| delay.p99_ms),
        "exporter": side(0),
        "importer": side(1),
        "cpu_seconds_per_gb": round(cost.of_both(Cost::cpu_per_gb)),
        "cpu_seconds_per_million_records": round(cost.of_both(Cost::cpu_per_million)),
        "mm2_cpu_seconds_per_gb": mm2.cpu_per_gb,
        "mm2_cpu_seconds_per_million_records": mm2.cpu_per_million,
    })
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

pub(crate) fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_one() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!(median(&[]).is_nan());
    }
}
