//! How a command ends, and where its words go.

use std::io::{self, Write};

use anyhow::Error;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Outcome {
    /// All is well.
    Success,
    /// It could not be done.
    Failed,
    /// It was done, and found that something is not as it should be.
    Different,
    /// The command line makes no sense; nothing was done.
    Usage,
}

/// The command line makes no sense in a way that only the command itself can see.
#[derive(Debug)]
pub(crate) struct UsageError(pub(crate) String);

impl Outcome {
    /// The exit code.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Failed => 1,
            Self::Different => 2,
            Self::Usage => 64,
        }
    }
}

/// Prints what clap has to say: help and version are data, everything else is for people.
pub(crate) fn of_usage(error: &clap::Error) -> Outcome {
    // Nobody is left to tell when stdout or stderr is closed.
    let _ = error.print();
    if error.use_stderr() { Outcome::Usage } else { Outcome::Success }
}

/// Tells people why a command failed.
pub(crate) fn report(error: &Error) -> Outcome {
    // A reader that has seen enough, such as `head`, is no failure of ours.
    if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
        return Outcome::Success;
    }
    say(&format!("error: {error:#}"));
    if error.is::<UsageError>() { Outcome::Usage } else { Outcome::Failed }
}

/// Writes a line for people.
pub(crate) fn say(line: &str) {
    // Nobody is left to tell when stderr is closed.
    let _ = writeln!(io::stderr(), "{line}");
}

impl std::fmt::Display for UsageError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}

/// The end of every help text.
pub(crate) const HELP: &str = "Exit codes: 0 ok, 1 failed, 2 found differences, 64 bad usage";
