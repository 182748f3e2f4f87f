//! The form of a line and how it holds on to the one before.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::event::Event;

/// One line of the log, read back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Its number in the chain, from 0.
    pub seq: u64,
    /// BLAKE3 (hex) of the line before, without its line break; zeros in the first line.
    pub prev: String,
    /// When it was written: RFC 3339, UTC, with milliseconds.
    pub time: String,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// What every line has, whatever its event: enough to follow the chain through events of a newer version.
#[derive(Debug, Deserialize)]
pub(super) struct Header {
    pub(super) seq: u64,
    pub(super) prev: String,
    pub(super) time: String,
    pub(super) event: String,
}

/// Where the chain goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    /// Number of the next line.
    pub(super) seq: u64,
    /// What its `prev` must be.
    pub(super) prev: String,
}

impl Head {
    /// Before the first line of a chain.
    pub(super) fn genesis() -> Self {
        Self { seq: 0, prev: "0".repeat(64) }
    }

    /// After the line numbered `seq`; `line` without its line break.
    pub(super) fn after(seq: u64, line: &[u8]) -> Self {
        Self { seq: seq + 1, prev: hash(line) }
    }

    /// Adds a line with `event` to `out` and moves on. Gives the length of the line.
    pub(super) fn append(&mut self, event: &Event, time: SystemTime, out: &mut Vec<u8>) -> usize {
        #[derive(Serialize)]
        struct Borrowed<'a> {
            seq: u64,
            prev: &'a str,
            time: String,
            #[serde(flatten)]
            event: &'a Event,
        }
        let time = humantime::format_rfc3339_millis(time).to_string();
        let line = Borrowed { seq: self.seq, prev: &self.prev, time, event };
        let start = out.len();
        serde_json::to_writer(&mut *out, &line).expect("an event has text keys and writes to memory");
        let length = out.len() - start;
        *self = Self::after(self.seq, &out[start..]);
        out.push(b'\n');
        length
    }
}

/// BLAKE3 (hex) of a text, such as an effective configuration with its secrets hidden.
pub fn fingerprint(text: &str) -> String {
    hash(text.as_bytes())
}

/// BLAKE3 in lower-case hex.
pub(super) fn hash(line: &[u8]) -> String {
    blake3::hash(line).to_hex().to_string()
}

/// The most bytes that a line may have, without its line break.
pub(super) const MAX_LINE: usize = 1 << 20;
