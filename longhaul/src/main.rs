//! `longhaul`, the operator's hand tool: certificates, audit logs, how a link does and what is in its way.
//!
//! Data goes to stdout, words for people to stderr. What a script may read has `--json`. Exit codes: see [`outcome`].

mod audit;
mod certificates;
mod check;
mod outcome;
mod status;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::outcome::Outcome;

/// Certificates, audit logs and the state of a Longhaul link.
#[derive(Debug, Parser)]
#[command(name = "longhaul", version, after_help = outcome::HELP, subcommand_required = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a certificate authority, issue identities from it, look at certificates
    #[command(subcommand, after_help = outcome::HELP)]
    Certs(certificates::Command),
    /// Check audit logs
    #[command(subcommand, after_help = outcome::HELP)]
    Audit(audit::Command),
    Status(status::Command),
    /// Find out what is in the way of a link
    #[command(subcommand, after_help = outcome::HELP)]
    Check(check::Command),
}

fn main() -> ExitCode {
    let outcome = match Arguments::try_parse() {
        Ok(Arguments { command: Command::Certs(command) }) => command.run(),
        Ok(Arguments { command: Command::Audit(command) }) => command.run(),
        Ok(Arguments { command: Command::Status(command) }) => command.run(),
        Ok(Arguments { command: Command::Check(command) }) => command.run(),
        Err(error) => Ok(outcome::of_usage(&error)),
    };
    outcome.unwrap_or_else(|error| outcome::report(&error)).into()
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        Self::from(outcome.code())
    }
}
