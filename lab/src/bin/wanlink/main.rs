//! `cargo wanlink`: a long, lossy, slow line between two network namespaces, for whatever is to be tried on it.
//!
//! ```text
//! cargo wanlink -- up --rate 100 --delay 50 --loss 1 &       # 100 Mbit/s, 100 ms round trip, 1 % loss
//! ip netns exec wan-a ping 10.77.0.2
//! cargo wanlink -- ctl stats                                  # counters of both directions, as JSON
//! cargo wanlink -- ctl reset                                  # set them to zero
//! cargo wanlink -- ctl set both loss=3 rate=200               # change it while it runs
//! cargo wanlink -- ctl cut                                    # what is on its way is lost; `restore` ends it
//! cargo wanlink -- ctl quit
//! ```

mod control;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Args, Parser, Subcommand};
use longhaul_lab::wanlink::{Params, Plan, Wan};
use nix::sys::signal::{SigSet, Signal};

/// A long, lossy, slow line between two network namespaces. Needs root.
#[derive(Debug, Parser)]
#[command(name = "wanlink", version, after_help = "Exit codes: 0 ok, 1 failed, 64 bad usage")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make the namespaces and carry packets until SIGINT, SIGTERM or `ctl quit`; then print the counters as JSON
    Up(Box<Up>),
    /// Send a command to a running line: stats, reset, show, set DIRECTION KEY=VALUE..., cut, restore, quit
    Ctl {
        /// Control socket of the running line
        #[arg(long, default_value = SOCKET)]
        socket: PathBuf,
        /// The command, such as `set both loss=1 rate=50`; directions are ab, ba and both
        #[arg(required = true, trailing_var_arg = true)]
        words: Vec<String>,
    },
}

#[derive(Debug, Args)]
struct Up {
    /// Name of the first namespace
    #[arg(long, default_value = "wan-a")]
    ns_a: String,
    /// Name of the second namespace
    #[arg(long, default_value = "wan-b")]
    ns_b: String,
    /// Address of the first namespace, with prefix length
    #[arg(long, default_value = "10.77.0.1/24")]
    addr_a: String,
    /// Address of the second namespace, with prefix length
    #[arg(long, default_value = "10.77.0.2/24")]
    addr_b: String,
    /// MTU of both devices
    #[arg(long, default_value_t = 1500)]
    mtu: u16,
    /// Rate in Mbit/s of IP bytes, 0 = no limit
    #[arg(long, default_value = "0")]
    rate: String,
    /// One-way delay in ms
    #[arg(long, default_value = "0")]
    delay: String,
    /// Jitter in ms, plus and minus
    #[arg(long, default_value = "0")]
    jitter: String,
    /// Random loss in percent
    #[arg(long, default_value = "0")]
    loss: String,
    /// Loss in bursts, in percent per packet: `BEGIN,END[,INSIDE[,OUTSIDE]]`
    #[arg(long, default_value = "off")]
    bursts: String,
    /// Bound of the drop-tail queue: 100ms, 256kb or 300000b
    #[arg(long, default_value = "100ms")]
    queue: String,
    /// Framing bytes a packet that count against the rate
    #[arg(long, default_value = "0")]
    overhead: String,
    /// Let jitter reorder packets
    #[arg(long)]
    reorder: bool,
    /// What is different from A to B, as KEY=VALUE; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    ab: Vec<String>,
    /// What is different from B to A, as KEY=VALUE; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    ba: Vec<String>,
    /// Seed of the random numbers
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Length of a round in which packets are handled, in microseconds
    #[arg(long, default_value_t = 100)]
    round_us: u64,
    /// Do not run the emulator before all other processes
    #[arg(long)]
    no_realtime: bool,
    /// Control socket
    #[arg(long, default_value = SOCKET)]
    socket: PathBuf,
}

const SOCKET: &str = "/tmp/wanlink.sock";

impl Up {
    fn params(&self, different: &[String]) -> Result<Params> {
        let mut params = Params { reorder: self.reorder, ..Params::default() };
        let same = [
            ("rate", &self.rate),
            ("delay", &self.delay),
            ("jitter", &self.jitter),
            ("loss", &self.loss),
            ("bursts", &self.bursts),
            ("queue", &self.queue),
            ("overhead", &self.overhead),
        ];
        for (key, value) in same {
            params.set(&format!("{key}={value}"))?;
        }
        different.iter().try_for_each(|pair| params.set(pair))?;
        Ok(params)
    }

    fn run(&self) -> Result<()> {
        let plan = Plan {
            namespaces: [self.ns_a.clone(), self.ns_b.clone()],
            addresses: [self.addr_a.clone(), self.addr_b.clone()],
            mtu: self.mtu,
            ab: self.params(&self.ab)?,
            ba: self.params(&self.ba)?,
            seed: self.seed,
            round: Duration::from_micros(self.round_us),
            realtime: !self.no_realtime,
        };
        let stop = Arc::new(AtomicBool::new(false));
        stop_by_signal(stop.clone())?;
        let wan = Arc::new(Wan::up(&plan)?);
        control::serve(&self.socket, &wan, &stop)?;
        eprint(&format!(
            "{} {} <-> {} {}, control socket {}",
            self.ns_a,
            self.addr_a,
            self.ns_b,
            self.addr_b,
            self.socket.display()
        ));
        while !stop.load(Ordering::Relaxed) {
            std::thread::sleep(LOOK);
        }
        control::print(&wan.readings().json())?;
        // A socket that stays is replaced at the next start.
        let _ = std::fs::remove_file(&self.socket);
        Ok(())
    }
}

/// Blocks SIGINT and SIGTERM in this thread and all that it starts; one thread waits for them.
fn stop_by_signal(stop: Arc<AtomicBool>) -> Result<()> {
    let signals = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM]);
    signals.thread_block().context("cannot block signals")?;
    std::thread::spawn(move || {
        if signals.wait().is_ok() {
            stop.store(true, Ordering::Relaxed);
        }
    });
    Ok(())
}

fn main() -> ExitCode {
    let arguments = match longhaul_lab::arguments::parse::<Arguments>() {
        Ok(arguments) => arguments,
        Err(code) => return code,
    };
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let outcome = match &arguments.command {
        Command::Up(up) => up.run(),
        Command::Ctl { socket, words } => control::send(socket, &words.join(" ")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprint(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// A line for people.
fn eprint(line: &str) {
    use std::io::Write as _;
    // Nobody may be listening.
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// How soon a stop is seen.
const LOOK: Duration = Duration::from_millis(100);
