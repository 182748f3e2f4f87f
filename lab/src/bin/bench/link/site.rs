//! What is measured on: an emulated path or loopback, certificates, and both ends of a transport as processes.

use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use certs::{Authority, Kind, Validity};
use longhaul_lab::wanlink::{Params, Plan, Readings, Side, Wan};
use serde::de::DeserializeOwned;
use tempfile::TempDir;

use super::end::{EXPORTER_ID, IMPORTER_ID, Role};
use super::spec::{Moment, Received, Sent, Spec, Transport};

/// Where processes run, and what is between them.
pub(crate) struct Site {
    /// Without one: loopback.
    pub(crate) wan: Option<Wan>,
    folder: TempDir,
}

/// One transport during a measurement.
#[derive(Debug, Clone)]
pub(crate) struct Flow {
    pub(crate) transport: Transport,
    /// Configured at the sender, Mbit/s.
    pub(crate) rate_mbit: Option<f64>,
    /// What it does not yield below, Mbit/s; `None` is its default.
    pub(crate) floor_mbit: Option<f64>,
    /// How much later than the measurement it begins, in seconds.
    pub(crate) delay: f64,
    pub(crate) idle_partitions: u32,
    pub(crate) idle: bool,
    /// How many receivers there are: the sender knows all their addresses.
    pub(crate) receivers: u16,
    /// When the first lane's target takes nothing, in seconds from the first session: from, to. That lane does not count.
    pub(crate) blocked: Option<(f64, f64)>,
}

impl Flow {
    pub(crate) fn new(transport: Transport, rate_mbit: Option<f64>) -> Self {
        Self {
            transport,
            rate_mbit,
            floor_mbit: None,
            delay: 0.0,
            idle_partitions: 0,
            idle: false,
            receivers: 1,
            blocked: None,
        }
    }
}

/// What was measured.
pub(crate) struct Outcome {
    pub(crate) start: Moment,
    pub(crate) end: Moment,
    /// In the order of the flows.
    pub(crate) flows: Vec<FlowOutcome>,
    /// What the path saw; nothing on loopback.
    pub(crate) readings: Option<Readings>,
}

/// Of one transport.
pub(crate) struct FlowOutcome {
    pub(crate) sent: Sent,
    /// Of each receiver that lived to tell.
    pub(crate) received: Vec<Received>,
}

impl FlowOutcome {
    pub(crate) fn bytes(&self, until: Moment) -> u64 {
        self.received.iter().map(|received| received.until(until)).sum()
    }

    /// When the first payload after `moment` came.
    pub(crate) fn first_after(&self, moment: Moment) -> Option<Moment> {
        self.received.iter().filter_map(|received| received.first_after(moment)).min()
    }

    pub(crate) fn mbit(&self, from: Moment, to: Moment) -> f64 {
        self.received.iter().map(|received| received.mbit(from, to)).sum()
    }
}

/// The receivers of a running measurement, which may be killed.
pub(crate) struct Receivers(Vec<Vec<End>>);

impl Receivers {
    /// SIGKILL to one.
    pub(crate) fn kill(&mut self, flow: usize, receiver: usize) {
        self.0[flow][receiver].kill();
    }
}

impl Site {
    /// With an emulated path.
    pub(crate) fn emulated(params: Params, seed: u64) -> Result<Self> {
        // Bursts come one way only: what comes back is a fiftieth of the packets, and a burst there would last longer.
        let back = Params { bursts: None, ..params };
        let plan =
            Plan { seed, ba: back, ..Plan::symmetric(&format!("bench-{}", std::process::id()), params) };
        let wan = Wan::up(&plan)?;
        for receiver in 1..MAX_RECEIVERS {
            wan.add_address(Side::B, &format!("{}/24", address(receiver)))?;
        }
        Ok(Self { wan: Some(wan), folder: certificates()? })
    }

    /// Without a path: both ends on loopback.
    pub(crate) fn loopback() -> Result<Self> {
        Ok(Self { wan: None, folder: certificates()? })
    }

