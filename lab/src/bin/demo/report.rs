//! The result in words, and as JSON.

use std::fmt::Write as _;

use longhaul_lab::checker::{Anomaly, Finding, TopicReport};
use longhaul_lab::tail::Delays;
use serde_json::{Value, json};

use crate::display::{Paint, grouped};
use crate::result::{Carried, Outcome, lost};

const MEDIAN: f64 = 0.5;
const MOST: f64 = 0.99;
const MAX_EXAMPLES: usize = 10;
const VERDICTS: [Anomaly; 4] = [Anomaly::Lost, Anomaly::Repeated, Anomaly::Reordered, Anomaly::Changed];

/// One object for scripts.
pub(crate) fn json(outcome: &Outcome, price: f64) -> Value {
    let plain = outcome.report.bytes();
    let per_topic = outcome.per_topic().map(|(topic, carried)| topic_json(topic, carried));
    json!({
        "kafka": outcome.kafka.word(),
        "records": outcome.report.records(),
        "lost": outcome.count(Anomaly::Lost),
        "repeated": outcome.count(Anomaly::Repeated),
        "reordered": outcome.count(Anomaly::Reordered),
        "changed": outcome.count(Anomaly::Changed),
        "other_findings": outcome.report.findings.len(),
        "exact": outcome.is_exact(),
        "faults": outcome.faults,
        "plain_bytes": plain,
        "wire_bytes": outcome.wire_bytes,
        "seconds": (outcome.took.as_secs_f64() * 1000.0).round() / 1000.0,
        "price_per_gb": price,
        "plain_cost": cost(plain, price),
        "wire_cost": cost(outcome.wire_bytes, price),
        "per_topic": per_topic.collect::<Vec<_>>(),
        "held": outcome.held,
        "audit": outcome.audit,
        "audit_lines": outcome.audit_lines,
    })
}

fn topic_json(topic: &TopicReport, carried: &Carried) -> Value {
    json!({
        "topic": topic.source,
        "records": topic.records,
        "plain_bytes": topic.bytes,
        "wire_bytes": carried.wire_bytes,
        "delay_ms_p50": carried.delays.quantile_ms(MEDIAN),
        "delay_ms_p99": carried.delays.quantile_ms(MOST),
        "lost": lost(topic),
        "repeated": topic.count(Anomaly::Repeated),
        "reordered": topic.count(Anomaly::Reordered),
        "changed": topic.count(Anomaly::Changed),
    })
}

/// What a person wants to know, in about twenty lines.
pub(crate) fn people(outcome: &Outcome, price: f64, paint: Paint) -> String {
    let mut text = String::new();
    // A string takes everything.
    let _ = table(&mut text, outcome, paint);
    let _ = verdict(&mut text, outcome, paint);
    let _ = money(&mut text, outcome, price, paint);
    let _ = records(&mut text, outcome, paint);
    text
}

fn table(text: &mut String, outcome: &Outcome, paint: Paint) -> std::fmt::Result {
    let width = outcome.report.topics.iter().map(|topic| topic.source.len()).max().unwrap_or(0).max(5);
    let head = format!(
        "  {:width$}  {:>11}  {:>9}  {:>9}  {:>6}  {:>9}  {:>9}",
        "topic", "records", "bytes", "on wire", "ratio", "delay p50", "delay p99"
    );
    writeln!(text, "{}", paint.bold(&head))?;
    for (topic, carried) in outcome.per_topic() {
        let row = Row {
            name: &topic.source,
            records: topic.records,
            bytes: topic.bytes,
            wire: carried.wire_bytes,
            delays: Some(&carried.delays),
        };
        writeln!(text, "{}", row.line(width))?;
    }
    let all = Row {
        name: "all",
        records: outcome.report.records(),
        bytes: outcome.report.bytes(),
        wire: outcome.wire_bytes,
        delays: None,
    };
    writeln!(text, "{}", paint.bold(&all.line(width)))?;
    let faults = if outcome.faults { "; the faults are in the p99" } else { "" };
    let notes = format!(
        "  bytes: keys, values, headers. on wire: every packet of the link, both ways, with its IP and UDP headers.\n  \
         delay: from producing on premise until a read_committed reader in the cloud had it{faults}."
    );
    writeln!(text, "{}\n", paint.dim(&notes))
}

struct Row<'a> {
    name: &'a str,
    records: u64,
    bytes: u64,
    wire: u64,
    delays: Option<&'a Delays>,
}

