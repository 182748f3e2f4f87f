//! Exit codes shared by the programs of Longhaul. Zero is success.

/// The work was tried and failed.
pub const EXIT_FAILED: u8 = 1;

/// A comparison ran to its end and found differences.
pub const EXIT_DIFFERENT: u8 = 2;

/// Bad usage or bad configuration; nothing was started (`EX_USAGE` of `sysexits.h`).
pub const EX_USAGE: u8 = 64;

/// An error with its causes, each said once: many errors name their cause in their own words already.
pub fn said_once(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::{error::Error, fmt, io};

    use super::*;

    #[derive(Debug)]
    struct Outer(&'static str, io::Error);

    impl fmt::Display for Outer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl Error for Outer {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.1)
        }
    }

    #[test]
    fn a_cause_is_said_once_and_never_left_out() {
        let cause = || io::Error::other("no such folder");
        assert_eq!(said_once(&Outer("[tls] dir x: no such folder", cause())), "[tls] dir x: no such folder");
        assert_eq!(said_once(&Outer("cannot start", cause())), "cannot start: no such folder");
    }
}
