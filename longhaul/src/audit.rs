//! `longhaul audit`: is the record whole?

use std::{
    io::{self, Write, stdout},
    path::PathBuf,
};

use anyhow::Result;
use clap::{Args, Subcommand};
use observe::audit::{Summary, VerifyError, verify};
use serde::Serialize;

use crate::outcome::{Outcome, say};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Follow the chain of audit logs and sum up what they say
    #[command(
        after_help = "Files that were put aside (edge.1.jsonl, edge.2.jsonl, ...) are read with edge.jsonl.\n\
        Exit codes: 0 intact, 1 cannot be read, 2 the chain is broken, 64 bad usage"
    )]
    Verify(Verify),
}

#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// The logs: what `[audit] file` names
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// As JSON, one object per log
    #[arg(long)]
    json: bool,
}

impl Command {
    pub(crate) fn run(self) -> Result<Outcome> {
        let Self::Verify(arguments) = self;
        arguments.run()
    }
}

impl Verify {
    fn run(self) -> Result<Outcome> {
        let mut out = stdout().lock();
        let mut worst = Outcome::Success;
        for file in self.files {
            let verdict = verify(&file);
            worst = worst.max(match &verdict {
                Ok(_) => Outcome::Success,
                Err(VerifyError::Unreadable { .. }) => Outcome::Failed,
                Err(VerifyError::Broken { .. }) => Outcome::Different,
            });
            if self.json {
                writeln!(out, "{}", serde_json::to_string(&Verdict::new(file, &verdict))?)?;
                continue;
            }
            match verdict {
                Ok(summary) => print(&mut out, &file, &summary)?,
                Err(error @ VerifyError::Unreadable { .. }) => say(&format!("error: {error}")),
                Err(error @ VerifyError::Broken { .. }) => writeln!(out, "{error}")?,
            }
        }
        Ok(worst)
    }
}

/// What was found, for scripts: `result` is `intact`, `broken` or `unreadable`.
#[derive(Debug, Serialize)]
#[serde(tag = "result", rename_all = "snake_case")]
enum Verdict<'a> {
    Intact {
        log: PathBuf,
        #[serde(flatten)]
        summary: &'a Summary,
    },
    Broken {
        log: PathBuf,
        file: &'a PathBuf,
        line: u64,
        what: &'a str,
    },
    Unreadable {
        log: PathBuf,
        file: &'a PathBuf,
        what: String,
    },
}

impl<'a> Verdict<'a> {
    fn new(log: PathBuf, verdict: &'a Result<Summary, VerifyError>) -> Self {
        match verdict {
            Ok(summary) => Self::Intact { log, summary },
            Err(VerifyError::Broken { file, line, what }) => Self::Broken { log, file, line: *line, what },
            Err(VerifyError::Unreadable { file, source }) => {
                Self::Unreadable { log, file, what: source.to_string() }
            }
        }
    }
}

fn print(out: &mut impl Write, file: &std::path::Path, summary: &Summary) -> io::Result<()> {
    let files =
        if summary.files.len() == 1 { "1 file".into() } else { format!("{} files", summary.files.len()) };
    writeln!(out, "{}: intact, {} lines in {files}", file.display(), summary.lines)?;
    if let (Some(first), Some(last)) = (&summary.first_time, &summary.last_time) {
        writeln!(
            out,
            "  from       {}\n  to         {}\n  head       {}",
            plain(first),
            plain(last),
            summary.head
        )?;
    }
    if summary.first_seq > 0 {
        writeln!(out, "  begins at line {} of the chain: older files are not here", summary.first_seq)?;
    }
    if summary.torn_bytes > 0 {
        writeln!(out, "  ends in {} bytes that are not a whole line yet", summary.torn_bytes)?;
    }
    if !summary.events.is_empty() {
        let events = summary.events.iter().map(|(event, count)| format!("{} {count}", plain(event)));
        writeln!(out, "  events     {}", events.collect::<Vec<_>>().join(", "))?;
    }
    for total in &summary.delivered {
        writeln!(
            out,
            "  delivered  {} {}/{}: offsets {}..{}, {} records, {} plain bytes, {} on the link",
            plain(&total.at.link),
            plain(&total.at.topic),
            total.at.partition,
            total.from,
            total.next,
            total.records,
            total.plain_bytes,
            total.wire_bytes
        )?;
    }
    Ok(())
}

/// Names in a log can come from a peer: without what a terminal would obey.
fn plain(name: &str) -> impl std::fmt::Display + '_ {
    name.escape_debug()
}
