//! Exit codes shared by the programs of Longhaul. Zero is success.

/// The work was tried and failed.
pub const EXIT_FAILED: u8 = 1;

/// A comparison ran to its end and found differences.
pub const EXIT_DIFFERENT: u8 = 2;

/// Bad usage or bad configuration; nothing was started (`EX_USAGE` of `sysexits.h`).
pub const EX_USAGE: u8 = 64;
