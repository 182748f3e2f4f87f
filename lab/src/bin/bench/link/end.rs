//! One end of a measured transport: a process of its own, so that its processor time is its own.
//!
//! A receiver says `ready` on stdout, counts until its stdin is closed, and prints what it [`Received`]. A sender waits
//! for its start, sends until its end and prints what it [`Sent`].

mod bare;
mod exporter;
mod importer;
mod tcp;

use std::io::{Read as _, Write as _};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Parser, ValueEnum};
use serde::Serialize;

use super::spec::{Memory, Moment, Received, Sent, Spec, Transport, cpu_seconds};
pub(crate) use importer::{EXPORTER_ID, IMPORTER_ID};

/// One end.
#[derive(Debug, Parser)]
pub(crate) struct Options {
    role: Role,
    /// The spec as JSON
    spec: String,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Role {
    Send,
    Receive,
}

impl Role {
    /// The word for it on the command line.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Send => "send",
            Self::Receive => "receive",
        }
    }
}

/// Runs it to its end.
pub(crate) fn run(options: &Options) -> Result<()> {
    let spec: Spec = serde_json::from_str(&options.spec).context("a spec that is no JSON")?;
    match options.role {
        Role::Send => tell(&send(&spec)?),
        Role::Receive => tell(&receive(&spec)?),
    }
}

fn send(spec: &Spec) -> Result<Sent> {
    let (before, memory) = (cpu_seconds()?, MemoryLog::start());
    let sent = match spec.transport {
        Transport::TcpCubic { flows } => tcp::send(spec, "cubic", flows)?,
        Transport::TcpBbr { flows } => tcp::send(spec, "bbr", flows)?,
        Transport::Quinn => runtime()?.block_on(bare::send(spec))?,
        Transport::Longhaul | Transport::LonghaulAdaptive | Transport::LonghaulCubic => {
            runtime()?.block_on(exporter::send(spec))?
        }
    };
    Ok(Sent { cpu_seconds: cpu_seconds()? - before, memory: memory.read(), ..sent })
}

fn receive(spec: &Spec) -> Result<Received> {
    let meter = Meter::default();
    let runtime = runtime()?;
    // It ends with this process: there is nothing to be left in order.
    let _running = match spec.transport {
        Transport::TcpCubic { .. } | Transport::TcpBbr { .. } => {
            tcp::receive(spec, meter.clone())?;
            None
        }
        Transport::Quinn => Some(runtime.block_on(bare::receive(spec, meter.clone()))?),
        _ => Some(runtime.block_on(importer::receive(spec, meter.clone()))?),
    };
    let before = cpu_seconds()?;
    let (timeline, memory) = (Timeline::start(meter), MemoryLog::start());
    tell(&"ready")?;
    // Until the other side of the pipe is closed.
    std::io::stdin().read_to_end(&mut Vec::new()).context("stdin")?;
    let cpu_seconds = cpu_seconds()? - before;
    Ok(Received { timeline: timeline.stop(), cpu_seconds, memory: memory.read() })
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start a runtime")
}

fn tell(value: &impl Serialize) -> Result<()> {
    let line = serde_json::to_string(value).context("JSON")?;
    writeln!(std::io::stdout(), "{line}").context("cannot write to stdout")
}

/// Payload bytes received.
#[derive(Debug, Clone, Default)]
pub(super) struct Meter(Arc<AtomicU64>);

impl Meter {
    pub(super) fn add(&self, bytes: usize) {
        self.0.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// Writes down what the meter shows.
struct Timeline {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<(u64, u64)>>,
}

impl Timeline {
    fn start(meter: Meter) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut timeline: Vec<(u64, u64)> = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                let bytes = meter.0.load(Ordering::Relaxed);
                if timeline.last().map_or(0, |(_, before)| *before) < bytes {
                    timeline.push((Moment::now().0, bytes));
                }
                std::thread::sleep(LOOK);
            }
            timeline
        });
        Self { stop, thread }
    }

    fn stop(self) -> Vec<(u64, u64)> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// Writes down how much memory this process has.
struct MemoryLog(Arc<Mutex<Memory>>);

impl MemoryLog {
    /// Until the process ends.
    fn start() -> Self {
        let log = Arc::new(Mutex::new(Memory::default()));
        let kept = Arc::clone(&log);
        std::thread::spawn(move || {
            loop {
                if let Some(bytes) = resident_bytes() {
                    kept.lock().unwrap_or_else(PoisonError::into_inner).0.push((Moment::now().0, bytes));
                }
                std::thread::sleep(MEMORY_LOOK);
            }
        });
        Self(log)
    }

    fn read(&self) -> Memory {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn resident_bytes() -> Option<u64> {
    let pages: u64 = std::fs::read_to_string("/proc/self/statm").ok()?.split(' ').nth(1)?.parse().ok()?;
    Some(pages * PAGE_BYTES)
}

const PAGE_BYTES: u64 = 4096;
const MEMORY_LOOK: Duration = Duration::from_millis(500);
/// How exact the timeline is.
const LOOK: Duration = Duration::from_millis(5);
/// Payload handed to a transport at once.
pub(super) const BLOCK_BYTES: usize = 64 << 10;
/// Streams, or lanes, of one QUIC connection.
pub(super) const LANES: u16 = 4;
