//! Where the jars of Apache Kafka are, and how one of its classes is run.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use super::process::{Process, Spawn};
use super::{Error, Result};

/// Set to `1` where suites that need a real Kafka must run: then a missing Kafka is a failure.
pub const REQUIRE_KAFKA: &str = "LONGHAUL_REQUIRE_KAFKA";

/// Why no Kafka can be started here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no Apache Kafka to start: {why}")]
pub struct Missing {
    /// What is not there, and how to get it.
    pub why: String,
}

impl Missing {
    fn new(why: impl Into<String>) -> Self {
        Self { why: why.into() }
    }
}

/// The jars of one Kafka version and a Java to run them with.
#[derive(Debug, Clone)]
pub struct Installation {
    java: PathBuf,
    libs: PathBuf,
}

/// What a finished tool left behind.
#[derive(Debug)]
pub struct ToolOutput {
    /// How it ended.
    pub status: ExitStatus,
    /// All of its standard output.
    pub stdout: String,
    /// All of its standard error, the log lines of Kafka's classes included.
    pub stderr: String,
}

impl Installation {
    /// Finds Kafka: `KAFKA_HOME/libs` when that variable is set, else the jars that Maven copies to `lab/kafka/libs`.
    ///
    /// The first caller on a machine waits for Maven; callers in other processes wait for him.
    pub fn find() -> std::result::Result<Self, Missing> {
        let java = java_17()?;
        if let Some(home) = std::env::var_os("KAFKA_HOME") {
            let libs = Path::new(&home).join("libs");
            if !libs.is_dir() {
                return Err(Missing::new(format!(
                    "KAFKA_HOME is set, but {} is no directory",
                    libs.display()
                )));
            }
            return Ok(Self { java, libs });
        }
        let libs = jars_by_maven(&Path::new(env!("CARGO_MANIFEST_DIR")).join("kafka"))?;
        Ok(Self { java, libs })
    }

    /// The folder of jars.
    pub fn libs(&self) -> &Path {
        &self.libs
    }

    /// Runs a class of Kafka to its end, with `stdin` as its input.
    pub fn run(&self, class: &str, args: &[&str], stdin: &[u8]) -> Result<ToolOutput> {
        self.run_with(&[], class, args, stdin)
    }

    /// Starts a class that runs until it is stopped, logging to `log`; it dies with this process.
    pub fn spawn(&self, jvm: &[String], class: &str, args: &[&str], log: &Path) -> Result<Process> {
        let spawn =
            Spawn { program: self.java.as_os_str(), arguments: self.command_line(jvm, class, args), log };
        Process::start(spawn)
    }

