//! What can be wrong with a config file, always with its place.

use std::path::PathBuf;

/// A config file that cannot be used. `Display` is one line for a terminal: `file:line: what, and the way out`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file cannot be read.
    #[error("{}: cannot read the configuration: {source}", file.display())]
    Unreadable {
        /// The file as it was named.
        file: PathBuf,
        /// Why it could not be read.
        source: std::io::Error,
    },
    /// The text is not TOML.
    #[error("{file}:{line}: not valid TOML at column {column}: {what}")]
    Syntax {
        /// The file as it was named.
        file: String,
        /// Line, counted from 1.
        line: usize,
        /// Column in characters, counted from 1.
        column: usize,
        /// What the parser expected.
        what: String,
    },
    /// A key that no setting has.
    #[error("{place}: unknown key `{key}` {table}{}", hint(nearest.as_deref(), known))]
    UnknownKey {
        /// `file:line`, or `file` when the line is not known.
        place: String,
        /// The key as written.
        key: String,
        /// Where it stands: `in [kafka]` or `at the top level`.
        table: String,
        /// The known key that it most resembles, if one is near.
        nearest: Option<String>,
        /// All keys known there.
        known: Vec<String>,
    },
    /// A required key is absent.
    #[error("{place}: missing key `{key}` {table}")]
    MissingKey {
        /// `file:line` of the table, or `file`.
        place: String,
        /// The key that must be given.
        key: String,
        /// Where it belongs: `in [kafka]` or `at the top level`.
        table: String,
    },
    /// A value of the wrong type, or one that its setting does not take.
    #[error("{place}: `{key}`: {what}")]
    BadValue {
        /// `file:line`, or `file` when the line is not known.
        place: String,
        /// Full path of the key: `links[1].rate`.
        key: String,
        /// What was found, what is expected, and an example.
        what: String,
    },
    /// The configuration cannot be printed as TOML.
    #[error("cannot print the configuration: {0}")]
    Unprintable(#[from] toml::ser::Error),
}

fn hint(nearest: Option<&str>, known: &[String]) -> String {
    match (nearest, known) {
        (Some(nearest), _) => format!("; did you mean `{nearest}`?"),
        (None, []) => "; no keys are known there".into(),
        (None, known) => format!("; known keys: {}", known.join(", ")),
    }
}
