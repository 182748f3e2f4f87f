//! What is put on record: the events of the audit log, one type each.
//!
//! An [`Event`] is written as one flat JSON object with its name under `event`; reading it back gives the same
//! value. Events never carry payloads, keys or header values of records, nor secrets. Adding an optional field is
//! compatible; renaming or removing one is not, because old logs must stay readable.

use serde::{Deserialize, Serialize};

/// One line of the audit log without its chain. Offsets are the source's; times are in the line itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// The program began its work.
    Start(Start),
    /// The program ended on purpose.
    Stop(Stop),
    /// A peer was authenticated and admitted.
    Connect(Connect),
    /// A peer, or something that it asked for, was turned away.
    Refuse(Refuse),
    /// A connection ended.
    Disconnect(Disconnect),
    /// An exporter asked to send a source partition.
    Open(Open),
    /// A source partition begins without any progress at the target.
    New(New),
    /// A source partition goes on from recorded progress.
    Resume(Resume),
    /// A source partition was stopped on purpose and waits for an operator.
    Hold(Hold),
    /// A hold ended.
    Release(Release),
    /// Source offsets that will never be delivered.
    Gap(Gap),
    /// Records became durable at the target (importer), or were acknowledged as such (exporter).
    Delivered(Delivered),
    /// A policy was loaded or changed.
    Policy(Policy),
    /// An operator did something.
    Operator(Operator),
    /// Written by the log itself: the last line was cut off by a crash.
    Torn(Torn),
    /// Written by the log itself: it could not be written for a while.
    AuditResumed(AuditResumed),
}

/// A source partition, as events name it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// Name of the link.
    pub link: String,
    /// Id of the source cluster.
    pub cluster: String,
    /// Name of the source topic.
    pub topic: String,
    /// Id of the source topic, as Kafka prints it (22 characters of base64url).
    pub topic_id: String,
    /// Number of the partition.
    pub partition: i32,
}

/// See [`Event::Start`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// `edge-exporter` or `cloud-importer`.
    pub program: String,
    /// Its version.
    pub version: String,
    /// Id of this run.
    pub instance: String,
    /// The SPIFFE id that it shows to peers.
    pub identity: String,
    /// BLAKE3 (hex) of the effective configuration, secrets hidden.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<String>,
}

/// See [`Event::Stop`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stop {
    /// Why: a signal, an operator, an error.
    pub reason: String,
}

/// See [`Event::Connect`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connect {
    /// Name of the link.
    pub link: String,
    /// SPIFFE id of the peer.
    pub peer: String,
    /// Its address and port.
    pub remote: String,
    /// The session at the importer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<u64>,
    /// Id of the source cluster that the exporter named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// Id of the peer's run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
}

/// See [`Event::Refuse`]. As much as was known when it was turned away.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refuse {
    /// Address and port of the peer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<String>,
    /// SPIFFE id of the peer, if it had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// Name of the link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
    /// Id of the source cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// The topic that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// The partition that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<i32>,
    /// What was refused and why.
    pub reason: String,
}

/// See [`Event::Disconnect`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disconnect {
    /// Name of the link.
    pub link: String,
    /// SPIFFE id of the peer.
    pub peer: String,
    /// Its address and port.
    pub remote: String,
    /// The session that it had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<u64>,
    /// Why the connection ended.
    pub reason: String,
}

/// See [`Event::Open`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Open {
    /// The source partition.
    #[serde(flatten)]
    pub at: Place,
    /// First offset still in the source log.
    pub log_start: i64,
    /// End of the source log.
    pub end: i64,
}

/// See [`Event::New`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct New {
    /// The source partition.
    #[serde(flatten)]
    pub at: Place,
    /// The source offset it begins at.
    pub start: i64,
}

/// See [`Event::Resume`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resume {
    /// The source partition.
    #[serde(flatten)]
    pub at: Place,
    /// The next source offset whose record is not yet durable at the target.
    pub committed: i64,
    /// The new position's number.
    pub resume_epoch: u32,
}

/// See [`Event::Hold`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// The source partition.
    #[serde(flatten)]
    pub at: Place,
    /// Name of the reason, as in metrics.
    pub reason: String,
    /// What was found and what the operator can do.
    pub detail: String,
}

