//! The target cluster's topics: made with the source's partition count, and looked at before anything is written.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use kafka::{Admin, KafkaCode, SourceConsumer, SourceOptions};
use proto::{hold::Reason, ids::TopicId};

/// A target topic as it was when a source partition was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TargetTopic {
    pub(crate) id: TopicId,
    /// Bytes of a batch with one record, at most: `max.message.bytes`.
    pub(crate) max_message_bytes: usize,
    /// Whether compaction may remove records of it: `cleanup.policy` has `compact`.
    pub(crate) compacted: bool,
    /// Whether partitions were added just now.
    pub(crate) grown: bool,
}

/// Why a target topic cannot be written now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Obstacle {
    /// It may pass by itself: ask again.
    Passing(String),
    /// An operator must act.
    Hold(Reason, String),
}

/// Makes sure that `topic` exists with at least `partitions` partitions and keeps records as they are. A topic that is
/// missing is created with `create` partitions, or not at all: one that was written to before is not replaced.
pub(crate) fn prepare(
    admin: &Admin,
    topic: &str,
    partitions: i32,
    create: Option<i32>,
) -> Result<TargetTopic, Obstacle> {
    let described = match describe(admin, topic)? {
        Some(described) => described,
        None => {
            let Some(partitions) = create else { return Err(gone(topic)) };
            create_topic(admin, topic, partitions)?;
            described_soon(admin, topic)?
        }
    };
    let existing = described.partitions.len() as i32;
    let grown = existing < partitions;
    if grown {
        grow(admin, topic, existing, partitions)?;
    }
    let configs = admin.topic_configs(topic, PATIENCE).map_err(|error| unreadable(topic, &error))?;
    if configs.get("message.timestamp.type").is_some_and(|stamps| stamps == "LogAppendTime") {
        return Err(Obstacle::Hold(
            Reason::TargetUnfit,
            format!(
                "target topic `{topic}` stamps its own time on records (message.timestamp.type=LogAppendTime), which \
                 would change every timestamp; set it to CreateTime with kafka-configs.sh"
            ),
        ));
    }
    let max_message_bytes = configs
        .get("max.message.bytes")
        .and_then(|value| value.parse().ok())
        .unwrap_or(DEFAULT_MAX_MESSAGE_BYTES);
    let compacted = configs.get("cleanup.policy").is_some_and(|policy| policy.contains("compact"));
    Ok(TargetTopic { id: described.id, max_message_bytes, compacted, grown })
}

/// What a target partition holds from a position on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tail {
    /// Log start.
    pub(crate) low: i64,
    /// High watermark.
    pub(crate) high: i64,
    /// The first two visible records at or after the position.
    pub(crate) first: Option<i64>,
    pub(crate) second: Option<i64>,
}

/// Reads, read_committed, what lies at or after a position of each of `partitions` of `topic`.
///
/// This is the tail check of a take-over: the last record that progress names must be there, and nothing after it.
pub(crate) fn tails(
    admin: &Admin,
    settings: &kafka::Settings,
    topic: &str,
    positions: &[(i32, i64)],
) -> Result<Vec<Tail>, Obstacle> {
    let passing =
        |error: &dyn std::fmt::Display| Obstacle::Passing(format!("cannot read `{topic}`: {error}"));
    let partitions: Vec<i32> = positions.iter().map(|(partition, _)| *partition).collect();
    let ends = admin.ends(topic, &partitions, PATIENCE).map_err(|error| unreadable(topic, &error))?;
    let mut tails: Vec<Tail> =
        ends.iter().map(|ends| Tail { low: ends.low, high: ends.hw, ..Tail::default() }).collect();
    let options = SourceOptions { queued_bytes: 1 << 20, ..SourceOptions::default() };
    let mut consumer =
        SourceConsumer::new(settings, "longhaul-tail-check", options).map_err(|error| passing(&error))?;
    let mut open = BTreeSet::new();
    for (index, (partition, position)) in positions.iter().enumerate() {
        let from = (*position).max(tails[index].low);
        if from < tails[index].high {
            consumer.assign(topic, *partition, from, None, index as u64).map_err(|error| passing(&error))?;
            open.insert(index as u64);
        }
    }
    let deadline = Instant::now() + PATIENCE;
    while !open.is_empty() {
        if Instant::now() > deadline {
            return Err(Obstacle::Passing(format!(
                "the tail of `{topic}` was not readable within {PATIENCE:?}"
            )));
        }
        let mut failure = None;
        consumer.poll(Duration::from_millis(50), |event| match event {
            kafka::Event::Record(record) => {
                let tail = &mut tails[record.token as usize];
                if tail.first.is_none() {
                    tail.first = Some(record.offset);
                } else {
                    tail.second.get_or_insert(record.offset);
                    open.remove(&record.token);
                }
            }
            kafka::Event::EndOfPartition { token, .. } => drop(open.remove(&token)),
            kafka::Event::Lost { cause, .. } => failure = Some(cause),
            kafka::Event::Trouble { .. } => {}
        });
        match failure {
            None => {}
            Some(kafka::SourceError::Authorization { code }) => return Err(unauthorised(topic, code)),
            Some(cause) => return Err(passing(&cause)),
        }
    }
    Ok(tails)
}

