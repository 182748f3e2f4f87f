//! The link's own topics at the target: created once, and verified before progress in them is believed.

use std::time::{Duration, Instant};

use kafka::{Admin, Isolation, KafkaCode};
use proto::{hold::Reason, ids::Lane, progress::Table};

use crate::{config::Link, target::Obstacle};

/// Creates the progress and the offset map topic if they are missing, and checks what must be true of them.
pub(crate) fn verify(admin: &Admin, link: &Link) -> Result<(), Obstacle> {
    let replication = match link.replication {
        Some(replication) => replication,
        None => {
            let brokers = admin.brokers(PATIENCE).map_err(|error| passing("count the brokers", &error))?;
            i32::try_from(brokers).unwrap_or(i32::MAX).clamp(1, 3)
        }
    };
    // A compacted log keeps the last record of each partition for ever; small segments keep it short.
    let progress = Kept {
        topic: link.progress_topic(),
        what: "progress",
        after: "; if records of it were deleted already, see the hold of each partition",
        configs: [("cleanup.policy", "compact"), ("segment.bytes", "16777216")],
    };
    verify_topic(admin, link, &progress, replication)?;
    // Only now: a number of lanes that progress refuses must not make an offset map.
    let map = Kept {
        topic: link.offset_map_topic(),
        what: "offset map",
        after: "",
        configs: [("cleanup.policy", "delete"), ("retention.ms", OFFSET_MAP_RETENTION_MS)],
    };
    verify_topic(admin, link, &map, replication)
}

/// One of the link's own topics.
struct Kept {
    topic: String,
    /// What is kept in it, in words.
    what: &'static str,
    /// What an operator should know who gives it its cleanup policy back.
    after: &'static str,
    /// What it is created with; the first must hold for ever.
    configs: [(&'static str, &'static str); 2],
}

fn verify_topic(admin: &Admin, link: &Link, kept: &Kept, replication: i32) -> Result<(), Obstacle> {
    let Kept { topic, what, after, configs } = kept;
    let topic = topic.as_str();
    let cleanup = configs[0].1;
    let described = loop {
        let described =
            admin.describe(&[topic], PATIENCE).map_err(|error| passing("describe topics", &error))?;
        match described.into_iter().next() {
            Some(Ok(described)) => break described,
            Some(Err((_, code))) if code.is_unknown_topic() => {
                create(admin, link, topic, replication, configs)?;
                std::thread::sleep(Duration::from_millis(10));
            }
            Some(Err((_, code))) if code.is_authorization() => {
                return Err(crate::target::unauthorised(topic, code));
            }
            Some(Err((_, code))) => {
                return Err(Obstacle::Passing(format!("cannot describe `{topic}`: {code}")));
            }
            None => return Err(Obstacle::Passing(format!("the cluster did not describe `{topic}`"))),
        }
    };
    let lanes = described.partitions.len();
    if lanes != usize::from(link.lanes) {
        return Err(Obstacle::Hold(
            Reason::LanesChanged,
            format!(
                "link `{}` is configured with lanes = {}, but `{topic}` has {lanes} partitions, and the number of lanes \
                 is fixed when a link first runs; set lanes = {lanes}",
                link.name, link.lanes
            ),
        ));
    }
    let found =
        admin.topic_configs(topic, PATIENCE).map_err(|error| passing("read topic configs", &error))?;
    if let Some(policy) = found.get("cleanup.policy").filter(|policy| *policy != cleanup) {
        return Err(Obstacle::Hold(
            Reason::ProgressLost,
            format!(
                "`{topic}` has cleanup.policy={policy}, which loses the link's {what}; set it to {cleanup} with \
                 kafka-configs.sh{after}"
            ),
        ));
    }
    let replicas = described.partitions.iter().map(|partition| partition.replicas.len()).min().unwrap_or(0);
    if (replicas as i32) < replication {
        return Err(Obstacle::Hold(
            Reason::ProgressLost,
            format!(
                "`{topic}` has {replicas} replica(s) where {replication} are wanted: losing a broker would lose the \
                 link's {what}; raise it with kafka-reassign-partitions.sh, or accept it with replication = {replicas} \
                 in the link's table"
            ),
        ));
    }
    let in_sync = found.get("min.insync.replicas").and_then(|value| value.parse::<i32>().ok()).unwrap_or(1);
    if in_sync > replicas as i32 {
        return Err(Obstacle::Hold(
            Reason::ProgressLost,
            format!(
                "`{topic}` has {replicas} replica(s) and min.insync.replicas={in_sync}: nothing can be committed; lower \
                 it with kafka-configs.sh"
            ),
        ));
    }
    Ok(())
}

