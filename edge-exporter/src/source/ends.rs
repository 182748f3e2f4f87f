//! Where the logs of source partitions begin and end right now.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use kafka::Admin;

use crate::{
    partition::{Partition, Topic},
    position::Ends,
};

/// Asks the leaders for the ends of some partitions of one topic, and notes them.
pub(super) fn look(
    admin: &Admin,
    topic: &Topic,
    partitions: &[Arc<Partition>],
) -> Result<Vec<Ends>, kafka::Error> {
    let numbers: Vec<i32> = partitions.iter().map(|partition| partition.number).collect();
    let asked = Instant::now();
    let ends = admin.ends(&topic.name, &numbers, TIMEOUT)?;
    let looked = partitions.iter().zip(ends).map(|(partition, ends)| {
        partition.looked(asked, ends.low, ends.lso, ends.hw);
        Ends { log_start: ends.low, stable: ends.lso }
    });
    Ok(looked.collect())
}

/// Whether the last look was long enough ago for another one.
pub(super) fn is_due(partition: &Partition) -> bool {
    partition.facts().lag.looked_at().is_none_or(|at| at.elapsed() >= INTERVAL)
}

const INTERVAL: Duration = Duration::from_secs(3);
const TIMEOUT: Duration = Duration::from_secs(5);
