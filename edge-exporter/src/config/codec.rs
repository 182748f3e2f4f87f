//! `[codec]`: how batches are made small.

use codec::{level, limits::LEVELS};
use serde::{Deserialize, Serialize};

/// `[codec]`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Codec {
    /// What each lane chooses its compression level for, while it runs: `bytes` spends all processor time that is free
    /// on fewer bytes, `cpu` as little as it can, `latency` as little as keeps records moving: more where they wait for
    /// the link, and where it costs next to nothing. Default `latency`.
    pub priority: Priority,
    /// A fixed zstd level, 1 to 12, in place of one that follows what happens. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub level: Option<i32>,
}

/// `priority`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// Fewest bytes.
    Bytes,
    /// Least processor time.
    Cpu,
    /// Earliest arrival.
    #[default]
    Latency,
}

impl Codec {
    /// What is wrong with it: the key, and what would be right.
    pub(super) fn check(&self) -> Result<(), (&'static str, String)> {
        let (least, most) = LEVELS.into_inner();
        match self.level {
            Some(level) if !LEVELS.contains(&level) => {
                Err(("level", format!("expected {least} to {most}, found {level}")))
            }
            _ => Ok(()),
        }
    }
}

impl From<Priority> for level::Priority {
    fn from(priority: Priority) -> Self {
        match priority {
            Priority::Bytes => Self::Bytes,
            Priority::Cpu => Self::Cpu,
            Priority::Latency => Self::Latency,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_default_are_the_codecs() {
        assert_eq!(level::Priority::from(Priority::default()), level::Priority::default());
        for priority in [Priority::Bytes, Priority::Cpu, Priority::Latency] {
            let text = serde_json::to_string(&priority).unwrap();
            assert_eq!(text, format!("\"{}\"", level::Priority::from(priority)));
        }
    }
}
