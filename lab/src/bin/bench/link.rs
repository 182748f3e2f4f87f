//! `cargo bench-link`: our link, bare QUIC and the kernel's TCP side by side on the same emulated path.
//!
//! Both ends of each transport are processes of their own in two network namespaces; this process is the path between
//! them. One transport runs at a time unless they are to meet. Needs root, except with `--loopback`.

mod blocked;
pub(crate) mod end;
mod measured;
mod plot;
mod report;
mod site;
mod spec;
mod trials;

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::{Parser, ValueEnum};
use longhaul_lab::wanlink::{Bursts, Params};

use crate::say;
use measured::Measured;
use site::{Flow, Site};
use spec::Transport;

/// What is measured, and on what path.
#[derive(Debug, Clone, Parser)]
pub(crate) struct Options {
    /// Rate of the path in Mbit/s of IP bytes
    #[arg(long, value_name = "M", default_value_t = 100.0)]
    pub(crate) rate: f64,
    /// Round trip of the path
    #[arg(long, value_name = "MS", default_value_t = 100.0)]
    pub(crate) rtt: f64,
    /// Share of packets that is lost, both ways
    #[arg(long, value_name = "PCT", default_value_t = 0.0)]
    pub(crate) loss: f64,
    /// Lose them in bursts of 10 in the mean, from the sender to the receiver only
    #[arg(long)]
    pub(crate) burst: bool,
    /// Packets are up to this much early or late, in order
    #[arg(long, value_name = "MS", default_value_t = 0.0)]
    pub(crate) jitter: f64,
    /// Longest wait in front of the path; what would wait longer is dropped
    #[arg(long, value_name = "MS", default_value_t = 100.0)]
    pub(crate) queue: f64,
    /// How long each transport sends, its start included
    #[arg(long, value_name = "S", default_value_t = 20.0)]
    pub(crate) seconds: f64,
    /// The rate that ours is configured with, in percent of the path's
    #[arg(long, value_name = "PCT", default_value_t = 98.0)]
    pub(crate) configured: f64,
    /// What is measured; default: all
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(crate) transports: Vec<Transport>,
    /// How often; the run with the median goodput counts
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) runs: u32,
    /// `--trial fair` and `floor`: by how much ours begins before TCP; negative: after it
    #[arg(long, value_name = "S", default_value_t = 0.0, allow_negative_numbers = true)]
    pub(crate) lead: f64,
    /// Seed of the emulator's random numbers
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// All transports at a loss of 0, 0.1, 0.3, 1, 2 and 3 %, and a plot
    #[arg(long)]
    pub(crate) sweep: bool,
    /// Where the plot of a sweep is written
    #[arg(long, value_name = "FILE", default_value = "link.svg")]
    pub(crate) svg: PathBuf,
    /// No path: processor time per byte on loopback, against bare QUIC
    #[arg(long, conflicts_with_all = ["sweep", "trial"])]
    pub(crate) loopback: bool,
    /// One of the other measurements
    #[arg(long, value_name = "NAME", conflicts_with = "sweep")]
    trial: Option<Trial>,
    /// The result as one JSON object on stdout, the table on stderr
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Trial {
    /// A cut of 10 s: how long after it data flows again (`--runs` times), and how much comes at once then
    Cut,
    /// The receiver is killed: how long until a second address has taken over (`--runs` times)
    Takeover,
    /// The sender's address becomes another one: how long until data flows again (`--runs` times)
    Moved,
    /// One lane's target takes nothing for 60 s: what the others carry before and meanwhile, and memory
    Blocked,
    /// 1,000 open partitions and nothing to send: bytes a second
    Idle,
    /// Against a flow of TCP Cubic, both at once
    Floor,
    /// Ours alone against TCP Cubic when it must find the rate by itself
    Fair,
}

/// A result for people and for scripts.
pub(crate) struct Findings {
    pub(crate) table: String,
    pub(crate) json: serde_json::Value,
}

/// Measures.
pub(crate) fn run(options: &Options) -> Result<()> {
    let findings = if options.loopback {
        trials::loopback(options)?
    } else if options.sweep {
        sweep(options)?
    } else {
        match options.trial {
            None => {
                let path = side_by_side(options)?;
                Findings { table: report::table(&path), json: report::json(&path) }
            }
            Some(Trial::Cut) => trials::cut(options)?,
            Some(Trial::Takeover) => trials::takeover(options)?,
            Some(Trial::Moved) => trials::moved(options)?,
            Some(Trial::Blocked) => blocked::blocked(options)?,
            Some(Trial::Idle) => trials::idle(options)?,
            Some(Trial::Floor) => trials::share(options, Transport::Longhaul)?,
            Some(Trial::Fair) => trials::share(options, Transport::LonghaulAdaptive)?,
        }
    };
    report::print(&findings, options.json)
}

