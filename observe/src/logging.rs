//! Setting `tracing` up, once, at the start of a program. Everything goes to stderr; stdout is for data.

use std::{
    fmt,
    io::{IsTerminal, stderr},
    str::FromStr,
};

use serde::{Deserialize, Serialize};
use tracing_subscriber::{EnvFilter, layer::SubscriberExt, util::SubscriberInitExt};

/// The form of log lines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// One readable line each, coloured on a terminal unless `NO_COLOR` is set.
    #[default]
    People,
    /// One JSON object a line, for collectors.
    Json,
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The filter does not parse.
    #[error(
        "bad log filter \"{filter}\" (from {origin}): {why}; write for example \"info\" or \"info,link=debug\""
    )]
    BadFilter {
        /// The filter as given.
        filter: String,
        /// `RUST_LOG` or the configuration.
        origin: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// It was set up before in this process.
    #[error("logging is already set up")]
    AlreadySet,
}

/// Sets logging up for the whole process. `filter` is in the form of `RUST_LOG`, which wins over it when it is set;
/// without either, `info` and above is logged.
///
/// # Errors
/// When the filter does not parse, or logging was set up before.
pub fn init(format: Format, filter: Option<&str>) -> Result<(), LoggingError> {
    let from_environment = std::env::var("RUST_LOG").ok().filter(|filter| !filter.is_empty());
    let filter = parse_filter(from_environment.as_deref(), filter)?;
    let lines = tracing_subscriber::fmt::layer().with_writer(stderr);
    let registry = tracing_subscriber::registry().with(filter);
    let done = match format {
        Format::People => {
            let colour =
                stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
            registry.with(lines.with_ansi(colour)).try_init()
        }
        Format::Json => registry.with(lines.json().flatten_event(true)).try_init(),
    };
    done.map_err(|_| LoggingError::AlreadySet)
}

fn parse_filter(environment: Option<&str>, config: Option<&str>) -> Result<EnvFilter, LoggingError> {
    let (filter, origin) = match (environment, config) {
        (Some(filter), _) => (filter, "RUST_LOG"),
        (None, Some(filter)) => (filter, "the configuration"),
        (None, None) => ("info", "the default"),
    };
    let bad = |why: String| LoggingError::BadFilter { filter: filter.into(), origin, why };
    EnvFilter::builder().parse(filter).map_err(|error| bad(error.to_string()))
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "people" => Ok(Self::People),
            "json" => Ok(Self::Json),
            other => Err(format!("unknown log format \"{other}\"; use \"people\" or \"json\"")),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::People => "people",
            Self::Json => "json",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_wins_over_the_configuration() {
        assert_eq!(parse_filter(Some("debug"), Some("warn")).unwrap().to_string(), "debug");
        assert_eq!(parse_filter(None, Some("warn")).unwrap().to_string(), "warn");
        assert_eq!(parse_filter(None, None).unwrap().to_string(), "info");
    }

    #[test]
    fn a_bad_filter_is_named_with_its_origin() {
        let error = parse_filter(None, Some("link=loud")).unwrap_err().to_string();
        assert!(error.starts_with("bad log filter \"link=loud\" (from the configuration)"), "{error}");
    }

    #[test]
    fn a_second_set_up_is_refused() {
        init(Format::Json, Some("info")).unwrap();
        assert!(matches!(init(Format::People, None), Err(LoggingError::AlreadySet)));
    }
}
