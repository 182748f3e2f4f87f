//! `longhaul check`: what is in the way of a link, in words.

mod probe;

use std::{
    fmt,
    io::{Write, stdout},
    net::{SocketAddr, TcpStream, ToSocketAddrs},
    path::PathBuf,
    process::{Command as Program, Stdio},
    time::Duration,
};

use anyhow::{Context, Result};
use certs::{Identity, SpiffeId};
use clap::{Args, Subcommand};
use link::{CloseCode, Dialer, Settings};
use serde::Deserialize;
use tokio::runtime::Runtime;

use crate::outcome::{Outcome, UsageError};
use probe::{Answer, MIN_INITIAL, Probe};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Walk the way from this host to the importer step by step, and say where it ends and why
    #[command(
        after_help = "Nothing is carried, and no broker is touched. The importer's audit log notes the visit.\n\
        Exit codes: 0 the way is free, 1 something is in the way, 64 bad usage or configuration"
    )]
    Link(Link),
}

#[derive(Debug, Args)]
pub(crate) struct Link {
    /// The exporter's configuration
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

/// What of the exporter's configuration plays a part; `edge-exporter --check` looks at the rest.
#[derive(Debug, Deserialize)]
struct Config {
    importer: Importer,
    tls: Tls,
}

#[derive(Debug, Deserialize)]
struct Importer {
    address: Vec<String>,
    identity: String,
}

#[derive(Debug, Deserialize)]
struct Tls {
    dir: PathBuf,
}

impl Command {
    pub(crate) fn run(self) -> Result<Outcome> {
        let Self::Link(link) = self;
        link.run()
    }
}

impl Link {
    fn run(self) -> Result<Outcome> {
        let file = self.config.display();
        let wrong = |key: &str, why: String| UsageError(format!("{file}: `{key}`: {why}"));
        let text = std::fs::read_to_string(&self.config)
            .map_err(|error| UsageError(format!("{file}: cannot read the configuration: {error}")))?;
        let config: Config = toml::from_str(&text).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            let (line, what) = (before.matches('\n').count() + 1, error.message());
            UsageError(format!("{file}:{line}: {what}; `edge-exporter --check` says more"))
        })?;
        let expected: SpiffeId = config
            .importer
            .identity
            .parse()
            .map_err(|error: certs::InvalidSpiffeId| wrong("importer.identity", error.to_string()))?;
        if config.importer.address.is_empty() {
            return Err(
                wrong("importer.address", "expected at least one \"host:port\", found none".into()).into()
            );
        }
        for (index, address) in config.importer.address.iter().enumerate() {
            link::check_address(address)
                .map_err(|error| wrong(&format!("importer.address[{index}]"), error.to_string()))?;
        }
        let mut log = Log::default();
        let identity = match Identity::load_exporter(&config.tls.dir) {
            Ok(identity) => identity,
            Err(error) => {
                log.step(Verdict::Failed, &format!("own certificate: {error}"))?;
                return Ok(Outcome::Failed);
            }
        };
        let until = humantime::format_rfc3339_seconds(identity.not_after());
        log.step(Verdict::Good, &format!("own certificate: {}, valid until {until}", identity.spiffe_id()))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let _inside = runtime.enter();
        let settings = Settings { first_attempt: PATIENCE, ..Settings::default() };
        let dialer = Dialer::new(&identity, expected, settings)?;
        for address in &config.importer.address {
            walk(address, &dialer, &runtime, &mut log)?;
        }
        Ok(if log.failed { Outcome::Failed } else { Outcome::Success })
    }
}

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Good,
    /// It works, and could be better.
    Note,
    Failed,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Good => "ok    ",
            Self::Note => "note  ",
            Self::Failed => "FAILED",
        })
    }
}

/// The steps, printed as they are made.
#[derive(Debug, Default)]
struct Log {
    failed: bool,
}

impl Log {
    fn step(&mut self, verdict: Verdict, words: &str) -> Result<()> {
        self.failed |= verdict == Verdict::Failed;
        writeln!(stdout(), "{verdict} {words}").context("cannot write to stdout")
    }
}

/// One address of the configuration, step by step.
fn walk(address: &str, dialer: &Dialer, runtime: &Runtime, log: &mut Log) -> Result<()> {
    let places: Vec<SocketAddr> = match address.to_socket_addrs() {
        Ok(places) => places.collect(),
        Err(error) => {
            let words = format!(
                "name: {address} has no address: {error}; is it host:port, and does this host's resolver know it?"
            );
            return log.step(Verdict::Failed, &words);
        }
    };
    let shown: Vec<String> = places.iter().map(ToString::to_string).collect();
    log.step(Verdict::Good, &format!("name: {address} is {}", shown.join(", ")))?;
    let mut reached = false;
    for place in places {
        reached |= packets(place, log)?;
    }
    if reached { handshake(address, dialer, runtime, log) } else { Ok(()) }
}

/// Whether UDP passes, both ways, large enough for QUIC.
fn packets(place: SocketAddr, log: &mut Log) -> Result<bool> {
    let probe = match Probe::new(place) {
        Ok(probe) => probe,
        Err(error) => {
            log.step(Verdict::Failed, &format!("UDP: this host has no way to {place}: {error}"))?;
            return Ok(false);
        }
    };
    let (verdict, words) = match probe.ask(MIN_INITIAL, TRIES, WAIT) {
        Answer::After(after) => {
            (Verdict::Good, format!("UDP: {place} answers QUIC after {:.1} ms", millis(after)))
        }
        Answer::NobodyListens => (
            Verdict::Failed,
            format!(
                "UDP: the host of {place} is there, but nothing listens on this UDP port: is the importer running, \
                and is this the port of its `listen`?"
            ),
        ),
        Answer::NoRoute(why) => (Verdict::Failed, format!("UDP: this host cannot send to {place}: {why}")),
        Answer::TooLargeHere => (Verdict::Failed, too_small(place, "this host's own interface")),
        Answer::Silence => match probe.ask_small(TRIES, WAIT) {
            Answer::After(_) => (Verdict::Failed, too_small(place, "something on the way")),
            _ => (Verdict::Failed, silence(place)),
        },
    };
    log.step(verdict, &words)?;
    if verdict == Verdict::Good {
        path_mtu(place, &probe, log)?;
    }
    Ok(verdict == Verdict::Good)
}