    pub(super) fn run_with(
        &self,
        jvm: &[String],
        class: &str,
        args: &[&str],
        stdin: &[u8],
    ) -> Result<ToolOutput> {
        let failed = |source| Error::Tool { class: class.to_owned(), source };
        let mut child = Command::new(&self.java)
            .args(self.command_line(jvm, class, args))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let mut input = child.stdin.take().expect("stdin was asked for");
        let stdin = stdin.to_owned();
        // A tool that stops reading closes the pipe: its exit status tells, not this write.
        let feeder = std::thread::spawn(move || drop(input.write_all(&stdin)));
        let output = child.wait_with_output().map_err(failed)?;
        drop(feeder.join());
        Ok(ToolOutput {
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    fn command_line(&self, jvm: &[String], class: &str, args: &[&str]) -> Vec<OsString> {
        let quick = ["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"].map(str::to_owned);
        let jvm = if jvm.is_empty() { &quick[..] } else { jvm };
        let mut line: Vec<OsString> = jvm.iter().map(OsString::from).collect();
        line.extend(["-XX:-UsePerfData", "-Xshare:auto", "-cp"].map(OsString::from));
        line.push(self.libs.join("*").into_os_string());
        line.push(class.into());
        line.extend(args.iter().map(OsString::from));
        line
    }
}

/// The installation for the suite `suite`, or `None` after saying loudly on stderr that the suite is left out.
///
/// # Panics
/// When Kafka is missing although `LONGHAUL_REQUIRE_KAFKA=1` is set.
#[allow(clippy::print_stderr, reason = "a suite that is left out must be seen in the output of the tests")]
pub fn require_kafka(suite: &str) -> Option<Installation> {
    match Installation::find() {
        Ok(installation) => Some(installation),
        Err(missing) if std::env::var(REQUIRE_KAFKA).is_ok_and(|it| it == "1") => {
            panic!("{suite} must run ({REQUIRE_KAFKA}=1), but: {missing}")
        }
        Err(missing) => {
            eprintln!("LEFT OUT: {suite}: {missing}");
            None
        }
    }
}

fn java_17() -> std::result::Result<PathBuf, Missing> {
    let java = match std::env::var_os("JAVA_HOME") {
        Some(home) => Path::new(&home).join("bin/java"),
        None => PathBuf::from("java"),
    };
    let output = Command::new(&java).arg("-version").output().map_err(|error| {
        Missing::new(format!("{} does not run ({error}); install Java 17", java.display()))
    })?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    match java_major(&text) {
        Some(major) if major >= 17 => Ok(java),
        Some(major) => Err(Missing::new(format!("{} is version {major}, 17 is needed", java.display()))),
        None => Err(Missing::new(format!("{} -version says nothing of a version: {text:?}", java.display()))),
    }
}

/// The major version in the output of `java -version`; `1.8.0` counts as 1, which is old enough.
fn java_major(text: &str) -> Option<u32> {
    let version = text.split_once("version \"")?.1;
    version.split(['.', '"', '-', '+', '_']).next()?.parse().ok()
}

/// Copies the jars named by `dir/pom.xml` to `dir/libs` unless they are there for this very pom.
fn jars_by_maven(dir: &Path) -> std::result::Result<PathBuf, Missing> {
    let pom = dir.join("pom.xml");
    let libs = dir.join("libs");
    let told = |what: &str, path: &Path, error: std::io::Error| {
        Missing::new(format!("cannot {what} {}: {error}", path.display()))
    };
    let wanted = fs::read(&pom).map_err(|error| told("read", &pom, error))?;
    fs::create_dir_all(&libs).map_err(|error| told("create", &libs, error))?;
    let lock_path = libs.join(".lock");
    let lock = File::create(&lock_path).map_err(|error| told("create", &lock_path, error))?;
    lock.lock().map_err(|error| told("lock", &lock_path, error))?;
    let stamp = libs.join(".copied-for");
    if fs::read(&stamp).is_ok_and(|have| have == wanted) {
        return Ok(libs);
    }
    remove_jars(&libs).map_err(|error| told("empty", &libs, error))?;
    let mut out = OsString::from("-DoutputDirectory=");
    out.push(&libs);
    let output = Command::new("mvn")
        .args(["-q", "-B", "-f"])
        .arg(&pom)
        .args(["dependency:copy-dependencies", "-DincludeScope=runtime"])
        .arg(out)
        .output()
        .map_err(|error| {
            Missing::new(format!("mvn does not run ({error}); install Maven or set KAFKA_HOME"))
        })?;
    if !output.status.success() {
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        let why = text.lines().find(|line| line.contains("ERROR")).unwrap_or("no error line").trim();
        return Err(Missing::new(format!("mvn could not copy the jars ({why}); set KAFKA_HOME instead")));
    }
    fs::write(&stamp, wanted).map_err(|error| told("write", &stamp, error))?;
    Ok(libs)
}

/// Two versions of one jar on a class path give errors that nobody understands.
fn remove_jars(libs: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(libs)? {
        let path = entry?.path();
        if path.extension().is_some_and(|it| it == "jar") {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_is_read_from_what_java_says() {
        assert_eq!(java_major("openjdk version \"17.0.15\" 2025-04-15\nOpenJDK Runtime"), Some(17));
        assert_eq!(java_major("openjdk version \"21\" 2023-09-19"), Some(21));
        assert_eq!(java_major("openjdk version \"26-ea\" 2026-03-17"), Some(26));
        assert_eq!(java_major("java version \"1.8.0_392\""), Some(1));
        assert_eq!(java_major("bash: java: command not found"), None);
    }
}