    /// Runs flows side by side for so long, and `meanwhile` from their start on.
    pub(crate) fn measure(
        &self,
        flows: &[Flow],
        seconds: f64,
        meanwhile: impl FnOnce(&mut Receivers, Moment) -> Result<()>,
    ) -> Result<Outcome> {
        let spec = |start| -> Vec<Spec> {
            (0_u16..).zip(flows).map(|(n, flow)| self.spec(flow, n, start, seconds)).collect()
        };
        let mut receivers = Vec::new();
        // A receiver does not look at the time.
        for spec in &spec(Moment::now()) {
            let mut ends = Vec::new();
            for &address in &spec.addresses {
                let mut end =
                    self.spawn(Role::Receive, &Spec { addresses: vec![address], ..spec.clone() })?;
                let ready: String = end.hear()?;
                anyhow::ensure!(ready == "ready", "a receiver said {ready:?}");
                ends.push(end);
            }
            receivers.push(ends);
        }
        let start = Moment::now().after(SET_UP);
        let specs = spec(start);
        let mut senders = Vec::new();
        for spec in &specs {
            senders.push(self.spawn(Role::Send, spec)?);
        }
        if start.left().is_zero() {
            bail!("the senders needed more than {SET_UP:?} to start: the machine is too busy to measure on");
        }
        start.sleep();
        if let Some(wan) = &self.wan {
            wan.reset();
        }
        let end = specs.first().context("nothing to measure")?.end();
        let mut receivers = Receivers(receivers);
        meanwhile(&mut receivers, start)?;
        end.sleep();
        let readings = self.wan.as_ref().map(Wan::readings);
        let mut outcomes = Vec::new();
        for (mut sender, ends) in senders.into_iter().zip(receivers.0) {
            let sent: Sent = sender.hear()?;
            let received: Vec<Received> =
                ends.into_iter().filter(|end| !end.killed).map(End::finish).collect::<Result<_>>()?;
            outcomes.push(FlowOutcome { sent, received });
        }
        Ok(Outcome { start, end, flows: outcomes, readings })
    }

    fn spec(&self, flow: &Flow, number: u16, start: Moment, seconds: f64) -> Spec {
        let port = FIRST_PORT + number;
        let addresses = (0..flow.receivers).map(|receiver| match self.wan {
            Some(_) => SocketAddr::from((address(receiver), port)),
            None => SocketAddr::from((Ipv4Addr::LOCALHOST, port + receiver * 100)),
        });
        Spec {
            transport: flow.transport,
            addresses: addresses.collect(),
            certificates: self.folder.path().join("certs"),
            rate: flow.rate_mbit.map(|mbit| (mbit * 1e6) as u64),
            floor: flow.floor_mbit.map(|mbit| (mbit * 1e6) as u64),
            start: start.after(Duration::from_secs_f64(flow.delay)),
            seconds: seconds - flow.delay,
            idle_partitions: flow.idle_partitions,
            idle: flow.idle,
            blocked: flow.blocked,
        }
    }

    fn spawn(&self, role: Role, spec: &Spec) -> Result<End> {
        let program: PathBuf = std::env::current_exe().context("this program has no path")?;
        let side = match role {
            Role::Send => Side::A,
            Role::Receive => Side::B,
        };
        let mut command = match &self.wan {
            Some(wan) => wan.command(side, program),
            None => Command::new(program),
        };
        let spec = serde_json::to_string(spec).context("JSON")?;
        let mut child = command
            .args(["link-end", role.word(), &spec])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start one end")?;
        let stdout = BufReader::new(child.stdout.take().context("a child without stdout")?);
        Ok(End { child, stdout, killed: false })
    }
}

/// A process; killed when dropped.
struct End {
    child: Child,
    stdout: BufReader<ChildStdout>,
    killed: bool,
}

impl End {
    /// The next line it says.
    fn hear<T: DeserializeOwned>(&mut self) -> Result<T> {
        let mut line = String::new();
        self.stdout.read_line(&mut line).context("one end cannot be heard")?;
        if line.is_empty() {
            bail!("one end failed: see above");
        }
        serde_json::from_str(&line).with_context(|| format!("one end said {line:?}"))
    }

    /// Lets a receiver come to its end.
    fn finish(mut self) -> Result<Received> {
        drop(self.child.stdin.take());
        self.hear()
    }

    fn kill(&mut self) {
        self.killed = true;
        // `ip netns exec` becomes the program: it is the child itself that is killed. Gone already is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.kill();
    }
}

fn address(receiver: u16) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, 2 + u8::try_from(receiver).expect("a handful of receivers"))
}

/// Identities of both ends, good for all addresses that are used.
fn certificates() -> Result<TempDir> {
    let folder =
        tempfile::Builder::new().prefix("longhaul-bench-").tempdir().context("cannot make a folder")?;
    let authority = Authority::create(&folder.path().join("ca"), "Longhaul bench")?;
    let mut names: Vec<String> = (0..MAX_RECEIVERS).map(|receiver| address(receiver).to_string()).collect();
    names.push(Ipv4Addr::LOCALHOST.to_string());
    for (name, kind, id, names) in [
        ("edge", Kind::Exporter, EXPORTER_ID, [].as_slice()),
        ("cloud", Kind::Importer, IMPORTER_ID, names.as_slice()),
    ] {
        let id = id.parse().context("a SPIFFE id")?;
        authority.issue(&folder.path().join("certs").join(name), kind, &id, names, Validity::for_days(1))?;
    }
    Ok(folder)
}

const MAX_RECEIVERS: u16 = 2;
const FIRST_PORT: u16 = 7443;
/// What a sender needs to be there.
const SET_UP: Duration = Duration::from_secs(1);
