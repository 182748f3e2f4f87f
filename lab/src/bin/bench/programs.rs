//! An exporter and an importer as processes, and what the kernel and their admin endpoints tell of them.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use longhaul_lab::deployment::Deployment;
use longhaul_lab::kafka::{Process, Spawn};
use longhaul_lab::ports::Port;

use crate::site::Site;

const HTTP_PATIENCE: Duration = Duration::from_secs(5);
const STOP_PATIENCE: Duration = Duration::from_secs(20);
/// Linux counts processor time for `/proc` in this many ticks a second on all its architectures but one.
const TICKS_PER_SECOND: f64 = 100.0;

/// Both programs of one link, started and stopped at will.
pub(crate) struct Programs<'a> {
    pub(crate) exporter: Program<'a>,
    pub(crate) importer: Program<'a>,
    pub(crate) deployment: Deployment,
    /// Where the importer listens.
    _listen: Port,
}

/// One of them.
pub(crate) struct Program<'a> {
    site: &'a Site,
    name: &'static str,
    config: PathBuf,
    log: PathBuf,
    admin: Port,
    process: Option<Process>,
}

/// What a process has used so far.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    pub(crate) user_seconds: f64,
    pub(crate) system_seconds: f64,
    pub(crate) peak_memory_bytes: u64,
}

/// Which compression levels an exporter's lanes encoded with while they carried something, and for how many looks.
#[derive(Debug, Clone, Default)]
pub(crate) struct Levels {
    looks: BTreeMap<i64, u32>,
    looked: Option<Instant>,
}

impl<'a> Programs<'a> {
    /// Writes what both need. Nothing is started.
    pub(crate) fn new(site: &'a Site, link: &str, topics: &[&str]) -> Result<Self> {
        let folder = site.folder(link)?;
        let topics = topics.iter().map(|&topic| topic.to_owned()).collect();
        let deployment = Deployment::create(&folder, link, topics)?;
        let listen = Port::reserve()?;
        let (exporter_admin, importer_admin) = (Port::reserve()?, Port::reserve()?);
        let (source, target) = (&site.source.bootstrap, &site.target.bootstrap);
        let exporter = deployment.write_exporter(source, listen.address(), Some(exporter_admin.address()))?;
        let importer = deployment.write_importer(listen.address(), target, Some(importer_admin.address()))?;
        let program = |name: &'static str, config: PathBuf, admin| Program {
            site,
            name,
            log: config.with_extension("log"),
            config,
            admin,
            process: None,
        };
        Ok(Self {
            exporter: program("edge-exporter", exporter, exporter_admin),
            importer: program("cloud-importer", importer, importer_admin),
            deployment,
            _listen: listen,
        })
    }

    /// Starts both at once.
    pub(crate) fn start(&mut self) -> Result<()> {
        self.importer.start()?;
        self.exporter.start()
    }

    /// SIGTERM to both, so that their audit logs are complete.
    pub(crate) fn stop(&mut self) {
        self.exporter.stop();
        self.importer.stop();
    }
}

impl Program<'_> {
    pub(crate) fn start(&mut self) -> Result<()> {
        let program = self.site.program(self.name);
        let arguments = vec!["--config".into(), self.config.clone().into_os_string()];
        let spawn = Spawn { program: program.as_os_str(), arguments, log: &self.log };
        self.process = Some(Process::start(spawn)?);
        Ok(())
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        // Dropped is killed and waited for.
        drop(self.process.take());
    }

    fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.stop(STOP_PATIENCE);
        }
    }

    /// What the process has used so far.
    pub(crate) fn usage(&self) -> Result<Usage> {
        usage(self.process.as_ref().with_context(|| format!("{} does not run", self.name))?.id())
    }

    /// `/api/status`, once it answers.
    pub(crate) fn status(&self) -> Result<serde_json::Value> {
        let text = self.get("/api/status")?;
        serde_json::from_str(&text).with_context(|| format!("{} answered {text:?}", self.name))
    }

    /// The values of a metric by their labels, once it answers.
    pub(crate) fn metric(&self, name: &str) -> Result<Vec<(String, f64)>> {
        let text = self.get("/metrics")?;
        let of_name = text.lines().filter_map(|line| line.strip_prefix(name));
        Ok(of_name
            .filter_map(|rest| rest.rsplit_once(' '))
            .filter_map(|(labels, value)| Some((labels.to_owned(), value.parse().ok()?)))
            .collect())
    }

    /// What this end put on the wire so far, by cause: together what a carrier counts.
    pub(crate) fn link_bytes(&self) -> Result<Vec<(String, u64)>> {
        let side = if self.name == "edge-exporter" { "exporter" } else { "importer" };
        let causes = self.metric(&format!("longhaul_{side}_link_sent_bytes_total"))?;
        let cause = |labels: &str| labels.split('"').nth_back(1).unwrap_or_default().to_owned();
        Ok(causes.into_iter().map(|(labels, bytes)| (cause(&labels), bytes as u64)).collect())
    }

    fn get(&self, path: &str) -> Result<String> {
        let mut stream = TcpStream::connect_timeout(&self.admin.address(), HTTP_PATIENCE)?;
        stream.set_read_timeout(Some(HTTP_PATIENCE))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let (_, body) = text.split_once("\r\n\r\n").context("an answer without a body")?;
        Ok(body.to_owned())
    }
}

