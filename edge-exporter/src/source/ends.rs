//! Where the logs of source partitions begin and end right now.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use kafka::{Admin, KafkaCode};

use crate::{partition::Partition, position::Ends};

/// Asks the leaders for the ends of some partitions, and notes them. The answers are in the order asked for.
pub(super) fn look(
    admin: &Admin,
    partitions: &[Arc<Partition>],
) -> Result<Vec<Result<Ends, KafkaCode>>, kafka::Error> {
    let names: Vec<(&str, i32)> =
        partitions.iter().map(|partition| (&*partition.topic.name, partition.number)).collect();
    let asked = Instant::now();
    let ends = admin.ends_of(&names, TIMEOUT)?;
    let looked = partitions.iter().zip(ends).map(|(partition, ends)| {
        let ends = ends?;
        partition.looked(asked, ends.low, ends.lso, ends.hw);
        Ok(Ends { log_start: ends.low, stable: ends.lso })
    });
    Ok(looked.collect())
}

/// Whether the last look was long enough ago for another one.
pub(super) fn is_due(partition: &Partition) -> bool {
    partition.facts().lag.looked_at().is_none_or(|at| at.elapsed() >= INTERVAL)
}

const INTERVAL: Duration = Duration::from_secs(3);
const TIMEOUT: Duration = Duration::from_secs(5);