/// See [`Event::Release`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// The source partition.
    #[serde(flatten)]
    pub at: Place,
    /// Who or what ended the hold, and how.
    pub reason: String,
}

/// See [`Event::Gap`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// The source partition.
    #[serde(flatten)]
    pub at: Place,
    /// First offset of the gap.
    pub first: i64,
    /// First offset after it.
    pub next: i64,
    /// `not_visible`, `expired`, `quarantined` or `skipped`.
    pub reason: String,
}

/// See [`Event::Delivered`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivered {
    /// The source partition.
    #[serde(flatten)]
    pub at: Place,
    /// The first source offset that the line covers: the `next` of the partition's line before it.
    pub from: i64,
    /// The next source offset that is not yet delivered: the first one that the line does not cover.
    pub next: i64,
    /// Offset of the first record; absent when the range has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<i64>,
    /// Offset of the last record; absent when the range has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<i64>,
    /// Number of records.
    pub records: u64,
    /// Offsets of the range that no read_committed reader of the source sees: transaction markers, records of
    /// aborted transactions, compacted ones. The unnamed rest of a range, `next - from - records`, less the
    /// offsets in the partition's `gap` lines.
    pub not_visible: u64,
    /// Plain size of the records, in bytes.
    pub plain_bytes: u64,
    /// Their share of what the link carried, in bytes.
    pub wire_bytes: u64,
    /// Digest (hex) of the records and the gaps between them; digests of ranges add up.
    pub digest: String,
}

/// See [`Event::Policy`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Name of the link, or of the file for a whole policy.
    pub link: String,
    /// What holds from now on, in words.
    pub summary: String,
}

/// See [`Event::Operator`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operator {
    /// Who: a user name or identity.
    pub who: String,
    /// What was done.
    pub act: String,
    /// The source partition it was done to, if to one.
    #[serde(flatten)]
    pub at: Option<Place>,
}

/// See [`Event::Torn`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Torn {
    /// How many bytes at the end of the file were not a whole line and were cut off.
    pub bytes: u64,
}

/// See [`Event::AuditResumed`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditResumed {
    /// How long the log could not be written, in milliseconds.
    pub out_ms: u64,
    /// How many attempts to write failed meanwhile.
    pub failures: u64,
    /// What was wrong at first.
    pub cause: String,
}

macro_rules! events {
    ($($event:ident),* $(,)?) => {$(
        impl From<$event> for Event {
            fn from(event: $event) -> Self {
                Self::$event(event)
            }
        }
    )*};
}

events!(
    Start,
    Stop,
    Connect,
    Refuse,
    Disconnect,
    Open,
    New,
    Resume,
    Hold,
    Release,
    Gap,
    Delivered,
    Policy,
    Operator,
    Torn,
    AuditResumed,
);

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> Place {
        Place {
            link: "fra-to-aws".into(),
            cluster: "c1".into(),
            topic: "orders".into(),
            topic_id: "AAAAAAAAAAAAAAAAAAAAAA".into(),
            partition: 3,
        }
    }

    #[test]
    fn an_event_is_one_flat_object_and_reads_back() {
        let event: Event = Gap { at: place(), first: 5, next: 9, reason: "expired".into() }.into();
        let text = serde_json::to_string(&event).unwrap();
        assert_eq!(
            text,
            "{\"event\":\"gap\",\"link\":\"fra-to-aws\",\"cluster\":\"c1\",\"topic\":\"orders\",\
             \"topic_id\":\"AAAAAAAAAAAAAAAAAAAAAA\",\"partition\":3,\"first\":5,\"next\":9,\"reason\":\"expired\"}"
        );
        assert_eq!(serde_json::from_str::<Event>(&text).unwrap(), event);
    }

    #[test]
    fn an_operator_event_reads_back_with_and_without_a_partition() {
        for at in [None, Some(place())] {
            let event: Event = Operator { who: "ann".into(), act: "skip".into(), at }.into();
            let text = serde_json::to_string(&event).unwrap();
            assert_eq!(serde_json::from_str::<Event>(&text).unwrap(), event, "{text}");
        }
    }

    #[test]
    fn names_on_the_line_are_snake_case() {
        let event: Event = AuditResumed { out_ms: 1, failures: 2, cause: "disk full".into() }.into();
        assert!(serde_json::to_string(&event).unwrap().starts_with("{\"event\":\"audit_resumed\""));
    }
}
