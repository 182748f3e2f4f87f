//! What can be asked of an exporter at any time.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use observe::{
    Audit,
    admin::{Endpoints, Readiness},
    metrics::Metrics,
};

use crate::{
    holds::Holds,
    metrics::Meters,
    partition::{Cluster, Table},
    status::{LinkFacts, PartitionStatus, Status},
};

/// Shared by everything that runs, and by who looks from outside.
#[derive(Clone)]
pub(crate) struct View {
    pub(crate) link: Arc<str>,
    pub(crate) instance: Arc<str>,
    pub(crate) cluster: Cluster,
    pub(crate) table: Arc<Table>,
    pub(crate) holds: Arc<Mutex<Holds>>,
    pub(crate) facts: Arc<LinkFacts>,
    pub(crate) meters: Arc<Meters>,
    pub(crate) audit: Audit,
}

impl View {
    pub(super) fn status(&self) -> Status {
        let partitions = {
            let holds = self.holds.lock().unwrap_or_else(PoisonError::into_inner);
            PartitionStatus::all(&self.table, &holds, &self.meters)
        };
        let path = self.facts.path();
        Status {
            link: self.link.to_string(),
            instance: self.instance.to_string(),
            cluster: self.cluster.known().map(ToString::to_string),
            session: self.facts.session().map(|session| session.0),
            importer: self.facts.importer(),
            sessions: self.facts.sessions(),
            last_failure: self.facts.last_failure(),
            rtt_seconds: path.rtt.map(|rtt| rtt.as_secs_f64()),
            path: self.facts.measured(),
            wire_bytes: path.wire_bytes,
            lost_packets: path.lost_packets,
            records: partitions.iter().map(|partition| partition.records).sum(),
            plain_bytes: partitions.iter().map(|partition| partition.plain_bytes).sum(),
            lag_records: partitions.iter().map(|partition| partition.lag_records).sum(),
            lag_seconds: partitions.iter().map(|partition| partition.lag_seconds).fold(0.0, f64::max),
            audit_healthy: self.audit.healthy(),
            cluster_answers: self.cluster.answers(),
            partitions,
        }
    }

    /// What the HTTP endpoint answers with.
    pub(super) fn endpoints(&self, metrics: Arc<Metrics>) -> Endpoints {
        let (ready, status) = (self.clone(), self.clone());
        Endpoints {
            metrics,
            readiness: Arc::new(move || {
                Readiness::ready()
                    .and(ready.cluster.answers(), "the source cluster does not answer")
                    .and(ready.facts.session().is_some(), "no session with the importer")
                    .and(ready.audit.healthy(), "the audit log cannot be written")
            }),
            status: Arc::new(move || serde_json::to_value(status.status()).unwrap_or_default()),
        }
    }

    /// Keeps numbers up to date, and tries an audit log again that could not be written.
    pub(super) async fn tick(self) {
        let mut every = tokio::time::interval(TICK);
        let mut was_healthy = true;
        loop {
            every.tick().await;
            self.meters.refresh(&self.table, &self.facts, self.audit.healthy());
            let probed = if self.audit.healthy() {
                Ok(())
            } else {
                let audit = self.audit.clone();
                let probe = tokio::task::spawn_blocking(move || audit.probe());
                probe.await.unwrap_or(Ok(()))
            };
            let healthy = self.audit.healthy();
            match probed {
                Err(error) if was_healthy => {
                    tracing::error!(%error, "nothing is sent until the audit log can be written; it is tried every second");
                }
                Ok(()) if healthy && !was_healthy => {
                    tracing::info!("the audit log can be written again: sending goes on");
                }
                _ => {}
            }
            was_healthy = healthy;
        }
    }
}

const TICK: Duration = Duration::from_secs(1);