/// The transports on one path.
pub(crate) struct OnePath {
    pub(crate) options: Options,
    pub(crate) measured: Vec<Measured>,
    /// What was not measured, or does not count, and why.
    pub(crate) missing: Vec<(Transport, String)>,
}

fn side_by_side(options: &Options) -> Result<OnePath> {
    let mut path = OnePath { options: options.clone(), measured: Vec::new(), missing: Vec::new() };
    for transport in options.transports() {
        if let Some(why) = transport.objection() {
            say(&format!("NOT MEASURED: {transport}: {why}"));
            path.missing.push((transport, why));
            continue;
        }
        let mut runs = Vec::new();
        for run in 0..options.runs {
            match one_run(options, transport, run)? {
                Ok(measured) => runs.push(measured),
                Err(why) => {
                    say(&format!("NOT COUNTED: {transport}: {why}"));
                    path.missing.push((transport, why));
                }
            }
        }
        runs.sort_by(|a, b| a.goodput_mbit.total_cmp(&b.goodput_mbit));
        if !runs.is_empty() {
            path.measured.push(runs.swap_remove((runs.len() - 1) / 2));
        }
    }
    Ok(path)
}

/// One run, repeated while the emulator objects to it; why none counts otherwise.
fn one_run(options: &Options, transport: Transport, run: u32) -> Result<Result<Measured, String>> {
    let mut why = String::new();
    for attempt in 0..ATTEMPTS {
        let site = Site::emulated(options.path(), options.seed + u64::from(run * ATTEMPTS + attempt))?;
        let flow = Flow::new(transport, Some(options.configured_mbit()));
        let outcome = site.measure(&[flow], options.seconds, |_, _| Ok(()))?;
        for ending in &outcome.flows[0].sent.endings {
            say(&format!("{transport}: a connection was given up {ending}"));
        }
        let judged_by = if transport.is_ours() { options.configured_mbit() } else { options.rate };
        let measured = Measured::new(transport, &outcome, 0, judged_by);
        match outcome.readings.and_then(|readings| readings.objection()) {
            None => {
                say(&report::line(&measured));
                return Ok(Ok(measured));
            }
            Some(objection) => {
                say(&format!("{transport}: does not count, {objection}"));
                why = objection;
            }
        }
    }
    Ok(Err(format!("{ATTEMPTS} runs, the last: {why}")))
}

fn sweep(options: &Options) -> Result<Findings> {
    let mut paths = Vec::new();
    for loss in SWEEP_LOSSES {
        say(&format!("loss {loss} %"));
        paths.push(side_by_side(&Options { loss, ..options.clone() })?);
    }
    let svg = plot::goodput_over_loss(&paths);
    std::fs::write(&options.svg, svg).with_context(|| format!("cannot write {}", options.svg.display()))?;
    say(&format!("plot: {}", options.svg.display()));
    let table = paths.iter().map(report::table).collect::<Vec<_>>().join("\n");
    Ok(Findings { table, json: paths.iter().map(report::json).collect() })
}

impl Options {
    /// The path of these options.
    pub(crate) fn path(&self) -> Params {
        let nanos = |ms: f64| (ms * 1e6) as u64;
        let bursts = self.burst.then(|| Bursts::new(self.loss / 100.0, BURST_PACKETS));
        Params {
            rate_mbit: self.rate,
            delay_ns: nanos(self.rtt / 2.0),
            jitter_ns: nanos(self.jitter),
            loss: if self.burst { 0.0 } else { self.loss / 100.0 },
            bursts,
            queue: longhaul_lab::wanlink::Bound::Nanos(nanos(self.queue)),
            ..Params::default()
        }
    }

    pub(crate) fn configured_mbit(&self) -> f64 {
        self.rate * self.configured / 100.0
    }

    fn transports(&self) -> Vec<Transport> {
        if self.transports.is_empty() { Transport::ALL.to_vec() } else { self.transports.clone() }
    }
}

/// Runs of one measurement until the emulator was on time.
const ATTEMPTS: u32 = 3;
const SWEEP_LOSSES: [f64; 6] = [0.0, 0.1, 0.3, 1.0, 2.0, 3.0];
const BURST_PACKETS: f64 = 10.0;
