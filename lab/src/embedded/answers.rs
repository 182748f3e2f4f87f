//! What the shim rewrites and what it answers itself: pure functions from frame to frame.

use std::collections::BTreeMap;

use crate::wire::{Reader, RequestHeader, Writer};

const TOPIC_RESOURCE: u8 = 2;
/// `ConfigSource` of the protocol: set on the topic, and a default.
const SOURCE_TOPIC: u8 = 1;
const SOURCE_DEFAULT: u8 = 5;
const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
const INVALID_PARTITIONS: i16 = 37;

/// Kafka's own defaults for what programs ask about.
const DEFAULTS: [(&str, &str); 8] = [
    ("cleanup.policy", "delete"),
    ("compression.type", "producer"),
    ("max.message.bytes", "1048588"),
    ("message.timestamp.after.max.ms", "3600000"),
    ("message.timestamp.type", "CreateTime"),
    ("min.insync.replicas", "1"),
    ("retention.bytes", "-1"),
    ("retention.ms", "604800000"),
];

/// An `EndTxn` of version 0 or 1 as version 3.
pub(super) fn end_txn_as_v3(frame: &[u8]) -> Option<Vec<u8>> {
    let mut reader = Reader::new(frame);
    let header = RequestHeader::read(&mut reader)?;
    let id = reader.string()??;
    let (producer, epoch, committed) = (reader.i64()?, reader.i16()?, reader.u8()?);
    let header = RequestHeader { version: 3, ..header };
    let request = Writer::request(&header, true).compact_string(id);
    Some(request.i64(producer).i16(epoch).u8(committed).tags().finish())
}

/// The answer to an `EndTxn` of version 3 as version 1.
pub(super) fn end_txn_answer_as_v1(frame: &[u8]) -> Option<Vec<u8>> {
    let mut reader = Reader::new(frame);
    let correlation = reader.i32()?;
    reader.tags()?;
    let (throttle, code) = (reader.i32()?, reader.i16()?);
    Some(Writer::default().i32(correlation).i32(throttle).i16(code).finish())
}

/// The same request under another version of the same layout.
pub(super) fn with_version(frame: &[u8], version: i16) -> Option<Vec<u8>> {
    let mut frame = frame.to_vec();
    frame.get_mut(2..4)?.copy_from_slice(&version.to_be_bytes());
    Some(frame)
}

/// Topics and their configurations in a `CreateTopics` of version 4.
pub(super) fn created_topics(frame: &[u8]) -> Option<Vec<(String, BTreeMap<String, String>)>> {
    let mut reader = Reader::new(frame);
    RequestHeader::read(&mut reader)?;
    let mut topics = Vec::new();
    for _ in 0..reader.i32()? {
        let name = reader.string()??.to_owned();
        reader.i32()?; // partitions
        reader.i16()?; // replication factor
        for _ in 0..reader.i32()? {
            reader.i32()?; // partition
            for _ in 0..reader.i32()? {
                reader.i32()?; // replica
            }
        }
        let mut configs = BTreeMap::new();
        for _ in 0..reader.i32()? {
            let name = reader.string()??.to_owned();
            if let Some(value) = reader.string()? {
                configs.insert(name, value.to_owned());
            }
        }
        topics.push((name, configs));
    }
    Some(topics)
}

/// Answers a `DescribeConfigs` of version 1; `configs` gives what is set on a topic, `None` when there is no such topic.
pub(super) fn describe_configs(
    frame: &[u8],
    configs: impl Fn(&str) -> Option<BTreeMap<String, String>>,
) -> Option<Vec<u8>> {
    let mut reader = Reader::new(frame);
    let header = RequestHeader::read(&mut reader)?;
    let count = reader.i32()?;
    let mut answer = Writer::default().i32(header.correlation_id).i32(0).i32(count);
    for _ in 0..count {
        let kind = reader.u8()?;
        let name = reader.string()??;
        for _ in 0..reader.i32()? {
            reader.string()?; // names asked for: all are given
        }
        let set = if kind == TOPIC_RESOURCE { configs(name) } else { Some(BTreeMap::new()) };
        answer = match set {
            None => answer
                .i16(UNKNOWN_TOPIC_OR_PARTITION)
                .string(Some("no such topic"))
                .u8(kind)
                .string(Some(name))
                .i32(0),
            Some(set) => entries(answer.i16(0).string(None).u8(kind).string(Some(name)), set),
        };
    }
    Some(answer.finish())
}

