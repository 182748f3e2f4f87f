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
    /// Partitions that had no leader.
    pub(crate) leaderless: BTreeSet<i32>,
}

/// Why a target topic cannot be written now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Obstacle {
    /// It may pass by itself: ask again.
    Passing(String),
    /// An operator must act.
    Hold(Reason, String),
}

/// What a target topic must be like.
#[derive(Debug, Clone)]
pub(crate) struct Want {
    pub(crate) topic: Arc<str>,
    /// It has so many partitions at least.
    pub(crate) partitions: i32,
    /// A topic that is missing is created with so many partitions, or not at all: one that was written to before is
    /// not replaced.
    pub(crate) create: Option<i32>,
}

/// What became of each topic.
pub(crate) type Prepared = BTreeMap<Arc<str>, Result<TargetTopic, Obstacle>>;

/// Makes sure that topics exist as they are wanted and keep records as they are, all of them with a few requests.
pub(crate) fn prepare(admin: &Admin, wants: &[Want]) -> Prepared {
    wants.chunks(TOPICS_AT_ONCE).flat_map(|wants| prepare_some(admin, wants)).collect()
}

fn prepare_some(admin: &Admin, wants: &[Want]) -> Prepared {
    let mut outcomes = Prepared::new();
    let names: Vec<&str> = wants.iter().map(|want| &*want.topic).collect();
    let mut found = match describe(admin, &names) {
        Ok(found) => found,
        Err(obstacle) => {
            return wants.iter().map(|want| (want.topic.clone(), Err(obstacle.clone()))).collect();
        }
    };
    let missing: Vec<(&str, i32)> = wants
        .iter()
        .filter(|want| matches!(found.get(&*want.topic), Some(Ok(None))))
        .filter_map(|want| Some((&*want.topic, want.create?)))
        .collect();
    found.extend(create(admin, &missing));
    let there: Vec<&str> =
        found.iter().filter(|(_, found)| matches!(found, Ok(Some(_)))).map(|(name, _)| &**name).collect();
    let mut configs = admin.configs_of(&there, PATIENCE);
    for want in wants {
        let outcome = match found.remove(&*want.topic) {
            Some(Ok(Some(described))) => match &mut configs {
                Ok(configs) => judge(admin, want, &described, configs.remove(&*want.topic)),
                Err(error) => Err(unreadable(&want.topic, error)),
            },
            Some(Ok(None)) => Err(gone(&want.topic)),
            Some(Err(obstacle)) => Err(obstacle),
            None => Err(Obstacle::Passing(format!("the cluster did not describe `{}`", want.topic))),
        };
        outcomes.insert(want.topic.clone(), outcome);
    }
    outcomes
}