/// Reads a lane's progress. Only call it after `init_transactions`: before that a predecessor may still commit.
pub(crate) fn read(
    admin: &Admin,
    settings: &kafka::Settings,
    topic: &str,
    lane: Lane,
) -> Result<Table, Obstacle> {
    let partition = i32::from(lane.0);
    let deadline = Instant::now() + OPEN_TRANSACTION_PATIENCE;
    let ends = loop {
        let ends = admin
            .ends(topic, &[partition], PATIENCE)
            .map_err(|error| passing("ask for the end of progress", &error))?;
        let ends =
            ends.first().copied().ok_or_else(|| Obstacle::Passing(format!("`{topic}` has no ends")))?;
        if ends.lso == ends.hw {
            break ends;
        }
        if Instant::now() > deadline {
            return Err(Obstacle::Hold(
                Reason::ProgressBlocked,
                format!(
                    "another producer has an open transaction on `{topic}` partition {partition} since offset {}: progress \
                     behind it is not known; find it with kafka-transactions.sh find-hanging (or describe-producers \
                     --topic {topic} --partition {partition}) and abort it; asked again every few seconds",
                    ends.lso
                ),
            ));
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    let (table, next) = read_committed(settings, topic, lane)?;
    if next < ends.lso {
        return Err(Obstacle::Passing(format!("progress was read up to {next} of {}", ends.lso)));
    }
    Ok(table)
}

/// Where committed progress ends now: it moves with every transaction of the lane's owner.
pub(crate) fn committed_end(admin: &Admin, topic: &str, lane: Lane) -> Result<i64, Obstacle> {
    let (_, end) = admin
        .offsets(topic, i32::from(lane.0), Isolation::Committed, PATIENCE)
        .map_err(|error| passing("ask for the end of progress", &error))?;
    Ok(end)
}

/// What is committed of a lane's progress so far, and up to which offset that is. The lane's owner may be about to commit
/// more.
pub(crate) fn read_committed(
    settings: &kafka::Settings,
    topic: &str,
    lane: Lane,
) -> Result<(Table, i64), Obstacle> {
    let partition = i32::from(lane.0);
    let mut table = Table::default();
    let mut unreadable = None;
    let end =
        kafka::read_partition(settings, topic, partition, 0, Isolation::Committed, PATIENCE, |record| {
            if table.apply(record.key, record.value).is_err() {
                unreadable.get_or_insert(record.offset);
            }
        })
        .map_err(|error| passing("read progress", &error))?;
    if let Some(offset) = unreadable {
        return Err(Obstacle::Hold(
            Reason::ProgressLost,
            format!(
                "`{topic}` partition {partition} holds a record at offset {offset} that is not progress in a format \
                 known here: someone else wrote to it, or a later version of the importer did; run that version, or \
                 take away others' right to write it"
            ),
        ));
    }
    Ok((table, end.next))
}

fn create(
    admin: &Admin,
    link: &Link,
    topic: &str,
    replication: i32,
    configs: &[(&str, &str)],
) -> Result<(), Obstacle> {
    match admin.create_topic(topic, i32::from(link.lanes), replication, configs, PATIENCE) {
        Ok(()) => {
            tracing::info!(topic, lanes = link.lanes, replication, "created a topic of the link");
            Ok(())
        }
        Err(error) => match error.code() {
            Some(KafkaCode::TOPIC_ALREADY_EXISTS) => Ok(()),
            Some(code) if code.is_authorization() => Err(Obstacle::Hold(
                Reason::TargetUnauthorized,
                format!(
                    "`{topic}` does not exist and may not be created ({code}); grant Create on it, or create it with {} \
                     partitions, replication {replication} and {configs:?}",
                    link.lanes
                ),
            )),
            _ => Err(passing("create the link's topics", &error)),
        },
    }
}

fn passing(what: &str, error: &kafka::Error) -> Obstacle {
    Obstacle::Passing(format!("cannot {what}: {error}"))
}

/// How long one question to the cluster may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long an open transaction may keep progress hidden before the lane says so.
const OPEN_TRANSACTION_PATIENCE: Duration = Duration::from_secs(5);
/// Thirty days: longer than consumers are usually away, short enough not to grow for ever.
const OFFSET_MAP_RETENTION_MS: &str = "2592000000";