fn entries(mut answer: Writer, set: BTreeMap<String, String>) -> Writer {
    let mut all: BTreeMap<String, (String, u8)> =
        DEFAULTS.iter().map(|&(name, value)| (name.to_owned(), (value.to_owned(), SOURCE_DEFAULT))).collect();
    all.extend(set.into_iter().map(|(name, value)| (name, (value, SOURCE_TOPIC))));
    answer = answer.i32(i32::try_from(all.len()).expect("a topic has few configurations"));
    for (name, (value, source)) in all {
        let (read_only, sensitive, synonyms) = (0, 0, 0);
        answer = answer.string(Some(&name)).string(Some(&value));
        answer = answer.u8(read_only).u8(source).u8(sensitive).i32(synonyms);
    }
    answer
}

/// Answers a `CreatePartitions` of version 0 or 1; `grow` is given the new total and says whether that is an addition.
pub(super) fn create_partitions(frame: &[u8], grow: impl Fn(&str, i32) -> bool) -> Option<Vec<u8>> {
    let mut reader = Reader::new(frame);
    let header = RequestHeader::read(&mut reader)?;
    let count = reader.i32()?;
    let mut answer = Writer::default().i32(header.correlation_id).i32(0).i32(count);
    for _ in 0..count {
        let name = reader.string()??;
        let total = reader.i32()?;
        for _ in 0..reader.i32()? {
            for _ in 0..reader.i32()? {
                reader.i32()?; // assigned broker
            }
        }
        answer = answer.string(Some(name));
        answer = if grow(name, total) {
            answer.i16(0).string(None)
        } else {
            answer.i16(INVALID_PARTITIONS).string(Some("no such topic, or not more partitions than it has"))
        };
    }
    Some(answer.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ApiKey;

    fn header(api_key: ApiKey, version: i16) -> RequestHeader {
        RequestHeader { api_key, version, correlation_id: 7, client_id: Some("c".to_owned()) }
    }

    #[test]
    fn an_old_end_txn_becomes_a_flexible_one_and_its_answer_an_old_one() {
        let old = Writer::request(&header(ApiKey::EndTxn, 1), false)
            .string(Some("lane-0"))
            .i64(1000)
            .i16(3)
            .u8(1)
            .finish();
        let new = end_txn_as_v3(&old).unwrap();
        let expected = Writer::request(&header(ApiKey::EndTxn, 3), true)
            .compact_string("lane-0")
            .i64(1000)
            .i16(3)
            .u8(1)
            .tags()
            .finish();
        assert_eq!(new, expected);
        let answer = Writer::default().i32(7).tags().i32(0).i16(90).tags().finish();
        assert_eq!(end_txn_answer_as_v1(&answer).unwrap(), Writer::default().i32(7).i32(0).i16(90).finish());
        assert_eq!(end_txn_as_v3(&old[..20]), None);
    }

    #[test]
    fn configurations_given_at_creation_are_found() {
        let frame = Writer::request(&header(ApiKey::CreateTopics, 4), false)
            .i32(1)
            .string(Some("progress"))
            .i32(4)
            .i16(-1)
            .i32(0)
            .i32(1)
            .string(Some("cleanup.policy"))
            .string(Some("compact"))
            .finish();
        let (name, configs) = created_topics(&frame).unwrap().remove(0);
        assert_eq!((name.as_str(), configs["cleanup.policy"].as_str()), ("progress", "compact"));
    }
}
