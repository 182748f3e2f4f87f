//! A long, lossy, slow line between two network namespaces of this machine. Linux, root, no `netem`.
//!
//! ```text
//!   namespace A                       this process                      namespace B
//!   10.77.0.1 --- TUN "wan0" ---[ queue, rate | loss | delay ]--- TUN "wan0" --- 10.77.0.2
//! ```
//!
//! Whatever speaks IP runs over it: QUIC, the kernel's TCP, ICMP. [`crate::relay`] needs no rights and carries UDP only.
//!
//! ```no_run
//! use longhaul_lab::wanlink::{Params, Plan, Wan, Side, Which};
//!
//! let mut params = Params::default();
//! for pair in ["rate=100", "delay=50", "loss=1"] {
//!     params.set(pair)?;
//! }
//! let wan = Wan::up(&Plan::symmetric("trial", params))?;
//! let ping = wan.command(Side::A, "ping").args(["-c", "3", "10.77.0.2"]).status();
//! wan.change(Which::Both, |params| params.down = true);
//! println!("{}", wan.readings().json());
//! # Ok::<(), longhaul_lab::wanlink::Error>(())
//! ```
//!
//! # Parameters
//!
//! | key | meaning |
//! |---|---|
//! | `rate` | Mbit/s of IP bytes; 0 is no limit |
//! | `delay` | propagation, one way, ms |
//! | `jitter` | each packet gets the delay plus or minus up to this, ms, evenly distributed |
//! | `reorder` | 1: jitter may reorder packets; 0: their order is kept |
//! | `loss` | random loss in percent, each packet by itself |
//! | `bursts` | `BEGIN,END[,INSIDE[,OUTSIDE]]`: percent per packet that a burst begins, that it ends, loss in it (100) and outside (0) |
//! | `queue` | bound of the drop-tail queue before the rate limit: `100ms`, `256kb` or `300000b` |
//! | `overhead` | bytes added to each packet when the rate is computed (framing) |
//! | `down` | 1: the link is cut, and what is on its way is lost |
//!
//! # The model, in the order a packet meets it
//!
//! 1. *Queue and rate*: when the backlog is above the bound the packet is dropped, else it leaves when those before it
//!    have been serialised at the rate.
//! 2. *Loss* behind the line: a lost packet has used its share of it, as on a real one.
//! 3. *Delay and jitter*; then it is written into the other side's device.
//!
//! What is offered, carried, delivered and dropped is counted for each direction, with the time that packets waited in
//! the queue, the most bytes within any 100 ms, and how late the emulator itself was. **A measurement counts only while
//! [`Counts::objection`] has none**: on a busy machine the emulator adds delays of its own. With one core to spare it
//! is good for about 1 Gbit/s of full-size packets (85,000 packets a second); small packets at such rates are not for it.

mod carrier;
mod counts;
mod packets;
mod params;
pub(crate) mod path;
mod side;

pub use counts::{Count, Counts, Histogram, Peak};
pub use params::{Bound, Bursts, Params};

use std::ffi::OsStr;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use carrier::{Carrier, Direction};
use path::Path;

/// What is to be set up.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Names of both namespaces; they must not exist.
    pub namespaces: [String; 2],
    /// Their addresses, with prefix length.
    pub addresses: [String; 2],
    /// MTU of both devices.
    pub mtu: u16,
    /// From A to B.
    pub ab: Params,
    /// From B to A.
    pub ba: Params,
    /// Of the random numbers: the same seed and packets lose the same packets.
    pub seed: u64,
    /// Length of a round in which packets are handled.
    pub round: Duration,
    /// Whether the emulator's threads run before all others (SCHED_FIFO).
    pub realtime: bool,
}

impl Plan {
    /// The same both ways, between 10.77.0.1 in `NAME-a` and 10.77.0.2 in `NAME-b`.
    pub fn symmetric(name: &str, params: Params) -> Self {
        Self {
            namespaces: [format!("{name}-a"), format!("{name}-b")],
            addresses: ["10.77.0.1/24".to_owned(), "10.77.0.2/24".to_owned()],
            mtu: 1500,
            ab: params,
            ba: params,
            seed: 1,
            round: Duration::from_micros(200),
            realtime: true,
        }
    }
}

/// Why there is no path, or not this one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A parameter makes no sense.
    #[error("`{pair}`: {why}")]
    Parameter {
        /// As given.
        pair: String,
        /// What is wrong with it.
        why: String,
    },
    /// A program that sets things up failed.
    #[error("`{line}` failed (the emulator needs root, and the programs of iproute2 and util-linux): {why}")]
    Program {
        /// Its command line.
        line: String,
        /// What it said.
        why: String,
    },
    /// A namespace cannot be entered.
    #[error("cannot enter network namespace {namespace}: {why}")]
    Namespace {
        /// Its name.
        namespace: String,
        /// What the kernel said.
        why: String,
    },
    /// There is no TUN device.
    #[error("cannot make a TUN device: {why}; the emulator needs root and /dev/net/tun")]
    Tun {
        /// What the kernel said.
        why: std::io::Error,
    },
}

/// One end of the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The first namespace.
    A,
    /// The second.
    B,
}

/// One direction or both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// From A to B.
    Ab,
    /// From B to A.
    Ba,
    /// Both.
    Both,
}

