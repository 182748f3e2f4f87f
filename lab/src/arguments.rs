//! The command lines of our own programs, behind a cargo alias or not.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

/// Exit code for a command line that cannot be understood.
const EXIT_USAGE: u8 = 64;

/// Parses the command line of this process.
///
/// # Errors
/// The code to exit with, 0 after `--help` and 64 after bad usage; what there is to say was printed.
pub fn parse<T: Parser>() -> Result<T, ExitCode> {
    T::try_parse_from(without_separator(std::env::args_os())).map_err(|error| {
        let code = if error.use_stderr() { EXIT_USAGE } else { 0 };
        // Nobody is left to tell when the terminal is gone.
        let _ = error.print();
        ExitCode::from(code)
    })
}

/// A file that can be read: for `value_parser`, so that a wrong name is bad usage, and nothing was started for it.
///
/// # Errors
/// What is wrong with it.
pub fn readable_file(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    let file = std::fs::File::open(&path).map_err(|error| error.to_string())?;
    match file.metadata() {
        Ok(metadata) if metadata.is_dir() => Err("it is a folder".to_owned()),
        Ok(_) => Ok(path),
        Err(error) => Err(error.to_string()),
    }
}

/// An alias of cargo ends with the `--` that separates cargo's words from ours. Who writes another one, out of habit
/// (`cargo demo -- --json`), means the same: it is dropped where it stands before all options.
fn without_separator(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = arguments.collect();
    let is_option = |argument: &OsString| argument.to_string_lossy().starts_with('-');
    if let Some(first) = arguments.iter().position(is_option)
        && arguments[first] == "--"
    {
        arguments.remove(first);
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_separator_before_all_options_means_nothing() {
        for (given, kept) in [
            ("demo -- --json", "demo --json"),
            ("demo --json", "demo --json"),
            ("bench e2e -- --seconds 6", "bench e2e --seconds 6"),
            ("bench codec -- a.jsonl b.jsonl", "bench codec a.jsonl b.jsonl"),
            ("bench codec --json -- -odd.jsonl", "bench codec --json -- -odd.jsonl"),
            ("demo", "demo"),
        ] {
            let arguments = given.split(' ').map(OsString::from);
            assert_eq!(without_separator(arguments), kept.split(' ').collect::<Vec<_>>(), "{given}");
        }
    }
}
