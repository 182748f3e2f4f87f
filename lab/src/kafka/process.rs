//! A child process that cannot outlive this one.
//!
//! A small shell starts the program and waits on a pipe whose other end only this process holds. Whatever ends
//! this process, SIGKILL included, closes the pipe, and the shell kills the program:
//!
//! ```text
//! this process --- pipe (never written) ---> sh: read; at end of file kill -9 program
//!      |                                      |
//!      '------------- signals ------------> program (own process group: Ctrl-C is not for it)
//! ```

use std::ffi::{OsStr, OsString};
use std::fs::OpenOptions;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Error, Result};

/// `read` is built into the shell, so the watcher is one process, which the main shell ends when the program has ended.
const WATCHER: &str = r#"
exec 3<&0 4>&1 >&2
"$@" </dev/null 3<&- 4>&- &
program=$!
echo $program >&4
exec 4>&-
( read -r _ <&3; kill -9 $program ) 2>/dev/null &
watcher=$!
exec 3<&-
wait $program
code=$?
kill $watcher 2>/dev/null
exit $code
"#;

/// What to start.
#[derive(Debug)]
pub struct Spawn<'a> {
    /// Its path, or a name that the shell finds.
    pub program: &'a OsStr,
    /// What it is told.
    pub arguments: Vec<OsString>,
    /// Takes stdout and stderr, appended.
    pub log: &'a Path,
}

/// A running (or ended) child process; killed on drop.
#[derive(Debug)]
pub struct Process {
    shell: Child,
    program: Pid,
}

impl Process {
    /// Starts a program and knows its id when it returns.
    pub fn start(spawn: Spawn<'_>) -> Result<Self> {
        let failed = |source| Error::Spawn { program: spawn.program.to_string_lossy().into_owned(), source };
        let log = OpenOptions::new().create(true).append(true).open(spawn.log).map_err(failed)?;
        let mut shell = Command::new("sh")
            .args(["-c", WATCHER, "sh"])
            .arg(spawn.program)
            .args(&spawn.arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        let mut line = String::new();
        let stdout = shell.stdout.take().expect("stdout was asked for");
        BufReader::new(stdout).read_line(&mut line).map_err(failed)?;
        let pid = line.trim().parse().map_err(|_| {
            failed(std::io::Error::other(format!("the shell answered {line:?} in place of a process id")))
        })?;
        Ok(Self { shell, program: Pid::from_raw(pid) })
    }

    /// The id of the program's process.
    pub fn id(&self) -> i32 {
        self.program.as_raw()
    }

    /// True until the program has ended.
    pub fn is_running(&mut self) -> bool {
        matches!(self.shell.try_wait(), Ok(None))
    }

    /// The program's exit code once it has ended by itself; 128 and more when a signal ended it.
    pub fn exit_code(&mut self) -> Option<i32> {
        self.shell.try_wait().ok().flatten().and_then(|status| status.code())
    }

    /// SIGTERM, without waiting.
    pub fn terminate(&mut self) {
        self.signal(Signal::SIGTERM);
    }

    /// SIGKILL, and waits until the process is gone.
    pub fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        // The shell ends when its program has; an error here means it was waited for already.
        drop(self.shell.wait());
    }

    /// SIGTERM, and waits until the process is gone; SIGKILL when that takes longer than `patience`.
    pub fn stop(&mut self, patience: Duration) {
        self.terminate();
        let deadline = Instant::now() + patience;
        while self.is_running() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        self.kill();
    }

    /// SIGSTOP: the process stands still, its connections stay open.
    pub fn pause(&mut self) {
        self.signal(Signal::SIGSTOP);
    }

    /// SIGHUP: what it makes of that is the program's.
    pub fn hang_up(&mut self) {
        self.signal(Signal::SIGHUP);
    }

    /// SIGCONT: the process goes on after [`Process::pause`].
    pub fn resume(&mut self) {
        self.signal(Signal::SIGCONT);
    }

    /// The shell ends right after its program, and only while it runs is a signal sent: the id cannot belong to
    /// another process by then.
    fn signal(&mut self, signal: Signal) {
        if self.is_running() {
            // ESRCH: it has ended meanwhile, which is what a killer wants.
            let _ = kill(self.program, signal);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(directory: &Path, script: &str) -> Process {
        let arguments = vec!["-c".into(), script.into()];
        Process::start(Spawn { program: OsStr::new("sh"), arguments, log: &directory.join("log") }).unwrap()
    }

    fn exists(pid: i32) -> bool {
        std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|it| !it.contains(") Z "))
    }

    #[test]
    fn a_dropped_process_is_gone_even_when_it_was_paused() {
        let directory = tempfile::tempdir().unwrap();
        let mut process = start(directory.path(), "exec sleep 300");
        let pid = process.id();
        assert!(exists(pid));
        process.pause();
        drop(process);
        assert!(!exists(pid));
    }

    #[test]
    fn a_program_dies_with_the_process_that_holds_its_pipe() {
        let directory = tempfile::tempdir().unwrap();
        let mut process = start(directory.path(), "exec sleep 300");
        let pid = process.id();
        // What the kernel does to the pipe when this process dies.
        drop(process.shell.stdin.take());
        process.shell.wait().unwrap();
        assert!(!exists(pid));
    }

    #[test]
    fn a_program_that_ends_by_itself_is_noticed_and_its_output_is_in_the_log() {
        let directory = tempfile::tempdir().unwrap();
        let mut process = start(directory.path(), "echo said; echo also >&2");
        while process.is_running() {
            std::thread::sleep(Duration::from_millis(5));
        }
        let log = std::fs::read_to_string(directory.path().join("log")).unwrap();
        assert_eq!(log, "said\nalso\n");
    }

    #[test]
    fn the_exit_code_is_the_programs_own() {
        let directory = tempfile::tempdir().unwrap();
        let ended = |process: &mut Process| {
            while process.is_running() {
                std::thread::sleep(Duration::from_millis(5));
            }
            process.exit_code()
        };
        let mut process = start(directory.path(), "sleep 0.1; exit 64");
        assert_eq!(process.exit_code(), None);
        assert_eq!(ended(&mut process), Some(64));
        let mut process = start(directory.path(), "exec sleep 300");
        process.terminate();
        assert_eq!(ended(&mut process), Some(128 + 15));
    }

    #[test]
    fn a_program_that_ignores_the_polite_signal_is_killed() {
        let directory = tempfile::tempdir().unwrap();
        let mut process = start(directory.path(), "trap '' TERM; while :; do sleep 1; done");
        std::thread::sleep(Duration::from_millis(200));
        let pid = process.id();
        process.stop(Duration::from_millis(300));
        assert!(!exists(pid));
    }
}