impl Row<'_> {
    fn line(&self, width: usize) -> String {
        let ratio = if self.wire > 0 {
            format!("{:.1} : 1", self.bytes as f64 / self.wire as f64)
        } else {
            "-".to_owned()
        };
        let delay = |share| self.delays.and_then(|it| it.quantile_ms(share)).map_or_else(String::new, time);
        format!(
            "  {:width$}  {:>11}  {:>9}  {:>9}  {:>6}  {:>9}  {:>9}",
            self.name,
            grouped(self.records),
            size(self.bytes),
            size(self.wire),
            ratio,
            delay(MEDIAN),
            delay(MOST),
        )
        .trim_end()
        .to_owned()
    }
}

fn verdict(text: &mut String, outcome: &Outcome, paint: Paint) -> std::fmt::Result {
    let counts = VERDICTS.map(|anomaly| {
        let count = outcome.count(anomaly);
        let words = format!("{anomaly} {}", grouped(count));
        if count == 0 { words } else { paint.red(&words) }
    });
    writeln!(text, "  {}", counts.join("   "))?;
    if outcome.is_exact() {
        let words = "every record arrived exactly once, in order and unchanged";
        let seconds = outcome.took.as_secs_f64();
        return writeln!(text, "  {} in {seconds:.1} s\n", paint.green(words));
    }
    writeln!(text, "  {}", paint.red("the copy is not exact"))?;
    for held in &outcome.held {
        writeln!(text, "  held: {held}")?;
    }
    let examples: Vec<&Finding> = outcome.report.examples().collect();
    for finding in examples.iter().take(MAX_EXAMPLES) {
        writeln!(text, "  {finding}")?;
    }
    if examples.len() > MAX_EXAMPLES {
        writeln!(text, "  ... and more")?;
    }
    writeln!(text)
}

fn money(text: &mut String, outcome: &Outcome, price: f64, paint: Paint) -> std::fmt::Result {
    let plain = outcome.report.bytes();
    if plain == 0 || outcome.wire_bytes == 0 {
        return Ok(());
    }
    if plain < ENOUGH_TO_TELL {
        let note = "  what a terabyte costs is not said: with less than 1 MB, most of the bytes are the connection's own";
        return writeln!(text, "{}\n", paint.dim(note));
    }
    let per_terabyte = 1e12 * outcome.wire_bytes as f64 / plain as f64;
    writeln!(
        text,
        "  a terabyte of records like these costs ${:.2} on this link in place of ${:.2}",
        per_terabyte / 1e9 * price,
        1e3 * price
    )?;
    let note = format!(
        "  assumed: ${price} per GB (--price); in place of Kafka's uncompressed records without overhead"
    );
    writeln!(text, "{}\n", paint.dim(&note))
}

fn records(text: &mut String, outcome: &Outcome, paint: Paint) -> std::fmt::Result {
    let [edge, cloud] = &outcome.audit;
    writeln!(
        text,
        "  both audit logs are whole: {} lines, each chained to the one before. See for yourself:",
        grouped(outcome.audit_lines)
    )?;
    writeln!(text, "    cargo run -q -p longhaul -- audit verify {} {}", edge.display(), cloud.display())?;
    let note = format!("  configuration, certificates and logs of this run: {}", outcome.folder.display());
    write!(text, "{}", paint.dim(&note))
}

/// Bytes of records below which their share of the wire says nothing.
const ENOUGH_TO_TELL: u64 = 1_000_000;

/// Dollars, to the millionth.
fn cost(bytes: u64, price: f64) -> f64 {
    (bytes as f64 / 1e9 * price * 1e6).round() / 1e6
}

/// Decimal units, as links are billed.
fn size(bytes: u64) -> String {
    let bytes = bytes as f64;
    let units = [(1e9, "GB"), (1e6, "MB"), (1e3, "kB")];
    let fitting = units.iter().find(|(unit, _)| bytes >= *unit);
    fitting.map_or_else(|| format!("{bytes} B"), |(unit, name)| format!("{:.1} {name}", bytes / unit))
}

fn time(ms: u64) -> String {
    if ms < 10_000 { format!("{} ms", grouped(ms)) } else { format!("{:.1} s", ms as f64 / 1e3) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_read_well() {
        assert_eq!([size(12), size(1500), size(2_340_000)], ["12 B", "1.5 kB", "2.3 MB"]);
        assert_eq!([time(42), time(1250), time(12_345)], ["42 ms", "1,250 ms", "12.3 s"]);
    }
}