/// The path; its namespaces, and all processes' sockets in them, are gone when it is dropped.
#[derive(Debug)]
pub struct Wan {
    sides: [side::Side; 2],
    directions: [Arc<Direction>; 2],
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    since: Mutex<Since>,
}

/// When the counters were set to zero, and what the kernel had dropped until then.
#[derive(Debug, Clone, Copy)]
struct Since {
    at: Instant,
    drops: [u64; 2],
}

/// The counters of both directions.
#[derive(Debug, Clone)]
pub struct Readings {
    /// For how long they have been counting.
    pub seconds: f64,
    /// From A to B.
    pub ab: Counts,
    /// From B to A.
    pub ba: Counts,
}

impl Wan {
    /// Makes the namespaces and begins to carry packets.
    ///
    /// # Errors
    /// Without root, or when a namespace of a name exists already.
    pub fn up(plan: &Plan) -> Result<Self, Error> {
        let (a, device_a) = side::Side::create(&plan.namespaces[0], &plan.addresses[0], plan.mtu)?;
        let (b, device_b) = side::Side::create(&plan.namespaces[1], &plan.addresses[1], plan.mtu)?;
        let (device_a, device_b) = (Arc::new(device_a), Arc::new(device_b));
        let seeds = [plan.seed.wrapping_mul(2), plan.seed.wrapping_mul(2).wrapping_add(1)];
        let directions = [(plan.ab, seeds[0]), (plan.ba, seeds[1])]
            .map(|(params, seed)| Arc::new(Direction::new(Path::new(params, seed))));
        let (stop, base) = (Arc::new(AtomicBool::new(false)), Instant::now());
        let carrier = |direction: usize, from: &Arc<_>, to: &Arc<_>| Carrier {
            direction: directions[direction].clone(),
            stop: stop.clone(),
            from: Arc::clone(from),
            to: Arc::clone(to),
            base,
            round: plan.round,
        };
        let realtime = plan.realtime;
        let threads = [carrier(0, &device_a, &device_b), carrier(1, &device_b, &device_a)]
            .into_iter()
            .map(|carrier| std::thread::spawn(move || carrier.run(realtime)))
            .collect();
        let since = Mutex::new(Since { at: base, drops: [a.drops(), b.drops()] });
        Ok(Self { sides: [a, b], directions, stop, threads, since })
    }

    /// Changes how the path is from now on; packets on their way are not touched, unless it is cut.
    pub fn change(&self, which: Which, change: impl Fn(&mut Params)) {
        let directions = match which {
            Which::Ab => &self.directions[..1],
            Which::Ba => &self.directions[1..],
            Which::Both => &self.directions[..],
        };
        for direction in directions {
            change(&mut direction.lock().path.params);
        }
    }

    /// How the path is: from A to B, and from B to A.
    pub fn params(&self) -> [Params; 2] {
        [&self.directions[0], &self.directions[1]].map(|direction| direction.lock().path.params)
    }

    /// Sets all counters to zero.
    pub fn reset(&self) {
        let drops = [self.sides[0].drops(), self.sides[1].drops()];
        for direction in &self.directions {
            let fresh = Counts::default();
            let old = std::mem::replace(&mut direction.lock().counts, fresh);
            drop(old);
        }
        *self.since.lock().unwrap_or_else(PoisonError::into_inner) = Since { at: Instant::now(), drops };
    }

    /// The counters as they are.
    pub fn readings(&self) -> Readings {
        let since = *self.since.lock().unwrap_or_else(PoisonError::into_inner);
        let seconds = since.at.elapsed().as_secs_f64();
        let [mut ab, mut ba] = [0, 1].map(|index| self.directions[index].lock().counts.clone());
        ab.tun_drops = self.sides[0].drops().saturating_sub(since.drops[0]);
        ba.tun_drops = self.sides[1].drops().saturating_sub(since.drops[1]);
        Readings { seconds, ab, ba }
    }

    /// A command that runs `program` on one side of the path.
    pub fn command(&self, side: Side, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", self.namespace(side)]).arg(program);
        command
    }

    /// The name of a side's namespace.
    pub fn namespace(&self, side: Side) -> &str {
        &self.sides[side as usize].namespace
    }

    /// Gives a side one more address (with prefix length).
    ///
    /// # Errors
    /// When the kernel does not take it.
    pub fn add_address(&self, side: Side, address: &str) -> Result<(), Error> {
        self.sides[side as usize].add_address(address)
    }

    /// Gives a side another address (with prefix length) instead of one that it has.
    ///
    /// # Errors
    /// When the kernel does not do it.
    pub fn replace_address(&self, side: Side, old: &str, new: &str) -> Result<(), Error> {
        self.sides[side as usize].remove_address(old)?;
        self.add_address(side, new)
    }
}

impl Drop for Wan {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A thread that panicked has said so.
            let _ = thread.join();
        }
    }
}

impl Readings {
    /// Why what was measured meanwhile does not count; `None` when it does.
    pub fn objection(&self) -> Option<String> {
        self.ab.objection().or_else(|| self.ba.objection())
    }

    /// For scripts.
    pub fn json(&self) -> Value {
        json!({ "seconds": self.seconds, "ab": self.ab.json(), "ba": self.ba.json() })
    }
}