/// What a process has used so far, by the kernel's books.
pub(crate) fn usage(process: i32) -> Result<Usage> {
    let read = |file: &str| {
        let path = format!("/proc/{process}/{file}");
        std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))
    };
    let (stat, status) = (read("stat")?, read("status")?);
    // The name, in parentheses, may hold anything; user and system time are the 12th and 13th field after it.
    let mut fields = stat.rsplit(") ").next().unwrap_or_default().split(' ').skip(11);
    let mut seconds = || -> Result<f64> {
        let ticks: u64 = fields.next().unwrap_or_default().parse().context("/proc/ID/stat")?;
        Ok(ticks as f64 / TICKS_PER_SECOND)
    };
    let (user_seconds, system_seconds) = (seconds()?, seconds()?);
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    let peak = peak.trim().trim_end_matches(" kB").parse::<u64>().context("VmHWM in /proc/ID/status")?;
    Ok(Usage { user_seconds, system_seconds, peak_memory_bytes: peak * 1024 })
}

impl Usage {
    /// In user mode and in the kernel.
    pub(crate) fn seconds(&self) -> f64 {
        self.user_seconds + self.system_seconds
    }
}

impl Levels {
    /// Looks, when it is time again.
    pub(crate) fn look(&mut self, exporter: &Program<'_>) -> Result<()> {
        if self.looked.is_some_and(|looked| looked.elapsed() < LEVELS_INTERVAL) {
            return Ok(());
        }
        self.looked = Some(Instant::now());
        let carrying = exporter.metric("longhaul_exporter_codec_ratio")?;
        for (lane, level) in exporter.metric("longhaul_exporter_codec_level")? {
            if carrying.iter().any(|(other, ratio)| *other == lane && *ratio > 0.0) {
                *self.looks.entry(level as i64).or_default() += 1;
            }
        }
        Ok(())
    }
}

/// Each level with its share of the time.
impl fmt::Display for Levels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: u32 = self.looks.values().sum();
        let words: Vec<String> = self
            .looks
            .iter()
            .map(|(level, looks)| format!("{level} ({:.0} %)", f64::from(*looks) * 100.0 / f64::from(all)))
            .collect();
        f.write_str(if words.is_empty() { "unknown" } else { "" })?;
        f.write_str(&words.join(", "))
    }
}

const LEVELS_INTERVAL: Duration = Duration::from_millis(500);

/// Asks until there is an answer; an error names what is waited for and shows the logs.
pub(crate) fn wait_for<T>(
    programs: &Programs<'_>,
    what: &str,
    patience: Duration,
    ask: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    wait_with(&[&programs.exporter.log, &programs.importer.log], what, patience, ask)
}

/// The same for anything that writes these logs.
pub(crate) fn wait_with<T>(
    logs: &[&Path],
    what: &str,
    patience: Duration,
    mut ask: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let started = Instant::now();
    loop {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        if started.elapsed() > patience {
            let tails: Vec<String> = logs.iter().map(|log| tail(log)).collect();
            bail!("{what} did not happen within {} s\n{}", patience.as_secs(), tails.join("\n"));
        }
        std::thread::sleep(LOOK);
    }
}

/// The end of a log.
fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    format!("{}:\n{}", log.display(), lines[lines.len().saturating_sub(10)..].join("\n"))
}

const LOOK: Duration = Duration::from_millis(5);
