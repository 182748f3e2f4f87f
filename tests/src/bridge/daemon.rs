//! One of our programs as a process, and what can be seen of it from outside.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lab::kafka::{Process, Spawn};
use lab::ports::Port;

use super::{binary, say};

const LOG_TAIL_LINES: usize = 60;

/// A program that may be running. Dropped: killed; while the test fails, the end of its log is printed.
#[derive(Debug)]
pub struct Daemon {
    program: &'static str,
    config: PathBuf,
    log: PathBuf,
    admin: Port,
    process: Option<Process>,
}

impl Daemon {
    pub(super) fn new(program: &'static str, folder: &Path) -> Self {
        let admin = Port::reserve().expect("loopback has a free port");
        let config = folder.join(format!("{program}.toml"));
        Self { program, config, log: folder.join(format!("{program}.log")), admin, process: None }
    }

    /// Where its admin endpoint is told to listen.
    pub fn admin(&self) -> SocketAddr {
        self.admin.address()
    }

    /// Its configuration file.
    pub fn config_file(&self) -> &Path {
        &self.config
    }

    /// Starts it with the configuration as it is on disk.
    pub(super) fn start(&mut self) {
        assert!(self.process.is_none(), "{} runs already", self.program);
        let program = binary(self.program);
        let arguments = vec!["--config".into(), self.config.clone().into_os_string()];
        let spawn = Spawn { program: program.as_os_str(), arguments, log: &self.log };
        self.process = Some(Process::start(spawn).expect("the program starts"));
    }

    /// SIGKILL. Does nothing when it is down.
    pub fn kill(&mut self) {
        // Dropped is killed and waited for.
        drop(self.process.take());
    }

    /// SIGTERM, and its exit code; killed when it takes longer than `patience`, then `None`.
    pub fn stop(&mut self, patience: Duration) -> Option<i32> {
        let mut process = self.process.take().expect("only what runs can be stopped");
        process.terminate();
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if let Some(code) = process.exit_code() {
                return Some(code);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        None
    }

    /// SIGSTOP.
    pub fn pause(&mut self) {
        self.process.as_mut().expect("only what runs can be paused").pause();
    }

    /// SIGHUP: it looks at its files at once.
    pub fn hang_up(&mut self) {
        self.process.as_mut().expect("only what runs can be told").hang_up();
    }

    /// SIGCONT.
    pub fn resume(&mut self) {
        self.process.as_mut().expect("only what runs can be resumed").resume();
    }

    /// Whether the process is there.
    pub fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(Process::is_running)
    }

    /// Most memory it ever had resident, in bytes: `VmHWM`.
    pub fn peak_memory_bytes(&self) -> u64 {
        let id = self.process.as_ref().expect("only what runs has memory").id();
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("a process has a status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("it has VmHWM");
        let kib =
            line.trim().trim_end_matches(" kB").trim().parse::<u64>().expect("VmHWM is a number of KiB");
        kib * 1024
    }

    /// Its log so far, over all its runs.
    pub fn log(&self) -> String {
        std::fs::read(&self.log).map(|it| String::from_utf8_lossy(&it).into_owned()).unwrap_or_default()
    }

    /// The body and status of `GET path` at the admin endpoint; `None` when nobody answers.
    pub fn get(&self, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect_timeout(&self.admin.address(), Duration::from_secs(2)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        let (head, body) = text.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some((status, body.to_owned()))
    }

    /// Its metrics; none when nobody answers.
    pub fn metrics(&self) -> Samples {
        self.get("/metrics").map(|(_, text)| Samples::parse(&text)).unwrap_or_default()
    }

    /// `/api/status`; null when nobody answers.
    pub fn status(&self) -> serde_json::Value {
        let answer = self.get("/api/status");
        answer.and_then(|(_, text)| serde_json::from_str(&text).ok()).unwrap_or_default()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let from = lines.len().saturating_sub(LOG_TAIL_LINES);
        let tail = lines[from..].join("\n");
        say(format_args!("{} (the last of {} lines):\n{tail}", self.log.display(), lines.len()));
        say(format_args!("status: {}", self.status()));
    }
}

/// Numbers of one scrape, by name with labels.
#[derive(Debug, Clone, Default)]
pub struct Samples(BTreeMap<String, f64>);

impl Samples {
    fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let pairs = lines.filter_map(|line| line.rsplit_once(' '));
        Self(pairs.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))).collect())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The sum over all label sets of `name` that contain every one of `labels` (`topic="orders"`).
    pub fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        let fits =
            |key: &str| key.split('{').next() == Some(name) && labels.iter().all(|label| key.contains(label));
        self.0.iter().filter(|(key, _)| fits(key)).map(|(_, value)| value).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_summed_over_the_labels_that_fit() {
        let text = "# HELP x_total x\nx_total{link=\"a\",topic=\"t\"} 3\nx_total{link=\"a\",topic=\"u\"} 4\ny 0.5\n# EOF\n";
        let samples = Samples::parse(text);
        assert!((samples.sum("x_total", &[]) - 7.0).abs() < 1e-9);
        assert!((samples.sum("x_total", &["topic=\"u\""]) - 4.0).abs() < 1e-9);
        assert!((samples.sum("y", &[]) - 0.5).abs() < 1e-9);
        assert!((samples.sum("x", &[])).abs() < 1e-9);
    }
}
