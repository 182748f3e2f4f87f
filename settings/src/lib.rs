//! What an operator writes: one TOML file, read strictly.
//!
//! - [`load`] reads a file into the caller's own config type. Every mistake comes back as an [`Error`] that names
//!   file, line and key, and says what would be right: an unknown key is refused with the nearest known one.
//! - [`Rate`], [`ByteSize`] and [`Span`] are quantities with their unit written out (`"200 Mbit/s"`, `"8 MiB"`,
//!   `"250 ms"`); a bare number is refused, because nobody can see what it counts.
//! - [`whole`] reads a number within bounds.
//! - [`Secret`] and [`Properties`] keep what must not be shown out of `Debug`, `Display` and `Serialize`;
//!   [`effective`] prints a whole config for `--check` with secrets hidden.
//! - [`Watched`] tells when files that changed are to be read again while a program runs, [`changed_keys`] what they
//!   changed.
//!
//! Config types should derive `Deserialize` with `deny_unknown_fields` (this is what refuses unknown keys) and
//! `Serialize` (for [`effective`]).

#![warn(missing_docs)]

mod changed;
mod effective;
mod error;
mod exit;
mod load;
mod properties;
mod secret;
mod stamps;
mod units;
mod watched;
mod whole;

pub use changed::changed_keys;
pub use effective::{effective, hide_secrets};
pub use error::Error;
pub use exit::{EX_USAGE, EXIT_DIFFERENT, EXIT_FAILED, said_once};
pub use load::{load, parse, refuse};
pub use properties::{Properties, Property};
pub use secret::{HIDDEN, Secret};
pub use units::{ByteSize, Rate, Span, UnitError};
pub use watched::Watched;
pub use whole::whole;