fn too_small(place: SocketAddr, whose: &str) -> String {
    format!(
        "path MTU: {place} answers small UDP packets, but {whose} lets none of {MIN_INITIAL} bytes through, the least that QUIC \
         works with: the path needs an MTU of {}; look at tunnels and VPNs on the way",
        MIN_INITIAL + header_bytes(place)
    )
}

/// Who else answers on that host tells whether it is the host or the firewall.
fn silence(place: SocketAddr) -> String {
    let ports = [place.port(), 443, 22];
    let tcp = ports.iter().find_map(|&port| {
        match TcpStream::connect_timeout(&SocketAddr::new(place.ip(), port), WAIT) {
            Ok(_) => Some(format!("TCP port {port} is open")),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                Some(format!("TCP port {port} is refused"))
            }
            Err(_) => None,
        }
    });
    match tcp.or_else(|| pings(place).then(|| "it answers ping".to_owned())) {
        Some(sign) => format!(
            "UDP: no answer from {place}, though the host is there ({sign}): UDP port {} is blocked on the way (firewall, \
             security group, both directions), or the importer does not run and refusals are filtered",
            place.port()
        ),
        None => format!(
            "UDP: no answer from {place}, and neither to TCP on ports {}, 443 and 22 nor to ping: is the address right, the \
             host up, and a route there?",
            place.port()
        ),
    }
}

fn pings(place: SocketAddr) -> bool {
    let ping = Program::new("ping")
        .args(["-c", "2", "-W", "1", &place.ip().to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    ping.is_ok_and(|status| status.success())
}

/// The largest packets that pass.
fn path_mtu(place: SocketAddr, probe: &Probe, log: &mut Log) -> Result<()> {
    let passes = |bytes| matches!(probe.ask(bytes, TRIES, WAIT), Answer::After(_));
    let wanted = usize::from(Settings::default().max_mtu);
    let largest = largest_between(MIN_INITIAL, wanted, passes);
    let headers = header_bytes(place);
    if largest == wanted {
        let words = format!("path MTU: UDP packets of {wanted} bytes pass, the largest that are sent");
        return log.step(Verdict::Good, &words);
    }
    log.step(
        Verdict::Note,
        &format!(
            "path MTU: UDP packets of up to {largest} bytes pass (MTU {}), {wanted} would be sent; it works, with {:.1} % more of \
             headers and processor time for each byte",
            largest + headers,
            (wanted as f64 / largest as f64 - 1.0) * 100.0
        ),
    )
}

/// The largest size from `least`, which passes, to `most` that `passes`.
fn largest_between(least: usize, most: usize, passes: impl Fn(usize) -> bool) -> usize {
    if passes(most) {
        return most;
    }
    let (mut good, mut bad) = (least, most);
    while bad - good > 1 {
        let middle = good + (bad - good) / 2;
        if passes(middle) { good = middle } else { bad = middle }
    }
    good
}

/// IP and UDP headers.
fn header_bytes(place: SocketAddr) -> usize {
    if place.is_ipv4() { 28 } else { 48 }
}

/// Whether both ends accept each other.
fn handshake(address: &str, dialer: &Dialer, runtime: &Runtime, log: &mut Log) -> Result<()> {
    let connection = runtime.block_on(dialer.dial(address));
    let connection = match connection {
        Ok(connection) => connection,
        Err(error) => return log.step(Verdict::Failed, &format!("handshake: {error}")),
    };
    let stats = connection.stats();
    log.step(
        Verdict::Good,
        &format!("handshake: {address} is {}, round trip {:.1} ms", connection.peer(), millis(stats.rtt)),
    )?;
    let (verdict, words) = match stats.segmentation_offload {
        true => (Verdict::Good, "in use"),
        false => (Verdict::Note, "not offered by this host: high rates cost three times the processor time"),
    };
    log.step(verdict, &format!("segmentation offload: {words}"))?;
    let asked = Settings::default().udp_buffer;
    let granted =
        format!("socket buffers: {} bytes to send, {} to receive", stats.send_buffer, stats.receive_buffer);
    if stats.send_buffer >= asked && stats.receive_buffer >= asked {
        log.step(Verdict::Good, &granted)?;
    } else {
        let advice = format!(
            "{granted}; {asked} were asked for: raise net.core.rmem_max and net.core.wmem_max on a fast link"
        );
        log.step(Verdict::Note, &advice)?;
    }
    connection.close(CloseCode::Done, "longhaul check link");
    // The close has its chance to leave.
    runtime.block_on(tokio::time::sleep(CLOSE_PATIENCE));
    Ok(())
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// A packet may be lost; three in a row hardly are.
const TRIES: u32 = 3;
const WAIT: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(5);
const CLOSE_PATIENCE: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_size_that_passes_is_found() {
        for limit in [1200, 1201, 1392, 1451, 1452] {
            assert_eq!(largest_between(1200, 1452, |bytes| bytes <= limit), limit);
        }
    }
}