/// Which source topic each target topic belongs to, over all links: two must not be mixed by accident.
#[derive(Debug, Default)]
pub(crate) struct Claims(Mutex<BTreeMap<Arc<str>, Claim>>);

/// Who writes a target topic.
#[derive(Debug)]
struct Claim {
    link: Arc<str>,
    topic: Arc<str>,
}

impl Claims {
    /// Claims `target` for `topic` of `link`; the answer names who has it already.
    pub(crate) fn claim(&self, target: &Arc<str>, link: &Arc<str>, topic: &Arc<str>) -> Result<(), String> {
        let mut claims = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let owner = claims
            .entry(target.clone())
            .or_insert_with(|| Claim { link: link.clone(), topic: topic.clone() });
        if owner.link == *link && owner.topic == *topic {
            return Ok(());
        }
        Err(format!("topic `{}` of link `{}`", owner.topic, owner.link))
    }
}

fn describe(admin: &Admin, topic: &str) -> Result<Option<kafka::Topic>, Obstacle> {
    let described = admin.describe(&[topic], PATIENCE).map_err(|error| unreadable(topic, &error))?;
    match described.into_iter().next() {
        Some(Ok(topic)) => Ok(Some(topic)),
        Some(Err((_, code))) if code.is_unknown_topic() => Ok(None),
        Some(Err((_, code))) if code.is_authorization() => Err(unauthorised(topic, code)),
        Some(Err((_, code))) => Err(Obstacle::Passing(format!("cannot describe `{topic}`: {code}"))),
        None => Err(Obstacle::Passing(format!("the cluster did not describe `{topic}`"))),
    }
}

fn gone(topic: &str) -> Obstacle {
    Obstacle::Hold(
        Reason::TargetRecreated,
        format!(
            "target topic `{topic}` is gone: it was deleted after records were written to it; restore it from a backup, or \
             copy the topic again from its start under another link name or target name"
        ),
    )
}

fn create_topic(admin: &Admin, topic: &str, partitions: i32) -> Result<(), Obstacle> {
    match admin.create_topic(topic, partitions, -1, &[], PATIENCE) {
        Ok(()) => {
            tracing::info!(topic, partitions, "created the target topic");
            Ok(())
        }
        Err(error) => match error.code() {
            Some(KafkaCode::TOPIC_ALREADY_EXISTS) => Ok(()),
            Some(code) if code.is_retriable() => {
                Err(Obstacle::Passing(format!("cannot create target topic `{topic}`: {error}")))
            }
            Some(code) if code.is_authorization() => Err(Obstacle::Hold(
                Reason::TargetUnauthorized,
                format!(
                    "target topic `{topic}` does not exist and may not be created ({code}); create it with {partitions} \
                     partitions, or grant Create on it"
                ),
            )),
            _ => Err(Obstacle::Hold(
                Reason::TargetUnfit,
                format!(
                    "target topic `{topic}` does not exist and cannot be created: {error}; create it with {partitions} \
                     partitions"
                ),
            )),
        },
    }
}

fn grow(admin: &Admin, topic: &str, existing: i32, partitions: i32) -> Result<(), Obstacle> {
    match admin.create_partitions(topic, partitions, PATIENCE) {
        Ok(()) => {
            tracing::info!(topic, from = existing, to = partitions, "added partitions to the target topic");
            Ok(())
        }
        Err(error) if error.is_retriable() => {
            Err(Obstacle::Passing(format!("cannot add partitions to `{topic}`: {error}")))
        }
        // Another lane or importer may have been faster.
        Err(_) if describe(admin, topic)?.is_some_and(|now| now.partitions.len() as i32 >= partitions) => {
            Ok(())
        }
        Err(error) => Err(Obstacle::Hold(
            Reason::TargetUnfit,
            format!(
                "target topic `{topic}` has {existing} partitions, the source {partitions}, and they cannot be added: \
                 {error}; add them with kafka-topics.sh --alter"
            ),
        )),
    }
}

/// A topic that was just created takes a moment to be known everywhere.
fn described_soon(admin: &Admin, topic: &str) -> Result<kafka::Topic, Obstacle> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(described) = describe(admin, topic)?
            && described.partitions.iter().all(|partition| partition.leader.is_some())
            && !described.partitions.is_empty()
        {
            return Ok(described);
        }
        if Instant::now() > deadline {
            return Err(Obstacle::Passing(format!(
                "target topic `{topic}` was created and is not described yet"
            )));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn unreadable(topic: &str, error: &kafka::Error) -> Obstacle {
    match error.code() {
        Some(code) if code.is_authorization() => unauthorised(topic, code),
        _ => Obstacle::Passing(format!("cannot ask about target topic `{topic}`: {error}")),
    }
}

pub(crate) fn unauthorised(topic: &str, code: KafkaCode) -> Obstacle {
    Obstacle::Hold(
        Reason::TargetUnauthorized,
        format!(
            "the target cluster does not let the importer use topic `{topic}` ({code}); grant its principal Write, \
             Read, Describe and DescribeConfigs on it with kafka-acls.sh"
        ),
    )
}

/// How long one question to the cluster may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Kafka's default of `max.message.bytes`.
const DEFAULT_MAX_MESSAGE_BYTES: usize = 1_048_588;
