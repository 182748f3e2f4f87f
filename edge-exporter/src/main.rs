//! `edge-exporter`: only wires. The work is in the library.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::Parser;
use edge_exporter::{
    config::{Config, Log},
    engine::{self, Engine},
};
use observe::logging::{self, Format};
use tokio::signal::unix::{SignalKind, signal};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Carries topics of the local Kafka cluster over a link to a cloud-importer.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Check the configuration and the certificates, print what is in effect without its secrets, and end.
    #[arg(long)]
    check: bool,
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let code = if error.use_stderr() { settings::EX_USAGE } else { 0 };
            // A closed terminal is no reason to fail.
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    let config = match Config::load(&arguments.config) {
        Ok(config) => config,
        Err(error) => return fail(settings::EX_USAGE, &error.to_string()),
    };
    let outcome = log(&config).and_then(|()| if arguments.check { check(&config) } else { run(config) });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(exit_code(&error), &settings::said_once(&*error)),
    }
}

/// What the operator wrote or put into `[tls] dir` is wrong, or something failed.
fn exit_code(error: &anyhow::Error) -> u8 {
    let usage = error.is::<logging::LoggingError>()
        || matches!(error.downcast_ref(), Some(error) if engine::Error::is_of_configuration(error));
    if usage { settings::EX_USAGE } else { settings::EXIT_FAILED }
}

fn check(config: &Config) -> anyhow::Result<()> {
    use std::io::Write;
    engine::check(config)?;
    let text = settings::effective(config)?;
    std::io::stdout().write_all(text.as_bytes()).context("cannot print the configuration")
}

fn log(config: &Config) -> anyhow::Result<()> {
    let format = match config.log {
        Log::People => Format::People,
        Log::Json => Format::Json,
    };
    Ok(logging::init(format, None)?)
}

fn run(config: Config) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("the runtime cannot be started")?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be handled")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT cannot be handled")?;
        let mut hangup = signal(SignalKind::hangup()).context("SIGHUP cannot be handled")?;
        // A limit on file sizes is a log that cannot be written, not the end of the process.
        let _file_too_large = signal(SignalKind::from_raw(SIGXFSZ)).context("SIGXFSZ cannot be handled")?;
        let handle = Engine::start(config).await?;
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = hangup.recv() => handle.reload(),
            }
        }
        handle.stop().await;
        Ok(())
    })
}

/// Linux's number, on every machine that we build for.
const SIGXFSZ: i32 = 25;

fn fail(code: u8, message: &str) -> ExitCode {
    use std::io::Write;
    // Nobody may be listening on stderr either.
    let _ = writeln!(std::io::stderr(), "edge-exporter: {message}");
    ExitCode::from(code)
}
