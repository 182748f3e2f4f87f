//! `cloud-importer --config cloud-importer.toml`

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::Parser;
use cloud_importer::{config::Config, engine};
use tokio::signal::unix::{SignalKind, signal};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// The cloud end of a Longhaul link: receives what exporters send and writes it to the target cluster, exactly once.
#[derive(Parser)]
#[command(name = "cloud-importer", version)]
struct Arguments {
    /// The configuration file (TOML).
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Check the configuration and the certificates, print what is in effect with secrets hidden, and exit.
    #[arg(long)]
    check: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::try_parse().unwrap_or_else(|error| {
        let usage = error.use_stderr();
        // Nothing is left to do if the terminal is gone.
        let _ = error.print();
        std::process::exit(if usage { settings::EX_USAGE.into() } else { 0 });
    });
    let config = match Config::load(&arguments.config) {
        Ok(config) => config,
        Err(error) => return refuse(&error),
    };
    if let Err(error) = observe::logging::init(config.log, None) {
        return refuse(&error);
    }
    if arguments.check {
        return check(&config);
    }
    match run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{}", settings::said_once(&*error));
            ExitCode::from(exit_code(error.downcast_ref()))
        }
    }
}

#[tokio::main]
async fn run(config: Config) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let mut hangup = signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?;
    // A limit on file sizes is a log that cannot be written, not the end of the process.
    let _file_too_large =
        signal(SignalKind::from_raw(SIGXFSZ)).context("cannot keep SIGXFSZ from ending the process")?;
    let engine = engine::start(config).await?;
    loop {
        tokio::select! {
            _ = terminate.recv() => break tracing::info!("SIGTERM: stopping"),
            _ = interrupt.recv() => break tracing::info!("SIGINT: stopping"),
            _ = hangup.recv() => engine.reload(),
        }
    }
    engine.stop().await;
    Ok(())
}

/// Linux's number, on every machine that we build for.
const SIGXFSZ: i32 = 25;

fn check(config: &Config) -> ExitCode {
    if let Err(error) = engine::check(config) {
        refuse(&error);
        return ExitCode::from(exit_code(Some(&error)));
    }
    match settings::effective(config) {
        Ok(text) => {
            print(&text);
            ExitCode::SUCCESS
        }
        Err(error) => refuse(&error),
    }
}

/// What the operator wrote or put into `[tls] dir` is wrong, or something failed.
fn exit_code(error: Option<&engine::StartError>) -> u8 {
    match error {
        Some(engine::StartError::Config(_)) => settings::EX_USAGE,
        _ => settings::EXIT_FAILED,
    }
}

fn refuse(error: &dyn std::fmt::Display) -> ExitCode {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "cloud-importer: {error}");
    ExitCode::from(settings::EX_USAGE)
}

fn print(text: &str) {
    use std::io::Write;
    let _ = write!(std::io::stdout(), "{text}");
}