/// Whether a topic that is there is as it is wanted; partitions that it lacks are added.
fn judge(
    admin: &Admin,
    want: &Want,
    described: &kafka::Topic,
    configs: Option<Result<BTreeMap<String, String>, kafka::Error>>,
) -> Result<TargetTopic, Obstacle> {
    let topic = &want.topic;
    let existing = described.partitions.len() as i32;
    let grown = existing < want.partitions;
    if grown {
        grow(admin, topic, existing, want.partitions)?;
    }
    let configs = match configs {
        Some(configs) => configs.map_err(|error| unreadable(topic, &error))?,
        None => return Err(Obstacle::Passing(format!("the cluster did not tell the configs of `{topic}`"))),
    };
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
    let leaderless = (0..).zip(&described.partitions).filter(|(_, partition)| partition.leader.is_none());
    let leaderless = leaderless.map(|(number, _)| number).collect();
    Ok(TargetTopic { id: described.id, max_message_bytes, compacted, grown, leaderless })
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

/// A target partition, and the position from which on it is looked at.
#[derive(Debug, Clone)]
pub(crate) struct At {
    pub(crate) topic: Arc<str>,
    pub(crate) partition: i32,
    pub(crate) position: i64,
}

/// Reads, read_committed, what lies at or after a position of each target partition: in the order asked for, or what is
/// in the way of one.
///
/// This is the tail check of a take-over: the last record that progress names must be there, and nothing after it.
pub(crate) fn tails(
    admin: &Admin,
    settings: &kafka::Settings,
    wanted: &[At],
) -> Result<Vec<Result<Tail, Obstacle>>, Obstacle> {
    let passing = |error: &dyn std::fmt::Display| {
        Obstacle::Passing(format!("cannot read the ends of target topics: {error}"))
    };
    let mut tails = Vec::with_capacity(wanted.len());
    for wanted in wanted.chunks(PARTITIONS_AT_ONCE) {
        let partitions: Vec<(&str, i32)> = wanted.iter().map(|at| (&*at.topic, at.partition)).collect();
        let ends = ends_soon(admin, &partitions).map_err(|error| passing(&error))?;
        tails.extend(wanted.iter().zip(ends).map(|(at, ends)| match ends {
            Ok(ends) => Ok(Tail { low: ends.low, high: ends.hw, ..Tail::default() }),
            Err(code) if code.is_authorization() => Err(unauthorised(&at.topic, code)),
            Err(code) => Err(passing(&format_args!("{} of `{}`: {code}", at.partition, at.topic))),
        }));
    }
    let options = SourceOptions { queued_bytes: 1 << 20, ..SourceOptions::default() };
    let mut consumer =
        SourceConsumer::new(settings, "longhaul-tail-check", options).map_err(|error| passing(&error))?;
    let mut open = BTreeSet::new();
    for (index, (at, tail)) in wanted.iter().zip(&tails).enumerate() {
        let Ok(tail) = tail else { continue };
        let from = at.position.max(tail.low);
        if from < tail.high {
            let assigned = consumer.assign(&at.topic, at.partition, from, None, index as u64);
            assigned.map_err(|error| passing(&error))?;
            open.insert(index as u64);
        }
    }
    read_tails(&mut consumer, wanted, &mut tails, open);
    Ok(tails)
}

/// The ends of partitions. The leaders of a topic that was just created take a moment to know of it.
fn ends_soon(
    admin: &Admin,
    partitions: &[(&str, i32)],
) -> Result<Vec<Result<kafka::Ends, KafkaCode>>, kafka::Error> {
    let deadline = Instant::now() + SETTLING;
    loop {
        let ends = admin.ends_of(partitions, PATIENCE)?;
        let settled = |ends: &Result<_, KafkaCode>| !matches!(ends, Err(code) if code.is_retriable());
        if ends.iter().all(settled) || Instant::now() > deadline {
            return Ok(ends);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Reads the first two records of each partition that is `open`.
fn read_tails(
    consumer: &mut SourceConsumer,
    wanted: &[At],
    tails: &mut [Result<Tail, Obstacle>],
    mut open: BTreeSet<u64>,
) {
    let deadline = Instant::now() + PATIENCE;
    while !open.is_empty() && Instant::now() < deadline {
        consumer.poll(Duration::from_millis(50), |event| match event {
            kafka::Event::Record(record) => {
                let Ok(tail) = &mut tails[record.token as usize] else { return };
                if tail.first.is_none() {
                    tail.first = Some(record.offset);
                } else {
                    tail.second.get_or_insert(record.offset);
                    open.remove(&record.token);
                }
            }
            kafka::Event::EndOfPartition { token, .. } => drop(open.remove(&token)),
            kafka::Event::Lost { token, cause } => {
                open.remove(&token);
                let topic = &wanted[token as usize].topic;
                tails[token as usize] = Err(match cause {
                    kafka::SourceError::Authorization { code } => unauthorised(topic, code),
                    cause => Obstacle::Passing(format!("cannot read `{topic}`: {cause}")),
                });
            }
            kafka::Event::Trouble { .. } => {}
        });
    }
    for token in open {
        let topic = &wanted[token as usize].topic;
        let why = format!("the tail of `{topic}` was not readable within {PATIENCE:?}");
        tails[token as usize] = Err(Obstacle::Passing(why));
    }
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

/// Topics that are there, or are not, or what is in the way of asking about one.
type Found = BTreeMap<String, Result<Option<kafka::Topic>, Obstacle>>;

fn describe(admin: &Admin, names: &[&str]) -> Result<Found, Obstacle> {
    let described = admin
        .describe(names, PATIENCE)
        .map_err(|error| Obstacle::Passing(format!("cannot describe target topics: {error}")))?;
    let found = described.into_iter().map(|answer| match answer {
        Ok(topic) => (topic.name.clone(), Ok(Some(topic))),
        Err((name, code)) if code.is_unknown_topic() => (name, Ok(None)),
        Err((name, code)) if code.is_authorization() => {
            let obstacle = unauthorised(&name, code);
            (name, Err(obstacle))
        }
        Err((name, code)) => {
            let obstacle = Obstacle::Passing(format!("cannot describe `{name}`: {code}"));
            (name, Err(obstacle))
        }
    });
    Ok(found.collect())
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

/// Creates topics, and describes those that could be created.
fn create(admin: &Admin, topics: &[(&str, i32)]) -> Found {
    let outcomes = match admin.create_topics(topics, PATIENCE) {
        Ok(outcomes) => outcomes,
        Err(error) => {
            let why = Obstacle::Passing(format!("cannot create target topics: {error}"));
            return topics.iter().map(|(name, _)| ((*name).to_owned(), Err(why.clone()))).collect();
        }
    };
    let mut found = Found::new();
    let mut made = Vec::new();
    for (name, partitions) in topics {
        match outcomes.get(*name) {
            Some(Ok(())) => {
                tracing::info!(topic = name, partitions, "created the target topic");
                made.push(*name);
            }
            Some(Err(error)) => match not_created(name, *partitions, error) {
                None => made.push(*name),
                Some(obstacle) => drop(found.insert((*name).to_owned(), Err(obstacle))),
            },
            None => {
                let why = format!("the cluster did not tell whether it created `{name}`");
                found.insert((*name).to_owned(), Err(Obstacle::Passing(why)));
            }
        }
    }
    found.extend(described_soon(admin, &made));
    found
}

/// Why a topic was not created; `None` when it is there already.
fn not_created(topic: &str, partitions: i32, error: &kafka::Error) -> Option<Obstacle> {
    let code = error.code();
    if code == Some(KafkaCode::TOPIC_ALREADY_EXISTS) {
        return None;
    }
    Some(match code {
        Some(code) if code.is_retriable() => {
            Obstacle::Passing(format!("cannot create target topic `{topic}`: {error}"))
        }
        Some(code) if code.is_authorization() => Obstacle::Hold(
            Reason::TargetUnauthorized,
            format!(
                "target topic `{topic}` does not exist and may not be created ({code}); create it with {partitions} \
                 partitions, or grant Create on it"
            ),
        ),
        _ => Obstacle::Hold(
            Reason::TargetUnfit,
            format!(
                "target topic `{topic}` does not exist and cannot be created: {error}; create it with {partitions} \
                 partitions"
            ),
        ),
    })
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
        Err(_) if has_grown(admin, topic, partitions)? => Ok(()),
        Err(error) => Err(Obstacle::Hold(
            Reason::TargetUnfit,
            format!(
                "target topic `{topic}` has {existing} partitions, the source {partitions}, and they cannot be added: \
                 {error}; add them with kafka-topics.sh --alter"
            ),
        )),
    }
}

fn has_grown(admin: &Admin, topic: &str, partitions: i32) -> Result<bool, Obstacle> {
    let described = describe(admin, &[topic])?.remove(topic).unwrap_or(Ok(None))?;
    Ok(described.is_some_and(|now| now.partitions.len() as i32 >= partitions))
}

/// Topics that were just created take a moment to be known everywhere.
fn described_soon(admin: &Admin, names: &[&str]) -> Found {
    let deadline = Instant::now() + PATIENCE;
    let mut found = Found::new();
    let mut left = names.to_vec();
    while !left.is_empty() {
        let described = match describe(admin, &left) {
            Ok(described) => described,
            Err(obstacle) => left.iter().map(|name| ((*name).to_owned(), Err(obstacle.clone()))).collect(),
        };
        for (name, outcome) in described {
            let known = match &outcome {
                Ok(Some(topic)) => {
                    !topic.partitions.is_empty()
                        && topic.partitions.iter().all(|partition| partition.leader.is_some())
                }
                Ok(None) => false,
                Err(_) => true,
            };
            if known {
                left.retain(|other| *other != name);
                found.insert(name, outcome);
            }
        }
        if Instant::now() > deadline {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    for name in left {
        let why = format!("target topic `{name}` was created and is not described yet");
        found.insert(name.to_owned(), Err(Obstacle::Passing(why)));
    }
    found
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

/// How long leaders may say that they are none before the lane says so.
const SETTLING: Duration = Duration::from_secs(1);
/// How long one question to the cluster may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Topics that one request is about, and partitions.
const TOPICS_AT_ONCE: usize = 200;
const PARTITIONS_AT_ONCE: usize = 2000;
/// Kafka's default of `max.message.bytes`.
const DEFAULT_MAX_MESSAGE_BYTES: usize = 1_048_588;
