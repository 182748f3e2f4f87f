//! The figures in a table, as JSON, and as a line while they are made.

use std::fmt::Write as _;
use std::io::Write as _;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::measured::Measured;
use super::{Findings, OnePath, Options};
use crate::say;

/// Data on stdout: the table, or JSON and the table for people.
pub(crate) fn print(findings: &Findings, as_json: bool) -> Result<()> {
    let mut out = std::io::stdout();
    if as_json {
        say(findings.table.trim_end());
        writeln!(out, "{:#}", findings.json).context("cannot write to stdout")
    } else {
        write!(out, "{}", findings.table).context("cannot write to stdout")
    }
}

/// One run, as soon as it is there.
pub(crate) fn line(measured: &Measured) -> String {
    let mut line = format!("{}: {:.1} Mbit/s", measured.transport, measured.goodput_mbit);
    if let Some(wire) = measured.wire {
        // A string takes everything.
        let _ = write!(
            line,
            " (steady {:.1}), first after {:.2} s, queue {:.1}/{:.1} ms, wire {:.3}, {} kB above, emulator late p99 {} us",
            measured.steady_mbit,
            measured.first_seconds,
            wire.queue_ms_mean,
            wire.queue_ms_p99,
            measured.wire_ratio(),
            wire.above_bytes / 1000,
            wire.late_us_p99
        );
    }
    if let Some(path) = measured.path.as_ref().filter(|path| path.woken_late_seconds > 0.0) {
        let _ = write!(line, ", sender woken late for {:.2} s", path.woken_late_seconds);
    }
    let _ = write!(line, ", CPU {:.2} + {:.2} s", measured.cpu_seconds[0], measured.cpu_seconds[1]);
    line
}

/// For people.
pub(crate) fn table(path: &OnePath) -> String {
    let mut text = format!(
        "{}\n{:<18} {:>8} {:>8} {:>7} {:>9} {:>9} {:>9} {:>8} {:>8} {:>8}\n",
        conditions(&path.options),
        "transport",
        "goodput",
        "steady",
        "% rate",
        "queue ms",
        "p99 ms",
        "wire/good",
        "dropped",
        "CPU send",
        "CPU recv"
    );
    for measured in &path.measured {
        let wire = measured.wire.as_ref();
        let of = |figure: fn(&super::measured::Wire) -> f64| wire.map_or(f64::NAN, figure);
        // A string takes everything.
        let _ = writeln!(
            text,
            "{:<18} {:>8.2} {:>8.2} {:>7.1} {:>9.2} {:>9.2} {:>9.3} {:>7.2}% {:>7.2}s {:>7.2}s",
            measured.transport.to_string(),
            measured.goodput_mbit,
            measured.steady_mbit,
            measured.goodput_mbit * 100.0 / path.options.rate,
            of(|wire| wire.queue_ms_mean),
            of(|wire| wire.queue_ms_p99),
            measured.wire_ratio(),
            of(|wire| wire.dropped * 100.0),
            measured.cpu_seconds[0],
            measured.cpu_seconds[1],
        );
    }
    for (transport, why) in &path.missing {
        let _ = writeln!(text, "{:<18} not measured: {why}", transport.to_string());
    }
    text
}

/// For scripts.
pub(crate) fn json(path: &OnePath) -> Value {
    let options = &path.options;
    json!({
        "rate_mbit_s": options.rate,
        "rtt_ms": options.rtt,
        "loss_pct": options.loss,
        "bursts": options.burst,
        "jitter_ms": options.jitter,
        "queue_ms": options.queue,
        "seconds": options.seconds,
        "configured_pct": options.configured,
        "runs": options.runs,
        "seed": options.seed,
        "transports": path.measured.iter().map(Measured::json).collect::<Vec<_>>(),
        "not_measured": path
            .missing
            .iter()
            .map(|(transport, why)| json!({ "transport": transport.to_string(), "why": why }))
            .collect::<Vec<_>>(),
    })
}

fn conditions(options: &Options) -> String {
    let Options { rate, rtt, loss, seconds, configured, queue, .. } = options;
    let bursts = if options.burst { " in bursts of 10" } else { "" };
    let jitter = match options.jitter {
        jitter if jitter > 0.0 => format!(", jitter +-{jitter} ms in order"),
        _ => String::new(),
    };
    format!(
        "{rate} Mbit/s, {rtt} ms round trip, loss {loss} %{bursts}{jitter}, queue {queue} ms; {seconds} s with the start; ours \
         configured to {configured} %"
    )
}
